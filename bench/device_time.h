/* device_time.h - how long a call takes where calls are enqueued and done later. */
#ifndef BENCH_DEVICE_TIME_H
#define BENCH_DEVICE_TIME_H
#include "compute/backend.h"

/* Enqueues the call on the stream NULL; `turn` counts from 0, so that calls can take turns with buffers. */
typedef enum status (*device_call_fn)(void *arg, uint32_t turn);

/* Seconds of a call, of `reps` that are enqueued one after another; or the first failure. */
enum status device_time_of(struct backend *b, device_call_fn call, void *arg, uint32_t reps, double *seconds);
/* The same, the median of several runs of about sample_s seconds each, after calls that load the kernel. */
enum status device_time(struct backend *b, device_call_fn call, void *arg, double sample_s, double *seconds);
#endif
