/* simt.cpp - the fibers behind cuda_runtime.h, and a device whose memory is host memory with a fence behind it. */
#include "simt/cuda_runtime.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <sys/mman.h>
#include <vector>

#define STACK_BYTES (256u << 10)
#define MAX_THREADS 1024u
#define MAX_SHARED  (227u << 10)

thread_local uint3 threadIdx, blockIdx;
thread_local dim3 blockDim, gridDim;
thread_local uint8_t *simt_shared;

/* --- fibers --- */
enum fiber_state { READY, AT_BLOCK, AT_WARP, DONE };

struct fiber {
    void *sp; /* where it stopped */
    uint8_t *stack;
    fiber_state state;
    unsigned mask; /* AT_WARP: whom it waits for */
    uint3 idx;
};

struct block_run {
    fiber fibers[MAX_THREADS];
    uint64_t slots[MAX_THREADS];
    unsigned n, current;
    void *scheduler; /* its stack pointer while a fiber runs */
    const std::function<void()> *thread;
    uint8_t *shared;
};
static thread_local block_run *run;

/* Callee-saved registers go onto the stack, the stack changes hands, they come back from the other one. */
extern "C" void simt_switch(void **save, void *to);
asm(".text\n.globl simt_switch\n.type simt_switch,@function\nsimt_switch:\n"
    "  push %rbp\n  push %rbx\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n"
    "  mov %rsp, (%rdi)\n  mov %rsi, %rsp\n"
    "  pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbx\n  pop %rbp\n  ret\n.size simt_switch,.-simt_switch\n");

[[noreturn]] static void fail(const char *what)
{
    fprintf(stderr, "simt: %s (block %u,%u,%u thread %u,%u,%u)\n", what, blockIdx.x, blockIdx.y, blockIdx.z,
            threadIdx.x, threadIdx.y, threadIdx.z);
    abort();
}

static void yield_as(fiber_state state)
{
    fiber *f = &run->fibers[run->current];
    f->state = state;
    simt_switch(&f->sp, run->scheduler);
}

static void fiber_main(void)
{
    (*run->thread)();
    yield_as(DONE);
    abort(); /* nobody resumes it */
}

void simt_sync_block(void)
{
    yield_as(AT_BLOCK);
}

void simt_sync_warp(unsigned mask)
{
    fiber *f = &run->fibers[run->current];
    if (!(mask >> simt_lane() & 1)) fail("a lane waits for a warp's mask that it is not in");
    f->mask = mask;
    yield_as(AT_WARP);
}

void simt_exchange(unsigned mask, uint64_t value, uint64_t out[32])
{
    const unsigned first = run->current / 32 * 32;
    run->slots[run->current] = value;
    simt_sync_warp(mask);
    memcpy(out, run->slots + first, 32 * sizeof(*out));
    simt_sync_warp(mask);
}

unsigned __ballot_sync(unsigned mask, int pred)
{
    uint64_t all[32];
    unsigned r = 0;
    const unsigned first = run->current / 32 * 32;
    simt_exchange(mask, pred != 0, all);
    for (unsigned i = 0; i < 32 && first + i < run->n; i++)
        if (mask >> i & 1 && run->fibers[first + i].state != DONE && all[i]) r |= 1u << i;
    return r;
}

/* Lanes go on once all living lanes of their mask have come. */
static bool release_warp(unsigned first)
{
    bool any = false;
    for (unsigned i = first; i < first + 32 && i < run->n; i++) {
        if (run->fibers[i].state != AT_WARP) continue;
        const unsigned mask = run->fibers[i].mask;
        bool all = true;
        for (unsigned j = 0; j < 32 && first + j < run->n; j++) {
            const fiber *f = &run->fibers[first + j];
            if (mask >> j & 1 && f->state != DONE && (f->state != AT_WARP || f->mask != mask)) all = false;
        }
        for (unsigned j = 0; all && j < 32 && first + j < run->n; j++)
            if (mask >> j & 1 && run->fibers[first + j].state == AT_WARP) run->fibers[first + j].state = READY;
        any = any || all;
    }
    return any;
}

static bool release_block(void)
{
    unsigned waiting = 0;
    for (unsigned i = 0; i < run->n; i++) {
        if (run->fibers[i].state == AT_BLOCK) waiting++;
        if (run->fibers[i].state == READY || run->fibers[i].state == AT_WARP) return false;
    }
    for (unsigned i = 0; i < run->n; i++)
        if (run->fibers[i].state == AT_BLOCK) run->fibers[i].state = READY;
    return waiting > 0;
}

static void prepare_fiber(unsigned i)
{
    fiber *f = &run->fibers[i];
    if (!f->stack) {
        f->stack = (uint8_t *)mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (f->stack == MAP_FAILED) fail("no memory for stacks");
    }
    void **top = (void **)(f->stack + STACK_BYTES);
    *--top = NULL; /* the alignment that a function expects at its entry */
    *--top = (void *)fiber_main;
    for (int r = 0; r < 6; r++) *--top = NULL;
    f->sp = top;
    f->state = READY;
    f->idx = { i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y };
}

static void run_block(void)
{
    for (unsigned i = 0; i < run->n; i++) prepare_fiber(i);
    for (;;) {
        bool ran = false;
        for (unsigned first = 0; first < run->n; first += 32) {
            bool again = true;
            while (again) { /* a warp as far as it comes, so that exchanges stay in the cache */
                for (unsigned i = first; i < first + 32 && i < run->n; i++) {
                    if (run->fibers[i].state != READY) continue;
                    run->current = i;
                    threadIdx = run->fibers[i].idx;
                    simt_switch(&run->scheduler, run->fibers[i].sp);
                    ran = true;
                }
                again = release_warp(first);
            }
        }
        if (release_block()) continue;
        bool done = true;
        for (unsigned i = 0; i < run->n; i++) done = done && run->fibers[i].state == DONE;
        if (done) return;
        if (!ran) fail("threads wait for each other at different barriers");
    }
}

static void run_grid(dim3 grid, dim3 block, size_t shared, const std::function<void()> *thread)
{
    if (!run) run = (block_run *)calloc(1, sizeof(*run));
    if (!run->shared) run->shared = (uint8_t *)aligned_alloc(1024, MAX_SHARED);
    run->n = block.x * block.y * block.z;
    run->thread = thread;
    simt_shared = run->shared;
    blockDim = block;
    gridDim = grid;
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                blockIdx = { x, y, z };
                memset(run->shared, 0xa5, shared);
                run_block();
            }
}

/* --- streams: work is done at once, but where it is captured --- */
struct simt_graph {
    std::vector<std::function<void()>> work;
};
struct simt_stream {
    simt_graph *captured; /* NULL: nothing is */
};

static void enqueue(cudaStream_t s, std::function<void()> work)
{
    if (s && s->captured)
        s->captured->work.push_back(std::move(work));
    else
        work();
}

/* What a captured stream cannot take: the host would wait for what does not run. */
static void must_run(cudaStream_t s, const char *what)
{
    if (s && s->captured) fail(what);
}

void simt_launch(dim3 grid, dim3 block, size_t shared, cudaStream_t s, std::function<void()> thread)
{
    const unsigned n = block.x * block.y * block.z;
    if (n == 0 || n > MAX_THREADS) fail("a block has 1 to 1024 threads");
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535)
        fail("a grid has 1 to 2^31 - 1, 65535 and 65535 blocks");
    if (shared > MAX_SHARED) fail("more dynamic shared memory than a block can have");
    enqueue(s, [=] { run_grid(grid, block, shared, &thread); });
}

/* --- the device --- */
static int fail_next;
void simt_fail_next(int error)
{
    fail_next = error;
}

/* An error that stays, as most of a real device's do, after `calls_left` more calls; shared by all threads. */
static int fail_always;
static unsigned calls_left;
void simt_fail_from(int error, unsigned n)
{
    __atomic_store_n(&calls_left, n ? n - 1 : 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&fail_always, error, __ATOMIC_SEQ_CST);
}

static int lasting_error(void)
{
    const int e = __atomic_load_n(&fail_always, __ATOMIC_SEQ_CST);
    unsigned left = __atomic_load_n(&calls_left, __ATOMIC_SEQ_CST);
    if (!e) return 0;
    while (left &&
           !__atomic_compare_exchange_n(&calls_left, &left, left - 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {}
    return left ? 0 : e;
}

static cudaError_t answer(void)
{
    const int lasting = lasting_error(), e = fail_next;
    fail_next = 0;
    return (cudaError_t)(lasting ? lasting : e);
}

static const struct {
    cudaError_t e;
    const char *name, *text;
} ERRORS[] = {
    { cudaSuccess, "cudaSuccess", "no error" },
    { cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory" },
    { cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
      "CUDA driver version is insufficient for CUDA runtime version" },
    { cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected" },
    { cudaErrorECCUncorrectable, "cudaErrorECCUncorrectable", "uncorrectable ECC error encountered" },
    { cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered" },
    { cudaErrorUnknown, "cudaErrorUnknown", "unknown error" },
};

const char *cudaGetErrorName(cudaError_t e)
{
    for (const auto &known : ERRORS)
        if (known.e == e) return known.name;
    return "cudaErrorUnknown";
}
const char *cudaGetErrorString(cudaError_t e)
{
    for (const auto &known : ERRORS)
        if (known.e == e) return known.text;
    return "unknown error";
}

static int driver_version = 13000, n_gpus = 1;
void simt_set_machine(int driver, int gpus)
{
    driver_version = driver;
    n_gpus = gpus;
}
cudaError_t cudaGetLastError(void)
{
    return answer();
}
cudaError_t cudaPeekAtLastError(void)
{
    const int lasting = lasting_error();
    return (cudaError_t)(lasting ? lasting : fail_next);
}
cudaError_t cudaGetDeviceCount(int *n)
{
    *n = n_gpus;
    if (driver_version < 13000) return cudaErrorInsufficientDriver;
    return n_gpus ? answer() : cudaErrorNoDevice;
}
cudaError_t cudaSetDevice(int device)
{
    return device < n_gpus ? answer() : cudaErrorInvalidValue;
}
cudaError_t cudaSetDeviceFlags(unsigned)
{
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *v)
{
    *v = driver_version;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *v)
{
    *v = 13000;
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize(void)
{
    return answer();
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int)
{
    memset(p, 0, sizeof(*p));
    snprintf(p->name, sizeof(p->name), "fibers");
    p->major = 8;
    p->multiProcessorCount = 4;
    p->l2CacheSize = 1 << 20;
    p->totalGlobalMem = (size_t)4 << 30;
    p->sharedMemPerBlockOptin = MAX_SHARED;
    p->sharedMemPerMultiprocessor = MAX_SHARED + 1024;
    return answer();
}

static size_t used;
cudaError_t cudaMemGetInfo(size_t *free, size_t *total)
{
    *total = (size_t)4 << 30;
    *free = *total - used;
    return answer();
}

struct allocation {
    uint8_t *map, *p;
    size_t mapped, bytes;
};
static std::vector<allocation> allocations;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    const size_t page = 4096, kept = (bytes + 255) & ~(size_t)255, mapped = ((kept + page - 1) & ~(page - 1)) + page;
    cudaError_t e = answer();
    if (e != cudaSuccess) return e;
    pthread_mutex_lock(&lock);
    if (bytes == 0 || used + kept > (size_t)4 << 30) e = bytes ? cudaErrorMemoryAllocation : cudaErrorInvalidValue;
    uint8_t *map = e == cudaSuccess
                       ? (uint8_t *)mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
                       : NULL;
    if (map) {
        mprotect(map + mapped - page, page, PROT_NONE);
        uint8_t *at = map + mapped - page - kept;
        memset(at, 0xff, kept);
        allocations.push_back({ map, at, mapped, kept });
        used += kept;
        *p = at;
    }
    pthread_mutex_unlock(&lock);
    return e;
}

cudaError_t cudaFree(void *p)
{
    cudaError_t e = p ? cudaErrorInvalidValue : cudaSuccess;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < allocations.size(); i++) {
        if (allocations[i].p != p) continue;
        munmap(allocations[i].map, allocations[i].mapped);
        used -= allocations[i].bytes;
        allocations.erase(allocations.begin() + (long)i);
        e = cudaSuccess;
        break;
    }
    pthread_mutex_unlock(&lock);
    return e;
}

cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned)
{
    const cudaError_t e = answer();
    if (e != cudaSuccess) return e;
    *p = aligned_alloc(4096, (bytes + 4095) & ~(size_t)4095);
    return *p ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFreeHost(void *p)
{
    free(p);
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind, cudaStream_t s)
{
    const cudaError_t e = answer();
    if (e == cudaSuccess && bytes) enqueue(s, [=] { memmove(dst, src, bytes); });
    return e;
}
cudaError_t cudaMemcpy2DAsync(void *dst, size_t dpitch, const void *src, size_t spitch, size_t width, size_t height,
                              cudaMemcpyKind, cudaStream_t s)
{
    const cudaError_t e = answer();
    if (e != cudaSuccess) return e;
    enqueue(s, [=] {
        for (size_t i = 0; i < height; i++)
            memmove((uint8_t *)dst + i * dpitch, (const uint8_t *)src + i * spitch, width);
    });
    return e;
}
cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t s)
{
    const cudaError_t e = answer();
    if (e == cudaSuccess && bytes) enqueue(s, [=] { memset(dst, value, bytes); });
    return e;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
    *s = new simt_stream{};
    return answer();
}
cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    delete s;
    return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode)
{
    const cudaError_t e = answer();
    if (e == cudaSuccess) s->captured = new simt_graph{};
    return e;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph)
{
    *graph = s->captured;
    s->captured = NULL;
    return answer();
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
{
    *exec = new simt_graph(*graph);
    return answer();
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t)
{
    const cudaError_t e = answer();
    for (size_t i = 0; e == cudaSuccess && i < exec->work.size(); i++) exec->work[i]();
    return e;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    delete exec;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    must_run(s, "a stream is waited for while it is captured");
    return answer();
}
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned)
{
    return answer();
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    *e = (cudaEvent_t)malloc(1);
    return answer();
}
cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    free(e);
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t)
{
    return answer();
}
cudaError_t cudaEventSynchronize(cudaEvent_t)
{
    return answer();
}
cudaError_t cudaEventQuery(cudaEvent_t)
{
    return answer();
}
