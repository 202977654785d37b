/* forward.c - a batch through a rank's part of a model, read from top to bottom: embedding, the rows of its layers,
 * head. */
#include "base/log.h"
#include "formats/gguf.h"
#include "model/blocks/product.h"

#include <assert.h>

/* Where rows of the embedding or streamed weights are read in each step, a file that is written to while it is in use
 * would give tokens of neither model.  Otherwise no step needs it. */
static enum status check_file(const struct model_rank *m)
{
    struct error err = { 0 };
    if (m->weights.embed_table && !m->weights.stream) return OK;
    enum status st = gguf_check_unchanged(m->file, &err);
    if (st != OK) log_error("model_changed", "reason=%s", log_quote(err.text));
    return st;
}

/* One row as the backend reads it. */
static enum status read_embedding(struct model_rank *m, int32_t token, uint8_t *dst)
{
    const struct tensor_entry *t = m->weights.embed;
    uint8_t *row = m->embed_row ? m->embed_row : dst;
    enum status st = weights_read_embed(&m->weights, (uint32_t)token, row);
    if (st == OK && m->embed_row) dequantize_row(t->type, row, (float *)dst, m->facts.info.d_model);
    return st;
}

/* The rows of the batch's tokens, gathered from the file. */
static enum status read_embeddings(struct model_rank *m, const struct batch *b)
{
    const size_t row_bytes = m->embed_bytes / m->max_rows;
    for (uint32_t i = 0; i < b->n_rows; i++) {
        enum status st = read_embedding(m, b->tokens[i], m->embed_rows + i * row_bytes);
        if (st != OK) return st;
    }
    if (m->embed_device == m->embed_rows) return OK;
    return m->backend->ops->upload(m->backend, m->stream, m->embed_device, m->embed_rows, b->n_rows * row_bytes);
}

/* All of a step that looks at the host: what follows only enqueues. */
static enum status begin(struct model_rank *m, const struct batch *b)
{
    enum status st = check_file(m);
    if (st == OK && m->place.stage == 0 && !m->weights.embed_table) st = read_embeddings(m, b);
    return st == OK ? m->backend->ops->step_begin(m->backend, m->stream, b, &m->step) : st;
}

/* The rows of the residual stream. */
static enum status embed(struct model_rank *m)
{
    const void *whole = m->weights.embed_table;
    const struct embedding table = { .type = m->embed_row ? DTYPE_F32 : (enum dtype)m->weights.embed->type,
                                     .n_cols = m->facts.info.d_model,
                                     .rows = whole ? whole : m->embed_device,
                                     .gathered = !whole };
    const struct backend_ops *ops = m->backend->ops;
    const size_t n = (size_t)m->step.batch->n_rows * m->facts.info.d_model;
    enum status st = ops->embed(m->backend, m->stream, m->x, &table, &m->step);
    if (st != OK || m->facts.embed_scale == 1.0f) return st;
    return ops->scale(m->backend, m->stream, m->x, n, m->facts.embed_scale);
}

/* What a stage has to do with the one before it, and the one behind: x comes and goes, from member to member. */
static enum status take_x(struct model_rank *m)
{
    const size_t bytes = (size_t)m->step.batch->n_rows * m->facts.info.d_model * sizeof(float);
    if (m->place.stage == 0) return embed(m);
    return m->all->ops->recv(m->all, m->stream, m->x, bytes, m->all->rank - m->place.tp);
}

static enum status pass_x_on(struct model_rank *m)
{
    const size_t bytes = (size_t)m->step.batch->n_rows * m->facts.info.d_model * sizeof(float);
    if (m->place.stage + 1 == m->place.pp) /* the others' last columns are read before they write new ones */
        return m->place.tp > 1 ? m->backend->ops->sync(m->backend, m->stream) : OK;
    return m->all->ops->send(m->all, m->stream, m->x, bytes, m->all->rank + m->place.tp);
}

/* x += block(norm(x)), or x += norm(block(norm(x))); with either norm or neither. */
static enum status add_block(struct model_rank *m, uint32_t layer, const struct block *block, const struct norms *norms,
                             const struct kv_store *kv)
{
    const struct backend_ops *ops = m->backend->ops;
    struct act x = act_of(m, m->step.batch->n_rows, m->facts.info.d_model, block->input);
    const bool apart = norms->after != NULL;
    const uint32_t own = layer - m->place.layers.begin; /* the rank's cache numbers its layers itself */
    const struct block_io io = { .x = &x,
                                 .y = apart ? m->branch : m->x,
                                 .add = !apart,
                                 .layer = layer,
                                 .kv = kv ? &kv->layers[own] : NULL,
                                 .state = kv && kv->states ? &kv->states->layers[own] : NULL };
    const uint32_t d = m->facts.info.d_model;
    const float eps = m->facts.info.norm_eps;
    enum status st = ops->rmsnorm(m->backend, m->stream, &x, m->x, norms->before, eps);
    if (st == OK) st = block->forward(m, &m->facts.layers[layer], &io);
    if (st == OK && apart) st = ops->norm_add(m->backend, m->stream, m->x, m->branch, d, x.n, d, norms->after, eps);
    return st;
}

/* The members of a stage have met since they wrote this layer's cache: one of them speaks for all. */
static enum status tell_layer(struct model_rank *m, uint32_t layer, model_layer_fn on_layer, void *ctx)
{
    struct mark written;
    if (!on_layer || m->place.member > 0) return OK;
    enum status st = m->backend->ops->mark_record(m->backend, m->stream, &written);
    if (st == OK) on_layer(ctx, layer, &written);
    return st;
}

/* The rows of its layers. */
static enum status layers_of(struct model_rank *m, const struct kv_store *kv, model_layer_fn on_layer, void *ctx)
{
    const struct shard layers = m->place.layers;
    enum status st = take_x(m);
    for (uint32_t i = layers.begin; st == OK && i < layers.end; i++) {
        const struct layer *l = &m->facts.layers[i];
        if ((st = add_block(m, i, l->mixer, &l->mixer_norms, kv)) != OK) return st;
        if ((st = tell_layer(m, i, on_layer, ctx)) != OK) return st;
        if (l->channel) st = add_block(m, i, l->channel, &l->channel_norms, NULL);
    }
    return st;
}

/* Whether all that a step enqueues is the same the next time: each sequence goes on by a row, nobody asks for marks, no
 * other rank has a part in it, and no weights come and go. */
static bool comes_again(const struct model_rank *m, const struct batch *b, model_layer_fn on_layer)
{
    return m->backend->ops->replay && b->n_rows == b->n_seqs && !on_layer && m->place.tp * m->place.pp == 1 &&
           !m->weights.stream;
}

enum { PART_LAYERS, PART_HEAD };

static enum status layers_again(struct model_rank *m, const struct kv_store *kv)
{
    const struct backend_ops *ops = m->backend->ops;
    bool done;
    enum status st = ops->replay(m->backend, m->stream, &m->step, kv, PART_LAYERS, &done);
    if (st != OK || done) return st;
    st = layers_of(m, kv, NULL, NULL);
    enum status end = ops->recorded(m->backend, m->stream, st == OK);
    return st == OK ? end : st;
}

enum status rank_forward(struct model_rank *m, const struct batch *b, const struct kv_store *kv,
                         model_layer_fn on_layer, void *ctx)
{
    assert(b->n_rows > 0 && b->n_rows <= m->max_rows && kv->n_layers == shard_n(m->place.layers));
    enum status st = begin(m, b);
    if (st != OK) return st;
    m->again = comes_again(m, b, on_layer);
    st = m->again ? layers_again(m, kv) : layers_of(m, kv, on_layer, ctx);
    return st == OK ? pass_x_on(m) : st;
}

enum status rank_norm_rows(struct model_rank *m, uint32_t first, uint32_t n, struct act *out)
{
    const struct backend_ops *ops = m->backend->ops;
    const uint32_t d = m->facts.info.d_model;
    assert(n > 0 && n <= MODEL_MAX_LOGIT_ROWS && first + n <= m->step.n_logits);
    enum status st = ops->gather_rows(m->backend, m->stream, m->head_x, m->x, d, &m->step, first, n);
    *out = act_of(m, n, d, FINE);
    if (st != OK) return st;
    return ops->rmsnorm(m->backend, m->stream, out, m->head_x, m->weights.final_norm, m->facts.info.norm_eps);
}

/* This rank's columns of the logits, side by side. */
static enum status own_logits(struct model_rank *m, uint32_t first, uint32_t n, float *y)
{
    const uint32_t own = shard_n(m->vocab);
    struct act x;
    enum status st = rank_norm_rows(m, first, n, &x);
    if (st == OK && own > 0) st = product(m, y, own, &m->weights.head, &x, false);
    if (st != OK || m->facts.logit_cap == 0.0f) return st;
    return m->backend->ops->softcap(m->backend, m->stream, y, (size_t)n * own, m->facts.logit_cap);
}

/* All logits of a step that comes again do, too. */
static enum status logits_again(struct model_rank *m, uint32_t n)
{
    const struct backend_ops *ops = m->backend->ops;
    bool done;
    enum status st = ops->replay(m->backend, m->stream, &m->step, m, PART_HEAD, &done);
    if (st != OK || done) return st;
    st = own_logits(m, 0, n, m->logits);
    enum status end = ops->recorded(m->backend, m->stream, st == OK);
    return st == OK ? end : st;
}

enum status rank_head(struct model_rank *m, uint32_t first, uint32_t n)
{
    if (!rank_has_head(m)) return OK;
    if (m->again && first == 0 && n == m->step.n_logits) return logits_again(m, n);
    if (m->place.tp == 1) return own_logits(m, first, n, m->logits);
    enum status st = own_logits(m, first, n, m->own_logits);
    return st == OK ? gather_logits(m, n) : st;
}

enum status rank_finish(struct model_rank *m)
{
    enum status st = m->backend->ops->sync(m->backend, m->stream);
    return st == OK ? check_file(m) : st;
}
