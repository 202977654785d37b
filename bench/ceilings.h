/* ceilings.h - what this machine can do at most, measured: memory reading and int8 arithmetic. */
#ifndef BENCH_CEILINGS_H
#define BENCH_CEILINGS_H
#include "base/error.h"

struct ceilings;

/* Threads and a buffer larger than caches.  Caller owns. */
enum status ceilings_create(struct ceilings **out, unsigned n_threads, struct error *err) MUST_CHECK;
void ceilings_destroy(struct ceilings *c);
/* Bytes per second of the best of a few passes of all threads over the buffer, with and without prefetches. */
double ceilings_read_bandwidth(struct ceilings *c);
/* Int8 operations (two per multiply-add) per second of a loop over registers, with the widest instruction there is;
 * 0 where there is none.  *how names it. */
double ceilings_int8_peak(struct ceilings *c, const char **how);
#endif
