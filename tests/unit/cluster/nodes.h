/* nodes.h - nodes as processes of their own, forked from the test, around a coordinator on the test's loop.
 *
 *     node_start(&n[0], &prefill_role, "p0", "--threads 1");    // before the house: a child takes no threads along
 *     cluster_open();
 *     node_wait_ready(&n[0]);   ...   node_stop(&n[0], SIGTERM) == 0 */
#ifndef TESTS_CLUSTER_NODES_H
#define TESTS_CLUSTER_NODES_H
#include "decode_node/decode.h"
#include "helpers/tiny_model.h"
#include "prefill_node/prefill.h"
#include "tests/unit/coordinator/house.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define CLUSTER_MODEL    TEST_DATA "/golden/families/llama.f16.gguf"
#define CLUSTER_MAX_ARGS 40

struct node_process {
    pid_t pid;
    int ready_fd;
    char line[256]; /* what it said when it was ready, or why it is not */
    int port;       /* of its admin address */
    int code;       /* once it has ended */
};

static char cluster_control[64];
static int cluster_number; /* of the control endpoint, for tests with several houses in turn */

static inline const char *cluster_endpoint(void)
{
    snprintf(cluster_control, sizeof(cluster_control), "ipc:///tmp/baton-cluster-%d-%d.sock", (int)getpid(),
             cluster_number);
    return cluster_control;
}

/* Runs `role` in a child; the words of `more` are further flags. */
static inline void node_start(struct node_process *n, const struct node_role *role, const char *name, const char *more)
{
    int fds[2];
    char words[512], fd_text[16], *save = NULL;
    const char *endpoint = cluster_endpoint();
    cr_assert_eq(pipe(fds), 0);
    *n = (struct node_process){ .pid = fork(), .ready_fd = fds[0] };
    cr_assert_geq(n->pid, 0);
    if (n->pid > 0) {
        close(fds[1]);
        return;
    }
    close(fds[0]);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(fd_text, sizeof(fd_text), "%d", fds[1]);
    snprintf(words, sizeof(words), "%s", more);
    char *argv[CLUSTER_MAX_ARGS] = { (char *)"node",   (char *)"--name",       (char *)name,  (char *)"--control",
                                     (char *)endpoint, (char *)"--ready-fd",   fd_text,       (char *)"--log-level",
                                     (char *)"error",  (char *)"--model-name", (char *)"tiny" };
    int argc = 11;
    for (char *w = strtok_r(words, " ", &save); w && argc < CLUSTER_MAX_ARGS; w = strtok_r(NULL, " ", &save))
        argv[argc++] = w;
    exit(node_main(role, argc, argv));
}

/* Runs the loop until the node has said that it is ready, or that it cannot be. */
static inline void node_wait_ready(struct node_process *n)
{
    time_t end = time(NULL) + HOUSE_WAIT_S;
    size_t used = 0;
    fcntl(n->ready_fd, F_SETFL, O_NONBLOCK);
    while (!memchr(n->line, '\n', used)) {
        if (h.co) house_turn(n->ready_fd);
        ssize_t got = read(n->ready_fd, n->line + used, sizeof(n->line) - 1 - used);
        cr_assert(got != 0 && time(NULL) < end, "no word of a node: %s", n->line);
        if (got > 0) used += (size_t)got;
        if (!h.co) poll(NULL, 0, 2);
    }
    const char *admin = strstr(n->line, "admin=127.0.0.1:");
    if (admin) n->port = (int)strtol(admin + strlen("admin=127.0.0.1:"), NULL, 10);
}

/* Sends a signal (0: none), and runs the loop until the node has ended; its exit code. */
static inline int node_end(struct node_process *n, int signal_number)
{
    int status = 0;
    time_t end = time(NULL) + HOUSE_WAIT_S;
    if (signal_number) kill(n->pid, signal_number);
    while (waitpid(n->pid, &status, WNOHANG) == 0) {
        cr_assert(time(NULL) < end, "node %d does not end", (int)n->pid);
        if (h.co)
            house_turn(-1);
        else
            poll(NULL, 0, 2);
    }
    close(n->ready_fd);
    return n->code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static inline void cluster_open(const char *model, const char *options)
{
    char all[512];
    snprintf(all, sizeof(all), "  control: [ \"%s\" ]\n  heartbeat: 100ms\n%s", cluster_endpoint(), options);
    house_open_model(model, all);
}

/* A model whose answers may be long enough to be met under way; tiny_remove() deletes it. */
static inline char *cluster_long_model(void)
{
    struct tiny_options o = tiny_defaults();
    o.n_vocab = BYTES_COUNT;
    o.context = 100000;
    o.more = bytes_vocab;
    return tiny_write(&o);
}

/* Asks the node's admin address; the loop runs meanwhile. */
static inline struct reply node_ask(const struct node_process *n, const char *line)
{
    return read_reply(send_to(n->port, line, "", NULL));
}

/* A metric of a node; -1: it is not there. */
static inline double node_metric(const struct node_process *n, const char *series)
{
    return metric_in(node_ask(n, "GET /metrics").body, series);
}
#endif
