/* llama.c - Llama 1 to 3.3, Mistral, SmolLM2, Yi and many that are merged from them. */
#include "model/facts.h"
#include "model/families/families.h"

static enum status read_llama(const struct meta *m, struct model_facts *f)
{
    enum status st = facts_sizes(m, f);
    if (st == OK) st = facts_end_at_window(m, f);
    if (st == OK) st = meta_refuse_above_zero(m, "expert_count", "a mixture of experts");
    if (st == OK) st = facts_attention(m, f);
    if (st == OK) st = facts_rope(m, f, ROPE_NORM);
    return st == OK ? facts_glu(m, f) : st;
}

const struct family family_llama = { "llama", read_llama };
