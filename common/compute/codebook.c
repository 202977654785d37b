/* codebook.c - reads blocks of the types that have a codebook: each weight is d * scale * values[code]. */
#include "compute/codebook.h"

#include "compute/cpu/half.h"

#include <string.h>

static const int8_t IQ1_VALUES[16] = CODEBOOK_IQ1(0), IQ2_VALUES[16] = CODEBOOK_IQ2(0);
static const int8_t IQ3_XXS_VALUES[16] = CODEBOOK_IQ3_XXS(0), IQ3_S_VALUES[16] = CODEBOOK_IQ3_S(0);
static const int8_t IQ4_VALUES[16] = CODEBOOK_IQ4(0), FP4_VALUES[16] = CODEBOOK_FP4(0);
static const int8_t TERNARY_VALUES[16] = { -1, 0, 1, 2 };

static uint16_t u16_at(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t u32_at(const uint8_t *p)
{
    return u16_at(p) | (uint32_t)u16_at(p + 2) << 16;
}

static float half_at(const uint8_t *p)
{
    return half_to_float(half_load(p));
}

static uint8_t nibble_at(const uint8_t *p, uint32_t i)
{
    return (uint8_t)(p[i / 2] >> i % 2 * 4 & 15);
}

/* Eight bits to eight bytes, eight 2-bit numbers to eight bytes, four 4-bit numbers to four bytes. */
static uint64_t spread_bits(uint64_t v)
{
    v = (v | v << 28) & 0x0000000f0000000fu;
    v = (v | v << 14) & 0x0003000300030003u;
    return (v | v << 7) & 0x0101010101010101u;
}

static uint64_t spread_pairs(uint64_t v)
{
    v = (v | v << 24) & 0x000000ff000000ffu;
    v = (v | v << 12) & 0x000f000f000f000fu;
    return (v | v << 6) & 0x0303030303030303u;
}

static uint32_t spread_nibbles(uint32_t v)
{
    v = (v | v << 8) & 0x00ff00ffu;
    return (v | v << 4) & 0x0f0f0f0fu;
}

/* Codes of eight columns: a grid entry of 2-bit numbers and a bit for the second half of the values. */
static void codes_of_eight(uint8_t *code, uint16_t entry, uint32_t signs)
{
    uint64_t v = spread_pairs(entry) | spread_bits(signs) << 2;
    memcpy(code, &v, sizeof(v));
}

/* Codes of four columns from an entry of 4-bit numbers. */
static void codes_of_four(uint8_t *code, uint16_t entry, uint32_t signs)
{
    uint32_t v = spread_nibbles(entry) | (uint32_t)spread_bits(signs & 15) << 3;
    memcpy(code, &v, sizeof(v));
}

/* Eight sign bits of which seven are stored: their number is even. */
static uint32_t even_signs(uint32_t seven)
{
    return seven | (uint32_t)__builtin_parity(seven) << 7;
}

static void scales_of(struct codebook_block *out, float d, uint32_t first, uint32_t last)
{
    out->d = d;
    out->scale[0] = (int8_t)(2 * first + 1);
    out->scale[1] = (int8_t)(2 * last + 1);
}

/* f16 d, per 32 columns: u8 index[4], u32 with four times 7 bits of signs and 4 of scale */
static void read_iq2_xxs(struct codebook_block *out, const uint8_t *s, uint32_t j)
{
    const uint8_t *q = s + 2 + 8 * j;
    uint32_t rest = u32_at(q + 4);
    for (int i = 0; i < 4; i++) codes_of_eight(out->code + 8 * i, grid_iq2_xxs[q[i]], even_signs(rest >> 7 * i & 127));
    scales_of(out, half_at(s) * 0.125f, rest >> 28, rest >> 28);
}

/* f16 d, u16 qs[32]: 9 bits of index and 7 of signs, u8 scales[8]: 4 bits per 16 columns */
static void read_iq2_xs(struct codebook_block *out, const uint8_t *s, uint32_t j)
{
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t q = u16_at(s + 2 + 8 * j + 2 * i);
        codes_of_eight(out->code + 8 * i, grid_iq2_xs[q & 511], even_signs(q >> 9));
    }
    scales_of(out, half_at(s) * 0.125f, s[66 + j] & 15, s[66 + j] >> 4);
}

/* f16 d, u8 qs[32], u8 signs[32], u8 qh[8]: 2 bits per 8 columns, u8 scales[8] */
static void read_iq2_s(struct codebook_block *out, const uint8_t *s, uint32_t j)
{
    const uint8_t *q = s + 2 + 4 * j;
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t index = q[i] | (s[66 + j] >> 2 * i & 3u) << 8;
        codes_of_eight(out->code + 8 * i, grid_iq2_s[index], q[32 + i]);
    }
    scales_of(out, half_at(s) * 0.125f, s[74 + j] & 15, s[74 + j] >> 4);
}

/* f16 d, u8 qs[64], per 32 columns a u32 with four times 7 bits of signs and 4 of scale */
static void read_iq3_xxs(struct codebook_block *out, const uint8_t *s, uint32_t j)
{
    const uint8_t *q = s + 2 + 8 * j;
    uint32_t rest = u32_at(s + 66 + 4 * j);
    for (int i = 0; i < 8; i++)
        codes_of_four(out->code + 4 * i, grid_iq3_xxs[q[i]], even_signs(rest >> i / 2 * 7 & 127) >> i % 2 * 4);
    scales_of(out, half_at(s) * 0.25f, rest >> 28, rest >> 28);
}

/* f16 d, u8 qs[64], u8 qh[8]: 1 bit per 4 columns, u8 signs[32], u8 scales[4]: 4 bits per 32 columns */
static void read_iq3_s(struct codebook_block *out, const uint8_t *s, uint32_t j)
{
    const uint8_t *q = s + 2 + 8 * j, *signs = s + 74 + 4 * j;
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t index = q[i] | (s[66 + j] >> i & 1u) << 8;
        codes_of_four(out->code + 4 * i, grid_iq3_s[index], (uint32_t)signs[i / 2] >> i % 2 * 4);
    }
    uint32_t scale = nibble_at(s + 106, j);
    scales_of(out, half_at(s), scale, scale);
}

/* f16 d, u8 qs[32], u16 qh[8]: four times 3 bits of index, 3 of scale, 1 of shift */
static void read_iq1_s(struct codebook_block *out, const uint8_t *s, uint32_t j)
{
    uint32_t qh = u16_at(s + 34 + 2 * j), shift = qh >> 15 ? 0xff : 0;
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t index = s[2 + 4 * j + i] | (qh >> 3 * i & 7) << 8;
        codes_of_eight(out->code + 8 * i, grid_iq1[index], shift);
    }
    scales_of(out, half_at(s) * 0.125f, qh >> 12 & 7, qh >> 12 & 7);
}

/* u8 qs[32], u8 qh[16]: 3 bits of index and 1 of shift per 8 columns, u16 scales[4]: four times 3 bits, and in the
 * uppermost four bits a nibble of f16 d */
static void read_iq1_m(struct codebook_block *out, const uint8_t *s, uint32_t j)
{
    const uint8_t *scales = s + 48;
    uint8_t d[2] = { (uint8_t)(scales[1] >> 4 | (scales[3] & 0xf0)), (uint8_t)(scales[5] >> 4 | (scales[7] & 0xf0)) };
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t qh = nibble_at(s + 32, 4 * j + i);
        codes_of_eight(out->code + 8 * i, grid_iq1[s[4 * j + i] | (qh & 7) << 8], qh & 8 ? 0xff : 0);
    }
    uint32_t sc = (uint32_t)u16_at(scales + j / 2 * 2) >> j % 2 * 6;
    scales_of(out, half_at(d) * 0.125f, sc & 7, sc >> 3 & 7);
}

static void nibbles(struct codebook_block *out, const uint8_t *qs)
{
    for (int i = 0; i < 16; i++) {
        out->code[i] = qs[i] & 15;
        out->code[16 + i] = qs[i] >> 4;
    }
}

static void one_scale(struct codebook_block *out, float d, int scale)
{
    out->d = d;
    out->scale[0] = out->scale[1] = (int8_t)scale;
}

static void read_iq4_nl(struct codebook_block *out, const uint8_t *s, uint32_t j) /* f16 d, u8 qs[16] */
{
    nibbles(out, s + 2);
    one_scale(out, half_at(s), 1);
}

/* f16 d, u16 upper 2 bits and u8[4] lower 4 bits of eight scales, u8 qs[128] */
static void read_iq4_xs(struct codebook_block *out, const uint8_t *s, uint32_t j)
{
    nibbles(out, s + 8 + 16 * j);
    one_scale(out, half_at(s), (nibble_at(s + 4, j) | (u16_at(s + 2) >> 2 * j & 3) << 4) - 32);
}

static void read_mxfp4(struct codebook_block *out, const uint8_t *s, uint32_t j) /* u8 exponent, u8 qs[16] */
{
    uint32_t bits = s[0] < 2 ? 0x00200000u << s[0] : (uint32_t)(s[0] - 1) << 23; /* half of 2^(e - 127) */
    float d;
    memcpy(&d, &bits, sizeof(d));
    nibbles(out, s + 1);
    one_scale(out, d, 1);
}

/* Five base-3 digits in a byte, as a fraction of 256; digit k from the front. */
static uint8_t ternary_digit(uint8_t byte, uint32_t k)
{
    static const uint8_t power[5] = { 1, 3, 9, 27, 81 };
    return (uint8_t)((uint8_t)(byte * power[k]) * 3 >> 8);
}

/* u8 qs[48]: digits of columns 0..159 (32 bytes) and 160..239 (16), u8 qh[4]: of 240..255, f16 d */
static void read_tq1_0(struct codebook_block *out, const uint8_t *s, uint32_t j)
{
    for (uint32_t i = 0; i < 32; i++) {
        uint32_t c = 32 * j + i;
        if (c < 160)
            out->code[i] = ternary_digit(s[c % 32], c / 32);
        else if (c < 240)
            out->code[i] = ternary_digit(s[32 + c % 16], (c - 160) / 16);
        else
            out->code[i] = ternary_digit(s[48 + c % 4], (c - 240) / 4);
    }
    one_scale(out, half_at(s + 52), 1);
}

static void read_tq2_0(struct codebook_block *out, const uint8_t *s, uint32_t j) /* u8 qs[64], f16 d */
{
    for (uint32_t i = 0; i < 32; i++) out->code[i] = s[j / 4 * 32 + i] >> j % 4 * 2 & 3;
    one_scale(out, half_at(s + 64), 1);
}

static const struct {
    const int8_t *values;
    void (*read)(struct codebook_block *out, const uint8_t *block, uint32_t j);
} TYPES[DTYPE_LIMIT] = {
    [DTYPE_IQ1_S] = { IQ1_VALUES, read_iq1_s },     [DTYPE_IQ1_M] = { IQ1_VALUES, read_iq1_m },
    [DTYPE_IQ2_XXS] = { IQ2_VALUES, read_iq2_xxs }, [DTYPE_IQ2_XS] = { IQ2_VALUES, read_iq2_xs },
    [DTYPE_IQ2_S] = { IQ2_VALUES, read_iq2_s },     [DTYPE_IQ3_XXS] = { IQ3_XXS_VALUES, read_iq3_xxs },
    [DTYPE_IQ3_S] = { IQ3_S_VALUES, read_iq3_s },   [DTYPE_IQ4_NL] = { IQ4_VALUES, read_iq4_nl },
    [DTYPE_IQ4_XS] = { IQ4_VALUES, read_iq4_xs },   [DTYPE_TQ1_0] = { TERNARY_VALUES, read_tq1_0 },
    [DTYPE_TQ2_0] = { TERNARY_VALUES, read_tq2_0 }, [DTYPE_MXFP4] = { FP4_VALUES, read_mxfp4 },
};

const int8_t *codebook_values(uint32_t type)
{
    return type < DTYPE_LIMIT ? TYPES[type].values : 0;
}

void codebook_read(struct codebook_block *out, uint32_t type, const uint8_t *row, uint64_t b)
{
    const struct dtype_info *info = dtype_info(type);
    uint32_t per_block = info->block_elems / CODEBOOK_BLOCK;
    TYPES[type].read(out, row + b / per_block * info->block_bytes, (uint32_t)(b % per_block));
}
