/* kv_slice.h - how the CPU lays out one kv block's slice of one layer.
 *
 * Per kv head, K then V.  int8: K as [token / 16][dim / 4][16 tokens][4], so that lanes are tokens; V as
 * [token / 4][dim][4 tokens], so that lanes are dimensions; 64 fp32 scales after each.  fp16: K as
 * [token / 16][dim][16 tokens], V as [token][dim]. */
#ifndef COMPUTE_CPU_KV_SLICE_H
#define COMPUTE_CPU_KV_SLICE_H
#include "compute/backend.h"
#include "compute/cpu/cpu_kernels.h"

/* Head dimensions that the kernels take: multiples of 16 up to 512. */
bool kv_slice_dim_ok(uint32_t head_dim);
/* Bytes of K (or V) of one head. */
size_t kv_slice_part_bytes(const struct kv_geometry *geom);
size_t kv_slice_bytes(const struct kv_geometry *geom);

/* Offset in the slice of a head's K or V. */
static inline size_t kv_slice_offset(const struct kv_geometry *geom, uint32_t head, bool is_v)
{
    return (2 * (size_t)head + is_v) * kv_slice_part_bytes(geom);
}

/* The 64 scales behind the values of an int8 part. */
static inline float *kv_slice_scales(const struct kv_geometry *geom, uint8_t *part)
{
    return (float *)(void *)(part + (size_t)KV_BLOCK_TOKENS * geom->head_dim);
}

/* Where value d of token t of K stands: of an int8 part in bytes, of a part of 16-bit values in those. */
static inline size_t kv_slice_k_at(uint32_t dim, uint32_t t, uint32_t d)
{
    return (size_t)(t / 16) * 16 * dim + d / 4 * 64 + t % 16 * 4 + d % 4;
}

static inline size_t kv_slice_k_half_at(uint32_t dim, uint32_t t, uint32_t d)
{
    return ((size_t)(t / 16) * dim + d) * 16 + t % 16;
}

/* Puts one token's values into a part. */
void kv_slice_put_int8(uint8_t *part, uint32_t dim, bool is_v, uint32_t t, const int8_t *values);
void kv_slice_put_f16(uint8_t *part, uint32_t dim, bool is_v, uint32_t t, const uint16_t *values);

/* Takes one token's K out of an int8 part. */
void kv_slice_get_k(int8_t *values, const uint8_t *part, uint32_t dim, uint32_t t);

/* Whether n scales, or n fp16 values, of the wire are finite, and the scales positive. */
bool kv_slice_scales_ok(const uint8_t *wire, size_t n);
bool kv_slice_halves_ok(const uint8_t *wire, size_t n);

/* A piece to and from the wire's canonical order: contracts in compute/backend.h. */
enum status kv_slice_pack(const struct cpu_kernels *k, const struct kv_slices *layers, const struct kv_piece *piece,
                          uint8_t *wire);
enum status kv_slice_unpack(const struct cpu_kernels *k, const struct kv_slices *layers, const struct kv_piece *piece,
                            const uint8_t *wire);
#endif
