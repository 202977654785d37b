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
    /* In one memory for all: what a block takes there, and how many of them a windows' block and a slot for states; 0:
     * these have a memory of their own, or there are none. */
    size_t shared_bytes;
    uint32_t window_run, slot_run;
};

struct cache_plan {
    uint32_t n_blocks;
    uint32_t n_window_blocks; /* of layers with a window; 0: the model has none */
    uint32_t n_slots;         /* for states in a memory of their own: max_seqs, and those of snapshots */
    uint32_t n_snapshots;     /* at most, where they share the blocks' memory */
    uint32_t n_blocks_each;   /* that one sequence can have beside its windows and its state */
};

/* One memory of kv_memory and snapshot_bytes holds blocks of all kinds and states, whatever running sequences ask for;
 * of snapshots at most as many as snapshot_bytes hold.  A model of blocks of one kind has that in kv_memory.  A model
 * of states alone has slots for max_seqs sequences there, and as many blocks, which cost a few bytes each, as max_seqs
 * sequences of max_context and as many that are kept ask for.  ERR_INVALID, with the numbers, if there is no room for a
 * block and what goes with it, or snapshots are asked for and there is none for one. */
enum status cache_plan(struct cache_plan *out, const struct cache_need *need, struct error *err) MUST_CHECK;
/* kv_memory where nobody has named it and `left` bytes are free for it and the snapshots: all of that, but no more than
 * max_seqs sequences of max_context and as many that are kept ask for. */
uint64_t cache_plan_memory(const struct cache_need *need, uint64_t left);
#endif
