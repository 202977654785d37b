/* forward.c - a batch through a model, read from top to bottom: embedding, the rows of its layers, head. */
#include "base/log.h"
#include "formats/gguf.h"
#include "model/blocks/product.h"

#include <assert.h>

/* Where rows of the embedding or streamed weights are read in each step, a file that is written to while it is in use
 * would give tokens of neither model.  Otherwise no step needs it. */
static enum status check_file(const struct model *m)
{
    struct error err = { 0 };
    if (m->weights.embed_table && !m->weights.stream) return OK;
    enum status st = gguf_check_unchanged(m->file, &err);
    if (st != OK) log_error("model_changed", "reason=%s", log_quote(err.text));
    return st;
}

/* The rows of the batch's tokens, gathered from the file. */
static enum status read_embeddings(struct model *m, const struct batch *b)
{
    size_t row_bytes = weights_embed_row_bytes(&m->weights);
    for (uint32_t i = 0; i < b->n_rows; i++) {
        enum status st = weights_read_embed(&m->weights, (uint32_t)b->tokens[i], m->embed_rows + i * row_bytes);
        if (st != OK) return st;
    }
    if (m->embed_device == m->embed_rows) return OK;
    return m->backend->ops->upload(m->backend, m->stream, m->embed_device, m->embed_rows, b->n_rows * row_bytes);
}

/* All of a step that looks at the host: what follows only enqueues. */
static enum status begin(struct model *m, const struct batch *b, struct embedding *table)
{
    const void *whole = m->weights.embed_table;
    *table = (struct embedding){ .type = (enum dtype)m->weights.embed->type,
                                 .n_cols = m->facts.info.d_model,
                                 .rows = whole ? whole : m->embed_device,
                                 .gathered = !whole };
    enum status st = check_file(m);
    if (st == OK && !whole) st = read_embeddings(m, b);
    return st == OK ? m->backend->ops->step_begin(m->backend, m->stream, b, &m->step) : st;
}

/* x += block(norm(x)), or x += norm(block(norm(x))); with either norm or neither. */
static enum status add_block(struct model *m, uint32_t layer, const struct block *block, const struct norms *norms,
                             const struct kv_store *kv)
{
    const struct backend_ops *ops = m->backend->ops;
    struct act x = act_of(m, m->step.batch->n_rows, m->facts.info.d_model, block->input);
    const bool apart = norms->after != NULL;
    const struct block_io io = { .x = &x,
                                 .y = apart ? m->branch : m->x,
                                 .add = !apart,
                                 .layer = layer,
                                 .kv = kv ? &kv->layers[layer] : NULL,
                                 .state = kv && kv->states ? &kv->states->layers[layer] : NULL };
    const uint32_t d = m->facts.info.d_model;
    const float eps = m->facts.info.norm_eps;
    enum status st = ops->rmsnorm(m->backend, m->stream, &x, m->x, norms->before, eps);
    if (st == OK) st = block->forward(m, &m->facts.layers[layer], &io);
    if (st == OK && apart) st = ops->norm_add(m->backend, m->stream, m->x, m->branch, d, x.n, d, norms->after, eps);
    return st;
}

/* The rows of the residual stream. */
static enum status embed(struct model *m, const struct embedding *table)
{
    const struct backend_ops *ops = m->backend->ops;
    const size_t n = (size_t)m->step.batch->n_rows * m->facts.info.d_model;
    enum status st = ops->embed(m->backend, m->stream, m->x, table, &m->step);
    if (st != OK || m->facts.embed_scale == 1.0f) return st;
    return ops->scale(m->backend, m->stream, m->x, n, m->facts.embed_scale);
}

static enum status tell_layer(struct model *m, uint32_t layer, model_layer_fn on_layer, void *ctx)
{
    struct mark written;
    enum status st = m->backend->ops->mark_record(m->backend, m->stream, &written);
    if (st == OK) on_layer(ctx, layer, &written);
    return st;
}

enum status model_forward(struct model *m, const struct batch *b, const struct kv_store *kv, model_layer_fn on_layer,
                          void *ctx)
{
    struct embedding table;
    enum status st;

    assert(b->n_rows > 0 && b->n_rows <= m->max_rows && kv->n_layers == m->facts.info.n_layers);
    m->is_whole = false;
    if ((st = begin(m, b, &table)) != OK) return st;
    if ((st = embed(m, &table)) != OK) return st;
    for (uint32_t i = 0; i < m->facts.info.n_layers; i++) {
        const struct layer *l = &m->facts.layers[i];
        if ((st = add_block(m, i, l->mixer, &l->mixer_norms, kv)) != OK) return st;
        if (on_layer && (st = tell_layer(m, i, on_layer, ctx)) != OK) return st;
        if (l->channel && (st = add_block(m, i, l->channel, &l->channel_norms, NULL)) != OK) return st;
    }
    m->is_whole = true;
    return OK;
}

enum status model_wait(struct model *m)
{
    return m->backend->ops->sync(m->backend, m->stream);
}

enum status model_norm_rows(struct model *m, uint32_t first, uint32_t n, struct act *out)
{
    const struct backend_ops *ops = m->backend->ops;
    const uint32_t d = m->facts.info.d_model;
    assert(n > 0 && n <= MODEL_MAX_LOGIT_ROWS && m->is_whole && first + n <= m->step.n_logits);
    enum status st = ops->gather_rows(m->backend, m->stream, m->head_x, m->x, d, &m->step, first, n);
    *out = act_of(m, n, d, FINE);
    if (st != OK) return st;
    return ops->rmsnorm(m->backend, m->stream, out, m->head_x, m->weights.final_norm, m->facts.info.norm_eps);
}

enum status model_head(struct model *m, uint32_t first, uint32_t n)
{
    struct act x;
    enum status st = model_norm_rows(m, first, n, &x);
    if (st == OK) st = product(m, m->logits, m->facts.info.n_vocab, &m->weights.head, &x, false);
    if (st != OK || m->facts.logit_cap == 0.0f) return st;
    return m->backend->ops->softcap(m->backend, m->stream, m->logits, (size_t)n * m->facts.info.n_vocab,
                                    m->facts.logit_cap);
}

enum status model_finish(struct model *m)
{
    enum status st = model_wait(m);
    return st == OK ? check_file(m) : st;
}
