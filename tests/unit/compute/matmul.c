/* matmul.c - every level and thread count gives the reference's bits; the reference is a matmul. */
#include "base/cpu.h"
#include "base/mem.h"
#include "compute/backend.h"
#include "compute/cpu/cpu_internal.h"
#include "compute/cpu/half.h"
#include "helpers/amx_trap.h"
#include "helpers/avxvnni_trap.h"
#include "helpers/check_backend.h"
#include "helpers/kernel_check.h"
#include "helpers/vex_trap.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const enum dtype types[] = { DTYPE_Q4_0,    DTYPE_Q4_1,  DTYPE_Q8_0,   DTYPE_Q4_K,    DTYPE_Q6_K,   DTYPE_F16,
                                    DTYPE_BF16,    DTYPE_F32,   DTYPE_Q5_0,   DTYPE_Q5_1,    DTYPE_Q2_K,   DTYPE_Q3_K,
                                    DTYPE_Q5_K,    DTYPE_IQ1_S, DTYPE_IQ1_M,  DTYPE_IQ2_XXS, DTYPE_IQ2_XS, DTYPE_IQ2_S,
                                    DTYPE_IQ3_XXS, DTYPE_IQ3_S, DTYPE_IQ4_NL, DTYPE_IQ4_XS,  DTYPE_TQ1_0,  DTYPE_TQ2_0,
                                    DTYPE_MXFP4,   DTYPE_F64,   DTYPE_I8,     DTYPE_I16,     DTYPE_I32,    DTYPE_I64 };
#define N_TYPES (sizeof(types) / sizeof(types[0]))

static struct backend *backend_of(const char *isa, uint32_t threads)
{
    return check_backend(isa, threads, (struct backend_limits){ 512, 1024, 2048, 8, 128 });
}

/* A backend of the level amx: native, or else with its tile instructions trapped, or NULL without AVX-512 VNNI. */
static struct backend *tiled_backend(bool *native)
{
    *native = cpu_flags() & CPU_AMX_INT8;
    if (*native) return backend_of("amx", 1);
    if ((cpu_kernels_vnni.flags & cpu_flags()) != cpu_kernels_vnni.flags) return NULL;
    *native = !amx_trap_install();
    struct backend *b = backend_of("vnni", 1);
    cpu_of(b)->kernels = &cpu_kernels_amx;
    return b;
}

/* A backend of the level avxvnni: native, or else with its dot products trapped, or NULL without AVX2. */
static struct backend *avxvnni_backend(bool *native)
{
    *native = cpu_flags() & CPU_AVX_VNNI;
    if (*native) return backend_of("avxvnni", 1);
    if (!(cpu_flags() & CPU_AVX2)) return NULL;
    *native = !avxvnni_trap_install();
    struct backend *b = backend_of("avx2", 1);
    cpu_of(b)->kernels = &cpu_kernels_avxvnni;
    return b;
}

struct problem {
    enum dtype type;
    uint32_t rows, cols, n;
    uint8_t *gguf;
    size_t stride;
    float *x;
};

static void problem_init(struct problem *p, enum dtype type, uint32_t rows, uint32_t cols, uint32_t n,
                         enum check_fill fill, uint64_t seed)
{
    struct check_rng rng = { seed };
    const struct dtype_info *info = dtype_info((uint32_t)type);
    *p = (struct problem){ .type = type, .rows = rows, .cols = cols, .n = n };
    p->stride = dtype_row_bytes((uint32_t)type, cols);
    p->gguf = mem_alloc(p->stride * rows);
    check_weights(&rng, (uint32_t)type, info->block_elems, info->block_bytes, p->gguf, (size_t)rows * cols, 0.02f);
    p->x = mem_array((size_t)n * cols, sizeof(float));
    check_fill(&rng, fill, p->x, (size_t)n * cols);
}

static void problem_fini(struct problem *p)
{
    mem_free(p->gguf);
    mem_free(p->x);
}

/* Runs the problem on a backend: [n][ld] in a guarded buffer. */
static float *solve_as(struct backend *b, const struct problem *p, size_t ld, bool accumulate, enum precision precision)
{
    size_t bytes;
    cr_assert_eq(b->ops->weight_bytes(b, p->type, p->rows, p->cols, &bytes), OK);
    struct weight w = {
        .dtype = p->type, .n_rows = p->rows, .n_cols = p->cols, .bytes = bytes, .precision = precision
    };
    void *packed = guard_alloc(bytes);
    cr_assert_eq(b->ops->weight_pack(b, NULL, packed, p->type, p->rows, p->cols, p->gguf, p->stride), OK);
    cr_assert(guard_intact(packed));
    w.data = packed;
    struct act x = { .f = p->x, .n = p->n, .k = p->cols, .precision = precision };
    x.q = guard_alloc(b->ops->act_bytes(b, p->n, p->cols, precision));
    float *y = guard_alloc(p->n * ld * sizeof(float));
    for (size_t i = 0; i < p->n * ld; i++) y[i] = 0.25f * (float)(i % 7);
    cr_assert_eq(b->ops->quantize(b, NULL, &x), OK);
    cr_assert_eq(b->ops->matmul(b, NULL, y, ld, &w, &x, accumulate), OK);
    cr_assert(guard_intact(x.q) && guard_intact(y), "%s", dtype_info((uint32_t)p->type)->name);
    guard_free(x.q);
    guard_free(packed);
    return y;
}

static float *solve(struct backend *b, const struct problem *p, size_t ld, bool accumulate)
{
    return solve_as(b, p, ld, accumulate, COARSE);
}

static uint32_t cols_of(enum dtype type, uint32_t cols)
{
    uint32_t elems = dtype_info((uint32_t)type)->block_elems;
    if (elems < 16) elems = 16;
    return (cols + elems - 1) / elems * elems;
}

/* The activations as their int8 values say, from a tile of one row each. */
static void dequantized_activations(struct backend *b, const struct problem *p, float *out)
{
    for (uint32_t i = 0; i < p->n; i++) {
        struct act x = { .f = p->x + (size_t)i * p->cols, .n = 1, .k = p->cols };
        uint8_t *q = mem_alloc(b->ops->act_bytes(b, 1, p->cols, COARSE));
        x.q = q;
        cr_assert_eq(b->ops->quantize(b, NULL, &x), OK);
        for (uint32_t c = 0; c < p->cols; c++) {
            const uint8_t *block = q + (size_t)(c / 32) * ACT_ROW_BYTES;
            float scale;
            memcpy(&scale, block + 32 + 4 * (c % 32 / 16), 4);
            out[(size_t)i * p->cols + c] = scale * (float)(int8_t)block[c % 32];
        }
        mem_free(q);
    }
}

Test(matmul, reference_multiplies_the_dequantized_matrix)
{
    struct backend *b = backend_of("ref", 1);
    for (size_t t = 0; t < N_TYPES; t++) {
        struct problem p;
        problem_init(&p, types[t], 21, cols_of(types[t], 96), 5, FILL_NORMAL, 7 + t);
        bool quantized = dtype_info((uint32_t)p.type)->block_elems > 1;
        float *y = solve(b, &p, p.rows, false);
        float *w = mem_array(p.cols, sizeof(float)), *xq = mem_array((size_t)p.n * p.cols, sizeof(float));
        dequantized_activations(b, &p, xq);
        for (uint32_t r = 0; r < p.rows; r++) {
            dequantize_row((uint32_t)p.type, p.gguf + r * p.stride, w, p.cols);
            for (uint32_t i = 0; i < p.n; i++) {
                const float *x = p.x + (size_t)i * p.cols, *q = xq + (size_t)i * p.cols;
                double exact = 0, rounded = 0, size = 0, step = 0;
                for (uint32_t c = 0; c < p.cols; c++) {
                    exact += (double)w[c] * x[c];
                    rounded += (double)w[c] * q[c];
                    size += fabs((double)w[c] * x[c]);
                    step += fabs((double)w[c]) * fabs((double)x[c] - q[c]);
                }
                double got = y[i * p.rows + r], want = quantized ? rounded : exact;
                cr_assert(fabs(got - want) <= 1e-5 * size + 1e-6, "%s row %u: %g, not %g",
                          dtype_info((uint32_t)p.type)->name, r, got, want);
                cr_assert(fabs(got - exact) <= step + 1e-5 * size + 1e-6);
            }
        }
        mem_free(w);
        mem_free(xq);
        guard_free(y);
        problem_fini(&p);
    }
    backend_close(b);
}

static void expect_bits(const float *want, struct backend *b, const struct problem *p, bool accumulate)
{
    size_t ld = p->rows + 5;
    float *got = solve(b, p, ld, accumulate);
    size_t bytes = p->n * ld * sizeof(float), at = check_differs(want, got, bytes) / sizeof(float);
    cr_assert(at == bytes / sizeof(float), "%s %s, %u rows %u cols, %u activations: y[%zu][%zu] is %g, not %g",
              backend_describe(b), dtype_info((uint32_t)p->type)->name, p->rows, p->cols, p->n, at / ld, at % ld,
              (double)got[at], (double)want[at]);
    guard_free(got);
}

static void expect_same(struct backend *ref, struct backend *b, const struct problem *p)
{
    float *want = solve(ref, p, p->rows + 5, false);
    expect_bits(want, b, p, false);
    guard_free(want);
}

Test(matmul, every_level_gives_the_bits_of_the_reference)
{
    static const uint32_t counts[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 23, 33 };
    static const uint32_t shapes[][2] = { { 16, 32 }, { 37, 96 }, { 100, 512 }, { 1, 288 }, { 20, 1056 } };
    struct backend *ref = backend_of("ref", 1), *levels[8];
    uint32_t n_levels = 0;
    for (const struct cpu_kernels *const *k = cpu_kernel_levels + 1; *k; k++)
        if (((*k)->flags & cpu_flags()) == (*k)->flags) levels[n_levels++] = backend_of((*k)->name, 1);
    uint64_t seed = 1;
    for (size_t t = 0; t < N_TYPES; t++)
        for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++)
            for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++, seed++) {
                struct problem p;
                bool accumulate = seed % 3 == 0;
                problem_init(&p, types[t], shapes[s][0], cols_of(types[t], shapes[s][1]), counts[c],
                             (enum check_fill)(seed % FILL_COUNT), seed);
                float *want = solve(ref, &p, p.rows + 5, accumulate);
                for (uint32_t k = 0; k < n_levels; k++) expect_bits(want, levels[k], &p, accumulate);
                guard_free(want);
                problem_fini(&p);
            }
    for (uint32_t k = 0; k < n_levels; k++) backend_close(levels[k]);
    backend_close(ref);
}

Test(matmul, tiles_give_the_bits_of_the_reference_at_every_height)
{
    bool native;
    struct backend *ref = backend_of("ref", 1), *b = tiled_backend(&native);
    if (!b) cr_skip_test("AVX-512 VNNI is needed");
    struct check_rng rng = { 1 };
    for (size_t t = 0; t < N_TYPES; t++)
        for (uint32_t n = 1; n <= 129; n += n == 40 ? 88 : 1) {
            struct problem p;
            bool accumulate = check_below(&rng, 2), quantized = pack_format_of(types[t])->scales != PACK_FLOAT;
            uint32_t rows = check_below(&rng, 2) ? 21 : 16, cols = n == 16 ? 288 : 32 + check_below(&rng, 3) * 96;
            problem_init(&p, types[t], rows, cols_of(types[t], cols), n, (enum check_fill)check_below(&rng, FILL_COUNT),
                         check_next(&rng));
            unsigned long before = vex_trap_count();
            float *want = solve(ref, &p, p.rows + 5, accumulate);
            expect_bits(want, b, &p, accumulate);
            cr_assert(native || (vex_trap_count() > before) == (quantized && n >= 16));
            cr_assert_not(amx_trap_configured(), "tiles are released after each item");
            guard_free(want);
            problem_fini(&p);
        }
    backend_close(b);
    backend_close(ref);
}

/* Every type; below and above the 16 rows from which panels are unpacked first; odd rows, and short tiles. */
Test(matmul, avxvnni_gives_the_bits_of_the_reference)
{
    static const uint32_t counts[] = { 1, 2, 3, 8, 15, 16, 21 };
    bool native;
    struct backend *ref = backend_of("ref", 1), *b = avxvnni_backend(&native);
    if (!b) cr_skip_test("AVX2 is needed");
    uint64_t seed = 1;
    for (size_t t = 0; t < N_TYPES; t++)
        for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++, seed++) {
            struct problem p;
            bool quantized = pack_format_of(types[t])->scales != PACK_FLOAT;
            problem_init(&p, types[t], c % 2 ? 21 : 16, cols_of(types[t], c == 2 ? 288 : 96), counts[c],
                         (enum check_fill)(seed % FILL_COUNT), seed);
            unsigned long before = vex_trap_count();
            float *want = solve(ref, &p, p.rows + 5, seed & 1);
            expect_bits(want, b, &p, seed & 1);
            cr_assert(native || (vex_trap_count() > before) == quantized);
            guard_free(want);
            problem_fini(&p);
        }
    backend_close(b);
    backend_close(ref);
}

Test(matmul, threads_change_nothing)
{
    struct backend *ref = backend_of("auto", 1);
    for (uint32_t threads = 2; threads <= 3; threads++) {
        struct backend *b = backend_of("auto", threads);
        for (size_t t = 0; t < N_TYPES; t++)
            for (uint32_t n = 1; n < 300; n = n * 5 + 2) {
                struct problem p;
                problem_init(&p, types[t], 203, cols_of(types[t], 64), n, FILL_NORMAL, t + n);
                expect_same(ref, b, &p);
                problem_fini(&p);
            }
        backend_close(b);
    }
    backend_close(ref);
}

Test(matmul, row_does_not_depend_on_the_batch)
{
    struct backend *b = backend_of("auto", 2);
    for (size_t t = 0; t < N_TYPES; t++) {
        struct problem p, one;
        problem_init(&p, types[t], 50, cols_of(types[t], 64), 21, FILL_NORMAL, t);
        float *all = solve(b, &p, p.rows, false);
        for (uint32_t i = 0; i < p.n; i++) {
            one = p;
            one.n = 1;
            one.x = p.x + (size_t)i * p.cols;
            float *y = solve(b, &one, p.rows, false);
            cr_assert_arr_eq(y, all + (size_t)i * p.rows, p.rows * sizeof(float));
            guard_free(y);
        }
        guard_free(all);
        problem_fini(&p);
    }
    backend_close(b);
}

Test(matmul, not_a_number_stays_in_its_row)
{
    struct backend *b = backend_of("auto", 1);
    struct problem p;
    problem_init(&p, DTYPE_Q4_1, 16, 64, 3, FILL_NORMAL, 1);
    p.x[64 + 5] = NAN;
    p.x[128 + 40] = INFINITY;
    float *y = solve(b, &p, 16, false);
    for (int i = 0; i < 16; i++) {
        cr_assert(isfinite(y[i]));
        cr_assert(isnan(y[16 + i]) && isnan(y[32 + i]));
    }
    guard_free(y);
    problem_fini(&p);
    backend_close(b);
}

Test(matmul, refuses_shapes_and_types_it_has_no_kernel_for)
{
    struct backend *b = backend_of("auto", 1);
    size_t bytes;
    cr_assert_eq(b->ops->weight_bytes(b, DTYPE_Q4_0, 16, 48, &bytes), ERR_UNSUPPORTED);
    cr_assert_eq(b->ops->weight_bytes(b, DTYPE_Q4_K, 16, 576, &bytes), ERR_UNSUPPORTED);
    cr_assert_eq(b->ops->weight_bytes(b, DTYPE_F32, 16, 40, &bytes), ERR_UNSUPPORTED);
    cr_assert_eq(b->ops->weight_bytes(b, DTYPE_F32, 0, 32, &bytes), ERR_UNSUPPORTED);
    cr_assert_eq(b->ops->weight_bytes(b, DTYPE_F32, 16, 4096, &bytes), ERR_UNSUPPORTED);
    cr_assert_eq(b->ops->weight_bytes(b, (enum dtype)9, 16, 32, &bytes), ERR_UNSUPPORTED);
    cr_assert_eq(b->ops->weight_bytes(b, (enum dtype)63, 16, 32, &bytes), ERR_UNSUPPORTED);
    backend_close(b);
}

/* A fine product is the product of the rows' 8 bits plus that of what those lose; floats are taken as they are. */
static void expect_fine(struct backend *b, enum dtype type, uint32_t n, bool accumulate)
{
    struct problem p;
    problem_init(&p, type, 21 + 16 * 3, cols_of(type, 96), n, FILL_NORMAL, 77 + (uint64_t)type + n);
    const bool quantized = dtype_info((uint32_t)type)->block_elems > 1;
    const size_t ld = p.rows + 3, all = (size_t)n * p.cols;
    float *lost = mem_array(all, sizeof(float));
    dequantized_activations(b, &p, lost);
    for (size_t i = 0; i < all; i++) lost[i] = p.x[i] - lost[i];
    struct problem rest = p;
    rest.x = lost;
    float *fine = solve_as(b, &p, ld, accumulate, FINE), *a = solve(b, &p, ld, false), *c = solve(b, &rest, ld, false);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t r = 0; r < p.rows; r++) {
            const size_t at = i * ld + r;
            float want = quantized ? a[at] + c[at] : a[at];
            if (accumulate) want += 0.25f * (float)(at % 7);
            cr_assert(memcmp(&fine[at], &want, sizeof(want)) == 0, "%s n %u row %u output %u: %a, not %a",
                      dtype_info((uint32_t)type)->name, n, i, r, (double)fine[at], (double)want);
        }
    for (uint32_t i = 0; i < n; i++)
        for (size_t at = i * ld + p.rows; at < (i + 1) * ld; at++)
            cr_assert_eq(fine[at], 0.25f * (float)(at % 7), "written beside the outputs");
    guard_free(fine);
    guard_free(a);
    guard_free(c);
    mem_free(lost);
    problem_fini(&p);
}

Test(matmul, fine_products_are_two_coarse_ones)
{
    const uint32_t rows[] = { 1, 3, 4, 5, 33, 65, 130 };
    struct backend *ref = backend_of("ref", 1), *best = backend_of(NULL, 2);
    for (size_t t = 0; t < N_TYPES; t++) expect_fine(ref, types[t], 5, t % 2);
    for (size_t t = 0; t < N_TYPES; t++)
        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) expect_fine(best, types[t], rows[i], (t + i) % 2);
    backend_close(ref);
    backend_close(best);
}
