/* waiting: one coordinator's sequences are paused and others' are not; a reservation that gets no blocks is withdrawn.
 */
#include "unit/engine/engine_rig.h"

static void submit_for(struct rig *r, uint64_t hi, uint32_t i, enum engine_mode mode, uint32_t max_tokens)
{
    int32_t tokens[512];
    uint32_t n = 40 + i;
    for (uint32_t k = 0; k < n; k++) tokens[k] = (int32_t)((k * 7 + i * 31) % 160);
    struct seq_request q = { { hi, i, 1 }, mode, tokens, n, n, params(max_tokens) };
    cr_assert_eq(engine_submit(r->engine, &q), OK);
}

/* Those of one coordinator stand still, keep what they have and go on; another one's do not notice. */
Test(engine, who_is_paused_stands_still_and_others_go_on)
{
    enum { LONG = 900 }; /* it must not end before a busy machine comes to pause it */
    struct rig *r = rig_of(rig_defaults());
    submit_for(r, 1, 5, ENGINE_GENERATE, LONG);
    WAIT(r, r->heard[5].n_out >= 3);
    engine_pause(r->engine, 1, true);
    engine_pause(r->engine, 1, true); /* said twice */
    submit_for(r, 1, 6, ENGINE_RESERVE, 20);
    submit_for(r, 2, 7, ENGINE_GENERATE, 2); /* after this one's end no step with the first can be under way */
    WAIT(r, r->heard[7].n_done == 1);
    uint32_t at = r->heard[5].n_out;
    submit_for(r, 2, 8, ENGINE_GENERATE, 100);
    WAIT(r, r->heard[8].n_done == 1);
    cr_assert_eq(r->heard[8].n_out, 100);
    cr_assert_eq(r->heard[5].n_out, at);
    cr_assert_lt(at, LONG);
    cr_assert_eq(r->heard[6].n_reserved, 0);
    engine_pause(r->engine, 1, false); /* nothing else runs: this wakes the engine */
    WAIT(r, r->heard[6].n_reserved == 1);
    WAIT(r, r->heard[5].n_done == 1);
    cr_assert_eq(r->heard[5].n_out, LONG);
    cr_assert_eq(engine_cancel(r->engine, &(struct seq_key){ 1, 6, 1 }), OK);
    expect_idle(r);
    rig_free(r);
}

Test(engine, only_a_reservation_that_waits_is_withdrawn)
{
    struct rig_options o = rig_defaults();
    o.max_seqs = 1;
    struct rig *r = rig_of(o);
    submit_for(r, 1, 5, ENGINE_RESERVE, 20);
    submit_for(r, 1, 6, ENGINE_RESERVE, 20);
    WAIT(r, r->heard[5].n_reserved == 1);
    for (uint64_t i = 5; i < 8; i++) cr_assert_eq(engine_withdraw(r->engine, &(struct seq_key){ 1, i, 1 }), OK);
    WAIT(r, r->heard[6].n_done == 1);
    cr_assert(r->heard[6].finish == FINISH_FAILED && r->heard[6].status == ERR_NO_BLOCKS);
    cr_assert_eq(engine_start_prefill(r->engine, &(struct seq_key){ 1, 5, 1 }), OK);
    WAIT(r, r->heard[5].n_done == 1);
    cr_assert_eq(r->heard[5].n_out, 20);
    cr_assert_eq(r->heard[7].n_gone, 0); /* nobody waits for a word of it */
    expect_idle(r);
    rig_free(r);
}

static uint32_t n_waiting(const struct rig *r)
{
    struct engine_load load;
    engine_load(r->engine, &load);
    return load.n_waiting;
}

/* As many as run and as many as commands may wait; then it says so, until one is gone. */
Test(engine, takes_no_more_than_it_can_keep)
{
    enum { KEPT = 1 + 128 };
    const int32_t tokens[40] = { 0 };
    struct rig_options o = rig_defaults();
    o.max_seqs = 1;
    struct rig *r = rig_of(o);
    engine_pause(r->engine, 1, true);
    for (uint64_t i = 0; i < KEPT; i++) {
        submit_for(r, 1, (uint32_t)i, ENGINE_RESERVE, 20);
        for (int k = 0; k < 1000 * WAIT_S && n_waiting(r) <= i; k++) usleep(1000);
        cr_assert_eq(n_waiting(r), i + 1);
    }
    struct seq_request more = { { 1, 200, 1 }, ENGINE_RESERVE, tokens, 40, 40, params(20) };
    cr_assert_eq(engine_submit(r->engine, &more), ERR_FULL);
    cr_assert_eq(engine_submit(r->engine, &more), ERR_FULL, "a refusal is not counted");
    cr_assert_eq(engine_cancel(r->engine, &(struct seq_key){ 1, 7, 1 }), OK);
    WAIT(r, r->heard[7].n_done == 1);
    cr_assert_eq(engine_submit(r->engine, &more), OK);
    more.key.lo = 201;
    cr_assert_eq(engine_submit(r->engine, &more), ERR_FULL);
    rig_free(r);
}

Test(engine, a_first_token_may_be_the_last)
{
    struct rig_options o = rig_defaults();
    o.end_id = 42;
    struct rig *r = rig_of(o);
    submit_for(r, 1, 5, ENGINE_RESERVE, 20);
    submit_for(r, 1, 6, ENGINE_RESERVE, 1);
    WAIT(r, r->heard[5].n_reserved == 1 && r->heard[6].n_reserved == 1);
    cr_assert_eq(engine_start_decode(r->engine, &(struct seq_key){ 1, 5, 1 }, 42), OK);
    cr_assert_eq(engine_start_decode(r->engine, &(struct seq_key){ 1, 6, 1 }, 41), OK);
    WAIT(r, r->heard[5].n_done == 1 && r->heard[6].n_done == 1);
    cr_assert(r->heard[5].finish == FINISH_STOP && r->heard[6].finish == FINISH_LENGTH);
    cr_assert(r->heard[5].n_out == 0 && r->heard[6].n_out == 0, "whoever computed it has told of it");
    expect_idle(r);
    rig_free(r);
}

Test(engine, what_is_past_its_reservation_keeps_its_key)
{
    struct rig *r = rig_of(rig_defaults());
    submit_for(r, 1, 5, ENGINE_PREFILL_ONLY, 20);
    WAIT(r, r->heard[5].n_out == 1); /* held until somebody has fetched it */
    cr_assert_eq(engine_rebind(r->engine, &(struct seq_key){ 1, 5, 1 }, 2), OK);
    WAIT(r, r->heard[5].n_gone == 1);
    cr_assert_eq(r->heard[5].gone_status, ERR_STALE);
    cr_assert_eq(engine_release(r->engine, &(struct seq_key){ 1, 5, 1 }), OK);
    WAIT(r, r->heard[5].n_done == 1);
    expect_idle(r);
    rig_free(r);
}
