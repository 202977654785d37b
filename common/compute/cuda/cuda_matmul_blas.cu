/* cuda_matmul_blas.cu - fast products with many rows of activations: weights become bf16, some rows at a time, and
 * cuBLASLt multiplies them.
 *
 * A slice of weights is small enough to stay in the L2 cache from one kernel to the other.  The library is opened at
 * run time; without it, or for a shape that it does not take, product_blas() says so and the integer kernels multiply.
 * An algorithm is chosen once for a shape, without a split of the sum and whatever the number of rows is, so a row's
 * bits do not depend on the rows beside it. */
#include "compute/cuda/cuda_backend.h"
#include "compute/cuda/cuda_blas.h"
#include "compute/cuda/cuda_formats.h"

#if !defined(BATON_SIMT) && __has_include(<cublasLt.h>)
#include <cublasLt.h>
#include <dlfcn.h>
#define HAS_BLAS 1
#else
#define HAS_BLAS 0
#endif

#define DEQUANT_WARPS 4u
#define OUT_STRIDE    (RUN_COLS + 8) /* bf16 of a row in shared memory */

/* --- weights as bf16 --- */
/* Two values as bf16, the first in the lower half. */
static __device__ __forceinline__ uint32_t two_bf16(float a, float b)
{
    return cu_float_to_bf16(a) | (uint32_t)cu_float_to_bf16(b) << 16;
}

/* A run of a lane's row. */
template <class F>
static __device__ __forceinline__ void dequantize_run(uint16_t *to, const struct row_run<F> &r,
                                                      const struct weight_format &f)
{
    const struct super_scales s = unpack_scales<F>(r.scales, f.d_times);
    const float z = (float)f.offset;
#pragma unroll
    for (int b = 0; b < (int)RUN_BLOCKS; b++) {
        if (b >= (int)r.blocks) break;
        uint32_t w[8];
        block_codes<F>(w, r, b, f.book);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const int at = F::by16 ? 2 * b + i / 4 : b;
            const float d = d_of<F>(r.scales, s, at), m = F::has_min ? m_of<F>(r.scales, s, at) : 0.0f;
            float v[4];
#pragma unroll
            for (int c = 0; c < 4; c++) v[c] = __fmaf_rn(d, __fsub_rn(int8_float(w[i], c), z), m);
            *(uint2 *)(to + 32 * b + 4 * i) = make_uint2(two_bf16(v[0], v[1]), two_bf16(v[2], v[3]));
        }
    }
}

/* Rows row0 .. row0 + n of a matrix to out [n][n_cols]: a warp takes a run of 32 rows. */
template <class F>
static __global__ void __launch_bounds__(DEQUANT_WARPS *CU_WARP)
    dequantize_kernel(struct product p, uint16_t *out, uint32_t row0, uint32_t n)
{
    const uint32_t warp = threadIdx.x / CU_WARP, lane = threadIdx.x % CU_WARP;
    const uint32_t run = blockIdx.x * DEQUANT_WARPS + warp, first = blockIdx.y * CU_WARP;
    const uint32_t panel = min_u32((row0 + first + lane) / PANEL_ROWS, cu_div_up(p.n_rows, PANEL_ROWS) - 1);
    uint16_t *rows = (uint16_t *)cu_shared() + (size_t)warp * CU_WARP * OUT_STRIDE;
    if (run >= cu_div_up(p.n_cols, RUN_COLS)) return;
    struct row_run<F> r;
    read_run(r, p.data + panel * p.panel_bytes, lane % PANEL_ROWS, run, p.n_cols);
    dequantize_run(rows + lane * OUT_STRIDE, r, p.format);
    __syncwarp();
    const uint32_t units = r.blocks * (PACK_BLOCK / 8); /* of 8 values */
    for (uint32_t i = lane; i < CU_WARP * units; i += CU_WARP) {
        const uint32_t row = i / units, c = i % units * 8;
        if (first + row < n)
            *(uint4 *)(out + (size_t)(first + row) * p.n_cols + run * RUN_COLS + c) =
                *(const uint4 *)(rows + row * OUT_STRIDE + c);
    }
}

/* The same of matrices of 16-bit floats: 8 values to a thread. */
static __global__ void convert_kernel(struct product p, uint16_t *out, uint32_t row0, bool bf16)
{
    const uint32_t unit = blockIdx.x * blockDim.x + threadIdx.x, row = row0 + blockIdx.y;
    if (unit >= p.n_cols / 8) return;
    const uint8_t *panel = p.data + row / PANEL_ROWS * p.panel_bytes;
    const uint4 v = *(const uint4 *)(panel + (size_t)unit * UNIT_ROWS + row % PANEL_ROWS * UNIT);
    const uint32_t in[4] = { v.x, v.y, v.z, v.w };
    uint32_t to[4];
    for (int i = 0; i < 4; i++)
        to[i] = bf16 ? in[i] : two_bf16(cu_half_to_float((uint16_t)in[i]), cu_half_to_float((uint16_t)(in[i] >> 16)));
    *(uint4 *)(out + (size_t)blockIdx.y * p.n_cols + unit * 8) = make_uint4(to[0], to[1], to[2], to[3]);
}

template <class F>
static cudaError_t launch_dequantize(const struct product &p, uint16_t *out, uint32_t row0, uint32_t n, cudaStream_t s)
{
    const dim3 grid(cu_div_up(cu_div_up(p.n_cols, RUN_COLS), DEQUANT_WARPS), cu_div_up(n, CU_WARP));
    const size_t shared = DEQUANT_WARPS * CU_WARP * OUT_STRIDE * sizeof(uint16_t);
    const cudaError_t e =
        cudaFuncSetAttribute(dequantize_kernel<F>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    if (e != cudaSuccess) return e;
    return cu_launch(dequantize_kernel<F>, grid, DEQUANT_WARPS * CU_WARP, shared, s, p, out, row0, n);
}

cudaError_t product_dequantize(const struct product &p, enum dtype type, uint16_t *out, uint32_t row0, uint32_t n,
                               cudaStream_t s)
{
    const struct pack_format *f = pack_format_of(type);
    const bool book = f->book != BOOK_NONE;
    if (f->scales == PACK_FLOAT && f->bits == 16)
        return cu_launch(convert_kernel, dim3(cu_div_up(p.n_cols / 8, 128), n), 128, 0, s, p, out, row0,
                         type == DTYPE_BF16);
#define CASE(BITS, SCALES, BOOK)                                                                                       \
    if (f->bits == BITS && f->scales == SCALES && book == BOOK)                                                        \
        return launch_dequantize<format<BITS, SCALES, BOOK>>(p, out, row0, n, s);
    EACH_FORMAT(CASE)
#undef CASE
    return cudaErrorInvalidValue;
}

/* --- the library --- */
#if HAS_BLAS
/* rest: what bf16 loses of them, as bf16; NULL where nobody asks. */
static __global__ void narrow_kernel(uint16_t *out, uint16_t *rest, const float *f, size_t n)
{
    const size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        const uint16_t h = cu_float_to_bf16(f[i]);
        out[i] = h;
        if (rest) rest[i] = cu_float_to_bf16(__fsub_rn(f[i], cu_bf16_to_float(h)));
    }
}

static cudaError_t narrow(uint16_t *out, uint16_t *rest, const float *f, size_t n, uint32_t n_sms, cudaStream_t s)
{
    return cu_launch(narrow_kernel, 8 * n_sms, 256, 0, s, out, rest, f, n);
}

#define SLICE_BYTES     ((size_t)32 << 20)
#define WORKSPACE_BYTES ((size_t)32 << 20)
#define ALGOS_KEPT      64
#define ALGO_ROWS       1024u /* rows of activations that algorithms are chosen for */
#define TEXT_OF(x)      #x
#define TEXT(x)         TEXT_OF(x)

#define EACH_CALL(X)                                                                                                   \
    X(Create)                                                                                                          \
    X(Destroy)                                                                                                         \
    X(Matmul)                                                                                                          \
    X(MatmulAlgoGetHeuristic)                                                                                          \
    X(MatmulDescCreate)                                                                                                \
    X(MatmulDescDestroy)                                                                                               \
    X(MatmulDescSetAttribute)                                                                                          \
    X(MatmulPreferenceCreate)                                                                                          \
    X(MatmulPreferenceDestroy)                                                                                         \
    X(MatmulPreferenceSetAttribute)                                                                                    \
    X(MatrixLayoutCreate)                                                                                              \
    X(MatrixLayoutDestroy)

/* The algorithm for weights of m rows; of outputs whose rows are ld apart and aligned so. */
struct blas_algo {
    uint32_t m, k, align;
    size_t ld;
    bool found;
    cublasLtMatmulAlgo_t algo;
};

struct cuda_blas {
#define FIELD(name) decltype(&cublasLt##name) name;
    EACH_CALL(FIELD)
#undef FIELD
    void *library;
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t desc; /* weights transposed, fp32 sums */
    void *workspace;
    uint8_t *slice; /* bf16 of some rows of weights */
    uint8_t *x;     /* bf16 of the activations, and behind it what they lose */
    size_t x_bytes; /* of both */
    struct blas_algo algos[ALGOS_KEPT];
    uint32_t n_algos;
};

/* Where what n activations lose begins. */
static size_t rest_at(size_t n)
{
    return (n + 127) / 128 * 128;
}

static bool open_library(struct cuda_blas *l)
{
    l->library = dlopen("libcublasLt.so." TEXT(CUBLAS_VER_MAJOR), RTLD_NOW | RTLD_LOCAL);
    if (!l->library) l->library = dlopen("/usr/local/cuda/lib64/libcublasLt.so", RTLD_NOW | RTLD_LOCAL);
    if (!l->library) return false;
#define FIND(name)                                                                                                     \
    l->name = (decltype(l->name))dlsym(l->library, "cublasLt" #name);                                                  \
    if (!l->name) return false;
    EACH_CALL(FIND)
#undef FIND
    const cublasOperation_t turned = CUBLAS_OP_T;
    return l->Create(&l->handle) == CUBLAS_STATUS_SUCCESS &&
           l->MatmulDescCreate(&l->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS &&
           l->MatmulDescSetAttribute(l->desc, CUBLASLT_MATMUL_DESC_TRANSA, &turned, sizeof(turned)) ==
               CUBLAS_STATUS_SUCCESS;
}

static bool take_memory(struct backend *b, struct cuda_blas *l)
{
    const struct backend_limits *limits = &cuda_of(b)->limits;
    void *p;
    if (cuda_alloc(b, WORKSPACE_BYTES, &l->workspace) != OK || cuda_alloc(b, SLICE_BYTES, &p) != OK) return false;
    l->slice = (uint8_t *)p;
    const size_t bytes = 2 * rest_at((size_t)limits->max_rows * limits->max_cols) * sizeof(uint16_t);
    if (cuda_alloc(b, bytes, &p) != OK) return false;
    l->x = (uint8_t *)p;
    l->x_bytes = bytes;
    return true;
}

struct cuda_blas *cuda_blas_open(struct backend *b)
{
    struct cuda_blas *l = (struct cuda_blas *)mem_zalloc(sizeof(*l));
    if (open_library(l) && take_memory(b, l)) return l;
    cuda_blas_close(b, l);
    return NULL;
}

void cuda_blas_close(struct backend *b, struct cuda_blas *l)
{
    if (!l) return;
    if (l->desc) l->MatmulDescDestroy(l->desc);
    if (l->handle) l->Destroy(l->handle);
    if (l->library) dlclose(l->library);
    cuda_release(b, l->workspace, WORKSPACE_BYTES);
    cuda_release(b, l->slice, SLICE_BYTES);
    cuda_release(b, l->x, l->x_bytes);
    mem_free(l);
}

/* A product of m rows of weights, k wide, and n rows of activations. */
struct blas_shape {
    uint32_t m, n, k;
    size_t ld;
};

struct blas_layouts {
    cublasLtMatrixLayout_t w, x, y;
};

static void layouts_free(struct cuda_blas *l, struct blas_layouts *a)
{
    if (a->w) l->MatrixLayoutDestroy(a->w);
    if (a->x) l->MatrixLayoutDestroy(a->x);
    if (a->y) l->MatrixLayoutDestroy(a->y);
}

/* The library's columns are our rows. */
static bool layouts_of(struct cuda_blas *l, const struct blas_shape *s, struct blas_layouts *a)
{
    *a = {};
    return l->MatrixLayoutCreate(&a->w, CUDA_R_16BF, s->k, s->m, s->k) == CUBLAS_STATUS_SUCCESS &&
           l->MatrixLayoutCreate(&a->x, CUDA_R_16BF, s->k, s->n, s->k) == CUBLAS_STATUS_SUCCESS &&
           l->MatrixLayoutCreate(&a->y, CUDA_R_32F, s->m, s->n, (int64_t)s->ld) == CUBLAS_STATUS_SUCCESS;
}

static bool choose_algo(struct cuda_blas *l, struct blas_algo *out)
{
    const struct blas_shape shape = { out->m, ALGO_ROWS, out->k, out->ld };
    const size_t workspace = WORKSPACE_BYTES;
    const uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_NONE, align = out->align;
    cublasLtMatmulHeuristicResult_t result;
    cublasLtMatmulPreference_t wish = NULL;
    struct blas_layouts a = {};
    int n = 0;
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t what, const void *value, size_t bytes) {
        return l->MatmulPreferenceSetAttribute(wish, what, value, bytes) == CUBLAS_STATUS_SUCCESS;
    };
    const bool found = l->MatmulPreferenceCreate(&wish) == CUBLAS_STATUS_SUCCESS && layouts_of(l, &shape, &a) &&
                       set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof(workspace)) &&
                       set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof(schemes)) &&
                       set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &align, sizeof(align)) &&
                       set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &align, sizeof(align)) &&
                       l->MatmulAlgoGetHeuristic(l->handle, l->desc, a.w, a.x, a.y, a.y, wish, 1, &result, &n) ==
                           CUBLAS_STATUS_SUCCESS &&
                       n == 1;
    if (found) out->algo = result.algo;
    layouts_free(l, &a);
    if (wish) l->MatmulPreferenceDestroy(wish);
    return found;
}

/* NULL: the library takes no such product. */
static struct blas_algo *algo_of(struct cuda_blas *l, uint32_t m, const struct product &p)
{
    const uint32_t align = ((uintptr_t)p.y | p.ld * sizeof(float)) % 16 == 0 ? 16 : 4;
    for (uint32_t i = 0; i < l->n_algos; i++) {
        struct blas_algo *a = &l->algos[i];
        if (a->m == m && a->k == p.n_cols && a->ld == p.ld && a->align == align) return a->found ? a : NULL;
    }
    if (l->n_algos == ALGOS_KEPT) return NULL;
    struct blas_algo *a = &l->algos[l->n_algos++];
    *a = {};
    a->m = m;
    a->k = p.n_cols;
    a->align = align;
    a->ld = p.ld;
    a->found = choose_algo(l, a);
    return a->found ? a : NULL;
}

/* y (+)= the slice times rows of activations, with m rows of weights. */
static cublasStatus_t multiply_slice(struct cuda_blas *l, const struct product &p, uint32_t row0, uint32_t m,
                                     const void *x, bool accumulate, cudaStream_t s)
{
    const struct blas_shape shape = { m, p.n, p.n_cols, p.ld };
    const struct blas_algo *algo = algo_of(l, m, p);
    const float one = 1, beta = accumulate ? 1.0f : 0.0f;
    struct blas_layouts a = {};
    float *y = p.y + row0;
    cublasStatus_t st = CUBLAS_STATUS_ALLOC_FAILED;
    if (algo && layouts_of(l, &shape, &a))
        st = l->Matmul(l->handle, l->desc, &one, l->slice, a.w, x, a.x, &beta, y, a.y, y, a.y, &algo->algo,
                       l->workspace, WORKSPACE_BYTES, s);
    layouts_free(l, &a);
    return st;
}

/* Rows of weights in a slice: whole tiles of any kernel. */
static uint32_t slice_rows(const struct product &p)
{
    const size_t most = SLICE_BYTES / sizeof(uint16_t) / p.n_cols / 256 * 256;
    return most < p.n_rows ? (uint32_t)most : p.n_rows;
}

static bool takes(struct cuda_blas *l, const struct product &p, enum dtype type)
{
    const struct pack_format *f = pack_format_of(type);
    const uint32_t m = slice_rows(p), rest = m ? p.n_rows % m : 0;
    if (p.n < BLAS_ROWS || p.expert || (f->scales == PACK_FLOAT && f->bits == 32)) return false;
    if (m == 0 || 2 * rest_at((size_t)p.n * p.n_cols) * sizeof(uint16_t) > l->x_bytes) return false;
    return algo_of(l, m, p) && (rest == 0 || algo_of(l, rest, p));
}

enum status cuda_blas_multiply(struct backend *b, struct cuda_blas *l, const struct product &p, enum dtype type,
                               cudaStream_t s, bool *done)
{
    *done = l && takes(l, p, type);
    if (!*done) return OK;
    const size_t n = (size_t)p.n * p.n_cols;
    uint16_t *x = (uint16_t *)l->x, *rest = p.fine ? x + rest_at(n) : NULL;
    cudaError_t e = narrow(x, rest, p.f, n, (uint32_t)cuda_of(b)->n_sms, s);
    const uint32_t step = slice_rows(p);
    for (uint32_t r = 0; r < p.n_rows && e == cudaSuccess; r += step) {
        const uint32_t m = min_u32(step, p.n_rows - r);
        e = product_dequantize(p, type, (uint16_t *)l->slice, r, m, s);
        if (e != cudaSuccess) break;
        cublasStatus_t st = multiply_slice(l, p, r, m, x, p.accumulate, s);
        if (st != CUBLAS_STATUS_SUCCESS && r == 0) { /* not for this number of rows: nothing is written yet */
            algo_of(l, m, p)->found = false;
            *done = false;
            return OK;
        }
        if (st == CUBLAS_STATUS_SUCCESS && rest) st = multiply_slice(l, p, r, m, rest, true, s);
        if (st != CUBLAS_STATUS_SUCCESS) e = cudaErrorUnknown;
    }
    return cuda_check(b, e, "matmul by cuBLASLt");
}
#else
struct cuda_blas *cuda_blas_open(struct backend *b)
{
    return NULL;
}

void cuda_blas_close(struct backend *b, struct cuda_blas *l) {}

enum status cuda_blas_multiply(struct backend *b, struct cuda_blas *l, const struct product &p, enum dtype type,
                               cudaStream_t s, bool *done)
{
    *done = false;
    return OK;
}
#endif

/* --- for tests --- */
enum status cuda_weight_dequantize(struct backend *b, const struct weight *w, uint32_t row0, uint32_t n, uint16_t *out)
{
    return cuda_check(b, product_dequantize(product_of_weight(w), w->dtype, out, row0, n, cu_stream(b, NULL)),
                      "dequantize");
}
