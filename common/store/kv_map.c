/* kv_map.c - cuts ranges of the whole model's cache into pieces of its ranks. */
#include "store/kv_map.h"

#include "base/mem.h"

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
    struct kv_geometry geom; /* of the whole model */
    uint32_t n_blocks;
    uint32_t n_ranks;
    struct ways *ways; /* owned */
    struct rank ranks[];
};

static enum status check_rank(const struct kv_map *map, uint32_t idx, struct error *err)
{
    const struct rank *rank = &map->ranks[idx];
    const struct kv_store *kv = rank->store;
    const uint32_t n_layers = rank->part.layers.end - rank->part.layers.begin,
                   n_heads = rank->part.kv_heads.end - rank->part.kv_heads.begin;
    if (kv->n_layers != n_layers || kv->n_blocks != map->n_blocks)
        return error_set(err, ERR_INVALID, "rank %u has KV memory of %u layers and %u blocks, it should be %u and %u",
                         idx, kv->n_layers, kv->n_blocks, n_layers, map->n_blocks);
    for (uint32_t l = 0; l < n_layers; l++) {
        const struct kv_geometry *g = &kv->layers[l].geom;
        if (g->n_kv_heads != n_heads)
            return error_set(err, ERR_INVALID, "rank %u has %u kv heads in its layer %u, it should be %u", idx,
                             g->n_kv_heads, l, n_heads);
        if (g->head_dim != map->geom.head_dim || g->format != map->geom.format || g->rotate != map->geom.rotate)
            return error_set(err, ERR_INVALID, "rank %u has another geometry of kv heads in its layer %u than rank 0",
                             idx, l);
    }
    return OK;
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
    map->geom = stores[0]->layers[0].geom;
    map->geom.n_kv_heads = mesh->n_kv_heads;
    map->n_blocks = stores[0]->n_blocks;
    map->ways = mem_zalloc(sizeof(*map->ways));
    pthread_mutex_init(&map->ways->lock, NULL);
    for (uint32_t i = 0; i < n && st == OK; i++) {
        map->ranks[i] = (struct rank){ stores[i], stores[i]->backend, mesh_part(mesh, i) };
        st = check_rank(map, i, err);
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
    mem_free(map);
}

const struct mesh *kv_map_mesh(const struct kv_map *map)
{
    return &map->mesh;
}

struct kv_geometry kv_map_geometry(const struct kv_map *map)
{
    return map->geom;
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
    uint32_t n_tokens, value_bytes; /* of a token's K or V */
    uint32_t row_bytes;             /* K or V of one head: values of all tokens, then their scales */
    uint8_t *to;                    /* packing, or NULL */
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

/* K or V of one head, which begins at byte `at` of the frame: a piece per block. */
static enum status add_row(const struct frame *f, struct kv_piece piece, uint32_t at)
{
    const uint32_t scales = at + f->n_tokens * f->value_bytes;
    for (uint32_t t = 0; t < f->n_tokens; t += KV_BLOCK_TOKENS) {
        enum status st = f->way->n == KV_MAP_PIECES ? move(f) : OK;
        if (st != OK) return st;
        piece.block = f->blocks[t / KV_BLOCK_TOKENS];
        piece.t1 = f->n_tokens - t < KV_BLOCK_TOKENS ? f->n_tokens - t : KV_BLOCK_TOKENS;
        piece.values = at + t * f->value_bytes;
        piece.scales = scales + t * (uint32_t)sizeof(float);
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

/* What the rank has of the frame: these heads of its layers. */
static enum status move_rank(const struct frame *f, struct shard heads)
{
    const struct kv_range *r = f->range;
    const struct mesh_part *part = &f->map->ranks[f->rank].part;
    const struct shard hs = both(heads, r->h0, r->h1);
    f->way->n = 0;
    for (uint32_t i = r->l0; i < r->l1; i++) {
        const uint32_t layer = layer_of(r, i);
        if (layer < part->layers.begin || layer >= part->layers.end) continue;
        for (uint32_t h = hs.begin; h < hs.end; h++)
            for (uint32_t v = 0; v < 2; v++) {
                const uint32_t row = ((i - r->l0) * (r->h1 - r->h0) + (h - r->h0)) * 2 + v;
                const struct kv_piece piece = { .layer = layer - part->layers.begin,
                                                .head = h - part->kv_heads.begin,
                                                .is_v = v };
                enum status st = add_row(f, piece, row * f->row_bytes);
                if (st != OK) return st;
            }
    }
    return move(f);
}

/* Packing: those that own a head.  Unpacking: all that hold it. */
static enum status move_all(struct frame *f)
{
    const struct kv_map *map = f->map;
    enum status st = way_take(map, &f->way);
    if (st != OK) return st;
    for (f->rank = 0; f->rank < map->n_ranks && st == OK; f->rank++) {
        const struct mesh_part *part = &map->ranks[f->rank].part;
        st = move_rank(f, f->to ? part->own_kv_heads : part->kv_heads);
    }
    way_give_back(map, f->way);
    return st;
}

static bool is_there(const struct kv_map *map, const struct kv_range *r, const kv_block_id *blocks)
{
    const uint64_t row = kv_wire_bytes(map->geom.format, map->geom.head_dim, r->t1 - r->t0);
    if (r->l0 >= r->l1 || r->l1 > map->mesh.n_layers) return false;
    for (uint32_t i = r->l0; i < r->l1; i++)
        if (layer_of(r, i) >= map->mesh.n_layers) return false;
    if (r->h0 >= r->h1 || r->h1 > map->mesh.n_kv_heads) return false;
    if (r->t0 >= r->t1 || r->t0 % KV_BLOCK_TOKENS) return false;
    if (row > UINT32_MAX / (r->l1 - r->l0) / (r->h1 - r->h0)) return false; /* pieces count bytes in 32 bits */
    for (uint32_t t = r->t0; t < r->t1; t += KV_BLOCK_TOKENS)
        if (blocks[(t - r->t0) / KV_BLOCK_TOKENS] >= map->n_blocks) return false;
    return true;
}

static struct frame frame_of(const struct kv_map *map, const struct kv_range *r, const kv_block_id *blocks)
{
    const struct kv_geometry *g = &map->geom;
    const uint32_t n = r->t1 - r->t0;
    return (struct frame){ .map = map,
                           .range = r,
                           .blocks = blocks,
                           .n_tokens = n,
                           .value_bytes = g->format == KV_INT8 ? g->head_dim : 2 * g->head_dim,
                           .row_bytes = (uint32_t)(kv_wire_bytes(g->format, g->head_dim, n) / 2) };
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
