/* kv_fake.h - KV memory for hand-off tests: plain slices, a backend that copies, a recorder of events. */
#ifndef TESTS_KV_FAKE_H
#define TESTS_KV_FAKE_H
#include "base/mem.h"
#include "model/model.h"
#include "wire/kv_wire.h"

#include <string.h>

/* A slice holds, for each head, K then V: values of 64 tokens, then 64 scales. */
static inline uint8_t *fake_at(const uint8_t *slice, const struct kv_geometry *g, uint32_t head, bool is_v)
{
    size_t row = (size_t)kv_wire_bytes(g->format, g->head_dim, KV_BLOCK_TOKENS) / 2;
    return (uint8_t *)(uintptr_t)slice + (2 * (size_t)head + is_v) * row;
}

static inline enum status fake_export(struct backend *b, const uint8_t *slice, const struct kv_geometry *g,
                                      uint32_t head, bool is_v, uint32_t t0, uint32_t t1, uint8_t *wire)
{
    const uint8_t *p = fake_at(slice, g, head, is_v);
    size_t value = g->format == KV_INT8 ? g->head_dim : 2 * g->head_dim;
    (void)b;
    memcpy(wire, p + t0 * value, (t1 - t0) * value);
    if (g->format == KV_INT8) memcpy(wire + (t1 - t0) * value, p + KV_BLOCK_TOKENS * value + t0 * 4, (t1 - t0) * 4);
    return OK;
}

static inline enum status fake_import(struct backend *b, uint8_t *slice, const struct kv_geometry *g, uint32_t head,
                                      bool is_v, uint32_t t0, uint32_t t1, const uint8_t *wire)
{
    uint8_t *p = fake_at(slice, g, head, is_v);
    size_t value = g->format == KV_INT8 ? g->head_dim : 2 * g->head_dim;
    (void)b;
    for (size_t i = 0; g->format == KV_INT8 && i < (t1 - t0) * value; i++)
        if (wire[i] == 0x80) return ERR_CORRUPT;
    memcpy(p + t0 * value, wire, (t1 - t0) * value);
    if (g->format == KV_INT8) memcpy(p + KV_BLOCK_TOKENS * value + t0 * 4, wire + (t1 - t0) * value, (t1 - t0) * 4);
    return OK;
}

static const struct backend_ops fake_ops = { .name = "fake", .kv_export = fake_export, .kv_import = fake_import };
static struct backend fake_backend = { &fake_ops };

static inline Baton__Kv__Geometry fake_geometry(uint32_t n_layers, uint32_t n_heads, uint32_t head_dim)
{
    Baton__Kv__Geometry g = BATON__KV__GEOMETRY__INIT;
    g.fingerprint = 42;
    g.n_layers = n_layers;
    g.n_kv_heads = n_heads;
    g.head_dim = head_dim;
    g.block_tokens = KV_BLOCK_TOKENS;
    g.codec = BATON__KV__CODEC__INT8;
    g.model_name = (char *)(uintptr_t) "fake";
    return g;
}

/* n_blocks blocks, filled with bytes that differ everywhere (fill) or zero. */
static inline struct kv_store *fake_store(const Baton__Kv__Geometry *g, uint32_t n_blocks, bool fill)
{
    struct kv_store *kv = mem_zalloc(sizeof(*kv));
    struct kv_geometry geom = { g->n_kv_heads, g->head_dim, g->codec == BATON__KV__CODEC__INT8 ? KV_INT8 : KV_F16,
                                false };
    size_t slice = (size_t)kv_wire_bytes(geom.format, geom.head_dim, KV_BLOCK_TOKENS) * geom.n_kv_heads;
    uint32_t x = 1;

    kv->n_layers = g->n_layers;
    kv->n_blocks = n_blocks;
    kv->backend = &fake_backend;
    kv->bytes = slice * n_blocks * g->n_layers;
    kv->memory = mem_zalloc(kv->bytes);
    kv->layers = mem_array(g->n_layers, sizeof(*kv->layers));
    for (uint32_t l = 0; l < g->n_layers; l++)
        kv->layers[l] = (struct kv_slices){ kv->memory + l * slice * n_blocks, slice, geom };
    for (size_t i = 0; fill && i < kv->bytes; i++) {
        x = x * 1664525 + 1013904223;
        kv->memory[i] = (uint8_t)(x >> 24) == 0x80 ? 1 : (uint8_t)(x >> 24);
    }
    return kv;
}

static inline void fake_store_free(struct kv_store *kv)
{
    mem_free(kv->layers);
    mem_free(kv->memory);
    mem_free(kv);
}

/* Whether n_tokens in blocks a of one store equal those in blocks b of the other. */
static inline bool fake_same(const struct kv_store *x, const kv_block_id *a, const struct kv_store *y,
                             const kv_block_id *b, uint32_t n_tokens)
{
    const struct kv_geometry *g = &x->layers[0].geom;
    uint8_t wa[64 * 600], wb[64 * 600];

    for (uint32_t l = 0; l < x->n_layers; l++)
        for (uint32_t h = 0; h < g->n_kv_heads; h++)
            for (int v = 0; v < 2; v++)
                for (uint32_t t = 0; t < n_tokens; t += 64) {
                    uint32_t n = n_tokens - t < 64 ? n_tokens - t : 64;
                    size_t bytes = (size_t)kv_wire_bytes(g->format, g->head_dim, n) / 2;
                    fake_export(NULL, x->layers[l].base + a[t / 64] * x->layers[l].slice_bytes, g, h, v, 0, n, wa);
                    fake_export(NULL, y->layers[l].base + b[t / 64] * y->layers[l].slice_bytes, g, h, v, 0, n, wb);
                    if (memcmp(wa, wb, bytes) != 0) return false;
                }
    return true;
}
#endif
