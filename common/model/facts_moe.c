/* facts_moe.c - what metadata says of routers and experts. */
#include "model/facts.h"

#include <stdio.h>

#define EXPERTS_MAX 4096
#define D_FF_MAX    (1u << 20)

static enum status check_groups(const struct meta *m, const struct route_facts *r)
{
    if (r->n_groups > 1 && r->n_experts % r->n_groups != 0)
        return error_set(m->err, ERR_INVALID, "%s: %u experts do not fall into %u groups of equal size", m->family,
                         r->n_experts, r->n_groups);
    if (r->n_groups > 1 && r->n_experts / r->n_groups < 2)
        return error_set(m->err, ERR_INVALID, "%s: %u experts in %u groups, a group has at least 2", m->family,
                         r->n_experts, r->n_groups);
    if (r->n_groups_used > r->n_groups)
        return error_set(m->err, ERR_INVALID, "%s: %u groups of experts are used, there are %u", m->family,
                         r->n_groups_used, r->n_groups);
    return OK;
}

static enum status read_route(const struct meta *m, struct route_facts *r, const struct moe_defaults *def)
{
    uint32_t gate;
    enum status st = meta_u32_or(m, "expert_gating_func", 0, 0, ROUTE_SQRT_SOFTPLUS, &gate);
    r->gate = gate ? (enum route_gate)gate : def->gate;
    if (st == OK) st = meta_bool_or(m, "expert_weights_norm", def->norm, &r->norm);
    if (st == OK) st = meta_f32_or(m, "expert_weights_scale", 1.0f, 0.0f, 1e6f, &r->scale);
    if (r->scale == 0.0f) r->scale = 1.0f;
    if (st == OK) st = meta_u32_or(m, "expert_group_count", 1, 0, EXPERTS_MAX, &r->n_groups);
    if (st == OK) st = meta_u32_or(m, "expert_group_used_count", r->n_groups, 0, EXPERTS_MAX, &r->n_groups_used);
    return st == OK ? check_groups(m, r) : st;
}

/* Experts used of a row must be there, and outside of groups that are not used there are enough. */
static enum status check_used(const struct meta *m, const struct moe *e)
{
    const struct route_facts *r = &e->route;
    const uint32_t open = r->n_groups > 1 ? r->n_experts / r->n_groups * r->n_groups_used : r->n_experts;
    char key[META_KEY_MAX];
    if (e->n_used <= open) return OK;
    return error_set(m->err, ERR_INVALID, "metadata key %s is %u, a row has %u experts to choose from",
                     meta_key(m, key, "expert_used_count"), e->n_used, open);
}

static enum status read_widths(const struct meta *m, const struct model_facts *f, struct moe *e)
{
    uint32_t n_shared;
    enum status st = meta_u32_or(m, "expert_feed_forward_length", f->info.d_ff, 1, D_FF_MAX, &e->d_ff);
    if (st == OK) st = meta_u32_or(m, "expert_shared_count", 0, 0, EXPERTS_MAX, &n_shared);
    if (st != OK) return st;
    if ((uint64_t)n_shared * e->d_ff > D_FF_MAX)
        return error_set(m->err, ERR_TOO_LARGE, "%s: %u shared experts of %u columns", m->family, n_shared, e->d_ff);
    return meta_u32_or(m, "expert_shared_feed_forward_length", n_shared * e->d_ff, 0, D_FF_MAX, &e->d_ff_shared);
}

enum status facts_moe(const struct meta *m, struct model_facts *f, const struct moe_defaults *def)
{
    struct moe e = { .kind = def->kind };
    uint32_t first;
    enum status st = meta_u32_or(m, "expert_count", 0, 0, EXPERTS_MAX, &e.route.n_experts);
    if (st != OK || e.route.n_experts == 0) return st;
    st = meta_u32(m, "expert_used_count", 1, EXPERTS_MAX, &e.n_used);
    if (st == OK) st = read_widths(m, f, &e);
    if (st == OK) st = read_route(m, &e.route, def);
    if (st == OK) st = check_used(m, &e);
    if (st == OK) st = meta_u32_or(m, "leading_dense_block_count", 0, 0, f->info.n_layers, &first);
    e.shared_gate = def->shared_gate && e.d_ff_shared > 0;
    for (uint32_t i = 0; st == OK && i < f->info.n_layers; i++) {
        if (i < first) continue;
        f->layers[i].channel = &channel_moe;
        f->layers[i].moe = e;
    }
    return st;
}
