/* cuda_latent_int8.cu - attention over INT8 latents on tensor cores, exact: int16 q and int16 weights go in as a signed
 * high and an unsigned low byte (cuda_attn_int8.cu).
 *
 * Up to 16 queries are the rows of all products.  First a warp takes a block of the segment: its scores, and the
 * weights of each group of latents, for all warps to read.  Then a warp takes 64 values of the latents (or twice 64)
 * and goes over the segment's blocks with the sums in its registers. */
#include "compute/cuda/cu_mma.h"
#include "compute/cuda/cuda_latent.h"

#define WARP_DIMS 64u /* of o, a part of a warp's */
#define TILES     8   /* of 8 columns in WARP_DIMS */

/* Where the block's shared memory is. */
struct room {
    struct attn_shared *sh;
    uint8_t *high, *low; /* of q: [16][q_stride] */
    uint4 *weights;      /* [blocks][groups][2 planes][2 halves][32 lanes] */
    float *scale;        /* of weights: [blocks][groups][16] */
    float *q_scale;      /* [groups][16] */
    float *q_rope;       /* [16][rope_dim] */
};

static __host__ __device__ __forceinline__ uint32_t q_stride_of(uint32_t dim)
{
    return (dim + 63) / 64 * 64 | 64u; /* an odd multiple of 64: no bank conflicts */
}

static __host__ __device__ __forceinline__ size_t carve(struct room *r, uint8_t *at, const struct cu_latent &l)
{
    uint8_t *const start = at;
    const size_t plane = (size_t)LATENT_QUERIES * q_stride_of(l.dim);
    r->sh = (struct attn_shared *)at;
    r->high = at += (sizeof(struct attn_shared) + 15) / 16 * 16;
    r->low = at += plane;
    r->weights = (uint4 *)(at += plane);
    r->scale = (float *)(at += ATTN_WARPS * l.groups * 4 * CU_WARP * sizeof(uint4));
    r->q_scale = (float *)(at += ATTN_WARPS * l.groups * LATENT_QUERIES * sizeof(float));
    r->q_rope = (float *)(at += l.groups * LATENT_QUERIES * sizeof(float));
    return (size_t)(at + LATENT_QUERIES * l.rope_dim * sizeof(float) - start);
}

/* --- queries --- */
/* A group of a query in 16 bits, by a warp; `n` values of it are there. */
static __device__ void quantize_group(const struct room &r, const float *q, uint32_t i, uint32_t at, uint32_t n,
                                      uint32_t stride, float *q_scale, float scale)
{
    const uint32_t lane = threadIdx.x % CU_WARP;
    uint32_t amax = 0;
    float x[LATENT_GROUP / CU_WARP];
#pragma unroll
    for (uint32_t j = 0; j < LATENT_GROUP / CU_WARP; j++) {
        x[j] = lane + j * CU_WARP < n ? q[at + lane + j * CU_WARP] : 0.0f;
        amax = max(amax, __float_as_uint(x[j]) & 0x7fffffffu);
    }
    for (int step = 16; step; step /= 2) amax = max(amax, __shfl_xor_sync(0xffffffffu, amax, step));
    const struct cu_step step = cu_step_of(amax, 32767.0f);
#pragma unroll
    for (uint32_t j = 0; j < LATENT_GROUP / CU_WARP; j++) {
        const uint32_t d = at + lane + j * CU_WARP;
        const uint32_t bits = step.finite ? __float_as_uint(__fmaf_rn(x[j], step.inv, CU_ROUND)) : 0;
        if (d >= stride) continue;
        r.high[i * stride + d] = (uint8_t)(bits >> 8);
        r.low[i * stride + d] = (uint8_t)bits;
    }
    if (lane == 0) *q_scale = __fmul_rn(step.scale, scale);
}

static __device__ void load_queries(const struct latent_args &a, const struct room &r)
{
    const uint32_t lane = threadIdx.x % CU_WARP, stride = q_stride_of(a.at.dim);
    for (uint32_t k = threadIdx.x / CU_WARP; k < LATENT_QUERIES * a.at.groups; k += ATTN_WARPS) {
        const uint32_t i = k % LATENT_QUERIES, g = k / LATENT_QUERIES, at = g * LATENT_GROUP;
        const uint32_t n = i < r.sh->n_queries ? min(a.at.dim - at, (uint32_t)LATENT_GROUP) : 0;
        quantize_group(r, latent_q(a, *r.sh, i), i, at, n, stride, &r.q_scale[k], a.attn.scale);
    }
    for (uint32_t i = threadIdx.x / CU_WARP; i < LATENT_QUERIES; i += ATTN_WARPS)
        for (uint32_t d = lane; d < a.at.rope_dim; d += CU_WARP)
            r.q_rope[i * a.at.rope_dim + d] = i < r.sh->n_queries ? latent_q_rope(a, *r.sh, i)[d] : 0.0f;
}

/* --- scores --- */
/* Sixteen bytes of queries g and g + 8, as the first operand of two products of 32 columns. */
static __device__ __forceinline__ void load_q(uint32_t out[8], const uint8_t *plane, uint32_t stride, uint32_t at)
{
    const uint32_t g = threadIdx.x % CU_WARP / 4;
    const uint4 x = *(const uint4 *)(plane + g * stride + at), y = *(const uint4 *)(plane + (g + 8) * stride + at);
    out[0] = x.x, out[1] = y.x, out[2] = x.y, out[3] = y.y;
    out[4] = x.z, out[5] = y.z, out[6] = x.w, out[7] = y.w;
}

/* One plane of q times a group of 32 tokens' latents. */
static __device__ __forceinline__ void add_plane(int32_t dots[4][4], const uint4 keys[2][4], const uint8_t *plane,
                                                 uint32_t stride, uint32_t at, bool is_low)
{
#pragma unroll
    for (uint32_t j = 0; j < 2; j++) {
        uint32_t q[8];
        if (at + 64 * j >= stride) break; /* the last group may be half there */
        load_q(q, plane, stride, at + 64 * j + 16 * (threadIdx.x % 4));
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) {
            const uint32_t b0[2] = { keys[j][i].x, keys[j][i].y }, b1[2] = { keys[j][i].z, keys[j][i].w };
            if (is_low) {
                cu_mma_u8s8(dots[i], q, b0);
                cu_mma_u8s8(dots[i], q + 4, b1);
            } else {
                cu_mma_s8s8(dots[i], q, b0);
                cu_mma_s8s8(dots[i], q + 4, b1);
            }
        }
    }
}

/* Adds a group's scores of half a block: tokens 8 i + 2 c + {0, 1} of it. */
static __device__ __forceinline__ void score_group(const struct latent_args &a, const struct room &r, float s[2][8],
                                                   const uint8_t *slice, uint32_t group, uint32_t half)
{
    const uint32_t g = threadIdx.x % CU_WARP / 4, c = threadIdx.x % 4, at = group * LATENT_GROUP;
    const uint32_t stride = q_stride_of(a.at.dim);
    const float *scales = (const float *)(slice + a.at.scales) + group;
    uint4 keys[2][4];
    int32_t dots[4][4];
#pragma unroll
    for (uint32_t j = 0; j < 2; j++)
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) {
            const uint32_t d = at + 64 * j + 16 * c, t = 32 * half + 8 * i + g;
            keys[j][i] = d < a.at.dim ? __ldg((const uint4 *)(slice + t * a.at.dim + d)) : make_uint4(0, 0, 0, 0);
        }
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) dots[i][0] = dots[i][1] = dots[i][2] = dots[i][3] = 0;
    add_plane(dots, keys, r.high, stride, at, false);
#pragma unroll
    for (uint32_t i = 0; i < 4; i++)
#pragma unroll
        for (uint32_t e = 0; e < 4; e++) dots[i][e] = (int32_t)((uint32_t)dots[i][e] << 8);
    add_plane(dots, keys, r.low, stride, at, true);
#pragma unroll
    for (uint32_t h = 0; h < 2; h++) {
        const float q_scale = r.q_scale[group * LATENT_QUERIES + g + 8 * h];
#pragma unroll
        for (uint32_t i = 0; i < 8; i++) {
            const uint32_t t = 32 * half + 8 * (i / 2) + 2 * c + i % 2;
            const float k_scale = __ldg(scales + t * a.at.groups);
            const float x = __fmul_rn(__fmul_rn(__int2float_rn(dots[i / 2][2 * h + i % 2]), k_scale), q_scale);
            s[h][i] = group ? __fadd_rn(s[h][i], x) : x;
        }
    }
}

static __device__ __forceinline__ void score_block(const struct latent_args &a, const struct room &r, float s[2][16],
                                                   const uint8_t *slice)
{
#pragma unroll
    for (uint32_t half = 0; half < 2; half++) {
        float part[2][8], rope[2][8];
        for (uint32_t group = 0; group < a.at.groups; group++) score_group(a, r, part, slice, group, half);
#pragma unroll
        for (uint32_t i = 0; i < 8; i++) rope[0][i] = rope[1][i] = 0;
        latent_chain<true>(rope, (const uint16_t *)(slice + a.at.rope) + 32 * half * a.at.rope_dim, a.at.rope_dim,
                           r.q_rope);
#pragma unroll
        for (uint32_t i = 0; i < 8; i++)
#pragma unroll
            for (uint32_t h = 0; h < 2; h++)
                s[h][8 * half + i] =
                    a.at.rope_dim ? __fadd_rn(part[h][i], __fmul_rn(rope[h][i], a.attn.scale)) : part[h][i];
    }
}

/* --- weights --- */
/* Four 16-bit integers' high and low bytes. */
static __device__ __forceinline__ void split_bytes(uint32_t *high, uint32_t *low, const uint32_t w[4])
{
    const uint32_t a = __byte_perm(w[0], w[1], 0x5140), b = __byte_perm(w[2], w[3], 0x5140);
    *low = __byte_perm(a, b, 0x5410);
    *high = __byte_perm(a, b, 0x7632);
}

/* A group's weights of query g + 8 h in 16 bits; `high` and `low` are registers of the products' first operand. */
static __device__ __forceinline__ void weigh_group(const struct latent_args &a, const struct room &r, uint32_t high[8],
                                                   uint32_t low[8], const float p[16], const uint8_t *slice,
                                                   uint32_t block, uint32_t group, int h)
{
    const uint32_t c = threadIdx.x % 4, query = threadIdx.x % CU_WARP / 4 + 8 * h;
    const struct attn_seen seen = attn_seen_of(r.sh->first[query], r.sh->pos[query], block);
    const float *scales = (const float *)(slice + a.at.scales) + group;
    uint32_t amax = 0;
    float x[16];
#pragma unroll
    for (uint32_t i = 0; i < 16; i++) {
        const uint32_t t = 8 * (i / 2) + 2 * c + i % 2;
        x[i] = t < seen.end ? __fmul_rn(p[i], __ldg(scales + t * a.at.groups)) : 0.0f;
        amax = max(amax, __float_as_uint(x[i]) & 0x7fffffffu);
    }
    amax = max(amax, __shfl_xor_sync(0xffffffffu, amax, 1));
    amax = max(amax, __shfl_xor_sync(0xffffffffu, amax, 2));
    const struct cu_step step = cu_step_of(amax, 32767.0f);
    const uint32_t kept = step.finite ? 0xffffffffu : 0;
    if (c == 0) r.scale[(block % ATTN_WARPS * a.at.groups + group) * LATENT_QUERIES + query] = step.scale;
#pragma unroll
    for (uint32_t j = 0; j < 4; j++) {
        uint32_t w[4];
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) w[i] = __float_as_uint(__fmaf_rn(x[4 * j + i], step.inv, CU_ROUND)) & kept;
        split_bytes(&high[2 * j + h], &low[2 * j + h], w);
    }
}

/* All groups' weights of the warp's block, for the block's warps. */
static __device__ __forceinline__ void weigh_block(const struct latent_args &a, const struct room &r, float s[2][16],
                                                   const uint8_t *slice, uint32_t block)
{
    uint4 *to = r.weights + block % ATTN_WARPS * a.at.groups * 4 * CU_WARP + threadIdx.x % CU_WARP;
    latent_softmax(*r.sh, s[0], block, 0);
    latent_softmax(*r.sh, s[1], block, 1);
    for (uint32_t group = 0; group < a.at.groups; group++, to += 4 * CU_WARP) {
        uint32_t high[8], low[8];
        weigh_group(a, r, high, low, s[0], slice, block, group, 0);
        weigh_group(a, r, high, low, s[1], slice, block, group, 1);
        to[0] = make_uint4(high[0], high[1], high[2], high[3]);
        to[CU_WARP] = make_uint4(high[4], high[5], high[6], high[7]);
        to[2 * CU_WARP] = make_uint4(low[0], low[1], low[2], low[3]);
        to[3 * CU_WARP] = make_uint4(low[4], low[5], low[6], low[7]);
    }
}

/* --- values --- */
/* Byte e of each of four words, for e = 0 .. 3: from tokens' dimensions to dimensions' tokens. */
static __device__ __forceinline__ void transpose(uint32_t out[4], const uint32_t w[4])
{
    const uint32_t a = __byte_perm(w[0], w[1], 0x5140), b = __byte_perm(w[2], w[3], 0x5140);
    const uint32_t c = __byte_perm(w[0], w[1], 0x7362), d = __byte_perm(w[2], w[3], 0x7362);
    out[0] = __byte_perm(a, b, 0x5410);
    out[1] = __byte_perm(a, b, 0x7632);
    out[2] = __byte_perm(c, d, 0x5410);
    out[3] = __byte_perm(c, d, 0x7632);
}

static __device__ __forceinline__ void load_weights(uint32_t out[8], const uint4 *from)
{
    const uint4 x = from[0], y = from[CU_WARP];
    out[0] = x.x, out[1] = x.y, out[2] = x.z, out[3] = x.w;
    out[4] = y.x, out[5] = y.y, out[6] = y.z, out[7] = y.w;
}

/* o of queries g and g + 8 and the dimensions d0 + 16 c + {0, 8} + n: o[n][{0, 1}] and o[n][{2, 3}], n = 0 .. 7; one
 * more block. */
static __device__ __forceinline__ void add_block(const struct latent_args &a, const struct room &r, float o[TILES][4],
                                                 const uint8_t *slice, uint32_t b, uint32_t d0)
{
    const uint32_t g = threadIdx.x % CU_WARP / 4, c = threadIdx.x % 4, group = d0 / LATENT_GROUP;
    const uint4 *from = r.weights + (b * a.at.groups + group) * 4 * CU_WARP + threadIdx.x % CU_WARP;
    uint32_t high[8], low[8], v[TILES][4]; /* v: dimension d0 + 8 g + n of 16 tokens */
#pragma unroll
    for (uint32_t j = 0; j < 4; j++) {
        uint2 x[4];
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) {
            const uint32_t t = 16 * j + 8 * (i / 2) + 2 * c + i % 2, d = d0 + 8 * g;
            x[i] = d < a.at.dim ? __ldg((const uint2 *)(slice + t * a.at.dim + d)) : make_uint2(0, 0);
        }
        const uint32_t lows[4] = { x[0].x, x[1].x, x[2].x, x[3].x }, highs[4] = { x[0].y, x[1].y, x[2].y, x[3].y };
        uint32_t of_low[4], of_high[4];
        transpose(of_low, lows);
        transpose(of_high, highs);
#pragma unroll
        for (uint32_t e = 0; e < 4; e++) v[e][j] = of_low[e], v[4 + e][j] = of_high[e];
    }
    load_weights(high, from);
    load_weights(low, from + 2 * CU_WARP);
    float alpha[2], scale[2];
    bool live[2];
#pragma unroll
    for (uint32_t h = 0; h < 2; h++) {
        live[h] = r.sh->live[b][g + 8 * h];
        alpha[h] = r.sh->alpha[b][g + 8 * h];
        scale[h] = r.scale[(b * a.at.groups + group) * LATENT_QUERIES + g + 8 * h];
    }
#pragma unroll
    for (uint32_t n = 0; n < TILES; n++) {
        int32_t sum[4] = { 0, 0, 0, 0 };
        cu_mma_s8s8(sum, high, v[n]);
        cu_mma_s8s8(sum, high + 4, v[n] + 2);
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) sum[i] = (int32_t)((uint32_t)sum[i] << 8);
        cu_mma_u8s8(sum, low, v[n]);
        cu_mma_u8s8(sum, low + 4, v[n] + 2);
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) {
            const float next = __fmaf_rn(__int2float_rn(sum[i]), scale[i / 2], __fmul_rn(o[n][i], alpha[i / 2]));
            o[n][i] = live[i / 2] ? next : o[n][i];
        }
    }
}

/* What becomes of a dimension of a query: its place in `to`, a row of the query's. */
static __device__ __forceinline__ uint32_t dim_of(uint32_t d0, uint32_t n, uint32_t i)
{
    return d0 + 8 * (2 * (threadIdx.x % 4) + i % 2) + n;
}

/* A segment's o: to its partial, or into the total. */
template <bool SPLIT>
static __device__ __forceinline__ void keep_values(const struct latent_args &a, const struct attn_item &it,
                                                   const struct room &r, float total[TILES][4], const float o[TILES][4],
                                                   uint32_t segment, uint32_t d0)
{
#pragma unroll
    for (uint32_t h = 0; h < 2; h++) {
        const uint32_t query = threadIdx.x % CU_WARP / 4 + 8 * h;
        if (query >= r.sh->n_queries || !attn_sees_segment(*r.sh, query, segment)) continue;
        float *partial = SPLIT ? latent_partial(a, it, *r.sh, query, segment) + ATTN_PARTIAL_PAD : NULL;
        const bool begins = attn_begins(*r.sh, query, segment);
        const float added = r.sh->new_factor[query], kept = r.sh->old_factor[query];
#pragma unroll
        for (uint32_t n = 0; n < TILES; n++)
#pragma unroll
            for (uint32_t i = 2 * h; i < 2 * h + 2; i++) {
                const uint32_t d = dim_of(d0, n, i);
                if (SPLIT && d < a.at.dim) partial[d] = o[n][i];
                if (!SPLIT) total[n][i] = begins ? o[n][i] : __fmaf_rn(o[n][i], added, __fmul_rn(total[n][i], kept));
            }
    }
}

/* --- a segment --- */
/* Scores and weights, a block to a warp; then the segment's states are known. */
template <bool SPLIT>
static __device__ __forceinline__ void weigh_segment(const struct latent_args &a, const struct attn_item &it,
                                                     const struct room &r, uint32_t segment)
{
    const uint32_t block = segment * ATTN_SEGMENT_BLOCKS + threadIdx.x / CU_WARP;
    const bool there = block <= r.sh->high / KV_BLOCK_TOKENS;
    const uint8_t *slice = there ? cu_latent_slice(a, a.attn.step.seqs[it.seq], block) : NULL;
    float s[2][16];
    if (there) {
        score_block(a, r, s, slice);
        latent_hide(*r.sh, s, block);
    } else {
        latent_no_block(*r.sh);
    }
    __syncthreads();
    if (there) weigh_block(a, r, s, slice, block);
    __syncthreads();
    latent_end_segment<SPLIT>(a, it, *r.sh, segment);
}

template <int PARTS, bool SPLIT>
static __device__ __forceinline__ void run_segment(const struct latent_args &a, const struct attn_item &it,
                                                   const struct room &r, float total[PARTS][TILES][4], uint32_t segment)
{
    const uint32_t block0 = segment * ATTN_SEGMENT_BLOCKS, last = r.sh->high / KV_BLOCK_TOKENS;
    const uint32_t n_blocks = min(last - block0 + 1, ATTN_SEGMENT_BLOCKS);
    weigh_segment<SPLIT>(a, it, r, segment);
#pragma unroll
    for (uint32_t part = 0; part < PARTS; part++) {
        const uint32_t d0 = (threadIdx.x / CU_WARP + part * ATTN_WARPS) * WARP_DIMS;
        float o[TILES][4];
        if (d0 >= a.at.dim) continue;
#pragma unroll
        for (uint32_t n = 0; n < TILES; n++) o[n][0] = o[n][1] = o[n][2] = o[n][3] = 0;
        for (uint32_t b = 0; b < n_blocks; b++)
            add_block(a, r, o, cu_latent_slice(a, a.attn.step.seqs[it.seq], block0 + b), b, d0);
        keep_values<SPLIT>(a, it, r, total[part], o, segment, d0);
    }
    __syncthreads();
}

template <int PARTS>
static __device__ __forceinline__ void finish(const struct latent_args &a, const struct room &r,
                                              const float total[PARTS][TILES][4])
{
#pragma unroll
    for (uint32_t part = 0; part < PARTS; part++)
#pragma unroll
        for (uint32_t h = 0; h < 2; h++) {
            const uint32_t query = threadIdx.x % CU_WARP / 4 + 8 * h;
            const uint32_t d0 = (threadIdx.x / CU_WARP + part * ATTN_WARPS) * WARP_DIMS;
            if (query >= r.sh->n_queries) continue;
            float *out = a.attn.out + r.sh->row[query] * a.attn.out_ld + (size_t)r.sh->head[query] * a.at.dim;
            const float inv = __fdiv_rn(1.0f, r.sh->total_sum[query]);
#pragma unroll
            for (uint32_t n = 0; n < TILES; n++)
#pragma unroll
                for (uint32_t i = 2 * h; i < 2 * h + 2; i++)
                    if (dim_of(d0, n, i) < a.at.dim) out[dim_of(d0, n, i)] = __fmul_rn(total[part][n][i], inv);
        }
}

template <int PARTS, bool SPLIT>
static __global__ void __launch_bounds__(ATTN_THREADS, 1) latent_kernel(struct latent_args a)
{
    struct room r;
    struct attn_item it;
    carve(&r, cu_shared(), a.at);
    for (uint32_t item = blockIdx.x; attn_find(a.attn, item, &it); item += gridDim.x) {
        float total[PARTS][TILES][4];
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

cudaError_t cuda_latent_int8(const struct latent_args *a, uint32_t blocks, cudaStream_t s)
{
    const bool is_wide = a->at.dim > ATTN_WARPS * WARP_DIMS;
    if (is_wide) return a->attn.split ? launch<2, true>(a, blocks, s) : launch<2, false>(a, blocks, s);
    return a->attn.split ? launch<1, true>(a, blocks, s) : launch<1, false>(a, blocks, s);
}
