/* llama.c - Llama 1 to 3.3, Mistral, SmolLM2, Yi, Mixtral and many that are merged from them. */
#include "model/facts.h"
#include "model/families/families.h"

static enum status read_llama(const struct meta *m, struct model_facts *f)
{
    static const struct moe_defaults ROUTER = { .gate = ROUTE_SOFTMAX, .norm = true };
    enum status st = facts_sizes(m, f);
    if (st == OK) st = facts_end_at_window(m, f);
    if (st == OK) st = facts_attention(m, f);
    if (st == OK) st = facts_rope(m, f, ROPE_NORM);
    if (st == OK) st = facts_glu(m, f);
    return st == OK ? facts_moe(m, f, &ROUTER) : st;
}

const struct family family_llama = { "llama", read_llama };
