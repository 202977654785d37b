/* experts.c - routed products: who is chosen and with what weight, and that a slot has the bits of a plain product. */
#include "base/cpu.h"
#include "base/mem.h"
#include "compute/backend.h"
#include "compute/cpu/cpu_internal.h"
#include "helpers/check_backend.h"
#include "helpers/kernel_check.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>
#include <sys/mman.h>

#define MAX_ROWS 320u
#define MAX_USED 4u
#define EXPERTS  9u

static struct backend *backend_of(const char *isa, uint32_t threads)
{
    return check_backend(
        isa, threads,
        (struct backend_limits){ MAX_ROWS, 64, 1024, 8, 64, .max_experts = 256, .max_experts_used = MAX_USED });
}

/* --- the route --- */

static void probabilities(double *p, const float *x, uint32_t n, enum route_gate gate)
{
    double max = -INFINITY, sum = 0;
    for (uint32_t e = 0; e < n; e++) max = fmax(max, x[e]);
    for (uint32_t e = 0; e < n; e++) sum += exp(x[e] - max);
    for (uint32_t e = 0; e < n; e++) {
        p[e] = x[e];
        if (gate == ROUTE_SOFTMAX) p[e] = exp(x[e] - max) / sum;
        if (gate == ROUTE_SIGMOID) p[e] = 1 / (1 + exp(-(double)x[e]));
        if (gate == ROUTE_SQRT_SOFTPLUS) p[e] = sqrt(log1p(exp(-fabs((double)x[e]))) + fmax(x[e], 0));
    }
}

static double two_best(const double *score, uint32_t n)
{
    double best = -INFINITY;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; j < i; j++) best = fmax(best, score[i] + score[j]);
    return n > 1 ? best : score[0];
}

/* Number of those among n that are above `mine`. */
static uint32_t rank_of(const double *score, uint32_t n, double mine)
{
    uint32_t above = 0;
    for (uint32_t i = 0; i < n; i++) above += score[i] > mine;
    return above;
}

/* Weights of all experts, 0 for those that are not chosen; by the definition, in double precision. */
static void route_by_definition(double *weight, const float *x, uint32_t k, const struct route_facts *f)
{
    double p[256], score[256], groups[256], sum = 0, max = -INFINITY;
    probabilities(p, x, f->n_experts, f->gate);
    for (uint32_t e = 0; e < f->n_experts; e++) score[e] = p[e] + (f->bias ? f->bias[e] : 0);
    if (f->n_groups > 1) {
        const uint32_t size = f->n_experts / f->n_groups;
        for (uint32_t g = 0; g < f->n_groups; g++) groups[g] = two_best(score + g * size, size);
        for (uint32_t e = 0; e < f->n_experts; e++)
            if (rank_of(groups, f->n_groups, groups[e / size]) >= f->n_groups_used) score[e] = -INFINITY;
    }
    for (uint32_t e = 0; e < f->n_experts; e++)
        weight[e] = rank_of(score, f->n_experts, score[e]) < k ? p[e] : -INFINITY;
    for (uint32_t e = 0; e < f->n_experts; e++) max = fmax(max, weight[e]);
    for (uint32_t e = 0; e < f->n_experts; e++) {
        if (f->gate == ROUTE_SOFTMAX_CHOSEN) weight[e] = exp(weight[e] - max);
        if (isinf(weight[e])) weight[e] = 0;
        sum += weight[e];
    }
    if (f->gate == ROUTE_SOFTMAX_CHOSEN)
        for (uint32_t e = 0; e < f->n_experts; e++) weight[e] /= sum;
    for (uint32_t e = 0; e < f->n_experts; e++) {
        if (f->norm && f->gate != ROUTE_SOFTMAX_CHOSEN) weight[e] /= fmax(sum, ldexp(1, -14));
        weight[e] *= f->scale;
    }
}

static void expect_route(const struct route *route, const float *x, size_t ld, const struct route_facts *f)
{
    for (uint32_t i = 0; i < route->n; i++) {
        const uint32_t *expert = route->expert + (size_t)i * route->k;
        double want[256];
        route_by_definition(want, x + i * ld, route->k, f);
        for (uint32_t j = 0; j < route->k; j++) {
            const double w = route->weight[(size_t)i * route->k + j];
            cr_assert(expert[j] < f->n_experts && (j == 0 || expert[j] > expert[j - 1]), "row %u: not ascending", i);
            cr_assert(want[expert[j]] > 0, "gate %d row %u: expert %u is not to be chosen", f->gate, i, expert[j]);
            cr_assert(fabs(w - want[expert[j]]) <= 3e-6 * want[expert[j]], "gate %d row %u expert %u: %g, not %g",
                      f->gate, i, expert[j], w, want[expert[j]]);
        }
    }
}

Test(experts, routes_are_chosen_by_the_definition)
{
    enum { ROWS = 40, LD = 260 };
    static float x[ROWS * LD], bias[256], weight[ROWS * MAX_USED];
    static uint32_t expert[ROWS * MAX_USED];
    struct check_rng rng = { 1 };
    struct backend *b = backend_of("auto", 2);
    check_fill(&rng, FILL_NORMAL, x, ROWS * LD);
    check_fill(&rng, FILL_NORMAL, bias, 256);
    for (int i = 0; i < 256; i++) bias[i] *= 0.05f;
    static const uint32_t counts[] = { 4, 6, 16, 60, 256 };
    for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++)
        for (int gate = ROUTE_SOFTMAX; gate <= ROUTE_SQRT_SOFTPLUS; gate++)
            for (int variant = 0; variant < 8; variant++) {
                struct route_facts f = { (enum route_gate)gate, counts[c], .norm = variant & 1, .scale = 1 };
                struct route route = { expert, weight, ROWS, 1 + (uint32_t)variant % MAX_USED };
                if (variant & 2) f.bias = bias;
                if (variant & 4) f.scale = 2.5f;
                if (variant & 4 && counts[c] % 4 == 0 && counts[c] > 4) f.n_groups = 4, f.n_groups_used = 2;
                cr_assert_eq(b->ops->route(b, NULL, &route, x, LD, &f), OK);
                expect_route(&route, x, LD, &f);
            }
    backend_close(b);
}

/* A group of one is as good as its expert. */
Test(experts, groups_may_have_one_expert)
{
    enum { ROWS = 10, N = 8 };
    float x[ROWS * N], weight[ROWS * 3];
    uint32_t expert[ROWS * 3];
    struct check_rng rng = { 11 };
    struct route route = { expert, weight, ROWS, 3 };
    const struct route_facts f = { ROUTE_SIGMOID, N, .n_groups = N, .n_groups_used = 3, .norm = true, .scale = 1 };
    struct backend *b = backend_of("auto", 1);
    check_fill(&rng, FILL_NORMAL, x, ROWS * N);
    cr_assert_eq(b->ops->route(b, NULL, &route, x, N, &f), OK);
    expect_route(&route, x, N, &f);
    backend_close(b);
}

Test(experts, of_equals_the_first_is_chosen_and_tiny_sums_are_clamped)
{
    float x[2 * 16] = { 0 }, weight[2 * 3];
    uint32_t expert[2 * 3];
    struct route route = { expert, weight, 2, 3 };
    struct backend *b = backend_of("auto", 1);
    for (int i = 0; i < 16; i++) x[16 + i] = -40.0f;
    x[5] = x[9] = 1.0f;
    const struct route_facts f = { ROUTE_SIGMOID, 16, .norm = true, .scale = 1 };
    cr_assert_eq(b->ops->route(b, NULL, &route, x, 16, &f), OK);
    const uint32_t want[] = { 0, 5, 9, 0, 1, 2 };
    cr_assert_arr_eq(expert, want, sizeof(want));
    cr_assert(fabs(weight[3] - exp(-40) * 16384) < 1e-6 * (double)weight[3], "%g", (double)weight[3]);
    backend_close(b);
}

/* Whatever the logits are, a row gets k experts that exist, each once. */
Test(experts, rows_of_no_numbers_get_experts_too)
{
    enum { N = 20 };
    float x[3 * N], weight[3 * 4];
    uint32_t expert[3 * 4];
    struct route route = { expert, weight, 3, 4 };
    struct backend *b = backend_of("auto", 1);
    for (int gate = ROUTE_SOFTMAX; gate <= ROUTE_SQRT_SOFTPLUS; gate++)
        for (int groups = 0; groups < 2; groups++) {
            for (int i = 0; i < N; i++) {
                x[i] = NAN;
                x[N + i] = i % 3 ? NAN : (float)i;
                x[2 * N + i] = i % 2 ? INFINITY : -INFINITY;
            }
            struct route_facts f = { (enum route_gate)gate, N, .norm = true, .scale = 1 };
            if (groups) f.n_groups = 5, f.n_groups_used = 2;
            cr_assert_eq(b->ops->route(b, NULL, &route, x, N, &f), OK);
            for (int i = 0; i < 12; i++)
                cr_assert(expert[i] < N && (i % 4 == 0 || expert[i] > expert[i - 1]), "gate %d", gate);
        }
    backend_close(b);
}

Test(experts, every_level_routes_as_the_reference)
{
    static float x[256], a[256], b[256];
    const struct cpu_kernels *k;
    struct check_rng rng = { 2 };
    for (size_t level = 1; (k = cpu_kernel_levels[level]) != NULL; level++)
        for (int fill = 0; fill < FILL_COUNT && (k->flags & cpu_flags()) == k->flags; fill++)
            for (uint32_t n = 1; n <= 256; n += n < 36 ? 1 : 55)
                for (int gate = ROUTE_SOFTMAX; gate <= ROUTE_SQRT_SOFTPLUS; gate++) {
                    check_fill(&rng, (enum check_fill)fill, x, n);
                    cpu_kernels_ref.route_gate(a, x, n, (enum route_gate)gate);
                    k->route_gate(b, x, n, (enum route_gate)gate);
                    cr_assert(check_differs(a, b, n * sizeof(float)) == n * sizeof(float), "%s gate %d n %u", k->name,
                              gate, n);
                }
}

/* --- the product --- */

struct stack {
    struct weight w;
    uint8_t *gguf, *packed;
    size_t stride, mapped;
};

/* Experts begin on pages of their own, so that one may be taken away. */
static void stack_init(struct stack *s, struct backend *b, enum dtype type, uint32_t rows, uint32_t cols,
                       enum precision precision)
{
    struct check_rng rng = { 7 + (uint64_t)type };
    const struct dtype_info *info = dtype_info((uint32_t)type);
    size_t bytes;
    s->stride = dtype_row_bytes((uint32_t)type, cols);
    s->gguf = mem_alloc(s->stride * rows * EXPERTS);
    check_weights(&rng, (uint32_t)type, info->block_elems, info->block_bytes, s->gguf, (size_t)rows * cols * EXPERTS,
                  0.02f);
    cr_assert_eq(b->ops->weight_bytes(b, type, rows, cols, &bytes), OK);
    const size_t step = (expert_stride(bytes) + 4095) & ~(size_t)4095;
    s->mapped = step * EXPERTS;
    void *p = mmap(NULL, s->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert(p != MAP_FAILED);
    s->packed = p;
    for (uint32_t e = 0; e < EXPERTS; e++)
        cr_assert_eq(b->ops->weight_pack(b, NULL, s->packed + e * step, type, rows, cols,
                                         s->gguf + e * rows * s->stride, s->stride),
                     OK);
    s->w = (struct weight){ .dtype = type,
                            .precision = precision,
                            .n_rows = rows,
                            .n_cols = cols,
                            .n_experts = EXPERTS,
                            .expert_bytes = step,
                            .data = s->packed,
                            .bytes = s->mapped };
}

static void stack_fini(struct stack *s)
{
    mem_free(s->gguf);
    munmap(s->packed, s->mapped);
}

/* Expert `unused` is nobody's; expert 2 has most of the slots. */
static void make_route(struct route *route, uint32_t n, uint32_t k, uint32_t unused)
{
    struct check_rng rng = { n };
    *route = (struct route){ .n = n, .k = k };
    route->expert = mem_array((size_t)n * k, sizeof(uint32_t));
    route->weight = mem_array((size_t)n * k, sizeof(float));
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0, e = 0; j < k; j++, e++) {
            while (e == unused || (e != 2 && EXPERTS - e > k - j + 2 && check_below(&rng, 3))) e++;
            route->expert[i * k + j] = e;
            route->weight[i * k + j] = check_normal(&rng);
        }
}

static void route_fini(struct route *r)
{
    mem_free(r->expert);
    mem_free(r->weight);
}

/* Slot `slot` by a plain product with its expert alone. */
static void plain_slot(struct backend *b, const struct stack *s, const float *x, uint32_t expert, float *y)
{
    struct weight w = s->w;
    struct act one = { .f = (float *)(uintptr_t)x, .n = 1, .k = w.n_cols, .precision = w.precision };
    w.n_experts = 0;
    w.data = s->packed + expert * w.expert_bytes;
    one.q = mem_alloc(b->ops->act_bytes(b, 1, w.n_cols, w.precision));
    cr_assert_eq(b->ops->quantize(b, NULL, &one), OK);
    cr_assert_eq(b->ops->matmul(b, NULL, y, w.n_rows, &w, &one, false), OK);
    mem_free(one.q);
}

static void expect_slots(struct backend *b, const struct stack *s, const struct route *route, bool by_slot)
{
    const uint32_t slots = route->n * route->k, n = by_slot ? slots : route->n, cols = s->w.n_cols, rows = s->w.n_rows;
    const size_t ld = rows + 3;
    struct check_rng rng = { 5 };
    struct act x = { .f = mem_array((size_t)n * cols, sizeof(float)), .n = n, .k = cols, .precision = FINE };
    float *y = guard_alloc(slots * ld * sizeof(float)), *want = mem_array(rows, sizeof(float));
    check_fill(&rng, FILL_NORMAL, x.f, (size_t)n * cols);
    x.q = guard_alloc(b->ops->act_bytes(b, n, cols, FINE));
    for (size_t i = 0; i < slots * ld; i++) y[i] = 0.5f;
    cr_assert_eq(b->ops->quantize(b, NULL, &x), OK);
    cr_assert_eq(b->ops->expert_matmul(b, NULL, y, ld, &s->w, &x, route, by_slot), OK);
    cr_assert(guard_intact(y) && guard_intact(x.q));
    for (uint32_t i = 0; i<slots; i += slots> 50 ? 1 + check_below(&rng, 7) : 1) {
        plain_slot(b, s, x.f + (size_t)(by_slot ? i : i / route->k) * cols, route->expert[i], want);
        cr_assert_arr_eq(y + i * ld, want, rows * sizeof(float), "%s %s slot %u of %u", backend_describe(b),
                         dtype_info((uint32_t)s->w.dtype)->name, i, slots);
        for (uint32_t c = rows; c < ld; c++) cr_assert_eq(y[i * ld + c], 0.5f, "written beside the outputs");
    }
    guard_free(y);
    guard_free(x.q);
    mem_free(want);
    mem_free(x.f);
}

static const enum dtype types[] = { DTYPE_MXFP4, DTYPE_Q4_K, DTYPE_Q8_0, DTYPE_F16,
                                    DTYPE_Q4_0,  DTYPE_Q6_K, DTYPE_F32,  DTYPE_BF16 };
#define N_TYPES (sizeof(types) / sizeof(types[0]))

static uint32_t cols_of(enum dtype type)
{
    return dtype_info((uint32_t)type)->block_elems == 256 ? 512 : 96;
}

Test(experts, a_slot_has_the_bits_of_a_plain_product)
{
    for (uint32_t threads = 1; threads <= 3; threads++) {
        struct backend *b = backend_of("auto", threads);
        for (size_t t = 0; t < N_TYPES; t++)
            for (int variant = 0; variant < 4; variant++) {
                static const uint32_t counts[] = { 1, 3, 9, 70 };
                struct stack s;
                stack_init(&s, b, types[t], variant % 2 ? 16 * 5 : 37, cols_of(types[t]), variant < 2 ? COARSE : FINE);
                for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++) {
                    struct route route;
                    make_route(&route, counts[c], 1 + (uint32_t)(c + t) % MAX_USED, 4);
                    expect_slots(b, &s, &route, (t + c + (size_t)variant) % 2);
                    route_fini(&route);
                }
                stack_fini(&s);
            }
        backend_close(b);
    }
}

/* More slots of one expert than an item of work takes. */
Test(experts, one_expert_may_have_all_rows)
{
    struct backend *b = backend_of("auto", 2);
    for (size_t t = 0; t < N_TYPES; t++) {
        struct stack s;
        struct route route = { .n = MAX_ROWS, .k = 1 };
        stack_init(&s, b, types[t], 37, cols_of(types[t]), t % 2 ? FINE : COARSE);
        route.expert = mem_array(MAX_ROWS, sizeof(uint32_t));
        for (uint32_t i = 0; i < MAX_ROWS; i++) route.expert[i] = i % 10 ? 6 : 1;
        expect_slots(b, &s, &route, t % 2);
        mem_free(route.expert);
        stack_fini(&s);
    }
    backend_close(b);
}

Test(experts, levels_agree)
{
    struct route route;
    make_route(&route, 19, 3, 0);
    for (const struct cpu_kernels *const *k = cpu_kernel_levels; *k; k++) {
        if (((*k)->flags & cpu_flags()) != (*k)->flags) continue;
        struct backend *b = backend_of((*k)->name, 1);
        for (size_t t = 0; t < N_TYPES; t++) {
            struct stack s;
            stack_init(&s, b, types[t], 21, cols_of(types[t]), t % 2 ? FINE : COARSE);
            expect_slots(b, &s, &route, false); /* plain products of every level agree: matmul.c */
            stack_fini(&s);
        }
        backend_close(b);
    }
    route_fini(&route);
}

/* The memory of an expert that nobody uses is taken away: reading it would end the test. */
Test(experts, those_that_are_not_used_are_not_read)
{
    struct backend *b = backend_of("auto", 2);
    struct stack s;
    struct route route;
    stack_init(&s, b, DTYPE_Q4_0, 37, 96, COARSE);
    make_route(&route, 30, 4, 4);
    cr_assert_eq(mprotect(s.packed + 4 * s.w.expert_bytes, s.w.expert_bytes, PROT_NONE), 0);
    expect_slots(b, &s, &route, false);
    route_fini(&route);
    stack_fini(&s);
    backend_close(b);
}

/* --- biases and the sum --- */

Test(experts, biases_are_those_of_the_slots_experts)
{
    enum { COLS = 37, LD = 40 };
    static float y[30 * 3 * LD], want[30 * 3 * LD], bias[EXPERTS * COLS];
    struct check_rng rng = { 8 };
    struct route route;
    make_route(&route, 30, 3, 5);
    struct backend *b = backend_of("auto", 2);
    check_fill(&rng, FILL_NORMAL, bias, EXPERTS * COLS);
    check_fill(&rng, FILL_NORMAL, y, 30 * 3 * LD);
    memcpy(want, y, sizeof(y));
    for (uint32_t i = 0; i < 90; i++)
        for (uint32_t c = 0; c < COLS; c++) want[i * LD + c] += bias[route.expert[i] * COLS + c];
    cr_assert_eq(b->ops->expert_bias(b, NULL, y, LD, bias, COLS, &route), OK);
    cr_assert_arr_eq(y, want, sizeof(y));
    route_fini(&route);
    backend_close(b);
}

Test(experts, outputs_are_summed_in_ascending_order)
{
    enum { D = 80, LD = 83, K = 4 };
    static float x[30 * LD], want[30 * LD], y[30 * K * D], got[30 * LD];
    struct check_rng rng = { 9 };
    struct route route;
    make_route(&route, 30, K, 5);
    check_fill(&rng, FILL_NORMAL, x, 30 * LD);
    check_fill(&rng, FILL_NORMAL, y, 30 * K * D);
    memcpy(want, x, sizeof(x));
    for (uint32_t i = 0; i < 30; i++)
        for (uint32_t c = 0; c < D; c++) {
            float sum = 0;
            for (uint32_t j = 0; j < K; j++) sum = fmaf(route.weight[i * K + j], y[(i * K + j) * D + c], sum);
            want[i * LD + c] += sum;
        }
    for (const struct cpu_kernels *const *k = cpu_kernel_levels; *k; k++) {
        if (((*k)->flags & cpu_flags()) != (*k)->flags) continue;
        struct backend *b = backend_of((*k)->name, 2);
        memcpy(got, x, sizeof(x));
        cr_assert_eq(b->ops->expert_sum(b, NULL, got, LD, y, &route, D), OK);
        cr_assert_arr_eq(got, want, sizeof(got), "%s", (*k)->name);
        backend_close(b);
    }
    route_fini(&route);
}
