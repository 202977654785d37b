/* product.c - products with weights of the model. */
#include "model/blocks/product.h"

#include "model/weight_stream.h"

struct act act_of(const struct model *m, uint32_t n, uint32_t k, enum precision precision)
{
    return (struct act){ m->act.f, m->act.q, n, k, precision };
}

enum status product(struct model *m, float *y, size_t ld, const struct weight *w, const struct act *x, bool accumulate)
{
    if (m->weights.stream) return weight_stream_matmul(m->weights.stream, m->stream, y, ld, w, x, accumulate);
    return m->backend->ops->matmul(m->backend, m->stream, y, ld, w, x, accumulate);
}

enum status project(struct model *m, float *y, size_t ld, const struct weight_group *g, const struct act *x)
{
    for (uint32_t i = 0; i < g->n; i++) {
        enum status st = product(m, y + g->col[i], ld, &g->w[i], x, false);
        if (st != OK) return st;
    }
    return OK;
}

/* The first rank adds onto the residual, the others start at zero, so the sum over ranks holds it once. */
enum status project_back(struct model *m, const struct block_io *io, const struct weight *w, const float *bias,
                         const struct act *x)
{
    const struct backend_ops *ops = m->backend->ops;
    const uint32_t d = m->facts.info.d_model;
    const bool first = m->coll->rank == 0;
    enum status st = product(m, io->y, d, w, x, io->add && first);
    if (st == OK && bias && first) st = ops->add_bias(m->backend, m->stream, io->y, d, bias, x->n, d);
    if (st == OK) st = m->coll->ops->all_reduce(m->coll, m->stream, io->y, (size_t)x->n * d);
    return st;
}
