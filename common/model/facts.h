/* facts.h - what most families' metadata has in common, read into facts and into the rows of all layers.
 *
 * A family's read() calls what it needs of these, in this order, and then changes what is its own. */
#ifndef MODEL_FACTS_H
#define MODEL_FACTS_H
#include "model/family.h"
#include "model/meta.h"

enum rope_layout { ROPE_NORM /* pairs (2i, 2i + 1) */, ROPE_NEOX /* pairs (i, i + dims/2) */ };

/* Layers, widths, context, vocabulary, the norms' eps; makes the rows, with "attn_norm" and "ffn_norm" before the
 * blocks. */
enum status facts_sizes(const struct meta *m, struct model_facts *f) MUST_CHECK;
/* Heads of every layer, and softmax attention with a scale of 1 / sqrt(head_dim) as their mixer. */
enum status facts_attention(const struct meta *m, struct model_facts *f) MUST_CHECK;
/* Where windows are not supported: within its window, a model with sliding attention is one without. */
enum status facts_end_at_window(const struct meta *m, struct model_facts *f) MUST_CHECK;
/* Layers that attend to a window only; where attention.sliding_window_pattern is missing, all but every `period`-th.
 * ERR_PARSE, ERR_INVALID: the window is missing or 0. */
enum status facts_windows(const struct meta *m, struct model_facts *f, uint32_t period) MUST_CHECK;
/* RMS norms of each head's q and k. */
void facts_head_norms(struct model_facts *f);
/* The first table of positions. */
enum status facts_rope(const struct meta *m, struct model_facts *f, enum rope_layout layout) MUST_CHECK;
/* What a family's routers have in common where metadata says nothing. */
struct moe_defaults {
    enum route_gate gate;
    bool norm;
    enum glu_kind kind;
    bool shared_gate;
};
/* Experts as the channel of the layers from leading_dense_block_count on, where the file has experts at all. */
enum status facts_moe(const struct meta *m, struct model_facts *f, const struct moe_defaults *def) MUST_CHECK;
/* A gated feed-forward as the channel of every layer. */
enum status facts_glu(const struct meta *m, struct model_facts *f) MUST_CHECK;
#endif
