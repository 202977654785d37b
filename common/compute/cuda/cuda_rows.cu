/* cuda_rows.cu - the ops that take each row by itself: norms, gates, biases, scales and the quantizer.
 *
 * Norms have a block for each row, whose sums run in the CPU's sixteen lanes, so their bits are its bits.  What knows
 * no more than its own column has a thread for each. */
#include "compute/cuda/cu_math.h"
#include "compute/cuda/cuda_internal.h"
#include "compute/cuda/cuda_quantize.h"

#define ROW_THREADS  256
#define NORM_THREADS 1024
#define NORM_KEPT    8192 /* floats of a row in shared memory at a time; wider rows are read twice */
#define HEAD_KEPT    512

size_t cuda_act_bytes(struct backend *b, uint32_t n, uint32_t k, enum precision precision)
{
    return act_planes_bytes(precision == FINE ? 2 * n : n, k);
}

/* --- the quantized form --- */
/* Columns past k are zeros: of a group that is half there nothing is, as k is a multiple of 16. */
static __global__ void quantize_kernel(struct act_planes a, const float *f, uint32_t k, bool fine)
{
    const uint32_t row = blockIdx.x, c = blockIdx.y * blockDim.x + threadIdx.x;
    if (c >= a.k32) return; /* whole warps */
    quantize_column(a, fine, row, c, c < k ? f[(size_t)row * k + c] : 0.0f);
}

/* Whole warps, at most ROW_THREADS, as many as the columns keep busy; and the blocks that n rows of them take. */
static uint32_t row_threads(uint32_t k)
{
    return k >= ROW_THREADS ? ROW_THREADS : act_k32(k);
}

static dim3 column_blocks(uint32_t n, uint32_t k)
{
    return dim3(n, cu_div_up(k, row_threads(k)));
}

static uint32_t norm_threads(uint32_t k)
{
    return k >= NORM_THREADS ? NORM_THREADS : act_k32(k);
}

enum status cuda_quantize(struct backend *b, struct stream *s, struct act *out)
{
    assert(out->k % 16 == 0);
    if (out->n == 0) return OK;
    return cuda_check(b,
                      cu_launch(quantize_kernel, column_blocks(out->n, out->k), row_threads(out->k), 0, cu_stream(b, s),
                                act_planes_for(out), out->f, out->k, out->precision == FINE),
                      "quantize");
}

/* --- norms --- */
/* A row on its way through a norm. */
struct normed_row {
    const float *x, *w; /* x: in shared memory, where it fits */
    float inv;
};

/* Sums up the squares of k floats.  All threads bring them into shared memory, `most` at a time; the first sixteen add.
 */
static __device__ __forceinline__ struct normed_row norm_begin(const float *x, const float *w, uint32_t k, float eps,
                                                               float *run, uint32_t most)
{
    __shared__ float inv;
    float squares = 0;
    for (uint32_t c0 = 0; c0 < k; c0 += most) {
        const uint32_t n = k - c0 < most ? k - c0 : most;
        if (c0) __syncthreads();
        for (uint32_t c = threadIdx.x; c < n; c += blockDim.x) run[c] = x[c0 + c];
        __syncthreads();
        if (threadIdx.x >= 16) continue;
#pragma unroll 16
        for (uint32_t c = threadIdx.x; c < n; c += 16) squares = __fmaf_rn(run[c], run[c], squares);
    }
    if (threadIdx.x < CU_WARP) {
        const float sum = cu_sum16(squares);
        if (threadIdx.x == 0) inv = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(__fdiv_rn(sum, (float)k), eps)));
    }
    __syncthreads();
    return normed_row{ k <= most ? run : x, w, inv };
}

static __device__ __forceinline__ float normed(const struct normed_row &r, uint32_t c)
{
    const float n = __fmul_rn(r.x[c], r.inv);
    return r.w ? __fmul_rn(n, r.w[c]) : n;
}

static __global__ void __launch_bounds__(NORM_THREADS)
    rmsnorm_kernel(struct act_planes a, float *f, const float *x, const float *w, uint32_t k, float eps, bool fine)
{
    const size_t at = (size_t)blockIdx.x * k;
    __shared__ float run[NORM_KEPT];
    const struct normed_row r = norm_begin(x + at, w, k, eps, run, NORM_KEPT);
    for (uint32_t c = threadIdx.x; c < a.k32; c += blockDim.x) {
        const float y = c < k ? normed(r, c) : 0.0f;
        if (c < k) f[at + c] = y;
        quantize_column(a, fine, blockIdx.x, c, y);
    }
}

enum status cuda_rmsnorm(struct backend *b, struct stream *s, struct act *out, const float *x, const float *w,
                         float eps)
{
    assert(out->k % 16 == 0);
    if (out->n == 0) return OK;
    return cuda_check(b,
                      cu_launch(rmsnorm_kernel, out->n, norm_threads(out->k), 0, cu_stream(b, s), act_planes_for(out),
                                out->f, x, w, out->k, eps, out->precision == FINE),
                      "rmsnorm");
}

static __global__ void head_norm_kernel(float *x, size_t ld, uint32_t dim, const float *w, float eps)
{
    float *head = x + blockIdx.y * ld + (size_t)blockIdx.x * dim;
    __shared__ float run[HEAD_KEPT];
    const struct normed_row r = norm_begin(head, w, dim, eps, run, HEAD_KEPT);
    for (uint32_t c = threadIdx.x; c < dim; c += blockDim.x) head[c] = normed(r, c);
}

enum status cuda_head_norm(struct backend *b, struct stream *s, float *x, size_t ld, uint32_t n_rows, uint32_t n_heads,
                           uint32_t head_dim, const float *w, float eps)
{
    assert(head_dim % 16 == 0);
    if (n_rows == 0 || n_heads == 0) return OK;
    return cuda_check(b,
                      cu_launch(head_norm_kernel, dim3(n_heads, n_rows), row_threads(head_dim), 0, cu_stream(b, s), x,
                                ld, head_dim, w, eps),
                      "head_norm");
}

static __global__ void __launch_bounds__(NORM_THREADS)
    norm_add_kernel(float *x, const float *y, size_t ld, uint32_t k, const float *w, float eps)
{
    const size_t at = blockIdx.x * ld;
    __shared__ float run[NORM_KEPT];
    const struct normed_row r = norm_begin(y + at, w, k, eps, run, NORM_KEPT);
    for (uint32_t c = threadIdx.x; c < k; c += blockDim.x) x[at + c] = __fadd_rn(x[at + c], normed(r, c));
}

enum status cuda_norm_add(struct backend *b, struct stream *s, float *x, const float *y, size_t ld, uint32_t n,
                          uint32_t k, const float *w, float eps)
{
    assert(k % 16 == 0);
    if (n == 0) return OK;
    return cuda_check(b, cu_launch(norm_add_kernel, n, norm_threads(k), 0, cu_stream(b, s), x, y, ld, k, w, eps),
                      "norm_add");
}

/* --- gates --- */
static __device__ __forceinline__ float glu_of(float g, float u, enum glu_kind kind)
{
    if (kind == GLU_SILU) return __fmul_rn(cu_silu(g), u);
    if (kind == GLU_GELU) {
        const float cubic = __fmul_rn(g, __fmaf_rn(__fmul_rn(g, g), 0.044715f, 1.0f));
        return __fmul_rn(cu_gated(g, __fmul_rn(cubic, -1.59576912f)), u);
    }
    const float low = cu_min(7.0f, g), v = cu_max(-7.0f, cu_min(7.0f, u));
    return __fmul_rn(cu_gated(low, __fmul_rn(low, -1.702f)), __fadd_rn(v, 1.0f));
}

static __global__ void glu_kernel(struct act_planes a, float *f, const float *gate, const float *up, size_t ld,
                                  uint32_t k, enum glu_kind kind, bool fine)
{
    const size_t row = blockIdx.x;
    const uint32_t c = blockIdx.y * blockDim.x + threadIdx.x;
    if (c >= a.k32) return; /* whole warps */
    const float y = c < k ? glu_of(gate[row * ld + c], up[row * ld + c], kind) : 0.0f;
    if (c < k) f[row * k + c] = y;
    quantize_column(a, fine, blockIdx.x, c, y);
}

enum status cuda_glu(struct backend *b, struct stream *s, struct act *out, const float *gate, const float *up,
                     size_t ld, enum glu_kind kind)
{
    assert(out->k % 16 == 0 && kind < GLU_COUNT);
    if (out->n == 0) return OK;
    return cuda_check(b,
                      cu_launch(glu_kernel, column_blocks(out->n, out->k), row_threads(out->k), 0, cu_stream(b, s),
                                act_planes_for(out), out->f, gate, up, ld, out->k, kind, out->precision == FINE),
                      "glu");
}

static __global__ void gate_kernel(struct act_planes a, float *f, const float *gate, size_t ld, uint32_t k, bool fine)
{
    const size_t row = blockIdx.x;
    const uint32_t c = blockIdx.y * blockDim.x + threadIdx.x;
    if (c >= a.k32) return; /* whole warps */
    const float y = c < k ? cu_gated(f[row * k + c], __fsub_rn(0.0f, gate[row * ld + c])) : 0.0f;
    if (c < k) f[row * k + c] = y;
    quantize_column(a, fine, blockIdx.x, c, y);
}

enum status cuda_gate_act(struct backend *b, struct stream *s, struct act *out, const float *gate, size_t ld)
{
    assert(out->k % 16 == 0);
    if (out->n == 0) return OK;
    return cuda_check(b,
                      cu_launch(gate_kernel, column_blocks(out->n, out->k), row_threads(out->k), 0, cu_stream(b, s),
                                act_planes_for(out), out->f, gate, ld, out->k, out->precision == FINE),
                      "gate_act");
}

/* --- biases and scales --- */
static __global__ void bias_kernel(float *y, size_t ld, const float *bias, uint32_t cols)
{
    float *row = y + blockIdx.x * ld;
    for (uint32_t c = threadIdx.x; c < cols; c += blockDim.x) row[c] = __fadd_rn(row[c], bias[c]);
}

enum status cuda_add_bias(struct backend *b, struct stream *s, float *y, size_t ld, const float *bias, uint32_t n,
                          uint32_t cols)
{
    if (n == 0 || cols == 0) return OK;
    return cuda_check(b, cu_launch(bias_kernel, n, ROW_THREADS, 0, cu_stream(b, s), y, ld, bias, cols), "add_bias");
}

static __global__ void scale_kernel(float *x, size_t n, float factor)
{
    const size_t stride = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) x[i] = __fmul_rn(x[i], factor);
}

static __global__ void softcap_kernel(float *x, size_t n, float cap, float inv)
{
    const size_t stride = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride)
        x[i] = __fmul_rn(cap, cu_tanh(__fmul_rn(x[i], inv)));
}

/* Blocks for n floats without rows. */
static uint32_t float_blocks(const struct backend *b, size_t n)
{
    const size_t want = (n + ROW_THREADS - 1) / ROW_THREADS, most = 8 * (size_t)((const struct cuda_backend *)b)->n_sms;
    return (uint32_t)(want < most ? want : most);
}

enum status cuda_scale(struct backend *b, struct stream *s, float *x, size_t n, float factor)
{
    if (n == 0) return OK;
    return cuda_check(b, cu_launch(scale_kernel, float_blocks(b, n), ROW_THREADS, 0, cu_stream(b, s), x, n, factor),
                      "scale");
}

enum status cuda_softcap(struct backend *b, struct stream *s, float *x, size_t n, float cap)
{
    if (n == 0) return OK;
    return cuda_check(
        b, cu_launch(softcap_kernel, float_blocks(b, n), ROW_THREADS, 0, cu_stream(b, s), x, n, cap, 1.0f / cap),
        "softcap");
}
