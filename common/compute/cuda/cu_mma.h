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

/* m16n8k32 of bytes: C [16][8] += A [16][32] B [32][8], exact in int32.  With g = lane / 4 and c = lane % 4 a lane has
 *     a[0] = A[g][4 c ..], a[1] = A[g + 8][4 c ..], a[2] = A[g][16 + 4 c ..], a[3] = A[g + 8][16 + 4 c ..]
 *     b[0] = B[4 c ..][g], b[1] = B[16 + 4 c ..][g]
 *     c[0] = C[g][2 c], c[1] = C[g][2 c + 1], c[2] = C[g + 8][2 c], c[3] = C[g + 8][2 c + 1]
 * four bytes to a register, the first one lowest.  The whole warp calls. */
#ifdef BATON_SIMT
static inline int32_t simt_dot4(uint32_t a, uint32_t b, bool a_unsigned)
{
    int32_t sum = 0;
    for (int i = 0; i < 32; i += 8)
        sum += (a_unsigned ? (int32_t)(uint8_t)(a >> i) : (int32_t)(int8_t)(a >> i)) * (int8_t)(b >> i);
    return sum;
}

static inline void simt_mma_i8(int32_t c[4], const uint32_t a[4], const uint32_t b[2], bool a_unsigned)
{
    const uint32_t own[6] = { a[0], a[1], a[2], a[3], b[0], b[1] };
    uint64_t all[32];
    simt_exchange(0xffffffffu, (uint64_t)(uintptr_t)own, all);
    const unsigned lane = simt_lane();
    for (unsigned i = 0; i < 4; i++) {
        const unsigned row = lane / 4, col = 2 * (lane % 4) + i % 2;
        uint32_t sum = (uint32_t)c[i];
        for (unsigned w = 0; w < 8; w++) {
            const uint32_t *of_a = (const uint32_t *)(uintptr_t)all[4 * row + w % 4];
            const uint32_t *of_b = (const uint32_t *)(uintptr_t)all[4 * col + w % 4];
            sum += (uint32_t)simt_dot4(of_a[i / 2 + 2 * (w / 4)], of_b[4 + w / 4], a_unsigned);
        }
        c[i] = (int32_t)sum;
    }
    simt_sync_warp(0xffffffffu); /* operands are on the lanes' stacks */
}
#endif

static __device__ __forceinline__ void cu_mma_s8s8(int32_t c[4], const uint32_t a[4], const uint32_t b[2])
{
#ifdef BATON_SIMT
    simt_mma_i8(c, a, b, false);
#else
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

static __device__ __forceinline__ void cu_mma_u8s8(int32_t c[4], const uint32_t a[4], const uint32_t b[2])
{
#ifdef BATON_SIMT
    simt_mma_i8(c, a, b, true);
#else
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}
#endif
