/* model_pick.c - what leaves a model after a forward: logits, what is picked from them, hidden states. */
#include "model/model_internal.h"

#include <assert.h>

static float *row_of(float *rows, const struct model *m, uint32_t i)
{
    return rows + (size_t)i * m->facts.info.n_vocab;
}

/* n rows from row i on, to where the host reads them. */
static enum status fetch(struct model *m, uint32_t i, uint32_t n)
{
    if (m->host_logits == m->logits) return OK;
    return m->backend->ops->download(m->backend, m->stream, row_of(m->host_logits, m, i), row_of(m->logits, m, i),
                                     (size_t)n * m->facts.info.n_vocab * sizeof(float));
}

enum status model_logits(struct model *m, uint32_t first, uint32_t n, float **out)
{
    enum status st = model_head(m, first, n);
    if (st == OK) st = fetch(m, 0, n);
    if (st == OK) st = model_finish(m);
    *out = m->host_logits;
    return st;
}

enum status model_pick(struct model *m, uint32_t first, uint32_t n, const struct pick_row *rows, struct picked *out)
{
    enum status st = model_head(m, first, n);
    if (st == OK) st = m->backend->ops->pick(m->backend, m->stream, m->logits, m->facts.info.n_vocab, n, rows, out);
    return st == OK ? model_finish(m) : st;
}

enum status model_weights(struct model *m, uint32_t i, float top, float temperature, float *logits,
                          const float **weights)
{
    const struct backend_ops *ops = m->backend->ops;
    const uint32_t n_vocab = m->facts.info.n_vocab;
    float *row = row_of(m->logits, m, i);
    assert(i < MODEL_MAX_LOGIT_ROWS);
    enum status st = ops->download(m->backend, m->stream, logits, row, n_vocab * sizeof(float));
    if (st == OK) st = ops->weigh(m->backend, m->stream, row, n_vocab, top, temperature);
    if (st == OK) st = fetch(m, i, 1);
    *weights = row_of(m->host_logits, m, i);
    return st == OK ? model_wait(m) : st;
}

enum status model_hidden(struct model *m, uint32_t first, uint32_t n, float *out)
{
    struct act x;
    enum status st = model_norm_rows(m, first, n, &x);
    if (st == OK)
        st = m->backend->ops->download(m->backend, m->stream, out, x.f,
                                       (size_t)n * m->facts.info.d_model * sizeof(float));
    return st == OK ? model_finish(m) : st;
}
