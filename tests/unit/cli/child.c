/* child: what a child says through its pipe, and what its end means. */
#include "coordinator/cli/child.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

/* A child whose pipe says these parts, one read each; NULL: the pipe ends. */
static struct child child_that_says(const char *const *parts)
{
    struct child c = { .name = "p0", .pid = 1 };
    int fds[2];
    cr_assert_eq(pipe(fds), 0);
    c.ready_fd = fds[0];
    for (; *parts; parts++) {
        cr_assert_eq(write(fds[1], *parts, strlen(*parts)), (ssize_t)strlen(*parts));
        child_read_ready(&c);
    }
    close(fds[1]);
    return c;
}

Test(child, is_ready_once_its_whole_line_is_there)
{
    char value[32];
    struct child c = child_that_says((const char *const[]){ "ready p0 admin=127.0.0.1:8", NULL });
    cr_assert(!c.ready && !c.failed && c.ready_fd >= 0 && !child_start_is_over(&c));
    child_read_ready(&c); /* the pipe's end without a line's */
    cr_assert(!c.ready && c.ready_fd == -1 && !child_start_is_over(&c), "it may still run");
    c.pid = 0;
    cr_assert(child_start_is_over(&c));
    c = child_that_says((const char *const[]){ "ready p0 adm", "in=127.0.0.1:80 kv=- x=\n", NULL });
    cr_assert(c.ready && !c.failed && c.ready_fd == -1 && !child_start_is_over(&c));
    cr_assert(child_ready_value(&c, "admin", value, sizeof(value)) && strcmp(value, "127.0.0.1:80") == 0);
    cr_assert(child_ready_value(&c, "kv", value, sizeof(value)) && strcmp(value, "-") == 0);
    cr_assert(child_ready_value(&c, "x", value, sizeof(value)) && strcmp(value, "") == 0);
    cr_assert_not(child_ready_value(&c, "dmin", value, sizeof(value)));
    cr_assert_not(child_ready_value(&c, "adm", value, sizeof(value)));
    cr_assert_not(child_ready_value(&c, "ready", value, sizeof(value)));
    c.pid = 0;
    cr_assert(child_start_is_over(&c), "it was ready and is gone");
}

Test(child, says_why_it_failed)
{
    char why[128];
    struct child c = child_that_says((const char *const[]){ "failed no such file\n", NULL });
    cr_assert(c.failed && !c.ready && child_start_is_over(&c));
    child_explain(&c, why, sizeof(why));
    cr_assert_str_eq(why, "p0: no such file");
    c = child_that_says((const char *const[]){ "hello\n", NULL });
    cr_assert(!c.failed && !c.ready && c.ready_fd == -1);
}

Test(child, a_line_without_an_end_is_read_no_further_than_its_room)
{
    static char much[CHILD_LINE_MAX];
    memset(much, 'x', sizeof(much) - 2);
    struct child c = child_that_says((const char *const[]){ much, NULL });
    cr_assert(c.n_line == CHILD_LINE_MAX - 2 && c.ready_fd >= 0);
    close(c.ready_fd);
    memset(much, 'x', sizeof(much) - 1);
    c = child_that_says((const char *const[]){ much, NULL });
    cr_assert(c.n_line == CHILD_LINE_MAX - 1 && c.ready_fd == -1 && strlen(c.line) == CHILD_LINE_MAX - 1);
}

Test(child, ends_as_it_was_told_or_not)
{
    static const struct {
        int status; /* as waitpid() gives it */
        bool clean;
        const char *why;
    } rows[] = {
        { 0, true, "p0 ended with exit code 0" },
        { 1 << 8, false, "p0 ended with exit code 1" },
        { SIGTERM, true, "p0 was ended by signal 15 (Ter" },
        { SIGKILL, true, "p0 was ended by signal 9 (Kil" },
        { SIGSEGV, false, "p0 was ended by signal 11 (Seg" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char why[128];
        struct child c = { .name = "p0", .status = rows[i].status };
        cr_assert_eq(child_ended_cleanly(&c), rows[i].clean, "%zu", i);
        child_explain(&c, why, sizeof(why));
        cr_assert_eq(strncmp(why, rows[i].why, strlen(rows[i].why)), 0, "%s", why);
    }
}

Test(child, what_is_not_there_is_named)
{
    struct child c;
    struct error err;
    const char *const none[] = { NULL };
    cr_assert_eq(child_start(&c, "x", "baton-no-such", none, 0, -1, NULL, &err), ERR_NOT_FOUND);
    cr_assert(strstr(err.text, "/baton-no-such: No such file"), "%s", err.text);
    static char longest[PATH_MAX + 1];
    memset(longest, 'x', PATH_MAX);
    cr_assert_eq(child_start(&c, "x", longest, none, 0, -1, NULL, &err), ERR_TOO_LARGE);
}
