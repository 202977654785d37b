/* seq_tier.c - fills a sequence's blocks, then its windows' and its state, from the tier. */
#include "engine/seq_tier.h"

#include "base/clock.h"
#include "engine/seq_prefix.h"

#include <assert.h>

struct fill {
    struct kv_pool *pool;
    struct kv_tier *tier;
    double compute_us; /* of a block */
    bool may_read;
    uint64_t until_us;
};

void seq_touch_tier(struct seq *s, struct kv_tier *tier)
{
    const struct prefix_chain *c = &s->prefix;
    if (!seq_is_looked_up(s)) return;
    const uint32_t n = seq_blocks_of_use(s, tier);
    kv_tier_touch(tier, c->hashes + c->n_published, n - c->n_published);
    if (seq_is_reservation(s)) return;
    uint32_t first = s->windows ? window_first_block(s->windows->tokens, n * KV_BLOCK_TOKENS) : n;
    for (; first < n; first++) kv_tier_touch_thing(tier, KV_TIER_WINDOW_BLOCK, &c->hashes[first]);
    if (s->states && n > 0) kv_tier_touch_thing(tier, KV_TIER_STATE, &c->hashes[n - 1]);
}

/* Where only what is before it had to make room, the pool still has a block: it takes the place of the one to be
 * filled.
 */
static bool share_block(struct seq *s, const struct fill *f, uint32_t i)
{
    kv_block_id id;
    if (!prefix_cache_find(s->prefix.cache, &s->prefix.hashes[i], &id)) return false;
    kv_pool_ref(f->pool, id);
    kv_pool_unref(f->pool, s->table.ids[i]);
    s->table.ids[i] = id;
    return true;
}

static enum seq_fill fill_blocks(struct seq *s, const struct fill *f, uint32_t n)
{
    for (uint32_t i; (i = s->n_computed / KV_BLOCK_TOKENS) < n; s->n_computed += KV_BLOCK_TOKENS) {
        if (share_block(s, f, i)) continue;
        if (clock_now_us() >= f->until_us) return FILL_LATER;
        enum kv_tier_found found =
            kv_tier_get(f->tier, s->prefix.hashes + i, n - i, s->table.ids[i], f->compute_us, f->may_read);
        if (found == KV_TIER_COMING) return FILL_READING;
        if (found == KV_TIER_MISS) break;
    }
    return FILL_DONE;
}

void seq_stop_filling(struct seq *s)
{
    if (s->filling.window_block != SEQ_NO_BLOCK) kv_pool_unref(s->windows->pool, s->filling.window_block);
    s->filling.window_block = SEQ_NO_BLOCK;
    s->filling.n_pieces = 0;
}

/* Goes on with a windows' block or the slot; *is_whole: all pieces are there.  Without them all that is computed so far
 * is of no use, so a piece may take its share of that time. */
static enum seq_fill fill_thing(struct seq *s, const struct fill *f, enum kv_tier_thing thing,
                                const struct prefix_hash *hash, uint32_t id, bool *is_whole)
{
    const uint32_t n = kv_tier_pieces(f->tier, thing);
    const double compute_us = f->compute_us * s->n_computed / KV_BLOCK_TOKENS / n;
    *is_whole = false;
    for (; s->filling.n_pieces < n; s->filling.n_pieces++) {
        if (clock_now_us() >= f->until_us) return FILL_LATER;
        const enum kv_tier_found found =
            kv_tier_get_piece(f->tier, thing, hash, id, s->filling.n_pieces, compute_us, f->may_read);
        if (found == KV_TIER_COMING) return FILL_READING;
        if (found == KV_TIER_MISS) return FILL_DONE;
    }
    s->filling.n_pieces = 0;
    *is_whole = true;
    return FILL_DONE;
}

/* Those that its computed tokens end with; if one cannot be had, none. */
static enum seq_fill fill_windows(struct seq *s, const struct fill *f)
{
    struct windows *w = s->windows;
    struct window_table *t = &s->window;
    const uint32_t n = s->n_computed / KV_BLOCK_TOKENS, first = seq_window_first(s);
    kv_block_id *block = &s->filling.window_block;
    if (t->first == t->n && first < n) t->first = t->n = first;
    while (t->n < n) {
        const struct prefix_hash *hash = &s->prefix.hashes[t->n];
        bool is_whole = true;
        if (*block == SEQ_NO_BLOCK && window_table_share_next(t, w, hash)) continue;
        if (*block == SEQ_NO_BLOCK && kv_pool_take(w->pool, KV_ACTIVE, block) != OK) is_whole = false;
        const enum seq_fill how =
            is_whole ? fill_thing(s, f, KV_TIER_WINDOW_BLOCK, hash, *block, &is_whole) : FILL_DONE;
        if (how != FILL_DONE) return how;
        if (!is_whole) {
            seq_stop_filling(s);
            window_table_slide(t, w, t->n);
            t->first = t->n = 0;
            break;
        }
        prefix_cache_publish(w->cache, hash, *block);
        window_table_append(t, *block);
        *block = SEQ_NO_BLOCK;
    }
    return FILL_DONE;
}

static enum seq_fill fill_state(struct seq *s, const struct fill *f)
{
    const uint32_t n = s->n_computed / KV_BLOCK_TOKENS;
    const struct prefix_hash *hash = &s->prefix.hashes[n - 1];
    bool is_whole;
    if (s->filling.state_blocks == n || state_pool_has(s->states, hash)) return FILL_DONE;
    const enum seq_fill how = fill_thing(s, f, KV_TIER_STATE, hash, s->slot, &is_whole);
    if (how == FILL_DONE) seq_stop_filling(s);
    if (how == FILL_DONE && is_whole) s->filling.state_blocks = n;
    return how;
}

enum seq_fill seq_fill_from_tier(struct seq *s, struct kv_pool *pool, struct kv_tier *tier, double compute_us,
                                 bool may_read, uint64_t until_us)
{
    const struct fill f = { pool, tier, compute_us, may_read, until_us };
    if (!seq_is_looked_up(s)) return FILL_DONE;
    enum seq_fill how = fill_blocks(s, &f, seq_blocks_of_use(s, tier));
    const bool has_more = s->n_computed > 0 && !seq_is_reservation(s);
    if (how == FILL_DONE && has_more && s->windows) how = fill_windows(s, &f);
    if (how == FILL_DONE && has_more && s->states) how = fill_state(s, &f);
    if (how == FILL_DONE) seq_publish(s);
    return how;
}
