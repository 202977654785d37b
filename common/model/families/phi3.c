/* phi3.c - Phi-3, Phi-3.5 and Phi-4: q, k and v in one tensor, gate and up in another, LongRoPE. */
#include "model/facts.h"
#include "model/families/families.h"

static enum status read_phi3(const struct meta *m, struct model_facts *f)
{
    enum status st = facts_sizes(m, f);
    if (st == OK) st = facts_end_at_window(m, f);
    if (st == OK) st = facts_attention(m, f);
    if (st == OK) st = facts_rope(m, f, ROPE_NEOX);
    if (st == OK) st = facts_glu(m, f);
    for (uint32_t i = 0; st == OK && i < f->info.n_layers; i++) f->layers[i].glu.fused = true;
    return st;
}

const struct family family_phi3 = { "phi3", read_phi3 };
