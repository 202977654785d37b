/* engine_emit.c - what others hear of a sequence, and its one way out. */
#include "engine/engine_internal.h"

void engine_emit(struct engine *e, const struct engine_event *ev)
{
    e->opt.on_event(e->opt.ctx, ev);
}

void engine_stop_reading(struct engine *e)
{
    kv_tier_drop_reads(e->tier);
    e->reading = NULL;
}

void engine_finish(struct engine *e, struct seq *s, enum finish_reason finish, enum status st, const char *message)
{
    if (e->reading == s) engine_stop_reading(e);
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
                               .window_blocks = s->windows ? s->window.ids : NULL,
                               .cached_tokens = s->n_computed,
                               .state = s->slot };
    engine_emit(e, &ev);
}

void engine_emit_kv(struct engine *e, const struct seq *s, uint32_t layer0, uint32_t layer1, uint32_t t0, uint32_t t1,
                    const struct mark *written)
{
    struct engine_event ev = { .kind = ENGINE_KV,
                               .key = s->key,
                               .blocks = s->table.ids,
                               .n_blocks = s->table.n,
                               .window_blocks = s->windows ? s->window.ids : NULL,
                               .layer0 = layer0,
                               .layer1 = layer1,
                               .t0 = t0,
                               .t1 = t1,
                               .state = t1 == s->n_input ? s->slot : STATE_SLOT_NONE,
                               .written = *written };
    engine_emit(e, &ev);
}
