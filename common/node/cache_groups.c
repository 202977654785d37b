/* cache_groups.c - the cache of a node, as the wire has it: layers that keep the same make a group. */
#include "node/cache_groups.h"

#include "store/state_store.h"

#include <string.h>

/* What a layer keeps, up to one entry per part of its states. */
struct kept {
    struct cache_group groups[STATE_PARTS + 1];
    uint32_t parts[STATE_PARTS + 1]; /* of a snapshot; else STATE_PARTS */
    uint32_t n;
};

static void keep(struct kept *k, const struct cache_group *group, uint32_t part)
{
    k->parts[k->n] = part;
    k->groups[k->n++] = *group;
}

static struct cache_group blocks_of(const struct kv_geometry *geom)
{
    const bool is_latent = geom->kind == KV_LATENT;
    return (struct cache_group){
        .kind = is_latent          ? BATON__KV__CACHE_KIND__LATENT
                : geom->window > 0 ? BATON__KV__CACHE_KIND__WINDOW
                                   : BATON__KV__CACHE_KIND__KV,
        .window = is_latent ? 0 : geom->window,
        .codec = geom->format == KV_INT8 ? BATON__KV__CODEC__INT8 : BATON__KV__CODEC__F16,
        .n_heads = geom->n_kv_heads,
        .head_dim = geom->head_dim,
        .block_tokens = KV_BLOCK_TOKENS,
        .rope_dim = is_latent ? geom->rope_dim : 0,
    };
}

static struct kept kept_by(const struct kv_map *map, uint32_t layer)
{
    const struct kv_geometry geom = kv_map_geometry(map, layer);
    const struct cache_group nothing = { .kind = BATON__KV__CACHE_KIND__CACHE_NONE };
    struct kept k = { .n = 0 };
    if (geom.n_kv_heads > 0) {
        const struct cache_group blocks = blocks_of(&geom);
        keep(&k, &blocks, STATE_PARTS);
    }
    for (uint32_t p = 0; p < STATE_PARTS; p++) {
        const struct state_geometry s = kv_map_state_geometry(map, layer, p);
        const struct cache_group snapshot = { .kind = BATON__KV__CACHE_KIND__SNAPSHOT,
                                              .codec = BATON__KV__CODEC__F32,
                                              .n_heads = s.n_heads,
                                              .head_dim = s.rows * s.cols };
        if (s.n_heads > 0) keep(&k, &snapshot, p);
    }
    if (k.n == 0) keep(&k, &nothing, STATE_PARTS);
    return k;
}

static bool same(const struct cache_group *a, const struct cache_group *b)
{
    return a->kind == b->kind && a->codec == b->codec && a->n_heads == b->n_heads && a->head_dim == b->head_dim &&
           a->block_tokens == b->block_tokens && a->window == b->window && a->rope_dim == b->rope_dim;
}

/* Whether the layer stands in the group, whose part is given. */
static bool stands_in(const struct kept *k, const struct cache_group *group, uint32_t part)
{
    for (uint32_t i = 0; i < k->n; i++)
        if (k->parts[i] == part && same(&k->groups[i], group)) return true;
    return false;
}

enum status cache_groups_fill(struct cache_geometry *g, const struct kv_map *map, struct error *err)
{
    const uint32_t n = kv_map_mesh(map)->n_layers;
    uint32_t parts[CACHE_GROUPS_MAX], n_places = 0;
    if (n > CACHE_LAYERS_MAX)
        return error_set(err, ERR_UNSUPPORTED, "a cache of %u layers, at most %d are possible", n, CACHE_LAYERS_MAX);
    g->n_layers = n;
    g->n_groups = 0;
    g->rotated = false;
    for (uint32_t l = 0; l < n; l++) {
        const struct kept k = kept_by(map, l);
        g->rotated = g->rotated || kv_map_geometry(map, l).rotate;
        for (uint32_t i = 0; i < k.n; i++) {
            uint32_t at = 0;
            while (at < g->n_groups && !(parts[at] == k.parts[i] && same(&g->groups[at], &k.groups[i]))) at++;
            if (at < g->n_groups) continue;
            if (at == CACHE_GROUPS_MAX)
                return error_set(err, ERR_UNSUPPORTED, "layer %u needs another cache group, there are %d", l,
                                 CACHE_GROUPS_MAX);
            g->groups[at] = k.groups[i];
            parts[at] = k.parts[i];
            g->n_groups++;
        }
    }
    for (uint32_t i = 0; i < g->n_groups; i++) {
        struct cache_group *c = &g->groups[i];
        c->first = n_places;
        for (uint32_t l = 0; l < n; l++) {
            const struct kept k = kept_by(map, l);
            if (stands_in(&k, c, parts[i])) g->layers[n_places++] = (uint16_t)l;
        }
        c->n_layers = n_places - c->first;
    }
    return OK;
}

/* Groups of one layer stand in the order of its parts. */
uint32_t cache_group_part(const struct cache_geometry *g, const struct kv_map *map, uint32_t group)
{
    const uint32_t layer = g->layers[g->groups[group].first];
    uint32_t nth = 0, part = 0;
    for (uint32_t i = 0; i < group; i++) {
        const struct cache_group *c = &g->groups[i];
        if (c->kind != BATON__KV__CACHE_KIND__SNAPSHOT) continue;
        for (uint32_t k = 0; k < c->n_layers; k++) nth += g->layers[c->first + k] == layer;
    }
    for (; part < STATE_PARTS; part++) {
        if (kv_map_state_geometry(map, layer, part).n_heads == 0) continue;
        if (nth-- == 0) break;
    }
    return part;
}
