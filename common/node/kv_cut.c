/* kv_cut.c - the wire's view of a node's cache: ranges of the model's groups of layers, cut into frames. */
#include "node/kv_cut.h"

static enum status check_group(const struct kv_geometry *geom, uint32_t i, const struct cache_group *c,
                               struct error *err)
{
    const Baton__Kv__Codec codec = geom->format == KV_INT8 ? BATON__KV__CODEC__INT8 : BATON__KV__CODEC__F16;
    if (c->kind != BATON__KV__CACHE_KIND__KV)
        return error_set(err, ERR_UNSUPPORTED, "cache group %u is of kind %s, the kinds that nodes keep are: %s", i,
                         cache_kind_name(c->kind), cache_kind_name(BATON__KV__CACHE_KIND__KV));
    if (c->block_tokens == KV_BLOCK_TOKENS && c->n_heads == geom->n_kv_heads && c->head_dim == geom->head_dim &&
        c->codec == codec)
        return OK;
    return error_set(err, ERR_UNSUPPORTED,
                     "cache group %u has %u heads of %u in %s, %u tokens per block, where the memory has %u of %u in "
                     "%s, %u",
                     i, c->n_heads, c->head_dim, cache_codec_name(c->codec), c->block_tokens, geom->n_kv_heads,
                     geom->head_dim, cache_codec_name(codec), KV_BLOCK_TOKENS);
}

enum status kv_cut_check_map(const struct kv_map *map, const struct cache_geometry *g, struct error *err)
{
    const struct kv_geometry geom = kv_map_geometry(map);
    const uint32_t n_layers = kv_map_mesh(map)->n_layers;
    if (n_layers != g->n_layers)
        return error_set(err, ERR_UNSUPPORTED, "a cache of %u layers, where the memory has %u", g->n_layers, n_layers);
    for (uint32_t i = 0; i < g->n_groups; i++) {
        enum status st = check_group(&geom, i, &g->groups[i], err);
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
