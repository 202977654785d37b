/* cpu_level.c - chooses a level by its name or by what the processor has, and checks one that has to prove itself. */
#include "compute/cpu/cpu_level.h"

#include "base/cpu.h"
#include "base/log.h"

#include <string.h>

#define CHECK_ROWS 21 /* of activations: tiles of 8, and what is left */
#define CHECK_COLS 256

/* One panel times some rows. */
struct check {
    _Alignas(64) uint8_t panel[CHECK_COLS * PANEL_ROWS * 2], scratch[CHECK_COLS / ACT_BLOCK * 768];
    _Alignas(64) uint8_t q[CHECK_ROWS * CHECK_COLS / ACT_BLOCK * ACT_ROW_BYTES];
    float y[2][CHECK_ROWS * PANEL_ROWS];
};

static uint8_t draw(uint32_t *state)
{
    return (uint8_t)((*state = *state * 1664525u + 1013904223u) >> 24);
}

/* Any codes; scales of bytes that make positive fp16 and fp32 below 1. */
static void draw_panel(struct check *c, const struct pack_format *f, size_t bytes, uint32_t *state)
{
    for (size_t i = 0; i < bytes; i++) c->panel[i] = draw(state) & 0x3b;
    for (uint32_t b = 0; b < CHECK_COLS / PACK_BLOCK; b++)
        for (uint32_t i = 0; i < f->bits * 64u; i++) c->panel[pack_block_offset(f, b) + i] = draw(state);
}

static void draw_activations(struct check *c, const struct cpu_kernels *k, uint32_t *state)
{
    float x[CHECK_COLS];
    for (uint32_t r = 0; r < CHECK_ROWS; r++) {
        for (uint32_t i = 0; i < CHECK_COLS; i++) x[i] = (float)(draw(state) - 128) * 0x1p-7f;
        k->quantize(c->q + act_tile_offset(r, CHECK_COLS), act_tile_height(CHECK_ROWS, r), r % ACT_TILE, x, CHECK_COLS);
    }
}

static bool same_product(const struct cpu_kernels *a, const struct cpu_kernels *b, enum dtype type)
{
    struct check c = { .q = { 0 } };
    uint32_t state = (uint32_t)type;
    struct matmul_job job = { .type = type,
                              .format = pack_format_of(type),
                              .n_rows = PANEL_ROWS,
                              .n_cols = CHECK_COLS,
                              .data = c.panel,
                              .panel_bytes = pack_panel_bytes(type, CHECK_COLS),
                              .n = CHECK_ROWS,
                              .q = c.q,
                              .ld = PANEL_ROWS };
    draw_panel(&c, job.format, job.panel_bytes, &state);
    draw_activations(&c, b, &state);
    for (int i = 0; i < 2; i++) {
        job.y = c.y[i];
        (i ? b : a)->matmul(&job, 0, 1, 0, CHECK_ROWS, c.scratch);
    }
    return memcmp(c.y[0], c.y[1], sizeof(c.y[0])) == 0;
}

/* One type of each way in which sums become fp32. */
static bool same_products(const struct cpu_kernels *a, const struct cpu_kernels *b)
{
    return same_product(a, b, DTYPE_Q8_0) && same_product(a, b, DTYPE_Q4_1) && same_product(a, b, DTYPE_Q6_K) &&
           same_product(a, b, DTYPE_Q2_K);
}

enum status cpu_level_check(const struct cpu_kernels **level, bool named, struct error *err)
{
    const struct cpu_kernels *k = *level, *by = k->checked_by;
    if (!by || same_products(k, by)) return OK;
    if (named)
        return error_set(err, ERR_UNSUPPORTED, "isa \"%s\": on this processor it does not give the bits of \"%s\"",
                         k->name, by->name);
    log_warn("isa_wrong", "isa=%s instead=%s", k->name, by->name);
    *level = by;
    return OK;
}

enum status cpu_level_choose(const struct cpu_kernels **out, const char *isa, uint32_t flags, struct error *err)
{
    const struct cpu_kernels *best = cpu_kernels_best(flags), *k = best;
    const bool named = isa && strcmp(isa, "auto") != 0;
    if (named) k = cpu_kernels_named(isa);
    if (!named && !(flags & CPU_AVX2))
        return error_set(err, ERR_UNSUPPORTED,
                         "this processor has no AVX2 with FMA and F16C (x86-64-v3), which the kernels need; "
                         "isa \"ref\" computes the same without it, many times slower");
    if (!k)
        return error_set(err, ERR_INVALID,
                         "isa \"%s\": expected auto, ref, avx2, vnni256, avxvnni, avx512, vnni or amx", isa);
    if ((k->flags & flags) != k->flags)
        return error_set(err, ERR_UNSUPPORTED, "isa \"%s\": this processor does not have it; the best here is \"%s\"",
                         isa, best->name);
    enum status st = cpu_level_check(&k, named, err);
    if (st == OK) *out = k;
    return st;
}
