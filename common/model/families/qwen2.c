/* qwen2.c - Qwen2, Qwen2.5, QwQ and what was distilled into them: q, k and v have biases. */
#include "model/facts.h"
#include "model/families/families.h"

static enum status read_qwen2(const struct meta *m, struct model_facts *f)
{
    enum status st = facts_sizes(m, f);
    if (st == OK) st = facts_end_at_window(m, f);
    if (st == OK) st = facts_attention(m, f);
    for (uint32_t i = 0; st == OK && i < f->info.n_layers; i++) f->layers[i].attn.needs_bias = true;
    if (st == OK) st = facts_rope(m, f, ROPE_NEOX);
    return st == OK ? facts_glu(m, f) : st;
}

const struct family family_qwen2 = { "qwen2", read_qwen2 };
