/* pairs.h - which prefill and decode nodes could not reach each other lately.
 *
 * A pair whose hand-off failed on its way is passed over for 1 s, then twice as long with each failure in a row, up to
 * 30 s; when that is over one request tries it.  Forgotten when a hand-off succeeds, or one of the two is gone or new.
 * A pure table: no I/O, no clock; times are microseconds. */
#ifndef CLUSTER_PAIRS_H
#define CLUSTER_PAIRS_H
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

#define PAIRS_MAX        256 /* past it the one that failed longest ago makes room */
#define PAIRS_FIRST_US   1000000u
#define PAIRS_LONGEST_US 30000000u
#define PAIRS_OFTEN      2 /* failures in a row that are more than a lost connection */

struct pair { /* by the nodes' incarnations */
    uint64_t prefill, decode;
    uint32_t n_failed; /* in a row */
    uint64_t failed_at, until;
};

struct pairs {
    struct pair rows[PAIRS_MAX];
    uint32_t n;
};

/* Whether a failed hand-off says that something is wrong between the two. */
bool pairs_is_unreached(enum status st);
/* `begun`: when the hand-off began that has failed now.  What was under way together fails together, and counts once.
 */
void pairs_failed(struct pairs *t, uint64_t prefill, uint64_t decode, uint64_t begun, uint64_t now);
void pairs_worked(struct pairs *t, uint64_t prefill, uint64_t decode);
/* The pair was chosen: others pass it over until its hand-off has failed or worked, or as long again. */
void pairs_tried(struct pairs *t, uint64_t prefill, uint64_t decode, uint64_t now);
void pairs_forget(struct pairs *t, uint64_t node); /* of either role */
static inline bool pair_is_broken(const struct pair *p, uint64_t now)
{
    return now < p->until;
}
static inline bool pair_fails_often(const struct pair *p)
{
    return p->n_failed >= PAIRS_OFTEN;
}
/* It failed just now, and not for the first time: even where there is no other one it is given a moment. */
static inline bool pair_needs_rest(const struct pair *p, uint64_t now)
{
    return pair_fails_often(p) && now < p->failed_at + PAIRS_FIRST_US;
}
#endif
