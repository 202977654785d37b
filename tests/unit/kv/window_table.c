/* window_table: what slides out is free again, promises are kept, and hits end where the window's blocks are held. */
#include "kv/window_table.h"

#include <criterion/criterion.h>

#define B KV_BLOCK_TOKENS

static struct prefix_hash hash_of(uint64_t i)
{
    return (struct prefix_hash){ i, i * 0x9E3779B97F4A7C15u };
}

static struct windows *windows_of(uint32_t n_blocks, uint32_t tokens)
{
    struct windows *w = NULL;
    cr_assert_eq(windows_create(&w, n_blocks, tokens, true), OK);
    return w;
}

static struct window_table table_of(uint32_t cap)
{
    struct window_table t;
    cr_assert_eq(window_table_init(&t, cap), OK);
    return t;
}

/* Every key that a row reads is in a block from the first one on, and the first one has such a key or the one before.
 */
Test(window_table, the_first_block_is_that_of_the_oldest_token_that_counts)
{
    static const uint32_t windows[] = { 1, 63, 64, 65, 100, 128, 1000 };
    for (size_t i = 0; i < sizeof(windows) / sizeof(windows[0]); i++)
        for (uint32_t n = 0; n < 1300; n++) {
            const uint32_t w = windows[i], oldest = n + 1 > w ? n + 1 - w : 0, first = window_first_block(w, n);
            cr_assert_leq(first * B, oldest);
            cr_assert_lt(oldest, (first + 1) * B + 1, "window %u, %u tokens", w, n);
        }
}

/* However a sequence's chunks fall, it never holds more than it is promised. */
Test(window_table, a_promise_is_enough_for_any_chunks)
{
    uint64_t seed = 5;
    for (int run = 0; run < 300; run++) {
        const uint32_t window =
            1 + (uint32_t)(seed = seed * 6364136223846793005u + 1442695040888963407u, seed >> 33) % 400;
        const uint32_t chunk = 64 + run % 200, n_tokens = 1 + (uint32_t)(seed >> 40) % 3000;
        const uint32_t max = window_blocks_max(window, chunk, n_tokens);
        struct windows *w = windows_of(max, window);
        struct window_table t = table_of(64);
        cr_assert(window_table_promise(&t, w, max));
        for (uint32_t at = 0; at < n_tokens;) {
            uint32_t rows = 1 + (uint32_t)(seed = seed * 6364136223846793005u + 1, seed >> 33) % chunk;
            if (at + rows > n_tokens) rows = n_tokens - at;
            window_table_grow(&t, w, block_table_blocks_for(at + rows));
            cr_assert_leq(t.first, window_first_block(window, at));
            at += rows;
            window_table_slide(&t, w, window_first_block(window, at));
            cr_assert_eq(kv_pool_n_free(w->pool), max - (t.n - t.first));
        }
        window_table_clear(&t, w);
        cr_assert_eq(kv_pool_n_free(w->pool), max);
        window_table_fini(&t);
        windows_destroy(w);
    }
}

Test(window_table, promises_are_of_one_pool)
{
    struct windows *w = windows_of(10, 100);
    struct window_table a = table_of(20), b = table_of(20);
    cr_assert(window_table_promise(&a, w, 6));
    cr_assert_not(window_table_promise(&b, w, 5));
    cr_assert_eq(b.promised, 0);
    cr_assert(window_table_promise(&b, w, 4));
    cr_assert(window_table_promise(&a, w, 3), "it is promised more already");
    cr_assert_eq(a.promised, 6);
    cr_assert_not(window_table_promise(&a, w, 7));
    window_table_grow(&a, w, 6);
    window_table_grow(&b, w, 4);
    cr_assert_eq(kv_pool_n_free(w->pool), 0);
    window_table_clear(&b, w);
    cr_assert(window_table_promise(&a, w, 10));
    window_table_lower(&a, w, 12);
    cr_assert_eq(a.promised, 10, "it is less already");
    window_table_lower(&a, w, 6);
    cr_assert(a.promised == 6 && w->promised == 6);
    cr_assert(window_table_promise(&b, w, 4));
    window_table_clear(&a, w);
    window_table_clear(&b, w);
    cr_assert_eq(w->promised, 0);
    window_table_fini(&a);
    window_table_fini(&b);
    windows_destroy(w);
}

/* A chain of 12 blocks, of which those in `held` are known. */
static struct windows *chain(uint32_t tokens, const uint32_t *held, uint32_t n, struct prefix_hash hashes[12])
{
    struct windows *w = windows_of(12, tokens);
    for (uint64_t i = 0; i < 12; i++) hashes[i] = hash_of(i + 1);
    for (uint32_t i = 0; i < n; i++) {
        kv_block_id id;
        cr_assert_eq(kv_pool_take(w->pool, KV_ACTIVE, &id), OK);
        prefix_cache_publish(w->cache, &hashes[held[i]], id);
        kv_pool_unref(w->pool, id);
    }
    return w;
}

Test(window_table, hits_end_where_the_blocks_of_the_window_are_held)
{
    static const uint32_t held[] = { 0, 1, 4, 5, 6, 9, 10 };
    struct prefix_hash hashes[12];
    struct windows *w = chain(2 * B, held, 7, hashes); /* two whole blocks behind a border */
    static const uint32_t longest[] = { 0, 1, 2, 2, 2, 2, 6, 7, 7, 7, 7, 11, 11 };
    for (uint32_t n = 0; n <= 12; n++)
        cr_assert_eq(window_longest(w, hashes, n, NULL, NULL), longest[n], "%u: %u", n,
                     window_longest(w, hashes, n, NULL, NULL));
    cr_assert_eq(window_run(w, hashes, 4, 12), 3);
    cr_assert_eq(window_run(w, hashes, 4, 6), 2);
    cr_assert_eq(window_run(w, hashes, 7, 12), 0);
    struct window_table t = table_of(12);
    cr_assert(window_table_promise(&t, w, 3));
    window_table_share(&t, w, hashes, 5, 7);
    window_table_grow(&t, w, 8);
    cr_assert(t.first == 5 && t.n == 8);
    window_table_clear(&t, w);
    cr_assert_eq(window_longest(w, hashes, 12, NULL, NULL), 11, "what was shared is kept");
    window_table_fini(&t);
    windows_destroy(w);
}

Test(window_table, needs_the_window_the_chunk_and_two_borders_or_all)
{
    static const struct {
        uint32_t window, chunk, n_tokens, blocks;
    } rows[] = { { 1, 62, 10000, 2 },    { 1, 63, 10000, 3 },    { 64, 64, 10000, 4 },
                 { 100, 155, 10000, 5 }, { 100, 156, 10000, 6 }, { 100, 156, 321, 6 },
                 { 100, 156, 320, 5 },   { 100, 64, 1, 1 },      { UINT32_MAX, UINT32_MAX, 1u << 30, 1u << 24 } };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        cr_assert_eq(window_blocks_max(rows[i].window, rows[i].chunk, rows[i].n_tokens), rows[i].blocks, "row %zu: %u",
                     i, window_blocks_max(rows[i].window, rows[i].chunk, rows[i].n_tokens));
}

Test(window_table, pools_have_blocks_and_where_they_are_asked_for_a_cache)
{
    struct windows *w = NULL;
    cr_assert_eq(windows_create(&w, 0, 100, true), ERR_INVALID);
    cr_assert_null(w);
    cr_assert_eq(windows_create(&w, 3, 100, false), OK);
    cr_assert(!w->cache && w->tokens == 100 && kv_pool_n_blocks(w->pool) == 3);
    windows_destroy(w);
    windows_destroy(NULL);
}

Test(window_table, slides_no_further_than_it_has_grown)
{
    struct windows *w = windows_of(4, 64);
    struct window_table t = table_of(8);
    cr_assert(window_table_promise(&t, w, 4));
    window_table_grow(&t, w, 3);
    window_table_slide(&t, w, 2);
    cr_assert(t.first == 2 && t.n == 3 && kv_pool_n_free(w->pool) == 3);
    window_table_slide(&t, w, 1);
    cr_assert_eq(t.first, 2, "never back");
    window_table_slide(&t, w, 7);
    cr_assert(t.first == 3 && kv_pool_n_free(w->pool) == 4);
    window_table_clear(&t, w);
    cr_assert(t.first == 0 && t.n == 0 && t.promised == 0);
    window_table_fini(&t);
    windows_destroy(w);
}
