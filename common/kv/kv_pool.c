/* kv_pool.c - a free stack of block ids, a list of idle ones that are worth keeping, a count and a state per block. */
#include "kv/kv_pool.h"

#include "base/mem.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#define NONE UINT32_MAX

struct kv_block {
    uint32_t refs;
    enum kv_block_state state;
    bool kept;              /* goes to the idle list, not to the free one */
    kv_block_id prev, next; /* in the idle list, while it has no reference */
};

struct kv_pool {
    uint32_t n_blocks, n_free, n_idle;
    struct kv_block *blocks;
    kv_block_id *free;        /* stack: the last one freed is the next one taken, its memory is warm */
    kv_block_id oldest, last; /* idle list, by last use; NONE: empty */
    kv_forget_fn forget;
    void *ctx;
    /* Written by the engine thread only, read by metrics from any thread: each number is true by
     * itself, a sum over states may be off by the moves under way.  Relaxed is enough. */
    atomic_uint counts[KV_STATE_COUNT];
};

static const char *const STATE_NAMES[KV_STATE_COUNT] = {
    [KV_FREE] = "free",     [KV_RESERVED] = "reserved", [KV_RECEIVING] = "receiving",
    [KV_ACTIVE] = "active", [KV_SENDING] = "sending",   [KV_CACHED] = "cached",
};

const char *kv_block_state_name(enum kv_block_state s)
{
    return (unsigned)s < KV_STATE_COUNT ? STATE_NAMES[s] : "unknown";
}

/* The only writer of a block's state, so the counts cannot drift from it. */
static void move_to(struct kv_pool *pool, kv_block_id id, enum kv_block_state to)
{
    struct kv_block *b = &pool->blocks[id];
    if (b->state == to) return;
    atomic_fetch_sub_explicit(&pool->counts[b->state], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&pool->counts[to], 1, memory_order_relaxed);
    b->state = to;
}

enum status kv_pool_create(struct kv_pool **out, uint32_t n_blocks)
{
    if (n_blocks == 0) return ERR_INVALID;
    struct kv_pool *pool = mem_zalloc(sizeof(*pool));
    void *blocks = NULL, *ids = NULL;
    enum status st = mem_try_array(&blocks, n_blocks, sizeof(*pool->blocks));
    if (st == OK) st = mem_try_array(&ids, n_blocks, sizeof(*pool->free));
    if (st != OK) {
        mem_free(blocks);
        mem_free(pool);
        return st;
    }
    pool->blocks = blocks;
    pool->free = ids;
    pool->n_blocks = pool->n_free = n_blocks;
    pool->oldest = pool->last = NONE;
    for (uint32_t i = 0; i < n_blocks; i++) pool->free[i] = n_blocks - 1 - i;
    atomic_store(&pool->counts[KV_FREE], n_blocks);
    *out = pool;
    return OK;
}

void kv_pool_destroy(struct kv_pool *pool)
{
    if (!pool) return;
    assert(pool->n_free + pool->n_idle == pool->n_blocks && "a block outlives its pool");
    mem_free(pool->blocks);
    mem_free(pool->free);
    mem_free(pool);
}

static void idle_add(struct kv_pool *pool, kv_block_id id)
{
    struct kv_block *b = &pool->blocks[id];
    b->prev = pool->last;
    b->next = NONE;
    *(b->prev == NONE ? &pool->oldest : &pool->blocks[b->prev].next) = id;
    pool->last = id;
    pool->n_idle++;
}

static void idle_remove(struct kv_pool *pool, kv_block_id id)
{
    const struct kv_block *b = &pool->blocks[id];
    *(b->prev == NONE ? &pool->oldest : &pool->blocks[b->prev].next) = b->next;
    *(b->next == NONE ? &pool->last : &pool->blocks[b->next].prev) = b->prev;
    pool->n_idle--;
}

static void evict_oldest(struct kv_pool *pool)
{
    kv_block_id id = pool->oldest;
    idle_remove(pool, id);
    pool->blocks[id].kept = false;
    pool->forget(pool->ctx, id);
    move_to(pool, id, KV_FREE);
    pool->free[pool->n_free++] = id;
}

enum status kv_pool_take(struct kv_pool *pool, enum kv_block_state state, kv_block_id *out)
{
    assert(state != KV_FREE && state < KV_STATE_COUNT);
    if (pool->n_free == 0 && pool->n_idle > 0) evict_oldest(pool);
    if (pool->n_free == 0) return ERR_NO_BLOCKS;
    kv_block_id id = pool->free[--pool->n_free];
    assert(pool->blocks[id].refs == 0 && pool->blocks[id].state == KV_FREE);
    pool->blocks[id].refs = 1;
    move_to(pool, id, state);
    *out = id;
    return OK;
}

void kv_pool_set_state(struct kv_pool *pool, kv_block_id id, enum kv_block_state state)
{
    const struct kv_block *b = &pool->blocks[id];
    assert(id < pool->n_blocks && b->refs > 0);
    assert(state != KV_FREE && state < KV_STATE_COUNT);
    /* Who merely holds a shared block does not say what it is while others read it. */
    bool is_read = b->state == KV_ACTIVE || b->state == KV_SENDING;
    bool holds = state == KV_RESERVED || state == KV_RECEIVING;
    if (b->refs == 1 || !is_read || !holds) move_to(pool, id, state);
}

void kv_pool_ref(struct kv_pool *pool, kv_block_id id)
{
    struct kv_block *b = &pool->blocks[id];
    assert(id < pool->n_blocks && (b->refs > 0 || b->kept));
    if (b->refs++ == 0) idle_remove(pool, id);
}

void kv_pool_unref(struct kv_pool *pool, kv_block_id id)
{
    struct kv_block *b = &pool->blocks[id];
    assert(id < pool->n_blocks && b->refs > 0);
    if (--b->refs > 0) return;
    move_to(pool, id, b->kept ? KV_CACHED : KV_FREE);
    if (b->kept)
        idle_add(pool, id);
    else
        pool->free[pool->n_free++] = id;
}

void kv_pool_on_forget(struct kv_pool *pool, kv_forget_fn forget, void *ctx)
{
    pool->forget = forget;
    pool->ctx = ctx;
}

void kv_pool_keep(struct kv_pool *pool, kv_block_id id)
{
    assert(id < pool->n_blocks && pool->blocks[id].refs > 0 && pool->forget);
    pool->blocks[id].kept = true;
}

void kv_pool_touch(struct kv_pool *pool, kv_block_id id)
{
    assert(id < pool->n_blocks && pool->blocks[id].kept);
    if (pool->blocks[id].refs > 0) return;
    idle_remove(pool, id);
    idle_add(pool, id);
}

uint32_t kv_pool_n_free(const struct kv_pool *pool)
{
    return pool->n_free + pool->n_idle;
}

uint32_t kv_pool_n_blocks(const struct kv_pool *pool)
{
    return pool->n_blocks;
}

void kv_pool_counts(const struct kv_pool *pool, uint32_t counts[KV_STATE_COUNT])
{
    for (int s = 0; s < KV_STATE_COUNT; s++) counts[s] = atomic_load_explicit(&pool->counts[s], memory_order_relaxed);
}
