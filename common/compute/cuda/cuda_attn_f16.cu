/* cuda_attn_f16.cu - attention over fp16 KV: chains of fma in the CPU's order, over d for scores and over t for values.
 *
 * Up to 8 query heads of one row are taken together.  A warp takes a block of the segment: two tokens to a lane for
 * scores, then dimensions to a lane for values. */
#include "compute/cuda/cuda_attn.h"

#define QUERIES 8u   /* of an item: of a row's heads */
#define COLS    128u /* dimensions of V at a time */

struct room {
    struct attn_shared *sh;
    float *q;     /* [QUERIES][dim] */
    float *p;     /* [ATTN_WARPS][QUERIES][KV_BLOCK_TOKENS] */
    float *sums;  /* [ATTN_WARPS][QUERIES][COLS] */
    float *total; /* not split: [QUERIES][dim] */
};

static __host__ __device__ __forceinline__ size_t shared_head(void)
{
    return (sizeof(struct attn_shared) + 15) / 16 * 16;
}

static size_t room_bytes(uint32_t dim)
{
    return shared_head() + sizeof(float) * QUERIES * (2 * dim + ATTN_WARPS * (KV_BLOCK_TOKENS + COLS));
}

static __device__ __forceinline__ struct room room_of(uint32_t dim)
{
    struct room r;
    r.sh = (struct attn_shared *)cu_shared();
    r.q = (float *)(cu_shared() + shared_head());
    r.p = r.q + QUERIES * dim;
    r.sums = r.p + ATTN_WARPS * QUERIES * KV_BLOCK_TOKENS;
    r.total = r.sums + ATTN_WARPS * QUERIES * COLS;
    return r;
}

/* Queries [q0, q0 + n) of the tile, which are heads of one row, become the item's queries 0 and on. */
static __device__ void take_queries(const struct attn_args &a, const struct attn_item &it, const struct room &r,
                                    uint32_t row, uint32_t head, uint32_t n)
{
    const struct step_seq &seq = a.step.seqs[it.seq];
    const uint32_t i = threadIdx.x, pos = seq.pos0 + row;
    if (i < ATTN_SPLIT_QUERIES) {
        r.sh->row[i] = seq.row0 + row;
        r.sh->head[i] = i < n ? head + i : 0;
        r.sh->pos[i] = pos;
        r.sh->first[i] = i < n ? attn_first_seen(a.window, pos) : 0xffffffffu;
    }
    if (i == 0) {
        r.sh->n_queries = n;
        r.sh->low = attn_first_seen(a.window, pos);
        r.sh->high = pos;
    }
    const float *q = a.q + (seq.row0 + row) * a.ld + (size_t)head * a.kv.dim;
    for (uint32_t d = i; d < QUERIES * a.kv.dim; d += ATTN_THREADS) r.q[d] = d < n * a.kv.dim ? q[d] : 0.0f;
    __syncthreads();
}

/* Lane l's scores of tokens l and l + 32. */
static __device__ __forceinline__ void dot_products(float s[2][QUERIES], const struct room &r, const uint16_t *k,
                                                    uint32_t dim)
{
    const uint32_t lane = threadIdx.x % CU_WARP;
#pragma unroll
    for (uint32_t i = 0; i < QUERIES; i++) s[0][i] = s[1][i] = 0;
    for (uint32_t d = 0; d < dim; d += 8) {
        union {
            uint4 v;
            uint16_t h[8];
        } x[2];
        x[0].v = __ldg((const uint4 *)(k + (d / 8 * KV_BLOCK_TOKENS + lane) * 8));
        x[1].v = __ldg((const uint4 *)(k + (d / 8 * KV_BLOCK_TOKENS + lane + 32) * 8));
#pragma unroll
        for (uint32_t j = 0; j < 8; j++) {
            const float k0 = cu_half_to_float(x[0].h[j]), k1 = cu_half_to_float(x[1].h[j]);
#pragma unroll
            for (uint32_t i = 0; i < QUERIES; i++) {
                const float q = r.q[i * dim + d + j];
                s[0][i] = __fmaf_rn(q, k0, s[0][i]);
                s[1][i] = __fmaf_rn(q, k1, s[1][i]);
            }
        }
    }
}

static __device__ __forceinline__ void scores_of(const struct attn_args &a, const struct room &r, float s[2][QUERIES],
                                                 struct attn_seen seen)
{
    const uint32_t lane = threadIdx.x % CU_WARP, warp = threadIdx.x / CU_WARP;
#pragma unroll
    for (uint32_t i = 0; i < QUERIES; i++) {
#pragma unroll
        for (uint32_t j = 0; j < 2; j++) {
            const uint32_t t = lane + 32 * j;
            const float x = attn_capped(a, __fmul_rn(s[j][i], a.scale));
            s[j][i] = t >= seen.first && t < seen.end ? x : -INFINITY;
        }
        float top = cu_max(s[0][i], s[1][i]);
        for (int step = 16; step; step /= 2) top = cu_max(top, __shfl_xor_sync(0xffffffffu, top, step));
        if (lane == 0) {
            r.sh->max[warp][i] = top;
            r.sh->live[warp][i] = i < r.sh->n_queries;
        }
    }
}

/* p of the warp's block, and their sum in sixteen lanes: token t is in lane t % 16 of vector t / 16. */
static __device__ __forceinline__ void weights_of(const struct room &r, float s[2][QUERIES])
{
    const uint32_t lane = threadIdx.x % CU_WARP, warp = threadIdx.x / CU_WARP;
#pragma unroll
    for (uint32_t i = 0; i < QUERIES; i++) {
        const float2 max2 = attn_running_max(*r.sh, i, warp);
        float *p = r.p + (warp * QUERIES + i) * KV_BLOCK_TOKENS;
        float x[2];
#pragma unroll
        for (uint32_t j = 0; j < 2; j++) {
            p[lane + 32 * j] = x[j] = attn_exp(__fsub_rn(s[j][i], max2.y));
            x[j] = __fadd_rn(x[j], __shfl_xor_sync(0xffffffffu, x[j], 16));
        }
        float sum = __fadd_rn(x[0], x[1]);
        for (int step = 8; step; step /= 2) sum = __fadd_rn(sum, __shfl_xor_sync(0xffffffffu, sum, step));
        if (lane == 0) {
            r.sh->alpha[warp][i] = attn_exp(__fsub_rn(max2.x, max2.y));
            r.sh->sum[warp][i] = sum;
        }
    }
    __syncwarp();
}

/* The warp's sums over V of dimensions [d0, d0 + COLS): a chain over the tokens that are seen. */
static __device__ __forceinline__ void sum_values(const struct room &r, const uint16_t *v, uint32_t dim, uint32_t d0,
                                                  struct attn_seen seen)
{
    const uint32_t lane = threadIdx.x % CU_WARP, warp = threadIdx.x / CU_WARP, d = d0 + 4 * lane;
    const float *p = r.p + warp * QUERIES * KV_BLOCK_TOKENS;
    if (d >= dim) return;
    float acc[QUERIES][4];
#pragma unroll
    for (uint32_t i = 0; i < QUERIES; i++) acc[i][0] = acc[i][1] = acc[i][2] = acc[i][3] = 0;
#pragma unroll 4
    for (uint32_t t = seen.first; t < seen.end; t++) {
        union {
            uint2 v;
            uint16_t h[4];
        } x;
        x.v = __ldg((const uint2 *)(v + (size_t)t * dim + d));
        const float f[4] = { cu_half_to_float(x.h[0]), cu_half_to_float(x.h[1]), cu_half_to_float(x.h[2]),
                             cu_half_to_float(x.h[3]) };
#pragma unroll
        for (uint32_t i = 0; i < QUERIES; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) acc[i][e] = __fmaf_rn(p[i * KV_BLOCK_TOKENS + t], f[e], acc[i][e]);
    }
#pragma unroll
    for (uint32_t i = 0; i < QUERIES; i++)
        *(float4 *)(r.sums + (warp * QUERIES + i) * COLS + 4 * lane) =
            make_float4(acc[i][0], acc[i][1], acc[i][2], acc[i][3]);
}

static __device__ __forceinline__ float *partial_of(const struct attn_args &a, const struct attn_item &it,
                                                    const struct attn_shared &sh, uint32_t query, uint32_t segment)
{
    const struct step_seq &seq = a.step.seqs[it.seq];
    const uint32_t first = attn_first_segment(a.window, seq.pos0);
    const uint32_t n = attn_end_segment(seq.pos0, seq.n_rows) - first;
    const uint32_t row = sh.row[query] - seq.row0;
    return attn_partial(a, it.slot + (row * a.n_heads + sh.head[query]) * n + segment - first);
}

static __device__ __forceinline__ void combine(const struct attn_args &a, const struct attn_item &it,
                                               const struct room &r, uint32_t segment, uint32_t d0)
{
    const uint32_t cols = min(COLS, a.kv.dim - d0);
    for (uint32_t i = threadIdx.x; i < r.sh->n_queries * cols; i += ATTN_THREADS) {
        const uint32_t query = i / cols, col = i % cols;
        float o = 0;
        for (uint32_t b = 0; b < ATTN_WARPS; b++)
            if (r.sh->live[b][query])
                o = __fmaf_rn(o, r.sh->alpha[b][query], r.sums[(b * QUERIES + query) * COLS + col]);
        if (a.split) {
            partial_of(a, it, *r.sh, query, segment)[ATTN_PARTIAL_PAD + d0 + col] = o;
            continue;
        }
        float *total = r.total + query * a.kv.dim + d0 + col;
        *total = attn_begins(*r.sh, query, segment)
                     ? o
                     : __fmaf_rn(o, r.sh->new_factor[query], __fmul_rn(*total, r.sh->old_factor[query]));
    }
}

static __device__ __forceinline__ void end_segment(const struct attn_args &a, const struct attn_item &it,
                                                   const struct room &r, uint32_t segment)
{
    attn_end_state(*r.sh);
    if (!a.split) {
        attn_add_segment(*r.sh, segment);
        __syncthreads();
    } else if (threadIdx.x < r.sh->n_queries) {
        float *partial = partial_of(a, it, *r.sh, threadIdx.x, segment);
        partial[0] = r.sh->segment_max[threadIdx.x];
        partial[1] = r.sh->segment_sum[threadIdx.x];
    }
}

static __device__ __forceinline__ void run_segment(const struct attn_args &a, const struct attn_item &it,
                                                   const struct room &r, uint32_t segment)
{
    const uint32_t lane = threadIdx.x % CU_WARP, warp = threadIdx.x / CU_WARP, dim = a.kv.dim;
    const uint32_t block = segment * ATTN_SEGMENT_BLOCKS + warp;
    const struct attn_seen seen = attn_seen_of(r.sh->low, r.sh->high, block);
    const bool there = seen.first < seen.end;
    const uint16_t *v = NULL;
    float s[2][QUERIES];
    if (there) {
        const uint8_t *k = cu_kv_part(a.kv, a.step.seqs[it.seq], block, it.kv_head, false);
        v = (const uint16_t *)(k + a.kv.part_bytes);
        dot_products(s, r, (const uint16_t *)k, dim);
        scores_of(a, r, s, seen);
    } else if (lane < ATTN_SPLIT_QUERIES) {
        r.sh->live[warp][lane] = false;
    }
    if (there && lane >= QUERIES && lane < ATTN_SPLIT_QUERIES) r.sh->live[warp][lane] = false;
    __syncthreads();
    if (there) weights_of(r, s);
    for (uint32_t d0 = 0; d0 < dim; d0 += COLS) {
        if (there) sum_values(r, v, dim, d0, seen);
        __syncthreads();
        if (d0 == 0) end_segment(a, it, r, segment);
        combine(a, it, r, segment, d0);
        __syncthreads();
    }
}

/* Heads [head, head + n) of one row, over the item's segments. */
static __device__ void run_row(const struct attn_args &a, const struct attn_item &it, const struct room &r,
                               uint32_t row, uint32_t head, uint32_t n)
{
    take_queries(a, it, r, row, head, n);
    const uint32_t first = max(it.segment, r.sh->low / ATTN_SEGMENT_TOKENS);
    const uint32_t end = min(it.end, r.sh->high / ATTN_SEGMENT_TOKENS + 1);
    for (uint32_t segment = first; segment < end; segment++) run_segment(a, it, r, segment);
    for (uint32_t i = threadIdx.x; !a.split && i < n * a.kv.dim; i += ATTN_THREADS) {
        const uint32_t query = i / a.kv.dim;
        const float2 state = make_float2(r.sh->total_max[query], r.sh->total_sum[query]);
        a.out[r.sh->row[query] * a.out_ld + (size_t)head * a.kv.dim + i] =
            attn_finish(a, head + query, state, r.total[i]);
    }
    __syncthreads();
}

static __global__ void __launch_bounds__(ATTN_THREADS, 2) attn_f16_kernel(struct attn_args a)
{
    const struct room r = room_of(a.kv.dim);
    struct attn_item it;
    for (uint32_t item = blockIdx.x; attn_find(a, item, &it); item += gridDim.x) {
        uint32_t head, n_heads;
        attn_heads(a, it.kv_head, &head, &n_heads);
        const uint32_t all = a.step.seqs[it.seq].n_rows * n_heads, q0 = it.tile * a.tile_queries;
        const uint32_t q1 = a.split ? all : min(all, q0 + a.tile_queries);
        for (uint32_t q = q0; q < q1;) {
            const uint32_t at = q % n_heads, n = min(min(n_heads - at, q1 - q), QUERIES);
            run_row(a, it, r, q / n_heads, head + at, n);
            q += n;
        }
    }
}

cudaError_t cuda_attn_f16(const struct attn_args *a, uint32_t blocks, cudaStream_t s)
{
    const size_t bytes = room_bytes(a->kv.dim);
    static const cudaError_t e =
        cudaFuncSetAttribute(attn_f16_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)room_bytes(512));
    return e == cudaSuccess ? cu_launch(attn_f16_kernel, blocks, ATTN_THREADS, bytes, s, *a) : e;
}
