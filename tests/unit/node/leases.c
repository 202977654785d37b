/* leases: an ended session's work is kept until its lease is over, shortened, or claimed. */
#include "node/leases.h"

#include <criterion/criterion.h>

Test(leases, end_in_time_and_only_once)
{
    struct leases ls = { 0 };
    cr_assert(leases_add(&ls, 11, 100) && leases_add(&ls, 22, 200));
    cr_assert_eq(leases_take_expired(&ls, 99), 0u);
    cr_assert_eq(leases_take_expired(&ls, 100), 11u);
    cr_assert_eq(leases_take_expired(&ls, 199), 0u);
    leases_extend(&ls, 50);
    cr_assert_eq(leases_take_expired(&ls, 249), 0u);
    cr_assert_eq(leases_take_expired(&ls, 250), 22u);
    cr_assert_eq(leases_take_expired(&ls, UINT64_MAX), 0u);
}

Test(leases, are_only_ever_shortened)
{
    struct leases ls = { 0 };
    cr_assert(leases_add(&ls, 11, 100) && leases_add(&ls, 22, 900));
    leases_shorten(&ls, 500);
    cr_assert_eq(leases_take_expired(&ls, 100), 11u);
    cr_assert_eq(leases_take_expired(&ls, 499), 0u);
    cr_assert_eq(leases_take_expired(&ls, 500), 22u);
}

Test(leases, are_claimed_by_name_and_bounded)
{
    struct leases ls = { 0 };
    for (uint64_t i = 1; i <= LEASES_MAX; i++) cr_assert(leases_add(&ls, i, 100));
    cr_assert_not(leases_add(&ls, 99, 100));
    cr_assert(leases_take(&ls, 3));
    cr_assert_not(leases_take(&ls, 3));
    cr_assert(leases_add(&ls, 99, 100));
}
