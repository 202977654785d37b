/* latent.c - attention over latents (MLA) and their cache: right, the same bits however the work is cut, and the wire's
 * bytes. */
#include "base/cpu.h"
#include "base/mem.h"
#include "compute/backend.h"
#include "compute/cpu/cpu_kernels.h"
#include "compute/cpu/half.h"
#include "helpers/check_backend.h"
#include "helpers/kernel_check.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#define MAX_BLOCKS 20

/* One model's shape and one sequence's inputs. */
struct scene {
    struct kv_geometry geom;
    uint32_t n_heads, n_tokens;
    size_t q_ld, rope_ld, rope_step, kv_ld; /* a row of kv is [c | k_rope] and some more */
    float *q, *q_rope, *kv, scale;
};

static const struct {
    struct kv_geometry geom;
    uint32_t n_heads;
} shapes[] = {
    { { 1, 64, KV_INT8, false, KV_LATENT, 16 }, 3 },   { { 1, 128, KV_INT8, false, KV_LATENT, 32 }, 16 },
    { { 1, 96, KV_INT8, false, KV_LATENT, 64 }, 40 },  { { 1, 160, KV_INT8, false, KV_LATENT, 8 }, 5 },
    { { 1, 512, KV_INT8, false, KV_LATENT, 64 }, 16 }, { { 1, 256, KV_INT8, false, KV_LATENT, 0 }, 1 },
    { { 1, 96, KV_F16, false, KV_LATENT, 16 }, 5 },    { { 1, 512, KV_F16, false, KV_LATENT, 64 }, 2 },
};
#define N_SHAPES (sizeof(shapes) / sizeof(shapes[0]))

static struct scene scene_of(size_t i, uint32_t n_tokens)
{
    struct check_rng rng = { 11 + i };
    struct scene s = { .geom = shapes[i].geom, .n_heads = shapes[i].n_heads, .n_tokens = n_tokens };
    const size_t width = s.geom.head_dim + s.geom.rope_dim, rows = (size_t)n_tokens * s.n_heads;
    s.q_ld = s.geom.head_dim + 16;
    s.rope_step = s.geom.rope_dim + 5;
    s.rope_ld = s.rope_step * s.n_heads + 3;
    s.kv_ld = width + 7;
    s.scale = 1.0f / sqrtf((float)width);
    s.q = mem_array(rows * s.q_ld, sizeof(float));
    s.q_rope = mem_array(n_tokens * s.rope_ld, sizeof(float));
    s.kv = mem_array(n_tokens * s.kv_ld, sizeof(float));
    check_fill(&rng, FILL_NORMAL, s.q, rows * s.q_ld);
    check_fill(&rng, FILL_NORMAL, s.q_rope, n_tokens * s.rope_ld);
    check_fill(&rng, FILL_NORMAL, s.kv, n_tokens * s.kv_ld);
    for (size_t k = 0; k < n_tokens * s.kv_ld; k += 61) s.kv[k] *= 5;
    return s;
}

static void scene_free(struct scene *s)
{
    mem_free(s->q);
    mem_free(s->q_rope);
    mem_free(s->kv);
}

static struct backend *backend_of(const char *isa, uint32_t threads)
{
    return check_backend(isa, threads, (struct backend_limits){ 1200, 1280, 4096, 64, 128, 512 });
}

/* Pool memory with every block full of junk, block ids in an odd order. */
struct pool {
    struct kv_slices kv;
    uint32_t blocks[MAX_BLOCKS];
};

static struct pool pool_of(struct backend *b, const struct kv_geometry *geom)
{
    struct check_rng rng = { 99 };
    struct pool p = { .kv = { .stride = b->ops->kv_slice_bytes(b, geom), .geom = *geom } };
    cr_assert(p.kv.stride > 0 && p.kv.stride % 64 == 0);
    p.kv.base = guard_alloc(p.kv.stride * MAX_BLOCKS);
    for (size_t i = 0; i < p.kv.stride * MAX_BLOCKS; i++) p.kv.base[i] = (uint8_t)check_next(&rng);
    for (uint32_t i = 0; i < MAX_BLOCKS; i++) p.blocks[i] = (i * 7 + 3) % MAX_BLOCKS;
    return p;
}

/* Rows [row, row + n) of the scene as one batch; out [n][n_heads][head_dim]. */
static void run_rows(struct backend *b, const struct scene *s, const struct kv_slices *kv, const struct batch *batch,
                     uint32_t row, float *out)
{
    struct step step;
    const uint32_t n = batch->n_rows;
    struct act act = { .f = guard_alloc((size_t)n * s->n_heads * s->geom.head_dim * sizeof(float)),
                       .n = n * s->n_heads,
                       .k = s->geom.head_dim };
    struct act again = act;
    const size_t q_bytes = b->ops->act_bytes(b, act.n, act.k, COARSE);
    act.q = guard_alloc(q_bytes);
    again.q = guard_alloc(q_bytes);
    const float *c = s->kv + row * s->kv_ld;
    cr_assert_eq(b->ops->step_begin(b, NULL, batch, &step), OK);
    cr_assert_eq(b->ops->latent_write(b, NULL, c, s->kv_ld, c + s->geom.head_dim, s->kv_ld, kv, &step), OK);
    cr_assert_eq(b->ops->attention_latent(b, NULL, &act, s->q + (size_t)row * s->n_heads * s->q_ld, s->q_ld,
                                          s->q_rope + row * s->rope_ld, s->rope_ld, s->rope_step, s->n_heads, kv,
                                          s->scale, &step),
                 OK);
    cr_assert_eq(b->ops->quantize(b, NULL, &again), OK);
    cr_assert(guard_intact(act.f) && guard_intact(act.q) && guard_intact(kv->base));
    cr_assert_eq(check_differs(act.q, again.q, q_bytes), q_bytes);
    memcpy(out, act.f, (size_t)act.n * act.k * sizeof(float));
    guard_free(act.f);
    guard_free(act.q);
    guard_free(again.q);
}

static void run_tokens(struct backend *b, const struct scene *s, const struct pool *p, uint32_t t0, uint32_t t1,
                       uint32_t chunk, float *out)
{
    for (uint32_t t = t0; t < t1; t += chunk) {
        const uint32_t n = t1 - t < chunk ? t1 - t : chunk;
        const struct batch_seq seq = { .n_rows = n, .pos0 = t, .blocks = p->blocks, .n_blocks = MAX_BLOCKS };
        const struct batch batch = { .n_rows = n, .seqs = &seq, .n_seqs = 1 };
        run_rows(b, s, &p->kv, &batch, t, out + (size_t)t * s->n_heads * s->geom.head_dim);
    }
}

static size_t out_floats(const struct scene *s)
{
    return (size_t)s->n_tokens * s->n_heads * s->geom.head_dim;
}

static float *run_scene(struct backend *b, const struct scene *s, uint32_t chunk)
{
    struct pool p = pool_of(b, &s->geom);
    float *out = mem_array(out_floats(s), sizeof(float));
    run_tokens(b, s, &p, 0, s->n_tokens, chunk, out);
    guard_free(p.kv.base);
    return out;
}

static void expect_same(const struct scene *s, const float *want, const float *got, const char *what)
{
    const size_t n = out_floats(s), at = check_differs(want, got, n * sizeof(float)) / sizeof(float);
    cr_assert(at == n, "%s, latent of %u: value %zu is %.9g, not %.9g", what, s->geom.head_dim, at, (double)got[at],
              (double)want[at]);
}

/* --- the wire --- */

/* A piece of block t / 64 up to `n` tokens, whose bytes begin the buffer. */
static struct kv_piece piece_of(const struct pool *p, uint32_t t, uint32_t n, bool is_v)
{
    return (struct kv_piece){
        .block = p->blocks[t / KV_BLOCK_TOKENS], .t1 = n, .scales = n * kv_value_bytes(&p->kv.geom, is_v), .is_v = is_v
    };
}

static size_t piece_bytes(const struct kv_geometry *g, uint32_t n, bool is_v)
{
    return (size_t)n * (kv_value_bytes(g, is_v) + kv_scale_bytes(g, is_v));
}

/* Token t of a piece of n as docs/kv-format.md says, in double. */
static void latent_of(const struct kv_geometry *g, const uint8_t *wire, uint32_t n, uint32_t t, double *c)
{
    for (uint32_t d = 0; d < g->head_dim; d++) {
        float scale;
        if (g->format == KV_F16) {
            c[d] = half_to_float(half_load(wire + 2 * ((size_t)t * g->head_dim + d)));
            continue;
        }
        const uint32_t groups = (g->head_dim + 127) / 128;
        memcpy(&scale, wire + (size_t)n * g->head_dim + 4 * ((size_t)t * groups + d / 128), 4);
        c[d] = (double)scale * (int8_t)wire[(size_t)t * g->head_dim + d];
    }
}

static void rope_of(const struct kv_geometry *g, const uint8_t *wire, uint32_t t, double *rope)
{
    for (uint32_t d = 0; d < g->rope_dim; d++) {
        const uint16_t h = half_load(wire + 2 * ((size_t)t * g->rope_dim + d));
        rope[d] = g->format == KV_F16 ? half_to_float(h) : bf16_to_float(h);
    }
}

/* What the cache holds of all tokens: [n_tokens][latent + rope]. */
static double *cache_of(struct backend *b, const struct scene *s, const struct pool *p)
{
    const struct kv_geometry *g = &s->geom;
    const size_t width = g->head_dim + g->rope_dim;
    double *keys = mem_array(s->n_tokens * width, sizeof(double));
    for (uint32_t t0 = 0; t0 < s->n_tokens; t0 += KV_BLOCK_TOKENS)
        for (int is_v = 0; is_v < 2; is_v++) {
            const uint32_t n = s->n_tokens - t0 < KV_BLOCK_TOKENS ? s->n_tokens - t0 : KV_BLOCK_TOKENS;
            const struct kv_piece piece = piece_of(p, t0, n, is_v);
            uint8_t *wire = guard_alloc(piece_bytes(g, n, is_v));
            cr_assert_eq(b->ops->kv_pack(b, NULL, &p->kv, &piece, 1, wire), OK);
            cr_assert(guard_intact(wire));
            for (uint32_t t = 0; t < n; t++) {
                double *row = keys + (t0 + t) * width;
                if (is_v)
                    rope_of(g, wire, t, row + g->head_dim);
                else
                    latent_of(g, wire, n, t, row);
            }
            guard_free(wire);
        }
    return keys;
}

/* --- tests --- */
Test(latent, the_cache_holds_what_was_written_to_its_precision)
{
    struct backend *b = backend_of("auto", 2);
    for (size_t i = 0; i < N_SHAPES; i++) {
        struct scene s = scene_of(i, 150);
        struct pool p = pool_of(b, &s.geom);
        const struct kv_geometry *g = &s.geom;
        const size_t width = g->head_dim + g->rope_dim;
        float *out = mem_array(out_floats(&s), sizeof(float));
        run_tokens(b, &s, &p, 0, s.n_tokens, 150, out);
        double *keys = cache_of(b, &s, &p);
        for (uint32_t t = 0; t < s.n_tokens; t++)
            for (size_t d = 0; d < width; d++) {
                const float *row = s.kv + t * s.kv_ld;
                double amax = 0, bound;
                for (size_t k = d / 128 * 128; k < g->head_dim && k < d / 128 * 128 + 128; k++)
                    amax = fmax(amax, fabs((double)row[k]));
                if (g->format == KV_F16)
                    bound = fabs((double)row[d]) / 2048 + 1e-7;
                else
                    bound = d < g->head_dim ? amax / 254 * 1.0001 : fabs((double)row[d]) / 256;
                cr_assert(fabs(keys[t * width + d] - row[d]) <= bound, "shape %zu, token %u, value %zu: %g for %g", i,
                          t, d, keys[t * width + d], (double)row[d]);
            }
        mem_free(keys);
        mem_free(out);
        guard_free(p.kv.base);
        scene_free(&s);
    }
    backend_close(b);
}

/* Attention of one query over what the cache holds, in double precision. */
static void naive(const struct scene *s, const double *keys, uint32_t t, uint32_t h, double *out)
{
    const uint32_t dim = s->geom.head_dim, rope = s->geom.rope_dim;
    const float *q = s->q + ((size_t)t * s->n_heads + h) * s->q_ld;
    const float *q_rope = s->q_rope + t * s->rope_ld + h * s->rope_step;
    double p[1200], max = -1e300, sum = 0;
    for (uint32_t j = 0; j <= t; j++) {
        const double *k = keys + (size_t)j * (dim + rope);
        p[j] = 0;
        for (uint32_t d = 0; d < dim; d++) p[j] += q[d] * k[d];
        for (uint32_t d = 0; d < rope; d++) p[j] += q_rope[d] * k[dim + d];
        p[j] *= s->scale;
        max = fmax(max, p[j]);
    }
    memset(out, 0, dim * sizeof(*out));
    for (uint32_t j = 0; j <= t; j++) {
        const double w = exp(p[j] - max);
        sum += w;
        for (uint32_t d = 0; d < dim; d++) out[d] += w * keys[(size_t)j * (dim + rope) + d];
    }
    for (uint32_t d = 0; d < dim; d++) out[d] /= sum;
}

Test(latent, attention_is_close_to_double_precision)
{
    struct backend *b = backend_of("auto", 2);
    for (size_t i = 0; i < N_SHAPES; i++) {
        struct scene s = scene_of(i, 600);
        struct pool p = pool_of(b, &s.geom);
        const uint32_t dim = s.geom.head_dim;
        float *out = mem_array(out_floats(&s), sizeof(float));
        run_tokens(b, &s, &p, 0, s.n_tokens, 600, out);
        double *keys = cache_of(b, &s, &p), want[512];
        for (uint32_t t = 0; t < s.n_tokens; t += t < 70 ? 13 : 97)
            for (uint32_t h = 0; h < s.n_heads; h++) {
                double size = 0, err = 0;
                naive(&s, keys, t, h, want);
                for (uint32_t d = 0; d < dim; d++) {
                    const double e = out[((size_t)t * s.n_heads + h) * dim + d] - want[d];
                    size += want[d] * want[d];
                    err += e * e;
                }
                cr_assert(sqrt(err / size) < 2e-4, "shape %zu, token %u, head %u: relative error %g", i, t, h,
                          sqrt(err / size));
            }
        mem_free(keys);
        mem_free(out);
        guard_free(p.kv.base);
        scene_free(&s);
    }
    backend_close(b);
}

Test(latent, every_level_gives_the_bits_of_the_reference)
{
    struct backend *ref = backend_of("ref", 1);
    for (size_t i = 0; i < N_SHAPES; i++) {
        struct scene s = scene_of(i, i == 0 ? 530 : 70);
        float *want = run_scene(ref, &s, s.n_tokens);
        for (const struct cpu_kernels *const *k = cpu_kernel_levels + 1; *k; k++) {
            if (((*k)->flags & cpu_flags()) != (*k)->flags) continue;
            struct backend *b = backend_of((*k)->name, 1);
            float *got = run_scene(b, &s, s.n_tokens);
            expect_same(&s, want, got, (*k)->name);
            mem_free(got);
            backend_close(b);
        }
        mem_free(want);
        scene_free(&s);
    }
    backend_close(ref);
}

Test(latent, chunks_and_threads_change_nothing)
{
    static const uint32_t chunks[] = { 1, 37, 64, 1100 };
    struct backend *one = backend_of("auto", 1);
    for (size_t i = 0; i < N_SHAPES; i++) {
        struct scene s = scene_of(i, i < 1 || i == 6 ? 1100 : 140);
        float *want = run_scene(one, &s, s.n_tokens);
        for (uint32_t threads = 1; threads <= 3; threads++) {
            struct backend *b = backend_of("auto", threads);
            for (size_t c = 0; c < sizeof(chunks) / sizeof(chunks[0]); c++) {
                float *got = run_scene(b, &s, chunks[c]);
                expect_same(&s, want, got, "chunked");
                mem_free(got);
            }
            backend_close(b);
        }
        mem_free(want);
        scene_free(&s);
    }
    backend_close(one);
}

/* Two sequences with the same tokens, one in prefill and one in decode. */
Test(latent, sequences_in_a_batch_do_not_touch_each_other)
{
    struct backend *b = backend_of("auto", 2);
    for (size_t i = 0; i < N_SHAPES; i++) {
        struct scene s = scene_of(i, 90);
        struct pool p = pool_of(b, &s.geom);
        const size_t row = (size_t)s.n_heads * s.geom.head_dim;
        uint32_t other[2] = { p.blocks[5], p.blocks[6] };
        float *alone = run_scene(b, &s, 90), *out = mem_array(2 * out_floats(&s), sizeof(float));
        run_tokens(b, &s, &p, 0, 80, 80, out);
        struct batch_seq seqs[2] = { { 0, 1, 80, p.blocks, 2 }, { 1, 9, 81, other, 2 } };
        struct pool q = p;
        memcpy(q.blocks, other, sizeof(other));
        run_tokens(b, &s, &q, 0, 81, 81, out);
        run_rows(b, &s, &p.kv, &(struct batch){ .n_rows = 10, .seqs = seqs, .n_seqs = 2 }, 80, out);
        cr_assert_eq(memcmp(out, alone + 80 * row, 10 * row * sizeof(float)), 0, "shape %zu", i);
        mem_free(alone);
        mem_free(out);
        guard_free(p.kv.base);
        scene_free(&s);
    }
    backend_close(b);
}

/* Cut and moved over the wire to a pool of another backend: it goes on as if uncut. */
Test(latent, goes_on_from_a_moved_cache)
{
    struct backend *b = backend_of("auto", 1), *other = backend_of("ref", 1);
    for (size_t i = 0; i < N_SHAPES; i++) {
        const uint32_t cut = 99;
        struct scene s = scene_of(i, 110);
        struct pool from = pool_of(b, &s.geom), to = pool_of(other, &s.geom);
        const size_t row = (size_t)s.n_heads * s.geom.head_dim;
        float *want = run_scene(b, &s, 110), *got = mem_array(out_floats(&s), sizeof(float));
        run_tokens(b, &s, &from, 0, cut, cut, got);
        for (uint32_t t0 = 0; t0 < cut; t0 += KV_BLOCK_TOKENS)
            for (int is_v = 0; is_v < 2; is_v++) {
                const uint32_t n = cut - t0 < KV_BLOCK_TOKENS ? cut - t0 : KV_BLOCK_TOKENS;
                const struct kv_piece piece = piece_of(&from, t0, n, is_v);
                uint8_t *wire = guard_alloc(piece_bytes(&s.geom, n, is_v));
                cr_assert_eq(b->ops->kv_pack(b, NULL, &from.kv, &piece, 1, wire), OK);
                cr_assert_eq(other->ops->kv_unpack(other, NULL, &to.kv, &piece, 1, wire), OK);
                guard_free(wire);
            }
        run_tokens(other, &s, &to, cut, 110, 4, got);
        cr_assert_eq(memcmp(got + cut * row, want + cut * row, 11 * row * sizeof(float)), 0, "shape %zu", i);
        guard_free(from.kv.base);
        guard_free(to.kv.base);
        mem_free(want);
        mem_free(got);
        scene_free(&s);
    }
    backend_close(b);
    backend_close(other);
}

Test(latent, pieces_that_make_no_sense_are_refused)
{
    struct backend *b = backend_of("auto", 1);
    static const struct kv_geometry int8 = { 1, 160, KV_INT8, false, KV_LATENT, 16 },
                                    f16 = { 1, 160, KV_F16, false, KV_LATENT, 16 };
    struct pool p = pool_of(b, &int8), h = pool_of(b, &f16);
    uint8_t wire[4 * (160 + 8) + 64] = { 0 };
    const float one = 1;
    const struct kv_piece latents = piece_of(&p, 0, 4, false), rope = piece_of(&p, 0, 4, true);
    for (uint32_t i = 0; i < 8; i++) memcpy(wire + latents.scales + 4 * i, &one, 4);
    cr_assert_eq(b->ops->kv_unpack(b, NULL, &p.kv, &latents, 1, wire), OK);
    static const float bad[] = { 0, -1, INFINITY, NAN };
    for (size_t i = 0; i < 4; i++) {
        memcpy(wire + latents.scales + 4 * 7, &bad[i], 4);
        cr_assert_eq(b->ops->kv_unpack(b, NULL, &p.kv, &latents, 1, wire), ERR_CORRUPT);
    }
    memcpy(wire + latents.scales + 4 * 7, &one, 4);
    wire[4 * 160 - 1] = 0x80;
    cr_assert_eq(b->ops->kv_unpack(b, NULL, &p.kv, &latents, 1, wire), ERR_CORRUPT);
    memset(wire, 0, sizeof(wire));
    cr_assert_eq(b->ops->kv_unpack(b, NULL, &p.kv, &rope, 1, wire), OK);
    wire[2 * 4 * 16 - 1] = 0x7f; /* bf16: a large number, then infinity */
    cr_assert_eq(b->ops->kv_unpack(b, NULL, &p.kv, &rope, 1, wire), OK);
    wire[2 * 4 * 16 - 2] = 0x80;
    cr_assert_eq(b->ops->kv_unpack(b, NULL, &p.kv, &rope, 1, wire), ERR_CORRUPT);
    wire[2 * 4 * 16 - 1] = 0x7c; /* fp16: infinity is elsewhere */
    cr_assert_eq(b->ops->kv_unpack(b, NULL, &p.kv, &rope, 1, wire), OK);
    cr_assert_eq(b->ops->kv_unpack(b, NULL, &h.kv, &rope, 1, wire), ERR_CORRUPT);
    struct kv_piece none = latents;
    none.head = 1;
    cr_assert_eq(b->ops->kv_pack(b, NULL, &p.kv, &none, 1, wire), ERR_INVALID);
    cr_assert_eq(b->ops->kv_unpack(b, NULL, &p.kv, &none, 1, wire), ERR_INVALID);
    none = latents;
    none.t1 = 65;
    cr_assert_eq(b->ops->kv_pack(b, NULL, &p.kv, &none, 1, wire), ERR_INVALID);
    none.t1 = 0;
    cr_assert_eq(b->ops->kv_unpack(b, NULL, &p.kv, &none, 1, wire), ERR_INVALID);
    cr_assert(guard_intact(p.kv.base) && guard_intact(h.kv.base));
    guard_free(p.kv.base);
    guard_free(h.kv.base);
    backend_close(b);
}

Test(latent, geometries_without_kernels_have_no_slice)
{
    struct backend *b = backend_of("auto", 1);
    static const struct kv_geometry none[] = {
        { 2, 64, KV_INT8, false, KV_LATENT, 16 },  { 1, 0, KV_INT8, false, KV_LATENT, 16 },
        { 1, 72, KV_INT8, false, KV_LATENT, 16 },  { 1, 1040, KV_INT8, false, KV_LATENT, 16 },
        { 1, 64, KV_INT8, false, KV_LATENT, 257 }, { 1, 64, KV_INT8, true, KV_LATENT, 16 },
    };
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
        cr_assert_eq(b->ops->kv_slice_bytes(b, &none[i]), 0, "geometry %zu", i);
    struct error err;
    struct backend *other;
    const struct backend_limits odd = { 8, 64, 64, 1, 64, 72 }, wide = { 8, 64, 64, 1, 64, 1040 };
    cr_assert_eq(backend_open(&other, "cpu", &(struct backend_options){ .n_threads = 1, .limits = odd }, &err),
                 ERR_UNSUPPORTED);
    cr_assert_eq(backend_open(&other, "cpu", &(struct backend_options){ .n_threads = 1, .limits = wide }, &err),
                 ERR_UNSUPPORTED);
    backend_close(b);
}

Test(latent, bf16_rounds_to_nearest_even)
{
    static const struct {
        uint32_t bits;
        uint16_t want;
    } table[] = { { 0x3f800000, 0x3f80 }, { 0x3f808000, 0x3f80 }, { 0x3f808001, 0x3f81 }, { 0x3f818000, 0x3f82 },
                  { 0x7f7fffff, 0x7f80 }, { 0xff800000, 0xff80 }, { 0x80000000, 0x8000 }, { 0x7f800001, 0x7fc0 } };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        cr_assert_eq(bf16_round(half_from_bits(table[i].bits)), table[i].want, "%08x", table[i].bits);
}
