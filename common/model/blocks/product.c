/* product.c - products with weights of the model. */
#include "model/blocks/product.h"

#include "model/expert_stream.h"
#include "model/weight_stream.h"
#include "parallel/ranks.h"

struct act act_of(const struct model_rank *m, uint32_t n, uint32_t k, enum precision precision)
{
    return (struct act){ m->act.f, m->act.q, n, k, precision };
}

struct route route_of(const struct model_rank *m, uint32_t n, uint32_t k)
{
    return (struct route){ m->route.expert, m->route.weight, n, k };
}

struct route heads_of(const struct model_rank *m, uint32_t n, uint32_t n_heads)
{
    return (struct route){ m->heads, NULL, n, n_heads };
}

enum status product(struct model_rank *m, float *y, size_t ld, const struct weight *w, const struct act *x,
                    bool accumulate)
{
    if (m->weights.stream) return weight_stream_matmul(m->weights.stream, m->stream, y, ld, w, x, accumulate);
    return m->backend->ops->matmul(m->backend, m->stream, y, ld, w, x, accumulate);
}

enum status product_by(struct model_rank *m, float *y, size_t ld, const struct weight *w, const struct act *x,
                       const struct route *route, bool x_by_slot)
{
    struct expert_stream *disk = m->weights.experts;
    if (disk) return expert_stream_matmul(disk, m->stream, y, ld, w, x, route, x_by_slot);
    return m->backend->ops->expert_matmul(m->backend, m->stream, y, ld, w, x, route, x_by_slot);
}

enum status project(struct model_rank *m, float *y, size_t ld, const struct weight_group *g, const struct act *x)
{
    for (uint32_t i = 0; i < g->n; i++) {
        enum status st = product(m, y + g->col[i], ld, &g->w[i], x, false);
        if (st != OK) return st;
    }
    return OK;
}

/* Where the columns of each rank begin, of n columns shared out in units. */
static void borders(const struct model_rank *m, uint32_t n, uint32_t unit, size_t begin[RANKS_MAX_TP + 1])
{
    for (uint32_t r = 0; r < m->coll->size; r++)
        begin[r] = (size_t)shard_units(n / unit, r, m->coll->size).begin * unit * sizeof(float);
    begin[m->coll->size] = n * sizeof(float);
}

enum status act_gather_tiles(struct model_rank *m, struct act *own, uint32_t k, uint32_t unit, uint32_t n_tiles)
{
    const uint32_t tile = k / n_tiles;
    size_t begin[RANKS_MAX_TP + 1];
    if (m->coll->size == 1) return OK;
    struct act all = { m->gathered.f, m->gathered.q, own->n, k, own->precision };
    borders(m, tile, unit, begin);
    const struct coll_columns columns = { (size_t)own->n * n_tiles, tile * sizeof(float), begin };
    enum status st =
        m->coll->ops->all_gather(m->coll, m->stream, all.f, own->f, own->k / n_tiles * sizeof(float), &columns);
    *own = all;
    return st == OK ? m->backend->ops->quantize(m->backend, m->stream, own) : st;
}

enum status act_gather(struct model_rank *m, struct act *own, uint32_t k, uint32_t unit)
{
    return act_gather_tiles(m, own, k, unit, 1);
}

enum status gather_floats(struct model_rank *m, float *y, const float *mine, size_t mine_ld, uint32_t n_rows,
                          const size_t *begin)
{
    const struct coll_columns columns = { n_rows, begin[m->coll->size], begin };
    return m->coll->ops->all_gather(m->coll, m->stream, y, mine, mine_ld * sizeof(float), &columns);
}

enum status gather_columns(struct model_rank *m, float *y, uint32_t n_rows)
{
    const uint32_t d = m->facts.info.d_model;
    size_t begin[RANKS_MAX_TP + 1];
    if (m->coll->size == 1) return OK;
    borders(m, d, SHARD_ROWS, begin);
    return gather_floats(m, y, y + m->back.begin, d, n_rows, begin);
}

enum status gather_logits(struct model_rank *m, uint32_t n)
{
    const uint32_t n_vocab = m->facts.info.n_vocab;
    size_t begin[RANKS_MAX_TP + 1];
    for (uint32_t r = 0; r < m->coll->size; r++) begin[r] = shard_rows(n_vocab, r, m->coll->size).begin * sizeof(float);
    begin[m->coll->size] = n_vocab * sizeof(float);
    const struct coll_columns columns = { n, n_vocab * sizeof(float), begin };
    return m->coll->ops->all_gather(m->coll, m->stream, m->logits, m->own_logits, shard_n(m->vocab) * sizeof(float),
                                    &columns);
}

enum status project_back(struct model_rank *m, const struct block_io *io, const struct weight *w, const float *bias,
                         const struct act *x)
{
    const struct backend_ops *ops = m->backend->ops;
    const uint32_t d = m->facts.info.d_model, own = shard_n(m->back);
    float *y = io->y + m->back.begin;
    enum status st = own ? product(m, y, d, w, x, io->add) : OK;
    if (st == OK && own && bias) st = ops->add_bias(m->backend, m->stream, y, d, bias, x->n, own);
    return st == OK ? gather_columns(m, io->y, x->n) : st;
}
