/* level_avx2.c - the kernels for AVX2, FMA and F16C. */
#include "base/cpu.h"

#include "compute/cpu/vec_avx2_tmpl.h"

#include "compute/cpu/attn_tmpl.h"
#include "compute/cpu/dot_tmpl.h"
#include "compute/cpu/vec_tmpl.h"

#include "compute/cpu/recurrent_tmpl.h"

const struct cpu_kernels cpu_kernels_avx2 = {
    .name = "avx2", .flags = CPU_AVX2, DOT_KERNELS, ATTN_KERNELS, VEC_KERNELS, RECURRENT_KERNELS
};
