/* kv_cut.c - cuts KV blocks into wire frames and scatters frames back into blocks. */
#include "node/kv_cut.h"

#include <string.h>

enum status kv_cut_check_store(const struct kv_store *kv, const Baton__Kv__Geometry *g, struct error *err)
{
    if (kv->n_layers != g->n_layers || g->block_tokens != KV_BLOCK_TOKENS || g->head_dim > KV_CUT_MAX_HEAD_DIM)
        return error_set(err, ERR_UNSUPPORTED, "kv of %u layers, %u tokens per block, head_dim %u", g->n_layers,
                         g->block_tokens, g->head_dim);
    for (uint32_t l = 0; l < kv->n_layers; l++) {
        const struct kv_geometry *geom = &kv->layers[l].geom;
        if (geom->n_kv_heads != g->n_kv_heads || geom->head_dim != g->head_dim ||
            (geom->format == KV_INT8) != (g->codec == BATON__KV__CODEC__INT8))
            return error_set(err, ERR_UNSUPPORTED, "layer %u has another kv geometry than layer 0", l);
    }
    return OK;
}

/* One (layer, head, K or V) of a range: values of all tokens, then (int8) their scales. */
struct row {
    const struct kv_slices *slices;
    struct backend *backend;
    const kv_block_id *blocks;
    uint32_t head, n_tokens;
    bool is_v;
};

static uint8_t *slice_of(const struct row *row, uint32_t block_idx)
{
    return row->slices->base + (size_t)row->blocks[block_idx] * row->slices->slice_bytes;
}

static uint32_t tokens_in(const struct row *row, uint32_t block_idx)
{
    uint32_t left = row->n_tokens - block_idx * KV_BLOCK_TOKENS;
    return left < KV_BLOCK_TOKENS ? left : KV_BLOCK_TOKENS;
}

static size_t row_bytes(const struct row *row)
{
    const struct kv_geometry *geom = &row->slices->geom;
    return (size_t)kv_wire_bytes(geom->format, geom->head_dim, row->n_tokens) / 2;
}

/* A backend's call gives values and scales of one block side by side; in a frame all values come first. */
static enum status export_row(const struct row *row, uint8_t *wire)
{
    const struct kv_geometry *geom = &row->slices->geom;
    uint32_t value_bytes = geom->format == KV_INT8 ? geom->head_dim : 2 * geom->head_dim;
    uint8_t block[KV_BLOCK_TOKENS * (KV_CUT_MAX_HEAD_DIM + 4)];
    uint8_t *scales = wire + (size_t)row->n_tokens * value_bytes;
    bool direct = geom->format != KV_INT8 || row->n_tokens <= KV_BLOCK_TOKENS;

    for (uint32_t i = 0; i * KV_BLOCK_TOKENS < row->n_tokens; i++) {
        uint32_t n = tokens_in(row, i);
        uint8_t *values = wire + (size_t)i * KV_BLOCK_TOKENS * value_bytes;
        enum status st = row->backend->ops->kv_export(row->backend, slice_of(row, i), geom, row->head, row->is_v, 0, n,
                                                      direct ? values : block);
        if (st != OK) return st;
        if (direct) continue;
        memcpy(values, block, (size_t)n * value_bytes);
        memcpy(scales + (size_t)i * KV_BLOCK_TOKENS * 4, block + (size_t)n * value_bytes, (size_t)n * 4);
    }
    return OK;
}

static enum status import_row(const struct row *row, const uint8_t *wire)
{
    const struct kv_geometry *geom = &row->slices->geom;
    uint32_t value_bytes = geom->format == KV_INT8 ? geom->head_dim : 2 * geom->head_dim;
    uint8_t block[KV_BLOCK_TOKENS * (KV_CUT_MAX_HEAD_DIM + 4)];
    const uint8_t *scales = wire + (size_t)row->n_tokens * value_bytes;
    bool direct = geom->format != KV_INT8 || row->n_tokens <= KV_BLOCK_TOKENS;

    for (uint32_t i = 0; i * KV_BLOCK_TOKENS < row->n_tokens; i++) {
        uint32_t n = tokens_in(row, i);
        const uint8_t *values = wire + (size_t)i * KV_BLOCK_TOKENS * value_bytes;
        enum status st;
        if (!direct) {
            memcpy(block, values, (size_t)n * value_bytes);
            memcpy(block + (size_t)n * value_bytes, scales + (size_t)i * KV_BLOCK_TOKENS * 4, (size_t)n * 4);
        }
        st = row->backend->ops->kv_import(row->backend, slice_of(row, i), geom, row->head, row->is_v, 0, n,
                                          direct ? values : block);
        if (st != OK) return st;
    }
    return OK;
}

enum status kv_cut_export(const struct kv_store *kv, const struct kv_wire_range *r, const kv_block_id *blocks,
                          uint8_t *wire)
{
    for (uint32_t l = r->l0; l < r->l1; l++)
        for (uint32_t h = r->h0; h < r->h1; h++)
            for (int v = 0; v < 2; v++) {
                struct row row = { &kv->layers[l], kv->backend, blocks, h, r->t1 - r->t0, v };
                enum status st = export_row(&row, wire);
                if (st != OK) return st;
                wire += row_bytes(&row);
            }
    return OK;
}

enum status kv_cut_import(const struct kv_store *kv, const struct kv_wire_range *r, const kv_block_id *blocks,
                          const uint8_t *wire)
{
    for (uint32_t l = r->l0; l < r->l1; l++)
        for (uint32_t h = r->h0; h < r->h1; h++)
            for (int v = 0; v < 2; v++) {
                struct row row = { &kv->layers[l], kv->backend, blocks, h, r->t1 - r->t0, v };
                enum status st = import_row(&row, wire);
                if (st != OK) return st;
                wire += row_bytes(&row);
            }
    return OK;
}

struct kv_cut_walk kv_cut_walk_of(const struct kv_wire_range *all)
{
    return (struct kv_cut_walk){ *all, all->l0, all->h0, all->t0 };
}

bool kv_cut_walk_has_next(const struct kv_cut_walk *w)
{
    return w->token < w->all.t1 && w->all.l0 < w->all.l1 && w->all.h0 < w->all.h1;
}

static uint32_t at_most(uint64_t want, uint32_t limit)
{
    if (want == 0) want = 1;
    return want < limit ? (uint32_t)want : limit;
}

/* One block of tokens per frame: then its rows lie on the wire as backends give and take them. */
struct kv_wire_range kv_cut_walk_peek(const struct kv_cut_walk *w, const Baton__Kv__Geometry *g, uint64_t max_bytes)
{
    const struct kv_wire_range *a = &w->all;
    uint32_t t1 = a->t1 - w->token > KV_BLOCK_TOKENS ? w->token + KV_BLOCK_TOKENS : a->t1;
    uint64_t head = kv_wire_head_bytes(g->codec, g->head_dim, t1 - w->token);
    uint64_t layer = head * (a->h1 - a->h0);
    struct kv_wire_range r = { w->layer, w->layer + 1, w->head, w->head + 1, w->token, t1 };

    if (layer <= max_bytes) {
        r.l1 = w->layer + at_most(max_bytes / layer, a->l1 - w->layer);
        r.h1 = a->h1;
    } else {
        r.h1 = w->head + at_most(max_bytes / head, a->h1 - w->head);
    }
    return r;
}

void kv_cut_walk_pass(struct kv_cut_walk *w, const struct kv_wire_range *frame)
{
    w->head = frame->h1;
    if (w->head < w->all.h1) return;
    w->head = w->all.h0;
    w->layer = frame->l1;
    if (w->layer < w->all.l1) return;
    w->layer = w->all.l0;
    w->token = frame->t1;
}
