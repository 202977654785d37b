/* prefix_cache: blocks are found by the chain of their tokens, stay while there is room, and go leaves first. */
#include "kv/prefix_cache.h"

#include "kv/block_table.h"

#include <criterion/criterion.h>

#define N_BLOCKS 6

struct rig {
    struct kv_pool *pool;
    struct prefix_cache *cache;
    struct prefix_hash chain[N_BLOCKS]; /* of one token sequence */
};

static struct prefix_hash root_of(const char *secret, const char *adapter, const char *salt)
{
    struct prefix_hash cluster = prefix_hash_cluster(0x1234, secret);
    return prefix_hash_root(&cluster, adapter, salt);
}

static struct rig rig_of(void)
{
    struct rig r = { 0 };
    struct prefix_hash root = root_of("", "", "");
    int32_t ids[KV_BLOCK_TOKENS] = { 0 };
    cr_assert_eq(kv_pool_create(&r.pool, N_BLOCKS), OK);
    cr_assert_eq(prefix_cache_create(&r.cache, r.pool), OK);
    for (int i = 0; i < N_BLOCKS; i++)
        r.chain[i] = prefix_hash_extend(&root, i ? &r.chain[i - 1] : &root, ids, KV_BLOCK_TOKENS);
    return r;
}

static void rig_free(struct rig *r)
{
    prefix_cache_destroy(r->cache);
    kv_pool_destroy(r->pool);
}

/* Takes n blocks, publishes them as the chain's first ones and gives them back, the last one first. */
static void leave(struct rig *r, uint32_t n, kv_block_id *ids)
{
    for (uint32_t i = 0; i < n; i++) {
        cr_assert_eq(kv_pool_take(r->pool, KV_ACTIVE, &ids[i]), OK);
        prefix_cache_publish(r->cache, &r->chain[i], ids[i]);
    }
    for (uint32_t i = n; i-- > 0;) kv_pool_unref(r->pool, ids[i]);
}

static uint32_t n_found(struct rig *r)
{
    kv_block_id ids[N_BLOCKS];
    uint32_t n = prefix_cache_match(r->cache, r->chain, N_BLOCKS, ids);
    for (uint32_t i = n; i-- > 0;) kv_pool_unref(r->pool, ids[i]);
    return n;
}

Test(prefix_cache, hashes_are_the_same_in_every_process)
{
    struct prefix_hash root = root_of("", "", "");
    int32_t ids[KV_BLOCK_TOKENS];
    for (int i = 0; i < KV_BLOCK_TOKENS; i++) ids[i] = i * 100;
    struct prefix_hash first = prefix_hash_extend(&root, &root, ids, KV_BLOCK_TOKENS);
    cr_assert_eq(first.lo, 0xb81ae8d7ee706600u, "%llx", (unsigned long long)first.lo);
    cr_assert_eq(first.hi, 0x724b05157e624071u, "%llx", (unsigned long long)first.hi);
    struct prefix_hash second = prefix_hash_extend(&root, &first, ids, KV_BLOCK_TOKENS);
    cr_assert_not(prefix_hash_equal(&first, &second), "what stands before a block counts");
    ids[63]++;
    struct prefix_hash other = prefix_hash_extend(&root, &root, ids, KV_BLOCK_TOKENS);
    cr_assert_not(prefix_hash_equal(&first, &other), "every token counts");
}

Test(prefix_cache, salt_secret_and_adapter_make_chains_of_their_own)
{
    const struct prefix_hash roots[] = { root_of("", "", ""), root_of("a", "", ""), root_of("", "a", ""),
                                         root_of("", "", "a"), root_of("", "", "b") };
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < i; k++) cr_assert_not(prefix_hash_equal(&roots[i], &roots[k]), "%d and %d", i, k);
}

Test(prefix_cache, finds_what_was_left_and_pins_it)
{
    struct rig r = rig_of();
    kv_block_id left[3], found[N_BLOCKS], other;
    leave(&r, 3, left);
    cr_assert_eq(kv_pool_n_free(r.pool), N_BLOCKS, "all can be taken");
    cr_assert_eq(prefix_cache_match(r.cache, r.chain, N_BLOCKS, found), 3);
    for (int i = 0; i < 3; i++) cr_assert_eq(found[i], left[i]);
    for (int i = 0; i < 3; i++) cr_assert_eq(kv_pool_take(r.pool, KV_ACTIVE, &other), OK);
    cr_assert_eq(kv_pool_take(r.pool, KV_ACTIVE, &other), ERR_NO_BLOCKS, "what is referenced is not taken");
    for (kv_block_id id = 0; id < N_BLOCKS; id++) kv_pool_unref(r.pool, id);
    cr_assert_eq(n_found(&r), 3);
    rig_free(&r);
}

Test(prefix_cache, is_taken_from_leaves_first)
{
    struct rig r = rig_of();
    kv_block_id left[4], other[N_BLOCKS];
    leave(&r, 4, left);
    for (uint32_t i = 0; i < N_BLOCKS; i++) {
        cr_assert_eq(kv_pool_take(r.pool, KV_ACTIVE, &other[i]), OK);
        uint32_t free_left = N_BLOCKS - i - 1;
        cr_assert_eq(n_found(&r), free_left < 4 ? free_left : 4);
    }
    for (uint32_t i = 0; i < N_BLOCKS; i++) kv_pool_unref(r.pool, other[i]);
    rig_free(&r);
}

Test(prefix_cache, a_twin_is_not_taken_in_and_its_use_counts_for_the_known_one)
{
    struct rig r = rig_of();
    kv_block_id left[2], twin, leaf;
    leave(&r, 2, left);
    cr_assert_eq(kv_pool_take(r.pool, KV_ACTIVE, &twin), OK);
    prefix_cache_publish(r.cache, &r.chain[1], twin);
    cr_assert_eq(kv_pool_take(r.pool, KV_ACTIVE, &leaf), OK);
    prefix_cache_publish(r.cache, &r.chain[2], leaf);
    kv_pool_unref(r.pool, leaf);
    kv_pool_unref(r.pool, twin);
    prefix_cache_touch(r.cache, r.chain, 3);
    uint32_t counts[KV_STATE_COUNT];
    kv_pool_counts(r.pool, counts);
    cr_assert_eq(counts[KV_CACHED], 3);
    cr_assert_eq(counts[KV_FREE], 3);
    kv_block_id taken[4];
    for (int i = 0; i < 4; i++) cr_assert_eq(kv_pool_take(r.pool, KV_ACTIVE, &taken[i]), OK);
    cr_assert_eq(taken[3], leaf, "the last one of the chain goes first, though it was left last");
    cr_assert_eq(n_found(&r), 2);
    for (int i = 0; i < 4; i++) kv_pool_unref(r.pool, taken[i]);
    rig_free(&r);
}

static uint32_t n_evicted;

static void count_evicted(void *ctx, const struct prefix_hash *hash, kv_block_id id)
{
    const struct prefix_hash *full = ctx;
    cr_assert(prefix_hash_equal(hash, full), "a tail is nobody else's business");
    n_evicted++;
}

/* A prompt ends in a block that its answer fills; another one ends in a block that nobody fills. */
Test(prefix_cache, a_block_is_found_by_its_tail_until_it_is_taken)
{
    struct rig r = rig_of();
    const struct prefix_hash root = root_of("", "", "");
    const int32_t ids[KV_BLOCK_TOKENS] = { 0 };
    const struct prefix_hash tails[2] = { prefix_hash_extend(&root, &root, ids, 60),
                                          prefix_hash_extend(&root, &root, ids, 61) };
    kv_block_id both, alone, found;
    cr_assert_not(prefix_hash_equal(&tails[0], &tails[1]), "by its length, too");
    prefix_cache_on_evict(r.cache, count_evicted, &r.chain[0]);
    cr_assert_eq(kv_pool_take(r.pool, KV_ACTIVE, &both), OK);
    cr_assert_eq(kv_pool_take(r.pool, KV_ACTIVE, &alone), OK);
    prefix_cache_publish_tail(r.cache, &tails[0], both);
    prefix_cache_publish_tail(r.cache, &tails[1], alone);
    prefix_cache_publish_tail(r.cache, &tails[0], alone);
    prefix_cache_publish(r.cache, &r.chain[0], both);
    kv_pool_unref(r.pool, both);
    kv_pool_unref(r.pool, alone);
    cr_assert(prefix_cache_find(r.cache, &tails[0], &found) && found == both, "the first one stays the known one");
    cr_assert(prefix_cache_find(r.cache, &tails[1], &found) && found == alone);
    cr_assert_eq(n_found(&r), 1); /* used just now: the other one is taken first */
    kv_block_id taken[N_BLOCKS];
    for (int i = 0; i < N_BLOCKS - 1; i++) cr_assert_eq(kv_pool_take(r.pool, KV_ACTIVE, &taken[i]), OK);
    cr_assert_not(prefix_cache_find(r.cache, &tails[1], &found));
    cr_assert(prefix_cache_find(r.cache, &tails[0], &found));
    cr_assert_eq(n_evicted, 0);
    cr_assert_eq(kv_pool_take(r.pool, KV_ACTIVE, &taken[N_BLOCKS - 1]), OK);
    cr_assert_not(prefix_cache_find(r.cache, &tails[0], &found));
    cr_assert_eq(n_found(&r), 0);
    cr_assert_eq(n_evicted, 1);
    for (int i = 0; i < N_BLOCKS; i++) kv_pool_unref(r.pool, taken[i]);
    rig_free(&r);
}

Test(prefix_cache, a_shared_block_is_what_its_readers_make_of_it)
{
    struct rig r = rig_of();
    kv_block_id id, found[1];
    uint32_t counts[KV_STATE_COUNT];
    cr_assert_eq(kv_pool_take(r.pool, KV_ACTIVE, &id), OK);
    prefix_cache_publish(r.cache, &r.chain[0], id);
    cr_assert_eq(prefix_cache_match(r.cache, r.chain, 1, found), 1);
    kv_pool_set_state(r.pool, id, KV_RESERVED);
    kv_pool_counts(r.pool, counts);
    cr_assert_eq(counts[KV_ACTIVE], 1, "one reads it, though another only holds it");
    kv_pool_unref(r.pool, id);
    kv_pool_set_state(r.pool, id, KV_RESERVED);
    kv_pool_counts(r.pool, counts);
    cr_assert_eq(counts[KV_RESERVED], 1);
    kv_pool_unref(r.pool, id);
    rig_free(&r);
}
