/* vec_avx2_tmpl.h - sixteen fp32 lanes in two registers; each function's meaning stands in vec_ref_tmpl.h. */
#ifndef COMPUTE_CPU_VEC_AVX2_TMPL_H
#define COMPUTE_CPU_VEC_AVX2_TMPL_H
#include "compute/cpu/half.h"
#include "compute/cpu/unroll.h"

#include <immintrin.h>
#include <string.h>

/* LEVEL_AVX_VNNI: dot products by AVX-VNNI.  LEVEL_VNNI_256: by the same instructions as AVX-512 encodes them. */
#if defined(LEVEL_AVX_VNNI)
#define TARGET            __attribute__((target("avx2,fma,f16c,avxvnni")))
#define DPBUSD(acc, u, s) _mm256_dpbusd_avx_epi32(acc, u, s)
#define DPWSSD(acc, a, b) _mm256_dpwssd_avx_epi32(acc, a, b)
#elif defined(LEVEL_VNNI_256)
#define TARGET            __attribute__((target("avx2,fma,f16c,avx512f,avx512vl,avx512vnni")))
#define DPBUSD(acc, u, s) _mm256_dpbusd_epi32(acc, u, s)
#define DPWSSD(acc, a, b) _mm256_dpwssd_epi32(acc, a, b)
#else
#define TARGET __attribute__((target("avx2,fma,f16c")))
#endif
#define VEC TARGET static inline __attribute__((always_inline))

typedef struct {
    __m256 a, b; /* lanes 0..7, 8..15 */
} vec;

#define VEC_BOTH(op, x, y) ((vec){ op((x).a, (y).a), op((x).b, (y).b) })

VEC vec v_load(const float *p)
{
    return (vec){ _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8) };
}
VEC vec v_set(float x)
{
    return (vec){ _mm256_set1_ps(x), _mm256_set1_ps(x) };
}

VEC vec v_load_half(const uint16_t *p)
{
    return (vec){ _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)),
                  _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8))) };
}

VEC vec v_add(vec x, vec y)
{
    return VEC_BOTH(_mm256_add_ps, x, y);
}
VEC vec v_sub(vec x, vec y)
{
    return VEC_BOTH(_mm256_sub_ps, x, y);
}
VEC vec v_mul(vec x, vec y)
{
    return VEC_BOTH(_mm256_mul_ps, x, y);
}
VEC vec v_div(vec x, vec y)
{
    return VEC_BOTH(_mm256_div_ps, x, y);
}
VEC vec v_max(vec x, vec y)
{
    return VEC_BOTH(_mm256_max_ps, x, y);
}
VEC vec v_min(vec x, vec y)
{
    return VEC_BOTH(_mm256_min_ps, x, y);
}

VEC vec v_fma(vec x, vec y, vec z)
{
    return (vec){ _mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b) };
}

VEC vec v_if_less(vec p, vec q, vec x, vec y)
{
    return (vec){ _mm256_blendv_ps(y.a, x.a, _mm256_cmp_ps(p.a, q.a, _CMP_LT_OQ)),
                  _mm256_blendv_ps(y.b, x.b, _mm256_cmp_ps(p.b, q.b, _CMP_LT_OQ)) };
}

VEC vec v_first(vec x, vec y, uint32_t n)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i limit = _mm256_set1_epi32((int)(n < 16 ? n : 16));
    __m256i lo = _mm256_cmpgt_epi32(limit, lane);
    __m256i hi = _mm256_cmpgt_epi32(limit, _mm256_add_epi32(lane, _mm256_set1_epi32(8)));
    return (vec){ _mm256_blendv_ps(y.a, x.a, _mm256_castsi256_ps(lo)),
                  _mm256_blendv_ps(y.b, x.b, _mm256_castsi256_ps(hi)) };
}

VEC vec v_swap1(vec x)
{
    return (vec){ _mm256_permute_ps(x.a, 0xb1), _mm256_permute_ps(x.b, 0xb1) };
}
VEC vec v_swap2(vec x)
{
    return (vec){ _mm256_permute_ps(x.a, 0x4e), _mm256_permute_ps(x.b, 0x4e) };
}

VEC vec v_swap4(vec x)
{
    return (vec){ _mm256_permute2f128_ps(x.a, x.a, 1), _mm256_permute2f128_ps(x.b, x.b, 1) };
}

VEC vec v_swap8(vec x)
{
    return (vec){ x.b, x.a };
}

VEC vec v_alternate(vec x, vec y, int step)
{
    if (step == 8) return (vec){ x.a, y.b };
    if (step == 4) return (vec){ _mm256_blend_ps(x.a, y.a, 0xf0), _mm256_blend_ps(x.b, y.b, 0xf0) };
    if (step == 2) return (vec){ _mm256_blend_ps(x.a, y.a, 0xcc), _mm256_blend_ps(x.b, y.b, 0xcc) };
    return (vec){ _mm256_blend_ps(x.a, y.a, 0xaa), _mm256_blend_ps(x.b, y.b, 0xaa) };
}

VEC __m256 v_pow2_half(__m256 t)
{
    __m256i n = _mm256_add_epi32(_mm256_castps_si256(t), _mm256_set1_epi32((int)(127u - 0x4b400000u)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(n, 23));
}

VEC vec v_pow2(vec t)
{
    return (vec){ v_pow2_half(t.a), v_pow2_half(t.b) };
}

VEC __m256 v_magnitude_half(__m256 x, __m256 y)
{
    const __m256i mask = _mm256_set1_epi32(0x7fffffff);
    __m256i p = _mm256_and_si256(_mm256_castps_si256(x), mask);
    return _mm256_castsi256_ps(_mm256_max_epu32(p, _mm256_and_si256(_mm256_castps_si256(y), mask)));
}

VEC vec v_magnitude(vec x, vec y)
{
    return VEC_BOTH(v_magnitude_half, x, y);
}

VEC void v_store(float *p, vec x)
{
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}

VEC void v_store_half(uint16_t *p, vec x)
{
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    _mm_storeu_si128((__m128i *)(p + 8), _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

/* The low 16 bits of sixteen dwords, in order. */
VEC __m256i v_low16(vec t)
{
    const __m256i mask = _mm256_set1_epi32(0xffff);
    __m256i lo = _mm256_and_si256(_mm256_castps_si256(t.a), mask);
    __m256i hi = _mm256_and_si256(_mm256_castps_si256(t.b), mask);
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(lo, hi), 0xd8);
}

VEC void v_store_int8(int8_t *p, vec t)
{
    __m256i v = _mm256_and_si256(v_low16(t), _mm256_set1_epi16(0xff));
    __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    _mm_storeu_si128((__m128i *)p, bytes);
}

VEC void v_store_int16(int16_t *p, vec t)
{
    __m256i v = _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(v_low16(t), 0xd8), 0xd8);
    _mm256_storeu_si256((__m256i *)p, v);
}

VEC float v_sum(vec x)
{
    __m256 b = _mm256_add_ps(x.a, x.b);
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

VEC float v_max_lane(vec x)
{
    __m256 b = _mm256_max_ps(x.a, x.b);
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

VEC uint32_t v_magnitude_bits(vec x)
{
    __m256i b = _mm256_max_epu32(_mm256_castps_si256(x.a), _mm256_castps_si256(x.b));
    __m128i c = _mm_max_epu32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1));
    c = _mm_max_epu32(c, _mm_shuffle_epi32(c, 0x4e));
    return (uint32_t)_mm_cvtsi128_si32(_mm_max_epu32(c, _mm_shuffle_epi32(c, 0xb1)));
}

VEC vec v_neg(vec x)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return (vec){ _mm256_xor_ps(x.a, sign), _mm256_xor_ps(x.b, sign) };
}

VEC __m256 v_bf16_half(const uint16_t *p)
{
    __m256i v = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16));
}

VEC vec v_load_bf16(const uint16_t *p)
{
    return (vec){ v_bf16_half(p), v_bf16_half(p + 8) };
}

VEC vec v_load_u8(const uint8_t *p)
{
    return (vec){ _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p))),
                  _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(p + 8)))) };
}

VEC vec v_load_i8(const uint8_t *p)
{
    return (vec){ _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p))),
                  _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(p + 8)))) };
}

VEC __m256i v_first_mask(uint32_t n, int from)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n - from), lane);
}

VEC void v_store_first(float *p, vec x, uint32_t n)
{
    _mm256_maskstore_ps(p, v_first_mask(n, 0), x.a);
    _mm256_maskstore_ps(p + 8, v_first_mask(n, 8), x.b);
}

VEC vec v_load_first(const float *p, uint32_t n)
{
    return (vec){ _mm256_maskload_ps(p, v_first_mask(n, 0)), _mm256_maskload_ps(p + 8, v_first_mask(n, 8)) };
}

/* --- sixteen int32 lanes, or 64 bytes --- */
typedef struct {
    __m256i a, b;
} ivec;

#define LEVEL_ROWS       2 /* activation rows whose sums fit the registers */
#define LEVEL_STATE_VECS 1 /* vectors of a state's columns that go over its rows together */

VEC ivec iv_load(const void *p)
{
    const uint8_t *q = p;
    return (ivec){ _mm256_loadu_si256((const __m256i *)q), _mm256_loadu_si256((const __m256i *)(q + 32)) };
}

VEC ivec iv_zero(void)
{
    return (ivec){ _mm256_setzero_si256(), _mm256_setzero_si256() };
}

VEC ivec iv_and8(ivec x, uint8_t mask)
{
    const __m256i m = _mm256_set1_epi8((char)mask);
    return (ivec){ _mm256_and_si256(x.a, m), _mm256_and_si256(x.b, m) };
}

VEC ivec iv_or(ivec x, ivec y)
{
    return (ivec){ _mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b) };
}
VEC ivec iv_right(ivec x, int n)
{
    return (ivec){ _mm256_srli_epi32(x.a, n), _mm256_srli_epi32(x.b, n) };
}
VEC ivec iv_left(ivec x, int n)
{
    return (ivec){ _mm256_slli_epi32(x.a, n), _mm256_slli_epi32(x.b, n) };
}
/* The entries of a 16-byte table that 64 bytes below 16 name. */
VEC ivec iv_lookup(const uint8_t *table, ivec x)
{
    const __m256i t = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table));
    return (ivec){ _mm256_shuffle_epi8(t, x.a), _mm256_shuffle_epi8(t, x.b) };
}

VEC vec iv_float(ivec x)
{
    return (vec){ _mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b) };
}

VEC ivec iv_scaled(const int32_t *p, int shift)
{
    __m256i v = _mm256_sll_epi32(_mm256_set1_epi32(*p), _mm_cvtsi32_si128(shift));
    return (ivec){ v, v };
}

VEC ivec iv_four(const void *p)
{
    int32_t v;
    memcpy(&v, p, sizeof(v));
    return (ivec){ _mm256_set1_epi32(v), _mm256_set1_epi32(v) };
}

VEC ivec iv_even(ivec x)
{
    return (ivec){ _mm256_srai_epi16(_mm256_slli_epi16(x.a, 8), 8), _mm256_srai_epi16(_mm256_slli_epi16(x.b, 8), 8) };
}

VEC ivec iv_odd(ivec x)
{
    return (ivec){ _mm256_srai_epi16(x.a, 8), _mm256_srai_epi16(x.b, 8) };
}

#ifdef DPBUSD
#define LEVEL_SIGNED8 0
VEC ivec iv_dot16(ivec acc, ivec x, ivec y)
{
    return (ivec){ DPWSSD(acc.a, x.a, y.a), DPWSSD(acc.b, x.b, y.b) };
}

#define LEVEL_DOT_STEPS 4
/* Step `step` of: acc + four lanes of codes times 16 activations. */
VEC ivec iv_dot4(ivec acc, const ivec *w, const int8_t *q, int bits, int step)
{
    ivec a = iv_four(q + 4 * step);
    return (ivec){ DPBUSD(acc.a, w[step].a, a.a), DPBUSD(acc.b, w[step].b, a.b) };
}
#else
#define LEVEL_SIGNED8   1 /* 8-bit codes are taken as code - 128 */
VEC ivec iv_dot16(ivec acc, ivec x, ivec y)
{
    return (ivec){ _mm256_add_epi32(acc.a, _mm256_madd_epi16(x.a, y.a)),
                   _mm256_add_epi32(acc.b, _mm256_madd_epi16(x.b, y.b)) };
}

VEC __m256i iv_pairs(__m256i w, __m256i q, int bits)
{
    if (bits != 8) return _mm256_maddubs_epi16(w, q);
    w = _mm256_xor_si256(w, _mm256_set1_epi8(-128)); /* |w| up to 128 times 127, twice: 32512 */
    return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(q, w));
}

VEC __m256i iv_dot4_half(__m256i acc, const __m256i *pair, int bits)
{
    const __m256i one = _mm256_set1_epi16(1);
    if (bits == 8) {
        UNROLL for (int j = 0; j < 4; j++) acc = _mm256_add_epi32(acc, _mm256_madd_epi16(pair[j], one));
        return acc;
    }
    /* 4 and 5 bits: four sums of 2 x 31 x 127 are 31496; 6 bits: two of 2 x 63 x 127 are 32004. */
    __m256i a = _mm256_add_epi16(pair[0], pair[1]), b = _mm256_add_epi16(pair[2], pair[3]);
    if (bits == 6) return _mm256_add_epi32(_mm256_add_epi32(acc, _mm256_madd_epi16(a, one)), _mm256_madd_epi16(b, one));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_add_epi16(a, b), one));
}

/* acc + four lanes of codes times 16 activations */
#define LEVEL_DOT_STEPS 1
VEC ivec iv_dot4(ivec acc, const ivec *w, const int8_t *q, int bits, int step)
{
    __m256i lo[4], hi[4];
    UNROLL for (int j = 0; j < 4; j++)
    {
        ivec a = iv_four(q + 4 * j);
        lo[j] = iv_pairs(w[j].a, a.a, bits);
        hi[j] = iv_pairs(w[j].b, a.b, bits);
    }
    return (ivec){ iv_dot4_half(acc.a, lo, bits), iv_dot4_half(acc.b, hi, bits) };
}
#endif
#endif
