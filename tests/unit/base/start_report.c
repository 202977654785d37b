/* start_report: one line reaches the parent, whatever the reason holds, or the caller hears that nobody listens. */
#include "base/start_report.h"

#include "base/error.h"
#include "base/fds.h"
#include "base/random.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static void expect_line(const char *reason, const char *want)
{
    char line[2 * ERROR_TEXT_MAX];
    int fds[2];
    cr_assert_eq(pipe(fds), 0);
    cr_assert(start_report_failed(fds[1], reason));
    close(fds[1]);
    ssize_t n = read(fds[0], line, sizeof(line) - 1);
    cr_assert_gt(n, 0);
    line[n] = '\0';
    cr_assert_str_eq(line, want);
    close(fds[0]);
}

Test(start_report, a_failure_is_one_line)
{
    expect_line("no such port", "failed no such port\n");
    expect_line("two\nlines\n", "failed two lines \n");
    expect_line("", "failed \n");
}

Test(start_report, the_longest_error_fits_and_more_is_cut)
{
    char reason[ERROR_TEXT_MAX + 100], want[ERROR_TEXT_MAX + 100];
    for (size_t n = ERROR_TEXT_MAX - 2; n < ERROR_TEXT_MAX + 50; n++) {
        const size_t kept = n < ERROR_TEXT_MAX ? n : ERROR_TEXT_MAX;
        memset(reason, 'x', n);
        reason[n] = '\0';
        memcpy(want, "failed ", 7);
        memset(want + 7, 'x', kept);
        memcpy(want + 7 + kept, "\n", 2);
        expect_line(reason, want);
    }
}

Test(start_report, nobody_who_listens_is_said)
{
    int fds[2];
    signal(SIGPIPE, SIG_IGN);
    cr_assert_not(start_report_failed(-1, "x"));
    cr_assert_eq(pipe(fds), 0);
    close(fds[0]);
    cr_assert_not(start_report_failed(fds[1], "x"));
    close(fds[1]);
}

Test(fds, the_soft_limit_rises_to_the_hard_one)
{
    struct rlimit lim;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &lim), 0);
    const rlim_t hard = lim.rlim_max;
    lim.rlim_cur = 64;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &lim), 0);
    cr_assert_eq(fds_raise(), hard);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &lim), 0);
    cr_assert_eq(lim.rlim_cur, hard);
    cr_assert_eq(fds_raise(), hard, "it is there already");
}

Test(random, names_differ_and_are_never_none)
{
    uint64_t ids[100];
    for (int i = 0; i < 100; i++) {
        ids[i] = random_id();
        cr_assert_neq(ids[i], 0);
        for (int k = 0; k < i; k++) cr_assert_neq(ids[i], ids[k]);
    }
}
