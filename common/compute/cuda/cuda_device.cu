/* cuda_device.cu - which GPU, whether it can be used, and how much of its memory. */
#include "compute/cuda/cuda_backend.h"
#include "compute/cuda/cuda_internal.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#define RESERVE ((uint64_t)512 << 20) /* for the driver, and for libraries that are opened later */
#define MIB     (1024.0 * 1024.0)

#ifndef BATON_CUDA_ARCH_LIST /* the GPUs that there is machine code for */
#define BATON_CUDA_ARCH_LIST "80"
#endif

/* --- whether it can be used --- */
/* "90a" runs on 9.0 alone, "80" on all of 8.x. */
bool cuda_archs_have(const char *archs, int arch)
{
    for (const char *p = archs; *p;) {
        char *end;
        const int built = (int)strtol(p, &end, 10);
        if (end == p) return false;
        const bool only = *end == 'a' || *end == 'f';
        if (built == arch || (!only && built / 10 == arch / 10 && built <= arch)) return true;
        p = end + only;
        if (*p) p++;
    }
    return false;
}

static enum status no_driver(cudaError_t e, struct error *err)
{
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (e == cudaErrorInsufficientDriver && driver == 0)
        return error_set(err, ERR_UNAVAILABLE,
                         "backend cuda: there is no NVIDIA driver on this machine (libcuda.so.1 was not found)");
    if (e == cudaErrorInsufficientDriver)
        return error_set(err, ERR_UNAVAILABLE,
                         "backend cuda: the NVIDIA driver is too old: it speaks CUDA %d.%d, needed is %d.%d",
                         driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    if (e == cudaErrorNoDevice) return error_set(err, ERR_UNAVAILABLE, "backend cuda: there is no NVIDIA GPU here");
    return error_set(err, ERR_UNAVAILABLE, "backend cuda: the NVIDIA driver does not start: %s", cudaGetErrorString(e));
}

static enum status check_device(cudaDeviceProp *prop, uint32_t device, struct error *err)
{
    int n = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e != cudaSuccess || n == 0) return no_driver(e == cudaSuccess ? cudaErrorNoDevice : e, err);
    if (device >= (uint32_t)n)
        return error_set(err, ERR_UNAVAILABLE, "backend cuda: devices is %u, the GPUs here are 0 to %d", device, n - 1);
    if ((e = cudaGetDeviceProperties(prop, (int)device)) != cudaSuccess)
        return error_set(err, ERR_UNAVAILABLE, "backend cuda: GPU %u does not answer: %s", device,
                         cudaGetErrorString(e));
    if (cuda_archs_have(BATON_CUDA_ARCH_LIST, 10 * prop->major + prop->minor)) return OK;
    return error_set(err, ERR_UNAVAILABLE,
                     "backend cuda: GPU %u (%s) has compute capability %d.%d, this program was built for %s "
                     "(BATON_CUDA_ARCHS)",
                     device, prop->name, prop->major, prop->minor, BATON_CUDA_ARCH_LIST);
}

enum status cuda_device_check(uint32_t device, struct error *err)
{
    cudaDeviceProp prop;
    const enum status st = check_device(&prop, device, err);
    cudaGetLastError(); /* told; it is no failure of what comes next */
    return st;
}

/* --- its memory --- */
uint64_t cuda_device_bytes(uint32_t device)
{
    cudaDeviceProp prop;
    const enum status st = check_device(&prop, device, NULL);
    cudaGetLastError();
    return st == OK ? prop.totalGlobalMem : 0;
}

static enum status open_memory(struct cuda_backend *b, uint64_t wanted, struct error *err)
{
    size_t free = 0, total = 0;
    const cudaError_t e = cudaMemGetInfo(&free, &total);
    if (e != cudaSuccess)
        return error_set(err, ERR_UNAVAILABLE, "backend cuda: GPU %d does not start: %s", b->device,
                         cudaGetErrorString(e));
    if (wanted > free)
        return error_set(err, ERR_NO_MEMORY,
                         "backend cuda: gpu_memory is %.1f MiB, GPU %d (%s) has %.1f MiB free of %.1f MiB",
                         (double)wanted / MIB, b->device, b->name, (double)free / MIB, (double)total / MIB);
    b->has_reserve = wanted == 0;
    b->may_take = wanted ? wanted : free > RESERVE ? free - RESERVE : 0;
    return OK;
}

enum status cuda_memory(struct backend *backend, uint64_t *left, uint64_t *total)
{
    struct cuda_backend *b = cuda_of(backend);
    const uint64_t taken = __atomic_load_n(&b->taken, __ATOMIC_RELAXED);
    size_t free = 0, all = 0;
    cuda_enter(backend);
    const enum status st = cuda_check(backend, cudaMemGetInfo(&free, &all), "cudaMemGetInfo");
    const uint64_t reserve = b->has_reserve ? RESERVE : 0;
    const uint64_t own = b->may_take > taken ? b->may_take - taken : 0, there = free > reserve ? free - reserve : 0;
    *left = own < there ? own : there;
    *total = all;
    return st;
}

void cuda_enter(struct backend *backend)
{
    static thread_local int here;
    const int device = cuda_of(backend)->device;
    if (here == device) return;
    cudaSetDevice(device); /* what fails now fails again at the call that follows */
    here = device;
}

enum status cuda_device_open(struct cuda_backend *b, const struct backend_options *opt, struct error *err)
{
    cudaDeviceProp prop;
    enum status st = check_device(&prop, opt->device, err);
    if (st != OK) return st;
    b->device = (int)opt->device;
    b->n_sms = prop.multiProcessorCount;
    b->arch = 10 * prop.major + prop.minor;
    b->numerics = opt->numerics;
    snprintf(b->name, sizeof(b->name), "%s", prop.name);
    cuda_enter(&b->base);
    return open_memory(b, opt->memory, err);
}

/* --- what there is --- */
/* The first of the names that can be opened, into `out`. */
static void find_library(char *out, size_t cap, const char *const *names)
{
    out[0] = '\0';
    for (; *names && !out[0]; names++) {
        void *lib = dlopen(*names, RTLD_LAZY | RTLD_LOCAL);
        if (!lib) continue;
        snprintf(out, cap, "%s", *names);
        dlclose(lib);
    }
}

static void report_gpu(struct cuda_report *r, int device)
{
    cudaDeviceProp prop;
    size_t free = 0, total = 0;
    if (cudaGetDeviceProperties(&prop, device) != cudaSuccess) return;
    snprintf(r->gpus[device].name, sizeof(r->gpus[device].name), "%s", prop.name);
    r->gpus[device].major = prop.major;
    r->gpus[device].minor = prop.minor;
    r->gpus[device].total = prop.totalGlobalMem;
    if (cudaSetDevice(device) == cudaSuccess && cudaMemGetInfo(&free, &total) == cudaSuccess)
        r->gpus[device].free = free;
}

void cuda_report_read(struct cuda_report *out)
{
    static const char *const BLAS[] = { "libcublasLt.so.13", "libcublasLt.so.12", NULL };
    static const char *const NCCL[] = { "libnccl.so.2", NULL };
    int n = 0;
    memset(out, 0, sizeof(*out));
    cudaDriverGetVersion(&out->driver);
    cudaRuntimeGetVersion(&out->runtime);
    find_library(out->cublaslt, sizeof(out->cublaslt), BLAS);
    find_library(out->nccl, sizeof(out->nccl), NCCL);
    if (cudaGetDeviceCount(&n) != cudaSuccess) n = 0;
    out->n_gpus = n < CUDA_MAX_GPUS ? (uint32_t)n : CUDA_MAX_GPUS;
    for (uint32_t i = 0; i < out->n_gpus; i++) report_gpu(out, (int)i);
    cudaGetLastError();
}
