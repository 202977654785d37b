/* mixer_mamba2.h - Mamba-2: a state per head that decays and takes in what a convolution gives. */
#ifndef MODEL_BLOCKS_MIXER_MAMBA2_H
#define MODEL_BLOCKS_MIXER_MAMBA2_H
#include "model/weight_group.h"
#include "parallel/shard.h"

struct mamba2 {
    uint32_t n_heads, head_dim; /* head_dim values of each */
    uint32_t n_groups, state;   /* heads of a group share B and C, `state` values each */
    uint32_t kernel;            /* positions of the convolution */
    struct shard heads, groups; /* this rank's; a group is with every rank that has one of its heads */

    struct weight_group in; /* the gate, then what is convolved */
    struct weight dt, out;
    const float *conv, *conv_bias;
    const float *dt_bias, *a, *d, *norm;
};

extern const struct block mixer_mamba2;
#endif
