/* kv_map.c - cuts ranges of the whole model's cache into pieces of its ranks. */
#include "store/kv_map.h"

#include "base/mem.h"
#include "parallel/ranks.h"
#include "store/head_map.h"
#include "store/state_store.h"

#include <pthread.h>

struct rank {
    const struct kv_store *store; /* borrowed */
    struct backend *backend;      /* borrowed; outlives the store */
    struct shard layers;
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

/* Of the whole model; ranks of the layer's stage share the heads. */
struct layer {
    struct kv_geometry geom;
    struct head_map heads;
    struct state_geometry states[STATE_PARTS];
    struct head_map state_heads[STATE_PARTS];
};

struct kv_map {
    struct mesh mesh;
    struct layer *layers; /* owned: [mesh.n_layers] */
    uint32_t n_blocks, n_window_blocks;
    uint32_t n_slots; /* for recurrent states */
    uint32_t n_ranks;
    struct ways *ways; /* owned */
    struct rank ranks[];
};

static bool same_geometry(const struct kv_geometry *a, const struct kv_geometry *b)
{
    return a->n_kv_heads == b->n_kv_heads && a->head_dim == b->head_dim && a->format == b->format &&
           a->rotate == b->rotate && a->kind == b->kind && a->rope_dim == b->rope_dim && a->window == b->window;
}

/* What the rank says of a layer, as others hear of it. */
static struct kv_geometry whole_of(const struct kv_slices *s, const struct held *held)
{
    struct kv_geometry whole = s->geom;
    if (!s->windowed) whole.window = 0; /* it keeps all tokens */
    whole.n_kv_heads = held->n_heads;
    return whole;
}

/* Members of a stage agree on what a layer is, and share its heads. */
static enum status take_heads(struct kv_map *map, uint32_t rank0, uint32_t l, struct layer *out, struct error *err)
{
    const struct held *held[RANKS_MAX_TP];
    for (uint32_t i = 0; i < map->mesh.tp; i++) {
        const struct kv_store *kv = map->ranks[rank0 + i].store;
        held[i] = &kv->held[l];
        if (kv->layers[l].geom.n_kv_heads != held_n(held[i]))
            return error_set(err, ERR_INVALID, "rank %u has %u kv heads in its layer %u, it should be %u", rank0 + i,
                             kv->layers[l].geom.n_kv_heads, l, held_n(held[i]));
        const struct kv_geometry whole = whole_of(&kv->layers[l], held[i]);
        if (i == 0) out->geom = whole;
        if (!same_geometry(&out->geom, &whole))
            return error_set(err, ERR_INVALID, "rank %u has another geometry of kv heads in its layer %u than rank %u",
                             rank0 + i, l, rank0);
    }
    return head_map_make(&out->heads, rank0, map->mesh.tp, held, err);
}

static enum status take_states(struct kv_map *map, uint32_t rank0, uint32_t l, uint32_t part, struct layer *out,
                               struct error *err)
{
    const struct held *held[RANKS_MAX_TP];
    struct state_geometry *whole = &out->states[part];
    for (uint32_t i = 0; i < map->mesh.tp; i++) {
        const struct state_layer *states = &map->ranks[rank0 + i].store->states->layers[l];
        const struct state_geometry *g = &states->parts[part].geom;
        held[i] = &states->held[part];
        if (i == 0) *whole = (struct state_geometry){ held[i]->n_heads, g->rows, g->cols };
        if (g->n_heads != held_n(held[i]) || g->rows != whole->rows || g->cols != whole->cols)
            return error_set(err, ERR_INVALID,
                             "rank %u has states of %u heads of %u x %u in its layer %u, it should "
                             "be %u of %u x %u",
                             rank0 + i, g->n_heads, g->rows, g->cols, l, held_n(held[i]), whole->rows, whole->cols);
    }
    return head_map_make(&out->state_heads[part], rank0, map->mesh.tp, held, err);
}

/* All layers of a stage, whose first member is rank0. */
static enum status take_stage(struct kv_map *map, uint32_t rank0, struct error *err)
{
    const struct rank *first = &map->ranks[rank0];
    enum status st = OK;
    for (uint32_t l = 0; l < shard_n(first->layers) && st == OK; l++) {
        struct layer *out = &map->layers[first->layers.begin + l];
        st = take_heads(map, rank0, l, out, err);
        for (uint32_t p = 0; p < STATE_PARTS && first->store->states && st == OK; p++)
            st = take_states(map, rank0, l, p, out, err);
    }
    return st;
}

static enum status take_rank(struct kv_map *map, uint32_t idx, struct error *err)
{
    const struct rank *rank = &map->ranks[idx];
    const struct kv_store *kv = rank->store, *first = map->ranks[idx - idx % map->mesh.tp].store;
    const uint32_t n_layers = shard_n(rank->layers);
    const uint32_t n_slots = kv->states ? kv->states->n_slots : 0, n_windows = kv->n_window_blocks;
    if (kv->n_layers != n_layers || kv->n_blocks != map->n_blocks)
        return error_set(err, ERR_INVALID, "rank %u has KV memory of %u layers and %u blocks, it should be %u and %u",
                         idx, kv->n_layers, kv->n_blocks, n_layers, map->n_blocks);
    if (!kv->states != !first->states)
        return error_set(err, ERR_INVALID, "rank %u has %u slots for recurrent states, the first of its stage has %u",
                         idx, n_slots, first->states ? first->states->n_slots : 0);
    if (n_slots > 0 && map->n_slots > 0 && n_slots != map->n_slots)
        return error_set(err, ERR_INVALID, "rank %u has %u slots for recurrent states, others have %u", idx, n_slots,
                         map->n_slots);
    if (n_slots > 0) map->n_slots = n_slots;
    if (n_windows > 0 && map->n_window_blocks > 0 && n_windows != map->n_window_blocks)
        return error_set(err, ERR_INVALID, "rank %u has %u blocks of layers with a window, others have %u", idx,
                         n_windows, map->n_window_blocks);
    if (n_windows > 0) map->n_window_blocks = n_windows;
    return OK;
}

static enum status take_all(struct kv_map *map, struct error *err)
{
    enum status st = OK;
    for (uint32_t i = 0; i < map->n_ranks && st == OK; i++) st = take_rank(map, i, err);
    for (uint32_t i = 0; i < map->n_ranks && st == OK; i += map->mesh.tp) st = take_stage(map, i, err);
    return st;
}

enum status kv_map_create(struct kv_map **out, const struct mesh *mesh, struct kv_store *const *stores,
                          struct error *err)
{
    enum status st = mesh_check(mesh, err);
    if (st != OK) return st;
    if (mesh->tp > RANKS_MAX_TP) return error_set(err, ERR_INVALID, "tp is %u, at most %d", mesh->tp, RANKS_MAX_TP);
    const uint32_t n = mesh_n_ranks(mesh);
    struct kv_map *map = mem_zalloc(sizeof(*map) + n * sizeof(struct rank));
    map->mesh = *mesh;
    map->n_ranks = n;
    map->layers = mem_array(mesh->n_layers, sizeof(*map->layers));
    map->n_blocks = stores[0]->n_blocks;
    map->ways = mem_zalloc(sizeof(*map->ways));
    pthread_mutex_init(&map->ways->lock, NULL);
    for (uint32_t i = 0; i < n; i++)
        map->ranks[i] = (struct rank){ stores[i], stores[i]->backend, mesh_layers(mesh, i) };
    if ((st = take_all(map, err)) != OK) {
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
    for (uint32_t l = 0; l < map->mesh.n_layers; l++) {
        head_map_fini(&map->layers[l].heads);
        for (int p = 0; p < STATE_PARTS; p++) head_map_fini(&map->layers[l].state_heads[p]);
    }
    mem_free(map->layers);
    mem_free(map);
}

const struct mesh *kv_map_mesh(const struct kv_map *map)
{
    return &map->mesh;
}

struct kv_geometry kv_map_geometry(const struct kv_map *map, uint32_t layer)
{
    return map->layers[layer].geom;
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

/* What the rank has of the frame in the range's layer i, in one span of its heads. */
static enum status add_span(const struct frame *f, uint32_t i, const struct head_span *span)
{
    const struct kv_range *r = f->range;
    const struct shard heads = both((struct shard){ span->head, span->head + span->n }, r->h0, r->h1);
    const uint32_t k = row_bytes(f, false), head = k + row_bytes(f, true);
    struct kv_piece piece = { .layer = layer_of(r, i) - f->map->ranks[f->rank].layers.begin };
    enum status st = OK;
    for (uint32_t h = heads.begin; h < heads.end && st == OK; h++) {
        const uint32_t at = ((i - r->l0) * (r->h1 - r->h0) + (h - r->h0)) * head;
        piece.head = span->local + (h - span->head);
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
    const struct shard own = f->map->ranks[f->rank].layers;
    f->way->n = 0;
    for (uint32_t i = r->l0; i < r->l1; i++) {
        const uint32_t layer = layer_of(r, i);
        const struct head_map *heads = &f->map->layers[layer].heads;
        if (layer < own.begin || layer >= own.end) continue;
        for (uint32_t k = 0; k < heads->n; k++) {
            const struct head_span *span = &heads->spans[k];
            if (span->rank != f->rank || (f->to && !span->owned)) continue;
            enum status st = add_span(f, i, span);
            if (st != OK) return st;
        }
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
        if (l >= map->mesh.n_layers || !same_geometry(&map->layers[l].geom, &map->layers[layer_of(r, r->l0)].geom))
            return false;
    }
    return true;
}

static bool is_there(const struct kv_map *map, const struct kv_range *r, const kv_block_id *blocks)
{
    if (!are_layers_there(map, r)) return false;
    const struct kv_geometry *g = &map->layers[layer_of(r, r->l0)].geom;
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
    const struct kv_geometry *g = &map->layers[layer_of(r, r->l0)].geom;
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

struct state_geometry kv_map_state_geometry(const struct kv_map *map, uint32_t layer, uint32_t part)
{
    if (layer >= map->mesh.n_layers || part >= STATE_PARTS) return (struct state_geometry){ 0 };
    return map->layers[layer].states[part];
}

uint32_t kv_map_n_slots(const struct kv_map *map)
{
    return map->n_slots;
}

/* What the range has of a rank's span.  One of `to` and `from` is NULL. */
static enum status move_span(const struct kv_map *map, const struct way *way, const struct kv_state_range *r,
                             const struct head_span *span, state_slot_id slot, uint8_t *to, const uint8_t *from)
{
    const struct rank *rank = &map->ranks[span->rank];
    const struct state_slices *s = &rank->store->states->layers[r->layer - rank->layers.begin].parts[r->part];
    const struct shard heads = both((struct shard){ span->head, span->head + span->n }, r->h0, r->h1);
    const size_t at = (heads.begin - r->h0) * state_wire_bytes(&s->geom);
    const uint32_t h0 = span->local + (heads.begin - span->head), h1 = h0 + shard_n(heads);
    struct backend *be = rank->backend;
    if (heads.begin >= heads.end) return OK;
    if (to) return be->ops->state_pack(be, way->streams[span->rank], s, slot, h0, h1, to + at);
    return be->ops->state_unpack(be, way->streams[span->rank], s, slot, h0, h1, from + at);
}

static enum status move_state(const struct kv_map *map, const struct kv_state_range *r, state_slot_id slot, uint8_t *to,
                              const uint8_t *from)
{
    struct way *way;
    if (slot >= map->n_slots || r->h0 >= r->h1) return ERR_INVALID;
    if (r->h1 > kv_map_state_geometry(map, r->layer, r->part).n_heads) return ERR_INVALID;
    const struct head_map *heads = &map->layers[r->layer].state_heads[r->part];
    enum status st = way_take(map, &way);
    if (st != OK) return st;
    for (uint32_t k = 0; k < heads->n && st == OK; k++)
        if (from || heads->spans[k].owned) st = move_span(map, way, r, &heads->spans[k], slot, to, from);
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
