/* kv_pool.h - hands out KV blocks by id, counts who still needs them, and in which state they are.
 *
 * The pool knows ids, not bytes: memory belongs to the kv store.  When its last reference goes, a block returns to the
 * free list, or, if it is kept, waits idle until it is referenced again or its turn to be taken comes (rules:
 * kv/README.md).  Threads: engine thread only, except kv_pool_counts(). */
#ifndef KV_KV_POOL_H
#define KV_KV_POOL_H
#include "base/status.h"

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

/* Blocks that can be taken: free ones and idle ones. */
uint32_t kv_pool_n_free(const struct kv_pool *pool);
uint32_t kv_pool_n_blocks(const struct kv_pool *pool);
/* Blocks per state; atomics, so any thread may read them. */
void kv_pool_counts(const struct kv_pool *pool, uint32_t counts[KV_STATE_COUNT]);
#endif
