/* engine_runs.h - the same sequence in several engines: what tests say that compare their answers bit for bit. */
#ifndef TESTS_UNIT_ENGINE_ENGINE_RUNS_H
#define TESTS_UNIT_ENGINE_ENGINE_RUNS_H
#include "unit/engine/engine_rig.h"

/* 1,024 tokens. */
static inline const int32_t *prompt(void)
{
    static int32_t tokens[1024];
    for (int32_t k = 0; k < 1024; k++) tokens[k] = (k * 7 + k * k) % 160;
    return tokens;
}

/* Tokens that are drawn, with their logprobs. */
static inline struct sampling_params drawn(uint32_t max_tokens)
{
    struct sampling_params p = params(max_tokens);
    p.temperature = 1.0f;
    p.seed = 11;
    p.n_logprobs = 0;
    return p;
}

static inline void submit_with(struct rig *r, uint32_t i, enum engine_mode mode, const int32_t *tokens, uint32_t n,
                               const struct sampling_params *p, const char *salt)
{
    struct seq_request q = { { 1, i, 1 }, mode, tokens, n, n, *p, salt };
    cr_assert_eq(engine_submit(r->engine, &q), OK);
}

static inline void run_with(struct rig *r, uint32_t i, const int32_t *tokens, uint32_t n,
                            const struct sampling_params *p, const char *salt)
{
    submit_with(r, i, ENGINE_GENERATE, tokens, n, p, salt);
    WAIT(r, r->heard[i].n_done == 1);
}

static inline void expect_same_bits(const struct heard *a, const struct heard *b)
{
    cr_assert_eq(a->n_out, b->n_out);
    cr_assert_eq(memcmp(a->out, b->out, a->n_out * sizeof(*a->out)), 0);
    cr_assert_eq(memcmp(a->lp, b->lp, a->n_out * sizeof(*a->lp)), 0);
}
#endif
