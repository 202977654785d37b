/* product.h - what blocks do with their weights, wherever those are: in memory, or on their way from the disk. */
#ifndef MODEL_BLOCKS_PRODUCT_H
#define MODEL_BLOCKS_PRODUCT_H
#include "model/model_internal.h"

/* The activation buffer seen as n rows of k columns, for products up to that precision.  A model has one: what was in
 * it is gone. */
struct act act_of(const struct model *m, uint32_t n, uint32_t k, enum precision precision);
/* y (+)= W x */
enum status product(struct model *m, float *y, size_t ld, const struct weight *w, const struct act *x, bool accumulate);
/* y = W x of each matrix of the group. */
enum status project(struct model *m, float *y, size_t ld, const struct weight_group *g, const struct act *x);
/* The block's result: io->y (+)= W x (+ bias), summed over the ranks. */
enum status project_back(struct model *m, const struct block_io *io, const struct weight *w, const float *bias,
                         const struct act *x);
#endif
