/* expert_stream.c - which experts a batch uses, their reads, and the product with those that came. */
#include "model/expert_stream.h"

#include "base/log.h"
#include "base/mem.h"
#include "formats/gguf.h"
#include "model/weight_pieces.h"

#define N_SLOTS  16 /* reads under way */
#define NOT_USED UINT32_MAX

struct expert_stream {
    const struct weights *w;
    struct backend *backend;
    struct io_reader *reader;
    struct weight_pieces pieces; /* of all stacks; a stack's matrices have as many each */
    uint32_t *first;             /* [n_items] a stack's first piece */
    uint8_t *packed;             /* device: the used matrices of one stack, side by side */
    size_t packed_bytes;

    uint32_t *place, *used; /* [max_experts] where a matrix lies in `packed`, or NOT_USED; those that are used */
    uint32_t n_used, max_experts;
    uint32_t *slots;  /* host, [cap] the route */
    uint32_t *device; /* the same, with places in place of experts */
    size_t cap;
};

static void cut_stacks(struct weight_pieces *ps, uint32_t *first, const struct weights *w)
{
    for (uint32_t i = 0; i < w->n_items; i++) {
        if (w->items[i].n_experts == 0) continue;
        if (first) first[i] = ps->n;
        weight_pieces_add(ps, &w->items[i], w->backend->caps.row_quantum);
    }
}

static size_t largest_stack(const struct weights *w, uint32_t *max_experts)
{
    size_t bytes = 0;
    *max_experts = 0;
    for (uint32_t i = 0; i < w->n_items; i++) {
        const struct weight_item *it = &w->items[i];
        if (it->n_experts == 0) continue;
        if (it->bytes > bytes) bytes = it->bytes;
        if (it->n_experts > *max_experts) *max_experts = it->n_experts;
    }
    return bytes;
}

uint64_t expert_stream_bytes(const struct weights *w)
{
    struct weight_pieces ps = { 0 };
    uint32_t max_experts;
    cut_stacks(&ps, NULL, w);
    const uint64_t bytes = ps.n ? io_reader_bytes(N_SLOTS, ps.max_bytes) + largest_stack(w, &max_experts) : 0;
    weight_pieces_fini(&ps);
    return bytes;
}

enum status expert_stream_create(struct expert_stream **out, const struct weights *w, const struct io_options *io,
                                 struct error *err)
{
    struct io_options opt = *io;
    void *packed = NULL;
    if (!weights_stack(w)) return OK;
    struct expert_stream *s = mem_zalloc(sizeof(*s));
    s->w = w;
    s->backend = w->backend;
    s->first = mem_array(w->n_items, sizeof(*s->first));
    cut_stacks(&s->pieces, s->first, w);
    s->packed_bytes = largest_stack(w, &s->max_experts);
    s->place = mem_array(s->max_experts, sizeof(*s->place));
    s->used = mem_array(s->max_experts, sizeof(*s->used));
    for (uint32_t e = 0; e < s->max_experts; e++) s->place[e] = NOT_USED;
    opt.fds = gguf_fds(w->g);
    opt.n_files = gguf_n_parts(w->g);
    opt.n_slots = N_SLOTS;
    opt.slot_bytes = s->pieces.max_bytes;
    enum status st = io_reader_create(&s->reader, &opt, err);
    if (st == OK && (st = s->backend->ops->alloc(s->backend, s->packed_bytes, &packed)) != OK)
        error_set(err, st, "the experts of a layer need %zu bytes", s->packed_bytes);
    s->packed = packed;
    if (st == OK)
        *out = s;
    else
        expert_stream_destroy(s);
    return st;
}

void expert_stream_destroy(struct expert_stream *s)
{
    if (!s) return;
    io_reader_destroy(s->reader);
    if (s->packed) s->backend->ops->release(s->backend, s->packed, s->packed_bytes);
    if (s->device) s->backend->ops->release(s->backend, s->device, s->cap * sizeof(*s->device));
    weight_pieces_fini(&s->pieces);
    mem_free(s->first);
    mem_free(s->place);
    mem_free(s->used);
    mem_free(s->slots);
    mem_free(s);
}

/* Room for a route of n slots; grows with the largest batch. */
static enum status make_room(struct expert_stream *s, size_t n)
{
    void *device = NULL;
    if (n <= s->cap) return OK;
    enum status st = s->backend->ops->alloc(s->backend, n * sizeof(*s->device), &device);
    if (st != OK) return st;
    if (s->device) s->backend->ops->release(s->backend, s->device, s->cap * sizeof(*s->device));
    s->device = device;
    s->slots = mem_resize(s->slots, n, sizeof(*s->slots));
    s->cap = n;
    return OK;
}

/* Places of the experts that the route names, in ascending order of experts; the route is rewritten to them. */
static void place_used(struct expert_stream *s, size_t n_slots)
{
    for (size_t i = 0; i < n_slots; i++) s->place[s->slots[i]] = 0;
    s->n_used = 0;
    for (uint32_t e = 0; e < s->max_experts; e++) {
        if (s->place[e] == NOT_USED) continue;
        s->place[e] = s->n_used;
        s->used[s->n_used++] = e;
    }
    for (size_t i = 0; i < n_slots; i++) s->slots[i] = s->place[s->slots[i]];
}

static void forget_used(struct expert_stream *s)
{
    for (uint32_t i = 0; i < s->n_used; i++) s->place[s->used[i]] = NOT_USED;
}

/* The i-th piece of the used matrices, which have `each` pieces. */
static const struct weight_piece *piece_of(const struct expert_stream *s, uint32_t first, uint32_t each, uint32_t i)
{
    return &s->pieces.at[first + s->used[i / each] * each + i % each];
}

static void start(struct expert_stream *s, const struct weight_piece *p, uint32_t i)
{
    io_reader_start(s->reader, i % N_SLOTS, p->src->part, p->offset, p->bytes);
}

/* The i-th piece, which has been read, to its place; its slot is free then. */
static enum status pack(struct expert_stream *s, struct stream *on, const struct weight_piece *p, uint32_t place,
                        const uint8_t *src)
{
    const size_t stride = p->item->expert_bytes;
    uint8_t *dst = s->packed + place * stride + weight_piece_place(s->backend, p) % stride;
    enum status st = weight_piece_pack(s->backend, on, p, src, dst);
    return st == OK ? s->backend->ops->sync(s->backend, on) : st;
}

/* Reads and packs the used matrices; whatever fails, no read stays under way. */
static enum status bring(struct expert_stream *s, struct stream *on, uint32_t first, uint32_t each)
{
    const uint32_t n = s->n_used * each;
    struct error err = { 0 };
    enum status st = OK;
    uint32_t started = 0;
    for (; started < n && started < N_SLOTS; started++) start(s, piece_of(s, first, each, started), started);
    for (uint32_t i = 0; i < started; i++) {
        const struct weight_piece *p = piece_of(s, first, each, i);
        const uint8_t *src;
        enum status read = io_reader_wait(s->reader, i % N_SLOTS, &src, st == OK ? &err : NULL);
        if (st != OK) continue;
        st = read == OK ? pack(s, on, p, i / each, src) : read;
        if (st != OK)
            log_error("weights_read_failed", "tensor=%s reason=%s", p->src->name,
                      log_quote(err.text[0] ? err.text : status_text(st)));
        if (st != OK || started == n) continue;
        start(s, piece_of(s, first, each, started), started);
        started++;
    }
    return st;
}

/* The host's copy of which expert each slot goes to. */
static enum status read_route(struct expert_stream *s, struct stream *on, const struct route *route)
{
    const size_t n = (size_t)route->n * route->k;
    const struct backend_ops *ops = s->backend->ops;
    enum status st = make_room(s, n);
    if (st == OK) st = ops->download(s->backend, on, s->slots, route->expert, n * sizeof(*s->slots));
    return st == OK ? ops->sync(s->backend, on) : st;
}

enum status expert_stream_matmul(struct expert_stream *s, struct stream *on, float *y, size_t ld,
                                 const struct weight *w, const struct act *x, const struct route *route, bool x_by_slot)
{
    const struct backend_ops *ops = s->backend->ops;
    const struct weight_item *item = &s->w->items[w->item];
    const size_t n = (size_t)route->n * route->k;
    const uint32_t first = s->first[w->item];
    uint32_t each = 0;
    while (first + each < s->pieces.n && s->pieces.at[first + each].item == item) each++;
    each /= item->n_experts;
    enum status st = read_route(s, on, route);
    if (st != OK) return st;
    place_used(s, n);
    st = bring(s, on, first, each);
    if (st == OK) st = ops->upload(s->backend, on, s->device, s->slots, n * sizeof(*s->slots));
    struct weight brought = *w;
    brought.data = s->packed;
    brought.n_experts = s->n_used;
    const struct route places = { s->device, route->weight, route->n, route->k };
    if (st == OK) st = ops->expert_matmul(s->backend, on, y, ld, &brought, x, &places, x_by_slot);
    if (st == OK) st = ops->sync(s->backend, on); /* the packed ones are written over next */
    forget_used(s);
    return st;
}
