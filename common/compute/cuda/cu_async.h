/* cu_async.h - copies from global to shared memory that run while their thread goes on.
 *
 * A thread waits for its own copies, and then for the others' by a barrier, before it reads.  The tests' emulator
 * copies at once. */
#ifndef COMPUTE_CUDA_CU_ASYNC_H
#define COMPUTE_CUDA_CU_ASYNC_H
#include "compute/cuda/cu.h"

/* BYTES is 4, 8 or 16; both sides are aligned to it. */
template <int BYTES> static __device__ __forceinline__ void cu_copy_async(void *shared, const void *global)
{
#ifdef BATON_SIMT
    memcpy(shared, global, BYTES);
#else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"((uint32_t)__cvta_generic_to_shared(shared)),
                 "l"(global), "n"(BYTES)
                 : "memory");
#endif
}

/* All copies of the thread before it become one group. */
static __device__ __forceinline__ void cu_copy_commit(void)
{
#ifndef BATON_SIMT
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/* Until at most LEFT of the thread's groups are on their way. */
template <int LEFT> static __device__ __forceinline__ void cu_copy_wait(void)
{
#ifndef BATON_SIMT
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
#endif
}

/* 16 bytes that nobody reads again soon: past L1. */
static __device__ __forceinline__ uint4 cu_load16_once(const void *p)
{
#ifdef BATON_SIMT
    return *(const uint4 *)p;
#else
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
#endif
}
#endif
