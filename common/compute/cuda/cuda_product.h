/* cuda_product.h - a matrix product as its kernels are given it, and what they share. */
#ifndef COMPUTE_CUDA_CUDA_PRODUCT_H
#define COMPUTE_CUDA_CUDA_PRODUCT_H
#include "compute/cuda/cuda_act.h"
#include "compute/cuda/cuda_weights.h"

#define PRODUCT_MAX_COLS (128u << 10) /* partial sums of a row have to fit shared memory */

struct product {
    const uint8_t *data; /* packed weights */
    size_t panel_bytes, expert_bytes;
    uint32_t n_rows, n_cols; /* of the matrix */
    struct weight_format format;
    struct act_planes act; /* quantized types */
    const float *f;        /* float types: [][n_cols] */
    float *y;              /* row i at y + i * ld */
    size_t ld;
    uint32_t n; /* rows of y */
    const uint32_t
        *expert; /* device: row i of y is of matrix expert[i] and row i / slots of the activations; or NULL */
    uint32_t slots;
    bool fine;       /* an output is the sum of two products: with the rows in 8 bits, and with what those lose */
    bool accumulate; /* added to what is in y */
    bool split; /* each run is summed up by itself, then the runs, in ascending order; otherwise all is one chain */
};

struct weight;
/* A product with these weights; what else it takes is zero. */
struct product product_of_weight(const struct weight *w);

/* The activations' row of row i of y; `lost`: what its 8 bits lose. */
static __device__ __forceinline__ uint32_t product_act_row(const struct product &p, uint32_t i, bool lost)
{
    const uint32_t row = p.expert ? i / p.slots : i;
    return lost ? row + p.act.rows / 2 : row;
}

static __device__ __forceinline__ const uint8_t *product_weights(const struct product &p, uint32_t i)
{
    return p.expert ? p.data + p.expert[i] * p.expert_bytes : p.data;
}

static __device__ __forceinline__ void product_put(const struct product &p, uint32_t i, uint32_t row, float v)
{
    float *y = p.y + i * p.ld + row;
    *y = p.accumulate ? __fadd_rn(*y, v) : v;
}

/* --- turns: the warps of a block continue one chain of sums, each a run of columns --- */
static __device__ __forceinline__ void turn_wait(const volatile uint32_t *turn, uint32_t mine)
{
    while (__shfl_sync(0xffffffffu, *turn, 0) != mine) {}
    __threadfence_block();
}

static __device__ __forceinline__ void turn_pass(volatile uint32_t *turn, uint32_t next)
{
    __threadfence_block();
    __syncwarp();
    if (threadIdx.x % CU_WARP == 0) *turn = next;
}

/* --- the kernels' launchers; `s` is the stream, n_sms the GPU's ---
 * Of the same product all give the same bits: rows for few rows of activations, mma, without experts, for many. */
cudaError_t product_rows(const struct product &p, const struct pack_format *f, uint32_t n_sms, cudaStream_t s);
cudaError_t product_mma(const struct product &p, const struct pack_format *f, cudaStream_t s);
cudaError_t product_floats(const struct product &p, uint32_t bits, bool bf16, uint32_t n_sms, cudaStream_t s);
#endif
