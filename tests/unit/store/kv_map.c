/* kv_map: whatever ranks hold a model's cache on either side, the bytes that arrive are those that left. */
#include "store/kv_map.h"

#include "base/mem.h"
#include "helpers/kernel_check.h"
#include "parallel/ranks.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define N_TOKENS  130 /* two full blocks and a part of a third */
#define N_BLOCKS  5
#define HEAD_DIM  16
#define MAX_RANKS 24

static const kv_block_id sent_blocks[] = { 4, 0, 2 }, got_blocks[] = { 1, 3, 0 };
static struct backend *backend;

static void start(void)
{
    const struct backend_limits limits = { 1, 64, 64, 1, HEAD_DIM };
    struct error err;
    cr_assert_eq(backend_open(&backend, "cpu", &(struct backend_options){ .n_threads = 1, .limits = limits }, &err), OK,
                 "%s", err.text);
}

static void stop(void)
{
    backend_close(backend);
}

struct model {
    uint32_t n_layers, n_heads, n_kv_heads;
    enum kv_format format;
};
static const struct model MODELS[] = {
    { 30, 24, 8, KV_INT8 },
    { 3, 16, 2, KV_INT8 }, /* fewer kv heads than ranks: some hold the same ones */
    { 4, 9, 3, KV_F16 },   /* uneven: query heads of a kv head on two ranks */
};

/* One side of a hand-off. */
struct side {
    struct mesh mesh;
    const struct model *model;
    struct kv_store *stores[MAX_RANKS];
    struct kv_map *map;
};

/* ---- by counting, without shards ---- */

static bool has_layer(const struct mesh *m, uint32_t rank, uint32_t l)
{
    const uint32_t stage = rank / m->tp;
    return l >= m->n_layers * stage / m->pp && l < m->n_layers * (stage + 1) / m->pp;
}

static bool has_head(const struct side *s, uint32_t rank, uint32_t h)
{
    const uint32_t n = s->model->n_heads, member = rank % s->mesh.tp, group = n / s->model->n_kv_heads;
    for (uint32_t q = h * group; q < (h + 1) * group; q++)
        if (q >= n * member / s->mesh.tp && q < n * (member + 1) / s->mesh.tp) return true;
    return false;
}

static uint32_t layers_before(const struct mesh *m, uint32_t rank, uint32_t l)
{
    uint32_t n = 0;
    while (l-- > 0) n += has_layer(m, rank, l);
    return n;
}

static uint32_t heads_before(const struct side *s, uint32_t rank, uint32_t h)
{
    uint32_t n = 0;
    while (h-- > 0) n += has_head(s, rank, h);
    return n;
}

/* Those of the rank lie side by side. */
static struct held heads_of(const struct side *s, uint32_t rank)
{
    const uint32_t n = heads_before(s, rank, s->model->n_kv_heads);
    uint32_t first = 0;
    while (!has_head(s, rank, first)) first++;
    return held_run(s->model->n_kv_heads, (struct shard_runs){ first, n, n, n });
}

/* ---- sides and their bytes ---- */

static size_t row_bytes(const struct model *model, uint32_t n)
{
    return (size_t)kv_wire_bytes(model->format, HEAD_DIM, n) / 2;
}

static size_t all_bytes(const struct model *model)
{
    return 2 * (size_t)model->n_layers * model->n_kv_heads * row_bytes(model, N_TOKENS);
}

static struct side side_of(const struct model *model, uint32_t tp, uint32_t pp)
{
    struct side s = { .mesh = { tp, pp, model->n_layers }, .model = model };
    struct error err = { 0 };
    for (uint32_t r = 0; r < tp * pp; r++) {
        struct kv_geometry layers[30];
        const uint32_t n_layers = layers_before(&s.mesh, r, model->n_layers);
        const struct held held = heads_of(&s, r);
        for (uint32_t l = 0; l < n_layers; l++)
            layers[l] = (struct kv_geometry){ held_n(&held), HEAD_DIM, model->format, false };
        cr_assert_eq(kv_store_create(&s.stores[r], backend, layers, n_layers, N_BLOCKS, &err), OK, "%s", err.text);
        for (uint32_t l = 0; l < n_layers; l++) s.stores[r]->held[l] = held;
    }
    cr_assert_eq(kv_map_create(&s.map, &s.mesh, s.stores, &err), OK, "%s", err.text);
    return s;
}

static void side_free(struct side *s)
{
    kv_map_destroy(s->map);
    for (uint32_t r = 0; r < s->mesh.tp * s->mesh.pp; r++) kv_store_destroy(s->stores[r]);
}

/* Random bytes of a whole cache in canonical order: for each layer and head K, then V. */
static uint8_t *cache_of(const struct model *model, uint64_t seed)
{
    struct check_rng rng = { seed };
    uint8_t *cache = mem_alloc(all_bytes(model)), *at = cache;
    for (uint32_t row = 0; row < 2 * model->n_layers * model->n_kv_heads; row++) {
        const size_t values = model->format == KV_INT8 ? N_TOKENS * HEAD_DIM : 2 * N_TOKENS * HEAD_DIM;
        for (size_t i = 0; i < values; i++) /* a finite half, too, as its upper byte is below 0x40 */
            at[i] =
                (uint8_t)(model->format == KV_INT8 ? (int)check_below(&rng, 255) - 127 : (int)check_below(&rng, 64));
        for (uint32_t t = 0; t < N_TOKENS && model->format == KV_INT8; t++) {
            const float scale = (float)check_unit(&rng) + 0.01f;
            memcpy(at + values + 4 * t, &scale, 4);
        }
        at += row_bytes(model, N_TOKENS);
    }
    return cache;
}

/* Tokens [t0, t1) of a whole cache's row. */
static void cut_row(uint8_t *out, const struct model *model, const uint8_t *row, uint32_t t0, uint32_t t1)
{
    const size_t value = model->format == KV_INT8 ? HEAD_DIM : 2 * HEAD_DIM;
    memcpy(out, row + t0 * value, (t1 - t0) * value);
    if (model->format == KV_INT8) memcpy(out + (t1 - t0) * value, row + N_TOKENS * value + 4 * t0, 4 * (t1 - t0));
}

/* Does `what` with each piece of the side and its bytes in `cache`; every rank that holds one. */
static void each_piece(struct side *s, const struct model *model, const kv_block_id *blocks, const uint8_t *cache,
                       void (*what)(struct kv_store *kv, const struct kv_piece *p, uint8_t *bytes, size_t n))
{
    for (uint32_t r = 0; r < s->mesh.tp * s->mesh.pp; r++)
        for (uint32_t l = 0; l < model->n_layers; l++)
            for (uint32_t hv = 0; hv < 2 * model->n_kv_heads; hv++) {
                if (!has_layer(&s->mesh, r, l) || !has_head(s, r, hv / 2)) continue;
                const uint8_t *row = cache + (2 * (size_t)l * model->n_kv_heads + hv) * row_bytes(model, N_TOKENS);
                for (uint32_t t = 0; t < N_TOKENS; t += 64) {
                    const uint32_t n = N_TOKENS - t < 64 ? N_TOKENS - t : 64;
                    const struct kv_piece p = { .layer = layers_before(&s->mesh, r, l),
                                                .head = heads_before(s, r, hv / 2),
                                                .is_v = hv % 2,
                                                .block = blocks[t / 64],
                                                .t1 = n,
                                                .scales = n * HEAD_DIM };
                    uint8_t bytes[64 * 2 * HEAD_DIM];
                    cut_row(bytes, model, row, t, t + n);
                    what(s->stores[r], &p, bytes, row_bytes(model, n));
                }
            }
}

static void put(struct kv_store *kv, const struct kv_piece *p, uint8_t *bytes, size_t n)
{
    (void)n;
    cr_assert_eq(backend->ops->kv_unpack(backend, NULL, kv->layers, p, 1, bytes), OK);
}

static void expect(struct kv_store *kv, const struct kv_piece *p, uint8_t *bytes, size_t n)
{
    uint8_t got[64 * 2 * HEAD_DIM];
    cr_assert_eq(backend->ops->kv_pack(backend, NULL, kv->layers, p, 1, got), OK);
    cr_assert(memcmp(got, bytes, n) == 0, "layer %u head %u block %u %s", p->layer, p->head, p->block,
              p->is_v ? "V" : "K");
}

/* The rest of the range beginning at `at`, cut off somewhere. */
static uint32_t cut_after(struct check_rng *rng, uint32_t at, uint32_t end, uint32_t step)
{
    const uint32_t to = at + (1 + (uint32_t)check_below(rng, 4)) * step;
    return to < end ? to : end;
}

/* Everything, in frames of any shape; what the frames cover is the whole. */
static void carry(const struct side *from, const struct side *to, const struct model *model, struct check_rng *rng,
                  uint8_t *wire)
{
    struct kv_range r = { 0 };
    for (r.t0 = 0; r.t0 < N_TOKENS; r.t0 = r.t1) {
        r.t1 = cut_after(rng, r.t0, N_TOKENS, 64);
        for (r.l0 = 0; r.l0 < model->n_layers; r.l0 = r.l1) {
            r.l1 = cut_after(rng, r.l0, model->n_layers, 1 + model->n_layers / 5);
            for (r.h0 = 0; r.h0 < model->n_kv_heads; r.h0 = r.h1) {
                r.h1 = cut_after(rng, r.h0, model->n_kv_heads, 1);
                memset(wire, 0xaa, all_bytes(model));
                cr_assert_eq(kv_map_pack(from->map, &r, sent_blocks + r.t0 / 64, wire), OK);
                cr_assert_eq(kv_map_unpack(to->map, &r, got_blocks + r.t0 / 64, wire), OK);
            }
        }
    }
}

Test(kv_map, carries_a_cache_between_any_two_shapes, .init = start, .fini = stop)
{
    static const uint32_t TP[] = { 1, 2, 3, 4, 8 }, PP[] = { 1, 2, 3 };
    struct check_rng rng = { 3 };
    for (size_t i = 0; i < sizeof(MODELS) / sizeof(MODELS[0]); i++) {
        const struct model *model = &MODELS[i];
        uint8_t *cache = cache_of(model, 11 + i), *wire = mem_alloc(all_bytes(model));
        for (int a = 0; a < 15; a++) {
            struct side from = side_of(model, TP[a / 3], PP[a % 3]);
            each_piece(&from, model, sent_blocks, cache, put);
            for (int b = 0; b < 15; b++) {
                struct side to = side_of(model, TP[b / 3], PP[b % 3]);
                carry(&from, &to, model, &rng, wire);
                each_piece(&to, model, got_blocks, cache, expect);
                side_free(&to);
            }
            side_free(&from);
        }
        mem_free(cache);
        mem_free(wire);
    }
}

Test(kv_map, gives_the_canonical_order_of_the_whole_model, .init = start, .fini = stop)
{
    static const uint32_t shapes[][2] = { { 1, 1 }, { 3, 2 } }; /* one rank: more pieces than a call takes */
    const struct model *model = &MODELS[0];
    const struct kv_range all = { 0, model->n_layers, 0, model->n_kv_heads, 0, N_TOKENS };
    uint8_t *cache = cache_of(model, 5), *wire = mem_alloc(all_bytes(model));
    cr_assert_gt(2 * model->n_layers * model->n_kv_heads * 3, KV_MAP_PIECES);
    for (int i = 0; i < 2; i++) {
        struct side s = side_of(model, shapes[i][0], shapes[i][1]);
        cr_assert_eq(kv_map_unpack(s.map, &all, sent_blocks, cache), OK);
        each_piece(&s, model, sent_blocks, cache, expect);
        cr_assert_eq(kv_map_pack(s.map, &all, sent_blocks, wire), OK);
        cr_assert(memcmp(wire, cache, all_bytes(model)) == 0);
        cr_assert_eq(kv_map_geometry(s.map, 0).n_kv_heads, model->n_kv_heads);
        cr_assert_eq(kv_map_mesh(s.map)->n_layers, model->n_layers);
        side_free(&s);
    }
    mem_free(cache);
    mem_free(wire);
}

/* A group's layers need not follow each other, nor lie on one rank. */
Test(kv_map, takes_the_layers_of_a_group_in_its_order, .init = start, .fini = stop)
{
    static const uint16_t layers[] = { 29, 0, 17, 3, 15 }, beyond[] = { 1, 30 };
    const struct model *model = &MODELS[0];
    const struct kv_range group = { 1, 5, 2, 7, 0, N_TOKENS, layers }, bad = { 0, 2, 0, 1, 0, 64, beyond };
    const size_t row = row_bytes(model, N_TOKENS), n = 4 * 5 * 2 * row;
    struct side from = side_of(model, 2, 2), to = side_of(model, 1, 3);
    uint8_t *cache = cache_of(model, 8), *wire = mem_alloc(n), *back = mem_alloc(n);
    each_piece(&from, model, sent_blocks, cache, put);
    cr_assert_eq(kv_map_pack(from.map, &group, sent_blocks, wire), OK);
    for (uint32_t i = 0; i < 4; i++)
        cr_assert(memcmp(wire + i * 5 * 2 * row, cache + (2 * (size_t)layers[1 + i] * 8 + 2 * 2) * row, 5 * 2 * row) ==
                      0,
                  "layer %u", layers[1 + i]);
    cr_assert_eq(kv_map_unpack(to.map, &group, got_blocks, wire), OK);
    cr_assert_eq(kv_map_pack(to.map, &group, got_blocks, back), OK);
    cr_assert(memcmp(back, wire, n) == 0);
    cr_assert_eq(kv_map_pack(from.map, &bad, sent_blocks, wire), ERR_INVALID);
    side_free(&from);
    side_free(&to);
    mem_free(cache);
    mem_free(wire);
    mem_free(back);
}

Test(kv_map, refuses_what_is_not_there_and_what_no_sender_makes, .init = start, .fini = stop)
{
    static const struct kv_range BAD[] = {
        { 0, 4, 0, 2, 0, 64 }, { 0, 3, 0, 3, 0, 64 },         { 2, 2, 0, 2, 0, 64 },
        { 0, 3, 1, 1, 0, 64 }, { 0, 3, 0, 2, 64, 64 },        { 0, 3, 0, 2, 32, 64 },
        { 2, 1, 0, 2, 0, 64 }, { 0, 3, 0, 2, 0, UINT32_MAX }, /* pieces count its bytes in 32 bits */
    };
    const struct model *model = &MODELS[1];
    const struct kv_range all = { 0, 3, 0, 2, 0, 64 };
    const kv_block_id fine = 1, beyond = N_BLOCKS;
    struct side s = side_of(model, 2, 2);
    uint8_t *wire = cache_of(model, 6);
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        cr_assert_eq(kv_map_pack(s.map, &BAD[i], &fine, wire), ERR_INVALID, "case %zu", i);
        cr_assert_eq(kv_map_unpack(s.map, &BAD[i], &fine, wire), ERR_INVALID, "case %zu", i);
    }
    cr_assert_eq(kv_map_pack(s.map, &all, &beyond, wire), ERR_INVALID);
    cr_assert_eq(kv_map_unpack(s.map, &all, &beyond, wire), ERR_INVALID);
    cr_assert_eq(kv_map_pack(s.map, &all, &fine, wire), OK);
    cr_assert_eq(kv_map_unpack(s.map, &all, &fine, wire), ERR_CORRUPT, "scales that were never written are 0");
    side_free(&s);
    mem_free(wire);
}

/* ---- streams: a backend that watches them ---- */

static atomic_int n_opened, n_closed;
static struct stream *used[2]; /* by the first two calls, which are inside at once */
static pthread_barrier_t both_inside;
static const struct backend_ops *real;

static enum status open_stream(struct backend *b, struct stream **out)
{
    (void)b;
    n_opened++;
    *out = mem_alloc(1);
    return OK;
}

static void close_stream(struct backend *b, struct stream *s)
{
    (void)b;
    n_closed++;
    mem_free(s);
}

static enum status no_stream(struct backend *b, struct stream **out)
{
    (void)b, (void)out;
    return ERR_NO_MEMORY;
}

static enum status pack_at_once(struct backend *b, struct stream *s, const struct kv_slices *layers,
                                const struct kv_piece *pieces, uint32_t n, uint8_t *wire)
{
    static atomic_int n_calls;
    const int idx = n_calls++;
    if (idx < 2) {
        used[idx] = s;
        pthread_barrier_wait(&both_inside);
    }
    return real->kv_pack(b, s, layers, pieces, n, wire);
}

static void *pack_all(void *arg)
{
    const struct kv_range all = { 0, 3, 0, 2, 0, 64 };
    const kv_block_id block = 1;
    static _Thread_local uint8_t wire[3 * 2 * 2 * 64 * (HEAD_DIM + 4)];
    cr_assert_eq(kv_map_pack(arg, &all, &block, wire), OK);
    return NULL;
}

Test(kv_map, callers_that_are_inside_at_once_have_streams_of_their_own, .init = start, .fini = stop)
{
    struct backend_ops watched = *backend->ops;
    struct side s = side_of(&MODELS[1], 1, 1);
    pthread_t threads[2];
    real = backend->ops;
    watched.stream_open = open_stream;
    watched.stream_close = close_stream;
    watched.kv_pack = pack_at_once;
    backend->ops = &watched;
    pthread_barrier_init(&both_inside, NULL, 2);
    for (int i = 0; i < 2; i++) cr_assert_eq(pthread_create(&threads[i], NULL, pack_all, s.map), 0);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    cr_assert(used[0] && used[1] && used[0] != used[1]);
    for (int i = 0; i < 3; i++) pack_all(s.map);
    cr_assert_eq(n_opened, 2, "streams are used again");
    side_free(&s);
    cr_assert_eq(n_closed, 2);
    backend->ops = real;
    pthread_barrier_destroy(&both_inside);
}

Test(kv_map, says_when_there_is_no_stream, .init = start, .fini = stop)
{
    struct backend_ops watched = *backend->ops;
    const struct kv_range all = { 0, 3, 0, 2, 0, 64 };
    const kv_block_id block = 1;
    struct side s = side_of(&MODELS[1], 1, 1);
    uint8_t *wire = cache_of(&MODELS[1], 4);
    real = backend->ops;
    watched.stream_open = no_stream;
    backend->ops = &watched;
    cr_assert_eq(kv_map_pack(s.map, &all, &block, wire), ERR_NO_MEMORY);
    backend->ops = real;
    side_free(&s);
    mem_free(wire);
}

Test(kv_map, refuses_memory_that_is_not_of_the_mesh, .init = start, .fini = stop)
{
    struct side s = side_of(&MODELS[1], 1, 1), other = side_of(&MODELS[1], 2, 1);
    const struct mesh longer = { 1, 1, 4 }, wide = { RANKS_MAX_TP + 1, 1, 3 };
    struct error err = { 0 };
    struct kv_map *map;
    const struct {
        const struct mesh *mesh;
        struct side *of;
        struct held held; /* of its first layer, on the last rank */
        const char *says;
    } cases[] = {
        { &longer, &s, held_all(2), "rank 0 has KV memory of 3 layers and 5 blocks, it should be 4 and 5" },
        { &wide, &s, held_all(2), "tp is 65, at most 64" },
        { &s.mesh, &s, held_all(1), "rank 0 has 2 kv heads in its layer 0, it should be 1" },
        { &s.mesh, &s, held_run(3, (struct shard_runs){ 1, 2, 2, 2 }), "no rank has head 0 of 3" },
        { &s.mesh, &s, held_run(2, (struct shard_runs){ 1, 2, 2, 2 }), "rank 0 has head 2, there are 2" },
        { &other.mesh, &other, held_run(3, (struct shard_runs){ 1, 1, 1, 1 }), "rank 1 has another geometry" },
        { &other.mesh, &other, held_run(2, (struct shard_runs){ 0, 1, 1, 1 }), "no rank has head 1 of 2" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct kv_store *last = cases[i].of->stores[cases[i].of->mesh.tp - 1];
        const struct held good = last->held[0];
        last->held[0] = cases[i].held;
        cr_assert_eq(kv_map_create(&map, cases[i].mesh, cases[i].of->stores, &err), ERR_INVALID, "case %zu", i);
        cr_assert(strstr(err.text, cases[i].says), "%s", err.text);
        last->held[0] = good;
    }
    other.stores[1]->layers[2].geom.rotate = true;
    cr_assert_eq(kv_map_create(&map, &other.mesh, other.stores, &err), ERR_INVALID);
    cr_assert(strstr(err.text, "rank 1 has another geometry of kv heads in its layer 2"), "%s", err.text);
    side_free(&s);
    side_free(&other);
}
