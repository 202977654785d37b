/* engine_device.c - the roof of a device that `baton-bench engine` runs on: how fast its memory is read. */
#include "bench/device_time.h"
#include "bench/engine_bench.h"
#include "compute/cuda/cuda_backend.h"

#define READ_BYTES ((size_t)1 << 30) /* many times its cache */
#define READS      10

/* A build without the GPU's sources has no such function. */
#pragma weak cuda_read_all

struct reading {
    struct backend *b;
    void *p, *sink; /* device */
};

static enum status read_all(void *arg, uint32_t turn)
{
    const struct reading *r = arg;
    return cuda_read_all(r->b, r->p, READ_BYTES, r->sink);
}

enum status engine_device_read(const struct engine_bench *r, double *bytes_s)
{
    struct backend *b = ranks_backend(r->ranks, 0);
    struct reading reading = { .b = b };
    double seconds = 0;
    *bytes_s = 0;
    if (!cuda_read_all) return OK;
    enum status st = b->ops->alloc(b, READ_BYTES, &reading.p);
    if (st == OK) st = b->ops->alloc(b, 4, &reading.sink);
    if (st == OK) st = device_time_of(b, read_all, &reading, 1, &seconds); /* the first one loads the kernel */
    if (st == OK) st = device_time_of(b, read_all, &reading, READS, &seconds);
    if (st == OK) *bytes_s = (double)READ_BYTES / seconds;
    if (reading.sink) b->ops->release(b, reading.sink, 4);
    if (reading.p) b->ops->release(b, reading.p, READ_BYTES);
    return st == ERR_NO_MEMORY ? OK : st; /* the model has taken it: no roof is known */
}
