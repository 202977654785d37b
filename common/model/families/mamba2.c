/* mamba2.c - Mamba-2: layers of one block, without positions and without a feed-forward. */
#include "model/facts.h"
#include "model/families/families.h"

#define HEADS_MAX 4096

static enum status check_shapes(const struct meta *m, const struct mamba2 *e, uint32_t inner)
{
    if (inner % e->n_heads != 0)
        return error_set(m->err, ERR_INVALID, "metadata key %s.ssm.inner_size is %u, no multiple of %u heads",
                         m->family, inner, e->n_heads);
    if (e->n_heads % e->n_groups != 0)
        return error_set(m->err, ERR_INVALID, "%s: %u heads do not fall into %u groups of equal size", m->family,
                         e->n_heads, e->n_groups);
    return OK;
}

static enum status read_mamba2(const struct meta *m, struct model_facts *f)
{
    struct mamba2 e = { 0 };
    uint32_t inner;
    enum status st = facts_sizes(m, f);
    if (st == OK) st = meta_u32(m, "ssm.time_step_rank", 1, HEADS_MAX, &e.n_heads);
    if (st == OK) st = meta_u32(m, "ssm.inner_size", 1, 1u << 20, &inner);
    if (st == OK) st = meta_u32(m, "ssm.state_size", 1, 1024, &e.state);
    if (st == OK) st = meta_u32_or(m, "ssm.group_count", 1, 1, HEADS_MAX, &e.n_groups);
    if (st == OK) st = meta_u32(m, "ssm.conv_kernel", 2, 64, &e.kernel);
    if (st == OK) st = check_shapes(m, &e, inner);
    if (st != OK) return st;
    e.head_dim = inner / e.n_heads;
    for (uint32_t i = 0; i < f->info.n_layers; i++) {
        f->layers[i].mixer = &mixer_mamba2;
        f->layers[i].mamba2 = e;
        f->layers[i].channel_norms.before_name = NULL;
    }
    return OK;
}

const struct family family_mamba2 = { "mamba2", read_mamba2 };
