/* qwen3.c - Qwen3: q and k are normed head by head. */
#include "model/facts.h"
#include "model/families/families.h"

static enum status read_qwen3(const struct meta *m, struct model_facts *f)
{
    enum status st = facts_sizes(m, f);
    if (st == OK) st = facts_end_at_window(m, f);
    if (st == OK) st = facts_attention(m, f);
    if (st == OK) st = facts_rope(m, f, ROPE_NEOX);
    if (st == OK) facts_head_norms(f);
    return st == OK ? facts_glu(m, f) : st;
}

const struct family family_qwen3 = { "qwen3", read_qwen3 };
