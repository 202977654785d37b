/* gates.c - norms of heads and branches, gates, caps and scales: the formulas, and the ops that take rows of them. */
#include "base/mem.h"
#include "compute/backend.h"
#include "compute/cpu/cpu_internal.h"
#include "helpers/check_backend.h"
#include "helpers/kernel_check.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#define N   576
#define EPS 1e-5f

static struct backend *backend_of(const char *isa, uint32_t threads)
{
    return check_backend(isa, threads, (struct backend_limits){ 64, 64, 4096, 8, 64 });
}

static void expect_near(double want, double got, double bound, const char *what, double x)
{
    cr_assert(fabs(got - want) <= bound * fabs(want) + 1e-34, "%s of %g is %.9g, not %.9g", what, x, got, want);
}

/* From -58 to 57, fine near 0. */
static void ramp(float *x)
{
    for (int i = 0; i < N; i++) x[i] = (float)(i - N / 2) * (i % 3 ? 0.2f : 0.002f);
}

Test(gates, glus_are_what_they_say)
{
    const struct cpu_kernels *k = &cpu_kernels_ref;
    struct check_rng rng = { 1 };
    float g[N], u[N], y[N];
    ramp(g);
    check_fill(&rng, FILL_NORMAL, u, N);
    k->glu[GLU_SILU](y, g, u, N);
    for (int i = 0; i < N; i++) expect_near(g[i] / (1 + exp(-(double)g[i])) * u[i], y[i], 1e-6, "silu", g[i]);
    k->glu[GLU_GELU](y, g, u, N);
    for (int i = 0; i < N; i++) {
        double t = sqrt(2 / M_PI) * (g[i] + 0.044715 * pow(g[i], 3)), want = 0.5 * g[i] * (1 + tanh(t)) * u[i];
        cr_assert(fabs(y[i] - want) <= 2e-6 * fabs(want) + 1e-12, "gelu of %g is %.9g, not %.9g", (double)g[i],
                  (double)y[i], want);
    }
    for (int i = 0; i < N; i++) u[i] *= 6;
    k->glu[GLU_OAI](y, g, u, N);
    for (int i = 0; i < N; i++) {
        double a = fmin(g[i], 7), b = fmax(-7, fmin(7, u[i]));
        expect_near(a / (1 + exp(-1.702 * a)) * (b + 1), y[i], 3e-6, "gpt-oss's gate", g[i]);
    }
}

Test(gates, what_is_not_a_number_stays_visible)
{
    const struct cpu_kernels *k = &cpu_kernels_ref;
    float g[16], u[16], y[16];
    for (int kind = 0; kind < GLU_COUNT; kind++)
        for (int i = 0; i < 2; i++) {
            for (int j = 0; j < 16; j++) g[j] = u[j] = 1.0f;
            (i ? g : u)[3] = NAN;
            k->glu[kind](y, g, u, 16);
            for (int j = 0; j < 16; j++) cr_assert(isnan(y[j]) == (j == 3));
        }
    u[0] = NAN;
    k->softcap(u, 16, 30.0f);
    cr_assert(isnan(u[0]) && !isnan(u[1]));
}

Test(gates, softcap_is_exact_to_a_few_ulp)
{
    float x[N], y[N];
    ramp(x);
    memcpy(y, x, sizeof(y));
    cpu_kernels_ref.softcap(y, N, 5.0f);
    for (int i = 0; i < N; i++) expect_near(5 * tanh((double)x[i] / 5), y[i], 5e-7, "softcap", x[i]);
}

Test(gates, head_norm_takes_each_head_by_itself)
{
    enum { ROWS = 9, HEADS = 3, DIM = 48, LD = HEADS * DIM + 5 };
    struct check_rng rng = { 3 };
    static float x[ROWS * LD], y[ROWS * LD];
    float w[DIM], want[DIM];
    check_fill(&rng, FILL_NORMAL, x, ROWS * LD);
    check_fill(&rng, FILL_NORMAL, w, DIM);
    for (uint32_t threads = 1; threads <= 3; threads++)
        for (int weighted = 0; weighted < 2; weighted++) {
            struct backend *b = backend_of("auto", threads);
            memcpy(y, x, sizeof(y));
            cr_assert_eq(b->ops->head_norm(b, NULL, y, LD, ROWS, HEADS, DIM, weighted ? w : NULL, EPS), OK);
            for (int r = 0; r < ROWS; r++) {
                for (int h = 0; h < HEADS; h++) {
                    const float *head = x + r * LD + h * DIM;
                    double squares = 0;
                    for (int d = 0; d < DIM; d++) squares += (double)head[d] * head[d];
                    for (int d = 0; d < DIM; d++) {
                        want[d] = y[r * LD + h * DIM + d];
                        expect_near(head[d] / sqrt(squares / DIM + (double)EPS) * (weighted ? w[d] : 1), want[d], 1e-6,
                                    "head_norm", head[d]);
                    }
                }
                cr_assert_arr_eq(y + r * LD + HEADS * DIM, x + r * LD + HEADS * DIM, 5 * sizeof(float));
            }
            backend_close(b);
        }
}

Test(gates, norm_add_adds_a_normed_branch)
{
    enum { ROWS = 7, K = 80, LD = 83 };
    struct check_rng rng = { 4 };
    static float x[ROWS * LD], y[ROWS * LD], z[ROWS * LD];
    float w[K];
    check_fill(&rng, FILL_NORMAL, x, ROWS * LD);
    check_fill(&rng, FILL_NORMAL, y, ROWS * LD);
    check_fill(&rng, FILL_NORMAL, w, K);
    struct backend *b = backend_of("auto", 2);
    for (int weighted = 0; weighted < 2; weighted++) {
        memcpy(z, x, sizeof(z));
        cr_assert_eq(b->ops->norm_add(b, NULL, z, y, LD, ROWS, K, weighted ? w : NULL, EPS), OK);
        for (int r = 0; r < ROWS; r++) {
            double squares = 0;
            for (int i = 0; i < K; i++) squares += (double)y[r * LD + i] * y[r * LD + i];
            for (int i = 0; i < K; i++) {
                double add = y[r * LD + i] / sqrt(squares / K + (double)EPS) * (weighted ? w[i] : 1);
                cr_assert(fabs(z[r * LD + i] - (x[r * LD + i] + add)) < 1e-6);
            }
            cr_assert_arr_eq(z + r * LD + K, x + r * LD + K, 3 * sizeof(float));
        }
    }
    backend_close(b);
}

/* Lengths around the runs that the team shares out. */
Test(gates, scale_and_softcap_take_any_number_of_floats)
{
    static const size_t lengths[] = { 0, 1, 15, 16, 17, 1023, 1024, 1025, 4096, 9001 };
    struct check_rng rng = { 5 };
    struct backend *b = backend_of("auto", 2);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        const size_t n = lengths[i], bytes = (n + 1) * sizeof(float);
        float *x = mem_alloc(bytes), *y = guard_alloc(n * sizeof(float));
        check_fill(&rng, FILL_NORMAL, x, n);
        memcpy(y, x, n * sizeof(float));
        cr_assert_eq(b->ops->scale(b, NULL, y, n, 0.7f), OK);
        for (size_t j = 0; j < n; j++) cr_assert_eq(y[j], x[j] * 0.7f);
        cr_assert_eq(b->ops->softcap(b, NULL, y, n, 2.0f), OK);
        for (size_t j = 0; j < n; j++) expect_near(2 * tanh((double)(x[j] * 0.7f) / 2), y[j], 5e-7, "softcap", x[j]);
        cr_assert(guard_intact(y));
        mem_free(x);
        guard_free(y);
    }
    backend_close(b);
}

Test(gates, rmsnorm_takes_each_row_by_itself)
{
    enum { ROWS = 9, K = 96 };
    struct check_rng rng = { 7 };
    static float x[ROWS * K], w[K], f[ROWS * K], want[K];
    struct backend *b = backend_of("auto", 2);
    const size_t bytes = b->ops->act_bytes(b, ROWS, K, FINE);
    uint8_t *q = mem_zalloc(bytes), *want_q = mem_zalloc(bytes);
    check_fill(&rng, FILL_NORMAL, x, ROWS * K);
    check_fill(&rng, FILL_NORMAL, w, K);
    struct act out = { f, q, ROWS, K, FINE }, plain = { f, want_q, ROWS, K, FINE };
    for (int weighted = 0; weighted < 2; weighted++) {
        cr_assert_eq(b->ops->rmsnorm(b, NULL, &out, x, weighted ? w : NULL, EPS), OK);
        for (int r = 0; r < ROWS; r++) {
            cpu_of(b)->kernels->rmsnorm(want, x + r * K, weighted ? w : NULL, K, EPS);
            cr_assert_arr_eq(f + r * K, want, sizeof(want));
        }
        cr_assert_eq(b->ops->quantize(b, NULL, &plain), OK);
        cr_assert_arr_eq(q, want_q, bytes);
    }
    mem_free(q);
    mem_free(want_q);
    backend_close(b);
}

/* glu and gate_act give the floats of their kernels, and the quantized form that quantize() makes of those. */
Test(gates, gated_rows_are_quantized)
{
    enum { ROWS = 11, K = 96, LD = 100 };
    struct check_rng rng = { 6 };
    static float gate[ROWS * LD], up[ROWS * LD], f[ROWS * K], want[ROWS * K];
    struct backend *b = backend_of("auto", 2);
    const size_t bytes = b->ops->act_bytes(b, ROWS, K, FINE);
    check_fill(&rng, FILL_NORMAL, gate, ROWS * LD);
    check_fill(&rng, FILL_NORMAL, up, ROWS * LD);
    for (int op = 0; op <= GLU_COUNT; op++) {
        uint8_t *q = mem_zalloc(bytes), *want_q = mem_zalloc(bytes);
        struct act out = { f, q, ROWS, K, FINE }, plain = { want, want_q, ROWS, K, FINE };
        for (int r = 0; r < ROWS; r++) {
            memcpy(f + r * K, up + r * LD, K * sizeof(float));
            if (op < GLU_COUNT) {
                cpu_of(b)->kernels->glu[op](want + r * K, gate + r * LD, up + r * LD, K);
                continue;
            }
            memcpy(want + r * K, up + r * LD, K * sizeof(float));
            cpu_of(b)->kernels->gate(want + r * K, gate + r * LD, K);
            for (int i = 0; i < K; i++)
                expect_near(up[r * LD + i] / (1 + exp(-(double)gate[r * LD + i])), want[r * K + i], 1e-6, "gate",
                            gate[r * LD + i]);
        }
        if (op < GLU_COUNT)
            cr_assert_eq(b->ops->glu(b, NULL, &out, gate, up, LD, (enum glu_kind)op), OK);
        else
            cr_assert_eq(b->ops->gate_act(b, NULL, &out, gate, LD), OK);
        cr_assert_eq(b->ops->quantize(b, NULL, &plain), OK);
        cr_assert_arr_eq(f, want, sizeof(f));
        cr_assert_arr_eq(q, want_q, bytes);
        mem_free(q);
        mem_free(want_q);
    }
    backend_close(b);
}
