/* model_buffers.c - the memory that steps use, made once: sized by the blocks, shared by all layers. */
#include "base/mem.h"
#include "formats/tensor_dir.h"
#include "model/model_internal.h"

/* Floats per row of the logits that come together here, and of its own ones beside them. */
static size_t all_logits(const struct model_rank *m)
{
    return rank_speaks(m) ? m->facts.info.n_vocab : 0;
}

static size_t own_logits(const struct model_rank *m)
{
    return rank_has_head(m) && m->place.tp > 1 ? shard_n(m->vocab) : 0;
}

static size_t host_logits_bytes(const struct model_rank *m)
{
    return MODEL_MAX_LOGIT_ROWS * all_logits(m) * sizeof(float);
}

static bool embeds(const struct model_rank *m)
{
    return backend_embeds(m->backend, m->weights.embed->type);
}

void model_buffers_size(struct model_rank *m)
{
    const struct model_info *info = &m->facts.info;
    const uint64_t n = m->max_rows, d = info->d_model, logit_rows = MODEL_MAX_LOGIT_ROWS;
    const uint64_t n_acts = m->coll->size > 1 ? 2 : 1;
    sizes_init(&m->sizes, m->backend, m->max_rows, info->d_model);
    block_sizes_of(&m->sizes, m->facts.layers + m->place.layers.begin, shard_n(m->place.layers));
    sizes_act(&m->sizes, MODEL_MAX_LOGIT_ROWS, info->d_model, FINE); /* of the head */
    m->embed_bytes = n * (embeds(m) ? weights_embed_row_bytes(&m->weights) : d * sizeof(float));
    const uint64_t floats = n_acts * m->sizes.act_floats + n * m->sizes.wide_floats +
                            n * d * (m->sizes.branch ? 2 : 1) + logit_rows * d +
                            logit_rows * (all_logits(m) + own_logits(m));
    m->buffer_bytes = (floats + n * (2 * m->sizes.max_used + m->sizes.max_latent_heads)) * sizeof(float) +
                      n_acts * m->sizes.act_q_bytes + m->embed_bytes;
}

static enum status alloc_floats(struct model_rank *m, size_t rows, size_t cols, float **out)
{
    uint64_t n;
    void *p = NULL;
    if (!size_mul(rows, cols, &n) || !size_mul(n, sizeof(float), &n)) return ERR_TOO_LARGE;
    enum status st = m->backend->ops->alloc(m->backend, (size_t)n, &p);
    if (st == OK) *out = p;
    return st;
}

static enum status alloc_embed_rows(struct model_rank *m)
{
    enum status st = mem_try_array((void **)&m->embed_rows, m->embed_bytes, 1);
    if (st == OK && !embeds(m)) m->embed_row = mem_alloc(weights_embed_row_bytes(&m->weights));
    if (st != OK || m->backend->caps.host_memory) {
        m->embed_device = m->embed_rows;
        return st;
    }
    return m->backend->ops->alloc(m->backend, m->embed_bytes, &m->embed_device);
}

static enum status alloc_act(struct model_rank *m, struct act *out)
{
    enum status st = alloc_floats(m, 1, m->sizes.act_floats, &out->f);
    if (st != OK || m->sizes.act_q_bytes == 0) return st;
    return m->backend->ops->alloc(m->backend, m->sizes.act_q_bytes, &out->q);
}

static size_t route_slots(const struct model_rank *m)
{
    return (size_t)m->max_rows * m->sizes.max_used;
}

static enum status alloc_route(struct model_rank *m)
{
    void *experts = NULL;
    if (m->sizes.max_used == 0) return OK;
    enum status st = m->backend->ops->alloc(m->backend, route_slots(m) * sizeof(uint32_t), &experts);
    m->route.expert = experts;
    return st == OK ? alloc_floats(m, 1, route_slots(m), &m->route.weight) : st;
}

static size_t head_slots(const struct model_rank *m)
{
    return (size_t)m->max_rows * m->sizes.max_latent_heads;
}

/* Row after row the numbers of all heads. */
static enum status alloc_heads(struct model_rank *m)
{
    const size_t n = head_slots(m);
    void *device = NULL;
    if (n == 0) return OK;
    enum status st = m->backend->ops->alloc(m->backend, n * sizeof(uint32_t), &device);
    m->heads = device;
    if (st != OK) return st;
    uint32_t *host = mem_array(n, sizeof(*host));
    for (size_t i = 0; i < n; i++) host[i] = (uint32_t)(i % m->sizes.max_latent_heads);
    st = m->backend->ops->upload(m->backend, NULL, device, host, n * sizeof(*host));
    mem_free(host);
    return st == OK ? m->backend->ops->sync(m->backend, NULL) : st; /* steps are on another stream */
}

static enum status alloc_all(struct model_rank *m)
{
    const size_t d = m->facts.info.d_model;
    enum status st = alloc_floats(m, m->max_rows, d, &m->x);
    if (st == OK) st = alloc_floats(m, m->max_rows, m->sizes.wide_floats, &m->wide);
    if (st == OK && m->sizes.branch) st = alloc_floats(m, m->max_rows, d, &m->branch);
    if (st == OK) st = alloc_act(m, &m->act);
    if (st == OK && m->coll->size > 1) st = alloc_act(m, &m->gathered);
    if (st == OK) st = alloc_route(m);
    if (st == OK) st = alloc_heads(m);
    if (st == OK && !m->weights.embed_table && m->place.stage == 0) st = alloc_embed_rows(m);
    if (st == OK) st = alloc_floats(m, MODEL_MAX_LOGIT_ROWS, d, &m->head_x);
    if (st == OK && rank_speaks(m)) st = alloc_floats(m, MODEL_MAX_LOGIT_ROWS, all_logits(m), &m->logits);
    if (st == OK && own_logits(m) > 0) st = alloc_floats(m, MODEL_MAX_LOGIT_ROWS, own_logits(m), &m->own_logits);
    return st;
}

enum status model_buffers_alloc(struct model_rank *m, struct error *err)
{
    enum status st = alloc_all(m);
    if (st != OK)
        return error_set(err, st, "the step buffers for %u rows need %llu bytes", m->max_rows,
                         (unsigned long long)m->buffer_bytes);
    if (!m->logits || m->backend->caps.host_memory) {
        m->host_logits = m->logits;
        return OK;
    }
    void *host = NULL;
    st = m->backend->ops->host_alloc(m->backend, host_logits_bytes(m), &host);
    m->host_logits = host;
    return st == OK ? OK : error_set(err, st, "logits on the host need %zu bytes", host_logits_bytes(m));
}

static void release(struct model_rank *m, void *p, size_t bytes)
{
    if (p) m->backend->ops->release(m->backend, p, bytes);
}

static void release_act(struct model_rank *m, struct act *a)
{
    release(m, a->q, m->sizes.act_q_bytes);
    release(m, a->f, m->sizes.act_floats * sizeof(float));
}

void model_buffers_release(struct model_rank *m)
{
    const size_t d = m->facts.info.d_model;
    if (m->host_logits != m->logits) m->backend->ops->host_free(m->backend, m->host_logits, host_logits_bytes(m));
    release(m, m->own_logits, MODEL_MAX_LOGIT_ROWS * own_logits(m) * sizeof(float));
    release(m, m->logits, MODEL_MAX_LOGIT_ROWS * all_logits(m) * sizeof(float));
    if (m->embed_device != m->embed_rows) release(m, m->embed_device, m->embed_bytes);
    mem_free(m->embed_row);
    mem_free(m->embed_rows);
    release(m, m->head_x, MODEL_MAX_LOGIT_ROWS * d * sizeof(float));
    release(m, m->heads, head_slots(m) * sizeof(uint32_t));
    release(m, m->route.weight, route_slots(m) * sizeof(float));
    release(m, m->route.expert, route_slots(m) * sizeof(uint32_t));
    release_act(m, &m->gathered);
    release_act(m, &m->act);
    release(m, m->branch, m->max_rows * d * sizeof(float));
    release(m, m->wide, m->max_rows * m->sizes.wide_floats * sizeof(float));
    release(m, m->x, m->max_rows * d * sizeof(float));
}
