/* cpu_rows.c - the ops that take each row by itself: norms, gates, biases, scales and the quantizer. */
#include "compute/cpu/cpu_internal.h"

#include <assert.h>

#define RUN_FLOATS 1024 /* of an array without rows, at a time */

struct row_run {
    const struct cpu_backend *b;
    const struct cpu_kernels *k;
    struct act *out;
    const float *x, *w; /* norms */
    float eps;
    const float *gate, *up;
    enum glu_kind kind;
    size_t ld;
    float *y; /* in place */
    uint32_t cols, n_heads;
    size_t n; /* floats of an array without rows */
    float factor;
};

static struct row_run run_of(struct backend *b)
{
    return (struct row_run){ .b = cpu_of(b), .k = cpu_of(b)->kernels };
}

/* --- the quantized form --- */
static void quantize_fine(const struct cpu_kernels *k, const struct act *out, uint32_t row, float *lost)
{
    const uint32_t r = 2 * row, h = act_tile_height(2 * out->n, r), at = r % ACT_TILE; /* both are in one tile */
    uint8_t *tile = (uint8_t *)out->q + act_tiles_bytes(out->n, out->k) + act_tile_offset(r, out->k);
    const float *x = out->f + (size_t)row * out->k;
    k->quantize(tile, h, at, x, out->k);
    k->lost_by_quantizing(lost, tile, h, at, x, out->k);
    k->quantize(tile, h, at + 1, lost, out->k);
}

void cpu_quantize_rows(const struct cpu_backend *b, const struct act *out, uint32_t row0, uint32_t row1,
                       uint32_t member)
{
    for (uint32_t r = row0; r < row1; r++) {
        b->kernels->quantize((uint8_t *)out->q + act_tile_offset(r, out->k), act_tile_height(out->n, r), r % ACT_TILE,
                             out->f + (size_t)r * out->k, out->k);
        if (out->precision == FINE) quantize_fine(b->kernels, out, r, scratch_of(b, member));
    }
}

static void quantize_rows(void *arg, uint32_t row0, uint32_t row1, uint32_t member)
{
    const struct row_run *r = arg;
    cpu_quantize_rows(r->b, r->out, row0, row1, member);
}

enum status cpu_quantize(struct backend *b, struct stream *s, struct act *out)
{
    struct row_run run = run_of(b);
    run.out = out;
    assert(out->k % 16 == 0);
    cpu_for_rows(cpu_of(b), out->n, 1, quantize_rows, &run);
    return OK;
}

/* --- norms --- */
static void rmsnorm_rows(void *arg, uint32_t row0, uint32_t row1, uint32_t member)
{
    const struct row_run *r = arg;
    for (uint32_t i = row0; i < row1; i++) {
        size_t at = (size_t)i * r->out->k;
        r->k->rmsnorm(r->out->f + at, r->x + at, r->w, r->out->k, r->eps);
        cpu_quantize_rows(r->b, r->out, i, i + 1, member);
    }
}

enum status cpu_rmsnorm(struct backend *b, struct stream *s, struct act *out, const float *x, const float *w, float eps)
{
    struct row_run run = run_of(b);
    run.out = out;
    run.x = x;
    run.w = w;
    run.eps = eps;
    assert(out->k % 16 == 0);
    cpu_for_rows(cpu_of(b), out->n, 1, rmsnorm_rows, &run);
    return OK;
}

static void head_norm_rows(void *arg, uint32_t row0, uint32_t row1, uint32_t member)
{
    const struct row_run *r = arg;
    for (uint32_t i = row0; i < row1; i++)
        for (uint32_t h = 0; h < r->n_heads; h++) {
            float *head = r->y + i * r->ld + (size_t)h * r->cols;
            r->k->rmsnorm(head, head, r->w, r->cols, r->eps);
        }
}

enum status cpu_head_norm(struct backend *b, struct stream *s, float *x, size_t ld, uint32_t n_rows, uint32_t n_heads,
                          uint32_t head_dim, const float *w, float eps)
{
    struct row_run run = run_of(b);
    run.y = x;
    run.ld = ld;
    run.n_heads = n_heads;
    run.cols = head_dim;
    run.w = w;
    run.eps = eps;
    assert(head_dim % 16 == 0);
    cpu_for_rows(cpu_of(b), n_rows, 1, head_norm_rows, &run);
    return OK;
}

static void norm_add_rows(void *arg, uint32_t row0, uint32_t row1, uint32_t member)
{
    const struct row_run *r = arg;
    for (uint32_t i = row0; i < row1; i++) r->k->norm_add(r->y + i * r->ld, r->x + i * r->ld, r->w, r->cols, r->eps);
}

enum status cpu_norm_add(struct backend *b, struct stream *s, float *x, const float *y, size_t ld, uint32_t n,
                         uint32_t k, const float *w, float eps)
{
    struct row_run run = run_of(b);
    run.y = x;
    run.x = y;
    run.ld = ld;
    run.cols = k;
    run.w = w;
    run.eps = eps;
    assert(k % 16 == 0);
    cpu_for_rows(cpu_of(b), n, 1, norm_add_rows, &run);
    return OK;
}

/* --- gates --- */
static void glu_rows(void *arg, uint32_t row0, uint32_t row1, uint32_t member)
{
    const struct row_run *r = arg;
    for (uint32_t i = row0; i < row1; i++) {
        float *out = r->out->f + (size_t)i * r->out->k;
        r->k->glu[r->kind](out, r->gate + i * r->ld, r->up + i * r->ld, r->out->k);
        cpu_quantize_rows(r->b, r->out, i, i + 1, member);
    }
}

enum status cpu_glu(struct backend *b, struct stream *s, struct act *out, const float *gate, const float *up, size_t ld,
                    enum glu_kind kind)
{
    struct row_run run = run_of(b);
    run.out = out;
    run.gate = gate;
    run.up = up;
    run.ld = ld;
    run.kind = kind;
    assert(out->k % 16 == 0 && kind < GLU_COUNT);
    cpu_for_rows(cpu_of(b), out->n, 1, glu_rows, &run);
    return OK;
}

static void gate_rows(void *arg, uint32_t row0, uint32_t row1, uint32_t member)
{
    const struct row_run *r = arg;
    for (uint32_t i = row0; i < row1; i++) {
        r->k->gate(r->out->f + (size_t)i * r->out->k, r->gate + i * r->ld, r->out->k);
        cpu_quantize_rows(r->b, r->out, i, i + 1, member);
    }
}

enum status cpu_gate_act(struct backend *b, struct stream *s, struct act *out, const float *gate, size_t ld)
{
    struct row_run run = run_of(b);
    run.out = out;
    run.gate = gate;
    run.ld = ld;
    assert(out->k % 16 == 0);
    cpu_for_rows(cpu_of(b), out->n, 1, gate_rows, &run);
    return OK;
}

/* --- biases and scales --- */
static void bias_rows(void *arg, uint32_t row0, uint32_t row1, uint32_t member)
{
    const struct row_run *r = arg;
    for (uint32_t i = row0; i < row1; i++) r->k->add(r->y + i * r->ld, r->x, r->cols);
}

enum status cpu_add_bias(struct backend *b, struct stream *s, float *y, size_t ld, const float *bias, uint32_t n,
                         uint32_t cols)
{
    struct row_run run = run_of(b);
    run.y = y;
    run.x = bias;
    run.ld = ld;
    run.cols = cols;
    cpu_for_rows(cpu_of(b), n, 1, bias_rows, &run);
    return OK;
}

/* Floats of run i. */
static uint32_t run_floats(const struct row_run *r, uint32_t i)
{
    const size_t left = r->n - (size_t)i * RUN_FLOATS;
    return left < RUN_FLOATS ? (uint32_t)left : RUN_FLOATS;
}

static uint32_t n_runs(size_t n)
{
    return (uint32_t)((n + RUN_FLOATS - 1) / RUN_FLOATS);
}

static void scale_runs(void *arg, uint32_t run0, uint32_t run1, uint32_t member)
{
    const struct row_run *r = arg;
    for (uint32_t i = run0; i < run1; i++) r->k->scale(r->y + (size_t)i * RUN_FLOATS, run_floats(r, i), r->factor);
}

enum status cpu_scale(struct backend *b, struct stream *s, float *x, size_t n, float factor)
{
    struct row_run run = run_of(b);
    run.y = x;
    run.n = n;
    run.factor = factor;
    cpu_for_rows(cpu_of(b), n_runs(n), 1, scale_runs, &run);
    return OK;
}

static void softcap_runs(void *arg, uint32_t run0, uint32_t run1, uint32_t member)
{
    const struct row_run *r = arg;
    for (uint32_t i = run0; i < run1; i++) r->k->softcap(r->y + (size_t)i * RUN_FLOATS, run_floats(r, i), r->factor);
}

enum status cpu_softcap(struct backend *b, struct stream *s, float *x, size_t n, float cap)
{
    struct row_run run = run_of(b);
    run.y = x;
    run.n = n;
    run.factor = cap;
    cpu_for_rows(cpu_of(b), n_runs(n), 1, softcap_runs, &run);
    return OK;
}
