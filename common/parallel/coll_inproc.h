/* coll_inproc.h - groups of ranks that are threads of one process, and whose backends read each other's memory.
 *
 * A rank copies what another one gave from where it lies: nothing is copied twice.  A rank that waits sleeps on a futex
 * and never spins, since the one that it waits for may need the processor. */
#ifndef PARALLEL_COLL_INPROC_H
#define PARALLEL_COLL_INPROC_H
#include "parallel/coll.h"

struct backend;
struct coll_inproc;

/* The groups of tp x pp ranks (rank p * tp + t is member t of stage p).  The caller owns them. */
struct coll_inproc *coll_inproc_create(uint32_t tp, uint32_t pp);
void coll_inproc_destroy(struct coll_inproc *m); /* NULL is fine */
/* The streams of this rank's calls are `b`'s (borrowed): what is enqueued before a call is waited for in it, what the
 * call copies is enqueued.  Without one, memory is the host's and calls are in no stream. */
void coll_inproc_set_backend(struct coll_inproc *m, uint32_t rank, struct backend *b);
/* The group of the rank's stage, in which it is rank t of tp; and that of all ranks.  An abort is one of both. */
const struct coll *coll_inproc_stage(const struct coll_inproc *m, uint32_t rank);
const struct coll *coll_inproc_all(const struct coll_inproc *m, uint32_t rank);
#endif
