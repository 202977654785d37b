/* kv_pool_runs: pools that share one memory never hold the same place, what is idle gives way in order of last use, and
 * what is reserved stays. */
#include "kv/kv_pool.h"
#include "kv/prefix_cache.h"

#include <criterion/criterion.h>

#define N      60
#define MANY   20000
#define NOBODY (-1)

struct side {
    struct kv_pool *pool;
    struct prefix_cache *cache;
    uint32_t run;
    kv_block_id held[N];
    uint32_t n_held;
};

static uint64_t seed = 11;

static uint32_t draw(uint32_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % n;
}

static struct side memory_of(uint32_t n)
{
    struct side s = { .run = 1 };
    cr_assert_eq(kv_pool_create(&s.pool, n), OK);
    cr_assert_eq(prefix_cache_create(&s.cache, s.pool), OK);
    return s;
}

static struct side tenant_of(const struct side *memory, uint32_t run)
{
    struct side s = { .run = run };
    cr_assert_eq(kv_pool_create_runs(&s.pool, memory->pool, run), OK);
    cr_assert_eq(prefix_cache_create(&s.cache, s.pool), OK);
    return s;
}

static void close_side(struct side *s)
{
    while (s->n_held > 0) kv_pool_unref(s->pool, s->held[--s->n_held]);
    prefix_cache_destroy(s->cache);
    kv_pool_destroy(s->pool);
}

static bool take(struct side *s)
{
    return s->n_held < N && kv_pool_take(s->pool, KV_ACTIVE, &s->held[s->n_held]) == OK && ++s->n_held > 0;
}

/* Gives the i-th that is held back; with a name it is kept. */
static void give(struct side *s, uint32_t i, uint64_t name)
{
    const struct prefix_hash h = { name, name };
    if (name > 0) prefix_cache_publish(s->cache, &h, s->held[i]);
    kv_pool_unref(s->pool, s->held[i]);
    s->held[i] = s->held[--s->n_held];
}

static bool knows(const struct side *s, uint64_t name)
{
    const struct prefix_hash h = { name, name };
    kv_block_id id;
    return prefix_cache_find(s->cache, &h, &id);
}

static uint32_t count(const struct side *s, enum kv_block_state state)
{
    uint32_t counts[KV_STATE_COUNT];
    kv_pool_counts(s->pool, counts);
    return counts[state];
}

static void mark(int owners[N], const struct side *s, int who)
{
    for (uint32_t i = 0; i < s->n_held; i++)
        for (uint32_t k = 0; k < s->run; k++) {
            int *at = &owners[s->held[i] * s->run + k];
            cr_assert_eq(*at, NOBODY, "two have place %u", s->held[i] * s->run + k);
            *at = who;
        }
}

Test(kv_pool_runs, nobody_ever_holds_what_another_one_does)
{
    struct side m = memory_of(N), w = tenant_of(&m, 5), s = tenant_of(&m, 12);
    struct side *all[] = { &m, &w, &s };
    uint32_t n_taken[3] = { 0 }, reserved = 0;
    for (uint64_t step = 1; step < MANY; step++) {
        const uint32_t k = draw(3);
        struct side *who = all[k];
        if (draw(40) == 0) {
            const uint32_t want = draw(8);
            if (kv_pool_reserve(w.pool, want)) reserved = want;
        } else if (draw(k == 0 ? 6 : 2) == 0) {
            n_taken[k] += take(who);
        } else if (who->n_held > 0) {
            give(who, draw(who->n_held), draw(2) * step);
        }
        int owners[N];
        for (int i = 0; i < N; i++) owners[i] = NOBODY;
        for (int i = 0; i < 3; i++) mark(owners, all[i], i);
        const uint32_t spare = reserved > w.n_held ? reserved - w.n_held : 0;
        cr_assert_leq(count(&m, KV_FREE) + count(&m, KV_CACHED), N - m.n_held - 5 * w.n_held - 12 * s.n_held);
        for (uint32_t i = 0; i < spare && step % 50 == 0; i++) cr_assert(take(&w), "%u of %u are reserved", i, spare);
        for (uint32_t i = 0; i < spare && step % 50 == 0; i++) give(&w, w.n_held - 1, 0);
    }
    for (int i = 0; i < 3; i++) cr_assert_gt(n_taken[i], 500, "%d: %u", i, n_taken[i]);
    cr_assert(kv_pool_reserve(w.pool, 0));
    close_side(&s);
    close_side(&w);
    while (m.n_held > 0) give(&m, 0, 0);
    cr_assert_eq(kv_pool_n_free(m.pool), N, "all came back");
    while (take(&m)) continue;
    cr_assert_eq(m.n_held, N);
    close_side(&m);
}

Test(kv_pool_runs, what_one_side_does_not_use_the_other_gets)
{
    struct side m = memory_of(20), s = tenant_of(&m, 6);
    uint32_t n = 0;
    while (take(&s)) n++;
    cr_assert_eq(n, 3);
    while (take(&m)) n++;
    cr_assert_eq(n, 3 + 2);
    give(&s, 1, 0);
    cr_assert_eq(kv_pool_n_free(m.pool), 6);
    for (int i = 0; i < 6; i++) cr_assert(take(&m));
    cr_assert_not(take(&s));
    while (m.n_held > 0) give(&m, 0, 0);
    cr_assert(take(&s));
    cr_assert_eq(count(&m, KV_ACTIVE), 18, "blocks in runs count as such");
    close_side(&s);
    close_side(&m);
}

/* Blocks are taken where others are, so that runs stay whole. */
Test(kv_pool_runs, blocks_lie_beside_others)
{
    struct side m = memory_of(40), s = tenant_of(&m, 10);
    for (int i = 0; i < 25; i++) cr_assert(take(&m));
    for (int i = 0; i < 10; i++) { /* the first run is free again, the third has 5 */
        uint32_t at = 0;
        while (m.held[at] >= 10) at++;
        give(&m, at, 0);
    }
    for (int i = 0; i < 5; i++) cr_assert(take(&m));
    cr_assert(take(&s) && take(&s), "the first and the last");
    cr_assert_not(take(&s));
    close_side(&s);
    close_side(&m);
}

Test(kv_pool_runs, the_side_that_was_used_longest_ago_gives_way)
{
    struct side m = memory_of(8), s = tenant_of(&m, 4);
    cr_assert(take(&s));
    give(&s, 0, 100);
    for (int i = 0; i < 4; i++) cr_assert(take(&m));
    for (uint64_t i = 1; i <= 4; i++) give(&m, 0, i);
    cr_assert(count(&m, KV_CACHED) == 8 && kv_pool_n_free(m.pool) == 8);
    cr_assert(take(&m) && !knows(&s, 100) && knows(&m, 1), "the state was the oldest");
    while (take(&m) && m.n_held < 4) continue;
    cr_assert(knows(&m, 1));
    while (m.n_held > 0) give(&m, 0, 10 + m.n_held);
    cr_assert(take(&s), "four blocks make room");
    cr_assert(!knows(&m, 1) && !knows(&m, 4) && knows(&m, 11) && knows(&m, 14));
    give(&s, 0, 200);
    cr_assert(take(&s) && knows(&s, 200) && !knows(&m, 11), "blocks, which are older than its own");
    cr_assert(take(&s) && !knows(&s, 200));
    close_side(&s);
    close_side(&m);
}

Test(kv_pool_runs, reserved_runs_are_there_when_they_are_needed)
{
    struct side m = memory_of(20), w = tenant_of(&m, 5);
    cr_assert(kv_pool_reserve(w.pool, 2));
    cr_assert_not(kv_pool_reserve(w.pool, 5));
    uint32_t n = 0;
    while (take(&m)) n++;
    cr_assert_eq(n, 10);
    cr_assert_not(kv_pool_reserve(w.pool, 3));
    cr_assert(take(&w) && take(&w));
    cr_assert_not(take(&w));
    give(&w, 0, 7);
    cr_assert(!take(&m), "it is idle, and reserved");
    cr_assert(knows(&w, 7));
    cr_assert(kv_pool_reserve(w.pool, 1));
    cr_assert(take(&m) && !knows(&w, 7));
    close_side(&w);
    close_side(&m);
}

Test(kv_pool_runs, not_even_one_run_is_refused)
{
    struct side m = memory_of(3);
    struct kv_pool *none = NULL;
    cr_assert_eq(kv_pool_create_runs(&none, m.pool, 4), ERR_INVALID);
    cr_assert_null(none);
    close_side(&m);
}
