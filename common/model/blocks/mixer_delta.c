/* mixer_delta.c - projections, convolution, the delta rule, norm and gate, back to the residual. */
#include "model/block_sizes.h"
#include "model/blocks/product.h"
#include "model/layer_cache.h"
#include "model/weights_bind.h"

static uint32_t inner_of(const struct delta *e)
{
    return e->n_v_heads * e->dim;
}

/* q, k and v. */
static uint32_t channels_of(const struct delta *e)
{
    return inner_of(e) + 2 * e->n_k_heads * e->dim;
}

/* Outputs of a batch in the wide buffer, each packed by itself. */
struct places {
    float *raw, *qkv;    /* [n][channels], before and after the convolution */
    float *z, *out;      /* [n][inner] */
    float *beta, *alpha; /* [n][n_v_heads] */
};

static size_t place_all(struct places *at, float *base, size_t n, const struct delta *e)
{
    size_t used = 0;
    at->raw = place(base, &used, n * channels_of(e));
    at->qkv = place(base, &used, n * channels_of(e));
    at->z = place(base, &used, n * inner_of(e));
    at->out = place(base, &used, n * inner_of(e));
    at->beta = place(base, &used, n * e->n_v_heads);
    at->alpha = place(base, &used, n * e->n_v_heads);
    return used;
}

/* The gates decide how much of the state stays: their error would add up, so they are fine. */
static enum status bind_gates(struct binder *b, struct delta *e, uint32_t d)
{
    const uint32_t n = e->n_v_heads, share = n / e->n_k_heads;
    const struct bind_part beta = bind_runs("ssm_ba.weight", 2 * n, 0, n, share, 2 * share);
    const struct bind_part alpha = bind_runs("ssm_ba.weight", 2 * n, share, n, share, 2 * share);
    enum status st;
    if (e->fused_gates) {
        st = bind_part(b, &beta, d, FINE, &e->beta);
        return st == OK ? bind_part(b, &alpha, d, FINE, &e->alpha) : st;
    }
    st = bind_matrix(b, "ssm_beta.weight", d, n, FINE, &e->beta);
    return st == OK ? bind_matrix(b, "ssm_alpha.weight", d, n, FINE, &e->alpha) : st;
}

static enum status bind(struct binder *b, struct layer *l)
{
    struct delta *e = &l->delta;
    const uint32_t d = bind_d_model(b), inner = inner_of(e), channels = channels_of(e), n = e->n_v_heads;
    enum status st = bind_matrix(b, "attn_qkv.weight", d, channels, FINE, &e->qkv);
    if (st == OK) st = bind_matrix(b, "attn_gate.weight", d, inner, COARSE, &e->z);
    if (st == OK) st = bind_gates(b, e, d);
    if (st == OK) st = bind_turned_vector(b, "ssm_conv1d.weight", e->kernel, channels, &e->conv);
    if (st == OK && bind_has(b, "ssm_conv1d.bias")) st = bind_vector(b, "ssm_conv1d.bias", channels, 1, &e->conv_bias);
    if (st == OK) st = bind_vector(b, "ssm_dt.bias", n, 1, &e->dt_bias);
    if (st == OK) st = bind_vector(b, "ssm_a", n, 1, &e->a);
    if (st == OK) st = bind_vector(b, "ssm_norm.weight", e->dim, 1, &e->norm);
    return st == OK ? bind_back(b, "ssm_out.weight", inner, COARSE, &e->out) : st;
}

static void size(struct block_sizes *s, const struct layer *l)
{
    struct places at;
    sizes_act(s, s->n_rows, inner_of(&l->delta), COARSE);
    sizes_wide(s, place_all(&at, NULL, 1, &l->delta));
    const double inner = inner_of(&l->delta), columns = channels_of(&l->delta) + 2 * inner + 2 * l->delta.n_v_heads;
    sizes_work(s, s->d_model * columns + 3 * inner * l->delta.dim, 0);
}

/* What the delta rule reads. */
static enum status read_inputs(struct model_rank *m, const struct delta *e, const struct places *at,
                               const struct block_io *io)
{
    const struct conv_facts conv = { .kernel = e->kernel, .w = e->conv, .bias = e->conv_bias, .silu = true };
    const uint32_t channels = channels_of(e);
    enum status st = product(m, at->raw, channels, &e->qkv, io->x, false);
    if (st == OK) st = product(m, at->z, inner_of(e), &e->z, io->x, false);
    if (st == OK) st = product(m, at->beta, e->n_v_heads, &e->beta, io->x, false);
    if (st == OK) st = product(m, at->alpha, e->n_v_heads, &e->alpha, io->x, false);
    if (st != OK) return st;
    return m->backend->ops->conv_step(m->backend, m->stream, at->qkv, channels, at->raw, channels, &conv,
                                      &io->state->parts[STATE_TAIL], &m->step);
}

static enum status forward(struct model_rank *m, const struct layer *l, const struct block_io *io)
{
    const struct backend_ops *ops = m->backend->ops;
    const struct delta *e = &l->delta;
    const uint32_t n = io->x->n, inner = inner_of(e);
    const float eps = m->facts.info.norm_eps;
    struct places at;
    place_all(&at, m->wide, n, e);
    const struct delta_inputs in = { at.qkv, channels_of(e), at.beta, at.alpha, e->n_v_heads, e->n_v_heads };
    const struct delta_facts facts = { e->n_k_heads, e->n_v_heads, eps, e->dt_bias, e->a, e->tiled };
    const struct norm_gate_facts gate = { .w = e->norm, .group = e->dim, .eps = eps };
    struct act mixed = act_of(m, n, inner, COARSE);
    enum status st = read_inputs(m, e, &at, io);
    if (st == OK)
        st = ops->delta_rule(m->backend, m->stream, at.out, inner, &in, &facts, &io->state->parts[STATE_MATRIX],
                             &m->step);
    if (st == OK) st = ops->norm_gate(m->backend, m->stream, &mixed, at.out, inner, at.z, inner, &gate);
    return st == OK ? project_back(m, io, &e->out, NULL, &mixed) : st;
}

static void cache(const struct layer *l, struct layer_cache *out)
{
    const struct delta *e = &l->delta;
    out->state.parts[STATE_TAIL] = (struct state_geometry){ channels_of(e) / e->dim, e->kernel - 1, e->dim };
    out->state.parts[STATE_MATRIX] = (struct state_geometry){ e->n_v_heads, e->dim, e->dim };
}

const struct block mixer_delta = { .name = "Gated DeltaNet",
                                   .input = FINE, /* for the gates */
                                   .bind = bind,
                                   .size = size,
                                   .forward = forward,
                                   .cache = cache };
