/* cuda_state.h - how the GPU lays out a slot of recurrent state: as the wire has it, head by head fp32 [rows][cols], so
 * that columns, which threads share out, lie side by side. */
#ifndef COMPUTE_CUDA_CUDA_STATE_H
#define COMPUTE_CUDA_CUDA_STATE_H
#include "compute/cuda/cuda_internal.h"

/* The first head of a sequence's slot. */
static inline __host__ __device__ float *state_slot(const struct state_slices *s, uint32_t slot)
{
    return (float *)(s->base + slot * s->stride);
}
#endif
