/* launch.c - starts the children of a one-host cluster in order, watches them, stops them in order.
 *
 * Order up: coordinator, then each model's shared weights, then all nodes.  Order down: the coordinator drains first
 * (it needs its nodes for that), then the nodes.  All waiting is one poll() over the ready pipes and a signalfd.
 *
 * The exit code follows from one field: 1 if fail() was ever called, which prints the first reason; else 0. */
#include "coordinator/cli/launch.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "compute/backend.h"
#include "config/config.h"
#include "coordinator/cli/child.h"
#include "coordinator/cli/share_cpus.h"
#include "coordinator/cli/share_gpus.h"
#include "http/http_server.h"
#include "model/model.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_CHILDREN     (1 + 2 * CONFIG_MAX_NODES)
#define START_TIMEOUT_MS 600000

enum launch_stop { RUNNING, DRAINING, STOPPING };

struct launch {
    const struct config *cfg;
    int config_fd;                       /* all of cfg as YAML, for the children */
    struct child children[MAX_CHILDREN]; /* [0] is the coordinator */
    size_t n_children;
    int signal_fd;
    int weights_fd[CONFIG_MAX_MODELS];
    char control[256], http[256];
    struct cpu_list cpus[2 * CONFIG_MAX_NODES]; /* where nodes run, decode nodes first; empty: anywhere */
    enum launch_stop stop;
    bool asked;  /* to stop, by a signal */
    bool ready;  /* all of it was */
    bool failed; /* set by fail() alone */
};

/* The only judge of the exit code: the first reason is printed, what follows from it is not. */
static void fail(struct launch *l, const char *reason)
{
    if (!l->failed) fprintf(stderr, "error: %s\n", reason);
    l->failed = true;
}

static struct child *coordinator_of(struct launch *l)
{
    return &l->children[0];
}

static void signal_nodes(struct launch *l, int sig)
{
    for (size_t i = 1; i < l->n_children; i++) child_signal(&l->children[i], sig);
}

/* First call drains; later calls stop everything at once. */
static void begin_stop(struct launch *l)
{
    if (l->stop == RUNNING) {
        l->stop = DRAINING;
        if (coordinator_of(l)->pid > 0)
            child_signal(coordinator_of(l), SIGTERM);
        else
            signal_nodes(l, SIGTERM);
        return;
    }
    l->stop = STOPPING;
    child_signal(coordinator_of(l), SIGKILL);
    signal_nodes(l, SIGKILL);
}

/* A node that dies alone is replaced by others in the cluster's work; the coordinator's end is the cluster's.  During
 * the start wait_ready() judges, as a reason may still be in the pipe. */
static void child_ended(struct launch *l, struct child *c, int status)
{
    char why[ERROR_TEXT_MAX];
    c->pid = 0;
    c->status = status;
    child_explain(c, why, sizeof(why));
    if (l->stop == RUNNING && !l->ready) return;
    if (l->stop == RUNNING && c == coordinator_of(l))
        fail(l, why);
    else if (l->stop == RUNNING)
        log_error("child_ended", "child=%s reason=%s", c->name, log_quote(why));
    else if (!child_ended_cleanly(c))
        fail(l, why);
    if (c != coordinator_of(l)) return;
    if (l->stop == RUNNING) l->stop = DRAINING;
    signal_nodes(l, SIGTERM);
}

static void reap_children(struct launch *l)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (size_t i = 0; i < l->n_children; i++)
            if (l->children[i].pid == pid) child_ended(l, &l->children[i], status);
}

static void take_signals(struct launch *l)
{
    struct signalfd_siginfo info;
    while (read(l->signal_fd, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo == SIGCHLD)
            reap_children(l);
        else {
            l->asked = true;
            begin_stop(l);
        }
    }
}

/* One round of poll() over signals and ready pipes. */
static void wait_events(struct launch *l, int timeout_ms)
{
    struct pollfd fds[MAX_CHILDREN + 1] = { { .fd = l->signal_fd, .events = POLLIN } };
    for (size_t i = 0; i < l->n_children; i++)
        fds[i + 1] = (struct pollfd){ .fd = l->children[i].ready_fd, .events = POLLIN };
    if (poll(fds, l->n_children + 1, timeout_ms) <= 0) return;
    for (size_t i = 0; i < l->n_children; i++)
        if (fds[i + 1].revents) child_read_ready(&l->children[i]);
    if (fds[0].revents) take_signals(l);
}

/* Waits until children [from, n_children) are ready; an error when any child ends or a signal comes first. */
static enum status wait_ready(struct launch *l, size_t from, struct error *err)
{
    uint64_t deadline = clock_now_ms() + START_TIMEOUT_MS;
    for (;;) {
        size_t n_ready = 0;
        if (l->asked) return error_set(err, ERR_CANCELLED, "stopped before the cluster was ready");
        for (size_t i = 0; i < l->n_children; i++) {
            const struct child *c = &l->children[i];
            n_ready += i >= from && c->ready;
            if (!child_start_is_over(c)) continue;
            child_explain(c, err->text, sizeof(err->text));
            return err->status = ERR_CLOSED;
        }
        if (n_ready == l->n_children - from) return OK;
        if (clock_now_ms() > deadline)
            return error_set(err, ERR_TIMEOUT, "the cluster was not ready within %d s", START_TIMEOUT_MS / 1000);
        wait_events(l, 1000);
    }
}

/* The configuration as a file that children open by its descriptor. */
static enum status write_config(struct launch *l, struct error *err)
{
    struct strbuf text = STRBUF_INIT;
    config_dump(l->cfg, &text);
    l->config_fd = memfd_create("baton-config", MFD_CLOEXEC);
    bool written = l->config_fd >= 0 && write(l->config_fd, text.s, text.n) == (ssize_t)text.n;
    strbuf_fini(&text);
    return written ? OK : error_set(err, ERR_IO, "cannot hand the configuration on: %s", strerror(errno));
}

static enum status start_coordinator(struct launch *l, struct error *err)
{
    const char *const none[] = { NULL };
    enum status st =
        child_start(coordinator_of(l), "coordinator", "baton-coordinator", none, l->config_fd, -1, NULL, err);
    if (st != OK) return st;
    l->n_children = 1;
    if ((st = wait_ready(l, 0, err)) != OK) return st;
    if (!child_ready_value(coordinator_of(l), "http", l->http, sizeof(l->http)) ||
        !child_ready_value(coordinator_of(l), "control", l->control, sizeof(l->control)))
        return error_set(err, ERR_INTERNAL, "the coordinator's ready line names no addresses: %s",
                         coordinator_of(l)->line);
    return OK;
}

static void show_progress(void *ctx, uint64_t done, uint64_t all)
{
    if (!isatty(STDERR_FILENO) || all == 0) return;
    fprintf(stderr, "\rloading %s  %3d %%", (const char *)ctx, (int)(done * 100 / all));
    if (done == all) fputc('\n', stderr);
}

/* What the nodes of model i ask for together: one shared copy, if any of them keeps weights in memory.  Their KV and
 * that of all other nodes, pools and tiers, must fit beside it. */
struct wish {
    const char *weights, *io;
    uint64_t kv_bytes;
};

/* Ranks pack their own parts of the weights, and a GPU has them in its own memory. */
static bool loads_alone(const struct config_node *node)
{
    return node->tp > 1 || node->pp > 1 || is_on_gpu(node);
}

static uint64_t host_kv_bytes(const struct config_node *node)
{
    if (is_on_gpu(node)) return 0;
    return node->kv_memory ? node->kv_memory : CONFIG_HOST_KV_MEMORY;
}

static void add_wish(const struct launch *l, uint32_t i, const struct config_node *nodes, uint32_t n, struct wish *w)
{
    for (uint32_t k = 0; k < n; k++) {
        w->kv_bytes += host_kv_bytes(&nodes[k]) + l->cfg->kv.tier_bytes;
        if (config_model_find(l->cfg, nodes[k].model) != &l->cfg->models[i]) continue;
        if (loads_alone(&nodes[k])) continue;
        w->io = nodes[k].io;
        if (strcmp(w->weights, "resident") != 0 && strcmp(nodes[k].weights, "stream") != 0)
            w->weights = nodes[k].weights;
    }
}

static const struct backend_limits SMALL = {
    .max_rows = 1, .max_context = KV_BLOCK_TOKENS, .max_cols = 1 << 16, .max_heads = 1, .max_head_dim = 64
};

/* A processor that a node cannot use is told of before weights are read for minutes. */
static enum status check_processor(const struct config_node *node, struct error *err)
{
    struct backend *backend = NULL;
    const struct backend_options opt = { .n_threads = 1, .isa = node->isa, .limits = SMALL };
    enum status st = backend_open(&backend, "cpu", &opt, err);
    if (st == OK)
        backend_close(backend);
    else
        error_prefix(err, "%s", node->name);
    return st;
}

static enum status check_processors(const struct config *cfg, struct error *err)
{
    enum status st = OK;
    for (uint32_t i = 0; i < cfg->n_decode && st == OK; i++) st = check_processor(&cfg->decode[i], err);
    for (uint32_t i = 0; i < cfg->n_prefill && st == OK; i++) st = check_processor(&cfg->prefill[i], err);
    return st;
}

static enum status pack_model(struct launch *l, uint32_t i, struct error *err)
{
    const struct config *cfg = l->cfg;
    struct wish wish = { "stream", "auto", 0 };
    add_wish(l, i, cfg->decode, cfg->n_decode, &wish);
    add_wish(l, i, cfg->prefill, cfg->n_prefill, &wish);
    struct backend *backend = NULL;
    struct cpu_list allowed;
    cpu_list_allowed(&allowed);
    /* It packs and computes nothing: any level's panels are the same. */
    enum status st = backend_open(
        &backend, "cpu",
        &(struct backend_options){ .n_threads = cpus_default_threads("", &allowed), .isa = "ref", .limits = SMALL },
        err);
    if (st != OK) return st;
    struct model_options opt = {
        .path = cfg->models[i].path,
        .backend = backend,
        .rotate = cfg->kv.rotate,
        .max_batch_tokens = 1,
        .weights_fd = -1,
        .progress = show_progress,
        .progress_ctx = cfg->models[i].name,
        .kv_bytes = wish.kv_bytes,
    };
    st = model_options_words(&opt, wish.weights, wish.io, err);
    if (st == OK) st = model_pack_shared(&l->weights_fd[i], &opt, err);
    backend_close(backend);
    return st;
}

static enum status start_node(struct launch *l, const struct config_node *node, bool is_decode,
                              const struct cpu_list *cpus, struct error *err)
{
    const struct config_model *model = config_model_find(l->cfg, node->model);
    int shared_fd = model ? l->weights_fd[model - l->cfg->models] : -1;
    int weights_fd = strcmp(node->weights, "stream") == 0 || loads_alone(node) ? -1 : shared_fd;
    const bool streams = weights_fd < 0 && !loads_alone(node); /* where one copy for all did not fit */
    const char *const args[] = { "--name",   node->name,  "--coordinator",
                                 l->control, "--weights", streams ? "stream" : node->weights,
                                 NULL };
    enum status st = child_start(&l->children[l->n_children], node->name, is_decode ? "baton-decode" : "baton-prefill",
                                 args, l->config_fd, weights_fd, cpus, err);
    if (st == OK) l->n_children++;
    return st;
}

static enum status start_all(struct launch *l, struct error *err)
{
    const struct config *cfg = l->cfg;
    enum status st = check_processors(cfg, err);
    if (st == OK) st = write_config(l, err);
    share_cpus(cfg, l->cpus);
    if (st == OK) st = start_coordinator(l, err);
    for (uint32_t i = 0; i < cfg->n_models && st == OK; i++) st = pack_model(l, i, err);
    for (uint32_t i = 0; i < cfg->n_decode && st == OK; i++)
        st = start_node(l, &cfg->decode[i], true, &l->cpus[i], err);
    for (uint32_t i = 0; i < cfg->n_prefill && st == OK; i++)
        st = start_node(l, &cfg->prefill[i], false, &l->cpus[cfg->n_decode + i], err);
    if (st != OK) return st;
    /* The mappings of the nodes keep the weights; a descriptor here would keep them after the nodes' end. */
    st = wait_ready(l, 1, err);
    for (uint32_t i = 0; i < cfg->n_models; i++) {
        if (l->weights_fd[i] >= 0) close(l->weights_fd[i]);
        l->weights_fd[i] = -1;
    }
    return st;
}

static bool any_running(const struct launch *l)
{
    for (size_t i = 0; i < l->n_children; i++)
        if (l->children[i].pid > 0) return true;
    return false;
}

/* Runs until all children are gone.  While stopping, children get the configured time, then SIGKILL. */
static void run_until_end(struct launch *l)
{
    uint64_t kill_at = 0;
    while (any_running(l)) {
        wait_events(l, 200);
        reap_children(l);
        if (l->stop == RUNNING) continue;
        uint64_t now = clock_now_ms();
        if (!kill_at) kill_at = now + l->cfg->coordinator.shutdown_timeout_ms + 5000;
        if (now > kill_at && l->stop != STOPPING) begin_stop(l);
    }
}

static void print_ready(const struct launch *l)
{
    bool is_file = strncmp(l->http, HTTP_UNIX, strlen(HTTP_UNIX)) == 0;
    const char *socket = is_file ? l->http + strlen(HTTP_UNIX) : "", *host = is_file ? "localhost" : l->http;
    printf("ready %s%s\n\n"
           "  curl %s%s%shttp://%s/v1/chat/completions -H 'Content-Type: application/json' \\\n"
           "    -d '{\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}],\"stream\":true}' -N\n\n",
           is_file ? "" : "http://", l->http, is_file ? "--unix-socket " : "", socket, is_file ? " " : "", host);
    fflush(stdout);
}

int launch_cluster(const struct config *cfg)
{
    struct launch *l = mem_zalloc(sizeof(*l));
    struct error err = { 0 };
    l->cfg = cfg;
    l->config_fd = -1;
    for (size_t i = 0; i < CONFIG_MAX_MODELS; i++) l->weights_fd[i] = -1;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGQUIT);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    l->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    enum status st = start_all(l, &err);
    l->ready = st == OK;
    if (l->ready) {
        print_ready(l);
    } else if (!l->asked) {
        fail(l, err.text);
        begin_stop(l);
    }
    run_until_end(l);
    int rc = l->failed ? 1 : 0;
    close(l->signal_fd);
    if (l->config_fd >= 0) close(l->config_fd);
    mem_free(l);
    return rc;
}
