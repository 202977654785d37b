/* pack_source.c - reads GGUF's quant blocks for packing: codes and scales apart, not yet combined. */
#include "compute/cpu/pack_source.h"

#include "compute/codebook.h"
#include "compute/cpu/half.h"

#include <stdbool.h>
#include <string.h>

static float half_at(const uint8_t *p)
{
    return half_to_float(half_load(p));
}

/* code[i] |= (src[i] >> right & mask) << left, for 32 bytes. */
static inline void add_bits(uint8_t *code, const uint8_t *src, uint32_t right, uint8_t mask, uint32_t left)
{
    for (int i = 0; i < PACK_BLOCK; i += 8) {
        uint64_t v, c;
        memcpy(&v, src + i, 8);
        memcpy(&c, code + i, 8);
        c |= (v >> right & 0x0101010101010101u * mask) << left;
        memcpy(code + i, &c, 8);
    }
}

static void nibbles32(uint8_t *code, const uint8_t *qs)
{
    for (int i = 0; i < 16; i++) {
        code[i] = qs[i] & 15;
        code[i + 16] = qs[i] >> 4;
    }
}

static void fifth_bits(uint8_t *code, const uint8_t *qh_bytes)
{
    uint32_t qh;
    memcpy(&qh, qh_bytes, sizeof(qh));
    for (int i = 0; i < 32; i++) code[i] |= (uint8_t)(((qh >> i) & 1) << 4);
}

static void read_q2_k(struct pack_source *r, const uint8_t *s, uint32_t j)
{
    const uint8_t *qs = s + 16 + 32 * (j / 4);
    add_bits(r->code, qs, 2 * (j % 4), 3, 0);
    for (uint32_t g = 0; g < 2; g++) {
        r->scale[g] = s[2 * j + g] & 15;
        r->scale[2 + g] = s[2 * j + g] >> 4;
    }
    r->d = half_at(s + 80);
    r->m = half_at(s + 82);
}

static void read_q3_k(struct pack_source *r, const uint8_t *s, uint32_t j)
{
    const uint8_t *hmask = s, *qs = s + 32 + 32 * (j / 4), *sc = s + 96;
    add_bits(r->code, qs, 2 * (j % 4), 3, 0);
    add_bits(r->code, hmask, j, 1, 2);
    for (uint32_t g = 0; g < 2; g++) {
        uint32_t is = 2 * j + g;
        uint32_t low = is < 8 ? sc[is] & 15u : sc[is - 8] >> 4u;
        uint32_t high = (sc[8 + is % 4] >> (2 * (is / 4))) & 3u;
        r->scale[g] = (uint8_t)((low | high << 4) - 32);
    }
    r->d = half_at(s + 108);
    r->m = 0;
}

/* Q4_K and Q5_K: 6-bit scale and minimum of sub-block j. */
static void read_k_scales(struct pack_source *r, const uint8_t *s, uint32_t j)
{
    const uint8_t *q = s + 4;
    if (j < 4) {
        r->scale[0] = q[j] & 63;
        r->scale[1] = q[j + 4] & 63;
    } else {
        r->scale[0] = (uint8_t)((q[j + 4] & 15) | (q[j - 4] >> 6) << 4);
        r->scale[1] = (uint8_t)((q[j + 4] >> 4) | (q[j] >> 6) << 4);
    }
    r->d = half_at(s);
    r->m = half_at(s + 2);
}

static void read_q45_k(struct pack_source *r, const uint8_t *s, uint32_t j, bool five)
{
    const uint8_t *qh = s + 16, *qs = s + (five ? 48 : 16) + 32 * (j / 2);
    add_bits(r->code, qs, 4 * (j % 2), 15, 0);
    if (five) add_bits(r->code, qh, j, 1, 4);
    read_k_scales(r, s, j);
}

static void read_q6_k(struct pack_source *r, const uint8_t *s, uint32_t j)
{
    uint32_t half = j / 4, k = j % 4; /* k: which 32 of the half's 128 columns */
    const uint8_t *ql = s + 64 * half + 32 * (k % 2), *qh = s + 128 + 32 * half;
    add_bits(r->code, ql, 4 * (k / 2), 15, 0);
    add_bits(r->code, qh, 2 * k, 3, 4);
    r->scale[0] = s[192 + 2 * j];
    r->scale[1] = s[192 + 2 * j + 1];
    r->d = half_at(s + 208);
    r->m = 0;
}

static void read_codebook(struct pack_source *r, enum dtype type, const uint8_t *row, uint32_t b)
{
    struct codebook_block block;
    codebook_read(&block, (uint32_t)type, row, b);
    memcpy(r->code, block.code, sizeof(r->code));
    memcpy(r->scale, block.scale, sizeof(block.scale));
    r->d = block.d;
    r->m = 0;
}

void pack_source_read(struct pack_source *r, enum dtype type, const uint8_t *row, uint32_t b)
{
    const struct dtype_info *info = dtype_info((uint32_t)type);
    const uint8_t *s = row + (size_t)(b * PACK_BLOCK / info->block_elems) * info->block_bytes;
    uint32_t j = b % 8;
    memset(r->code, 0, sizeof(r->code));
    switch (type) {
    case DTYPE_Q2_K: read_q2_k(r, s, j); return;
    case DTYPE_Q3_K: read_q3_k(r, s, j); return;
    case DTYPE_Q4_K: read_q45_k(r, s, j, false); return;
    case DTYPE_Q5_K: read_q45_k(r, s, j, true); return;
    case DTYPE_Q6_K: read_q6_k(r, s, j); return;
    default: break;
    }
    if (codebook_values((uint32_t)type)) {
        read_codebook(r, type, row, b);
        return;
    }
    bool with_min = type == DTYPE_Q4_1 || type == DTYPE_Q5_1;
    const uint8_t *q = s + (with_min ? 4 : 2);
    r->d = half_at(s);
    r->m = with_min ? half_at(s + 2) : 0;
    if (type == DTYPE_Q8_0) {
        for (int i = 0; i < 32; i++) r->code[i] = q[i] ^ 0x80;
    } else if (type == DTYPE_Q4_0 || type == DTYPE_Q4_1) {
        nibbles32(r->code, q);
    } else {
        nibbles32(r->code, q + 4);
        fifth_bits(r->code, q);
    }
}
