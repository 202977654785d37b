/* run_baton.h - runs the `baton` beside the test program, and keeps what it says. */
#ifndef TESTS_CLI_RUN_BATON_H
#define TESTS_CLI_RUN_BATON_H
#include "base/strbuf.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RUN_MAX_ARGS 24
#define RUN_WAIT_S   60

struct run {
    pid_t pid;
    int out_fd, err_fd;
    struct strbuf out, err;
    int code; /* 128 + signal if one ended it */
};

static inline void baton_path(char path[PATH_MAX])
{
    ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - 16);
    cr_assert_gt(n, 0);
    path[n] = '\0';
    memcpy(strrchr(path, '/'), "/baton", 7);
    if (access(path, X_OK) != 0) cr_skip("there is no baton beside this program");
}

/* Starts it with the words of `line`; "@" stands for `file`.  `input` (NULL: none) is its standard input. */
static inline struct run run_start(const char *line, const char *file, const char *input)
{
    struct run r = { 0 };
    char path[PATH_MAX], words[1024], *save = NULL;
    char *argv[RUN_MAX_ARGS] = { (char *)"baton" };
    int in[2], out[2], err[2], argc = 1;
    baton_path(path);
    cr_assert(pipe(in) == 0 && pipe(out) == 0 && pipe(err) == 0);
    snprintf(words, sizeof(words), "%s", line);
    for (char *w = strtok_r(words, " ", &save); w && argc < RUN_MAX_ARGS - 1; w = strtok_r(NULL, " ", &save))
        argv[argc++] = strcmp(w, "@") == 0 ? (char *)file : w;
    r.pid = fork();
    cr_assert_geq(r.pid, 0);
    if (r.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(in[0], 0), dup2(out[1], 1), dup2(err[1], 2);
        for (int fd = 3; fd < 256; fd++) close(fd);
        execv(path, argv);
        _exit(127);
    }
    close(in[0]), close(out[1]), close(err[1]);
    if (input) cr_assert_eq(write(in[1], input, strlen(input)), (ssize_t)strlen(input));
    close(in[1]);
    r.out_fd = out[0];
    r.err_fd = err[0];
    fcntl(r.out_fd, F_SETFL, O_NONBLOCK);
    fcntl(r.err_fd, F_SETFL, O_NONBLOCK);
    return r;
}

static inline bool run_read(int fd, struct strbuf *to)
{
    char part[4096];
    ssize_t n = read(fd, part, sizeof(part));
    if (n > 0) strbuf_add(to, part, (size_t)n);
    return n > 0;
}

/* Takes in what it has said; `turn` (NULL: none) is called meanwhile. */
static inline void run_turn(struct run *r, void (*turn)(void))
{
    struct pollfd p[2] = { { .fd = r->out_fd, .events = POLLIN }, { .fd = r->err_fd, .events = POLLIN } };
    if (turn) turn();
    poll(p, 2, 5);
    while (run_read(r->out_fd, &r->out)) continue;
    while (run_read(r->err_fd, &r->err)) continue;
}

/* Until it has ended. */
static inline void run_wait(struct run *r, void (*turn)(void))
{
    int status = 0;
    time_t end = time(NULL) + RUN_WAIT_S;
    while (waitpid(r->pid, &status, WNOHANG) == 0) {
        cr_assert(time(NULL) < end, "it does not end: %s%s", strbuf_cstr(&r->out), strbuf_cstr(&r->err));
        run_turn(r, turn);
    }
    run_turn(r, NULL);
    close(r->out_fd), close(r->err_fd);
    r->code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Until `want` stands in its standard output. */
static inline void run_until(struct run *r, const char *want)
{
    time_t end = time(NULL) + RUN_WAIT_S;
    while (!strstr(strbuf_cstr(&r->out), want)) {
        cr_assert(time(NULL) < end, "no %s: %s%s", want, strbuf_cstr(&r->out), strbuf_cstr(&r->err));
        run_turn(r, NULL);
    }
}

static inline void run_fini(struct run *r)
{
    strbuf_fini(&r->out);
    strbuf_fini(&r->err);
}

/* Runs it to its end: code, all of standard output, and what stands in standard error ("": nothing does). */
static inline void expect_run(const char *line, const char *file, const char *input, int code, const char *out,
                              const char *err)
{
    struct run r = run_start(line, file, input);
    run_wait(&r, NULL);
    cr_assert_eq(r.code, code, "baton %s: %d %s%s", line, r.code, strbuf_cstr(&r.out), strbuf_cstr(&r.err));
    cr_assert_str_eq(strbuf_cstr(&r.out), out, "baton %s\n%s", line, strbuf_cstr(&r.out));
    if (!*err)
        cr_assert_eq(r.err.n, 0, "baton %s: %s", line, strbuf_cstr(&r.err));
    else
        cr_assert(strstr(strbuf_cstr(&r.err), err), "baton %s: %s", line, strbuf_cstr(&r.err));
    run_fini(&r);
}
#endif
