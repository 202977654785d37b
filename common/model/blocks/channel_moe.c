/* channel_moe.c - the router, the experts that it chose, the shared ones.
 *
 * Everything that reads the block's input comes first: what the experts are given is written over it. */
#include "model/block_sizes.h"
#include "model/blocks/product.h"
#include "model/weights_bind.h"

#include <assert.h>

/* Outputs of a batch in the wide buffer, each packed by itself. */
struct places {
    float *logits;         /* [n][n_experts] */
    float *gate_up;        /* [n * n_used][2 * own d_ff] */
    float *down;           /* [n * n_used][own d_model] */
    float *shared_logit;   /* [n][1] */
    float *shared_gate_up; /* [n][2 * own d_ff_shared] */
    float *shared_h;       /* [n][own d_ff_shared]: others may still read the experts' activation */
    float *shared_down;    /* [n][own d_model] */
};

/* Floats in all. */
static size_t place_all(struct places *at, float *base, size_t n, const struct moe *e, size_t own_d)
{
    size_t used = 0;
    at->logits = place(base, &used, n * e->route.n_experts);
    at->gate_up = place(base, &used, n * e->n_used * 2 * shard_n(e->ff));
    at->down = place(base, &used, n * e->n_used * own_d);
    at->shared_logit = place(base, &used, n);
    at->shared_gate_up = place(base, &used, n * 2 * shard_n(e->shared_ff));
    at->shared_h = place(base, &used, n * shard_n(e->shared_ff));
    at->shared_down = place(base, &used, n * own_d);
    return used;
}

/* By rows of each expert: every rank has a part of all of them, and the whole router. */
static enum status cut(struct layer *l, uint32_t member, uint32_t size, struct error *err)
{
    l->moe.ff = shard_rows(l->moe.d_ff, member, size);
    l->moe.shared_ff = shard_rows(l->moe.d_ff_shared, member, size);
    return OK;
}

/* All experts' rows of gate or up that are this rank's; where one tensor has both, gate's rows come first. */
static struct bind_stack rows_of(const struct moe *e, const char *name, bool fused, bool is_up)
{
    const uint32_t n = e->route.n_experts, ff = e->d_ff;
    return (struct bind_stack){ .name = name,
                                .n = n,
                                .own = n,
                                .tensor_rows = fused ? 2 * ff : ff,
                                .row0 = e->ff.begin + (fused && is_up ? ff : 0),
                                .n_rows = shard_n(e->ff),
                                .used = e->n_used };
}

/* All experts' rows of down that are this rank's. */
static struct bind_stack back_rows(const struct binder *b, const struct moe *e, const char *name)
{
    const struct shard back = bind_back_rows(b);
    const uint32_t n = e->route.n_experts;
    return (struct bind_stack){ .name = name,
                                .n = n,
                                .own = n,
                                .tensor_rows = bind_d_model(b),
                                .row0 = back.begin,
                                .n_rows = shard_n(back),
                                .used = e->n_used };
}

static enum status bind_matrices(struct binder *b, struct moe *e, uint32_t d)
{
    const bool fused = bind_has(b, "ffn_gate_up_exps.weight");
    const char *const both = "ffn_gate_up_exps.weight";
    const struct bind_stack gate = rows_of(e, fused ? both : "ffn_gate_exps.weight", fused, false);
    const struct bind_stack up = rows_of(e, fused ? both : "ffn_up_exps.weight", fused, true);
    const struct bind_stack down = back_rows(b, e, "ffn_down_exps.weight");
    enum status st = bind_experts(b, &gate, d, COARSE, &e->gate);
    if (st == OK) st = bind_experts(b, &up, d, COARSE, &e->up);
    return st == OK ? bind_experts(b, &down, e->d_ff, COARSE, &e->down) : st;
}

static enum status bind_biases(struct binder *b, struct moe *e)
{
    const bool fused = bind_has(b, "ffn_gate_up_exps.bias");
    const char *const both = "ffn_gate_up_exps.bias";
    const struct bind_stack gate = rows_of(e, fused ? both : "ffn_gate_exps.bias", fused, false);
    const struct bind_stack up = rows_of(e, fused ? both : "ffn_up_exps.bias", fused, true);
    const struct bind_stack down = back_rows(b, e, "ffn_down_exps.bias");
    const uint32_t n = e->route.n_experts;
    enum status st = OK;
    if (bind_has(b, "ffn_gate_inp.bias")) st = bind_vector(b, "ffn_gate_inp.bias", n, 1, &e->router_bias);
    if (st == OK && bind_has(b, "exp_probs_b.bias")) st = bind_vector(b, "exp_probs_b.bias", n, 1, &e->route.bias);
    if (st == OK && bind_has(b, gate.name)) st = bind_vector_stack(b, &gate, &e->gate_bias);
    if (st == OK && bind_has(b, up.name)) st = bind_vector_stack(b, &up, &e->up_bias);
    if (st == OK && bind_has(b, down.name)) st = bind_vector_stack(b, &down, &e->down_bias);
    return st;
}

static enum status bind_shared(struct binder *b, struct moe *e, uint32_t d)
{
    const uint32_t n = e->d_ff_shared, r0 = e->shared_ff.begin, own = shard_n(e->shared_ff);
    const struct bind_part parts[] = { bind_rows("ffn_gate_shexp.weight", n, r0, own),
                                       bind_rows("ffn_up_shexp.weight", n, r0, own) };
    enum status st = OK;
    if (e->shared_gate) st = bind_matrix(b, "ffn_gate_inp_shexp.weight", d, 1, FINE, &e->shared_router);
    if (st == OK) st = bind_group(b, parts, 2, d, COARSE, &e->shared_gate_up);
    return st == OK ? bind_back(b, "ffn_down_shexp.weight", n, COARSE, &e->shared_down) : st;
}

static enum status bind(struct binder *b, struct layer *l)
{
    struct moe *e = &l->moe;
    const uint32_t d = bind_d_model(b);
    enum status st = bind_matrix(b, "ffn_gate_inp.weight", d, e->route.n_experts, FINE, &e->router);
    if (st == OK) st = bind_matrices(b, e, d);
    if (st == OK) st = bind_biases(b, e);
    return st == OK && e->d_ff_shared > 0 ? bind_shared(b, e, d) : st;
}

static void size(struct block_sizes *s, const struct layer *l)
{
    const struct moe *e = &l->moe;
    struct places at;
    sizes_act(s, s->n_rows * e->n_used, e->d_ff, COARSE);
    if (e->d_ff_shared > 0) sizes_act(s, s->n_rows, e->d_ff_shared, COARSE);
    sizes_wide(s, place_all(&at, NULL, 1, e, s->d_model));
    sizes_route(s, e->route.n_experts, e->n_used);
    const double d_ff = (double)e->d_ff * e->n_used + e->d_ff_shared;
    sizes_work(s, s->d_model * (3 * d_ff + e->route.n_experts), 0);
}

/* gate and up of every row's experts. */
static enum status multiply_experts(struct model_rank *m, const struct moe *e, const struct act *x,
                                    const struct route *route, float *y)
{
    const struct backend_ops *ops = m->backend->ops;
    const uint32_t own = shard_n(e->ff);
    const size_t ld = 2 * (size_t)own;
    if (own == 0) return OK;
    enum status st = product_by(m, y, ld, &e->gate, x, route, false);
    if (st == OK) st = product_by(m, y + own, ld, &e->up, x, route, false);
    if (st == OK && e->gate_bias) st = ops->expert_bias(m->backend, m->stream, y, ld, e->gate_bias, own, route);
    if (st == OK && e->up_bias) st = ops->expert_bias(m->backend, m->stream, y + own, ld, e->up_bias, own, route);
    return st;
}

/* y's own columns += what the experts make of it, weighed. */
static enum status add_experts(struct model_rank *m, const struct moe *e, const struct places *at, uint32_t n, float *y,
                               const struct route *route)
{
    const struct backend_ops *ops = m->backend->ops;
    const uint32_t d = m->facts.info.d_model, ff = shard_n(e->ff), own = shard_n(m->back);
    struct act h = act_of(m, n * e->n_used, ff, COARSE);
    enum status st = ops->glu(m->backend, m->stream, &h, at->gate_up, at->gate_up + ff, 2 * (size_t)ff, e->kind);
    if (st == OK) st = act_gather(m, &h, e->d_ff, SHARD_ROWS);
    if (st != OK || own == 0) return st;
    st = product_by(m, at->down, own, &e->down, &h, route, true);
    if (st == OK && e->down_bias) st = ops->expert_bias(m->backend, m->stream, at->down, own, e->down_bias, own, route);
    return st == OK ? ops->expert_sum(m->backend, m->stream, y + m->back.begin, d, at->down, route, own) : st;
}

/* y's own columns += what the shared experts make of it; behind a gate they are a route with one expert. */
static enum status add_shared(struct model_rank *m, const struct moe *e, const struct places *at, uint32_t n, float *y)
{
    static const struct route_facts ONE = { .gate = ROUTE_SIGMOID, .n_experts = 1, .scale = 1.0f };
    const struct backend_ops *ops = m->backend->ops;
    const uint32_t d = m->facts.info.d_model, ff = shard_n(e->shared_ff), own = shard_n(m->back);
    struct act h = { at->shared_h, m->act.q, n, ff, COARSE };
    struct route route = route_of(m, n, 1);
    enum status st =
        ops->glu(m->backend, m->stream, &h, at->shared_gate_up, at->shared_gate_up + ff, 2 * (size_t)ff, e->kind);
    if (st == OK) st = act_gather(m, &h, e->d_ff_shared, SHARD_ROWS);
    if (st != OK || own == 0) return st;
    if (!e->shared_gate) return product(m, y + m->back.begin, d, &e->shared_down, &h, true);
    if ((st = product(m, at->shared_down, own, &e->shared_down, &h, false)) != OK) return st;
    if ((st = ops->route(m->backend, m->stream, &route, at->shared_logit, 1, &ONE)) != OK) return st;
    return ops->expert_sum(m->backend, m->stream, y + m->back.begin, d, at->shared_down, &route, own);
}

static enum status forward(struct model_rank *m, const struct layer *l, const struct block_io *io)
{
    const struct backend_ops *ops = m->backend->ops;
    const struct moe *e = &l->moe;
    const uint32_t n = io->x->n, n_experts = e->route.n_experts;
    struct route route = route_of(m, n, e->n_used);
    struct places at;
    enum status st;

    assert(io->add); /* no family has a norm after its experts */
    place_all(&at, m->wide, n, e, shard_n(m->back));
    if ((st = product(m, at.logits, n_experts, &e->router, io->x, false)) != OK) return st;
    if (e->router_bias) st = ops->add_bias(m->backend, m->stream, at.logits, n_experts, e->router_bias, n, n_experts);
    if (st == OK) st = ops->route(m->backend, m->stream, &route, at.logits, n_experts, &e->route);
    if (st == OK) st = multiply_experts(m, e, io->x, &route, at.gate_up);
    if (st == OK && e->shared_gate) st = product(m, at.shared_logit, 1, &e->shared_router, io->x, false);
    if (st == OK && e->d_ff_shared > 0)
        st = project(m, at.shared_gate_up, 2 * (size_t)shard_n(e->shared_ff), &e->shared_gate_up, io->x);
    if (st == OK) st = add_experts(m, e, &at, n, io->y, &route);
    if (st == OK && e->d_ff_shared > 0) st = add_shared(m, e, &at, n, io->y);
    return st == OK ? gather_columns(m, io->y, n) : st;
}

const struct block channel_moe = {
    .name = "experts", .input = FINE /* for the router */, .cut = cut, .bind = bind, .size = size, .forward = forward
};
