/* pack: a panel holds what the gguf package's definition of a type says, wherever its rows lie. */
#include "compute/cpu/pack.h"

#include "base/mem.h"
#include "helpers/kernel_check.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#define COLS 768u

/* Row `lane` of 16 random ones, packed as the first of a panel that is not whole. */
static void expect_row(enum dtype type, const uint8_t *whole, const uint8_t *src, size_t stride, uint32_t lane)
{
    const struct pack_format *f = pack_format_of(type);
    uint8_t *one = mem_zalloc(pack_panel_bytes(type, COLS));
    pack_panel(one, type, 0, 1, COLS, src + lane * stride, stride);
    for (uint32_t b = 0; b < COLS / PACK_BLOCK; b++) {
        struct pack_row_block want = { 0 }, got = { 0 };
        pack_read_block(&want, f, one, b, 0);
        pack_read_block(&got, f, whole, b, lane);
        cr_assert_eq(memcmp(&want, &got, sizeof(want)), 0, "%s lane %u block %u", dtype_info(type)->name, lane, b);
    }
    mem_free(one);
}

/* d (code - offset) or d code + m, against dequantize_row(), which rounds once more. */
static void expect_values(enum dtype type, const uint8_t *whole, const uint8_t *src, size_t stride, uint32_t lane)
{
    const struct pack_format *f = pack_format_of(type);
    const int offset = f->has_offset ? 1 << f->offset_shift : 0;
    float row[COLS];
    dequantize_row((uint32_t)type, src + lane * stride, row, COLS);
    for (uint32_t c = 0; c < COLS; c++) {
        struct pack_row_block got;
        pack_read_block(&got, f, whole, c / PACK_BLOCK, lane);
        const uint32_t i = c % PACK_BLOCK, g = i / 16;
        const double product = (double)got.d[g] * ((int)got.code[i] - offset), value = product + (double)got.m[g];
        if (!isfinite(row[c])) continue;
        cr_assert(fabs(value - (double)row[c]) <= 1e-6 * (fabs(product) + fabs((double)got.m[g])),
                  "%s lane %u column %u: %g, not %g", dtype_info(type)->name, lane, c, value, (double)row[c]);
    }
}

Test(pack, whole_panels_hold_what_rows_hold)
{
    static const enum dtype TYPES[] = { DTYPE_Q4_0,    DTYPE_Q4_1,  DTYPE_Q5_0,  DTYPE_Q5_1,   DTYPE_Q8_0,
                                        DTYPE_Q2_K,    DTYPE_Q3_K,  DTYPE_Q4_K,  DTYPE_Q5_K,   DTYPE_Q6_K,
                                        DTYPE_IQ1_S,   DTYPE_IQ1_M, DTYPE_IQ2_S, DTYPE_IQ2_XS, DTYPE_IQ2_XXS,
                                        DTYPE_IQ3_XXS, DTYPE_IQ3_S, DTYPE_TQ1_0, DTYPE_TQ2_0,  DTYPE_IQ4_NL,
                                        DTYPE_IQ4_XS,  DTYPE_MXFP4 };
    for (size_t t = 0; t < sizeof(TYPES) / sizeof(TYPES[0]); t++) {
        size_t stride = (size_t)dtype_row_bytes((uint32_t)TYPES[t], COLS);
        uint8_t *src = guard_alloc(PANEL_ROWS * stride), *dst = guard_alloc(pack_panel_bytes(TYPES[t], COLS));
        for (size_t i = 0; i < PANEL_ROWS * stride; i++) src[i] = (uint8_t)(i * 2654435761u >> 11);
        pack_panel(dst, TYPES[t], 0, PANEL_ROWS, COLS, src, stride);
        for (uint32_t lane = 0; lane < PANEL_ROWS; lane++) expect_row(TYPES[t], dst, src, stride, lane);
        for (uint32_t lane = 0; lane < PANEL_ROWS; lane++) expect_values(TYPES[t], dst, src, stride, lane);
        cr_assert(guard_intact(src) && guard_intact(dst), "%s", dtype_info(TYPES[t])->name);
        guard_free(src);
        guard_free(dst);
    }
}
