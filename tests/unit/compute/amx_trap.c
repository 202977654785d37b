/* amx_trap: the tests' stand-in for AMX computes what the manual says and faults where the manual does. */
#include "helpers/amx_trap.h"
#include "helpers/vex_trap.h"

#include "base/cpu.h"

#include <criterion/criterion.h>
#include <immintrin.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>

#define TILES __attribute__((target("amx-tile,amx-int8"))) static

static const uint8_t shapes[64] = { [0] = 1, [16] = 8, [18] = 12, [20] = 8, [48] = 3, [49] = 3, [50] = 3 };
static const uint8_t no_rows[64] = { [0] = 1, [16] = 8 };

static void install(void)
{
    if (cpu_flags() & CPU_AMX_INT8) cr_skip_test("this processor has AMX");
    amx_trap_install();
}

/* c [3][2] += a [3][12] times b, whose [3][2][4] are columns of 12. */
TILES void multiply(int32_t *c, const int8_t *a, const int8_t *b)
{
    _tile_loadconfig(shapes);
    _tile_loadd(0, c, 8);
    _tile_loadd(1, a, 12);
    _tile_loadd(2, b, 8);
    _tile_dpbssd(0, 1, 2);
    _tile_stored(0, c, 8);
    _tile_release();
}

TILES void zero_a_tile(const void *config)
{
    if (config) _tile_loadconfig(config);
    _tile_zero(0);
}

TILES void multiply_shapes_that_do_not_fit(void)
{
    _tile_loadconfig(shapes);
    _tile_dpbssd(1, 0, 2);
}

Test(amx_trap, multiplies_signed_bytes)
{
    int32_t c[3][2], want[3][2];
    int8_t a[3][12], b[3][2][4];
    install();
    for (int i = 0; i < 36; i++) (&a[0][0])[i] = (int8_t)(i * 37 - 128);
    for (int i = 0; i < 24; i++) (&b[0][0][0])[i] = (int8_t)(127 - i * 53);
    for (int m = 0; m < 3; m++)
        for (int n = 0; n < 2; n++) {
            c[m][n] = want[m][n] = 1000 * m - n;
            for (int k = 0; k < 12; k++) want[m][n] += a[m][k] * b[k / 4][n][k % 4];
        }
    multiply(&c[0][0], &a[0][0], &b[0][0][0]);
    cr_assert_eq(memcmp(c, want, sizeof(c)), 0);
    cr_assert_eq(vex_trap_count(), 7);
    cr_assert_not(amx_trap_configured());
}

Test(amx_trap, faults_where_no_tile_is_configured, .signal = SIGABRT)
{
    install();
    zero_a_tile(NULL);
}

Test(amx_trap, faults_at_a_configuration_that_is_not_one, .signal = SIGABRT)
{
    install();
    zero_a_tile(no_rows);
}

Test(amx_trap, faults_at_shapes_that_do_not_fit, .signal = SIGABRT)
{
    install();
    multiply_shapes_that_do_not_fit();
}
