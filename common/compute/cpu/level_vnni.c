/* level_vnni.c - the kernels for AVX-512 with VNNI, and the table of the level that adds AMX's tiles to them. */
#include "base/cpu.h"
#include "compute/cpu/level_amx.h"

#define LEVEL_VNNI
#include "compute/cpu/vec_avx512_tmpl.h"

#include "compute/cpu/attn_tmpl.h"
#include "compute/cpu/dot_tmpl.h"
#include "compute/cpu/vec_tmpl.h"

#include "compute/cpu/recurrent_tmpl.h"

const struct cpu_kernels cpu_kernels_vnni = { .name = "vnni",
                                              .flags = CPU_AVX2 | CPU_AVX512 | CPU_AVX512_VNNI,
                                              DOT_KERNELS,
                                              ATTN_KERNELS,
                                              VEC_KERNELS,
                                              RECURRENT_KERNELS };

const struct cpu_kernels cpu_kernels_amx = { .name = "amx",
                                             .flags = CPU_AVX2 | CPU_AVX512 | CPU_AVX512_VNNI | CPU_AMX_INT8,
                                             .checked_by = &cpu_kernels_vnni,
                                             .matmul = amx_matmul,
                                             ATTN_KERNELS,
                                             VEC_KERNELS,
                                             RECURRENT_KERNELS };
