/* ranks.h - the ranks of one process: each has a thread, a backend, and its place in the groups.
 *
 * Threads: who opened them is rank 0's thread, or hands that on to one that it starts; one caller at a time. */
#ifndef PARALLEL_RANKS_H
#define PARALLEL_RANKS_H
#include "compute/backend.h"

struct coll;
struct rank_team;
struct ranks;

#define RANKS_MAX_TP 64
#define RANKS_MAX_PP 64

/* tp x pp ranks, each with a backend of that kind, opened on its own thread.  `opt` is for all of them: a stage's
 * members share out its threads and processors, and stages, of which one computes at a time, all use them.  Where there
 * are fewer than members, each has one thread, and processors are used by several.  Caller owns. */
enum status ranks_open(struct ranks **out, uint32_t tp, uint32_t pp, const char *backend,
                       const struct backend_options *opt, struct error *err) MUST_CHECK;
/* The same with backends[tp * pp] that stay the caller's, and outlive the ranks. */
enum status ranks_join(struct ranks **out, uint32_t tp, uint32_t pp, struct backend *const *backends,
                       struct error *err) MUST_CHECK;
void ranks_close(struct ranks *r); /* NULL is fine */

uint32_t ranks_tp(const struct ranks *r);
uint32_t ranks_pp(const struct ranks *r);
struct rank_team *ranks_team(const struct ranks *r);
struct backend *ranks_backend(const struct ranks *r, uint32_t rank);
/* A rank's groups: of its stage, and of all ranks. */
const struct coll *ranks_stage(const struct ranks *r, uint32_t rank);
const struct coll *ranks_all(const struct ranks *r, uint32_t rank);
#endif
