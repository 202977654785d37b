/* device_time.c - runs of a call until they are long enough to be timed. */
#include "bench/device_time.h"
#include "base/clock.h"
#include "bench/bench.h"
#include "bench/kernels.h"

#include <math.h>

#define MOST_REPS 20000 /* in a sample */

enum status device_time_of(struct backend *b, device_call_fn call, void *arg, uint32_t reps, double *seconds)
{
    enum status st = OK;
    const uint64_t t0 = clock_now_us();
    for (uint32_t i = 0; i < reps && st == OK; i++) st = call(arg, i);
    if (st == OK) st = b->ops->sync(b, NULL);
    *seconds = (double)(clock_now_us() - t0) * 1e-6 / reps;
    return st;
}

enum status device_time(struct backend *b, device_call_fn call, void *arg, double sample_s, double *seconds)
{
    double samples[SAMPLES], first = 0;
    enum status st = device_time_of(b, call, arg, 2, &first); /* the first one loads the kernel */
    if (st == OK) st = device_time_of(b, call, arg, 4, &first);
    const uint32_t reps = (uint32_t)fmin(ceil(sample_s / fmax(first, 1e-7)), MOST_REPS);
    for (int i = 0; i < SAMPLES && st == OK; i++) st = device_time_of(b, call, arg, reps, &samples[i]);
    if (st == OK) *seconds = bench_spread_of(samples, SAMPLES).median;
    return st;
}
