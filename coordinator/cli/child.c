/* child.c - fork, exec and the ready pipe of one child process. */
#include "coordinator/cli/child.h"

#include "base/start_report.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* The path of `binary` beside the running program. */
static enum status sibling_path(char *buf, size_t cap, const char *binary, struct error *err)
{
    ssize_t n = readlink("/proc/self/exe", buf, cap - 1);
    if (n <= 0) return error_set(err, ERR_IO, "cannot read /proc/self/exe: %s", strerror(errno));
    buf[n] = '\0';
    char *slash = strrchr(buf, '/');
    size_t dir = slash ? (size_t)(slash - buf) + 1 : 0;
    if (dir + strlen(binary) + 1 > cap) return error_set(err, ERR_TOO_LARGE, "path of %s is too long", binary);
    memcpy(buf + dir, binary, strlen(binary) + 1);
    if (access(buf, X_OK) != 0) return error_set(err, ERR_NOT_FOUND, "%s: %s", buf, strerror(errno));
    return OK;
}

static void clear_environment(void)
{
    extern char **environ;
    for (char **e = environ; *e;) {
        char name[128];
        size_t n = strcspn(*e, "=");
        bool ours = strncmp(*e, "BATON_", 6) == 0 && n < sizeof(name);
        snprintf(name, sizeof(name), "%.*s", (int)n, *e);
        if (ours && unsetenv(name) == 0)
            e = environ; /* unsetenv() moved the rest */
        else
            e++;
    }
}

struct child_files {
    int ready, config, weights;
};

/* Appends "flag number" and lets the descriptor live through exec. */
static size_t pass_fd(const char **argv, size_t n, const char *flag, const char *prefix, char *text, size_t cap, int fd)
{
    fcntl(fd, F_SETFD, 0);
    snprintf(text, cap, "%s%d", prefix, fd);
    argv[n++] = flag;
    argv[n++] = text;
    return n;
}

static void exec_child(const char *path, const char *const *args, struct child_files files, pid_t parent)
{
    const char *argv[CHILD_MAX_ARGS + 8];
    char ready[16], weights[16], config[32];
    size_t n = 0;
    argv[n++] = path;
    n = pass_fd(argv, n, "--config", "/proc/self/fd/", config, sizeof(config), files.config);
    n = pass_fd(argv, n, "--ready-fd", "", ready, sizeof(ready), files.ready);
    if (files.weights >= 0) n = pass_fd(argv, n, "--weights-fd", "", weights, sizeof(weights), files.weights);
    for (size_t i = 0; args[i] && i < CHILD_MAX_ARGS; i++) argv[n++] = args[i];
    argv[n] = NULL;
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(1); /* the parent died before the line above */
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    clear_environment();
    execv(path, (char *const *)argv);
    char why[ERROR_TEXT_MAX];
    snprintf(why, sizeof(why), "cannot start %.400s: %s", path, strerror(errno));
    _exit(start_report_failed(files.ready, why) ? 1 : 127);
}

enum status child_start(struct child *c, const char *name, const char *binary, const char *const *args, int config_fd,
                        int weights_fd, const struct cpu_list *cpus, struct error *err)
{
    char path[PATH_MAX];
    int pipe_fds[2];
    enum status st = sibling_path(path, sizeof(path), binary, err);
    if (st != OK) return st;
    if (pipe2(pipe_fds, O_CLOEXEC) != 0) return error_set(err, ERR_IO, "pipe: %s", strerror(errno));
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid < 0) {
        close(pipe_fds[0]);
        close(pipe_fds[1]);
        return error_set(err, ERR_IO, "cannot start %s: fork: %s", name, strerror(errno));
    }
    if (pid == 0 && cpus && cpus->n > 0 && cpu_list_confine(cpus) != OK)
        fprintf(stderr, "%s: its processors are not available, it runs on any\n", name);
    if (pid == 0) exec_child(path, args, (struct child_files){ pipe_fds[1], config_fd, weights_fd }, parent);
    close(pipe_fds[1]);
    *c = (struct child){ .pid = pid, .ready_fd = pipe_fds[0] };
    snprintf(c->name, sizeof(c->name), "%s", name);
    return OK;
}

void child_read_ready(struct child *c)
{
    ssize_t n = read(c->ready_fd, c->line + c->n_line, sizeof(c->line) - 1 - c->n_line);
    if (n < 0 && errno == EINTR) return;
    if (n > 0) c->n_line += (size_t)n;
    c->line[c->n_line] = '\0';
    char *end = strchr(c->line, '\n');
    if (end) *end = '\0';
    c->ready = end && strncmp(c->line, START_READY, strlen(START_READY)) == 0;
    c->failed = end && strncmp(c->line, START_FAILED, strlen(START_FAILED)) == 0;
    if (n > 0 && !end && c->n_line < sizeof(c->line) - 1) return;
    close(c->ready_fd);
    c->ready_fd = -1;
}

bool child_start_is_over(const struct child *c)
{
    return c->failed || (c->pid == 0 && (c->ready || c->ready_fd < 0));
}

bool child_ended_cleanly(const struct child *c)
{
    if (WIFEXITED(c->status)) return WEXITSTATUS(c->status) == 0;
    return WIFSIGNALED(c->status) && (WTERMSIG(c->status) == SIGTERM || WTERMSIG(c->status) == SIGKILL);
}

void child_explain(const struct child *c, char *buf, size_t cap)
{
    if (c->failed)
        snprintf(buf, cap, "%s: %s", c->name, c->line + strlen(START_FAILED));
    else if (WIFSIGNALED(c->status))
        snprintf(buf, cap, "%s was ended by signal %d (%s)", c->name, WTERMSIG(c->status),
                 strsignal(WTERMSIG(c->status)));
    else
        snprintf(buf, cap, "%s ended with exit code %d", c->name, WEXITSTATUS(c->status));
}

bool child_ready_value(const struct child *c, const char *key, char *buf, size_t cap)
{
    size_t n_key = strlen(key);
    for (const char *at = c->line; *at;) {
        size_t n = strcspn(at, " ");
        if (n > n_key && strncmp(at, key, n_key) == 0 && at[n_key] == '=') {
            snprintf(buf, cap, "%.*s", (int)(n - n_key - 1), at + n_key + 1);
            return true;
        }
        at += n;
        at += strspn(at, " ");
    }
    return false;
}

void child_signal(const struct child *c, int sig)
{
    if (c->pid > 0) kill(c->pid, sig);
}
