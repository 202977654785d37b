/* engine_pause: one coordinator's sequences stand still, and those of others do not notice. */
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
    struct rig *r = rig_of(rig_defaults());
    submit_for(r, 1, 5, ENGINE_GENERATE, 200);
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
    cr_assert_lt(at, 200);
    cr_assert_eq(r->heard[6].n_reserved, 0);
    engine_pause(r->engine, 1, false); /* nothing else runs: this wakes the engine */
    WAIT(r, r->heard[6].n_reserved == 1);
    WAIT(r, r->heard[5].n_done == 1);
    cr_assert_eq(r->heard[5].n_out, 200);
    cr_assert_eq(engine_cancel(r->engine, &(struct seq_key){ 1, 6, 1 }), OK);
    expect_idle(r);
    rig_free(r);
}
