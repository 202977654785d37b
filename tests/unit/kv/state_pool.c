/* state_pool: live slots are never lost to snapshots, snapshots are found until their slot is needed, and the places
 * where they are taken. */
#include "kv/state_pool.h"

#include "base/kv_block.h"

#include <criterion/criterion.h>

static struct prefix_hash hash_of(uint64_t i)
{
    return (struct prefix_hash){ i, i * 0x9E3779B97F4A7C15u };
}

static struct state_pool *pool_of(uint32_t n_slots)
{
    struct state_pool *p = NULL;
    cr_assert_eq(state_pool_create(&p, n_slots), OK);
    return p;
}

static state_slot_id snapshot(struct state_pool *p, uint64_t i)
{
    const struct prefix_hash h = hash_of(i);
    state_slot_id slot;
    if (state_pool_find(p, &h) != STATE_SLOT_NONE || state_pool_take(p, &slot) != OK) return STATE_SLOT_NONE;
    state_pool_keep(p, &h, slot);
    return slot;
}

static state_slot_id find(struct state_pool *p, uint64_t i)
{
    const struct prefix_hash h = hash_of(i);
    return state_pool_find(p, &h);
}

Test(state_pool, of_no_slots_is_refused)
{
    struct state_pool *p = NULL;
    cr_assert_eq(state_pool_create(&p, 0), ERR_INVALID);
    cr_assert_null(p);
}

Test(state_pool, gives_each_sequence_a_slot_of_its_own)
{
    struct state_pool *p = pool_of(3);
    state_slot_id a, b, c, d;
    cr_assert_eq(state_pool_take(p, &a), OK);
    cr_assert_eq(state_pool_take(p, &b), OK);
    cr_assert_eq(state_pool_take(p, &c), OK);
    cr_assert(a != b && b != c && a != c && a < 3 && b < 3 && c < 3);
    cr_assert_eq(state_pool_take(p, &d), ERR_FULL);
    cr_assert_eq(snapshot(p, 1), STATE_SLOT_NONE, "no snapshot takes a live slot");
    state_pool_give_back(p, b);
    cr_assert_eq(state_pool_take(p, &d), OK);
    cr_assert_eq(d, b);
    state_pool_give_back(p, a);
    state_pool_give_back(p, c);
    state_pool_give_back(p, d);
    state_pool_destroy(p);
}

Test(state_pool, finds_a_snapshot_until_its_slot_is_needed)
{
    struct state_pool *p = pool_of(3);
    const state_slot_id one = snapshot(p, 1), two = snapshot(p, 2), three = snapshot(p, 3);
    cr_assert(one != two && two != three && one != three && one != STATE_SLOT_NONE && three != STATE_SLOT_NONE);
    cr_assert_eq(snapshot(p, 2), STATE_SLOT_NONE, "it is there");
    cr_assert_eq(find(p, 1), one); /* used now: 3 is the oldest, as 2 was asked for */
    state_slot_id live;
    cr_assert_eq(state_pool_take(p, &live), OK);
    cr_assert_eq(live, three);
    cr_assert_eq(find(p, 3), STATE_SLOT_NONE);
    const struct state_counts n = state_pool_counts(p);
    cr_assert(n.n_slots == 3 && n.n_live == 1 && n.n_snapshots == 2);
    cr_assert_eq(snapshot(p, 4), two, "the oldest gives way to another snapshot, too");
    cr_assert_eq(find(p, 2), STATE_SLOT_NONE);
    cr_assert_eq(find(p, 1), one);
    state_pool_give_back(p, live);
    cr_assert_eq(snapshot(p, 5), live, "a slot that was live is known by nobody");
    cr_assert_eq(find(p, 1), one);
    state_pool_destroy(p);
}

Test(state_pool, knows_the_longest_prefix_with_a_snapshot)
{
    struct state_pool *p = pool_of(4);
    struct prefix_hash chain[8];
    for (uint64_t i = 0; i < 8; i++) chain[i] = hash_of(100 + i);
    cr_assert_eq(state_pool_longest(p, chain, 8, NULL, NULL), 0);
    cr_assert_neq(snapshot(p, 101), STATE_SLOT_NONE);
    cr_assert_neq(snapshot(p, 105), STATE_SLOT_NONE);
    cr_assert_eq(state_pool_longest(p, chain, 8, NULL, NULL), 6);
    cr_assert_eq(state_pool_longest(p, chain, 6, NULL, NULL), 6);
    cr_assert_eq(state_pool_longest(p, chain, 5, NULL, NULL), 2);
    cr_assert_eq(state_pool_longest(p, chain, 1, NULL, NULL), 0);
    cr_assert_eq(state_pool_longest(p, chain, 0, NULL, NULL), 0);
    state_pool_destroy(p);
}

Test(state_pool, spreads_snapshots_over_a_long_sequence)
{
    cr_assert_eq(state_interval(0, 100), 0);
    cr_assert_eq(state_interval(1, 1), STATE_INTERVAL_MIN);
    cr_assert_eq(state_interval(100, 100), STATE_INTERVAL_MIN);
    cr_assert_eq(state_interval(99, 100), 8);
    cr_assert_eq(state_interval(8, 512), 256);
    cr_assert_eq(state_interval(1, UINT32_MAX / 64), 1u << 28);
}

Test(state_pool, places_of_snapshots_are_multiples_and_the_last_border)
{
    const uint32_t B = KV_BLOCK_TOKENS;
    cr_assert_eq(state_next_snapshot(4, 0, 1000), 4 * B);
    cr_assert_eq(state_next_snapshot(4, 4 * B, 1000), 8 * B);
    cr_assert_eq(state_next_snapshot(4, 5 * B, 1000), 8 * B);
    cr_assert_eq(state_next_snapshot(4, 12 * B, 1000), 15 * B, "the last border before token 1000");
    cr_assert_eq(state_next_snapshot(4, 15 * B, 1000), 1000);
    cr_assert_eq(state_next_snapshot(4, 0, 2 * B), B, "the last token is always computed");
    cr_assert_eq(state_next_snapshot(4, 0, 2 * B + 1), 2 * B);
    cr_assert_eq(state_next_snapshot(4, 0, B), B, "nowhere");
    cr_assert_eq(state_next_snapshot(0, 0, 1000), 1000);
    for (uint32_t n = 1; n < 40 * B; n += 37)
        for (uint32_t at = 0; at < n; at += B) {
            const uint32_t next = state_next_snapshot(4, at, n);
            cr_assert(next > at && next <= n);
            cr_assert_eq(state_is_due(4, next, n), next < n || next % (4 * B) == 0);
            for (uint32_t t = at + B; t < next; t += B) cr_assert_not(state_is_due(4, t, n));
        }
    cr_assert_not(state_is_due(0, 4 * B, 1000));
    cr_assert_not(state_is_due(4, 0, 1));
    cr_assert(state_is_due(4, 4 * B, 4 * B), "an answer that has come so far");
    cr_assert_not(state_is_due(4, 5 * B, 5 * B));
}
