/* kv_pool.h - hands out KV blocks by id, counts who still needs them, and in which state they are.
 *
 * The pool knows ids, not bytes: memory belongs to the kv store.  When its last reference goes, a block returns to the
 * free list, or, if it is kept, waits idle until it is referenced again or its turn to be taken comes (rules:
 * kv/README.md).  Free blocks are given out from the lowest id on.  Threads: engine thread only, except
 * kv_pool_counts(). */
#ifndef KV_KV_POOL_H
#define KV_KV_POOL_H
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

struct kv_pool;
typedef uint32_t kv_block_id;

enum kv_block_state { KV_FREE, KV_RESERVED, KV_RECEIVING, KV_ACTIVE, KV_SENDING, KV_CACHED, KV_STATE_COUNT };
const char *kv_block_state_name(enum kv_block_state s);

enum status kv_pool_create(struct kv_pool **out, uint32_t n_blocks) MUST_CHECK;
void kv_pool_destroy(struct kv_pool *pool); /* NULL is fine; all blocks must be free */
/* Takes a free block with one reference, or else the idle one that was used longest ago, which is forgotten.
 * ERR_NO_BLOCKS: the caller preempts or waits. */
enum status kv_pool_take(struct kv_pool *pool, enum kv_block_state state, kv_block_id *out) MUST_CHECK;
void kv_pool_set_state(struct kv_pool *pool, kv_block_id id, enum kv_block_state state);
void kv_pool_ref(struct kv_pool *pool, kv_block_id id);
void kv_pool_unref(struct kv_pool *pool, kv_block_id id);

/* Who keeps blocks hears of each one that is taken for something else; it has no reference then. */
typedef void (*kv_forget_fn)(void *ctx, kv_block_id id);
void kv_pool_on_forget(struct kv_pool *pool, kv_forget_fn forget, void *ctx);
/* A referenced block is worth keeping: without references it will be KV_CACHED, not KV_FREE. */
void kv_pool_keep(struct kv_pool *pool, kv_block_id id);
/* A kept block was used just now. */
void kv_pool_touch(struct kv_pool *pool, kv_block_id id);

/* Forgets the idle block that was used longest ago; there must be one. */
void kv_pool_evict(struct kv_pool *pool);

/* A pool in the memory of another: its block i is what blocks [i * run, (i + 1) * run) of `memory`, which has none
 * taken yet and outlives it, would be.  It has a run while one of its blocks is used, kept or reserved; what is idle on
 * either side gives way to the other in order of last use.  ERR_INVALID: not even one run fits. */
enum status kv_pool_create_runs(struct kv_pool **out, struct kv_pool *memory, uint32_t run) MUST_CHECK;
/* From now on, whatever others take, n blocks can be held at once; less than before gives room back.  False: there is
 * no room for so many, and nothing has changed but what was idle. */
bool kv_pool_reserve(struct kv_pool *pool, uint32_t n) MUST_CHECK;

/* Blocks that can be taken: free ones and idle ones, those that pools in this memory could give back included. */
uint32_t kv_pool_n_free(const struct kv_pool *pool);
uint32_t kv_pool_n_blocks(const struct kv_pool *pool);
/* Blocks per state; atomics, so any thread may read them. */
void kv_pool_counts(const struct kv_pool *pool, uint32_t counts[KV_STATE_COUNT]);
#endif
