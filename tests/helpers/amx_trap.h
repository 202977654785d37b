/* amx_trap.h - runs AMX's tile instructions, in C, on a processor that lacks them. */
#ifndef TESTS_HELPERS_AMX_TRAP_H
#define TESTS_HELPERS_AMX_TRAP_H
#include <stdbool.h>

/* From here on an instruction of AMX that this processor refuses is executed as Intel's manual (SDM volume 2) defines
 * it, for the thread that met it.  What the manual answers with a fault, and any other illegal instruction, ends in
 * abort().  vex_trap_count() counts them; it takes the place of any other trap.
 * False: this processor executes them itself; only what VEX_TRAPPED marks is trapped. */
bool amx_trap_install(void);
/* Whether this thread's tiles are configured. */
bool amx_trap_configured(void);
#endif
