/* window_table.c - a block table that gives its oldest entries back. */
#include "kv/window_table.h"

#include "base/mem.h"

#include <assert.h>

uint32_t window_blocks_max(uint32_t window, uint32_t chunk, uint32_t n_tokens)
{
    /* The window before the chunk's first row and the chunk, neither of which need begin at a border. */
    const uint64_t held = ((uint64_t)window + chunk) / KV_BLOCK_TOKENS + 2;
    const uint32_t all = block_table_blocks_for(n_tokens);
    return held < all ? (uint32_t)held : all;
}

static enum status finish(struct windows **out, struct windows *w, bool caches, enum status st)
{
    if (st == OK && caches) st = prefix_cache_create(&w->cache, w->pool);
    if (st == OK)
        *out = w;
    else
        windows_destroy(w);
    return st;
}

enum status windows_create(struct windows **out, uint32_t n_blocks, uint32_t tokens, bool caches)
{
    struct windows *w = mem_zalloc(sizeof(*w));
    w->tokens = tokens;
    return finish(out, w, caches, kv_pool_create(&w->pool, n_blocks));
}

enum status windows_create_runs(struct windows **out, struct kv_pool *memory, uint32_t run, uint32_t tokens,
                                bool caches)
{
    struct windows *w = mem_zalloc(sizeof(*w));
    w->tokens = tokens;
    return finish(out, w, caches, kv_pool_create_runs(&w->pool, memory, run));
}

void windows_destroy(struct windows *w)
{
    if (!w) return;
    prefix_cache_destroy(w->cache);
    kv_pool_destroy(w->pool);
    mem_free(w);
}

enum status window_table_init(struct window_table *t, uint32_t max_blocks)
{
    void *ids = NULL;
    enum status st = mem_try_array(&ids, max_blocks, sizeof(*t->ids));
    if (st != OK) return st;
    *t = (struct window_table){ .ids = ids, .cap = max_blocks };
    return OK;
}

void window_table_fini(struct window_table *t)
{
    assert(t->first == t->n && t->promised == 0 && "a table is freed with blocks in it");
    mem_free(t->ids);
    *t = (struct window_table){ 0 };
}

bool window_table_promise(struct window_table *t, struct windows *w, uint32_t n)
{
    if (n <= t->promised) return true;
    if (!kv_pool_reserve(w->pool, w->promised + (n - t->promised))) return false;
    w->promised += n - t->promised;
    t->promised = n;
    return true;
}

void window_table_lower(struct window_table *t, struct windows *w, uint32_t n)
{
    if (n >= t->promised) return;
    assert(t->n - t->first <= n);
    w->promised -= t->promised - n;
    t->promised = n;
    const bool is_less = kv_pool_reserve(w->pool, w->promised);
    assert(is_less && "what was promised to others stays");
    (void)is_less;
}

void window_table_share(struct window_table *t, struct windows *w, const struct prefix_hash *hashes, uint32_t first,
                        uint32_t n)
{
    assert(t->first == t->n && n <= t->cap && n - first <= t->promised);
    t->first = first;
    t->n = first + prefix_cache_match(w->cache, hashes + first, n - first, t->ids + first);
    assert(t->n == n);
}

bool window_table_share_next(struct window_table *t, struct windows *w, const struct prefix_hash *hash)
{
    kv_block_id id;
    if (!prefix_cache_find(w->cache, hash, &id)) return false;
    kv_pool_ref(w->pool, id);
    window_table_append(t, id);
    return true;
}

void window_table_append(struct window_table *t, kv_block_id id)
{
    assert(t->n < t->cap && t->n - t->first < t->promised);
    t->ids[t->n++] = id;
}

void window_table_grow(struct window_table *t, struct windows *w, uint32_t n)
{
    assert(n <= t->cap && n - t->first <= t->promised);
    for (; t->n < n; t->n++) {
        enum status st = kv_pool_take(w->pool, KV_ACTIVE, &t->ids[t->n]);
        assert(st == OK && "what is promised is there");
        (void)st;
    }
}

void window_table_slide(struct window_table *t, struct windows *w, uint32_t first)
{
    for (; t->first < first && t->first < t->n; t->first++) kv_pool_unref(w->pool, t->ids[t->first]);
}

void window_table_clear(struct window_table *t, struct windows *w)
{
    while (t->n > t->first) kv_pool_unref(w->pool, t->ids[--t->n]);
    t->first = t->n = 0;
    window_table_lower(t, w, 0);
}

uint32_t window_longest(const struct windows *w, const struct prefix_hash *hashes, uint32_t n,
                        prefix_elsewhere_fn elsewhere, void *ctx)
{
    kv_block_id id;
    uint32_t longest = n;
    for (uint32_t b = n; b > window_first_block(w->tokens, longest * KV_BLOCK_TOKENS); b--)
        if (!prefix_cache_find(w->cache, &hashes[b - 1], &id) && !(elsewhere && elsewhere(ctx, &hashes[b - 1])))
            longest = b - 1;
    return longest;
}

uint32_t window_run(const struct windows *w, const struct prefix_hash *hashes, uint32_t first, uint32_t n)
{
    kv_block_id id;
    uint32_t b = first;
    while (b < n && prefix_cache_find(w->cache, &hashes[b], &id)) b++;
    return b - first;
}
