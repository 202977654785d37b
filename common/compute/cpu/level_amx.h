/* level_amx.h - the matmul of the level amx; the rest of that level is vnni's, in whose file its table is. */
#ifndef COMPUTE_CPU_LEVEL_AMX_H
#define COMPUTE_CPU_LEVEL_AMX_H
#include "compute/cpu/cpu_kernels.h"

/* A matmul_fn. */
void amx_matmul(const struct matmul_job *job, uint32_t p0, uint32_t p1, uint32_t r0, uint32_t r1, void *scratch);
#endif
