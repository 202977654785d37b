/* pack_vec.h - what packs sixteen rows at a time: transposes, bit permutations, and where a super-block goes.
 *
 * A panel is the transpose of its rows.  Vectors of 16 bytes are what every machine has. */
#ifndef COMPUTE_CPU_PACK_VEC_H
#define COMPUTE_CPU_PACK_VEC_H
#include "compute/cpu/pack.h"
#include "compute/cpu/unroll.h"

#include <string.h>

typedef uint8_t u8x16 __attribute__((vector_size(16)));
typedef uint32_t u32x4 __attribute__((vector_size(16)));

#define LOW  0x0f0f0f0fu /* a nibble of each byte */
#define ONE  0x01010101u
#define PAIR 0x03030303u

struct super_block { /* where 256 columns of 16 rows come from and go to */
    const uint8_t *src;
    size_t stride;
    uint8_t *dst;       /* scales of the super-block, where there are any, then 8 blocks */
    size_t head;        /* bytes of those scales */
    size_t block_bytes; /* of a packed block */
};

static inline const uint8_t *row_of(const struct super_block *b, uint32_t r)
{
    return b->src + r * b->stride;
}

static inline uint8_t *block_of(const struct super_block *b, uint32_t j)
{
    return b->dst + b->head + j * b->block_bytes;
}

static inline u32x4 load(const uint8_t *p)
{
    u32x4 v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static inline uint32_t load_dword(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static inline void transpose_dwords(u32x4 x[4])
{
    UNROLL for (int round = 0; round < 2; round++)
    {
        u32x4 y[4];
        UNROLL for (int i = 0; i < 2; i++)
        {
            y[2 * i] = __builtin_shufflevector(x[i], x[i + 2], 0, 4, 1, 5);
            y[2 * i + 1] = __builtin_shufflevector(x[i], x[i + 2], 2, 6, 3, 7);
        }
        memcpy(x, y, sizeof(y));
    }
}

static inline void transpose_bytes(u8x16 x[16])
{
    UNROLL for (int round = 0; round < 4; round++)
    {
        u8x16 y[16];
        UNROLL for (int i = 0; i < 8; i++)
        {
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
    UNROLL for (int j = 0; j < 4; j++) memcpy(at + 64 * j, &x[j], sizeof(x[j]));
}

/* A dword per row: dwords j of its vector, `bits` wide in each byte, side by side. */
static inline u32x4 gather_bits(u32x4 x[4], int bits)
{
    transpose_dwords(x);
    return x[0] | x[1] << bits | x[2] << (2 * bits) | x[3] << (3 * bits);
}

/* Two bits of the first and the last 16 columns of rows r0 .. r0 + 3, into a plane of pairs. */
static inline void put_pairs(uint8_t *plane, uint32_t r0, u32x4 first[4], u32x4 last[4])
{
    u32x4 lo = gather_bits(first, 2), hi = gather_bits(last, 2);
    memcpy(plane + 4 * r0, &lo, sizeof(lo));
    memcpy(plane + 64 + 4 * r0, &hi, sizeof(hi));
}

/* A plane of bits where bit j of 32 bytes at `from` is that of block j's columns. */
static inline void put_bit_planes(const struct super_block *b, size_t from, size_t plane, uint32_t r0)
{
    UNROLL for (uint32_t j = 0; j < 8; j++)
    {
        u32x4 lo[4], hi[4];
        UNROLL for (uint32_t r = 0; r < 4; r++)
        {
            const uint8_t *bits = row_of(b, r0 + r) + from;
            lo[r] = load(bits) >> j & ONE;
            hi[r] = load(bits + 16) >> j & ONE;
        }
        u32x4 plane_bits = gather_bits(lo, 1) | gather_bits(hi, 1) << 4;
        memcpy(block_of(b, j) + plane + 4 * r0, &plane_bits, sizeof(plane_bits));
    }
}

/* Exchanges the bits of `mask` with those `by` above them. */
static inline u32x4 swap_bits(u32x4 x, uint32_t mask, int by)
{
    u32x4 t = (x ^ x >> by) & mask;
    return x ^ t ^ t << by;
}

/* Bit 4 j + i of a dword becomes bit 8 i + j: columns to a plane of bits. */
static inline u32x4 bits_of_columns(u32x4 x)
{
    x = swap_bits(swap_bits(x, 0x0000ccccu, 14), 0x00aa00aau, 7);
    return swap_bits(swap_bits(x, 0x0c0c0c0cu, 2), 0x22222222u, 1);
}
#endif
