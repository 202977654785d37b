/* recurrent: convolution, delta rule and scan of the CUDA backend give the bits of the CPU's reference, step by step,
 * and leave its states; slots move over the wire both ways. */
#include "helpers/cuda_check.h"

#include <math.h>

#define N_SEQS   3
#define N_SLOTS  5
#define MAX_ROWS 64

static const struct backend_limits LIMITS = { .max_rows = MAX_ROWS, .max_context = 512, .max_cols = 64 };

enum op { CONV, DELTA, MAMBA2 };

struct scene {
    enum op op;
    const char *name;
    struct state_geometry geom;
    uint32_t other; /* key heads, or groups of B and C */
    bool flag;      /* CONV: bias and SiLU; DELTA: tiled */
};

static const struct scene SCENES[] = {
    { .op = CONV, .name = "conv", .geom = { 5, 3, 48 }, .flag = true },
    { .op = CONV, .name = "conv of many channels", .geom = { 70, 3, 16 } },
    { .op = CONV, .name = "conv of two positions", .geom = { 1, 1, 32 }, .flag = true },
    { .op = CONV, .name = "conv of sixteen positions", .geom = { 2, 15, 32 } },
    { .op = DELTA, .name = "delta rule", .geom = { 4, 64, 64 }, .other = 2 },
    { .op = DELTA, .name = "tiled delta rule", .geom = { 6, 32, 80 }, .other = 3, .flag = true },
    { .op = DELTA, .name = "delta rule of one head", .geom = { 1, 128, 16 }, .other = 1 },
    { .op = DELTA, .name = "delta rule of whole heads", .geom = { 2, 128, 128 }, .other = 1 },
    { .op = DELTA, .name = "delta rule of many keys", .geom = { 2, 512, 32 }, .other = 2 },
    { .op = MAMBA2, .name = "scan", .geom = { 6, 64, 64 }, .other = 1 },
    { .op = MAMBA2, .name = "scan in groups", .geom = { 4, 37, 48 }, .other = 2 },
    { .op = MAMBA2, .name = "scan of large states", .geom = { 3, 128, 64 }, .other = 3 },
    { .op = MAMBA2, .name = "scan of the largest states", .geom = { 1, 512, 16 }, .other = 1 },
};
#define N_SCENES (sizeof(SCENES) / sizeof(SCENES[0]))

/* Rows of each sequence in the steps of a run. */
static const uint32_t STEPS[][N_SEQS] = { { 9, 1, 20 }, { 1, 1, 1 }, { 2, 17, 1 },
                                          { 1, 33, 3 }, { 2, 1, 2 }, { 16, 16, 32 } };
#define N_STEPS (sizeof(STEPS) / sizeof(STEPS[0]))

/* The same floats in both backends' memory. */
struct pair {
    float *cpu, *gpu;
    size_t n;
};

static struct pair pair_of(const struct both *b, struct check_rng *rng, enum check_fill fill, size_t n)
{
    float *x = mem_array(n, sizeof(float));
    check_fill(rng, fill, x, n);
    struct pair p = { check_device(b->cpu, x, n * sizeof(float)), check_device(b->gpu, x, n * sizeof(float)), n };
    mem_free(x);
    return p;
}

static void pair_put(const struct both *b, struct pair *p, struct check_rng *rng, enum check_fill fill)
{
    check_fill(rng, fill, p->cpu, p->n);
    cr_assert_eq(b->gpu->ops->upload(b->gpu, NULL, p->gpu, p->cpu, p->n * sizeof(float)), OK);
}

static void pair_free(const struct both *b, struct pair *p)
{
    check_release(b->cpu, p->cpu, p->n * sizeof(float));
    check_release(b->gpu, p->gpu, p->n * sizeof(float));
}

/* A layer with what it reads and writes, in both. */
struct layer {
    const struct scene *scene;
    size_t in_width, gate_width, width;
    struct pair in, gates, out, w, bias, a, d;
    struct state_slices cpu, gpu;
};

/* Slots full of junk. */
static struct state_slices slots_of(struct backend *b, const struct state_geometry *geom)
{
    struct check_rng rng = { 3 };
    struct state_slices s = { .stride = b->ops->state_slot_bytes(b, geom), .geom = *geom };
    cr_assert(s.stride > 0 && s.stride % 64 == 0);
    uint8_t *junk = mem_alloc(N_SLOTS * s.stride);
    for (size_t i = 0; i < N_SLOTS * s.stride; i++) junk[i] = (uint8_t)check_next(&rng);
    s.base = check_device(b, junk, N_SLOTS * s.stride);
    mem_free(junk);
    return s;
}

static struct layer layer_of(const struct both *b, const struct scene *s)
{
    const struct state_geometry *g = &s->geom;
    struct check_rng rng = { (uint64_t)(7 + g->rows + g->cols) };
    struct layer l = { .scene = s, .width = (size_t)g->n_heads * g->cols };
    l.in_width = s->op == CONV ? l.width : l.width + 2 * (size_t)s->other * g->rows;
    l.gate_width = s->op == CONV ? 0 : s->op == DELTA ? 2 * g->n_heads : g->n_heads;
    l.in = pair_of(b, &rng, FILL_NORMAL, MAX_ROWS * (l.in_width + 4));
    l.gates = pair_of(b, &rng, FILL_NORMAL, MAX_ROWS * (l.gate_width + 1));
    l.out = pair_of(b, &rng, FILL_NORMAL, MAX_ROWS * (l.width + 4));
    l.w = pair_of(b, &rng, FILL_NORMAL, s->op == CONV ? (g->rows + 1) * l.width : 1);
    l.bias = pair_of(b, &rng, FILL_NORMAL, l.width);
    l.a = pair_of(b, &rng, FILL_NORMAL, g->n_heads);
    l.d = pair_of(b, &rng, FILL_NORMAL, g->n_heads);
    for (uint32_t h = 0; h < g->n_heads; h++) l.a.cpu[h] = -0.02f - 0.3f * (float)h / (float)g->n_heads;
    cr_assert_eq(b->gpu->ops->upload(b->gpu, NULL, l.a.gpu, l.a.cpu, g->n_heads * sizeof(float)), OK);
    l.cpu = slots_of(b->cpu, g);
    l.gpu = slots_of(b->gpu, g);
    cr_assert_eq(l.cpu.stride, l.gpu.stride);
    return l;
}

static void layer_free(const struct both *b, struct layer *l)
{
    struct pair *all[] = { &l->in, &l->gates, &l->out, &l->w, &l->bias, &l->a, &l->d };
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) pair_free(b, all[i]);
    check_release(b->cpu, l->cpu.base, N_SLOTS * l->cpu.stride);
    check_release(b->gpu, l->gpu.base, N_SLOTS * l->gpu.stride);
}

static float *side(const struct pair *p, bool gpu)
{
    return gpu ? p->gpu : p->cpu;
}

static enum status run_op(struct backend *b, struct layer *l, bool gpu, const struct step *step)
{
    const struct scene *s = l->scene;
    const struct state_geometry *g = &s->geom;
    const struct state_slices *state = gpu ? &l->gpu : &l->cpu;
    const size_t ld = l->in_width + 4, out_ld = l->width + 4, gate_ld = l->gate_width + 1;
    float *in = side(&l->in, gpu), *gates = side(&l->gates, gpu), *out = side(&l->out, gpu);
    if (s->op == CONV) {
        const struct conv_facts f = { g->rows + 1, side(&l->w, gpu), s->flag ? side(&l->bias, gpu) : NULL, s->flag };
        return b->ops->conv_step(b, NULL, out, out_ld, in, ld, &f, state, step);
    }
    if (s->op == DELTA) {
        const struct delta_inputs x = { in, ld, gates, gates + g->n_heads, gate_ld, gate_ld };
        const struct delta_facts f = { s->other, g->n_heads, 1e-6f, side(&l->bias, gpu), side(&l->a, gpu), s->flag };
        return b->ops->delta_rule(b, NULL, out, out_ld, &x, &f, state, step);
    }
    const struct mamba2_inputs x = { in, ld, gates, gate_ld };
    const struct mamba2_facts f = { g->n_heads, s->other, side(&l->bias, gpu), side(&l->a, gpu), side(&l->d, gpu) };
    return b->ops->mamba2_scan(b, NULL, out, out_ld, &x, &f, state, step);
}

/* One step of both, then their results. */
static void run_step(const struct both *b, struct layer *l, const uint32_t rows[N_SEQS], uint32_t pos[N_SEQS])
{
    static const uint32_t slots[N_SEQS] = { 2, 0, 3 };
    static const int32_t tokens[MAX_ROWS];
    static const uint32_t blocks[16];
    struct batch_seq seqs[N_SEQS];
    struct batch batch = { .tokens = tokens, .seqs = seqs, .n_seqs = N_SEQS };
    struct step cpu, gpu;
    for (uint32_t i = 0; i < N_SEQS; i++) {
        seqs[i] =
            (struct batch_seq){ batch.n_rows, rows[i], pos[i], .blocks = blocks, .n_blocks = 16, .state = slots[i] };
        batch.n_rows += rows[i];
        pos[i] += rows[i];
    }
    cr_assert_eq(b->cpu->ops->step_begin(b->cpu, NULL, &batch, &cpu), OK);
    cr_assert_eq(b->gpu->ops->step_begin(b->gpu, NULL, &batch, &gpu), OK);
    cr_assert_eq(run_op(b->cpu, l, false, &cpu), OK);
    cr_assert_eq(run_op(b->gpu, l, true, &gpu), OK);
    float *out = check_host(b->gpu, l->out.gpu, l->out.n * sizeof(float));
    check_same_floats(l->out.cpu, out, l->out.n, l->scene->name);
    mem_free(out);
}

/* All heads of a slot as the wire has them; the caller frees. */
static uint8_t *packed(struct backend *b, const struct state_slices *s, uint32_t slot)
{
    uint8_t *wire = mem_alloc(s->geom.n_heads * state_wire_bytes(&s->geom));
    cr_assert_eq(b->ops->state_pack(b, NULL, s, slot, 0, s->geom.n_heads, wire), OK);
    return wire;
}

static void check_slots(const struct both *b, const struct layer *l)
{
    static const uint32_t used[] = { 0, 2, 3 };
    for (size_t i = 0; i < 3; i++) {
        uint8_t *cpu = packed(b->cpu, &l->cpu, used[i]), *gpu = packed(b->gpu, &l->gpu, used[i]);
        check_same_floats((float *)(void *)cpu, (float *)(void *)gpu,
                          l->cpu.geom.n_heads * state_wire_bytes(&l->cpu.geom) / sizeof(float), "state");
        mem_free(cpu);
        mem_free(gpu);
    }
}

Test(cuda_recurrent, steps_and_states_are_the_cpus)
{
    struct both b = open_both(LIMITS);
    for (size_t i = 0; i < N_SCENES; i++) {
        struct layer l = layer_of(&b, &SCENES[i]);
        struct check_rng rng = { i };
        uint32_t pos[N_SEQS] = { 0 };
        for (size_t step = 0; step < N_STEPS; step++) {
            pair_put(&b, &l.in, &rng, FILL_NORMAL);
            pair_put(&b, &l.gates, &rng, FILL_NORMAL);
            for (size_t t = 0; t < l.gates.n; t += 11) l.gates.cpu[t] *= 9; /* both ends of softplus and sigmoid */
            cr_assert_eq(b.gpu->ops->upload(b.gpu, NULL, l.gates.gpu, l.gates.cpu, l.gates.n * sizeof(float)), OK);
            run_step(&b, &l, STEPS[step], pos);
        }
        check_slots(&b, &l);
        layer_free(&b, &l);
    }
    close_both(&b);
}

Test(cuda_recurrent, values_that_are_no_numbers_stay_in_their_sequence)
{
    struct both b = open_both(LIMITS);
    for (size_t i = 0; i < N_SCENES; i++) {
        struct layer l = layer_of(&b, &SCENES[i]);
        struct check_rng rng = { i };
        uint32_t pos[N_SEQS] = { 0 };
        pair_put(&b, &l.in, &rng, FILL_MIXED);
        l.in.cpu[9 * (l.in_width + 4) + 3] = NAN; /* of the second sequence's row */
        l.in.cpu[9 * (l.in_width + 4) + 4] = INFINITY;
        cr_assert_eq(b.gpu->ops->upload(b.gpu, NULL, l.in.gpu, l.in.cpu, l.in.n * sizeof(float)), OK);
        run_step(&b, &l, STEPS[0], pos);
        check_slots(&b, &l);
        layer_free(&b, &l);
    }
    close_both(&b);
}

Test(cuda_recurrent, slots_are_copied_and_moved)
{
    static const struct state_geometry g = { 5, 12, 48 };
    struct both b = open_both(LIMITS);
    struct state_slices cpu = slots_of(b.cpu, &g), gpu = slots_of(b.gpu, &g);
    const struct backend_ops *c = b.cpu->ops, *o = b.gpu->ops;
    const size_t head = state_wire_bytes(&g), n = 5 * head / sizeof(float);
    struct check_rng rng = { 5 };
    float *wire = mem_array(n, sizeof(float)), *got = mem_array(n, sizeof(float));
    check_fill(&rng, FILL_MIXED, wire, n);
    cr_assert_eq(o->state_unpack(b.gpu, NULL, &gpu, 1, 0, 5, (uint8_t *)wire), OK);
    cr_assert_eq(o->state_copy(b.gpu, NULL, &gpu, 1, 3), OK);
    cr_assert_eq(o->state_copy(b.gpu, NULL, &gpu, 3, 3), OK);
    cr_assert_eq(o->state_pack(b.gpu, NULL, &gpu, 3, 0, 5, (uint8_t *)got), OK);
    cr_assert_arr_eq(got, wire, n * sizeof(float));
    cr_assert_eq(c->state_unpack(b.cpu, NULL, &cpu, 2, 0, 5, (uint8_t *)wire), OK);
    cr_assert_eq(c->state_pack(b.cpu, NULL, &cpu, 2, 2, 4, (uint8_t *)wire), OK);
    cr_assert_eq(o->state_pack(b.gpu, NULL, &gpu, 3, 2, 4, (uint8_t *)got), OK);
    cr_assert_arr_eq(got, wire, 2 * head);
    cr_assert_eq(o->state_pack(b.gpu, NULL, &gpu, 3, 2, 2, (uint8_t *)got), ERR_INVALID);
    cr_assert_eq(o->state_pack(b.gpu, NULL, &gpu, 3, 2, 6, (uint8_t *)got), ERR_INVALID);
    cr_assert_eq(o->state_unpack(b.gpu, NULL, &gpu, 3, 5, 4, (uint8_t *)got), ERR_INVALID);
    cr_assert_eq(o->state_unpack(b.gpu, NULL, &gpu, 3, 0, 6, (uint8_t *)got), ERR_INVALID);
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    for (size_t i = 0; i < 3; i++) {
        const size_t at = i * (2 * head / sizeof(float) - 1) / 2;
        const float was = got[at];
        got[at] = bad[i];
        cr_assert_eq(o->state_unpack(b.gpu, NULL, &gpu, 0, 1, 3, (uint8_t *)got), ERR_CORRUPT);
        got[at] = was;
        cr_assert_eq(o->state_unpack(b.gpu, NULL, &gpu, 0, 1, 3, (uint8_t *)got), OK);
    }
    mem_free(wire);
    mem_free(got);
    check_release(b.cpu, cpu.base, N_SLOTS * cpu.stride);
    check_release(b.gpu, gpu.base, N_SLOTS * gpu.stride);
    close_both(&b);
}

Test(cuda_recurrent, geometries_and_shapes_without_kernels_are_refused)
{
    static const struct state_geometry none[] = { { 0, 8, 16 }, { 1, 0, 16 },    { 1, 8, 0 },
                                                  { 1, 8, 24 }, { 1, 1025, 16 }, { 70000, 8, 16 } };
    struct both b = open_both(LIMITS);
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
        cr_assert_eq(b.gpu->ops->state_slot_bytes(b.gpu, &none[i]), 0, "geometry %zu", i);
    struct act out = { .n = 1, .k = 48 };
    const struct norm_gate_facts odd = { .group = 24, .eps = 1e-6f };
    cr_assert_eq(b.gpu->ops->norm_gate(b.gpu, NULL, &out, NULL, 48, NULL, 48, &odd), ERR_UNSUPPORTED);
    close_both(&b);
}

Test(cuda_recurrent, norm_and_gate_are_the_cpus)
{
    enum { N = 5, K = 768, WIDE = K + 8 };
    static const uint32_t groups[] = { 16, 48, 128, 384, 768 };
    struct both b = open_both(LIMITS);
    struct check_rng rng = { 9 };
    const size_t q_cpu = b.cpu->ops->act_bytes(b.cpu, N, K, FINE), q_gpu = b.gpu->ops->act_bytes(b.gpu, N, K, FINE);
    for (enum check_fill fill = 0; fill < FILL_COUNT; fill++) {
        struct pair x = pair_of(&b, &rng, fill, N * WIDE), gate = pair_of(&b, &rng, FILL_NORMAL, N * WIDE);
        struct pair w = pair_of(&b, &rng, FILL_NORMAL, K), f = pair_of(&b, &rng, FILL_ZERO, N * K);
        struct act cpu = { f.cpu, check_device(b.cpu, NULL, q_cpu), N, K, FINE };
        struct act gpu = { f.gpu, check_device(b.gpu, NULL, q_gpu), N, K, FINE };
        for (size_t i = 0; i < 4 * sizeof(groups) / sizeof(groups[0]); i++) {
            struct norm_gate_facts facts = { w.cpu, groups[i / 4], 1e-6f, i & 1, i & 2 };
            cr_assert_eq(b.cpu->ops->norm_gate(b.cpu, NULL, &cpu, x.cpu, WIDE, gate.cpu, WIDE, &facts), OK);
            facts.w = w.gpu;
            cr_assert_eq(b.gpu->ops->norm_gate(b.gpu, NULL, &gpu, x.gpu, WIDE, gate.gpu, WIDE, &facts), OK);
            float *got = check_host(b.gpu, f.gpu, N * K * sizeof(float));
            check_same_floats(f.cpu, got, N * K, "norm_gate");
            uint8_t *q = check_host(b.gpu, gpu.q, q_gpu); /* quantize() of the same values, which rows.c checks */
            cr_assert_eq(b.gpu->ops->quantize(b.gpu, NULL, &gpu), OK);
            uint8_t *again = check_host(b.gpu, gpu.q, q_gpu);
            cr_assert_arr_eq(q, again, q_gpu);
            mem_free(got);
            mem_free(q);
            mem_free(again);
        }
        check_release(b.cpu, cpu.q, q_cpu);
        check_release(b.gpu, gpu.q, q_gpu);
        pair_free(&b, &x);
        pair_free(&b, &gate);
        pair_free(&b, &w);
        pair_free(&b, &f);
    }
    close_both(&b);
}
