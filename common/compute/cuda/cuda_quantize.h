/* cuda_quantize.h - the quantized form of activations, made by the warp that has made their columns. */
#ifndef COMPUTE_CUDA_CUDA_QUANTIZE_H
#define COMPUTE_CUDA_CUDA_QUANTIZE_H
#include "compute/cuda/cu_math.h"
#include "compute/cuda/cuda_internal.h"

/* Where `x` has its planes. */
static inline struct act_planes act_planes_for(const struct act *x)
{
    return act_planes_of(x->q, x->precision == FINE ? 2 * x->n : x->n, x->k);
}

struct group {
    float scale, lost; /* lost: what the code leaves of the lane's value */
    int32_t q, sum;    /* sum: of the 16 codes */
};

/* A group of 16 columns, one to a lane. */
static __device__ __forceinline__ struct group quantize_group(float x)
{
    struct group g;
    const uint32_t amax = cu_magnitude16(__float_as_uint(x) & 0x7fffffffu);
    const struct cu_step s = cu_step_of(amax, 127.0f);
    const float t = __fsub_rn(__fmaf_rn(s.finite ? x : 0.0f, s.inv, CU_ROUND), CU_ROUND);
    g.q = (int32_t)t;
    g.scale = s.scale;
    g.lost = __fsub_rn(x, __fmul_rn(g.scale, t));
    int32_t sum = g.q;
    for (int step = 8; step; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    g.sum = sum;
    return g;
}

/* Writes one lane's part of a block of 32 columns, two groups, that a warp holds. */
static __device__ __forceinline__ void put_group(const struct act_planes &a, uint32_t row, uint32_t col, struct group g)
{
    const uint32_t lane = threadIdx.x % CU_WARP;
    const float other_scale = __shfl_xor_sync(0xffffffffu, g.scale, 16);
    const int32_t other_sum = __shfl_xor_sync(0xffffffffu, g.sum, 16);
    a.q[(size_t)row * a.k32 + col] = (int8_t)g.q;
    if (lane % 16 == 0) {
        a.scale[(size_t)row * (a.k32 / 16) + col / 16] = g.scale;
        a.sum[(size_t)row * (a.k32 / 16) + col / 16] = g.sum;
    }
    if (lane == 0)
        a.block_sum[(size_t)row * (a.k32 / 32) + col / 32] =
            __fmaf_rn(other_scale, (float)other_sum, __fmul_rn(g.scale, (float)g.sum));
}

/* Quantizes column `col` of a row; the warp holds columns col - lane .. col - lane + 31. */
static __device__ __forceinline__ void quantize_column(const struct act_planes &a, bool fine, uint32_t row,
                                                       uint32_t col, float x)
{
    const struct group g = quantize_group(x);
    put_group(a, row, col, g);
    if (fine) put_group(a, row + a.rows / 2, col, quantize_group(g.lost));
}
#endif
