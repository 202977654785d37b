/* mixer_mla.h - multi-head latent attention: what the cache has of a token is one vector that all heads share, from
 * which each head's keys and values would unfold.  They never do: the keys' matrix goes into the queries, the values'
 * matrix follows the sum. */
#ifndef MODEL_BLOCKS_MIXER_MLA_H
#define MODEL_BLOCKS_MIXER_MLA_H
#include "model/weight_group.h"
#include "parallel/shard.h"

struct mla {
    uint32_t n_heads;
    struct shard heads;  /* this rank's */
    uint32_t q_rank;     /* the queries' latent; 0: they are projected at once */
    uint32_t kv_rank;    /* the latent that is cached */
    uint32_t nope, rope; /* dimensions of a key without and with positions */
    uint32_t v_dim;
    float scale;

    struct weight q_a, q_nope, q_rope, kv_a, k_b, v_b, out;
    const float *q_norm, *kv_norm;
};

extern const struct block mixer_mla;
#endif
