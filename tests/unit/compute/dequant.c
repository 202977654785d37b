/* dequant: every supported type equals the gguf package's dequantize bit for bit. */
#include "base/mem.h"
#include "base/strbuf.h"
#include "compute/codebook.h"
#include "compute/dtype.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

static const uint32_t SUPPORTED[] = {
    DTYPE_F32,   DTYPE_F16,    DTYPE_BF16,  DTYPE_Q4_0,  DTYPE_Q4_1,   DTYPE_Q5_0,    DTYPE_Q5_1,   DTYPE_Q8_0,
    DTYPE_Q2_K,  DTYPE_Q3_K,   DTYPE_Q4_K,  DTYPE_Q5_K,  DTYPE_Q6_K,   DTYPE_IQ2_XXS, DTYPE_IQ2_XS, DTYPE_IQ3_XXS,
    DTYPE_IQ1_S, DTYPE_IQ4_NL, DTYPE_IQ3_S, DTYPE_IQ2_S, DTYPE_IQ4_XS, DTYPE_I8,      DTYPE_I16,    DTYPE_I32,
    DTYPE_I64,   DTYPE_F64,    DTYPE_IQ1_M, DTYPE_TQ1_0, DTYPE_TQ2_0,  DTYPE_MXFP4,
};
#define N_SUPPORTED (sizeof(SUPPORTED) / sizeof(SUPPORTED[0]))

static uint8_t *golden(uint32_t type, size_t *n)
{
    struct strbuf path = STRBUF_INIT;
    strbuf_puts(&path, TEST_DATA "/golden/dequant/");
    for (const char *c = dtype_info(type)->name; *c; c++)
        strbuf_putc(&path, *c >= 'A' && *c <= 'Z' ? (char)(*c + 32) : *c);
    strbuf_puts(&path, ".bin");
    FILE *f = fopen(strbuf_cstr(&path), "rb");
    cr_assert(f != NULL, "no %s", strbuf_cstr(&path));
    uint8_t *data = mem_alloc(64 << 10);
    *n = fread(data, 1, 64 << 10, f);
    fclose(f);
    strbuf_fini(&path);
    return data;
}

static void expect_same(float got, const uint8_t *want_at, uint32_t type, uint32_t i)
{
    uint32_t got_bits, want_bits;
    float want;
    memcpy(&got_bits, &got, 4);
    memcpy(&want_bits, want_at, 4);
    memcpy(&want, want_at, 4);
    if (isnan(want) && isnan(got)) return;
    cr_assert(got_bits == want_bits, "%s element %u: %08x (%g), expected %08x (%g)", dtype_info(type)->name, i,
              got_bits, (double)got, want_bits, (double)want);
}

Test(dequant, equals_the_gguf_package_bit_for_bit)
{
    for (size_t k = 0; k < N_SUPPORTED; k++) {
        uint32_t type = SUPPORTED[k], head[2];
        size_t size;
        uint8_t *data = golden(type, &size);
        memcpy(head, data, 8);
        uint64_t row = dtype_row_bytes(type, head[1]);
        cr_assert(head[0] == type && size == 8 + row + 4 * (size_t)head[1]);
        float *y = mem_array(head[1] + 1, sizeof(*y));
        y[head[1]] = 77.0f;
        dequantize_row(type, data + 8, y, head[1]);
        for (uint32_t i = 0; i < head[1]; i++) expect_same(y[i], data + 8 + row + 4 * i, type, i);
        cr_assert_eq(y[head[1]], 77.0f, "%s writes behind its row", dtype_info(type)->name);
        mem_free(y);
        mem_free(data);
    }
}

/* Codes stand last in a block: what is written behind them would be seen here. */
Test(codebook, reads_no_more_codes_than_a_block_has)
{
    _Alignas(struct codebook_block) uint8_t raw[sizeof(struct codebook_block) + 64];
    const size_t end = offsetof(struct codebook_block, code) + CODEBOOK_BLOCK;
    for (size_t k = 0; k < N_SUPPORTED; k++) {
        const uint32_t type = SUPPORTED[k];
        if (!codebook_values(type)) continue;
        size_t size;
        uint8_t *data = golden(type, &size);
        for (uint64_t b = 0; b < dtype_info(type)->block_elems / CODEBOOK_BLOCK; b++) {
            memset(raw, 0xEE, sizeof(raw));
            codebook_read((struct codebook_block *)(void *)raw, type, data + 8, b);
            for (size_t i = end; i < sizeof(raw); i++) cr_assert_eq(raw[i], 0xEE, "%s", dtype_info(type)->name);
            for (size_t i = offsetof(struct codebook_block, code); i < end; i++)
                cr_assert_lt(raw[i], 16, "%s", dtype_info(type)->name);
        }
        mem_free(data);
    }
    cr_assert(!codebook_values(DTYPE_Q4_0) && !codebook_values(DTYPE_LIMIT) && !codebook_values(UINT32_MAX));
}

/* Numerics of a row must not depend on where the row lies in memory. */
Test(dequant, reads_unaligned_rows)
{
    size_t size;
    uint8_t *data = golden(DTYPE_Q4_1, &size), moved[1 + 20];
    float a[32], b[32];
    memcpy(moved + 1, data + 8, 20);
    dequantize_row(DTYPE_Q4_1, data + 8, a, 32);
    dequantize_row(DTYPE_Q4_1, moved + 1, b, 32);
    cr_assert(memcmp(a, b, sizeof(a)) == 0);
    mem_free(data);
}

Test(dtype, only_listed_types_are_supported)
{
    size_t n = 0;
    for (uint32_t t = 0; t < DTYPE_LIMIT + 10; t++) n += (size_t)dtype_info(t)->supported;
    cr_assert_eq(n, N_SUPPORTED);
    for (size_t k = 0; k < N_SUPPORTED; k++) cr_assert(dtype_info(SUPPORTED[k])->supported);
}

Test(dtype, names_refused_and_unknown_types)
{
    static const struct {
        uint32_t type;
        struct dtype_info is;
    } refused[] = { { 9, { "Q8_1", 32, 40, 0 } },
                    { 15, { "Q8_K", 256, 292, 0 } },
                    { 40, { "NVFP4", 64, 36, 0 } },
                    { 41, { "Q1_0", 128, 18, 0 } } };
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        const struct dtype_info *got = dtype_info(refused[i].type), *is = &refused[i].is;
        cr_assert_str_eq(got->name, is->name);
        cr_assert(got->block_elems == is->block_elems && got->block_bytes == is->block_bytes && !got->supported);
    }
    const uint32_t unknown[] = { 4, 5, 31, 36, 42, 63, 64, UINT32_MAX };
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
        cr_assert_str_eq(dtype_info(unknown[i])->name, "?");
        cr_assert_eq(dtype_info(unknown[i])->block_elems, 0);
        cr_assert_eq(dtype_row_bytes(unknown[i], 256), 0);
    }
}

Test(dtype, row_bytes_needs_whole_blocks_and_fits)
{
    cr_assert_eq(dtype_row_bytes(DTYPE_Q4_K, 512), 288);
    cr_assert_eq(dtype_row_bytes(DTYPE_Q4_K, 511), 0);
    cr_assert_eq(dtype_row_bytes(DTYPE_F32, 3), 12);
    cr_assert_eq(dtype_row_bytes(DTYPE_F32, UINT64_MAX), 0);
}
