/* engine_state.c - recurrent states: where a sequence's begins, and snapshots that later ones begin with. */
#include "engine/engine_internal.h"

enum status engine_open_states(struct engine *e, struct error *err)
{
    const uint32_t n_slots = kv_store_n_slots(e->opt.kv);
    const uint32_t run = e->opt.kv->runs.slot;
    if (n_slots == 0) return OK;
    if (run == 0 && n_slots < e->opt.max_seqs)
        return error_set(err, ERR_INVALID, "there are %u slots for recurrent states, max_seqs is %u", n_slots,
                         e->opt.max_seqs);
    const uint32_t n_snapshots = run > 0 ? e->opt.max_snapshots : n_slots - e->opt.max_seqs;
    if (e->prefix) e->state_interval = state_interval(n_snapshots, block_table_blocks_for(e->opt.max_context));
    enum status st = run > 0 ? state_pool_create_runs(&e->states, e->pool, run, n_snapshots)
                             : state_pool_create(&e->states, n_slots);
    return st == OK ? OK : error_set(err, st, "cannot make a pool of %u slots for recurrent states", n_slots);
}

bool engine_begin_state(struct engine *e, struct seq *s)
{
    const uint32_t n = s->n_computed / KV_BLOCK_TOKENS;
    if (!s->states || n == 0) return true;         /* position 0 begins with zeroes, whatever the slot holds */
    if (s->filling.state_blocks == n) return true; /* it came from the tier */
    const state_slot_id from = state_pool_find(s->states, &s->prefix.hashes[n - 1]);
    return from != STATE_SLOT_NONE && kv_store_copy_state(e->kv, from, s->slot) == OK;
}

enum status engine_keep_state(struct engine *e, struct seq *s)
{
    state_slot_id to;
    if (!s->states || s->n_drafts > 0 || !state_is_due(e->state_interval, s->n_computed, s->n_tokens)) return OK;
    const struct prefix_hash *hash = &s->prefix.hashes[s->n_computed / KV_BLOCK_TOKENS - 1];
    if (state_pool_find(s->states, hash) != STATE_SLOT_NONE || state_pool_take(s->states, &to) != OK) return OK;
    enum status st = kv_store_copy_state(e->kv, s->slot, to);
    if (st == OK)
        state_pool_keep(s->states, hash, to);
    else
        state_pool_give_back(s->states, to);
    return st;
}

bool engine_save_state(struct engine *e, struct seq *s)
{
    if (!s->states) return true;
    if (state_pool_take(s->states, &s->saved) != OK) return false;
    s->n_saved = s->n_computed;
    if (kv_store_copy_state(e->kv, s->slot, s->saved) == OK) return true;
    seq_drop_saved(s);
    return false;
}

void engine_undo_state(struct seq *s)
{
    if (s->saved == STATE_SLOT_NONE) return;
    const state_slot_id spoiled = s->slot;
    s->slot = s->saved;
    s->saved = spoiled;
    s->n_computed = s->n_saved;
}

uint32_t engine_chunk_end(const struct engine *e, const struct seq *s)
{
    if (!s->states || s->state == SEQ_DECODE) return s->n_tokens;
    return state_next_snapshot(e->state_interval, s->n_computed, s->n_tokens);
}
