/* pack_k.c - whole panels of Q4_K, Q5_K and Q6_K, sixteen rows at a time.
 *
 * A panel is the transpose of its rows: dwords of codes, and bytes of scales.  Vectors of 16 bytes are what every
 * machine has. */
#include "compute/cpu/pack.h"

#include "compute/cpu/half.h"
#include "compute/cpu/pack_internal.h"

#include <string.h>

typedef uint8_t u8x16 __attribute__((vector_size(16)));
typedef uint32_t u32x4 __attribute__((vector_size(16)));

#define LOW  0x0f0f0f0fu /* a nibble of each byte */
#define ONE  0x01010101u
#define PAIR 0x03030303u

struct super_block { /* where one super-block of 16 rows comes from and goes to */
    const uint8_t *src;
    size_t stride;
    uint8_t *dst;       /* d and minima of the super-block, then 8 blocks */
    size_t block_bytes; /* of a packed block */
};

static inline u32x4 load(const uint8_t *p)
{
    u32x4 v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static inline void transpose_dwords(u32x4 x[4])
{
    for (int round = 0; round < 2; round++) {
        u32x4 y[4];
        for (int i = 0; i < 2; i++) {
            y[2 * i] = __builtin_shufflevector(x[i], x[i + 2], 0, 4, 1, 5);
            y[2 * i + 1] = __builtin_shufflevector(x[i], x[i + 2], 2, 6, 3, 7);
        }
        memcpy(x, y, sizeof(y));
    }
}

static inline void transpose_bytes(u8x16 x[16])
{
    for (int round = 0; round < 4; round++) {
        u8x16 y[16];
        for (int i = 0; i < 8; i++) {
            y[2 * i] = __builtin_shufflevector(x[i], x[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            y[2 * i + 1] =
                __builtin_shufflevector(x[i], x[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        }
        memcpy(x, y, sizeof(y));
    }
}

/* Dword j of four rows goes to line j of the block. */
static inline void put_lines(uint8_t *at, u32x4 x[4])
{
    transpose_dwords(x);
    for (int j = 0; j < 4; j++) memcpy(at + 64 * j, &x[j], sizeof(x[j]));
}

/* A dword per row: dwords j of its vector, `bits` wide in each byte, side by side. */
static inline u32x4 gather_bits(u32x4 x[4], int bits)
{
    transpose_dwords(x);
    return x[0] | x[1] << bits | x[2] << (2 * bits) | x[3] << (3 * bits);
}

static inline uint8_t *block_of(const struct super_block *b, uint32_t j)
{
    return b->dst + PACK_SUPER_BYTES + j * b->block_bytes;
}

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
        const uint8_t *s = b->src + r * b->stride;
        memcpy(b->dst + 2 * r, s, 2);
        memcpy(b->dst + 32 + 2 * r, s + 2, 2);
        x[r] = k_scales(s + 4);
    }
    transpose_bytes(x);
    for (uint32_t j = 0; j < 8; j++) {
        memcpy(block_of(b, j) + plane, &x[j], 16);
        memcpy(block_of(b, j) + plane + 16, &x[8 + j], 16);
    }
}

/* Bit j of qh is the fifth bit of block j. */
static void put_fifth_bits(const struct super_block *b, uint32_t r0)
{
    for (uint32_t j = 0; j < 8; j++) {
        u32x4 lo[4], hi[4];
        for (uint32_t r = 0; r < 4; r++) {
            const uint8_t *qh = b->src + (r0 + r) * b->stride + 16;
            lo[r] = load(qh) >> j & ONE;
            hi[r] = load(qh + 16) >> j & ONE;
        }
        u32x4 fifth = gather_bits(lo, 1) | gather_bits(hi, 1) << 4;
        memcpy(block_of(b, j) + 256 + 4 * r0, &fifth, sizeof(fifth));
    }
}

static void pack_q45_k(const struct super_block *b, bool five)
{
    put_k_scales(b, five ? 320 : 256);
    for (uint32_t r0 = 0; r0 < PANEL_ROWS; r0 += 4) {
        if (five) put_fifth_bits(b, r0);
        for (uint32_t k = 0; k < 4; k++) {
            u32x4 even[4], odd[4];
            for (uint32_t r = 0; r < 4; r++) {
                const uint8_t *qs = b->src + (r0 + r) * b->stride + (five ? 48 : 16) + 32 * k;
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
        const uint8_t *s = b->src + r * b->stride + 192;
        const float d = half_to_float(half_load(s + 16));
        memcpy(b->dst + 4 * r, &d, sizeof(d));
        memcpy(&x[r], s, sizeof(x[r]));
    }
    transpose_bytes(x);
    for (uint32_t j = 0; j < 8; j++) memcpy(block_of(b, j) + 384, &x[2 * j], 32);
}

static void pack_q6_k(const struct super_block *b)
{
    put_q6_k_scales(b);
    for (uint32_t r0 = 0; r0 < PANEL_ROWS; r0 += 4)
        for (uint32_t j = 0; j < 8; j++) {
            const uint32_t k = j % 4, low = 64 * (j / 4) + 32 * (k % 2), high = 128 + 32 * (j / 4);
            u32x4 code[4], lo[4], hi[4];
            for (uint32_t r = 0; r < 4; r++) {
                const uint8_t *s = b->src + (r0 + r) * b->stride;
                code[r] = (load(s + low) >> (4 * (k / 2)) & LOW) | (load(s + low + 16) >> (4 * (k / 2)) & LOW) << 4;
                lo[r] = load(s + high) >> (2 * k) & PAIR;
                hi[r] = load(s + high + 16) >> (2 * k) & PAIR;
            }
            uint8_t *block = block_of(b, j);
            put_lines(block + 4 * r0, code);
            u32x4 first = gather_bits(lo, 2), last = gather_bits(hi, 2);
            memcpy(block + 256 + 4 * r0, &first, sizeof(first));
            memcpy(block + 320 + 4 * r0, &last, sizeof(last));
        }
}

bool pack_panel_k(uint8_t *dst, enum dtype type, uint32_t n_cols, const uint8_t *src, size_t src_stride)
{
    if (type != DTYPE_Q4_K && type != DTYPE_Q5_K && type != DTYPE_Q6_K) return false;
    struct super_block b = { src, src_stride, dst, pack_block_bytes(pack_format_of(type)) };
    for (uint32_t n = n_cols / PACK_SUPER; n > 0; n--) {
        if (type == DTYPE_Q6_K)
            pack_q6_k(&b);
        else
            pack_q45_k(&b, type == DTYPE_Q5_K);
        b.src += dtype_info((uint32_t)type)->block_bytes;
        b.dst += PACK_SUPER_BYTES + 8 * b.block_bytes;
    }
    return true;
}
