/* deepseek2.c - DeepSeek-V2 and V3, R1, Kimi-K2, GLM-4.7-Flash: latent attention, dense layers first, then experts. */
#include "model/facts.h"
#include "model/families/families.h"

#include <math.h>

#define RANK_MAX 8192
#define DIM_MAX  1024

/* Metadata's key_length is that of the absorbed form in new files; what heads have is in the _mla keys. */
static enum status read_mla(const struct meta *m, struct mla *a)
{
    uint32_t key, value;
    enum status st = meta_u32(m, "attention.head_count", 1, 1024, &a->n_heads);
    if (st == OK) st = meta_u32_or(m, "attention.q_lora_rank", 0, 0, RANK_MAX, &a->q_rank);
    if (st == OK) st = meta_u32(m, "attention.kv_lora_rank", 1, RANK_MAX, &a->kv_rank);
    if (st == OK) st = meta_u32(m, "rope.dimension_count", 2, DIM_MAX, &a->rope);
    const bool absorbed = meta_has(m, "attention.key_length_mla");
    if (st == OK)
        st = meta_u32(m, absorbed ? "attention.key_length_mla" : "attention.key_length", a->rope + 1, DIM_MAX, &key);
    if (st == OK)
        st = meta_u32(m, absorbed ? "attention.value_length_mla" : "attention.value_length", 1, DIM_MAX, &value);
    if (st != OK) return st;
    a->nope = key - a->rope;
    a->v_dim = value;
    return OK;
}

/* Where YaRN stretches the context, scores grow in place of cos and sin. */
static enum status read_scale(const struct meta *m, struct model_facts *f, struct mla *a)
{
    float log_factor;
    enum status st = meta_f32_or(m, "rope.scaling.yarn_log_multiplier", 0.0f, 0.0f, 100.0f, &log_factor);
    a->scale = 1.0f / sqrtf((float)(a->nope + a->rope));
    if (st != OK || log_factor == 0.0f || f->rope_facts[0].scaling != ROPE_YARN) return st;
    const double grown = 1 + (double)log_factor * log((double)f->rope_facts[0].factor);
    a->scale = (float)(grown * grown / sqrt((double)(a->nope + a->rope)));
    f->rope_facts[0].magnitude = false;
    return OK;
}

/* Files without a gating function are V2's, but for those of GLM-4.7-Flash. */
static enum route_gate gate_of(const struct model_info *info)
{
    const bool glm = (info->n_layers == 47 || info->n_layers == 48) && info->n_vocab == 154880;
    return glm ? ROUTE_SIGMOID : ROUTE_SOFTMAX;
}

static enum status read_deepseek2(const struct meta *m, struct model_facts *f)
{
    struct mla a = { 0 };
    enum status st = facts_sizes(m, f);
    if (st == OK) st = read_mla(m, &a);
    if (st != OK) return st;
    f->info.n_heads = a.n_heads;
    f->info.n_kv_heads = 1;
    f->info.head_dim = a.rope; /* what positions turn */
    st = facts_rope(m, f, ROPE_NORM);
    if (st == OK) st = read_scale(m, f, &a);
    if (st == OK) st = facts_glu(m, f);
    const struct moe_defaults router = { .gate = gate_of(&f->info) };
    if (st == OK) st = facts_moe(m, f, &router);
    for (uint32_t i = 0; st == OK && i < f->info.n_layers; i++) {
        f->layers[i].mixer = &mixer_mla;
        f->layers[i].mla = a;
    }
    f->info.head_dim = a.kv_rank;
    f->info.latent = true;
    f->info.attn_scale = a.scale;
    return st;
}

const struct family family_deepseek2 = { "deepseek2", read_deepseek2 };
