/* kv: the wire's bytes into and out of the CUDA backend's blocks, and what unpacking refuses. */
#include "compute/cpu/half.h"
#include "helpers/cuda_check.h"

#include <math.h>
#include <pthread.h>

static const struct backend_limits LIMITS = { .max_rows = 16, .max_context = 256, .max_cols = 256 };

static struct backend *gpu_of(void)
{
    const struct backend_options opt = { .limits = LIMITS };
    struct backend *b;
    struct error err;
    cr_assert_eq(backend_open(&b, "cuda", &opt, &err), OK, "%s", err.text);
    return b;
}

static size_t part_bytes(const struct kv_geometry *g, uint32_t n)
{
    return kv_wire_bytes(g->format, g->head_dim, n) / 2;
}

static void fill_values(struct check_rng *rng, const struct kv_geometry *g, uint8_t *at, size_t n)
{
    for (size_t i = 0; i < n * g->head_dim; i++) {
        const uint16_t h = half_from_float(check_normal(rng));
        if (g->format == KV_F16)
            memcpy(at + 2 * i, &h, 2);
        else
            at[i] = (uint8_t)((int)check_below(rng, 255) - 127);
    }
}

static void fill_scales(struct check_rng *rng, uint8_t *at, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const float scale = (float)check_unit(rng) + 0.01f;
        memcpy(at + 4 * i, &scale, 4);
    }
}

/* A layer with memory on the device. */
static struct kv_slices layer_of(struct backend *b, const struct kv_geometry *g, uint32_t blocks)
{
    const size_t slice = b->ops->kv_slice_bytes(b, g);
    cr_assert(slice > 0 && slice % 64 == 0);
    return (struct kv_slices){ check_device(b, NULL, blocks * (slice + 64)), slice + 64, *g };
}

static void layer_free(struct backend *b, const struct kv_slices *l, uint32_t blocks)
{
    check_release(b, l->base, blocks * l->stride);
}

static const struct kv_geometry GEOMS[] = { { 3, 64, KV_INT8, true },  { 2, 80, KV_INT8, false },
                                            { 1, 96, KV_INT8, false }, { 2, 128, KV_INT8, false },
                                            { 1, 512, KV_INT8, true }, { 2, 64, KV_F16, false },
                                            { 1, 96, KV_F16, false } };

/* At every alignment of the wire, and into the second block of three, whose neighbours stay as they are. */
Test(cuda_kv, packs_what_it_unpacked)
{
    static const uint32_t ranges[][2] = { { 0, 64 }, { 0, 1 }, { 0, 63 }, { 5, 6 }, { 7, 22 }, { 32, 64 } };
    struct check_rng rng = { 5 };
    struct backend *b = gpu_of();
    for (size_t i = 0; i < sizeof(GEOMS) / sizeof(GEOMS[0]); i++)
        for (size_t r = 0; r < sizeof(ranges) / sizeof(ranges[0]); r++)
            for (int is_v = 0; is_v < 2; is_v++) {
                const struct kv_geometry *g = &GEOMS[i];
                const uint32_t t0 = ranges[r][0], t1 = ranges[r][1], n = t1 - t0, shift = (uint32_t)(3 * i + r) % 5;
                const size_t bytes = part_bytes(g, n) + shift;
                struct kv_slices layer = layer_of(b, g, 3);
                const struct kv_piece p = { .head = g->n_kv_heads - 1,
                                            .block = 1,
                                            .is_v = is_v,
                                            .t0 = t0,
                                            .t1 = t1,
                                            .values = shift,
                                            .scales = shift + n * g->head_dim };
                uint8_t *wire = guard_alloc(bytes), *back = guard_alloc(bytes);
                fill_values(&rng, g, wire + shift, n);
                if (g->format == KV_INT8) fill_scales(&rng, wire + p.scales, n);
                cr_assert_eq(b->ops->kv_unpack(b, NULL, &layer, &p, 1, wire), OK);
                cr_assert_eq(b->ops->kv_pack(b, NULL, &layer, &p, 1, back), OK);
                cr_assert_arr_eq(wire + shift, back + shift, bytes - shift);
                for (uint32_t j = 0; j < shift; j++) cr_assert_eq(back[j], 0, "what is beside a piece was written");
                uint8_t *all = check_host(b, layer.base, 3 * layer.stride);
                for (size_t j = 0; j < layer.stride; j++) cr_assert(all[j] == 0 && all[2 * layer.stride + j] == 0);
                cr_assert(guard_intact(wire) && guard_intact(back));
                mem_free(all);
                guard_free(wire);
                guard_free(back);
                layer_free(b, &layer, 3);
            }
    backend_close(b);
}

Test(cuda_kv, import_refuses_values_out_of_range)
{
    static const float bad[] = { 0, -1, NAN, INFINITY };
    struct check_rng rng = { 6 };
    struct backend *b = gpu_of();
    const struct kv_geometry *g = &GEOMS[1];
    struct kv_slices layer = layer_of(b, g, 1);
    struct kv_piece p = { .is_v = true, .t1 = 9, .scales = 9 * 80 };
    uint8_t *wire = guard_alloc(part_bytes(g, 9));
    fill_values(&rng, g, wire, 9);
    fill_scales(&rng, wire + p.scales, 9);
    for (size_t i = 0; i < 9 * 80; i += 7) {
        const uint8_t keep = wire[i];
        wire[i] = 0x80;
        cr_assert_eq(b->ops->kv_unpack(b, NULL, &layer, &p, 1, wire), ERR_CORRUPT);
        wire[i] = keep;
    }
    p.is_v = false;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint8_t *at = wire + p.scales + 8 * i, keep[4];
        memcpy(keep, at, 4);
        memcpy(at, &bad[i], 4);
        cr_assert_eq(b->ops->kv_unpack(b, NULL, &layer, &p, 1, wire), ERR_CORRUPT);
        memcpy(at, keep, 4);
    }
    cr_assert_eq(b->ops->kv_unpack(b, NULL, &layer, &p, 1, wire), OK);
    p.head = 2;
    cr_assert_eq(b->ops->kv_unpack(b, NULL, &layer, &p, 1, wire), ERR_INVALID);
    p.head = 0, p.t0 = 56, p.t1 = 65;
    cr_assert_eq(b->ops->kv_unpack(b, NULL, &layer, &p, 1, wire), ERR_INVALID);
    p.t0 = p.t1 = 9;
    cr_assert_eq(b->ops->kv_pack(b, NULL, &layer, &p, 1, wire), ERR_INVALID);
    guard_free(wire);
    layer_free(b, &layer, 1);

    struct kv_slices halves = layer_of(b, &GEOMS[5], 1);
    const struct kv_piece h = { .is_v = true, .t1 = 3 };
    wire = guard_alloc(part_bytes(&GEOMS[5], 3));
    fill_values(&rng, &GEOMS[5], wire, 3);
    cr_assert_eq(b->ops->kv_unpack(b, NULL, &halves, &h, 1, wire), OK);
    wire[2 * 100 + 1] = 0x7c;
    cr_assert_eq(b->ops->kv_unpack(b, NULL, &halves, &h, 1, wire), ERR_CORRUPT);
    guard_free(wire);
    layer_free(b, &halves, 1);
    backend_close(b);
}

#define LAYERS 2u
#define BLOCKS 24u
#define PIECES (LAYERS * BLOCKS * 2 * 2)
#define VALUES (64u * 512)

/* Pieces of all layers, heads and blocks; in the buffer all values stand before all scales, the last piece first. */
static void pieces_of(struct kv_piece *pieces)
{
    for (uint32_t i = 0; i < PIECES; i++)
        pieces[i] = (struct kv_piece){ .layer = i % 2,
                                       .head = i / 2 % 2,
                                       .is_v = i / 4 % 2,
                                       .block = i / 8,
                                       .t1 = 64,
                                       .values = (PIECES - 1 - i) * VALUES,
                                       .scales = PIECES * VALUES + i * 256 };
}

/* More than the buffer on the device holds at a time: 12 MiB. */
Test(cuda_kv, one_call_moves_pieces_of_any_layer_head_and_block)
{
    static struct kv_piece pieces[PIECES];
    struct backend *b = gpu_of();
    const struct kv_geometry g = { 2, 512, KV_INT8, false };
    const size_t bytes = PIECES * (VALUES + 256);
    struct kv_slices from[LAYERS], to[LAYERS];
    struct check_rng rng = { 9 };
    void *wire, *back;
    cr_assert_eq(b->ops->host_alloc(b, bytes, &wire), OK);
    cr_assert_eq(b->ops->host_alloc(b, bytes, &back), OK);
    for (uint32_t l = 0; l < LAYERS; l++) {
        from[l] = layer_of(b, &g, BLOCKS);
        to[l] = layer_of(b, &g, BLOCKS);
    }
    pieces_of(pieces);
    fill_values(&rng, &g, wire, PIECES * 64);
    fill_scales(&rng, (uint8_t *)wire + PIECES * VALUES, PIECES * 64);
    cr_assert_eq(b->ops->kv_unpack(b, NULL, from, pieces, PIECES, wire), OK);
    cr_assert_eq(b->ops->kv_pack(b, NULL, from, pieces, PIECES, back), OK);
    cr_assert_eq(check_differs(wire, back, bytes), bytes);
    /* One by one, in another order, into other memory: the same slices. */
    for (uint32_t i = PIECES; i-- > 0;) cr_assert_eq(b->ops->kv_unpack(b, NULL, to, &pieces[i], 1, wire), OK);
    for (uint32_t l = 0; l < LAYERS; l++) {
        uint8_t *x = check_host(b, from[l].base, BLOCKS * from[l].stride);
        uint8_t *y = check_host(b, to[l].base, BLOCKS * to[l].stride);
        cr_assert_eq(check_differs(x, y, BLOCKS * from[l].stride), BLOCKS * from[l].stride);
        mem_free(x);
        mem_free(y);
    }
    ((uint8_t *)wire)[0] = 0x80; /* of the last piece */
    cr_assert_eq(b->ops->kv_unpack(b, NULL, to, pieces, PIECES, wire), ERR_CORRUPT);
    for (uint32_t l = 0; l < LAYERS; l++) {
        layer_free(b, &from[l], BLOCKS);
        layer_free(b, &to[l], BLOCKS);
    }
    b->ops->host_free(b, wire, bytes);
    b->ops->host_free(b, back, bytes);
    backend_close(b);
}

/* What a thread moves: a head of its own. */
struct mover {
    struct backend *b;
    struct stream *stream;
    struct kv_slices layer;
    uint32_t head;
    bool same;
};

static void *move_often(void *arg)
{
    struct mover *m = arg;
    struct check_rng rng = { 70 + m->head };
    const struct kv_piece p = { .head = m->head, .is_v = true, .t1 = 64, .scales = 64 * 64 };
    uint8_t wire[64 * 68], back[64 * 68];
    m->same = true;
    for (int i = 0; i < 20; i++) {
        fill_values(&rng, &m->layer.geom, wire, 64);
        fill_scales(&rng, wire + p.scales, 64);
        m->same &= m->b->ops->kv_unpack(m->b, m->stream, &m->layer, &p, 1, wire) == OK;
        m->same &= m->b->ops->kv_pack(m->b, m->stream, &m->layer, &p, 1, back) == OK;
        m->same &= memcmp(wire, back, sizeof(wire)) == 0;
    }
    return NULL;
}

/* Two threads on the stream NULL and one on a stream of its own. */
Test(cuda_kv, threads_may_move_at_once)
{
    enum { N = 3 };
    struct backend *b = gpu_of();
    struct stream *own;
    const struct kv_geometry g = { N, 64, KV_INT8, false };
    struct kv_slices layer = layer_of(b, &g, 1);
    struct mover movers[N];
    pthread_t threads[N];
    cr_assert_eq(b->ops->stream_open(b, &own), OK);
    for (uint32_t i = 0; i < N; i++) {
        movers[i] = (struct mover){ b, i == 2 ? own : NULL, layer, i, false };
        pthread_create(&threads[i], NULL, move_often, &movers[i]);
    }
    for (uint32_t i = 0; i < N; i++) {
        pthread_join(threads[i], NULL);
        cr_assert(movers[i].same, "thread %u", i);
    }
    b->ops->stream_close(b, own);
    layer_free(b, &layer, 1);
    backend_close(b);
}

Test(cuda_kv, head_dimensions_without_kernels_have_no_slice)
{
    struct backend *b = gpu_of();
    struct kv_geometry g = { 1, 72, KV_INT8, false };
    cr_assert_eq(b->ops->kv_slice_bytes(b, &g), 0);
    g.head_dim = 528;
    cr_assert_eq(b->ops->kv_slice_bytes(b, &g), 0);
    g.head_dim = 64;
    cr_assert_eq(b->ops->kv_slice_bytes(b, &g), 2 * 64 * 68);
    backend_close(b);
}
