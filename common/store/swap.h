/* swap.h - the cache of preempted sequences in host memory, in an arena of places of one block each.
 *
 * A state, and a block of windowed layers, take as many places as they fill.  The arena has a fixed size: what does not
 * fit is computed again.  A run's places are chained, so swapping allocates nothing.  Threads: engine thread only. */
#ifndef STORE_SWAP_H
#define STORE_SWAP_H
#include "base/error.h"
#include "kv/kv_pool.h"
#include "kv/state_pool.h"

struct kv_store;
struct swap;

struct swap_run { /* the places of one sequence; zeroed: none */
    uint32_t head, n;
};

struct swap_things { /* of one sequence: blocks, those of windowed layers, a slot (STATE_SLOT_NONE: it has none) */
    const kv_block_id *blocks, *window_blocks;
    uint32_t n_blocks, n_window_blocks;
    state_slot_id slot;
};

/* An arena of at most `bytes` for blocks of `kv` (borrowed); 0 bytes: always full.  ERR_NO_MEMORY, with the numbers, if
 * it and the KV pool, which is not touched yet, would not fit the host's memory; ERR_INVALID if not a block fits. */
enum status swap_create(struct swap **out, const struct kv_store *kv, uint64_t bytes, struct error *err) MUST_CHECK;
void swap_destroy(struct swap *sw); /* NULL is fine */
/* Copies a sequence's things out; *run must be empty.  ERR_FULL: fewer places are free, or there is no block; nothing
 * has changed. */
enum status swap_out(struct swap *sw, const struct swap_things *things, struct swap_run *run) MUST_CHECK;
/* Copies the run back into as many things of the same kinds.  It is empty afterwards, also on failure. */
enum status swap_in(struct swap *sw, const struct swap_things *things, struct swap_run *run) MUST_CHECK;
void swap_drop(struct swap *sw, struct swap_run *run); /* gives the places back; an empty run is fine */
/* Places. */
uint32_t swap_n_used(const struct swap *sw);
#endif
