/* coll.h - the seam between ranks of one model: sums over a tensor-parallel group.
 *
 * Every rank calls the same operations in the same order.  Sums are in rank order, so all ranks get the
 * same bits. */
#ifndef PARALLEL_COLL_H
#define PARALLEL_COLL_H
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

struct coll;
struct stream;

struct coll_ops {
    const char *name;
    /* x[i] = sum over ranks of x[i], in place, device memory. */
    enum status (*all_reduce)(const struct coll *c, struct stream *s, float *x, size_t n);
};

struct coll {
    const struct coll_ops *ops;
    uint32_t rank, size;
};

/* The group of one. */
const struct coll *coll_self(void);
#endif
