/* cuda_conv.cu - the depthwise causal convolution of recurrent layers, and the tail of inputs that it leaves.
 *
 * A thread has a channel of some rows: the taps that neighbouring rows share come out of the first cache.  Tails are
 * moved on when all rows of their sequence are done; a sequence of one row moves its own. */
#include "compute/cuda/cu_math.h"
#include "compute/cuda/cuda_state.h"

#define CONV_MAX_KERNEL 16
#define CONV_THREADS    128
#define CONV_ROWS       16 /* of a thread, in prefill */

struct conv_args {
    float *out;
    const float *x, *w, *bias;
    size_t out_ld, ld;
    struct state_slices tail;
    struct step_view step;
    uint32_t channels, kernel;
    bool silu;
};

static __device__ __forceinline__ float *tail_of(const struct conv_args &a, const struct step_seq &seq, uint32_t c)
{
    const struct state_geometry &g = a.tail.geom;
    return state_slot(&a.tail, seq.state) + (size_t)(c / g.cols) * g.rows * g.cols + c % g.cols;
}

/* The tail after the sequence's rows: their last ones, and before them what is left of the old tail. */
static __device__ void move_tail(const struct conv_args &a, const struct step_seq &seq, uint32_t c)
{
    const uint32_t back = a.kernel - 1, n = seq.n_rows, cols = a.tail.geom.cols;
    float *tail = tail_of(a, seq, c);
    for (uint32_t j = 0; j < back; j++)
        tail[(size_t)j * cols] = j + n >= back   ? a.x[(size_t)(seq.row0 + j + n - back) * a.ld + c]
                                 : seq.pos0 == 0 ? 0.0f
                                                 : tail[(size_t)(j + n) * cols];
}

static __device__ void conv_row(const struct conv_args &a, const struct step_seq &seq, uint32_t row, uint32_t c)
{
    const uint32_t back = a.kernel - 1, at = row - seq.row0, cols = a.tail.geom.cols;
    const float *tail = tail_of(a, seq, c);
    float acc = a.bias ? a.bias[c] : 0.0f;
    for (uint32_t j = 0; j <= back; j++) {
        const float x = at + j >= back  ? a.x[(size_t)(row + j - back) * a.ld + c]
                        : seq.pos0 == 0 ? 0.0f
                                        : tail[(size_t)(at + j) * cols];
        acc = __fmaf_rn(a.w[(size_t)j * a.channels + c], x, acc);
    }
    a.out[row * a.out_ld + c] = a.silu ? cu_silu(acc) : acc;
}

static __global__ void conv_kernel(struct conv_args a, uint32_t rows)
{
    const uint32_t c = blockIdx.x * blockDim.x + threadIdx.x, end = min((blockIdx.y + 1) * rows, a.step.n_rows);
    if (c >= a.channels) return;
    for (uint32_t row = blockIdx.y * rows; row < end; row++) {
        const struct step_seq &seq = a.step.seqs[a.step.seq[row]];
        conv_row(a, seq, row, c);
        if (seq.n_rows == 1) move_tail(a, seq, c);
    }
}

static __global__ void conv_tail_kernel(struct conv_args a)
{
    const uint32_t c = blockIdx.x * blockDim.x + threadIdx.x;
    const struct step_seq &seq = a.step.seqs[blockIdx.y];
    if (c < a.channels && seq.n_rows > 1) move_tail(a, seq, c);
}

enum status cuda_conv_step(struct backend *b, struct stream *s, float *out, size_t out_ld, const float *x, size_t ld,
                           const struct conv_facts *facts, const struct state_slices *tail, const struct step *step)
{
    const struct step_view v = step_view_of(step);
    const struct conv_args a = { out,           x,          facts->w,
                                 facts->bias,   out_ld,     ld,
                                 *tail,         v,          tail->geom.n_heads * tail->geom.cols,
                                 facts->kernel, facts->silu };
    if (facts->kernel < 2 || facts->kernel > CONV_MAX_KERNEL) return ERR_UNSUPPORTED;
    assert(tail->geom.rows == facts->kernel - 1 && cuda_state_slot_bytes(b, &tail->geom) <= tail->stride);
    if (v.n_rows == 0) return OK;
    const uint32_t runs = cu_div_up(a.channels, CONV_THREADS);
    const uint32_t rows = v.n_rows >= 4 * v.n_seqs && v.n_rows >= 256 ? CONV_ROWS : 1;
    cudaError_t e =
        cu_launch(conv_kernel, dim3(runs, cu_div_up(v.n_rows, rows)), CONV_THREADS, 0, cu_stream(b, s), a, rows);
    if (e == cudaSuccess && v.n_rows > v.n_seqs)
        e = cu_launch(conv_tail_kernel, dim3(runs, v.n_seqs), CONV_THREADS, 0, cu_stream(b, s), a);
    return cuda_check(b, e, "conv_step");
}
