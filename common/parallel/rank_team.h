/* rank_team.h - one thread for each rank: all run the same function, each for itself.
 *
 * Rank 0 is the caller's own thread, so one rank costs nothing.  The others sleep between runs. */
#ifndef PARALLEL_RANK_TEAM_H
#define PARALLEL_RANK_TEAM_H
#include "base/error.h"

#include <stdint.h>

struct coll;
struct rank_team;

typedef enum status (*rank_fn)(void *ctx, uint32_t rank);

/* groups[n]: each rank's group of all ranks, borrowed; NULL if their functions never wait for each other. */
enum status rank_team_create(struct rank_team **out, uint32_t n, const struct coll *const *groups,
                             struct error *err) MUST_CHECK;
void rank_team_destroy(struct rank_team *t); /* NULL is fine; joins the threads */
uint32_t rank_team_size(const struct rank_team *t);
/* Runs fn on all ranks and returns when all have returned: OK, or the failure that came first, with its rank in *who
 * (which may be NULL).  A rank that fails aborts the group: no other waits for it.  One caller at a time. */
enum status rank_team_run(struct rank_team *t, rank_fn fn, void *ctx, uint32_t *who) MUST_CHECK;
#endif
