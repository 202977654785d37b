/* program: a coordinator's process: what it says when it is ready or cannot be, and how it ends. */
#include "coordinator/program.h"

#include "tests/unit/coordinator/bytes_model.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#define WAIT_S 20

static char model[64];

struct process {
    pid_t pid;
    int fd;
    char line[512];
};

/* Runs it in a child; "@" stands for the model. */
static struct process start(const char *flags)
{
    struct process p = { 0 };
    int fds[2];
    snprintf(model, sizeof(model), "/tmp/baton-program-%d.gguf", (int)getpid());
    bytes_model_write(model, "llama", NULL);
    cr_assert_eq(pipe(fds), 0);
    p.fd = fds[0];
    p.pid = fork();
    if (p.pid == 0) {
        char words[512], fd_text[16], *argv[24] = { (char *)"baton-coordinator", (char *)"--ready-fd", fd_text },
                                      *save = NULL;
        int argc = 3;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(fds[0]);
        snprintf(fd_text, sizeof(fd_text), "%d", fds[1]);
        snprintf(words, sizeof(words), "%s", flags);
        for (char *w = strtok_r(words, " ", &save); w && argc < 24; w = strtok_r(NULL, " ", &save))
            argv[argc++] = strcmp(w, "@") == 0 ? model : w;
        exit(coordinator_main(argc, argv));
    }
    close(fds[1]);
    return p;
}

/* All that came through its pipe, up to the end of the line or of the pipe. */
static void read_line(struct process *p)
{
    size_t n = 0;
    while (n < sizeof(p->line) - 1 && (n == 0 || p->line[n - 1] != '\n')) {
        struct pollfd poll_fd = { .fd = p->fd, .events = POLLIN };
        cr_assert_gt(poll(&poll_fd, 1, WAIT_S * 1000), 0, "it says nothing");
        ssize_t got = read(p->fd, p->line + n, sizeof(p->line) - 1 - n);
        if (got <= 0) break;
        n += (size_t)got;
    }
    p->line[n] = '\0';
}

static int end(struct process *p, int signal_number)
{
    int status = 0;
    time_t until = time(NULL) + WAIT_S;
    if (signal_number) kill(p->pid, signal_number);
    while (waitpid(p->pid, &status, WNOHANG) == 0) {
        cr_assert(time(NULL) < until, "it does not end");
        poll(NULL, 0, 2);
    }
    close(p->fd);
    unlink(model);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

#define HERE "--model @ --model-name tiny --control tcp://127.0.0.1:0 --log-level error "

Test(program, says_its_addresses_and_ends_when_it_is_told)
{
    static const int signals[] = { SIGTERM, SIGINT, SIGQUIT };
    for (int i = 0; i < 3; i++) {
        struct process p = start(HERE "--port 0");
        char http[64], control[64], all[64];
        read_line(&p);
        cr_assert_eq(sscanf(p.line, "ready coordinator http=%63s control=%63s all=%63s", http, control, all), 3, "%s",
                     p.line);
        cr_assert(strcmp(http, all) == 0 && strncmp(http, "127.0.0.1:", 10) == 0 && strcmp(http, "127.0.0.1:0") != 0);
        cr_assert(strncmp(control, "tcp://127.0.0.1:", 16) == 0 && strcmp(control + 16, "0") != 0, "%s", control);
        cr_assert_eq(end(&p, signals[i]), 0);
    }
}

Test(program, names_a_port_rather_than_a_file)
{
    char flags[512], want[256];
    snprintf(flags, sizeof(flags), HERE "--http unix:/tmp/baton-program-%d.sock --http 127.0.0.1:0", (int)getpid());
    struct process p = start(flags);
    read_line(&p);
    cr_assert(strncmp(p.line, "ready coordinator http=127.0.0.1:", 33) == 0, "%s", p.line);
    snprintf(want, sizeof(want), " all=unix:/tmp/baton-program-%d.sock,127.0.0.1:", (int)getpid());
    cr_assert(strstr(p.line, want), "%s", p.line);
    cr_assert_eq(end(&p, SIGTERM), 0);
}

static int dial(int port)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    to.sin_port = htons((uint16_t)port);
    cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

/* Asks for `path` until the answer has `want`. */
static void until_it_says(int port, const char *path, const char *want)
{
    char text[4096];
    time_t late = time(NULL) + WAIT_S;
    do {
        cr_assert(time(NULL) < late, "%s does not say %s", path, want);
        int fd = dial(port),
            n = snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", path);
        cr_assert_eq(write(fd, text, (size_t)n), n);
        size_t used = 0;
        for (ssize_t got; (got = read(fd, text + used, sizeof(text) - 1 - used)) > 0;) used += (size_t)got;
        text[used] = '\0';
        close(fd);
    } while (!strstr(text, want));
}

Test(program, a_second_signal_ends_a_drain)
{
    struct process p = start(HERE "--port 0 --shutdown-timeout 1h");
    char text[512];
    int port = 0;
    read_line(&p);
    cr_assert_eq(sscanf(p.line, "ready coordinator http=127.0.0.1:%d", &port), 1);
    static const char body[] = "{\"prompt\":\"a\"}"; /* waits for a node */
    int fd = dial(port),
        n = snprintf(text, sizeof(text), "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n%s",
                     strlen(body), body);
    cr_assert_eq(write(fd, text, (size_t)n), n);
    until_it_says(port, "/admin/nodes", "\"requests_waiting\":1");
    kill(p.pid, SIGTERM);
    until_it_says(port, "/ready", "\"code\":\"draining\"");
    cr_assert_eq(waitpid(p.pid, NULL, WNOHANG), 0, "a drain waits for the answer");
    cr_assert_eq(end(&p, SIGTERM), 0);
    n = (int)read(fd, text, sizeof(text) - 1);
    cr_assert_gt(n, 0);
    text[n] = '\0';
    cr_assert(strncmp(text, "HTTP/1.1 503 ", 13) == 0, "%s", text);
    close(fd);
}

Test(program, what_is_wrong_is_an_exit_code_and_a_line)
{
    static const struct {
        const char *flags, *want;
        int code;
    } rows[] = {
        { "--model /no/such.gguf --port 0 --control tcp://127.0.0.1:0", "failed model such: /no/such.gguf", 1 },
        { HERE "--http 10.255.255.1:80 --insecure", "failed coordinator.http: cannot listen on 10.255.255.1:80", 1 },
        { HERE "--port 0 --max-queue x", "", 2 },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct process p = start(rows[i].flags);
        read_line(&p);
        cr_assert_eq(strncmp(p.line, rows[i].want, strlen(rows[i].want)), 0, "%s", p.line);
        cr_assert_eq(end(&p, 0), rows[i].code);
    }
    struct process p = start(HERE "--port 0 --check-config");
    cr_assert_eq(end(&p, 0), 0);
    p = start("--help");
    cr_assert_eq(end(&p, 0), 0);
}
