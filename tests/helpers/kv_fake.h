/* kv_fake.h - cache memory for hand-off tests: plain slices and slots, and a backend that copies. */
#ifndef TESTS_KV_FAKE_H
#define TESTS_KV_FAKE_H
#include "base/mem.h"
#include "store/kv_map.h"
#include "store/state_store.h"
#include "wire/kv_wire.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A slice holds, for each head, K then V: values of 64 tokens, then 64 scales. */
static inline uint8_t *fake_at(const uint8_t *slice, const struct kv_geometry *g, uint32_t head, bool is_v)
{
    size_t row = (size_t)kv_wire_bytes(g->format, g->head_dim, KV_BLOCK_TOKENS) / 2;
    return (uint8_t *)(uintptr_t)slice + (2 * (size_t)head + is_v) * row;
}

static inline size_t fake_value(const struct kv_geometry *g)
{
    return g->format == KV_INT8 ? g->head_dim : 2 * g->head_dim;
}

static inline uint8_t *fake_part(const struct kv_slices *layers, const struct kv_piece *p)
{
    const struct kv_slices *l = &layers[p->layer];
    return fake_at(l->base + p->block * l->stride, &l->geom, p->head, p->is_v);
}

static inline enum status fake_pack(struct backend *b, struct stream *s, const struct kv_slices *layers,
                                    const struct kv_piece *pieces, uint32_t n, uint8_t *wire)
{
    (void)b, (void)s;
    for (const struct kv_piece *p = pieces; p < pieces + n; p++) {
        const struct kv_geometry *g = &layers[p->layer].geom;
        const uint8_t *part = fake_part(layers, p);
        memcpy(wire + p->values, part + p->t0 * fake_value(g), (p->t1 - p->t0) * fake_value(g));
        if (g->format != KV_INT8) continue;
        memcpy(wire + p->scales, part + KV_BLOCK_TOKENS * fake_value(g) + p->t0 * 4, (p->t1 - p->t0) * 4);
    }
    return OK;
}

static inline enum status fake_unpack(struct backend *b, struct stream *s, const struct kv_slices *layers,
                                      const struct kv_piece *pieces, uint32_t n, const uint8_t *wire)
{
    (void)b, (void)s;
    for (const struct kv_piece *p = pieces; p < pieces + n; p++) {
        const struct kv_geometry *g = &layers[p->layer].geom;
        const size_t bytes = (p->t1 - p->t0) * fake_value(g);
        uint8_t *part = fake_part(layers, p);
        for (size_t i = 0; g->format == KV_INT8 && i < bytes; i++)
            if (wire[p->values + i] == 0x80) return ERR_CORRUPT;
        memcpy(part + p->t0 * fake_value(g), wire + p->values, bytes);
        if (g->format != KV_INT8) continue;
        memcpy(part + KV_BLOCK_TOKENS * fake_value(g) + p->t0 * 4, wire + p->scales, (p->t1 - p->t0) * 4);
    }
    return OK;
}

static inline enum status fake_host_alloc(struct backend *b, size_t bytes, void **out)
{
    (void)b;
    *out = mem_zalloc(bytes);
    return OK;
}

static inline void fake_host_free(struct backend *b, void *p, size_t bytes)
{
    (void)b, (void)bytes;
    mem_free(p);
}

static inline enum status fake_stream_open(struct backend *b, struct stream **out)
{
    (void)b;
    *out = mem_alloc(1);
    return OK;
}

static inline void fake_stream_close(struct backend *b, struct stream *s)
{
    (void)b;
    mem_free(s);
}

static inline void fake_release(struct backend *b, void *p, size_t bytes)
{
    fake_host_free(b, p, bytes);
}

static inline size_t fake_slot_bytes(struct backend *b, const struct state_geometry *g)
{
    (void)b;
    return (size_t)g->n_heads * state_wire_bytes(g) + 64;
}

static inline uint8_t *fake_state(const struct state_slices *s, uint32_t slot, uint32_t head)
{
    return s->base + slot * s->stride + head * state_wire_bytes(&s->geom);
}

static inline enum status fake_state_pack(struct backend *b, struct stream *st, const struct state_slices *s,
                                          uint32_t slot, uint32_t h0, uint32_t h1, uint8_t *wire)
{
    (void)b, (void)st;
    if (h0 >= h1 || h1 > s->geom.n_heads) return ERR_INVALID;
    memcpy(wire, fake_state(s, slot, h0), (h1 - h0) * state_wire_bytes(&s->geom));
    return OK;
}

static inline enum status fake_state_unpack(struct backend *b, struct stream *st, const struct state_slices *s,
                                            uint32_t slot, uint32_t h0, uint32_t h1, const uint8_t *wire)
{
    (void)b, (void)st;
    if (h0 >= h1 || h1 > s->geom.n_heads) return ERR_INVALID;
    for (size_t i = 0; i < (h1 - h0) * state_wire_bytes(&s->geom); i += sizeof(float)) {
        float v;
        memcpy(&v, wire + i, sizeof(v));
        if (!isfinite(v)) return ERR_CORRUPT;
    }
    memcpy(fake_state(s, slot, h0), wire, (h1 - h0) * state_wire_bytes(&s->geom));
    return OK;
}

static const struct backend_ops fake_ops = { .name = "fake",
                                             .alloc = fake_host_alloc,
                                             .release = fake_release,
                                             .state_slot_bytes = fake_slot_bytes,
                                             .state_pack = fake_state_pack,
                                             .state_unpack = fake_state_unpack,
                                             .stream_open = fake_stream_open,
                                             .stream_close = fake_stream_close,
                                             .host_alloc = fake_host_alloc,
                                             .host_free = fake_host_free,
                                             .kv_pack = fake_pack,
                                             .kv_unpack = fake_unpack };
static struct backend fake_backend = { .ops = &fake_ops };

static inline struct cache_geometry fake_geometry(uint32_t n_layers, uint32_t n_heads, uint32_t head_dim)
{
    struct cache_geometry g = { .fingerprint = 42, .model_name = "fake" };
    const struct cache_group like = { .kind = BATON__KV__CACHE_KIND__KV,
                                      .codec = BATON__KV__CODEC__INT8,
                                      .n_heads = n_heads,
                                      .head_dim = head_dim,
                                      .block_tokens = KV_BLOCK_TOKENS };
    cache_geometry_set_uniform(&g, n_layers, &like);
    return g;
}

/* The same cache as two groups: every third layer in the first, the others in the second. */
static inline struct cache_geometry fake_interleaved(uint32_t n_layers, uint32_t n_heads, uint32_t head_dim)
{
    struct cache_geometry g = fake_geometry(n_layers, n_heads, head_dim);
    uint32_t n = 0;
    for (uint32_t l = 0; l < n_layers; l += 3) g.layers[n++] = (uint16_t)l;
    g.groups[0].n_layers = n;
    for (uint32_t l = 0; l < n_layers; l++)
        if (l % 3) g.layers[n++] = (uint16_t)l;
    g.groups[1] = g.groups[0];
    g.groups[1].first = g.groups[0].n_layers;
    g.groups[1].n_layers = n_layers - g.groups[0].n_layers;
    g.n_groups = 2;
    return g;
}

/* Three layers with K and V, then one, again and again, with a convolution's tail and a state: groups of 4 x 48 and of
 * 3 x 112 values. */
static inline struct cache_geometry fake_hybrid(uint32_t n_layers, uint32_t n_heads, uint32_t head_dim)
{
    struct cache_geometry g = fake_geometry(n_layers, n_heads, head_dim);
    uint32_t n = 0;
    const struct cache_group state = {
        .kind = BATON__KV__CACHE_KIND__SNAPSHOT, .codec = BATON__KV__CODEC__F32, .n_heads = 4, .head_dim = 3 * 16
    };
    for (uint32_t l = 0; l < n_layers; l++)
        if (l % 4 != 3) g.layers[n++] = (uint16_t)l;
    g.n_groups = 3;
    g.groups[0].n_layers = n;
    for (uint32_t i = 1; i < 3; i++) {
        g.groups[i] = state;
        g.groups[i].first = n;
        for (uint32_t l = 3; l < n_layers; l += 4) g.layers[n++] = (uint16_t)l;
        g.groups[i].n_layers = n - g.groups[i].first;
    }
    g.groups[2].n_heads = 3;
    g.groups[2].head_dim = 7 * 16;
    return g;
}

/* Every third layer with K and V of all tokens, the others with those of a window. */
static inline struct cache_geometry fake_windows(uint32_t n_layers, uint32_t n_heads, uint32_t head_dim,
                                                 uint32_t window)
{
    struct cache_geometry g = fake_interleaved(n_layers, n_heads, head_dim);
    g.groups[1].kind = BATON__KV__CACHE_KIND__WINDOW;
    g.groups[1].window = window;
    return g;
}

static inline void fake_fill(void *memory, size_t bytes)
{
    uint32_t x = 1;
    for (size_t i = 0; i < bytes; i++) {
        x = x * 1664525 + 1013904223;
        ((uint8_t *)memory)[i] = (uint8_t)(x >> 24) == 0x80 ? 1 : (uint8_t)(x >> 24);
    }
}

/* Slots for the groups of kind SNAPSHOT, the first one of a layer being its tail: all floats differ. */
#define FAKE_SLOTS 4
static inline void fake_states(struct kv_store *kv, const struct cache_geometry *g, bool fill)
{
    struct state_layer_geometry *layers = mem_array(g->n_layers, sizeof(*layers));
    bool any = false;
    for (uint32_t i = 0; i < g->n_groups; i++) {
        const struct cache_group *c = &g->groups[i];
        if (c->kind != BATON__KV__CACHE_KIND__SNAPSHOT) continue;
        any = true;
        for (uint32_t k = 0; k < c->n_layers; k++) {
            struct state_layer_geometry *l = &layers[g->layers[c->first + k]];
            l->parts[l->parts[STATE_TAIL].n_heads ? STATE_MATRIX : STATE_TAIL] =
                (struct state_geometry){ c->n_heads, c->head_dim / 16, 16 };
        }
    }
    if (any && state_store_create(&kv->states, kv->backend, layers, g->n_layers, FAKE_SLOTS, NULL) != OK) abort();
    for (size_t i = 0; any && fill && i < kv->states->bytes / sizeof(float); i++)
        ((float *)(void *)kv->states->memory)[i] = 0.5f + (float)i;
    mem_free(layers);
}

/* n_blocks blocks, filled with bytes that differ everywhere (fill) or zero, for all groups with blocks. */
static inline struct kv_store *fake_store(const struct cache_geometry *g, uint32_t n_blocks, bool fill)
{
    struct kv_store *kv = mem_zalloc(sizeof(*kv));
    uint8_t *at;

    kv->n_layers = g->n_layers;
    kv->n_blocks = n_blocks;
    kv->backend = &fake_backend;
    kv->layers = mem_array(g->n_layers, sizeof(*kv->layers));
    kv->held = mem_array(g->n_layers, sizeof(*kv->held));
    for (uint32_t i = 0; i < g->n_groups; i++) {
        const struct cache_group *c = &g->groups[i];
        const struct kv_geometry geom = { .n_kv_heads = c->n_heads,
                                          .head_dim = c->head_dim,
                                          .format = c->codec == BATON__KV__CODEC__INT8 ? KV_INT8 : KV_F16 };
        if (!cache_group_has_blocks(c)) continue;
        for (uint32_t k = 0; k < c->n_layers; k++) {
            struct kv_slices *l = &kv->layers[g->layers[c->first + k]];
            l->geom = geom;
            l->geom.window = c->window;
            l->windowed = c->window > 0;
            kv->held[g->layers[c->first + k]] = held_all(c->n_heads);
            if (l->windowed) kv->n_window_blocks = n_blocks;
            l->stride = l->slice_bytes =
                (size_t)kv_wire_bytes(geom.format, geom.head_dim, KV_BLOCK_TOKENS) * geom.n_kv_heads;
            kv->bytes += l->stride * n_blocks;
        }
    }
    at = kv->memory = mem_zalloc(kv->bytes + 1);
    for (uint32_t l = 0; l < g->n_layers; l++) {
        kv->layers[l].base = at;
        at += kv->layers[l].stride * n_blocks;
    }
    if (fill) fake_fill(kv->memory, kv->bytes);
    fake_states(kv, g, fill);
    return kv;
}

static inline void fake_store_free(struct kv_store *kv)
{
    state_store_destroy(kv->states);
    mem_free(kv->layers);
    mem_free(kv->held);
    mem_free(kv->memory);
    mem_free(kv);
}

/* The map of the only rank. */
static inline struct kv_map *fake_map(struct kv_store *kv)
{
    const struct mesh mesh = { 1, 1, kv->n_layers };
    struct kv_map *map;
    struct error err;
    if (kv_map_create(&map, &mesh, &kv, &err) != OK) abort();
    return map;
}

/* Whether n_tokens in blocks a of one store equal those in blocks b of the other, in layers with a window or the
 * others.
 */
static inline bool fake_same_layers(const struct kv_store *x, const kv_block_id *a, const struct kv_store *y,
                                    const kv_block_id *b, uint32_t n_tokens, bool windowed)
{
    uint8_t wa[64 * 600], wb[64 * 600];

    for (uint32_t l = 0; l < x->n_layers; l++) {
        const struct kv_geometry *g = &x->layers[l].geom;
        if (x->layers[l].windowed != windowed) continue;
        for (uint32_t h = 0; h < g->n_kv_heads; h++)
            for (int v = 0; v < 2; v++)
                for (uint32_t t = 0; t < n_tokens; t += 64) {
                    uint32_t n = n_tokens - t < 64 ? n_tokens - t : 64;
                    struct kv_piece p = { .layer = l, .head = h, .block = a[t / 64], .t1 = n, .is_v = v };
                    p.scales = n * (uint32_t)fake_value(g);
                    fake_pack(NULL, NULL, x->layers, &p, 1, wa);
                    p.block = b[t / 64];
                    fake_pack(NULL, NULL, y->layers, &p, 1, wb);
                    if (memcmp(wa, wb, (size_t)kv_wire_bytes(g->format, g->head_dim, n) / 2) != 0) return false;
                }
    }
    return true;
}

static inline bool fake_same(const struct kv_store *x, const kv_block_id *a, const struct kv_store *y,
                             const kv_block_id *b, uint32_t n_tokens)
{
    return fake_same_layers(x, a, y, b, n_tokens, false);
}

/* Whether slot a of one store holds the states of slot b of the other. */
static inline bool fake_same_states(const struct kv_store *x, state_slot_id a, const struct kv_store *y,
                                    state_slot_id b)
{
    for (uint32_t l = 0; l < x->n_layers; l++)
        for (int p = 0; p < STATE_PARTS; p++) {
            const struct state_slices *s = &x->states->layers[l].parts[p], *t = &y->states->layers[l].parts[p];
            const size_t n = s->geom.n_heads * state_wire_bytes(&s->geom);
            if (n > 0 && memcmp(fake_state(s, a, 0), fake_state(t, b, 0), n) != 0) return false;
        }
    return true;
}
#endif
