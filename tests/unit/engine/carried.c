/* carried: masks, hidden states and adapters, which the engine takes with a sequence though no API names them yet. */
#include "unit/engine/engine_rig.h"

#define N_PROMPT 150

static void prompt_of(int32_t *tokens)
{
    for (uint32_t k = 0; k < N_PROMPT; k++) tokens[k] = (int32_t)((k * k + 3 * k) % 160);
}

static struct seq_request request_of(uint32_t i, const int32_t *tokens, uint32_t max_tokens)
{
    return (struct seq_request){ .key = { 1, i, 1 },
                                 .mode = ENGINE_GENERATE,
                                 .tokens = tokens,
                                 .n_tokens = N_PROMPT,
                                 .n_prompt = N_PROMPT,
                                 .sampling = params(max_tokens) };
}

/* Tokens that are one larger than the last, or two: what a small grammar would allow. */
static const uint32_t *one_or_two_on(void *ctx, const int32_t *tokens, uint32_t n)
{
    uint32_t *mask = ctx;
    const uint32_t last = (uint32_t)tokens[n - 1];
    memset(mask, 0, 8 * sizeof(*mask));
    for (uint32_t id = (last + 1) % 160, k = 0; k < 2; k++, id = (id + 1) % 160) mask[id / 32] |= 1u << id % 32;
    return mask;
}

static const uint32_t *nothing(void *ctx, const int32_t *tokens, uint32_t n)
{
    static const uint32_t mask[8];
    return mask;
}

Test(carried, a_mask_says_what_may_follow)
{
    int32_t tokens[N_PROMPT];
    uint32_t mask[2][8];
    struct rig *r = rig_of(rig_defaults());
    prompt_of(tokens);
    for (uint32_t i = 0; i < 3; i++) { /* greedy, drawn, and one without a mask beside them */
        struct seq_request q = request_of(i, tokens, 30);
        q.sampling.temperature = i == 1 ? 1.5f : 0.0f;
        q.mask = i < 2 ? one_or_two_on : NULL;
        q.mask_ctx = i < 2 ? mask[i] : NULL;
        cr_assert_eq(engine_submit(r->engine, &q), OK);
    }
    for (uint32_t i = 0; i < 3; i++) WAIT(r, r->heard[i].n_done == 1);
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t ones = 0, last = (uint32_t)tokens[N_PROMPT - 1];
        for (uint32_t k = 0; k < 30; k++) {
            const uint32_t step = ((uint32_t)r->heard[i].out[k] + 160 - last) % 160;
            cr_assert(step == 1 || step == 2, "token %u", k);
            ones += step == 1;
            last = (uint32_t)r->heard[i].out[k];
        }
        if (i == 1) cr_assert(ones > 0 && ones < 30, "both are drawn");
    }
    struct seq_request q = request_of(5, tokens, 30);
    q.mask = nothing;
    cr_assert_eq(engine_submit(r->engine, &q), OK);
    WAIT(r, r->heard[5].n_done == 1);
    cr_assert(r->heard[5].finish == FINISH_FAILED && r->heard[5].n_out == 0);
    expect_idle(r);
    rig_free(r);
}

/* By chunks of any size, beside others, and though the prompt is cached. */
Test(carried, hidden_states_are_told_of_each_token)
{
    static float first[N_PROMPT * 1024];
    int32_t tokens[N_PROMPT];
    prompt_of(tokens);
    for (uint32_t run = 0; run < 3; run++) {
        struct rig_options o = rig_defaults();
        o.chunk = run == 0 ? 256 : 64;
        o.prefix_cache = true;
        o.deferred = run == 2;
        struct rig *r = rig_of(o);
        float *got = mem_array((size_t)N_PROMPT * r->d_model, sizeof(*got));
        for (uint32_t i = 0; i < 3; i++) {
            struct seq_request q = request_of(i, tokens, 4);
            q.wants_hidden = i == 2;
            if (i == 2) r->heard[i].hidden = got;
            cr_assert_eq(engine_submit(r->engine, &q), OK);
            if (i == 0) WAIT(r, r->heard[0].n_done == 1);
        }
        for (uint32_t i = 1; i < 3; i++) WAIT(r, r->heard[i].n_done == 1);
        cr_assert(r->heard[1].hidden_end == 0 && r->heard[1].cached > 0);
        cr_assert(r->heard[2].hidden_end == N_PROMPT && r->heard[2].cached == 0);
        cr_assert_eq(memcmp(r->heard[0].out, r->heard[2].out, 4 * sizeof(int32_t)), 0);
        const size_t bytes = (size_t)N_PROMPT * r->d_model * sizeof(*got);
        cr_assert_leq(bytes, sizeof(first));
        if (run == 0) memcpy(first, got, bytes);
        cr_assert_eq(memcmp(first, got, bytes), 0, "run %u", run);
        double squares = 0.0; /* normed, and times weights around 1 */
        for (uint32_t k = 0; k < r->d_model; k++) squares += (double)got[k] * (double)got[k];
        cr_assert(squares > 0.2 * r->d_model && squares < 5.0 * r->d_model, "%g", squares / r->d_model);
        mem_free(got);
        rig_free(r);
    }
}

/* A sequence that is computed again, as it had to give its blocks up, has told of its states. */
Test(carried, hidden_states_are_told_of_once)
{
    int32_t tokens[N_PROMPT];
    struct rig_options o = rig_defaults();
    struct engine_load load;
    prompt_of(tokens);
    o.n_blocks = 8; /* each of the two needs 5 in the end */
    struct rig *r = rig_of(o);
    for (uint32_t i = 0; i < 2; i++) {
        struct seq_request q = request_of(i, tokens, 150);
        q.wants_hidden = i == 1; /* the later one is preempted */
        cr_assert_eq(engine_submit(r->engine, &q), OK);
    }
    for (uint32_t i = 0; i < 2; i++) WAIT(r, r->heard[i].n_done == 1);
    engine_load(r->engine, &load);
    cr_assert_gt(load.preemptions[PREEMPT_RECOMPUTE], 0);
    cr_assert_eq(r->heard[1].hidden_end, N_PROMPT);
    cr_assert_eq(memcmp(r->heard[0].out, r->heard[1].out, 150 * sizeof(int32_t)), 0);
    expect_idle(r);
    rig_free(r);
}

Test(carried, adapters_are_refused_until_there_are_some)
{
    int32_t tokens[N_PROMPT];
    struct rig *r = rig_of(rig_defaults());
    prompt_of(tokens);
    struct seq_request q = request_of(0, tokens, 4);
    q.adapter = 1;
    cr_assert_eq(engine_submit(r->engine, &q), ERR_UNSUPPORTED);
    q.adapter = 0;
    cr_assert_eq(engine_submit(r->engine, &q), OK);
    WAIT(r, r->heard[0].n_done == 1);
    rig_free(r);
}
