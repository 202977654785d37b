/* weight_group.h - matrices over the same input, their outputs side by side. */
#ifndef MODEL_WEIGHT_GROUP_H
#define MODEL_WEIGHT_GROUP_H
#include "compute/backend.h"

#define WEIGHT_GROUP_MAX 4

/* Neighbours of one type are one matrix: a step has fewer and larger products. */
struct weight_group {
    uint32_t n;
    struct weight w[WEIGHT_GROUP_MAX];
    uint32_t col[WEIGHT_GROUP_MAX]; /* where w[i]'s outputs begin */
    uint32_t n_rows;                /* outputs in all */
};
#endif
