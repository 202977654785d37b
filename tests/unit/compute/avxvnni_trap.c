/* avxvnni_trap: the tests' stand-in for AVX-VNNI reads every form of operand and gives the sums of real hardware.  Each
 * instruction stands here twice: marked, which is trapped on every processor, and bare, which one that has it executes.
 */
#include "helpers/avxvnni_trap.h"

#include "base/cpu.h"
#include "helpers/kernel_check.h"
#include "helpers/vex_trap.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

struct operands {
    int32_t acc[8];
    uint8_t u[32];
    int8_t s[32];
};

static _Alignas(32) int8_t fixed[32]; /* addressed from rip */

static bool trapped; /* the bare instructions, too */
static unsigned long at_start;

static void install(void)
{
    if (!(cpu_flags() & CPU_AVX2)) cr_skip_test("AVX2 is needed");
    trapped = avxvnni_trap_install();
    at_start = vex_trap_count();
}

/* So many were executed marked, and as many bare. */
static void expect_trapped(unsigned long n)
{
    cr_assert_eq(vex_trap_count() - at_start, trapped ? 2 * n : n);
}

/* acc += u times s, whose operand is `from`; addresses of s: r12 itself, r13 = 64 less, r14 = its half. */
#define FORM(name, dst, src, load, from)                                                                               \
    FORM_OF(name, "", dst, src, load, from)                                                                            \
    FORM_OF(name##_marked, VEX_TRAPPED, dst, src, load, from)
#define FORM_OF(name, mark, dst, src, load, from)                                                                      \
    static void name(struct operands *o)                                                                               \
    {                                                                                                                  \
        __asm__ volatile("lea 64(%0), %%r12\n\tmov %0, %%r13\n\tmov %%r12, %%r14\n\tshr $1, %%r14\n\t"                 \
                         "mov $16, %%r9\n\tvmovdqu (%0), %%" dst "\n\tvmovdqu 32(%0), %%" src "\n\t" load "\n\t" mark  \
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
#define BOTH(name) name##_marked, name
    static void (*const forms[])(struct operands *) = {
        BOTH(low_registers),
        BOTH(high_registers),
        BOTH(mixed_registers),
        BOTH(base_that_needs_a_sib),
        BOTH(base_that_needs_a_displacement),
        BOTH(small_displacement),
        BOTH(negative_displacement),
        BOTH(large_displacement),
        BOTH(base_and_index),
        BOTH(base_index_and_displacement),
        BOTH(index_r12),
        BOTH(index_alone),
        BOTH(rip),
    };
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
    expect_trapped(N / 2);
}

/* out [8] = the four instructions on x [3], at 256 bits and at 128. */
#define SUM(op, v, at)                                                                                                 \
    "vmovdqu (%1), %%" v "0\n\tvmovdqu 32(%1), %%" v "1\n\t" op " 64(%1), %%" v "1, %%" v "0\n\t"                      \
    "vmovdqu %%ymm0, " at "(%0)\n\t"
#define ALL_OF(name, prefix)                                                                                           \
    static void name(int32_t out[8][8], const int32_t *x)                                                              \
    {                                                                                                                  \
        __asm__ volatile(SUM(prefix "vpdpbusd", "ymm", "0") SUM(prefix "vpdpbusds", "ymm", "32")                       \
                             SUM(prefix "vpdpwssd", "ymm", "64") SUM(prefix "vpdpwssds", "ymm", "96")                  \
                                 SUM(prefix "vpdpbusd", "xmm", "128") SUM(prefix "vpdpbusds", "xmm", "160")            \
                                     SUM(prefix "vpdpwssd", "xmm", "192") SUM(prefix "vpdpwssds", "xmm", "224")        \
                         :                                                                                             \
                         : "r"(out), "r"(x)                                                                            \
                         : "memory", "xmm0", "xmm1");                                                                  \
    }
ALL_OF(marked, VEX_TRAPPED "%{vex%} ")
ALL_OF(bare, "%{vex%} ")
ALL_OF(as_avx512, "%{evex%} ")

/* The definition, for processors on which there is no other instruction to ask. */
static void in_c(int32_t out[8][8], const int32_t *x)
{
    for (int op = 0; op < 8; op++)
        for (int k = 0; k < 8; k++) {
            const uint32_t a = (uint32_t)x[8 + k], b = (uint32_t)x[16 + k];
            int64_t sum = x[k];
            if (op & 2)
                sum += (int64_t)(int16_t)a * (int16_t)b + (int64_t)(int16_t)(a >> 16) * (int16_t)(b >> 16);
            else
                for (int j = 0; j < 32; j += 8) sum += (int64_t)(uint8_t)(a >> j) * (int8_t)(b >> j);
            if (op & 1) sum = sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : sum;
            out[op][k] = op >= 4 && k >= 4 ? 0 : (int32_t)(uint32_t)sum;
        }
}

Test(avxvnni_trap, gives_the_sums_of_the_processors_own_instructions)
{
    static const int32_t extremes[] = { INT32_MIN, INT32_MAX, INT32_MIN + 70000, INT32_MAX - 70000, -1, 0x7fff7fff };
    const bool avx512 = cpu_flags() & CPU_AVX512_VNNI;
    struct check_rng rng = { 2 };
    install();
    for (int round = 0; round < 1000; round++) {
        _Alignas(32) int32_t x[24], got[8][8], want[8][8];
        for (int i = 0; i < 24; i++) {
            x[i] = (int32_t)check_next(&rng);
            if (check_below(&rng, 3) == 0) x[i] = extremes[check_below(&rng, 6)];
        }
        in_c(want, x);
        marked(got, x);
        cr_assert_eq(memcmp(got, want, sizeof(got)), 0, "marked, round %d", round);
        bare(got, x);
        cr_assert_eq(memcmp(got, want, sizeof(got)), 0, "bare, round %d", round);
        if (!avx512) continue;
        as_avx512(got, x);
        cr_assert_eq(memcmp(got, want, sizeof(got)), 0, "AVX-512, round %d", round);
    }
    expect_trapped(8000);
}

/* What is above the 128 or 256 bits of the result. */
#define CLEARS(mark)                                                                                                   \
    do {                                                                                                               \
        __asm__ volatile("vpcmpeqd %%ymm9, %%ymm9, %%ymm9\n\tvpcmpeqd %%ymm8, %%ymm8, %%ymm8\n\t" mark                 \
                         "%{vex%} vpdpwssd %%xmm8, %%xmm8, %%xmm9\n\tvmovdqu %%ymm9, %0"                               \
                         : "=m"(y)                                                                                     \
                         :                                                                                             \
                         : "xmm8", "xmm9");                                                                            \
        for (int i = 0; i < 8; i++) cr_assert_eq(y[i], i < 4 ? 1 : 0); /* -1 + 2 (-1)(-1) */                           \
        __asm__ volatile("vzeroall\n\tvmovdqu %1, %%xmm1\n\t" mark "%{vex%} vpdpbusd %2, %%ymm1, %%ymm0\n\t"           \
                         "vmovdqu %%ymm0, %0"                                                                          \
                         : "=m"(y)                                                                                     \
                         : "m"(y), "m"(zero)                                                                           \
                         : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",    \
                           "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");                                               \
        cr_assert_eq(memcmp(y, zero, sizeof(y)), 0, "registers in their initial state are zero");                      \
        if (!(cpu_flags() & CPU_AVX512)) break;                                                                        \
        __asm__ volatile("vpternlogd $255, %%zmm3, %%zmm3, %%zmm3\n\t" mark                                            \
                         "%{vex%} vpdpwssd %%ymm3, %%ymm3, %%ymm3\n\tvmovdqu32 %%zmm3, %0"                             \
                         : "=m"(z)                                                                                     \
                         :                                                                                             \
                         : "xmm3");                                                                                    \
        for (int i = 0; i < 16; i++) cr_assert_eq(z[i], i < 8 ? 1 : 0);                                                \
    } while (0)

Test(avxvnni_trap, clears_the_rest_of_the_register)
{
    _Alignas(32) int32_t y[8], zero[8] = { 0 };
    int32_t z[16];
    install();
    CLEARS(VEX_TRAPPED);
    CLEARS("");
    expect_trapped(cpu_flags() & CPU_AVX512 ? 3 : 2);
}

/* A test that expects a signal cannot be skipped: a processor without AVX2 ends it the same way. */
static void install_or_abort(void)
{
    if (!(cpu_flags() & CPU_AVX2)) abort();
    install();
}

Test(avxvnni_trap, knows_no_other_instruction_of_that_opcode, .signal = SIGABRT)
{
    install_or_abort();
    __asm__ volatile(VEX_TRAPPED ".byte 0xc4, 0xe2, 0x77, 0x50, 0xc2" ::: "xmm0"); /* VPDPBSSD, of AVX-VNNI-INT8 */
}

Test(avxvnni_trap, knows_no_instruction_without_vex, .signal = SIGABRT)
{
    install_or_abort();
    __asm__ volatile("ud2\n\tud2");
}
