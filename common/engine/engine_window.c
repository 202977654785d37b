/* engine_window.c - layers that look back over a window: blocks of their own, given back as the window moves on. */
#include "engine/engine_internal.h"

/* Rows of one sequence in a step. */
static uint32_t chunk_of(const struct engine *e)
{
    return e->opt.chunk_tokens < e->opt.max_batch_tokens ? e->opt.chunk_tokens : e->opt.max_batch_tokens;
}

uint32_t engine_windows_of(const struct engine *e, uint32_t n_blocks, bool decoding)
{
    const uint32_t rows = decoding ? 1 + 2 * ENGINE_MAX_DRAFTS : chunk_of(e); /* guesses, and what is fed again */
    return window_blocks_max(e->windows->tokens, rows, n_blocks * KV_BLOCK_TOKENS);
}

enum status engine_open_windows(struct engine *e, struct error *err)
{
    const uint32_t n = kv_store_n_window_blocks(e->opt.kv), tokens = kv_store_window(e->opt.kv);
    if (n == 0) return OK;
    const uint32_t run = e->opt.kv->runs.window;
    enum status st = run > 0 ? windows_create_runs(&e->windows, e->pool, run, tokens, e->prefix != NULL)
                             : windows_create(&e->windows, n, tokens, e->prefix != NULL);
    return st == OK ? OK : error_set(err, st, "cannot make a pool of %u KV blocks", n);
}

struct swap_things engine_swap_things(const struct seq *s)
{
    struct swap_things t = { .blocks = s->table.ids,
                             .n_blocks = block_table_blocks_for(s->n_computed),
                             .slot = s->states ? s->slot : STATE_SLOT_NONE };
    if (s->windows) {
        const uint32_t first = seq_window_first(s);
        t.window_blocks = s->window.ids + first;
        t.n_window_blocks = t.n_blocks - first;
    }
    return t;
}
