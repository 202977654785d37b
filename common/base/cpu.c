/* cpu.c - asks CPUID and XGETBV what this processor and its operating system can do. */
#include "base/cpu.h"

#include <cpuid.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

#define XCR0_AVX    0x06u    /* xmm, ymm */
#define XCR0_AVX512 0xe6u    /* and opmask, both halves of zmm */
#define XCR0_AMX    0x60000u /* tile configuration, tile data */

static uint64_t xcr0(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return ((uint64_t)hi << 32) | lo;
}

/* Linux gives a process the room that tiles need in its threads' state when it is asked to; again is harmless. */
static bool tiles_permitted(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

static bool has(uint32_t word, unsigned bit)
{
    return (word >> bit) & 1;
}

uint32_t cpu_flags(void)
{
    uint32_t a, b, c, d, flags = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    bool osxsave = has(c, 27), avx = has(c, 28), fma = has(c, 12), f16c = has(c, 29);
    if (!osxsave || !avx) return 0;
    uint64_t state = xcr0();
    uint32_t b7, c7, d7, a71 = 0;
    if ((state & XCR0_AVX) != XCR0_AVX || !__get_cpuid_count(7, 0, &a, &b7, &c7, &d7)) return 0;
    uint32_t max_sub = a;
    if (max_sub >= 1) {
        uint32_t b71, c71, d71;
        __cpuid_count(7, 1, a71, b71, c71, d71);
    }
    if (has(b7, 5) && fma && f16c) flags |= CPU_AVX2;
    if (has(a71, 4) && (flags & CPU_AVX2)) flags |= CPU_AVX_VNNI;
    bool avx512 = has(b7, 16) && has(b7, 17) && has(b7, 30) && has(b7, 31);
    if (!avx512 || !(flags & CPU_AVX2) || (state & XCR0_AVX512) != XCR0_AVX512) return flags;
    flags |= CPU_AVX512;
    if (has(c7, 11)) flags |= CPU_AVX512_VNNI;
    if (has(a71, 5)) flags |= CPU_AVX512_BF16;
    if (has(d7, 24) && has(d7, 25) && (state & XCR0_AMX) == XCR0_AMX && tiles_permitted()) flags |= CPU_AMX_INT8;
    return flags;
}
