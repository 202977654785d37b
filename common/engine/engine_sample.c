/* engine_sample.c - after the forward: tokens and logprobs from logits. */
#include "engine/engine_internal.h"

enum status engine_send_prompt_logprobs(struct engine *e, uint32_t i)
{
    struct seq *s = e->batch.owners[i];
    const struct batch_seq *bs = &e->batch.seqs[i];
    const uint32_t end = bs->pos0 + bs->n_rows, logit0 = e->batch.logit0[i];
    uint32_t n_top = (uint32_t)s->sampling.n_prompt_logprobs;
    uint32_t from = s->n_prompt_logprobs_sent, to = end + 1;
    if (to > s->n_prompt) to = s->n_prompt;
    while (from < to) { /* position `from` is predicted by the row of from - 1 */
        uint32_t n = to - from < MODEL_MAX_LOGIT_ROWS ? to - from : MODEL_MAX_LOGIT_ROWS;
        float *logits;
        enum status st = model_logits(e->model, logit0 + (from - 1) - (end - bs->n_logits), n, &logits);
        if (st != OK) return st;
        for (uint32_t k = 0; k < n; k++) {
            struct token_logprobs lp;
            const float *row = logits + (size_t)k * e->n_vocab;
            sampler_logprobs(e->sampler, row, s->tokens[from + k], n_top, &lp);
            struct engine_event ev = { .kind = ENGINE_PROMPT_LOGPROBS,
                                       .key = s->key,
                                       .output_idx = from + k,
                                       .token = s->tokens[from + k],
                                       .logprobs = &lp };
            engine_emit(e, &ev);
        }
        from += n;
    }
    s->n_prompt_logprobs_sent = from;
    return OK;
}

static void sample_one(struct engine *e, struct seq *s, float *logits)
{
    if (!sampler_can_draw(e->sampler, logits)) {
        engine_finish(e, s, FINISH_FAILED, ERR_CORRUPT,
                      "the model's output holds values that are not numbers: weights of its file are damaged");
        return;
    }
    struct token_logprobs lp;
    bool wants = s->sampling.n_logprobs >= 0;
    uint32_t idx = seq_n_output(s);
    int32_t token = sampler_draw(e->sampler, logits, &s->sampling, s->tokens, s->n_prompt, idx, wants ? &lp : NULL);
    enum finish_reason finish = engine_append(e, s, token);
    struct engine_event ev = { .kind = ENGINE_TOKEN,
                               .key = s->key,
                               .output_idx = idx,
                               .token = token,
                               .logprobs = wants ? &lp : NULL,
                               .finish = finish };
    /* The blocks are in their next state before others hear of the token. */
    if (s->mode == ENGINE_PREFILL_ONLY)
        seq_set_state(s, e->pool, SEQ_HELD);
    else if (finish == FINISH_NONE && s->state == SEQ_PREFILL)
        seq_set_state(s, e->pool, SEQ_DECODE);
    engine_emit(e, &ev);
    if (finish != FINISH_NONE && s->mode != ENGINE_PREFILL_ONLY) engine_finish(e, s, finish, OK, NULL);
}

enum status engine_sample(struct engine *e)
{
    struct step_batch *sb = &e->batch;
    uint32_t i = 0, first = 0;
    while (i < sb->b.n_seqs) {
        struct seq *who[MODEL_MAX_LOGIT_ROWS];
        uint32_t n = 0;
        for (; i < sb->b.n_seqs && n < MODEL_MAX_LOGIT_ROWS; i++) {
            struct seq *s = sb->owners[i];
            if (s->n_computed != s->n_tokens) continue;
            const uint32_t at = sb->logit0[i] + sb->seqs[i].n_logits - 1; /* the last row's */
            if (n > 0 && at != first + n) break;                          /* a prompt's rows lie between */
            if (n == 0) first = at;
            who[n++] = s;
            sb->owners[i] = NULL; /* may be gone when its token is out */
        }
        if (n == 0) return OK;
        float *logits;
        enum status st = model_logits(e->model, first, n, &logits);
        if (st != OK) {
            for (uint32_t k = 0; k < n; k++) engine_finish(e, who[k], FINISH_FAILED, st, "the model's head failed");
            return st;
        }
        for (uint32_t k = 0; k < n; k++) sample_one(e, who[k], logits + (size_t)k * e->n_vocab);
    }
    return OK;
}
