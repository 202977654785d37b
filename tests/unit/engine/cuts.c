/* Recurrent families, cut at any token: what a prefill node computes and a decode node goes on with is the stream of
 * one engine, bit for bit, though both find prefixes and snapshots of shorter prompts. */
#include "store/kv_map.h"
#include "store/state_store.h"
#include "unit/engine/engine_rig.h"

#define N_OUT   12
#define LONGEST 200 /* of a context of 256: three blocks and a part */

static void submit(struct rig *r, uint32_t i, enum engine_mode mode, uint32_t n)
{
    int32_t tokens[LONGEST];
    struct seq_request q = { .key = { 1, i, 1 }, .mode = mode, .tokens = tokens, .n_tokens = n, .n_prompt = n };
    for (int32_t k = 0; k < LONGEST; k++) tokens[k] = (k * 7 + k * k) % 160;
    q.sampling = params(N_OUT);
    q.sampling.temperature = 1.0f;
    q.sampling.n_logprobs = 0;
    q.sampling.ignore_eos = true;
    cr_assert_eq(engine_submit(r->engine, &q), OK);
}

/* An engine, and its cache as a hand-off sees it. */
struct side {
    struct rig *rig;
    struct kv_map *map;
};

static struct side side_of(struct rig_options o)
{
    struct side s = { .rig = rig_of(o) };
    struct kv_store *stores[16];
    struct error err = { 0 };
    uint32_t n = 0;
    for (struct kv_store *kv = engine_kv(s.rig->engine); kv; kv = kv->next) stores[n++] = kv;
    cr_assert_eq(kv_map_create(&s.map, model_mesh(s.rig->model), stores, &err), OK, "%s", err.text);
    return s;
}

static void side_free(struct side *s)
{
    kv_map_destroy(s->map);
    rig_free(s->rig);
}

static uint8_t wire[1 << 20];

static void carry_blocks(const struct side *from, const struct side *to, uint32_t layer, uint32_t i)
{
    const struct heard *f = &from->rig->heard[i], *t = &to->rig->heard[i];
    const struct kv_geometry g = kv_map_geometry(from->map, layer);
    const struct kv_range r = { layer, layer + 1, 0, g.n_kv_heads, t->n_hits, f->kv_t1, NULL };
    if (g.n_kv_heads == 0 || r.t0 >= r.t1) return;
    cr_assert_leq(g.n_kv_heads * kv_wire_bytes(g.format, g.head_dim, r.t1 - r.t0), sizeof(wire));
    cr_assert_eq(kv_map_pack(from->map, &r, f->blocks + r.t0 / 64, wire), OK);
    cr_assert_eq(kv_map_unpack(to->map, &r, t->blocks + r.t0 / 64, wire), OK);
}

static void carry_states(const struct side *from, const struct side *to, uint32_t layer, uint32_t i)
{
    for (uint32_t p = 0; p < STATE_PARTS; p++) {
        const struct state_geometry g = kv_map_state_geometry(from->map, layer, p);
        const struct kv_state_range r = { layer, p, 0, g.n_heads };
        if (g.n_heads == 0) continue;
        cr_assert_leq(g.n_heads * state_wire_bytes(&g), sizeof(wire));
        cr_assert_eq(kv_map_pack_state(from->map, &r, from->rig->heard[i].last_state, wire), OK);
        cr_assert_eq(kv_map_unpack_state(to->map, &r, to->rig->heard[i].slot, wire), OK);
    }
}

/* As a hand-off does it: the blocks behind the hits, and the states. */
static void carry(const struct side *from, const struct side *to, uint32_t i)
{
    for (uint32_t l = 0; l < kv_map_mesh(from->map)->n_layers; l++) {
        carry_blocks(from, to, l, i);
        carry_states(from, to, l, i);
    }
}

static void expect_cut_like_uncut(struct rig *alone, const struct side *from, const struct side *to, uint32_t n)
{
    const struct seq_key key = { 1, n, 1 };
    struct rig *p = from->rig, *d = to->rig;
    submit(alone, n, ENGINE_GENERATE, n);
    submit(d, n, ENGINE_RESERVE, n);
    submit(p, n, ENGINE_PREFILL_ONLY, n);
    WAIT(d, d->heard[n].n_reserved == 1);
    WAIT(p, p->heard[n].n_out == 1);
    carry(from, to, n);
    cr_assert_eq(engine_release(p->engine, &key), OK);
    cr_assert_eq(engine_start_decode(d->engine, &key, p->heard[n].out[0]), OK);
    WAIT(d, d->heard[n].n_done == 1);
    WAIT(alone, alone->heard[n].n_done == 1);
    cr_assert_eq(p->heard[n].out[0], alone->heard[n].out[0], "cut at %u", n);
    cr_assert_eq(memcmp(d->heard[n].out, alone->heard[n].out + 1, (N_OUT - 1) * sizeof(int32_t)), 0, "cut at %u", n);
    cr_assert_eq(memcmp(d->heard[n].lp, alone->heard[n].lp + 1, (N_OUT - 1) * sizeof(float)), 0, "cut at %u", n);
}

/* At every `step`-th token. */
static void expect_any_cut(const char *file, const uint32_t from[2], const uint32_t to[2], uint32_t step)
{
    char path[256];
    uint32_t n_cached = 0;
    snprintf(path, sizeof(path), TEST_DATA "/golden/families/%s.gguf", file);
    struct rig_options o = rig_defaults();
    o.path = path;
    o.context = 256;
    struct rig *alone = rig_of(o);
    o.prefix_cache = true;
    o.snapshots = 16;
    o.tp = from[0];
    o.pp = from[1];
    struct side p = side_of(o);
    o.tp = to[0];
    o.pp = to[1];
    struct side d = side_of(o);
    for (uint32_t n = 1; n < LONGEST; n += step) {
        expect_cut_like_uncut(alone, &p, &d, n);
        n_cached += p.rig->heard[n].cached;
    }
    cr_assert_gt(n_cached, 0);
    expect_idle(p.rig);
    expect_idle(d.rig);
    rig_free(alone);
    side_free(&p);
    side_free(&d);
}

Test(cuts, recurrent_families_cut_at_any_token_go_on_as_uncut)
{
    static const char *const files[] = { "qwen3next.q", "qwen35.f16", "qwen35.q",
                                         "qwen35moe.q", "mamba2.f16", "mamba2.q" };
    static const uint32_t one[] = { 1, 1 };
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) expect_any_cut(files[i], one, one, 1);
}

/* Prefill and decode node, tp and pp of each. */
Test(cuts, recurrent_families_on_any_ranks_go_on_as_uncut)
{
    static const struct {
        const char *file;
        uint32_t from[2], to[2];
    } cases[] = {
        { "qwen35.q", { 2, 1 }, { 1, 1 } },    { "qwen35.q", { 1, 1 }, { 2, 1 } },
        { "qwen35.q", { 2, 1 }, { 1, 2 } },    { "mamba2.q", { 2, 1 }, { 1, 1 } },
        { "mamba2.q", { 1, 1 }, { 4, 1 } },    { "mamba2.q", { 6, 1 }, { 1, 2 } },
        { "qwen3next.q", { 3, 1 }, { 2, 3 } }, { "qwen35moe.q", { 1, 3 }, { 3, 2 } },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        expect_any_cut(cases[i].file, cases[i].from, cases[i].to, 9);
}
