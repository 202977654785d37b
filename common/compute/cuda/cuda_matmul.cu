/* cuda_matmul.cu - the ops matmul and expert_matmul: which kernel multiplies what. */
#include "compute/cuda/cuda_blas.h"
#include "compute/cuda/cuda_internal.h"
#include "compute/cuda/cuda_product.h"

/* Rows of activations from which on matrix instructions take less time: earlier where warps may share out the columns.
 */
#define FAST_MMA_ROWS  5u
#define EXACT_MMA_ROWS 13u

static struct weight_format format_of(enum dtype type, const struct pack_format *f)
{
    struct weight_format w = {};
    w.d_times = 1.0f;
    if (type == DTYPE_IQ3_XXS) w.d_times = 0.25f;
    if (f->book == BOOK_IQ1 || f->book == BOOK_IQ2) w.d_times = 0.125f;
    const int32_t z = f->has_offset ? 1 << f->offset_shift : 0;
    if (f->book == BOOK_NONE) {
        w.offset = f->bits == 8 ? 0 : z; /* eight bits are signed here */
        return w;
    }
    for (uint32_t i = 0; i < 16; i++) w.book[i / 4] |= (uint32_t)(uint8_t)(pack_books[f->book][i] - z) << i % 4 * 8;
    return w;
}

struct product product_of_weight(const struct weight *w)
{
    const struct pack_format *f = pack_format_of(w->dtype);
    struct product p = {};
    p.data = (const uint8_t *)w->data;
    p.panel_bytes = panel_bytes(f->bits, f->scales, w->n_cols);
    p.expert_bytes = w->expert_bytes;
    p.n_rows = w->n_rows;
    p.n_cols = w->n_cols;
    p.format = format_of(w->dtype, f);
    return p;
}

static struct product product_of(struct backend *b, float *y, size_t ld, const struct weight *w, const struct act *x)
{
    const struct pack_format *f = pack_format_of(w->dtype);
    assert(f && w->n_cols == x->k && w->n_cols <= cuda_of(b)->limits.max_cols && w->precision <= x->precision);
    struct product p = product_of_weight(w);
    p.act = act_planes_of(x->q, x->precision == FINE ? 2 * x->n : x->n, x->k);
    p.f = x->f;
    p.y = y;
    p.ld = ld;
    p.n = x->n;
    p.slots = 1;
    p.split = cuda_of(b)->numerics == NUMERICS_FAST;
    p.fine = w->precision == FINE && f->scales != PACK_FLOAT; /* floats take rows as they are */
    return p;
}

static cudaError_t multiply(const struct cuda_backend *b, const struct product &p, enum dtype type, cudaStream_t s)
{
    const struct pack_format *f = pack_format_of(type);
    if (f->scales == PACK_FLOAT) return product_floats(p, f->bits, type == DTYPE_BF16, (uint32_t)b->n_sms, s);
    const uint32_t rows = p.fine ? 2 * p.n : p.n;
    if (!p.expert && rows >= (p.split ? FAST_MMA_ROWS : EXACT_MMA_ROWS)) return product_mma(p, f, s);
    return product_rows(p, f, (uint32_t)b->n_sms, s);
}

enum status cuda_matmul(struct backend *b, struct stream *s, float *y, size_t ld, const struct weight *w,
                        const struct act *x, bool accumulate)
{
    if (x->n == 0) return OK;
    struct product p = product_of(b, y, ld, w, x);
    p.accumulate = accumulate;
    bool done = false;
    const enum status st = cuda_blas_multiply(b, cuda_of(b)->blas, p, w->dtype, cu_stream(b, s), &done);
    if (done || st != OK) return st;
    return cuda_check(b, multiply(cuda_of(b), p, w->dtype, cu_stream(b, s)), "matmul");
}

enum status cuda_expert_matmul(struct backend *b, struct stream *s, float *y, size_t ld, const struct weight *w,
                               const struct act *x, const struct route *route, bool x_by_slot)
{
    assert(x->n == (x_by_slot ? route->n * route->k : route->n));
    if (route->n == 0) return OK;
    struct product p = product_of(b, y, ld, w, x);
    p.n = route->n * route->k;
    p.expert = route->expert;
    p.slots = x_by_slot ? 1 : route->k;
    return cuda_check(b, multiply(cuda_of(b), p, w->dtype, cu_stream(b, s)), "expert_matmul");
}
