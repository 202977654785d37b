/* avxvnni_trap: the tests' stand-in for AVX-VNNI reads every form of operand and gives the sums of real hardware. */
#include "helpers/avxvnni_trap.h"

#include "base/cpu.h"
#include "helpers/kernel_check.h"
#include "helpers/vex_trap.h"

#include <criterion/criterion.h>
#include <immintrin.h>
#include <signal.h>
#include <string.h>

#define AVX_VNNI __attribute__((target("avx2,avxvnni"))) static

struct operands {
    int32_t acc[8];
    uint8_t u[32];
    int8_t s[32];
};

static _Alignas(32) int8_t fixed[32]; /* addressed from rip */

static void install(void)
{
    if (cpu_flags() & CPU_AVX_VNNI) cr_skip_test("this processor has AVX-VNNI");
    if (!(cpu_flags() & CPU_AVX2)) cr_skip_test("AVX2 is needed");
    avxvnni_trap_install();
}

/* acc += u times s, whose operand is `from`; addresses of s: r12 itself, r13 = 64 less, r14 = its half. */
#define FORM(name, dst, src, load, from)                                                                               \
    AVX_VNNI void name(struct operands *o)                                                                             \
    {                                                                                                                  \
        __asm__ volatile("lea 64(%0), %%r12\n\tmov %0, %%r13\n\tmov %%r12, %%r14\n\tshr $1, %%r14\n\t"                 \
                         "mov $16, %%r9\n\tvmovdqu (%0), %%" dst "\n\tvmovdqu 32(%0), %%" src "\n\t" load "\n\t"       \
                         "%{vex%} vpdpbusd " from ", %%" src ", %%" dst "\n\tvmovdqu %%" dst ", (%0)"                  \
                         :                                                                                             \
                         : "D"(o), "m"(fixed)                                                                          \
                         : "memory", "r9", "r12", "r13", "r14", "xmm0", "xmm1", "xmm2", "xmm7", "xmm8", "xmm9",        \
                           "xmm15");                                                                                   \
    }
FORM(low_registers, "ymm0", "ymm1", "vmovdqu 64(%0), %%ymm2", "%%ymm2")
FORM(high_registers, "ymm9", "ymm15", "vmovdqu 64(%0), %%ymm8", "%%ymm8")
FORM(mixed_registers, "ymm7", "ymm8", "vmovdqu 64(%0), %%ymm1", "%%ymm1")
FORM(base_that_needs_a_sib, "ymm0", "ymm9", "", "(%%r12)")
FORM(base_that_needs_a_displacement, "ymm8", "ymm1", "lea 64(%%r13), %%r13", "(%%r13)")
FORM(small_displacement, "ymm1", "ymm2", "", "64(%0)")
FORM(negative_displacement, "ymm1", "ymm2", "lea 128(%0), %%r13", "-64(%%r13)")
FORM(large_displacement, "ymm15", "ymm0", "sub $0x12345, %%r13", "0x12385(%%r13)")
FORM(base_and_index, "ymm0", "ymm1", "", "(%%r13,%%r9,4)")
FORM(base_index_and_displacement, "ymm0", "ymm1", "neg %%r9", "0x80(%%r13,%%r9,4)")
FORM(index_r12, "ymm0", "ymm1", "sub %%r13, %%r12", "(%%r13,%%r12,1)")
FORM(index_alone, "ymm2", "ymm7", "and $1, %%r12d", "(,%%r14,2)")
FORM(rip, "ymm9", "ymm8", "", "%1")

Test(avxvnni_trap, finds_every_form_of_operand)
{
    static void (*const forms[])(struct operands *) = { low_registers,
                                                        high_registers,
                                                        mixed_registers,
                                                        base_that_needs_a_sib,
                                                        base_that_needs_a_displacement,
                                                        small_displacement,
                                                        negative_displacement,
                                                        large_displacement,
                                                        base_and_index,
                                                        base_index_and_displacement,
                                                        index_r12,
                                                        index_alone,
                                                        rip };
    enum { N = sizeof(forms) / sizeof(forms[0]) };
    struct check_rng rng = { 1 };
    install();
    for (int f = 0; f < N; f++) {
        _Alignas(32) struct operands o;
        int32_t want[8];
        for (int i = 0; i < 32; i++) {
            o.u[i] = (uint8_t)check_next(&rng);
            o.s[i] = fixed[i] = (int8_t)check_next(&rng);
        }
        for (int i = 0; i < 8; i++) {
            want[i] = o.acc[i] = 1000 * i - f;
            for (int k = 4 * i; k < 4 * i + 4; k++) want[i] += o.u[k] * o.s[k];
        }
        forms[f](&o);
        cr_assert_eq(memcmp(o.acc, want, sizeof(want)), 0, "form %d", f);
    }
    cr_assert_eq(vex_trap_count(), N);
}

/* The four instructions, 256 bits and 128, as AVX-VNNI and as AVX-512 encode them. */
#define ALL_OF(name, target_, infix)                                                                                   \
    __attribute__((target(target_))) static void name(__m256i out[8], const __m256i *x)                                \
    {                                                                                                                  \
        __m256i c = _mm256_loadu_si256(x), a = _mm256_loadu_si256(x + 1), b = _mm256_loadu_si256(x + 2);               \
        __m128i c1 = _mm256_castsi256_si128(c), a1 = _mm256_castsi256_si128(a), b1 = _mm256_castsi256_si128(b);        \
        _mm256_storeu_si256(out, _mm256_dpbusd##infix##epi32(c, a, b));                                                \
        _mm256_storeu_si256(out + 1, _mm256_dpbusds##infix##epi32(c, a, b));                                           \
        _mm256_storeu_si256(out + 2, _mm256_dpwssd##infix##epi32(c, a, b));                                            \
        _mm256_storeu_si256(out + 3, _mm256_dpwssds##infix##epi32(c, a, b));                                           \
        _mm256_storeu_si256(out + 4, _mm256_zextsi128_si256(_mm_dpbusd##infix##epi32(c1, a1, b1)));                    \
        _mm256_storeu_si256(out + 5, _mm256_zextsi128_si256(_mm_dpbusds##infix##epi32(c1, a1, b1)));                   \
        _mm256_storeu_si256(out + 6, _mm256_zextsi128_si256(_mm_dpwssd##infix##epi32(c1, a1, b1)));                    \
        _mm256_storeu_si256(out + 7, _mm256_zextsi128_si256(_mm_dpwssds##infix##epi32(c1, a1, b1)));                   \
    }
ALL_OF(as_avx_vnni, "avx2,avxvnni", _avx_)
ALL_OF(as_avx512, "avx2,avx512f,avx512vl,avx512vnni", _)

Test(avxvnni_trap, gives_the_sums_of_the_processors_own_instructions)
{
    static const int32_t extremes[] = { INT32_MIN, INT32_MAX, INT32_MIN + 70000, INT32_MAX - 70000, -1, 0x7fff7fff };
    struct check_rng rng = { 2 };
    install();
    if (!(cpu_flags() & CPU_AVX512_VNNI)) cr_skip_test("AVX-512 VNNI is needed");
    for (int round = 0; round < 1000; round++) {
        _Alignas(32) int32_t x[24], got[8][8], want[8][8];
        for (int i = 0; i < 24; i++) {
            x[i] = (int32_t)check_next(&rng);
            if (check_below(&rng, 3) == 0) x[i] = extremes[check_below(&rng, 6)];
        }
        as_avx_vnni((__m256i *)got, (const __m256i *)x);
        as_avx512((__m256i *)want, (const __m256i *)x);
        cr_assert_eq(memcmp(got, want, sizeof(got)), 0, "round %d", round);
    }
    cr_assert_eq(vex_trap_count(), 8000);
}

/* What is above the 128 or 256 bits of the result. */
Test(avxvnni_trap, clears_the_rest_of_the_register)
{
    _Alignas(32) int32_t y[8], zero[8] = { 0 };
    install();
    __asm__ volatile("vpcmpeqd %%ymm9, %%ymm9, %%ymm9\n\tvpcmpeqd %%ymm8, %%ymm8, %%ymm8\n\t"
                     "%{vex%} vpdpwssd %%xmm8, %%xmm8, %%xmm9\n\tvmovdqu %%ymm9, %0"
                     : "=m"(y)
                     :
                     : "xmm8", "xmm9");
    for (int i = 0; i < 8; i++) cr_assert_eq(y[i], i < 4 ? 1 : 0); /* -1 + 2 (-1)(-1) */
    __asm__ volatile("vzeroall\n\tvmovdqu %1, %%xmm1\n\t%{vex%} vpdpbusd %2, %%ymm1, %%ymm0\n\tvmovdqu %%ymm0, %0"
                     : "=m"(y)
                     : "m"(y), "m"(zero)
                     : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
                       "xmm12", "xmm13", "xmm14", "xmm15");
    cr_assert_eq(memcmp(y, zero, sizeof(y)), 0, "registers in their initial state are zero");
    if (!(cpu_flags() & CPU_AVX512)) return;
    int32_t z[16];
    __asm__ volatile("vpternlogd $255, %%zmm3, %%zmm3, %%zmm3\n\t%{vex%} vpdpwssd %%ymm3, %%ymm3, %%ymm3\n\t"
                     "vmovdqu32 %%zmm3, %0"
                     : "=m"(z)
                     :
                     : "xmm3");
    for (int i = 0; i < 16; i++) cr_assert_eq(z[i], i < 8 ? 1 : 0);
}

Test(avxvnni_trap, knows_no_other_instruction_of_that_opcode, .signal = SIGABRT)
{
    install();
    __asm__ volatile(".byte 0xc4, 0xe2, 0x77, 0x50, 0xc2" ::: "xmm0"); /* VPDPBSSD, of AVX-VNNI-INT8 */
}

Test(avxvnni_trap, knows_no_instruction_without_vex, .signal = SIGABRT)
{
    install();
    __asm__ volatile("ud2");
}
