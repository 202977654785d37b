/* clock: moves forward, and stands still when a test says so. */
#include "base/clock.h"

#include <criterion/criterion.h>

Test(clock, moves_and_freezes)
{
    uint64_t a = clock_now_us(), b = clock_now_us();
    cr_assert(a > 0 && b >= a);
    clock_set_for_test(1234567);
    cr_assert_eq(clock_now_us(), 1234567);
    cr_assert_eq(clock_now_ms(), 1234);
    clock_set_for_test(0);
    cr_assert(clock_now_us() >= b);
    cr_assert(clock_unix_s() > 1600000000);
}
