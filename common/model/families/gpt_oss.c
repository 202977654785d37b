/* gpt_oss.c - gpt-oss: every other layer has a sliding window, each head a sink, experts a clamped gate, and nearly all
 * matrices a bias. */
#include "model/facts.h"
#include "model/families/families.h"

static enum status read_gpt_oss(const struct meta *m, struct model_facts *f)
{
    static const struct moe_defaults ROUTER = { .gate = ROUTE_SOFTMAX_CHOSEN, .kind = GLU_OAI };
    enum status st = facts_sizes(m, f);
    if (st == OK) st = facts_attention(m, f);
    if (st == OK) st = facts_windows(m, f, 2);
    if (st == OK) st = facts_rope(m, f, ROPE_NEOX);
    if (st == OK) st = facts_glu(m, f);
    if (st == OK) st = facts_moe(m, f, &ROUTER);
    for (uint32_t i = 0; st == OK && i < f->info.n_layers; i++) {
        f->layers[i].attn.has_sinks = f->layers[i].attn.needs_bias = true;
        f->layers[i].channel_norms.before_name = "post_attention_norm.weight";
    }
    return st;
}

const struct family family_gpt_oss = { "gpt-oss", read_gpt_oss };
