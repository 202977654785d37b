/* weight_stream.c - the ring of reads that runs ahead of the products. */
#include "model/weight_stream.h"

#include "base/log.h"
#include "base/mem.h"
#include "formats/gguf.h"
#include "model/expert_stream.h"
#include "model/weight_pieces.h"

#include <assert.h>

#define N_SLOTS 24 /* reads that may be ahead, about 100 MB: a disk stays busy while attention computes */

struct weight_stream {
    const struct weights *w;
    struct backend *backend;
    struct io_reader *reader;
    struct weight_pieces pieces;
    uint32_t *first; /* [n_items + 1] of each item; the items in order of use */
    uint32_t head;   /* the output head's first piece, the last item */
    uint32_t queued[N_SLOTS];
    uint32_t slot, n_queued; /* oldest read, and how many are ahead */
    uint32_t next;           /* piece to read next */
    bool head_expected, head_used;
    void *packed; /* device: one piece */
    size_t packed_bytes;
};

static bool is_head(const struct weights *w, const struct weight_item *it)
{
    return it->matrix == &w->head;
}

/* Matrices in the order of a forward: the plan's, with the head last. */
static void cut_pieces(struct weight_pieces *ps, uint32_t *first, const struct weights *w)
{
    for (int head = 0; head <= 1; head++)
        for (uint32_t i = 0; i < w->n_items; i++) {
            if (w->items[i].is_vector || w->items[i].is_table || w->items[i].n_experts > 0) continue;
            if (is_head(w, &w->items[i]) != (head == 1)) continue;
            if (first) first[i] = ps->n;
            weight_pieces_add(ps, &w->items[i], w->backend->caps.row_quantum);
        }
}

static size_t packed_size(const struct weights *w, const struct weight_pieces *ps)
{
    size_t max = 0, bytes = 0;
    for (uint32_t i = 0; i < ps->n; i++) {
        const struct weight_piece *p = &ps->at[i];
        enum status st = w->backend->ops->weight_bytes(w->backend, p->item->dtype, p->n_rows, p->item->n_cols, &bytes);
        assert(st == OK); /* the plan has asked for the whole matrix */
        if (bytes > max) max = bytes;
    }
    return max;
}

uint64_t weight_stream_bytes(const struct weights *w)
{
    struct weight_pieces ps = { 0 };
    cut_pieces(&ps, NULL, w);
    uint64_t bytes = io_reader_bytes(N_SLOTS, ps.max_bytes) + packed_size(w, &ps) + expert_stream_bytes(w);
    for (uint32_t i = 0; i < w->n_items; i++)
        if (w->items[i].is_vector) bytes += w->items[i].bytes;
    weight_pieces_fini(&ps);
    return bytes;
}

enum status weight_stream_create(struct weight_stream **out, const struct weights *w, const struct io_options *io,
                                 struct error *err)
{
    struct io_options opt = *io;
    if (opt.kind == IO_MMAP || !gguf_fds(w->g))
        return error_set(err, ERR_INVALID, "weights cannot be streamed through a mapping: io is uring, pread or auto");
    struct weight_stream *s = mem_zalloc(sizeof(*s));
    enum status st;
    s->w = w;
    s->backend = w->backend;
    s->first = mem_array(w->n_items, sizeof(*s->first));
    cut_pieces(&s->pieces, s->first, w);
    for (uint32_t i = 0; i < w->n_items; i++)
        if (is_head(w, &w->items[i])) s->head = s->first[i];
    s->head_used = true;
    opt.fds = gguf_fds(w->g);
    opt.n_files = gguf_n_parts(w->g);
    opt.n_slots = N_SLOTS;
    opt.slot_bytes = s->pieces.max_bytes;
    s->packed_bytes = packed_size(w, &s->pieces);
    if ((st = io_reader_create(&s->reader, &opt, err)) != OK) goto fail;
    if ((st = s->backend->ops->alloc(s->backend, s->packed_bytes, &s->packed)) != OK) {
        error_set(err, st, "a packed piece needs %zu bytes", s->packed_bytes);
        goto fail;
    }
    log_info("weights_stream", "io=%s direct=%d ring_mib=%llu pieces=%u", io_reader_kind(s->reader),
             io_reader_is_direct(s->reader), (unsigned long long)(io_reader_bytes(N_SLOTS, s->pieces.max_bytes) >> 20),
             s->pieces.n);
    *out = s;
    return OK;
fail:
    weight_stream_destroy(s);
    return st;
}

void weight_stream_destroy(struct weight_stream *s)
{
    if (!s) return;
    io_reader_destroy(s->reader);
    if (s->packed) s->backend->ops->release(s->backend, s->packed, s->packed_bytes);
    weight_pieces_fini(&s->pieces);
    mem_free(s->first);
    mem_free(s);
}

static void read_ahead(struct weight_stream *s)
{
    for (; s->n_queued < N_SLOTS; s->n_queued++) {
        uint32_t slot = (s->slot + s->n_queued) % N_SLOTS;
        const struct weight_piece *p = &s->pieces.at[s->next];
        io_reader_start(s->reader, slot, p->src->part, p->offset, p->bytes);
        s->queued[slot] = s->next++;
        if (s->next == s->pieces.n || (s->next == s->head && !s->head_expected)) s->next = 0;
    }
}

static void pop(struct weight_stream *s)
{
    s->slot = (s->slot + 1) % N_SLOTS;
    s->n_queued--;
}

/* The oldest read is of `piece`: what was read ahead for another course is dropped. */
static void seek(struct weight_stream *s, uint32_t piece)
{
    const uint8_t *unused;
    if (s->n_queued > 0 && s->queued[s->slot] == piece) return;
    for (; s->n_queued > 0; pop(s)) {
        enum status st = io_reader_wait(s->reader, s->slot, &unused, NULL);
        (void)st; /* nobody wants these bytes */
    }
    s->next = piece;
}

static void begin_item(struct weight_stream *s, uint32_t first)
{
    if (first == s->head) s->head_used = true;
    if (first == 0) {
        s->head_expected = s->head_used;
        s->head_used = false;
    }
    seek(s, first);
}

static enum status multiply_piece(struct weight_stream *s, struct stream *on, const struct weight_piece *p, float *y,
                                  size_t ld, const struct act *x, bool accumulate, struct error *err)
{
    const struct backend_ops *ops = s->backend->ops;
    const uint8_t *src;
    enum status st = io_reader_wait(s->reader, s->slot, &src, err);
    if (st == OK) st = weight_piece_pack(s->backend, on, p, src, s->packed);
    if (st == OK) st = ops->sync(s->backend, on); /* the slot is read into again */
    pop(s);
    if (st != OK) return st;
    read_ahead(s);
    struct weight w = { .dtype = p->item->dtype,
                        .precision = p->item->precision,
                        .n_rows = p->n_rows,
                        .n_cols = p->item->n_cols,
                        .data = s->packed,
                        .bytes = s->packed_bytes,
                        .row0 = p->row0,
                        .n_rows_full = p->item->n_rows,
                        .n_cols_full = p->item->n_cols };
    st = ops->matmul(s->backend, on, y + p->row0, ld, &w, x, accumulate);
    return st == OK ? ops->sync(s->backend, on) : st; /* the packed piece is written over next */
}

enum status weight_stream_matmul(struct weight_stream *s, struct stream *on, float *y, size_t ld,
                                 const struct weight *w, const struct act *x, bool accumulate)
{
    struct error err = { 0 };
    uint32_t i = s->first[w->item];
    const struct weight_item *item = s->pieces.at[i].item;
    enum status st = OK;
    begin_item(s, i);
    read_ahead(s);
    for (; st == OK && i < s->pieces.n && s->pieces.at[i].item == item; i++)
        st = multiply_piece(s, on, &s->pieces.at[i], y, ld, x, accumulate, &err);
    if (st == OK) return OK;
    const char *name = i < s->pieces.n ? s->pieces.at[i].src->name : item->src[0].t->name;
    log_error("weights_read_failed", "tensor=%s reason=%s", name, log_quote(err.text[0] ? err.text : status_text(st)));
    return st;
}
