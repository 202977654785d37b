/* engine_step.c - one step: grow, guess, plan, forward, book. */
#include "engine/engine_internal.h"

#include "base/clock.h"
#include "base/ewma.h"
#include "base/log.h"
#include "base/token_id.h"
#include "engine/seq_prefix.h"

#include <assert.h>

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
    const struct swap_things things = engine_swap_things(s);
    enum status st = swap_out(e->swap, &things, &s->swapped);
    s->resume = s->state;
    seq_set_state(s, e->pool, SEQ_WAITING);
    atomic_fetch_add_explicit(&e->preemptions[st == OK ? PREEMPT_SWAP : PREEMPT_RECOMPUTE], 1, memory_order_relaxed);
}

/* A decoding sequence, to hold n_tokens: blocks, and room in the windows, less than its prompt has needed. */
static bool grow(struct engine *e, struct seq *s, uint64_t n_tokens)
{
    const uint32_t n = block_table_blocks_for(n_tokens);
    if (block_table_grow(&s->table, e->pool, n, KV_ACTIVE) != OK) return false;
    if (!s->windows) return true;
    const uint32_t n_windows = engine_windows_of(e, n, true);
    window_table_lower(&s->window, s->windows, n_windows);
    return window_table_promise(&s->window, s->windows, n_windows);
}

/* A decoding sequence needs room for the tokens it feeds. */
static void grow_decoding(struct engine *e)
{
    for (uint32_t i = 0; i < e->seqs.n; i++) {
        struct seq *s = e->seqs.order[i];
        while (s->state == SEQ_DECODE && !s->paused && !grow(e, s, s->n_tokens)) preempt_for(e, i);
    }
}

/* A step has room for these beside one row of each sequence: engine_create() sees to it.  Verified tokens whose states
 * were undone are fed again; they are no more than what was guessed in the step before. */
#define DRAFT_ROWS (KV_BLOCK_TOKENS / 2)

static uint32_t most_drafts(const struct engine *e, const struct seq *s, uint32_t room)
{
    const struct sampling_params *p = &s->sampling;
    const uint32_t left = p->max_tokens - seq_n_output(s); /* at least 1: the token that is drawn in any case */
    uint32_t n = room < ENGINE_MAX_DRAFTS ? room : ENGINE_MAX_DRAFTS;
    if (s->mask || p->repetition_penalty != 1.0f || p->frequency_penalty != 0.0f || p->presence_penalty != 0.0f)
        return 0;
    if (n > left - 1) n = left - 1;
    if (n > e->opt.max_context - 1 - s->n_tokens) n = e->opt.max_context - 1 - s->n_tokens;
    return n;
}

/* Guesses that are no tokens, or for which there is no block, are left out. */
static uint32_t take_drafts(struct engine *e, struct seq *s, uint32_t room)
{
    const uint32_t max = most_drafts(e, s, room);
    int32_t *guess = s->tokens + s->n_tokens;
    uint32_t n = 0, said = max > 0 ? e->opt.draft(e->opt.ctx, s->tokens, s->n_tokens, guess, max) : 0;
    assert(said <= max);
    while (n < said && token_id_ok(guess[n], e->n_vocab)) n++;
    if (!grow(e, s, (uint64_t)s->n_tokens + n)) return 0;
    if (n == 0 || !engine_save_state(e, s)) return 0;
    s->n_drafts = n;
    s->n_tokens += n;
    return n;
}

static void draft(struct engine *e)
{
    uint32_t room = DRAFT_ROWS;
    if (!e->opt.draft) return;
    for (uint32_t i = 0; i < e->seqs.n; i++) {
        const struct seq *s = e->seqs.order[i];
        if (s->state == SEQ_DECODE && seq_can_run(s)) room -= s->n_tokens - s->n_computed - 1; /* fed again */
    }
    for (uint32_t i = 0; i < e->seqs.n; i++) {
        struct seq *s = e->seqs.order[i];
        if (s->state == SEQ_DECODE && seq_can_run(s)) room -= take_drafts(e, s, room);
    }
}

static void plan_batch(struct engine *e)
{
    const struct sched_limits lim = { e->opt.max_batch_tokens, e->opt.chunk_tokens, (double)e->opt.max_gap_us };
    uint32_t n = 0;
    for (uint32_t i = 0; i < e->seqs.n; i++) {
        struct seq *s = e->seqs.order[i];
        if (!seq_can_run(s)) continue;
        e->running[n] = s;
        e->plan_in[n++] = (struct sched_seq){ s->state == SEQ_DECODE, engine_chunk_end(e, s), s->n_computed };
    }
    sched_plan(&lim, &e->cost, e->plan_in, n, e->plan_rows);
    step_batch_reset(&e->batch);
    e->step_work = 0.0;
    for (uint32_t i = 0; i < n; i++) {
        if (e->plan_rows[i] == 0) continue;
        struct seq *s = e->running[i];
        if (s->windows)
            window_table_grow(&s->window, s->windows, block_table_blocks_for(s->n_computed + e->plan_rows[i]));
        step_batch_add(&e->batch, s, e->plan_rows[i]);
        if (!e->plan_in[i].decoding) e->step_work += sched_work(&e->cost, e->plan_in[i].n_computed, e->plan_rows[i]);
    }
}

/* Whether a sequence's KV goes out while layers are computed, or once per chunk. */
static uint32_t layers_per_event(const struct engine *e, const struct seq *s)
{
    uint32_t all = model_info(e->model)->n_layers;
    if (e->opt.kv_event_layers == 0 || s->n_input < e->opt.kv_event_min_tokens) return all;
    return e->opt.kv_event_layers < all ? e->opt.kv_event_layers : all;
}

static void on_layer(void *ctx, uint32_t layer, const struct mark *written)
{
    struct engine *e = ctx;
    for (uint32_t i = 0; i < e->batch.b.n_seqs; i++) {
        const struct seq *s = e->batch.owners[i];
        const struct batch_seq *bs = &e->batch.seqs[i];
        uint32_t group = layers_per_event(e, s), end = layer + 1;
        if (s->mode != ENGINE_PREFILL_ONLY) continue;
        if (end % group != 0 && end != model_info(e->model)->n_layers) continue;
        uint32_t t0 = bs->pos0 / KV_BLOCK_TOKENS * KV_BLOCK_TOKENS; /* with a copied tail */
        engine_emit_kv(e, s, (end - 1) / group * group, end, t0, bs->pos0 + bs->n_rows, written);
    }
}

static enum status book_chunk(struct engine *e, uint32_t i, uint64_t step_us)
{
    struct seq *s = e->batch.owners[i];
    bool prefill = s->state == SEQ_PREFILL;
    *(prefill ? &s->prefill_us : &s->decode_us) += step_us;
    s->n_computed += e->batch.seqs[i].n_rows;
    seq_publish(s);
    seq_slide_window(s);
    enum status st = engine_keep_state(e, s);
    if (!prefill || st != OK) return st;
    if (s->wants_hidden && (st = engine_send_hidden(e, i)) != OK) return st;
    if (s->sampling.n_prompt_logprobs >= 0 && (st = engine_send_prompt_logprobs(e, i)) != OK) return st;
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

static void book_rate(_Atomic double *value, double sample)
{
    double old = atomic_load_explicit(value, memory_order_relaxed);
    atomic_store_explicit(value, ewma(old, sample), memory_order_relaxed);
}

/* A mixed step says how fast prefill is while it is mostly that; a rate of decode needs a step of its own. */
static void book_step(struct engine *e, uint64_t us)
{
    const struct step_batch *sb = &e->batch;
    double s = (double)(us ? us : 1) * 1e-6;
    atomic_fetch_add_explicit(&e->steps, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&e->prefill_tokens, sb->n_prefill_rows, memory_order_relaxed);
    atomic_fetch_add_explicit(&e->decode_tokens, sb->n_decode_rows, memory_order_relaxed);
    if (sb->n_prefill_rows > sb->n_decode_rows) book_rate(&e->prefill_tok_s, sb->n_prefill_rows / s);
    if (sb->n_prefill_rows == 0) book_rate(&e->decode_tok_s, sb->n_decode_rows / s);
    /* engine_load() may reset it in between: then the larger of two neighbours is kept, which is fine. */
    if (us > atomic_load_explicit(&e->step_us_max, memory_order_relaxed))
        atomic_store_explicit(&e->step_us_max, us, memory_order_relaxed);
}

void engine_step(struct engine *e)
{
    grow_decoding(e);
    draft(e);
    plan_batch(e);
    struct step_batch *sb = &e->batch;
    if (sb->b.n_rows == 0) return; /* all that ran were preempted */
    uint64_t t0 = clock_now_us();
    enum status st = model_forward(e->model, &sb->b, e->kv, sb->n_shipping > 0 ? on_layer : NULL, e);
    const enum status done = model_wait(e->model); /* also of a part: its blocks are given back */
    if (st == OK) st = done;
    uint64_t us = clock_now_us() - t0;
    if (st != OK) {
        fail_batch(e, st, "the forward pass failed");
        return;
    }
    book_step(e, us);
    for (uint32_t i = 0; i < sb->b.n_seqs; i++) {
        st = book_chunk(e, i, us);
        if (st != OK) {
            fail_batch(e, st, "the model's head failed");
            return;
        }
    }
    const struct sched_step step = { sb->n_decode_rows, sb->n_prefill_rows, e->step_work };
    if ((st = engine_sample(e)) != OK) fail_batch(e, st, "the model's head failed");
    /* With the head and the sampler: streams wait for all of it. */
    sched_learn(&e->cost, &step, (double)(clock_now_us() - t0));
}
