/* latent_slice.c - latents into their blocks, and between the CPU's block layout and the wire's canonical order. */
#include "compute/cpu/latent_slice.h"

#include "compute/cpu/half.h"
#include "compute/cpu/kv_slice.h"

#include <string.h>

bool latent_slice_ok(const struct kv_geometry *g)
{
    return g->n_kv_heads == 1 && g->head_dim > 0 && g->head_dim % 16 == 0 && g->head_dim <= LATENT_MAX &&
           g->rope_dim <= LATENT_MAX_ROPE && !g->rotate;
}

size_t latent_slice_bytes(const struct kv_geometry *g)
{
    const size_t token = kv_value_bytes(g, false) + kv_scale_bytes(g, false) + kv_value_bytes(g, true);
    return KV_BLOCK_TOKENS * token;
}

void latent_slice_put(const struct cpu_kernels *k, const struct kv_geometry *geom, uint8_t *slice, uint32_t t,
                      const float *c, const float *rope)
{
    uint16_t halves[LATENT_MAX + LATENT_MAX_ROPE];
    if (geom->format == KV_F16) {
        k->to_half(halves, c, geom->head_dim);
        for (uint32_t d = 0; d < geom->rope_dim; d++) halves[geom->head_dim + d] = half_from_float(rope[d]);
        kv_slice_put_f16(slice, geom->head_dim + geom->rope_dim, false, t, halves);
        return;
    }
    for (uint32_t g = 0; g < latent_groups(geom->head_dim); g++) {
        const uint32_t dim = latent_group_dim(geom, g);
        int8_t values[LATENT_GROUP];
        latent_scales(geom, slice, g)[t] = k->kv_quantize(values, c + (size_t)g * LATENT_GROUP, dim);
        kv_slice_put_int8(latent_group(slice, g), dim, false, t, values);
    }
    for (uint32_t d = 0; d < geom->rope_dim; d++) halves[d] = bf16_round(rope[d]);
    kv_slice_put_f16((uint8_t *)latent_rope(geom, slice), geom->rope_dim, false, t, halves);
}

/* --- the wire --- */

/* 16-bit values [d0, d1) of the piece's tokens, of `dim` that stand together. */
struct halves {
    uint8_t *part;
    uint32_t dim, d0, d1;
};

/* The RoPE parts, or of fp16 the latents. */
static struct halves halves_of(const struct kv_geometry *g, uint8_t *slice, bool is_v)
{
    if (g->format == KV_INT8) return (struct halves){ (uint8_t *)latent_rope(g, slice), g->rope_dim, 0, g->rope_dim };
    const uint32_t dim = g->head_dim + g->rope_dim;
    return is_v ? (struct halves){ slice, dim, g->head_dim, dim } : (struct halves){ slice, dim, 0, g->head_dim };
}

static bool is_of(const struct kv_geometry *g, const struct kv_piece *p)
{
    return latent_slice_ok(g) && p->head == 0 && p->t0 < p->t1 && p->t1 <= KV_BLOCK_TOKENS;
}

enum status latent_slice_pack(const struct kv_slices *layer, const struct kv_piece *p, uint8_t *wire)
{
    const struct kv_geometry *g = &layer->geom;
    uint8_t *slice = layer->base + p->block * layer->stride, *scales = wire + p->scales;
    if (!is_of(g, p)) return ERR_INVALID;
    wire += p->values;
    if (p->is_v || g->format == KV_F16) {
        const struct halves h = halves_of(g, slice, p->is_v);
        for (uint32_t t = p->t0; t < p->t1; t++)
            for (uint32_t d = h.d0; d < h.d1; d++, wire += 2)
                memcpy(wire, h.part + 2 * kv_slice_k_half_at(h.dim, t, d), 2);
        return OK;
    }
    for (uint32_t t = p->t0; t < p->t1; t++)
        for (uint32_t i = 0; i < latent_groups(g->head_dim); i++) {
            const uint32_t dim = latent_group_dim(g, i);
            kv_slice_get_k((int8_t *)wire, latent_group(slice, i), dim, t);
            memcpy(scales, &latent_scales(g, slice, i)[t], sizeof(float));
            wire += dim;
            scales += sizeof(float);
        }
    return OK;
}

static bool bf16_ok(const uint8_t *wire, size_t n)
{
    unsigned bad = 0;
    for (size_t i = 0; i < n; i++) bad |= (half_load(wire + 2 * i) & 0x7f80u) == 0x7f80u;
    return !bad;
}

static enum status unpack_halves(const struct kv_geometry *g, const struct halves *h, const struct kv_piece *p,
                                 const uint8_t *wire)
{
    const size_t n = (size_t)(p->t1 - p->t0) * (h->d1 - h->d0);
    if (!(g->format == KV_F16 ? kv_slice_halves_ok(wire, n) : bf16_ok(wire, n))) return ERR_CORRUPT;
    for (uint32_t t = p->t0; t < p->t1; t++)
        for (uint32_t d = h->d0; d < h->d1; d++, wire += 2)
            memcpy(h->part + 2 * kv_slice_k_half_at(h->dim, t, d), wire, 2);
    return OK;
}

enum status latent_slice_unpack(const struct cpu_kernels *k, const struct kv_slices *layer, const struct kv_piece *p,
                                const uint8_t *wire)
{
    const struct kv_geometry *g = &layer->geom;
    const uint32_t n = p->t1 - p->t0, groups = latent_groups(g->head_dim);
    uint8_t *slice = layer->base + p->block * layer->stride;
    const uint8_t *scales = wire + p->scales;
    if (!is_of(g, p)) return ERR_INVALID;
    wire += p->values;
    if (p->is_v || g->format == KV_F16) {
        const struct halves h = halves_of(g, slice, p->is_v);
        return unpack_halves(g, &h, p, wire);
    }
    if (!kv_slice_scales_ok(scales, (size_t)n * groups) || k->has_min8((const int8_t *)wire, (size_t)n * g->head_dim))
        return ERR_CORRUPT;
    for (uint32_t t = p->t0; t < p->t1; t++)
        for (uint32_t i = 0; i < groups; i++) {
            const uint32_t dim = latent_group_dim(g, i);
            kv_slice_put_int8(latent_group(slice, i), dim, false, t, (const int8_t *)wire);
            memcpy(&latent_scales(g, slice, i)[t], scales, sizeof(float));
            wire += dim;
            scales += sizeof(float);
        }
    return OK;
}
