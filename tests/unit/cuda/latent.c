/* latent: the CUDA backend's cache of latents has the wire's bytes that the CPU's reference has, attention over it the
 * same bits, and pieces that make no sense are refused. */
#include "helpers/cuda_check.h"

#include <math.h>

#define MAX_SEQS   4
#define MAX_BLOCKS 20u /* of a sequence */
#define MAX_ROWS   1100u

static const struct backend_limits LIMITS = { .max_rows = MAX_ROWS,
                                              .max_context = MAX_BLOCKS * KV_BLOCK_TOKENS,
                                              .max_cols = 4096,
                                              .max_heads = 40,
                                              .max_head_dim = 128,
                                              .max_latent = 1024 };

struct shape {
    struct kv_geometry geom;
    uint32_t n_heads;
};

static const struct shape SHAPES[] = {
    { { 1, 64, KV_INT8, false, KV_LATENT, 16 }, 3 },   { { 1, 128, KV_INT8, false, KV_LATENT, 32 }, 16 },
    { { 1, 96, KV_INT8, false, KV_LATENT, 64 }, 40 },  { { 1, 160, KV_INT8, false, KV_LATENT, 8 }, 5 },
    { { 1, 512, KV_INT8, false, KV_LATENT, 64 }, 16 }, { { 1, 256, KV_INT8, false, KV_LATENT, 0 }, 1 },
    { { 1, 784, KV_INT8, false, KV_LATENT, 20 }, 2 },  { { 1, 96, KV_F16, false, KV_LATENT, 16 }, 5 },
    { { 1, 512, KV_F16, false, KV_LATENT, 64 }, 2 },   { { 1, 1024, KV_F16, false, KV_LATENT, 4 }, 17 },
};
#define N_SHAPES (sizeof(SHAPES) / sizeof(SHAPES[0]))

/* One layer's cache on both backends; blocks are full of junk, ids in an odd order. */
struct scene {
    const struct shape *shape;
    struct both b;
    struct kv_slices cpu, gpu;
    size_t bytes;
    uint32_t blocks[MAX_SEQS][MAX_BLOCKS];
    struct check_rng rng;
};

static void scene_init(struct scene *s, const struct shape *shape)
{
    const struct kv_geometry *g = &shape->geom;
    memset(s, 0, sizeof(*s));
    s->shape = shape;
    s->rng.state = g->head_dim + g->rope_dim;
    s->b = open_both(LIMITS);
    s->cpu = (struct kv_slices){ .stride = s->b.cpu->ops->kv_slice_bytes(s->b.cpu, g), .geom = *g };
    s->gpu = (struct kv_slices){ .stride = s->b.gpu->ops->kv_slice_bytes(s->b.gpu, g), .geom = *g };
    cr_assert_eq(s->cpu.stride, s->gpu.stride);
    s->bytes = MAX_SEQS * MAX_BLOCKS * s->cpu.stride;
    uint8_t *junk = mem_alloc(s->bytes);
    for (size_t i = 0; i < s->bytes; i++) junk[i] = (uint8_t)check_next(&s->rng);
    s->cpu.base = check_device(s->b.cpu, junk, s->bytes);
    s->gpu.base = check_device(s->b.gpu, junk, s->bytes);
    mem_free(junk);
    for (uint32_t i = 0; i < MAX_SEQS; i++)
        for (uint32_t j = 0; j < MAX_BLOCKS; j++) s->blocks[i][j] = (j * 7 + 3) % MAX_BLOCKS * MAX_SEQS + i;
}

static void scene_free(struct scene *s)
{
    check_release(s->b.cpu, s->cpu.base, s->bytes);
    check_release(s->b.gpu, s->gpu.base, s->bytes);
    close_both(&s->b);
}

/* Random floats in both's memory. */
struct pair {
    float *cpu, *gpu;
    size_t bytes;
};

static struct pair pair_of(struct scene *s, size_t n, uint32_t loud)
{
    float *x = mem_array(n, sizeof(float));
    check_fill(&s->rng, FILL_NORMAL, x, n);
    for (size_t i = 0; loud && i < n; i += loud) x[i] *= 5;
    const size_t bytes = n * sizeof(float);
    struct pair p = { check_device(s->b.cpu, x, bytes), check_device(s->b.gpu, x, bytes), bytes };
    mem_free(x);
    return p;
}

static void pair_free(struct scene *s, struct pair *p)
{
    check_release(s->b.cpu, p->cpu, p->bytes);
    check_release(s->b.gpu, p->gpu, p->bytes);
}

static void check_attention(struct scene *s, uint32_t n_rows, const struct step *cpu_step, const struct step *gpu_step)
{
    const struct kv_geometry *g = &s->shape->geom;
    const uint32_t heads = s->shape->n_heads, n = n_rows * heads, dim = g->head_dim;
    const size_t q_ld = dim + 16, rope_step = g->rope_dim + 5, rope_ld = rope_step * heads + 3;
    const size_t cq = s->b.cpu->ops->act_bytes(s->b.cpu, n, dim, COARSE);
    const size_t gq = s->b.gpu->ops->act_bytes(s->b.gpu, n, dim, COARSE);
    struct pair q = pair_of(s, n * q_ld, 0), rope = pair_of(s, n_rows * rope_ld, 0), f = pair_of(s, (size_t)n * dim, 0);
    struct act cpu = { f.cpu, check_device(s->b.cpu, NULL, cq), n, dim, COARSE };
    struct act gpu = { f.gpu, check_device(s->b.gpu, NULL, gq), n, dim, COARSE };
    const float scale = 1.0f / sqrtf((float)(dim + g->rope_dim));
    cr_assert_eq(s->b.cpu->ops->attention_latent(s->b.cpu, NULL, &cpu, q.cpu, q_ld, rope.cpu, rope_ld, rope_step, heads,
                                                 &s->cpu, scale, cpu_step),
                 OK);
    cr_assert_eq(s->b.gpu->ops->attention_latent(s->b.gpu, NULL, &gpu, q.gpu, q_ld, rope.gpu, rope_ld, rope_step, heads,
                                                 &s->gpu, scale, gpu_step),
                 OK);
    char what[64];
    snprintf(what, sizeof(what), "latents of %u, %u heads", dim, heads);
    float *got = check_host(s->b.gpu, f.gpu, f.bytes);
    check_same_floats(f.cpu, got, (size_t)n * dim, what);
    uint8_t *codes = check_host(s->b.gpu, gpu.q, gq); /* quantize() of the same values, which rows.c checks */
    cr_assert_eq(s->b.gpu->ops->quantize(s->b.gpu, NULL, &gpu), OK);
    uint8_t *again = check_host(s->b.gpu, gpu.q, gq);
    cr_assert_arr_eq(codes, again, gq);
    mem_free(got);
    mem_free(codes);
    mem_free(again);
    check_release(s->b.cpu, cpu.q, cq);
    check_release(s->b.gpu, gpu.q, gq);
    pair_free(s, &q);
    pair_free(s, &rope);
    pair_free(s, &f);
}

/* Rows of each sequence from a position on: their latents are written, and then attention is compared. */
static void run_step(struct scene *s, const uint32_t rows[MAX_SEQS], const uint32_t pos[MAX_SEQS], bool attend)
{
    static const int32_t tokens[MAX_ROWS];
    const struct kv_geometry *g = &s->shape->geom;
    const size_t ld = g->head_dim + g->rope_dim + 7;
    struct batch_seq seqs[MAX_SEQS];
    struct batch batch = { .tokens = tokens, .seqs = seqs };
    struct step cpu, gpu;
    for (uint32_t i = 0; i < MAX_SEQS; i++) {
        if (rows[i] == 0) continue;
        seqs[batch.n_seqs++] = (struct batch_seq){
            .row0 = batch.n_rows, .n_rows = rows[i], .pos0 = pos[i], .blocks = s->blocks[i], .n_blocks = MAX_BLOCKS
        };
        batch.n_rows += rows[i];
    }
    struct pair kv = pair_of(s, batch.n_rows * ld, 61);
    cr_assert_eq(s->b.cpu->ops->step_begin(s->b.cpu, NULL, &batch, &cpu), OK);
    cr_assert_eq(s->b.gpu->ops->step_begin(s->b.gpu, NULL, &batch, &gpu), OK);
    cr_assert_eq(s->b.cpu->ops->latent_write(s->b.cpu, NULL, kv.cpu, ld, kv.cpu + g->head_dim, ld, &s->cpu, &cpu), OK);
    cr_assert_eq(s->b.gpu->ops->latent_write(s->b.gpu, NULL, kv.gpu, ld, kv.gpu + g->head_dim, ld, &s->gpu, &gpu), OK);
    if (attend) check_attention(s, batch.n_rows, &cpu, &gpu);
    pair_free(s, &kv);
}

Test(cuda_latent, attention_is_the_cpus)
{
    static const uint32_t steps[][2][MAX_SEQS] = {
        { { 3, 1, 0, 20 }, { 0, 0, 0, 0 } },        /* all begin */
        { { 1, 1, 6, 2 }, { 1000, 511, 508, 20 } }, /* decode beside a few rows over a segment's end */
        { { 2, 1, 1, 1 }, { 1023, 512, 514, 22 } }, /* and at others' */
        { { 6, 0, 0, 1 }, { 1025, 0, 0, 23 } },     /* a prompt goes on over several segments */
    };
    for (size_t i = 0; i < N_SHAPES; i++) {
        struct scene s;
        scene_init(&s, &SHAPES[i]);
        run_step(&s, (const uint32_t[MAX_SEQS]){ 1023 }, (const uint32_t[MAX_SEQS]){ 0 }, false);
        run_step(&s, (const uint32_t[MAX_SEQS]){ 0, 511, 508 }, (const uint32_t[MAX_SEQS]){ 0 }, false);
        for (size_t k = SHAPES[i].n_heads > 16 ? 1 : 0; k < sizeof(steps) / sizeof(steps[0]); k++)
            run_step(&s, steps[k][0], steps[k][1], true);
        scene_free(&s);
    }
}

static struct kv_piece piece_of(const struct scene *s, uint32_t block, uint32_t t0, uint32_t t1, bool is_v)
{
    return (struct kv_piece){ .block = s->blocks[0][block],
                              .t0 = t0,
                              .t1 = t1,
                              .values = 3 * is_v, /* wherever it is */
                              .scales = 4 + (t1 - t0) * kv_value_bytes(&s->shape->geom, is_v),
                              .is_v = is_v };
}

static size_t piece_bytes(const struct scene *s, const struct kv_piece *p)
{
    return p->scales + (size_t)(p->t1 - p->t0) * kv_scale_bytes(&s->shape->geom, p->is_v);
}

/* What both have written goes over the wire as the same bytes, and comes back to other blocks. */
Test(cuda_latent, the_wire_has_the_cpus_bytes)
{
    static const uint32_t runs[][2] = { { 0, 64 }, { 5, 6 }, { 13, 61 } };
    for (size_t i = 0; i < N_SHAPES; i++) {
        struct scene s;
        scene_init(&s, &SHAPES[i]);
        run_step(&s, (const uint32_t[MAX_SEQS]){ 70 }, (const uint32_t[MAX_SEQS]){ 0 }, false);
        for (size_t k = 0; k < 6; k++) {
            struct kv_piece p = piece_of(&s, 0, runs[k / 2][0], runs[k / 2][1], k % 2);
            const size_t n = piece_bytes(&s, &p);
            uint8_t *cpu = mem_zalloc(n), *gpu = mem_zalloc(n);
            cr_assert_eq(s.b.cpu->ops->kv_pack(s.b.cpu, NULL, &s.cpu, &p, 1, cpu), OK);
            cr_assert_eq(s.b.gpu->ops->kv_pack(s.b.gpu, NULL, &s.gpu, &p, 1, gpu), OK);
            cr_assert_arr_eq(gpu, cpu, n, "shape %zu, piece %zu", i, k);
            p.block = s.blocks[1][4];
            cr_assert_eq(s.b.gpu->ops->kv_unpack(s.b.gpu, NULL, &s.gpu, &p, 1, cpu), OK);
            memset(gpu, 0, n);
            cr_assert_eq(s.b.gpu->ops->kv_pack(s.b.gpu, NULL, &s.gpu, &p, 1, gpu), OK);
            cr_assert_arr_eq(gpu, cpu, n, "shape %zu, piece %zu came back", i, k);
            mem_free(cpu);
            mem_free(gpu);
        }
        scene_free(&s);
    }
}

static enum status unpack(struct scene *s, const struct kv_piece *p, const uint8_t *wire)
{
    return s->b.gpu->ops->kv_unpack(s->b.gpu, NULL, &s->gpu, p, 1, wire);
}

Test(cuda_latent, pieces_that_make_no_sense_are_refused)
{
    static const struct shape int8 = { { 1, 160, KV_INT8, false, KV_LATENT, 16 }, 1 },
                              f16 = { { 1, 160, KV_F16, false, KV_LATENT, 16 }, 1 };
    static const float bad[] = { 0, -1, INFINITY, NAN };
    static uint8_t wire[4 * 2 * (160 + 16) + 64];
    const float one = 1;
    struct scene s, h;
    scene_init(&s, &int8);
    scene_init(&h, &f16);
    const struct kv_piece latents = piece_of(&s, 0, 0, 4, false), rope = piece_of(&s, 0, 0, 4, true);
    for (uint32_t i = 0; i < 8; i++) memcpy(wire + latents.scales + 4 * i, &one, 4);
    cr_assert_eq(unpack(&s, &latents, wire), OK);
    for (size_t i = 0; i < 4; i++) {
        memcpy(wire + latents.scales + 4 * 7, &bad[i], 4);
        cr_assert_eq(unpack(&s, &latents, wire), ERR_CORRUPT, "scale %g", (double)bad[i]);
    }
    memcpy(wire + latents.scales + 4 * 7, &one, 4);
    wire[4 * 160 - 1] = 0x80;
    cr_assert_eq(unpack(&s, &latents, wire), ERR_CORRUPT);
    memset(wire, 0, sizeof(wire));
    cr_assert_eq(unpack(&s, &rope, wire), OK);
    uint8_t *last = wire + rope.values + 2 * 4 * 16 - 2;
    last[1] = 0x7f; /* bf16: a large number, then infinity */
    cr_assert_eq(unpack(&s, &rope, wire), OK);
    last[0] = 0x80;
    cr_assert_eq(unpack(&s, &rope, wire), ERR_CORRUPT);
    last[1] = 0x7c; /* fp16: infinity is elsewhere */
    cr_assert_eq(unpack(&s, &rope, wire), OK);
    cr_assert_eq(unpack(&h, &rope, wire), ERR_CORRUPT);
    memset(wire, 0, sizeof(wire));
    const struct kv_piece halves = piece_of(&h, 0, 0, 4, false);
    cr_assert_eq(unpack(&h, &halves, wire), OK);
    wire[2 * 4 * 160 - 1] = 0xfc;
    cr_assert_eq(unpack(&h, &halves, wire), ERR_CORRUPT);
    struct kv_piece none = latents;
    none.head = 1;
    cr_assert_eq(s.b.gpu->ops->kv_pack(s.b.gpu, NULL, &s.gpu, &none, 1, wire), ERR_INVALID);
    cr_assert_eq(unpack(&s, &none, wire), ERR_INVALID);
    none = latents;
    none.t1 = 65;
    cr_assert_eq(s.b.gpu->ops->kv_pack(s.b.gpu, NULL, &s.gpu, &none, 1, wire), ERR_INVALID);
    none.t1 = 0;
    cr_assert_eq(unpack(&s, &none, wire), ERR_INVALID);
    scene_free(&s);
    scene_free(&h);
}

Test(cuda_latent, geometries_without_kernels_have_no_slice)
{
    static const struct kv_geometry none[] = {
        { 2, 64, KV_INT8, false, KV_LATENT, 16 },  { 1, 0, KV_INT8, false, KV_LATENT, 16 },
        { 1, 72, KV_INT8, false, KV_LATENT, 16 },  { 1, 1040, KV_INT8, false, KV_LATENT, 16 },
        { 1, 64, KV_INT8, false, KV_LATENT, 260 }, { 1, 64, KV_INT8, true, KV_LATENT, 16 },
        { 1, 64, KV_INT8, false, KV_LATENT, 6 },
    };
    struct both b = open_both(LIMITS);
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
        cr_assert_eq(b.gpu->ops->kv_slice_bytes(b.gpu, &none[i]), 0, "geometry %zu", i);
    close_both(&b);
}
