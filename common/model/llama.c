/* llama.c - the forward of the llama family, read from top to bottom. */
#include "base/log.h"
#include "formats/gguf.h"
#include "model/model_internal.h"
#include "model/weight_stream.h"

#include <assert.h>

/* The activation buffer seen as n rows of k columns, for products up to that precision. */
static struct act act_of(const struct model *m, uint32_t n, uint32_t k, enum precision precision)
{
    return (struct act){ m->act.f, m->act.q, n, k, precision };
}

/* y = W x, wherever W is. */
static enum status product(struct model *m, float *y, size_t ld, const struct weight *w, const struct act *x,
                           bool accumulate)
{
    if (m->weights.stream) return weight_stream_matmul(m->weights.stream, m->stream, y, ld, w, x, accumulate);
    return m->backend->ops->matmul(m->backend, m->stream, y, ld, w, x, accumulate);
}

/* y = W x for matrices that share their input. */
static enum status project(struct model *m, float *y, size_t ld, const struct weight_group *g, const struct act *x)
{
    for (uint32_t i = 0; i < g->n; i++) {
        enum status st = product(m, y + g->col[i], ld, &g->w[i], x, false);
        if (st != OK) return st;
    }
    return OK;
}

/* residual += W x (+ bias).  The first rank adds onto the residual, the others start at zero, so the sum over
 * ranks holds it once. */
static enum status project_back(struct model *m, const struct weight *w, const float *bias, const struct act *x)
{
    const struct backend_ops *ops = m->backend->ops;
    uint32_t d = m->info.d_model;
    bool first = m->coll->rank == 0;
    enum status st = product(m, m->x, d, w, x, first);
    if (st == OK && bias && first) st = ops->add_bias(m->backend, m->stream, m->x, d, bias, x->n, d);
    if (st == OK) st = m->coll->ops->all_reduce(m->coll, m->stream, m->x, (size_t)x->n * d);
    return st;
}

/* RoPE of q and k, and k and v into the cache: one pass where the backend has one. */
static enum status turn_and_store(struct model *m, size_t ld, uint32_t n_heads, const struct kv_slices *kv)
{
    const struct backend_ops *ops = m->backend->ops;
    const uint32_t hd = m->info.head_dim, n_kv = kv->geom.n_kv_heads;
    const size_t k_off = (size_t)n_heads * hd, v_off = k_off + (size_t)n_kv * hd;
    const struct rope_params *rope = &m->info.rope;
    if (ops->rope_kv_write)
        return ops->rope_kv_write(m->backend, m->stream, m->wide, ld, n_heads, k_off, v_off, kv, rope, &m->step);
    enum status st = ops->rope(m->backend, m->stream, m->wide, ld, n_heads + n_kv, &kv->geom, rope, &m->step);
    if (st != OK) return st;
    return ops->kv_write(m->backend, m->stream, m->wide + k_off, m->wide + v_off, ld, kv, &m->step);
}

static enum status attention(struct model *m, const struct layer_weights *lw, const struct kv_slices *kv)
{
    const struct backend_ops *ops = m->backend->ops;
    struct backend *be = m->backend;
    uint32_t n_heads = m->q_heads.end - m->q_heads.begin, hd = m->info.head_dim;
    uint32_t n_rows = m->step.batch->n_rows;
    size_t k_off = (size_t)n_heads * hd, ld = k_off + 2 * (size_t)kv->geom.n_kv_heads * hd;
    const struct attn_facts facts = { .scale = m->info.attn_scale, .causal = true };
    struct act x = act_of(m, n_rows, m->info.d_model, FINE); /* for k and v */
    struct act mixed = act_of(m, n_rows, n_heads * hd, COARSE);
    enum status st;

    if ((st = ops->rmsnorm(be, m->stream, &x, m->x, lw->attn_norm, m->info.norm_eps)) != OK) return st;
    if ((st = product(m, m->wide, ld, &lw->q, &x, false)) != OK) return st;
    if ((st = project(m, m->wide + k_off, ld, &lw->kv, &x)) != OK) return st;
    if (lw->qkv_bias && (st = ops->add_bias(be, m->stream, m->wide, ld, lw->qkv_bias, n_rows, (uint32_t)ld)) != OK)
        return st;
    if ((st = turn_and_store(m, ld, n_heads, kv)) != OK) return st;
    st = ops->attention(be, m->stream, &mixed, m->wide, ld, n_heads, kv, &facts, &m->step);
    if (st != OK) return st;
    return project_back(m, &lw->out, lw->out_bias, &mixed);
}

static enum status feed_forward(struct model *m, const struct layer_weights *lw)
{
    const struct backend_ops *ops = m->backend->ops;
    struct backend *be = m->backend;
    size_t ld = lw->gate_up.n_rows, half = ld / 2;
    uint32_t n_rows = m->step.batch->n_rows;
    struct act x = act_of(m, n_rows, m->info.d_model, COARSE);
    struct act h = act_of(m, n_rows, (uint32_t)half, COARSE);
    enum status st;

    if ((st = ops->rmsnorm(be, m->stream, &x, m->x, lw->ffn_norm, m->info.norm_eps)) != OK) return st;
    if ((st = project(m, m->wide, ld, &lw->gate_up, &x)) != OK) return st;
    if ((st = ops->swiglu(be, m->stream, &h, m->wide, m->wide + half, ld)) != OK) return st;
    return project_back(m, &lw->down, NULL, &h);
}

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
                                 .n_cols = m->info.d_model,
                                 .rows = whole ? whole : m->embed_device,
                                 .gathered = !whole };
    enum status st = check_file(m);
    if (st == OK && !whole) st = read_embeddings(m, b);
    return st == OK ? m->backend->ops->step_begin(m->backend, m->stream, b, &m->step) : st;
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

    assert(b->n_rows > 0 && b->n_rows <= m->max_rows && kv->n_layers == m->info.n_layers);
    m->is_whole = false;
    if ((st = begin(m, b, &table)) != OK) return st;
    if ((st = m->backend->ops->embed(m->backend, m->stream, m->x, &table, &m->step)) != OK) return st;
    for (uint32_t layer = 0; layer < m->info.n_layers; layer++) {
        const struct layer_weights *lw = &m->weights.layers[layer];
        if ((st = attention(m, lw, &kv->layers[layer])) != OK) return st;
        if (on_layer && (st = tell_layer(m, layer, on_layer, ctx)) != OK) return st;
        if ((st = feed_forward(m, lw)) != OK) return st;
    }
    m->is_whole = true;
    return OK;
}

enum status model_wait(struct model *m)
{
    return m->backend->ops->sync(m->backend, m->stream);
}

/* logits = head * the rows in m->head_x. */
static enum status head(struct model *m, uint32_t n)
{
    struct act x = act_of(m, n, m->info.d_model, FINE);
    enum status st =
        m->backend->ops->rmsnorm(m->backend, m->stream, &x, m->head_x, m->weights.final_norm, m->info.norm_eps);
    return st == OK ? product(m, m->logits, m->info.n_vocab, &m->weights.head, &x, false) : st;
}

enum status model_logits(struct model *m, uint32_t first, uint32_t n, float **out)
{
    const struct backend_ops *ops = m->backend->ops;
    struct backend *be = m->backend;
    enum status st;

    assert(n > 0 && n <= MODEL_MAX_LOGIT_ROWS && m->is_whole && first + n <= m->step.n_logits);
    if ((st = ops->gather_rows(be, m->stream, m->head_x, m->x, m->info.d_model, &m->step, first, n)) != OK) return st;
    if ((st = head(m, n)) != OK) return st;
    if (m->host_logits != m->logits) {
        size_t bytes = (size_t)n * m->info.n_vocab * sizeof(float);
        if ((st = ops->download(be, m->stream, m->host_logits, m->logits, bytes)) != OK) return st;
    }
    if ((st = ops->sync(be, m->stream)) != OK) return st;
    if ((st = check_file(m)) != OK) return st; /* it may have changed while this step read it */
    *out = m->host_logits;
    return OK;
}
