/* weight_pieces.c - cuts tensors into pieces of whole rows and packs one. */
#include "model/weight_pieces.h"

#include "base/mem.h"

#include <string.h>

#define PIECE_BYTES (4u << 20) /* deep enough a queue of these keeps a disk busy, and a packed one stays in cache */

static void append(struct weight_pieces *ps, struct weight_piece p)
{
    if ((ps->n & (ps->n - 1)) == 0) ps->at = mem_resize(ps->at, ps->n ? 2 * (size_t)ps->n : 1, sizeof(*ps->at));
    ps->at[ps->n++] = p;
    if (p.bytes > ps->max_bytes) ps->max_bytes = p.bytes;
}

static uint32_t rows_per_piece(size_t row_bytes, uint32_t quantum)
{
    uint32_t n = (uint32_t)(PIECE_BYTES / row_bytes) / quantum * quantum;
    return n ? n : quantum;
}

/* From row `from` to row `to` of the tensor in one piece, which gives n rows of the item. */
static void add_span(struct weight_pieces *ps, const struct weight_item *item, const struct tensor_entry *t,
                     uint32_t from, uint32_t to, uint32_t at, uint32_t n)
{
    const size_t row_bytes = (size_t)dtype_row_bytes(t->type, t->ne[0]);
    append(ps,
           (struct weight_piece){ item, t, at, n, t->offset + from * (uint64_t)row_bytes, (to - from) * row_bytes });
}

/* A run of n rows of the tensor from row `from` on; its first is row `at` of the item.  Of a vector, elements. */
static void add_run(struct weight_pieces *ps, const struct weight_item *item, const struct tensor_entry *t,
                    uint32_t from, uint32_t n, uint32_t at, uint32_t row_quantum)
{
    if (item->is_vector) {
        const uint64_t offset = t->offset + dtype_row_bytes(t->type, from);
        append(ps, (struct weight_piece){ item, t, at, n, offset, (size_t)dtype_row_bytes(t->type, n) });
        return;
    }
    const size_t row_bytes = (size_t)dtype_row_bytes(t->type, t->ne[0]);
    const uint32_t step = rows_per_piece(row_bytes, row_quantum);
    for (uint32_t r = 0; r < n; r += step) {
        const uint32_t rows = n - r < step ? n - r : step;
        append(ps, (struct weight_piece){ item, t, at + r, rows, t->offset + (uint64_t)(from + r) * row_bytes,
                                          rows * row_bytes });
    }
}

void weight_pieces_add(struct weight_pieces *ps, const struct weight_item *item, uint32_t row_quantum)
{
    uint32_t at = 0;                          /* row of the item */
    if (item->is_vector && item->is_turned) { /* of one tensor, which is small, any rows: they are picked from all */
        const struct tensor_entry *t = item->src[0].t;
        append(ps, (struct weight_piece){ item, t, 0, item->n_cols, t->offset, (size_t)t->bytes });
        return;
    }
    for (uint32_t i = 0; i < item->n_src; i++) {
        const struct weight_src *s = &item->src[i];
        if (item->is_gathered) {
            add_span(ps, item, s->t, s->row0, s->row0 + (s->n_rows / s->run - 1) * s->stride + s->run, at, s->n_rows);
            at += s->n_rows;
            continue;
        }
        for (uint32_t r = 0; r < s->n_rows; r += s->run) {
            const uint32_t from = s->row0 + r / s->run * s->stride;
            if (item->is_turned)
                add_span(ps, item, s->t, from, from + s->run, r / s->run * item->n_rows, item->n_rows);
            else
                add_run(ps, item, s->t, from, s->run, at + r, row_quantum);
        }
        at += s->n_rows;
    }
}

void weight_pieces_fini(struct weight_pieces *ps)
{
    mem_free(ps->at);
    *ps = (struct weight_pieces){ 0 };
}

size_t weight_piece_place(struct backend *b, const struct weight_piece *p)
{
    size_t before = 0, stack = 0;
    uint32_t row = p->row0;
    if (p->item->is_vector) return p->row0 * sizeof(float);
    if (p->item->is_table) return p->row0 * (size_t)dtype_row_bytes(p->item->dtype, p->item->n_cols);
    if (p->item->n_experts > 0) {
        stack = row / p->item->n_rows * p->item->expert_bytes;
        row %= p->item->n_rows;
    }
    if (row == 0 || b->ops->weight_bytes(b, p->item->dtype, row, p->item->n_cols, &before) != OK) return stack;
    return stack + before;
}

/* [n_rows][n_cols] as [n_cols][n_rows]; the caller frees it. */
static float *transposed(const float *x, uint32_t n_rows, uint32_t n_cols)
{
    float *y = mem_array((size_t)n_rows * n_cols, sizeof(*y));
    for (uint32_t r = 0; r < n_rows; r++)
        for (uint32_t c = 0; c < n_cols; c++) y[(size_t)c * n_rows + r] = x[(size_t)r * n_cols + c];
    return y;
}

static enum status pack_vector(struct backend *b, struct stream *s, const struct weight_piece *p, const uint8_t *src,
                               void *dst)
{
    float *tmp = mem_array(p->n_rows, sizeof(*tmp));
    dequantize_row(p->src->type, src, tmp, p->n_rows);
    enum status st = b->ops->upload(b, s, dst, tmp, p->n_rows * sizeof(*tmp));
    mem_free(tmp);
    return st;
}

/* n rows of the file as fp32; the caller frees them. */
static float *dequantized(const struct tensor_entry *t, const uint8_t *src, uint32_t n)
{
    const uint32_t n_cols = (uint32_t)t->ne[0];
    const size_t from = (size_t)dtype_row_bytes(t->type, n_cols);
    float *rows = mem_array((size_t)n * n_cols, sizeof(*rows));
    for (uint32_t r = 0; r < n; r++) dequantize_row(t->type, src + r * from, rows + (size_t)r * n_cols, n_cols);
    return rows;
}

/* The item's rows of the whole tensor, turned. */
static enum status pack_turned_vector(struct backend *b, struct stream *s, const struct weight_piece *p,
                                      const uint8_t *src, void *dst)
{
    const struct weight_item *it = p->item;
    const uint32_t n_cols = (uint32_t)p->src->ne[0];
    float *all = dequantized(p->src, src, (uint32_t)p->src->ne[1]), *rows = mem_array(it->n_cols, sizeof(*rows));
    float *at = rows;
    for (uint32_t i = 0; i < it->n_src; i++)
        for (uint32_t r = 0; r < it->src[i].n_rows; r += it->src[i].run, at += it->src[i].run * n_cols) {
            const size_t from = it->src[i].row0 + r / it->src[i].run * it->src[i].stride;
            memcpy(at, all + from * n_cols, (size_t)it->src[i].run * n_cols * sizeof(*at));
        }
    float *turned = transposed(rows, it->n_cols / n_cols, n_cols);
    enum status st = b->ops->upload(b, s, dst, turned, it->n_cols * sizeof(*turned));
    mem_free(turned);
    mem_free(rows);
    mem_free(all);
    return st;
}

/* Rows that are needed until they are packed. */
static enum status pack_rows(struct backend *b, struct stream *s, const struct weight_piece *p, enum dtype type,
                             void *rows, void *dst)
{
    const uint32_t n_cols = p->item->n_cols;
    const size_t stride = (size_t)dtype_row_bytes(type, n_cols);
    enum status st = b->ops->weight_pack(b, s, dst, type, p->n_rows, n_cols, rows, stride);
    if (st == OK) st = b->ops->sync(b, s);
    mem_free(rows);
    return st;
}

static enum status pack_turned(struct backend *b, struct stream *s, const struct weight_piece *p, const uint8_t *src,
                               void *dst)
{
    float *rows = dequantized(p->src, src, p->item->n_cols);
    float *turned = transposed(rows, p->item->n_cols, p->item->n_rows);
    mem_free(rows);
    return pack_rows(b, s, p, DTYPE_F32, turned, dst);
}

/* The source of a piece that is gathered: the item's only one. */
static uint8_t *gathered(const struct weight_piece *p, const uint8_t *src)
{
    const struct weight_src *from = &p->item->src[0];
    const size_t row_bytes = (size_t)dtype_row_bytes(p->src->type, p->src->ne[0]), run = from->run * row_bytes;
    uint8_t *rows = mem_array(p->n_rows, row_bytes);
    for (uint32_t r = 0; r < p->n_rows; r += from->run)
        memcpy(rows + r * row_bytes, src + (size_t)(r / from->run) * from->stride * row_bytes, run);
    return rows;
}

static enum status pack_gathered(struct backend *b, struct stream *s, const struct weight_piece *p, const uint8_t *src,
                                 void *dst)
{
    uint8_t *rows = gathered(p, src);
    if (p->item->dtype == (enum dtype)p->src->type) return pack_rows(b, s, p, p->item->dtype, rows, dst);
    float *floats = dequantized(p->src, rows, p->n_rows);
    mem_free(rows);
    return pack_rows(b, s, p, DTYPE_F32, floats, dst);
}

enum status weight_piece_pack(struct backend *b, struct stream *s, const struct weight_piece *p, const uint8_t *src,
                              void *dst)
{
    const struct weight_item *it = p->item;
    if (it->is_vector) return it->is_turned ? pack_turned_vector(b, s, p, src, dst) : pack_vector(b, s, p, src, dst);
    if (it->is_table) return b->ops->upload(b, s, dst, src, p->bytes);
    if (it->is_turned) return pack_turned(b, s, p, src, dst);
    if (it->is_gathered) return pack_gathered(b, s, p, src, dst);
    if (it->dtype != (enum dtype)p->src->type)
        return pack_rows(b, s, p, DTYPE_F32, dequantized(p->src, src, p->n_rows), dst);
    size_t stride = (size_t)dtype_row_bytes(it->dtype, it->n_cols);
    return b->ops->weight_pack(b, s, dst, it->dtype, p->n_rows, it->n_cols, src, stride);
}
