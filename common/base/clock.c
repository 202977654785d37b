/* clock.c - monotonic time with a test override. */
#include "base/clock.h"

#include <stdatomic.h>
#include <time.h>

/* 0 = follow the machine's clock.  Written by tests only; relaxed, because a test orders its own
 * calls. */
static _Atomic uint64_t frozen_us;

uint64_t clock_now_us(void)
{
    uint64_t frozen = atomic_load_explicit(&frozen_us, memory_order_relaxed);
    if (frozen) return frozen;
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

int64_t clock_unix_s(void)
{
    return (int64_t)time(NULL);
}

void clock_set_for_test(uint64_t us)
{
    atomic_store_explicit(&frozen_us, us, memory_order_relaxed);
}
