/* pack.c - GGUF's quant blocks to panels of 16 rows and back: bits keep their values, only the order changes. */
#include "compute/cpu/pack.h"

#include "compute/cpu/half.h"

#include <string.h>

static const struct pack_format formats[] = {
    [DTYPE_F32] = { 32, 0, 0, PACK_FLOAT },  [DTYPE_F16] = { 16, 0, 0, PACK_FLOAT },
    [DTYPE_BF16] = { 16, 0, 0, PACK_FLOAT }, [DTYPE_Q4_0] = { 4, 3, 1, PACK_D },
    [DTYPE_Q4_1] = { 4, 0, 0, PACK_DM },     [DTYPE_Q5_0] = { 5, 4, 1, PACK_D },
    [DTYPE_Q5_1] = { 5, 0, 0, PACK_DM },     [DTYPE_Q8_0] = { 8, 7, 1, PACK_D },
    [DTYPE_Q2_K] = { 4, 0, 0, PACK_K16M },   [DTYPE_Q3_K] = { 4, 2, 1, PACK_K16 },
    [DTYPE_Q4_K] = { 4, 0, 0, PACK_K },      [DTYPE_Q5_K] = { 5, 0, 0, PACK_K },
    [DTYPE_Q6_K] = { 6, 5, 1, PACK_K16 },
};

const struct pack_format *pack_format_of(enum dtype type)
{
    size_t i = (size_t)type;
    return i < sizeof(formats) / sizeof(formats[0]) && formats[i].bits ? &formats[i] : NULL;
}

static size_t plane_bytes(const struct pack_format *f)
{
    return f->bits == 8 ? 512 : f->bits == 6 ? 256 + 128 : f->bits == 5 ? 256 + 64 : 256;
}

static bool has_super(const struct pack_format *f)
{
    return f->scales >= PACK_K;
}

size_t pack_block_bytes(const struct pack_format *f)
{
    static const uint8_t scales[] = { [PACK_D] = 32, [PACK_DM] = 64, [PACK_K] = 32, [PACK_K16] = 32, [PACK_K16M] = 64 };
    return plane_bytes(f) + scales[f->scales];
}

size_t pack_panel_bytes(enum dtype type, uint32_t n_cols)
{
    const struct pack_format *f = pack_format_of(type);
    if (f->scales == PACK_FLOAT) return (size_t)n_cols * PANEL_ROWS * (f->bits / 8);
    size_t bytes = n_cols / PACK_BLOCK * pack_block_bytes(f);
    return has_super(f) ? bytes + n_cols / PACK_SUPER * (size_t)PACK_SUPER_BYTES : bytes;
}

size_t pack_run_offset(const struct pack_format *f, uint32_t b)
{
    size_t at = b * pack_block_bytes(f);
    return has_super(f) ? at + (size_t)PACK_SUPER_BYTES * (b / 8) : at;
}

size_t pack_block_offset(const struct pack_format *f, uint32_t b)
{
    return pack_run_offset(f, b) + (has_super(f) ? PACK_SUPER_BYTES : 0);
}

/* What one block of 32 columns of one row says before its scales are combined. */
struct raw_block {
    uint8_t code[PACK_BLOCK];
    uint8_t scale[4]; /* in the order of the packed bytes */
    uint16_t d, m;    /* fp16 bits: of the block, or of its super-block */
};

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

static void read_q2_k(struct raw_block *r, const uint8_t *s, uint32_t j)
{
    const uint8_t *qs = s + 16 + 32 * (j / 4);
    for (int i = 0; i < 32; i++) r->code[i] = (qs[i] >> (2 * (j % 4))) & 3;
    for (uint32_t g = 0; g < 2; g++) {
        r->scale[g] = s[2 * j + g] & 15;
        r->scale[2 + g] = s[2 * j + g] >> 4;
    }
    r->d = half_load(s + 80);
    r->m = half_load(s + 82);
}

static void read_q3_k(struct raw_block *r, const uint8_t *s, uint32_t j)
{
    const uint8_t *hmask = s, *qs = s + 32 + 32 * (j / 4), *sc = s + 96;
    for (int i = 0; i < 32; i++) r->code[i] = (uint8_t)(((qs[i] >> (2 * (j % 4))) & 3) | ((hmask[i] >> j) & 1) << 2);
    for (uint32_t g = 0; g < 2; g++) {
        uint32_t is = 2 * j + g;
        uint32_t low = is < 8 ? sc[is] & 15u : sc[is - 8] >> 4u;
        uint32_t high = (sc[8 + is % 4] >> (2 * (is / 4))) & 3u;
        r->scale[g] = (uint8_t)((low | high << 4) - 32);
    }
    r->d = half_load(s + 108);
    r->m = 0;
}

/* Q4_K and Q5_K: 6-bit scale and minimum of sub-block j. */
static void read_k_scales(struct raw_block *r, const uint8_t *s, uint32_t j)
{
    const uint8_t *q = s + 4;
    if (j < 4) {
        r->scale[0] = q[j] & 63;
        r->scale[1] = q[j + 4] & 63;
    } else {
        r->scale[0] = (uint8_t)((q[j + 4] & 15) | (q[j - 4] >> 6) << 4);
        r->scale[1] = (uint8_t)((q[j + 4] >> 4) | (q[j] >> 6) << 4);
    }
    r->d = half_load(s);
    r->m = half_load(s + 2);
}

static void read_q45_k(struct raw_block *r, const uint8_t *s, uint32_t j, bool five)
{
    const uint8_t *qh = s + 16, *qs = s + (five ? 48 : 16) + 32 * (j / 2);
    for (int i = 0; i < 32; i++) {
        uint32_t c = (qs[i] >> (4 * (j % 2))) & 15u;
        if (five) c |= ((qh[i] >> j) & 1u) << 4;
        r->code[i] = (uint8_t)c;
    }
    read_k_scales(r, s, j);
}

static void read_q6_k(struct raw_block *r, const uint8_t *s, uint32_t j)
{
    uint32_t half = j / 4, k = j % 4; /* k: which 32 of the half's 128 columns */
    const uint8_t *ql = s + 64 * half + 32 * (k % 2), *qh = s + 128 + 32 * half;
    for (int i = 0; i < 32; i++)
        r->code[i] = (uint8_t)(((ql[i] >> (4 * (k / 2))) & 15) | ((qh[i] >> (2 * k)) & 3) << 4);
    r->scale[0] = s[192 + 2 * j];
    r->scale[1] = s[192 + 2 * j + 1];
    r->d = half_load(s + 208);
    r->m = 0;
}

/* Block b of a row of GGUF data. */
static void read_gguf(struct raw_block *r, enum dtype type, const uint8_t *row, uint32_t b)
{
    const struct dtype_info *info = dtype_info((uint32_t)type);
    const uint8_t *s = row + (size_t)(b * PACK_BLOCK / info->block_elems) * info->block_bytes;
    uint32_t j = b % 8;
    switch (type) {
    case DTYPE_Q2_K: read_q2_k(r, s, j); return;
    case DTYPE_Q3_K: read_q3_k(r, s, j); return;
    case DTYPE_Q4_K: read_q45_k(r, s, j, false); return;
    case DTYPE_Q5_K: read_q45_k(r, s, j, true); return;
    case DTYPE_Q6_K: read_q6_k(r, s, j); return;
    default: break;
    }
    bool with_min = type == DTYPE_Q4_1 || type == DTYPE_Q5_1;
    const uint8_t *q = s + (with_min ? 4 : 2);
    r->d = half_load(s);
    r->m = with_min ? half_load(s + 2) : 0;
    if (type == DTYPE_Q8_0) {
        for (int i = 0; i < 32; i++) r->code[i] = q[i] ^ 0x80;
    } else if (type == DTYPE_Q4_0 || type == DTYPE_Q4_1) {
        nibbles32(r->code, q);
    } else {
        nibbles32(r->code, q + 4);
        fifth_bits(r->code, q);
    }
}

static void put_codes(uint8_t *dst, uint32_t bits, uint32_t lane, const uint8_t *code)
{
    if (bits == 8) {
        for (int j = 0; j < 8; j++) memcpy(dst + 64 * j + 4 * lane, code + 4 * j, 4);
        return;
    }
    uint32_t fifth = 0, high[2] = { 0, 0 };
    for (uint32_t j = 0; j < 4; j++)
        for (uint32_t i = 0; i < 4; i++)
            dst[64 * j + 4 * lane + i] = (uint8_t)((code[4 * j + i] & 15) | (code[16 + 4 * j + i] & 15) << 4);
    for (uint32_t c = 0; c < 32; c++) {
        uint32_t top = code[c] >> 4;
        fifth |= (top & 1) << (8 * (c % 4) + c / 4);
        high[c / 16] |= top << (8 * (c % 4) + 2 * (c % 16 / 4));
    }
    if (bits == 5) memcpy(dst + 256 + 4 * lane, &fifth, 4);
    if (bits == 6) {
        memcpy(dst + 256 + 4 * lane, &high[0], 4);
        memcpy(dst + 320 + 4 * lane, &high[1], 4);
    }
}

static void put_scales(uint8_t *dst, uint8_t *super, const struct pack_format *f, uint32_t lane,
                       const struct raw_block *r)
{
    uint8_t *s = dst + plane_bytes(f);
    uint8_t *dm = has_super(f) ? super : s;
    memcpy(dm + 2 * lane, &r->d, 2);
    if (f->scales != PACK_D) memcpy(dm + 32 + 2 * lane, &r->m, 2);
    if (!has_super(f)) return;
    int n = f->scales == PACK_K16M ? 4 : 2;
    for (int i = 0; i < n; i++) s[16 * i + lane] = r->scale[i];
}

static void pack_panel_float(uint8_t *dst, size_t elem, uint32_t rows, uint32_t n_cols, const uint8_t *src,
                             size_t stride)
{
    for (uint32_t c = 0; c < n_cols; c++)
        for (uint32_t r = 0; r < rows; r++)
            memcpy(dst + (c * (size_t)PANEL_ROWS + r) * elem, src + r * stride + c * elem, elem);
}

/* Q4_0, Q4_1 and Q8_0 only move dwords: a GGUF block's bytes are a lane's bytes already. */
static void pack_panel_dwords(uint8_t *dst, enum dtype type, const struct pack_format *f, uint32_t rows,
                              uint32_t n_cols, const uint8_t *src, size_t stride)
{
    const size_t from = dtype_info((uint32_t)type)->block_bytes, to = pack_block_bytes(f);
    const size_t head = f->scales == PACK_DM ? 4 : 2, quads = (from - head) / 4;
    const uint32_t flip = type == DTYPE_Q8_0 ? 0x80808080u : 0;
    for (uint32_t b = 0; b < n_cols / PACK_BLOCK; b++, dst += to, src += from) {
        for (uint32_t r = 0; r < rows; r++) {
            const uint8_t *s = src + r * stride;
            for (size_t j = 0; j < quads; j++) {
                uint32_t v;
                memcpy(&v, s + head + 4 * j, 4);
                v ^= flip;
                memcpy(dst + 64 * j + 4 * r, &v, 4);
            }
            memcpy(dst + 64 * quads + 2 * r, s, 2);
            if (head == 4) memcpy(dst + 64 * quads + 32 + 2 * r, s + 2, 2);
        }
    }
}

void pack_panel(uint8_t *dst, enum dtype type, uint32_t p, uint32_t n_rows, uint32_t n_cols, const uint8_t *src,
                size_t src_stride)
{
    const struct pack_format *f = pack_format_of(type);
    uint32_t rows = n_rows - p * PANEL_ROWS < PANEL_ROWS ? n_rows - p * PANEL_ROWS : PANEL_ROWS;
    src += (size_t)p * PANEL_ROWS * src_stride;
    if (rows < PANEL_ROWS) memset(dst, 0, pack_panel_bytes(type, n_cols));
    if (f->scales == PACK_FLOAT) {
        pack_panel_float(dst, f->bits / 8, rows, n_cols, src, src_stride);
        return;
    }
    if (type == DTYPE_Q4_0 || type == DTYPE_Q4_1 || type == DTYPE_Q8_0) {
        pack_panel_dwords(dst, type, f, rows, n_cols, src, src_stride);
        return;
    }
    for (uint32_t b = 0; b < n_cols / PACK_BLOCK; b++) {
        uint8_t *block = dst + pack_block_offset(f, b);
        uint8_t *super = dst + pack_block_offset(f, b / 8 * 8) - PACK_SUPER_BYTES;
        for (uint32_t lane = 0; lane < rows; lane++) {
            struct raw_block r;
            read_gguf(&r, type, src + lane * src_stride, b);
            put_codes(block, f->bits, lane, r.code);
            put_scales(block, super, f, lane, &r);
        }
    }
}

static void get_codes(uint8_t *code, uint32_t bits, uint32_t lane, const uint8_t *src)
{
    for (uint32_t c = 0; c < 32; c++) {
        uint32_t i = c % 4, j = c / 4;
        if (bits == 8) {
            code[c] = src[64 * j + 4 * lane + i];
            continue;
        }
        uint32_t v = src[64 * (j % 4) + 4 * lane + i];
        v = c < 16 ? v & 15 : v >> 4;
        if (bits == 5) v |= ((src[256 + 4 * lane + i] >> j) & 1u) << 4;
        if (bits == 6) v |= ((src[256 + 64 * (j / 4) + 4 * lane + i] >> (2 * (j % 4))) & 3u) << 4;
        code[c] = (uint8_t)v;
    }
}

void pack_read_block(struct pack_row_block *out, const struct pack_format *f, const uint8_t *panel, uint32_t b,
                     uint32_t lane)
{
    const uint8_t *block = panel + pack_block_offset(f, b), *s = block + plane_bytes(f);
    const uint8_t *dm = has_super(f) ? panel + pack_block_offset(f, b / 8 * 8) - PACK_SUPER_BYTES : s;
    float d = half_to_float(half_load(dm + 2 * lane));
    float m = f->scales == PACK_D ? 0 : half_to_float(half_load(dm + 32 + 2 * lane));
    get_codes(out->code, f->bits, lane, block);
    for (uint32_t g = 0; g < 2; g++) {
        out->d[g] = d;
        out->m[g] = m;
        if (f->scales == PACK_K) {
            out->d[g] = d * (float)s[lane];
            out->m[g] = -(m * (float)s[16 + lane]);
        } else if (f->scales == PACK_K16) {
            out->d[g] = d * (float)(int8_t)s[16 * g + lane];
            out->m[g] = 0;
        } else if (f->scales == PACK_K16M) {
            out->d[g] = d * (float)s[16 * g + lane];
            out->m[g] = -(m * (float)s[32 + 16 * g + lane]);
        }
    }
}
