/* attn_tmpl.h - the integer products of attention, and KV's way to and from the wire, for one vector instruction
 * set.
 *
 * Included by level_avx2.c, level_avx512.c and level_vnni.c after their vec_*_tmpl.h. */
#ifndef COMPUTE_CPU_ATTN_TMPL_H
#define COMPUTE_CPU_ATTN_TMPL_H
#include "compute/cpu/cpu_kernels.h"
#include "compute/cpu/unroll.h"

/* --- attention: int16 q or weights times int8 k or v, `rows` queries --- */
VEC void attn_qk_rows(float *s, const int8_t *k, const float *k_scale, const int16_t *q, const float *q_scale,
                      uint32_t dim, int rows)
{
    for (uint32_t j = 0; j < KV_BLOCK_TOKENS / 16; j++) {
        ivec acc[LEVEL_ROWS];
        UNROLL for (int r = 0; r < rows; r++) acc[r] = iv_zero();
        for (uint32_t d = 0; d < dim; d += 4, k += 64) {
            ivec x = iv_load(k), even = iv_even(x), odd = iv_odd(x);
            UNROLL for (int r = 0; r < rows; r++)
            {
                const int16_t *qr = q + (size_t)r * dim + d;
                acc[r] = iv_dot16(acc[r], even, iv_four(qr));
                acc[r] = iv_dot16(acc[r], odd, iv_four(qr + 2));
            }
        }
        vec ks = v_load(k_scale + 16 * j);
        UNROLL for (int r = 0; r < rows; r++)
            v_store(s + r * KV_BLOCK_TOKENS + 16 * j, v_mul(v_mul(iv_float(acc[r]), ks), v_set(q_scale[r])));
    }
}

VEC void attn_pv_rows(float *o, const int8_t *v, const int16_t *p, const struct attn_weights *w, uint32_t dim, int rows)
{
    for (uint32_t i = 0; i < dim; i += 16) {
        ivec acc[LEVEL_ROWS];
        UNROLL for (int r = 0; r < rows; r++) acc[r] = iv_zero();
        const int8_t *at = v + 4 * (size_t)i;
        for (uint32_t t = 0; t < KV_BLOCK_TOKENS; t += 4, at += 4 * (size_t)dim) {
            ivec x = iv_load(at), even = iv_even(x), odd = iv_odd(x);
            UNROLL for (int r = 0; r < rows; r++)
            {
                const int16_t *pr = p + r * KV_BLOCK_TOKENS + t;
                acc[r] = iv_dot16(acc[r], even, iv_four(pr));
                acc[r] = iv_dot16(acc[r], odd, iv_four(pr + 2));
            }
        }
        UNROLL for (int r = 0; r < rows; r++)
        {
            float *at_o = o + (size_t)r * dim + i;
            v_store(at_o, v_fma(iv_float(acc[r]), v_set(w[r].scale), v_mul(v_load(at_o), v_set(w[r].alpha))));
        }
    }
}

#define ATTN_CASES(call)                                                                                               \
    switch (n - i) {                                                                                                   \
    case 1:                                                                                                            \
        call(1);                                                                                                       \
        i += 1;                                                                                                        \
        break;                                                                                                         \
    case 2:                                                                                                            \
        call(2);                                                                                                       \
        i += 2;                                                                                                        \
        break;                                                                                                         \
        ATTN_MORE(call)                                                                                                \
    default:                                                                                                           \
        call(LEVEL_ROWS);                                                                                              \
        i += LEVEL_ROWS;                                                                                               \
        break;                                                                                                         \
    }
#if LEVEL_ROWS == 8
#define ATTN_MORE(call)                                                                                                \
    case 3:                                                                                                            \
        call(3);                                                                                                       \
        i += 3;                                                                                                        \
        break;                                                                                                         \
    case 4:                                                                                                            \
    case 5:                                                                                                            \
        call(4);                                                                                                       \
        i += 4;                                                                                                        \
        break;                                                                                                         \
    case 6:                                                                                                            \
    case 7:                                                                                                            \
        call(6);                                                                                                       \
        i += 6;                                                                                                        \
        break;
#else
#define ATTN_MORE(call)
#endif

TARGET static void attn_qk_int8(float *s, const int8_t *k, const float *k_scale, const int16_t *q, const float *q_scale,
                                uint32_t n, uint32_t dim)
{
#define ATTN_QK(rows)                                                                                                  \
    attn_qk_rows(s + (size_t)i * KV_BLOCK_TOKENS, k, k_scale, q + (size_t)i * dim, q_scale + i, dim, rows)
    for (uint32_t i = 0; i < n;) ATTN_CASES(ATTN_QK)
#undef ATTN_QK
}

TARGET static void attn_pv_int8(float *o, const int8_t *v, const int16_t *p, const struct attn_weights *w, uint32_t n,
                                uint32_t dim)
{
#define ATTN_PV(rows) attn_pv_rows(o + (size_t)i * dim, v, p + (size_t)i * KV_BLOCK_TOKENS, w + i, dim, rows)
    for (uint32_t i = 0; i < n;) ATTN_CASES(ATTN_PV)
#undef ATTN_PV
}

/* --- the wire --- */
TARGET static void attn_v_unzip(int8_t *rows, const int8_t *v, uint32_t dim)
{
    const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    for (uint32_t d = 0; d < dim; d += 16, v += 64, rows += 16) {
        __m128i x[4];
        UNROLL for (int j = 0; j < 4; j++) x[j] =
            _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)(v + 16 * j)), order);
        __m128i a = _mm_unpacklo_epi32(x[0], x[1]), b = _mm_unpackhi_epi32(x[0], x[1]);
        __m128i c = _mm_unpacklo_epi32(x[2], x[3]), e = _mm_unpackhi_epi32(x[2], x[3]);
        _mm_storeu_si128((__m128i *)(void *)rows, _mm_unpacklo_epi64(a, c));
        _mm_storeu_si128((__m128i *)(void *)(rows + dim), _mm_unpackhi_epi64(a, c));
        _mm_storeu_si128((__m128i *)(void *)(rows + 2 * (size_t)dim), _mm_unpacklo_epi64(b, e));
        _mm_storeu_si128((__m128i *)(void *)(rows + 3 * (size_t)dim), _mm_unpackhi_epi64(b, e));
    }
}

TARGET static void attn_v_zip(int8_t *v, const int8_t *rows, uint32_t dim)
{
    for (uint32_t d = 0; d < dim; d += 16, v += 64, rows += 16) {
        __m128i x[4];
        UNROLL for (int j = 0; j < 4; j++) x[j] =
            _mm_loadu_si128((const __m128i *)(const void *)(rows + (size_t)j * dim));
        __m128i a = _mm_unpacklo_epi8(x[0], x[1]), b = _mm_unpackhi_epi8(x[0], x[1]);
        __m128i c = _mm_unpacklo_epi8(x[2], x[3]), e = _mm_unpackhi_epi8(x[2], x[3]);
        _mm_storeu_si128((__m128i *)(void *)v, _mm_unpacklo_epi16(a, c));
        _mm_storeu_si128((__m128i *)(void *)(v + 16), _mm_unpackhi_epi16(a, c));
        _mm_storeu_si128((__m128i *)(void *)(v + 32), _mm_unpacklo_epi16(b, e));
        _mm_storeu_si128((__m128i *)(void *)(v + 48), _mm_unpackhi_epi16(b, e));
    }
}

/* Sixteen bytes are four tokens of four dimensions: a transpose of 4 x 4 bytes. */
TARGET static void attn_k_to_v(int8_t *v, const int8_t *k, uint32_t dim)
{
    const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const size_t row = 4 * (size_t)dim;
    for (uint32_t t = 0; t < KV_BLOCK_TOKENS; t += 16, v += 4 * row)
        for (uint32_t d = 0; d < dim; d += 4, k += 64) UNROLL for (int j = 0; j < 4; j++)
            {
                __m128i x = _mm_loadu_si128((const __m128i *)(const void *)(k + 16 * j));
                _mm_storeu_si128((__m128i *)(void *)(v + j * row + 4 * (size_t)d), _mm_shuffle_epi8(x, order));
            }
}

TARGET static bool attn_has_min8(const int8_t *x, size_t n)
{
    const __m256i min = _mm256_set1_epi8(INT8_MIN);
    __m256i found = _mm256_setzero_si256();
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(x + i));
        found = _mm256_or_si256(found, _mm256_cmpeq_epi8(v, min));
    }
    bool any = _mm256_movemask_epi8(found) != 0;
    for (; i < n; i++) any |= x[i] == INT8_MIN;
    return any;
}

/* The slots of a kernel table that this file fills. */
#define ATTN_KERNELS                                                                                                   \
    .qk_int8 = attn_qk_int8, .pv_int8 = attn_pv_int8, .v_unzip = attn_v_unzip, .v_zip = attn_v_zip,                    \
    .k_to_v = attn_k_to_v, .has_min8 = attn_has_min8
#endif
