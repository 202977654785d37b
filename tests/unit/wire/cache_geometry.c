/* cache_geometry: what makes sense survives the wire, what does not is refused by name; differences name both sides. */
#include "wire/cache_geometry.h"

#include "base/mem.h"
#include "wire/codec.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define KIND(name)  BATON__KV__CACHE_KIND__##name
#define CODEC(name) BATON__KV__CODEC__##name

/* Twelve layers of every kind, three to one as hybrids have them. */
static struct cache_geometry mixed(void)
{
    struct cache_geometry g = {
        .fingerprint = 0x1122334455667788,
        .n_layers = 12,
        .n_groups = 5,
        .groups = { { KIND(SNAPSHOT), CODEC(F32), 0, 6, 3, 20000, 0, 0, 0 },
                    { KIND(KV), CODEC(INT8), 6, 2, 2, 64, 64, 0, 0 },
                    { KIND(WINDOW), CODEC(F16), 8, 2, 2, 32, 64, 100, 0 },
                    { KIND(LATENT), CODEC(INT8), 10, 1, 1, 512, 64, 0, 64 },
                    { KIND(CACHE_NONE), CODEC(CODEC_NONE), 11, 1, 0, 0, 0, 0, 0 } },
        .layers = { 0, 1, 2, 4, 5, 6, 3, 7, 8, 9, 10, 11 },
        .rotated = true,
        .rope_base = 1e6f,
        .rope_scale = 0.5f,
        .rope_dims = 64,
        .rope_kind = 1,
        .model_name = "m",
    };
    return g;
}

static struct cache_geometry uniform(uint32_t n_layers)
{
    struct cache_geometry g = { .fingerprint = 0x1122334455667788, .rope_base = 1e5f, .model_name = "m" };
    const struct cache_group like = { KIND(KV), CODEC(INT8), 0, 0, 3, 64, 64, 0, 0 };
    cache_geometry_set_uniform(&g, n_layers, &like);
    return g;
}

static void expect_survives(const struct cache_geometry *g)
{
    struct codec_arena *arena = codec_arena_create(256 << 10);
    struct cache_geometry_message m;
    struct cache_geometry back;
    ProtobufCMessage *base;
    struct error err;
    cache_geometry_pack(&m, g);
    size_t n = baton__kv__geometry__get_packed_size(&m.msg);
    uint8_t *bytes = mem_alloc(n);
    baton__kv__geometry__pack(&m.msg, bytes);
    cr_assert_lt(n + 512, CODEC_HEADER_MAX, "a Hello must fit a header frame");
    cr_assert_eq(codec_unpack(arena, &baton__kv__geometry__descriptor, bytes_of(bytes, n), &base, NULL), OK);
    cr_assert_eq(cache_geometry_unpack(&back, (const Baton__Kv__Geometry *)base, &err), OK, "%s", err.text);
    cr_assert_eq(cache_geometry_check_same(g, &back, "a", "b", &err), OK, "%s", err.text);
    cr_assert_arr_eq(g->layers, back.layers, g->n_layers * sizeof(*g->layers));
    cr_assert_str_eq(g->model_name, back.model_name);
    mem_free(bytes);
    codec_arena_destroy(arena);
}

Test(cache_geometry, survives_the_wire)
{
    struct cache_geometry a = uniform(30), b = mixed(), most = uniform(CACHE_LAYERS_MAX);
    expect_survives(&a);
    expect_survives(&b);
    expect_survives(&most);
}

static void expect_refused(const struct cache_geometry_message *m, enum status st, const char *what)
{
    struct cache_geometry out;
    struct error err = { OK, "" };
    cr_assert_eq(cache_geometry_unpack(&out, &m->msg, &err), st, "%s: %s", what, err.text);
    cr_assert_not_null(strstr(err.text, what), "\"%s\" does not say \"%s\"", err.text, what);
}

#define SPOIL(change, st, say)                                                                                         \
    do {                                                                                                               \
        cache_geometry_pack(&m, &g);                                                                                   \
        change;                                                                                                        \
        expect_refused(&m, st, say);                                                                                   \
    } while (0)

Test(cache_geometry, what_makes_no_sense_is_refused_by_name)
{
    struct cache_geometry g = mixed();
    struct cache_geometry_message m;
    struct error err;
    Baton__Kv__LayerGroup *extra[CACHE_GROUPS_MAX + 1];

    cr_assert_eq(cache_geometry_unpack(&g, NULL, &err), ERR_INVALID);
    SPOIL(m.msg.n_layers = 0, ERR_INVALID, "a model of 0 layers");
    SPOIL(m.msg.n_layers = 257, ERR_INVALID, "a model of 257 layers");
    SPOIL(m.msg.n_layers = 13, ERR_INVALID, "12 of 13 layers stand in a cache group");
    SPOIL(m.msg.n_groups = 0, ERR_INVALID, "0 groups");
    for (int i = 0; i <= CACHE_GROUPS_MAX; i++) extra[i] = &m.groups[0];
    SPOIL(m.msg.n_groups = CACHE_GROUPS_MAX + 1; m.msg.groups = extra, ERR_INVALID, "9 groups");
    SPOIL(m.groups[1].kind = (Baton__Kv__CacheKind)9, ERR_UNSUPPORTED, "cache group 1 is of kind 9; there are none, K");
    SPOIL(m.groups[1].kind = (Baton__Kv__CacheKind)-1, ERR_UNSUPPORTED, "cache group 1 is of kind 4294967295");
    SPOIL(m.groups[1].codec = CODEC(F32), ERR_UNSUPPORTED, "codec 3 (f32); for a cache of kind K and V there is: int8");
    SPOIL(m.groups[0].codec = CODEC(INT8), ERR_UNSUPPORTED, "kind snapshot there is: f32, bf16");
    SPOIL(m.groups[1].codec = (Baton__Kv__Codec)40, ERR_UNSUPPORTED, "codec 40 (unknown)");
    SPOIL(m.groups[1].n_heads = 0, ERR_INVALID, "group 1: number of heads is 0, it must be from 1 to 4096");
    SPOIL(m.groups[3].n_heads = 2, ERR_INVALID, "group 3: number of heads is 2, it must be from 1 to 1");
    SPOIL(m.groups[1].head_dim = 5000, ERR_INVALID, "group 1: head_dim is 5000");
    SPOIL(m.groups[0].head_dim = CACHE_STATE_MAX + 1, ERR_INVALID, "group 0: head_dim is 4194305");
    SPOIL(m.groups[0].block_tokens = 64, ERR_INVALID, "group 0: tokens per block is 64, it must be from 0 to 0");
    SPOIL(m.groups[1].block_tokens = 0, ERR_INVALID, "group 1: tokens per block is 0");
    SPOIL(m.groups[2].block_tokens = 32, ERR_INVALID, "group 2 has blocks of 32 tokens, one before it of 64");
    SPOIL(m.groups[2].window = 0, ERR_INVALID, "group 2: window is 0, it must be from 1");
    SPOIL(m.groups[1].window = 7, ERR_INVALID, "group 1: window is 7, it must be from 0 to 0");
    SPOIL(m.groups[1].rope_dim = 7, ERR_INVALID, "group 1: rope_dim is 7");
    SPOIL(m.groups[4].n_heads = 1, ERR_INVALID, "group 4: number of heads is 1, it must be from 0 to 0");
    SPOIL(m.groups[1].n_layers = 0, ERR_INVALID, "cache group 1 has no layers");
    SPOIL(m.layers[6] = 12, ERR_INVALID, "cache group 1 names layer 12 which the model does not have");
    SPOIL(m.layers[6] = 2, ERR_INVALID, "cache group 1 names layer 2 which stands in a group already");
    SPOIL(m.layers[7] = 3; m.layers[6] = 7, ERR_INVALID, "cache group 1 names layer 3 after a higher one");
}

/* A recurrent layer has a convolution's tail and a state. */
static struct cache_geometry recurrent(uint32_t n_layers)
{
    struct cache_geometry g = uniform(n_layers);
    g.n_groups = 2;
    for (uint32_t i = 0; i < 2; i++) {
        g.groups[i] = (struct cache_group){ KIND(SNAPSHOT), CODEC(F32), i * n_layers, n_layers, 3 + i, 48, 0, 0, 0 };
        for (uint32_t l = 0; l < n_layers; l++) g.layers[i * n_layers + l] = (uint16_t)l;
    }
    return g;
}

Test(cache_geometry, a_layer_may_stand_in_two_groups_of_snapshots_alone)
{
    struct cache_geometry g = recurrent(12), most = recurrent(CACHE_LAYERS_MAX);
    struct cache_geometry_message m;
    Baton__Kv__LayerGroup *thrice[3] = { &m.groups[0], &m.groups[1], &m.groups[1] };
    expect_survives(&g);
    expect_survives(&most);
    SPOIL((m.groups[1].kind = KIND(KV), m.groups[1].codec = CODEC(INT8), m.groups[1].block_tokens = 64), ERR_INVALID,
          "cache group 1 names layer 0 which stands in a group already");
    SPOIL((m.groups[0].kind = KIND(KV), m.groups[0].codec = CODEC(INT8), m.groups[0].block_tokens = 64), ERR_INVALID,
          "cache group 1 names layer 0 which stands in a group already");
    g = most;
    SPOIL((m.msg.n_groups = 3, m.msg.groups = thrice), ERR_INVALID, "cache groups name more than 512 layers in all");
}

static void expect_differs(const struct cache_geometry *a, const struct cache_geometry *b, const char *ours,
                           const char *theirs)
{
    struct error err = { OK, "" };
    cr_assert_eq(cache_geometry_check_same(a, b, "d0", "p0", &err), ERR_MISMATCH);
    cr_assert(strstr(err.text, ours) && strstr(err.text, theirs), "%s", err.text);
}

Test(cache_geometry, differences_name_both_sides)
{
    struct cache_geometry a = uniform(30), b = uniform(28);
    cr_assert_eq(cache_geometry_check_same(&a, &a, "d0", "p0", NULL), OK);
    expect_differs(&a, &b, "d0 has 30", "p0 has 28");
    b = a;
    b.groups[0].codec = CODEC(F16);
    expect_differs(&a, &b, "d0 has int8", "p0 has f16");
    b = a;
    b.groups[0].kind = KIND(LATENT);
    expect_differs(&a, &b, "kind of cache group 0 differs: d0 has K and V", "p0 has latent");
    b = a;
    b.groups[0].head_dim = 80;
    expect_differs(&a, &b, "head_dim (group 0) differs: d0 has 64", "p0 has 80");
    b = a;
    b.rope_base = NAN;
    expect_differs(&a, &b, "rope base", "nan");
    b = a;
    b.fingerprint ^= 1;
    expect_differs(&a, &b, "d0 has \"m\" (fingerprint 1122334455667788)",
                   "p0 has \"m\" (fingerprint 1122334455667789)");
    a = mixed();
    b = mixed();
    b.groups[2].window = 101;
    expect_differs(&a, &b, "window (group 2) differs: d0 has 100", "p0 has 101");
    b = mixed();
    b.layers[6] = 4, b.layers[3] = 3;
    expect_differs(&a, &b, "layer 3 of cache group 0 differs: d0 has 4", "p0 has 3");
    b = mixed();
    b.n_groups = 4;
    expect_differs(&a, &b, "number of cache groups differs: d0 has 5", "p0 has 4");
}

Test(cache_geometry, bytes_of_each_kind)
{
    struct cache_geometry g = mixed();
    cr_assert_eq(cache_group_head_bytes(&g.groups[0], 10), 0);
    cr_assert_eq(cache_group_state_bytes(&g.groups[0]), 80000);
    cr_assert_eq(cache_group_head_bytes(&g.groups[1], 10), 10 * 2 * (64 + 4));
    cr_assert_eq(cache_group_head_bytes(&g.groups[2], 10), 10 * 2 * 2 * 32);
    cr_assert_eq(cache_group_head_bytes(&g.groups[3], 1), 512 + 4 * 4 + 2 * 64, "4 scales, 64 values in bf16");
    cr_assert(!cache_group_head_bytes(&g.groups[4], 10) && !cache_group_state_bytes(&g.groups[4]));
    g = uniform(30);
    cr_assert_eq(cache_geometry_16bit_bytes(&g, 30 * 3 * 2 * 68 * 100), 30 * 3 * 2 * 128 * 100);
    g.groups[0].codec = CODEC(F16);
    cr_assert_eq(cache_geometry_16bit_bytes(&g, 12345), 12345);
}

Test(cache_geometry, a_window_keeps_the_blocks_of_its_last_tokens)
{
    struct cache_geometry g = mixed();
    const struct cache_group *w = &g.groups[2]; /* of 100 */
    cr_assert_eq(cache_group_first_token(w, 100), 0);
    cr_assert_eq(cache_group_first_token(w, 163), 0);
    cr_assert_eq(cache_group_first_token(w, 164), 64);
    cr_assert_eq(cache_group_first_token(w, 1000), 896);
    cr_assert_eq(cache_group_first_token(&g.groups[1], 1000), 0);
}

Test(cache_geometry, a_run_of_the_models_layers_is_a_run_of_each_groups)
{
    struct cache_geometry g = mixed();
    uint32_t p0, p1;
    cr_assert(cache_group_places(&g, 0, 0, 12, &p0, &p1));
    cr_assert(p0 == 0 && p1 == 6);
    cr_assert(cache_group_places(&g, 0, 2, 6, &p0, &p1)); /* 2, 4 and 5 */
    cr_assert(p0 == 2 && p1 == 5);
    cr_assert(cache_group_places(&g, 1, 2, 6, &p0, &p1));
    cr_assert(p0 == 0 && p1 == 1);
    cr_assert(!cache_group_places(&g, 1, 4, 7, &p0, &p1));
}
