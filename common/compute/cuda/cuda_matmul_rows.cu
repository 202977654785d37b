/* cuda_matmul_rows.cu - products of quantized matrices with few rows of activations, by __dp4a.
 *
 * A block takes two panels, a lane one of their 32 rows; a warp takes runs of 256 columns.  What a lane reads of a run
 * are 16 bytes at a time beside its neighbours' 16, all of them on their way before the first is used.  The activations
 * of a run lie in the warp's own shared memory, from where all lanes read the same word at a time.
 *
 * The chain of sums over a row is one: a warp has its integer sums ready when its turn comes to continue the chain.
 * With `split` each run has a chain of its own, and the last step adds the runs up. */
#include "compute/cuda/cuda_formats.h"
#include "compute/cuda/cuda_product.h"

#define BLOCK_ROWS (2 * PANEL_ROWS)
#define MOST_WARPS 16u

/* The activations of a run: what the dots and their sums take. */
struct staged_row {
    int8_t q[RUN_COLS];
    float scale[RUN_COLS / 16];
    int32_t start[RUN_COLS / 16]; /* INT_MAGIC - z * sum of q */
    float sum[RUN_COLS / 16];     /* what minima multiply: of 32 columns each, or of 16 */
};

/* --- reading --- */
/* One row's activations of a run into shared memory, by the warp. */
template <class F>
static __device__ __forceinline__ void stage_row(struct staged_row *to, const struct act_planes &a, uint32_t row,
                                                 uint32_t run, int32_t offset)
{
    const uint32_t lane = threadIdx.x % CU_WARP, g = lane % 16, groups = a.k32 / 16, at = run * 16 + g;
    if (at >= groups) return;
    const size_t group = (size_t)row * groups + at;
    if (lane < 16) {
        *(uint4 *)(to->q + 16 * g) = *(const uint4 *)(a.q + 16 * group);
        to->start[g] = INT_MAGIC - offset * a.sum[group];
    } else {
        const float scale = a.scale[group];
        to->scale[g] = scale;
        if (F::scales == PACK_K16M) to->sum[g] = __fmul_rn((float)a.sum[group], scale);
        if (F::has_min && !F::by16 && g % 2 == 0) to->sum[g / 2] = a.block_sum[group / 2];
    }
}

/* --- sums --- */
/* The exact integer sum of 16 columns as a float. */
static __device__ __forceinline__ float group_dot(const uint32_t w[4], const uint4 &q, int32_t start)
{
    int32_t dot = start;
#pragma unroll
    for (int j = 0; j < 4; j++) dot = __dp4a((int)w[j], (int)word_of(q, j), dot);
    return int_float(dot);
}

/* t = what the weights' scales multiply, of all blocks or groups of the run and N rows. */
template <class F, int N>
static __device__ __forceinline__ void run_sums(float t[N][F::sums], const struct row_run<F> &r,
                                                const struct staged_row *x, const uint32_t *book)
{
#pragma unroll
    for (int b = 0; b < 8; b++) {
        if (b >= (int)r.blocks) break;
        uint32_t w[8];
        block_codes<F>(w, r, b, book);
#pragma unroll
        for (int i = 0; i < N; i++) {
            const uint4 *q = (const uint4 *)(x[i].q + 32 * b);
            const int2 start = *(const int2 *)(x[i].start + 2 * b);
            const float2 scale = *(const float2 *)(x[i].scale + 2 * b);
            const float first = __fmul_rn(group_dot(w, q[0], start.x), scale.x), last = group_dot(w + 4, q[1], start.y);
            if (F::by16) {
                t[i][(2 * b) % F::sums] = first;
                t[i][(2 * b + 1) % F::sums] = __fmul_rn(last, scale.y);
            } else {
                t[i][b] = __fmaf_rn(last, scale.y, first);
            }
        }
    }
}

/* Continues the chains of N rows over the run. */
template <class F, int N>
static __device__ __forceinline__ void run_chain(float acc[N], const float t[N][F::sums], const struct row_run<F> &r,
                                                 const struct staged_row *x, float d_times)
{
    const struct super_scales s = unpack_scales<F>(r.scales, d_times);
#pragma unroll
    for (int b = 0; b < F::sums; b++) {
        if (b >= (int)r.blocks * (F::sums / 8)) break;
        const float d = d_of<F>(r.scales, s, b), m = F::has_min ? m_of<F>(r.scales, s, b) : 0.0f;
#pragma unroll
        for (int i = 0; i < N; i++) {
            acc[i] = __fmaf_rn(d, t[i][b], acc[i]);
            if (F::has_min) acc[i] = __fmaf_rn(m, x[i].sum[b], acc[i]);
        }
    }
}

/* --- the kernel --- */
/* Rows of y that a block makes: N rows of activations, or half as many where products are fine. */
static __device__ __forceinline__ uint32_t rows_of_block(const struct product &p, uint32_t n)
{
    return p.fine ? n / 2 : n;
}

/* sums: [parts][N][32]; what is done with them is the same for one chain and for parts of one. */
template <int N>
static __device__ __forceinline__ void put_sums(const struct product &p, const float *sums, uint32_t parts)
{
    const uint32_t lane = threadIdx.x % CU_WARP, out = rows_of_block(p, N), row = blockIdx.x * BLOCK_ROWS + lane;
    for (uint32_t i = threadIdx.x / CU_WARP; i < out; i += blockDim.x / CU_WARP) {
        const uint32_t to = blockIdx.y * out + i;
        float v[2] = { 0, 0 };
        for (uint32_t part = 0; part < parts; part++)
            for (uint32_t half = 0; half < 2; half++) {
                if (half && !p.fine) break;
                const float one = sums[(part * N + i + half * out) * BLOCK_ROWS + lane];
                v[half] = parts == 1 ? one : __fadd_rn(v[half], one);
            }
        if (to < p.n && row < p.n_rows) product_put(p, to, row, p.fine ? __fadd_rn(v[0], v[1]) : v[0]);
    }
}

template <class F, int N> static __global__ void __launch_bounds__(MOST_WARPS *CU_WARP) rows_kernel(struct product p)
{
    const uint32_t warp = threadIdx.x / CU_WARP, lane = threadIdx.x % CU_WARP, warps = blockDim.x / CU_WARP;
    const uint32_t n_runs = cu_div_up(p.n_cols, RUN_COLS), n_panels = cu_div_up(p.n_rows, PANEL_ROWS);
    const uint32_t out = rows_of_block(p, N), first = blockIdx.y * out;
    const uint32_t panel = min_u32(blockIdx.x * 2 + lane / PANEL_ROWS, n_panels - 1);
    const uint8_t *w = product_weights(p, first) + panel * p.panel_bytes;
    struct staged_row *x = (struct staged_row *)cu_shared() + warp * N;
    float *sums = (float *)((struct staged_row *)cu_shared() + warps * N);
    volatile uint32_t *turn = (volatile uint32_t *)(sums + (p.split ? n_runs : 1) * N * BLOCK_ROWS);
    struct row_run<F> r;
    if (threadIdx.x == 0) *turn = 0;
    if (warp < n_runs) read_run(r, w, lane % PANEL_ROWS, warp, p.n_cols);
    __syncthreads();
    for (uint32_t run = warp; run < n_runs; run += warps) {
        float t[N][F::sums], acc[N];
        __syncwarp();
#pragma unroll
        for (int i = 0; i < N; i++) {
            const uint32_t row = min_u32(first + i % out, p.n - 1);
            stage_row<F>(x + i, p.act, product_act_row(p, row, i >= (int)out), run, p.format.offset);
        }
        __syncwarp();
        run_sums<F, N>(t, r, x, p.format.book);
        struct row_run<F> now = r; /* its scales; the next run's codes are on their way while the chain goes on */
        if (run + warps < n_runs) read_run(r, w, lane % PANEL_ROWS, run + warps, p.n_cols);
        float *to = sums + (p.split ? run : 0) * N * BLOCK_ROWS + lane;
        if (!p.split) turn_wait(turn, run);
#pragma unroll
        for (int i = 0; i < N; i++) acc[i] = p.split || run == 0 ? 0.0f : ((volatile float *)to)[i * BLOCK_ROWS];
        run_chain<F, N>(acc, t, now, x, p.format.d_times);
#pragma unroll
        for (int i = 0; i < N; i++) ((volatile float *)to)[i * BLOCK_ROWS] = acc[i];
        if (!p.split) turn_pass(turn, run + 1);
    }
    __syncthreads();
    put_sums<N>(p, sums, p.split ? n_runs : 1);
}

/* --- which kernel --- */
/* As many warps as keep the memory busy: where blocks are few, each has more of them. */
static uint32_t warps_of(uint32_t n_runs, uint32_t blocks, uint32_t n_sms)
{
    const uint32_t most = blocks <= n_sms + n_sms / 4 ? MOST_WARPS : MOST_WARPS / 2;
    return n_runs < most ? n_runs : most;
}

template <class F, int N> static cudaError_t launch(const struct product &p, uint32_t n_sms, cudaStream_t s)
{
    const uint32_t n_runs = cu_div_up(p.n_cols, RUN_COLS), out = p.fine ? N / 2 : N;
    const dim3 grid(cu_div_up(p.n_rows, BLOCK_ROWS), cu_div_up(p.n, out));
    const uint32_t warps = warps_of(n_runs, grid.x * grid.y, n_sms);
    const size_t shared = warps * N * sizeof(struct staged_row) +
                          (p.split ? n_runs : 1) * N * BLOCK_ROWS * sizeof(float) + sizeof(uint32_t);
    if (shared > (48u << 10)) {
        const cudaError_t e =
            cudaFuncSetAttribute(rows_kernel<F, N>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
        if (e != cudaSuccess) return e;
    }
    return cu_launch(rows_kernel<F, N>, grid, warps * CU_WARP, shared, s, p);
}

/* An expert's row is alone; otherwise up to four rows of activations share what is read of the weights. */
template <class F> static cudaError_t launch_rows(const struct product &p, uint32_t n_sms, cudaStream_t s)
{
    const uint32_t rows = (p.fine ? 2 : 1) * (p.expert ? 1 : p.n);
    if (rows == 1) return launch<F, 1>(p, n_sms, s);
    return rows == 2 ? launch<F, 2>(p, n_sms, s) : launch<F, 4>(p, n_sms, s);
}

cudaError_t product_rows(const struct product &p, const struct pack_format *f, uint32_t n_sms, cudaStream_t s)
{
    const bool book = f->book != BOOK_NONE;
#define CASE(BITS, SCALES, BOOK)                                                                                       \
    if (f->bits == BITS && f->scales == SCALES && book == BOOK)                                                        \
        return launch_rows<format<BITS, SCALES, BOOK>>(p, n_sms, s);
    EACH_FORMAT(CASE)
#undef CASE
    return cudaErrorInvalidValue;
}
