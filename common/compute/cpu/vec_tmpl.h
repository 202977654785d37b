/* vec_tmpl.h - the fp32 kernels of one instruction set, written once over sixteen lanes.
 *
 * Included by each level_*.c after its vec_*_tmpl.h.  What is here is the definition of these ops: the order of
 * additions is that of the lanes, whatever the width of the registers. */
#ifndef COMPUTE_CPU_VEC_TMPL_H
#define COMPUTE_CPU_VEC_TMPL_H

#include "compute/cpu/cpu_kernels.h"
#include "compute/cpu/unroll.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "compute/cpu/math_tmpl.h"
#include "compute/cpu/rows_tmpl.h"
#include "compute/cpu/step_tmpl.h"

#include "compute/cpu/act_tmpl.h"
#include "compute/cpu/attn_vec_tmpl.h"
#include "compute/cpu/heads_tmpl.h"

/* The slots of a kernel table that this file fills. */
#define VEC_KERNELS                                                                                                    \
    .rmsnorm = row_rmsnorm, .norm_add = row_norm_add, .glu = { row_glu_silu, row_glu_gelu, row_glu_oai },              \
    .gate = row_gate, .route_gate = row_route_gate, .add_weighted = row_add_weighted, .add = row_add,                  \
    .scale = row_scale, .softcap = row_softcap, .quantize = act_quantize,                                              \
    .lost_by_quantizing = act_lost_by_quantizing, .rope = head_rope, .rotate = head_rotate,                            \
    .kv_quantize = head_kv_quantize, .to_half = head_to_half, .q_quantize = head_q_quantize,                           \
    .softmax_int8 = attn_softmax_int8, .qk_f16 = attn_qk_f16, .softmax_f16 = attn_softmax_f16, .pv_f16 = attn_pv_f16,  \
    .merge = attn_merge, .finish = attn_finish, .exp_sum = row_exp_sum, .exp_row = row_exp, .qk_bf16 = attn_qk_bf16,   \
    .weigh = attn_weigh
#endif
