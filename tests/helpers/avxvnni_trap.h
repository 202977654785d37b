/* avxvnni_trap.h - runs AVX-VNNI's dot products, in C, on a processor that lacks them. */
#ifndef TESTS_HELPERS_AVXVNNI_TRAP_H
#define TESTS_HELPERS_AVXVNNI_TRAP_H
#include <stdbool.h>

/* From here on VPDPBUSD, VPDPBUSDS, VPDPWSSD and VPDPWSSDS of AVX-VNNI (VEX, 128 and 256 bits) are executed as Intel's
 * manual (SDM volume 2) defines them where this processor refuses them; it must have AVX.  Any other illegal
 * instruction ends in abort().  vex_trap_count() counts them; it takes the place of any other trap.
 * False: this processor executes them itself, whatever its CPUID says; only what VEX_TRAPPED marks is trapped. */
bool avxvnni_trap_install(void);
#endif
