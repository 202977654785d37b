/* sched: the token budget goes to decoding first, then to whole blocks of prompts in order of arrival. */
#include "engine/sched.h"

#include <criterion/criterion.h>

static const struct sched_limits LIMITS = { 256, 256 };

Test(sched, decoding_sequences_come_first)
{
    const struct sched_seq seqs[] = { { false, 1000, 0 }, { true, 51, 50 }, { true, 9, 8 } };
    uint32_t rows[3];
    cr_assert_eq(sched_plan(&LIMITS, seqs, 3, rows), 194);
    cr_assert_eq(rows[1], 1);
    cr_assert_eq(rows[2], 1);
    cr_assert_eq(rows[0], 192, "254 are left, 192 is the last block border");
}

Test(sched, chunks_end_on_block_borders_except_the_last)
{
    const struct sched_limits lim = { 256, 128 };
    for (uint32_t n = 1; n < 700; n++)
        for (uint32_t done = 0; done < n;) {
            const struct sched_seq s = { false, n, done };
            uint32_t rows;
            cr_assert_eq(sched_plan(&lim, &s, 1, &rows), rows);
            cr_assert(rows > 0 && rows <= 128);
            done += rows;
            cr_assert(done == n || done % SCHED_BLOCK_TOKENS == 0);
        }
}

Test(sched, prompts_share_a_step_in_order_of_arrival)
{
    const struct sched_seq seqs[] = { { false, 100, 0 }, { false, 50, 0 }, { false, 500, 0 }, { false, 10, 0 } };
    uint32_t rows[4];
    cr_assert_eq(sched_plan(&LIMITS, seqs, 4, rows), 224);
    cr_assert_eq(rows[0], 100);
    cr_assert_eq(rows[1], 50);
    cr_assert_eq(rows[2], 64);
    cr_assert_eq(rows[3], 10);
}

Test(sched, a_younger_prompt_does_not_overtake)
{
    const struct sched_seq seqs[] = { { false, 200, 0 }, { false, 500, 0 }, { false, 10, 0 } };
    uint32_t rows[3];
    sched_plan(&LIMITS, seqs, 3, rows);
    cr_assert_eq(rows[0], 200);
    cr_assert_eq(rows[1], 0, "56 tokens of budget are no block");
    cr_assert_eq(rows[2], 0);
}

Test(sched, never_exceeds_the_budget)
{
    const struct sched_limits lim = { 70, 64 };
    struct sched_seq seqs[100];
    uint32_t rows[100], sum = 0;
    for (int i = 0; i < 100; i++) seqs[i] = (struct sched_seq){ i % 2 == 0, 300, i % 2 ? 64 : 299 };
    uint32_t n = sched_plan(&lim, seqs, 100, rows);
    for (int i = 0; i < 100; i++) sum += rows[i];
    cr_assert_eq(n, sum);
    cr_assert_leq(n, 70);
}

Test(sched, preempts_the_youngest_that_can_be)
{
    const struct sched_victim v[] = { { true, 3 }, { true, 2 }, { true, 2 }, { false, 9 }, { true, 0 } };
    cr_assert_eq(sched_pick_victim(v, 5, 0), 2, "4 holds nothing, 3 may not be touched");
    cr_assert_eq(sched_pick_victim(v, 5, 2), 2, "itself, rather than an older one");
    const struct sched_victim none[] = { { false, 3 } };
    cr_assert_eq(sched_pick_victim(none, 1, 0), 1);
}
