/* block_sizes.h - collects what the blocks of a model need: step memory, which they share, and limits of the backend.
 */
#ifndef MODEL_BLOCK_SIZES_H
#define MODEL_BLOCK_SIZES_H
#include "compute/backend.h"

struct layer;

/* Of all blocks the largest. */
struct block_sizes {
    struct backend *backend; /* NULL: limits alone are wanted */
    uint32_t n_rows;         /* of a batch */
    uint32_t d_model;
    size_t wide_floats; /* of the buffer for outputs of products, per row of the batch */
    size_t act_floats, act_q_bytes;
    bool branch;                  /* a block's result stands beside the residual before it is added */
    struct backend_limits limits; /* max_rows and max_context: not asked */
};

void sizes_init(struct block_sizes *s, struct backend *backend, uint32_t n_rows, uint32_t d_model);
/* An act of n rows and k columns. */
void sizes_act(struct block_sizes *s, uint32_t n, uint32_t k, enum precision precision);
void sizes_wide(struct block_sizes *s, size_t floats);
void sizes_heads(struct block_sizes *s, uint32_t n_heads, uint32_t head_dim);
/* Norms and blocks of these layers. */
void block_sizes_of(struct block_sizes *s, const struct layer *layers, uint32_t n);
#endif
