/* rows.c - norms, gates, quantizer, RoPE, rotation and softmax: every level has the reference's bits,
 * and the reference is right. */
#include "base/cpu.h"
#include "base/mem.h"
#include "compute/backend.h"
#include "compute/cpu/cpu_kernels.h"
#include "compute/cpu/half.h"
#include "helpers/kernel_check.h"

#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <string.h>

#define N 1552 /* not a multiple of 32: the last block of activations is half empty */

static const uint32_t widths[] = { 16, 64, 80, 576, N };
#define N_WIDTHS (sizeof(widths) / sizeof(widths[0]))

/* Calls body with `k` = every level that this processor has, above the reference `ref`. */
#define EACH_LEVEL(k)                                                                                                  \
    const struct cpu_kernels *ref = &cpu_kernels_ref, *k;                                                              \
    for (size_t level_ = 1; (k = cpu_kernel_levels[level_]) != NULL; level_++)                                         \
        if ((k->flags & cpu_flags()) == k->flags)

static void expect_same(const void *want, const void *got, size_t bytes, const char *level, const char *what)
{
    size_t at = check_differs(want, got, bytes);
    cr_assert(at == bytes, "%s of %s differs at byte %zu of %zu", what, level, at, bytes);
}

#define ROW_OP(name, call)                                                                                             \
    static void name##_op(const struct cpu_kernels *k, float *y, const float *x, const float *w, uint32_t n)           \
    {                                                                                                                  \
        call;                                                                                                          \
    }
ROW_OP(rmsnorm, k->rmsnorm(y, x, w, n, 1e-5f))
ROW_OP(rmsnorm_plain, k->rmsnorm(y, y, NULL, n, 1e-5f))
ROW_OP(norm_add, k->norm_add(y, x, w, n, 1e-5f))
ROW_OP(norm_add_plain, k->norm_add(y, w, NULL, n, 1e-5f))
ROW_OP(glu_silu, k->glu[GLU_SILU](y, x, w, n))
ROW_OP(glu_gelu, k->glu[GLU_GELU](y, x, w, n))
ROW_OP(glu_oai, k->glu[GLU_OAI](y, w, x, n))
ROW_OP(gate, k->gate(y, w, n))
ROW_OP(gate_by_itself, k->gate(y, x, n))
ROW_OP(add, k->add(y, w, n - 3))
ROW_OP(scale, k->scale(y, n - 3, 1.7f))
ROW_OP(softcap, k->softcap(y, n - 3, 1.5f))
ROW_OP(rotate, if (n <= 512) k->rotate(y, n))

static const struct {
    const char *name;
    void (*run)(const struct cpu_kernels *k, float *y, const float *x, const float *w, uint32_t n);
} row_ops[] = {
    { "rmsnorm", rmsnorm_op },   { "rmsnorm without weight", rmsnorm_plain_op },
    { "norm_add", norm_add_op }, { "norm_add without weight", norm_add_plain_op },
    { "silu", glu_silu_op },     { "gelu", glu_gelu_op },
    { "oai", glu_oai_op },       { "gate", gate_op },
    { "add", add_op },           { "gate by itself", gate_by_itself_op },
    { "scale", scale_op },       { "softcap", softcap_op },
    { "rotate", rotate_op },
};
#define N_ROW_OPS (sizeof(row_ops) / sizeof(row_ops[0]))

Test(rows, every_level_has_the_bits_of_the_reference)
{
    static float x[N], w[N], a[N], b[N];
    struct check_rng rng = { 1 };
    EACH_LEVEL(k)
    for (int fill = 0; fill < FILL_COUNT; fill++)
        for (size_t i = 0; i < N_WIDTHS; i++) {
            uint32_t n = widths[i];
            check_fill(&rng, (enum check_fill)fill, x, n);
            check_fill(&rng, FILL_NORMAL, w, n);
            for (size_t op = 0; op < N_ROW_OPS; op++) {
                for (int side = 0; side < 2; side++) {
                    float *y = side ? b : a;
                    memcpy(y, x, n * sizeof(float));
                    row_ops[op].run(side ? k : ref, y, x, w, n);
                }
                expect_same(a, b, n * sizeof(float), k->name, row_ops[op].name);
            }
        }
}

/* One group by docs/numerics.md: its scale; q[16] and their sum. */
static float group_by_definition(int8_t *q, int32_t *sum, const float *x)
{
    float amax = 0, scale;
    bool finite = true;
    for (int i = 0; i < 16; i++) {
        finite = finite && isfinite(x[i]);
        amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
    }
    scale = amax / 127.0f;
    *sum = 0;
    for (int i = 0; i < 16; i++) {
        q[i] = finite && scale >= FLT_MIN ? (int8_t)rint((double)x[i] * (double)(1.0f / scale)) : 0;
        *sum += q[i];
    }
    return !finite ? NAN : scale < FLT_MIN ? 1.0f : scale;
}

Test(rows, reference_quantizes_by_the_definition)
{
    static float x[N], lost[N];
    static uint8_t tile[(size_t)3 * ACT_ROW_BYTES * (N + ACT_BLOCK) / ACT_BLOCK];
    const uint32_t h = 3, r = 1;
    struct check_rng rng = { 4 };
    for (int fill = 0; fill < FILL_COUNT; fill++) {
        check_fill(&rng, (enum check_fill)fill, x, N);
        x[40] = NAN;
        x[N - 1] = INFINITY;
        memset(x + 64, 0, 16 * sizeof(float));
        cpu_kernels_ref.quantize(tile, h, r, x, N);
        cpu_kernels_ref.lost_by_quantizing(lost, tile, h, r, x, N);
        for (uint32_t c = 0; c < N; c += 16) {
            const uint8_t *block = tile + (size_t)(c / ACT_BLOCK) * h * ACT_ROW_BYTES;
            uint32_t g = c % ACT_BLOCK / 16;
            int8_t q[16];
            int32_t sum, minus_sum;
            float want = group_by_definition(q, &sum, x + c), scale;
            memcpy(&scale, block + 32 * h + 8 * r + 4 * g, 4);
            memcpy(&minus_sum, block + 40 * h + 8 * r + 4 * g, 4);
            cr_assert(scale == want || (isnan(scale) && isnan(want)), "scale of column %u", c);
            cr_assert_eq(minus_sum, -sum, "sum of column %u", c);
            cr_assert(memcmp(block + ACT_BLOCK * r + 16 * g, q, 16) == 0, "values of column %u", c);
            for (int i = 0; i < 16 && !isnan(want); i++) {
                float rounded = scale * (float)q[i];
                cr_assert_eq(lost[c + (uint32_t)i], x[c + (uint32_t)i] - rounded, "rest of column %u", c);
            }
        }
    }
}

Test(rows, every_level_quantizes_as_the_reference)
{
    static float x[N], lost[2][N];
    struct check_rng rng = { 2 };
    EACH_LEVEL(k)
    for (int fill = 0; fill < FILL_COUNT; fill++)
        for (size_t i = 0; i < N_WIDTHS; i++)
            for (uint32_t h = 1; h <= ACT_TILE; h++) {
                uint32_t n = widths[i];
                size_t bytes = (size_t)h * act_blocks(n) * ACT_ROW_BYTES;
                uint8_t *a = guard_alloc(bytes), *b = guard_alloc(bytes);
                for (uint32_t r = 0; r < h; r++) {
                    check_fill(&rng, (enum check_fill)fill, x, n);
                    if (r == 3) x[n / 2] = NAN;
                    if (r == 4) x[n / 3] = -INFINITY;
                    ref->quantize(a, h, r, x, n);
                    k->quantize(b, h, r, x, n);
                    ref->lost_by_quantizing(lost[0], a, h, r, x, n);
                    k->lost_by_quantizing(lost[1], b, h, r, x, n);
                    if (r < 3) expect_same(lost[0], lost[1], n * sizeof(float), k->name, "lost_by_quantizing");
                }
                expect_same(a, b, bytes, k->name, "quantize");
                cr_assert(guard_intact(a) && guard_intact(b));
                guard_free(a);
                guard_free(b);
            }
}

Test(rows, every_level_quantizes_heads_as_the_reference)
{
    static const uint32_t dims[] = { 64, 80, 96, 128, 256, 512 };
    float x[512];
    int16_t qa[512], qb[512];
    int8_t ka[512], kb[512];
    uint16_t ha[512], hb[512];
    struct check_rng rng = { 3 };
    EACH_LEVEL(k)
    for (int fill = 0; fill < FILL_COUNT; fill++)
        for (size_t i = 0; i < sizeof(dims) / sizeof(dims[0]); i++) {
            uint32_t n = dims[i];
            check_fill(&rng, (enum check_fill)fill, x, n);
            cr_assert(ref->q_quantize(qa, x, n) == k->q_quantize(qb, x, n));
            expect_same(qa, qb, n * sizeof(*qa), k->name, "q_quantize");
            cr_assert(ref->kv_quantize(ka, x, n) == k->kv_quantize(kb, x, n));
            expect_same(ka, kb, n, k->name, "kv_quantize");
            for (uint32_t j = 0; j < n; j++) cr_assert(ka[j] >= -127);
            ref->to_half(ha, x, n);
            k->to_half(hb, x, n);
            expect_same(ha, hb, n * sizeof(*ha), k->name, "to_half");
        }
}

Test(rows, every_level_turns_as_the_reference)
{
    static const uint32_t dims[] = { 2, 20, 64, 80, 96, 128, 256 };
    float x[256], c[256], s[256], a[256], b[256];
    struct check_rng rng = { 4 };
    EACH_LEVEL(k)
    for (size_t i = 0; i < sizeof(dims) / sizeof(dims[0]); i++)
        for (int neox = 0; neox < 2; neox++) {
            check_fill(&rng, FILL_NORMAL, x, 256);
            check_fill(&rng, FILL_NORMAL, c, 256);
            check_fill(&rng, FILL_NORMAL, s, 256);
            memcpy(a, x, sizeof(a));
            memcpy(b, x, sizeof(b));
            ref->rope(a, c, s, dims[i], neox);
            k->rope(b, c, s, dims[i], neox);
            expect_same(a, b, sizeof(a), k->name, "rope");
        }
}

Test(rows, every_level_weighs_as_the_reference)
{
    static const struct attn_seen seen[] = { { 0, 1 },   { 0, 2 },   { 0, 15 },  { 0, 16 },  { 0, 17 },
                                             { 0, 31 },  { 0, 48 },  { 0, 63 },  { 0, 64 },  { 1, 64 },
                                             { 15, 17 }, { 16, 40 }, { 33, 34 }, { 47, 64 }, { 63, 64 } };
    float s[64], v[64], fa[64], fb[64];
    int16_t pa[64], pb[64];
    struct check_rng rng = { 5 };
    EACH_LEVEL(k)
    for (int fill = 0; fill < FILL_COUNT; fill++)
        for (size_t i = 0; i < sizeof(seen) / sizeof(seen[0]); i++) {
            struct attn_state sa = { -INFINITY, 0 }, sb = sa;
            for (int block = 0; block < 3; block++) {
                check_fill(&rng, (enum check_fill)fill, s, 64);
                for (int t = 0; t < 64; t++)
                    v[t] = (uint32_t)t >= seen[i].first && (uint32_t)t < seen[i].end ? (float)check_unit(&rng) : NAN;
                struct attn_weights wa = ref->softmax_int8(pa, &sa, s, v, seen[i]);
                struct attn_weights wb = k->softmax_int8(pb, &sb, s, v, seen[i]);
                expect_same(&wa, &wb, sizeof(wa), k->name, "attn_weights");
                expect_same(&sa, &sb, sizeof(sa), k->name, "attn_state");
                expect_same(pa, pb, sizeof(pa), k->name, "softmax_int8");
                memcpy(fa, s, sizeof(fa));
                memcpy(fb, s, sizeof(fb));
                struct attn_state ta = sa, tb = sb;
                cr_assert(ref->softmax_f16(fa, &ta, seen[i]) == k->softmax_f16(fb, &tb, seen[i]));
                expect_same(fa, fb, sizeof(fa), k->name, "softmax_f16");
            }
        }
}

/* --- the reference itself, on the fastest level: they are the same --- */

Test(rows, rmsnorm_and_silu_are_what_they_say)
{
    const struct cpu_kernels *k = cpu_kernels_best(cpu_flags());
    float x[576], w[576], y[576];
    struct check_rng rng = { 6 };
    check_fill(&rng, FILL_NORMAL, x, 576);
    check_fill(&rng, FILL_NORMAL, w, 576);
    double squares = 0;
    for (int i = 0; i < 576; i++) squares += (double)x[i] * x[i];
    k->rmsnorm(y, x, w, 576, 1e-5f);
    for (int i = 0; i < 576; i++) {
        double want = x[i] / sqrt(squares / 576 + 1e-5) * w[i];
        cr_assert(fabs(y[i] - want) <= 1e-6 * fabs(want));
    }
    for (int i = 0; i < 576; i++) x[i] = (float)(i - 288) * 0.4f;
    k->glu[GLU_SILU](y, x, w, 576);
    for (int i = 0; i < 576; i++) {
        double want = x[i] / (1 + exp(-(double)x[i])) * w[i];
        cr_assert(fabs(y[i] - want) <= 1e-6 * fabs(want) + 1e-34, "silu(%g): %g, not %g", (double)x[i], (double)y[i],
                  want);
    }
}

Test(rows, quantizer_keeps_its_rules)
{
    const struct cpu_kernels *k = cpu_kernels_best(cpu_flags());
    float x[32] = { 0 };
    uint8_t tile[ACT_ROW_BYTES];
    float scale[2], sum;
    int32_t minus_sum[2];
    for (int i = 0; i < 16; i++) x[16 + i] = (float)(i - 7);
    x[16] = -254; /* scale 2: halves go to even */
    k->quantize(tile, 1, 0, x, 32);
    memcpy(scale, tile + 32, 8);
    memcpy(minus_sum, tile + 40, 8);
    memcpy(&sum, tile + 48, 4);
    cr_assert(scale[0] == 1 && scale[1] == 2);
    static const int8_t want[16] = { -127, -3, -2, -2, -2, -1, 0, 0, 0, 1, 2, 2, 2, 3, 4, 4 };
    int total = 0;
    for (int i = 0; i < 16; i++) {
        cr_assert_eq((int8_t)tile[i], 0);
        total += want[i];
        cr_assert_eq((int8_t)tile[16 + i], want[i], "%d: %d", i, (int8_t)tile[16 + i]);
    }
    cr_assert(minus_sum[0] == 0 && minus_sum[1] == -total && sum == 2.0f * (float)total);
    for (int i = 0; i < 32; i++) x[i] = FLT_MIN; /* amax / 127 is below the normal numbers */
    k->quantize(tile, 1, 0, x, 32);
    memcpy(scale, tile + 32, 8);
    cr_assert(scale[0] == 1 && tile[0] == 0);
    x[0] = FLT_MAX;
    k->quantize(tile, 1, 0, x, 32);
    cr_assert_eq(tile[0], 127);
    x[1] = NAN;
    k->quantize(tile, 1, 0, x, 32);
    memcpy(scale, tile + 32, 8);
    cr_assert(isnan(scale[0]) && tile[0] == 0 && scale[1] == 1);
}

Test(rows, rotation_keeps_dot_products)
{
    static const uint32_t dims[] = { 16, 64, 80, 96, 128, 256 };
    const struct cpu_kernels *k = cpu_kernels_best(cpu_flags());
    struct check_rng rng = { 7 };
    for (size_t i = 0; i < sizeof(dims) / sizeof(dims[0]); i++) {
        float a[256], b[256];
        double before = 0, after = 0, size = 0;
        check_fill(&rng, FILL_NORMAL, a, dims[i]);
        check_fill(&rng, FILL_NORMAL, b, dims[i]);
        for (uint32_t d = 0; d < dims[i]; d++) before += (double)a[d] * b[d], size += fabs((double)a[d] * b[d]);
        k->rotate(a, dims[i]);
        k->rotate(b, dims[i]);
        for (uint32_t d = 0; d < dims[i]; d++) after += (double)a[d] * b[d];
        cr_assert(fabs(before - after) < 1e-5 * size);
        float one[256] = { 1 }; /* an outlier is spread over its block */
        uint32_t block = dims[i] & (~dims[i] + 1);
        k->rotate(one, dims[i]);
        for (uint32_t d = 0; d < dims[i]; d++)
            cr_assert(fabsf(one[d] - (d < block ? 1 / sqrtf((float)block) : 0)) < 1e-6f);
    }
}

Test(rows, embedding_rows_are_dequantized)
{
    struct backend_limits limits = { 8, 64, 64, 1, 64 };
    struct backend *b;
    struct error err;
    struct check_rng rng = { 9 };
    uint8_t table[34 * 2 * 10];
    const int32_t tokens[] = { 9, 0, 4, 4, 1 };
    float out[5 * 64], want[64];
    cr_assert_eq(backend_open(&b, "cpu", &(struct backend_options){ .n_threads = 2, .limits = limits }, &err), OK, "%s",
                 err.text);
    struct batch batch = { .n_rows = 5, .tokens = tokens };
    struct embedding e = { .type = DTYPE_Q8_0, .n_cols = 64, .rows = table };
    struct step step;
    cr_assert_eq(b->ops->step_begin(b, NULL, &batch, &step), OK);
    check_weights(&rng, DTYPE_Q8_0, 32, 34, table, 640, 0.1f);
    cr_assert_eq(b->ops->embed(b, NULL, out, &e, &step), OK);
    for (int i = 0; i < 5; i++) {
        dequantize_row(DTYPE_Q8_0, table + 68 * tokens[i], want, 64);
        cr_assert_arr_eq(out + 64 * i, want, sizeof(want));
    }
    e.gathered = true; /* the same rows, brought together by somebody else */
    cr_assert_eq(b->ops->embed(b, NULL, out, &e, &step), OK);
    for (int i = 0; i < 5; i++) {
        dequantize_row(DTYPE_Q8_0, table + 68 * i, want, 64);
        cr_assert_arr_eq(out + 64 * i, want, sizeof(want));
    }
    e.n_cols = 40;
    cr_assert_eq(b->ops->embed(b, NULL, out, &e, &step), ERR_UNSUPPORTED);
    backend_close(b);
}

Test(rows, creation_says_what_is_wrong)
{
    struct backend_limits limits = { 8, 64, 64, 1, 64 };
    struct backend *b = NULL;
    struct error err;
    cr_assert_eq(
        backend_open(&b, "cpu", &(struct backend_options){ .n_threads = 1, .isa = "sse9", .limits = limits }, &err),
        ERR_INVALID);
    cr_assert(strstr(err.text, "sse9") && strstr(err.text, "avx2"));
    cr_assert_eq(backend_open(&b, "cpu", &(struct backend_options){ .n_threads = 0, .limits = limits }, &err),
                 ERR_INVALID);
    cr_assert_eq(
        backend_open(&b, "cpu", &(struct backend_options){ .n_threads = 1, .cpus = "0-", .limits = limits }, &err),
        ERR_INVALID);
    limits.max_head_dim = 72;
    cr_assert_eq(backend_open(&b, "cpu", &(struct backend_options){ .n_threads = 1, .limits = limits }, &err),
                 ERR_UNSUPPORTED);
    cr_assert(b == NULL && strstr(err.text, "72"));
    static const struct {
        struct backend_limits limits;
        const char *says; /* NULL: fine */
    } rows[] = {
        { { 0, 64, 64, 1, 64 }, "every limit must be at least 1" },
        { { 8, 0, 64, 1, 64 }, "every limit must be" },
        { { 8, 64, 0, 1, 64 }, "every limit must be" },
        { { 8, 64, 64, 0, 64 }, "every limit must be" },
        { { 8, 64, 64, 1, 0 }, "every limit must be" },
        { { 8, 64, 64, 0, 0 }, NULL },
        { { 1, 1, 1, 1, 16 }, NULL },
        { { 8, 64, 64, 1, 512 }, NULL },
        { { 8, 64, 64, 1, 528 }, "head dimension 528" },
        { { 8, 64, 64, 1, 64, .max_latent = 24 }, "latents of 24" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct backend_options opt = { .n_threads = 1, .limits = rows[i].limits };
        const enum status st = backend_open(&b, "cpu", &opt, &err);
        cr_assert_eq(st == OK, !rows[i].says, "row %zu: %s", i, err.text);
        if (rows[i].says) cr_assert(strstr(err.text, rows[i].says), "%s", err.text);
        if (st == OK) backend_close(b);
        b = NULL;
    }
    backend_close(NULL);
}

Test(rows, backends_open_by_name)
{
    const struct backend_options opt = { .n_threads = 1, .isa = "ref", .limits = { 8, 64, 64, 1, 64 } };
    struct backend *b = NULL;
    struct error err;
    cr_assert_eq(backend_open(&b, "abacus", &opt, &err), ERR_INVALID);
    cr_assert(b == NULL && strstr(err.text, "abacus") && strstr(err.text, "cpu"), "%s", err.text);
    cr_assert_eq(backend_open(&b, "cpu", &opt, &err), OK, "%s", err.text);
    cr_assert_str_eq(backend_describe(b), "ref");
    cr_assert(b->caps.host_memory && b->caps.deterministic);
    backend_close(b);
}

/* What the capabilities promise: rows from a multiple of row_quantum on pack by themselves to the same bytes. */
Test(rows, weights_pack_in_runs_of_the_row_quantum)
{
    enum { COLS = 64, ROWS = 50 };
    const struct backend_options opt = { .n_threads = 1, .limits = { 8, 64, COLS, 1, 64 } };
    struct backend *b = NULL;
    struct error err;
    float src[ROWS * COLS];
    _Alignas(64) static uint8_t whole[64 * COLS * 4], runs[64 * COLS * 4];
    size_t all = 0, before = 0;
    for (int i = 0; i < ROWS * COLS; i++) src[i] = (float)i * 0.25f;
    cr_assert_eq(backend_open(&b, "cpu", &opt, &err), OK, "%s", err.text);
    const struct backend_ops *ops = b->ops;
    cr_assert_eq(ops->weight_bytes(b, DTYPE_F32, ROWS, COLS, &all), OK);
    cr_assert_leq(all, sizeof(whole));
    cr_assert_eq(ops->weight_pack(b, NULL, whole, DTYPE_F32, ROWS, COLS, src, COLS * 4), OK);
    for (uint32_t r = 0; r < ROWS; r += b->caps.row_quantum) {
        uint32_t n = ROWS - r < b->caps.row_quantum ? ROWS - r : b->caps.row_quantum;
        if (r > 0) cr_assert_eq(ops->weight_bytes(b, DTYPE_F32, r, COLS, &before), OK);
        cr_assert_eq(ops->weight_pack(b, NULL, runs + before, DTYPE_F32, n, COLS, src + r * COLS, COLS * 4), OK);
    }
    cr_assert_arr_eq(whole, runs, all);
    cr_assert_eq(ops->weight_bytes(b, DTYPE_F32, 16, COLS + b->caps.col_quantum / 2, &all), ERR_UNSUPPORTED);
    backend_close(b);
}

/* Logit rows are the last ones of each sequence, numbered through. */
Test(rows, logit_rows_are_gathered_in_order)
{
    const struct backend_options opt = { .n_threads = 1, .limits = { 16, 64, 64, 1, 64 } };
    const struct batch_seq seqs[] = { { .row0 = 0, .n_rows = 3, .n_logits = 1 },
                                      { .row0 = 3, .n_rows = 4, .n_logits = 0 },
                                      { .row0 = 7, .n_rows = 5, .n_logits = 3 },
                                      { .row0 = 12, .n_rows = 1, .n_logits = 1 } };
    const struct batch batch = { .n_rows = 13, .seqs = seqs, .n_seqs = 4 };
    const uint32_t want[] = { 2, 9, 10, 11, 12 };
    struct backend *b = NULL;
    struct error err;
    struct step step;
    float x[13][16], out[5][16];
    for (int i = 0; i < 13; i++)
        for (int k = 0; k < 16; k++) x[i][k] = (float)(100 * i + k);
    cr_assert_eq(backend_open(&b, "cpu", &opt, &err), OK, "%s", err.text);
    cr_assert_eq(b->ops->step_begin(b, NULL, &batch, &step), OK);
    cr_assert_eq(step.n_logits, 5);
    for (uint32_t first = 0; first < 5; first++) {
        cr_assert_eq(b->ops->gather_rows(b, NULL, &out[0][0], &x[0][0], 16, &step, first, 5 - first), OK);
        for (uint32_t i = first; i < 5; i++) cr_assert_arr_eq(out[i - first], x[want[i]], sizeof(x[0]));
    }
    backend_close(b);
}
