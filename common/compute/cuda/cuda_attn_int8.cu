/* cuda_attn_int8.cu - attention over INT8 KV by segments, a warp to each block: decode, and dimensions for which
 * cuda_attn_prefill.cu has no kernel.
 *
 * Up to 16 queries are the rows of all products.  A warp asks for its K at once and for V behind it, makes its block's
 * scores and their largest, then, knowing those of the blocks before, the weights and their sum over V.  Where there
 * are at most 8 queries (NARROW) the other half of the rows is left out. */
#include "compute/cuda/cuda_attn_mma.h"

#define QUERIES  ATTN_SPLIT_QUERIES
#define SUM_COLS 1024u /* int32 of a warp's sums over V: as many dimensions at a time as queries leave room for */
#define SUM_PAD  8u    /* that rows fall on different banks */

struct shapes {
    uint32_t sum_rows, sum_cols, sum_stride;
};

/* Bytes of a query in one of the planes; an odd multiple of 64: no bank conflicts. */
static __host__ __device__ __forceinline__ uint32_t q_stride_of(uint32_t dim)
{
    return (dim + 63) / 64 * 64 | 64u;
}

static __device__ __forceinline__ struct shapes shapes_of(uint32_t n_queries)
{
    struct shapes z;
    z.sum_rows = n_queries <= 4 ? 4 : n_queries <= 8 ? 8 : 16;
    z.sum_cols = SUM_COLS / z.sum_rows;
    z.sum_stride = z.sum_cols + SUM_PAD;
    return z;
}

/* Where the block's shared memory is. */
struct room {
    struct attn_shared *sh;
    uint8_t *high, *low; /* of q: [QUERIES][q_stride] */
    int32_t *sums;       /* [ATTN_WARPS][sum_rows][sum_stride] */
    float *total;        /* not split: [QUERIES][dim] */
};

static __host__ __device__ __forceinline__ size_t sums_bytes(void)
{
    return ATTN_WARPS * (SUM_COLS + QUERIES * SUM_PAD) * sizeof(int32_t);
}

static __host__ __device__ __forceinline__ size_t shared_head(void)
{
    return (sizeof(struct attn_shared) + 15) / 16 * 16;
}

static size_t room_bytes(uint32_t dim, bool split)
{
    return shared_head() + 2 * (size_t)QUERIES * q_stride_of(dim) + sums_bytes() +
           (split ? 0 : (size_t)QUERIES * dim * sizeof(float));
}

static __device__ __forceinline__ struct room room_of(uint32_t dim)
{
    uint8_t *p = cu_shared();
    const size_t plane = (size_t)QUERIES * q_stride_of(dim);
    struct room r;
    r.sh = (struct attn_shared *)p;
    r.high = p + shared_head();
    r.low = r.high + plane;
    r.sums = (int32_t *)(r.low + plane);
    r.total = (float *)((uint8_t *)r.sums + sums_bytes());
    return r;
}

/* Queries in 16 bits, a warp to each; rows without one, and columns past dim, are zeros. */
static __device__ void load_queries(const struct attn_args &a, const struct room &r)
{
    const uint32_t stride = q_stride_of(a.kv.dim);
    for (uint32_t i = threadIdx.x / CU_WARP; i < QUERIES; i += ATTN_WARPS) {
        const float *q = i < r.sh->n_queries ? a.q + r.sh->row[i] * a.ld + (size_t)r.sh->head[i] * a.kv.dim : NULL;
        const float scale =
            split_query(r.high + i * stride, r.low + i * stride, q, a.kv.dim, stride, [](uint32_t d) { return d; });
        if (threadIdx.x % CU_WARP == 0) r.sh->q_scale[i] = __fmul_rn(scale, a.scale);
    }
}

/* --- a block of the segment --- */
/* K of a block in registers: GROUPS of 64 dimensions, the last ones may be half there. */
template <int GROUPS> struct keys {
    uint4 k[GROUPS][TOKEN_TILES];
};

template <int GROUPS>
static __device__ __forceinline__ void load_keys(struct keys<GROUPS> &keys, const uint8_t *k, uint32_t dim)
{
#pragma unroll
    for (int j = 0; j < GROUPS; j++)
#pragma unroll
        for (int i = 0; i < TOKEN_TILES; i++) {
            const uint32_t d = 64 * j + 16 * lane_column();
            keys.k[j][i] = d < dim ? cu_load16_once(k + (8 * i + lane_group()) * dim + d) : make_uint4(0, 0, 0, 0);
        }
}

/* A part on its way to L2. */
static __device__ __forceinline__ void fetch_part(const uint8_t *part, uint32_t dim)
{
    for (uint32_t at = threadIdx.x % CU_WARP * 128; at < KV_BLOCK_TOKENS * (dim + 4); at += CU_WARP * 128)
        cu_prefetch(part + at);
}

template <bool NARROW>
static __device__ __forceinline__ void load_q(uint32_t out[8], const uint8_t *plane, uint32_t stride, uint32_t at)
{
    const uint4 x = *(const uint4 *)(plane + lane_group() * stride + at);
    mma_rows(out, x, NARROW ? make_uint4(0, 0, 0, 0) : *(const uint4 *)(plane + (lane_group() + 8) * stride + at));
}

/* q . k of 16 queries and 64 tokens. */
template <int GROUPS, bool NARROW>
static __device__ __forceinline__ void dot_products(int32_t out[TOKEN_TILES][4], const struct room &r,
                                                    const struct keys<GROUPS> &keys, uint32_t dim)
{
    const uint32_t stride = q_stride_of(dim);
#pragma unroll
    for (int i = 0; i < TOKEN_TILES; i++) out[i][0] = out[i][1] = out[i][2] = out[i][3] = 0;
#pragma unroll
    for (int j = 0; j < GROUPS; j++) {
        uint32_t q[8];
        load_q<NARROW>(q, r.high, stride, 64 * j + 16 * lane_column());
#pragma unroll
        for (int i = 0; i < TOKEN_TILES; i++) mma_high(out[i], q, keys.k[j][i]);
    }
#pragma unroll
    for (int i = 0; i < TOKEN_TILES; i++) mma_shift(out[i]);
#pragma unroll
    for (int j = 0; j < GROUPS; j++) {
        uint32_t q[8];
        load_q<NARROW>(q, r.low, stride, 64 * j + 16 * lane_column());
#pragma unroll
        for (int i = 0; i < TOKEN_TILES; i++) mma_low(out[i], q, keys.k[j][i]);
    }
}

/* Scores of the warp's block, and what the others have to know of them. */
template <bool NARROW>
static __device__ __forceinline__ void make_scores(const struct attn_args &a, const struct room &r, float s[2][16],
                                                   const int32_t dots[TOKEN_TILES][4], const float *k_scale,
                                                   uint32_t block)
{
#pragma unroll
    for (int h = 0; h < (NARROW ? 1 : 2); h++) {
        const uint32_t query = lane_group() + 8 * h;
        const struct attn_seen seen = attn_seen_of(r.sh->first[query], r.sh->pos[query], block);
        const float top = scores_of(a, s[h], dots, 2 * h, k_scale, r.sh->q_scale[query], seen, false);
        if (lane_column() != 0) continue;
        r.sh->live[block % ATTN_WARPS][query] = seen.first < seen.end;
        r.sh->max[block % ATTN_WARPS][query] = top;
    }
}

template <bool NARROW>
static __device__ __forceinline__ void make_weights(const struct room &r, uint32_t high[8], uint32_t low[8],
                                                    float s[2][16], const float *v_scale, uint32_t block)
{
#pragma unroll
    for (int h = 0; h < (NARROW ? 1 : 2); h++) {
        const uint32_t query = lane_group() + 8 * h, b = block % ATTN_WARPS;
        const struct attn_seen seen = attn_seen_of(r.sh->first[query], r.sh->pos[query], block);
        const float2 top = attn_running_max(*r.sh, query, b);
        const float sum = exp_of(s[h], top.y), scale = weights_of(high, low, s[h], v_scale, seen, false, h);
        if (lane_column() != 0) continue;
        r.sh->alpha[b][query] = attn_exp(__fsub_rn(top.x, top.y));
        r.sh->sum[b][query] = sum;
        r.sh->scale[b][query] = scale;
    }
}

/* The warp's sums of weights times V, dimensions [d0, d1), for the block's others to read. */
template <bool NARROW>
static __device__ __forceinline__ void sum_values(const struct room &r, const struct shapes &z, const uint32_t high[8],
                                                  const uint32_t low[8], const uint8_t *v, uint32_t d0, uint32_t d1)
{
    int32_t *to = r.sums + threadIdx.x / CU_WARP * z.sum_rows * z.sum_stride + lane_group() * z.sum_stride;
    const uint8_t *from = v + (size_t)lane_group() * KV_BLOCK_TOKENS + 16 * lane_column();
#pragma unroll 8
    for (uint32_t d = d0; d < d1; d += 8) {
        const uint4 x = cu_load16_once(from + (size_t)d * KV_BLOCK_TOKENS);
        int32_t sum[4] = { 0, 0, 0, 0 };
        mma_high(sum, high, x);
        mma_shift(sum);
        mma_low(sum, low, x);
        const uint32_t col = d - d0 + 2 * lane_column();
        if (lane_group() < z.sum_rows) *(int2 *)(to + col) = make_int2(sum[0], sum[1]);
        if (!NARROW && lane_group() + 8 < z.sum_rows)
            *(int2 *)(to + 8 * z.sum_stride + col) = make_int2(sum[2], sum[3]);
    }
}

/* --- the segment --- */
/* o of one dimension: the segment's blocks in ascending order. */
static __device__ __forceinline__ float chain_blocks(const struct room &r, const struct shapes &z, uint32_t query,
                                                     uint32_t col)
{
    float o = 0;
#pragma unroll
    for (uint32_t b = 0; b < ATTN_WARPS; b++) {
        if (!r.sh->live[b][query]) continue;
        const float sum = __int2float_rn(r.sums[(b * z.sum_rows + query) * z.sum_stride + col]);
        o = __fmaf_rn(sum, r.sh->scale[b][query], __fmul_rn(o, r.sh->alpha[b][query]));
    }
    return o;
}

static __device__ __forceinline__ uint32_t slot_of(const struct attn_args &a, const struct attn_item &it,
                                                   const struct attn_shared &sh, uint32_t query)
{
    const struct step_seq &seq = a.step.seqs[it.seq];
    const uint32_t first = attn_first_segment(a.window, seq.pos0);
    const uint32_t n = attn_end_segment(seq.pos0, seq.n_rows) - first;
    return it.slot + ((sh.row[query] - seq.row0) * a.n_heads + sh.head[query]) * n + it.segment - first;
}

/* Dimensions [d0, d1) of all queries, from the warps' sums to a partial or into the total. */
static __device__ __forceinline__ void combine(const struct attn_args &a, const struct attn_item &it,
                                               const struct room &r, const struct shapes &z, uint32_t segment,
                                               uint32_t d0, uint32_t d1)
{
    const uint32_t cols = d1 - d0;
    for (uint32_t i = threadIdx.x; i < r.sh->n_queries * cols; i += ATTN_THREADS) {
        const uint32_t query = i / cols, col = i % cols;
        if (!attn_sees_segment(*r.sh, query, segment)) continue;
        const float o = chain_blocks(r, z, query, col);
        if (a.split) {
            attn_partial(a, slot_of(a, it, *r.sh, query))[ATTN_PARTIAL_PAD + d0 + col] = o;
            continue;
        }
        float *total = r.total + query * a.kv.dim + d0 + col;
        *total = attn_begins(*r.sh, query, segment)
                     ? o
                     : __fmaf_rn(o, r.sh->new_factor[query], __fmul_rn(*total, r.sh->old_factor[query]));
    }
}

static __device__ __forceinline__ void keep_state(const struct attn_args &a, const struct attn_item &it,
                                                  const struct attn_shared &sh)
{
    if (threadIdx.x >= sh.n_queries || !attn_sees_segment(sh, threadIdx.x, it.segment)) return;
    float *partial = attn_partial(a, slot_of(a, it, sh, threadIdx.x));
    partial[0] = sh.segment_max[threadIdx.x];
    partial[1] = sh.segment_sum[threadIdx.x];
}

/* From the warps' weights to the segment's result; v NULL: the warp has no block. */
template <bool NARROW>
static __device__ __forceinline__ void end_segment(const struct attn_args &a, const struct attn_item &it,
                                                   const struct room &r, const uint32_t high[8], const uint32_t low[8],
                                                   const uint8_t *v, uint32_t segment)
{
    const struct shapes z = shapes_of(r.sh->n_queries);
    for (uint32_t d0 = 0; d0 < a.kv.dim; d0 += z.sum_cols) {
        const uint32_t d1 = min(a.kv.dim, d0 + z.sum_cols);
        if (v) sum_values<NARROW>(r, z, high, low, v, d0, d1);
        __syncthreads();
        if (d0 == 0) {
            attn_end_state(*r.sh);
            if (a.split)
                keep_state(a, it, *r.sh);
            else
                attn_add_segment(*r.sh, segment);
            if (!a.split) __syncthreads();
        }
        combine(a, it, r, z, segment, d0, d1);
        __syncthreads();
    }
}

/* The queries are loaded between the first request for K and its use if that is the item's first segment. */
template <int GROUPS, bool NARROW>
static __device__ __forceinline__ void run_segment(const struct attn_args &a, const struct attn_item &it,
                                                   const struct room &r, uint32_t segment, bool first)
{
    const uint32_t warp = threadIdx.x / CU_WARP, dim = a.kv.dim, block = segment * ATTN_SEGMENT_BLOCKS + warp;
    const bool there = block >= r.sh->low / KV_BLOCK_TOKENS && block <= r.sh->high / KV_BLOCK_TOKENS;
    const uint8_t *k = NULL, *v = NULL;
    struct keys<GROUPS> keys;
    float s[2][16];
    if (there) {
        k = cu_kv_part(a.kv, a.step.seqs[it.seq], block, it.kv_head, false);
        v = k + a.kv.part_bytes;
        load_keys<GROUPS>(keys, k, dim);
        fetch_part(v, dim);
    } else if (threadIdx.x % CU_WARP < QUERIES) {
        r.sh->live[warp][threadIdx.x % CU_WARP] = false;
    }
    if (first) {
        load_queries(a, r);
        __syncthreads();
    }
    if (there) {
        int32_t dots[TOKEN_TILES][4];
        dot_products<GROUPS, NARROW>(dots, r, keys, dim);
        make_scores<NARROW>(a, r, s, dots, (const float *)(k + (size_t)KV_BLOCK_TOKENS * dim), block);
    }
    __syncthreads();
    uint32_t high[8] = { 0 }, low[8] = { 0 };
    if (there) make_weights<NARROW>(r, high, low, s, (const float *)(v + (size_t)KV_BLOCK_TOKENS * dim), block);
    end_segment<NARROW>(a, it, r, high, low, v, segment);
}

template <int GROUPS, bool NARROW>
static __device__ __forceinline__ void run_segments(const struct attn_args &a, const struct attn_item &it,
                                                    const struct room &r)
{
    const uint32_t first = max(it.segment, r.sh->low / ATTN_SEGMENT_TOKENS);
    const uint32_t end = min(it.end, r.sh->high / ATTN_SEGMENT_TOKENS + 1);
    for (uint32_t segment = first; segment < end; segment++)
        run_segment<GROUPS, NARROW>(a, it, r, segment, segment == first);
}

static __device__ void write_totals(const struct attn_args &a, const struct room &r)
{
    for (uint32_t i = threadIdx.x; i < r.sh->n_queries * a.kv.dim; i += ATTN_THREADS) {
        const uint32_t query = i / a.kv.dim, d = i % a.kv.dim, head = r.sh->head[query];
        const float2 state = make_float2(r.sh->total_max[query], r.sh->total_sum[query]);
        a.out[r.sh->row[query] * a.out_ld + (size_t)head * a.kv.dim + d] = attn_finish(a, head, state, r.total[i]);
    }
}

template <int GROUPS, bool NARROW>
static __global__ void __launch_bounds__(ATTN_THREADS, GROUPS <= 2 ? 2 : 1) attn_int8_kernel(struct attn_args a)
{
    const struct room r = room_of(a.kv.dim);
    struct attn_item it;
    if (NARROW) /* nobody writes those of the queries that are left out */
        for (uint32_t i = threadIdx.x; i < ATTN_WARPS * QUERIES; i += ATTN_THREADS)
            r.sh->live[i / QUERIES][i % QUERIES] = false;
    for (uint32_t item = blockIdx.x; attn_find(a, item, &it); item += gridDim.x) {
        attn_tile_queries(a, it, *r.sh);
        __syncthreads();
        if (r.sh->n_queries) run_segments<GROUPS, NARROW>(a, it, r);
        if (!a.split) write_totals(a, r);
        __syncthreads();
    }
}

template <int GROUPS, bool NARROW> static cudaError_t launch(const struct attn_args *a, uint32_t blocks, cudaStream_t s)
{
    const size_t bytes = room_bytes(a->kv.dim, a->split);
    const cudaError_t e =
        cudaFuncSetAttribute(attn_int8_kernel<GROUPS, NARROW>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             (int)room_bytes(64 * GROUPS, false));
    return e == cudaSuccess ? cu_launch(attn_int8_kernel<GROUPS, NARROW>, blocks, ATTN_THREADS, bytes, s, *a) : e;
}

cudaError_t cuda_attn_int8(const struct attn_args *a, uint32_t blocks, bool narrow, cudaStream_t s)
{
    if (a->kv.dim <= 64) return narrow ? launch<1, true>(a, blocks, s) : launch<1, false>(a, blocks, s);
    if (a->kv.dim <= 128) return narrow ? launch<2, true>(a, blocks, s) : launch<2, false>(a, blocks, s);
    if (a->kv.dim <= 256) return launch<4, false>(a, blocks, s);
    return launch<8, false>(a, blocks, s);
}
