/* cuda_latent.h - how a kv block's slice of a layer that keeps latents lies on the GPU, and what its files share.
 *
 * Token by token, as on the wire:
 * int8: int8 c[64][dim], fp32 scale[64][groups], bf16 rope[64][rope_dim].
 * fp16: c[64][dim], rope[64][rope_dim]. */
#ifndef COMPUTE_CUDA_CUDA_LATENT_H
#define COMPUTE_CUDA_CUDA_LATENT_H
#include "compute/cuda/cuda_attn.h"

#define LATENT_MAX      1024u
#define LATENT_MAX_ROPE 256u
#define LATENT_QUERIES  ATTN_SPLIT_QUERIES /* heads of rows that go over the latents together */

/* A slice's parts. */
struct cu_latent {
    uint32_t dim, groups, rope_dim;
    size_t scales, rope; /* bytes from the slice's start */
    bool int8;
};

static inline struct cu_latent cu_latent_of(const struct kv_geometry *g)
{
    struct cu_latent l = { g->head_dim, latent_groups(g->head_dim), g->rope_dim, 0, 0, g->format == KV_INT8 };
    const size_t values = (size_t)KV_BLOCK_TOKENS * kv_value_bytes(g, false);
    l.scales = values;
    l.rope = values + (size_t)KV_BLOCK_TOKENS * kv_scale_bytes(g, false);
    return l;
}

/* One head of a latent of multiples of 16 up to LATENT_MAX, a RoPE part of multiples of 4 up to LATENT_MAX_ROPE, no
 * rotation. */
static inline bool cu_latent_ok(const struct kv_geometry *g)
{
    return g->n_kv_heads == 1 && g->head_dim > 0 && g->head_dim % 16 == 0 && g->head_dim <= LATENT_MAX &&
           g->rope_dim % 4 == 0 && g->rope_dim <= LATENT_MAX_ROPE && !g->rotate;
}

/* What the kernels of attention are given.  All heads read the same latents, so `attn` takes runs of up to
 * LATENT_QUERIES of them for heads of a kv head of their own. */
struct latent_args {
    struct attn_args attn;
    struct cu_latent at;
    const float *q_rope;
    size_t q_ld, rope_ld, rope_step;
};

static __device__ __forceinline__ uint8_t *cu_latent_slice(const struct latent_args &a, const struct step_seq &seq,
                                                           uint32_t block)
{
    return a.attn.kv.base + seq.blocks[block] * a.attn.kv.stride;
}

/* Query i's latent part, and its RoPE part. */
static __device__ __forceinline__ const float *latent_q(const struct latent_args &a, const struct attn_shared &sh,
                                                        uint32_t i)
{
    return a.attn.q + ((size_t)sh.row[i] * a.attn.n_heads + sh.head[i]) * a.q_ld;
}
static __device__ __forceinline__ const float *latent_q_rope(const struct latent_args &a, const struct attn_shared &sh,
                                                             uint32_t i)
{
    return a.q_rope + sh.row[i] * a.rope_ld + sh.head[i] * a.rope_step;
}

/* Where the partial of query i and this segment is. */
static __device__ __forceinline__ float *latent_partial(const struct latent_args &a, const struct attn_item &it,
                                                        const struct attn_shared &sh, uint32_t i, uint32_t segment)
{
    const struct step_seq &seq = a.attn.step.seqs[it.seq];
    const uint32_t n = attn_end_segment(seq.pos0, seq.n_rows);
    return attn_partial(a.attn, it.slot + ((sh.row[i] - seq.row0) * a.attn.n_heads + sh.head[i]) * n + segment);
}

/* --- scores --- */
/* acc += q . k for queries g and g + 8 and tokens 8 i + 2 c + {0, 1} of half a block (g = lane / 4, c = lane % 4): a
 * chain of fma over d.  k [32][width] is bf16 or fp16; q rows are `width` floats. */
template <bool BF16>
static __device__ __forceinline__ void latent_chain(float acc[2][8], const uint16_t *k, uint32_t width, const float *q)
{
    const uint32_t g = threadIdx.x % CU_WARP / 4, c = threadIdx.x % 4;
#pragma unroll 4
    for (uint32_t d = 0; d < width; d += 4) {
        uint2 x[8];
#pragma unroll
        for (uint32_t i = 0; i < 8; i++) x[i] = __ldg((const uint2 *)(k + (8 * (i / 2) + 2 * c + i % 2) * width + d));
        const float4 q0 = *(const float4 *)(q + g * width + d), q1 = *(const float4 *)(q + (g + 8) * width + d);
        const float qs[2][4] = { { q0.x, q0.y, q0.z, q0.w }, { q1.x, q1.y, q1.z, q1.w } };
#pragma unroll
        for (uint32_t j = 0; j < 4; j++)
#pragma unroll
            for (uint32_t i = 0; i < 8; i++) {
                const uint32_t word = j < 2 ? x[i].x : x[i].y;
                const uint16_t h = (uint16_t)(word >> 16 * (j % 2));
                const float v = BF16 ? cu_bf16_to_float(h) : cu_half_to_float(h);
                acc[0][i] = __fmaf_rn(qs[0][j], v, acc[0][i]);
                acc[1][i] = __fmaf_rn(qs[1][j], v, acc[1][i]);
            }
    }
}

/* Hides what queries g and g + 8 do not see of the block, and tells the block's largest scores. */
static __device__ __forceinline__ void latent_hide(struct attn_shared &sh, float s[2][16], uint32_t block)
{
    const uint32_t g = threadIdx.x % CU_WARP / 4, c = threadIdx.x % 4, b = block % ATTN_WARPS;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const uint32_t query = g + 8 * h;
        const struct attn_seen seen = attn_seen_of(sh.first[query], sh.pos[query], block);
        float top = -INFINITY;
#pragma unroll
        for (uint32_t i = 0; i < 16; i++) {
            s[h][i] = 8 * (i / 2) + 2 * c + i % 2 < seen.end ? s[h][i] : -INFINITY;
            top = cu_max(top, s[h][i]);
        }
        top = cu_max(top, __shfl_xor_sync(0xffffffffu, top, 1));
        top = cu_max(top, __shfl_xor_sync(0xffffffffu, top, 2));
        if (c == 0) {
            sh.max[b][query] = top;
            sh.live[b][query] = seen.end > 0;
        }
    }
}

/* Of a warp whose block is not there. */
static __device__ __forceinline__ void latent_no_block(struct attn_shared &sh)
{
    if (threadIdx.x % CU_WARP < LATENT_QUERIES) sh.live[threadIdx.x / CU_WARP][threadIdx.x % CU_WARP] = false;
}

/* Scores of query g + 8 h to exp(score - max), and their sum: token t is in lane t % 16 of vector t / 16. */
static __device__ __forceinline__ void latent_softmax(struct attn_shared &sh, float s[16], uint32_t block, int h)
{
    const uint32_t c = threadIdx.x % 4, query = threadIdx.x % CU_WARP / 4 + 8 * h, b = block % ATTN_WARPS;
    const float2 max2 = attn_running_max(sh, query, b);
    float lanes[4];
#pragma unroll
    for (uint32_t i = 0; i < 16; i++) s[i] = attn_exp(__fsub_rn(s[i], max2.y));
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) lanes[i] = __fadd_rn(__fadd_rn(s[i], s[4 + i]), __fadd_rn(s[8 + i], s[12 + i]));
    float x0 = __fadd_rn(lanes[0], lanes[2]), x1 = __fadd_rn(lanes[1], lanes[3]);
    x0 = __fadd_rn(x0, __shfl_xor_sync(0xffffffffu, x0, 2));
    x1 = __fadd_rn(x1, __shfl_xor_sync(0xffffffffu, x1, 2));
    x0 = __fadd_rn(x0, __shfl_xor_sync(0xffffffffu, x0, 1));
    x1 = __fadd_rn(x1, __shfl_xor_sync(0xffffffffu, x1, 1));
    if (c == 0) {
        sh.alpha[b][query] = attn_exp(__fsub_rn(max2.x, max2.y));
        sh.sum[b][query] = __fadd_rn(x0, x1);
    }
}

/* When all weights of a segment are known: its states into the total's, or to its partials.  The block calls. */
template <bool SPLIT>
static __device__ __forceinline__ void latent_end_segment(const struct latent_args &a, const struct attn_item &it,
                                                          struct attn_shared &sh, uint32_t segment)
{
    attn_end_state(sh);
    if (!SPLIT) {
        attn_add_segment(sh, segment);
        __syncthreads();
    } else if (threadIdx.x < sh.n_queries && attn_sees_segment(sh, threadIdx.x, segment)) {
        float *partial = latent_partial(a, it, sh, threadIdx.x, segment);
        partial[0] = sh.segment_max[threadIdx.x];
        partial[1] = sh.segment_sum[threadIdx.x];
    }
}

cudaError_t cuda_latent_int8(const struct latent_args *a, uint32_t blocks, cudaStream_t s);
cudaError_t cuda_latent_f16(const struct latent_args *a, uint32_t blocks, cudaStream_t s);
#endif
