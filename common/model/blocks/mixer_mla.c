/* mixer_mla.c - latent attention in its absorbed form.
 *
 * k_b and v_b hold a matrix per head: products by a route that never changes, head h to matrix h. */
#include "model/block_sizes.h"
#include "model/blocks/product.h"
#include "model/layer_cache.h"
#include "model/weights_bind.h"

/* Outputs of a batch in the wide buffer, each packed by itself. */
struct places {
    float *kv;       /* [n][kv_rank + rope]: the latent, then the part with positions */
    float *q_a;      /* [n][q_rank] */
    float *q_nope;   /* [n * n_heads][nope] */
    float *q_rope;   /* [n][n_heads * rope] */
    float *q_latent; /* [n * n_heads][kv_rank] */
    float *values;   /* [n * n_heads][v_dim] */
};

/* Floats in all. */
static size_t place_all(struct places *at, float *base, size_t n, const struct mla *a)
{
    size_t used = 0;
    at->kv = place(base, &used, n * (a->kv_rank + a->rope));
    at->q_a = place(base, &used, n * a->q_rank);
    at->q_nope = place(base, &used, n * shard_n(a->heads) * a->nope);
    at->q_rope = place(base, &used, n * shard_n(a->heads) * a->rope);
    at->q_latent = place(base, &used, n * shard_n(a->heads) * a->kv_rank);
    at->values = place(base, &used, n * shard_n(a->heads) * a->v_dim);
    return used;
}

/* By heads; the latent is with every rank. */
static enum status cut(struct layer *l, uint32_t member, uint32_t size, struct error *err)
{
    struct mla *a = &l->mla;
    if (size > a->n_heads)
        return error_set(err, ERR_INVALID, "tp is %u, but a layer has only %u heads", size, a->n_heads);
    a->heads = shard_units(a->n_heads, member, size);
    return OK;
}

/* Each head's query has a part without positions and one with them. */
static enum status bind_queries(struct binder *b, struct mla *a, uint32_t d)
{
    const char *const name = a->q_rank ? "attn_q_b.weight" : "attn_q.weight";
    const uint32_t head = a->nope + a->rope, all = a->n_heads * head, cols = a->q_rank ? a->q_rank : d;
    const uint32_t row0 = a->heads.begin * head, own = shard_n(a->heads);
    const struct bind_part nope = bind_runs(name, all, row0, own * a->nope, a->nope, head);
    const struct bind_part rope = bind_runs(name, all, row0 + a->nope, own * a->rope, a->rope, head);
    enum status st = OK;
    if (a->q_rank) st = bind_matrix(b, "attn_q_a.weight", d, a->q_rank, COARSE, &a->q_a);
    if (st == OK && a->q_rank) st = bind_vector(b, "attn_q_a_norm.weight", a->q_rank, 1, &a->q_norm);
    if (st == OK) st = bind_part(b, &nope, cols, COARSE, &a->q_nope);
    return st == OK ? bind_part(b, &rope, cols, COARSE, &a->q_rope) : st;
}

/* New files have the keys' matrices turned for the absorbed form; older ones have keys' and values' rows in turn. */
static enum status bind_unfolding(struct binder *b, struct mla *a)
{
    const uint32_t both = a->nope + a->v_dim, all = a->n_heads * both, own = shard_n(a->heads);
    const uint32_t row0 = a->heads.begin * both;
    const struct bind_part k = bind_runs("attn_kv_b.weight", all, row0, own * a->nope, a->nope, both);
    const struct bind_part v = bind_runs("attn_kv_b.weight", all, row0 + a->nope, own * a->v_dim, a->v_dim, both);
    const struct bind_stack k_b = { "attn_k_b.weight", a->n_heads, a->heads.begin, own, a->kv_rank, 0, a->kv_rank };
    const struct bind_stack v_b = { "attn_v_b.weight", a->n_heads, a->heads.begin, own, a->v_dim, 0, a->v_dim };
    enum status st;
    if (bind_has(b, "attn_kv_b.weight")) {
        st = bind_turned_runs(b, &k, a->kv_rank, COARSE, &a->k_b);
        return st == OK ? bind_runs_apart(b, &v, a->kv_rank, COARSE, &a->v_b) : st;
    }
    st = bind_experts(b, &k_b, a->nope, COARSE, &a->k_b);
    return st == OK ? bind_experts(b, &v_b, a->kv_rank, COARSE, &a->v_b) : st;
}

static enum status bind(struct binder *b, struct layer *l)
{
    struct mla *a = &l->mla;
    const uint32_t d = bind_d_model(b);
    enum status st = bind_matrix(b, "attn_kv_a_mqa.weight", d, a->kv_rank + a->rope, FINE, &a->kv_a);
    if (st == OK) st = bind_vector(b, "attn_kv_a_norm.weight", a->kv_rank, 1, &a->kv_norm);
    if (st == OK) st = bind_queries(b, a, d);
    if (st == OK) st = bind_unfolding(b, a);
    return st == OK ? bind_back(b, "attn_output.weight", a->n_heads * a->v_dim, COARSE, &a->out) : st;
}

static void size(struct block_sizes *s, const struct layer *l)
{
    const struct mla *a = &l->mla;
    const uint32_t own = shard_n(a->heads);
    struct places at;
    sizes_act(s, s->n_rows, a->q_rank, COARSE);
    sizes_act(s, s->n_rows * own, a->nope, COARSE);
    sizes_act(s, s->n_rows * own, a->kv_rank, COARSE);
    sizes_act(s, s->n_rows, a->n_heads * a->v_dim, COARSE);
    sizes_wide(s, place_all(&at, NULL, 1, a));
    sizes_heads(s, own, a->rope);
    sizes_latent(s, own, a->kv_rank);
    const double d = s->d_model, heads = a->n_heads, key = a->nope + a->rope;
    const double q = a->q_rank ? a->q_rank * (d + heads * key) : d * heads * key;
    const double unfolding = heads * a->kv_rank * (a->nope + a->v_dim);
    sizes_work(s, q + d * (a->kv_rank + a->rope) + unfolding + heads * a->v_dim * d,
               heads * (2.0 * a->kv_rank + a->rope));
}

/* The latent, normed, and what has positions, turned, into the cache. */
static enum status store_latent(struct model_rank *m, const struct mla *a, const struct places *at,
                                const struct block_io *io, const struct kv_geometry *turned,
                                const struct rope_params *rope)
{
    const struct backend_ops *ops = m->backend->ops;
    const size_t ld = a->kv_rank + a->rope;
    enum status st = product(m, at->kv, ld, &a->kv_a, io->x, false);
    if (st == OK)
        st = ops->head_norm(m->backend, m->stream, at->kv, ld, io->x->n, 1, a->kv_rank, a->kv_norm,
                            m->facts.info.norm_eps);
    if (st == OK) st = ops->rope(m->backend, m->stream, at->kv + a->kv_rank, ld, 1, turned, rope, &m->step);
    if (st != OK) return st;
    return ops->latent_write(m->backend, m->stream, at->kv, ld, at->kv + a->kv_rank, ld, io->kv, &m->step);
}

/* Queries over latents, and their parts with positions. */
static enum status make_queries(struct model_rank *m, const struct mla *a, const struct places *at, const struct act *x,
                                const struct kv_geometry *turned, const struct rope_params *rope)
{
    const struct backend_ops *ops = m->backend->ops;
    const uint32_t n = x->n, own = shard_n(a->heads);
    const struct route heads = heads_of(m, n, own);
    const size_t rope_ld = (size_t)own * a->rope;
    struct act q_a = act_of(m, n, a->q_rank, COARSE);
    struct act nope = { at->q_nope, m->act.q, n * own, a->nope, COARSE };
    const struct act *in = a->q_rank ? &q_a : x;
    enum status st = OK;
    if (a->q_rank) st = product(m, at->q_a, a->q_rank, &a->q_a, x, false);
    if (st == OK && a->q_rank)
        st = ops->rmsnorm(m->backend, m->stream, &q_a, at->q_a, a->q_norm, m->facts.info.norm_eps);
    if (st == OK) st = product(m, at->q_nope, (size_t)own * a->nope, &a->q_nope, in, false);
    if (st == OK) st = product(m, at->q_rope, rope_ld, &a->q_rope, in, false);
    if (st == OK) st = ops->rope(m->backend, m->stream, at->q_rope, rope_ld, own, turned, rope, &m->step);
    if (st == OK) st = ops->quantize(m->backend, m->stream, &nope); /* x is of no more use */
    if (st != OK) return st;
    return product_by(m, at->q_latent, a->kv_rank, &a->k_b, &nope, &heads, true);
}

static enum status forward(struct model_rank *m, const struct layer *l, const struct block_io *io)
{
    const struct backend_ops *ops = m->backend->ops;
    const struct mla *a = &l->mla;
    const uint32_t n = io->x->n, own = shard_n(a->heads);
    const struct kv_geometry turned = { .n_kv_heads = 1, .head_dim = a->rope };
    const struct route heads = heads_of(m, n, own);
    struct act mixed = act_of(m, n * own, a->kv_rank, COARSE);
    struct places at;
    place_all(&at, m->wide, n, a);
    struct act values = { at.values, m->act.q, n, own * a->v_dim, COARSE };
    enum status st = store_latent(m, a, &at, io, &turned, &m->facts.rope[0]);
    if (st == OK) st = make_queries(m, a, &at, io->x, &turned, &m->facts.rope[0]);
    if (st == OK)
        st = ops->attention_latent(m->backend, m->stream, &mixed, at.q_latent, a->kv_rank, at.q_rope,
                                   (size_t)own * a->rope, a->rope, own, io->kv, a->scale, &m->step);
    if (st == OK) st = product_by(m, at.values, a->v_dim, &a->v_b, &mixed, &heads, true);
    if (st == OK) st = ops->quantize(m->backend, m->stream, &values);
    if (st == OK) st = act_gather(m, &values, a->n_heads * a->v_dim, a->v_dim);
    return st == OK ? project_back(m, io, &a->out, NULL, &values) : st;
}

static void cache(const struct layer *l, struct layer_cache *out)
{
    out->kv =
        (struct kv_geometry){ .n_kv_heads = 1, .head_dim = l->mla.kv_rank, .kind = KV_LATENT, .rope_dim = l->mla.rope };
    out->kv_held = held_all(1);
}

const struct block mixer_mla = { .name = "latent attention",
                                 .input = FINE, /* for the latent */
                                 .cut = cut,
                                 .bind = bind,
                                 .size = size,
                                 .forward = forward,
                                 .cache = cache };
