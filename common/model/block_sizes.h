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
    uint32_t max_used;              /* experts of a row */
    uint32_t max_latent_heads;      /* heads over latents: a matrix each */
    bool branch;                    /* a block's result stands beside the residual before it is added */
    double row_macs, position_macs; /* multiply-adds, the sum over the blocks: of a row, and of a row and a position */
    struct backend_limits limits;   /* max_rows and max_context: not asked */
};

void sizes_init(struct block_sizes *s, struct backend *backend, uint32_t n_rows, uint32_t d_model);
/* An act of n rows and k columns. */
void sizes_act(struct block_sizes *s, uint32_t n, uint32_t k, enum precision precision);
/* Multiply-adds of a row's products, and of a row with each position that it attends to. */
void sizes_work(struct block_sizes *s, double row_macs, double position_macs);
void sizes_wide(struct block_sizes *s, size_t floats);
void sizes_latent(struct block_sizes *s, uint32_t n_heads, uint32_t latent);
/* A choice of `used` among n_experts, per row. */
void sizes_route(struct block_sizes *s, uint32_t n_experts, uint32_t used);
void sizes_heads(struct block_sizes *s, uint32_t n_heads, uint32_t head_dim);
/* Norms and blocks of these layers. */
void block_sizes_of(struct block_sizes *s, const struct layer *layers, uint32_t n);
#endif
