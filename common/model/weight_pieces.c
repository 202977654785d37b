/* weight_pieces.c - cuts tensors into pieces of whole rows and packs one. */
#include "model/weight_pieces.h"

#include "base/mem.h"

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
    uint32_t at = 0; /* row of the item */
    for (uint32_t i = 0; i < item->n_src; i++) {
        const struct weight_src *s = &item->src[i];
        for (uint32_t r = 0; r < s->n_rows; r += s->run)
            add_run(ps, item, s->t, s->row0 + r / s->run * s->stride, s->run, at + r, row_quantum);
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

static enum status pack_vector(struct backend *b, struct stream *s, const struct weight_piece *p, const uint8_t *src,
                               void *dst)
{
    float *tmp = mem_array(p->n_rows, sizeof(*tmp));
    dequantize_row(p->src->type, src, tmp, p->n_rows);
    enum status st = b->ops->upload(b, s, dst, tmp, p->n_rows * sizeof(*tmp));
    mem_free(tmp);
    return st;
}

/* Rows whose packed type is not the file's: dequantized first. */
static enum status pack_f32(struct backend *b, struct stream *s, const struct weight_piece *p, const uint8_t *src,
                            void *dst)
{
    const uint32_t n_cols = p->item->n_cols;
    const size_t from = (size_t)dtype_row_bytes(p->src->type, n_cols), to = n_cols * sizeof(float);
    float *rows = mem_array(p->n_rows, to);
    for (uint32_t r = 0; r < p->n_rows; r++)
        dequantize_row(p->src->type, src + r * from, rows + (size_t)r * n_cols, n_cols);
    enum status st = b->ops->weight_pack(b, s, dst, DTYPE_F32, p->n_rows, n_cols, rows, to);
    if (st == OK) st = b->ops->sync(b, s); /* the rows are needed until then */
    mem_free(rows);
    return st;
}

enum status weight_piece_pack(struct backend *b, struct stream *s, const struct weight_piece *p, const uint8_t *src,
                              void *dst)
{
    const struct weight_item *it = p->item;
    if (it->is_vector) return pack_vector(b, s, p, src, dst);
    if (it->is_table) return b->ops->upload(b, s, dst, src, p->bytes);
    if (it->dtype != (enum dtype)p->src->type) return pack_f32(b, s, p, src, dst);
    size_t stride = (size_t)dtype_row_bytes(it->dtype, it->n_cols);
    return b->ops->weight_pack(b, s, dst, it->dtype, p->n_rows, it->n_cols, src, stride);
}
