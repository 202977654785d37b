/* coll.h - the seam between ranks of one model: what they tell each other within a step.
 *
 * Every rank of a group makes the same calls in the same order.  What a rank gave to all_reduce(), all_gather() or
 * broadcast() stays as it is until the rank makes the next of these calls in the group: others may still read it.  Sums
 * are in rank order, so all ranks get the same bits.  A call that fails leaves anything in its buffers.
 *
 * A rank that cannot go on says so with abort(): every call that waits or follows, on any rank, returns that status.
 * Once no rank is inside a call, revive() makes the group usable again. */
#ifndef PARALLEL_COLL_H
#define PARALLEL_COLL_H
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

struct coll;
struct stream;

/* A matrix in device memory of which each rank of the group made some columns. */
struct coll_columns {
    size_t n_rows, row_bytes; /* bytes from row to row */
    const size_t *begin;      /* [size + 1] bytes: columns [begin[r], begin[r + 1]) of each row are rank r's */
};

/* Memory is the device's.  Calls are part of the stream: what follows in it sees their result. */
struct coll_ops {
    const char *name;
    /* x[i] = sum over ranks of x[i], in place. */
    enum status (*all_reduce)(const struct coll *c, struct stream *s, float *x, size_t n);
    /* x = the columns of all ranks.  This rank's are at `mine`, its rows mine_row_bytes apart; they may lie in x, where
     * they belong.  x NULL: this rank gives, and needs nothing. */
    enum status (*all_gather)(const struct coll *c, struct stream *s, void *x, const void *mine, size_t mine_row_bytes,
                              const struct coll_columns *columns);
    /* p[bytes] is what the rank `root` has there. */
    enum status (*broadcast)(const struct coll *c, struct stream *s, void *p, size_t bytes, uint32_t root);
    /* A pair: recv() of as many bytes on the rank `to`, send() on the rank `from`. */
    enum status (*send)(const struct coll *c, struct stream *s, const void *p, size_t bytes, uint32_t to);
    enum status (*recv)(const struct coll *c, struct stream *s, void *p, size_t bytes, uint32_t from);
    /* From any rank; the first one's `why`, which is not OK, counts. */
    void (*abort)(const struct coll *c, enum status why);
    void (*revive)(const struct coll *c);
};

struct coll {
    const struct coll_ops *ops;
    uint32_t rank, size;
};

/* The group of one: nothing to wait for, nothing to do. */
const struct coll *coll_self(void);
#endif
