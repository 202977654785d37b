/* kv_slice.c - moves KV between the CPU's block layout and the wire's canonical order. */
#include "compute/cpu/kv_slice.h"

#include "compute/cpu/half.h"
#include "compute/cpu/latent_slice.h"

#include <float.h>
#include <string.h>

#define MAX_DIM 512

bool kv_slice_dim_ok(uint32_t head_dim)
{
    return head_dim > 0 && head_dim % 16 == 0 && head_dim <= MAX_DIM;
}

size_t kv_slice_part_bytes(const struct kv_geometry *geom)
{
    size_t values = (size_t)KV_BLOCK_TOKENS * geom->head_dim;
    return geom->format == KV_INT8 ? values + KV_BLOCK_TOKENS * sizeof(float) : values * 2;
}

size_t kv_slice_bytes(const struct kv_geometry *geom)
{
    return 2 * (size_t)geom->n_kv_heads * kv_slice_part_bytes(geom);
}

/* Where value d of token t stands. */
static size_t v_at(uint32_t dim, uint32_t t, uint32_t d)
{
    return (size_t)(t / 4) * 4 * dim + 4 * (size_t)d + t % 4;
}

void kv_slice_put_int8(uint8_t *part, uint32_t dim, bool is_v, uint32_t t, const int8_t *values)
{
    if (is_v) {
        uint8_t *dst = part + v_at(dim, t, 0);
        for (uint32_t d = 0; d < dim; d++) dst[4 * (size_t)d] = (uint8_t)values[d];
    } else {
        uint8_t *dst = part + kv_slice_k_at(dim, t, 0);
        for (uint32_t d = 0; d < dim; d += 4) memcpy(dst + (size_t)d * 16, values + d, 4);
    }
}

void kv_slice_put_f16(uint8_t *part, uint32_t dim, bool is_v, uint32_t t, const uint16_t *values)
{
    uint16_t *dst = (uint16_t *)(void *)part;
    if (is_v) {
        memcpy(dst + (size_t)t * dim, values, dim * sizeof(*values));
    } else {
        for (uint32_t d = 0; d < dim; d++) dst[kv_slice_k_half_at(dim, t, d)] = values[d];
    }
}

static void get_int8(int8_t *values, const uint8_t *part, uint32_t dim, bool is_v, uint32_t t)
{
    for (uint32_t d = 0; d < dim; d++) values[d] = (int8_t)part[is_v ? v_at(dim, t, d) : kv_slice_k_at(dim, t, d)];
}

void kv_slice_get_k(int8_t *values, const uint8_t *part, uint32_t dim, uint32_t t)
{
    const uint8_t *src = part + kv_slice_k_at(dim, t, 0);
    for (uint32_t d = 0; d < dim; d += 4) memcpy(values + d, src + (size_t)d * 16, 4);
}

static void pack_int8(const struct cpu_kernels *k, const uint8_t *part, uint32_t dim, const struct kv_piece *p,
                      uint8_t *wire)
{
    int8_t *out = (int8_t *)wire + p->values;
    for (uint32_t t = p->t0; t < p->t1;) {
        if (p->is_v && t % 4 == 0 && t + 4 <= p->t1) {
            k->v_unzip(out, (const int8_t *)part + v_at(dim, t, 0), dim);
            out += 4 * (size_t)dim;
            t += 4;
            continue;
        }
        if (p->is_v)
            get_int8(out, part, dim, true, t);
        else
            kv_slice_get_k(out, part, dim, t);
        out += dim;
        t++;
    }
    memcpy(wire + p->scales, part + (size_t)KV_BLOCK_TOKENS * dim + p->t0 * sizeof(float),
           (p->t1 - p->t0) * sizeof(float));
}

bool kv_slice_scales_ok(const uint8_t *wire, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float s;
        memcpy(&s, wire + i * sizeof(s), sizeof(s));
        if (!(s > 0 && s <= FLT_MAX)) return false;
    }
    return true;
}

static enum status unpack_int8(const struct cpu_kernels *k, uint8_t *part, uint32_t dim, const struct kv_piece *p,
                               const uint8_t *wire)
{
    const int8_t *in = (const int8_t *)wire + p->values;
    const uint32_t n = p->t1 - p->t0;
    if (!kv_slice_scales_ok(wire + p->scales, n) || k->has_min8(in, (size_t)n * dim)) return ERR_CORRUPT;
    for (uint32_t t = p->t0; t < p->t1;) {
        if (p->is_v && t % 4 == 0 && t + 4 <= p->t1) {
            k->v_zip((int8_t *)part + v_at(dim, t, 0), in, dim);
            in += 4 * (size_t)dim;
            t += 4;
            continue;
        }
        kv_slice_put_int8(part, dim, p->is_v, t, in);
        in += dim;
        t++;
    }
    memcpy(part + (size_t)KV_BLOCK_TOKENS * dim + p->t0 * sizeof(float), wire + p->scales, n * sizeof(float));
    return OK;
}

static void pack_f16(const uint8_t *part, uint32_t dim, const struct kv_piece *p, uint8_t *wire)
{
    wire += p->values;
    if (p->is_v) {
        memcpy(wire, part + (size_t)p->t0 * dim * 2, (size_t)(p->t1 - p->t0) * dim * 2);
        return;
    }
    for (uint32_t t = p->t0; t < p->t1; t++)
        for (uint32_t d = 0; d < dim; d++, wire += 2) memcpy(wire, part + 2 * kv_slice_k_half_at(dim, t, d), 2);
}

/* Infinities and NaNs are out of range: no honest sender has them. */
bool kv_slice_halves_ok(const uint8_t *wire, size_t n)
{
    unsigned bad = 0;
    for (size_t i = 0; i < n; i++) bad |= (half_load(wire + 2 * i) & 0x7c00u) == 0x7c00u;
    return !bad;
}

static enum status unpack_f16(uint8_t *part, uint32_t dim, const struct kv_piece *p, const uint8_t *wire)
{
    const size_t n = (size_t)(p->t1 - p->t0) * dim;
    wire += p->values;
    if (!kv_slice_halves_ok(wire, n)) return ERR_CORRUPT;
    if (p->is_v) {
        memcpy(part + (size_t)p->t0 * dim * 2, wire, n * 2);
        return OK;
    }
    for (uint32_t t = p->t0; t < p->t1; t++)
        for (uint32_t d = 0; d < dim; d++, wire += 2) memcpy(part + 2 * kv_slice_k_half_at(dim, t, d), wire, 2);
    return OK;
}

static bool is_of(const struct kv_geometry *geom, const struct kv_piece *p)
{
    return kv_slice_dim_ok(geom->head_dim) && p->head < geom->n_kv_heads && p->t0 < p->t1 && p->t1 <= KV_BLOCK_TOKENS;
}

static uint8_t *part_of(const struct kv_slices *layer, const struct kv_piece *p)
{
    return layer->base + p->block * layer->stride + kv_slice_offset(&layer->geom, p->head, p->is_v);
}

enum status kv_slice_pack(const struct cpu_kernels *k, const struct kv_slices *layers, const struct kv_piece *piece,
                          uint8_t *wire)
{
    const struct kv_slices *layer = &layers[piece->layer];
    if (layer->geom.kind == KV_LATENT) return latent_slice_pack(layer, piece, wire);
    if (!is_of(&layer->geom, piece)) return ERR_INVALID;
    if (layer->geom.format == KV_INT8)
        pack_int8(k, part_of(layer, piece), layer->geom.head_dim, piece, wire);
    else
        pack_f16(part_of(layer, piece), layer->geom.head_dim, piece, wire);
    return OK;
}

enum status kv_slice_unpack(const struct cpu_kernels *k, const struct kv_slices *layers, const struct kv_piece *piece,
                            const uint8_t *wire)
{
    const struct kv_slices *layer = &layers[piece->layer];
    if (layer->geom.kind == KV_LATENT) return latent_slice_unpack(k, layer, piece, wire);
    if (!is_of(&layer->geom, piece)) return ERR_INVALID;
    if (layer->geom.format == KV_INT8) return unpack_int8(k, part_of(layer, piece), layer->geom.head_dim, piece, wire);
    return unpack_f16(part_of(layer, piece), layer->geom.head_dim, piece, wire);
}
