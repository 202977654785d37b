/* product.h - what blocks do with their weights, wherever those are: in memory, or on their way from the disk. */
#ifndef MODEL_BLOCKS_PRODUCT_H
#define MODEL_BLOCKS_PRODUCT_H
#include "model/model_internal.h"

/* The activation buffer seen as n rows of k columns, for products up to that precision.  A model has one: what was in
 * it is gone. */
struct act act_of(const struct model_rank *m, uint32_t n, uint32_t k, enum precision precision);
/* The next n floats of a buffer of which *used are taken; a NULL base only counts.  Parts begin at multiples of 16
 * bytes, as a device reads so many at a time. */
static inline float *place(float *base, size_t *used, size_t n)
{
    float *at = base ? base + *used : NULL;
    *used += (n + 3) / 4 * 4;
    return at;
}

/* The model's route, for n rows of k experts.  It has one. */
struct route route_of(const struct model_rank *m, uint32_t n, uint32_t k);
/* n rows whose slot h uses matrix h.  All layers of a rank have as many heads over latents. */
struct route heads_of(const struct model_rank *m, uint32_t n, uint32_t n_heads);
/* y (+)= W x */
enum status product(struct model_rank *m, float *y, size_t ld, const struct weight *w, const struct act *x,
                    bool accumulate);
/* y = W x of the matrices that the route names: backend_ops.expert_matmul. */
enum status product_by(struct model_rank *m, float *y, size_t ld, const struct weight *w, const struct act *x,
                       const struct route *route, bool x_by_slot);
/* y = W x of each matrix of the group. */
enum status project(struct model_rank *m, float *y, size_t ld, const struct weight_group *g, const struct act *x);
/* Of `own`, which this rank made, its columns of k: becomes all columns, of all ranks, with their quantized form.
 * Columns are shared out in units of `unit`.  Until the block's result is back, no other act may be asked for. */
enum status act_gather(struct model_rank *m, struct act *own, uint32_t k, uint32_t unit);
/* The same where a row is n_tiles tiles of k / n_tiles columns, each of which is shared out in those units. */
enum status act_gather_tiles(struct model_rank *m, struct act *own, uint32_t k, uint32_t unit, uint32_t n_tiles);
/* y [n_rows][k] = the columns of all ranks, begin[r] being where those of rank r begin, in bytes, and begin[size] the
 * row's end.  This rank's are at `mine`, its rows mine_ld floats apart, maybe where they belong in y. */
enum status gather_floats(struct model_rank *m, float *y, const float *mine, size_t mine_ld, uint32_t n_rows,
                          const size_t *begin);
/* The block's result, with the rank's rows of W (bind_back()): io->y (+)= W x (+ bias), on all ranks. */
enum status project_back(struct model_rank *m, const struct block_io *io, const struct weight *w, const float *bias,
                         const struct act *x);
/* y's columns, which each member has made of its own, on all of them; n rows of the model's width. */
enum status gather_columns(struct model_rank *m, float *y, uint32_t n);
/* m->logits of the rank that speaks for the head: the columns of all members of the stage, n rows. */
enum status gather_logits(struct model_rank *m, uint32_t n);
#endif
