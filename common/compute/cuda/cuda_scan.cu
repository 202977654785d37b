/* cuda_scan.cu - the recurrences: the gated delta rule, and Mamba-2's scan.
 *
 * A column of S knows nothing of the others, so a thread has one, in registers where it fits, and walks over all rows
 * of its sequence.  A warp has 32 columns of a head.  What they read of a row (q, k and v, or B, C and x) comes through
 * two tiles of rows in shared memory: one is filled while the other one is worked on.  DeltaNet's q and k are brought
 * to their length before. */
#include "compute/cuda/cu_async.h"
#include "compute/cuda/cu_math.h"
#include "compute/cuda/cuda_state.h"

#include <math.h>

#define TILE         16u /* rows of the step that are staged together, at most */
#define SHORT_TILE   2u  /* where sequences have one or two rows: more of them fit a multiprocessor */
#define UNIT_THREADS 128

/* --- a thread's column of S --- */
template <int ROWS> struct column {
    float s[ROWS];
    __device__ __forceinline__ void place(float *) {}
    __device__ __forceinline__ float &at(uint32_t j) { return s[j]; }
};
template <> struct column<0> { /* of any number of rows: in shared memory, [rows][32] */
    float *s;
    __device__ __forceinline__ void place(float *shared) { s = shared + threadIdx.x; }
    __device__ __forceinline__ float &at(uint32_t j) { return s[j * CU_WARP]; }
};

/* A warp's place: columns of one head of one sequence.  Lanes past the last column do as the last one does. */
struct place {
    struct step_seq seq;
    uint32_t head, col, lane_col; /* lane_col: the column in the warp */
    bool is_real;
    float *s; /* the column in its slot */
};

static __device__ struct place place_of(const struct state_slices &state, const struct step_view &step)
{
    const struct state_geometry &g = state.geom;
    struct place p;
    const uint32_t col = blockIdx.x * CU_WARP + threadIdx.x;
    p.seq = step.seqs[blockIdx.z];
    p.head = blockIdx.y;
    p.is_real = col < g.cols;
    p.col = p.is_real ? col : g.cols - 1;
    p.lane_col = p.col - blockIdx.x * CU_WARP;
    p.s = state_slot(&state, p.seq.state) + (size_t)p.head * g.rows * g.cols + p.col;
    return p;
}

/* A sequence begins with zeros. */
template <int ROWS>
static __device__ __forceinline__ void load_column(struct column<ROWS> &c, const struct place &p, uint32_t rows,
                                                   uint32_t cols)
{
#pragma unroll
    for (uint32_t j = 0; j < (ROWS ? ROWS : rows); j++) c.at(j) = p.seq.pos0 == 0 ? 0.0f : p.s[(size_t)j * cols];
}

template <int ROWS>
static __device__ __forceinline__ void store_column(struct column<ROWS> &c, const struct place &p, uint32_t rows,
                                                    uint32_t cols)
{
#pragma unroll
    for (uint32_t j = 0; j < (ROWS ? ROWS : rows); j++)
        if (p.is_real) p.s[(size_t)j * cols] = c.at(j);
}

/* n vectors of `width` floats on their way to shared memory, where they are `to_ld` apart; `wide`: 16 bytes at a time.
 */
static __device__ __forceinline__ void stage(float *to, uint32_t to_ld, const float *from, size_t ld, uint32_t n,
                                             uint32_t width, bool wide)
{
    const uint32_t step = wide ? 4 : 1, pieces = width / step;
    for (uint32_t i = threadIdx.x; i < n * pieces; i += CU_WARP) {
        const uint32_t t = i / pieces, j = i % pieces * step;
        if (wide)
            cu_copy_async<16>(to + t * to_ld + j, from + t * ld + j);
        else
            cu_copy_async<4>(to + t * to_ld + j, from + t * ld + j);
    }
}

/* Floats of a staged vector: whole 16 bytes. */
static __host__ __device__ __forceinline__ uint32_t padded(uint32_t rows)
{
    return (rows + 3) & ~3u;
}

/* A tile: two vectors of each row, then the warp's columns of its values. */
static __host__ __device__ __forceinline__ uint32_t tile_floats(uint32_t rows, uint32_t tile)
{
    return tile * (2 * padded(rows) + CU_WARP);
}

static bool is_wide(const float *p, size_t ld, uint32_t rows)
{
    return (uintptr_t)p % 16 == 0 && ld % 4 == 0 && rows % 4 == 0;
}

/* softplus(x + bias), and exp of that times a */
static __device__ __forceinline__ void decay_of(float *dt, float *decay, float x, float bias, float a)
{
    *dt = cu_softplus(__fadd_rn(x, bias));
    *decay = cu_exp(__fmul_rn(*dt, a));
}

/* Holds two chains of additions at the same place: the compiler would move one behind the other, and then neither hides
 * the other's latency. */
static __device__ __forceinline__ void side_by_side(float *a, float *b)
{
#ifndef BATON_SIMT
    asm volatile("" : "+f"(*a), "+f"(*b)::"memory"); /* loads stay where they are, too */
#endif
}

/* --- DeltaNet --- */
struct delta_args {
    float *out;
    size_t out_ld;
    struct delta_inputs in;
    struct delta_facts facts;
    struct state_slices state;
    struct step_view step;
    uint32_t tile;
    float q_factor;      /* beyond a length of 1 */
    bool wide, is_short; /* is_short: a sequence is one tile, whose q and k the kernel brings to their length itself */
};

/* x * (factor / sqrt(the sum of its squares + eps)), by half a warp. */
static __device__ __forceinline__ void unit_length(float *x, uint32_t keys, float eps, float factor, bool is_real)
{
    const uint32_t lane = threadIdx.x % 16;
    float squares = 0;
    for (uint32_t j = lane; j < keys; j += 16) squares = __fmaf_rn(x[j], x[j], squares);
    const float inv = __fdiv_rn(factor, __fsqrt_rn(__fadd_rn(cu_sum16(squares), eps)));
    for (uint32_t j = lane; is_real && j < keys; j += 16) x[j] = __fmul_rn(x[j], inv);
}

/* q and k of each row, a head to half a warp. */
static __global__ void unit_length_kernel(float *qkv, size_t ld, uint32_t n_k_heads, uint32_t keys, float eps,
                                          float q_factor)
{
    const uint32_t h = (blockIdx.x * blockDim.x + threadIdx.x) / 16;
    const bool is_real = h < 2 * n_k_heads;
    unit_length(qkv + blockIdx.y * ld + (size_t)(is_real ? h : 0) * keys, keys, eps, h < n_k_heads ? q_factor : 1.0f,
                is_real);
}

/* Four values each of k, q and the next row's k. */
struct delta_four {
    float4 k, q, next;
};

static __device__ __forceinline__ struct delta_four delta_load(const float *k, const float *q, const float *k_next,
                                                               uint32_t j)
{
    return delta_four{ *(const float4 *)(k + j), *(const float4 *)(q + j), *(const float4 *)(k_next + j) };
}

/* S = a S + k d; returns o = q S, and u = k_next S.  What four rows need is on its way while the two fours before them
 * are worked on. */
template <int ROWS>
static __device__ __forceinline__ float delta_pass(struct column<ROWS> &c, float *u, float d, float a, const float *k,
                                                   const float *q, const float *k_next, uint32_t keys)
{
    float o = 0, next = 0;
    const uint32_t rows = ROWS ? ROWS : keys;
    struct delta_four now = delta_load(k, q, k_next, 0), then = delta_load(k, q, k_next, 4);
#pragma unroll
    for (uint32_t j = 0; j < rows; j += 4) {
        const struct delta_four ahead = delta_load(k, q, k_next, j + 8 < rows ? j + 8 : j);
        const float ks[4] = { now.k.x, now.k.y, now.k.z, now.k.w }, qs[4] = { now.q.x, now.q.y, now.q.z, now.q.w };
        const float ns[4] = { now.next.x, now.next.y, now.next.z, now.next.w };
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) {
            const float x = __fmaf_rn(d, ks[i], __fmul_rn(a, c.at(j + i)));
            c.at(j + i) = x;
            o = __fmaf_rn(x, qs[i], o);
            next = __fmaf_rn(x, ns[i], next);
        }
        side_by_side(&o, &next);
        now = then;
        then = ahead;
    }
    *u = next;
    return o;
}

/* Sends rows [t0, t0 + n) on their way: q and k of the head, v of the warp's columns. */
static __device__ __forceinline__ void delta_fetch(const struct delta_args &a, const struct place &p, uint32_t t0,
                                                   uint32_t n, float *to)
{
    const struct delta_facts &f = a.facts;
    const uint32_t keys = a.state.geom.rows, cols = a.state.geom.cols, c0 = blockIdx.x * CU_WARP;
    const uint32_t key_head = f.tiled ? p.head % f.n_k_heads : p.head / (f.n_v_heads / f.n_k_heads);
    const float *row = a.in.qkv + (p.seq.row0 + t0) * a.in.ld, *q = row + (size_t)key_head * keys;
    const float *v = row + 2 * (size_t)f.n_k_heads * keys + (size_t)p.head * cols + c0;
    stage(to, keys, q, a.in.ld, n, keys, a.wide);
    stage(to + a.tile * keys, keys, q + (size_t)f.n_k_heads * keys, a.in.ld, n, keys, a.wide);
    stage(to + 2 * a.tile * keys, CU_WARP, v, a.in.ld, n, min(cols - c0, (uint32_t)CU_WARP), a.wide);
    cu_copy_commit();
}

/* alpha and beta of row t, for lanes below `tile`. */
static __device__ __forceinline__ float2 delta_gates(const struct delta_args &a, const struct place &p, uint32_t t)
{
    const size_t row = p.seq.row0 + t;
    if (threadIdx.x >= a.tile || t >= p.seq.n_rows) return make_float2(0, 0);
    return make_float2(a.in.alpha[row * a.in.alpha_ld + p.head], a.in.beta[row * a.in.beta_ld + p.head]);
}

/* q by the lower half of the warp, k by the upper one. */
static __device__ __forceinline__ void delta_lengths(const struct delta_args &a, float *now, uint32_t n)
{
    const uint32_t keys = a.state.geom.rows, is_k = threadIdx.x / 16;
    for (uint32_t t = 0; t < n; t++)
        unit_length(now + (is_k * a.tile + t) * keys, keys, a.facts.eps, is_k ? 1.0f : a.q_factor, true);
    __syncwarp();
}

/* Rows of one tile, [t0, t0 + n); the tile after it is `next`, if there is one. */
template <int ROWS>
static __device__ __forceinline__ void delta_tile(const struct delta_args &a, const struct place &p,
                                                  struct column<ROWS> &c, float *u, const float *now, const float *next,
                                                  const float *decay, const float *beta, uint32_t t0, uint32_t n)
{
    const uint32_t keys = ROWS ? ROWS : a.state.geom.rows;
    const float *q = now, *k = now + a.tile * keys, *v = now + 2 * a.tile * keys + p.lane_col;
    float *out = a.out + (p.seq.row0 + t0) * a.out_ld + (size_t)p.head * a.state.geom.cols + p.col;
    if (t0 == 0) {
#pragma unroll
        for (uint32_t j = 0; j < (ROWS ? ROWS : keys); j++) *u = __fmaf_rn(c.at(j), k[j], *u);
    }
    for (uint32_t t = 0; t < n; t++) {
        const float *k_next = k + (t + 1) * keys;
        const float d = __fmul_rn(beta[t], __fmaf_rn(-decay[t], *u, v[t * CU_WARP]));
        if (t + 1 == n) { /* the next u begins in the next tile; after the last row nobody asks for it */
            cu_copy_wait<0>();
            __syncwarp();
            k_next = next ? next + a.tile * keys : k;
        }
        const float o = delta_pass(c, u, d, decay[t], k + t * keys, q + t * keys, k_next, keys);
        if (p.is_real) out[t * a.out_ld] = o;
    }
}

template <int ROWS> static __global__ void __launch_bounds__(CU_WARP) delta_kernel(struct delta_args a)
{
    __shared__ float decay[TILE], beta[TILE];
    const uint32_t keys = ROWS ? ROWS : a.state.geom.rows, cols = a.state.geom.cols, lane = threadIdx.x;
    const struct place p = place_of(a.state, a.step);
    float *now = (float *)cu_shared(), *next = now + tile_floats(keys, a.tile), u = 0;
    struct column<ROWS> c;
    if (p.seq.n_rows == 0) return;
    c.place(next + tile_floats(keys, a.tile));
    delta_fetch(a, p, 0, min(p.seq.n_rows, a.tile), now);
    float2 gates = delta_gates(a, p, lane);
    load_column(c, p, keys, cols);
    for (uint32_t t0 = 0; t0 < p.seq.n_rows; t0 += a.tile) {
        const uint32_t n = min(p.seq.n_rows - t0, a.tile), left = p.seq.n_rows - t0 - n;
        float dt;
        __syncwarp();
        if (lane < a.tile) {
            decay_of(&dt, &decay[lane], gates.x, a.facts.dt_bias[p.head], a.facts.a[p.head]);
            beta[lane] = cu_sigmoid(gates.y);
        }
        cu_copy_wait<0>();
        __syncwarp();
        if (a.is_short) delta_lengths(a, now, n);
        gates = delta_gates(a, p, t0 + n + lane);
        if (left) delta_fetch(a, p, t0 + n, min(left, a.tile), next);
        delta_tile(a, p, c, &u, now, left ? next : NULL, decay, beta, t0, n);
        float *const swap = now;
        now = next;
        next = swap;
    }
    store_column(c, p, keys, cols);
}

static uint32_t tile_of(const struct step *step)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < step->batch->n_seqs; i++)
        if (step->batch->seqs[i].n_rows > most) most = step->batch->seqs[i].n_rows;
    return most <= SHORT_TILE ? SHORT_TILE : TILE;
}

/* Launches `kernel` with room for two tiles and, where registers do not hold it, S. */
template <class A> static cudaError_t launch_scan(void (*kernel)(A), const A &args, bool in_shared, cudaStream_t s)
{
    const struct state_geometry *g = &args.state.geom;
    const dim3 grid(cu_div_up(g->cols, CU_WARP), g->n_heads, args.step.n_seqs);
    size_t bytes = 2 * (size_t)tile_floats(g->rows, args.tile) * sizeof(float);
    if (in_shared) bytes += (size_t)g->rows * CU_WARP * sizeof(float);
    if (bytes > (48u << 10)) {
        const cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
        if (e != cudaSuccess) return e;
    }
    return cu_launch(kernel, grid, CU_WARP, bytes, s, args);
}

enum status cuda_delta_rule(struct backend *b, struct stream *s, float *out, size_t out_ld,
                            const struct delta_inputs *in, const struct delta_facts *facts,
                            const struct state_slices *state, const struct step *step)
{
    const uint32_t keys = state->geom.rows, heads = 2 * facts->n_k_heads;
    const uint32_t tile = tile_of(step);
    const struct delta_args a = { out,
                                  out_ld,
                                  *in,
                                  *facts,
                                  *state,
                                  step_view_of(step),
                                  tile,
                                  1.0f / sqrtf((float)keys),
                                  is_wide(in->qkv, in->ld, keys),
                                  tile == SHORT_TILE };
    if (keys % 16 != 0) return ERR_UNSUPPORTED;
    assert(cuda_state_slot_bytes(b, &state->geom) <= state->stride);
    assert(facts->n_v_heads == state->geom.n_heads && facts->n_k_heads && facts->n_v_heads % facts->n_k_heads == 0);
    if (a.step.n_rows == 0) return OK;
    cudaError_t e = cudaSuccess;
    if (!a.is_short)
        e = cu_launch(unit_length_kernel, dim3(cu_div_up(16 * heads, UNIT_THREADS), a.step.n_rows), UNIT_THREADS, 0,
                      cu_stream(b, s), in->qkv, in->ld, facts->n_k_heads, keys, facts->eps, a.q_factor);
    if (e == cudaSuccess && keys == 128)
        e = launch_scan(delta_kernel<128>, a, false, cu_stream(b, s));
    else if (e == cudaSuccess && keys == 64)
        e = launch_scan(delta_kernel<64>, a, false, cu_stream(b, s));
    else if (e == cudaSuccess)
        e = launch_scan(delta_kernel<0>, a, true, cu_stream(b, s));
    return cuda_check(b, e, "delta_rule");
}

/* --- Mamba-2 --- */
struct mamba2_args {
    float *out;
    size_t out_ld;
    struct mamba2_inputs in;
    struct mamba2_facts facts;
    struct state_slices state;
    struct step_view step;
    uint32_t tile;
    bool wide;
};

/* EACH rows of S from row j on, over STEPS rows of the step, whose chains of additions overlap. */
template <int ROWS, int STEPS, int EACH>
static __device__ __forceinline__ void mamba2_some(struct column<ROWS> &c, float o[STEPS], const float x[STEPS],
                                                   const float decay[STEPS], const float *b, const float *cs,
                                                   uint32_t width, uint32_t j)
{
    float bs[STEPS][EACH], ds[STEPS][EACH];
#pragma unroll
    for (int k = 0; k < STEPS; k++) {
        if (EACH == 4) {
            *(float4 *)bs[k] = *(const float4 *)(b + k * width + j);
            *(float4 *)ds[k] = *(const float4 *)(cs + k * width + j);
        } else {
            bs[k][0] = b[k * width + j];
            ds[k][0] = cs[k * width + j];
        }
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        float y = c.at(j + i);
#pragma unroll
        for (int k = 0; k < STEPS; k++) {
            y = __fmaf_rn(x[k], bs[k][i], __fmul_rn(decay[k], y));
            o[k] = __fmaf_rn(y, ds[k][i], o[k]);
        }
        c.at(j + i) = y;
    }
    side_by_side(&o[0], &o[STEPS - 1]);
}

/* STEPS rows of the tile from row `at` on; `out` is the first one's. */
template <int ROWS, int STEPS>
static __device__ __forceinline__ void mamba2_rows(const struct mamba2_args &a, const struct place &p,
                                                   struct column<ROWS> &c, const float *now, const float *dt,
                                                   const float *decays, float *out, uint32_t at)
{
    const uint32_t rows = ROWS ? ROWS : a.state.geom.rows, width = padded(rows);
    const float *b = now + at * width, *cs = b + a.tile * width;
    const float *in = now + 2 * a.tile * width + at * CU_WARP + p.lane_col;
    float x[STEPS], o[STEPS], decay[STEPS];
#pragma unroll
    for (int k = 0; k < STEPS; k++) {
        x[k] = __fmul_rn(dt[at + k], in[k * CU_WARP]);
        decay[k] = decays[at + k];
        o[k] = 0;
    }
#pragma unroll
    for (uint32_t j = 0; j < (ROWS ? ROWS : rows); j += ROWS ? 4 : 1)
        mamba2_some<ROWS, STEPS, ROWS ? 4 : 1>(c, o, x, decay, b, cs, width, j);
#pragma unroll
    for (int k = 0; k < STEPS; k++)
        if (p.is_real) out[k * a.out_ld] = __fmaf_rn(a.facts.d[p.head], in[k * CU_WARP], o[k]);
}

/* Sends rows [t0, t0 + n) on their way: B and C of the head's group, x of the warp's columns. */
static __device__ __forceinline__ void mamba2_fetch(const struct mamba2_args &a, const struct place &p, uint32_t t0,
                                                    uint32_t n, float *to)
{
    const struct mamba2_facts &f = a.facts;
    const uint32_t rows = a.state.geom.rows, cols = a.state.geom.cols, width = padded(rows), c0 = blockIdx.x * CU_WARP;
    const float *x = a.in.xbc + (p.seq.row0 + t0) * a.in.ld;
    const float *b = x + (size_t)f.n_heads * cols + (size_t)(p.head / (f.n_heads / f.n_groups)) * rows;
    stage(to, width, b, a.in.ld, n, rows, a.wide);
    stage(to + a.tile * width, width, b + (size_t)f.n_groups * rows, a.in.ld, n, rows, a.wide);
    stage(to + 2 * a.tile * width, CU_WARP, x + (size_t)p.head * cols + c0, a.in.ld, n,
          min(cols - c0, (uint32_t)CU_WARP), a.wide);
    cu_copy_commit();
}

static __device__ __forceinline__ float mamba2_gate(const struct mamba2_args &a, const struct place &p, uint32_t t)
{
    return threadIdx.x < a.tile && t < p.seq.n_rows ? a.in.dt[(p.seq.row0 + t) * a.in.dt_ld + p.head] : 0.0f;
}

template <int ROWS> static __global__ void __launch_bounds__(CU_WARP) mamba2_kernel(struct mamba2_args a)
{
    __shared__ float dt[TILE], decay[TILE];
    const uint32_t rows = ROWS ? ROWS : a.state.geom.rows, cols = a.state.geom.cols, lane = threadIdx.x;
    const struct place p = place_of(a.state, a.step);
    float *now = (float *)cu_shared(), *next = now + tile_floats(rows, a.tile);
    struct column<ROWS> c;
    if (p.seq.n_rows == 0) return;
    c.place(next + tile_floats(rows, a.tile));
    mamba2_fetch(a, p, 0, min(p.seq.n_rows, a.tile), now);
    float gate = mamba2_gate(a, p, lane);
    load_column(c, p, rows, cols);
    for (uint32_t t0 = 0; t0 < p.seq.n_rows; t0 += a.tile) {
        const uint32_t n = min(p.seq.n_rows - t0, a.tile), left = p.seq.n_rows - t0 - n;
        float *out = a.out + (p.seq.row0 + t0) * a.out_ld + (size_t)p.head * cols + p.col;
        uint32_t t = 0;
        __syncwarp();
        if (lane < a.tile) decay_of(&dt[lane], &decay[lane], gate, a.facts.dt_bias[p.head], a.facts.a[p.head]);
        cu_copy_wait<0>();
        __syncwarp();
        gate = mamba2_gate(a, p, t0 + n + lane);
        if (left) mamba2_fetch(a, p, t0 + n, min(left, a.tile), next);
        for (; t + 2 <= n; t += 2) mamba2_rows<ROWS, 2>(a, p, c, now, dt, decay, out + t * a.out_ld, t);
        if (t < n) mamba2_rows<ROWS, 1>(a, p, c, now, dt, decay, out + t * a.out_ld, t);
        float *const swap = now;
        now = next;
        next = swap;
    }
    store_column(c, p, rows, cols);
}

enum status cuda_mamba2_scan(struct backend *b, struct stream *s, float *out, size_t out_ld,
                             const struct mamba2_inputs *in, const struct mamba2_facts *facts,
                             const struct state_slices *state, const struct step *step)
{
    const uint32_t rows = state->geom.rows;
    const struct mamba2_args a = {
        out, out_ld, *in, *facts, *state, step_view_of(step), tile_of(step), is_wide(in->xbc, in->ld, rows)
    };
    assert(cuda_state_slot_bytes(b, &state->geom) <= state->stride);
    assert(facts->n_heads == state->geom.n_heads && facts->n_groups && facts->n_heads % facts->n_groups == 0);
    if (a.step.n_rows == 0) return OK;
    cudaError_t e;
    if (rows == 128)
        e = launch_scan(mamba2_kernel<128>, a, false, cu_stream(b, s));
    else if (rows == 64)
        e = launch_scan(mamba2_kernel<64>, a, false, cu_stream(b, s));
    else
        e = launch_scan(mamba2_kernel<0>, a, true, cu_stream(b, s));
    return cuda_check(b, e, "mamba2_scan");
}
