/* cuda_scan.cu - the recurrences: the gated delta rule, and Mamba-2's scan.
 *
 * A column of S knows nothing of the others, so a thread has one, in registers where it fits, and walks over all rows
 * of its sequence.  A warp has 32 columns of a head; what they share of a row (q and k, or B and C) is staged for
 * TILE rows at a time in shared memory.  DeltaNet's q and k are brought to their length before. */
#include "compute/cuda/cu_math.h"
#include "compute/cuda/cuda_state.h"

#include <math.h>

#define TILE         16 /* rows of the step whose gates and shared vectors are staged together */
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
    uint32_t head, col;
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

/* n vectors of `rows` floats, ld floats apart, to shared memory; vectors there are `rows` rounded up to 4 apart. */
static __device__ __forceinline__ void stage(float *to, const float *from, size_t ld, uint32_t n, uint32_t rows)
{
    const uint32_t width = (rows + 3) & ~3u;
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t j = threadIdx.x; j < rows; j += CU_WARP) to[t * width + j] = from[t * ld + j];
}

/* softplus(x + bias), and exp of that times a */
static __device__ __forceinline__ void decay_of(float *dt, float *decay, float x, float bias, float a)
{
    *dt = cu_softplus(__fadd_rn(x, bias));
    *decay = cu_exp(__fmul_rn(*dt, a));
}

static uint32_t vector_floats(uint32_t rows)
{
    return (rows + 3) & ~3u;
}

/* --- DeltaNet --- */
struct delta_args {
    float *out;
    size_t out_ld;
    struct delta_inputs in;
    struct delta_facts facts;
    struct state_slices state;
    struct step_view step;
};

/* q and k of each row, a head to half a warp: x * (factor / sqrt(the sum of its squares + eps)). */
static __global__ void unit_length_kernel(float *qkv, size_t ld, uint32_t n_k_heads, uint32_t keys, float eps,
                                          float q_factor)
{
    const uint32_t lane = threadIdx.x % 16, h = (blockIdx.x * blockDim.x + threadIdx.x) / 16;
    const bool is_real = h < 2 * n_k_heads;
    float *x = qkv + blockIdx.y * ld + (size_t)(is_real ? h : 0) * keys, squares = 0;
    for (uint32_t j = lane; j < keys; j += 16) squares = __fmaf_rn(x[j], x[j], squares);
    const float factor = h < n_k_heads ? q_factor : 1.0f;
    const float inv = __fdiv_rn(factor, __fsqrt_rn(__fadd_rn(cu_sum16(squares), eps)));
    for (uint32_t j = lane; is_real && j < keys; j += 16) x[j] = __fmul_rn(x[j], inv);
}

/* S = a S + k d; returns o = q S, and u = k_next S. */
template <int ROWS>
static __device__ __forceinline__ float delta_pass(struct column<ROWS> &c, float *u, float d, float a, const float *k,
                                                   const float *q, const float *k_next, uint32_t keys)
{
    float o = 0, next = 0;
#pragma unroll
    for (uint32_t j = 0; j < (ROWS ? ROWS : keys); j += 4) {
        const float4 kj = *(const float4 *)(k + j), qj = *(const float4 *)(q + j), nj = *(const float4 *)(k_next + j);
        const float ks[4] = { kj.x, kj.y, kj.z, kj.w }, qs[4] = { qj.x, qj.y, qj.z, qj.w };
        const float ns[4] = { nj.x, nj.y, nj.z, nj.w };
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) {
            const float x = __fmaf_rn(d, ks[i], __fmul_rn(a, c.at(j + i)));
            c.at(j + i) = x;
            o = __fmaf_rn(x, qs[i], o);
            next = __fmaf_rn(x, ns[i], next);
        }
    }
    *u = next;
    return o;
}

/* A tile's gates and vectors, and the k after it, which begins the next row's u. */
static __device__ __forceinline__ void delta_stage(const struct delta_args &a, const struct place &p, uint32_t t0,
                                                   uint32_t n, float *k, float *q, float *decay, float *beta)
{
    const struct delta_facts &f = a.facts;
    const uint32_t keys = a.state.geom.rows, row = p.seq.row0 + t0;
    const uint32_t key_head = f.tiled ? p.head % f.n_k_heads : p.head / (f.n_v_heads / f.n_k_heads);
    const float *from = a.in.qkv + row * a.in.ld + (size_t)key_head * keys;
    __syncwarp();
    stage(q, from, a.in.ld, n, keys);
    stage(k, from + (size_t)f.n_k_heads * keys, a.in.ld, t0 + n < p.seq.n_rows ? n + 1 : n, keys);
    if (threadIdx.x < n) {
        float dt;
        const size_t r = row + threadIdx.x;
        decay_of(&dt, &decay[threadIdx.x], a.in.alpha[r * a.in.alpha_ld + p.head], f.dt_bias[p.head], f.a[p.head]);
        beta[threadIdx.x] = cu_sigmoid(a.in.beta[r * a.in.beta_ld + p.head]);
    }
    __syncwarp();
}

template <int ROWS> static __global__ void __launch_bounds__(CU_WARP) delta_kernel(struct delta_args a)
{
    __shared__ float decay[TILE], beta[TILE];
    const uint32_t keys = ROWS ? ROWS : a.state.geom.rows, cols = a.state.geom.cols;
    const struct place p = place_of(a.state, a.step);
    float *k = (float *)cu_shared(), *q = k + (TILE + 1) * keys, u = 0;
    const float *v =
        a.in.qkv + p.seq.row0 * a.in.ld + 2 * (size_t)a.facts.n_k_heads * keys + (size_t)p.head * cols + p.col;
    float *out = a.out + p.seq.row0 * a.out_ld + (size_t)p.head * cols + p.col;
    struct column<ROWS> c;
    if (p.seq.n_rows == 0) return;
    c.place(q + TILE * keys);
    load_column(c, p, keys, cols);
    float x = *v;
    for (uint32_t t0 = 0; t0 < p.seq.n_rows; t0 += TILE) {
        const uint32_t n = min(p.seq.n_rows - t0, (uint32_t)TILE);
        delta_stage(a, p, t0, n, k, q, decay, beta);
        if (t0 == 0) {
#pragma unroll
            for (uint32_t j = 0; j < (ROWS ? ROWS : keys); j++) u = __fmaf_rn(c.at(j), k[j], u);
        }
        for (uint32_t t = 0; t < n; t++) {
            const float d = __fmul_rn(beta[t], __fmaf_rn(-decay[t], u, x));
            if (t0 + t + 1 < p.seq.n_rows) x = v[(t0 + t + 1) * a.in.ld]; /* on its way during the pass */
            const float o = delta_pass(c, &u, d, decay[t], k + t * keys, q + t * keys, k + (t + 1) * keys, keys);
            if (p.is_real) out[(t0 + t) * a.out_ld] = o;
        }
    }
    store_column(c, p, keys, cols);
}

static dim3 warps_of(const struct state_geometry *g, const struct step_view *v)
{
    return dim3(cu_div_up(g->cols, CU_WARP), g->n_heads, v->n_seqs);
}

/* Launches `kernel` with room for `vectors` staged vectors and, where registers do not hold it, S. */
template <class A>
static cudaError_t launch_scan(void (*kernel)(A), const A &args, uint32_t vectors, bool in_shared, cudaStream_t s)
{
    const struct state_geometry *g = &args.state.geom;
    size_t bytes = vectors * (size_t)vector_floats(g->rows) * sizeof(float);
    if (in_shared) bytes += (size_t)g->rows * CU_WARP * sizeof(float);
    if (bytes > (48u << 10)) {
        const cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
        if (e != cudaSuccess) return e;
    }
    return cu_launch(kernel, warps_of(g, &args.step), CU_WARP, bytes, s, args);
}

enum status cuda_delta_rule(struct backend *b, struct stream *s, float *out, size_t out_ld,
                            const struct delta_inputs *in, const struct delta_facts *facts,
                            const struct state_slices *state, const struct step *step)
{
    const uint32_t keys = state->geom.rows, heads = 2 * facts->n_k_heads;
    const struct delta_args a = { out, out_ld, *in, *facts, *state, step_view_of(step) };
    if (keys % 16 != 0) return ERR_UNSUPPORTED;
    assert(cuda_state_slot_bytes(b, &state->geom) <= state->slot_bytes);
    assert(facts->n_v_heads == state->geom.n_heads && facts->n_k_heads && facts->n_v_heads % facts->n_k_heads == 0);
    if (a.step.n_rows == 0) return OK;
    cudaError_t e =
        cu_launch(unit_length_kernel, dim3(cu_div_up(16 * heads, UNIT_THREADS), a.step.n_rows), UNIT_THREADS, 0,
                  cu_stream(b, s), in->qkv, in->ld, facts->n_k_heads, keys, facts->eps, 1.0f / sqrtf((float)keys));
    if (e == cudaSuccess && keys == 128)
        e = launch_scan(delta_kernel<128>, a, 2 * TILE + 1, false, cu_stream(b, s));
    else if (e == cudaSuccess && keys == 64)
        e = launch_scan(delta_kernel<64>, a, 2 * TILE + 1, false, cu_stream(b, s));
    else if (e == cudaSuccess)
        e = launch_scan(delta_kernel<0>, a, 2 * TILE + 1, true, cu_stream(b, s));
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
};

/* STEPS rows in one pass over S, so that their chains of additions overlap. */
template <int ROWS, int STEPS>
static __device__ __forceinline__ void mamba2_pass(struct column<ROWS> &c, float *o, const float *x, const float *decay,
                                                   const float *b, const float *cs, uint32_t rows, uint32_t width)
{
#pragma unroll
    for (int k = 0; k < STEPS; k++) o[k] = 0;
#pragma unroll
    for (uint32_t j = 0; j < (ROWS ? ROWS : rows); j++) {
        float y = c.at(j);
#pragma unroll
        for (int k = 0; k < STEPS; k++) {
            y = __fmaf_rn(x[k], b[k * width + j], __fmul_rn(decay[k], y));
            o[k] = __fmaf_rn(y, cs[k * width + j], o[k]);
        }
        c.at(j) = y;
    }
}

/* STEPS rows from row t of the sequence on, which are rows `at` of the tile. */
template <int ROWS, int STEPS>
static __device__ __forceinline__ void mamba2_rows(const struct mamba2_args &a, const struct place &p,
                                                   struct column<ROWS> &c, const float *staged, const float *dt,
                                                   const float *decay, uint32_t t, uint32_t at)
{
    const uint32_t rows = ROWS ? ROWS : a.state.geom.rows, width = (rows + 3) & ~3u;
    const size_t own = (size_t)p.head * a.state.geom.cols + p.col;
    const float *b = staged + at * width, *cs = b + TILE * width;
    float in[STEPS], x[STEPS], o[STEPS];
    for (int k = 0; k < STEPS; k++) {
        in[k] = a.in.xbc[(p.seq.row0 + t + (uint32_t)k) * a.in.ld + own];
        x[k] = __fmul_rn(dt[at + (uint32_t)k], in[k]);
    }
    mamba2_pass<ROWS, STEPS>(c, o, x, decay + at, b, cs, rows, width);
    for (int k = 0; k < STEPS; k++)
        if (p.is_real)
            a.out[(p.seq.row0 + t + (uint32_t)k) * a.out_ld + own] = __fmaf_rn(a.facts.d[p.head], in[k], o[k]);
}

template <int ROWS> static __global__ void __launch_bounds__(CU_WARP) mamba2_kernel(struct mamba2_args a)
{
    __shared__ float dt[TILE], decay[TILE];
    const struct state_geometry g = a.state.geom;
    const uint32_t rows = ROWS ? ROWS : g.rows, width = (rows + 3) & ~3u;
    const struct mamba2_facts &f = a.facts;
    const struct place p = place_of(a.state, a.step);
    const size_t b0 = (size_t)f.n_heads * g.cols + (size_t)(p.head / (f.n_heads / f.n_groups)) * rows;
    float *staged = (float *)cu_shared();
    struct column<ROWS> c;
    c.place(staged + 2 * TILE * width);
    load_column(c, p, rows, g.cols);
    for (uint32_t t0 = 0; t0 < p.seq.n_rows; t0 += TILE) {
        const uint32_t n = min(p.seq.n_rows - t0, (uint32_t)TILE);
        const float *row = a.in.xbc + (p.seq.row0 + t0) * a.in.ld + b0;
        uint32_t t = 0;
        __syncwarp();
        stage(staged, row, a.in.ld, n, rows);
        stage(staged + TILE * width, row + (size_t)f.n_groups * rows, a.in.ld, n, rows);
        if (threadIdx.x < n)
            decay_of(&dt[threadIdx.x], &decay[threadIdx.x],
                     a.in.dt[(p.seq.row0 + t0 + threadIdx.x) * a.in.dt_ld + p.head], f.dt_bias[p.head], f.a[p.head]);
        __syncwarp();
        for (; t + 2 <= n; t += 2) mamba2_rows<ROWS, 2>(a, p, c, staged, dt, decay, t0 + t, t);
        if (t < n) mamba2_rows<ROWS, 1>(a, p, c, staged, dt, decay, t0 + t, t);
    }
    store_column(c, p, rows, g.cols);
}

enum status cuda_mamba2_scan(struct backend *b, struct stream *s, float *out, size_t out_ld,
                             const struct mamba2_inputs *in, const struct mamba2_facts *facts,
                             const struct state_slices *state, const struct step *step)
{
    const struct mamba2_args a = { out, out_ld, *in, *facts, *state, step_view_of(step) };
    const uint32_t rows = state->geom.rows;
    assert(cuda_state_slot_bytes(b, &state->geom) <= state->slot_bytes);
    assert(facts->n_heads == state->geom.n_heads && facts->n_groups && facts->n_heads % facts->n_groups == 0);
    if (a.step.n_rows == 0) return OK;
    cudaError_t e;
    if (rows == 128)
        e = launch_scan(mamba2_kernel<128>, a, 2 * TILE, false, cu_stream(b, s));
    else if (rows == 64)
        e = launch_scan(mamba2_kernel<64>, a, 2 * TILE, false, cu_stream(b, s));
    else
        e = launch_scan(mamba2_kernel<0>, a, 2 * TILE, true, cu_stream(b, s));
    return cuda_check(b, e, "mamba2_scan");
}
