/* channel_glu.c - the gated feed-forward. */
#include "model/block_sizes.h"
#include "model/blocks/product.h"
#include "model/weights_bind.h"

static enum status bind(struct binder *b, struct layer *l)
{
    struct glu *g = &l->glu;
    const uint32_t d = bind_d_model(b);
    const struct bind_part parts[] = { bind_whole("ffn_gate.weight", g->d_ff), bind_whole("ffn_up.weight", g->d_ff) };
    enum status st = bind_group(b, parts, 2, d, COARSE, &g->gate_up);
    return st == OK ? bind_matrix(b, "ffn_down.weight", g->d_ff, d, COARSE, &g->down) : st;
}

static void size(struct block_sizes *s, const struct layer *l)
{
    sizes_act(s, s->n_rows, l->glu.d_ff, COARSE);
    sizes_wide(s, 2 * (size_t)l->glu.d_ff);
}

static enum status forward(struct model *m, const struct layer *l, const struct block_io *io)
{
    const struct glu *g = &l->glu;
    const size_t ld = 2 * (size_t)g->d_ff;
    struct act h = act_of(m, io->x->n, g->d_ff, COARSE);
    enum status st = project(m, m->wide, ld, &g->gate_up, io->x);
    if (st == OK) st = m->backend->ops->glu(m->backend, m->stream, &h, m->wide, m->wide + g->d_ff, ld, GLU_SILU);
    return st == OK ? project_back(m, io, &g->down, NULL, &h) : st;
}

const struct block channel_glu = {
    .name = "gated feed-forward", .input = COARSE, .bind = bind, .size = size, .forward = forward
};
