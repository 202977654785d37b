/* engine_step.c - one step: admit, grow, plan, forward, sample, tell. */
#include "engine/engine_internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "engine/seq_prefix.h"

#include <assert.h>

#define EWMA_WEIGHT 0.2

void engine_emit(struct engine *e, const struct engine_event *ev)
{
    e->opt.on_event(e->opt.ctx, ev);
}

static void stop_reading(struct engine *e)
{
    kv_tier_drop_reads(e->tier);
    e->reading = NULL;
}

void engine_finish(struct engine *e, struct seq *s, enum finish_reason finish, enum status st, const char *message)
{
    if (e->reading == s) stop_reading(e);
    seq_set_state(s, e->pool, SEQ_DONE);
    struct engine_event ev = { .kind = ENGINE_DONE,
                               .key = s->key,
                               .finish = finish,
                               .status = st,
                               .message = message,
                               .prefill_us = s->prefill_us,
                               .decode_us = s->decode_us };
    swap_drop(e->swap, &s->swapped);
    seq_set_remove(&e->seqs, s);
    seq_destroy(s);
    atomic_fetch_sub_explicit(&e->n_live, 1, memory_order_relaxed);
    engine_emit(e, &ev);
}

enum finish_reason engine_append(struct engine *e, struct seq *s, int32_t token)
{
    s->tokens[s->n_tokens++] = token;
    if (sampler_is_end(e->sampler, token) && !s->sampling.ignore_eos) return FINISH_STOP;
    if (seq_n_output(s) >= s->sampling.max_tokens) return FINISH_LENGTH;
    return s->n_tokens >= e->opt.max_context ? FINISH_LENGTH : FINISH_NONE;
}

void engine_emit_reserved(struct engine *e, const struct seq *s)
{
    struct engine_event ev = { .kind = ENGINE_RESERVED,
                               .key = s->key,
                               .blocks = s->table.ids,
                               .n_blocks = s->table.n,
                               .cached_tokens = s->n_computed };
    engine_emit(e, &ev);
}

static void emit_kv(struct engine *e, const struct seq *s, uint32_t layer0, uint32_t layer1, uint32_t t0, uint32_t t1)
{
    struct engine_event ev = { .kind = ENGINE_KV,
                               .key = s->key,
                               .blocks = s->table.ids,
                               .n_blocks = s->table.n,
                               .layer0 = layer0,
                               .layer1 = layer1,
                               .t0 = t0,
                               .t1 = t1 };
    engine_emit(e, &ev);
}

/* Copy on write: the block goes on otherwise in each sequence, so each writes into its own. */
static void copy_tail(struct engine *e, struct seq *s)
{
    kv_block_id to, from;
    if (seq_find_tail(s, &to, &from) && kv_store_copy_block(e->kv, to, from) == OK) seq_took_tail(s);
}

/* What a sequence has found when it first begins, for its client and the counters. */
static void book_hits(struct engine *e, struct seq *s)
{
    atomic_fetch_add_explicit(&e->prefix_hits, s->n_computed - s->n_cached, memory_order_relaxed);
    s->n_cached = s->n_computed;
}

/* All blocks it asks for, those of a cached prefix among them, or none.  What was swapped out comes back whole. */
static bool take_blocks(struct engine *e, struct seq *s)
{
    const bool is_swapped = s->swapped.n > 0;
    if (!is_swapped) seq_take_prefix(s);
    if (!is_swapped && e->tier) seq_touch_tier(s, e->tier);
    if (block_table_grow(&s->table, e->pool, seq_blocks_to_admit(s), KV_ACTIVE) != OK) {
        if (!is_swapped) seq_release_blocks(s, e->pool);
        return false;
    }
    return true;
}

/* What the tier has of its prefix; one sequence at a time has blocks read, the first one that needs it. */
static enum seq_fill fill(struct engine *e, struct seq *s, uint64_t until_us)
{
    const double prefill_tok_s = atomic_load_explicit(&e->prefill_tok_s, memory_order_relaxed);
    const double compute_us = prefill_tok_s > 0 ? KV_BLOCK_TOKENS * 1e6 / prefill_tok_s : 0;
    const bool may_read = !e->reading || e->reading == s;
    if (!e->tier || s->swapped.n > 0) return FILL_DONE;
    enum seq_fill how = seq_fill_from_tier(s, e->tier, compute_us, may_read, until_us);
    if (how == FILL_READING && may_read) e->reading = s;
    if (how == FILL_DONE && e->reading == s) stop_reading(e);
    return how;
}

/* Takes a swapped sequence's KV back, or starts it over if that fails. */
static void resume(struct engine *e, struct seq *s)
{
    enum status st = swap_in(e->swap, s->table.ids, &s->swapped);
    if (st != OK) s->n_computed = 0;
    seq_set_state(s, e->pool, st == OK ? s->resume : SEQ_PREFILL);
}

static void admit_one(struct engine *e, struct seq *s)
{
    if (s->swapped.n > 0) {
        resume(e, s);
        return;
    }
    bool reserve = s->mode == ENGINE_RESERVE && !s->started;
    uint32_t n_full = s->n_computed;
    if (!reserve) copy_tail(e, s); /* a hand-off is of whole blocks */
    if (!s->started) {
        atomic_fetch_add_explicit(&e->prefix_queries, seq_is_looked_up(s) ? s->n_tokens : 0, memory_order_relaxed);
        book_hits(e, s);
    }
    seq_set_state(s, e->pool, reserve ? SEQ_RESERVED : SEQ_PREFILL);
    if (reserve) engine_emit_reserved(e, s);
    /* What is not computed here is handed over all the same; a tail when its last token is computed. */
    if (s->mode == ENGINE_PREFILL_ONLY && n_full > 0) emit_kv(e, s, 0, e->kv->n_layers, 0, n_full);
}

void engine_begin_prefill(struct engine *e, struct seq *s)
{
    copy_tail(e, s);
    book_hits(e, s);
    seq_set_state(s, e->pool, SEQ_PREFILL);
}

/* Admits a sequence that has its blocks once the tier has filled them.  Returns whether it can go on at once. */
static bool go_on_filling(struct engine *e, struct seq *s, uint64_t until_us)
{
    enum seq_fill how = fill(e, s, until_us);
    if (how == FILL_DONE)
        admit_one(e, s);
    else if (s->state == SEQ_WAITING && how == FILL_READING && e->reading != s)
        seq_release_blocks(s, e->pool); /* what is read for another one may be what it needs, too */
    else if (s->state == SEQ_WAITING)
        seq_set_state(s, e->pool, SEQ_FETCHING);
    return how == FILL_LATER || seq_is_running(s);
}

static bool can_run(const struct seq *s)
{
    return seq_is_running(s) && !s->paused;
}

bool engine_admit(struct engine *e)
{
    uint32_t n_slots = 0, n_busy = 0;
    /* Blocks are copied from the tier on this thread: streams wait no longer for them than for a step. */
    uint64_t until_us = e->opt.max_gap_us && e->tier ? clock_now_us() + e->opt.max_gap_us : UINT64_MAX;
    for (uint32_t i = 0; i < e->seqs.n; i++) {
        struct seq *s = e->seqs.order[i];
        s->paused = engine_is_paused(e, s->key.hi); /* until the step is over */
        n_slots += s->state != SEQ_WAITING && s->state != SEQ_HELD;
        n_busy += can_run(s);
    }
    if (e->reading) n_busy += go_on_filling(e, e->reading, until_us); /* before those that wait for their turn */
    for (uint32_t i = 0; i < e->seqs.n; i++) {
        struct seq *s = e->seqs.order[i];
        if (s->state == SEQ_FETCHING && s != e->reading) n_busy += go_on_filling(e, s, until_us);
    }
    /* Strictly in order: a large one at the head would starve if small ones passed it. */
    for (uint32_t i = 0; i < e->seqs.n && n_slots < e->opt.max_seqs; i++) {
        struct seq *s = e->seqs.order[i];
        if (s->state != SEQ_WAITING || s->paused) continue;
        if (!take_blocks(e, s)) break;
        n_busy += go_on_filling(e, s, until_us);
        n_slots += s->state != SEQ_WAITING;
    }
    return n_busy > 0;
}

/* Takes a victim's blocks for sequence `asking` (indices into seqs.order). */
static void preempt_for(struct engine *e, uint32_t asking)
{
    for (uint32_t i = 0; i < e->seqs.n; i++) {
        const struct seq *s = e->seqs.order[i];
        e->victims[i].can_preempt = seq_is_running(s) && s->mode != ENGINE_PREFILL_ONLY;
        e->victims[i].n_blocks = s->table.n;
    }
    uint32_t victim = sched_pick_victim(e->victims, e->seqs.n, asking);
    assert(victim < e->seqs.n); /* `asking` itself, at the least */
    struct seq *s = e->seqs.order[victim];
    log_debug("preempt", "req=%016llx-%llu tokens=%u blocks=%u", (unsigned long long)s->key.hi,
              (unsigned long long)s->key.lo, s->n_tokens, s->table.n);
    /* A full arena is no failure: what is not kept is computed again. */
    enum status st = swap_out(e->swap, s->table.ids, block_table_blocks_for(s->n_computed), &s->swapped);
    s->resume = s->state;
    seq_set_state(s, e->pool, SEQ_WAITING);
    atomic_fetch_add_explicit(&e->preemptions[st == OK ? PREEMPT_SWAP : PREEMPT_RECOMPUTE], 1, memory_order_relaxed);
}

/* A decoding sequence needs room for the one token it feeds. */
static void grow_decoding(struct engine *e)
{
    for (uint32_t i = 0; i < e->seqs.n; i++) {
        struct seq *s = e->seqs.order[i];
        while (s->state == SEQ_DECODE && !s->paused &&
               block_table_grow(&s->table, e->pool, block_table_blocks_for(s->n_computed + 1), KV_ACTIVE) != OK)
            preempt_for(e, i);
    }
}

static void plan_batch(struct engine *e)
{
    const struct sched_limits lim = { e->opt.max_batch_tokens, e->opt.chunk_tokens, (double)e->opt.max_gap_us };
    uint32_t n = 0;
    for (uint32_t i = 0; i < e->seqs.n; i++) {
        struct seq *s = e->seqs.order[i];
        if (!can_run(s)) continue;
        e->running[n] = s;
        e->plan_in[n++] = (struct sched_seq){ s->state == SEQ_DECODE, s->n_tokens, s->n_computed };
    }
    sched_plan(&lim, &e->cost, e->plan_in, n, e->plan_rows);
    step_batch_reset(&e->batch);
    e->step_work = 0.0;
    for (uint32_t i = 0; i < n; i++) {
        if (e->plan_rows[i] == 0) continue;
        step_batch_add(&e->batch, e->running[i], e->plan_rows[i]);
        if (!e->plan_in[i].decoding) e->step_work += sched_work(&e->cost, e->plan_in[i].n_computed, e->plan_rows[i]);
    }
}

/* Whether a sequence's KV goes out while layers are computed, or once per chunk. */
static uint32_t layers_per_event(const struct engine *e, const struct seq *s)
{
    uint32_t all = e->kv->n_layers;
    if (e->opt.kv_event_layers == 0 || s->n_input < e->opt.kv_event_min_tokens) return all;
    return e->opt.kv_event_layers < all ? e->opt.kv_event_layers : all;
}

static void on_layer(void *ctx, uint32_t layer)
{
    struct engine *e = ctx;
    for (uint32_t i = 0; i < e->batch.b.n_seqs; i++) {
        const struct seq *s = e->batch.owners[i];
        const struct batch_seq *bs = &e->batch.seqs[i];
        uint32_t group = layers_per_event(e, s), end = layer + 1;
        if (s->mode != ENGINE_PREFILL_ONLY) continue;
        if (end % group != 0 && end != e->kv->n_layers) continue;
        uint32_t t0 = bs->pos0 / KV_BLOCK_TOKENS * KV_BLOCK_TOKENS; /* with a copied tail */
        emit_kv(e, s, (end - 1) / group * group, end, t0, bs->pos0 + bs->n_rows);
    }
}

/* Logprobs of prompt tokens that follow the rows of this chunk, in slices as wide as the head's buffer. */
static enum status send_prompt_logprobs(struct engine *e, struct seq *s, const struct batch_seq *bs)
{
    uint32_t n_top = (uint32_t)s->sampling.n_prompt_logprobs;
    uint32_t from = s->n_prompt_logprobs_sent, to = bs->pos0 + bs->n_rows + 1;
    uint32_t rows[MODEL_MAX_LOGIT_ROWS];
    if (to > s->n_prompt) to = s->n_prompt;
    while (from < to) { /* position `from` is predicted by the row of from - 1 */
        uint32_t n = to - from < MODEL_MAX_LOGIT_ROWS ? to - from : MODEL_MAX_LOGIT_ROWS;
        float *logits;
        for (uint32_t i = 0; i < n; i++) rows[i] = bs->row0 + (from - 1 + i - bs->pos0);
        enum status st = model_logits(e->model, rows, n, &logits);
        if (st != OK) return st;
        for (uint32_t i = 0; i < n; i++) {
            struct token_logprobs lp;
            const float *row = logits + (size_t)i * e->n_vocab;
            sampler_logprobs(e->sampler, row, s->tokens[from + i], n_top, &lp);
            struct engine_event ev = { .kind = ENGINE_PROMPT_LOGPROBS,
                                       .key = s->key,
                                       .output_idx = from + i,
                                       .token = s->tokens[from + i],
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

/* Sequences whose last known token was in the batch get their next one. */
static enum status sample_all(struct engine *e)
{
    struct step_batch *sb = &e->batch;
    uint32_t rows[MODEL_MAX_LOGIT_ROWS];
    uint32_t i = 0;
    while (i < sb->b.n_seqs) {
        struct seq *who[MODEL_MAX_LOGIT_ROWS];
        uint32_t n = 0;
        for (; i < sb->b.n_seqs && n < MODEL_MAX_LOGIT_ROWS; i++) {
            struct seq *s = sb->owners[i];
            if (s->n_computed != s->n_tokens) continue;
            rows[n] = sb->seqs[i].row0 + sb->seqs[i].n_rows - 1;
            who[n++] = s;
            sb->owners[i] = NULL; /* may be gone when its token is out */
        }
        if (n == 0) return OK;
        float *logits;
        enum status st = model_logits(e->model, rows, n, &logits);
        if (st != OK) {
            for (uint32_t k = 0; k < n; k++) engine_finish(e, who[k], FINISH_FAILED, st, "the model's head failed");
            return st;
        }
        for (uint32_t k = 0; k < n; k++) sample_one(e, who[k], logits + (size_t)k * e->n_vocab);
    }
    return OK;
}

static enum status book_chunk(struct engine *e, struct seq *s, const struct batch_seq *bs, uint64_t step_us)
{
    bool prefill = s->state == SEQ_PREFILL;
    *(prefill ? &s->prefill_us : &s->decode_us) += step_us;
    s->n_computed += bs->n_rows;
    seq_publish(s);
    if (!prefill) return OK;
    if (s->sampling.n_prompt_logprobs >= 0) {
        enum status st = send_prompt_logprobs(e, s, bs);
        if (st != OK) return st;
    }
    struct engine_event ev = {
        .kind = ENGINE_PROGRESS, .key = s->key, .t1 = s->n_computed, .cached_tokens = s->n_cached
    };
    engine_emit(e, &ev);
    return OK;
}

static void fail_batch(struct engine *e, enum status st, const char *message)
{
    for (uint32_t i = 0; i < e->batch.b.n_seqs; i++)
        if (e->batch.owners[i]) engine_finish(e, e->batch.owners[i], FINISH_FAILED, st, message);
}

static void ewma(_Atomic double *value, double sample)
{
    double old = atomic_load_explicit(value, memory_order_relaxed);
    double v = old == 0.0 ? sample : old + EWMA_WEIGHT * (sample - old);
    atomic_store_explicit(value, v, memory_order_relaxed);
}

/* A mixed step says how fast prefill is while it is mostly that; a rate of decode needs a step of its own. */
static void book_step(struct engine *e, uint64_t us)
{
    const struct step_batch *sb = &e->batch;
    double s = (double)(us ? us : 1) * 1e-6;
    atomic_fetch_add_explicit(&e->steps, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&e->prefill_tokens, sb->n_prefill_rows, memory_order_relaxed);
    atomic_fetch_add_explicit(&e->decode_tokens, sb->n_decode_rows, memory_order_relaxed);
    if (sb->n_prefill_rows > sb->n_decode_rows) ewma(&e->prefill_tok_s, sb->n_prefill_rows / s);
    if (sb->n_prefill_rows == 0) ewma(&e->decode_tok_s, sb->n_decode_rows / s);
    /* engine_load() may reset it in between: then the larger of two neighbours is kept, which is fine. */
    if (us > atomic_load_explicit(&e->step_us_max, memory_order_relaxed))
        atomic_store_explicit(&e->step_us_max, us, memory_order_relaxed);
}

void engine_step(struct engine *e)
{
    grow_decoding(e);
    plan_batch(e);
    struct step_batch *sb = &e->batch;
    if (sb->b.n_rows == 0) return; /* all that ran were preempted */
    uint64_t t0 = clock_now_us();
    enum status st = model_forward(e->model, &sb->b, e->kv, on_layer, e);
    uint64_t us = clock_now_us() - t0;
    if (st != OK) {
        fail_batch(e, st, "the forward pass failed");
        return;
    }
    book_step(e, us);
    for (uint32_t i = 0; i < sb->b.n_seqs; i++) {
        st = book_chunk(e, sb->owners[i], &sb->seqs[i], us);
        if (st != OK) {
            fail_batch(e, st, "the model's head failed");
            return;
        }
    }
    const struct sched_step step = { sb->n_decode_rows, sb->n_prefill_rows, e->step_work };
    if ((st = sample_all(e)) != OK) fail_batch(e, st, "the model's head failed");
    /* With the head and the sampler: streams wait for all of it. */
    sched_learn(&e->cost, &step, (double)(clock_now_us() - t0));
}
