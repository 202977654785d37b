/* cuda_matmul_float.cu - products of matrices of floats: a chain of fma per output, in ascending columns.
 *
 * A block takes two panels, a lane one of their 32 rows, a warp runs of 256 columns, as in cuda_matmul_rows.cu.  Here
 * all of the chain waits for its turn; what comes before it are the loads. */
#include "compute/cuda/cu_math.h"
#include "compute/cuda/cuda_product.h"

#define BLOCK_ROWS  (2 * PANEL_ROWS)
#define MOST_WARPS  16u
#define PIECE_UNITS 8 /* units of a row that are on their way at a time */

enum float_kind { FLOAT32, FLOAT16, BFLOAT16 };

template <enum float_kind KIND> static __device__ __forceinline__ float value_of(const uint4 &u, int i)
{
    const uint32_t words[4] = { u.x, u.y, u.z, u.w };
    if (KIND == FLOAT32) return __uint_as_float(words[i % 4]);
    const uint16_t half = (uint16_t)(words[i / 2 % 4] >> i % 2 * 16);
    return KIND == FLOAT16 ? cu_half_to_float(half) : cu_bf16_to_float(half);
}

/* The run's activations of N rows into the warp's shared memory. */
template <int N> static __device__ __forceinline__ void stage_floats(float *x, const struct product &p, uint32_t run)
{
    const uint32_t cols = min_u32(RUN_COLS, p.n_cols - run * RUN_COLS);
    __syncwarp();
#pragma unroll
    for (int i = 0; i < N; i++) {
        const uint32_t row = min_u32(blockIdx.y * N + i, p.n - 1);
        const float *from = p.f + (size_t)product_act_row(p, row, false) * p.n_cols + run * RUN_COLS;
        for (uint32_t c = threadIdx.x % CU_WARP * 4; c < cols; c += 4 * CU_WARP)
            *(float4 *)(x + i * RUN_COLS + c) = *(const float4 *)(from + c);
    }
    __syncwarp();
}

template <enum float_kind KIND, int N>
static __device__ __forceinline__ void piece_chain(float acc[N], const uint4 unit[PIECE_UNITS], const float *x,
                                                   uint32_t units)
{
    constexpr int per_unit = KIND == FLOAT32 ? 4 : 8;
#pragma unroll
    for (int u = 0; u < PIECE_UNITS; u++) {
        if (u >= (int)units) break;
#pragma unroll
        for (int c = 0; c < per_unit; c++) {
            const float w = value_of<KIND>(unit[u], c);
#pragma unroll
            for (int i = 0; i < N; i++) acc[i] = __fmaf_rn(x[i * RUN_COLS + u * per_unit + c], w, acc[i]);
        }
    }
}

static __device__ __forceinline__ void read_piece(uint4 unit[PIECE_UNITS], const uint4 *from, uint32_t units)
{
#pragma unroll
    for (int u = 0; u < PIECE_UNITS; u++)
        if (u < (int)units) unit[u] = __ldcs(from + u * PANEL_ROWS);
}

template <int N>
static __device__ __forceinline__ void put_sums(const struct product &p, const float *sums, uint32_t parts)
{
    const uint32_t lane = threadIdx.x % CU_WARP, row = blockIdx.x * BLOCK_ROWS + lane;
    for (uint32_t i = threadIdx.x / CU_WARP; i < N; i += blockDim.x / CU_WARP) {
        float v = 0;
        for (uint32_t part = 0; part < parts; part++) {
            const float one = sums[(part * N + i) * BLOCK_ROWS + lane];
            v = parts == 1 ? one : __fadd_rn(v, one);
        }
        if (blockIdx.y * N + i < p.n && row < p.n_rows) product_put(p, blockIdx.y * N + i, row, v);
    }
}

template <enum float_kind KIND, int N>
static __global__ void __launch_bounds__(MOST_WARPS *CU_WARP) floats_kernel(struct product p)
{
    constexpr uint32_t per_unit = KIND == FLOAT32 ? 4 : 8, piece_cols = per_unit * PIECE_UNITS;
    const uint32_t warp = threadIdx.x / CU_WARP, lane = threadIdx.x % CU_WARP, warps = blockDim.x / CU_WARP;
    const uint32_t n_runs = cu_div_up(p.n_cols, RUN_COLS), n_panels = cu_div_up(p.n_rows, PANEL_ROWS);
    const uint32_t panel = min_u32(blockIdx.x * 2 + lane / PANEL_ROWS, n_panels - 1);
    const uint4 *w = (const uint4 *)(product_weights(p, blockIdx.y * N) + panel * p.panel_bytes) + lane % PANEL_ROWS;
    float *x = (float *)cu_shared() + warp * N * RUN_COLS, *sums = (float *)cu_shared() + warps * N * RUN_COLS;
    volatile uint32_t *turn = (volatile uint32_t *)(sums + (p.split ? n_runs : 1) * N * BLOCK_ROWS);
    if (threadIdx.x == 0) *turn = 0;
    __syncthreads();
    for (uint32_t run = warp; run < n_runs; run += warps) {
        const uint32_t cols = min_u32(RUN_COLS, p.n_cols - run * RUN_COLS);
        const uint4 *from = w + (size_t)(run * RUN_COLS / per_unit) * PANEL_ROWS;
        uint4 unit[PIECE_UNITS];
        float acc[N];
        read_piece(unit, from, cols / per_unit);
        stage_floats<N>(x, p, run);
        float *to = sums + (p.split ? run : 0) * N * BLOCK_ROWS + lane;
        if (!p.split) turn_wait(turn, run);
#pragma unroll
        for (int i = 0; i < N; i++) acc[i] = p.split || run == 0 ? 0.0f : ((volatile float *)to)[i * BLOCK_ROWS];
        for (uint32_t c = 0; c < cols; c += piece_cols) {
            uint4 now[PIECE_UNITS];
#pragma unroll
            for (int u = 0; u < PIECE_UNITS; u++) now[u] = unit[u];
            const uint32_t next = c + piece_cols;
            if (next < cols) read_piece(unit, from + (size_t)(next / per_unit) * PANEL_ROWS, (cols - next) / per_unit);
            piece_chain<KIND, N>(acc, now, x + c, (cols - c) / per_unit);
        }
#pragma unroll
        for (int i = 0; i < N; i++) ((volatile float *)to)[i * BLOCK_ROWS] = acc[i];
        if (!p.split) turn_pass(turn, run + 1);
    }
    __syncthreads();
    put_sums<N>(p, sums, p.split ? n_runs : 1);
}

template <enum float_kind KIND, int N>
static cudaError_t launch(const struct product &p, uint32_t n_sms, cudaStream_t s)
{
    const uint32_t n_runs = cu_div_up(p.n_cols, RUN_COLS);
    const dim3 grid(cu_div_up(p.n_rows, BLOCK_ROWS), cu_div_up(p.n, N));
    const uint32_t most = grid.x * grid.y <= n_sms + n_sms / 4 ? MOST_WARPS : MOST_WARPS / 2;
    const uint32_t warps = n_runs < most ? n_runs : most;
    const size_t shared = (warps * N * RUN_COLS + (p.split ? n_runs : 1) * N * BLOCK_ROWS + 1) * sizeof(float);
    if (shared > (48u << 10)) {
        const cudaError_t e =
            cudaFuncSetAttribute(floats_kernel<KIND, N>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
        if (e != cudaSuccess) return e;
    }
    return cu_launch(floats_kernel<KIND, N>, grid, warps * CU_WARP, shared, s, p);
}

template <enum float_kind KIND> static cudaError_t launch_rows(const struct product &p, uint32_t n_sms, cudaStream_t s)
{
    const uint32_t rows = p.expert ? 1 : p.n;
    if (rows == 1) return launch<KIND, 1>(p, n_sms, s);
    return rows <= 4 ? launch<KIND, 4>(p, n_sms, s) : launch<KIND, 8>(p, n_sms, s);
}

cudaError_t product_floats(const struct product &p, uint32_t bits, bool bf16, uint32_t n_sms, cudaStream_t s)
{
    if (bits == 32) return launch_rows<FLOAT32>(p, n_sms, s);
    return bf16 ? launch_rows<BFLOAT16>(p, n_sms, s) : launch_rows<FLOAT16>(p, n_sms, s);
}
