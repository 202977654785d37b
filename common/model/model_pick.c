/* model_pick.c - what leaves a model after a forward: logits, what is picked from them, hidden states.
 *
 * All ranks that have the head compute their part of it; one of them speaks for all. */
#include "model/model_internal.h"

#include <assert.h>

struct call {
    struct model *m;
    uint32_t first, n;
    const struct pick_row *rows; /* pick */
    struct picked *picked;
    float top, temperature; /* weights: of row `first` */
    float *out;             /* weights, hidden */
};

static float *row_of(float *rows, const struct model_rank *m, uint32_t i)
{
    return rows + (size_t)i * m->facts.info.n_vocab;
}

static struct model_rank *speaker(struct model *m)
{
    return &m->ranks[(m->mesh.pp - 1) * m->mesh.tp];
}

/* n rows from row i on, to where the host reads them. */
static enum status fetch(struct model_rank *m, uint32_t i, uint32_t n)
{
    if (m->host_logits == m->logits) return OK;
    return m->backend->ops->download(m->backend, m->stream, row_of(m->host_logits, m, i), row_of(m->logits, m, i),
                                     (size_t)n * m->facts.info.n_vocab * sizeof(float));
}

static enum status run(struct call *c, enum status (*fn)(void *ctx, uint32_t rank))
{
    assert(c->m->is_whole);
    return model_each_rank(c->m, fn, c, NULL);
}

static enum status logits_on(void *ctx, uint32_t rank)
{
    const struct call *c = ctx;
    struct model_rank *m = &c->m->ranks[rank];
    enum status st = rank_head(m, c->first, c->n);
    if (st == OK && rank_speaks(m)) st = fetch(m, 0, c->n);
    return st == OK ? rank_finish(m) : st;
}

enum status model_logits(struct model *m, uint32_t first, uint32_t n, float **out)
{
    *out = speaker(m)->host_logits;
    return run(&(struct call){ .m = m, .first = first, .n = n }, logits_on);
}

static enum status pick_on(void *ctx, uint32_t rank)
{
    const struct call *c = ctx;
    struct model_rank *m = &c->m->ranks[rank];
    const uint32_t n_vocab = m->facts.info.n_vocab;
    enum status st = rank_head(m, c->first, c->n);
    if (st == OK && rank_speaks(m))
        st = m->backend->ops->pick(m->backend, m->stream, m->logits, n_vocab, c->n, c->rows, c->picked);
    return st == OK ? rank_finish(m) : st;
}

enum status model_pick(struct model *m, uint32_t first, uint32_t n, const struct pick_row *rows, struct picked *out)
{
    return run(&(struct call){ .m = m, .first = first, .n = n, .rows = rows, .picked = out }, pick_on);
}

static enum status weights_on(void *ctx, uint32_t rank)
{
    const struct call *c = ctx;
    struct model_rank *m = &c->m->ranks[rank];
    const struct backend_ops *ops = m->backend->ops;
    const uint32_t n_vocab = m->facts.info.n_vocab;
    if (!rank_speaks(m)) return OK;
    float *row = row_of(m->logits, m, c->first);
    enum status st = ops->download(m->backend, m->stream, c->out, row, n_vocab * sizeof(float));
    if (st == OK) st = ops->weigh(m->backend, m->stream, row, n_vocab, c->top, c->temperature);
    if (st == OK) st = fetch(m, c->first, 1);
    return st == OK ? ops->sync(m->backend, m->stream) : st;
}

enum status model_weights(struct model *m, uint32_t i, float top, float temperature, float *logits,
                          const float **weights)
{
    struct model_rank *r = speaker(m);
    assert(i < MODEL_MAX_LOGIT_ROWS);
    *weights = row_of(r->host_logits, r, i);
    return run(&(struct call){ .m = m, .first = i, .top = top, .temperature = temperature, .out = logits }, weights_on);
}

static enum status hidden_on(void *ctx, uint32_t rank)
{
    const struct call *c = ctx;
    struct model_rank *m = &c->m->ranks[rank];
    struct act x;
    if (!rank_speaks(m)) return OK;
    enum status st = rank_norm_rows(m, c->first, c->n, &x);
    const size_t bytes = (size_t)c->n * m->facts.info.d_model * sizeof(float);
    if (st == OK) st = m->backend->ops->download(m->backend, m->stream, c->out, x.f, bytes);
    return st == OK ? rank_finish(m) : st;
}

enum status model_hidden(struct model *m, uint32_t first, uint32_t n, float *out)
{
    return run(&(struct call){ .m = m, .first = first, .n = n, .out = out }, hidden_on);
}
