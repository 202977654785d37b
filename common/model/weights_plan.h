/* weights_plan.h - one entry of the arena's plan; shared by weights.c, which plans, and weights_pack.c. */
#ifndef MODEL_WEIGHTS_PLAN_H
#define MODEL_WEIGHTS_PLAN_H
#include "formats/tensor_dir.h"
#include "model/weights.h"

#define ARENA_ALIGN 64
#define STACK_MAX   3 /* the biases of q, k and v */

struct weight_item {
    const struct tensor_entry *src[STACK_MAX]; /* stacked: rows of src[0], then of src[1], ... */
    uint32_t n_src;
    uint32_t n_rows, n_cols; /* a vector has one row */
    bool is_vector;          /* fp32 in the arena, whatever the file's type */
    bool is_table;           /* as it is in the file */
    enum dtype dtype;
    enum precision precision;
    size_t offset, bytes;  /* in the arena; offset is a multiple of 64 */
    struct weight *matrix; /* filled when the arena has its address */
    const float **vector;
    const void **table;
};
#endif
