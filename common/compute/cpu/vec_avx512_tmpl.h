/* vec_avx512_tmpl.h - sixteen fp32 lanes in one register; each function's meaning stands in vec_ref_tmpl.h. */
#ifndef COMPUTE_CPU_VEC_AVX512_TMPL_H
#define COMPUTE_CPU_VEC_AVX512_TMPL_H
#include "compute/cpu/half.h"
#include "compute/cpu/unroll.h"

#include <immintrin.h>
#include <string.h>

#ifdef LEVEL_AMX
#define LEVEL_VNNI
#define TARGET __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,amx-tile,amx-int8")))
#elif defined(LEVEL_VNNI)
#define TARGET __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#else
#define TARGET __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")))
#endif
#define VEC TARGET static inline __attribute__((always_inline))

typedef __m512 vec;

VEC vec v_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
VEC vec v_set(float x)
{
    return _mm512_set1_ps(x);
}
VEC vec v_load_half(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
VEC vec v_add(vec a, vec b)
{
    return _mm512_add_ps(a, b);
}
VEC vec v_sub(vec a, vec b)
{
    return _mm512_sub_ps(a, b);
}
VEC vec v_mul(vec a, vec b)
{
    return _mm512_mul_ps(a, b);
}
VEC vec v_div(vec a, vec b)
{
    return _mm512_div_ps(a, b);
}
VEC vec v_fma(vec a, vec b, vec c)
{
    return _mm512_fmadd_ps(a, b, c);
}
VEC vec v_max(vec a, vec b)
{
    return _mm512_max_ps(a, b);
}
VEC vec v_min(vec a, vec b)
{
    return _mm512_min_ps(a, b);
}

VEC vec v_if_less(vec a, vec b, vec x, vec y)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}

VEC vec v_first(vec x, vec y, uint32_t n)
{
    return _mm512_mask_blend_ps((__mmask16)(n < 16 ? (1u << n) - 1 : 0xffff), y, x);
}

VEC vec v_swap1(vec a)
{
    return _mm512_permute_ps(a, 0xb1);
}
VEC vec v_swap2(vec a)
{
    return _mm512_permute_ps(a, 0x4e);
}
VEC vec v_swap4(vec a)
{
    return _mm512_shuffle_f32x4(a, a, 0xb1);
}
VEC vec v_swap8(vec a)
{
    return _mm512_shuffle_f32x4(a, a, 0x4e);
}

VEC vec v_alternate(vec a, vec b, int step)
{
    const int mask = step == 1 ? 0xaaaa : step == 2 ? 0xcccc : step == 4 ? 0xf0f0 : 0xff00;
    return _mm512_mask_blend_ps((__mmask16)mask, a, b);
}

VEC vec v_pow2(vec t)
{
    __m512i n = _mm512_add_epi32(_mm512_castps_si512(t), _mm512_set1_epi32((int)(127u - 0x4b400000u)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(n, 23));
}

VEC vec v_magnitude(vec a, vec b)
{
    const __m512i mask = _mm512_set1_epi32(0x7fffffff);
    __m512i x = _mm512_and_si512(_mm512_castps_si512(a), mask);
    return _mm512_castsi512_ps(_mm512_max_epu32(x, _mm512_and_si512(_mm512_castps_si512(b), mask)));
}

VEC void v_store(float *p, vec a)
{
    _mm512_storeu_ps(p, a);
}

VEC void v_store_half(uint16_t *p, vec a)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

VEC void v_store_int8(int8_t *p, vec t)
{
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(_mm512_castps_si512(t)));
}

VEC void v_store_int16(int16_t *p, vec t)
{
    __m256i v = _mm512_cvtepi32_epi16(_mm512_castps_si512(t));
    v = _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(v, 0xd8), 0xd8);
    _mm256_storeu_si256((__m256i *)p, v);
}

VEC float v_sum(vec a)
{
    __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

VEC float v_max_lane(vec a)
{
    __m256 b = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

VEC uint32_t v_magnitude_bits(vec a)
{
    __m512i x = _mm512_castps_si512(a);
    __m256i b = _mm256_max_epu32(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1));
    __m128i c = _mm_max_epu32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1));
    c = _mm_max_epu32(c, _mm_shuffle_epi32(c, 0x4e));
    return (uint32_t)_mm_cvtsi128_si32(_mm_max_epu32(c, _mm_shuffle_epi32(c, 0xb1)));
}

VEC vec v_neg(vec a)
{
    return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f));
}
VEC vec v_load_bf16(const uint16_t *p)
{
    __m512i v = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
}
VEC vec v_load_u8(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
VEC vec v_load_i8(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
VEC void v_store_first(float *p, vec a, uint32_t n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a);
}
VEC vec v_load_first(const float *p, uint32_t n)
{
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}

/* --- sixteen int32 lanes, or 64 bytes --- */
typedef __m512i ivec;

#define LEVEL_ROWS       8 /* activation rows whose sums fit the registers */
#define LEVEL_STATE_VECS 2 /* vectors of a state's columns that go over its rows together */

VEC ivec iv_load(const void *p)
{
    return _mm512_loadu_si512(p);
}
VEC ivec iv_zero(void)
{
    return _mm512_setzero_si512();
}
VEC ivec iv_and8(ivec a, uint8_t mask)
{
    return _mm512_and_si512(a, _mm512_set1_epi8((char)mask));
}
VEC ivec iv_sub8(ivec a, uint8_t b)
{
    return _mm512_sub_epi8(a, _mm512_set1_epi8((char)b));
}
VEC ivec iv_or(ivec a, ivec b)
{
    return _mm512_or_si512(a, b);
}
VEC ivec iv_right(ivec a, int n)
{
    return _mm512_srli_epi32(a, (unsigned)n);
}
VEC ivec iv_left(ivec a, int n)
{
    return _mm512_slli_epi32(a, (unsigned)n);
}
/* The entries of a 16-byte table that 64 bytes below 16 name. */
VEC ivec iv_lookup(const uint8_t *table, ivec a)
{
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)table)), a);
}

VEC vec iv_float(ivec a)
{
    return _mm512_cvtepi32_ps(a);
}

/* *p times 2^shift in every lane */
VEC ivec iv_scaled(const int32_t *p, int shift)
{
    return _mm512_sll_epi32(_mm512_set1_epi32(*p), _mm_cvtsi32_si128(shift));
}

VEC ivec iv_four(const void *p)
{
    int32_t v;
    memcpy(&v, p, sizeof(v));
    return _mm512_set1_epi32(v);
}

/* Bytes 0 and 2, 1 and 3 of each lane as two int16. */
VEC ivec iv_even(ivec a)
{
    return _mm512_srai_epi16(_mm512_slli_epi16(a, 8), 8);
}
VEC ivec iv_odd(ivec a)
{
    return _mm512_srai_epi16(a, 8);
}

#ifdef LEVEL_VNNI
#define LEVEL_SIGNED8 0
VEC ivec iv_dot16(ivec acc, ivec a, ivec b)
{
    return _mm512_dpwssd_epi32(acc, a, b);
}

#define LEVEL_DOT_STEPS 4
/* Step `step` of: acc + four lanes of codes times 16 activations. */
VEC ivec iv_dot4(ivec acc, const ivec *w, const int8_t *q, int bits, int step)
{
    return _mm512_dpbusd_epi32(acc, w[step], iv_four(q + 4 * step));
}
#else
#define LEVEL_SIGNED8 1 /* 8-bit codes are taken as code - 128 */
VEC ivec iv_dot16(ivec acc, ivec a, ivec b)
{
    return _mm512_add_epi32(acc, _mm512_madd_epi16(a, b));
}

#define LEVEL_DOT_STEPS 1
VEC ivec iv_dot4(ivec acc, const ivec *w, const int8_t *q, int bits, int step)
{
    const __m512i one = _mm512_set1_epi16(1);
    __m512i pair[4];
    UNROLL for (int j = 0; j < 4; j++)
    {
        __m512i a = iv_four(q + 4 * j), c = w[j];
        if (bits == 8) { /* |w| up to 128 times 127, twice: 32512 */
            c = _mm512_xor_si512(c, _mm512_set1_epi8(-128));
            a = _mm512_mask_sub_epi8(a, _mm512_movepi8_mask(c), _mm512_setzero_si512(), a);
            c = _mm512_abs_epi8(c);
        }
        pair[j] = _mm512_maddubs_epi16(c, a);
    }
    if (bits == 8) {
        UNROLL for (int j = 0; j < 4; j++) acc = _mm512_add_epi32(acc, _mm512_madd_epi16(pair[j], one));
        return acc;
    }
    /* 4 and 5 bits: four sums of 2 x 31 x 127 are 31496; 6 bits: two of 2 x 63 x 127 are 32004. */
    __m512i a = _mm512_add_epi16(pair[0], pair[1]), b = _mm512_add_epi16(pair[2], pair[3]);
    if (bits == 6) return _mm512_add_epi32(_mm512_add_epi32(acc, _mm512_madd_epi16(a, one)), _mm512_madd_epi16(b, one));
    return _mm512_add_epi32(acc, _mm512_madd_epi16(_mm512_add_epi16(a, b), one));
}
#endif
#endif
