/* cuda_latent_f16.cu - attention over fp16 latents: chains of fma in the CPU's order, over d for scores and over t for
 * values.
 *
 * Up to 16 queries are taken together.  First a warp takes a block of the segment: its scores, and their weights, for
 * all warps to read.  Then a warp takes 64 values of the latents (or twice 64), two to a lane. */
#include "compute/cuda/cuda_latent.h"

#define WARP_DIMS 64u /* of o, a part of a warp's */

/* Where the block's shared memory is. */
struct room {
    struct attn_shared *sh;
    float *q; /* [16][dim], then [16][rope_dim] */
    float *p; /* [blocks][64 tokens][16] */
};

static __host__ __device__ __forceinline__ size_t carve(struct room *r, uint8_t *at, const struct cu_latent &l)
{
    uint8_t *const start = at;
    r->sh = (struct attn_shared *)at;
    r->q = (float *)(at += (sizeof(struct attn_shared) + 15) / 16 * 16);
    r->p = (float *)(at += LATENT_QUERIES * (l.dim + l.rope_dim) * sizeof(float));
    return (size_t)(at + ATTN_SEGMENT_TOKENS * LATENT_QUERIES * sizeof(float) - start);
}

static __device__ void load_queries(const struct latent_args &a, const struct room &r)
{
    const uint32_t lane = threadIdx.x % CU_WARP;
    float *rope = r.q + LATENT_QUERIES * a.at.dim;
    for (uint32_t i = threadIdx.x / CU_WARP; i < LATENT_QUERIES; i += ATTN_WARPS) {
        const bool there = i < r.sh->n_queries;
        for (uint32_t d = lane; d < a.at.dim; d += CU_WARP)
            r.q[i * a.at.dim + d] = there ? latent_q(a, *r.sh, i)[d] : 0.0f;
        for (uint32_t d = lane; d < a.at.rope_dim; d += CU_WARP)
            rope[i * a.at.rope_dim + d] = there ? latent_q_rope(a, *r.sh, i)[d] : 0.0f;
    }
}

static __device__ __forceinline__ void score_block(const struct latent_args &a, const struct room &r, float s[2][16],
                                                   const uint8_t *slice)
{
    const uint16_t *c = (const uint16_t *)slice, *rope = (const uint16_t *)(slice + a.at.rope);
#pragma unroll
    for (uint32_t half = 0; half < 2; half++) {
        float part[2][8];
#pragma unroll
        for (uint32_t i = 0; i < 8; i++) part[0][i] = part[1][i] = 0;
        latent_chain<false>(part, c + 32 * half * a.at.dim, a.at.dim, r.q);
        latent_chain<false>(part, rope + 32 * half * a.at.rope_dim, a.at.rope_dim, r.q + LATENT_QUERIES * a.at.dim);
#pragma unroll
        for (uint32_t i = 0; i < 8; i++) {
            s[0][8 * half + i] = __fmul_rn(part[0][i], a.attn.scale);
            s[1][8 * half + i] = __fmul_rn(part[1][i], a.attn.scale);
        }
    }
}

/* Weights of the warp's block, for the block's warps. */
static __device__ __forceinline__ void weigh_block(const struct room &r, float s[2][16], uint32_t block)
{
    const uint32_t g = threadIdx.x % CU_WARP / 4, c = threadIdx.x % 4;
    float *p = r.p + block % ATTN_WARPS * KV_BLOCK_TOKENS * LATENT_QUERIES;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        latent_softmax(*r.sh, s[h], block, h);
#pragma unroll
        for (uint32_t i = 0; i < 16; i++) p[(8 * (i / 2) + 2 * c + i % 2) * LATENT_QUERIES + g + 8 * h] = s[h][i];
    }
}

/* --- values --- */
/* One token more in the chains of all queries, or of those of `seen`. */
static __device__ __forceinline__ void add_token(float acc[LATENT_QUERIES][2], const float *p, uint32_t halves,
                                                 uint32_t seen)
{
    const float v0 = cu_half_to_float((uint16_t)halves), v1 = cu_half_to_float((uint16_t)(halves >> 16));
#pragma unroll
    for (uint32_t i = 0; i < LATENT_QUERIES; i += 4) {
        const float4 w = *(const float4 *)(p + i);
        const float ws[4] = { w.x, w.y, w.z, w.w };
#pragma unroll
        for (uint32_t j = 0; j < 4; j++) {
            const bool is_seen = seen >> (i + j) & 1;
            acc[i + j][0] = is_seen ? __fmaf_rn(ws[j], v0, acc[i + j][0]) : acc[i + j][0];
            acc[i + j][1] = is_seen ? __fmaf_rn(ws[j], v1, acc[i + j][1]) : acc[i + j][1];
        }
    }
}

/* Which queries see token t of the block, a bit each, and up to where all that see the block do. */
static __device__ __forceinline__ uint32_t seen_by(const struct attn_shared &sh, uint32_t block, uint32_t t)
{
    const uint32_t i = threadIdx.x % LATENT_QUERIES;
    return __ballot_sync(0xffffffffu, t < attn_seen_of(sh.first[i], sh.pos[i], block).end);
}

static __device__ __forceinline__ void add_block(const struct latent_args &a, const struct room &r,
                                                 float o[LATENT_QUERIES][2], const uint8_t *slice, uint32_t block,
                                                 uint32_t d)
{
    const uint32_t b = block % ATTN_WARPS,
                   end = min(r.sh->high - block * KV_BLOCK_TOKENS + 1, (uint32_t)KV_BLOCK_TOKENS);
    const float *p = r.p + b * KV_BLOCK_TOKENS * LATENT_QUERIES;
    const uint16_t *v = (const uint16_t *)slice + d;
    float acc[LATENT_QUERIES][2];
#pragma unroll
    for (uint32_t i = 0; i < LATENT_QUERIES; i++) acc[i][0] = acc[i][1] = 0;
    const bool is_there = d < a.at.dim;
    for (uint32_t t = 0; t < end; t++)
        add_token(acc, p + t * LATENT_QUERIES, is_there ? __ldg((const uint32_t *)(v + t * a.at.dim)) : 0,
                  seen_by(*r.sh, block, t));
#pragma unroll
    for (uint32_t i = 0; i < LATENT_QUERIES; i++) {
        const float alpha = r.sh->alpha[b][i];
        if (!r.sh->live[b][i]) continue;
        o[i][0] = __fmaf_rn(o[i][0], alpha, acc[i][0]);
        o[i][1] = __fmaf_rn(o[i][1], alpha, acc[i][1]);
    }
}

/* A segment's o: to its partial, or into the total. */
template <bool SPLIT>
static __device__ __forceinline__ void keep_values(const struct latent_args &a, const struct attn_item &it,
                                                   const struct room &r, float total[LATENT_QUERIES][2],
                                                   const float o[LATENT_QUERIES][2], uint32_t segment, uint32_t d)
{
#pragma unroll
    for (uint32_t i = 0; i < LATENT_QUERIES; i++) {
        if (i >= r.sh->n_queries || !attn_sees_segment(*r.sh, i, segment)) continue;
        if (SPLIT) {
            float *partial = latent_partial(a, it, *r.sh, i, segment) + ATTN_PARTIAL_PAD;
            if (d < a.at.dim) partial[d] = o[i][0], partial[d + 1] = o[i][1];
            continue;
        }
        const bool begins = attn_begins(*r.sh, i, segment);
        const float added = r.sh->new_factor[i], kept = r.sh->old_factor[i];
#pragma unroll
        for (uint32_t j = 0; j < 2; j++)
            total[i][j] = begins ? o[i][j] : __fmaf_rn(o[i][j], added, __fmul_rn(total[i][j], kept));
    }
}

/* --- a segment --- */
template <bool SPLIT>
static __device__ __forceinline__ void weigh_segment(const struct latent_args &a, const struct attn_item &it,
                                                     const struct room &r, uint32_t segment)
{
    const uint32_t block = segment * ATTN_SEGMENT_BLOCKS + threadIdx.x / CU_WARP;
    const bool there = block <= r.sh->high / KV_BLOCK_TOKENS;
    float s[2][16];
    if (there) {
        score_block(a, r, s, cu_latent_slice(a, a.attn.step.seqs[it.seq], block));
        latent_hide(*r.sh, s, block);
    } else {
        latent_no_block(*r.sh);
    }
    __syncthreads();
    if (there) weigh_block(r, s, block);
    __syncthreads();
    latent_end_segment<SPLIT>(a, it, *r.sh, segment);
}

template <int PARTS, bool SPLIT>
static __device__ __forceinline__ void run_segment(const struct latent_args &a, const struct attn_item &it,
                                                   const struct room &r, float total[PARTS][LATENT_QUERIES][2],
                                                   uint32_t segment)
{
    const uint32_t block0 = segment * ATTN_SEGMENT_BLOCKS, last = r.sh->high / KV_BLOCK_TOKENS;
    const uint32_t n_blocks = min(last - block0 + 1, ATTN_SEGMENT_BLOCKS);
    weigh_segment<SPLIT>(a, it, r, segment);
#pragma unroll
    for (uint32_t part = 0; part < PARTS; part++) {
        const uint32_t d0 = (threadIdx.x / CU_WARP + part * ATTN_WARPS) * WARP_DIMS,
                       d = d0 + 2 * (threadIdx.x % CU_WARP);
        float o[LATENT_QUERIES][2];
        if (d0 >= a.at.dim) continue;
#pragma unroll
        for (uint32_t i = 0; i < LATENT_QUERIES; i++) o[i][0] = o[i][1] = 0;
        for (uint32_t b = 0; b < n_blocks; b++)
            add_block(a, r, o, cu_latent_slice(a, a.attn.step.seqs[it.seq], block0 + b), block0 + b, d);
        keep_values<SPLIT>(a, it, r, total[part], o, segment, d);
    }
    __syncthreads();
}

template <int PARTS>
static __device__ __forceinline__ void finish(const struct latent_args &a, const struct room &r,
                                              const float total[PARTS][LATENT_QUERIES][2])
{
#pragma unroll
    for (uint32_t part = 0; part < PARTS; part++) {
        const uint32_t d0 = (threadIdx.x / CU_WARP + part * ATTN_WARPS) * WARP_DIMS,
                       d = d0 + 2 * (threadIdx.x % CU_WARP);
#pragma unroll
        for (uint32_t i = 0; i < LATENT_QUERIES; i++) {
            if (i >= r.sh->n_queries || d >= a.at.dim) continue;
            float *out = a.attn.out + r.sh->row[i] * a.attn.out_ld + (size_t)r.sh->head[i] * a.at.dim + d;
            const float inv = __fdiv_rn(1.0f, r.sh->total_sum[i]);
            out[0] = __fmul_rn(total[part][i][0], inv);
            out[1] = __fmul_rn(total[part][i][1], inv);
        }
    }
}

template <int PARTS, bool SPLIT>
static __global__ void __launch_bounds__(ATTN_THREADS) latent_kernel(struct latent_args a)
{
    struct room r;
    struct attn_item it;
    carve(&r, cu_shared(), a.at);
    for (uint32_t item = blockIdx.x; attn_find(a.attn, item, &it); item += gridDim.x) {
        float total[PARTS][LATENT_QUERIES][2];
        attn_tile_queries(a.attn, it, *r.sh);
        __syncthreads();
        load_queries(a, r);
        __syncthreads();
        const uint32_t end = min(it.end, r.sh->high / ATTN_SEGMENT_TOKENS + 1);
        for (uint32_t segment = it.segment; segment < end && r.sh->n_queries; segment++)
            run_segment<PARTS, SPLIT>(a, it, r, total, segment);
        if (!SPLIT && r.sh->n_queries) finish<PARTS>(a, r, total);
        __syncthreads();
    }
}

template <int PARTS, bool SPLIT> static cudaError_t launch(const struct latent_args *a, uint32_t blocks, cudaStream_t s)
{
    struct room r;
    const size_t bytes = carve(&r, NULL, a->at);
    const cudaError_t e =
        cudaFuncSetAttribute(latent_kernel<PARTS, SPLIT>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    return e == cudaSuccess ? cu_launch(latent_kernel<PARTS, SPLIT>, blocks, ATTN_THREADS, bytes, s, *a) : e;
}

cudaError_t cuda_latent_f16(const struct latent_args *a, uint32_t blocks, cudaStream_t s)
{
    const bool is_wide = a->at.dim > ATTN_WARPS * WARP_DIMS;
    if (is_wide) return a->attn.split ? launch<2, true>(a, blocks, s) : launch<2, false>(a, blocks, s);
    return a->attn.split ? launch<1, true>(a, blocks, s) : launch<1, false>(a, blocks, s);
}
