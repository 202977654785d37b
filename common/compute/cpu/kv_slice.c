/* kv_slice.c - moves KV between the CPU's block layout and the wire's canonical order. */
#include "compute/cpu/kv_slice.h"

#include "compute/cpu/half.h"

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
static size_t k_at(uint32_t dim, uint32_t t, uint32_t d)
{
    return (size_t)(t / 16) * 16 * dim + d / 4 * 64 + t % 16 * 4 + d % 4;
}

static size_t v_at(uint32_t dim, uint32_t t, uint32_t d)
{
    return (size_t)(t / 4) * 4 * dim + 4 * (size_t)d + t % 4;
}

static size_t k_half_at(uint32_t dim, uint32_t t, uint32_t d)
{
    return ((size_t)(t / 16) * dim + d) * 16 + t % 16;
}

void kv_slice_put_int8(uint8_t *part, uint32_t dim, bool is_v, uint32_t t, const int8_t *values)
{
    if (is_v) {
        uint8_t *dst = part + v_at(dim, t, 0);
        for (uint32_t d = 0; d < dim; d++) dst[4 * (size_t)d] = (uint8_t)values[d];
    } else {
        uint8_t *dst = part + k_at(dim, t, 0);
        for (uint32_t d = 0; d < dim; d += 4) memcpy(dst + (size_t)d * 16, values + d, 4);
    }
}

void kv_slice_put_f16(uint8_t *part, uint32_t dim, bool is_v, uint32_t t, const uint16_t *values)
{
    uint16_t *dst = (uint16_t *)(void *)part;
    if (is_v) {
        memcpy(dst + (size_t)t * dim, values, dim * sizeof(*values));
    } else {
        for (uint32_t d = 0; d < dim; d++) dst[k_half_at(dim, t, d)] = values[d];
    }
}

static void get_int8(int8_t *values, const uint8_t *part, uint32_t dim, bool is_v, uint32_t t)
{
    for (uint32_t d = 0; d < dim; d++) values[d] = (int8_t)part[is_v ? v_at(dim, t, d) : k_at(dim, t, d)];
}

static void get_k(int8_t *values, const uint8_t *part, uint32_t dim, uint32_t t)
{
    const uint8_t *src = part + k_at(dim, t, 0);
    for (uint32_t d = 0; d < dim; d += 4) memcpy(values + d, src + (size_t)d * 16, 4);
}

static void export_int8(const struct cpu_kernels *k, const uint8_t *part, uint32_t dim, bool is_v, uint32_t t0,
                        uint32_t t1, uint8_t *wire)
{
    int8_t *out = (int8_t *)wire;
    for (uint32_t t = t0; t < t1;) {
        if (is_v && t % 4 == 0 && t + 4 <= t1) {
            k->v_unzip(out, (const int8_t *)part + v_at(dim, t, 0), dim);
            out += 4 * (size_t)dim;
            t += 4;
            continue;
        }
        if (is_v)
            get_int8(out, part, dim, true, t);
        else
            get_k(out, part, dim, t);
        out += dim;
        t++;
    }
    memcpy(out, part + (size_t)KV_BLOCK_TOKENS * dim + t0 * sizeof(float), (t1 - t0) * sizeof(float));
}

static bool scales_ok(const uint8_t *wire, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        float s;
        memcpy(&s, wire + i * sizeof(s), sizeof(s));
        if (!(s > 0 && s <= FLT_MAX)) return false;
    }
    return true;
}

static enum status import_int8(const struct cpu_kernels *k, uint8_t *part, uint32_t dim, bool is_v, uint32_t t0,
                               uint32_t t1, const uint8_t *wire)
{
    const size_t n = (size_t)(t1 - t0) * dim;
    const int8_t *in = (const int8_t *)wire;
    if (!scales_ok(wire + n, t1 - t0) || k->has_min8(in, n)) return ERR_CORRUPT;
    for (uint32_t t = t0; t < t1;) {
        if (is_v && t % 4 == 0 && t + 4 <= t1) {
            k->v_zip((int8_t *)part + v_at(dim, t, 0), in, dim);
            in += 4 * (size_t)dim;
            t += 4;
            continue;
        }
        kv_slice_put_int8(part, dim, is_v, t, in);
        in += dim;
        t++;
    }
    memcpy(part + (size_t)KV_BLOCK_TOKENS * dim + t0 * sizeof(float), wire + n, (t1 - t0) * sizeof(float));
    return OK;
}

static void export_f16(const uint8_t *part, uint32_t dim, bool is_v, uint32_t t0, uint32_t t1, uint8_t *wire)
{
    if (is_v) {
        memcpy(wire, part + (size_t)t0 * dim * 2, (size_t)(t1 - t0) * dim * 2);
        return;
    }
    for (uint32_t t = t0; t < t1; t++)
        for (uint32_t d = 0; d < dim; d++, wire += 2) memcpy(wire, part + 2 * k_half_at(dim, t, d), 2);
}

/* Infinities and NaNs are out of range: no honest sender has them. */
static bool halves_ok(const uint8_t *wire, size_t n)
{
    unsigned bad = 0;
    for (size_t i = 0; i < n; i++) bad |= (half_load(wire + 2 * i) & 0x7c00u) == 0x7c00u;
    return !bad;
}

static enum status import_f16(uint8_t *part, uint32_t dim, bool is_v, uint32_t t0, uint32_t t1, const uint8_t *wire)
{
    if (!halves_ok(wire, (size_t)(t1 - t0) * dim)) return ERR_CORRUPT;
    if (is_v) {
        memcpy(part + (size_t)t0 * dim * 2, wire, (size_t)(t1 - t0) * dim * 2);
        return OK;
    }
    for (uint32_t t = t0; t < t1; t++)
        for (uint32_t d = 0; d < dim; d++, wire += 2) memcpy(part + 2 * k_half_at(dim, t, d), wire, 2);
    return OK;
}

static bool range_ok(const struct kv_geometry *geom, uint32_t head, uint32_t t0, uint32_t t1)
{
    return kv_slice_dim_ok(geom->head_dim) && head < geom->n_kv_heads && t0 < t1 && t1 <= KV_BLOCK_TOKENS;
}

enum status kv_slice_export(const struct cpu_kernels *k, const uint8_t *slice, const struct kv_geometry *geom,
                            uint32_t head, bool is_v, uint32_t t0, uint32_t t1, uint8_t *wire)
{
    if (!range_ok(geom, head, t0, t1)) return ERR_INVALID;
    const uint8_t *part = slice + kv_slice_offset(geom, head, is_v);
    if (geom->format == KV_INT8)
        export_int8(k, part, geom->head_dim, is_v, t0, t1, wire);
    else
        export_f16(part, geom->head_dim, is_v, t0, t1, wire);
    return OK;
}

enum status kv_slice_import(const struct cpu_kernels *k, uint8_t *slice, const struct kv_geometry *geom, uint32_t head,
                            bool is_v, uint32_t t0, uint32_t t1, const uint8_t *wire)
{
    if (!range_ok(geom, head, t0, t1)) return ERR_INVALID;
    uint8_t *part = slice + kv_slice_offset(geom, head, is_v);
    if (geom->format == KV_INT8) return import_int8(k, part, geom->head_dim, is_v, t0, t1, wire);
    return import_f16(part, geom->head_dim, is_v, t0, t1, wire);
}
