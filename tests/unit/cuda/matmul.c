/* matmul: the CUDA backend's products give the bits of the CPU's reference, for every type, shape and number of rows.
 */
#include "compute/cuda/cuda_backend.h"
#include "helpers/cuda_check.h"

#include <math.h>
#include <stdio.h>

static const struct backend_limits LIMITS = {
    .max_rows = 256, .max_context = 512, .max_cols = 2048, .max_experts = 9, .max_experts_used = 4
};

static const enum dtype TYPES[] = { DTYPE_Q4_0,    DTYPE_Q4_1,  DTYPE_Q8_0,   DTYPE_Q4_K,    DTYPE_Q6_K,   DTYPE_F16,
                                    DTYPE_BF16,    DTYPE_F32,   DTYPE_Q5_0,   DTYPE_Q5_1,    DTYPE_Q2_K,   DTYPE_Q3_K,
                                    DTYPE_Q5_K,    DTYPE_IQ1_S, DTYPE_IQ1_M,  DTYPE_IQ2_XXS, DTYPE_IQ2_XS, DTYPE_IQ2_S,
                                    DTYPE_IQ3_XXS, DTYPE_IQ3_S, DTYPE_IQ4_NL, DTYPE_IQ4_XS,  DTYPE_TQ1_0,  DTYPE_TQ2_0,
                                    DTYPE_MXFP4,   DTYPE_F64,   DTYPE_I8,     DTYPE_I16,     DTYPE_I32,    DTYPE_I64 };
#define N_TYPES (sizeof(TYPES) / sizeof(TYPES[0]))

static const char *name_of(enum dtype type)
{
    return dtype_info((uint32_t)type)->name;
}

/* `cols`, or as many more as whole blocks of the type have. */
static uint32_t cols_of(enum dtype type, uint32_t cols)
{
    uint32_t elems = dtype_info((uint32_t)type)->block_elems;
    if (elems < 16) elems = 16;
    return (cols + elems - 1) / elems * elems;
}

/* Rows as a file has them, of one matrix or of several. */
struct file_rows {
    enum dtype type;
    uint32_t rows, cols; /* of one matrix */
    size_t stride;
    uint8_t *data;
};

static struct file_rows file_rows(enum dtype type, uint32_t rows, uint32_t cols, uint32_t matrices, uint64_t seed)
{
    struct check_rng rng = { seed };
    const struct dtype_info *info = dtype_info((uint32_t)type);
    struct file_rows f = { .type = type, .rows = rows, .cols = cols, .stride = dtype_row_bytes((uint32_t)type, cols) };
    f.data = mem_array((size_t)rows * matrices, f.stride);
    check_weights(&rng, (uint32_t)type, info->block_elems, info->block_bytes, f.data, (size_t)rows * matrices * cols,
                  0.02f);
    return f;
}

/* A matrix, or a stack of them, as a backend has it. */
static struct weight packed(struct backend *b, const struct file_rows *f, uint32_t experts, enum precision precision)
{
    size_t bytes;
    const uint32_t n = experts ? experts : 1;
    cr_assert_eq(b->ops->weight_bytes(b, f->type, f->rows, f->cols, &bytes), OK, "%s", name_of(f->type));
    struct weight w = { .dtype = f->type,
                        .precision = precision,
                        .n_rows = f->rows,
                        .n_cols = f->cols,
                        .n_experts = experts,
                        .expert_bytes = expert_stride(bytes),
                        .bytes = (n - 1) * expert_stride(bytes) + bytes };
    uint8_t *p = check_device(b, NULL, w.bytes);
    w.data = p;
    for (uint32_t e = 0; e < n; e++)
        cr_assert_eq(b->ops->weight_pack(b, NULL, p + e * w.expert_bytes, f->type, f->rows, f->cols,
                                         f->data + e * f->rows * f->stride, f->stride),
                     OK);
    return w;
}

static void weight_free(struct backend *b, struct weight *w)
{
    check_release(b, (void *)(uintptr_t)w->data, w->bytes);
}

static struct act act_of(struct backend *b, const float *x, uint32_t n, uint32_t k, enum precision precision)
{
    struct act a = { .n = n, .k = k, .precision = precision };
    a.f = check_device(b, x, (size_t)n * k * sizeof(float));
    a.q = check_device(b, NULL, b->ops->act_bytes(b, n, k, precision));
    cr_assert_eq(b->ops->quantize(b, NULL, &a), OK);
    return a;
}

static void act_free(struct backend *b, struct act *a)
{
    check_release(b, a->f, (size_t)a->n * a->k * sizeof(float));
    check_release(b, a->q, b->ops->act_bytes(b, a->n, a->k, a->precision));
}

/* Outputs that were something before: [n][ld]; the caller frees what comes back with mem_free(). */
static float *multiply(struct backend *b, const struct weight *w, const struct act *x, size_t ld, bool accumulate)
{
    const size_t bytes = x->n * ld * sizeof(float);
    float *y = mem_alloc(bytes);
    for (size_t i = 0; i < x->n * ld; i++) y[i] = 0.25f * (float)(i % 7);
    float *d = check_device(b, y, bytes);
    mem_free(y);
    cr_assert_eq(b->ops->matmul(b, NULL, d, ld, w, x, accumulate), OK);
    y = check_host(b, d, bytes);
    check_release(b, d, bytes);
    return y;
}

struct product_case {
    enum dtype type;
    uint32_t rows, cols, n;
    enum check_fill fill;
    enum precision precision;
    bool accumulate;
};

static void expect_same(const struct both *b, const struct product_case *c, uint64_t seed)
{
    struct check_rng rng = { seed };
    struct file_rows f = file_rows(c->type, c->rows, c->cols, 1, seed);
    float *x = mem_array((size_t)c->n * c->cols, sizeof(float)), *y[2];
    char what[120];
    check_fill(&rng, c->fill, x, (size_t)c->n * c->cols);
    for (int i = 0; i < 2; i++) {
        struct backend *one = i ? b->gpu : b->cpu;
        struct weight w = packed(one, &f, 0, c->precision);
        struct act a = act_of(one, x, c->n, c->cols, c->precision);
        y[i] = multiply(one, &w, &a, c->rows + 5, c->accumulate);
        act_free(one, &a);
        weight_free(one, &w);
    }
    snprintf(what, sizeof(what), "%s, %u rows %u cols, %u activations, fill %d precision %d", name_of(c->type), c->rows,
             c->cols, c->n, c->fill, c->precision);
    check_same_floats(y[0], y[1], (size_t)c->n * (c->rows + 5), what);
    mem_free(y[0]);
    mem_free(y[1]);
    mem_free(x);
    mem_free(f.data);
}

/* Shapes: one panel and part of one, panels that do not pair, runs of columns that are not full, several of them. */
Test(cuda_matmul, every_type_and_shape)
{
    static const uint32_t counts[] = { 1, 2, 3, 4, 5, 17 };
    static const uint32_t shapes[][2] = { { 16, 32 }, { 37, 96 }, { 100, 512 }, { 1, 288 }, { 20, 1056 } };
    struct both b = open_both(LIMITS);
    uint64_t seed = 1;
    for (size_t t = 0; t < N_TYPES; t++)
        for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++)
            for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++, seed++) {
                struct product_case c = { TYPES[t],
                                          shapes[s][0],
                                          cols_of(TYPES[t], shapes[s][1]),
                                          counts[i],
                                          (enum check_fill)(seed % FILL_COUNT),
                                          seed % 2 ? COARSE : FINE,
                                          seed % 3 == 0 };
                expect_same(&b, &c, seed);
            }
    close_both(&b);
}

Test(cuda_matmul, every_number_of_rows)
{
    struct both b = open_both(LIMITS);
    struct check_rng rng = { 3 };
    for (uint32_t n = 1; n <= 40; n++)
        for (int i = 0; i < 3; i++) {
            const enum dtype type = TYPES[check_below(&rng, N_TYPES)];
            struct product_case c = { type,
                                      1 + check_below(&rng, 70),
                                      cols_of(type, 16 + check_below(&rng, 600)),
                                      n,
                                      (enum check_fill)check_below(&rng, FILL_COUNT),
                                      check_below(&rng, 2) ? FINE : COARSE,
                                      check_below(&rng, 2) };
            expect_same(&b, &c, n + 100 * (uint64_t)i);
        }
    close_both(&b);
}

/* A row of NaN and one of infinity: theirs are NaN, the others' are not touched. */
Test(cuda_matmul, not_a_number_stays_in_its_row)
{
    struct both b = open_both(LIMITS);
    static const enum dtype types[] = { DTYPE_Q4_1, DTYPE_Q6_K, DTYPE_Q2_K, DTYPE_Q8_0, DTYPE_BF16 };
    for (size_t t = 0; t < sizeof(types) / sizeof(types[0]); t++) {
        struct file_rows f = file_rows(types[t], 16, 256, 1, 1);
        float x[3 * 256];
        struct check_rng rng = { 9 };
        check_fill(&rng, FILL_NORMAL, x, 3 * 256);
        x[256 + 5] = NAN;
        x[512 + 40] = INFINITY;
        struct weight w = packed(b.gpu, &f, 0, COARSE);
        struct act a = act_of(b.gpu, x, 3, 256, COARSE);
        float *y = multiply(b.gpu, &w, &a, 16, false);
        for (int i = 0; i < 16; i++) {
            cr_assert(isfinite(y[i]), "%s", name_of(types[t]));
            cr_assert(!isfinite(y[16 + i]) && !isfinite(y[32 + i]), "%s", name_of(types[t]));
        }
        mem_free(y);
        act_free(b.gpu, &a);
        weight_free(b.gpu, &w);
        mem_free(f.data);
    }
    close_both(&b);
}

/* Rows may come in runs, with others between them, from any address. */
Test(cuda_matmul, runs_of_rows_are_packed_by_themselves)
{
    struct both b = open_both(LIMITS);
    struct backend *gpu = b.gpu;
    const uint32_t quantum = gpu->caps.row_quantum;
    for (size_t t = 0; t < N_TYPES; t++) {
        const uint32_t rows = 3 * quantum + 5, cols = cols_of(TYPES[t], 288);
        struct file_rows f = file_rows(TYPES[t], 2 * rows, cols, 1, t);
        size_t all, before;
        cr_assert_eq(gpu->ops->weight_bytes(gpu, TYPES[t], rows, cols, &all), OK);
        cr_assert_eq(gpu->ops->weight_bytes(gpu, TYPES[t], 2 * quantum, cols, &before), OK);
        uint8_t *whole = check_device(gpu, NULL, all), *parts = check_device(gpu, NULL, all);
        cr_assert_eq(gpu->ops->weight_pack(gpu, NULL, whole, TYPES[t], rows, cols, f.data, 2 * f.stride), OK);
        cr_assert_eq(gpu->ops->weight_pack(gpu, NULL, parts + before, TYPES[t], rows - 2 * quantum, cols,
                                           f.data + 4 * quantum * f.stride, 2 * f.stride),
                     OK);
        cr_assert_eq(gpu->ops->weight_pack(gpu, NULL, parts, TYPES[t], 2 * quantum, cols, f.data, 2 * f.stride), OK);
        uint8_t *want = check_host(gpu, whole, all), *got = check_host(gpu, parts, all);
        cr_assert_eq(check_differs(want, got, all), all, "%s", name_of(TYPES[t]));
        mem_free(want);
        mem_free(got);
        check_release(gpu, whole, all);
        check_release(gpu, parts, all);
        mem_free(f.data);
    }
    close_both(&b);
}

/* No type takes more bits than on the CPU, where a matrix has whole runs. */
Test(cuda_matmul, weights_take_no_more_than_on_the_cpu)
{
    struct both b = open_both(LIMITS);
    for (size_t t = 0; t < N_TYPES; t++) {
        size_t cpu, gpu;
        cr_assert_eq(b.cpu->ops->weight_bytes(b.cpu, TYPES[t], 160, 1024, &cpu), OK);
        cr_assert_eq(b.gpu->ops->weight_bytes(b.gpu, TYPES[t], 160, 1024, &gpu), OK);
        cr_assert(gpu <= cpu, "%s: %zu bytes, not %zu", name_of(TYPES[t]), gpu, cpu);
    }
    close_both(&b);
}

Test(cuda_matmul, refuses_shapes_and_types_it_has_no_kernel_for)
{
    struct both b = open_both(LIMITS);
    struct backend *gpu = b.gpu;
    size_t bytes;
    cr_assert_eq(gpu->ops->weight_bytes(gpu, DTYPE_Q4_0, 16, 48, &bytes), ERR_UNSUPPORTED);
    cr_assert_eq(gpu->ops->weight_bytes(gpu, DTYPE_Q4_K, 16, 576, &bytes), ERR_UNSUPPORTED);
    cr_assert_eq(gpu->ops->weight_bytes(gpu, DTYPE_F32, 16, 40, &bytes), ERR_UNSUPPORTED);
    cr_assert_eq(gpu->ops->weight_bytes(gpu, DTYPE_F32, 0, 32, &bytes), ERR_UNSUPPORTED);
    cr_assert_eq(gpu->ops->weight_bytes(gpu, DTYPE_F32, 16, 4096, &bytes), ERR_UNSUPPORTED);
    cr_assert_eq(gpu->ops->weight_bytes(gpu, (enum dtype)9, 16, 32, &bytes), ERR_UNSUPPORTED);
    cr_assert_eq(gpu->ops->weight_bytes(gpu, (enum dtype)63, 16, 32, &bytes), ERR_UNSUPPORTED);
    close_both(&b);
}

/* --- fast: each 256 columns are summed up by themselves, then the sums, in ascending order --- */
#define RUN 256u

static struct backend *fast_gpu(void)
{
    const struct backend_options opt = { .n_threads = 1, .limits = LIMITS, .numerics = NUMERICS_FAST };
    struct backend *b;
    struct error err;
    cr_assert_eq(backend_open(&b, "cuda", &opt, &err), OK, "%s", err.text);
    return b;
}

/* Adds the product with columns [c0, c0 + cols) to y, by the reference. */
static void add_run(struct backend *cpu, const struct file_rows *f, const float *x, uint32_t n, uint32_t c0,
                    uint32_t cols, float *y)
{
    struct file_rows part = { f->type, f->rows, cols, dtype_row_bytes((uint32_t)f->type, cols), NULL };
    float *x_part = mem_array((size_t)n * cols, sizeof(float));
    part.data = mem_array(f->rows, part.stride);
    for (uint32_t r = 0; r < f->rows; r++)
        memcpy(part.data + r * part.stride, f->data + r * f->stride + dtype_row_bytes((uint32_t)f->type, c0),
               part.stride);
    for (uint32_t i = 0; i < n; i++) memcpy(x_part + (size_t)i * cols, x + (size_t)i * f->cols + c0, cols * sizeof(*x));
    struct weight w = packed(cpu, &part, 0, COARSE);
    struct act a = act_of(cpu, x_part, n, cols, COARSE);
    float *one = multiply(cpu, &w, &a, f->rows, false);
    for (size_t i = 0; i < (size_t)n * f->rows; i++) y[i] += one[i];
    mem_free(one);
    act_free(cpu, &a);
    weight_free(cpu, &w);
    mem_free(part.data);
    mem_free(x_part);
}

Test(cuda_matmul, fast_sums_are_of_runs_of_columns)
{
    static const uint32_t counts[] = { 1, 3, 9, 17, 65 };
    struct both b = open_both(LIMITS);
    struct backend *gpu = fast_gpu();
    for (size_t t = 0; t < N_TYPES; t++)
        for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++) {
            const uint32_t n = counts[c], cols = cols_of(TYPES[t], c % 2 ? 608 : 1056);
            struct check_rng rng = { t };
            struct file_rows f = file_rows(TYPES[t], 37, cols, 1, t + c);
            float *x = mem_array((size_t)n * cols, sizeof(float)), *want = mem_zalloc(n * f.rows * sizeof(float));
            check_fill(&rng, (enum check_fill)((t + c) % FILL_COUNT), x, (size_t)n * cols);
            for (uint32_t c0 = 0; c0 < cols; c0 += RUN)
                add_run(b.cpu, &f, x, n, c0, cols - c0 < RUN ? cols - c0 : RUN, want);
            struct weight w = packed(gpu, &f, 0, COARSE);
            struct act a = act_of(gpu, x, n, cols, COARSE);
            float *got = multiply(gpu, &w, &a, f.rows, false);
            check_same_floats(want, got, (size_t)n * f.rows, name_of(TYPES[t]));
            mem_free(got);
            act_free(gpu, &a);
            weight_free(gpu, &w);
            mem_free(want);
            mem_free(x);
            mem_free(f.data);
        }
    backend_close(gpu);
    close_both(&b);
}

/* A fine product of one row is that of the same row among many. */
Test(cuda_matmul, fast_rows_do_not_depend_on_the_batch)
{
    struct backend *gpu = fast_gpu();
    const uint32_t n = 40;
    for (size_t t = 0; t < N_TYPES; t++) {
        const uint32_t cols = cols_of(TYPES[t], 800);
        struct check_rng rng = { t };
        struct file_rows f = file_rows(TYPES[t], 50, cols, 1, t);
        float *x = mem_array((size_t)n * cols, sizeof(float));
        check_fill(&rng, FILL_NORMAL, x, (size_t)n * cols);
        struct weight w = packed(gpu, &f, 0, t % 2 ? FINE : COARSE);
        struct act all = act_of(gpu, x, n, cols, FINE);
        float *many = multiply(gpu, &w, &all, f.rows, false);
        for (uint32_t i = 0; i < n; i += 7) {
            struct act a = act_of(gpu, x + (size_t)i * cols, 1, cols, FINE);
            float *one = multiply(gpu, &w, &a, f.rows, false);
            check_same_floats(one, many + (size_t)i * f.rows, f.rows, name_of(TYPES[t]));
            mem_free(one);
            act_free(gpu, &a);
        }
        mem_free(many);
        act_free(gpu, &all);
        weight_free(gpu, &w);
        mem_free(x);
        mem_free(f.data);
    }
    backend_close(gpu);
}

/* --- fast, many rows: weights and activations in bf16 where there is cuBLASLt --- */
static float bf16(uint16_t h)
{
    const uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, sizeof(f));
    return f;
}

/* What a GPU multiplies with is what the type says, to a bit of bf16. */
Test(cuda_matmul, weights_become_bf16)
{
    struct backend *gpu = fast_gpu();
    for (size_t t = 0; t < N_TYPES; t++) {
        const enum dtype type = TYPES[t];
        if (dtype_info(type)->block_elems == 1 && type != DTYPE_F16 && type != DTYPE_BF16) continue;
        const uint32_t cols = cols_of(type, 800), row0 = 32, n = 53;
        struct file_rows f = file_rows(type, row0 + n, cols, 1, t);
        struct weight w = packed(gpu, &f, 0, COARSE);
        const size_t bytes = (size_t)n * cols * sizeof(uint16_t);
        uint16_t *d = check_device(gpu, NULL, bytes);
        cr_assert_eq(cuda_weight_dequantize(gpu, &w, row0, n, d), OK);
        uint16_t *got = check_host(gpu, d, bytes);
        float *want = mem_array(cols, sizeof(float));
        for (uint32_t r = 0; r < n; r++) {
            dequantize_row(type, f.data + (row0 + r) * f.stride, want, cols);
            float most = 0;
            for (uint32_t c = 0; c < cols; c++) most = fmaxf(most, fabsf(want[c]));
            for (uint32_t c = 0; c < cols; c++)
                cr_assert(fabsf(bf16(got[r * cols + c]) - want[c]) <= fabsf(want[c]) / 256 + most * 1e-6f,
                          "%s row %u col %u: %g, not %g", name_of(type), r, c, (double)bf16(got[r * cols + c]),
                          (double)want[c]);
        }
        mem_free(want);
        mem_free(got);
        check_release(gpu, d, bytes);
        weight_free(gpu, &w);
        mem_free(f.data);
    }
    backend_close(gpu);
}

/* y (+)= by the definition of each type, in double; errors are weighed by the sum of magnitudes. */
static void expect_near(const struct file_rows *f, const float *x, uint32_t n, const float *y, size_t ld, bool added,
                        double error)
{
    float *w = mem_array(f->cols, sizeof(float));
    for (uint32_t r = 0; r < f->rows; r++) {
        dequantize_row(f->type, f->data + r * f->stride, w, f->cols);
        for (uint32_t i = 0; i < n; i++) {
            const size_t at = i * ld + r;
            double want = added ? 0.25 * (double)(at % 7) : 0, size = 1e-6;
            for (uint32_t c = 0; c < f->cols; c++) {
                want += (double)w[c] * x[(size_t)i * f->cols + c];
                size += fabs((double)w[c] * x[(size_t)i * f->cols + c]);
            }
            cr_assert(fabs(y[at] - want) <= error * size, "%s row %u of %u, output %u: %g, not %g", name_of(f->type), i,
                      n, r, (double)y[at], want);
        }
    }
    mem_free(w);
}

Test(cuda_matmul, fast_products_of_many_rows_are_near)
{
    struct backend *gpu = fast_gpu();
    for (size_t t = 0; t < N_TYPES; t++) {
        const uint32_t n = 150, cols = cols_of(TYPES[t], 288);
        const bool fine = t % 2, added = t / 2 % 2;
        struct check_rng rng = { t };
        struct file_rows f = file_rows(TYPES[t], 41, cols, 1, t);
        float *x = mem_array((size_t)n * cols, sizeof(float));
        check_fill(&rng, FILL_NORMAL, x, (size_t)n * cols);
        struct weight w = packed(gpu, &f, 0, fine ? FINE : COARSE);
        struct act all = act_of(gpu, x, n, cols, FINE);
        const size_t ld = f.rows + 4;
        float *many = multiply(gpu, &w, &all, ld, added);
        expect_near(&f, x, n, many, ld, added, fine ? 0x1p-8 : 0x1p-7);
        for (uint32_t i = 0; i < n; i++)
            for (size_t at = i * ld + f.rows; at < (i + 1) * ld; at++)
                cr_assert_eq(many[at], 0.25f * (float)(at % 7), "written beside the outputs");
        struct act some = act_of(gpu, x, n - 17, cols, FINE);
        float *fewer = multiply(gpu, &w, &some, ld, added);
        check_same_floats(many, fewer, (n - 17) * ld, name_of(TYPES[t]));
        mem_free(fewer);
        act_free(gpu, &some);
        mem_free(many);
        act_free(gpu, &all);
        weight_free(gpu, &w);
        mem_free(x);
        mem_free(f.data);
    }
    backend_close(gpu);
}

/* --- experts --- */
#define EXPERTS 9u
#define UNUSED  4u

/* Some rows more often than others; nobody goes to expert UNUSED. */
static struct route route_on(struct backend *b, const uint32_t *expert, uint32_t n, uint32_t k)
{
    struct route r = { .n = n, .k = k };
    r.expert = check_device(b, expert, (size_t)n * k * sizeof(uint32_t));
    return r;
}

static float *multiply_slots(struct backend *b, const struct file_rows *f, const float *x, uint32_t n_x,
                             const uint32_t *expert, uint32_t n, uint32_t k, enum precision precision)
{
    struct weight w = packed(b, f, EXPERTS, precision);
    struct act a = act_of(b, x, n_x, f->cols, FINE);
    struct route route = route_on(b, expert, n, k);
    const size_t ld = f->rows + 3, bytes = n * k * ld * sizeof(float);
    float *d = check_device(b, NULL, bytes);
    cr_assert_eq(b->ops->expert_matmul(b, NULL, d, ld, &w, &a, &route, n_x == n * k), OK);
    float *y = check_host(b, d, bytes);
    check_release(b, d, bytes);
    check_release(b, route.expert, (size_t)n * k * sizeof(uint32_t));
    act_free(b, &a);
    weight_free(b, &w);
    return y;
}

Test(cuda_matmul, slots_of_experts)
{
    static const enum dtype types[] = { DTYPE_MXFP4, DTYPE_Q4_K, DTYPE_Q8_0, DTYPE_F16, DTYPE_Q6_K, DTYPE_BF16 };
    static const uint32_t counts[] = { 1, 3, 9, 70 };
    struct both b = open_both(LIMITS);
    struct check_rng rng = { 5 };
    for (size_t t = 0; t < sizeof(types) / sizeof(types[0]); t++)
        for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++) {
            const uint32_t n = counts[c], k = 1 + (uint32_t)(c + t) % 4, n_x = (c + t) % 2 ? n * k : n;
            struct file_rows f = file_rows(types[t], t % 2 ? 80 : 37, cols_of(types[t], 96), EXPERTS, t + 7);
            uint32_t *expert = mem_array((size_t)n * k, sizeof(uint32_t));
            float *x = mem_array((size_t)n_x * f.cols, sizeof(float));
            check_fill(&rng, FILL_NORMAL, x, (size_t)n_x * f.cols);
            for (uint32_t i = 0; i < n * k; i++) {
                expert[i] = check_below(&rng, 2) ? 2 : check_below(&rng, EXPERTS);
                if (expert[i] == UNUSED) expert[i] = 0;
            }
            const enum precision precision = (c + t / 2) % 2 ? FINE : COARSE;
            float *want = multiply_slots(b.cpu, &f, x, n_x, expert, n, k, precision);
            float *got = multiply_slots(b.gpu, &f, x, n_x, expert, n, k, precision);
            check_same_floats(want, got, (size_t)n * k * (f.rows + 3), name_of(types[t]));
            mem_free(want);
            mem_free(got);
            mem_free(x);
            mem_free(expert);
            mem_free(f.data);
        }
    close_both(&b);
}
