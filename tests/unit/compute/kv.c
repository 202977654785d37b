/* kv.c - KV to the wire's canonical order and back, and what unpacking refuses. */
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

static struct backend *backend_of(const char *isa)
{
    return check_backend(isa, 1, (struct backend_limits){ 64, 256, 512, 8, 256 });
}

static size_t part_bytes(const struct kv_geometry *g, uint32_t n)
{
    return kv_wire_bytes(g->format, g->head_dim, n) / 2;
}

/* A valid frame part of n tokens. */
static uint8_t *wire_of(struct check_rng *rng, const struct kv_geometry *g, uint32_t n)
{
    uint8_t *w = guard_alloc(part_bytes(g, n));
    for (size_t i = 0; i < (size_t)n * g->head_dim; i++) {
        if (g->format == KV_F16) {
            uint16_t h = half_from_float(check_normal(rng));
            memcpy(w + 2 * i, &h, 2);
        } else {
            w[i] = (uint8_t)((int)check_below(rng, 255) - 127);
        }
    }
    for (uint32_t t = 0; t < n && g->format == KV_INT8; t++) {
        float scale = (float)check_unit(rng) + 0.01f;
        memcpy(w + (size_t)n * g->head_dim + 4 * t, &scale, 4);
    }
    return w;
}

static struct kv_piece piece_of(const struct kv_geometry *g, uint32_t head, bool is_v, uint32_t t0, uint32_t t1)
{
    const uint32_t scales = t1 > t0 ? (t1 - t0) * g->head_dim : 0;
    return (struct kv_piece){ .head = head, .is_v = is_v, .t0 = t0, .t1 = t1, .scales = scales };
}

/* One piece of one slice. */
static enum status pack(struct backend *b, uint8_t *slice, const struct kv_geometry *g, uint32_t head, bool is_v,
                        uint32_t t0, uint32_t t1, uint8_t *wire)
{
    const struct kv_slices layer = { slice, b->ops->kv_slice_bytes(b, g), *g };
    const struct kv_piece p = piece_of(g, head, is_v, t0, t1);
    return b->ops->kv_pack(b, NULL, &layer, &p, 1, wire);
}

static enum status unpack(struct backend *b, uint8_t *slice, const struct kv_geometry *g, uint32_t head, bool is_v,
                          uint32_t t0, uint32_t t1, const uint8_t *wire)
{
    const struct kv_slices layer = { slice, b->ops->kv_slice_bytes(b, g), *g };
    const struct kv_piece p = piece_of(g, head, is_v, t0, t1);
    return b->ops->kv_unpack(b, NULL, &layer, &p, 1, wire);
}

static const struct kv_geometry geoms[] = { { 3, 64, KV_INT8, true },  { 2, 80, KV_INT8, false },
                                            { 1, 96, KV_INT8, false }, { 2, 128, KV_INT8, false },
                                            { 1, 256, KV_INT8, true }, { 2, 64, KV_F16, false },
                                            { 1, 96, KV_F16, false } };

Test(kv, every_level_packs_what_it_unpacked)
{
    static const uint32_t ranges[][2] = { { 0, 64 }, { 0, 1 }, { 0, 63 }, { 5, 6 }, { 7, 22 }, { 32, 64 } };
    struct check_rng rng = { 5 };
    for (const struct cpu_kernels *const *k = cpu_kernel_levels; *k; k++) {
        if (((*k)->flags & cpu_flags()) != (*k)->flags) continue;
        struct backend *b = backend_of((*k)->name);
        for (size_t i = 0; i < sizeof(geoms) / sizeof(geoms[0]); i++)
            for (size_t r = 0; r < sizeof(ranges) / sizeof(ranges[0]); r++)
                for (int is_v = 0; is_v < 2; is_v++) {
                    const struct kv_geometry *g = &geoms[i];
                    uint32_t t0 = ranges[r][0], t1 = ranges[r][1], head = g->n_kv_heads - 1;
                    size_t bytes = part_bytes(g, t1 - t0);
                    uint8_t *wire = wire_of(&rng, g, t1 - t0), *back = guard_alloc(bytes);
                    uint8_t *slice = guard_alloc(b->ops->kv_slice_bytes(b, g));
                    cr_assert_eq(unpack(b, slice, g, head, is_v, t0, t1, wire), OK);
                    cr_assert_eq(pack(b, slice, g, head, is_v, t0, t1, back), OK);
                    cr_assert_arr_eq(wire, back, bytes);
                    cr_assert(guard_intact(slice) && guard_intact(back));
                    guard_free(wire);
                    guard_free(back);
                    guard_free(slice);
                }
        backend_close(b);
    }
}

/* What rope_kv_write() stores is what leaves on the wire: |x - value * scale| <= scale / 2, token by token. */
Test(kv, wire_carries_the_quantized_values)
{
    struct backend *b = backend_of("auto");
    struct kv_geometry g = { 2, 64, KV_INT8, false };
    struct rope_params rope = { .base = 10000, .scale = 1, .dims = 64, .attn_factor = 1 };
    struct check_rng rng = { 8 };
    float qkv[20][384];
    uint32_t block = 0;
    check_fill(&rng, FILL_NORMAL, &qkv[0][0], sizeof(qkv) / sizeof(float));
    memset(&qkv[3][256], 0, 64 * sizeof(float));
    uint8_t *slice = mem_zalloc(b->ops->kv_slice_bytes(b, &g)), wire[20 * 68];
    struct kv_slices kv = { slice, b->ops->kv_slice_bytes(b, &g), g };
    struct batch_seq seq = { 0, 20, 0, &block, 1 };
    struct batch batch = { 20, NULL, &seq, 1 };
    struct step step;
    cr_assert_eq(b->ops->step_begin(b, NULL, &batch, &step), OK);
    cr_assert_eq(b->ops->rope_kv_write(b, NULL, &qkv[0][0], 384, 2, 128, 256, &kv, &rope, &step), OK);
    for (uint32_t head = 0; head < 2; head++)
        for (int is_v = 0; is_v < 2; is_v++) {
            cr_assert_eq(pack(b, slice, &g, head, is_v, 0, 20, wire), OK);
            for (int t = 0; t < 20; t++) {
                const float *x = &qkv[t][(is_v ? 256 : 128) + 64 * head]; /* k was turned in place */
                float scale, amax = 0;
                memcpy(&scale, wire + 20 * 64 + 4 * t, 4);
                for (int d = 0; d < 64; d++) amax = fmaxf(amax, fabsf(x[d]));
                cr_assert(scale == (amax > 0 ? amax / 127 : 1));
                for (int d = 0; d < 64; d++) {
                    int8_t v = (int8_t)wire[64 * t + d];
                    cr_assert(v >= -127 && fabsf(x[d] - (float)v * scale) <= scale * 0.50001f);
                }
            }
        }
    mem_free(slice);
    backend_close(b);
}

Test(kv, import_refuses_values_out_of_range)
{
    struct check_rng rng = { 6 };
    for (const struct cpu_kernels *const *k = cpu_kernel_levels; *k; k++) {
        if (((*k)->flags & cpu_flags()) != (*k)->flags) continue;
        struct backend *b = backend_of((*k)->name);
        const struct kv_geometry *g = &geoms[1];
        static const float bad[] = { 0, -1, NAN, INFINITY };
        uint8_t *slice = guard_alloc(b->ops->kv_slice_bytes(b, g)), *wire = wire_of(&rng, g, 9);
        for (size_t i = 0; i < 9 * 80; i += 7) {
            uint8_t keep = wire[i];
            wire[i] = 0x80;
            cr_assert_eq(unpack(b, slice, g, 0, true, 0, 9, wire), ERR_CORRUPT);
            wire[i] = keep;
        }
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
            uint8_t *at = wire + 9 * 80 + 4 * (2 * i), keep[4];
            memcpy(keep, at, 4);
            memcpy(at, &bad[i], 4);
            cr_assert_eq(unpack(b, slice, g, 0, false, 0, 9, wire), ERR_CORRUPT);
            memcpy(at, keep, 4);
        }
        cr_assert_eq(unpack(b, slice, g, 0, false, 0, 9, wire), OK);
        cr_assert_eq(unpack(b, slice, g, 2, false, 0, 9, wire), ERR_INVALID);
        cr_assert_eq(unpack(b, slice, g, 0, false, 56, 65, wire), ERR_INVALID);
        cr_assert_eq(pack(b, slice, g, 0, false, 9, 9, wire), ERR_INVALID);
        guard_free(slice);
        guard_free(wire);
        backend_close(b);
    }
}

/* Pieces of several layers and blocks in one call; in the buffer all values stand before all scales. */
Test(kv, one_call_moves_pieces_of_any_layer_head_and_block)
{
    enum { LAYERS = 2, BLOCKS = 3, PIECES = LAYERS * BLOCKS * 2 * 2, VALUES = 64 * 64 };
    struct backend *b = backend_of("auto");
    const struct kv_geometry g = { 2, 64, KV_INT8, false };
    const size_t slice = b->ops->kv_slice_bytes(b, &g), bytes = PIECES * (VALUES + 256);
    struct kv_slices from[LAYERS], to[LAYERS];
    struct kv_piece pieces[PIECES];
    struct check_rng rng = { 9 };
    uint8_t *wire = guard_alloc(bytes), *back = guard_alloc(bytes);
    for (uint32_t l = 0; l < LAYERS; l++) {
        from[l] = (struct kv_slices){ mem_zalloc(BLOCKS * slice), slice, g };
        to[l] = (struct kv_slices){ mem_zalloc(BLOCKS * slice), slice, g };
    }
    for (uint32_t i = 0; i < PIECES; i++)
        pieces[i] = (struct kv_piece){ .layer = i % 2,
                                       .head = i / 2 % 2,
                                       .is_v = i / 4 % 2,
                                       .block = i / 8,
                                       .t1 = 64,
                                       .values = (PIECES - 1 - i) * VALUES,
                                       .scales = PIECES * VALUES + i * 256 };
    for (size_t i = 0; i < PIECES * VALUES; i++) wire[i] = (uint8_t)((int)check_below(&rng, 255) - 127);
    for (size_t i = 0; i < PIECES * 64; i++) {
        const float scale = (float)check_unit(&rng) + 0.01f;
        memcpy(wire + PIECES * VALUES + 4 * i, &scale, 4);
    }
    cr_assert_eq(b->ops->kv_unpack(b, NULL, from, pieces, PIECES, wire), OK);
    cr_assert_eq(b->ops->kv_pack(b, NULL, from, pieces, PIECES, back), OK);
    cr_assert_arr_eq(wire, back, bytes);
    /* One by one, in another order, into other memory: the same slices. */
    for (uint32_t i = PIECES; i-- > 0;) cr_assert_eq(b->ops->kv_unpack(b, NULL, to, &pieces[i], 1, wire), OK);
    for (uint32_t l = 0; l < LAYERS; l++) cr_assert_arr_eq(from[l].base, to[l].base, BLOCKS * slice);
    wire[0] = 0x80; /* of the last piece */
    cr_assert_eq(b->ops->kv_unpack(b, NULL, to, pieces, PIECES, wire), ERR_CORRUPT);
    cr_assert(guard_intact(wire) && guard_intact(back));
    for (uint32_t l = 0; l < LAYERS; l++) {
        mem_free(from[l].base);
        mem_free(to[l].base);
    }
    guard_free(wire);
    guard_free(back);
    backend_close(b);
}

Test(kv, memory_of_the_host_is_zeroed_and_aligned)
{
    struct backend *b = backend_of("auto");
    void *p;
    cr_assert_eq(b->ops->host_alloc(b, 5000, &p), OK);
    cr_assert_eq((uintptr_t)p % 64, 0);
    for (int i = 0; i < 5000; i++) cr_assert_eq(((uint8_t *)p)[i], 0);
    b->ops->host_free(b, p, 5000);
    backend_close(b);
}

Test(kv, unpacking_refuses_halves_that_are_not_finite)
{
    struct check_rng rng = { 6 };
    struct backend *b = backend_of("auto");
    const struct kv_geometry *g = &geoms[5];
    uint8_t *slice = guard_alloc(b->ops->kv_slice_bytes(b, g)), *wire = wire_of(&rng, g, 3);
    wire[2 * 100 + 1] = 0x7c;
    cr_assert_eq(unpack(b, slice, g, 0, true, 0, 3, wire), ERR_CORRUPT);
    guard_free(slice);
    guard_free(wire);
    backend_close(b);
}

Test(kv, head_dimensions_without_kernels_have_no_slice)
{
    struct backend *b = backend_of("auto");
    struct kv_geometry g = { 1, 72, KV_INT8, false };
    cr_assert_eq(b->ops->kv_slice_bytes(b, &g), 0);
    g.head_dim = 0;
    cr_assert_eq(b->ops->kv_slice_bytes(b, &g), 0);
    g.head_dim = 64;
    cr_assert_eq(b->ops->kv_slice_bytes(b, &g), 2 * 64 * 68);
    backend_close(b);
}

Test(kv, half_conversions_agree_with_the_format)
{
    cr_assert(half_to_float(0x3c00) == 1 && half_to_float(0x0001) == 0x1p-24f && half_to_float(0xfbff) == -65504);
    for (uint32_t h = 0; h < 0x10000; h++)
        if ((h & 0x7c00) != 0x7c00) cr_assert_eq(half_from_float(half_to_float((uint16_t)h)), h);
    cr_assert_eq(half_from_float(65520), 0x7c00);
    cr_assert_eq(half_from_float(1.0f + 0x1p-11f), 0x3c00); /* to even */
    cr_assert_eq(half_from_float(1.0f + 0x1p-11f + 0x1p-20f), 0x3c01);
    cr_assert_eq(half_from_float(0x1p-25f), 0);
    cr_assert_eq(half_from_float(0x1.8p-24f), 2);
}
