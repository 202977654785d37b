/* engine_admit.c - who waits gets blocks: from the pool, a cached prefix, the tier, or the swap. */
#include "engine/engine_internal.h"

#include "base/clock.h"
#include "engine/seq_prefix.h"
#include "engine/seq_tier.h"

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

/* Where it looks for what the pool does not have. */
static struct kv_tier *tier_of(const struct engine *e, const struct seq *s)
{
    return s->skips_tier ? NULL : e->tier;
}

/* Room in its windows, a slot for its state, and all blocks it asks for, those of a cached prefix among them; or
 * nothing.  What was swapped out comes back whole. */
static bool take_blocks(struct engine *e, struct seq *s)
{
    const bool is_swapped = s->swapped.n > 0;
    struct kv_tier *tier = tier_of(e, s);
    const uint32_t n_windows = s->windows ? engine_windows_of(e, seq_blocks_to_admit(s), false) : 0;
    if (s->windows && !window_table_promise(&s->window, s->windows, n_windows)) return false;
    if (s->states && state_pool_take(s->states, &s->slot) != OK) {
        seq_release_blocks(s, e->pool);
        return false;
    }
    if (!is_swapped) seq_take_prefix(s, e->pool, tier);
    if (!is_swapped && tier) seq_touch_tier(s, tier);
    if (block_table_grow(&s->table, e->pool, seq_blocks_to_admit(s), KV_ACTIVE) == OK) return true;
    seq_release_blocks(s, e->pool);
    return false;
}

/* What the tier has of its prefix; one sequence at a time has blocks read, the first one that needs it. */
static enum seq_fill fill(struct engine *e, struct seq *s, uint64_t until_us)
{
    const double prefill_tok_s = atomic_load_explicit(&e->prefill_tok_s, memory_order_relaxed);
    const double compute_us = prefill_tok_s > 0 ? KV_BLOCK_TOKENS * 1e6 / prefill_tok_s : 0;
    const bool may_read = !e->reading || e->reading == s;
    struct kv_tier *tier = tier_of(e, s);
    if (!tier || s->swapped.n > 0) return FILL_DONE;
    enum seq_fill how = seq_fill_from_tier(s, e->pool, tier, compute_us, may_read, until_us);
    if (how == FILL_READING && may_read) e->reading = s;
    if (how == FILL_DONE && e->reading == s) engine_stop_reading(e);
    return how;
}

/* Takes a swapped sequence's KV back, or starts it over if that fails. */
static void resume(struct engine *e, struct seq *s)
{
    if (s->windows) { /* as it was swapped out */
        s->window.first = s->window.n = seq_window_first(s);
        window_table_grow(&s->window, s->windows, block_table_blocks_for(s->n_computed));
    }
    const struct swap_things things = engine_swap_things(s);
    enum status st = swap_in(e->swap, &things, &s->swapped);
    if (st != OK) s->n_computed = 0;
    if (st != OK && s->windows) { /* all of them again */
        window_table_slide(&s->window, s->windows, s->window.n);
        s->window.first = s->window.n = 0;
    }
    seq_set_state(s, e->pool, st == OK ? s->resume : SEQ_PREFILL);
}

/* Its blocks lead to no state or windows from which it could go on: it gives all back and waits for those that do. */
static void wait_again(struct engine *e, struct seq *s)
{
    s->skips_tier = s->state != SEQ_RESERVED;
    if (s->state == SEQ_RESERVED) { /* what it has found was good for a hand-off alone */
        atomic_fetch_sub_explicit(&e->prefix_hits, s->n_cached, memory_order_relaxed);
        s->n_cached = 0;
        s->started = s->looks_again = true;
    }
    if (s->state == SEQ_WAITING)
        seq_release_blocks(s, e->pool);
    else
        seq_set_state(s, e->pool, SEQ_WAITING);
}

static void admit_one(struct engine *e, struct seq *s)
{
    if (s->swapped.n > 0) {
        resume(e, s);
        return;
    }
    bool reserve = seq_is_reservation(s);
    uint32_t n_full = s->n_computed;
    if (!seq_begin_window(s) || (!reserve && !engine_begin_state(e, s))) {
        wait_again(e, s);
        return;
    }
    if (reserve && s->windows) window_table_grow(&s->window, s->windows, block_table_blocks_for(s->n_tokens));
    if (!reserve) copy_tail(e, s); /* a hand-off is of whole blocks */
    if (!s->started)
        atomic_fetch_add_explicit(&e->prefix_queries, seq_is_looked_up(s) ? s->n_tokens : 0, memory_order_relaxed);
    if (!s->started || s->looks_again) book_hits(e, s);
    s->looks_again = false;
    seq_set_state(s, e->pool, reserve ? SEQ_RESERVED : SEQ_PREFILL);
    if (reserve) engine_emit_reserved(e, s);
    /* What is not computed here is handed over all the same; a tail when its last token is computed. */
    if (s->mode == ENGINE_PREFILL_ONLY && n_full > 0)
        engine_emit_kv(e, s, 0, model_info(e->model)->n_layers, 0, n_full, &(struct mark){ 0 });
}

void engine_begin_prefill(struct engine *e, struct seq *s)
{
    s->started = true;
    if (!seq_begin_window(s) || !engine_begin_state(e, s)) {
        wait_again(e, s);
        return;
    }
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
    const bool looks_again = how == FILL_DONE && s->state == SEQ_WAITING;
    return how == FILL_LATER || seq_is_running(s) || looks_again;
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
        n_busy += seq_can_run(s);
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
