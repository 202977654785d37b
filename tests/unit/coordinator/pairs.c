/* pairs: who could not reach whom is passed over for a growing while, and forgotten when it is over. */
#include "coordinator/cluster/pairs.h"

#include <criterion/criterion.h>

#define S 1000000u

static struct pairs t;

static const struct pair *row(uint64_t prefill, uint64_t decode)
{
    for (uint32_t i = 0; i < t.n; i++)
        if (t.rows[i].prefill == prefill && t.rows[i].decode == decode) return &t.rows[i];
    return NULL;
}

Test(pairs, the_while_grows_with_each_failure_up_to_its_bound)
{
    static const uint64_t pauses[] = { 1, 2, 4, 8, 16, 30, 30 };
    uint64_t now = 100 * S;
    for (int i = 0; i < 7; i++) {
        pairs_failed(&t, 1, 2, now - 1, now);
        cr_assert(pair_is_broken(row(1, 2), now + pauses[i] * S - 1), "%d", i);
        cr_assert_not(pair_is_broken(row(1, 2), now + pauses[i] * S), "%d", i);
        cr_assert_eq(pair_fails_often(row(1, 2)), i > 0);
        cr_assert_eq(pair_needs_rest(row(1, 2), now), i > 0);
        cr_assert_not(pair_needs_rest(row(1, 2), now + S));
        now += pauses[i] * S;
    }
    cr_assert_eq(t.n, 1);
}

Test(pairs, what_fails_together_counts_once)
{
    for (uint64_t i = 0; i < 5; i++) pairs_failed(&t, 1, 2, 9 * S + i, 10 * S + i);
    cr_assert_not(pair_is_broken(row(1, 2), 11 * S + 10));
    cr_assert_not(pair_fails_often(row(1, 2)));
    pairs_failed(&t, 1, 2, 10 * S + 5, 10 * S + 6); /* and the next one at once */
    cr_assert(pair_fails_often(row(1, 2)));
}

Test(pairs, one_request_tries_it_when_the_while_is_over)
{
    pairs_failed(&t, 1, 2, 0, 10 * S);
    pairs_tried(&t, 1, 2, 11 * S);
    cr_assert(pair_is_broken(row(1, 2), 11 * S + 1));
    pairs_tried(&t, 7, 8, 11 * S); /* of others nothing is remembered */
    cr_assert_eq(t.n, 1);
}

Test(pairs, success_and_a_node_that_goes_end_it)
{
    pairs_failed(&t, 1, 2, 0, S);
    pairs_failed(&t, 1, 3, 0, S);
    pairs_failed(&t, 4, 3, 0, S);
    pairs_worked(&t, 1, 2);
    pairs_worked(&t, 9, 9);
    cr_assert(t.n == 2 && !row(1, 2));
    pairs_forget(&t, 3);
    cr_assert_eq(t.n, 0);
    pairs_failed(&t, 1, 2, 0, 50 * S); /* begins anew */
    cr_assert_not(pair_is_broken(row(1, 2), 51 * S));
    pairs_forget(&t, 1);
    cr_assert_eq(t.n, 0);
}

Test(pairs, the_oldest_makes_room)
{
    for (uint64_t i = 0; i <= PAIRS_MAX; i++) pairs_failed(&t, 1, 10 + i, 0, (i + 1) * S);
    cr_assert_eq(t.n, PAIRS_MAX);
    cr_assert(!row(1, 10) && row(1, 11) && row(1, 10 + PAIRS_MAX));
}
