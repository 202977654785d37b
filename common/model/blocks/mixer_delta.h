/* mixer_delta.h - Gated DeltaNet: linear attention whose state is corrected by what it would have answered. */
#ifndef MODEL_BLOCKS_MIXER_DELTA_H
#define MODEL_BLOCKS_MIXER_DELTA_H
#include "model/weight_group.h"
#include "parallel/shard.h"

struct delta {
    uint32_t dim; /* of a head's keys and values */
    uint32_t n_k_heads, n_v_heads;
    uint32_t kernel;          /* positions of the convolution */
    bool tiled;               /* v head h has the key head h mod n_k_heads, and not h / (n_v_heads / n_k_heads) */
    bool fused_gates;         /* one ssm_ba: per key head beta of its v heads, then alpha */
    struct shard keys;        /* this rank's key heads */
    struct shard_runs values; /* and the v heads that read them */

    struct weight_group qkv;
    struct weight z, beta, alpha, out;
    const float *conv, *conv_bias; /* [kernel][channels]; NULL if there is none */
    const float *dt_bias, *a, *norm;
};

extern const struct block mixer_delta;
#endif
