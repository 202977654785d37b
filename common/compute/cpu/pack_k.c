/* pack_k.c - whole panels of the K-quants, sixteen rows at a time. */
#include "compute/cpu/half.h"
#include "compute/cpu/pack_internal.h"

/* Six bits each: 8 scales, then 8 minima. */
static u8x16 k_scales(const uint8_t *s)
{
    uint32_t a, b, c, out[4];
    memcpy(&a, s, 4);
    memcpy(&b, s + 4, 4);
    memcpy(&c, s + 8, 4);
    out[0] = a & 0x3f3f3f3fu;
    out[1] = (c & LOW) | (a >> 2 & 0x30303030u);
    out[2] = b & 0x3f3f3f3fu;
    out[3] = (c >> 4 & LOW) | (b >> 2 & 0x30303030u);
    u8x16 v;
    memcpy(&v, out, sizeof(v));
    return v;
}

static void put_k_scales(const struct super_block *b, size_t plane)
{
    u8x16 x[PANEL_ROWS];
    for (uint32_t r = 0; r < PANEL_ROWS; r++) {
        const uint8_t *s = row_of(b, r);
        memcpy(b->dst + 2 * r, s, 2);
        memcpy(b->dst + 32 + 2 * r, s + 2, 2);
        x[r] = k_scales(s + 4);
    }
    transpose_bytes(x);
    UNROLL for (uint32_t j = 0; j < 8; j++)
    {
        memcpy(block_of(b, j) + plane, &x[j], 16);
        memcpy(block_of(b, j) + plane + 16, &x[8 + j], 16);
    }
}

static void pack_q45_k(const struct super_block *b, bool five)
{
    put_k_scales(b, five ? 320 : 256);
    for (uint32_t r0 = 0; r0 < PANEL_ROWS; r0 += 4) {
        if (five) put_bit_planes(b, 16, 256, r0);
        UNROLL for (uint32_t k = 0; k < 4; k++)
        {
            u32x4 even[4], odd[4];
            UNROLL for (uint32_t r = 0; r < 4; r++)
            {
                const uint8_t *qs = row_of(b, r0 + r) + (five ? 48 : 16) + 32 * k;
                u32x4 first = load(qs), last = load(qs + 16);
                even[r] = (first & LOW) | (last & LOW) << 4;
                odd[r] = (first >> 4 & LOW) | (last & ~LOW);
            }
            put_lines(block_of(b, 2 * k) + 4 * r0, even);
            put_lines(block_of(b, 2 * k + 1) + 4 * r0, odd);
        }
    }
}

static void put_q6_k_scales(const struct super_block *b)
{
    u8x16 x[PANEL_ROWS];
    for (uint32_t r = 0; r < PANEL_ROWS; r++) {
        const uint8_t *s = row_of(b, r) + 192;
        const float d = half_to_float(half_load(s + 16));
        memcpy(b->dst + 4 * r, &d, sizeof(d));
        memcpy(&x[r], s, sizeof(x[r]));
    }
    transpose_bytes(x);
    UNROLL for (uint32_t j = 0; j < 8; j++) memcpy(block_of(b, j) + 384, &x[2 * j], 32);
}

void pack_q6_k(const struct super_block *b)
{
    put_q6_k_scales(b);
    for (uint32_t r0 = 0; r0 < PANEL_ROWS; r0 += 4) UNROLL for (uint32_t j = 0; j < 8; j++)
        {
            const uint32_t k = j % 4, low = 64 * (j / 4) + 32 * (k % 2), high = 128 + 32 * (j / 4);
            u32x4 code[4], lo[4], hi[4];
            UNROLL for (uint32_t r = 0; r < 4; r++)
            {
                const uint8_t *s = row_of(b, r0 + r);
                code[r] = (load(s + low) >> (4 * (k / 2)) & LOW) | (load(s + low + 16) >> (4 * (k / 2)) & LOW) << 4;
                lo[r] = load(s + high) >> (2 * k) & PAIR;
                hi[r] = load(s + high + 16) >> (2 * k) & PAIR;
            }
            uint8_t *block = block_of(b, j);
            put_lines(block + 4 * r0, code);
            put_pairs(block + 256, r0, lo, hi);
        }
}

void pack_q4_k(const struct super_block *b)
{
    pack_q45_k(b, false);
}

void pack_q5_k(const struct super_block *b)
{
    pack_q45_k(b, true);
}

/* Block j's codes are bits 2 (j % 4) of 32 of the bytes at `from`. */
static void put_code_pairs(const struct super_block *b, size_t from, uint32_t r0)
{
    UNROLL for (uint32_t j = 0; j < 8; j++)
    {
        u32x4 lo[4], hi[4];
        UNROLL for (uint32_t r = 0; r < 4; r++)
        {
            const uint8_t *qs = row_of(b, r0 + r) + from + 32 * (j / 4);
            lo[r] = load(qs) >> (2 * (j % 4)) & PAIR;
            hi[r] = load(qs + 16) >> (2 * (j % 4)) & PAIR;
        }
        put_pairs(block_of(b, j), r0, lo, hi);
    }
}

/* Four bits of scale and four of minimum per 16 columns. */
static void put_q2_k_scales(const struct super_block *b)
{
    u8x16 x[PANEL_ROWS];
    for (uint32_t r = 0; r < PANEL_ROWS; r++) {
        const uint8_t *s = row_of(b, r);
        memcpy(b->dst + 2 * r, s + 80, 2);
        memcpy(b->dst + 32 + 2 * r, s + 82, 2);
        memcpy(&x[r], s, sizeof(x[r]));
    }
    transpose_bytes(x);
    UNROLL for (uint32_t i = 0; i < 16; i++)
    {
        uint8_t *at = block_of(b, i / 2) + 128 + 16 * (i % 2);
        u8x16 scale = x[i] & 15, min = x[i] >> 4;
        memcpy(at, &scale, sizeof(scale));
        memcpy(at + 32, &min, sizeof(min));
    }
}

void pack_q2_k(const struct super_block *b)
{
    put_q2_k_scales(b);
    for (uint32_t r0 = 0; r0 < PANEL_ROWS; r0 += 4) put_code_pairs(b, 16, r0);
}

/* Six bits each: nibbles of 16 scales in 8 bytes, then their upper two bits in 4. */
static u8x16 q3_k_scales(const uint8_t *s)
{
    const uint32_t a = load_dword(s), b = load_dword(s + 4), c = load_dword(s + 8);
    const uint32_t out[4] = { (a & LOW) | (c & PAIR) << 4, (b & LOW) | (c >> 2 & PAIR) << 4,
                              (a >> 4 & LOW) | (c >> 4 & PAIR) << 4, (b >> 4 & LOW) | (c >> 6 & PAIR) << 4 };
    u8x16 v;
    memcpy(&v, out, sizeof(v));
    return v - 32;
}

static void put_q3_k_scales(const struct super_block *b)
{
    u8x16 x[PANEL_ROWS];
    for (uint32_t r = 0; r < PANEL_ROWS; r++) {
        const uint8_t *s = row_of(b, r) + 96;
        const float d = half_to_float(half_load(s + 12));
        memcpy(b->dst + 4 * r, &d, sizeof(d));
        x[r] = q3_k_scales(s);
    }
    transpose_bytes(x);
    UNROLL for (uint32_t j = 0; j < 8; j++) memcpy(block_of(b, j) + 192, &x[2 * j], 32);
}

void pack_q3_k(const struct super_block *b)
{
    put_q3_k_scales(b);
    for (uint32_t r0 = 0; r0 < PANEL_ROWS; r0 += 4) {
        put_code_pairs(b, 32, r0);
        put_bit_planes(b, 0, 128, r0);
    }
}

/* Codes as in Q2_K; the one scale stands in each block. */
void pack_tq2_0(const struct super_block *b)
{
    for (uint32_t r0 = 0; r0 < PANEL_ROWS; r0 += 4) put_code_pairs(b, 0, r0);
    UNROLL for (uint32_t j = 0; j < 8; j++) for (uint32_t r = 0; r < PANEL_ROWS; r++)
        memcpy(block_of(b, j) + 128 + 2 * r, row_of(b, r) + 64, 2);
}

/* The first of a byte's base-3 digits: the upper byte of its threefold. */
static inline u32x4 first_digit(u8x16 x)
{
    return (u32x4)(u8x16) - ((x > 85) + (x > 170));
}

/* Digits of 16 columns each: 0 .. 9 of bytes 0 .. 31, 10 .. 14 of bytes 32 .. 47, 15 of bytes 48 .. 51. */
static void tq1_0_digits(u32x4 out[16], const uint8_t *s)
{
    u8x16 x[3];
    memcpy(x, s, sizeof(x));
    UNROLL for (int k = 0; k < 5; k++) UNROLL for (int i = 0; i < 3; i++)
    {
        out[i < 2 ? 2 * k + i : 10 + k] = first_digit(x[i]);
        x[i] += x[i] + x[i];
    }
    const uint32_t q = load_dword(s + 48);
    const u8x16 power = { 1, 1, 1, 1, 3, 3, 3, 3, 9, 9, 9, 9, 27, 27, 27, 27 };
    out[15] = first_digit((u8x16)(u32x4){ q, q, q, q } * power);
}

void pack_tq1_0(const struct super_block *b)
{
    for (uint32_t r0 = 0; r0 < PANEL_ROWS; r0 += 4) {
        u32x4 code[4][16];
        UNROLL for (uint32_t r = 0; r < 4; r++) tq1_0_digits(code[r], row_of(b, r0 + r));
        UNROLL for (uint32_t j = 0; j < 8; j++)
        {
            u32x4 lo[4], hi[4];
            UNROLL for (uint32_t r = 0; r < 4; r++) lo[r] = code[r][2 * j], hi[r] = code[r][2 * j + 1];
            put_pairs(block_of(b, j), r0, lo, hi);
            for (uint32_t r = r0; r < r0 + 4; r++) memcpy(block_of(b, j) + 128 + 2 * r, row_of(b, r) + 52, 2);
        }
    }
}
