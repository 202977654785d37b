/* cuda_attn.h - what the kernels of attention share: how work is found, which tokens a query sees, and how a segment's
 * blocks become one.
 *
 * Work is an item: queries of one sequence that share a kv head, over some segments.  A query is one head of one row.
 * Sequences with few queries are *split*: an item is one segment, leaves a partial result, and merge_kernel() makes
 * one of a query's partials, in ascending order.  The items of other sequences go over all segments themselves.
 * How many there are is found on the device, so that a launch need not know how long sequences are.
 * Borders of blocks and segments are positions of the sequence, so how work is cut changes no bits. */
#ifndef COMPUTE_CUDA_CUDA_ATTN_H
#define COMPUTE_CUDA_CUDA_ATTN_H
#include "compute/cuda/cu_math.h"
#include "compute/cuda/cuda_kv.h"

#define ATTN_SEGMENT_BLOCKS  8u
#define ATTN_SEGMENT_TOKENS  (ATTN_SEGMENT_BLOCKS * KV_BLOCK_TOKENS)
#define ATTN_SPLIT_QUERIES   16u /* at most, of a kv head, in a sequence that is split */
#define ATTN_PREFILL_QUERIES 64u /* of a tile of cuda_attn_prefill.cu */
#define ATTN_WARPS           8u  /* one to each block of a segment */
#define ATTN_THREADS         (ATTN_WARPS * CU_WARP)
#define ATTN_PARTIAL_PAD     4u /* floats beside a partial's values: max, sum and two to keep 16 bytes aligned */

struct attn_args {
    struct step_view step;
    struct cu_kv kv;
    const float *q;
    size_t ld;
    float *out; /* [n_rows][out_ld] */
    size_t out_ld;
    float *partials;
    const float *sinks;
    float scale, softcap, softcap_inv;
    uint32_t n_heads, group, first; /* query head h reads kv head (first + h) / group */
    uint32_t window;
    uint32_t tile_queries; /* of an item that is not split */
    bool split;            /* which items this launch has */
};

struct attn_item {
    uint32_t seq, tile, kv_head;
    uint32_t segment, end; /* segments [segment, end) */
    uint32_t last;         /* the sequence's end */
    uint32_t slot;         /* split: of the sequence's first partial */
};

/* --- positions --- */
static __host__ __device__ __forceinline__ uint32_t attn_first_seen(uint32_t window, uint32_t pos)
{
    return window && pos >= window ? pos - window + 1 : 0;
}

static __host__ __device__ __forceinline__ uint32_t attn_first_segment(uint32_t window, uint32_t pos0)
{
    return attn_first_seen(window, pos0) / ATTN_SEGMENT_TOKENS;
}

static __host__ __device__ __forceinline__ uint32_t attn_end_segment(uint32_t pos0, uint32_t n_rows)
{
    return (pos0 + n_rows - 1) / ATTN_SEGMENT_TOKENS + 1;
}

static __host__ __device__ __forceinline__ bool attn_is_split(uint32_t group, uint32_t n_rows)
{
    return n_rows * group <= ATTN_SPLIT_QUERIES;
}

/* Where a query's partial stands: slots are in the order of sequences, rows, heads and segments. */
static __device__ __forceinline__ float *attn_partial(const struct attn_args &a, uint32_t slot)
{
    return a.partials + (size_t)slot * (a.kv.dim + ATTN_PARTIAL_PAD);
}

/* --- work --- */
static __device__ __forceinline__ uint32_t attn_items(const struct attn_args &a, const struct step_seq &seq)
{
    if (attn_is_split(a.group, seq.n_rows) != a.split || seq.n_rows == 0) return 0;
    if (a.split)
        return (attn_end_segment(seq.pos0, seq.n_rows) - attn_first_segment(a.window, seq.pos0)) * a.kv.n_heads;
    return cu_div_up(seq.n_rows * a.group, a.tile_queries) * a.kv.n_heads;
}

static __device__ __forceinline__ uint32_t attn_slots(const struct attn_args &a, const struct step_seq &seq)
{
    if (!attn_is_split(a.group, seq.n_rows) || seq.n_rows == 0) return 0;
    const uint32_t n = attn_end_segment(seq.pos0, seq.n_rows) - attn_first_segment(a.window, seq.pos0);
    return seq.n_rows * a.n_heads * n;
}

/* The sum of v over this lane and those below it. */
static __device__ __forceinline__ uint32_t attn_scan(uint32_t v)
{
    for (uint32_t step = 1; step < CU_WARP; step *= 2) {
        const uint32_t below = __shfl_up_sync(0xffffffffu, v, step);
        if (threadIdx.x % CU_WARP >= step) v += below;
    }
    return v;
}

static __device__ __forceinline__ void attn_item_in(const struct attn_args &a, const struct step_seq &seq, uint32_t i,
                                                    struct attn_item *it)
{
    it->segment = attn_first_segment(a.window, seq.pos0);
    it->end = it->last = attn_end_segment(seq.pos0, seq.n_rows);
    it->tile = 0;
    if (a.split) { /* a head's segments follow each other */
        const uint32_t n = it->end - it->segment;
        it->kv_head = i / n;
        it->segment += i % n;
        it->end = it->segment + 1;
    } else {
        it->kv_head = i % a.kv.n_heads;
        i /= a.kv.n_heads;
        it->tile = cu_div_up(seq.n_rows * a.group, a.tile_queries) - 1 - i; /* the longest first */
    }
}

/* Item `item` of all sequences; false if there are not so many.  Each warp finds it by itself. */
static __device__ __forceinline__ bool attn_find(const struct attn_args &a, uint32_t item, struct attn_item *it)
{
    const uint32_t lane = threadIdx.x % CU_WARP;
    uint32_t slots = 0;
    for (uint32_t s0 = 0; s0 < a.step.n_seqs; s0 += CU_WARP) {
        const bool there = s0 + lane < a.step.n_seqs;
        const uint32_t own = there ? attn_items(a, a.step.seqs[s0 + lane]) : 0;
        const uint32_t own_slots = there ? attn_slots(a, a.step.seqs[s0 + lane]) : 0;
        const uint32_t end = attn_scan(own), end_slots = attn_scan(own_slots);
        const uint32_t above = __ballot_sync(0xffffffffu, item < end);
        if (above) {
            const int l = __ffs((int)above) - 1;
            it->seq = s0 + (uint32_t)l;
            it->slot = slots + __shfl_sync(0xffffffffu, end_slots - own_slots, l);
            attn_item_in(a, a.step.seqs[it->seq], item - __shfl_sync(0xffffffffu, end - own, l), it);
            return true;
        }
        item -= __shfl_sync(0xffffffffu, end, CU_WARP - 1);
        slots += __shfl_sync(0xffffffffu, end_slots, CU_WARP - 1);
    }
    return false;
}

/* How many items there are. */
static __device__ __forceinline__ uint32_t attn_total(const struct attn_args &a)
{
    const uint32_t lane = threadIdx.x % CU_WARP;
    uint32_t n = 0;
    for (uint32_t s0 = 0; s0 < a.step.n_seqs; s0 += CU_WARP) {
        const uint32_t own = s0 + lane < a.step.n_seqs ? attn_items(a, a.step.seqs[s0 + lane]) : 0;
        n += __shfl_sync(0xffffffffu, attn_scan(own), CU_WARP - 1);
    }
    return n;
}

/* --- queries --- */
/* Query heads of a kv head: those of its group that q has. */
static __device__ __forceinline__ void attn_heads(const struct attn_args &a, uint32_t kv_head, uint32_t *head,
                                                  uint32_t *n)
{
    const uint32_t begin = kv_head * a.group, end = begin + a.group;
    const uint32_t h0 = begin > a.first ? begin - a.first : 0, h1 = min(end - a.first, a.n_heads);
    *head = h0;
    *n = h1 > h0 ? h1 - h0 : 0;
}

/* What of a block a query sees: tokens [first, end), none if they are equal. */
struct attn_seen {
    uint32_t first, end;
};

static __device__ __forceinline__ struct attn_seen attn_seen_of(uint32_t first, uint32_t pos, uint32_t block)
{
    const uint32_t at = block * KV_BLOCK_TOKENS;
    struct attn_seen seen = { 0, 0 };
    if (pos < at || first >= at + KV_BLOCK_TOKENS) return seen;
    seen.first = first > at ? first - at : 0;
    seen.end = min(pos - at + 1, (uint32_t)KV_BLOCK_TOKENS);
    return seen;
}

static __device__ __forceinline__ float attn_capped(const struct attn_args &a, float s)
{
    return a.softcap != 0.0f ? __fmul_rn(a.softcap, cu_tanh(__fmul_rn(s, a.softcap_inv))) : s;
}

/* exp(x) of an x that is not above 0: cu_exp() without what only larger ones need. */
static __device__ __forceinline__ float attn_exp(float x)
{
    const float p = cu_exp_within(x);
    return x < CU_EXP_LOW ? 0.0f : p;
}

/* --- a segment --- */
/* What the warps of an item tell each other.  Query i of the tile; block b of the segment is warp b's. */
struct attn_shared {
    uint32_t pos[ATTN_SPLIT_QUERIES], first[ATTN_SPLIT_QUERIES]; /* a query that is none sees nothing */
    uint32_t row[ATTN_SPLIT_QUERIES], head[ATTN_SPLIT_QUERIES];
    float q_scale[ATTN_SPLIT_QUERIES];
    float max[ATTN_WARPS][ATTN_SPLIT_QUERIES], sum[ATTN_WARPS][ATTN_SPLIT_QUERIES]; /* of blocks */
    float alpha[ATTN_WARPS][ATTN_SPLIT_QUERIES], scale[ATTN_WARPS][ATTN_SPLIT_QUERIES];
    bool live[ATTN_WARPS][ATTN_SPLIT_QUERIES]; /* the query sees something of the block */
    float segment_max[ATTN_SPLIT_QUERIES], segment_sum[ATTN_SPLIT_QUERIES];
    float total_max[ATTN_SPLIT_QUERIES], total_sum[ATTN_SPLIT_QUERIES];
    float old_factor[ATTN_SPLIT_QUERIES], new_factor[ATTN_SPLIT_QUERIES]; /* of a merge */
    struct attn_item item;
    uint32_t n_queries, n_heads;
    uint32_t low, high; /* what the tile's queries see: positions [low, high] */
};

/* Which rows and heads the tile's queries are. */
static __device__ __forceinline__ void attn_tile_queries(const struct attn_args &a, const struct attn_item &it,
                                                         struct attn_shared &sh)
{
    const struct step_seq &seq = a.step.seqs[it.seq];
    uint32_t head, n_heads;
    attn_heads(a, it.kv_head, &head, &n_heads);
    const uint32_t all = seq.n_rows * n_heads, q0 = it.tile * ATTN_SPLIT_QUERIES;
    const uint32_t n = q0 < all ? min(all - q0, ATTN_SPLIT_QUERIES) : 0;
    const uint32_t i = threadIdx.x;
    if (i < ATTN_SPLIT_QUERIES) {
        const uint32_t row = i < n ? (q0 + i) / n_heads : 0;
        sh.row[i] = seq.row0 + row;
        sh.head[i] = i < n ? head + (q0 + i) % n_heads : 0;
        sh.pos[i] = seq.pos0 + row;
        sh.first[i] = i < n ? attn_first_seen(a.window, seq.pos0 + row) : 0xffffffffu;
    }
    if (i == 0) {
        sh.n_queries = n;
        sh.n_heads = n_heads;
        sh.low = n ? attn_first_seen(a.window, seq.pos0 + q0 / n_heads) : 0;
        sh.high = n ? seq.pos0 + (q0 + n - 1) / n_heads : 0;
    }
}

/* max before and after a warp's block, given those of the segment's blocks; the first block that is seen is
 * preceded by -inf. */
static __device__ __forceinline__ float2 attn_running_max(const struct attn_shared &sh, uint32_t query, uint32_t block)
{
    float before = -INFINITY;
    for (uint32_t b = 0; b < block; b++)
        if (sh.live[b][query]) before = cu_max(before, sh.max[b][query]);
    return make_float2(before, cu_max(before, sh.max[block][query]));
}

/* Thread i: what the segment's blocks are together, for query i. */
static __device__ __forceinline__ void attn_end_state(struct attn_shared &sh)
{
    const uint32_t i = threadIdx.x;
    if (i >= ATTN_SPLIT_QUERIES) return;
    float top = -INFINITY, sum = 0;
    for (uint32_t b = 0; b < ATTN_WARPS; b++) {
        if (!sh.live[b][i]) continue;
        top = cu_max(top, sh.max[b][i]);
        sum = __fmaf_rn(sum, sh.alpha[b][i], sh.sum[b][i]);
    }
    sh.segment_max[i] = top;
    sh.segment_sum[i] = sum;
}

/* (max, sum) of two runs of segments together, and what their values are multiplied by. */
static __device__ __forceinline__ float2 attn_merge_state(float2 old, float2 add, float *old_factor, float *new_factor)
{
    const float top = cu_max(old.x, add.x);
    *old_factor = cu_exp(__fsub_rn(old.x, top));
    *new_factor = cu_exp(__fsub_rn(add.x, top));
    return make_float2(top, __fmaf_rn(add.y, *new_factor, __fmul_rn(old.y, *old_factor)));
}

/* A query's first segment is what the total begins with. */
static __device__ __forceinline__ bool attn_begins(const struct attn_shared &sh, uint32_t query, uint32_t segment)
{
    return sh.first[query] / ATTN_SEGMENT_TOKENS == segment;
}

static __device__ __forceinline__ bool attn_sees_segment(const struct attn_shared &sh, uint32_t query, uint32_t segment)
{
    return sh.pos[query] / ATTN_SEGMENT_TOKENS >= segment && sh.first[query] < (segment + 1) * ATTN_SEGMENT_TOKENS;
}

/* Thread i: the segment into the total of query i. */
static __device__ __forceinline__ void attn_add_segment(struct attn_shared &sh, uint32_t segment)
{
    const uint32_t i = threadIdx.x;
    if (i >= ATTN_SPLIT_QUERIES || !attn_sees_segment(sh, i, segment)) return;
    float2 total = make_float2(sh.segment_max[i], sh.segment_sum[i]);
    if (!attn_begins(sh, i, segment))
        total = attn_merge_state(make_float2(sh.total_max[i], sh.total_sum[i]), total, &sh.old_factor[i],
                                 &sh.new_factor[i]);
    sh.total_max[i] = total.x;
    sh.total_sum[i] = total.y;
}

/* A sink is one more segment: of one position whose value is zero. */
static __device__ __forceinline__ float attn_finish(const struct attn_args &a, uint32_t head, float2 state, float o)
{
    if (a.sinks) {
        float old_factor, new_factor;
        state = attn_merge_state(state, make_float2(a.sinks[head], 1.0f), &old_factor, &new_factor);
        o = __fmaf_rn(0.0f, new_factor, __fmul_rn(o, old_factor));
    }
    return __fmul_rn(o, __fdiv_rn(1.0f, state.y));
}

/* --- the kernels' launches; `blocks` of a launch that finds its items itself --- */
/* narrow: no item has more than 8 queries. */
cudaError_t cuda_attn_int8(const struct attn_args *a, uint32_t blocks, bool narrow, cudaStream_t s);
cudaError_t cuda_attn_prefill(const struct attn_args *a, uint32_t blocks, cudaStream_t s);
cudaError_t cuda_attn_f16(const struct attn_args *a, uint32_t blocks, cudaStream_t s);

/* One of the partials of each row's heads whose sequence is split; latents have the same ones. */
cudaError_t cuda_attn_merge(const struct attn_args *a, cudaStream_t s);
#endif
