/* cpu_kernels.c - the table of instruction-set levels, slowest first. */
#include "compute/cpu/cpu_kernels.h"

#include <string.h>

const struct cpu_kernels *const cpu_kernel_levels[] = { &cpu_kernels_ref,     &cpu_kernels_avx2,
                                                        &cpu_kernels_vnni256, &cpu_kernels_avxvnni,
                                                        &cpu_kernels_avx512,  &cpu_kernels_vnni,
                                                        &cpu_kernels_amx,     NULL };

const struct cpu_kernels *cpu_kernels_best(uint32_t flags)
{
    const struct cpu_kernels *best = cpu_kernel_levels[0];
    for (const struct cpu_kernels *const *k = cpu_kernel_levels; *k; k++)
        if (((*k)->flags & flags) == (*k)->flags) best = *k;
    return best;
}

const struct cpu_kernels *cpu_kernels_named(const char *name)
{
    for (const struct cpu_kernels *const *k = cpu_kernel_levels; *k; k++)
        if (strcmp((*k)->name, name) == 0) return *k;
    return NULL;
}
