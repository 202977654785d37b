/* channel_glu.c - the gated feed-forward. */
#include "model/block_sizes.h"
#include "model/blocks/product.h"
#include "model/weights_bind.h"

static enum status cut(struct layer *l, uint32_t member, uint32_t size, struct error *err)
{
    l->glu.ff = shard_rows(l->glu.d_ff, member, size);
    return OK;
}

/* This rank's rows of gate and up, in tensors of their own or one after the other in a fused one. */
static void find_parts(const struct glu *g, const char *gate, const char *up, struct bind_part parts[2])
{
    const uint32_t n = g->d_ff, r0 = g->ff.begin, own = shard_n(g->ff);
    parts[0] = g->fused ? bind_rows(up, 2 * n, r0, own) : bind_rows(gate, n, r0, own);
    parts[1] = g->fused ? bind_rows(up, 2 * n, n + r0, own) : bind_rows(up, n, r0, own);
}

static enum status bind_biases(struct binder *b, struct glu *g)
{
    struct bind_part parts[2];
    enum status st = OK;
    find_parts(g, "ffn_gate.bias", "ffn_up.bias", parts);
    if (bind_has(b, parts[0].name) || bind_has(b, parts[1].name)) st = bind_vectors(b, parts, 2, &g->gate_up_bias);
    if (st == OK && bind_has(b, "ffn_down.bias")) st = bind_back_bias(b, "ffn_down.bias", &g->down_bias);
    return st;
}

static enum status bind(struct binder *b, struct layer *l)
{
    struct glu *g = &l->glu;
    struct bind_part parts[2];
    find_parts(g, "ffn_gate.weight", "ffn_up.weight", parts);
    enum status st = bind_group(b, parts, 2, bind_d_model(b), COARSE, &g->gate_up);
    if (st == OK) st = bind_back(b, "ffn_down.weight", g->d_ff, COARSE, &g->down);
    return st == OK ? bind_biases(b, g) : st;
}

static void size(struct block_sizes *s, const struct layer *l)
{
    sizes_act(s, s->n_rows, l->glu.d_ff, COARSE);
    sizes_wide(s, 2 * (size_t)shard_n(l->glu.ff));
    sizes_work(s, 3.0 * s->d_model * l->glu.d_ff, 0);
}

static enum status forward(struct model_rank *m, const struct layer *l, const struct block_io *io)
{
    const struct backend_ops *ops = m->backend->ops;
    const struct glu *g = &l->glu;
    const uint32_t own = shard_n(g->ff);
    const size_t ld = 2 * (size_t)own;
    struct act h = act_of(m, io->x->n, own, COARSE);
    enum status st = project(m, m->wide, ld, &g->gate_up, io->x);
    if (st == OK && g->gate_up_bias)
        st = ops->add_bias(m->backend, m->stream, m->wide, ld, g->gate_up_bias, io->x->n, (uint32_t)ld);
    if (st == OK) st = ops->glu(m->backend, m->stream, &h, m->wide, m->wide + own, ld, g->kind);
    if (st == OK) st = act_gather(m, &h, g->d_ff, SHARD_ROWS);
    return st == OK ? project_back(m, io, &g->down, g->down_bias, &h) : st;
}

const struct block channel_glu = {
    .name = "gated feed-forward", .input = COARSE, .cut = cut, .bind = bind, .size = size, .forward = forward
};
