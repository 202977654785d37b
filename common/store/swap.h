/* swap.h - KV of preempted sequences in host memory, in an arena of slots of one block each.
 *
 * The arena has a fixed size: what does not fit is computed again.  A run's slots are chained, so swapping allocates
 * nothing.  Threads: engine thread only. */
#ifndef STORE_SWAP_H
#define STORE_SWAP_H
#include "base/error.h"
#include "kv/kv_pool.h"

struct kv_store;
struct swap;

struct swap_run { /* the slots of one sequence, in order of its blocks; zeroed: none */
    uint32_t head, n;
};

/* An arena of at most `bytes` for blocks of `kv` (borrowed); 0 bytes: always full.  ERR_NO_MEMORY, with the numbers, if
 * it and the KV pool, which is not touched yet, would not fit the host's memory; ERR_INVALID if not a block fits. */
enum status swap_create(struct swap **out, const struct kv_store *kv, uint64_t bytes, struct error *err) MUST_CHECK;
void swap_destroy(struct swap *sw); /* NULL is fine */
/* Copies n blocks out; *run must be empty.  ERR_FULL: fewer slots are free, nothing has changed. */
enum status swap_out(struct swap *sw, const kv_block_id *blocks, uint32_t n, struct swap_run *run) MUST_CHECK;
/* Copies run's blocks back into `blocks` [run->n].  The run is empty afterwards, also on failure. */
enum status swap_in(struct swap *sw, const kv_block_id *blocks, struct swap_run *run) MUST_CHECK;
void swap_drop(struct swap *sw, struct swap_run *run); /* gives the slots back; an empty run is fine */
uint32_t swap_n_used(const struct swap *sw);
#endif
