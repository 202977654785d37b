/* channel_glu.h - a gated feed-forward: down(act(gate(x)) * up(x)). */
#ifndef MODEL_BLOCKS_CHANNEL_GLU_H
#define MODEL_BLOCKS_CHANNEL_GLU_H
#include "model/weight_group.h"
#include "parallel/shard.h"

struct glu {
    uint32_t d_ff;
    struct shard ff; /* columns of gate and up that are this rank's */
    enum glu_kind kind;
    bool fused; /* ffn_up has the gate's rows, then its own */

    struct weight_group gate_up;
    struct weight down;
    const float *gate_up_bias, *down_bias; /* NULL if there is none */
};

extern const struct block channel_glu;
#endif
