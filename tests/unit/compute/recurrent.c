/* recurrent.c - convolution, delta rule and Mamba-2's scan: right, and the same bits however the work is cut. */
#include "base/cpu.h"
#include "base/mem.h"
#include "compute/backend.h"
#include "compute/cpu/cpu_kernels.h"
#include "helpers/check_backend.h"
#include "helpers/kernel_check.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#define N_TOKENS 150
#define N_SLOTS  4

enum op { CONV, DELTA, MAMBA2 };

/* One layer's op, its shape, and one sequence's inputs. */
struct scene {
    enum op op;
    const char *name;
    struct state_geometry geom;
    uint32_t other;                     /* key heads, or groups of B and C */
    bool flag;                          /* CONV: bias and SiLU; DELTA: tiled */
    size_t in_width, gate_width, width; /* floats of a row: inputs, gates, results */
    float *in, *gates;                  /* [N_TOKENS][in_width], [N_TOKENS][gate_width] */
    float *w, *bias, *a, *d;
};

static const struct scene scenes[] = {
    { .op = CONV, .name = "conv", .geom = { 5, 3, 48 }, .flag = true },
    { .op = CONV, .name = "conv of many channels", .geom = { 70, 3, 16 } },
    { .op = CONV, .name = "conv of two positions", .geom = { 1, 1, 32 }, .flag = true },
    { .op = DELTA, .name = "delta rule", .geom = { 4, 64, 64 }, .other = 2 },
    { .op = DELTA, .name = "tiled delta rule", .geom = { 6, 32, 80 }, .other = 3, .flag = true },
    { .op = DELTA, .name = "delta rule of one head", .geom = { 1, 128, 16 }, .other = 1 },
    { .op = MAMBA2, .name = "scan", .geom = { 6, 64, 64 }, .other = 1 },
    { .op = MAMBA2, .name = "scan in groups", .geom = { 4, 37, 48 }, .other = 2 },
};
#define N_SCENES (sizeof(scenes) / sizeof(scenes[0]))

static struct scene scene_of(size_t i)
{
    struct check_rng rng = { 7 + i };
    struct scene s = scenes[i];
    const struct state_geometry *g = &s.geom;
    const size_t heads = g->n_heads;
    s.width = heads * g->cols;
    s.in_width = s.op == CONV ? s.width : s.width + 2 * (size_t)s.other * g->rows;
    s.gate_width = s.op == CONV ? 0 : s.op == DELTA ? 2 * heads : heads;
    s.in = mem_array(N_TOKENS * s.in_width, sizeof(float));
    s.gates = mem_array(N_TOKENS * s.gate_width + 1, sizeof(float));
    s.w = mem_array((g->rows + 1) * s.width, sizeof(float));
    s.bias = mem_array(s.width, sizeof(float));
    s.a = mem_array(heads, sizeof(float));
    s.d = mem_array(heads, sizeof(float));
    check_fill(&rng, FILL_NORMAL, s.in, N_TOKENS * s.in_width);
    check_fill(&rng, FILL_NORMAL, s.gates, N_TOKENS * s.gate_width);
    check_fill(&rng, FILL_NORMAL, s.w, (g->rows + 1) * s.width);
    check_fill(&rng, FILL_NORMAL, s.bias, s.width);
    check_fill(&rng, FILL_NORMAL, s.d, heads);
    for (size_t h = 0; h < heads; h++) s.a[h] = -0.02f - 0.3f * (float)h / (float)heads;
    for (size_t t = 0; t < N_TOKENS * s.gate_width; t += 11) s.gates[t] *= 9; /* both ends of softplus and sigmoid */
    return s;
}

static void scene_free(struct scene *s)
{
    mem_free(s->in);
    mem_free(s->gates);
    mem_free(s->w);
    mem_free(s->bias);
    mem_free(s->a);
    mem_free(s->d);
}

static struct backend *backend_of(const char *isa, uint32_t threads)
{
    return check_backend(isa, threads, (struct backend_limits){ 256, 256, 4096, 32, 256, 0 });
}

/* N_SLOTS slots full of junk. */
static struct state_slices slots_of(struct backend *b, const struct state_geometry *geom)
{
    struct check_rng rng = { 3 };
    struct state_slices s = { .stride = b->ops->state_slot_bytes(b, geom), .geom = *geom };
    cr_assert(s.stride > 0 && s.stride % 64 == 0);
    s.base = guard_alloc(N_SLOTS * s.stride);
    for (size_t i = 0; i < N_SLOTS * s.stride; i++) s.base[i] = (uint8_t)check_next(&rng);
    return s;
}

/* Runs the batch, whose row i has the inputs of row[i] of the scene; out [n_rows][width]. */
static void run_batch(struct backend *b, const struct scene *s, const struct state_slices *state,
                      const struct batch *batch, const uint32_t *row, float *out)
{
    const struct state_geometry *g = &s->geom;
    struct step step;
    float *in = guard_alloc(batch->n_rows * s->in_width * sizeof(float));
    float *gates = guard_alloc((batch->n_rows * s->gate_width + 1) * sizeof(float));
    float *got = guard_alloc(batch->n_rows * s->width * sizeof(float));
    for (uint32_t i = 0; i < batch->n_rows; i++) {
        memcpy(in + i * s->in_width, s->in + row[i] * s->in_width, s->in_width * sizeof(float));
        memcpy(gates + i * s->gate_width, s->gates + row[i] * s->gate_width, s->gate_width * sizeof(float));
    }
    cr_assert_eq(b->ops->step_begin(b, NULL, batch, &step), OK);
    if (s->op == CONV) {
        const struct conv_facts f = { g->rows + 1, s->w, s->flag ? s->bias : NULL, s->flag };
        cr_assert_eq(b->ops->conv_step(b, NULL, got, s->width, in, s->in_width, &f, state, &step), OK);
    } else if (s->op == DELTA) {
        const struct delta_inputs x = { in, s->in_width, gates, gates + g->n_heads, s->gate_width, s->gate_width };
        const struct delta_facts f = { s->other, g->n_heads, 1e-6f, s->bias, s->a, s->flag };
        cr_assert_eq(b->ops->delta_rule(b, NULL, got, s->width, &x, &f, state, &step), OK);
    } else {
        const struct mamba2_inputs x = { in, s->in_width, gates, s->gate_width };
        const struct mamba2_facts f = { g->n_heads, s->other, s->bias, s->a, s->d };
        cr_assert_eq(b->ops->mamba2_scan(b, NULL, got, s->width, &x, &f, state, &step), OK);
    }
    cr_assert(guard_intact(in) && guard_intact(gates) && guard_intact(got) && guard_intact(state->base));
    memcpy(out, got, batch->n_rows * s->width * sizeof(float));
    guard_free(in);
    guard_free(gates);
    guard_free(got);
}

/* Tokens [t0, t1) of the scene in slot `slot`, in steps of `chunk`. */
static void run_tokens(struct backend *b, const struct scene *s, const struct state_slices *state, uint32_t slot,
                       uint32_t t0, uint32_t t1, uint32_t chunk, float *out)
{
    uint32_t row[N_TOKENS];
    for (uint32_t t = t0; t < t1; t += chunk) {
        const uint32_t n = t1 - t < chunk ? t1 - t : chunk;
        const struct batch_seq seq = { .n_rows = n, .pos0 = t, .state = slot };
        const struct batch batch = { .n_rows = n, .seqs = &seq, .n_seqs = 1 };
        for (uint32_t i = 0; i < n; i++) row[i] = t + i;
        run_batch(b, s, state, &batch, row, out + t * s->width);
    }
}

/* All tokens; *end, unless NULL, becomes the state after them. */
static float *run_all(struct backend *b, const struct scene *s, uint32_t chunk, uint8_t **end)
{
    struct state_slices state = slots_of(b, &s->geom);
    float *out = mem_array(N_TOKENS * s->width, sizeof(float));
    run_tokens(b, s, &state, 2, 0, N_TOKENS, chunk, out);
    if (end) {
        *end = mem_alloc(state.stride);
        cr_assert_eq(b->ops->state_pack(b, NULL, &state, 2, 0, s->geom.n_heads, *end), OK);
    }
    guard_free(state.base);
    return out;
}

/* --- by the formulas, in double precision --- */
static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static void conv_double(const struct scene *s, double *out)
{
    const uint32_t kernel = s->geom.rows + 1;
    for (uint32_t t = 0; t < N_TOKENS; t++)
        for (size_t c = 0; c < s->width; c++) {
            double y = s->flag ? s->bias[c] : 0;
            for (uint32_t j = 0; j < kernel; j++)
                if (t + j + 1 >= kernel)
                    y += (double)s->w[j * s->width + c] * s->in[(t + j + 1 - kernel) * s->in_width + c];
            out[t * s->width + c] = s->flag ? y * sigmoid(y) : y;
        }
}

static double gate_of(const struct scene *s, uint32_t t, size_t i)
{
    return s->gates[t * s->gate_width + i];
}

static void delta_double(const struct scene *s, double *out)
{
    const struct state_geometry *g = &s->geom;
    const uint32_t group = g->n_heads / s->other;
    double *state = mem_array((size_t)g->rows * g->cols, sizeof(double)), k[256], q[256];
    for (uint32_t h = 0; h < g->n_heads; h++) {
        const uint32_t kh = s->flag ? h % s->other : h / group;
        memset(state, 0, (size_t)g->rows * g->cols * sizeof(double));
        for (uint32_t t = 0; t < N_TOKENS; t++) {
            const float *in = s->in + t * s->in_width, *kin = in + (s->other + kh) * (size_t)g->rows;
            const float *qin = in + kh * (size_t)g->rows, *v = in + 2 * s->other * (size_t)g->rows + h * g->cols;
            double kk = 1e-6, qq = 1e-6;
            for (uint32_t j = 0; j < g->rows; j++) kk += (double)kin[j] * kin[j], qq += (double)qin[j] * qin[j];
            for (uint32_t j = 0; j < g->rows; j++) k[j] = kin[j] / sqrt(kk), q[j] = qin[j] / sqrt(qq) / sqrt(g->rows);
            double beta = sigmoid(gate_of(s, t, h));
            double decay = exp(log1p(exp(gate_of(s, t, g->n_heads + h) + s->bias[h])) * s->a[h]);
            for (uint32_t i = 0; i < g->cols; i++) {
                double u = 0, o = 0;
                for (uint32_t j = 0; j < g->rows; j++) u += (state[j * g->cols + i] *= decay) * k[j];
                for (uint32_t j = 0; j < g->rows; j++) o += (state[j * g->cols + i] += beta * (v[i] - u) * k[j]) * q[j];
                out[t * s->width + h * g->cols + i] = o;
            }
        }
    }
    mem_free(state);
}

static void mamba2_double(const struct scene *s, double *out)
{
    const struct state_geometry *g = &s->geom;
    double *state = mem_array((size_t)g->rows * g->cols, sizeof(double));
    for (uint32_t h = 0; h < g->n_heads; h++) {
        memset(state, 0, (size_t)g->rows * g->cols * sizeof(double));
        for (uint32_t t = 0; t < N_TOKENS; t++) {
            const float *x = s->in + t * s->in_width + h * g->cols;
            const float *b = s->in + t * s->in_width + s->width + h / (g->n_heads / s->other) * g->rows;
            const float *c = b + s->other * g->rows;
            double dt = log1p(exp(gate_of(s, t, h) + s->bias[h])), decay = exp(dt * s->a[h]);
            for (uint32_t i = 0; i < g->cols; i++) {
                double o = (double)s->d[h] * x[i];
                for (uint32_t n = 0; n < g->rows; n++) {
                    double *y = &state[n * g->cols + i];
                    *y = *y * decay + dt * x[i] * b[n];
                    o += *y * c[n];
                }
                out[t * s->width + h * g->cols + i] = o;
            }
        }
    }
    mem_free(state);
}

Test(recurrent, is_close_to_double_precision)
{
    struct backend *b = backend_of("auto", 2);
    for (size_t i = 0; i < N_SCENES; i++) {
        struct scene s = scene_of(i);
        float *out = run_all(b, &s, N_TOKENS, NULL);
        double *want = mem_array(N_TOKENS * s.width, sizeof(double));
        (s.op == CONV ? conv_double : s.op == DELTA ? delta_double : mamba2_double)(&s, want);
        for (uint32_t t = 0; t < N_TOKENS; t++) {
            double size = 0, err = 0;
            for (size_t c = t * s.width; c < (t + 1) * s.width; c++) {
                size += want[c] * want[c];
                err += (out[c] - want[c]) * (out[c] - want[c]);
            }
            cr_assert(sqrt(err / size) < 2e-6, "%s, token %u: relative error %g", s.name, t, sqrt(err / size));
        }
        mem_free(out);
        mem_free(want);
        scene_free(&s);
    }
    backend_close(b);
}

static void expect_same(const struct scene *s, const float *want, const float *got, const char *what)
{
    const size_t n = N_TOKENS * s->width, at = check_differs(want, got, n * sizeof(float)) / sizeof(float);
    cr_assert(at == n, "%s, %s: token %zu column %zu is %.9g, not %.9g", s->name, what, at / s->width, at % s->width,
              (double)got[at], (double)want[at]);
}

Test(recurrent, every_level_gives_the_bits_of_the_reference)
{
    struct backend *ref = backend_of("ref", 1);
    for (size_t i = 0; i < N_SCENES; i++) {
        struct scene s = scene_of(i);
        uint8_t *want_end, *got_end;
        float *want = run_all(ref, &s, N_TOKENS, &want_end);
        for (const struct cpu_kernels *const *k = cpu_kernel_levels + 1; *k; k++) {
            if (((*k)->flags & cpu_flags()) != (*k)->flags) continue;
            struct backend *b = backend_of((*k)->name, 1);
            float *got = run_all(b, &s, N_TOKENS, &got_end);
            expect_same(&s, want, got, (*k)->name);
            cr_assert_arr_eq(got_end, want_end, s.geom.n_heads * state_wire_bytes(&s.geom));
            mem_free(got);
            mem_free(got_end);
            backend_close(b);
        }
        mem_free(want);
        mem_free(want_end);
        scene_free(&s);
    }
    backend_close(ref);
}

Test(recurrent, chunks_and_threads_change_nothing)
{
    static const uint32_t chunks[] = { 1, 2, 17, 64, N_TOKENS };
    struct backend *one = backend_of("auto", 1);
    for (size_t i = 0; i < N_SCENES; i++) {
        struct scene s = scene_of(i);
        uint8_t *want_end, *got_end;
        float *want = run_all(one, &s, N_TOKENS, &want_end);
        for (uint32_t threads = 1; threads <= 3; threads++) {
            struct backend *b = backend_of("auto", threads);
            for (size_t c = 0; c < sizeof(chunks) / sizeof(chunks[0]); c++) {
                float *got = run_all(b, &s, chunks[c], &got_end);
                expect_same(&s, want, got, "chunked");
                cr_assert_arr_eq(got_end, want_end, s.geom.n_heads * state_wire_bytes(&s.geom));
                mem_free(got);
                mem_free(got_end);
            }
            backend_close(b);
        }
        mem_free(want);
        mem_free(want_end);
        scene_free(&s);
    }
    backend_close(one);
}

/* One that begins, one that goes on by a row and one by several, in a batch. */
Test(recurrent, sequences_in_a_batch_do_not_touch_each_other)
{
    enum { N = 4 };
    static const uint32_t before[N] = { 0, 40, 2, 77 }, rows[N] = { 9, 1, 30, 2 };
    struct backend *b = backend_of("auto", 2);
    for (size_t i = 0; i < N_SCENES; i++) {
        struct scene s = scene_of(i);
        struct state_slices state = slots_of(b, &s.geom);
        float *alone = run_all(b, &s, N_TOKENS, NULL), *out = mem_array(N_TOKENS * s.width, sizeof(float));
        struct batch_seq seqs[N];
        uint32_t n = 0, row[N_TOKENS];
        for (uint32_t k = 0; k < N; k++) {
            run_tokens(b, &s, &state, (k + 1) % N_SLOTS, 0, before[k], N_TOKENS, out);
            seqs[k] = (struct batch_seq){ .row0 = n, .n_rows = rows[k], .pos0 = before[k], .state = (k + 1) % N_SLOTS };
            for (uint32_t t = 0; t < rows[k]; t++) row[n++] = before[k] + t;
        }
        run_batch(b, &s, &state, &(struct batch){ .n_rows = n, .seqs = seqs, .n_seqs = N }, row, out);
        for (uint32_t r = 0; r < n; r++)
            cr_assert_arr_eq(out + r * s.width, alone + row[r] * s.width, s.width * sizeof(float), "%s, row %u", s.name,
                             r);
        for (uint32_t k = 0; k < N; k++) { /* and goes on as if it had been alone */
            const uint32_t at = before[k] + rows[k];
            run_tokens(b, &s, &state, seqs[k].state, at, at + 5, 5, out);
            cr_assert_arr_eq(out + at * s.width, alone + at * s.width, 5 * s.width * sizeof(float));
        }
        mem_free(alone);
        mem_free(out);
        guard_free(state.base);
        scene_free(&s);
    }
    backend_close(b);
}

/* Cut after `at` tokens: to another slot by a copy, and to another memory by the wire, head by head. */
Test(recurrent, goes_on_from_a_copied_and_from_a_moved_state)
{
    const uint32_t at = 61;
    struct backend *b = backend_of("auto", 1), *other = backend_of("ref", 1);
    for (size_t i = 0; i < N_SCENES; i++) {
        struct scene s = scene_of(i);
        struct state_slices from = slots_of(b, &s.geom), to = slots_of(other, &s.geom);
        float *want = run_all(b, &s, N_TOKENS, NULL), *got = mem_array(N_TOKENS * s.width, sizeof(float));
        uint8_t *wire = guard_alloc(state_wire_bytes(&s.geom));
        const size_t rest = (N_TOKENS - at) * s.width * sizeof(float);
        run_tokens(b, &s, &from, 0, 0, at, at, got);
        cr_assert_eq(b->ops->state_copy(b, NULL, &from, 0, 3), OK);
        for (uint32_t h = 0; h < s.geom.n_heads; h++) {
            cr_assert_eq(b->ops->state_pack(b, NULL, &from, 0, h, h + 1, wire), OK);
            cr_assert_eq(other->ops->state_unpack(other, NULL, &to, 1, h, h + 1, wire), OK);
        }
        cr_assert(guard_intact(wire) && guard_intact(to.base) && guard_intact(from.base));
        run_tokens(b, &s, &from, 3, at, N_TOKENS, 20, got);
        cr_assert_arr_eq(got + at * s.width, want + at * s.width, rest, "%s, copied", s.name);
        memset(got, 0, N_TOKENS * s.width * sizeof(float));
        run_tokens(other, &s, &to, 1, at, N_TOKENS, N_TOKENS, got);
        cr_assert_arr_eq(got + at * s.width, want + at * s.width, rest, "%s, moved", s.name);
        guard_free(wire);
        guard_free(from.base);
        guard_free(to.base);
        mem_free(want);
        mem_free(got);
        scene_free(&s);
    }
    backend_close(b);
    backend_close(other);
}

/* --- bytes --- */
Test(recurrent, a_state_travels_head_by_head_and_row_by_row)
{
    struct backend *b = backend_of("auto", 1);
    const struct state_geometry g = { 3, 5, 32 };
    struct state_slices s = slots_of(b, &g);
    float wire[3 * 5 * 32], back[2 * 5 * 32];
    for (uint32_t i = 0; i < 3 * 5 * 32; i++) wire[i] = (float)i;
    cr_assert_eq(b->ops->state_unpack(b, NULL, &s, 1, 0, 3, (uint8_t *)wire), OK);
    cr_assert_eq(b->ops->state_pack(b, NULL, &s, 1, 1, 3, (uint8_t *)back), OK);
    cr_assert_arr_eq(back, wire + 5 * 32, sizeof(back));
    /* The tail of a convolution whose taps are 1, 0, ...: the result is the oldest input, channel by channel. */
    float w[6 * 96] = { 0 }, x[96] = { 0 }, out[96];
    for (uint32_t c = 0; c < 96; c++) w[c] = 1;
    const struct batch_seq seq = { .n_rows = 1, .pos0 = 9, .state = 1 };
    const struct batch batch = { .n_rows = 1, .seqs = &seq, .n_seqs = 1 };
    struct step step;
    cr_assert_eq(b->ops->step_begin(b, NULL, &batch, &step), OK);
    for (uint32_t r = 0; r < 5; r++) {
        cr_assert_eq(b->ops->conv_step(b, NULL, out, 96, x, 96, &(struct conv_facts){ 6, w, NULL, false }, &s, &step),
                     OK);
        for (uint32_t c = 0; c < 96; c++) cr_assert_eq(out[c], (float)(c / 32 * 160 + r * 32 + c % 32));
    }
    guard_free(s.base);
    backend_close(b);
}

Test(recurrent, a_state_that_makes_no_sense_is_refused)
{
    struct backend *b = backend_of("auto", 1);
    const struct state_geometry g = { 2, 4, 16 };
    struct state_slices s = slots_of(b, &g);
    static const uint32_t bad[] = { 0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001 };
    float wire[64] = { 1 };
    cr_assert_eq(b->ops->state_pack(b, NULL, &s, 0, 1, 1, (uint8_t *)wire), ERR_INVALID);
    cr_assert_eq(b->ops->state_pack(b, NULL, &s, 0, 1, 3, (uint8_t *)wire), ERR_INVALID);
    cr_assert_eq(b->ops->state_unpack(b, NULL, &s, 0, 2, 3, (uint8_t *)wire), ERR_INVALID);
    for (size_t i = 0; i < 4; i++) {
        memcpy(&wire[63], &bad[i], 4);
        cr_assert_eq(b->ops->state_unpack(b, NULL, &s, 0, 1, 2, (uint8_t *)wire), ERR_CORRUPT);
    }
    wire[63] = -3.4e38f;
    cr_assert_eq(b->ops->state_unpack(b, NULL, &s, 0, 1, 2, (uint8_t *)wire), OK);
    static const struct state_geometry none[] = { { 0, 4, 16 },    { 2, 0, 16 },         { 2, 4, 0 },     { 2, 4, 24 },
                                                  { 2, 1025, 16 }, { 2, 4, 65536 + 16 }, { 65537, 4, 16 } };
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
        cr_assert_eq(b->ops->state_slot_bytes(b, &none[i]), 0, "geometry %zu", i);
    guard_free(s.base);
    backend_close(b);
}

Test(recurrent, shapes_without_kernels_are_refused)
{
    struct backend *b = backend_of("auto", 1);
    const struct batch batch = { 0 };
    const struct state_geometry long_tail = { 1, 16, 16 }, odd_keys = { 1, 24, 16 };
    struct state_slices tail = slots_of(b, &long_tail), odd = slots_of(b, &odd_keys);
    float x[64] = { 0 }, out[64], one = -1;
    struct step step;
    cr_assert_eq(b->ops->step_begin(b, NULL, &batch, &step), OK);
    const struct conv_facts too_long = { 17, x, NULL, false }, too_short = { 1, x, NULL, false };
    cr_assert_eq(b->ops->conv_step(b, NULL, out, 16, x, 16, &too_long, &tail, &step), ERR_UNSUPPORTED);
    cr_assert_eq(b->ops->conv_step(b, NULL, out, 16, x, 16, &too_short, &tail, &step), ERR_UNSUPPORTED);
    const struct delta_inputs in = { x, 64, x, x, 1, 1 };
    const struct delta_facts facts = { 1, 1, 1e-6f, &one, &one, false };
    cr_assert_eq(b->ops->delta_rule(b, NULL, out, 16, &in, &facts, &odd, &step), ERR_UNSUPPORTED);
    struct act act = { .f = out, .q = x, .n = 0, .k = 48 };
    const struct norm_gate_facts gate = { x, 24, 1e-6f, false, false }, no_group = { x, 0, 1e-6f, false, false };
    cr_assert_eq(b->ops->norm_gate(b, NULL, &act, x, 48, x, 48, &gate), ERR_UNSUPPORTED);
    cr_assert_eq(b->ops->norm_gate(b, NULL, &act, x, 48, x, 48, &no_group), ERR_UNSUPPORTED);
    guard_free(tail.base);
    guard_free(odd.base);
    backend_close(b);
}

/* --- norm and gate --- */
#define GATE_ROWS 5

static void norm_gate_double(const float *x, const float *gate, const float *w, uint32_t n, bool first, double *out)
{
    double squares = 0;
    for (uint32_t i = 0; i < n; i++) {
        double g = gate[i] * sigmoid(gate[i]), y = first ? x[i] * g : x[i];
        squares += y * y;
        out[i] = (double)x[i] * g * w[i];
    }
    for (uint32_t i = 0; i < n; i++) out[i] /= sqrt(squares / n + 1e-5);
}

Test(recurrent, norms_and_gates)
{
    enum { K = 192, LD = K + 16 };
    static float x[GATE_ROWS * LD], gate[GATE_ROWS * LD], w[K], want[GATE_ROWS * K];
    struct check_rng rng = { 5 };
    check_fill(&rng, FILL_NORMAL, x, GATE_ROWS * LD);
    check_fill(&rng, FILL_NORMAL, gate, GATE_ROWS * LD);
    check_fill(&rng, FILL_NORMAL, w, K);
    for (uint32_t i = 0; i < GATE_ROWS * LD; i++) gate[i] *= 4;
    for (int mode = 0; mode < 4; mode++) {
        const struct norm_gate_facts f = { w, 64, 1e-5f, mode & 1, mode & 2 };
        for (const struct cpu_kernels *const *k = cpu_kernel_levels; *k; k++) {
            if (((*k)->flags & cpu_flags()) != (*k)->flags) continue;
            struct backend *b = backend_of((*k)->name, 2);
            struct act act = { .f = guard_alloc(GATE_ROWS * K * sizeof(float)), .n = GATE_ROWS, .k = K };
            struct act again = act;
            act.q = guard_alloc(b->ops->act_bytes(b, GATE_ROWS, K, COARSE));
            again.q = guard_alloc(b->ops->act_bytes(b, GATE_ROWS, K, COARSE));
            cr_assert_eq(b->ops->norm_gate(b, NULL, &act, x, LD, gate, LD, &f), OK);
            if (k == cpu_kernel_levels) memcpy(want, act.f, sizeof(want));
            cr_assert_arr_eq(act.f, want, sizeof(want), "%s, mode %d", (*k)->name, mode);
            cr_assert_eq(b->ops->quantize(b, NULL, &again), OK);
            cr_assert_arr_eq(act.q, again.q, b->ops->act_bytes(b, GATE_ROWS, K, COARSE));
            cr_assert(guard_intact(act.f) && guard_intact(act.q));
            guard_free(act.f);
            guard_free(act.q);
            guard_free(again.q);
            backend_close(b);
        }
        for (uint32_t r = 0; r < GATE_ROWS; r++)
            for (uint32_t c = 0; c < K; c += 64) {
                double y[64];
                norm_gate_double(x + r * LD + c, gate + r * LD + c, w + (f.w_per_column ? c : 0), 64, f.gate_first, y);
                for (uint32_t i = 0; i < 64; i++)
                    cr_assert_float_eq(want[r * K + c + i], y[i], 1e-5 * (1 + fabs(y[i])), "mode %d", mode);
            }
    }
}
