/* level_vnni256.c - the kernels of avxvnni in AVX-512's encoding, so that they can be tested on CPUs with AVX-512. */
#include "base/cpu.h"

#define LEVEL_VNNI_256
#include "compute/cpu/vec_avx2_tmpl.h"

#include "compute/cpu/attn_tmpl.h"
#include "compute/cpu/dot_tmpl.h"
#include "compute/cpu/vec_tmpl.h"

#include "compute/cpu/recurrent_tmpl.h"

const struct cpu_kernels cpu_kernels_vnni256 = { .name = "vnni256",
                                                 .flags = CPU_AVX2 | CPU_AVX512 | CPU_AVX512_VNNI,
                                                 DOT_KERNELS,
                                                 ATTN_KERNELS,
                                                 VEC_KERNELS,
                                                 RECURRENT_KERNELS };
