/* cuda_norm_gate.cu - RMSNorm of groups of columns with a SiLU gate before or after it: the end of a recurrent layer.
 */
#include "compute/cuda/cu_math.h"
#include "compute/cuda/cuda_internal.h"
#include "compute/cuda/cuda_quantize.h"

#define GATE_WARPS 4 /* of a block; each has a group */

/* Sums run in sixteen lanes, which are the warp's lower half.  QUANTIZE: groups are whole blocks of 32 columns. */
template <bool QUANTIZE>
static __global__ void norm_gate_kernel(struct act_planes a, float *out, const float *x, const float *gate, size_t ld,
                                        size_t gate_ld, uint32_t k, struct norm_gate_facts f, bool fine)
{
    const uint32_t lane = threadIdx.x % CU_WARP, c0 = (blockIdx.x * GATE_WARPS + threadIdx.x / CU_WARP) * f.group;
    const float *w = f.w + (f.w_per_column ? c0 : 0);
    if (c0 >= k) return;
    out += (size_t)blockIdx.y * k + c0;
    x += blockIdx.y * ld + c0;
    gate += blockIdx.y * gate_ld + c0;
    for (uint32_t i = lane; i < f.group; i += CU_WARP) out[i] = f.gate_first ? __fmul_rn(x[i], cu_silu(gate[i])) : x[i];
    __syncwarp();
    float squares = 0;
    for (uint32_t i = lane; lane < 16 && i < f.group; i += 16) squares = __fmaf_rn(out[i], out[i], squares);
    const float mean = __fdiv_rn(__shfl_sync(0xffffffffu, cu_sum16(squares), 0), (float)f.group);
    const float inv = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, f.eps)));
    for (uint32_t i = lane; i < f.group; i += CU_WARP) {
        float y = __fmul_rn(__fmul_rn(out[i], inv), w[i]);
        if (!f.gate_first) y = __fmul_rn(y, cu_silu(gate[i]));
        out[i] = y;
        if (QUANTIZE) quantize_column(a, fine, blockIdx.y, c0 + i, y);
    }
}

enum status cuda_norm_gate(struct backend *b, struct stream *s, struct act *out, const float *x, size_t ld,
                           const float *gate, size_t gate_ld, const struct norm_gate_facts *facts)
{
    if (facts->group == 0 || facts->group % 16 != 0) return ERR_UNSUPPORTED;
    assert(out->k % facts->group == 0);
    if (out->n == 0) return OK;
    const dim3 grid(cu_div_up(out->k / facts->group, GATE_WARPS), out->n);
    const bool quantizes = facts->group % CU_WARP == 0;
    const enum status st = cuda_check(b,
                                      cu_launch(quantizes ? norm_gate_kernel<true> : norm_gate_kernel<false>, grid,
                                                GATE_WARPS * CU_WARP, 0, cu_stream(b, s), act_planes_for(out), out->f,
                                                x, gate, ld, gate_ld, out->k, *facts, out->precision == FINE),
                                      "norm_gate");
    return st == OK && !quantizes ? cuda_quantize(b, s, out) : st;
}
