/* embed: rows of an embedding of every GGUF type have the bits of dequantize_row(). */
#include "helpers/cuda_check.h"

#include <stdio.h>

#define N_COLS  512
#define N_TABLE 40
#define N_ROWS  11

static const struct backend_limits LIMITS = { .max_rows = 64, .max_context = 512, .max_cols = 2048 };
static const int32_t TOKENS[N_ROWS] = { 0, 39, 7, 7, 1, 38, 20, 2, 3, 39, 0 };

/* A step of one sequence with TOKENS. */
static void begin(struct backend *b, struct step *step)
{
    const uint32_t blocks[1] = { 0 };
    const struct batch_seq seq = { .n_rows = N_ROWS, .blocks = blocks, .n_blocks = 1, .n_logits = 1 };
    const struct batch batch = { N_ROWS, TOKENS, &seq, 1 };
    cr_assert_eq(b->ops->step_begin(b, NULL, &batch, step), OK);
}

static void check_table(struct backend *b, const struct embedding *table, const uint8_t *rows)
{
    char what[64];
    struct step step;
    const size_t row_bytes = dtype_row_bytes(table->type, N_COLS);
    float *out = check_device(b, NULL, N_ROWS * N_COLS * sizeof(float)), want[N_COLS];
    begin(b, &step);
    cr_assert_eq(b->ops->embed(b, NULL, out, table, &step), OK, "%s", dtype_info(table->type)->name);
    float *got = check_host(b, out, N_ROWS * N_COLS * sizeof(float));
    for (size_t i = 0; i < N_ROWS; i++) {
        snprintf(what, sizeof(what), "%s row %zu gathered %d", dtype_info(table->type)->name, i, table->gathered);
        dequantize_row(table->type, rows + (table->gathered ? i : (size_t)TOKENS[i]) * row_bytes, want, N_COLS);
        check_same_floats(want, got + i * N_COLS, N_COLS, what);
    }
    mem_free(got);
    check_release(b, out, N_ROWS * N_COLS * sizeof(float));
}

/* Rows of random bytes, so that scales are of every kind: zero, subnormal, infinite, NaN. */
static void check_type(struct both *b, uint32_t type, uint64_t seed)
{
    const size_t row_bytes = dtype_row_bytes(type, N_COLS), bytes = N_TABLE * row_bytes;
    struct check_rng rng = { seed };
    uint8_t *rows = mem_alloc(bytes);
    for (size_t i = 0; i < bytes; i++) rows[i] = (uint8_t)check_below(&rng, 256);
    struct embedding table = { .type = (enum dtype)type, .n_cols = N_COLS };
    table.rows = check_device(b->gpu, rows, bytes);
    check_table(b->gpu, &table, rows);
    table.gathered = true;
    check_table(b->gpu, &table, rows);
    check_release(b->gpu, (void *)(uintptr_t)table.rows, bytes);
    mem_free(rows);
}

Test(embed, rows_of_every_type_have_the_bits_of_the_definition)
{
    static const uint32_t NEEDED[] = { DTYPE_F32,  DTYPE_F16,    DTYPE_BF16,   DTYPE_Q4_0, DTYPE_Q4_1, DTYPE_Q5_0,
                                       DTYPE_Q5_1, DTYPE_Q8_0,   DTYPE_Q2_K,   DTYPE_Q3_K, DTYPE_Q4_K, DTYPE_Q5_K,
                                       DTYPE_Q6_K, DTYPE_IQ4_NL, DTYPE_IQ4_XS, DTYPE_MXFP4 };
    struct both b = open_both(LIMITS);
    for (size_t i = 0; i < sizeof(NEEDED) / sizeof(NEEDED[0]); i++)
        cr_assert(backend_embeds(b.gpu, NEEDED[i]), "%s", dtype_info(NEEDED[i])->name);
    for (uint32_t type = 0; type < DTYPE_LIMIT; type++)
        if (backend_embeds(b.gpu, type)) check_type(&b, type, 1 + type);
    close_both(&b);
}

Test(embed, a_type_that_is_not_read_is_refused)
{
    struct both b = open_both(LIMITS);
    struct step step;
    begin(b.gpu, &step);
    float *out = check_device(b.gpu, NULL, N_ROWS * N_COLS * sizeof(float));
    for (uint32_t type = 0; type < DTYPE_LIMIT; type++) {
        const struct embedding table = { .type = (enum dtype)type, .n_cols = N_COLS, .rows = out };
        if (!backend_embeds(b.gpu, type))
            cr_assert_eq(b.gpu->ops->embed(b.gpu, NULL, out, &table, &step), ERR_UNSUPPORTED);
    }
    check_release(b.gpu, out, N_ROWS * N_COLS * sizeof(float));
    close_both(&b);
}
