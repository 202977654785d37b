/* beyond: tokens that lie past the candidates come out of the engine as whole rows give them. */
#include "engine/sampler.h"
#include "unit/engine/engine_rig.h"

#define N_PROMPT 20
#define N_OUT    60
#define N_VOCAB  700

static struct sampling_params flat(void)
{
    struct sampling_params p = params(N_OUT);
    p.temperature = 30.0f; /* nearly all tokens are as likely */
    p.n_logprobs = 0;
    return p;
}

static char *write_model(void)
{
    struct tiny_options tiny = tiny_defaults();
    tiny.type = DTYPE_Q8_0;
    tiny.n_vocab = N_VOCAB;
    return tiny_write(&tiny);
}

/* Draws each output token from the logits of its place in one pass over all tokens; returns how many were no
 * candidates. */
static uint32_t expect_drawn(const char *path, const int32_t *tokens, const struct heard *h)
{
    static struct picked from;
    static float weights[N_VOCAB];
    struct rig_options o = rig_defaults();
    struct sampling_params p = flat();
    uint32_t blocks[4] = { 0, 1, 2, 3 }, n_beyond = 0;
    o.path = path;
    struct rig *r = rig_of(o);
    struct model *m = (struct model *)(uintptr_t)engine_model(r->engine); /* the engine idles */
    const struct backend_ops *ops = r->backend->ops;
    struct sampler *s = sampler_create(N_VOCAB, NULL, 0);
    const uint32_t n = N_PROMPT + N_OUT - 1;
    const struct batch_seq seq = { .n_rows = n, .blocks = blocks, .n_blocks = 4, .n_logits = N_OUT };
    const struct batch b = { .n_rows = n, .tokens = tokens, .seqs = &seq, .n_seqs = 1 };
    cr_assert_eq(model_forward(m, &b, engine_kv(r->engine), NULL, NULL), OK);
    for (uint32_t i = 0; i < N_OUT; i++) {
        struct pick_row ask;
        struct token_logprobs lp;
        float *row;
        cr_assert_eq(model_logits(m, i, 1, &row), OK);
        cr_assert(sampler_ask(s, &ask, &p, tokens, N_PROMPT, i, NULL));
        cr_assert_eq(ops->pick(r->backend, NULL, row, N_VOCAB, 1, &ask, &from), OK);
        memcpy(weights, row, sizeof(weights));
        cr_assert_eq(ops->weigh(r->backend, NULL, weights, N_VOCAB, from.best[0].value, p.temperature), OK);
        const struct drawn want = sampler_draw_beyond(s, &from, row, weights, &p, i);
        cr_assert_eq(h->out[i], want.token, "token %u", i);
        sampler_logprobs(&from, &want, 0, &lp);
        cr_assert_eq(h->lp[i], lp.logprob);
        n_beyond += want.logit < from.best[from.n - 1].value;
    }
    sampler_destroy(s);
    rig_free(r);
    return n_beyond;
}

Test(beyond, the_engine_fetches_whole_rows_where_candidates_cannot_tell)
{
    char *path = write_model();
    int32_t tokens[N_PROMPT + N_OUT];
    for (uint32_t k = 0; k < N_PROMPT; k++) tokens[k] = (int32_t)(k * 31 + 7);
    for (int deferred = 0; deferred < 2; deferred++) {
        struct rig_options o = rig_defaults();
        o.path = path;
        o.deferred = deferred;
        struct rig *r = rig_of(o);
        for (uint32_t i = 0; i < 3; i++) { /* others beside it use the same rows */
            struct seq_request q = { .key = { 1, i, 1 },
                                     .mode = ENGINE_GENERATE,
                                     .tokens = tokens,
                                     .n_tokens = N_PROMPT,
                                     .n_prompt = N_PROMPT,
                                     .sampling = flat() };
            q.sampling.seed = i == 1 ? 7 : 70 + i;
            cr_assert_eq(engine_submit(r->engine, &q), OK);
        }
        for (uint32_t i = 0; i < 3; i++) WAIT(r, r->heard[i].n_done == 1);
        cr_assert_eq(r->heard[1].n_out, N_OUT);
        memcpy(tokens + N_PROMPT, r->heard[1].out, N_OUT * sizeof(*tokens));
        const uint32_t n_beyond = expect_drawn(path, tokens, &r->heard[1]);
        cr_assert(n_beyond > N_OUT / 4 && n_beyond < N_OUT, "%u", n_beyond);
        expect_idle(r);
        rig_free(r);
    }
    tiny_remove(path);
}
