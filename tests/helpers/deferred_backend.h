/* deferred_backend.h - a backend that puts off all work until somebody waits for it, as a device does.
 *
 * It stands before the CPU backend, whose bits it gives.  An op only joins its stream's queue, with copies of what it
 * was handed; sync() and mark_wait() run the queue, on the thread that waits.  Its memory counts as a device's, rows
 * pack in runs of 32, embeddings are not read as Q4_0, and it has no fused op.  So what is right on it neither looks at
 * results early nor hands out host memory that changes, and asks capabilities instead of names. */
#ifndef HELPERS_DEFERRED_BACKEND_H
#define HELPERS_DEFERRED_BACKEND_H
#include "compute/backend.h"

/* Takes `cpu`: backend_close() closes both. */
struct backend *deferred_backend_create(struct backend *cpu);
/* Ops that wait in queues. */
uint32_t deferred_backend_pending(struct backend *b);
/* How often somebody waited: sync(), or mark_wait() of a mark that had not passed. */
uint32_t deferred_backend_waits(struct backend *b);
/* How many marks were recorded. */
uint32_t deferred_backend_marks(struct backend *b);
#endif
