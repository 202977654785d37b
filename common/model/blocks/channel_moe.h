/* channel_moe.h - a mixture of experts: a router sends each row to a few gated feed-forwards and weighs what they give;
 * shared experts take every row. */
#ifndef MODEL_BLOCKS_CHANNEL_MOE_H
#define MODEL_BLOCKS_CHANNEL_MOE_H
#include "model/weight_group.h"
#include "parallel/shard.h"

struct moe {
    uint32_t n_used, d_ff;      /* of a row; of one expert */
    struct shard ff, shared_ff; /* this rank's rows of each expert, and of the shared ones */
    uint32_t d_ff_shared;       /* of the shared experts together; 0: there are none */
    enum glu_kind kind;
    struct route_facts route; /* bias: a weight */
    bool shared_gate;         /* what the shared experts give is weighed by a sigmoid of its own */

    struct weight router, gate, up, down;
    const float *router_bias;                     /* of the logits; NULL if there is none, as the others */
    const float *gate_bias, *up_bias, *down_bias; /* [n_experts][..] */
    struct weight shared_router, shared_down;
    struct weight_group shared_gate_up;
};

extern const struct block channel_moe;
#endif
