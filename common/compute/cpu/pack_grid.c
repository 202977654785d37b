/* pack_grid.c - whole panels of the types with a grid (IQ1, IQ2, IQ3) and of IQ4_XS, sixteen rows at a time.
 *
 * Entries of a grid and sign bits are looked up row by row as dwords, whose bits are then put in order for all rows at
 * once: no code is ever a byte of its own.  What a block holds is told in codebook.c. */
#include "compute/codebook.h"
#include "compute/cpu/half.h"
#include "compute/cpu/pack_internal.h"

/* One block of 32 columns of 16 rows. */
struct lanes {
    union {
        uint32_t u32[PANEL_ROWS];
        u32x4 v[PANEL_ROWS / 4];
    } entries[4], signs; /* 2 (IQ1, IQ2) or 4 pairs of entries; bit c of signs belongs to column c */
    uint8_t scale[2][PANEL_ROWS];
};

static inline uint32_t u16_at(const uint8_t *p)
{
    return half_load(p);
}

static inline void put_d(const struct super_block *b, uint32_t r, uint16_t d, float times)
{
    const float f = half_to_float(d) * times;
    memcpy(b->dst + 4 * r, &f, sizeof(f));
}

static inline void put_d_of_rows(const struct super_block *b, float times)
{
    for (uint32_t r = 0; r < PANEL_ROWS; r++) put_d(b, r, half_load(row_of(b, r)), times);
}

static inline void set_scales(struct lanes *l, uint32_t r, uint32_t first, uint32_t last)
{
    l->scale[0][r] = (uint8_t)(2 * first + 1);
    l->scale[1][r] = (uint8_t)(2 * last + 1);
}

/* Four times seven bits to four bytes, each with an eighth bit that makes the number of its bits even. */
static inline void even_signs(struct lanes *l)
{
    UNROLL for (int i = 0; i < 4; i++)
    {
        const u32x4 x = l->signs.v[i];
        const u32x4 s = (x & 0x7f) | (x << 1 & 0x7f00) | (x << 2 & 0x7f0000) | (x << 3 & 0x7f000000);
        u32x4 odd = s ^ s >> 4;
        odd ^= odd >> 2;
        odd ^= odd >> 1;
        l->signs.v[i] = s | (odd & ONE) << 7;
    }
}

/* Bits 3, 7, 11 and 15 to bytes of ones. */
static inline void nibble_signs(struct lanes *l)
{
    UNROLL for (int i = 0; i < 4; i++)
    {
        const u32x4 x = l->signs.v[i] >> 3;
        const u32x4 s = (x & 1) | (x & 0x10) << 4 | (x & 0x100) << 8 | (x & 0x1000) << 12;
        l->signs.v[i] = (s << 8) - s;
    }
}

/* Three bits: two of the entries, each two of eight 2-bit numbers, and the sign. */
static inline void put_3_bits(uint8_t *block, const struct lanes *l, uint32_t n_scales)
{
    UNROLL for (int i = 0; i < 4; i++)
    {
        UNROLL for (int p = 0; p < 2; p++)
        {
            u32x4 pairs = swap_bits(swap_bits(l->entries[p].v[i], 0x00cc00ccu, 6), 0x0000f0f0u, 12);
            memcpy(block + 64 * p + 16 * i, &pairs, sizeof(pairs));
        }
        u32x4 signs = bits_of_columns(l->signs.v[i]);
        memcpy(block + 128 + 16 * i, &signs, sizeof(signs));
    }
    memcpy(block + 192, l->scale, n_scales * sizeof(l->scale[0]));
}

/* Four bits: three of the entries, each two of four 4-bit numbers, 16 columns apart, and the sign. */
static inline void put_4_bits(uint8_t *block, const struct lanes *l)
{
    UNROLL for (int i = 0; i < 4; i++)
    {
        const u32x4 signs = bits_of_columns(l->signs.v[i]);
        UNROLL for (int j = 0; j < 4; j++)
        {
            u32x4 codes = swap_bits(swap_bits(l->entries[j].v[i], 0x0000ff00u, 8), 0x00f000f0u, 4);
            codes |= (signs >> j & ONE) << 3 | (signs >> (4 + j) & ONE) << 7;
            memcpy(block + 64 * j + 16 * i, &codes, sizeof(codes));
        }
    }
    memcpy(block + 256, l->scale[0], sizeof(l->scale[0]));
}

/* Entry i of four, eight columns each. */
static inline void set_entries(struct lanes *l, uint32_t r, const uint16_t *grid, const uint32_t index[4])
{
    l->entries[0].u32[r] = grid[index[0]] | (uint32_t)grid[index[1]] << 16;
    l->entries[1].u32[r] = grid[index[2]] | (uint32_t)grid[index[3]] << 16;
}

void pack_iq2_xxs(const struct super_block *b)
{
    struct lanes l;
    put_d_of_rows(b, 0.125f);
    for (uint32_t j = 0; j < 8; j++) {
        for (uint32_t r = 0; r < PANEL_ROWS; r++) {
            const uint8_t *q = row_of(b, r) + 2 + 8 * j;
            const uint32_t rest = load_dword(q + 4), index[4] = { q[0], q[1], q[2], q[3] };
            set_entries(&l, r, grid_iq2_xxs, index);
            l.signs.u32[r] = rest;
            set_scales(&l, r, rest >> 28, rest >> 28);
        }
        even_signs(&l);
        put_3_bits(block_of(b, j), &l, 1);
    }
}

void pack_iq2_xs(const struct super_block *b)
{
    struct lanes l;
    put_d_of_rows(b, 0.125f);
    for (uint32_t j = 0; j < 8; j++) {
        for (uint32_t r = 0; r < PANEL_ROWS; r++) {
            const uint8_t *s = row_of(b, r), *q = s + 2 + 8 * j;
            uint32_t index[4], signs = 0;
            UNROLL for (uint32_t i = 0; i < 4; i++)
            {
                index[i] = u16_at(q + 2 * i) & 511;
                signs |= u16_at(q + 2 * i) >> 9 << 7 * i;
            }
            set_entries(&l, r, grid_iq2_xs, index);
            l.signs.u32[r] = signs;
            set_scales(&l, r, s[66 + j] & 15, s[66 + j] >> 4);
        }
        even_signs(&l);
        put_3_bits(block_of(b, j), &l, 2);
    }
}

void pack_iq2_s(const struct super_block *b)
{
    struct lanes l;
    put_d_of_rows(b, 0.125f);
    for (uint32_t j = 0; j < 8; j++) {
        for (uint32_t r = 0; r < PANEL_ROWS; r++) {
            const uint8_t *s = row_of(b, r), *q = s + 2 + 4 * j;
            uint32_t index[4];
            UNROLL for (uint32_t i = 0; i < 4; i++) index[i] = q[i] | (s[66 + j] >> 2 * i & 3u) << 8;
            set_entries(&l, r, grid_iq2_s, index);
            l.signs.u32[r] = load_dword(q + 32);
            set_scales(&l, r, s[74 + j] & 15, s[74 + j] >> 4);
        }
        put_3_bits(block_of(b, j), &l, 2);
    }
}

void pack_iq1_s(const struct super_block *b)
{
    struct lanes l;
    put_d_of_rows(b, 0.125f);
    for (uint32_t j = 0; j < 8; j++) {
        for (uint32_t r = 0; r < PANEL_ROWS; r++) {
            const uint8_t *s = row_of(b, r), *q = s + 2 + 4 * j;
            const uint32_t qh = u16_at(s + 34 + 2 * j);
            uint32_t index[4];
            UNROLL for (uint32_t i = 0; i < 4; i++) index[i] = q[i] | (qh >> 3 * i & 7) << 8;
            set_entries(&l, r, grid_iq1, index);
            l.signs.u32[r] = 0u - (qh >> 15);
            set_scales(&l, r, qh >> 12 & 7, qh >> 12 & 7);
        }
        put_3_bits(block_of(b, j), &l, 1);
    }
}

void pack_iq1_m(const struct super_block *b)
{
    struct lanes l;
    for (uint32_t r = 0; r < PANEL_ROWS; r++) { /* d: a nibble in each of four words of scales */
        const uint8_t *s = row_of(b, r) + 48;
        put_d(b, r, (uint16_t)(s[1] >> 4 | (s[3] & 0xf0) | (s[5] & 0xf0) << 4 | (s[7] & 0xf0) << 8), 0.125f);
    }
    for (uint32_t j = 0; j < 8; j++) {
        for (uint32_t r = 0; r < PANEL_ROWS; r++) {
            const uint8_t *s = row_of(b, r), *q = s + 4 * j;
            const uint32_t qh = u16_at(s + 32 + 2 * j), scales = u16_at(s + 48 + j / 2 * 2) >> j % 2 * 6;
            uint32_t index[4];
            UNROLL for (uint32_t i = 0; i < 4; i++) index[i] = q[i] | (qh >> 4 * i & 7) << 8;
            set_entries(&l, r, grid_iq1, index);
            l.signs.u32[r] = qh;
            set_scales(&l, r, scales & 7, scales >> 3 & 7);
        }
        nibble_signs(&l);
        put_3_bits(block_of(b, j), &l, 2);
    }
}

void pack_iq3_xxs(const struct super_block *b)
{
    struct lanes l;
    put_d_of_rows(b, 0.25f);
    for (uint32_t j = 0; j < 8; j++) {
        for (uint32_t r = 0; r < PANEL_ROWS; r++) {
            const uint8_t *s = row_of(b, r), *q = s + 2 + 8 * j;
            const uint32_t rest = load_dword(s + 66 + 4 * j);
            UNROLL for (uint32_t i = 0; i < 4; i++) l.entries[i].u32[r] =
                grid_iq3_xxs[q[i]] | (uint32_t)grid_iq3_xxs[q[4 + i]] << 16;
            l.signs.u32[r] = rest;
            set_scales(&l, r, rest >> 28, rest >> 28);
        }
        even_signs(&l);
        put_4_bits(block_of(b, j), &l);
    }
}

void pack_iq3_s(const struct super_block *b)
{
    struct lanes l;
    put_d_of_rows(b, 1.0f);
    for (uint32_t j = 0; j < 8; j++) {
        for (uint32_t r = 0; r < PANEL_ROWS; r++) {
            const uint8_t *s = row_of(b, r), *q = s + 2 + 8 * j;
            const uint32_t qh = s[66 + j], scale = s[106 + j / 2] >> j % 2 * 4 & 15u;
            UNROLL for (uint32_t i = 0; i < 4; i++)
            {
                const uint32_t first = q[i] | (qh >> i & 1) << 8, last = q[4 + i] | (qh >> (4 + i) & 1) << 8;
                l.entries[i].u32[r] = grid_iq3_s[first] | (uint32_t)grid_iq3_s[last] << 16;
            }
            l.signs.u32[r] = load_dword(s + 74 + 4 * j);
            set_scales(&l, r, scale, scale);
        }
        put_4_bits(block_of(b, j), &l);
    }
}

/* Codes are nibbles as they are packed. */
void pack_iq4_xs(const struct super_block *b)
{
    put_d_of_rows(b, 1.0f);
    for (uint32_t j = 0; j < 8; j++) {
        uint8_t *block = block_of(b, j);
        for (uint32_t r0 = 0; r0 < PANEL_ROWS; r0 += 4) {
            u32x4 codes[4];
            UNROLL for (uint32_t r = 0; r < 4; r++) codes[r] = load(row_of(b, r0 + r) + 8 + 16 * j);
            put_lines(block + 4 * r0, codes);
        }
        for (uint32_t r = 0; r < PANEL_ROWS; r++) {
            const uint8_t *s = row_of(b, r);
            const uint32_t low = s[4 + j / 2] >> j % 2 * 4 & 15u, high = u16_at(s + 2) >> 2 * j & 3;
            block[256 + r] = (uint8_t)((low | high << 4) - 32);
        }
    }
}
