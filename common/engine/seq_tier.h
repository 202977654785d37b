/* seq_tier.h - a sequence and the tier: what the pools do not have of its prefix. */
#ifndef ENGINE_SEQ_TIER_H
#define ENGINE_SEQ_TIER_H
#include "engine/seq.h"
#include "store/kv_tier.h"

/* Its prefix goes on in the tier: seq_touch_tier() before blocks are taken, which may push others out of the tier;
 * seq_fill_from_tier() into blocks that it has, then the blocks of its windows and its state, unless those come with a
 * hand-off.  FILL_DONE: what is not there now has to be computed, or leads nowhere from which it could go on.
 * FILL_READING: the next piece is being read.  FILL_LATER: it is past `until_us` of the clock.  compute_us, may_read:
 * kv_tier_get(). */
enum seq_fill { FILL_DONE, FILL_READING, FILL_LATER };
void seq_touch_tier(struct seq *s, struct kv_tier *tier);
enum seq_fill seq_fill_from_tier(struct seq *s, struct kv_pool *pool, struct kv_tier *tier, double compute_us,
                                 bool may_read, uint64_t until_us);
/* What is half filled is given back. */
void seq_stop_filling(struct seq *s);
#endif
