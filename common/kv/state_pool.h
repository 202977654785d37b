/* state_pool.h - hands out slots for recurrent states: live ones of sequences, and snapshots that prefixes are found
 * by.
 *
 * A slot stands for the states of all recurrent layers after some token.  A sequence's live slot is its own and changes
 * with every step.  A snapshot is a copy of one, known by the hash of the tokens that it has seen; it never changes,
 * and stays until its slot is needed for something else, the one used longest ago first.  The pool knows ids, not
 * bytes: memory belongs to the state store.  No allocation after its creation.  Threads: engine thread only. */
#ifndef KV_STATE_POOL_H
#define KV_STATE_POOL_H
#include "base/status.h"
#include "kv/kv_pool.h"
#include "kv/prefix_cache.h"

#include <stdbool.h>
#include <stdint.h>

struct state_pool;
typedef uint32_t state_slot_id;
#define STATE_SLOT_NONE UINT32_MAX

/* ERR_INVALID: no slots. */
enum status state_pool_create(struct state_pool **out, uint32_t n_slots) MUST_CHECK;
/* Slots that are runs of blocks of `memory` (kv_pool_create_runs()), with at most max_snapshots of them besides live
 * ones. */
enum status state_pool_create_runs(struct state_pool **out, struct kv_pool *memory, uint32_t run,
                                   uint32_t max_snapshots) MUST_CHECK;
void state_pool_destroy(struct state_pool *p); /* NULL is fine; no slot may be live */

/* A live slot, for which a snapshot may be forgotten.  ERR_FULL: all are live. */
enum status state_pool_take(struct state_pool *p, state_slot_id *out) MUST_CHECK;
void state_pool_give_back(struct state_pool *p, state_slot_id slot);

/* The snapshot after the tokens that `hash` names, used just now; STATE_SLOT_NONE if there is none.  It lasts until a
 * slot is asked for. */
state_slot_id state_pool_find(struct state_pool *p, const struct prefix_hash *hash);
/* How many of the first n blocks have a snapshot behind them, here or elsewhere (NULL: nowhere): the largest m <= n
 * with one behind block m - 1, 0: none. */
bool state_pool_has(const struct state_pool *p, const struct prefix_hash *hash);
uint32_t state_pool_longest(const struct state_pool *p, const struct prefix_hash *hashes, uint32_t n,
                            prefix_elsewhere_fn elsewhere, void *ctx);
/* Somebody else may keep snapshots whose slots are needed: called while these still hold them. */
void state_pool_on_evict(struct state_pool *p, prefix_evict_fn evict, void *ctx);
/* The live slot holds the snapshot `hash`, which is not there yet, and is not live any more. */
void state_pool_keep(struct state_pool *p, const struct prefix_hash *hash, state_slot_id slot);

struct state_counts {
    uint32_t n_slots, n_live, n_snapshots;
};
struct state_counts state_pool_counts(const struct state_pool *p);

/* Every how many blocks snapshots are taken, so that a sequence of max_blocks leaves at most a quarter of n_snapshots:
 * a power of two, at least STATE_INTERVAL_MIN; 0: never, there is room for none. */
#define STATE_INTERVAL_MIN 4
uint32_t state_interval(uint32_t n_snapshots, uint32_t max_blocks);
/* Where a sequence of n_tokens, of which n_computed are, has its next snapshot: at the next multiple of `interval`
 * blocks, or at the last border of a block before its last token, whichever comes first; n_tokens: nowhere. */
uint32_t state_next_snapshot(uint32_t interval, uint32_t n_computed, uint32_t n_tokens);
/* Whether it has come to such a place. */
bool state_is_due(uint32_t interval, uint32_t n_computed, uint32_t n_tokens);
#endif
