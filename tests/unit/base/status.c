/* status: every code has a name and an HTTP status; unknown numbers have answers too. */
#include "base/status.h"

#include <criterion/criterion.h>
#include <string.h>

Test(status, every_code_has_its_own_name)
{
    for (int a = 0; a < STATUS_COUNT; a++) {
        cr_assert(strlen(status_text(a)) > 0);
        cr_assert(status_http(a) >= 200 && status_http(a) < 600);
        for (int b = 0; b < a; b++) cr_assert(strcmp(status_text(a), status_text(b)) != 0);
    }
}

Test(status, what_can_be_retried_is_not_the_callers_fault)
{
    for (int st = 0; st < STATUS_COUNT; st++) {
        if (status_is_retryable(st)) cr_assert(status_http(st) == 429 || status_http(st) >= 500);
    }
    cr_assert_eq(status_http(ERR_FULL), 429);
    cr_assert_eq(status_http(ERR_TOO_LARGE), 413);
}

Test(status, what_a_peers_bytes_are_found_to_be_can_be_retried)
{
    cr_assert_eq(status_from_peer(OK), OK);
    for (int st = OK + 1; st < STATUS_COUNT; st++) {
        enum status from = status_from_peer(st);
        cr_assert(from != OK && status_is_retryable(from), "%s becomes %s", status_text(st), status_text(from));
        cr_assert_eq(status_from_peer(from), from, "%s", status_text(st));
        if (status_is_retryable(st)) cr_assert_eq(from, (enum status)st, "%s", status_text(st));
    }
}

Test(status, numbers_outside_the_table_are_answered)
{
    cr_assert_str_eq(status_text((enum status)9999), "unknown");
    cr_assert_eq(status_http((enum status) - 1), 500);
    cr_assert(!status_is_retryable((enum status)STATUS_COUNT));
    cr_assert_eq(status_from_peer((enum status)STATUS_COUNT), ERR_INTERNAL);
}
