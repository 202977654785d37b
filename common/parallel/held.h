/* held.h - which of a layer's heads a rank holds, of those that the whole model has.
 *
 * A rank numbers its own from 0 on; they are those of its runs, one run after the other. */
#ifndef PARALLEL_HELD_H
#define PARALLEL_HELD_H
#include "parallel/shard.h"

#define HELD_RUNS 3

struct held {
    uint32_t n_heads; /* of the whole model */
    uint32_t n_runs;
    struct shard_runs runs[HELD_RUNS];
};

/* All of n heads; those of one run. */
struct held held_all(uint32_t n);
struct held held_run(uint32_t n_heads, struct shard_runs run);
uint32_t held_n(const struct held *h); /* heads of the rank */
/* The model's number of the rank's head i, which it has. */
uint32_t held_head(const struct held *h, uint32_t i);
#endif
