/* attention: RoPE, what is written into the cache, and attention have the bits of the CPU's reference, over ragged
 * batches, contexts of several segments, and every fact of a layer. */
#include "helpers/cuda_check.h"

#include <math.h>

#define MAX_SEQS   5
#define MAX_BLOCKS 24u /* of a sequence */
#define MAX_ROWS   1600u

static const struct backend_limits LIMITS = {
    .max_rows = MAX_ROWS, .max_context = MAX_BLOCKS * 64, .max_cols = 4096, .max_heads = 32, .max_head_dim = 512
};

static const float SINKS[32] = { 1.5f, -2.0f, 4.0f, 0.0f, 8.0f, -30.0f, 2.5f, 1.0f, 3.0f, 6.0f, -1.0f };

/* A layer's shape and facts. */
struct shape {
    struct kv_geometry geom;
    uint32_t n_heads;
    bool neox;
    uint32_t window;
    float softcap;
    bool sinks, windowed;
    uint32_t group, first; /* of a shard; group 0: all heads are here */
    uint32_t dims;         /* that RoPE turns; 0: all */
    bool factors;
};

/* One layer's cache on both backends, and the inputs of a step. */
struct scene {
    const struct shape *shape;
    struct both b;
    struct kv_slices cpu, gpu;
    size_t cpu_bytes, gpu_bytes;
    uint32_t blocks[MAX_SEQS][MAX_BLOCKS], window_blocks[MAX_SEQS][MAX_BLOCKS];
    size_t ld, k_off, v_off;
    struct rope_params rope;
    float factors[256];
    float *gpu_sinks;
    struct check_rng rng;
    int32_t tokens[MAX_ROWS];
};

static void *junk(struct check_rng *rng, size_t bytes)
{
    uint8_t *p = mem_alloc(bytes);
    for (size_t i = 0; i < bytes; i++) p[i] = (uint8_t)check_next(rng);
    return p;
}

static void scene_init(struct scene *s, const struct shape *shape, uint64_t seed)
{
    const struct kv_geometry *g = &shape->geom;
    const size_t dim = g->head_dim, n_blocks = (size_t)MAX_SEQS * MAX_BLOCKS;
    memset(s, 0, sizeof(*s));
    s->shape = shape;
    s->rng.state = seed;
    s->b = open_both(LIMITS);
    s->cpu = (struct kv_slices){ .stride = s->b.cpu->ops->kv_slice_bytes(s->b.cpu, g), .geom = *g };
    s->gpu = (struct kv_slices){ .stride = s->b.gpu->ops->kv_slice_bytes(s->b.gpu, g), .geom = *g };
    cr_assert(s->gpu.stride > 0 && s->gpu.stride % 64 == 0);
    s->gpu.stride += 64; /* other layers' slices lie between a layer's */
    s->cpu.windowed = s->gpu.windowed = shape->windowed;
    s->cpu_bytes = n_blocks * s->cpu.stride;
    s->gpu_bytes = n_blocks * s->gpu.stride;
    uint8_t *one = junk(&s->rng, s->cpu_bytes), *two = junk(&s->rng, s->gpu_bytes);
    s->cpu.base = check_device(s->b.cpu, one, s->cpu_bytes);
    s->gpu.base = check_device(s->b.gpu, two, s->gpu_bytes);
    mem_free(one);
    mem_free(two);
    for (uint32_t i = 0; i < MAX_SEQS; i++)
        for (uint32_t j = 0; j < MAX_BLOCKS; j++) {
            const uint32_t id = (j * 7 + 3) % MAX_BLOCKS * MAX_SEQS + i;
            s->blocks[i][j] = shape->windowed ? UINT32_MAX : id;
            s->window_blocks[i][j] = shape->windowed ? id : UINT32_MAX;
        }
    s->k_off = shape->n_heads * dim;
    s->v_off = s->k_off + g->n_kv_heads * dim;
    s->ld = s->v_off + g->n_kv_heads * dim + 16;
    for (int i = 0; i < 256; i++) s->factors[i] = 1.0f + 0.01f * (float)(i % 17);
    s->rope = (struct rope_params){ .base = 10000,
                                    .scale = shape->factors ? 0.25f : 1,
                                    .dims = shape->dims ? shape->dims : g->head_dim,
                                    .neox = shape->neox,
                                    .freq_factors = shape->factors ? s->factors : NULL,
                                    .attn_factor = shape->factors ? 1.2f : 1 };
    s->gpu_sinks = check_device(s->b.gpu, SINKS, sizeof(SINKS));
}

static void scene_free(struct scene *s)
{
    check_release(s->b.cpu, s->cpu.base, s->cpu_bytes);
    check_release(s->b.gpu, s->gpu.base, s->gpu_bytes);
    check_release(s->b.gpu, s->gpu_sinks, sizeof(SINKS));
    close_both(&s->b);
}

/* Blocks that no row from `pos` on sees are gone: their ids are those of no block. */
static void forget_blocks(struct scene *s, uint32_t seq, uint32_t pos)
{
    const uint32_t window = s->shape->window, first = window && pos >= window ? pos - window + 1 : 0;
    for (uint32_t i = 0; i < first / KV_BLOCK_TOKENS; i++) s->blocks[seq][i] = s->window_blocks[seq][i] = UINT32_MAX;
}

/* The quantized form is that of quantize(), which has a test of its own. */
static void check_quantized(const struct scene *s, struct act *act, size_t bytes)
{
    uint8_t *made = check_host(s->b.gpu, act->q, bytes);
    cr_assert_eq(s->b.gpu->ops->quantize(s->b.gpu, NULL, act), OK);
    uint8_t *want = check_host(s->b.gpu, act->q, bytes);
    cr_assert_eq(check_differs(want, made, bytes), bytes, "the quantized form is another");
    mem_free(made);
    mem_free(want);
}

static void check_attention(struct scene *s, uint32_t n_rows, const float *cpu_q, const float *gpu_q,
                            const struct step *cpu_step, const struct step *gpu_step, const char *what)
{
    const struct shape *shape = s->shape;
    const uint32_t width = shape->n_heads * shape->geom.head_dim;
    struct attn_facts facts = { .scale = 1.0f / sqrtf((float)shape->geom.head_dim),
                                .window = shape->window,
                                .softcap = shape->softcap,
                                .sinks = shape->sinks ? SINKS : NULL,
                                .causal = true,
                                .group = shape->group,
                                .first = shape->first };
    const size_t bytes = (size_t)n_rows * width * sizeof(float);
    const size_t cq = s->b.cpu->ops->act_bytes(s->b.cpu, n_rows, width, COARSE);
    const size_t gq = s->b.gpu->ops->act_bytes(s->b.gpu, n_rows, width, COARSE);
    struct act cpu = { check_device(s->b.cpu, NULL, bytes), check_device(s->b.cpu, NULL, cq), n_rows, width, COARSE };
    struct act gpu = { check_device(s->b.gpu, NULL, bytes), check_device(s->b.gpu, NULL, gq), n_rows, width, COARSE };
    cr_assert_eq(
        s->b.cpu->ops->attention(s->b.cpu, NULL, &cpu, cpu_q, s->ld, shape->n_heads, &s->cpu, &facts, cpu_step), OK);
    facts.sinks = shape->sinks ? s->gpu_sinks : NULL;
    cr_assert_eq(
        s->b.gpu->ops->attention(s->b.gpu, NULL, &gpu, gpu_q, s->ld, shape->n_heads, &s->gpu, &facts, gpu_step), OK);
    float *got = check_host(s->b.gpu, gpu.f, bytes);
    check_same_floats(cpu.f, got, (size_t)n_rows * width, what);
    check_quantized(s, &gpu, gq);
    double size = 0;
    for (size_t i = 0; i < (size_t)n_rows * width; i++) size += fabs((double)cpu.f[i]);
    cr_assert(size != 0, "%s: the reference is nothing but zeros", what);
    mem_free(got);
    check_release(s->b.cpu, cpu.f, bytes);
    check_release(s->b.cpu, cpu.q, cq);
    check_release(s->b.gpu, gpu.f, bytes);
    check_release(s->b.gpu, gpu.q, gq);
}

/* A step of rows[i] rows of sequence i at pos0[i]; without attention it only fills the cache. */
static void run_step(struct scene *s, const uint32_t *pos0, const uint32_t *rows, uint32_t n, bool attends,
                     enum check_fill fill, const char *what)
{
    const struct backend_ops *c = s->b.cpu->ops, *g = s->b.gpu->ops;
    struct batch_seq seqs[MAX_SEQS];
    uint32_t total = 0;
    for (uint32_t i = 0; i < n; i++) {
        forget_blocks(s, i, pos0[i]);
        seqs[i] = (struct batch_seq){ total, rows[i], pos0[i], s->blocks[i], MAX_BLOCKS, 0, 0, s->window_blocks[i] };
        total += rows[i];
    }
    const size_t floats = total * s->ld, bytes = floats * sizeof(float);
    float *cpu = mem_array(floats, sizeof(float));
    check_fill(&s->rng, fill, cpu, floats);
    for (size_t i = 0; i < floats; i++) cpu[i] *= i % 61 == 7 ? 6.0f : 1.5f;
    float *gpu = check_device(s->b.gpu, cpu, bytes);
    const struct batch batch = { total, s->tokens, seqs, n };
    struct step cpu_step, gpu_step;
    cr_assert_eq(c->step_begin(s->b.cpu, NULL, &batch, &cpu_step), OK);
    cr_assert_eq(g->step_begin(s->b.gpu, NULL, &batch, &gpu_step), OK);
    cr_assert_eq(c->rope_kv_write(s->b.cpu, NULL, cpu, s->ld, s->shape->n_heads, s->k_off, s->v_off, &s->cpu, &s->rope,
                                  &cpu_step),
                 OK);
    cr_assert_eq(g->rope_kv_write(s->b.gpu, NULL, gpu, s->ld, s->shape->n_heads, s->k_off, s->v_off, &s->gpu, &s->rope,
                                  &gpu_step),
                 OK);
    float *got = check_host(s->b.gpu, gpu, bytes);
    check_same_floats(cpu, got, floats, "rope_kv_write");
    mem_free(got);
    if (attends) check_attention(s, total, cpu, gpu, &cpu_step, &gpu_step, what);
    check_release(s->b.gpu, gpu, bytes);
    mem_free(cpu);
}

/* Tokens [0, n) of a sequence leave both caches as the same bytes. */
static void check_wire(struct scene *s, uint32_t seq, uint32_t n)
{
    const struct kv_geometry *g = &s->shape->geom;
    for (uint32_t t = 0; t < n; t += KV_BLOCK_TOKENS) {
        const uint32_t id = (s->shape->windowed ? s->window_blocks : s->blocks)[seq][t / KV_BLOCK_TOKENS];
        const uint32_t end = n - t < KV_BLOCK_TOKENS ? n - t : KV_BLOCK_TOKENS;
        const size_t bytes = kv_wire_bytes(g->format, g->head_dim, end) / 2;
        if (id == UINT32_MAX) continue;
        for (uint32_t i = 0; i < 2 * g->n_kv_heads; i++) {
            const struct kv_piece p = {
                .head = i / 2, .is_v = i % 2, .block = id, .t1 = end, .scales = end * g->head_dim
            };
            uint8_t *cpu = guard_alloc(bytes), *gpu = guard_alloc(bytes);
            cr_assert_eq(s->b.cpu->ops->kv_pack(s->b.cpu, NULL, &s->cpu, &p, 1, cpu), OK);
            cr_assert_eq(s->b.gpu->ops->kv_pack(s->b.gpu, NULL, &s->gpu, &p, 1, gpu), OK);
            cr_assert(guard_intact(gpu));
            cr_assert_eq(check_differs(cpu, gpu, bytes), bytes, "block of token %u, head %u, %s: byte %zu differs", t,
                         i / 2, i % 2 ? "V" : "K", check_differs(cpu, gpu, bytes));
            guard_free(cpu);
            guard_free(gpu);
        }
    }
}

/* A ragged batch behind contexts of up to three segments, then one step of decode. */
static void run_scene(const struct shape *shape, uint64_t seed)
{
    static const uint32_t before[MAX_SEQS] = { 1100, 0, 509, 64, 700 }, none[MAX_SEQS] = { 0 };
    static const uint32_t rows[MAX_SEQS] = { 1, 9, 5, 41, 2 }, one[MAX_SEQS] = { 1, 1, 1, 1, 1 };
    uint32_t after[MAX_SEQS];
    char what[96];
    struct scene s;
    scene_init(&s, shape, seed);
    snprintf(what, sizeof(what), "%s, %u heads over %u x %u, window %u",
             shape->geom.format == KV_INT8 ? "int8" : "fp16", shape->n_heads, shape->geom.n_kv_heads,
             shape->geom.head_dim, shape->window);
    for (uint32_t i = 0; i < MAX_SEQS; i++) { /* one at a time, so that windows forget nothing too early */
        uint32_t n[MAX_SEQS] = { 0 };
        n[i] = before[i];
        if (n[i]) run_step(&s, none, n, MAX_SEQS, false, FILL_NORMAL, what);
    }
    for (uint32_t i = 0; i < MAX_SEQS; i++) after[i] = before[i] + rows[i];
    run_step(&s, before, rows, MAX_SEQS, true, FILL_NORMAL, what);
    run_step(&s, after, one, MAX_SEQS, true, FILL_NORMAL, what);
    for (uint32_t i = 0; i < MAX_SEQS; i++) check_wire(&s, i, after[i] + 1);
    scene_free(&s);
}

static const struct shape SHAPES[] = {
    { { 3, 64, KV_INT8, true }, 9, false },
    { { 2, 128, KV_INT8, false }, 8, true },
    { { 1, 128, KV_INT8, true }, 8, true },
    { { 2, 80, KV_INT8, true }, 2, true },
    { { 1, 96, KV_INT8, true }, 11, false, .dims = 32 },
    { { 1, 256, KV_INT8, true }, 2, false, .factors = true },
    { { 1, 512, KV_INT8, true }, 2, true, .dims = 128 },
    { { 1, 16, KV_INT8, true }, 20, true },
    { { 3, 64, KV_F16, false }, 9, false },
    { { 2, 96, KV_F16, true }, 4, true },
    { { 1, 256, KV_F16, false }, 11, true, .dims = 64, .factors = true },
    { { 1, 64, KV_INT8, true }, 11, true, .window = 70 },
    { { 2, 64, KV_INT8, true }, 4, true, .window = 128, .sinks = true, .windowed = true },
    { { 1, 64, KV_INT8, true }, 2, true, .window = 1 },
    { { 1, 96, KV_INT8, true }, 3, true, .softcap = 3.0f },
    { { 1, 64, KV_INT8, true }, 3, true, .window = 530, .softcap = 3.0f },
    { { 3, 64, KV_F16, false }, 9, false, .window = 100, .softcap = 4.0f, .sinks = true, .windowed = true },
    { { 1, 64, KV_F16, false }, 2, false, .sinks = true },
    { { 3, 64, KV_INT8, false }, 7, true, .group = 3, .first = 2 },
    { { 2, 64, KV_F16, false }, 3, true, .group = 2, .first = 1 },
};

#define SHAPE_TEST(name, from, to)                                                                                     \
    Test(cuda_attention, name)                                                                                         \
    {                                                                                                                  \
        for (size_t i = from; i < to; i++) run_scene(&SHAPES[i], 100 + i);                                             \
    }
SHAPE_TEST(int8_of_usual_shapes_is_the_cpus, 0, 3)
SHAPE_TEST(int8_of_any_dimension_and_group_is_the_cpus, 3, 8)
SHAPE_TEST(fp16_is_the_cpus, 8, 11)
SHAPE_TEST(windows_caps_and_sinks_are_the_cpus, 11, 18)
SHAPE_TEST(a_shard_of_heads_is_the_cpus, 18, 20)

/* Prompts, whose rows are not split by segments, from the first token on. */
Test(cuda_attention, prompts_are_the_cpus)
{
    static const size_t which[] = { 1, 9, 12 };
    static const uint32_t at[MAX_SEQS] = { 0, 0, 0, 0, 0 }, rows[MAX_SEQS] = { 150, 70, 64, 17, 1 };
    for (size_t i = 0; i < sizeof(which) / sizeof(which[0]); i++) {
        struct scene s;
        scene_init(&s, &SHAPES[which[i]], 300 + i);
        run_step(&s, at, rows, MAX_SEQS, true, FILL_NORMAL, "a prompt");
        scene_free(&s);
    }
}

/* Values that quantize badly: zeros, magnitudes far apart, and so large that scores overflow. */
Test(cuda_attention, odd_values_are_the_cpus)
{
    static const uint32_t at[MAX_SEQS] = { 0 }, rows[MAX_SEQS] = { 70, 3 }, one[MAX_SEQS] = { 1, 1 };
    static const uint32_t after[MAX_SEQS] = { 70, 3 };
    for (enum check_fill fill = FILL_SATURATE; fill < FILL_COUNT; fill++)
        for (size_t i = 0; i < 2; i++) {
            struct scene s;
            char what[32];
            snprintf(what, sizeof(what), "fill %d", (int)fill);
            if (fill == FILL_TINY) continue; /* an answer of zeros */
            scene_init(&s, &SHAPES[i ? 8 : 0], 500 + fill);
            run_step(&s, at, rows, 2, true, fill, what);
            run_step(&s, after, one, 2, true, FILL_NORMAL, what);
            scene_free(&s);
        }
}

Test(cuda_attention, rope_and_kv_write_are_what_the_fused_op_does)
{
    for (size_t i = 0; i < sizeof(SHAPES) / sizeof(SHAPES[0]); i += 3) {
        enum { N = 70 };
        struct scene s;
        struct step step;
        scene_init(&s, &SHAPES[i], 40 + i);
        const struct backend_ops *g = s.b.gpu->ops;
        const uint32_t heads = s.shape->n_heads;
        struct batch_seq seq = { 0, N, 3, s.blocks[0], MAX_BLOCKS, 0, 0, s.window_blocks[0] };
        const struct batch batch = { N, s.tokens, &seq, 1 };
        const size_t bytes = N * s.ld * sizeof(float);
        float *in = mem_array(N * s.ld, sizeof(float));
        check_fill(&s.rng, FILL_NORMAL, in, N * s.ld);
        float *fused = check_device(s.b.gpu, in, bytes), *split = check_device(s.b.gpu, in, bytes);
        struct kv_slices two = s.gpu;
        uint8_t *before = check_host(s.b.gpu, s.gpu.base, s.gpu_bytes);
        two.base = check_device(s.b.gpu, before, s.gpu_bytes);
        cr_assert_eq(g->step_begin(s.b.gpu, NULL, &batch, &step), OK);
        cr_assert_eq(g->rope_kv_write(s.b.gpu, NULL, fused, s.ld, heads, s.k_off, s.v_off, &s.gpu, &s.rope, &step), OK);
        cr_assert_eq(g->rope(s.b.gpu, NULL, split, s.ld, heads, &s.gpu.geom, &s.rope, &step), OK);
        cr_assert_eq(g->rope(s.b.gpu, NULL, split + s.k_off, s.ld, s.gpu.geom.n_kv_heads, &s.gpu.geom, &s.rope, &step),
                     OK);
        cr_assert_eq(g->kv_write(s.b.gpu, NULL, split + s.k_off, split + s.v_off, s.ld, &two, &step), OK);
        float *x = check_host(s.b.gpu, fused, bytes), *y = check_host(s.b.gpu, split, bytes);
        uint8_t *kv = check_host(s.b.gpu, s.gpu.base, s.gpu_bytes), *kv2 = check_host(s.b.gpu, two.base, s.gpu_bytes);
        check_same_floats(x, y, N * s.ld, "the separate ops");
        cr_assert_eq(check_differs(kv, kv2, s.gpu_bytes), s.gpu_bytes);
        cr_assert_neq(check_differs(kv, before, s.gpu_bytes), s.gpu_bytes, "nothing was written");
        mem_free(x);
        mem_free(y);
        mem_free(kv);
        mem_free(kv2);
        mem_free(before);
        mem_free(in);
        check_release(s.b.gpu, fused, bytes);
        check_release(s.b.gpu, split, bytes);
        check_release(s.b.gpu, two.base, s.gpu_bytes);
        scene_free(&s);
    }
}

/* Tables of more than one chunk, made when a step first needs them, and several of them side by side. */
Test(cuda_attention, rope_tables_grow_with_positions)
{
    struct both b = open_both((struct backend_limits){
        .max_rows = 64, .max_context = 5000, .max_cols = 256, .max_heads = 1, .max_head_dim = 64 });
    static const uint32_t at[] = { 0, 1020, 4090, 7 };
    const struct kv_geometry geom = { 1, 64, KV_INT8, false };
    uint32_t blocks[80] = { 0 };
    int32_t tokens[9] = { 0 };
    struct check_rng rng = { 3 };
    for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++)
        for (int neox = 0; neox < 2; neox++) {
            const struct rope_params rope = { 500000, 1, 64, neox, NULL, 1 };
            const struct batch_seq seq = { 0, 9, at[i], blocks, 80, 0, 0, NULL };
            const struct batch batch = { 9, tokens, &seq, 1 };
            struct step cpu_step, gpu_step;
            float x[9 * 64];
            check_fill(&rng, FILL_NORMAL, x, 9 * 64);
            float *gpu = check_device(b.gpu, x, sizeof(x));
            cr_assert_eq(b.cpu->ops->step_begin(b.cpu, NULL, &batch, &cpu_step), OK);
            cr_assert_eq(b.gpu->ops->step_begin(b.gpu, NULL, &batch, &gpu_step), OK);
            cr_assert_eq(b.cpu->ops->rope(b.cpu, NULL, x, 64, 1, &geom, &rope, &cpu_step), OK);
            cr_assert_eq(b.gpu->ops->rope(b.gpu, NULL, gpu, 64, 1, &geom, &rope, &gpu_step), OK);
            float *got = check_host(b.gpu, gpu, sizeof(x));
            check_same_floats(x, got, 9 * 64, "rope");
            mem_free(got);
            check_release(b.gpu, gpu, sizeof(x));
        }
    close_both(&b);
}

Test(cuda_attention, what_is_not_causal_is_refused)
{
    struct scene s;
    struct step step;
    scene_init(&s, &SHAPES[0], 9);
    const struct attn_facts facts = { .scale = 1.0f, .causal = false };
    const struct batch_seq seq = { 0, 3, 0, s.blocks[0], MAX_BLOCKS, 0, 0, NULL };
    const struct batch batch = { 3, s.tokens, &seq, 1 };
    struct act act = { .n = 3, .k = 9 * 64 };
    cr_assert_eq(s.b.gpu->ops->step_begin(s.b.gpu, NULL, &batch, &step), OK);
    cr_assert_eq(s.b.gpu->ops->attention(s.b.gpu, NULL, &act, NULL, s.ld, 9, &s.gpu, &facts, &step), ERR_UNSUPPORTED);
    scene_free(&s);
}
