/* mixer_delta.c - projections, convolution, the delta rule, norm and gate, back to the residual. */
#include "model/block_sizes.h"
#include "model/blocks/product.h"
#include "model/layer_cache.h"
#include "model/weights_bind.h"

/* v heads of a key head. */
static uint32_t share_of(const struct delta *e)
{
    return e->n_v_heads / e->n_k_heads;
}

/* The rank's values. */
static uint32_t inner_of(const struct delta *e)
{
    return e->values.n * e->dim;
}

/* Its q, k and v. */
static uint32_t channels_of(const struct delta *e)
{
    return inner_of(e) + 2 * shard_n(e->keys) * e->dim;
}

/* By key heads, each with the v heads that read it: nothing is computed twice. */
static enum status cut(struct layer *l, uint32_t member, uint32_t size, struct error *err)
{
    struct delta *e = &l->delta;
    const uint32_t share = share_of(e);
    if (size > e->n_k_heads)
        return error_set(err, ERR_INVALID, "tp is %u, but a layer has only %u key heads", size, e->n_k_heads);
    e->keys = shard_units(e->n_k_heads, member, size);
    e->values = e->tiled ? shard_tiles(e->keys, share, e->n_k_heads) : shard_widen(shard_run(e->keys), share, 0);
    return OK;
}

/* All heads that are convolved, the model's: q, then k, then v; and which of them are the rank's. */
static struct held convolved(const struct delta *e)
{
    const struct shard_runs keys = shard_run(e->keys);
    return (struct held){ .n_heads = 2 * e->n_k_heads + e->n_v_heads,
                          .n_runs = 3,
                          .runs = { keys, shard_widen(keys, 1, e->n_k_heads),
                                    shard_widen(e->values, 1, 2 * e->n_k_heads) } };
}

/* Outputs of a batch in the wide buffer, each packed by itself. */
struct places {
    float *raw, *qkv;    /* [n][channels], before and after the convolution */
    float *z, *out;      /* [n][inner] */
    float *beta, *alpha; /* [n][v heads] */
};

static size_t place_all(struct places *at, float *base, size_t n, const struct delta *e)
{
    size_t used = 0;
    at->raw = place(base, &used, n * channels_of(e));
    at->qkv = place(base, &used, n * channels_of(e));
    at->z = place(base, &used, n * inner_of(e));
    at->out = place(base, &used, n * inner_of(e));
    at->beta = place(base, &used, n * e->values.n);
    at->alpha = place(base, &used, n * e->values.n);
    return used;
}

/* The gates decide how much of the state stays: their error would add up, so they are fine. */
static enum status bind_gates(struct binder *b, struct delta *e, uint32_t d)
{
    const uint32_t n = e->n_v_heads, share = share_of(e), own = e->values.n, row0 = 2 * e->keys.begin * share;
    const bool fused = e->fused_gates;
    const struct bind_part beta = fused ? bind_runs("ssm_ba.weight", 2 * n, row0, own, share, 2 * share)
                                        : bind_units("ssm_beta.weight", n, 0, e->values, 1);
    const struct bind_part alpha = fused ? bind_runs("ssm_ba.weight", 2 * n, row0 + share, own, share, 2 * share)
                                         : bind_units("ssm_alpha.weight", n, 0, e->values, 1);
    enum status st = bind_part(b, &beta, d, FINE, &e->beta);
    return st == OK ? bind_part(b, &alpha, d, FINE, &e->alpha) : st;
}

/* The rank's q, k and v in a tensor of all, each head `width` rows. */
static void find_convolved(const struct delta *e, const char *name, uint32_t width, struct bind_part parts[HELD_RUNS])
{
    const struct held heads = convolved(e);
    for (uint32_t i = 0; i < HELD_RUNS; i++)
        parts[i] = bind_units(name, heads.n_heads * width, 0, heads.runs[i], width);
}

static enum status bind_conv(struct binder *b, struct delta *e)
{
    struct bind_part w[HELD_RUNS], bias[HELD_RUNS];
    find_convolved(e, "ssm_conv1d.weight", e->dim, w);
    find_convolved(e, "ssm_conv1d.bias", e->dim, bias);
    enum status st = bind_turned_vector(b, w, HELD_RUNS, e->kernel, &e->conv);
    return st == OK && bind_has(b, bias[0].name) ? bind_vectors(b, bias, HELD_RUNS, &e->conv_bias) : st;
}

static enum status bind(struct binder *b, struct layer *l)
{
    struct delta *e = &l->delta;
    const uint32_t d = bind_d_model(b), n = e->n_v_heads, inner = n * e->dim;
    const struct bind_part z = bind_units("attn_gate.weight", inner, 0, e->values, e->dim);
    const struct bind_part dt_bias = bind_units("ssm_dt.bias", n, 0, e->values, 1);
    const struct bind_part a = bind_units("ssm_a", n, 0, e->values, 1);
    struct bind_part qkv[HELD_RUNS];
    find_convolved(e, "attn_qkv.weight", e->dim, qkv);
    enum status st = bind_group(b, qkv, HELD_RUNS, d, FINE, &e->qkv);
    if (st == OK) st = bind_part(b, &z, d, COARSE, &e->z);
    if (st == OK) st = bind_gates(b, e, d);
    if (st == OK) st = bind_conv(b, e);
    if (st == OK) st = bind_vectors(b, &dt_bias, 1, &e->dt_bias);
    if (st == OK) st = bind_vectors(b, &a, 1, &e->a);
    if (st == OK) st = bind_vector(b, "ssm_norm.weight", e->dim, 1, &e->norm);
    return st == OK ? bind_back(b, "ssm_out.weight", inner, COARSE, &e->out) : st;
}

static void size(struct block_sizes *s, const struct layer *l)
{
    const struct delta *e = &l->delta;
    struct places at;
    sizes_act(s, s->n_rows, e->n_v_heads * e->dim, COARSE);
    sizes_wide(s, place_all(&at, NULL, 1, e));
    const double inner = (double)e->n_v_heads * e->dim, keys = (double)e->n_k_heads * e->dim;
    sizes_work(s, s->d_model * (2 * keys + 3 * inner + 2 * e->n_v_heads) + 3 * inner * e->dim, 0);
}

/* What the delta rule reads. */
static enum status read_inputs(struct model_rank *m, const struct delta *e, const struct places *at,
                               const struct block_io *io)
{
    const struct conv_facts conv = { .kernel = e->kernel, .w = e->conv, .bias = e->conv_bias, .silu = true };
    const uint32_t channels = channels_of(e);
    enum status st = project(m, at->raw, channels, &e->qkv, io->x);
    if (st == OK) st = product(m, at->z, inner_of(e), &e->z, io->x, false);
    if (st == OK) st = product(m, at->beta, e->values.n, &e->beta, io->x, false);
    if (st == OK) st = product(m, at->alpha, e->values.n, &e->alpha, io->x, false);
    if (st != OK) return st;
    return m->backend->ops->conv_step(m->backend, m->stream, at->qkv, channels, at->raw, channels, &conv,
                                      &io->state->parts[STATE_TAIL], &m->step);
}

static enum status forward(struct model_rank *m, const struct layer *l, const struct block_io *io)
{
    const struct backend_ops *ops = m->backend->ops;
    const struct delta *e = &l->delta;
    const uint32_t n = io->x->n, inner = inner_of(e);
    const uint32_t unit = (e->tiled ? 1 : share_of(e)) * e->dim; /* of a key head, in a tile or in all */
    const float eps = m->facts.info.norm_eps;
    struct places at;
    place_all(&at, m->wide, n, e);
    const struct delta_inputs in = { at.qkv, channels_of(e), at.beta, at.alpha, e->values.n, e->values.n };
    const struct delta_facts facts = { shard_n(e->keys), e->values.n, eps, e->dt_bias, e->a, e->tiled };
    const struct norm_gate_facts gate = { .w = e->norm, .group = e->dim, .eps = eps };
    struct act mixed = act_of(m, n, inner, COARSE);
    enum status st = read_inputs(m, e, &at, io);
    if (st == OK)
        st = ops->delta_rule(m->backend, m->stream, at.out, inner, &in, &facts, &io->state->parts[STATE_MATRIX],
                             &m->step);
    if (st == OK) st = ops->norm_gate(m->backend, m->stream, &mixed, at.out, inner, at.z, inner, &gate);
    if (st == OK) st = act_gather_tiles(m, &mixed, e->n_v_heads * e->dim, unit, e->tiled ? share_of(e) : 1);
    return st == OK ? project_back(m, io, &e->out, NULL, &mixed) : st;
}

static void cache(const struct layer *l, struct layer_cache *out)
{
    const struct delta *e = &l->delta;
    struct state_layer_geometry *s = &out->state;
    s->held[STATE_TAIL] = convolved(e);
    s->held[STATE_MATRIX] = held_run(e->n_v_heads, e->values);
    s->parts[STATE_TAIL] = (struct state_geometry){ channels_of(e) / e->dim, e->kernel - 1, e->dim };
    s->parts[STATE_MATRIX] = (struct state_geometry){ e->values.n, e->dim, e->dim };
}

const struct block mixer_delta = { .name = "Gated DeltaNet",
                                   .input = FINE, /* for the gates */
                                   .cut = cut,
                                   .bind = bind,
                                   .size = size,
                                   .forward = forward,
                                   .cache = cache };
