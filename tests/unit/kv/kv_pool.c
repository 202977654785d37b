/* kv_pool: ids, references, states and their counts. */
#include "kv/kv_pool.h"

#include "kv/block_table.h"

#include <criterion/criterion.h>

static struct kv_pool *pool_of(uint32_t n)
{
    struct kv_pool *pool = NULL;
    cr_assert_eq(kv_pool_create(&pool, n), OK);
    return pool;
}

static kv_block_id expect_take(struct kv_pool *pool, enum kv_block_state state)
{
    kv_block_id id = UINT32_MAX;
    cr_assert_eq(kv_pool_take(pool, state, &id), OK);
    cr_assert_lt(id, kv_pool_n_blocks(pool));
    return id;
}

static uint32_t count_of(const struct kv_pool *pool, enum kv_block_state s)
{
    uint32_t counts[KV_STATE_COUNT];
    kv_pool_counts(pool, counts);
    return counts[s];
}

Test(kv_pool, keeps_block_until_last_unref)
{
    struct kv_pool *pool = pool_of(1);
    kv_block_id id = expect_take(pool, KV_ACTIVE), other = 7;
    kv_pool_ref(pool, id);
    kv_pool_unref(pool, id);
    cr_assert_eq(kv_pool_take(pool, KV_ACTIVE, &other), ERR_NO_BLOCKS);
    cr_assert_eq(other, 7, "a refused take leaves the result alone");
    kv_pool_unref(pool, id);
    cr_assert_eq(kv_pool_n_free(pool), 1);
    kv_pool_unref(pool, expect_take(pool, KV_ACTIVE));
    kv_pool_destroy(pool);
}

Test(kv_pool, hands_out_every_block_once)
{
    enum { N = 1000 };
    struct kv_pool *pool = pool_of(N);
    bool seen[N] = { false };
    for (int i = 0; i < N; i++) {
        kv_block_id id = expect_take(pool, KV_RESERVED);
        cr_assert_not(seen[id]);
        seen[id] = true;
    }
    for (kv_block_id id = 0; id < N; id++) kv_pool_unref(pool, id);
    kv_pool_destroy(pool);
}

Test(kv_pool, counts_follow_states)
{
    struct kv_pool *pool = pool_of(4);
    cr_assert_eq(count_of(pool, KV_FREE), 4);
    kv_block_id a = expect_take(pool, KV_RESERVED), b = expect_take(pool, KV_ACTIVE);
    cr_assert_eq(count_of(pool, KV_FREE), 2);
    cr_assert_eq(count_of(pool, KV_RESERVED), 1);
    kv_pool_set_state(pool, a, KV_RECEIVING);
    kv_pool_set_state(pool, b, KV_SENDING);
    cr_assert_eq(count_of(pool, KV_RESERVED), 0);
    cr_assert_eq(count_of(pool, KV_RECEIVING), 1);
    cr_assert_eq(count_of(pool, KV_SENDING), 1);
    kv_pool_unref(pool, a);
    kv_pool_unref(pool, b);
    cr_assert_eq(count_of(pool, KV_FREE), 4);
    kv_pool_destroy(pool);
}

Test(kv_pool, a_holder_does_not_say_what_a_block_is_that_others_read)
{
    static const enum kv_block_state READ[] = { KV_ACTIVE, KV_SENDING };
    struct kv_pool *pool = pool_of(2);
    for (int i = 0; i < 2; i++) {
        kv_block_id id = expect_take(pool, READ[i]);
        kv_pool_ref(pool, id);
        kv_pool_set_state(pool, id, KV_RECEIVING);
        cr_assert_eq(count_of(pool, READ[i]), 1, "%d", i);
        kv_pool_unref(pool, id);
        kv_pool_set_state(pool, id, KV_RECEIVING);
        cr_assert_eq(count_of(pool, READ[i]), 0, "its only holder does");
        kv_pool_unref(pool, id);
    }
    kv_block_id id = expect_take(pool, KV_RESERVED);
    kv_pool_ref(pool, id);
    kv_pool_set_state(pool, id, KV_RECEIVING);
    cr_assert_eq(count_of(pool, KV_RECEIVING), 1, "nobody reads it yet");
    kv_pool_unref(pool, id);
    kv_pool_unref(pool, id);
    kv_pool_destroy(pool);
}

Test(kv_pool, refuses_no_blocks_and_names_states)
{
    struct kv_pool *pool = NULL;
    cr_assert_eq(kv_pool_create(&pool, 0), ERR_INVALID);
    cr_assert_null(pool);
    kv_pool_destroy(NULL);
    cr_assert_str_eq(kv_block_state_name(KV_RECEIVING), "receiving");
    cr_assert_str_eq(kv_block_state_name((enum kv_block_state)99), "unknown");
}

Test(block_table, grows_all_or_nothing)
{
    struct kv_pool *pool = pool_of(3);
    struct block_table t, other;
    cr_assert_eq(block_table_init(&t, 8), OK);
    cr_assert_eq(block_table_init(&other, 8), OK);
    cr_assert_eq(block_table_grow(&t, pool, 2, KV_ACTIVE), OK);
    cr_assert_eq(block_table_grow(&other, pool, 2, KV_ACTIVE), ERR_NO_BLOCKS);
    cr_assert_eq(other.n, 0);
    cr_assert_eq(kv_pool_n_free(pool), 1);
    cr_assert_eq(block_table_grow(&t, pool, 1, KV_ACTIVE), OK, "smaller than it is: nothing to do");
    cr_assert_eq(t.n, 2);
    block_table_set_state(&t, pool, KV_SENDING);
    cr_assert_eq(count_of(pool, KV_SENDING), 2);
    block_table_clear(&t, pool);
    cr_assert_eq(kv_pool_n_free(pool), 3);
    block_table_fini(&t);
    block_table_fini(&other);
    kv_pool_destroy(pool);
}

Test(block_table, counts_blocks_for_tokens)
{
    cr_assert_eq(block_table_blocks_for(0), 0);
    cr_assert_eq(block_table_blocks_for(1), 1);
    cr_assert_eq(block_table_blocks_for(64), 1);
    cr_assert_eq(block_table_blocks_for(65), 2);
}
