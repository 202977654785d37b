/* channel_glu.h - a gated feed-forward: down(act(gate(x)) * up(x)). */
#ifndef MODEL_BLOCKS_CHANNEL_GLU_H
#define MODEL_BLOCKS_CHANNEL_GLU_H
#include "model/weight_group.h"

struct glu {
    uint32_t d_ff;

    struct weight_group gate_up;
    struct weight down;
};

extern const struct block channel_glu;
#endif
