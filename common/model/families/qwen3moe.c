/* qwen3moe.c - Qwen3-30B-A3B, 235B and Coder: Qwen3 with experts. */
#include "model/facts.h"
#include "model/families/families.h"

static enum status read_qwen3moe(const struct meta *m, struct model_facts *f)
{
    static const struct moe_defaults ROUTER = { .gate = ROUTE_SOFTMAX, .norm = true };
    enum status st = facts_sizes(m, f);
    if (st == OK) st = facts_attention(m, f);
    if (st == OK) st = facts_rope(m, f, ROPE_NEOX);
    if (st == OK) facts_head_norms(f);
    if (st == OK) st = facts_glu(m, f);
    return st == OK ? facts_moe(m, f, &ROUTER) : st;
}

const struct family family_qwen3moe = { "qwen3moe", read_qwen3moe };
