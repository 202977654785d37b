/* state_pool.c - slots are counted as blocks are (kv_pool.h), and snapshots are found as full blocks are. */
#include "kv/state_pool.h"

#include "base/kv_block.h"
#include "base/mem.h"

#include <assert.h>

struct state_pool {
    struct kv_pool *slots;
    struct prefix_cache *snapshots; /* by their tokens; idle slots, which the pool takes back when it has no others */
    uint32_t max_snapshots;
};

static enum status finish(struct state_pool **out, struct state_pool *p, enum status st)
{
    if (st == OK) st = prefix_cache_create(&p->snapshots, p->slots);
    if (st == OK)
        *out = p;
    else
        state_pool_destroy(p);
    return st;
}

enum status state_pool_create(struct state_pool **out, uint32_t n_slots)
{
    struct state_pool *p = mem_zalloc(sizeof(*p));
    p->max_snapshots = n_slots;
    return finish(out, p, kv_pool_create(&p->slots, n_slots));
}

enum status state_pool_create_runs(struct state_pool **out, struct kv_pool *memory, uint32_t run,
                                   uint32_t max_snapshots)
{
    struct state_pool *p = mem_zalloc(sizeof(*p));
    p->max_snapshots = max_snapshots;
    return finish(out, p, kv_pool_create_runs(&p->slots, memory, run));
}

void state_pool_destroy(struct state_pool *p)
{
    if (!p) return;
    prefix_cache_destroy(p->snapshots);
    kv_pool_destroy(p->slots);
    mem_free(p);
}

enum status state_pool_take(struct state_pool *p, state_slot_id *out)
{
    return kv_pool_take(p->slots, KV_ACTIVE, out) == OK ? OK : ERR_FULL;
}

void state_pool_give_back(struct state_pool *p, state_slot_id slot)
{
    kv_pool_unref(p->slots, slot);
}

state_slot_id state_pool_find(struct state_pool *p, const struct prefix_hash *hash)
{
    kv_block_id slot;
    if (!prefix_cache_find(p->snapshots, hash, &slot)) return STATE_SLOT_NONE;
    kv_pool_touch(p->slots, slot);
    return slot;
}

bool state_pool_has(const struct state_pool *p, const struct prefix_hash *hash)
{
    kv_block_id slot;
    return prefix_cache_find(p->snapshots, hash, &slot);
}

void state_pool_on_evict(struct state_pool *p, prefix_evict_fn evict, void *ctx)
{
    prefix_cache_on_evict(p->snapshots, evict, ctx);
}

uint32_t state_pool_longest(const struct state_pool *p, const struct prefix_hash *hashes, uint32_t n,
                            prefix_elsewhere_fn elsewhere, void *ctx)
{
    while (n > 0 && !state_pool_has(p, &hashes[n - 1]) && !(elsewhere && elsewhere(ctx, &hashes[n - 1]))) n--;
    return n;
}

void state_pool_keep(struct state_pool *p, const struct prefix_hash *hash, state_slot_id slot)
{
    prefix_cache_publish(p->snapshots, hash, slot);
    kv_pool_unref(p->slots, slot);
    if (state_pool_counts(p).n_snapshots > p->max_snapshots) kv_pool_evict(p->slots);
}

struct state_counts state_pool_counts(const struct state_pool *p)
{
    uint32_t by_state[KV_STATE_COUNT];
    kv_pool_counts(p->slots, by_state);
    return (struct state_counts){ kv_pool_n_blocks(p->slots), by_state[KV_ACTIVE], by_state[KV_CACHED] };
}

uint32_t state_interval(uint32_t n_snapshots, uint32_t max_blocks)
{
    uint32_t n = STATE_INTERVAL_MIN;
    if (n_snapshots == 0) return 0;
    while ((uint64_t)n * n_snapshots < 4 * (uint64_t)max_blocks) n *= 2;
    return n;
}

/* The last border of a block before the last token, which is always computed. */
static uint32_t last_border(uint32_t n_tokens)
{
    return (n_tokens - 1) / KV_BLOCK_TOKENS * KV_BLOCK_TOKENS;
}

uint32_t state_next_snapshot(uint32_t interval, uint32_t n_computed, uint32_t n_tokens)
{
    const uint32_t last = last_border(n_tokens);
    if (interval == 0 || last <= n_computed) return n_tokens;
    const uint64_t step = (uint64_t)interval * KV_BLOCK_TOKENS, next = (n_computed / step + 1) * step;
    return next < last ? (uint32_t)next : last;
}

bool state_is_due(uint32_t interval, uint32_t n_computed, uint32_t n_tokens)
{
    if (interval == 0 || n_computed == 0) return false;
    return n_computed % ((uint64_t)interval * KV_BLOCK_TOKENS) == 0 || n_computed == last_border(n_tokens);
}
