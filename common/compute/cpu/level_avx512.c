/* level_avx512.c - the kernels for AVX-512 F, BW, DQ and VL. */
#include "base/cpu.h"

#include "compute/cpu/vec_avx512_tmpl.h"

#include "compute/cpu/attn_tmpl.h"
#include "compute/cpu/dot_tmpl.h"
#include "compute/cpu/vec_tmpl.h"

#include "compute/cpu/recurrent_tmpl.h"

const struct cpu_kernels cpu_kernels_avx512 = {
    .name = "avx512", .flags = CPU_AVX2 | CPU_AVX512, DOT_KERNELS, ATTN_KERNELS, VEC_KERNELS, RECURRENT_KERNELS
};
