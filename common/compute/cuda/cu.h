/* cu.h - what all CUDA sources stand on: how a kernel is launched, and the few words that nvcc and the tests' emulator
 * (tests/simt) spell differently.
 *
 * Sources compile with both, so kernels are tested where there is no GPU.  Arithmetic whose bits are promised
 * (docs/numerics.md) is written with __fmaf_rn, and nvcc contracts nothing (--fmad=false). */
#ifndef COMPUTE_CUDA_CU_H
#define COMPUTE_CUDA_CU_H
#include <cuda_runtime.h>
#include <stddef.h>
#include <stdint.h>

#define CU_WARP 32

/* --- launch --- */
#ifdef BATON_SIMT
template <class... P, class... A>
static inline cudaError_t cu_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, cudaStream_t s,
                                    A... args)
{
    simt_launch(grid, block, shared, s, [=] { kernel(static_cast<P>(args)...); });
    return cudaPeekAtLastError();
}
#else
/* kernel(args...) on a stream, with `shared` bytes of dynamic shared memory. */
template <class... P, class... A>
static inline cudaError_t cu_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, cudaStream_t s,
                                    A... args)
{
    kernel<<<grid, block, shared, s>>>(static_cast<P>(args)...);
    return cudaPeekAtLastError();
}
#endif

/* The block's dynamic shared memory, aligned to 16 bytes. */
static __device__ __forceinline__ uint8_t *cu_shared(void)
{
#ifdef BATON_SIMT
    return simt_shared;
#else
    extern __shared__ __align__(1024) uint8_t cu_dynamic_shared[];
    return cu_dynamic_shared;
#endif
}

static inline __host__ __device__ uint32_t cu_div_up(uint32_t a, uint32_t b)
{
    return (a + b - 1) / b;
}

/* The next multiple of 16: a part of a buffer begins where a device may read 16 bytes at a time. */
static inline size_t cu_align16(size_t n)
{
    return (n + 15) & ~(size_t)15;
}

/* x86's minimum and maximum: the second operand where one is NaN.  The CPU's bits depend on it. */
static __device__ __forceinline__ float cu_min(float a, float b)
{
    return a < b ? a : b;
}
static __device__ __forceinline__ float cu_max(float a, float b)
{
    return a > b ? a : b;
}
#endif
