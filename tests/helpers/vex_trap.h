/* vex_trap.h - catches illegal instructions and decodes them, for traps that execute what a processor lacks. */
#ifndef TESTS_HELPERS_VEX_TRAP_H
#define TESTS_HELPERS_VEX_TRAP_H
#include <stdbool.h>
#include <stdint.h>
#include <ucontext.h>

/* An instruction in a three-byte VEX encoding, without an immediate. */
struct vex_instruction {
    unsigned map, pp, opcode; /* map 2: 0F38; pp: enum vex_prefix */
    bool w, l;
    unsigned reg, vvvv, rm; /* registers 0 to 15; rm: of a register operand */
    bool memory, sib;
    uint8_t *at;   /* base and displacement of a memory operand */
    int64_t index; /* the scaled index that belongs to it, else 0 */
};
enum vex_prefix { VEX_NP, VEX_66, VEX_F3, VEX_F2 };
#define VEX_MAP_0F38 2

/* Does to the interrupted state what the instruction would; false: it is not one of this trap's. */
typedef bool (*vex_execute_fn)(ucontext_t *u, const struct vex_instruction *i);

/* Before an instruction in assembly: it is trapped on every processor, also on one that has it. */
#define VEX_TRAPPED "ud2\n\t"

/* From here on SIGILL decodes the instruction and calls `execute`, in place of an earlier one; execution goes on behind
 * it.  What it does not know and what is not so encoded ends in abort(). */
void vex_trap_install(vex_execute_fn execute);
/* Instructions that were executed for this thread. */
unsigned long vex_trap_count(void);

/* What an instruction answers with a fault ends in abort(). */
#define VEX_FAULT_UNLESS(cond) ((cond) ? (void)0 : vex_fault(#cond))
_Noreturn void vex_fault(const char *what);
#endif
