/* clock.h - monotonic time, settable in tests. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H
#include <stdint.h>

uint64_t clock_now_us(void); /* monotonic microseconds */
static inline uint64_t clock_now_ms(void)
{
    return clock_now_us() / 1000;
}
int64_t clock_unix_s(void);           /* wall clock, for display and `created` fields only */
void clock_set_for_test(uint64_t us); /* freezes clock_now_us(); 0 thaws it */
#endif
