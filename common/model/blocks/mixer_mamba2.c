/* mixer_mamba2.c - projection, convolution, scan, gate and norm, back to the residual. */
#include "model/block_sizes.h"
#include "model/blocks/product.h"
#include "model/layer_cache.h"
#include "model/weights_bind.h"
#include "parallel/ranks.h"

/* All values, and those of the rank's heads. */
static uint32_t inner_of(const struct mamba2 *e)
{
    return e->n_heads * e->head_dim;
}

static uint32_t own_of(const struct mamba2 *e)
{
    return shard_n(e->heads) * e->head_dim;
}

/* The rank's x, B and C. */
static uint32_t channels_of(const struct mamba2 *e)
{
    return own_of(e) + 2 * shard_n(e->groups) * e->state;
}

/* Members share out whole groups.  Where there are more of them than groups, each has heads of one. */
static struct shard heads_of_member(const struct mamba2 *e, uint32_t member, uint32_t size)
{
    const uint32_t n = e->n_groups, share = e->n_heads / n;
    if (size <= n) {
        const struct shard groups = shard_units(n, member, size);
        return (struct shard){ groups.begin * share, groups.end * share };
    }
    const uint32_t group = member * n / size; /* of members [first, next) */
    const uint32_t first = (group * size + n - 1) / n, next = ((group + 1) * size + n - 1) / n;
    const struct shard heads = shard_units(share, member - first, next - first);
    return (struct shard){ group * share + heads.begin, group * share + heads.end };
}

static enum status cut(struct layer *l, uint32_t member, uint32_t size, struct error *err)
{
    struct mamba2 *e = &l->mamba2;
    if (size > e->n_heads)
        return error_set(err, ERR_INVALID, "tp is %u, but a layer has only %u heads", size, e->n_heads);
    e->heads = heads_of_member(e, member, size);
    e->groups = shard_kv_heads(e->heads, e->n_heads, e->n_groups);
    return OK;
}

/* Outputs of a batch in the wide buffer, each packed by itself. */
struct places {
    float *in;   /* [n][own + channels] */
    float *xbc;  /* [n][channels] */
    float *dt;   /* [n][own heads] */
    float *out;  /* [n][inner]; the rank's columns stand at their place */
    float *gate; /* the same, where several ranks share it out */
};

static size_t place_all(struct places *at, float *base, size_t n, const struct mamba2 *e)
{
    size_t used = 0;
    at->in = place(base, &used, n * (own_of(e) + channels_of(e)));
    at->xbc = place(base, &used, n * channels_of(e));
    at->dt = place(base, &used, n * shard_n(e->heads));
    at->out = place(base, &used, n * inner_of(e));
    at->gate = place(base, &used, own_of(e) < inner_of(e) ? n * inner_of(e) : 0);
    return used;
}

/* All that is convolved, the model's: x, then B, then C, in units of `unit` channels; and which of it is the rank's. */
static struct held convolved(const struct mamba2 *e, uint32_t unit)
{
    const uint32_t head = e->head_dim / unit, group = e->state / unit, b = e->n_heads * head,
                   c = b + e->n_groups * group;
    const struct shard_runs groups = shard_run(e->groups);
    return (struct held){ .n_heads = c + e->n_groups * group,
                          .n_runs = 3,
                          .runs = { shard_widen(shard_run(e->heads), head, 0), shard_widen(groups, group, b),
                                    shard_widen(groups, group, c) } };
}

/* The rank's x, B and C in a tensor of n_rows rows, behind `before` others. */
static void find_convolved(const struct mamba2 *e, const char *name, uint32_t n_rows, uint32_t before,
                           struct bind_part parts[HELD_RUNS])
{
    const struct held channels = convolved(e, 1);
    for (uint32_t i = 0; i < HELD_RUNS; i++) parts[i] = bind_units(name, n_rows, before, channels.runs[i], 1);
}

static enum status bind_in(struct binder *b, struct mamba2 *e)
{
    const uint32_t d = bind_d_model(b), inner = inner_of(e), dt0 = inner + convolved(e, 1).n_heads,
                   n = dt0 + e->n_heads;
    const struct bind_part dt = bind_units("ssm_in.weight", n, dt0, shard_run(e->heads), 1);
    struct bind_part in[1 + HELD_RUNS] = { bind_units("ssm_in.weight", n, 0, shard_run(e->heads), e->head_dim) };
    find_convolved(e, "ssm_in.weight", n, inner, in + 1);
    enum status st = bind_group(b, in, 1 + HELD_RUNS, d, FINE, &e->in);
    return st == OK ? bind_part(b, &dt, d, FINE, &e->dt) : st; /* it says how much of the state stays */
}

static enum status bind_conv(struct binder *b, struct mamba2 *e)
{
    const uint32_t n = convolved(e, 1).n_heads;
    struct bind_part w[HELD_RUNS], bias[HELD_RUNS];
    find_convolved(e, "ssm_conv1d.weight", n, 0, w);
    find_convolved(e, "ssm_conv1d.bias", n, 0, bias);
    enum status st = bind_turned_vector(b, w, HELD_RUNS, e->kernel, &e->conv);
    return st == OK && bind_has(b, bias[0].name) ? bind_vectors(b, bias, HELD_RUNS, &e->conv_bias) : st;
}

static enum status bind(struct binder *b, struct layer *l)
{
    struct mamba2 *e = &l->mamba2;
    const uint32_t inner = inner_of(e), n = e->n_heads, first = e->heads.begin, own = shard_n(e->heads);
    const struct bind_part dt_bias = bind_units("ssm_dt.bias", n, 0, shard_run(e->heads), 1);
    const struct bind_stack a = { "ssm_a", n, first, own, 1, 0, 1 }, skip = { "ssm_d", n, first, own, 1, 0, 1 };
    enum status st = bind_in(b, e);
    if (st == OK) st = bind_conv(b, e);
    if (st == OK) st = bind_vectors(b, &dt_bias, 1, &e->dt_bias);
    if (st == OK) st = bind_vector_stack(b, &a, &e->a);
    if (st == OK) st = bind_vector_stack(b, &skip, &e->d);
    if (st == OK) st = bind_vector(b, "ssm_norm.weight", inner / e->n_groups, e->n_groups, &e->norm);
    return st == OK ? bind_back(b, "ssm_out.weight", inner, COARSE, &e->out) : st;
}

static void size(struct block_sizes *s, const struct layer *l)
{
    const struct mamba2 *e = &l->mamba2;
    struct places at;
    sizes_act(s, s->n_rows, inner_of(e), COARSE);
    sizes_wide(s, place_all(&at, NULL, 1, e));
    const double inner = inner_of(e), columns = 3 * inner + 2.0 * e->n_groups * e->state + e->n_heads;
    sizes_work(s, s->d_model * columns + 2 * inner * e->state, 0);
}

/* The rank's columns of out and of the gate, which its rows of `in` begin with. */
static enum status scan(struct model_rank *m, const struct mamba2 *e, const struct places *at,
                        const struct block_io *io)
{
    const struct backend_ops *ops = m->backend->ops;
    const uint32_t own = own_of(e), channels = channels_of(e), ld = own + channels, n_heads = shard_n(e->heads);
    const struct conv_facts conv = { .kernel = e->kernel, .w = e->conv, .bias = e->conv_bias, .silu = true };
    const struct mamba2_inputs in = { at->xbc, channels, at->dt, n_heads };
    const struct mamba2_facts facts = { n_heads, shard_n(e->groups), e->dt_bias, e->a, e->d };
    float *out = at->out + (size_t)e->heads.begin * e->head_dim;
    enum status st = project(m, at->in, ld, &e->in, io->x);
    if (st == OK) st = product(m, at->dt, n_heads, &e->dt, io->x, false);
    if (st == OK)
        st = ops->conv_step(m->backend, m->stream, at->xbc, channels, at->in + own, ld, &conv,
                            &io->state->parts[STATE_TAIL], &m->step);
    if (st != OK) return st;
    return ops->mamba2_scan(m->backend, m->stream, out, inner_of(e), &in, &facts, &io->state->parts[STATE_MATRIX],
                            &m->step);
}

/* A group that is normed has columns of several ranks: it is put together before, with its gate. */
static enum status gather(struct model_rank *m, const struct mamba2 *e, const struct places *at, uint32_t n)
{
    const uint32_t size = m->coll->size, inner = inner_of(e), ld = own_of(e) + channels_of(e);
    const float *own = at->out + (size_t)e->heads.begin * e->head_dim;
    size_t begin[RANKS_MAX_TP + 1];
    for (uint32_t r = 0; r < size; r++)
        begin[r] = (size_t)heads_of_member(e, r, size).begin * e->head_dim * sizeof(float);
    begin[size] = inner * sizeof(float);
    enum status st = gather_floats(m, at->out, own, inner, n, begin);
    return st == OK ? gather_floats(m, at->gate, at->in, ld, n, begin) : st;
}

static enum status forward(struct model_rank *m, const struct layer *l, const struct block_io *io)
{
    const struct mamba2 *e = &l->mamba2;
    const uint32_t n = io->x->n, inner = inner_of(e);
    struct places at;
    place_all(&at, m->wide, n, e);
    const bool alone = own_of(e) == inner;
    const float *gate = alone ? at.in : at.gate;
    const size_t gate_ld = alone ? inner + channels_of(e) : inner;
    const struct norm_gate_facts facts = { .w = e->norm,
                                           .group = inner / e->n_groups,
                                           .eps = m->facts.info.norm_eps,
                                           .w_per_column = true,
                                           .gate_first = true };
    struct act mixed = act_of(m, n, inner, COARSE);
    enum status st = scan(m, e, &at, io);
    if (st == OK && !alone) st = gather(m, e, &at, n);
    if (st == OK) st = m->backend->ops->norm_gate(m->backend, m->stream, &mixed, at.out, inner, gate, gate_ld, &facts);
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
    struct state_layer_geometry *s = &out->state;
    s->held[STATE_TAIL] = convolved(e, run);
    s->held[STATE_MATRIX] = held_run(e->n_heads, shard_run(e->heads));
    s->parts[STATE_TAIL] = (struct state_geometry){ channels_of(e) / run, e->kernel - 1, run };
    s->parts[STATE_MATRIX] = (struct state_geometry){ shard_n(e->heads), e->state, e->head_dim };
}

const struct block mixer_mamba2 = { .name = "Mamba-2",
                                    .input = FINE, /* for dt */
                                    .cut = cut,
                                    .bind = bind,
                                    .size = size,
                                    .forward = forward,
                                    .cache = cache };
