/* cuda_attn_prefill.cu - attention over INT8 KV for many rows of a sequence: tiles of 64 queries, which go over all
 * blocks that they see.  head_dim 64 and 128.
 *
 * A warp has 16 queries, and keeps their state and a segment's output in registers; K and V of a block are in shared
 * memory, the next block's on their way.  A query's rows of q are in shared memory in two planes of bytes. */
#include "compute/cuda/cuda_attn_mma.h"

#define WARPS   4
#define THREADS (WARPS * CU_WARP)
#define STAGES  2

/* A block in shared memory: K [64][DIM], V [DIM][64], as they lie in the cache, and the scales of both.  16-byte pieces
 * of every other row are swapped where a row is 128 bytes long, so that eight lanes meet all banks. */
template <int DIM> struct stage {
    uint8_t k[KV_BLOCK_TOKENS * DIM], v[DIM * KV_BLOCK_TOKENS];
    float k_scale[KV_BLOCK_TOKENS], v_scale[KV_BLOCK_TOKENS];
};

template <int DIM> struct tile_shared {
    struct stage<DIM> stages[STAGES];
    uint8_t high[ATTN_PREFILL_QUERIES * DIM], low[ATTN_PREFILL_QUERIES * DIM]; /* of q, swapped as K */
    float q_scale[ATTN_PREFILL_QUERIES];
};

/* Where a piece of 16 bytes stands in a row of DIM bytes. */
template <int DIM> static __device__ __forceinline__ uint32_t piece_at(uint32_t row, uint32_t piece)
{
    return row * DIM + 16 * (DIM == 128 ? piece ^ (row & 1) << 2 : piece);
}

/* The tile, and a lane's two queries in it: g and g + 8 of its warp. */
struct tile {
    uint32_t kv_head, head, n_heads, row0, pos0; /* of the sequence: its first row, and that row's position */
    uint32_t q0, n;                              /* queries [q0, q0 + n) of the sequence's that share the kv head */
    uint32_t low, high;                          /* what all queries of the tile see */
    uint32_t warp_low, warp_high;                /* what all of the warp's do: positions [warp_low, warp_high] */
    uint32_t warp_first, warp_last;              /* and what any of them does */
    uint32_t pos[2], first[2];                   /* a query that is none sees nothing */
};

static __device__ __forceinline__ uint32_t row_of(const struct tile &t, uint32_t i)
{
    return (t.q0 + i) / t.n_heads;
}

static __device__ __forceinline__ struct tile tile_of(const struct attn_args &a, const struct attn_item &it)
{
    const struct step_seq &seq = a.step.seqs[it.seq];
    struct tile t;
    t.kv_head = it.kv_head;
    t.row0 = seq.row0;
    t.pos0 = seq.pos0;
    attn_heads(a, it.kv_head, &t.head, &t.n_heads);
    const uint32_t all = seq.n_rows * t.n_heads, w0 = threadIdx.x / CU_WARP * 16;
    t.q0 = it.tile * ATTN_PREFILL_QUERIES;
    t.n = t.q0 < all ? min(all - t.q0, ATTN_PREFILL_QUERIES) : 0;
    if (t.n == 0) return t;
    t.low = attn_first_seen(a.window, seq.pos0 + row_of(t, 0));
    t.high = seq.pos0 + row_of(t, t.n - 1);
    const uint32_t w1 = min(w0 + 15, t.n - 1);
    t.warp_first = attn_first_seen(a.window, seq.pos0 + row_of(t, w0));
    t.warp_last = w0 < t.n ? seq.pos0 + row_of(t, w1) : 0;
    t.warp_low = w0 + 16 <= t.n ? attn_first_seen(a.window, t.warp_last) : 0xffffffffu;
    t.warp_high = seq.pos0 + row_of(t, w0);
    for (uint32_t h = 0; h < 2; h++) {
        const uint32_t i = w0 + lane_group() + 8 * h;
        t.pos[h] = seq.pos0 + row_of(t, min(i, t.n - 1));
        t.first[h] = i < t.n ? attn_first_seen(a.window, t.pos[h]) : 0xffffffffu;
    }
    return t;
}

template <int DIM>
static __device__ __forceinline__ void load_queries(const struct attn_args &a, const struct tile &t,
                                                    struct tile_shared<DIM> &sh)
{
    const uint32_t w0 = threadIdx.x / CU_WARP * 16;
    for (uint32_t i = w0; i < w0 + 16; i++) {
        const float *q = NULL;
        if (i < t.n) q = a.q + (size_t)(t.row0 + row_of(t, i)) * a.ld + (size_t)(t.head + (t.q0 + i) % t.n_heads) * DIM;
        const float scale =
            split_query(sh.high, sh.low, q, DIM, DIM, [i](uint32_t d) { return piece_at<DIM>(i, d / 16) + d % 16; });
        if (threadIdx.x % CU_WARP == 0) sh.q_scale[i] = __fmul_rn(scale, a.scale);
    }
    __syncwarp();
}

/* A block's K, V and scales on their way; the threads' copies are one group. */
template <int DIM>
static __device__ __forceinline__ void fetch_block(const struct attn_args &a, const struct step_seq &seq,
                                                   const struct tile &t, struct stage<DIM> &to, uint32_t block)
{
    const uint8_t *k = cu_kv_part(a.kv, seq, block, t.kv_head, false), *v = k + a.kv.part_bytes;
    for (uint32_t i = threadIdx.x; i < KV_BLOCK_TOKENS * DIM / 16; i += THREADS) {
        cu_copy_async<16>(to.k + piece_at<DIM>(i / (DIM / 16), i % (DIM / 16)), k + 16 * i);
        cu_copy_async<16>(to.v + 16 * i, v + 16 * i);
    }
    const uint32_t scales = KV_BLOCK_TOKENS / 4; /* pieces of 16 bytes */
    if (threadIdx.x < 2 * scales) {
        const uint32_t i = threadIdx.x % scales;
        const uint8_t *from = (threadIdx.x < scales ? k : v) + KV_BLOCK_TOKENS * DIM;
        cu_copy_async<16>((threadIdx.x < scales ? to.k_scale : to.v_scale) + 4 * i, from + 16 * i);
    }
}

/* --- a warp's 16 queries --- */
template <int DIM> static __device__ __forceinline__ void load_q(uint32_t out[8], const uint8_t *plane, uint32_t piece)
{
    const uint32_t i = threadIdx.x / CU_WARP * 16 + lane_group();
    mma_rows(out, *(const uint4 *)(plane + piece_at<DIM>(i, piece)),
             *(const uint4 *)(plane + piece_at<DIM>(i + 8, piece)));
}

template <int DIM>
static __device__ __forceinline__ void dot_products(int32_t out[TOKEN_TILES][4], const struct tile_shared<DIM> &sh,
                                                    const struct stage<DIM> &st)
{
#pragma unroll
    for (int i = 0; i < TOKEN_TILES; i++) out[i][0] = out[i][1] = out[i][2] = out[i][3] = 0;
#pragma unroll
    for (int j = 0; j < DIM / 64; j++) {
        uint32_t q[8];
        load_q<DIM>(q, sh.high, 4 * j + lane_column());
#pragma unroll
        for (int i = 0; i < TOKEN_TILES; i++)
            mma_high(out[i], q, *(const uint4 *)(st.k + piece_at<DIM>(8 * i + lane_group(), 4 * j + lane_column())));
    }
#pragma unroll
    for (int i = 0; i < TOKEN_TILES; i++) mma_shift(out[i]);
#pragma unroll
    for (int j = 0; j < DIM / 64; j++) {
        uint32_t q[8];
        load_q<DIM>(q, sh.low, 4 * j + lane_column());
#pragma unroll
        for (int i = 0; i < TOKEN_TILES; i++)
            mma_low(out[i], q, *(const uint4 *)(st.k + piece_at<DIM>(8 * i + lane_group(), 4 * j + lane_column())));
    }
}

/* Of queries g and g + 8. */
template <int DIM> struct output {
    float o[DIM / 8][4]; /* as the tensor cores have sums: dimensions 8 i + 2 c + {0, 1} */
    float max[2], sum[2];
};

template <int DIM> static __device__ __forceinline__ void begin_segment(struct output<DIM> &x)
{
#pragma unroll
    for (int i = 0; i < DIM / 8; i++) x.o[i][0] = x.o[i][1] = x.o[i][2] = x.o[i][3] = 0;
    x.max[0] = x.max[1] = -INFINITY;
    x.sum[0] = x.sum[1] = 0;
}

/* A block into the segment's output.  A query that sees none of it gets weights of 0 and a factor of 1, which changes
 * no bit.  `whole`: all queries see all tokens. */
template <int DIM>
static __device__ __forceinline__ void add_block(const struct attn_args &a, const struct tile &t,
                                                 const struct tile_shared<DIM> &sh, const struct stage<DIM> &st,
                                                 struct output<DIM> &x, uint32_t block, bool whole)
{
    int32_t dots[TOKEN_TILES][4];
    uint32_t high[8], low[8];
    float alpha[2], scale[2];
    dot_products<DIM>(dots, sh, st);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const struct attn_seen seen = attn_seen_of(t.first[h], t.pos[h], block);
        const bool live = whole || seen.first < seen.end;
        float s[16];
        const float q_scale = sh.q_scale[threadIdx.x / CU_WARP * 16 + lane_group() + 8 * h];
        const float top = cu_max(x.max[h], scores_of(a, s, dots, 2 * h, st.k_scale, q_scale, seen, whole));
        const float sum = exp_of(s, top);
        alpha[h] = live ? attn_exp(__fsub_rn(x.max[h], top)) : 1.0f;
        x.sum[h] = live ? __fmaf_rn(x.sum[h], alpha[h], sum) : x.sum[h];
        x.max[h] = top;
        scale[h] = weights_of(high, low, s, st.v_scale, seen, whole, h);
    }
#pragma unroll
    for (int i = 0; i < DIM / 8; i++) {
        const uint4 v = *(const uint4 *)(st.v + (8 * i + lane_group()) * KV_BLOCK_TOKENS + 16 * lane_column());
        int32_t sum[4] = { 0, 0, 0, 0 };
        mma_high(sum, high, v);
        mma_shift(sum);
        mma_low(sum, low, v);
#pragma unroll
        for (int e = 0; e < 4; e++)
            x.o[i][e] = __fmaf_rn(__int2float_rn(sum[e]), scale[e / 2], __fmul_rn(x.o[i][e], alpha[e / 2]));
    }
}

/* The lane's part of a query's row of the output. */
template <int DIM>
static __device__ __forceinline__ float *out_of(const struct attn_args &a, const struct tile &t, uint32_t i)
{
    const uint32_t head = t.head + (t.q0 + i) % t.n_heads;
    return a.out + (size_t)(t.row0 + row_of(t, i)) * a.out_ld + (size_t)head * DIM + 2 * lane_column();
}

/* A segment into the total of the queries that see it.  The total's values are in the output, where they end up: there
 * they are touched once in eight blocks, and registers hold more warps. */
template <int DIM>
static __device__ __forceinline__ void end_segment(const struct attn_args &a, const struct tile &t, float2 total[2],
                                                   const struct output<DIM> &x, uint32_t segment)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        if (t.pos[h] / ATTN_SEGMENT_TOKENS < segment || t.first[h] >= (segment + 1) * ATTN_SEGMENT_TOKENS) continue;
        const float2 add = make_float2(x.max[h], x.sum[h]);
        float *out = out_of<DIM>(a, t, threadIdx.x / CU_WARP * 16 + lane_group() + 8 * h);
        if (t.first[h] / ATTN_SEGMENT_TOKENS == segment) {
            total[h] = add;
#pragma unroll
            for (int j = 0; j < DIM / 8; j++) *(float2 *)(out + 8 * j) = make_float2(x.o[j][2 * h], x.o[j][2 * h + 1]);
            continue;
        }
        float old_factor, new_factor;
        total[h] = attn_merge_state(total[h], add, &old_factor, &new_factor);
#pragma unroll
        for (int j = 0; j < DIM / 8; j++) {
            const float2 o = *(const float2 *)(out + 8 * j);
            *(float2 *)(out + 8 * j) =
                make_float2(__fmaf_rn(x.o[j][2 * h], new_factor, __fmul_rn(o.x, old_factor)),
                            __fmaf_rn(x.o[j][2 * h + 1], new_factor, __fmul_rn(o.y, old_factor)));
        }
    }
}

template <int DIM>
static __device__ __forceinline__ void finish_output(const struct attn_args &a, const struct tile &t,
                                                     const float2 total[2])
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const uint32_t i = threadIdx.x / CU_WARP * 16 + lane_group() + 8 * h;
        if (i >= t.n) continue;
        const uint32_t head = t.head + (t.q0 + i) % t.n_heads;
        float *out = out_of<DIM>(a, t, i);
#pragma unroll
        for (int j = 0; j < DIM / 8; j++) {
            const float2 o = *(const float2 *)(out + 8 * j);
            *(float2 *)(out + 8 * j) =
                make_float2(attn_finish(a, head, total[h], o.x), attn_finish(a, head, total[h], o.y));
        }
    }
}

template <int DIM>
static __device__ __forceinline__ void run_tile(const struct attn_args &a, const struct step_seq &seq,
                                                const struct tile &t, struct tile_shared<DIM> &sh)
{
    const uint32_t first = t.low / KV_BLOCK_TOKENS, last = t.high / KV_BLOCK_TOKENS;
    struct output<DIM> x;
    float2 total[2] = { { 0, 0 }, { 0, 0 } };
    begin_segment(x);
    fetch_block<DIM>(a, seq, t, sh.stages[first % STAGES], first);
    cu_copy_commit();
    load_queries<DIM>(a, t, sh);
    for (uint32_t block = first; block <= last; block++) {
        if (block < last) fetch_block<DIM>(a, seq, t, sh.stages[(block + 1) % STAGES], block + 1);
        cu_copy_commit();
        cu_copy_wait<1>();
        __syncthreads();
        const uint32_t at = block * KV_BLOCK_TOKENS, end = at + KV_BLOCK_TOKENS - 1;
        const bool whole = t.warp_low <= at && t.warp_high >= end;
        if (whole)
            add_block<DIM>(a, t, sh, sh.stages[block % STAGES], x, block, true);
        else if (t.warp_last >= at && t.warp_first <= end)
            add_block<DIM>(a, t, sh, sh.stages[block % STAGES], x, block, false);
        if (block == last || (block + 1) % ATTN_SEGMENT_BLOCKS == 0) {
            end_segment(a, t, total, x, block / ATTN_SEGMENT_BLOCKS);
            begin_segment(x);
        }
        __syncthreads();
    }
    finish_output<DIM>(a, t, total);
}

template <int DIM> static __global__ void __launch_bounds__(THREADS, 3) attn_prefill_kernel(struct attn_args a)
{
    struct tile_shared<DIM> &sh = *(struct tile_shared<DIM> *)cu_shared();
    struct attn_item it;
    if (!attn_find(a, blockIdx.x, &it)) return;
    const struct tile t = tile_of(a, it);
    if (t.n) run_tile<DIM>(a, a.step.seqs[it.seq], t, sh);
}

template <int DIM> static cudaError_t launch(const struct attn_args *a, uint32_t blocks, cudaStream_t s)
{
    const size_t bytes = sizeof(struct tile_shared<DIM>);
    static const cudaError_t e =
        cudaFuncSetAttribute(attn_prefill_kernel<DIM>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    return e == cudaSuccess ? cu_launch(attn_prefill_kernel<DIM>, blocks, THREADS, bytes, s, *a) : e;
}

cudaError_t cuda_attn_prefill(const struct attn_args *a, uint32_t blocks, cudaStream_t s)
{
    return a->kv.dim == 64 ? launch<64>(a, blocks, s) : launch<128>(a, blocks, s);
}
