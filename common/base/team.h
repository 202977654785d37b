/* team.h - fork-join workers for compute: the caller and n - 1 threads run one function together.
 *
 * Workers spin briefly and then sleep on a futex.  One caller at a time. */
#ifndef BASE_TEAM_H
#define BASE_TEAM_H
#include "base/error.h"

#include <stdint.h>

struct team;
/* Runs as member `idx` of `n`; idx 0 is the caller. */
typedef void (*team_fn)(void *arg, uint32_t idx, uint32_t n);

/* cpus: list like "0-3,6" that member i is pinned to in turn, the calling thread (member 0) too, and with it the
 * threads that it starts later; or NULL for no pinning. */
enum status team_create(struct team **out, uint32_t n, const char *cpus, struct error *err) MUST_CHECK;
void team_destroy(struct team *t);
uint32_t team_size(const struct team *t);
void team_run(struct team *t, team_fn fn, void *arg);
/* The same for a fn whose members take their work from a shared counter: a member that is not awake before the
 * caller is through is left out, so a busy machine costs speed and not a wait.  */
void team_share(struct team *t, team_fn fn, void *arg);
#endif
