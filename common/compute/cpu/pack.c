/* pack.c - GGUF's quant blocks to panels of 16 rows and back: bits keep their values, only the order changes. */
#include "compute/cpu/pack.h"

#include "base/mem.h"
#include "compute/codebook.h"
#include "compute/cpu/half.h"
#include "compute/cpu/pack_internal.h"

#include <string.h>

static const struct pack_format formats[] = {
    /* bits, offset's shift, has offset, scales, book */
    [DTYPE_F32] = { 32, 0, 0, PACK_FLOAT, BOOK_NONE },  [DTYPE_F16] = { 16, 0, 0, PACK_FLOAT, BOOK_NONE },
    [DTYPE_BF16] = { 16, 0, 0, PACK_FLOAT, BOOK_NONE }, [DTYPE_F64] = { 32, 0, 0, PACK_FLOAT, BOOK_NONE },
    [DTYPE_I8] = { 32, 0, 0, PACK_FLOAT, BOOK_NONE },   [DTYPE_I16] = { 32, 0, 0, PACK_FLOAT, BOOK_NONE },
    [DTYPE_I32] = { 32, 0, 0, PACK_FLOAT, BOOK_NONE },  [DTYPE_I64] = { 32, 0, 0, PACK_FLOAT, BOOK_NONE },
    [DTYPE_Q4_0] = { 4, 3, 1, PACK_D, BOOK_NONE },      [DTYPE_Q4_1] = { 4, 0, 0, PACK_DM, BOOK_NONE },
    [DTYPE_Q5_0] = { 5, 4, 1, PACK_D, BOOK_NONE },      [DTYPE_Q5_1] = { 5, 0, 0, PACK_DM, BOOK_NONE },
    [DTYPE_Q8_0] = { 8, 7, 1, PACK_D, BOOK_NONE },      [DTYPE_Q2_K] = { 2, 0, 0, PACK_K16M, BOOK_NONE },
    [DTYPE_Q3_K] = { 3, 2, 1, PACK_K16, BOOK_NONE },    [DTYPE_Q4_K] = { 4, 0, 0, PACK_K, BOOK_NONE },
    [DTYPE_Q5_K] = { 5, 0, 0, PACK_K, BOOK_NONE },      [DTYPE_Q6_K] = { 6, 5, 1, PACK_K16, BOOK_NONE },
    [DTYPE_IQ1_S] = { 3, 4, 1, PACK_K32, BOOK_IQ1 },    [DTYPE_IQ1_M] = { 3, 4, 1, PACK_K16, BOOK_IQ1 },
    [DTYPE_IQ2_XXS] = { 3, 7, 1, PACK_K32, BOOK_IQ2 },  [DTYPE_IQ2_XS] = { 3, 7, 1, PACK_K16, BOOK_IQ2 },
    [DTYPE_IQ2_S] = { 3, 7, 1, PACK_K16, BOOK_IQ2 },    [DTYPE_IQ3_XXS] = { 4, 7, 1, PACK_K32, BOOK_IQ3_XXS },
    [DTYPE_IQ3_S] = { 4, 4, 1, PACK_K32, BOOK_IQ3_S },  [DTYPE_IQ4_NL] = { 4, 7, 1, PACK_D, BOOK_IQ4 },
    [DTYPE_IQ4_XS] = { 4, 7, 1, PACK_K32, BOOK_IQ4 },   [DTYPE_TQ1_0] = { 2, 0, 1, PACK_D, BOOK_NONE },
    [DTYPE_TQ2_0] = { 2, 0, 1, PACK_D, BOOK_NONE },     [DTYPE_MXFP4] = { 4, 4, 1, PACK_BF, BOOK_FP4 },
};

const uint8_t pack_books[BOOK_COUNT][16] = {
    [BOOK_IQ1] = CODEBOOK_IQ1(16),     [BOOK_IQ2] = CODEBOOK_IQ2(128), [BOOK_IQ3_XXS] = CODEBOOK_IQ3_XXS(128),
    [BOOK_IQ3_S] = CODEBOOK_IQ3_S(16), [BOOK_IQ4] = CODEBOOK_IQ4(128), [BOOK_FP4] = CODEBOOK_FP4(16),
};

const struct pack_format *pack_format_of(enum dtype type)
{
    size_t i = (size_t)type;
    return i < sizeof(formats) / sizeof(formats[0]) && formats[i].bits ? &formats[i] : NULL;
}

enum dtype pack_stored_type(enum dtype type)
{
    const struct pack_format *f = pack_format_of(type);
    return f->scales == PACK_FLOAT && f->bits == 32 ? DTYPE_F32 : type;
}

static size_t plane_bytes(const struct pack_format *f)
{
    return (size_t)f->bits * 64;
}

static bool has_super(const struct pack_format *f)
{
    return f->scales >= PACK_K;
}

size_t pack_block_bytes(const struct pack_format *f)
{
    static const uint8_t scales[] = {
        [PACK_D] = 32, [PACK_BF] = 32, [PACK_DM] = 64, [PACK_K] = 32, [PACK_K16M] = 64, [PACK_K32] = 16, [PACK_K16] = 32
    };
    return plane_bytes(f) + scales[f->scales];
}

size_t pack_panel_bytes(enum dtype type, uint32_t n_cols)
{
    const struct pack_format *f = pack_format_of(type);
    if (f->scales == PACK_FLOAT) return (size_t)n_cols * PANEL_ROWS * (f->bits / 8);
    size_t bytes = n_cols / PACK_BLOCK * pack_block_bytes(f);
    return has_super(f) ? bytes + n_cols / PACK_SUPER * (size_t)PACK_SUPER_BYTES : bytes;
}

size_t pack_block_offset(const struct pack_format *f, uint32_t b)
{
    size_t at = b * pack_block_bytes(f);
    return has_super(f) ? at + (size_t)PACK_SUPER_BYTES * (b / 8 + 1) : at;
}

/* Doubles and integers become floats here. */
static void pack_panel_converted(uint8_t *dst, enum dtype type, uint32_t rows, uint32_t n_cols, const uint8_t *src,
                                 size_t stride)
{
    const size_t elem = dtype_info((uint32_t)type)->block_bytes;
    float part[16];
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t c = 0; c < n_cols; c += 16) {
            dequantize_row((uint32_t)type, src + r * stride + c * elem, part, 16);
            for (uint32_t i = 0; i < 16; i++) memcpy(dst + ((c + i) * (size_t)PANEL_ROWS + r) * 4, &part[i], 4);
        }
}

static inline void pack_panel_float(uint8_t *dst, size_t elem, uint32_t rows, uint32_t n_cols, const uint8_t *src,
                                    size_t stride)
{
    for (uint32_t c = 0; c < n_cols; c++)
        for (uint32_t r = 0; r < rows; r++)
            memcpy(dst + (c * (size_t)PANEL_ROWS + r) * elem, src + r * stride + c * elem, elem);
}

/* The last panel of a matrix: its rows, and after them rows of zero bytes, which every type reads as zeros. */
static void pack_panel_ragged(uint8_t *dst, enum dtype type, uint32_t rows, uint32_t n_cols, const uint8_t *src,
                              size_t stride)
{
    const size_t row_bytes = (size_t)dtype_row_bytes((uint32_t)type, n_cols);
    uint8_t *whole = mem_zalloc(PANEL_ROWS * row_bytes);
    for (uint32_t r = 0; r < rows; r++) memcpy(whole + r * row_bytes, src + r * stride, row_bytes);
    pack_panel_whole(dst, type, n_cols, whole, row_bytes);
    mem_free(whole);
}

void pack_panel(uint8_t *dst, enum dtype type, uint32_t p, uint32_t n_rows, uint32_t n_cols, const uint8_t *src,
                size_t src_stride)
{
    const struct pack_format *f = pack_format_of(type);
    uint32_t rows = n_rows - p * PANEL_ROWS < PANEL_ROWS ? n_rows - p * PANEL_ROWS : PANEL_ROWS;
    src += (size_t)p * PANEL_ROWS * src_stride;
    /* The rows lie one after another: in that order they come faster than in sixteen places at once. */
    for (size_t at = 0; at < rows * src_stride; at += 64) __builtin_prefetch(src + at, 0, 2);
    if (f->scales != PACK_FLOAT) {
        if (rows < PANEL_ROWS)
            pack_panel_ragged(dst, type, rows, n_cols, src, src_stride);
        else
            pack_panel_whole(dst, type, n_cols, src, src_stride);
        return;
    }
    if (rows < PANEL_ROWS) memset(dst, 0, pack_panel_bytes(type, n_cols));
    if (pack_stored_type(type) != type)
        pack_panel_converted(dst, type, rows, n_cols, src, src_stride);
    else if (f->bits == 32) /* of a constant size, an element is moved by one instruction */
        pack_panel_float(dst, 4, rows, n_cols, src, src_stride);
    else
        pack_panel_float(dst, 2, rows, n_cols, src, src_stride);
}

static uint8_t get_code(const uint8_t *src, uint32_t bits, uint32_t lane, uint32_t c)
{
    const uint32_t i = 4 * lane + c % 4, j = c / 4, pair = 64 * (j / 4) + i;
    if (bits == 8) return src[64 * j + i];
    uint32_t v = bits <= 3 ? src[pair] >> 2 * (j % 4) & 3u : src[64 * (j % 4) + i] >> 4 * (j / 4) & 15u;
    if (bits == 3) v |= (src[128 + i] >> j & 1u) << 2;
    if (bits == 5) v |= (src[256 + i] >> j & 1u) << 4;
    if (bits == 6) v |= (src[256 + pair] >> 2 * (j % 4) & 3u) << 4;
    return (uint8_t)v;
}

/* d and m of a block or a super-block. */
static void get_super(float dm[2], const struct pack_format *f, const uint8_t *p, uint32_t lane)
{
    dm[1] = 0;
    if (f->scales == PACK_K32 || f->scales == PACK_K16)
        memcpy(&dm[0], p + 4 * lane, 4);
    else if (f->scales == PACK_BF)
        dm[0] = bf16_to_float(half_load(p + 2 * lane));
    else
        dm[0] = half_to_float(half_load(p + 2 * lane));
    if (f->scales == PACK_DM || f->scales == PACK_K || f->scales == PACK_K16M)
        dm[1] = half_to_float(half_load(p + 32 + 2 * lane));
}

void pack_read_block(struct pack_row_block *out, const struct pack_format *f, const uint8_t *panel, uint32_t b,
                     uint32_t lane)
{
    const uint8_t *block = panel + pack_block_offset(f, b), *s = block + plane_bytes(f) + lane;
    float dm[2];
    get_super(dm, f, has_super(f) ? panel + pack_block_offset(f, b / 8 * 8) - PACK_SUPER_BYTES : s - lane, lane);
    for (uint32_t c = 0; c < PACK_BLOCK; c++) {
        uint8_t code = get_code(block, f->bits, lane, c);
        out->code[c] = f->book ? pack_books[f->book][code] : code;
    }
    for (uint32_t g = 0; g < 2; g++) {
        float d = dm[0], m = dm[1];
        switch (f->scales) {
        case PACK_K: d *= (float)s[0], m = -(m * (float)s[16]); break;
        case PACK_K16M: d *= (float)s[16 * g], m = -(m * (float)s[32 + 16 * g]); break;
        case PACK_K32: d *= (float)(int8_t)s[0]; break;
        case PACK_K16: d *= (float)(int8_t)s[16 * g]; break;
        default: break;
        }
        out->d[g] = d;
        out->m[g] = m;
    }
}
