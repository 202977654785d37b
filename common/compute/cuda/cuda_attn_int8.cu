/* cuda_attn_int8.cu - attention over INT8 KV by segments, a warp to each block: decode, and dimensions for which
 * cuda_attn_prefill.cu has no kernel.
 *
 * Up to 16 queries are the rows of all products.  A warp asks for its K at once, makes its block's scores and their
 * largest, then, knowing those of the blocks before, the weights and their sum over V.  Where there are at most 8
 * queries (NARROW) the other half of the rows is left out.
 * A segment is a chain of waits, so memory is kept busy by the next one: a launch's block takes items that follow each
 * other, mostly segments of one head, and asks for the next segment's K, and V behind it, before this one's weights are
 * made. */
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
template <bool NARROW>
static __device__ __forceinline__ void load_queries(const struct attn_args &a, const struct room &r)
{
    const uint32_t stride = q_stride_of(a.kv.dim), n = NARROW ? 8 : QUERIES;
    for (uint32_t i = threadIdx.x / CU_WARP; i < n; i += ATTN_WARPS) {
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

/* The warp's block of a segment, if a query of the sequence sees something of it: its K. */
static __device__ __forceinline__ const uint8_t *part_of(const struct attn_args &a, const struct attn_item &it,
                                                         uint32_t segment, uint32_t low, uint32_t high)
{
    const uint32_t block = segment * ATTN_SEGMENT_BLOCKS + threadIdx.x / CU_WARP;
    if (block < low / KV_BLOCK_TOKENS || block > high / KV_BLOCK_TOKENS) return NULL;
    return cu_kv_part(a.kv, a.step.seqs[it.seq], block, it.kv_head, false);
}

/* What follows K's values, its scales and V, on its way to L2. */
static __device__ __forceinline__ void fetch_behind(const struct attn_args &a, const uint8_t *k)
{
    const uint32_t end = 2 * (uint32_t)a.kv.part_bytes;
    for (uint32_t at = KV_BLOCK_TOKENS * a.kv.dim + threadIdx.x % CU_WARP * 128; at < end; at += CU_WARP * 128)
        cu_prefetch(k + at);
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
        if (lane_column() == 0) r.sh->max[block % ATTN_WARPS][query] = top;
    }
}

/* What a query has of a block.  One that sees none of it takes a factor of 1 and adds 0, which changes no bit. */
static __device__ __forceinline__ void put_block(const struct room &r, uint32_t b, uint32_t query, float alpha,
                                                 float sum, float scale, struct attn_seen seen)
{
    const bool live = seen.first < seen.end;
    r.sh->alpha[b][query] = live ? alpha : 1.0f;
    r.sh->sum[b][query] = live ? sum : 0.0f;
    r.sh->scale[b][query] = live ? scale : 0.0f;
}

/* max before and after a block; that of a block of which nothing is seen is -inf. */
static __device__ __forceinline__ float2 running_max(const struct attn_shared &sh, uint32_t query, uint32_t block)
{
    float before = -INFINITY;
#pragma unroll
    for (uint32_t b = 0; b < ATTN_WARPS - 1; b++) {
        const float top = sh.max[b][query];
        before = b < block ? cu_max(before, top) : before;
    }
    return make_float2(before, cu_max(before, sh.max[block][query]));
}

/* A warp without a block, which says so once for all. */
static __device__ __forceinline__ void put_nothing(const struct room &r)
{
    const uint32_t b = threadIdx.x / CU_WARP, query = threadIdx.x % CU_WARP;
    if (query >= QUERIES) return;
    r.sh->max[b][query] = -INFINITY;
    put_block(r, b, query, 1.0f, 0.0f, 0.0f, attn_seen{ 0, 0 });
}

template <bool NARROW>
static __device__ __forceinline__ void make_weights(const struct room &r, uint32_t high[8], uint32_t low[8],
                                                    float s[2][16], const float *v_scale, uint32_t block)
{
#pragma unroll
    for (int h = 0; h < (NARROW ? 1 : 2); h++) {
        const uint32_t query = lane_group() + 8 * h, b = block % ATTN_WARPS;
        const struct attn_seen seen = attn_seen_of(r.sh->first[query], r.sh->pos[query], block);
        const float2 top = running_max(*r.sh, query, b);
        const float sum = exp_of(s[h], top.y), scale = weights_of(high, low, s[h], v_scale, seen, false, h);
        if (lane_column() == 0) put_block(r, b, query, attn_exp(__fsub_rn(top.x, top.y)), sum, scale, seen);
    }
}

/* The warp's sums of weights times V, dimensions [d0, d1), for the block's others to read. */
template <bool NARROW>
static __device__ __forceinline__ void sum_values(const struct room &r, const struct shapes &z, const uint32_t high[8],
                                                  const uint32_t low[8], const uint8_t *v, uint32_t d0, uint32_t d1)
{
    int32_t *to = r.sums + (threadIdx.x / CU_WARP * z.sum_rows + lane_group()) * z.sum_stride + 2 * lane_column();
    const uint8_t *from = v + (size_t)lane_group() * KV_BLOCK_TOKENS + 16 * lane_column();
#pragma unroll 4
    for (uint32_t d = d0; d < d1; d += 8, to += 8) {
        const uint4 x = cu_load16_once(from + (size_t)d * KV_BLOCK_TOKENS);
        int32_t sum[4] = { 0, 0, 0, 0 };
        mma_high(sum, high, x);
        mma_shift(sum);
        mma_low(sum, low, x);
        if (lane_group() < z.sum_rows) *(int2 *)to = make_int2(sum[0], sum[1]);
        if (!NARROW && lane_group() + 8 < z.sum_rows) *(int2 *)(to + 8 * z.sum_stride) = make_int2(sum[2], sum[3]);
    }
}

/* --- the segment --- */
/* o of four dimensions: the segment's blocks in ascending order. */
static __device__ __forceinline__ float4 chain_blocks(const struct room &r, const struct shapes &z, uint32_t query,
                                                      uint32_t col)
{
    float4 o = make_float4(0, 0, 0, 0);
#pragma unroll
    for (uint32_t b = 0; b < ATTN_WARPS; b++) {
        const int4 sum = *(const int4 *)(r.sums + (b * z.sum_rows + query) * z.sum_stride + col);
        const float scale = r.sh->scale[b][query], alpha = r.sh->alpha[b][query];
        o.x = __fmaf_rn(__int2float_rn(sum.x), scale, __fmul_rn(o.x, alpha));
        o.y = __fmaf_rn(__int2float_rn(sum.y), scale, __fmul_rn(o.y, alpha));
        o.z = __fmaf_rn(__int2float_rn(sum.z), scale, __fmul_rn(o.z, alpha));
        o.w = __fmaf_rn(__int2float_rn(sum.w), scale, __fmul_rn(o.w, alpha));
    }
    return o;
}

static __device__ __forceinline__ uint32_t slot_of(const struct attn_args &a, const struct attn_item &it,
                                                   const struct attn_shared &sh, uint32_t query, uint32_t segment)
{
    const struct step_seq &seq = a.step.seqs[it.seq];
    const uint32_t first = attn_first_segment(a.window, seq.pos0);
    return it.slot + ((sh.row[query] - seq.row0) * a.n_heads + sh.head[query]) * (it.last - first) + segment - first;
}

/* Dimensions [d0, d1) of all queries, from the warps' sums to a partial or into the total. */
static __device__ __forceinline__ void combine(const struct attn_args &a, const struct attn_item &it,
                                               const struct room &r, const struct shapes &z, uint32_t segment,
                                               uint32_t d0, uint32_t d1)
{
    const uint32_t fours = (d1 - d0) / 4;
    for (uint32_t i = threadIdx.x; i < r.sh->n_queries * fours; i += ATTN_THREADS) {
        const uint32_t query = i / fours, col = 4 * (i % fours);
        if (!attn_sees_segment(*r.sh, query, segment)) continue;
        const float4 o = chain_blocks(r, z, query, col);
        if (a.split) {
            *(float4 *)(attn_partial(a, slot_of(a, it, *r.sh, query, segment)) + ATTN_PARTIAL_PAD + d0 + col) = o;
            continue;
        }
        float *total = r.total + query * a.kv.dim + d0 + col;
        const bool begins = attn_begins(*r.sh, query, segment);
        const float add[4] = { o.x, o.y, o.z, o.w };
        for (int e = 0; e < 4; e++)
            total[e] = begins
                           ? add[e]
                           : __fmaf_rn(add[e], r.sh->new_factor[query], __fmul_rn(total[e], r.sh->old_factor[query]));
    }
}

/* Thread i: what the segment's blocks are together, for query i; it is kept, or goes into the total. */
static __device__ __forceinline__ void end_state(const struct attn_args &a, const struct attn_item &it,
                                                 const struct room &r, uint32_t segment)
{
    const uint32_t i = threadIdx.x;
    struct attn_shared &sh = *r.sh;
    if (i >= sh.n_queries) return;
    float top = -INFINITY, sum = 0;
#pragma unroll
    for (uint32_t b = 0; b < ATTN_WARPS; b++) {
        top = cu_max(top, sh.max[b][i]);
        sum = __fmaf_rn(sum, sh.alpha[b][i], sh.sum[b][i]);
    }
    sh.segment_max[i] = top;
    sh.segment_sum[i] = sum;
    if (!a.split) {
        attn_add_segment(sh, segment);
    } else if (attn_sees_segment(sh, i, segment)) {
        *(float2 *)attn_partial(a, slot_of(a, it, sh, i, segment)) = make_float2(top, sum);
    }
}

/* Of dimensions [d0, d1) all warps' sums are there, or wait to be seen. */
static __device__ __forceinline__ void end_columns(const struct attn_args &a, const struct room &r,
                                                   const struct shapes &z, uint32_t segment, uint32_t d0, uint32_t d1)
{
    __syncthreads();
    if (d0 == 0) end_state(a, r.sh->item, r, segment);
    if (d0 == 0 && !a.split) __syncthreads();
    combine(a, r.sh->item, r, z, segment, d0, d1);
    __syncthreads();
}

/* Segments [segment, end) of the item.  The queries are loaded while the first K is on its way. */
template <int GROUPS, bool NARROW>
static __device__ __forceinline__ void run_segments(const struct attn_args &a, const struct room &r, uint32_t segment,
                                                    uint32_t end)
{
    constexpr bool AHEAD = NARROW && GROUPS <= 2; /* K of two segments has no room elsewhere */
    const size_t scales = (size_t)KV_BLOCK_TOKENS * a.kv.dim;
    const uint32_t dim = a.kv.dim, low = r.sh->low, high = r.sh->high;
    const struct shapes z = shapes_of(r.sh->n_queries);
    const uint8_t *k = part_of(a, r.sh->item, segment, low, high);
    struct keys<GROUPS> keys;
    if (k) load_keys<GROUPS>(keys, k, dim);
    if (k) fetch_behind(a, k);
    load_queries<NARROW>(a, r);
    __syncthreads();
    for (; segment < end; segment++) {
        const uint32_t block = segment * ATTN_SEGMENT_BLOCKS + threadIdx.x / CU_WARP;
        const uint8_t *next = segment + 1 < end ? part_of(a, r.sh->item, segment + 1, low, high) : NULL;
        float s[2][16];
        if (k) {
            int32_t dots[TOKEN_TILES][4];
            dot_products<GROUPS, NARROW>(dots, r, keys, dim);
            make_scores<NARROW>(a, r, s, dots, (const float *)(k + scales), block);
        } else {
            put_nothing(r);
        }
        if (AHEAD && next) load_keys<GROUPS>(keys, next, dim);
        if (next) fetch_behind(a, next);
        __syncthreads();
        uint32_t q_high[8] = { 0 }, q_low[8] = { 0 };
        const uint8_t *v = k + a.kv.part_bytes;
        if (k) make_weights<NARROW>(r, q_high, q_low, s, (const float *)(v + scales), block);
        for (uint32_t d0 = 0; d0 < dim; d0 += z.sum_cols) {
            const uint32_t d1 = min(dim, d0 + z.sum_cols);
            if (k) sum_values<NARROW>(r, z, q_high, q_low, v, d0, d1);
            end_columns(a, r, z, segment, d0, d1);
        }
        k = next;
        if (!AHEAD && k) load_keys<GROUPS>(keys, k, dim);
    }
}

static __device__ void write_totals(const struct attn_args &a, const struct room &r)
{
    for (uint32_t i = threadIdx.x; i < r.sh->n_queries * a.kv.dim; i += ATTN_THREADS) {
        const uint32_t query = i / a.kv.dim, d = i % a.kv.dim, head = r.sh->head[query];
        const float2 state = make_float2(r.sh->total_max[query], r.sh->total_sum[query]);
        a.out[r.sh->row[query] * a.out_ld + (size_t)head * a.kv.dim + d] = attn_finish(a, head, state, r.total[i]);
    }
}

/* A block of a split launch has its share of all items, which follow each other; one of another has an item. */
template <int GROUPS, bool NARROW>
static __global__ void __launch_bounds__(ATTN_THREADS, GROUPS <= 2 ? 2 : 1) attn_int8_kernel(struct attn_args a)
{
    const struct room r = room_of(a.kv.dim);
    uint32_t at = blockIdx.x, end = blockIdx.x + 1;
    if (a.split) {
        const uint64_t total = attn_total(a);
        at = (uint32_t)(total * blockIdx.x / gridDim.x);
        end = (uint32_t)(total * (blockIdx.x + 1) / gridDim.x);
    }
    while (at < end) {
        struct attn_item it;
        if (!attn_find(a, at, &it)) break;
        if (threadIdx.x == 0) r.sh->item = it;
        attn_tile_queries(a, it, *r.sh);
        __syncthreads();
        const uint32_t n = a.split ? min(end - at, it.last - it.segment) : 1;
        const uint32_t first = a.split ? it.segment : r.sh->low / ATTN_SEGMENT_TOKENS;
        const uint32_t last = a.split ? first + n : r.sh->high / ATTN_SEGMENT_TOKENS + 1;
        if (r.sh->n_queries) run_segments<GROUPS, NARROW>(a, r, first, last);
        if (!a.split) write_totals(a, r);
        __syncthreads();
        at += n;
    }
}

template <int GROUPS, bool NARROW> static cudaError_t launch(const struct attn_args *a, uint32_t blocks, cudaStream_t s)
{
    const size_t bytes = room_bytes(a->kv.dim, a->split);
    static const cudaError_t e =
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
