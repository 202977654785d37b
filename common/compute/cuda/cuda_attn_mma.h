/* cuda_attn_mma.h - INT8 attention's steps for one query in the registers of four lanes, and how int16 goes through
 * tensor cores exactly: as a signed high and an unsigned low byte, as 256 times the sum of the one plus the sum of the
 * other is the sum.
 *
 * A lane (g = lane / 4, c = lane % 4) has the scores of queries g and g + 8 of its warp's 16 with tokens
 * 8 i + 2 c + {0, 1} of a block, i = 0 .. 7.  A query's scores are `float s[16]`: s[2 i + e] is token 8 i + 2 c + e. */
#ifndef COMPUTE_CUDA_CUDA_ATTN_MMA_H
#define COMPUTE_CUDA_CUDA_ATTN_MMA_H
#include "compute/cuda/cu_async.h"
#include "compute/cuda/cu_mma.h"
#include "compute/cuda/cuda_attn.h"

#define TOKEN_TILES 8 /* of 8 tokens */

static __device__ __forceinline__ uint32_t lane_group(void)
{
    return threadIdx.x % CU_WARP / 4;
}

static __device__ __forceinline__ uint32_t lane_column(void)
{
    return threadIdx.x % 4;
}

/* The first operand's registers of two products of 32 columns: 16 bytes of query g, 16 of query g + 8. */
static __device__ __forceinline__ void mma_rows(uint32_t out[8], uint4 x, uint4 y)
{
    out[0] = x.x, out[1] = y.x, out[2] = x.y, out[3] = y.y;
    out[4] = x.z, out[5] = y.z, out[6] = x.w, out[7] = y.w;
}

/* sum += A B for the bytes that 16 bytes of each column have in B: signed rows, or the unsigned low bytes. */
static __device__ __forceinline__ void mma_high(int32_t sum[4], const uint32_t a[8], uint4 b)
{
    const uint32_t b0[2] = { b.x, b.y }, b1[2] = { b.z, b.w };
    cu_mma_s8s8(sum, a, b0);
    cu_mma_s8s8(sum, a + 4, b1);
}

static __device__ __forceinline__ void mma_low(int32_t sum[4], const uint32_t a[8], uint4 b)
{
    const uint32_t b0[2] = { b.x, b.y }, b1[2] = { b.z, b.w };
    cu_mma_u8s8(sum, a, b0);
    cu_mma_u8s8(sum, a + 4, b1);
}

static __device__ __forceinline__ void mma_shift(int32_t sum[4])
{
#pragma unroll
    for (int i = 0; i < 4; i++) sum[i] = (int32_t)((uint32_t)sum[i] << 8);
}

/* A head of q in 16 bits into two planes of bytes, by a warp; `at` says where a dimension goes.  Returns its scale.
 * q NULL: there is none, and `width` zeros are written. */
template <class Place>
static __device__ __forceinline__ float split_query(uint8_t *high, uint8_t *low, const float *q, uint32_t dim,
                                                    uint32_t width, Place at)
{
    const uint32_t lane = threadIdx.x % CU_WARP;
    uint32_t amax = 0;
    for (uint32_t d = lane; q && d < dim; d += CU_WARP) amax = max(amax, __float_as_uint(q[d]) & 0x7fffffffu);
    for (int step = 16; step; step /= 2) amax = max(amax, __shfl_xor_sync(0xffffffffu, amax, step));
    const struct cu_step step = cu_step_of(amax, 32767.0f);
    for (uint32_t d = lane; d < width; d += CU_WARP) {
        const bool has = q && d < dim && step.finite;
        const uint32_t bits = has ? __float_as_uint(__fmaf_rn(q[d], step.inv, CU_ROUND)) : 0;
        high[at(d)] = (uint8_t)(bits >> 8);
        low[at(d)] = (uint8_t)bits;
    }
    return step.scale;
}

/* Scores of the sums in dots[i][first], dots[i][first + 1]; `whole`: all tokens are seen.  Others are -inf.  Returns
 * the largest, to all four lanes. */
static __device__ __forceinline__ float scores_of(const struct attn_args &a, float s[16],
                                                  const int32_t dots[TOKEN_TILES][4], int first, const float *k_scale,
                                                  float q_scale, struct attn_seen seen, bool whole)
{
    float top = -INFINITY;
#pragma unroll
    for (int i = 0; i < TOKEN_TILES; i++) {
        const uint32_t t = 8 * i + 2 * lane_column();
        const float2 scale = *(const float2 *)(k_scale + t);
        s[2 * i] = __fmul_rn(__fmul_rn(__int2float_rn(dots[i][first]), scale.x), q_scale);
        s[2 * i + 1] = __fmul_rn(__fmul_rn(__int2float_rn(dots[i][first + 1]), scale.y), q_scale);
    }
    if (a.softcap != 0.0f)
#pragma unroll
        for (int i = 0; i < 16; i++) s[i] = attn_capped(a, s[i]);
    if (!whole)
#pragma unroll
        for (int i = 0; i < 16; i++) {
            const uint32_t t = 8 * (i / 2) + 2 * lane_column() + i % 2;
            s[i] = t >= seen.first && t < seen.end ? s[i] : -INFINITY;
        }
#pragma unroll
    for (int i = 0; i < 16; i++) top = cu_max(top, s[i]);
    top = cu_max(top, __shfl_xor_sync(0xffffffffu, top, 1));
    return cu_max(top, __shfl_xor_sync(0xffffffffu, top, 2));
}

/* s becomes exp(s - top); returns their sum in sixteen lanes: token t is in lane t % 16 of vector t / 16. */
static __device__ __forceinline__ float exp_of(float s[16], float top)
{
#pragma unroll
    for (int i = 0; i < 16; i++) s[i] = attn_exp(__fsub_rn(s[i], top));
    float lanes[4];
#pragma unroll
    for (int i = 0; i < 4; i++) lanes[i] = __fadd_rn(__fadd_rn(s[i], s[4 + i]), __fadd_rn(s[8 + i], s[12 + i]));
    float x0 = __fadd_rn(lanes[0], lanes[2]), x1 = __fadd_rn(lanes[1], lanes[3]);
    x0 = __fadd_rn(x0, __shfl_xor_sync(0xffffffffu, x0, 2));
    x1 = __fadd_rn(x1, __shfl_xor_sync(0xffffffffu, x1, 2));
    x0 = __fadd_rn(x0, __shfl_xor_sync(0xffffffffu, x0, 1));
    x1 = __fadd_rn(x1, __shfl_xor_sync(0xffffffffu, x1, 1));
    return __fadd_rn(x0, x1);
}

/* Four 16-bit integers' high and low bytes. */
static __device__ __forceinline__ void split_bytes(uint32_t *high, uint32_t *low, const uint32_t w[4])
{
    const uint32_t a = __byte_perm(w[0], w[1], 0x5140), b = __byte_perm(w[2], w[3], 0x5140);
    *low = __byte_perm(a, b, 0x5410);
    *high = __byte_perm(a, b, 0x7632);
}

/* The weights s * v_scale in 16 bits, as mma_rows()'s registers of query g + 8 half; returns their scale. */
static __device__ __forceinline__ float weights_of(uint32_t high[8], uint32_t low[8], float s[16], const float *v_scale,
                                                   struct attn_seen seen, bool whole, int half)
{
    uint32_t amax = 0;
#pragma unroll
    for (int i = 0; i < TOKEN_TILES; i++) {
        const float2 scale = *(const float2 *)(v_scale + 8 * i + 2 * lane_column());
        s[2 * i] = __fmul_rn(s[2 * i], scale.x);
        s[2 * i + 1] = __fmul_rn(s[2 * i + 1], scale.y);
    }
    if (!whole)
#pragma unroll
        for (int i = 0; i < 16; i++) {
            const uint32_t t = 8 * (i / 2) + 2 * lane_column() + i % 2;
            s[i] = t >= seen.first && t < seen.end ? s[i] : 0.0f;
        }
#pragma unroll
    for (int i = 0; i < 16; i++) amax = max(amax, __float_as_uint(s[i]) & 0x7fffffffu);
    amax = max(amax, __shfl_xor_sync(0xffffffffu, amax, 1));
    amax = max(amax, __shfl_xor_sync(0xffffffffu, amax, 2));
    const struct cu_step step = cu_step_of(amax, 32767.0f);
    const uint32_t kept = step.finite ? 0xffffffffu : 0;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        uint32_t w[4];
#pragma unroll
        for (int i = 0; i < 4; i++) w[i] = __float_as_uint(__fmaf_rn(s[4 * j + i], step.inv, CU_ROUND)) & kept;
        split_bytes(&high[4 * (j / 2) + 2 * (j % 2) + half], &low[4 * (j / 2) + 2 * (j % 2) + half], w);
    }
    return step.scale;
}
#endif
