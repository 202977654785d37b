/* kv_cut.c - the wire's view of a node's cache: ranges of the model's groups of layers, cut into frames. */
#include "node/kv_cut.h"

#include "node/cache_groups.h"

static enum status differs(uint32_t i, const struct cache_group *c, uint32_t layer, const char *memory,
                           uint32_t n_heads, uint32_t dim, const char *codec, struct error *err)
{
    return error_set(err, ERR_UNSUPPORTED,
                     "cache group %u of kind %s has %u heads of %u in %s, %u tokens per block, where the memory has "
                     "%s of %u heads of %u in %s in layer %u",
                     i, cache_kind_name(c->kind), c->n_heads, c->head_dim, cache_codec_name(c->codec), c->block_tokens,
                     memory, n_heads, dim, codec, layer);
}

static enum status check_blocks(const struct kv_map *map, uint32_t i, const struct cache_group *c, uint32_t layer,
                                struct error *err)
{
    const struct kv_geometry geom = kv_map_geometry(map, layer);
    const Baton__Kv__Codec codec = geom.format == KV_INT8 ? BATON__KV__CODEC__INT8 : BATON__KV__CODEC__F16;
    const bool is_latent = geom.kind == KV_LATENT,
               is_same_kind = is_latent == (c->kind == BATON__KV__CACHE_KIND__LATENT) && c->window == geom.window;
    if (is_same_kind && c->block_tokens == KV_BLOCK_TOKENS && c->n_heads == geom.n_kv_heads &&
        c->head_dim == geom.head_dim && c->codec == codec && (!is_latent || c->rope_dim == geom.rope_dim))
        return OK;
    return differs(i, c, layer,
                   is_latent         ? "latents"
                   : geom.window > 0 ? "windows of K and V"
                                     : "K and V",
                   geom.n_kv_heads, geom.head_dim, cache_codec_name(codec), err);
}

static enum status check_state(const struct cache_geometry *g, const struct kv_map *map, uint32_t i, uint32_t layer,
                               struct error *err)
{
    const struct cache_group *c = &g->groups[i];
    const struct state_geometry s = kv_map_state_geometry(map, layer, cache_group_part(g, map, i));
    if (c->codec != BATON__KV__CODEC__F32 || c->n_heads != s.n_heads || c->head_dim != s.rows * s.cols)
        return differs(i, c, layer, "states", s.n_heads, s.rows * s.cols, "f32", err);
    if (cache_group_state_bytes(c) <= KV_WIRE_FRAME_MAX) return OK;
    return error_set(err, ERR_UNSUPPORTED, "cache group %u has states of %u values a head, a frame holds %zu", i,
                     c->head_dim, KV_WIRE_FRAME_MAX / sizeof(float));
}

static enum status check_group(const struct kv_map *map, const struct cache_geometry *g, uint32_t i, struct error *err)
{
    const struct cache_group *c = &g->groups[i];
    enum status st = OK;
    for (uint32_t k = 0; k < c->n_layers && st == OK; k++) {
        const uint32_t layer = g->layers[c->first + k];
        if (cache_group_has_blocks(c)) st = check_blocks(map, i, c, layer, err);
        if (c->kind == BATON__KV__CACHE_KIND__SNAPSHOT) st = check_state(g, map, i, layer, err);
    }
    return st;
}

enum status kv_cut_check_map(const struct kv_map *map, const struct cache_geometry *g, struct error *err)
{
    const uint32_t n_layers = kv_map_mesh(map)->n_layers;
    if (n_layers != g->n_layers)
        return error_set(err, ERR_UNSUPPORTED, "a cache of %u layers, where the memory has %u", g->n_layers, n_layers);
    for (uint32_t i = 0; i < g->n_groups; i++) {
        enum status st = check_group(map, g, i, err);
        if (st != OK) return st;
    }
    return OK;
}

static struct kv_range of_model(const struct cache_geometry *g, const struct kv_wire_range *r)
{
    return (struct kv_range){ r->l0, r->l1, r->h0, r->h1, r->t0, r->t1, g->layers + g->groups[r->group].first };
}

enum status kv_cut_pack(const struct kv_map *map, const struct cache_geometry *g, const struct kv_wire_range *r,
                        const kv_block_id *blocks, uint8_t *wire)
{
    const struct kv_range range = of_model(g, r);
    return kv_map_pack(map, &range, blocks, wire);
}

enum status kv_cut_unpack(const struct kv_map *map, const struct cache_geometry *g, const struct kv_wire_range *r,
                          const kv_block_id *blocks, const uint8_t *wire)
{
    const struct kv_range range = of_model(g, r);
    return kv_map_unpack(map, &range, blocks, wire);
}

static struct kv_state_range of_states(const struct kv_map *map, const struct cache_geometry *g,
                                       const struct kv_wire_state *s)
{
    const uint32_t layer = g->layers[g->groups[s->group].first + s->layer];
    return (struct kv_state_range){ layer, cache_group_part(g, map, s->group), s->h0, s->h1 };
}

enum status kv_cut_pack_state(const struct kv_map *map, const struct cache_geometry *g, const struct kv_wire_state *s,
                              state_slot_id slot, uint8_t *wire)
{
    const struct kv_state_range range = of_states(map, g, s);
    return kv_map_pack_state(map, &range, slot, wire);
}

enum status kv_cut_unpack_state(const struct kv_map *map, const struct cache_geometry *g, const struct kv_wire_state *s,
                                state_slot_id slot, const uint8_t *wire)
{
    const struct kv_state_range range = of_states(map, g, s);
    /* The wire knows parts of a head's state, for those that no frame holds; no sender has such. */
    if (s->n_bytes != cache_group_state_bytes(&g->groups[s->group]) * (s->h1 - s->h0)) return ERR_UNSUPPORTED;
    return kv_map_unpack_state(map, &range, slot, wire);
}

struct kv_cut_walk kv_cut_walk_of(const struct kv_wire_range *all)
{
    return (struct kv_cut_walk){ *all, all->l0, all->h0, all->t0 };
}

bool kv_cut_walk_has_next(const struct kv_cut_walk *w)
{
    return w->token < w->all.t1 && w->all.l0 < w->all.l1 && w->all.h0 < w->all.h1;
}

static uint32_t at_most(uint64_t want, uint32_t limit)
{
    if (want == 0) want = 1;
    return want < limit ? (uint32_t)want : limit;
}

/* One block of tokens per frame: then its rows lie on the wire as backends give and take them. */
struct kv_wire_range kv_cut_walk_peek(const struct kv_cut_walk *w, const struct cache_geometry *g, uint64_t max_bytes)
{
    const struct kv_wire_range *a = &w->all;
    uint32_t t1 = a->t1 - w->token > KV_BLOCK_TOKENS ? w->token + KV_BLOCK_TOKENS : a->t1;
    uint64_t head = cache_group_head_bytes(&g->groups[a->group], t1 - w->token);
    uint64_t layer = head * (a->h1 - a->h0);
    struct kv_wire_range r = { w->layer, w->layer + 1, w->head, w->head + 1, w->token, t1, a->group };

    if (layer <= max_bytes) {
        r.l1 = w->layer + at_most(max_bytes / layer, a->l1 - w->layer);
        r.h1 = a->h1;
    } else {
        r.h1 = w->head + at_most(max_bytes / head, a->h1 - w->head);
    }
    return r;
}

void kv_cut_walk_pass(struct kv_cut_walk *w, const struct kv_wire_range *frame)
{
    w->head = frame->h1;
    if (w->head < w->all.h1) return;
    w->head = w->all.h0;
    w->layer = frame->l1;
    if (w->layer < w->all.l1) return;
    w->layer = w->all.l0;
    w->token = frame->t1;
}

struct kv_state_walk kv_state_walk_of(uint32_t group, uint32_t l0, uint32_t l1)
{
    return (struct kv_state_walk){ .group = group, .layer = l0, .l1 = l1 };
}

bool kv_state_walk_has_next(const struct kv_state_walk *w)
{
    return w->layer < w->l1;
}

struct kv_wire_state kv_state_walk_peek(const struct kv_state_walk *w, const struct cache_geometry *g,
                                        uint64_t max_bytes)
{
    const struct cache_group *c = &g->groups[w->group];
    const uint64_t head = cache_group_state_bytes(c);
    const uint32_t n = at_most(max_bytes / head, c->n_heads - w->head);
    return (struct kv_wire_state){
        .layer = w->layer, .h0 = w->head, .h1 = w->head + n, .n_bytes = (uint32_t)(n * head), .group = w->group
    };
}

void kv_state_walk_pass(struct kv_state_walk *w, const struct cache_geometry *g, const struct kv_wire_state *frame)
{
    w->head = frame->h1;
    if (w->head < g->groups[w->group].n_heads) return;
    w->head = 0;
    w->layer++;
}
