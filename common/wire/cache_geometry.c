/* cache_geometry.c - the record of a cache's geometry: packed, checked, compared. */
#include "wire/cache_geometry.h"

#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define LATENT_SCALE_VALUES 128 /* of a latent's values share one scale */

#define CODEC(name) (1u << BATON__KV__CODEC__##name)

/* What the numbers of a group may be, by its kind. */
static const struct kind {
    const char *name;
    unsigned codecs; /* bits of enum Codec; 0: none */
    uint32_t max_heads, max_dim;
    bool has_blocks, has_window, may_have_rope;
} kinds[] = {
    [BATON__KV__CACHE_KIND__CACHE_NONE] = { "none", 0, 0, 0, false, false, false },
    [BATON__KV__CACHE_KIND__KV] = { "K and V", CODEC(INT8) | CODEC(F16), CACHE_HEADS_MAX, CACHE_HEAD_DIM_MAX, true,
                                    false, false },
    [BATON__KV__CACHE_KIND__LATENT] = { "latent", CODEC(INT8) | CODEC(F16), 1, CACHE_HEAD_DIM_MAX, true, false, true },
    [BATON__KV__CACHE_KIND__WINDOW] = { "sliding window", CODEC(INT8) | CODEC(F16), CACHE_HEADS_MAX, CACHE_HEAD_DIM_MAX,
                                        true, true, false },
    [BATON__KV__CACHE_KIND__SNAPSHOT] = { "snapshot", CODEC(F32) | CODEC(BF16), CACHE_HEADS_MAX, CACHE_STATE_MAX, false,
                                          false, false },
};
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static const char *const codecs[] = { "none", "int8", "f16", "f32", "bf16" };
#define N_CODECS (sizeof(codecs) / sizeof(codecs[0]))

/* protobuf-c's enums are unsigned here and hold whatever a peer says. */
static const struct kind *kind_of(const struct cache_group *c)
{
    return &kinds[(uint32_t)c->kind < N_KINDS ? c->kind : 0];
}

const char *cache_kind_name(Baton__Kv__CacheKind kind)
{
    return (uint32_t)kind < N_KINDS ? kinds[kind].name : "unknown";
}

const char *cache_codec_name(Baton__Kv__Codec codec)
{
    return (uint32_t)codec < N_CODECS ? codecs[codec] : "unknown";
}

void cache_geometry_set_uniform(struct cache_geometry *g, uint32_t n_layers, const struct cache_group *like)
{
    g->n_layers = n_layers;
    g->n_groups = 1;
    g->groups[0] = *like;
    g->groups[0].first = 0;
    g->groups[0].n_layers = n_layers;
    for (uint32_t l = 0; l < n_layers && l < CACHE_LAYERS_MAX; l++) g->layers[l] = (uint16_t)l;
}

void cache_geometry_pack(struct cache_geometry_message *out, const struct cache_geometry *g)
{
    Baton__Kv__Geometry *m = &out->msg;
    baton__kv__geometry__init(m);
    m->fingerprint = g->fingerprint;
    m->n_layers = g->n_layers;
    m->rotated = g->rotated;
    m->rope_base = g->rope_base;
    m->rope_scale = g->rope_scale;
    m->rope_dims = g->rope_dims;
    m->rope_kind = g->rope_kind;
    m->model_name = (char *)(uintptr_t)g->model_name;
    m->n_groups = g->n_groups;
    m->groups = out->refs;
    for (uint32_t i = 0; i < g->n_groups; i++) {
        const struct cache_group *c = &g->groups[i];
        Baton__Kv__LayerGroup *to = out->refs[i] = &out->groups[i];
        baton__kv__layer_group__init(to);
        to->kind = c->kind;
        to->n_layers = c->n_layers;
        to->layers = out->layers + c->first;
        for (uint32_t l = c->first; l < c->first + c->n_layers; l++) out->layers[l] = g->layers[l];
        to->n_heads = c->n_heads;
        to->head_dim = c->head_dim;
        to->codec = c->codec;
        to->block_tokens = c->block_tokens;
        to->window = c->window;
        to->rope_dim = c->rope_dim;
    }
}

static enum status in_range(uint32_t i, const char *what, uint64_t v, uint64_t min, uint64_t max, struct error *err)
{
    if (v >= min && v <= max) return OK;
    return error_set(err, ERR_INVALID, "cache group %u: %s is %" PRIu64 ", it must be from %" PRIu64 " to %" PRIu64, i,
                     what, v, min, max);
}

static enum status check_codec(uint32_t i, const struct cache_group *c, struct error *err)
{
    unsigned allowed = kind_of(c)->codecs;
    bool fits = allowed ? (uint32_t)c->codec < N_CODECS && (allowed & (1u << c->codec)) != 0
                        : c->codec == BATON__KV__CODEC__CODEC_NONE;
    char words[64] = "none";
    size_t n = 0;
    if (fits) return OK;
    for (uint32_t k = 0; k < N_CODECS; k++)
        if (allowed & (1u << k)) n += (size_t)snprintf(words + n, sizeof(words) - n, "%s%s", n ? ", " : "", codecs[k]);
    return error_set(err, ERR_UNSUPPORTED,
                     "cache group %u is kept in codec %u (%s); for a cache of kind %s there is: %s", i,
                     (uint32_t)c->codec, cache_codec_name(c->codec), kind_of(c)->name, words);
}

static enum status check_group(uint32_t i, const struct cache_group *c, struct error *err)
{
    const struct kind *k = kind_of(c);
    enum status st;
    if ((uint32_t)c->kind >= N_KINDS)
        return error_set(err, ERR_UNSUPPORTED,
                         "cache group %u is of kind %u; there are none, K and V, latent, sliding window, snapshot "
                         "(0 to %zu)",
                         i, (uint32_t)c->kind, N_KINDS - 1);
    if ((st = check_codec(i, c, err)) != OK) return st;
    if ((st = in_range(i, "number of heads", c->n_heads, k->max_heads ? 1 : 0, k->max_heads, err)) != OK) return st;
    if ((st = in_range(i, "head_dim", c->head_dim, k->max_dim ? 1 : 0, k->max_dim, err)) != OK) return st;
    if ((st = in_range(i, "tokens per block", c->block_tokens, k->has_blocks, k->has_blocks ? 4096 : 0, err)) != OK)
        return st;
    if ((st = in_range(i, "window", c->window, k->has_window, k->has_window ? UINT32_MAX : 0, err)) != OK) return st;
    return in_range(i, "rope_dim", c->rope_dim, 0, k->may_have_rope ? CACHE_HEAD_DIM_MAX : 0, err);
}

/* Where layers have been named. */
struct seen {
    bool in_snapshot[CACHE_LAYERS_MAX], in_other[CACHE_LAYERS_MAX];
    uint32_t n_places;
};

/* Layers rise within a group, and none stands in two, but for snapshots. */
static enum status take_layers(struct cache_geometry *out, uint32_t i, const Baton__Kv__LayerGroup *m,
                               struct seen *seen, struct error *err)
{
    const bool is_snapshot = m->kind == BATON__KV__CACHE_KIND__SNAPSHOT;
    if (m->n_layers == 0) return error_set(err, ERR_INVALID, "cache group %u has no layers", i);
    for (size_t k = 0; k < m->n_layers; k++) {
        const uint32_t l = m->layers[k];
        const bool is_there = l < out->n_layers,
                   is_taken = is_there && (seen->in_other[l] || (!is_snapshot && seen->in_snapshot[l]));
        if (!is_there || is_taken || (k && l <= m->layers[k - 1]))
            return error_set(err, ERR_INVALID, "cache group %u names layer %u %s", i, l,
                             !is_there  ? "which the model does not have"
                             : is_taken ? "which stands in a group already"
                                        : "after a higher one");
        if (seen->n_places == CACHE_PLACES_MAX)
            return error_set(err, ERR_INVALID, "cache groups name more than %d layers in all", CACHE_PLACES_MAX);
        *(is_snapshot ? &seen->in_snapshot[l] : &seen->in_other[l]) = true;
        out->layers[seen->n_places++] = (uint16_t)l;
    }
    return OK;
}

static enum status take_groups(struct cache_geometry *out, const Baton__Kv__Geometry *m, struct error *err)
{
    struct seen seen = { 0 };
    uint32_t n = 0, block_tokens = 0;
    for (uint32_t i = 0; i < out->n_groups; i++) {
        const Baton__Kv__LayerGroup *from = m->groups[i];
        struct cache_group *c = &out->groups[i];
        enum status st;
        *c = (struct cache_group){ .kind = from->kind,
                                   .codec = from->codec,
                                   .first = seen.n_places,
                                   .n_layers = (uint32_t)from->n_layers,
                                   .n_heads = from->n_heads,
                                   .head_dim = from->head_dim,
                                   .block_tokens = from->block_tokens,
                                   .window = from->window,
                                   .rope_dim = from->rope_dim };
        if ((st = check_group(i, c, err)) != OK) return st;
        if ((st = take_layers(out, i, from, &seen, err)) != OK) return st;
        if (block_tokens && c->block_tokens && c->block_tokens != block_tokens)
            return error_set(err, ERR_INVALID, "cache group %u has blocks of %u tokens, one before it of %u", i,
                             c->block_tokens, block_tokens);
        if (c->block_tokens) block_tokens = c->block_tokens;
    }
    for (uint32_t l = 0; l < out->n_layers; l++) n += seen.in_snapshot[l] || seen.in_other[l];
    if (n == out->n_layers) return OK;
    return error_set(err, ERR_INVALID, "%u of %u layers stand in a cache group", n, out->n_layers);
}

enum status cache_geometry_unpack(struct cache_geometry *out, const Baton__Kv__Geometry *m, struct error *err)
{
    if (!m) return error_set(err, ERR_INVALID, "no geometry is named");
    if (m->n_layers == 0 || m->n_layers > CACHE_LAYERS_MAX)
        return error_set(err, ERR_INVALID, "a model of %u layers, it must have from 1 to %d", m->n_layers,
                         CACHE_LAYERS_MAX);
    if (m->n_groups == 0 || m->n_groups > CACHE_GROUPS_MAX)
        return error_set(err, ERR_INVALID, "%zu groups of layers, there must be from 1 to %d", m->n_groups,
                         CACHE_GROUPS_MAX);
    *out = (struct cache_geometry){
        .fingerprint = m->fingerprint,
        .n_layers = m->n_layers,
        .n_groups = (uint32_t)m->n_groups,
        .rotated = m->rotated != 0,
        .rope_base = m->rope_base,
        .rope_scale = m->rope_scale,
        .rope_dims = m->rope_dims,
        .rope_kind = m->rope_kind,
    };
    snprintf(out->model_name, sizeof(out->model_name), "%s", m->model_name);
    return take_groups(out, m, err);
}

static enum status differs(const char *what, const char *our_name, const char *their_name, double ours, double theirs,
                           struct error *err)
{
    return error_set(err, ERR_MISMATCH, "%s differs: %s has %.9g, %s has %.9g", what, our_name, ours, their_name,
                     theirs);
}

static enum status check_same_group(uint32_t i, const struct cache_geometry *ours, const struct cache_geometry *theirs,
                                    const char *our_name, const char *their_name, struct error *err)
{
    const struct cache_group *a = &ours->groups[i], *b = &theirs->groups[i];
    const struct {
        const char *what;
        uint32_t a, b;
    } table[] = {
        { "number of kv heads", a->n_heads, b->n_heads },
        { "head_dim", a->head_dim, b->head_dim },
        { "tokens per kv block", a->block_tokens, b->block_tokens },
        { "window", a->window, b->window },
        { "rope part of the latent", a->rope_dim, b->rope_dim },
        { "number of layers of a cache group", a->n_layers, b->n_layers },
    };
    char what[64];
    if (a->kind != b->kind)
        return error_set(err, ERR_MISMATCH, "kind of cache group %u differs: %s has %s, %s has %s", i, our_name,
                         cache_kind_name(a->kind), their_name, cache_kind_name(b->kind));
    if (a->codec != b->codec)
        return error_set(err, ERR_MISMATCH, "kv codec differs: %s has %s, %s has %s (set kv.codec alike)", our_name,
                         cache_codec_name(a->codec), their_name, cache_codec_name(b->codec));
    for (size_t k = 0; k < sizeof(table) / sizeof(table[0]); k++) {
        snprintf(what, sizeof(what), "%s (group %u)", table[k].what, i);
        if (table[k].a != table[k].b) return differs(what, our_name, their_name, table[k].a, table[k].b, err);
    }
    for (uint32_t k = 0; k < a->n_layers; k++) {
        snprintf(what, sizeof(what), "layer %u of cache group %u", k, i);
        uint16_t la = ours->layers[a->first + k], lb = theirs->layers[b->first + k];
        if (la != lb) return differs(what, our_name, their_name, la, lb, err);
    }
    return OK;
}

enum status cache_geometry_check_same(const struct cache_geometry *ours, const struct cache_geometry *theirs,
                                      const char *our_name, const char *their_name, struct error *err)
{
    const struct {
        const char *what;
        double a, b;
    } table[] = {
        { "number of layers", ours->n_layers, theirs->n_layers },
        { "number of cache groups", ours->n_groups, theirs->n_groups },
        { "rotation of Q and K (kv.rotate)", ours->rotated, theirs->rotated },
        { "rope base", ours->rope_base, theirs->rope_base },
        { "rope scale", ours->rope_scale, theirs->rope_scale },
        { "rope dims", ours->rope_dims, theirs->rope_dims },
        { "rope kind", ours->rope_kind, theirs->rope_kind },
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (!(table[i].a == table[i].b))
            return differs(table[i].what, our_name, their_name, table[i].a, table[i].b, err);
    for (uint32_t i = 0; i < ours->n_groups; i++) {
        enum status st = check_same_group(i, ours, theirs, our_name, their_name, err);
        if (st != OK) return st;
    }
    if (ours->fingerprint == theirs->fingerprint) return OK;
    return error_set(
        err, ERR_MISMATCH,
        "model files differ: %s has %s (fingerprint %016" PRIx64 "), %s has %s (fingerprint %016" PRIx64 ")", our_name,
        log_quote(ours->model_name), ours->fingerprint, their_name, log_quote(theirs->model_name), theirs->fingerprint);
}

bool cache_group_has_blocks(const struct cache_group *c)
{
    return kind_of(c)->has_blocks;
}

uint64_t cache_group_head_bytes(const struct cache_group *c, uint64_t n_tokens)
{
    uint64_t dim = c->head_dim;
    if (!cache_group_has_blocks(c)) return 0;
    if (c->kind == BATON__KV__CACHE_KIND__LATENT && c->codec == BATON__KV__CODEC__F16)
        return 2 * n_tokens * (dim + c->rope_dim);
    if (c->kind == BATON__KV__CACHE_KIND__LATENT)
        return n_tokens *
               (dim + 4 * ((dim + LATENT_SCALE_VALUES - 1) / LATENT_SCALE_VALUES) + 2 * (uint64_t)c->rope_dim);
    return c->codec == BATON__KV__CODEC__INT8 ? 2 * n_tokens * (dim + 4) : 4 * n_tokens * dim;
}

uint64_t cache_group_state_bytes(const struct cache_group *c)
{
    if (c->kind != BATON__KV__CACHE_KIND__SNAPSHOT) return 0;
    return (c->codec == BATON__KV__CODEC__F32 ? 4 : 2) * (uint64_t)c->head_dim;
}

uint32_t cache_group_first_token(const struct cache_group *c, uint32_t n_tokens)
{
    if (c->kind != BATON__KV__CACHE_KIND__WINDOW || n_tokens <= c->window) return 0;
    uint32_t first = n_tokens - c->window;
    return first - first % c->block_tokens;
}

bool cache_group_places(const struct cache_geometry *g, uint32_t group, uint32_t l0, uint32_t l1, uint32_t *p0,
                        uint32_t *p1)
{
    const struct cache_group *c = &g->groups[group];
    const uint16_t *layers = g->layers + c->first;
    uint32_t a = 0, b;
    while (a < c->n_layers && layers[a] < l0) a++;
    for (b = a; b < c->n_layers && layers[b] < l1; b++) {}
    *p0 = a;
    *p1 = b;
    return a < b;
}

uint32_t cache_geometry_block_tokens(const struct cache_geometry *g)
{
    for (uint32_t i = 0; i < g->n_groups; i++)
        if (g->groups[i].block_tokens) return g->groups[i].block_tokens;
    return 0;
}

/* Of one token over all layers that have blocks: as it is kept, and in 16 bits. */
uint64_t cache_geometry_16bit_bytes(const struct cache_geometry *g, uint64_t bytes)
{
    uint64_t kept = 0, wide = 0;
    for (uint32_t i = 0; i < g->n_groups; i++) {
        const struct cache_group *c = &g->groups[i];
        uint64_t rows = (uint64_t)c->n_layers * c->n_heads;
        bool latent = c->kind == BATON__KV__CACHE_KIND__LATENT;
        if (!cache_group_has_blocks(c)) continue;
        kept += rows * cache_group_head_bytes(c, 1);
        wide += rows * (latent ? 2 * ((uint64_t)c->head_dim + c->rope_dim) : 4 * (uint64_t)c->head_dim);
    }
    return kept ? (uint64_t)((double)bytes * (double)wide / (double)kept + 0.5) : bytes;
}
