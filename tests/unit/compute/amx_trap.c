/* amx_trap: the tests' stand-in for AMX computes what the manual says and faults where the manual does. */
#include "helpers/amx_trap.h"
#include "helpers/vex_trap.h"

#include "base/cpu.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>

static const uint8_t shapes[64] = { [0] = 1, [16] = 8, [18] = 12, [20] = 8, [48] = 3, [49] = 3, [50] = 3 };
static const uint8_t no_rows[64] = { [0] = 1, [16] = 8 };

/* c [3][2] += a [3][12] times b, whose [3][2][4] are columns of 12.  Strides in bytes are what an index register holds.
 */
#define MULTIPLY(name, mark)                                                                                           \
    static void name(int32_t *c, const int8_t *a, const int8_t *b)                                                     \
    {                                                                                                                  \
        __asm__ volatile(mark "ldtilecfg %3\n\t" mark "tileloadd (%0,%4,1), %%tmm0\n\t" mark                           \
                              "tileloadd (%1,%5,1), %%tmm1\n\t" mark "tileloadd (%2,%4,1), %%tmm2\n\t" mark            \
                              "tdpbssd %%tmm2, %%tmm1, %%tmm0\n\t" mark "tilestored %%tmm0, (%0,%4,1)\n\t" mark        \
                              "tilerelease"                                                                            \
                         :                                                                                             \
                         : "r"(c), "r"(a), "r"(b), "m"(shapes), "r"(8l), "r"(12l)                                      \
                         : "memory");                                                                                  \
    }
enum { STEPS = 7 };
MULTIPLY(multiply_marked, VEX_TRAPPED)
MULTIPLY(multiply_bare, "")

static void configure(const uint8_t config[64])
{
    __asm__ volatile(VEX_TRAPPED "ldtilecfg %0" ::"m"(*(const uint8_t(*)[64])config));
}

static void zero_a_tile(void)
{
    __asm__ volatile(VEX_TRAPPED "tilezero %tmm0");
}

/* Each instruction stands here marked, which is trapped on every processor, and this one also bare: a processor with
 * AMX executes it itself. */
Test(amx_trap, multiplies_signed_bytes)
{
    static void (*const ways[])(int32_t *, const int8_t *, const int8_t *) = { multiply_marked, multiply_bare };
    const bool trapped = amx_trap_install(), native = cpu_flags() & CPU_AMX_INT8;
    if (!trapped && !native)
        cr_log_warn("the processor has AMX and Linux refuses it to this process: only the trap is tested");
    for (int way = 0; way < (trapped || native ? 2 : 1); way++) {
        const unsigned long before = vex_trap_count();
        int32_t c[3][2], want[3][2];
        int8_t a[3][12], b[3][2][4];
        for (int i = 0; i < 36; i++) (&a[0][0])[i] = (int8_t)(i * 37 - 128);
        for (int i = 0; i < 24; i++) (&b[0][0][0])[i] = (int8_t)(127 - i * 53);
        for (int m = 0; m < 3; m++)
            for (int n = 0; n < 2; n++) {
                c[m][n] = want[m][n] = 1000 * m - n;
                for (int k = 0; k < 12; k++) want[m][n] += a[m][k] * b[k / 4][n][k % 4];
            }
        ways[way](&c[0][0], &a[0][0], &b[0][0][0]);
        cr_assert_eq(memcmp(c, want, sizeof(c)), 0, "way %d", way);
        cr_assert_eq(vex_trap_count() - before, way == 0 || trapped ? STEPS : 0);
        cr_assert_not(amx_trap_configured());
    }
}

Test(amx_trap, faults_where_no_tile_is_configured, .signal = SIGABRT)
{
    amx_trap_install();
    zero_a_tile();
}

Test(amx_trap, faults_at_a_configuration_that_is_not_one, .signal = SIGABRT)
{
    amx_trap_install();
    configure(no_rows);
}

Test(amx_trap, faults_at_shapes_that_do_not_fit, .signal = SIGABRT)
{
    amx_trap_install();
    configure(shapes);
    __asm__ volatile(VEX_TRAPPED "tdpbssd %tmm2, %tmm0, %tmm1");
}
