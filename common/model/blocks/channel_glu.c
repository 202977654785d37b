/* channel_glu.c - the gated feed-forward. */
#include "model/block_sizes.h"
#include "model/blocks/product.h"
#include "model/weights_bind.h"

static enum status bind_biases(struct binder *b, struct glu *g)
{
    const struct bind_part both[] = { bind_whole("ffn_gate.bias", g->d_ff), bind_whole("ffn_up.bias", g->d_ff) };
    const struct bind_part fused = bind_whole("ffn_up.bias", 2 * g->d_ff);
    enum status st = OK;
    if (bind_has(b, "ffn_gate.bias") || bind_has(b, "ffn_up.bias"))
        st = bind_vectors(b, g->fused ? &fused : both, g->fused ? 1 : 2, &g->gate_up_bias);
    if (st == OK && bind_has(b, "ffn_down.bias"))
        st = bind_vector(b, "ffn_down.bias", bind_d_model(b), 1, &g->down_bias);
    return st;
}

static enum status bind(struct binder *b, struct layer *l)
{
    struct glu *g = &l->glu;
    const uint32_t d = bind_d_model(b);
    const struct bind_part both[] = { bind_whole("ffn_gate.weight", g->d_ff), bind_whole("ffn_up.weight", g->d_ff) };
    const struct bind_part fused = bind_whole("ffn_up.weight", 2 * g->d_ff);
    enum status st = bind_group(b, g->fused ? &fused : both, g->fused ? 1 : 2, d, COARSE, &g->gate_up);
    if (st == OK) st = bind_matrix(b, "ffn_down.weight", g->d_ff, d, COARSE, &g->down);
    return st == OK ? bind_biases(b, g) : st;
}

static void size(struct block_sizes *s, const struct layer *l)
{
    sizes_act(s, s->n_rows, l->glu.d_ff, COARSE);
    sizes_wide(s, 2 * (size_t)l->glu.d_ff);
}

static enum status forward(struct model *m, const struct layer *l, const struct block_io *io)
{
    const struct backend_ops *ops = m->backend->ops;
    const struct glu *g = &l->glu;
    const size_t ld = 2 * (size_t)g->d_ff;
    struct act h = act_of(m, io->x->n, g->d_ff, COARSE);
    enum status st = project(m, m->wide, ld, &g->gate_up, io->x);
    if (st == OK && g->gate_up_bias)
        st = ops->add_bias(m->backend, m->stream, m->wide, ld, g->gate_up_bias, io->x->n, (uint32_t)ld);
    if (st == OK) st = ops->glu(m->backend, m->stream, &h, m->wide, m->wide + g->d_ff, ld, g->kind);
    return st == OK ? project_back(m, io, &g->down, g->down_bias, &h) : st;
}

const struct block channel_glu = {
    .name = "gated feed-forward", .input = COARSE, .bind = bind, .size = size, .forward = forward
};
