/* attention.c - INT8 and fp16 attention: exact enough, and the same bits however the work is cut. */
#include "base/cpu.h"
#include "base/mem.h"
#include "compute/backend.h"
#include "compute/cpu/cpu_internal.h"
#include "helpers/avxvnni_trap.h"
#include "helpers/check_backend.h"
#include "helpers/kernel_check.h"
#include "helpers/vex_trap.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#define MAX_BLOCKS 24

/* One model's shape and one sequence's inputs. */
struct scene {
    struct kv_geometry geom;
    uint32_t n_heads, n_tokens;
    size_t ld, k_off, v_off;
    float *qkv; /* [n_tokens][ld], before RoPE */
    struct rope_params rope;
    struct attn_facts facts;
};

static const float sinks[32] = { 1.5f, -2.0f, 4.0f, 0.0f, 8.0f, -30.0f, 2.5f, 1.0f, 3.0f, 6.0f, -1.0f };

static void scene_init(struct scene *s, struct kv_geometry geom, uint32_t n_heads, uint32_t n_tokens, bool neox,
                       uint64_t seed)
{
    struct check_rng rng = { seed };
    const size_t dim = geom.head_dim;
    *s = (struct scene){ .geom = geom, .n_heads = n_heads, .n_tokens = n_tokens };
    s->k_off = n_heads * dim;
    s->v_off = s->k_off + geom.n_kv_heads * dim;
    s->ld = s->v_off + geom.n_kv_heads * dim;
    s->qkv = mem_array(n_tokens * s->ld, sizeof(float));
    check_fill(&rng, FILL_NORMAL, s->qkv, n_tokens * s->ld);
    for (size_t i = 0; i < n_tokens * s->ld; i++) s->qkv[i] *= i % 61 == 7 ? 6.0f : 1.5f;
    s->rope = (struct rope_params){ .base = 10000, .scale = 1, .dims = geom.head_dim, .neox = neox, .attn_factor = 1 };
    s->facts = (struct attn_facts){ .scale = 1.0f / sqrtf((float)geom.head_dim), .causal = true };
}

static struct backend *backend_of(const char *isa, uint32_t threads)
{
    return check_backend(isa, threads, (struct backend_limits){ 2048, 2048, 4096, 32, 256 });
}

/* Pool memory with every block full of junk, block ids in an odd order. */
struct pool {
    struct kv_slices kv;
    uint32_t blocks[MAX_BLOCKS];
};

static void pool_init(struct pool *p, struct backend *b, const struct kv_geometry *geom)
{
    struct check_rng rng = { 99 };
    p->kv = (struct kv_slices){ .stride = b->ops->kv_slice_bytes(b, geom), .geom = *geom };
    p->kv.base = guard_alloc(p->kv.stride * MAX_BLOCKS);
    for (size_t i = 0; i < p->kv.stride * MAX_BLOCKS; i++) p->kv.base[i] = (uint8_t)check_next(&rng);
    for (uint32_t i = 0; i < MAX_BLOCKS; i++) p->blocks[i] = (i * 7 + 3) % MAX_BLOCKS;
}

/* Blocks that no row from `pos` on sees are gone: their ids are those of no block. */
static void forget_blocks(const struct scene *s, uint32_t *blocks, uint32_t pos)
{
    const uint32_t window = s->facts.window, first = window && pos >= window ? pos - window + 1 : 0;
    for (uint32_t i = 0; i < first / KV_BLOCK_TOKENS; i++) blocks[i] = UINT32_MAX;
}

/* The scene in steps of `chunk` tokens: [n_tokens][n_heads * dim]; the last step may have kernels of its own. */
static float *run_scene_ending(struct backend *b, const struct scene *s, uint32_t chunk, const struct cpu_kernels *last)
{
    const struct cpu_kernels *usual = cpu_of(b)->kernels;
    const size_t width = s->n_heads * (size_t)s->geom.head_dim;
    struct pool p;
    pool_init(&p, b, &s->geom);
    float *qkv = mem_array(s->n_tokens * s->ld, sizeof(float));
    memcpy(qkv, s->qkv, s->n_tokens * s->ld * sizeof(float));
    float *out = guard_alloc(s->n_tokens * width * sizeof(float));
    for (uint32_t t = 0; t < s->n_tokens; t += chunk) {
        uint32_t n = s->n_tokens - t < chunk ? s->n_tokens - t : chunk;
        struct batch_seq seq = { 0, n, t, p.blocks, MAX_BLOCKS };
        struct batch batch = { n, NULL, &seq, 1 };
        struct step step;
        forget_blocks(s, p.blocks, t);
        cr_assert_eq(b->ops->step_begin(b, NULL, &batch, &step), OK);
        struct act act = { .f = out + t * width, .n = n, .k = (uint32_t)width };
        act.q = guard_alloc(b->ops->act_bytes(b, n, act.k, COARSE));
        if (t + n == s->n_tokens) cpu_of(b)->kernels = last;
        cr_assert_eq(b->ops->rope_kv_write(b, NULL, qkv + t * s->ld, s->ld, s->n_heads, s->k_off, s->v_off, &p.kv,
                                           &s->rope, &step),
                     OK);
        cr_assert_eq(b->ops->attention(b, NULL, &act, qkv + t * s->ld, s->ld, s->n_heads, &p.kv, &s->facts, &step), OK);
        cr_assert(guard_intact(act.q));
        guard_free(act.q);
    }
    cr_assert(guard_intact(out) && guard_intact(p.kv.base));
    cpu_of(b)->kernels = usual;
    guard_free(p.kv.base);
    mem_free(qkv);
    return out;
}

static float *run_scene(struct backend *b, const struct scene *s, uint32_t chunk)
{
    return run_scene_ending(b, s, chunk, cpu_of(b)->kernels);
}

static void rope_double(const struct scene *s, double *x, uint32_t pos)
{
    const uint32_t half = s->rope.dims / 2;
    for (uint32_t i = 0; i < half; i++) {
        double angle = pos * pow(s->rope.base, -2.0 * i / s->rope.dims), c = cos(angle), sn = sin(angle);
        uint32_t a = s->rope.neox ? i : 2 * i, b = s->rope.neox ? half + i : 2 * i + 1;
        double u = x[a], v = x[b];
        x[a] = u * c - v * sn;
        x[b] = u * sn + v * c;
    }
}

static void head_double(const struct scene *s, double *out, uint32_t t, size_t off, bool turn)
{
    for (uint32_t d = 0; d < s->geom.head_dim; d++) out[d] = s->qkv[t * s->ld + off + d];
    if (turn) rope_double(s, out, t);
}

/* Attention of row t, head h, in double precision and without any quantization. */
static void naive(const struct scene *s, uint32_t t, uint32_t h, double *out)
{
    const uint32_t dim = s->geom.head_dim, kvh = h / (s->n_heads / s->geom.n_kv_heads);
    const uint32_t first = s->facts.window && t >= s->facts.window ? t - s->facts.window + 1 : 0;
    double q[512], k[512], p[2048], max = s->facts.sinks ? s->facts.sinks[h] : -1e300, sum = 0;
    head_double(s, q, t, (size_t)h * dim, true);
    for (uint32_t j = first; j <= t; j++) {
        head_double(s, k, j, s->k_off + (size_t)kvh * dim, true);
        p[j] = 0;
        for (uint32_t d = 0; d < dim; d++) p[j] += q[d] * k[d];
        p[j] /= sqrt(dim);
        if (s->facts.softcap != 0.0f) p[j] = s->facts.softcap * tanh(p[j] / s->facts.softcap);
        if (p[j] > max) max = p[j];
    }
    if (s->facts.sinks) sum = exp(s->facts.sinks[h] - max);
    memset(out, 0, dim * sizeof(*out));
    for (uint32_t j = first; j <= t; j++) {
        double w = exp(p[j] - max);
        sum += w;
        for (uint32_t d = 0; d < dim; d++) out[d] += w * s->qkv[j * s->ld + s->v_off + (size_t)kvh * dim + d];
    }
    for (uint32_t d = 0; d < dim; d++) out[d] /= sum;
}

static double worst_error(const struct scene *s, const float *out)
{
    const uint32_t dim = s->geom.head_dim;
    double worst = 0, want[512];
    for (uint32_t t = 0; t < s->n_tokens; t += t < 5 ? 1 : t < 70 ? 13 : 97) /* a window of 1 is full at 1 */
        for (uint32_t h = 0; h < s->n_heads; h++) {
            naive(s, t, h, want);
            double size = 0, err = 0;
            for (uint32_t d = 0; d < dim; d++) {
                double e = out[(t * (size_t)s->n_heads + h) * dim + d] - want[d];
                size += want[d] * want[d];
                err += e * e;
            }
            if (sqrt(err / size) > worst) worst = sqrt(err / size);
        }
    return worst;
}

static const struct {
    struct kv_geometry geom;
    uint32_t n_heads;
    bool neox;
    uint32_t window;
    float softcap;
    const float *sinks;
} shapes[] = {
    { { 3, 64, KV_INT8, true }, 9, false },
    { { 1, 128, KV_INT8, false }, 4, true },
    { { 2, 80, KV_INT8, true }, 2, true },
    { { 1, 96, KV_INT8, true }, 11, false },
    { { 1, 256, KV_INT8, true }, 2, false },
    { { 3, 64, KV_F16, false }, 9, false },
    { { 2, 96, KV_F16, true }, 4, true },
    { { 1, 64, KV_INT8, true }, 11, true, .window = 70 },
    { { 2, 64, KV_INT8, true }, 4, true, .window = 128, .sinks = sinks },
    { { 1, 64, KV_INT8, true }, 2, true, .window = 1 },
    { { 1, 96, KV_INT8, true }, 3, true, .softcap = 3.0f },
    { { 1, 64, KV_INT8, true }, 3, true, .window = 530, .softcap = 3.0f },
    { { 3, 64, KV_F16, false }, 9, false, .window = 100, .softcap = 4.0f, .sinks = sinks },
    { { 1, 64, KV_F16, false }, 2, false, .sinks = sinks },
};
#define N_SHAPES (sizeof(shapes) / sizeof(shapes[0]))

static void shape_init(struct scene *s, size_t i, uint32_t n_tokens, uint64_t seed)
{
    scene_init(s, shapes[i].geom, shapes[i].n_heads, n_tokens, shapes[i].neox, seed);
    s->facts.window = shapes[i].window;
    s->facts.softcap = shapes[i].softcap;
    s->facts.sinks = shapes[i].sinks;
}

/* Each fact moves the answer by far more than is allowed: a test that passes without it would prove nothing. */
Test(attention, each_fact_matters)
{
    struct backend *b = backend_of("auto", 1);
    for (size_t i = 0; i < N_SHAPES; i++) {
        struct scene s, without;
        shape_init(&s, i, 600, i);
        float *out = run_scene(b, &s, 600);
        without = s;
        for (int fact = 0; fact < 3; fact++) {
            without.facts = s.facts;
            if (fact == 0) without.facts.window = 0;
            if (fact == 1) without.facts.softcap = 0;
            if (fact == 2) without.facts.sinks = NULL;
            if (memcmp(&without.facts, &s.facts, sizeof(s.facts)) == 0) continue;
            double err = worst_error(&without, out);
            cr_assert(err > 0.3, "shape %zu: without fact %d the error is %g", i, fact, err);
        }
        guard_free(out);
        mem_free(s.qkv);
    }
    backend_close(b);
}

Test(attention, is_close_to_double_precision)
{
    struct backend *b = backend_of("auto", 2);
    for (size_t i = 0; i < N_SHAPES; i++) {
        struct scene s;
        shape_init(&s, i, 600, i);
        float *out = run_scene(b, &s, 600);
        double err = worst_error(&s, out), bound = s.geom.format == KV_INT8 ? 0.08 : 4e-3;
        cr_assert(err < bound, "shape %zu: relative error %g", i, err);
        guard_free(out);
        mem_free(s.qkv);
    }
    backend_close(b);
}

static void expect_same(const struct scene *s, const float *want, const float *got, const char *what)
{
    size_t n = s->n_tokens * (size_t)s->n_heads * s->geom.head_dim;
    size_t at = check_differs(want, got, n * sizeof(float)) / sizeof(float);
    size_t width = s->n_heads * (size_t)s->geom.head_dim;
    cr_assert(at == n, "%s, head_dim %u: token %zu column %zu is %.9g, not %.9g", what, s->geom.head_dim, at / width,
              at % width, (double)got[at], (double)want[at]);
}

Test(attention, every_level_gives_the_bits_of_the_reference)
{
    struct backend *ref = backend_of("ref", 1);
    for (size_t i = 0; i < N_SHAPES; i++) {
        struct scene s;
        shape_init(&s, i, i && shapes[i].window < 500 ? 147 : 600, 100 + i);
        float *want = run_scene(ref, &s, s.n_tokens);
        for (const struct cpu_kernels *const *k = cpu_kernel_levels + 1; *k; k++) {
            if (((*k)->flags & cpu_flags()) != (*k)->flags) continue;
            struct backend *b = backend_of((*k)->name, 1);
            float *got = run_scene(b, &s, s.n_tokens);
            expect_same(&s, want, got, (*k)->name);
            guard_free(got);
            backend_close(b);
        }
        guard_free(want);
        mem_free(s.qkv);
    }
    backend_close(ref);
}

/* Three tokens over a full block and a short one: native, or with the dot products trapped. */
Test(attention, avxvnni_gives_the_bits_of_the_reference)
{
    if (!(cpu_flags() & CPU_AVX2)) cr_skip_test("AVX2 is needed");
    const bool native = (cpu_flags() & CPU_AVX_VNNI) || !avxvnni_trap_install();
    struct backend *ref = backend_of("ref", 1), *b = backend_of("avx2", 1);
    for (size_t i = 0; i < N_SHAPES; i++) {
        struct scene s;
        shape_init(&s, i, 67, 300 + i);
        unsigned long before = vex_trap_count();
        float *want = run_scene(ref, &s, 64), *got = run_scene_ending(b, &s, 64, &cpu_kernels_avxvnni);
        expect_same(&s, want, got, "avxvnni");
        cr_assert(native || (vex_trap_count() > before) == (s.geom.format == KV_INT8));
        guard_free(got);
        guard_free(want);
        mem_free(s.qkv);
    }
    backend_close(b);
    backend_close(ref);
}

Test(attention, chunks_and_threads_change_nothing)
{
    struct backend *one = backend_of("auto", 1);
    for (size_t i = 0; i < N_SHAPES; i++) {
        struct scene s;
        shape_init(&s, i, 1100, 200 + i);
        float *want = run_scene(one, &s, s.n_tokens);
        for (uint32_t threads = 1; threads <= 3; threads++) {
            static const uint32_t chunks[] = { 1, 37, 64, 512, 1100 };
            struct backend *b = backend_of("auto", threads);
            for (size_t c = 0; c < sizeof(chunks) / sizeof(chunks[0]); c++) {
                float *got = run_scene(b, &s, chunks[c]);
                expect_same(&s, want, got, "chunked");
                guard_free(got);
            }
            backend_close(b);
        }
        guard_free(want);
        mem_free(s.qkv);
    }
    backend_close(one);
}

/* Sequences of different lengths in one batch, some in prefill and some in decode. */
Test(attention, sequences_in_a_batch_do_not_touch_each_other)
{
    enum { N = 5 };
    static const uint32_t before[N] = { 0, 64, 700, 3, 129 }, rows[N] = { 9, 1, 1, 70, 2 };
    struct backend *b = backend_of("auto", 2);
    struct scene s;
    scene_init(&s, shapes[0].geom, shapes[0].n_heads, 800, false, 7);
    float *alone = run_scene(b, &s, 800);
    const size_t width = s.n_heads * (size_t)s.geom.head_dim;
    struct pool p[N];
    struct batch_seq seqs[N];
    uint8_t *memory;
    uint32_t n = 0, total = 0;
    pool_init(&p[0], b, &s.geom);
    memory = mem_alloc(p[0].kv.stride * MAX_BLOCKS * N);
    struct kv_slices kv = { memory, p[0].kv.stride, s.geom };
    guard_free(p[0].kv.base);
    for (uint32_t i = 0; i < N; i++) total += rows[i];
    float *qkv = mem_array(800 * s.ld, sizeof(float)), *in = mem_array(total * s.ld, sizeof(float));
    for (uint32_t i = 0; i < N; i++) {
        for (uint32_t j = 0; j < MAX_BLOCKS; j++) p[i].blocks[j] = j * N + i;
        memcpy(qkv, s.qkv, 800 * s.ld * sizeof(float));
        struct batch_seq seq = { 0, before[i], 0, p[i].blocks, MAX_BLOCKS };
        struct batch history = { before[i], NULL, &seq, 1 };
        struct step step;
        cr_assert_eq(b->ops->step_begin(b, NULL, &history, &step), OK);
        cr_assert_eq(b->ops->rope_kv_write(b, NULL, qkv, s.ld, s.n_heads, s.k_off, s.v_off, &kv, &s.rope, &step), OK);
        seqs[i] = (struct batch_seq){ n, rows[i], before[i], p[i].blocks, MAX_BLOCKS };
        memcpy(in + n * s.ld, s.qkv + before[i] * s.ld, rows[i] * s.ld * sizeof(float));
        n += rows[i];
    }
    struct batch batch = { total, NULL, seqs, N };
    struct step step;
    cr_assert_eq(b->ops->step_begin(b, NULL, &batch, &step), OK);
    struct act act = { .f = mem_array(total * width, sizeof(float)), .n = total, .k = (uint32_t)width };
    act.q = mem_alloc(b->ops->act_bytes(b, total, act.k, COARSE));
    cr_assert_eq(b->ops->rope_kv_write(b, NULL, in, s.ld, s.n_heads, s.k_off, s.v_off, &kv, &s.rope, &step), OK);
    cr_assert_eq(b->ops->attention(b, NULL, &act, in, s.ld, s.n_heads, &kv,
                                   &(struct attn_facts){ 0.125f, .causal = true }, &step),
                 OK);
    for (uint32_t i = 0; i < N; i++)
        cr_assert_arr_eq(act.f + seqs[i].row0 * width, alone + before[i] * width, rows[i] * width * sizeof(float));
    mem_free(act.f);
    mem_free(act.q);
    mem_free(qkv);
    mem_free(in);
    mem_free(memory);
    guard_free(alone);
    mem_free(s.qkv);
    backend_close(b);
}

/* Query heads [h0, h1) of the scene and the kv heads that they read, as a rank of a tensor-parallel group has them. */
static struct scene scene_cut(const struct scene *s, uint32_t h0, uint32_t h1, uint32_t kv0, uint32_t kv1)
{
    const size_t dim = s->geom.head_dim;
    struct scene cut = *s;
    cut.n_heads = h1 - h0;
    cut.geom.n_kv_heads = kv1 - kv0;
    cut.k_off = cut.n_heads * dim;
    cut.v_off = cut.k_off + cut.geom.n_kv_heads * dim;
    cut.ld = cut.v_off + cut.geom.n_kv_heads * dim;
    cut.facts.group = s->n_heads / s->geom.n_kv_heads;
    cut.facts.first = h0 - kv0 * cut.facts.group;
    cut.qkv = mem_array(s->n_tokens * cut.ld, sizeof(float));
    for (uint32_t t = 0; t < s->n_tokens; t++) {
        const float *from = s->qkv + t * s->ld;
        float *to = cut.qkv + t * cut.ld;
        memcpy(to, from + h0 * dim, cut.n_heads * dim * sizeof(float));
        memcpy(to + cut.k_off, from + s->k_off + kv0 * dim, cut.geom.n_kv_heads * dim * sizeof(float));
        memcpy(to + cut.v_off, from + s->v_off + kv0 * dim, cut.geom.n_kv_heads * dim * sizeof(float));
    }
    return cut;
}

static void check_cuts(enum kv_format format, uint32_t n_heads, uint32_t n_kv, uint32_t n_tokens, uint32_t chunk)
{
    struct backend *b = backend_of("auto", 2);
    struct scene s;
    scene_init(&s, (struct kv_geometry){ n_kv, 32, format, false }, n_heads, n_tokens, false, 5);
    float *want = run_scene(b, &s, chunk);
    const uint32_t group = n_heads / n_kv;
    for (uint32_t h0 = 0; h0 < n_heads; h0++)
        for (uint32_t h1 = h0 + 1; h1 <= n_heads; h1++) {
            struct scene cut = scene_cut(&s, h0, h1, h0 / group, (h1 + group - 1) / group);
            float *got = run_scene(b, &cut, chunk);
            for (uint32_t t = 0; t < n_tokens; t++)
                cr_assert_eq(memcmp(got + (size_t)t * cut.n_heads * 32, want + ((size_t)t * n_heads + h0) * 32,
                                    (size_t)cut.n_heads * 32 * sizeof(float)),
                             0, "heads %u to %u of %u over %u, token %u", h0, h1, n_heads, n_kv, t);
            guard_free(got);
            mem_free(cut.qkv);
        }
    guard_free(want);
    mem_free(s.qkv);
    backend_close(b);
}

Test(attention, a_shard_of_heads_gives_the_bits_of_the_whole)
{
    check_cuts(KV_INT8, 9, 3, 70, 70);
    check_cuts(KV_F16, 6, 2, 70, 33);
    check_cuts(KV_INT8, 11, 1, 40, 40);  /* a group wider than a tile */
    check_cuts(KV_INT8, 4, 2, 600, 600); /* one row is split by segments below */
    check_cuts(KV_INT8, 4, 2, 600, 599);
}

/* RoPE and the write of the cache are ops of their own; the fused one has their bits. */
Test(attention, rope_and_kv_write_are_what_the_fused_op_does)
{
    struct backend *b = backend_of("auto", 2);
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        enum { N = 70 };
        struct scene s;
        struct pool one, two;
        struct step step;
        scene_init(&s, shapes[i].geom, shapes[i].n_heads, N, i % 2, 40 + i);
        pool_init(&one, b, &s.geom);
        pool_init(&two, b, &s.geom);
        struct batch_seq seq = { 0, N, 0, one.blocks, MAX_BLOCKS };
        struct batch batch = { N, NULL, &seq, 1 };
        const size_t bytes = N * s.ld * sizeof(float);
        float *fused = mem_array(N * s.ld, sizeof(float)), *split = mem_array(N * s.ld, sizeof(float));
        memcpy(fused, s.qkv, bytes);
        memcpy(split, s.qkv, bytes);
        cr_assert_eq(b->ops->step_begin(b, NULL, &batch, &step), OK);
        cr_assert_eq(b->ops->rope_kv_write(b, NULL, fused, s.ld, s.n_heads, s.k_off, s.v_off, &one.kv, &s.rope, &step),
                     OK);
        cr_assert_eq(b->ops->rope(b, NULL, split, s.ld, s.n_heads, &s.geom, &s.rope, &step), OK);
        cr_assert_eq(b->ops->rope(b, NULL, split + s.k_off, s.ld, s.geom.n_kv_heads, &s.geom, &s.rope, &step), OK);
        cr_assert_eq(b->ops->kv_write(b, NULL, split + s.k_off, split + s.v_off, s.ld, &two.kv, &step), OK);
        cr_assert_arr_eq(split, fused, bytes);
        cr_assert_arr_eq(two.kv.base, one.kv.base, one.kv.stride * MAX_BLOCKS);
        cr_assert_neq(memcmp(split, s.qkv, bytes), 0, "nothing was turned");
        guard_free(one.kv.base);
        guard_free(two.kv.base);
        mem_free(fused);
        mem_free(split);
        mem_free(s.qkv);
    }
    backend_close(b);
}

/* What is not there yet is refused, never computed as something else. */
Test(attention, facts_that_are_not_there_are_refused)
{
    const struct attn_facts facts = { .scale = 1.0f, .causal = false };
    struct backend *b = backend_of("auto", 1);
    struct scene s;
    struct pool p;
    struct step step;
    scene_init(&s, shapes[0].geom, shapes[0].n_heads, 3, false, 9);
    pool_init(&p, b, &s.geom);
    struct batch_seq seq = { 0, 3, 0, p.blocks, MAX_BLOCKS };
    struct batch batch = { 3, NULL, &seq, 1 };
    const size_t width = s.n_heads * (size_t)s.geom.head_dim;
    struct act act = { .f = mem_array(3 * width, sizeof(float)), .n = 3, .k = (uint32_t)width };
    act.q = mem_alloc(b->ops->act_bytes(b, 3, act.k, COARSE));
    cr_assert_eq(b->ops->step_begin(b, NULL, &batch, &step), OK);
    cr_assert_eq(b->ops->attention(b, NULL, &act, s.qkv, s.ld, s.n_heads, &p.kv, &facts, &step), ERR_UNSUPPORTED);
    mem_free(act.f);
    mem_free(act.q);
    guard_free(p.kv.base);
    mem_free(s.qkv);
    backend_close(b);
}
