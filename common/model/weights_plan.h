/* weights_plan.h - one entry of the arena's plan; shared by those who plan and those who fill it. */
#ifndef MODEL_WEIGHTS_PLAN_H
#define MODEL_WEIGHTS_PLAN_H
#include "formats/tensor_dir.h"
#include "model/weights.h"

#define ARENA_ALIGN 64
#define STACK_MAX   4

/* Rows of a tensor, or elements of a vector: n_rows in runs of `run`, the first at row0, the others `stride` apart. */
struct weight_src {
    const struct tensor_entry *t;
    uint32_t row0, n_rows, run, stride;
};

struct weight_item {
    struct weight_src src[STACK_MAX]; /* stacked: rows of src[0], then of src[1], ... */
    uint32_t n_src;
    uint32_t n_rows, n_cols; /* a vector has one row; of one matrix of a stack */
    uint32_t n_experts;      /* matrices of a stack; 0: one matrix, which is no stack */
    uint32_t n_used;         /* by a row, of a stack that rows choose from; 0: all */
    size_t expert_bytes;     /* from one matrix of a stack to the next */
    bool is_vector;          /* fp32 in the arena, whatever the file's type */
    bool is_table;           /* as it is in the file */
    bool is_turned;          /* fp32, transposed: each run of a stack, or a vector that is a matrix in the file */
    bool is_gathered;        /* runs too short to be packed by themselves */
    enum dtype dtype;
    enum precision precision;
    size_t offset, bytes;  /* in the arena; offset is a multiple of 64 */
    struct weight *matrix; /* filled when the arena has its address */
    const float **vector;
    const void **table;
};

/* All rows of a tensor. */
static inline struct weight_src weight_src_whole(const struct tensor_entry *t, uint32_t n_rows)
{
    return (struct weight_src){ t, 0, n_rows, n_rows, n_rows };
}
#endif
