/* seq_prefix.c - hashes a sequence's full blocks as they come, and trades them with the prefix cache. */
#include "engine/seq_prefix.h"

#include "engine/seq_tier.h"

#include <assert.h>
#include <stdio.h>

struct prefix_hash seq_prefix_root(const struct prefix_hash *cluster, uint32_t adapter, const char *salt)
{
    char name[16] = "";
    if (adapter != 0) snprintf(name, sizeof(name), "%u", adapter);
    return prefix_hash_root(cluster, name, salt ? salt : "");
}

/* Hashes blocks up to n; their tokens are known and never change. */
static void hash_blocks(struct seq *s, uint32_t n)
{
    struct prefix_chain *c = &s->prefix;
    for (; c->n_hashes < n; c->n_hashes++) {
        const struct prefix_hash *prev = c->n_hashes ? &c->hashes[c->n_hashes - 1] : &c->root;
        const int32_t *ids = s->tokens + c->n_hashes * KV_BLOCK_TOKENS;
        c->hashes[c->n_hashes] = prefix_hash_extend(&c->root, prev, ids, KV_BLOCK_TOKENS);
    }
}

/* The block of the last token of its input. */
static uint32_t tail_block(const struct seq *s)
{
    return (s->n_input - 1) / KV_BLOCK_TOKENS;
}

static const struct prefix_hash *hash_tail(struct seq *s)
{
    struct prefix_chain *c = &s->prefix;
    uint32_t b = tail_block(s), t0 = b * KV_BLOCK_TOKENS;
    if (c->has_tail) return &c->tail;
    hash_blocks(s, b);
    c->tail = prefix_hash_extend(&c->root, b ? &c->hashes[b - 1] : &c->root, s->tokens + t0, s->n_input - t0);
    c->has_tail = true;
    return &c->tail;
}

/* Logprobs of a prompt and hidden states come from computing it. */
bool seq_is_looked_up(const struct seq *s)
{
    return s->prefix.cache && s->sampling.n_prompt_logprobs < 0 && !s->wants_hidden;
}

/* The last token is always computed. */
static uint32_t blocks_to_find(const struct seq *s)
{
    return (s->n_tokens - 1) / KV_BLOCK_TOKENS;
}

static bool tier_has_window(void *tier, const struct prefix_hash *hash)
{
    return kv_tier_has_thing(tier, KV_TIER_WINDOW_BLOCK, hash);
}

static bool tier_has_state(void *tier, const struct prefix_hash *hash)
{
    return kv_tier_has_thing(tier, KV_TIER_STATE, hash);
}

/* How many of the first n blocks are of use to a sequence: up to where it also has the windows' last blocks and the
 * state.  Of a reservation the state comes with the hand-off, and of the windows what the cache lacks. */
static uint32_t usable(const struct seq *s, const struct kv_tier *tier, uint32_t n)
{
    const struct prefix_hash *hashes = s->prefix.hashes;
    void *ctx = (void *)(uintptr_t)tier;
    if (seq_is_reservation(s)) {
        const uint32_t first = s->windows ? seq_window_first(s) : n;
        return n > first ? first + window_run(s->windows, hashes, first, n) : n;
    }
    for (uint32_t before = n + 1; n < before;) { /* until both agree */
        before = n;
        if (s->windows) n = window_longest(s->windows, hashes, n, tier ? tier_has_window : NULL, ctx);
        if (s->states) n = state_pool_longest(s->states, hashes, n, tier ? tier_has_state : NULL, ctx);
    }
    return n;
}

uint32_t seq_blocks_of_use(struct seq *s, const struct kv_tier *tier)
{
    const uint32_t n = blocks_to_find(s);
    hash_blocks(s, n);
    return usable(s, tier, n);
}

void seq_take_prefix(struct seq *s, struct kv_pool *pool, const struct kv_tier *tier)
{
    struct prefix_chain *c = &s->prefix;
    assert(s->table.n == 0);
    if (!seq_is_looked_up(s)) return;
    const uint32_t n = seq_blocks_of_use(s, tier);
    s->table.n = prefix_cache_match(c->cache, c->hashes, n, s->table.ids);
    if (s->table.n < n && !tier) /* otherwise the tier may have the rest */
        for (uint32_t m = usable(s, NULL, s->table.n); s->table.n > m;) kv_pool_unref(pool, s->table.ids[--s->table.n]);
    c->n_published = s->table.n;
    s->n_computed = s->table.n * KV_BLOCK_TOKENS;
    /* What it will copy should not be what makes room for it. */
    if (c->n_published == tail_block(s)) prefix_cache_touch(c->cache, hash_tail(s), 1);
}

bool seq_find_tail(struct seq *s, kv_block_id *to, kv_block_id *from)
{
    const uint32_t b = tail_block(s);
    if (s->states || s->windows) return false; /* whose blocks and states are shared at borders */
    if (!seq_is_looked_up(s) || s->n_tokens != s->n_input || s->n_computed != b * KV_BLOCK_TOKENS) return false;
    if (s->n_tokens - s->n_computed < 2) return false; /* the last token alone */
    *to = s->table.ids[b];
    return prefix_cache_find(s->prefix.cache, hash_tail(s), from);
}

void seq_took_tail(struct seq *s)
{
    s->n_computed = s->n_tokens - 1;
}

/* Up to block n, those that it still has. */
static void publish_window(struct seq *s, uint32_t n)
{
    uint32_t b = s->n_window_published > s->window.first ? s->n_window_published : s->window.first;
    for (; b < n && b < s->window.n; b++)
        prefix_cache_publish(s->windows->cache, &s->prefix.hashes[b], s->window.ids[b]);
    s->n_window_published = b;
}

bool seq_begin_window(struct seq *s)
{
    struct windows *w = s->windows;
    const uint32_t n = s->n_computed / KV_BLOCK_TOKENS;
    if (!w) return true;
    const uint32_t first = seq_window_first(s);
    if (s->window.n > s->window.first) return s->window.first <= first; /* reserved before */
    const uint32_t shared = n > first ? n - first : 0;
    if (shared > 0 && window_run(w, s->prefix.hashes, first, n) < shared) return false;
    window_table_share(&s->window, w, s->prefix.hashes, first, first + shared);
    s->n_window_published = first + shared;
    return true;
}

/* Tokens that are computed for good: the rest may be computed again. */
static uint32_t n_settled(const struct seq *s)
{
    const uint32_t known = s->n_computed < seq_n_verified(s) ? s->n_computed : seq_n_verified(s);
    return s->saved != STATE_SLOT_NONE && s->n_saved < known ? s->n_saved : known;
}

void seq_slide_window(struct seq *s)
{
    struct windows *w = s->windows;
    if (w) window_table_slide(&s->window, w, window_first_block(w->tokens, n_settled(s)));
}

void seq_publish(struct seq *s)
{
    struct prefix_chain *c = &s->prefix;
    const uint32_t n = n_settled(s) / KV_BLOCK_TOKENS;
    if (!c->cache) return;
    hash_blocks(s, n);
    for (; c->n_published < n; c->n_published++)
        prefix_cache_publish(c->cache, &c->hashes[c->n_published], s->table.ids[c->n_published]);
    if (s->windows) publish_window(s, n);
    if (s->n_computed >= s->n_input) prefix_cache_publish_tail(c->cache, hash_tail(s), s->table.ids[tail_block(s)]);
}

void seq_release_blocks(struct seq *s, struct kv_pool *pool)
{
    struct prefix_chain *c = &s->prefix;
    /* All again: where a twin of a block was the known one and has been evicted since, the rest of the chain could not
     * be found any more. */
    c->n_published = s->n_window_published = 0;
    if (s->table.n > 0) seq_publish(s);
    seq_stop_filling(s);
    s->filling.state_blocks = 0;
    block_table_clear(&s->table, pool);
    if (s->windows) window_table_clear(&s->window, s->windows);
    if (s->slot != STATE_SLOT_NONE) state_pool_give_back(s->states, s->slot);
    s->slot = STATE_SLOT_NONE;
    seq_drop_saved(s);
    if (c->cache && c->has_tail) prefix_cache_touch(c->cache, &c->tail, 1);
    if (c->cache) prefix_cache_touch(c->cache, c->hashes, c->n_hashes);
    if (c->cache && s->windows) prefix_cache_touch(s->windows->cache, c->hashes, c->n_hashes);
    c->n_published = 0;
    if (s->swapped.n == 0) s->n_computed = 0;
}
