/* kv_map: recurrent states, and layers that differ in heads, between any two shapes of ranks. */
#include "base/mem.h"
#include "helpers/kernel_check.h"
#include "store/kv_map.h"
#include "store/state_store.h"

#include <criterion/criterion.h>
#include <string.h>

#define LAYERS    5
#define SLOTS     3
#define BLOCKS    2
#define N_TOKENS  70
#define MAX_RANKS 24

static struct backend *backend;

static void start(void)
{
    const struct backend_limits limits = { 1, 128, 64, 1, 16 };
    struct error err;
    cr_assert_eq(backend_open(&backend, "cpu", &(struct backend_options){ .n_threads = 1, .limits = limits }, &err), OK,
                 "%s", err.text);
}

static void stop(void)
{
    backend_close(backend);
}

/* ---- who has what, by counting ---- */

/* Heads that are shared out (units), and what follows them: units with a tail of three ranges, and a state. */
enum kind { GROUPED, TILED, MAMBA };
static const struct model {
    enum kind kind;
    uint32_t n_units, share; /* DeltaNet: key heads, v heads of each; Mamba-2: heads, heads of a group */
} MODELS[] = {
    { GROUPED, 8, 2 }, { TILED, 9, 3 }, { TILED, 8, 1 }, { MAMBA, 12, 12 }, { MAMBA, 9, 3 }, { MAMBA, 8, 1 }
};
#define N_MODELS (sizeof(MODELS) / sizeof(MODELS[0]))

static const struct state_geometry SHAPES[STATE_PARTS] = { { 0, 3, 16 }, { 0, 5, 32 } };

static uint32_t n_heads(const struct model *m, uint32_t part)
{
    const uint32_t others = m->kind == MAMBA ? m->n_units / m->share : m->n_units;
    const uint32_t values = m->kind == MAMBA ? m->n_units : m->n_units * m->share;
    return part == STATE_MATRIX ? values : values + 2 * others;
}

static bool is_unit(const struct model *m, uint32_t tp, uint32_t member, uint32_t unit)
{
    return unit >= m->n_units * member / tp && unit < m->n_units * (member + 1) / tp;
}

/* A v head is with its key head's member. */
static bool has_value(const struct model *m, uint32_t tp, uint32_t member, uint32_t v)
{
    return is_unit(m, tp, member, m->kind == GROUPED ? v / m->share : m->kind == TILED ? v % m->n_units : v);
}

/* q and k have a head per unit; B and C one per group, which is with each member that has one of its heads. */
static bool has_other(const struct model *m, uint32_t tp, uint32_t member, uint32_t i)
{
    if (m->kind != MAMBA) return is_unit(m, tp, member, i);
    for (uint32_t h = i * m->share; h < (i + 1) * m->share; h++)
        if (is_unit(m, tp, member, h)) return true;
    return false;
}

static bool has_head(const struct model *m, uint32_t tp, uint32_t member, uint32_t part, uint32_t head)
{
    const uint32_t values = n_heads(m, STATE_MATRIX), others = (n_heads(m, STATE_TAIL) - values) / 2;
    if (part == STATE_MATRIX) return has_value(m, tp, member, head);
    if (m->kind == MAMBA) /* x, B, C */
        return head < values ? has_value(m, tp, member, head) : has_other(m, tp, member, (head - values) % others);
    return head < 2 * others ? has_other(m, tp, member, head % others) : has_value(m, tp, member, head - 2 * others);
}

static uint32_t heads_before(const struct model *m, uint32_t tp, uint32_t member, uint32_t part, uint32_t head)
{
    uint32_t n = 0;
    while (head-- > 0) n += has_head(m, tp, member, part, head);
    return n;
}

/* ---- sides ---- */

struct side {
    const struct model *model;
    struct mesh mesh;
    struct kv_store *stores[MAX_RANKS];
    struct kv_map *map;
};

/* Runs as the mixers make them. */
static void hold(struct state_layer_geometry *g, const struct model *m, uint32_t tp, uint32_t member)
{
    const struct shard units = shard_units(m->n_units, member, tp);
    const uint32_t n_values = n_heads(m, STATE_MATRIX), n_others = (n_heads(m, STATE_TAIL) - n_values) / 2;
    const struct shard_runs own = shard_run(units);
    const struct shard_runs others = m->kind == MAMBA ? shard_run(shard_kv_heads(units, m->n_units, n_others)) : own;
    const struct shard_runs values = m->kind == MAMBA     ? own
                                     : m->kind == GROUPED ? shard_widen(own, m->share, 0)
                                                          : shard_tiles(units, m->share, m->n_units);
    g->held[STATE_MATRIX] = held_run(n_values, values);
    g->held[STATE_TAIL] = (struct held){ .n_heads = n_values + 2 * n_others, .n_runs = 3 };
    struct shard_runs *r = g->held[STATE_TAIL].runs;
    if (m->kind == MAMBA) {
        r[0] = values;
        r[1] = shard_widen(others, 1, n_values);
        r[2] = shard_widen(others, 1, n_values + n_others);
    } else {
        r[0] = others;
        r[1] = shard_widen(others, 1, n_others);
        r[2] = shard_widen(values, 1, 2 * n_others);
    }
    for (int p = 0; p < STATE_PARTS; p++) {
        g->parts[p] = SHAPES[p];
        g->parts[p].n_heads = held_n(&g->held[p]);
    }
}

static struct side side_of(const struct model *model, uint32_t tp, uint32_t pp)
{
    struct side s = { .model = model, .mesh = { tp, pp, LAYERS } };
    struct error err = { 0 };
    for (uint32_t r = 0; r < tp * pp; r++) {
        struct state_layer_geometry states[LAYERS] = { 0 };
        const struct kv_geometry none[LAYERS] = { 0 };
        const uint32_t n = shard_n(mesh_layers(&s.mesh, r));
        for (uint32_t l = 0; l < n; l++) hold(&states[l], model, tp, r % tp);
        cr_assert_eq(kv_store_create(&s.stores[r], backend, none, n, BLOCKS, &err), OK, "%s", err.text);
        cr_assert_eq(state_store_create(&s.stores[r]->states, backend, states, n, SLOTS, &err), OK, "%s", err.text);
    }
    cr_assert_eq(kv_map_create(&s.map, &s.mesh, s.stores, &err), OK, "%s", err.text);
    return s;
}

static void side_free(struct side *s)
{
    kv_map_destroy(s->map);
    for (uint32_t r = 0; r < s->mesh.tp * s->mesh.pp; r++) kv_store_destroy(s->stores[r]);
}

/* ---- a whole model's states in canonical order: layer by layer the tail's heads, then the state's ---- */

static size_t head_bytes(uint32_t part)
{
    return (size_t)state_wire_bytes(&SHAPES[part]);
}

static size_t layer_bytes(const struct model *m)
{
    return n_heads(m, STATE_TAIL) * head_bytes(STATE_TAIL) + n_heads(m, STATE_MATRIX) * head_bytes(STATE_MATRIX);
}

static uint8_t *state_at(uint8_t *states, const struct model *m, uint32_t layer, uint32_t part, uint32_t head)
{
    uint8_t *at = states + layer * layer_bytes(m);
    if (part == STATE_MATRIX) at += n_heads(m, STATE_TAIL) * head_bytes(STATE_TAIL);
    return at + head * head_bytes(part);
}

static uint8_t *states_of(const struct model *m, uint64_t seed)
{
    struct check_rng rng = { seed };
    const size_t n = LAYERS * layer_bytes(m) / sizeof(float);
    float *states = mem_array(n, sizeof(*states));
    check_fill(&rng, FILL_NORMAL, states, n);
    return (uint8_t *)states;
}

/* Does `what` with every head of every rank, and its bytes. */
static void each_head(struct side *s, uint8_t *states,
                      void (*what)(const struct state_slices *slices, uint32_t local, uint8_t *bytes, size_t n))
{
    for (uint32_t r = 0; r < s->mesh.tp * s->mesh.pp; r++) {
        const struct shard layers = mesh_layers(&s->mesh, r);
        const uint32_t tp = s->mesh.tp, member = r % tp;
        for (uint32_t l = layers.begin; l < layers.end; l++)
            for (uint32_t p = 0; p < STATE_PARTS; p++)
                for (uint32_t h = 0; h < n_heads(s->model, p); h++)
                    if (has_head(s->model, tp, member, p, h))
                        what(&s->stores[r]->states->layers[l - layers.begin].parts[p],
                             heads_before(s->model, tp, member, p, h), state_at(states, s->model, l, p, h),
                             head_bytes(p));
    }
}

static void put(const struct state_slices *s, uint32_t local, uint8_t *bytes, size_t n)
{
    (void)n;
    cr_assert_eq(backend->ops->state_unpack(backend, NULL, s, 2, local, local + 1, bytes), OK);
}

static void expect(const struct state_slices *s, uint32_t local, uint8_t *bytes, size_t n)
{
    uint8_t got[4 * 5 * 32];
    cr_assert_eq(backend->ops->state_pack(backend, NULL, s, 1, local, local + 1, got), OK);
    cr_assert(memcmp(got, bytes, n) == 0, "head %u of %u", local, s->geom.n_heads);
}

/* From slot 2 to slot 1, in frames of a few heads, which are the whole's bytes. */
static void carry(const struct side *from, const struct side *to, uint8_t *states, struct check_rng *rng)
{
    const struct model *m = from->model;
    static uint8_t wire[64 * 4 * 5 * 32];
    struct kv_state_range r = { 0 };
    for (r.layer = 0; r.layer < LAYERS; r.layer++)
        for (r.part = 0; r.part < STATE_PARTS; r.part++)
            for (r.h0 = 0; r.h0 < n_heads(m, r.part); r.h0 = r.h1) {
                const uint32_t left = n_heads(m, r.part) - r.h0;
                r.h1 = r.h0 + 1 + (uint32_t)check_below(rng, left < 9 ? left : 9);
                memset(wire, 0xff, sizeof(wire));
                cr_assert_eq(kv_map_pack_state(from->map, &r, 2, wire), OK);
                cr_assert(
                    memcmp(wire, state_at(states, m, r.layer, r.part, r.h0), (r.h1 - r.h0) * head_bytes(r.part)) == 0);
                cr_assert_eq(wire[(r.h1 - r.h0) * head_bytes(r.part)], 0xff);
                cr_assert_eq(kv_map_unpack_state(to->map, &r, 1, wire), OK);
            }
}

Test(kv_map_states, go_between_any_two_shapes, .init = start, .fini = stop)
{
    static const uint32_t TP[] = { 1, 2, 3, 4, 8 }, PP[] = { 1, 2, 3 };
    struct check_rng rng = { 5 };
    for (size_t i = 0; i < N_MODELS; i++) {
        uint8_t *states = states_of(&MODELS[i], 17 + i);
        for (int a = 0; a < 15; a++) {
            struct side from = side_of(&MODELS[i], TP[a / 3], PP[a % 3]);
            each_head(&from, states, put);
            for (int b = 0; b < 15; b++) {
                struct side to = side_of(&MODELS[i], TP[b / 3], PP[b % 3]);
                carry(&from, &to, states, &rng);
                each_head(&to, states, expect);
                side_free(&to);
            }
            side_free(&from);
        }
        mem_free(states);
    }
}

static void spoil(const struct state_slices *s)
{
    uint8_t junk[64 * 4 * 3 * 16];
    memset(junk, 0x11, sizeof(junk));
    cr_assert_eq(backend->ops->state_unpack(backend, NULL, s, 2, 0, s->geom.n_heads, junk), OK);
}

/* One group for all heads: B and C are on all four, and the first of them gives them out. */
Test(kv_map_states, that_several_ranks_hold_are_given_out_by_the_first, .init = start, .fini = stop)
{
    const struct model *m = &MODELS[3];
    const struct kv_state_range shared = { 0, STATE_TAIL, 12, 14 };
    uint8_t *states = states_of(m, 3), wire[2 * 4 * 3 * 16];
    struct side s = side_of(m, 4, 1);
    each_head(&s, states, put);
    for (uint32_t r = 1; r < 4; r++) spoil(&s.stores[r]->states->layers[0].parts[STATE_TAIL]);
    cr_assert_eq(kv_map_pack_state(s.map, &shared, 2, wire), OK);
    cr_assert(memcmp(wire, state_at(states, m, 0, STATE_TAIL, 12), sizeof(wire)) == 0);
    spoil(&s.stores[0]->states->layers[0].parts[STATE_TAIL]);
    cr_assert_eq(kv_map_pack_state(s.map, &shared, 2, wire), OK);
    cr_assert(memcmp(wire, state_at(states, m, 0, STATE_TAIL, 12), sizeof(wire)) != 0);
    side_free(&s);
    mem_free(states);
}

Test(kv_map_states, that_are_not_there_are_refused, .init = start, .fini = stop)
{
    static const struct kv_state_range BAD[] = {
        { LAYERS, STATE_TAIL, 0, 1 }, { 0, STATE_PARTS, 0, 1 },  { 0, STATE_MATRIX, 0, 17 },
        { 0, STATE_TAIL, 0, 33 },     { 0, STATE_MATRIX, 4, 4 }, { 0, STATE_MATRIX, 5, 4 },
    };
    const struct kv_state_range good = { 0, STATE_MATRIX, 0, 16 };
    static uint8_t wire[64 * 4 * 5 * 32];
    struct side s = side_of(&MODELS[0], 3, 2);
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        cr_assert_eq(kv_map_pack_state(s.map, &BAD[i], 0, wire), ERR_INVALID, "case %zu", i);
        cr_assert_eq(kv_map_unpack_state(s.map, &BAD[i], 0, wire), ERR_INVALID, "case %zu", i);
    }
    cr_assert_eq(kv_map_pack_state(s.map, &good, SLOTS, wire), ERR_INVALID);
    cr_assert_eq(kv_map_pack_state(s.map, &good, 0, wire), OK);
    memset(wire + 15 * head_bytes(STATE_MATRIX), 0xff, 4); /* on the last rank */
    cr_assert_eq(kv_map_unpack_state(s.map, &good, 0, wire), ERR_CORRUPT);
    side_free(&s);
}

Test(kv_map_states, of_ranks_that_do_not_fit_each_other_are_refused, .init = start, .fini = stop)
{
    struct side s = side_of(&MODELS[0], 2, 1), other = side_of(&MODELS[1], 2, 1);
    struct state_store *good = s.stores[1]->states;
    struct kv_map *map;
    struct error err = { 0 };
    s.stores[1]->states = NULL;
    cr_assert_eq(kv_map_create(&map, &s.mesh, s.stores, &err), ERR_INVALID);
    cr_assert_str_eq(err.text, "rank 1 has 0 slots for recurrent states, the first of its stage has 3");
    s.stores[1]->states = other.stores[1]->states;
    cr_assert_eq(kv_map_create(&map, &s.mesh, s.stores, &err), ERR_INVALID);
    cr_assert_str_eq(err.text, "rank 1 has a part of 45 heads, others of 32");
    s.stores[1]->states = good;
    good->layers[4].parts[STATE_MATRIX].geom.rows = 4;
    cr_assert_eq(kv_map_create(&map, &s.mesh, s.stores, &err), ERR_INVALID);
    cr_assert_str_eq(err.text, "rank 1 has states of 8 heads of 4 x 32 in its layer 4, it should be 8 of 5 x 32");
    side_free(&s);
    side_free(&other);
}

/* ---- layers that differ in heads ---- */

static const uint32_t Q_OF[LAYERS] = { 8, 12, 8, 24, 9 }, KV_OF[LAYERS] = { 2, 12, 8, 1, 3 };

static struct side mixed_side(uint32_t tp, uint32_t pp)
{
    struct side s = { .mesh = { tp, pp, LAYERS } };
    struct error err = { 0 };
    for (uint32_t r = 0; r < tp * pp; r++) {
        const struct shard layers = mesh_layers(&s.mesh, r);
        struct kv_geometry g[LAYERS];
        struct held held[LAYERS];
        for (uint32_t l = 0; l < shard_n(layers); l++) {
            const uint32_t n = layers.begin + l, q = Q_OF[n], kv = KV_OF[n];
            held[l] = held_run(kv, shard_run(shard_kv_heads(shard_units(q, r % tp, tp), q, kv)));
            g[l] = (struct kv_geometry){ .n_kv_heads = held_n(&held[l]), .head_dim = 16, .format = KV_F16 };
        }
        cr_assert_eq(kv_store_create(&s.stores[r], backend, g, shard_n(layers), BLOCKS, &err), OK, "%s", err.text);
        memcpy(s.stores[r]->held, held, shard_n(layers) * sizeof(*held));
    }
    cr_assert_eq(kv_map_create(&s.map, &s.mesh, s.stores, &err), OK, "%s", err.text);
    return s;
}

/* A layer's bytes out of one side, into another. */
static void move_layer(const struct side *from, const struct side *to, uint32_t l, uint8_t *wire)
{
    const struct kv_range all = { l, l + 1, 0, KV_OF[l], 0, N_TOKENS, NULL };
    const kv_block_id blocks[] = { 1, 0 };
    if (from) cr_assert_eq(kv_map_pack(from->map, &all, blocks, wire), OK);
    if (to) cr_assert_eq(kv_map_unpack(to->map, &all, blocks, wire), OK);
}

Test(kv_map_states, layers_may_differ_in_heads_on_any_ranks, .init = start, .fini = stop)
{
    static const uint32_t TP[] = { 1, 2, 3, 4, 8 }, PP[] = { 1, 2, 3 };
    struct check_rng rng = { 9 };
    for (uint32_t l = 0; l < LAYERS; l++) {
        const size_t n = 2 * N_TOKENS * KV_OF[l] * 2 * 16;
        uint8_t *cache = mem_alloc(n), *wire = mem_alloc(n);
        for (size_t i = 0; i < n; i++) cache[i] = (uint8_t)check_below(&rng, 64); /* finite halves */
        for (int a = 0; a < 15; a++) {
            struct side from = mixed_side(TP[a / 3], PP[a % 3]);
            cr_assert_eq(kv_map_geometry(from.map, l).n_kv_heads, KV_OF[l]);
            move_layer(NULL, &from, l, cache);
            for (int b = 0; b < 15; b++) {
                struct side to = mixed_side(TP[b / 3], PP[b % 3]);
                memset(wire, 0xaa, n);
                move_layer(&from, &to, l, wire);
                memset(wire, 0xaa, n);
                move_layer(&to, NULL, l, wire);
                cr_assert(memcmp(wire, cache, n) == 0, "layer %u", l);
                side_free(&to);
            }
            side_free(&from);
        }
        mem_free(cache);
        mem_free(wire);
    }
}
