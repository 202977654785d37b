/* mixer_attention.h - softmax attention over K and V of every position, of one kv head per group of query heads. */
#ifndef MODEL_BLOCKS_MIXER_ATTENTION_H
#define MODEL_BLOCKS_MIXER_ATTENTION_H
#include "model/weight_group.h"
#include "parallel/shard.h"

#define ROPE_NONE UINT32_MAX /* positions are not told to this layer */

struct attention {
    uint32_t n_heads, n_kv_heads, head_dim;
    struct shard heads, kv_heads; /* this rank's */
    struct attn_facts facts;      /* sinks: a weight */
    uint32_t rope;                /* which of the model's tables, or ROPE_NONE */
    bool needs_bias;              /* of q, k and v; elsewhere they may be there */
    bool head_norms;              /* of q and k, before RoPE */
    bool gated;                   /* attn_q has, for each head, its query and then a gate of what the head gives */
    bool has_sinks;

    struct weight q, gate, out;
    struct weight_group kv;
    const float *q_norm, *k_norm;     /* [head_dim] */
    const float *qkv_bias, *out_bias; /* NULL if there is none */
};

extern const struct block mixer_attention;
#endif
