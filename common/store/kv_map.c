/* kv_map.c - cuts ranges of the whole model's cache into pieces of its ranks. */
#include "store/kv_map.h"

#include "base/mem.h"
#include "store/state_store.h"

#include <pthread.h>

struct rank {
    const struct kv_store *store; /* borrowed */
    struct backend *backend;      /* borrowed; outlives the store */
    struct mesh_part part;
};

/* What one caller has to itself while it moves a frame: a stream of each rank's backend, so that nobody waits for the
 * steps that are computed meanwhile, nor for another caller's frame; and the list of pieces. */
struct way {
    struct way *next;
    uint32_t n;
    struct kv_piece pieces[KV_MAP_PIECES];
    struct stream *streams[]; /* [n_ranks] */
};

/* There are as many as callers have been inside at once. */
struct ways {
    pthread_mutex_t lock;
    struct way *free; /* guarded by lock */
};

struct kv_map {
    struct mesh mesh;
    struct kv_geometry *layers; /* owned: of the whole model */
    uint32_t n_blocks, n_window_blocks;
    uint32_t n_slots; /* for recurrent states */
    uint32_t n_ranks;
    struct ways *ways; /* owned */
    struct rank ranks[];
};

/* Heads that a rank holds of a layer: latents, which all query heads read, lie whole on each rank.  A layer may have
 * fewer heads than the mesh where one rank has them all. */
static struct shard heads_of(uint32_t tp, const struct rank *rank, const struct kv_geometry *whole, bool own)
{
    const struct mesh_part *part = &rank->part;
    if (whole->kind == KV_LATENT) return (struct shard){ 0, own && part->heads.begin > 0 ? 0 : 1 };
    if (tp == 1 && whole->n_kv_heads < part->kv_heads.end) return (struct shard){ 0, whole->n_kv_heads };
    return own ? part->own_kv_heads : part->kv_heads;
}

/* What the rank says of a layer, as others hear of it.  A rank's layer without heads has no blocks. */
static struct kv_geometry whole_of(const struct kv_map *map, const struct kv_slices *s)
{
    const struct kv_geometry *g = &s->geom;
    struct kv_geometry whole = *g;
    if (!s->windowed) whole.window = 0; /* it keeps all tokens */
    if (g->n_kv_heads > 0 && g->kind == KV_HEADS && map->mesh.tp > 1) whole.n_kv_heads = map->mesh.n_kv_heads;
    return whole;
}

static bool same_geometry(const struct kv_geometry *a, const struct kv_geometry *b)
{
    return a->n_kv_heads == b->n_kv_heads && a->head_dim == b->head_dim && a->format == b->format &&
           a->rotate == b->rotate && a->kind == b->kind && a->rope_dim == b->rope_dim && a->window == b->window;
}

/* The first rank that has a layer says what it is; the others of its stage have to agree. */
static enum status take_layer(struct kv_map *map, uint32_t idx, uint32_t l, struct error *err)
{
    const struct rank *rank = &map->ranks[idx];
    const struct kv_geometry whole = whole_of(map, &rank->store->layers[l]);
    const uint32_t n = rank->store->layers[l].geom.n_kv_heads, layer = rank->part.layers.begin + l;
    const struct shard heads = heads_of(map->mesh.tp, rank, &whole, false);
    if (n > 0 && n != heads.end - heads.begin)
        return error_set(err, ERR_INVALID, "rank %u has %u kv heads in its layer %u, it should be %u", idx, n, l,
                         heads.end - heads.begin);
    if (rank->part.heads.begin == 0) map->layers[layer] = whole;
    if (same_geometry(&map->layers[layer], &whole)) return OK;
    return error_set(err, ERR_INVALID, "rank %u has another geometry of kv heads in its layer %u than rank 0", idx, l);
}

static enum status take_rank(struct kv_map *map, uint32_t idx, struct error *err)
{
    const struct rank *rank = &map->ranks[idx];
    const struct kv_store *kv = rank->store;
    const uint32_t n_layers = rank->part.layers.end - rank->part.layers.begin;
    const uint32_t n_slots = kv->states ? kv->states->n_slots : 0, n_windows = kv->n_window_blocks;
    enum status st = OK;
    if (kv->n_layers != n_layers || kv->n_blocks != map->n_blocks)
        return error_set(err, ERR_INVALID, "rank %u has KV memory of %u layers and %u blocks, it should be %u and %u",
                         idx, kv->n_layers, kv->n_blocks, n_layers, map->n_blocks);
    if (n_slots > 0 && map->mesh.tp > 1)
        return error_set(err, ERR_UNSUPPORTED, "recurrent states on %u ranks of a stage: one is supported",
                         map->mesh.tp);
    if (n_slots > 0 && map->n_slots > 0 && n_slots != map->n_slots)
        return error_set(err, ERR_INVALID, "rank %u has %u slots for recurrent states, others have %u", idx, n_slots,
                         map->n_slots);
    if (n_slots > 0) map->n_slots = n_slots;
    if (n_windows > 0 && map->n_window_blocks > 0 && n_windows != map->n_window_blocks)
        return error_set(err, ERR_INVALID, "rank %u has %u blocks of layers with a window, others have %u", idx,
                         n_windows, map->n_window_blocks);
    if (n_windows > 0) map->n_window_blocks = n_windows;
    for (uint32_t l = 0; l < n_layers && st == OK; l++) st = take_layer(map, idx, l, err);
    return st;
}

enum status kv_map_create(struct kv_map **out, const struct mesh *mesh, struct kv_store *const *stores,
                          struct error *err)
{
    enum status st = mesh_check(mesh, err);
    if (st != OK) return st;
    const uint32_t n = mesh_n_ranks(mesh);
    struct kv_map *map = mem_zalloc(sizeof(*map) + n * sizeof(struct rank));
    map->mesh = *mesh;
    map->n_ranks = n;
    map->layers = mem_array(mesh->n_layers, sizeof(*map->layers));
    map->n_blocks = stores[0]->n_blocks;
    map->ways = mem_zalloc(sizeof(*map->ways));
    pthread_mutex_init(&map->ways->lock, NULL);
    for (uint32_t i = 0; i < n && st == OK; i++) {
        map->ranks[i] = (struct rank){ stores[i], stores[i]->backend, mesh_part(mesh, i) };
        st = take_rank(map, i, err);
    }
    if (st != OK) {
        kv_map_destroy(map);
        return st;
    }
    *out = map;
    return OK;
}

/* ---- ways ---- */

static void way_close(const struct kv_map *map, struct way *w)
{
    for (uint32_t i = 0; i < map->n_ranks; i++) {
        struct backend *be = map->ranks[i].backend;
        if (w->streams[i]) be->ops->stream_close(be, w->streams[i]);
    }
    mem_free(w);
}

static enum status way_open(const struct kv_map *map, struct way **out)
{
    struct way *w = mem_zalloc(sizeof(*w) + map->n_ranks * sizeof(struct stream *));
    for (uint32_t i = 0; i < map->n_ranks; i++) {
        struct backend *be = map->ranks[i].backend;
        enum status st = be->ops->stream_open(be, &w->streams[i]);
        if (st != OK) {
            way_close(map, w);
            return st;
        }
    }
    *out = w;
    return OK;
}

static enum status way_take(const struct kv_map *map, struct way **out)
{
    pthread_mutex_lock(&map->ways->lock);
    struct way *w = map->ways->free;
    if (w) map->ways->free = w->next;
    pthread_mutex_unlock(&map->ways->lock);
    *out = w;
    return w ? OK : way_open(map, out);
}

static void way_give_back(const struct kv_map *map, struct way *w)
{
    pthread_mutex_lock(&map->ways->lock);
    w->next = map->ways->free;
    map->ways->free = w;
    pthread_mutex_unlock(&map->ways->lock);
}

void kv_map_destroy(struct kv_map *map)
{
    if (!map) return;
    for (struct way *w = map->ways->free, *next; w; w = next) {
        next = w->next;
        way_close(map, w);
    }
    pthread_mutex_destroy(&map->ways->lock);
    mem_free(map->ways);
    mem_free(map->layers);
    mem_free(map);
}

const struct mesh *kv_map_mesh(const struct kv_map *map)
{
    return &map->mesh;
}

struct kv_geometry kv_map_geometry(const struct kv_map *map, uint32_t layer)
{
    return map->layers[layer];
}

struct backend *kv_map_backend(const struct kv_map *map)
{
    return map->ranks[0].backend;
}

/* ---- a frame ---- */

struct frame {
    const struct kv_map *map;
    struct way *way;
    uint32_t rank; /* whose pieces are on the list */
    const struct kv_range *range;
    const kv_block_id *blocks;
    uint32_t n_tokens;
    struct row {
        uint32_t values, scales; /* bytes of a token's */
    } rows[2];                   /* of one head: K, then V; each has the values of all tokens, then their scales */
    uint8_t *to;                 /* packing, or NULL */
    const uint8_t *from;
};

/* Sends the pieces that are on the list to their rank's backend. */
static enum status move(const struct frame *f)
{
    const struct kv_slices *layers = f->map->ranks[f->rank].store->layers;
    struct backend *be = f->map->ranks[f->rank].backend;
    struct stream *stream = f->way->streams[f->rank];
    const uint32_t n = f->way->n;
    f->way->n = 0;
    if (n == 0) return OK;
    if (f->to) return be->ops->kv_pack(be, stream, layers, f->way->pieces, n, f->to);
    return be->ops->kv_unpack(be, stream, layers, f->way->pieces, n, f->from);
}

static uint32_t row_bytes(const struct frame *f, bool is_v)
{
    return f->n_tokens * (f->rows[is_v].values + f->rows[is_v].scales);
}

/* K or V of one head, which begins at byte `at` of the frame: a piece per block. */
static enum status add_row(const struct frame *f, struct kv_piece piece, uint32_t at)
{
    const struct row *row = &f->rows[piece.is_v];
    const uint32_t scales = at + f->n_tokens * row->values;
    for (uint32_t t = 0; t < f->n_tokens; t += KV_BLOCK_TOKENS) {
        enum status st = f->way->n == KV_MAP_PIECES ? move(f) : OK;
        if (st != OK) return st;
        piece.block = f->blocks[t / KV_BLOCK_TOKENS];
        piece.t1 = f->n_tokens - t < KV_BLOCK_TOKENS ? f->n_tokens - t : KV_BLOCK_TOKENS;
        piece.values = at + t * row->values;
        piece.scales = scales + t * row->scales;
        f->way->pieces[f->way->n++] = piece;
    }
    return OK;
}

static struct shard both(struct shard s, uint32_t begin, uint32_t end)
{
    return (struct shard){ s.begin > begin ? s.begin : begin, s.end < end ? s.end : end };
}

static uint32_t layer_of(const struct kv_range *r, uint32_t i)
{
    return r->layers ? r->layers[i] : i;
}

/* What the rank has of the frame in the range's layer i: `heads` of those that it holds. */
static enum status add_layer(const struct frame *f, uint32_t i, struct shard heads, uint32_t first_held)
{
    const struct kv_range *r = f->range;
    const uint32_t k = row_bytes(f, false), head = k + row_bytes(f, true);
    struct kv_piece piece = { .layer = layer_of(r, i) - f->map->ranks[f->rank].part.layers.begin };
    enum status st = OK;
    for (uint32_t h = heads.begin; h < heads.end && st == OK; h++) {
        const uint32_t at = ((i - r->l0) * (r->h1 - r->h0) + (h - r->h0)) * head;
        piece.head = h - first_held;
        piece.is_v = false;
        if ((st = add_row(f, piece, at)) != OK) return st;
        piece.is_v = true;
        if (f->rows[1].values > 0) st = add_row(f, piece, at + k);
    }
    return st;
}

/* What the rank has of the frame.  Packing: heads that it owns.  Unpacking: all that it holds. */
static enum status move_rank(const struct frame *f)
{
    const struct kv_range *r = f->range;
    const struct rank *rank = &f->map->ranks[f->rank];
    const uint32_t tp = f->map->mesh.tp;
    f->way->n = 0;
    for (uint32_t i = r->l0; i < r->l1; i++) {
        const uint32_t layer = layer_of(r, i);
        const struct kv_geometry *whole = &f->map->layers[layer];
        if (layer < rank->part.layers.begin || layer >= rank->part.layers.end) continue;
        const struct shard hs = both(heads_of(tp, rank, whole, f->to != NULL), r->h0, r->h1);
        enum status st = add_layer(f, i, hs, heads_of(tp, rank, whole, false).begin);
        if (st != OK) return st;
    }
    return move(f);
}

static enum status move_all(struct frame *f)
{
    const struct kv_map *map = f->map;
    enum status st = way_take(map, &f->way);
    if (st != OK) return st;
    for (f->rank = 0; f->rank < map->n_ranks && st == OK; f->rank++) st = move_rank(f);
    way_give_back(map, f->way);
    return st;
}

/* Bytes on the wire of one (layer, head): K and V of n tokens. */
static uint64_t head_bytes(const struct kv_geometry *g, uint64_t n)
{
    uint64_t token = 0;
    for (int v = 0; v < 2; v++) token += kv_value_bytes(g, v) + kv_scale_bytes(g, v);
    return n * token;
}

static bool are_layers_there(const struct kv_map *map, const struct kv_range *r)
{
    if (r->l0 >= r->l1 || r->l1 > map->mesh.n_layers) return false;
    for (uint32_t i = r->l0; i < r->l1; i++) {
        const uint32_t l = layer_of(r, i);
        if (l >= map->mesh.n_layers || !same_geometry(&map->layers[l], &map->layers[layer_of(r, r->l0)])) return false;
    }
    return true;
}

static bool is_there(const struct kv_map *map, const struct kv_range *r, const kv_block_id *blocks)
{
    if (!are_layers_there(map, r)) return false;
    const struct kv_geometry *g = &map->layers[layer_of(r, r->l0)];
    if (r->h0 >= r->h1 || r->h1 > g->n_kv_heads) return false;
    if (r->t0 >= r->t1 || r->t0 % KV_BLOCK_TOKENS) return false;
    /* pieces count bytes in 32 bits */
    if (head_bytes(g, r->t1 - r->t0) > UINT32_MAX / (r->l1 - r->l0) / (r->h1 - r->h0)) return false;
    const uint32_t n_blocks = g->window > 0 ? map->n_window_blocks : map->n_blocks;
    for (uint32_t t = r->t0; t < r->t1; t += KV_BLOCK_TOKENS)
        if (blocks[(t - r->t0) / KV_BLOCK_TOKENS] >= n_blocks) return false;
    return true;
}

static struct frame frame_of(const struct kv_map *map, const struct kv_range *r, const kv_block_id *blocks)
{
    const struct kv_geometry *g = &map->layers[layer_of(r, r->l0)];
    struct frame f = { .map = map, .range = r, .blocks = blocks, .n_tokens = r->t1 - r->t0 };
    for (int v = 0; v < 2; v++) f.rows[v] = (struct row){ kv_value_bytes(g, v), kv_scale_bytes(g, v) };
    return f;
}

enum status kv_map_pack(const struct kv_map *map, const struct kv_range *r, const kv_block_id *blocks, uint8_t *wire)
{
    if (!is_there(map, r, blocks)) return ERR_INVALID;
    struct frame f = frame_of(map, r, blocks);
    f.to = wire;
    return move_all(&f);
}

enum status kv_map_unpack(const struct kv_map *map, const struct kv_range *r, const kv_block_id *blocks,
                          const uint8_t *wire)
{
    if (!is_there(map, r, blocks)) return ERR_INVALID;
    struct frame f = frame_of(map, r, blocks);
    f.from = wire;
    return move_all(&f);
}

/* ---- states ---- */

/* The rank that has a layer's states, and its own number of the layer; NULL: the layer has none of that part. */
static const struct rank *rank_of_state(const struct kv_map *map, uint32_t layer, uint32_t part, uint32_t *local)
{
    for (uint32_t i = 0; i < map->n_ranks; i++) {
        const struct rank *rank = &map->ranks[i];
        if (layer < rank->part.layers.begin || layer >= rank->part.layers.end) continue;
        *local = layer - rank->part.layers.begin;
        if (!rank->store->states || part >= STATE_PARTS) return NULL;
        return rank->store->states->layers[*local].parts[part].geom.n_heads > 0 ? rank : NULL;
    }
    return NULL;
}

struct state_geometry kv_map_state_geometry(const struct kv_map *map, uint32_t layer, uint32_t part)
{
    uint32_t local;
    const struct rank *rank = rank_of_state(map, layer, part, &local);
    return rank ? rank->store->states->layers[local].parts[part].geom : (struct state_geometry){ 0 };
}

uint32_t kv_map_n_slots(const struct kv_map *map)
{
    return map->n_slots;
}

/* One of `to` and `from` is NULL. */
static enum status move_state(const struct kv_map *map, const struct kv_state_range *r, state_slot_id slot, uint8_t *to,
                              const uint8_t *from)
{
    uint32_t local;
    const struct rank *rank = rank_of_state(map, r->layer, r->part, &local);
    struct way *way;
    enum status st;
    if (!rank || slot >= map->n_slots) return ERR_INVALID;
    const struct state_slices *s = &rank->store->states->layers[local].parts[r->part];
    struct backend *be = rank->backend;
    if ((st = way_take(map, &way)) != OK) return st;
    struct stream *stream = way->streams[rank - map->ranks];
    st = to ? be->ops->state_pack(be, stream, s, slot, r->h0, r->h1, to)
            : be->ops->state_unpack(be, stream, s, slot, r->h0, r->h1, from);
    way_give_back(map, way);
    return st;
}

enum status kv_map_pack_state(const struct kv_map *map, const struct kv_state_range *r, state_slot_id slot,
                              uint8_t *wire)
{
    return move_state(map, r, slot, wire, NULL);
}

enum status kv_map_unpack_state(const struct kv_map *map, const struct kv_state_range *r, state_slot_id slot,
                                const uint8_t *wire)
{
    return move_state(map, r, slot, NULL, wire);
}
