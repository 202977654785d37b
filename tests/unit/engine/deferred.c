/* The engine on a backend that does nothing until somebody waits: same tokens, and marks for whoever ships KV. */
#include "unit/engine/engine_rig.h"

#include "base/mailbox.h"

#define N        6
#define N_PROMPT 300

static void submit(struct rig *r, uint32_t i, enum engine_mode mode, uint32_t n, const struct sampling_params *p)
{
    int32_t tokens[N_PROMPT];
    for (uint32_t k = 0; k < n; k++) tokens[k] = (int32_t)((k * 7 + i * 31 + k * k + 3) % 160);
    struct seq_request q = { { 1, i, 1 }, mode, tokens, n, n, *p };
    cr_assert_eq(engine_submit(r->engine, &q), OK);
}

/* Long and short prompts together, some with logprobs of their prompts, some drawn, some preempted. */
static void generate(bool deferred, struct heard *out)
{
    struct rig_options o = rig_defaults();
    o.deferred = deferred;
    o.n_blocks = 14;
    o.swap_blocks = 8;
    struct rig *r = rig_of(o);
    const uint32_t marks = deferred ? deferred_backend_marks(r->backend) : 0; /* of loading */
    for (uint32_t i = 0; i < N; i++) {
        struct sampling_params p = params(20 + i);
        p.temperature = i % 2 ? 0.8f : 0.0f;
        p.n_logprobs = 0;
        p.n_prompt_logprobs = i % 3 ? -1 : 1;
        submit(r, i, ENGINE_GENERATE, i % 2 ? 40 + i : N_PROMPT - 9 * i, &p);
    }
    for (uint32_t i = 0; i < N; i++) WAIT(r, r->heard[i].n_done == 1);
    expect_idle(r);
    memcpy(out, r->heard, N * sizeof(*out));
    if (deferred) cr_assert_eq(deferred_backend_marks(r->backend), marks, "nobody ships KV");
    rig_free(r);
}

Test(deferred, tokens_and_logprobs_are_the_cpus)
{
    static struct heard want[N], got[N];
    generate(false, want);
    generate(true, got);
    for (uint32_t i = 0; i < N; i++) {
        cr_assert_eq(got[i].status, OK);
        cr_assert_eq(got[i].n_out, 20 + i);
        cr_assert_arr_eq(got[i].out, want[i].out, got[i].n_out * sizeof(int32_t), "sequence %u", i);
        cr_assert_arr_eq(got[i].lp, want[i].lp, got[i].n_out * sizeof(float), "sequence %u", i);
        cr_assert_eq(got[i].n_prompt_lp, want[i].n_prompt_lp);
        cr_assert_eq(got[i].n_prompt_lp, i % 3 ? 0 : (i % 2 ? 40 + i : N_PROMPT - 9 * i) - 1);
        cr_assert_eq(got[i].prompt_lp_sum, want[i].prompt_lp_sum);
    }
}

/* Each event's mark is waited for on this thread while the engine's goes on; then the KV is there. */
Test(deferred, who_ships_kv_waits_for_marks)
{
    struct rig_options o = rig_defaults();
    struct sampling_params p = params(10);
    o.deferred = true;
    struct rig *r = rig_of(o);
    cr_assert_eq(mailbox_create(&r->marks, 64), OK);
    submit(r, 0, ENGINE_GENERATE, 50, &p); /* decodes beside it */
    submit(r, 1, ENGINE_PREFILL_ONLY, N_PROMPT, &p);
    const uint32_t n_events = 3 * r->n_layers; /* chunks of 128 tokens at the most */
    for (uint32_t i = 0; i < n_events; i++) {
        struct mark *m = mailbox_take(r->marks, WAIT_S * 1000);
        cr_assert_not_null(m, "event %u of %u", i, n_events);
        cr_assert_not_null(m->backend);
        cr_assert_eq(mark_wait(m), OK);
        cr_assert(mark_done(m));
        mem_free(m);
    }
    WAIT(r, r->heard[1].n_out == 1);
    WAIT(r, r->heard[0].n_done == 1);
    const uint32_t marks = deferred_backend_marks(r->backend);
    submit(r, 2, ENGINE_GENERATE, 50, &p);
    WAIT(r, r->heard[2].n_done == 1);
    cr_assert_eq(deferred_backend_marks(r->backend), marks, "steps that ship nothing ask for no marks");
    cr_assert_eq(engine_release(r->engine, &(struct seq_key){ 1, 1, 1 }), OK);
    WAIT(r, r->heard[1].n_done == 1);
    for (void *m; (m = mailbox_try_take(r->marks));) mem_free(m);
    struct mailbox *box = r->marks;
    rig_free(r);
    mailbox_destroy(box);
}
