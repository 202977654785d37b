/* engine_sample.c - after the forward: tokens and logprobs from what is picked of its logits. */
#include "engine/engine_internal.h"

#include <assert.h>
#include <math.h>

/* --- logprobs of a prompt --- */
static void send_prompt_logprob(struct engine *e, const struct seq *s, uint32_t at, const struct picked *from)
{
    const struct drawn token = { s->tokens[at], from->asked };
    struct token_logprobs lp;
    sampler_logprobs(from, &token, (uint32_t)s->sampling.n_prompt_logprobs, &lp);
    struct engine_event ev = {
        .kind = ENGINE_PROMPT_LOGPROBS, .key = s->key, .output_idx = at, .token = token.token, .logprobs = &lp
    };
    engine_emit(e, &ev);
}

enum status engine_send_prompt_logprobs(struct engine *e, uint32_t i)
{
    struct seq *s = e->batch.owners[i];
    const struct batch_seq *bs = &e->batch.seqs[i];
    const uint32_t end = bs->pos0 + bs->n_rows, logit0 = e->batch.logit0[i];
    const int32_t n_top = s->sampling.n_prompt_logprobs;
    uint32_t from = s->n_prompt_logprobs_sent, to = end + 1;
    if (to > s->n_prompt) to = s->n_prompt;
    while (from < to) { /* position `from` is predicted by the row of from - 1 */
        uint32_t n = to - from < MODEL_MAX_LOGIT_ROWS ? to - from : MODEL_MAX_LOGIT_ROWS;
        for (uint32_t k = 0; k < n; k++)
            e->asks[k] = (struct pick_row){ .repetition = 1.0f,
                                            .want = n_top > 0 ? (uint32_t)n_top : 1,
                                            .wants_sum = true,
                                            .ask = s->tokens[from + k] };
        enum status st = model_pick(e->model, logit0 + (from - 1) - (end - bs->n_logits), n, e->asks, e->picked);
        if (st != OK) return st;
        for (uint32_t k = 0; k < n; k++) {
            if (!e->picked[k].finite) return ERR_CORRUPT;
            send_prompt_logprob(e, s, from + k, &e->picked[k]);
        }
        from += n;
    }
    s->n_prompt_logprobs_sent = from;
    return OK;
}

/* --- hidden states --- */
enum status engine_send_hidden(struct engine *e, uint32_t i)
{
    struct seq *s = e->batch.owners[i];
    const struct batch_seq *bs = &e->batch.seqs[i];
    uint32_t t = bs->pos0 > s->n_hidden_sent ? bs->pos0 : s->n_hidden_sent, end = bs->pos0 + bs->n_rows;
    if (end > s->n_input) end = s->n_input;
    while (t < end) {
        const uint32_t n = end - t < MODEL_MAX_LOGIT_ROWS ? end - t : MODEL_MAX_LOGIT_ROWS;
        enum status st = model_hidden(e->model, e->batch.logit0[i] + t - bs->pos0, n, e->hidden);
        if (st != OK) return st;
        struct engine_event ev = { .kind = ENGINE_HIDDEN, .key = s->key, .t0 = t, .t1 = t + n, .hidden = e->hidden };
        engine_emit(e, &ev);
        t += n;
    }
    if (end > s->n_hidden_sent) s->n_hidden_sent = end;
    return OK;
}

/* --- a slice: sequences whose rows go through the head together --- */
struct slice {
    uint32_t first, n_rows; /* logit rows of the batch */
    struct seq *who[MODEL_MAX_LOGIT_ROWS];
    uint32_t row[MODEL_MAX_LOGIT_ROWS]; /* each one's first, in the slice */
    uint32_t n;
};

/* Whether sequence i of the batch, whose last rows are drawn from, has a place in the slice. */
static bool join(struct engine *e, struct slice *sl, uint32_t i)
{
    struct seq *s = e->batch.owners[i];
    const uint32_t n = s->n_drafts + 1, at = e->batch.logit0[i] + e->batch.seqs[i].n_logits - n;
    const uint32_t n_known = seq_n_output(s) - s->n_drafts;
    if (sl->n_rows + n > MODEL_MAX_LOGIT_ROWS) return false;
    if (sl->n > 0 && at != sl->first + sl->n_rows) return false; /* a prompt's rows lie between */
    for (uint32_t k = 0; k < n; k++) {
        const uint32_t *mask = s->mask ? s->mask(s->mask_ctx, s->tokens, s->n_tokens) : NULL;
        struct pick_row *ask = &e->asks[sl->n_rows + k];
        if (!sampler_ask(e->sampler, ask, &s->sampling, s->tokens, s->n_prompt, n_known + k, mask)) return false;
    }
    if (sl->n == 0) sl->first = at;
    sl->row[sl->n] = sl->n_rows;
    sl->who[sl->n++] = s;
    sl->n_rows += n;
    return true;
}

/* Sequences of the batch from i on, until the slice is full; returns the first one that has no place. */
static uint32_t fill(struct engine *e, struct slice *sl, uint32_t i)
{
    sampler_begin(e->sampler);
    for (; i < e->batch.b.n_seqs; i++) {
        const struct seq *s = e->batch.owners[i];
        if (s->n_computed != s->n_tokens) continue;
        if (!join(e, sl, i)) break;
        e->batch.owners[i] = NULL; /* may be gone when its token is out */
    }
    return i;
}

/* --- tokens --- */
static const char *why_not(const struct picked *from)
{
    if (!from->finite) return "the model's output holds values that are not numbers: weights of its file are damaged";
    if (from->best[0].value == -INFINITY) return "no token is allowed here: its mask, or logit_bias, excludes all";
    return NULL;
}

static enum status draw(struct engine *e, const struct seq *s, uint32_t slot, uint32_t idx, struct drawn *out)
{
    const struct picked *from = &e->picked[slot];
    const float *weights;
    if (sampler_draw(e->sampler, out, from, &s->sampling, idx)) return OK;
    float *row = sampler_row(e->sampler);
    enum status st = model_weights(e->model, slot, from->best[0].value, s->sampling.temperature, row, &weights);
    if (st == OK) *out = sampler_draw_beyond(e->sampler, from, row, weights, &s->sampling, idx);
    return st;
}

/* Tells of a token; whether the sequence goes on. */
static bool tell(struct engine *e, struct seq *s, const struct drawn *token, const struct picked *from)
{
    struct token_logprobs lp;
    const bool wants = s->sampling.n_logprobs >= 0;
    const uint32_t idx = seq_n_output(s);
    if (wants) sampler_logprobs(from, token, (uint32_t)s->sampling.n_logprobs, &lp);
    enum finish_reason finish = engine_append(e, s, token->token);
    struct engine_event ev = { .kind = ENGINE_TOKEN,
                               .key = s->key,
                               .output_idx = idx,
                               .token = token->token,
                               .logprobs = wants ? &lp : NULL,
                               .finish = finish };
    /* The blocks are in their next state before others hear of the token. */
    if (s->mode == ENGINE_PREFILL_ONLY)
        seq_set_state(s, e->pool, SEQ_HELD);
    else if (finish == FINISH_NONE && s->state == SEQ_PREFILL)
        seq_set_state(s, e->pool, SEQ_DECODE);
    engine_emit(e, &ev);
    if (finish == FINISH_NONE) return true;
    if (s->mode != ENGINE_PREFILL_ONLY) engine_finish(e, s, finish, OK, NULL);
    return false;
}

/* Draws from the rows of a sequence's guesses until one is not what is drawn there, and once after them. */
static void sample_one(struct engine *e, struct seq *s, uint32_t slot)
{
    struct drawn out[ENGINE_MAX_DRAFTS + 1];
    const uint32_t n_drafts = s->n_drafts, n_known = s->n_tokens - n_drafts, idx0 = n_known - s->n_prompt;
    uint32_t n = 0; /* guesses that are right */
    for (;; n++) {
        const char *reason = why_not(&e->picked[slot + n]);
        enum status st = reason ? ERR_CORRUPT : draw(e, s, slot + n, idx0 + n, &out[n]);
        if (st != OK) {
            engine_finish(e, s, FINISH_FAILED, st, reason ? reason : "the model's head failed");
            return;
        }
        if (n == n_drafts || out[n].token != s->tokens[n_known + n]) break;
    }
    s->n_drafts = 0;
    seq_cut(s, e->pool, n_drafts - n);
    if (n < n_drafts) engine_undo_state(s);
    seq_drop_saved(s);
    for (uint32_t k = 0; k <= n; k++) {
        s->n_tokens = n_known + k;
        if (!tell(e, s, &out[k], &e->picked[slot + k])) return;
    }
}

enum status engine_sample(struct engine *e)
{
    for (uint32_t i = 0; i < e->batch.b.n_seqs;) {
        struct slice sl = { 0 };
        i = fill(e, &sl, i);
        if (sl.n == 0) return OK;
        enum status st = model_pick(e->model, sl.first, sl.n_rows, e->asks, e->picked);
        for (uint32_t k = 0; k < sl.n; k++) {
            if (st == OK)
                sample_one(e, sl.who[k], sl.row[k]);
            else
                engine_finish(e, sl.who[k], FINISH_FAILED, st, "the model's head failed");
        }
        if (st != OK) return st;
    }
    return OK;
}
