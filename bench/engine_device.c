/* engine_device.c - the roof of a device that `baton-bench engine` runs on: how fast its memory is read. */
#include "base/clock.h"
#include "bench/engine_bench.h"
#include "compute/cuda/cuda_backend.h"

#define READ_BYTES ((size_t)1 << 30) /* many times its cache */
#define READS      10

/* A build without the GPU's sources has no such function. */
#pragma weak cuda_read_all

static enum status read_for(struct backend *b, const void *p, void *sink, uint32_t n, double *seconds)
{
    enum status st = OK;
    const uint64_t t0 = clock_now_us();
    for (uint32_t i = 0; i < n && st == OK; i++) st = cuda_read_all(b, p, READ_BYTES, sink);
    if (st == OK) st = b->ops->sync(b, NULL);
    *seconds = (double)(clock_now_us() - t0) * 1e-6 / n;
    return st;
}

enum status engine_device_read(const struct engine_bench *r, double *bytes_s)
{
    struct backend *b = ranks_backend(r->ranks, 0);
    void *p = NULL, *sink = NULL;
    double seconds = 0;
    *bytes_s = 0;
    if (!cuda_read_all) return OK;
    enum status st = b->ops->alloc(b, READ_BYTES, &p);
    if (st == OK) st = b->ops->alloc(b, 4, &sink);
    if (st == OK) st = read_for(b, p, sink, 1, &seconds); /* the first one loads the kernel */
    if (st == OK) st = read_for(b, p, sink, READS, &seconds);
    if (st == OK) *bytes_s = (double)READ_BYTES / seconds;
    if (sink) b->ops->release(b, sink, 4);
    if (p) b->ops->release(b, p, READ_BYTES);
    return st == ERR_NO_MEMORY ? OK : st; /* the model has taken it: no roof is known */
}
