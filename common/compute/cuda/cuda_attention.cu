/* cuda_attention.cu - the op: which kernel takes which sequences, and the merge of what segments left. */
#include "compute/cuda/cuda_attn.h"
#include "compute/cuda/cuda_quantize.h"

#define MERGE_THREADS  128
#define MERGE_EACH     8u   /* dimensions of a thread */
#define MERGE_SEGMENTS 128u /* whose states are in shared memory at a time */

/* --- scratch --- */
static size_t partial_bytes(const struct cuda_backend *b)
{
    const size_t latent = b->limits.max_latent, dim = b->limits.max_head_dim;
    return ((latent > dim ? latent : dim) + ATTN_PARTIAL_PAD) * sizeof(float);
}

/* Rows of sequences that may be split, by a layer without a window. */
static size_t slots_of(const struct cuda_backend *b, const struct batch *batch)
{
    size_t n = 0;
    for (uint32_t i = 0; i < batch->n_seqs; i++) {
        const struct batch_seq *seq = &batch->seqs[i];
        if (seq->n_rows && attn_is_split(1, seq->n_rows))
            n += (size_t)seq->n_rows * attn_end_segment(seq->pos0, seq->n_rows);
    }
    return n * b->limits.max_heads;
}

/* Sequences grow, and so does the room, by halves: a step that finds it large enough does not touch it. */
enum status cuda_attention_begin(struct cuda_backend *b, const struct batch *batch)
{
    const size_t need = slots_of(b, batch) * partial_bytes(b);
    if (need <= b->attn.bytes) return OK;
    const size_t bytes = need + need / 2;
    void *p = NULL;
    enum status st = cuda_alloc(&b->base, bytes, &p);
    if (st != OK) return st;
    cuda_attention_fini(b);
    cuda_graphs_drop(b);
    b->attn.partials = (float *)p;
    b->attn.bytes = bytes;
    return OK;
}

void cuda_attention_fini(struct cuda_backend *b)
{
    cuda_release(&b->base, b->attn.partials, b->attn.bytes);
    b->attn = attn_scratch{};
}

/* --- merge --- */
/* States of up to MERGE_SEGMENTS segments, and what a merge multiplies with: o = o * old + o2 * add. */
struct merge_shared {
    float max[MERGE_SEGMENTS], sum[MERGE_SEGMENTS], old_factor[MERGE_SEGMENTS], new_factor[MERGE_SEGMENTS];
    float2 state; /* of the segments before */
};

/* Where the partials of a row's head begin, and which of them it has; false if the row's sequence is not split. */
static __device__ bool partials_of(const struct attn_args &a, uint32_t row, uint32_t head, uint32_t *slot, uint32_t *n)
{
    const uint32_t s = a.step.seq[row], lane = threadIdx.x % CU_WARP;
    uint32_t before = 0;
    for (uint32_t s0 = 0; s0 < s; s0 += CU_WARP) {
        const uint32_t own = s0 + lane < s ? attn_slots(a, a.step.seqs[s0 + lane]) : 0;
        before += __shfl_sync(0xffffffffu, attn_scan(own), CU_WARP - 1);
    }
    const struct step_seq seq = a.step.seqs[s];
    const uint32_t first = attn_first_segment(a.window, seq.pos0), pos = a.step.pos[row];
    const uint32_t begin = attn_first_segment(a.window, pos), end = pos / ATTN_SEGMENT_TOKENS + 1;
    const uint32_t own = attn_end_segment(seq.pos0, seq.n_rows) - first;
    *slot = before + ((row - seq.row0) * a.n_heads + head) * own + begin - first;
    *n = end - begin;
    return attn_is_split(a.group, seq.n_rows);
}

/* Factors of `n` segments that follow those of sh.state, which has none before the first. */
static __device__ void merge_states(const struct attn_args &a, struct merge_shared &sh, uint32_t slot, uint32_t n,
                                    bool begins)
{
    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x) {
        const float *partial = attn_partial(a, slot + i);
        sh.max[i] = partial[0];
        sh.sum[i] = partial[1];
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x) {
        float before = begins ? sh.max[0] : sh.state.x;
        for (uint32_t j = 0; j < i; j++) before = cu_max(before, sh.max[j]);
        const float top = cu_max(before, sh.max[i]);
        sh.old_factor[i] = cu_exp(__fsub_rn(before, top));
        sh.new_factor[i] = cu_exp(__fsub_rn(sh.max[i], top));
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        float2 state = begins ? make_float2(sh.max[0], sh.sum[0]) : sh.state;
        for (uint32_t i = begins ? 1 : 0; i < n; i++) {
            state.x = cu_max(state.x, sh.max[i]);
            state.y = __fmaf_rn(sh.sum[i], sh.new_factor[i], __fmul_rn(state.y, sh.old_factor[i]));
        }
        sh.state = state;
    }
}

/* A block to a head of a row; a thread has up to eight dimensions, of which latents have most.  QUANTIZE: heads are
 * whole blocks of 32 columns, whose quantized form is made here, too. */
template <bool QUANTIZE> static __global__ void merge_kernel(struct attn_args a, struct act_planes planes, bool fine)
{
    __shared__ struct merge_shared sh;
    const uint32_t row = blockIdx.x, head = blockIdx.y;
    uint32_t slot, n;
    float o[MERGE_EACH] = { 0 };
    if (!partials_of(a, row, head, &slot, &n)) return;
    for (uint32_t i0 = 0; i0 < n; i0 += MERGE_SEGMENTS) {
        const uint32_t some = min(n - i0, MERGE_SEGMENTS);
        merge_states(a, sh, slot + i0, some, i0 == 0);
#pragma unroll
        for (uint32_t j = 0; j < MERGE_EACH; j++) {
            const uint32_t d = threadIdx.x + j * MERGE_THREADS;
            if (d >= a.kv.dim) break;
            const float *at = attn_partial(a, slot + i0) + ATTN_PARTIAL_PAD + d;
            const size_t step = a.kv.dim + ATTN_PARTIAL_PAD;
            uint32_t i = i0 == 0 ? 1 : 0;
            if (i0 == 0) o[j] = at[0];
#pragma unroll 8
            for (; i < some; i++) o[j] = __fmaf_rn(at[i * step], sh.new_factor[i], __fmul_rn(o[j], sh.old_factor[i]));
        }
        __syncthreads();
    }
#pragma unroll
    for (uint32_t j = 0; j < MERGE_EACH; j++) {
        const uint32_t d = threadIdx.x + j * MERGE_THREADS;
        if (d >= a.kv.dim) break;
        const float y = attn_finish(a, head, sh.state, o[j]);
        a.out[row * a.out_ld + (size_t)head * a.kv.dim + d] = y;
        if (QUANTIZE) quantize_column(planes, fine, row, head * a.kv.dim + d, y);
    }
}

cudaError_t cuda_attn_merge(const struct attn_args *a, cudaStream_t s)
{
    return cu_launch(merge_kernel<false>, dim3(a->step.n_rows, a->n_heads), MERGE_THREADS, 0, s, *a, act_planes{},
                     false);
}

/* --- the op --- */
static struct attn_args args_of(const struct cuda_backend *b, const struct act *out, const float *q, size_t ld,
                                uint32_t n_heads, const struct kv_slices *kv, const struct attn_facts *facts,
                                const struct step *step)
{
    struct attn_args a = {};
    a.step = step_view_of(step);
    a.kv = cu_kv_of(kv);
    a.q = q;
    a.ld = ld;
    a.out = out->f;
    a.out_ld = out->k;
    a.partials = b->attn.partials;
    a.sinks = facts->sinks;
    a.scale = facts->scale;
    a.softcap = facts->softcap;
    a.softcap_inv = facts->softcap != 0.0f ? 1.0f / facts->softcap : 0.0f;
    a.n_heads = n_heads;
    a.group = facts->group ? facts->group : n_heads / kv->geom.n_kv_heads;
    a.first = facts->first;
    a.window = facts->window;
    return a;
}

/* Items of sequences that are not split, and the most rows of one that is. */
static uint32_t count(const struct attn_args *a, const struct batch *batch, uint32_t *split_rows)
{
    uint32_t n = 0;
    *split_rows = 0;
    for (uint32_t i = 0; i < batch->n_seqs; i++) {
        const uint32_t rows = batch->seqs[i].n_rows;
        if (!attn_is_split(a->group, rows))
            n += cu_div_up(rows * a->group, a->tile_queries) * a->kv.n_heads;
        else if (rows > *split_rows)
            *split_rows = rows;
    }
    return n;
}

static cudaError_t launch_whole(struct attn_args *a, uint32_t blocks, bool tiles, cudaStream_t s)
{
    if (tiles) return cuda_attn_prefill(a, blocks, s);
    return a->kv.int8 ? cuda_attn_int8(a, blocks, false, s) : cuda_attn_f16(a, blocks, s);
}

/* The same launches however long sequences are. */
static cudaError_t launch_split(const struct cuda_backend *b, struct attn_args *a, uint32_t rows, const struct act *out,
                                bool quantize, cudaStream_t s)
{
    const uint32_t blocks = 2 * (uint32_t)b->n_sms;
    a->split = true;
    const cudaError_t e = a->kv.int8 ? cuda_attn_int8(a, blocks, rows * a->group <= 8, s) : cuda_attn_f16(a, blocks, s);
    if (e != cudaSuccess) return e;
    if (!quantize) return cuda_attn_merge(a, s);
    return cu_launch(merge_kernel<true>, dim3(a->step.n_rows, a->n_heads), MERGE_THREADS, 0, s, *a, act_planes_for(out),
                     out->precision == FINE);
}

/* *quantized: also the quantized form has been made. */
static cudaError_t launch(const struct cuda_backend *b, struct attn_args *a, const struct batch *batch,
                          const struct act *out, bool *quantized, cudaStream_t s)
{
    const bool tiles = a->kv.int8 && (a->kv.dim == 64 || a->kv.dim == 128);
    a->tile_queries = tiles ? ATTN_PREFILL_QUERIES : ATTN_SPLIT_QUERIES;
    uint32_t split_rows;
    const uint32_t whole = count(a, batch, &split_rows);
    const cudaError_t e = whole ? launch_whole(a, whole, tiles, s) : cudaSuccess;
    *quantized = !whole && a->kv.dim % 32 == 0;
    return e == cudaSuccess && split_rows ? launch_split(b, a, split_rows, out, *quantized, s) : e;
}

enum status cuda_attention(struct backend *backend, struct stream *s, struct act *out, const float *q, size_t ld,
                           uint32_t n_heads, const struct kv_slices *kv, const struct attn_facts *facts,
                           const struct step *step)
{
    struct cuda_backend *b = cuda_of(backend);
    if (!facts->causal) return ERR_UNSUPPORTED;
    struct attn_args a = args_of(b, out, q, ld, n_heads, kv, facts, step);
    assert(cu_kv_dim_ok(a.kv.dim) && a.kv.dim <= b->limits.max_head_dim && n_heads <= b->limits.max_heads);
    assert(a.first < a.group && (a.first + n_heads + a.group - 1) / a.group == a.kv.n_heads);
    assert((facts->group || n_heads % a.kv.n_heads == 0) && out->k == n_heads * a.kv.dim);
    if (out->n == 0) return OK;
    bool quantized;
    const cudaError_t e = launch(b, &a, step->batch, out, &quantized, cu_stream(backend, s));
    const enum status st = cuda_check(backend, e, "attention");
    return st == OK && !quantized ? cuda_quantize(backend, s, out) : st;
}
