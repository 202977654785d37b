/* mixer_attention.c - q, k and v from the rows, k and v into the cache, attention from it, back to the residual. */
#include "model/block_sizes.h"
#include "model/blocks/product.h"
#include "model/layer_cache.h"
#include "model/weights_bind.h"

/* q, k and v of a row lie side by side, the gate after them. */
struct qkv {
    size_t k, v, gate, ld;
};

static struct qkv qkv_of(const struct attention *a)
{
    const size_t q = (size_t)shard_n(a->heads) * a->head_dim, kv = (size_t)shard_n(a->kv_heads) * a->head_dim;
    return (struct qkv){ .k = q, .v = q + kv, .gate = q + 2 * kv, .ld = q + 2 * kv + (a->gated ? q : 0) };
}

/* By query heads; a kv head is with every rank that has one of its query heads. */
static enum status cut(struct layer *l, uint32_t member, uint32_t size, struct error *err)
{
    struct attention *a = &l->attn;
    if (size > a->n_heads)
        return error_set(err, ERR_INVALID, "tp is %u, but a layer has only %u heads", size, a->n_heads);
    a->heads = shard_units(a->n_heads, member, size);
    a->kv_heads = shard_kv_heads(a->heads, a->n_heads, a->n_kv_heads);
    a->facts.group = a->n_heads / a->n_kv_heads;
    a->facts.first = a->heads.begin - a->kv_heads.begin * a->facts.group;
    return OK;
}

enum { Q, K, V };

/* Where this rank's q, k and v are in the file: in tensors of their own, or one after the other in a fused one. */
static void find_parts(const struct binder *b, const struct attention *a, bool bias, struct bind_part parts[3])
{
    static const char *const NAMES[2][3] = { { "attn_q.weight", "attn_k.weight", "attn_v.weight" },
                                             { "attn_q.bias", "attn_k.bias", "attn_v.bias" } };
    const char *const fused = bias ? "attn_qkv.bias" : "attn_qkv.weight";
    const uint32_t n[3] = { a->n_heads, a->n_kv_heads, a->n_kv_heads }, dim = a->head_dim;
    const struct shard own[3] = { a->heads, a->kv_heads, a->kv_heads };
    const bool is_fused = bind_has(b, fused);
    for (uint32_t i = 0, row = 0; i < 3; row += n[i++] * dim)
        parts[i] = bind_rows(is_fused ? fused : NAMES[bias][i], (is_fused ? n[Q] + n[K] + n[V] : n[i]) * dim,
                             (is_fused ? row : 0) + own[i].begin * dim, shard_n(own[i]) * dim);
}

/* Biases of q, k and v are one vector, as their outputs lie side by side. */
static enum status bind_bias(struct binder *b, struct attention *a)
{
    struct bind_part parts[3];
    bool any = a->needs_bias;
    find_parts(b, a, true, parts);
    for (int i = 0; i < 3; i++) any = any || bind_has(b, parts[i].name);
    return any ? bind_vectors(b, parts, 3, &a->qkv_bias) : OK;
}

static enum status bind_gated_q(struct binder *b, struct attention *a, uint32_t d)
{
    const uint32_t dim = a->head_dim, all = 2 * a->n_heads * dim, own = shard_n(a->heads) * dim;
    const uint32_t row0 = 2 * a->heads.begin * dim;
    const struct bind_part query = bind_runs("attn_q.weight", all, row0, own, dim, 2 * dim);
    const struct bind_part gate = bind_runs("attn_q.weight", all, row0 + dim, own, dim, 2 * dim);
    enum status st = bind_part(b, &query, d, COARSE, &a->q);
    return st == OK ? bind_part(b, &gate, d, COARSE, &a->gate) : st;
}

static enum status bind(struct binder *b, struct layer *l)
{
    struct attention *a = &l->attn;
    const uint32_t d = bind_d_model(b), q = a->n_heads * a->head_dim;
    const struct bind_part sinks = bind_rows("attn_sinks.weight", a->n_heads, a->heads.begin, shard_n(a->heads));
    struct bind_part parts[3];
    find_parts(b, a, false, parts);
    enum status st = a->gated ? bind_gated_q(b, a, d) : bind_part(b, &parts[Q], d, COARSE, &a->q);
    if (st == OK) st = bind_group(b, &parts[K], 2, d, FINE, &a->kv);
    if (st == OK) st = bind_bias(b, a);
    if (st == OK && a->head_norms) st = bind_vector(b, "attn_q_norm.weight", a->head_dim, 1, &a->q_norm);
    if (st == OK && a->head_norms) st = bind_vector(b, "attn_k_norm.weight", a->head_dim, 1, &a->k_norm);
    if (st == OK && a->has_sinks) st = bind_vectors(b, &sinks, 1, &a->facts.sinks);
    if (st == OK) st = bind_back(b, "attn_output.weight", q, COARSE, &a->out);
    if (st == OK && bind_has(b, "attn_output.bias")) st = bind_back_bias(b, "attn_output.bias", &a->out_bias);
    return st;
}

static void size(struct block_sizes *s, const struct layer *l)
{
    const struct attention *a = &l->attn;
    sizes_act(s, s->n_rows, a->n_heads * a->head_dim, COARSE);
    sizes_wide(s, qkv_of(a).ld);
    sizes_heads(s, a->n_heads, a->head_dim);
    const double q = (double)a->n_heads * a->head_dim;
    sizes_work(s, s->d_model * ((double)qkv_of(a).ld + q), 2 * q);
}

static enum status norm_heads(struct model_rank *m, const struct attention *a, uint32_t n)
{
    const struct backend_ops *ops = m->backend->ops;
    const struct qkv at = qkv_of(a);
    const uint32_t n_heads = shard_n(a->heads), n_kv = shard_n(a->kv_heads), dim = a->head_dim;
    const float eps = m->facts.info.norm_eps;
    enum status st = ops->head_norm(m->backend, m->stream, m->wide, at.ld, n, n_heads, dim, a->q_norm, eps);
    if (st != OK) return st;
    return ops->head_norm(m->backend, m->stream, m->wide + at.k, at.ld, n, n_kv, dim, a->k_norm, eps);
}

/* RoPE of q and k, and k and v into the cache: one pass where the backend has one. */
static enum status turn_and_store(struct model_rank *m, const struct attention *a, const struct kv_slices *kv)
{
    const struct backend_ops *ops = m->backend->ops;
    const struct qkv at = qkv_of(a);
    const struct rope_params *rope = a->rope == ROPE_NONE ? NULL : &m->facts.rope[a->rope];
    const uint32_t n_heads = shard_n(a->heads);
    enum status st = OK;
    if (rope && ops->rope_kv_write)
        return ops->rope_kv_write(m->backend, m->stream, m->wide, at.ld, n_heads, at.k, at.v, kv, rope, &m->step);
    if (rope)
        st =
            ops->rope(m->backend, m->stream, m->wide, at.ld, n_heads + shard_n(a->kv_heads), &kv->geom, rope, &m->step);
    if (st != OK) return st;
    return ops->kv_write(m->backend, m->stream, m->wide + at.k, m->wide + at.v, at.ld, kv, &m->step);
}

static enum status forward(struct model_rank *m, const struct layer *l, const struct block_io *io)
{
    const struct backend_ops *ops = m->backend->ops;
    const struct attention *a = &l->attn;
    const struct qkv at = qkv_of(a);
    const uint32_t n = io->x->n, n_heads = shard_n(a->heads);
    struct act mixed = act_of(m, n, n_heads * a->head_dim, COARSE);
    enum status st;

    if ((st = product(m, m->wide, at.ld, &a->q, io->x, false)) != OK) return st;
    if ((st = project(m, m->wide + at.k, at.ld, &a->kv, io->x)) != OK) return st;
    if (a->gated && (st = product(m, m->wide + at.gate, at.ld, &a->gate, io->x, false)) != OK) return st;
    if (a->qkv_bias) st = ops->add_bias(m->backend, m->stream, m->wide, at.ld, a->qkv_bias, n, (uint32_t)at.gate);
    if (st == OK && a->head_norms) st = norm_heads(m, a, n);
    if (st != OK) return st;
    if ((st = turn_and_store(m, a, io->kv)) != OK) return st;
    st = ops->attention(m->backend, m->stream, &mixed, m->wide, at.ld, n_heads, io->kv, &a->facts, &m->step);
    if (st == OK && a->gated) st = ops->gate_act(m->backend, m->stream, &mixed, m->wide + at.gate, at.ld);
    if (st == OK) st = act_gather(m, &mixed, a->n_heads * a->head_dim, a->head_dim);
    return st == OK ? project_back(m, io, &a->out, a->out_bias, &mixed) : st;
}

static void cache(const struct layer *l, struct layer_cache *out)
{
    const struct attention *a = &l->attn;
    out->kv = (struct kv_geometry){ .n_kv_heads = shard_n(a->kv_heads), .head_dim = a->head_dim };
    out->kv_held = held_run(a->n_kv_heads, shard_run(a->kv_heads));
    out->window = a->facts.window;
}

const struct block mixer_attention = { .name = "attention",
                                       .input = FINE, /* for k and v */
                                       .cut = cut,
                                       .bind = bind,
                                       .size = size,
                                       .forward = forward,
                                       .cache = cache };
