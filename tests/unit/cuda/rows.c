/* rows: the CUDA backend's row ops give the bits of the CPU's reference, quantized forms included. */
#include "compute/cpu/cpu_kernels.h"
#include "compute/cuda/cuda_act.h"
#include "helpers/cuda_check.h"

#include <math.h>

static const struct backend_limits LIMITS = { .max_rows = 64, .max_context = 512, .max_cols = 16384 };

/* An act of each backend. */
struct acts {
    struct act cpu, gpu;
    size_t f_bytes, cpu_bytes, gpu_bytes;
};

static struct acts acts_of(const struct both *b, uint32_t n, uint32_t k, enum precision precision)
{
    struct acts a = { .f_bytes = (size_t)n * k * sizeof(float),
                      .cpu_bytes = b->cpu->ops->act_bytes(b->cpu, n, k, precision),
                      .gpu_bytes = b->gpu->ops->act_bytes(b->gpu, n, k, precision) };
    a.cpu =
        (struct act){ check_device(b->cpu, NULL, a.f_bytes), check_device(b->cpu, NULL, a.cpu_bytes), n, k, precision };
    a.gpu =
        (struct act){ check_device(b->gpu, NULL, a.f_bytes), check_device(b->gpu, NULL, a.gpu_bytes), n, k, precision };
    return a;
}

static void acts_free(const struct both *b, struct acts *a)
{
    check_release(b->cpu, a->cpu.f, a->f_bytes);
    check_release(b->cpu, a->cpu.q, a->cpu_bytes);
    check_release(b->gpu, a->gpu.f, a->f_bytes);
    check_release(b->gpu, a->gpu.q, a->gpu_bytes);
}

static bool same_float(float a, float b)
{
    return memcmp(&a, &b, sizeof(a)) == 0 || (a != a && b != b);
}

/* Row `row` of the CPU's tiles (of `rows` rows) against row `at` of the planes. */
static void check_row(const uint8_t *tiles, uint32_t rows, uint32_t row, const struct act_planes *p, uint32_t at,
                      uint32_t k)
{
    const uint32_t h = act_tile_height(rows, row), r = row % ACT_TILE;
    for (uint32_t blk = 0; blk < act_blocks(k); blk++) {
        const uint8_t *t = tiles + act_tile_offset(row, k) + (size_t)blk * h * ACT_ROW_BYTES;
        float scale[2], sum;
        int32_t minus[2];
        memcpy(scale, t + 32 * h + 8 * r, 8);
        memcpy(minus, t + 40 * h + 8 * r, 8);
        memcpy(&sum, t + 48 * h + 4 * r, 4);
        const uint32_t groups = k - 32 * blk < 32 ? 1 : 2;
        cr_assert_eq(memcmp(t + ACT_BLOCK * r, p->q + (size_t)at * p->k32 + 32 * blk, 16 * groups), 0, "codes, row %u",
                     row);
        for (uint32_t g = 0; g < groups; g++) {
            cr_assert(same_float(scale[g], p->scale[(size_t)at * (p->k32 / 16) + 2 * blk + g]), "scale, row %u", row);
            cr_assert_eq(-minus[g], p->sum[(size_t)at * (p->k32 / 16) + 2 * blk + g], "sum, row %u", row);
        }
        cr_assert(same_float(sum, p->block_sum[(size_t)at * (p->k32 / 32) + blk]), "block sum, row %u", row);
    }
}

static void check_acts(const struct both *b, const struct acts *a, const char *what)
{
    const uint32_t n = a->cpu.n, k = a->cpu.k;
    const bool fine = a->cpu.precision == FINE;
    float *f = check_host(b->gpu, a->gpu.f, a->f_bytes);
    uint8_t *q = check_host(b->gpu, a->gpu.q, a->gpu_bytes);
    const struct act_planes p = act_planes_of(q, fine ? 2 * n : n, k);
    check_same_floats(a->cpu.f, f, (size_t)n * k, what);
    for (uint32_t row = 0; row < n; row++) {
        const uint8_t *fine_tiles = (const uint8_t *)a->cpu.q + act_tiles_bytes(n, k);
        check_row(a->cpu.q, n, row, &p, row, k);
        if (fine) check_row(fine_tiles, 2 * n, 2 * row + 1, &p, n + row, k);
    }
    mem_free(f);
    mem_free(q);
}

/* Random rows, the same for both. */
struct pair {
    float *host, *gpu;
    size_t bytes;
};

static struct pair pair_of(const struct both *b, size_t n, enum check_fill fill, uint64_t seed)
{
    struct check_rng rng = { seed };
    struct pair p = { .host = mem_array(n, sizeof(float)), .bytes = n * sizeof(float) };
    check_fill(&rng, fill, p.host, n);
    p.gpu = check_device(b->gpu, p.host, p.bytes);
    return p;
}

static void pair_free(const struct both *b, struct pair *p)
{
    check_release(b->gpu, p->gpu, p->bytes);
    mem_free(p->host);
}

static void check_pair(const struct both *b, const struct pair *p, const char *what)
{
    float *got = check_host(b->gpu, p->gpu, p->bytes);
    check_same_floats(p->host, got, p->bytes / sizeof(float), what);
    mem_free(got);
}

static const uint32_t WIDTHS[] = { 16, 48, 256, 272, 1040, 8208 };

#define EACH_CASE(n, k, fill, precision)                                                                               \
    for (size_t k##_i = 0; k##_i < sizeof(WIDTHS) / sizeof(WIDTHS[0]); k##_i++)                                        \
        for (uint32_t k = WIDTHS[k##_i], n = k##_i % 2 ? 1 : 11, once = 1; once; once = 0)                             \
            for (enum check_fill fill = 0; fill < FILL_COUNT; fill++)                                                  \
                for (enum precision precision = COARSE; precision <= FINE; precision++)

Test(cuda_rows, quantize_norm_and_gates_are_the_cpus)
{
    struct both b = open_both(LIMITS);
    EACH_CASE(n, k, fill, precision)
    {
        struct acts a = acts_of(&b, n, k, precision);
        struct pair x = pair_of(&b, (size_t)n * k, fill, 7 * k + fill), w = pair_of(&b, k, FILL_NORMAL, k);
        struct pair y = pair_of(&b, (size_t)n * k, FILL_NORMAL, k + 1);
        const float eps = 1e-5f;
        for (int with = 0; with < 2; with++) {
            cr_assert_eq(b.cpu->ops->rmsnorm(b.cpu, NULL, &a.cpu, x.host, with ? w.host : NULL, eps), OK);
            cr_assert_eq(b.gpu->ops->rmsnorm(b.gpu, NULL, &a.gpu, x.gpu, with ? w.gpu : NULL, eps), OK);
            check_acts(&b, &a, "rmsnorm");
        }
        for (enum glu_kind kind = 0; kind < GLU_COUNT; kind++) {
            cr_assert_eq(b.cpu->ops->glu(b.cpu, NULL, &a.cpu, x.host, y.host, k, kind), OK);
            cr_assert_eq(b.gpu->ops->glu(b.gpu, NULL, &a.gpu, x.gpu, y.gpu, k, kind), OK);
            check_acts(&b, &a, "glu");
        }
        cr_assert_eq(b.cpu->ops->gate_act(b.cpu, NULL, &a.cpu, x.host, k), OK);
        cr_assert_eq(b.gpu->ops->gate_act(b.gpu, NULL, &a.gpu, x.gpu, k), OK);
        check_acts(&b, &a, "gate_act");
        cr_assert_eq(b.cpu->ops->upload(b.cpu, NULL, a.cpu.f, x.host, x.bytes), OK);
        cr_assert_eq(b.gpu->ops->upload(b.gpu, NULL, a.gpu.f, x.host, x.bytes), OK);
        cr_assert_eq(b.cpu->ops->quantize(b.cpu, NULL, &a.cpu), OK);
        cr_assert_eq(b.gpu->ops->quantize(b.gpu, NULL, &a.gpu), OK);
        check_acts(&b, &a, "quantize");
        pair_free(&b, &x);
        pair_free(&b, &w);
        pair_free(&b, &y);
        acts_free(&b, &a);
    }
    close_both(&b);
}

Test(cuda_rows, quantize_of_what_is_not_finite_is_nan_in_its_group_alone)
{
    struct both b = open_both(LIMITS);
    struct acts a = acts_of(&b, 2, 64, FINE);
    struct pair x = pair_of(&b, 128, FILL_NORMAL, 3);
    x.host[5] = INFINITY;
    x.host[40] = NAN;
    cr_assert_eq(b.cpu->ops->upload(b.cpu, NULL, a.cpu.f, x.host, x.bytes), OK);
    cr_assert_eq(b.gpu->ops->upload(b.gpu, NULL, a.gpu.f, x.host, x.bytes), OK);
    cr_assert_eq(b.cpu->ops->quantize(b.cpu, NULL, &a.cpu), OK);
    cr_assert_eq(b.gpu->ops->quantize(b.gpu, NULL, &a.gpu), OK);
    check_acts(&b, &a, "not finite");
    pair_free(&b, &x);
    acts_free(&b, &a);
    close_both(&b);
}

Test(cuda_rows, ops_in_place_are_the_cpus)
{
    struct both b = open_both(LIMITS);
    for (enum check_fill fill = 0; fill < FILL_COUNT; fill++) {
        const uint32_t n = 5, heads = 3, dim = 80, ld = heads * dim + 16;
        struct pair x = pair_of(&b, (size_t)n * ld, fill, fill), y = pair_of(&b, (size_t)n * ld, FILL_NORMAL, 99);
        struct pair w = pair_of(&b, ld, FILL_NORMAL, 5);
        const struct backend_ops *c = b.cpu->ops, *g = b.gpu->ops;
        for (int with = 0; with < 2; with++) {
            const float *cw = with ? w.host : NULL, *gw = with ? w.gpu : NULL;
            cr_assert_eq(c->head_norm(b.cpu, NULL, x.host, ld, n, heads, dim, cw, 1e-6f), OK);
            cr_assert_eq(g->head_norm(b.gpu, NULL, x.gpu, ld, n, heads, dim, gw, 1e-6f), OK);
            check_pair(&b, &x, "head_norm");
            cr_assert_eq(c->norm_add(b.cpu, NULL, y.host, x.host, ld, n, heads * dim, cw, 1e-6f), OK);
            cr_assert_eq(g->norm_add(b.gpu, NULL, y.gpu, x.gpu, ld, n, heads * dim, gw, 1e-6f), OK);
            check_pair(&b, &y, "norm_add");
        }
        cr_assert_eq(c->add_bias(b.cpu, NULL, x.host, ld, w.host, n, 37), OK);
        cr_assert_eq(g->add_bias(b.gpu, NULL, x.gpu, ld, w.gpu, n, 37), OK);
        check_pair(&b, &x, "add_bias");
        cr_assert_eq(c->scale(b.cpu, NULL, x.host, 1001, 1.7f), OK);
        cr_assert_eq(g->scale(b.gpu, NULL, x.gpu, 1001, 1.7f), OK);
        check_pair(&b, &x, "scale");
        cr_assert_eq(c->softcap(b.cpu, NULL, y.host, 1001, 30.0f), OK);
        cr_assert_eq(g->softcap(b.gpu, NULL, y.gpu, 1001, 30.0f), OK);
        check_pair(&b, &y, "softcap");
        pair_free(&b, &x);
        pair_free(&b, &y);
        pair_free(&b, &w);
    }
    close_both(&b);
}
