/* level_avxvnni.c - the kernels for AVX2 with AVX-VNNI: 256-bit dot products on CPUs without AVX-512. */
#include "base/cpu.h"

#define LEVEL_AVX_VNNI
#include "compute/cpu/vec_avx2_tmpl.h"

#include "compute/cpu/attn_tmpl.h"
#include "compute/cpu/dot_tmpl.h"
#include "compute/cpu/vec_tmpl.h"

#include "compute/cpu/recurrent_tmpl.h"

const struct cpu_kernels cpu_kernels_avxvnni = {
    .name = "avxvnni", .flags = CPU_AVX2 | CPU_AVX_VNNI, DOT_KERNELS, ATTN_KERNELS, VEC_KERNELS, RECURRENT_KERNELS
};
