/* cu_mma.h - matrix instructions of a warp, and what the emulator has for them. */
#ifndef COMPUTE_CUDA_CU_MMA_H
#define COMPUTE_CUDA_CU_MMA_H
#include "compute/cuda/cu.h"

/* d += A B of 16 x 16 by 16 x 8 int8, exact.  Lane 4 g + t has, as bytes of k = 4 t .. 4 t + 3: of rows g and g + 8 of
 * A a0 and a1, of column g of B b; and d[0], d[1] of row g, columns 2 t and 2 t + 1, d[2], d[3] of row g + 8. */
static __device__ __forceinline__ void cu_mma_s8(int32_t d[4], uint32_t a0, uint32_t a1, uint32_t b)
{
#ifdef BATON_SIMT
    uint64_t a[32], all_b[32];
    const unsigned lane = simt_lane(), g = lane / 4, t = lane % 4;
    simt_exchange(0xffffffffu, (uint64_t)a1 << 32 | a0, a);
    simt_exchange(0xffffffffu, b, all_b);
    for (unsigned k = 0; k < 4; k++)
        for (unsigned i = 0; i < 4; i++)
            d[i] = __dp4a((int)(a[4 * g + k] >> 32 * (i / 2)), (int)all_b[4 * (2 * t + i % 2) + k], d[i]);
#else
    asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a0), "r"(a1), "r"(b));
#endif
}

/* Asks for the line that holds p to be brought near, and goes on. */
static __device__ __forceinline__ void cu_prefetch(const void *p)
{
#ifndef BATON_SIMT
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
#endif
}
#endif
