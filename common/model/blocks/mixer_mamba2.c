/* mixer_mamba2.c - projection, convolution, scan, gate and norm, back to the residual. */
#include "model/block_sizes.h"
#include "model/blocks/product.h"
#include "model/layer_cache.h"
#include "model/weights_bind.h"

static uint32_t inner_of(const struct mamba2 *e)
{
    return e->n_heads * e->head_dim;
}

/* x, B and C. */
static uint32_t channels_of(const struct mamba2 *e)
{
    return inner_of(e) + 2 * e->n_groups * e->state;
}

/* Outputs of a batch in the wide buffer, each packed by itself. */
struct places {
    float *in;  /* [n][inner + channels] */
    float *xbc; /* [n][channels] */
    float *dt;  /* [n][n_heads] */
    float *out; /* [n][inner] */
};

static size_t place_all(struct places *at, float *base, size_t n, const struct mamba2 *e)
{
    size_t used = 0;
    at->in = place(base, &used, n * (inner_of(e) + channels_of(e)));
    at->xbc = place(base, &used, n * channels_of(e));
    at->dt = place(base, &used, n * e->n_heads);
    at->out = place(base, &used, n * inner_of(e));
    return used;
}

static enum status bind(struct binder *b, struct layer *l)
{
    struct mamba2 *e = &l->mamba2;
    const uint32_t d = bind_d_model(b), inner = inner_of(e), channels = channels_of(e), n = e->n_heads;
    const uint32_t wide = inner + channels;
    const struct bind_part in = bind_rows("ssm_in.weight", wide + n, 0, wide);
    const struct bind_part dt = bind_rows("ssm_in.weight", wide + n, wide, n);
    enum status st = bind_part(b, &in, d, FINE, &e->in);
    if (st == OK) st = bind_part(b, &dt, d, FINE, &e->dt); /* it says how much of the state stays */
    if (st == OK) st = bind_turned_vector(b, "ssm_conv1d.weight", e->kernel, channels, &e->conv);
    if (st == OK && bind_has(b, "ssm_conv1d.bias")) st = bind_vector(b, "ssm_conv1d.bias", channels, 1, &e->conv_bias);
    if (st == OK) st = bind_vector(b, "ssm_dt.bias", n, 1, &e->dt_bias);
    if (st == OK) st = bind_vector(b, "ssm_a", 1, n, &e->a);
    if (st == OK) st = bind_vector(b, "ssm_d", 1, n, &e->d);
    if (st == OK) st = bind_vector(b, "ssm_norm.weight", inner / e->n_groups, e->n_groups, &e->norm);
    return st == OK ? bind_back(b, "ssm_out.weight", inner, COARSE, &e->out) : st;
}

static void size(struct block_sizes *s, const struct layer *l)
{
    struct places at;
    sizes_act(s, s->n_rows, inner_of(&l->mamba2), COARSE);
    sizes_wide(s, place_all(&at, NULL, 1, &l->mamba2));
    const double inner = inner_of(&l->mamba2), columns = channels_of(&l->mamba2) + 2 * inner + l->mamba2.n_heads;
    sizes_work(s, s->d_model * columns + 2 * inner * l->mamba2.state, 0);
}

static enum status forward(struct model_rank *m, const struct layer *l, const struct block_io *io)
{
    const struct backend_ops *ops = m->backend->ops;
    const struct mamba2 *e = &l->mamba2;
    const uint32_t n = io->x->n, inner = inner_of(e), channels = channels_of(e), ld = inner + channels;
    struct places at;
    place_all(&at, m->wide, n, e);
    const struct conv_facts conv = { .kernel = e->kernel, .w = e->conv, .bias = e->conv_bias, .silu = true };
    const struct mamba2_inputs in = { at.xbc, channels, at.dt, e->n_heads };
    const struct mamba2_facts facts = { e->n_heads, e->n_groups, e->dt_bias, e->a, e->d };
    const struct norm_gate_facts gate = { .w = e->norm,
                                          .group = inner / e->n_groups,
                                          .eps = m->facts.info.norm_eps,
                                          .w_per_column = true,
                                          .gate_first = true };
    struct act mixed = act_of(m, n, inner, COARSE);
    enum status st = product(m, at.in, ld, &e->in, io->x, false);
    if (st == OK) st = product(m, at.dt, e->n_heads, &e->dt, io->x, false);
    if (st == OK)
        st = ops->conv_step(m->backend, m->stream, at.xbc, channels, at.in + inner, ld, &conv,
                            &io->state->parts[STATE_TAIL], &m->step);
    if (st == OK)
        st = ops->mamba2_scan(m->backend, m->stream, at.out, inner, &in, &facts, &io->state->parts[STATE_MATRIX],
                              &m->step);
    if (st == OK) st = ops->norm_gate(m->backend, m->stream, &mixed, at.out, inner, at.in, ld, &gate);
    return st == OK ? project_back(m, io, &e->out, NULL, &mixed) : st;
}

/* The tail's runs of channels suit any cut by heads or by groups. */
static uint32_t common_divisor(uint32_t a, uint32_t b)
{
    while (b != 0) {
        const uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static void cache(const struct layer *l, struct layer_cache *out)
{
    const struct mamba2 *e = &l->mamba2;
    const uint32_t run = common_divisor(e->head_dim, e->state);
    out->state.parts[STATE_TAIL] = (struct state_geometry){ channels_of(e) / run, e->kernel - 1, run };
    out->state.parts[STATE_MATRIX] = (struct state_geometry){ e->n_heads, e->state, e->head_dim };
}

const struct block mixer_mamba2 = { .name = "Mamba-2",
                                    .input = FINE, /* for dt */
                                    .bind = bind,
                                    .size = size,
                                    .forward = forward,
                                    .cache = cache };
