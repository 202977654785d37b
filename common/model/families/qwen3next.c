/* qwen3next.c - Qwen3-Next, Qwen3.5 and 3.6: Gated DeltaNet in most layers, gated attention in the others. */
#include "model/facts.h"
#include "model/families/families.h"

#include <string.h>

#define HEADS_MAX 1024

static enum status read_delta(const struct meta *m, struct delta *e)
{
    uint32_t inner;
    enum status st = meta_u32(m, "ssm.state_size", 1, 1024, &e->dim);
    if (st == OK) st = meta_u32(m, "ssm.group_count", 1, HEADS_MAX, &e->n_k_heads);
    if (st == OK) st = meta_u32(m, "ssm.time_step_rank", 1, HEADS_MAX, &e->n_v_heads);
    if (st == OK) st = meta_u32(m, "ssm.conv_kernel", 2, 64, &e->kernel);
    if (st == OK) st = meta_u32(m, "ssm.inner_size", 1, UINT32_MAX, &inner);
    if (st != OK) return st;
    if (inner != e->n_v_heads * e->dim)
        return error_set(m->err, ERR_INVALID, "metadata key %s.ssm.inner_size is %u, %u heads of %u dimensions are %u",
                         m->family, inner, e->n_v_heads, e->dim, e->n_v_heads * e->dim);
    if (e->n_v_heads % e->n_k_heads != 0)
        return error_set(m->err, ERR_INVALID, "%s: %u value heads are not a multiple of %u key heads", m->family,
                         e->n_v_heads, e->n_k_heads);
    return OK;
}

/* Which layers have a state: said layer by layer, or all but every n-th. */
static enum status read_recurrent(const struct meta *m, const struct model_facts *f, bool *recurrent)
{
    uint32_t period;
    if (meta_has(m, "attention.recurrent_layers"))
        return meta_pattern_or(m, "attention.recurrent_layers", 0, recurrent, f->info.n_layers);
    enum status st = meta_u32_or(m, "full_attention_interval", 4, 1, MODEL_MAX_LAYERS, &period);
    for (uint32_t i = 0; st == OK && i < f->info.n_layers; i++) recurrent[i] = (i + 1) % period != 0;
    return st;
}

static enum status read_mixers(const struct meta *m, struct model_facts *f, bool tiled)
{
    bool recurrent[MODEL_MAX_LAYERS];
    struct delta e = { .tiled = tiled, .fused_gates = !tiled };
    enum status st = read_delta(m, &e);
    if (st == OK) st = read_recurrent(m, f, recurrent);
    for (uint32_t i = 0; st == OK && i < f->info.n_layers; i++) {
        struct layer *l = &f->layers[i];
        l->channel_norms.before_name = "post_attention_norm.weight";
        if (!recurrent[i]) {
            l->attn.gated = l->attn.head_norms = true;
            continue;
        }
        l->mixer = &mixer_delta;
        l->delta = e;
    }
    return st;
}

static enum status read_hybrid(const struct meta *m, struct model_facts *f)
{
    static const struct moe_defaults ROUTER = { .gate = ROUTE_SOFTMAX, .norm = true, .shared_gate = true };
    enum status st = facts_sizes(m, f);
    if (st == OK) st = facts_attention(m, f);
    if (st == OK) st = facts_rope(m, f, ROPE_NEOX);
    if (st == OK) st = read_mixers(m, f, strcmp(m->family, "qwen3next") != 0);
    if (st == OK) st = facts_glu(m, f);
    return st == OK ? facts_moe(m, f, &ROUTER) : st;
}

const struct family family_qwen3next = { "qwen3next", read_hybrid };
const struct family family_qwen35 = { "qwen35", read_hybrid };
const struct family family_qwen35moe = { "qwen35moe", read_hybrid };
