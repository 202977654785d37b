/* cache_plan.h - how a node's memory for its cache is divided: KV blocks, states of running sequences, snapshots. */
#ifndef NODE_CACHE_PLAN_H
#define NODE_CACHE_PLAN_H
#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct cache_need {
    uint64_t kv_memory, snapshot_bytes; /* as configured */
    size_t block_bytes, state_bytes;    /* of a block over all layers, of a sequence's recurrent states; 0: none */
    uint32_t max_seqs, max_context;
    size_t window_bytes;    /* what layers with a window have of block_bytes */
    uint32_t window_blocks; /* of such layers that a sequence holds at most */
};

struct cache_plan {
    uint32_t n_blocks;
    uint32_t n_window_blocks; /* of layers with a window; 0: the model has none */
    uint32_t n_slots;         /* for states: max_seqs, and those of snapshots; 0: the model has none */
};

/* kv_memory holds the states of max_seqs sequences and KV blocks, snapshot_bytes snapshots beside it.  A model without
 * KV has as many blocks, which cost a few bytes each, as max_seqs sequences of max_context and as many that are kept
 * ask for.  Layers with a window get fewer blocks than the others: as if a sequence were half of max_context long, but
 * no less than a quarter.  ERR_INVALID, with the numbers, if there is no room for a block, or snapshots are asked for
 * and there is none for one. */
enum status cache_plan(struct cache_plan *out, const struct cache_need *need, struct error *err) MUST_CHECK;
#endif
