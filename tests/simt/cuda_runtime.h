/* cuda_runtime.h - a GPU in plain C++, for tests: the CUDA sources compile against this header instead of NVIDIA's, and
 * each thread of a block runs as a fiber.
 *
 * What it promises: the semantics of barriers, warp exchanges, shared memory and fp32 arithmetic, so that kernels give
 * here the bits that they give on a GPU.  What it checks beyond that: "device" memory is followed by a page that
 * cannot be touched and begins as NaNs; shared memory begins as garbage in every block; a barrier that not all threads
 * reach ends the program with a sentence.  What it does not do: run blocks or streams side by side, or find races that
 * the order of its fibers hides; compute-sanitizer on a real GPU does.
 * Instructions that only one architecture has (TMA, wgmma) are not here: sources that use them are left out. */
#ifndef TESTS_SIMT_CUDA_RUNTIME_H
#define TESTS_SIMT_CUDA_RUNTIME_H
#include <functional>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define BATON_SIMT 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__    __attribute__((noinline))
#define __shared__      static thread_local
#define __constant__    static
#define __restrict__ __restrict
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __grid_constant__

/* --- vectors --- */
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct uint3 {
    unsigned x, y, z;
};
struct __align__(8) int2
{
    int x, y;
};
struct __align__(16) int4
{
    int x, y, z, w;
};
struct __align__(8) uint2
{
    unsigned x, y;
};
struct __align__(16) uint4
{
    unsigned x, y, z, w;
};
struct __align__(8) float2
{
    float x, y;
};
struct __align__(16) float4
{
    float x, y, z, w;
};
static inline int2 make_int2(int x, int y)
{
    return { x, y };
}
static inline int4 make_int4(int x, int y, int z, int w)
{
    return { x, y, z, w };
}
static inline uint2 make_uint2(unsigned x, unsigned y)
{
    return { x, y };
}
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w)
{
    return { x, y, z, w };
}
static inline float2 make_float2(float x, float y)
{
    return { x, y };
}
static inline float4 make_float4(float x, float y, float z, float w)
{
    return { x, y, z, w };
}

/* --- where a thread is --- */
extern thread_local uint3 threadIdx, blockIdx;
extern thread_local dim3 blockDim, gridDim;
extern thread_local uint8_t *simt_shared; /* dynamic shared memory of the block */
#define warpSize 32

/* --- waiting for each other --- */
void simt_sync_block(void);
void simt_sync_warp(unsigned mask);
/* Every lane of `mask` gives a value; out[lane] has those of all lanes when it returns. */
void simt_exchange(unsigned mask, uint64_t value, uint64_t out[32]);

static inline void __syncthreads(void)
{
    simt_sync_block();
}
static inline void __syncwarp(unsigned mask = 0xffffffffu)
{
    simt_sync_warp(mask);
}
static inline void __threadfence(void) {}
static inline void __threadfence_block(void) {}

static inline unsigned simt_lane(void)
{
    return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32;
}

template <class T> static inline T simt_from(unsigned mask, T v, unsigned lane)
{
    uint64_t bits = 0, all[32];
    static_assert(sizeof(T) <= 8, "shuffles move at most 8 bytes");
    memcpy(&bits, &v, sizeof(T));
    simt_exchange(mask, bits, all);
    memcpy(&v, &all[lane & 31], sizeof(T));
    return v;
}
template <class T> static inline T __shfl_sync(unsigned mask, T v, int lane, int width = 32)
{
    const unsigned own = simt_lane();
    return simt_from(mask, v, (own & ~((unsigned)width - 1)) | ((unsigned)lane & ((unsigned)width - 1)));
}
template <class T> static inline T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32)
{
    const unsigned own = simt_lane(), to = own ^ (unsigned)bits;
    return simt_from(mask, v, to / (unsigned)width > own / (unsigned)width ? own : to);
}
template <class T> static inline T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32)
{
    const unsigned own = simt_lane(), to = own + by;
    return simt_from(mask, v, to / (unsigned)width != own / (unsigned)width ? own : to);
}
template <class T> static inline T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32)
{
    const unsigned own = simt_lane();
    return simt_from(mask, v, own % (unsigned)width < by ? own : own - by);
}
unsigned __ballot_sync(unsigned mask, int pred);
static inline int __any_sync(unsigned mask, int pred)
{
    return __ballot_sync(mask, pred) != 0;
}
static inline int __all_sync(unsigned mask, int pred)
{
    return __ballot_sync(mask, !pred) == 0;
}
static inline unsigned __reduce_add_sync(unsigned mask, unsigned v)
{
    uint64_t all[32];
    unsigned sum = 0;
    simt_exchange(mask, v, all);
    for (unsigned i = 0; i < 32; i++) sum += mask >> i & 1 ? (unsigned)all[i] : 0;
    return sum;
}
static inline int __syncthreads_or(int pred)
{
    static thread_local int any;
    __syncthreads();
    any = 0;
    __syncthreads();
    any |= pred;
    __syncthreads();
    return any;
}

/* --- arithmetic --- */
static inline float __fmaf_rn(float a, float b, float c)
{
    return __builtin_fmaf(a, b, c);
}
static inline float __fadd_rn(float a, float b)
{
    return a + b;
}
static inline float __fsub_rn(float a, float b)
{
    return a - b;
}
static inline float __fmul_rn(float a, float b)
{
    return a * b;
}
static inline float __fdiv_rn(float a, float b)
{
    return a / b;
}
static inline float __fsqrt_rn(float a)
{
    return __builtin_sqrtf(a);
}
static inline double __dadd_rn(double a, double b)
{
    return a + b;
}
static inline int __float_as_int(float x)
{
    int r;
    memcpy(&r, &x, 4);
    return r;
}
static inline unsigned __float_as_uint(float x)
{
    return (unsigned)__float_as_int(x);
}
static inline float __uint_as_float(unsigned x)
{
    float r;
    memcpy(&r, &x, 4);
    return r;
}
static inline float __int_as_float(int x)
{
    return __uint_as_float((unsigned)x);
}
static inline int __float2int_rn(float x)
{
    return (int)__builtin_nearbyintf(x);
}
static inline float __int2float_rn(int x)
{
    return (float)x;
}
static inline int __dp4a(int a, int b, int c)
{
    for (int i = 0; i < 4; i++) c += (int8_t)(a >> 8 * i) * (int8_t)(b >> 8 * i);
    return c;
}
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned s)
{
    const uint64_t bytes = (uint64_t)b << 32 | a;
    unsigned r = 0;
    for (int i = 0; i < 4; i++) r |= (unsigned)(bytes >> 8 * (s >> 4 * i & 7) & 0xff) << 8 * i;
    return r;
}
static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
static inline int __clz(int x)
{
    return x ? __builtin_clz((unsigned)x) : 32;
}
static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
template <class T> static inline T __ldg(const T *p)
{
    return *p;
}
template <class T> static inline T __ldcs(const T *p)
{
    return *p;
}
template <class T> static inline T min(T a, T b)
{
    return b < a ? b : a;
}
template <class T> static inline T max(T a, T b)
{
    return a < b ? b : a;
}

template <class T> static inline T atomicAdd(T *p, T v)
{
    T old = *p;
    *p = old + v;
    return old;
}
template <class T> static inline T atomicMax(T *p, T v)
{
    T old = *p;
    if (v > old) *p = v;
    return old;
}
template <class T> static inline T atomicMin(T *p, T v)
{
    T old = *p;
    if (v < old) *p = v;
    return old;
}
template <class T> static inline T atomicOr(T *p, T v)
{
    T old = *p;
    *p = old | v;
    return old;
}
template <class T> static inline T atomicExch(T *p, T v)
{
    T old = *p;
    *p = v;
    return old;
}
template <class T> static inline T atomicCAS(T *p, T is, T v)
{
    T old = *p;
    if (old == is) *p = v;
    return old;
}

/* --- the runtime's calls --- */
enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorECCUncorrectable = 214,
    cudaErrorIllegalAddress = 700,
    cudaErrorNotReady = 600,
    cudaErrorUnknown = 999
};
typedef struct simt_stream *cudaStream_t;
typedef struct simt_event *cudaEvent_t;
enum cudaMemcpyKind {
    cudaMemcpyHostToDevice = 1,
    cudaMemcpyDeviceToHost = 2,
    cudaMemcpyDeviceToDevice = 3,
    cudaMemcpyDefault = 4
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
#define cudaStreamNonBlocking          1u
#define cudaEventDisableTiming         2u
#define cudaEventBlockingSync          1u
#define cudaHostAllocDefault           0u
#define cudaHostAllocPortable          1u
#define cudaDeviceScheduleBlockingSync 4u
struct cudaDeviceProp {
    char name[256];
    int major, minor, multiProcessorCount, l2CacheSize;
    size_t totalGlobalMem, sharedMemPerBlockOptin, sharedMemPerMultiprocessor;
};
const char *cudaGetErrorName(cudaError_t e);
const char *cudaGetErrorString(cudaError_t e);
cudaError_t cudaGetLastError(void);
cudaError_t cudaPeekAtLastError(void);
cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaSetDeviceFlags(unsigned flags);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device);
cudaError_t cudaDriverGetVersion(int *v);
cudaError_t cudaRuntimeGetVersion(int *v);
cudaError_t cudaMemGetInfo(size_t *free, size_t *total);
cudaError_t cudaMalloc(void **p, size_t bytes);
cudaError_t cudaFree(void *p);
cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind, cudaStream_t s);
cudaError_t cudaMemcpy2DAsync(void *dst, size_t dpitch, const void *src, size_t spitch, size_t width, size_t height,
                              cudaMemcpyKind kind, cudaStream_t s);
cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t s);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t s);
cudaError_t cudaStreamSynchronize(cudaStream_t s);
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t e);
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s);
cudaError_t cudaEventSynchronize(cudaEvent_t e);
cudaError_t cudaEventQuery(cudaEvent_t e);
cudaError_t cudaDeviceSynchronize(void);
/* What kernels may have as dynamic shared memory is the launch's own affair here. */
template <class K> static inline cudaError_t cudaFuncSetAttribute(K, cudaFuncAttribute, int)
{
    return cudaSuccess;
}

/* --- a launch: `thread` by each thread of each block; done when it returns, but where the stream is captured --- */
void simt_launch(dim3 grid, dim3 block, size_t shared, cudaStream_t s, std::function<void()> thread);

/* --- graphs: what a captured stream was given is done by each launch of its graph --- */
typedef struct simt_graph *cudaGraph_t;
typedef struct simt_graph *cudaGraphExec_t;
enum cudaStreamCaptureMode { cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal };
cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
/* The next call of the runtime fails with this error, as a GPU that is broken would; for tests. */
extern "C" void simt_fail_next(int error);
/* The same of call number `n` from now on (1: the next) and of all that follow, until simt_fail_next(0). */
extern "C" void simt_fail_from(int error, unsigned n);
/* What the machine has; for tests. */
extern "C" void simt_set_machine(int driver_version, int n_gpus);
#endif
