/* cu_math.h - the CPU's exp, tanh and softplus for one float, bit for bit (docs/numerics.md; cpu/math_tmpl.h is its
 * twin over sixteen lanes). */
#ifndef COMPUTE_CUDA_CU_MATH_H
#define COMPUTE_CUDA_CU_MATH_H
#include "compute/cuda/cu.h"

#define CU_ROUND 12582912.0f /* 1.5 * 2^23: adding it rounds to an integer, kept in the low bits */

#define CU_EXP_LOW -87.33654f /* what is below it counts as 0 */

/* exp(x) where x is in the range of cu_exp(); elsewhere anything. */
static __device__ __forceinline__ float cu_exp_within(float x)
{
    const float t = __fmaf_rn(x, 1.44269504f, CU_ROUND);
    const float n = __fsub_rn(t, CU_ROUND);
    float r = __fmaf_rn(n, -0.693359375f, x);
    r = __fmaf_rn(n, 2.12194440e-4f, r);
    float p = 1.9875691500e-4f;
    p = __fmaf_rn(p, r, 1.3981999507e-3f);
    p = __fmaf_rn(p, r, 8.3334519073e-3f);
    p = __fmaf_rn(p, r, 4.1665795894e-2f);
    p = __fmaf_rn(p, r, 1.6666665459e-1f);
    p = __fmaf_rn(p, r, 5.0000001201e-1f);
    p = __fmaf_rn(p, __fmul_rn(r, r), r);
    return __fmul_rn(__fadd_rn(p, 1.0f), __uint_as_float((__float_as_uint(t) << 23) + 0x3f800000u)); /* times 2^n */
}

static __device__ __forceinline__ float cu_exp(float x)
{
    const float p = cu_exp_within(cu_min(88.02f, cu_max(CU_EXP_LOW, x)));
    return x < CU_EXP_LOW ? 0.0f : p;
}

/* x sigmoid(f x), given -f x. */
static __device__ __forceinline__ float cu_gated(float x, float minus_fx)
{
    return __fdiv_rn(x, __fadd_rn(cu_exp(minus_fx), 1.0f));
}

static __device__ __forceinline__ float cu_silu(float x)
{
    return cu_gated(x, __fsub_rn(0.0f, x));
}

static __device__ __forceinline__ float cu_sigmoid(float x)
{
    return __fdiv_rn(1.0f, __fadd_rn(cu_exp(__fsub_rn(0.0f, x)), 1.0f));
}

static __device__ __forceinline__ float cu_magnitude(float x)
{
    return __uint_as_float(__float_as_uint(x) & 0x7fffffffu);
}

static __device__ __forceinline__ float cu_tanh(float x)
{
    const float size = cu_magnitude(x), z = __fmul_rn(x, x);
    float p = -5.70498872745e-3f;
    p = __fmaf_rn(p, z, 2.06390887954e-2f);
    p = __fmaf_rn(p, z, -5.37397155531e-2f);
    p = __fmaf_rn(p, z, 1.33314422036e-1f);
    p = __fmaf_rn(p, z, -3.33332819422e-1f);
    p = __fmaf_rn(__fmul_rn(p, z), x, x);
    float t = __fdiv_rn(2.0f, __fadd_rn(cu_exp(__fadd_rn(size, size)), 1.0f));
    t = __fsub_rn(1.0f, t);
    t = x < 0 ? __fsub_rn(0.0f, t) : t;
    return size < 0.625f ? p : t;
}

static __device__ __forceinline__ float cu_log1p(float e)
{
    const float u = __fadd_rn(e, 1.0f), kept = __fsub_rn(u, 1.0f);
    const bool small = u < 1.41421356f;
    const float x = small ? kept : __fsub_rn(__fmul_rn(u, 0.5f), 1.0f), z = __fmul_rn(x, x), n = small ? 0.0f : 1.0f;
    float p = 7.0376836292e-2f;
    p = __fmaf_rn(p, x, -1.1514610310e-1f);
    p = __fmaf_rn(p, x, 1.1676998740e-1f);
    p = __fmaf_rn(p, x, -1.2420140846e-1f);
    p = __fmaf_rn(p, x, 1.4249322787e-1f);
    p = __fmaf_rn(p, x, -1.6668057665e-1f);
    p = __fmaf_rn(p, x, 2.0000714765e-1f);
    p = __fmaf_rn(p, x, -2.4999993993e-1f);
    p = __fmaf_rn(p, x, 3.3333331174e-1f);
    p = __fmaf_rn(n, -2.12194440e-4f, __fmul_rn(__fmul_rn(x, z), p));
    p = __fmaf_rn(n, 0.693359375f, __fadd_rn(x, __fmaf_rn(z, -0.5f, p)));
    p = __fmul_rn(p, __fdiv_rn(e, 0 < kept ? kept : 1.0f));
    return 0 < kept ? p : e;
}

/* log(1 + exp(x)) */
static __device__ __forceinline__ float cu_softplus(float x)
{
    return __fadd_rn(cu_max(0.0f, x), cu_log1p(cu_exp(__fsub_rn(0.0f, cu_magnitude(x)))));
}

/* --- fp16 and bf16, as the CPU's half.h has them --- */
static __host__ __device__ __forceinline__ float cu_bits_float(uint32_t bits)
{
#if defined(__CUDA_ARCH__)
    return __uint_as_float(bits);
#else
    float f;
    memcpy(&f, &bits, 4);
    return f;
#endif
}

static __host__ __device__ __forceinline__ uint32_t cu_float_bits(float f)
{
#if defined(__CUDA_ARCH__)
    return __float_as_uint(f);
#else
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits;
#endif
}

static __host__ __device__ __forceinline__ float cu_half_to_float(uint16_t h)
{
#if defined(__CUDA_ARCH__)
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
#else
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exp = (h >> 10) & 0x1fu, man = h & 0x3ffu;
    if (exp == 0x1f) return cu_bits_float(sign | 0x7f800000u | (man ? 0x400000u | man << 13 : 0));
    if (exp) return cu_bits_float(sign | (exp + 112) << 23 | man << 13);
    const float tiny = (float)man * 0x1p-24f;
    return sign ? -tiny : tiny;
#endif
}

/* Round to nearest even; too large becomes infinity. */
static __host__ __device__ __forceinline__ uint16_t cu_float_to_half(float f)
{
    uint32_t bits = cu_float_bits(f);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | ((bits >> 13) & 0x3ffu));
    if (bits >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);
    if (bits < 0x38800000u) return (uint16_t)(sign | (cu_float_bits(cu_bits_float(bits) + 0.5f) - 0x3f000000u));
    return (uint16_t)(sign | ((bits - 0x38000000u + 0xfffu + ((bits >> 13) & 1)) >> 13));
}

static __host__ __device__ __forceinline__ float cu_bf16_to_float(uint16_t h)
{
    return cu_bits_float((uint32_t)h << 16);
}

/* Round to nearest even; too large becomes infinity, a NaN stays one. */
static __host__ __device__ __forceinline__ uint16_t cu_float_to_bf16(float f)
{
    const uint32_t bits = cu_float_bits(f);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

/* --- quantizers --- */
struct cu_step {
    float scale, inv;
    bool finite;
};

/* Values up to `amax` (as bits) in steps up to `top`: nothing to keep is scale 1, not a number stays one. */
static __device__ __forceinline__ struct cu_step cu_step_of(uint32_t amax, float top)
{
    if (amax >= 0x7f800000u) return cu_step{ __uint_as_float(0x7fc00000u), 0, false };
    const float scale = __fdiv_rn(__uint_as_float(amax), top);
    if (scale < 1.17549435e-38f) return cu_step{ 1.0f, 0, true };
    return cu_step{ scale, __fdiv_rn(1.0f, scale), true };
}

/* --- sixteen lanes ---
 * The sum of 16 values held by lanes l, l + 1, ... of a warp's half, in the CPU's order: lanes 8 apart, then 4, 2, 1.
 * All 16 lanes get it.  The whole warp calls. */
static __device__ __forceinline__ float cu_sum16(float v)
{
    for (int step = 8; step; step /= 2) {
        const float other = __shfl_xor_sync(0xffffffffu, v, step);
        v = threadIdx.x & (unsigned)step ? __fadd_rn(other, v) : __fadd_rn(v, other);
    }
    return v;
}

/* The largest of 16 magnitudes, compared as bits: NaN and infinity win. */
static __device__ __forceinline__ uint32_t cu_magnitude16(uint32_t bits)
{
    for (int step = 8; step; step /= 2) {
        const uint32_t other = __shfl_xor_sync(0xffffffffu, bits, step);
        bits = other > bits ? other : bits;
    }
    return bits;
}
#endif
