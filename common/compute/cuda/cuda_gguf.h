/* cuda_gguf.h - a block of 32 columns of GGUF's quantized types, read byte by byte: what the packing kernel starts
 * from. What blocks hold is told in compute/codebook.c and cpu/pack_k.c. */
#ifndef COMPUTE_CUDA_CUDA_GGUF_H
#define COMPUTE_CUDA_CUDA_GGUF_H
#include "compute/cuda/cuda_weights.h"

/* Where each grid begins in the array of all of them. */
enum grid_place {
    GRID_IQ2_XXS = 0,
    GRID_IQ2_XS = 256,
    GRID_IQ2_S = 768,
    GRID_IQ3_XXS = 1792,
    GRID_IQ3_S = 2048,
    GRID_IQ1 = 2560,
    GRID_ENTRIES = 4608
};

struct gguf_block {
    uint8_t code[PACK_BLOCK];
    uint8_t sc[2]; /* K16: of the first and the last 16 columns; K32: sc[0] */
};

static __device__ __forceinline__ uint32_t u16_at(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8;
}

static __device__ __forceinline__ uint32_t u32_at(const uint8_t *p)
{
    return u16_at(p) | u16_at(p + 2) << 16;
}

static __device__ __forceinline__ uint32_t nibble_at(const uint8_t *p, uint32_t i)
{
    return p[i / 2] >> i % 2 * 4 & 15u;
}

/* --- codes --- */
static __device__ void read_nibbles(struct gguf_block *o, const uint8_t *qs)
{
    for (int i = 0; i < 16; i++) {
        o->code[i] = qs[i] & 15;
        o->code[16 + i] = qs[i] >> 4;
    }
}

static __device__ void read_five(struct gguf_block *o, const uint8_t *qh)
{
    const uint32_t bits = u32_at(qh);
    read_nibbles(o, qh + 4);
    for (int i = 0; i < 32; i++) o->code[i] |= (uint8_t)((bits >> i & 1) << 4);
}

/* Bits 2 (j % 4) of 32 bytes. */
static __device__ void read_pairs(struct gguf_block *o, const uint8_t *qs, uint32_t j)
{
    for (int i = 0; i < 32; i++) o->code[i] = qs[j / 4 * 32 + i] >> j % 4 * 2 & 3;
}

static __device__ void read_q45_k(struct gguf_block *o, const uint8_t *s, uint32_t j, bool five)
{
    const uint8_t *qs = s + (five ? 48 : 16) + j / 2 * 32;
    for (int i = 0; i < 32; i++) {
        o->code[i] = qs[i] >> j % 2 * 4 & 15;
        if (five) o->code[i] |= (uint8_t)((s[16 + i] >> j & 1) << 4);
    }
}

static __device__ void read_q6_k(struct gguf_block *o, const uint8_t *s, uint32_t j)
{
    const uint32_t k = j % 4, low = 64 * (j / 4) + 32 * (k % 2), high = 128 + 32 * (j / 4);
    for (int i = 0; i < 32; i++)
        o->code[i] = (uint8_t)((s[low + i] >> 4 * (k / 2) & 15) | (s[high + i] >> 2 * k & 3) << 4);
    o->sc[0] = s[192 + 2 * j];
    o->sc[1] = s[193 + 2 * j];
}

/* Scale i of 16: nibbles in 8 bytes, upper two bits in 4. */
static __device__ uint8_t q3_k_scale(const uint8_t *s, uint32_t i)
{
    const uint32_t low = s[i % 8] >> (i < 8 ? 0 : 4) & 15u, high = s[8 + i % 4] >> 2 * (i / 4) & 3u;
    return (uint8_t)((low | high << 4) - 32);
}

static __device__ void read_q3_k(struct gguf_block *o, const uint8_t *s, uint32_t j)
{
    read_pairs(o, s + 32, j);
    for (int i = 0; i < 32; i++) o->code[i] |= (uint8_t)((s[i] >> j & 1) << 2);
    o->sc[0] = q3_k_scale(s + 96, 2 * j);
    o->sc[1] = q3_k_scale(s + 96, 2 * j + 1);
}

static __device__ __forceinline__ uint8_t ternary_digit(uint8_t byte, uint32_t k)
{
    const uint32_t power = k == 0 ? 1 : k == 1 ? 3 : k == 2 ? 9 : k == 3 ? 27 : 81;
    return (uint8_t)((uint32_t)(uint8_t)(byte * power) * 3 >> 8);
}

static __device__ void read_tq1_0(struct gguf_block *o, const uint8_t *s, uint32_t j)
{
    for (uint32_t i = 0; i < 32; i++) {
        const uint32_t c = 32 * j + i;
        o->code[i] = c < 160   ? ternary_digit(s[c % 32], c / 32)
                     : c < 240 ? ternary_digit(s[32 + c % 16], (c - 160) / 16)
                               : ternary_digit(s[48 + c % 4], (c - 240) / 4);
    }
}

/* --- grids --- */
static __device__ void eight_codes(uint8_t *code, uint32_t entry, uint32_t signs)
{
    for (int i = 0; i < 8; i++) code[i] = (uint8_t)((entry >> 2 * i & 3) | (signs >> i & 1) << 2);
}

static __device__ void four_codes(uint8_t *code, uint32_t entry, uint32_t signs)
{
    for (int i = 0; i < 4; i++) code[i] = (uint8_t)((entry >> 4 * i & 15) | (signs >> i & 1) << 3);
}

static __device__ __forceinline__ uint32_t even_signs(uint32_t seven)
{
    return seven | (uint32_t)(__popc(seven) & 1) << 7;
}

static __device__ void odd_scales(struct gguf_block *o, uint32_t first, uint32_t last)
{
    o->sc[0] = (uint8_t)(2 * first + 1);
    o->sc[1] = (uint8_t)(2 * last + 1);
}

static __device__ void read_iq2(struct gguf_block *o, uint32_t type, const uint8_t *s, uint32_t j, const uint16_t *g)
{
    if (type == DTYPE_IQ2_XXS) {
        const uint8_t *q = s + 2 + 8 * j;
        const uint32_t rest = u32_at(q + 4);
        for (int i = 0; i < 4; i++)
            eight_codes(o->code + 8 * i, g[GRID_IQ2_XXS + q[i]], even_signs(rest >> 7 * i & 127));
        odd_scales(o, rest >> 28, rest >> 28);
    } else if (type == DTYPE_IQ2_XS) {
        for (uint32_t i = 0; i < 4; i++) {
            const uint32_t q = u16_at(s + 2 + 8 * j + 2 * i);
            eight_codes(o->code + 8 * i, g[GRID_IQ2_XS + (q & 511)], even_signs(q >> 9));
        }
        odd_scales(o, s[66 + j] & 15, s[66 + j] >> 4);
    } else {
        const uint8_t *q = s + 2 + 4 * j;
        for (uint32_t i = 0; i < 4; i++)
            eight_codes(o->code + 8 * i, g[GRID_IQ2_S + (q[i] | (s[66 + j] >> 2 * i & 3u) << 8)], q[32 + i]);
        odd_scales(o, s[74 + j] & 15, s[74 + j] >> 4);
    }
}

static __device__ void read_iq3(struct gguf_block *o, uint32_t type, const uint8_t *s, uint32_t j, const uint16_t *g)
{
    const uint8_t *q = s + 2 + 8 * j;
    if (type == DTYPE_IQ3_XXS) {
        const uint32_t rest = u32_at(s + 66 + 4 * j);
        for (int i = 0; i < 8; i++)
            four_codes(o->code + 4 * i, g[GRID_IQ3_XXS + q[i]], even_signs(rest >> i / 2 * 7 & 127) >> i % 2 * 4);
        odd_scales(o, rest >> 28, rest >> 28);
    } else {
        const uint8_t *signs = s + 74 + 4 * j;
        for (uint32_t i = 0; i < 8; i++)
            four_codes(o->code + 4 * i, g[GRID_IQ3_S + (q[i] | (s[66 + j] >> i & 1u) << 8)],
                       (uint32_t)signs[i / 2] >> i % 2 * 4);
        odd_scales(o, nibble_at(s + 106, j), 0);
    }
}

static __device__ void read_iq1(struct gguf_block *o, uint32_t type, const uint8_t *s, uint32_t j, const uint16_t *g)
{
    if (type == DTYPE_IQ1_S) {
        const uint32_t qh = u16_at(s + 34 + 2 * j);
        for (uint32_t i = 0; i < 4; i++)
            eight_codes(o->code + 8 * i, g[GRID_IQ1 + (s[2 + 4 * j + i] | (qh >> 3 * i & 7) << 8)],
                        qh >> 15 ? 0xff : 0);
        odd_scales(o, qh >> 12 & 7, 0);
        return;
    }
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t qh = nibble_at(s + 32, 4 * j + i);
        eight_codes(o->code + 8 * i, g[GRID_IQ1 + (s[4 * j + i] | (qh & 7) << 8)], qh & 8 ? 0xff : 0);
    }
    const uint32_t sc = u16_at(s + 48 + j / 2 * 2) >> j % 2 * 6;
    odd_scales(o, sc & 7, sc >> 3 & 7);
}

static __device__ void read_iq4_xs(struct gguf_block *o, const uint8_t *s, uint32_t j)
{
    read_nibbles(o, s + 8 + 16 * j);
    o->sc[0] = (uint8_t)((nibble_at(s + 4, j) | (u16_at(s + 2) >> 2 * j & 3) << 4) - 32);
}

/* Block j of the file's block at s. */
static __device__ void gguf_read(struct gguf_block *o, uint32_t type, const uint8_t *s, uint32_t j,
                                 const uint16_t *grids)
{
    switch (type) {
    case DTYPE_Q4_0:
    case DTYPE_IQ4_NL: read_nibbles(o, s + 2); return;
    case DTYPE_Q4_1: read_nibbles(o, s + 4); return;
    case DTYPE_MXFP4: read_nibbles(o, s + 1); return;
    case DTYPE_Q5_0: read_five(o, s + 2); return;
    case DTYPE_Q5_1: read_five(o, s + 4); return;
    case DTYPE_Q8_0:
        for (int i = 0; i < 32; i++) o->code[i] = s[2 + i];
        return;
    case DTYPE_Q2_K: read_pairs(o, s + 16, j); return;
    case DTYPE_TQ2_0: read_pairs(o, s, j); return;
    case DTYPE_TQ1_0: read_tq1_0(o, s, j); return;
    case DTYPE_Q3_K: read_q3_k(o, s, j); return;
    case DTYPE_Q4_K: read_q45_k(o, s, j, false); return;
    case DTYPE_Q5_K: read_q45_k(o, s, j, true); return;
    case DTYPE_Q6_K: read_q6_k(o, s, j); return;
    case DTYPE_IQ4_XS: read_iq4_xs(o, s, j); return;
    case DTYPE_IQ3_XXS:
    case DTYPE_IQ3_S: read_iq3(o, type, s, j, grids); return;
    case DTYPE_IQ1_S:
    case DTYPE_IQ1_M: read_iq1(o, type, s, j, grids); return;
    default: read_iq2(o, type, s, j, grids); return;
    }
}

/* --- 16-bit scales --- */
/* D of a super-block, or d of the block. */
static __device__ uint16_t gguf_d(uint32_t type, const uint8_t *s)
{
    switch (type) {
    case DTYPE_Q2_K: return (uint16_t)u16_at(s + 80);
    case DTYPE_Q3_K: return (uint16_t)u16_at(s + 108);
    case DTYPE_Q6_K: return (uint16_t)u16_at(s + 208);
    case DTYPE_TQ1_0: return (uint16_t)u16_at(s + 52);
    case DTYPE_TQ2_0: return (uint16_t)u16_at(s + 64);
    case DTYPE_MXFP4: /* an exponent: half of 2^(e - 127) as bf16 */
        return (uint16_t)(s[0] < 2 ? 0x20u << s[0] : (s[0] - 1u) << 7);
    case DTYPE_IQ1_M: /* in the upper nibbles of four u16 */
        return (uint16_t)(s[49] >> 4 | (s[51] & 0xf0) | (s[53] & 0xf0) << 4 | (s[55] & 0xf0) << 8);
    default: return (uint16_t)u16_at(s);
    }
}

/* m of the block, or dmin of the super-block; 0 where there is none. */
static __device__ uint16_t gguf_m(uint32_t type, const uint8_t *s)
{
    switch (type) {
    case DTYPE_Q4_1:
    case DTYPE_Q5_1: return (uint16_t)u16_at(s + 2);
    case DTYPE_Q2_K: return (uint16_t)u16_at(s + 82);
    default: return 0;
    }
}
#endif
