/* kv_cut.c - the wire's view of a node's cache: ranges of the whole model, cut into frames. */
#include "node/kv_cut.h"

enum status kv_cut_check_map(const struct kv_map *map, const Baton__Kv__Geometry *g, struct error *err)
{
    const struct kv_geometry geom = kv_map_geometry(map);
    const uint32_t n_layers = kv_map_mesh(map)->n_layers;
    if (n_layers == g->n_layers && g->block_tokens == KV_BLOCK_TOKENS && geom.n_kv_heads == g->n_kv_heads &&
        geom.head_dim == g->head_dim && (geom.format == KV_INT8) == (g->codec == BATON__KV__CODEC__INT8))
        return OK;
    return error_set(err, ERR_UNSUPPORTED,
                     "kv of %u layers, %u heads of %u, %u tokens per block, where the cache has %u, %u of %u, %u",
                     g->n_layers, g->n_kv_heads, g->head_dim, g->block_tokens, n_layers, geom.n_kv_heads, geom.head_dim,
                     KV_BLOCK_TOKENS);
}

static struct kv_range of_model(const struct kv_wire_range *r)
{
    return (struct kv_range){ r->l0, r->l1, r->h0, r->h1, r->t0, r->t1 };
}

enum status kv_cut_pack(const struct kv_map *map, const struct kv_wire_range *r, const kv_block_id *blocks,
                        uint8_t *wire)
{
    const struct kv_range range = of_model(r);
    return kv_map_pack(map, &range, blocks, wire);
}

enum status kv_cut_unpack(const struct kv_map *map, const struct kv_wire_range *r, const kv_block_id *blocks,
                          const uint8_t *wire)
{
    const struct kv_range range = of_model(r);
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
struct kv_wire_range kv_cut_walk_peek(const struct kv_cut_walk *w, const Baton__Kv__Geometry *g, uint64_t max_bytes)
{
    const struct kv_wire_range *a = &w->all;
    uint32_t t1 = a->t1 - w->token > KV_BLOCK_TOKENS ? w->token + KV_BLOCK_TOKENS : a->t1;
    uint64_t head = kv_wire_head_bytes(g->codec, g->head_dim, t1 - w->token);
    uint64_t layer = head * (a->h1 - a->h0);
    struct kv_wire_range r = { w->layer, w->layer + 1, w->head, w->head + 1, w->token, t1 };

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
