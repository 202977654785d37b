/* cuda_act.h - where the quantized form of activations lies on the GPU.
 *
 * Planes over all rows, each row padded to a multiple of 32 columns (codes there are 0, scales 1):
 *     int8  q[rows][k32], float scale[rows][k32 / 16], int32 sum[rows][k32 / 16], float block_sum[rows][k32 / 32]
 * scale and sum (of q) are per group of 16 columns; block_sum is fma(scale1, sum1, scale0 * sum0) of a block of 32.
 * Of fine activations there are 2 n rows: row i is row i in 8 bits, row n + i what those lose of it. */
#ifndef COMPUTE_CUDA_CUDA_ACT_H
#define COMPUTE_CUDA_CUDA_ACT_H
#ifdef __cplusplus
#include "compute/cuda/cu.h"
#define CU_BOTH __host__ __device__
#else /* tests that look into the planes are C */
#define CU_BOTH
#endif
#include <stddef.h>
#include <stdint.h>

struct act_planes {
    int8_t *q;
    float *scale;
    int32_t *sum;
    float *block_sum;
    uint32_t rows, k32;
};

static inline CU_BOTH uint32_t act_k32(uint32_t k)
{
    return (k + 31) / 32 * 32;
}

/* Bytes of `rows` rows; each plane is a multiple of 128 bytes. */
static inline CU_BOTH size_t act_plane_bytes(size_t bytes)
{
    return (bytes + 127) & ~(size_t)127;
}

static inline CU_BOTH size_t act_planes_bytes(uint32_t rows, uint32_t k)
{
    const size_t n = (size_t)rows * act_k32(k);
    return act_plane_bytes(n) + 2 * act_plane_bytes(n / 4) + act_plane_bytes(n / 8);
}

static inline CU_BOTH struct act_planes act_planes_of(void *q, uint32_t rows, uint32_t k)
{
    const size_t n = (size_t)rows * act_k32(k);
    uint8_t *p = (uint8_t *)q;
    struct act_planes a;
    a.q = (int8_t *)p;
    a.scale = (float *)(p += act_plane_bytes(n));
    a.sum = (int32_t *)(p += act_plane_bytes(n / 4));
    a.block_sum = (float *)(p += act_plane_bytes(n / 4));
    a.rows = rows;
    a.k32 = act_k32(k);
    return a;
}
#endif
