/* cpu.h - what this processor can do, as flags that kernels ask for. */
#ifndef BASE_CPU_H
#define BASE_CPU_H
#include <stdint.h>

enum cpu_flag {
    CPU_AVX2 = 1 << 0,   /* with FMA and F16C */
    CPU_AVX512 = 1 << 1, /* F, BW, DQ, VL */
    CPU_AVX512_VNNI = 1 << 2,
    CPU_AVX512_BF16 = 1 << 3,
    CPU_AVX_VNNI = 1 << 4,
    CPU_AMX_INT8 = 1 << 5, /* TILE and INT8 */
};
/* Flags of this machine, the operating system's support included.  Asks Linux for AMX's tiles where the processor has
 * them, for all threads of the process; a refusal is as if it had none. */
uint32_t cpu_flags(void);
#endif
