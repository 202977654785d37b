/* kv_pool.c - free block ids, a list of idle ones that are worth keeping, a count and a state per block. */
#include "base/mem.h"
#include "kv/kv_pool_internal.h"

#include <assert.h>
#include <stddef.h>

#define WORD 64u

static const char *const STATE_NAMES[KV_STATE_COUNT] = {
    [KV_FREE] = "free",     [KV_RESERVED] = "reserved", [KV_RECEIVING] = "receiving",
    [KV_ACTIVE] = "active", [KV_SENDING] = "sending",   [KV_CACHED] = "cached",
};

const char *kv_block_state_name(enum kv_block_state s)
{
    return (unsigned)s < KV_STATE_COUNT ? STATE_NAMES[s] : "unknown";
}

/* The only writer of a block's state, so the counts cannot drift from it. */
void kv_pool_move(struct kv_pool *pool, kv_block_id id, enum kv_block_state to)
{
    struct kv_block *b = &pool->blocks[id];
    if (b->state == to) return;
    atomic_fetch_sub_explicit(&pool->counts[b->state], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&pool->counts[to], 1, memory_order_relaxed);
    b->state = to;
}

bool kv_pool_is_free(const struct kv_pool *pool, kv_block_id id)
{
    return pool->free[id / WORD] >> id % WORD & 1;
}

void kv_pool_free_add(struct kv_pool *pool, kv_block_id id)
{
    pool->free[id / WORD] |= 1ull << id % WORD;
    if (id / WORD < pool->first_free) pool->first_free = id / WORD;
    pool->n_free++;
}

void kv_pool_free_remove(struct kv_pool *pool, kv_block_id id)
{
    assert(kv_pool_is_free(pool, id));
    pool->free[id / WORD] &= ~(1ull << id % WORD);
    pool->n_free--;
}

static kv_block_id lowest_free(struct kv_pool *pool)
{
    const kv_block_id beside = kv_runs_beside(pool);
    if (beside != KV_NONE) return beside;
    while (pool->free[pool->first_free] == 0) pool->first_free++;
    return pool->first_free * WORD + (uint32_t)__builtin_ctzll(pool->free[pool->first_free]);
}

enum status kv_pool_create(struct kv_pool **out, uint32_t n_blocks)
{
    if (n_blocks == 0) return ERR_INVALID;
    struct kv_pool *pool = mem_zalloc(sizeof(*pool));
    void *blocks = NULL, *bits = NULL;
    enum status st = mem_try_array(&blocks, n_blocks, sizeof(*pool->blocks));
    if (st == OK) st = mem_try_array(&bits, (n_blocks + WORD - 1) / WORD, sizeof(*pool->free));
    if (st != OK) {
        mem_free(blocks);
        mem_free(pool);
        return st;
    }
    pool->blocks = blocks;
    pool->free = bits;
    pool->n_blocks = n_blocks;
    pool->oldest = pool->last = KV_NONE;
    for (kv_block_id id = 0; id < n_blocks; id++) kv_pool_free_add(pool, id);
    atomic_store(&pool->counts[KV_FREE], n_blocks);
    *out = pool;
    return OK;
}

void kv_pool_destroy(struct kv_pool *pool)
{
    if (!pool) return;
    if (pool->memory) kv_runs_leave(pool);
    assert(pool->n_free + pool->n_idle == (pool->memory ? 0 : pool->n_blocks) && "a block outlives its pool");
    mem_free(pool->blocks);
    mem_free(pool->free);
    mem_free(pool->busy);
    mem_free(pool->unfree);
    mem_free(pool);
}

static void idle_add(struct kv_pool *pool, kv_block_id id)
{
    struct kv_block *b = &pool->blocks[id];
    b->prev = pool->last;
    b->next = KV_NONE;
    *(b->prev == KV_NONE ? &pool->oldest : &pool->blocks[b->prev].next) = id;
    pool->last = id;
    b->used = ++(pool->memory ? pool->memory : pool)->clock;
    pool->n_idle++;
}

static void idle_remove(struct kv_pool *pool, kv_block_id id)
{
    const struct kv_block *b = &pool->blocks[id];
    *(b->prev == KV_NONE ? &pool->oldest : &pool->blocks[b->prev].next) = b->next;
    *(b->next == KV_NONE ? &pool->last : &pool->blocks[b->next].prev) = b->prev;
    pool->n_idle--;
}

/* An idle block is free now; who keeps blocks does not hear of it. */
void kv_pool_drop(struct kv_pool *pool, kv_block_id id)
{
    idle_remove(pool, id);
    pool->blocks[id].kept = false;
    kv_pool_move(pool, id, KV_FREE);
    kv_pool_free_add(pool, id);
    kv_runs_count(pool, id, 0, -1);
    if (pool->memory) kv_runs_mark(pool, id, KV_ACTIVE);
}

void kv_pool_forget(struct kv_pool *pool, kv_block_id id)
{
    if (kv_pool_is_free(pool, id)) return;
    pool->forget(pool->ctx, id);
    kv_pool_drop(pool, id);
}

void kv_pool_evict(struct kv_pool *pool)
{
    const kv_block_id id = pool->oldest;
    kv_pool_forget(pool, id);
    kv_runs_spare(pool, id);
}

enum status kv_pool_take(struct kv_pool *pool, enum kv_block_state state, kv_block_id *out)
{
    assert(state != KV_FREE && state < KV_STATE_COUNT);
    if (pool->n_free == 0 && !(pool->memory ? kv_runs_find(pool) : kv_runs_evict_for_blocks(pool)))
        return ERR_NO_BLOCKS;
    const kv_block_id id = lowest_free(pool);
    assert(pool->blocks[id].refs == 0 && pool->blocks[id].state == KV_FREE);
    kv_pool_free_remove(pool, id);
    pool->blocks[id].refs = 1;
    kv_runs_count(pool, id, 1, 1);
    kv_pool_move(pool, id, state);
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
    if (b->refs == 1 || !is_read || !holds) kv_pool_move(pool, id, state);
}

void kv_pool_ref(struct kv_pool *pool, kv_block_id id)
{
    struct kv_block *b = &pool->blocks[id];
    assert(id < pool->n_blocks && (b->refs > 0 || b->kept));
    if (b->refs++ > 0) return;
    idle_remove(pool, id);
    kv_runs_count(pool, id, 1, 0);
    if (pool->memory) kv_runs_mark(pool, id, KV_ACTIVE);
}

void kv_pool_unref(struct kv_pool *pool, kv_block_id id)
{
    struct kv_block *b = &pool->blocks[id];
    assert(id < pool->n_blocks && b->refs > 0);
    if (--b->refs > 0) return;
    kv_runs_count(pool, id, -1, b->kept ? 0 : -1);
    kv_pool_move(pool, id, b->kept ? KV_CACHED : KV_FREE);
    if (b->kept) {
        idle_add(pool, id);
        if (pool->memory) kv_runs_mark(pool, id, KV_CACHED);
        return;
    }
    kv_pool_free_add(pool, id);
    kv_runs_spare(pool, id);
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
    return pool->n_free + pool->n_idle + kv_runs_n_idle(pool);
}

uint32_t kv_pool_n_blocks(const struct kv_pool *pool)
{
    return pool->n_blocks;
}

void kv_pool_counts(const struct kv_pool *pool, uint32_t counts[KV_STATE_COUNT])
{
    for (int s = 0; s < KV_STATE_COUNT; s++) counts[s] = atomic_load_explicit(&pool->counts[s], memory_order_relaxed);
}
