/* gemma.c - Gemma 2 and 3: norms on both sides of each block, GELU gates, embeddings that are scaled, and layers with
 * a sliding window between full ones. */
#include "model/facts.h"
#include "model/families/families.h"

#include <math.h>

#define CAP_MAX 1e6f

/* Both have in common; `large` layers: the model whose scores are scaled by its width. */
static enum status read_common(const struct meta *m, struct model_facts *f, uint32_t large, uint32_t period)
{
    enum status st = facts_sizes(m, f);
    if (st == OK) st = facts_attention(m, f);
    if (st == OK) st = facts_windows(m, f, period);
    if (st == OK) st = facts_rope(m, f, ROPE_NEOX);
    if (st == OK) st = facts_glu(m, f);
    if (st != OK) return st;
    f->embed_scale = sqrtf((float)f->info.d_model);
    for (uint32_t i = 0; i < f->info.n_layers; i++) {
        struct layer *l = &f->layers[i];
        l->glu.kind = GLU_GELU;
        l->mixer_norms.after_name = "post_attention_norm.weight";
        l->channel_norms.after_name = "post_ffw_norm.weight";
        if (f->info.n_layers == large)
            l->attn.facts.scale = 1.0f / sqrtf((float)f->info.d_model / (float)l->attn.n_heads);
    }
    return OK;
}

static enum status read_gemma2(const struct meta *m, struct model_facts *f)
{
    float cap;
    enum status st = read_common(m, f, 46, 2);
    if (st == OK) st = meta_f32_or(m, "attn_logit_softcapping", 50.0f, 0.0f, CAP_MAX, &cap);
    if (st == OK) st = meta_f32_or(m, "final_logit_softcapping", 30.0f, 0.0f, CAP_MAX, &f->logit_cap);
    for (uint32_t i = 0; st == OK && i < f->info.n_layers; i++) f->layers[i].attn.facts.softcap = cap;
    return st;
}

/* Sliding layers have positions of their own: another base, and no scaling. */
static enum status read_sliding_rope(const struct meta *m, struct model_facts *f)
{
    struct rope_facts *sliding = &f->rope_facts[1];
    *sliding = f->rope_facts[0];
    sliding->scaling = ROPE_PLAIN;
    f->n_ropes = 2;
    for (uint32_t i = 0; i < f->info.n_layers; i++)
        if (f->layers[i].attn.facts.window > 0) f->layers[i].attn.rope = 1;
    return meta_f32_or(m, "rope.freq_base_swa", 10000.0f, 1.0f, 1e12f, &sliding->base);
}

static enum status read_gemma3(const struct meta *m, struct model_facts *f)
{
    enum status st = read_common(m, f, 62, 6);
    if (st == OK) st = meta_f32_or(m, "final_logit_softcapping", 0.0f, 0.0f, CAP_MAX, &f->logit_cap);
    if (st == OK) st = read_sliding_rope(m, f);
    if (st == OK) facts_head_norms(f);
    return st;
}

const struct family family_gemma2 = { "gemma2", read_gemma2 };
const struct family family_gemma3 = { "gemma3", read_gemma3 };
