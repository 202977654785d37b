/* drafts: whatever is guessed, the tokens are those that come without guesses, and no block is lost. */
#include "unit/engine/engine_rig.h"

#define N_SEQS  8
#define N_TAKEN 150

/* What each sequence says without guesses, and its prompt; the guesser reads from it. */
static struct {
    int32_t tokens[1024];
    uint32_t n_prompt, n;
} known[N_SEQS];
static uint32_t n_guessed, min_tokens;

static void make_prompt(uint32_t i)
{
    known[i].n_prompt = 40 + 37 * i;
    for (uint32_t k = 0; k < known[i].n_prompt; k++) known[i].tokens[k] = (int32_t)((k * 7 + i * 31 + k * k) % 160);
}

static struct sampling_params how(uint32_t i)
{
    struct sampling_params p = params(N_TAKEN);
    p.n_logprobs = 0;
    p.seed = i;
    p.min_tokens = min_tokens;
    p.temperature = i % 2 ? 0.9f : 0.0f;
    if (i == 5) p.frequency_penalty = 0.5f; /* it gets no guesses */
    return p;
}

static void run_all(struct rig *r, struct heard *out)
{
    for (uint32_t i = 0; i < N_SEQS; i++) {
        const uint32_t n = known[i].n_prompt;
        struct seq_request q = { { 1, i, 1 }, ENGINE_GENERATE, known[i].tokens, n, n, how(i) };
        cr_assert_eq(engine_submit(r->engine, &q), OK);
    }
    for (uint32_t i = 0; i < N_SEQS; i++) WAIT(r, r->heard[i].n_done == 1);
    for (uint32_t i = 0; i < N_SEQS; i++) out[i] = r->heard[i];
    expect_idle(r);
}

/* Which of the known sequences these tokens belong to: the one with that prompt. */
static uint32_t who_is(const int32_t *tokens, uint32_t n)
{
    uint32_t i = 0;
    while (i < N_SEQS &&
           (n < known[i].n_prompt || memcmp(tokens, known[i].tokens, known[i].n_prompt * sizeof(*tokens))))
        i++;
    cr_assert_lt(i, N_SEQS);
    return i;
}

/* The truth, with an error at every position that `wrong` divides, and once in a while no token at all. */
static uint32_t guess(uint32_t wrong, const int32_t *tokens, uint32_t n, int32_t *out, uint32_t max)
{
    const uint32_t i = who_is(tokens, n);
    uint32_t k = 0;
    cr_assert(max > 0 && max <= ENGINE_MAX_DRAFTS);
    cr_assert_neq(i, 5, "a sequence with penalties");
    for (; k < max && n + k < known[i].n; k++) {
        out[k] = known[i].tokens[n + k];
        if (wrong && (n + k) % wrong == 0) out[k] = (out[k] + 1) % 160;
        if (wrong && (n + k) % (9 * wrong) == 0) out[k] = -1;
    }
    n_guessed += k;
    return k;
}

static uint32_t right(void *ctx, const int32_t *tokens, uint32_t n, int32_t *out, uint32_t max)
{
    return guess(0, tokens, n, out, max);
}

static uint32_t half_right(void *ctx, const int32_t *tokens, uint32_t n, int32_t *out, uint32_t max)
{
    return guess(5, tokens, n, out, max);
}

static uint32_t all_wrong(void *ctx, const int32_t *tokens, uint32_t n, int32_t *out, uint32_t max)
{
    return guess(1, tokens, n, out, max);
}

/* The truth, and the end's token where it is forbidden. */
static uint32_t guess_the_end(void *ctx, const int32_t *tokens, uint32_t n, int32_t *out, uint32_t max)
{
    const uint32_t i = who_is(tokens, n), said = guess(0, tokens, n, out, max);
    for (uint32_t k = 0; k < said; k++)
        if (n + k < known[i].n_prompt + min_tokens && (n + k) % 7 == 0) out[k] = 60;
    return said;
}

static uint64_t steps_of(struct rig *r)
{
    struct engine_load load;
    engine_load(r->engine, &load);
    return load.steps;
}

static void expect_as_without(struct rig_options o, const struct heard *want)
{
    static struct heard got[N_SEQS];
    struct rig *r = rig_of(o);
    n_guessed = 0;
    run_all(r, got);
    for (uint32_t i = 0; i < N_SEQS; i++) {
        cr_assert_eq(got[i].n_out, want[i].n_out, "sequence %u", i);
        cr_assert_eq(memcmp(got[i].out, want[i].out, want[i].n_out * sizeof(*got->out)), 0, "tokens of %u", i);
        cr_assert_eq(memcmp(got[i].lp, want[i].lp, want[i].n_out * sizeof(*got->lp)), 0, "logprobs of %u", i);
        cr_assert_eq(got[i].finish, want[i].finish);
    }
    cr_assert_gt(n_guessed, 100);
    rig_free(r);
}

Test(drafts, change_no_token)
{
    static struct heard want[N_SEQS];
    struct rig_options o = rig_defaults();
    for (uint32_t i = 0; i < N_SEQS; i++) make_prompt(i);
    struct rig *r = rig_of(o);
    run_all(r, want);
    rig_free(r);
    for (uint32_t i = 0; i < N_SEQS; i++) {
        cr_assert_eq(want[i].n_out, N_TAKEN);
        memcpy(known[i].tokens + known[i].n_prompt, want[i].out, N_TAKEN * sizeof(*want->out));
        known[i].n = known[i].n_prompt + N_TAKEN;
    }
    o.draft = right;
    expect_as_without(o, want);
    o.draft = half_right;
    expect_as_without(o, want);
    o.draft = all_wrong;
    expect_as_without(o, want);
    o.draft = half_right;
    o.deferred = true;
    expect_as_without(o, want);
    o.deferred = false;
    o.prefix_cache = true; /* what is published is verified */
    expect_as_without(o, want);
    o.n_blocks = 14; /* some are preempted, and guesses find no room */
    o.swap_blocks = 6;
    expect_as_without(o, want);
}

/* A state that has seen a wrong guess is undone. */
Test(drafts, change_no_token_of_a_recurrent_model)
{
    static struct heard want[N_SEQS];
    struct rig_options o = rig_defaults();
    for (uint32_t i = 0; i < N_SEQS; i++) make_prompt(i);
    o.recurrent = true;
    o.max_seqs = N_SEQS;
    o.snapshots = 8;
    struct rig *r = rig_of(o);
    run_all(r, want);
    rig_free(r);
    for (uint32_t i = 0; i < N_SEQS; i++) {
        memcpy(known[i].tokens + known[i].n_prompt, want[i].out, N_TAKEN * sizeof(*want->out));
        known[i].n = known[i].n_prompt + N_TAKEN;
    }
    o.draft = right;
    expect_as_without(o, want);
    o.draft = half_right;
    expect_as_without(o, want);
    o.prefix_cache = true;
    expect_as_without(o, want);
    o.draft = all_wrong;
    o.n_blocks = 14;
    o.swap_blocks = 20;
    expect_as_without(o, want);
    o.snapshots = 0; /* no slot for a copy: no guesses */
    o.n_blocks = 256;
    o.draft = half_right;
    struct rig *full = rig_of(o);
    run_all(full, want);
    for (uint32_t i = 0; i < N_SEQS; i++)
        cr_assert_eq(memcmp(want[i].out, known[i].tokens + known[i].n_prompt, N_TAKEN * sizeof(*want->out)), 0);
    rig_free(full);
}

/* States of all ranks are saved, and undone. */
Test(drafts, change_no_token_of_a_recurrent_model_on_ranks)
{
    static struct heard want[N_SEQS];
    struct rig_options o = rig_defaults();
    for (uint32_t i = 0; i < N_SEQS; i++) make_prompt(i);
    o.path = TEST_DATA "/golden/families/qwen35.q.gguf";
    o.context = 512;
    o.max_seqs = N_SEQS;
    o.snapshots = N_SEQS;
    struct rig *r = rig_of(o);
    run_all(r, want);
    rig_free(r);
    for (uint32_t i = 0; i < N_SEQS; i++) {
        memcpy(known[i].tokens + known[i].n_prompt, want[i].out, N_TAKEN * sizeof(*want->out));
        known[i].n = known[i].n_prompt + N_TAKEN;
    }
    o.draft = half_right;
    expect_as_without(o, want);
    o.tp = 2;
    o.pp = 2;
    expect_as_without(o, want);
}

/* Each row of guesses has its own place in the output. */
Test(drafts, end_where_min_tokens_says)
{
    static struct heard want[N_SEQS];
    struct rig_options o = rig_defaults();
    for (uint32_t i = 0; i < N_SEQS; i++) make_prompt(i);
    o.end_id = 60;
    min_tokens = 90;
    struct rig *r = rig_of(o);
    run_all(r, want);
    rig_free(r);
    uint32_t n_ended = 0;
    for (uint32_t i = 0; i < N_SEQS; i++) {
        memcpy(known[i].tokens + known[i].n_prompt, want[i].out, want[i].n_out * sizeof(*want->out));
        known[i].n = known[i].n_prompt + want[i].n_out;
        cr_assert_gt(want[i].n_out, 90);
        n_ended += want[i].finish == FINISH_STOP;
    }
    cr_assert_gt(n_ended, 0, "some end by themselves");
    o.draft = guess_the_end;
    expect_as_without(o, want);
}

/* The end of an answer may lie among guesses that are all right: what follows it is not told of. */
Test(drafts, stop_at_an_end_among_right_guesses)
{
    static struct heard want[N_SEQS];
    struct rig_options o = rig_defaults();
    for (uint32_t i = 0; i < N_SEQS; i++) make_prompt(i);
    struct rig *r = rig_of(o);
    run_all(r, want);
    rig_free(r);
    for (uint32_t i = 0; i < N_SEQS; i++) {
        memcpy(known[i].tokens + known[i].n_prompt, want[i].out, N_TAKEN * sizeof(*want->out));
        known[i].n = known[i].n_prompt + N_TAKEN;
    }
    o.end_id = want[3].out[70];
    r = rig_of(o);
    run_all(r, want);
    rig_free(r);
    cr_assert(want[3].finish == FINISH_STOP && want[3].n_out <= 71);
    o.draft = right;
    expect_as_without(o, want);
}

Test(drafts, take_fewer_steps_when_they_are_right)
{
    static struct heard want[N_SEQS];
    struct rig_options o = rig_defaults();
    for (uint32_t i = 0; i < N_SEQS; i++) make_prompt(i);
    struct rig *r = rig_of(o);
    const uint32_t n = known[2].n_prompt;
    struct seq_request q = { { 1, 2, 1 }, ENGINE_GENERATE, known[2].tokens, n, n, how(2) };
    cr_assert_eq(engine_submit(r->engine, &q), OK);
    WAIT(r, r->heard[2].n_done == 1);
    want[2] = r->heard[2];
    rig_free(r);
    memcpy(known[2].tokens + n, want[2].out, N_TAKEN * sizeof(*want->out));
    known[2].n = n + N_TAKEN;
    o.draft = right;
    r = rig_of(o);
    cr_assert_eq(engine_submit(r->engine, &q), OK);
    WAIT(r, r->heard[2].n_done == 1);
    cr_assert_eq(memcmp(r->heard[2].out, want[2].out, N_TAKEN * sizeof(*want->out)), 0);
    cr_assert_leq(steps_of(r), 2 + (N_TAKEN + ENGINE_MAX_DRAFTS) / (ENGINE_MAX_DRAFTS + 1), "16 tokens a step");
    rig_free(r);
}

/* A prompt that goes on where a sequence with wrong guesses ended finds its blocks, and goes on as without a cache. */
Test(drafts, publish_what_is_verified_alone)
{
    static struct heard want[N_SEQS], plain;
    for (uint32_t i = 0; i < N_SEQS; i++) make_prompt(i);
    struct rig *r = rig_of(rig_defaults());
    run_all(r, want);
    rig_free(r);
    for (uint32_t i = 0; i < N_SEQS; i++) {
        memcpy(known[i].tokens + known[i].n_prompt, want[i].out, N_TAKEN * sizeof(*want->out));
        known[i].n = known[i].n_prompt + N_TAKEN;
    }
    for (int side = 0; side < 2; side++) {
        struct rig_options with = rig_defaults();
        int32_t tokens[1024];
        with.prefix_cache = side == 1;
        with.draft = side == 1 ? half_right : NULL;
        struct rig *d = rig_of(with);
        if (side == 1) run_all(d, want);
        memcpy(tokens, known[4].tokens, known[4].n * sizeof(*tokens));
        struct sampling_params p = params(20);
        struct seq_request q = { { 1, 20, 1 }, ENGINE_GENERATE, tokens, known[4].n, known[4].n, p };
        known[4].n = 0; /* nothing is guessed of it */
        cr_assert_eq(engine_submit(d->engine, &q), OK);
        WAIT(d, d->heard[20].n_done == 1);
        if (side == 0) plain = d->heard[20];
        cr_assert_eq(memcmp(d->heard[20].out, plain.out, 20 * sizeof(*plain.out)), 0);
        if (side == 1) cr_assert_geq(d->heard[20].cached, known[4].n_prompt + N_TAKEN - 64);
        known[4].n = known[4].n_prompt + N_TAKEN;
        rig_free(d);
    }
}
