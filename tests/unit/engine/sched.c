/* sched: the token budget goes to decoding first, then to whole blocks of prompts in order of arrival. */
#include "engine/sched.h"

#include <criterion/criterion.h>

static const struct sched_limits LIMITS = { 256, 256, 0 };
static const struct sched_cost UNMEASURED = { 0 };

Test(sched, decoding_sequences_come_first)
{
    const struct sched_seq seqs[] = { { false, 1000, 0 }, { true, 51, 50 }, { true, 9, 8 } };
    uint32_t rows[3];
    cr_assert_eq(sched_plan(&LIMITS, &UNMEASURED, seqs, 3, rows), 194);
    cr_assert_eq(rows[1], 1);
    cr_assert_eq(rows[2], 1);
    cr_assert_eq(rows[0], 192, "254 are left, 192 is the last block border");
}

Test(sched, chunks_end_on_block_borders_except_the_last)
{
    const struct sched_limits lim = { 256, 128, 0 };
    for (uint32_t n = 1; n < 700; n++)
        for (uint32_t done = 0; done < n;) {
            const struct sched_seq s = { false, n, done };
            uint32_t rows;
            cr_assert_eq(sched_plan(&lim, &UNMEASURED, &s, 1, &rows), rows);
            cr_assert(rows > 0 && rows <= 128);
            done += rows;
            cr_assert(done == n || done % KV_BLOCK_TOKENS == 0);
        }
}

Test(sched, prompts_share_a_step_in_order_of_arrival)
{
    const struct sched_seq seqs[] = { { false, 100, 0 }, { false, 50, 0 }, { false, 500, 0 }, { false, 10, 0 } };
    uint32_t rows[4];
    cr_assert_eq(sched_plan(&LIMITS, &UNMEASURED, seqs, 4, rows), 224);
    cr_assert_eq(rows[0], 100);
    cr_assert_eq(rows[1], 50);
    cr_assert_eq(rows[2], 64);
    cr_assert_eq(rows[3], 10);
}

Test(sched, a_younger_prompt_does_not_overtake)
{
    const struct sched_seq seqs[] = { { false, 200, 0 }, { false, 500, 0 }, { false, 10, 0 } };
    uint32_t rows[3];
    sched_plan(&LIMITS, &UNMEASURED, seqs, 3, rows);
    cr_assert_eq(rows[0], 200);
    cr_assert_eq(rows[1], 0, "56 tokens of budget are no block");
    cr_assert_eq(rows[2], 0);
}

Test(sched, never_exceeds_the_budget)
{
    const struct sched_limits lim = { 70, 64, 0 };
    struct sched_seq seqs[100];
    uint32_t rows[100], sum = 0;
    for (int i = 0; i < 100; i++) seqs[i] = (struct sched_seq){ i % 2 == 0, 300, i % 2 ? 64 : 299 };
    uint32_t n = sched_plan(&lim, &UNMEASURED, seqs, 100, rows);
    for (int i = 0; i < 100; i++) sum += rows[i];
    cr_assert_eq(n, sum);
    cr_assert_leq(n, 70);
}

Test(sched, preempts_the_last_in_rank_that_can_be)
{
    const struct sched_victim v[] = { { true, 3 }, { true, 2 }, { true, 2 }, { false, 9 }, { true, 0 } };
    cr_assert_eq(sched_pick_victim(v, 5, 0), 2, "4 holds nothing, 3 may not be touched");
    cr_assert_eq(sched_pick_victim(v, 5, 2), 2, "itself, rather than an older one");
    const struct sched_victim none[] = { { false, 3 } };
    cr_assert_eq(sched_pick_victim(none, 1, 0), 1);
}

/* A row of a prompt takes 1 ms, a step of 4 decoding rows 40 ms; a position adds nothing, or a thousandth. */
static const struct sched_cost FLAT = { 0.0, 1000.0, 40000.0, 4.0 };
static const struct sched_cost STEEP = { 0.001, 1000.0, 40000.0, 4.0 };

Test(sched, a_prompt_beside_streams_is_cut_to_the_gap)
{
    static const struct {
        double gap_ms;
        const struct sched_cost *cost;
        uint32_t n_decoding, n_computed, want;
    } rows[] = {
        { 0, &FLAT, 4, 0, 448 },                                         /* no bound: the token budget, 508 of it */
        { 200, &FLAT, 0, 0, 512 },                                       /* nobody waits */
        { 200, &FLAT, 4, 0, 128 },                                       /* 160 ms are left */
        { 200, &FLAT, 1, 0, 128 },                                       /* fewer rows are not taken for cheaper */
        { 1000, &FLAT, 4, 0, 448 },                                      /* the budget is the tighter bound */
        { 240, &FLAT, 4, 0, 192 },                                       /* 200 ms */
        { 240, &FLAT, 8, 0, 128 },                                       /* 160 ms: 8 rows cost twice what 4 did */
        { 232, &FLAT, 4, 0, 192 },                                       /* exactly */
        { 50, &FLAT, 4, 0, 64 },                                         /* one block goes through */
        { 10, &FLAT, 32, 0, 64 },                                        /* even where decoding alone takes longer */
        { 240, &STEEP, 4, 0, 128 },                                      /* 192 rows cost 210 ms */
        { 240, &STEEP, 4, 1024, 64 },                                    /* 64 rows cost 131 ms, 128 cost 267 */
        { 400, &STEEP, 4, 1024, 128 },   { 200, &UNMEASURED, 4, 0, 64 }, /* careful until something is known */
        { 200, &UNMEASURED, 0, 0, 512 },
    };
    for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
        const struct sched_limits lim = { 512, 512, rows[r].gap_ms * 1000.0 };
        struct sched_seq seqs[33] = { { false, 4096, rows[r].n_computed } };
        uint32_t got[33], n = 1 + rows[r].n_decoding;
        for (uint32_t i = 1; i < n; i++) seqs[i] = (struct sched_seq){ true, 10, 9 };
        cr_assert_eq(sched_plan(&lim, rows[r].cost, seqs, n, got), rows[r].want + rows[r].n_decoding, "row %zu", r);
        cr_assert_eq(got[0], rows[r].want, "row %zu: %u", r, got[0]);
        for (uint32_t i = 1; i < n; i++) cr_assert_eq(got[i], 1);
    }
}

Test(sched, prompts_share_the_gap_in_order)
{
    const struct sched_limits lim = { 512, 512, 200e3 }; /* 160 rows beside the stream */
    const struct sched_seq seqs[] = { { false, 50, 0 }, { true, 9, 8 }, { false, 64, 0 }, { false, 64, 0 } };
    uint32_t rows[4];
    cr_assert_eq(sched_plan(&lim, &FLAT, seqs, 4, rows), 115);
    cr_assert(rows[0] == 50 && rows[2] == 64 && rows[3] == 0, "46 ms are left for the last");
}

Test(sched, learns_what_rows_cost_from_steps)
{
    struct sched_cost c = { .position = 0.001 };
    sched_learn(&c, &(struct sched_step){ 0, 10, 10.0 }, 50e3);
    cr_assert_eq(c.row_us, 0.0, "too few rows to tell");
    sched_learn(&c, &(struct sched_step){ 0, 100, sched_work(&c, 100, 100) }, 115e3);
    cr_assert_float_eq(c.row_us, 1000.0, 1e-6, "100 rows, each at 150 on the average");
    sched_learn(&c, &(struct sched_step){ 4, 0, 0.0 }, 40e3);
    cr_assert_float_eq(sched_decode_us(&c, 4), 40e3, 1e-6);
    cr_assert_float_eq(sched_decode_us(&c, 8), 80e3, 1e-6);
    cr_assert_float_eq(sched_decode_us(&c, 2), 40e3, 1e-6);
    cr_assert_eq(sched_decode_us(&c, 0), 0.0);
    sched_learn(&c, &(struct sched_step){ 4, 100, 100.0 }, 240e3);
    cr_assert_float_eq(c.row_us, 1200.0, 1e-6, "(240 - 40) / 100 is 2 ms; a fifth of the way");
    sched_learn(&c, &(struct sched_step){ 40, 100, 100.0 }, 240e3);
    cr_assert_float_eq(c.row_us, 1200.0, 1e-6, "400 ms of decoding cannot be: half of the step is the prompt's");
}

Test(sched, decoding_costs_no_less_than_what_was_measured)
{
    static const struct {
        struct sched_cost cost;
        uint32_t n;
        double us;
    } rows[] = { { { 0, 0, 100, 4 }, 0, 0 },   { { 0, 0, 100, 4 }, 1, 100 }, { { 0, 0, 100, 4 }, 4, 100 },
                 { { 0, 0, 100, 4 }, 5, 125 }, { { 0, 0, 100, 0 }, 5, 100 }, { { 0, 0, 100, 4.5 }, 5, 100 / 0.9 },
                 { { 0, 0, 0, 0 }, 5, 0 } };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        cr_assert_float_eq(sched_decode_us(&rows[i].cost, rows[i].n), rows[i].us, 1e-9, "row %zu", i);
    cr_assert_float_eq(sched_work(&(struct sched_cost){ .position = 0.25 }, 10, 4), 4 * (1 + 0.25 * 12), 1e-12);
}

Test(sched, learns_from_half_a_block_on)
{
    struct sched_cost c = { 0 };
    sched_learn(&c, &(struct sched_step){ 0, KV_BLOCK_TOKENS / 2 - 1, 31 }, 31e3);
    cr_assert_eq(c.row_us, 0.0);
    sched_learn(&c, &(struct sched_step){ 0, KV_BLOCK_TOKENS / 2, 32 }, 32e3);
    cr_assert_float_eq(c.row_us, 1000.0, 1e-9);
    sched_learn(&c, &(struct sched_step){ 1, KV_BLOCK_TOKENS / 2 - 1, 31 }, 99e3);
    cr_assert(c.decode_us == 0.0 && c.decode_rows == 0.0, "a step of both says nothing of decoding");
    sched_learn(&c, &(struct sched_step){ 0, 0, 0 }, 99e3);
    cr_assert_eq(c.decode_us, 0.0, "nor does one of nothing");
    sched_learn(&c, &(struct sched_step){ 2, 0, 0 }, 10e3);
    sched_learn(&c, &(struct sched_step){ 4, 0, 0 }, 20e3);
    cr_assert_float_eq(c.decode_us, 12e3, 1e-9);
    cr_assert_float_eq(c.decode_rows, 2.4, 1e-12);
}

/* Guesses are fed with the last token, and a budget that is used up is used up for all. */
Test(sched, guesses_take_rows_of_the_budget)
{
    const struct sched_limits lim = { 8, 64, 0 };
    const struct sched_seq seqs[] = { { true, 15, 10 }, { true, 13, 10 }, { true, 20, 19 }, { false, 3, 0 } };
    uint32_t rows[4];
    cr_assert_eq(sched_plan(&lim, &UNMEASURED, seqs, 4, rows), 8);
    cr_assert(rows[0] == 5 && rows[1] == 3 && rows[2] == 0 && rows[3] == 0);
    cr_assert_eq(sched_plan(&lim, &UNMEASURED, seqs + 1, 3, rows), 7);
    cr_assert(rows[0] == 3 && rows[1] == 1 && rows[2] == 3, "what is left of it goes to a prompt that ends");
    cr_assert_eq(sched_plan(&lim, &UNMEASURED, NULL, 0, rows), 0);
}
