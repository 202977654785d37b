/* node.c - the process of a prefill or decode node. */
#include "node/node.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mailbox.h"
#include "base/mem.h"
#include "base/random.h"
#include "base/start_report.h"
#include "node/node_admin.h"
#include "parallel/ranks.h"
#include "wire/zsock.h"

#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ENGINE_EVENTS_MAX (1 << 16)
#define KV_EVENTS_MAX     (1 << 16)
_Static_assert(KV_EVENTS_MAX > 2 * JOBS_MAX, "the KV sender never waits for the loop");
#define EVENTS_AT_ONCE 512
#define TICK_MS        100
#define GOODBYE_MS     500
#define GRACE_TICKS    3 /* idle that long before a drain ends: what was said last is out by then */

struct node {
    const struct node_role *role;
    struct config_run run;
    uv_loop_t loop;
    struct loaded_model model;
    struct jobs *jobs;
    struct links *links;
    struct node_admin *admin;
    struct metrics *metrics;
    struct mailbox *engine_box, *kv_box;
    char *coordinators; /* their endpoints, with commas between */
    uint64_t incarnation;
    void *state;                            /* the role's */
    struct cache_geometry_message geometry; /* hello's */
    Baton__Control__Register hello;
    uv_poll_t engine_poll, kv_poll;
    uv_signal_t sigterm, sigint;
    uv_timer_t tick;
    bool draining, leaving, failed; /* failed: its device has, and the exit code says so */
    uint64_t drain_ms, leave_ms;
    uint32_t idle_ticks;
    bool told_ready;
};

const struct config_run *node_config(const struct node *n)
{
    return &n->run;
}
const struct loaded_model *node_model(const struct node *n)
{
    return &n->model;
}
struct engine *node_engine(const struct node *n)
{
    return n->model.engine;
}
struct jobs *node_jobs(const struct node *n)
{
    return n->jobs;
}
struct metrics *node_metrics(const struct node *n)
{
    return n->metrics;
}
uint64_t node_incarnation(const struct node *n)
{
    return n->incarnation;
}
bool node_is_draining(const struct node *n)
{
    return n->draining;
}
bool node_is_ready(const struct node *n)
{
    return !n->draining && n->links && links_any_up(n->links);
}

/* ---- events of other threads ---- */

static void event_free(struct node_event *ev)
{
    mem_free((void *)(uintptr_t)ev->engine.blocks);
    mem_free((void *)(uintptr_t)ev->engine.logprobs);
    mem_free((void *)(uintptr_t)ev->engine.message);
    mem_free((void *)(uintptr_t)ev->send.message);
    mem_free((void *)(uintptr_t)ev->recv.message);
    mem_free(ev);
}

/* Where the loop is behind, who feeds it waits: an engine does not step, a KV lane reads nothing and so grants no
 * credit. No circle can form: the loop waits for neither of them, and for the KV sender's commands only.  The sender's
 * own events always fit: each job has at most two (its transfer's end and the answer to kv_send_end()), which is less
 * than KV_EVENTS_MAX. */
static void post_event(struct node *n, struct node_event *ev)
{
    struct mailbox *box = ev->kind == NODE_ENGINE ? n->engine_box : n->kv_box;
    if (mailbox_post_wait(box, ev) != OK) event_free(ev); /* closed: the process ends */
}

static char *copy_text(const char *s)
{
    return s ? mem_strdup(s) : NULL;
}

static void on_engine_event(void *ctx, const struct engine_event *e)
{
    struct node *n = ctx;
    struct node_event *ev;

    if (n->role->on_engine_thread(n->state, e)) return;
    ev = mem_zalloc(sizeof(*ev));
    ev->kind = NODE_ENGINE;
    ev->engine = *e;
    ev->engine.message = copy_text(e->message);
    ev->engine.blocks = NULL;
    ev->engine.logprobs = NULL;
    if (e->kind == ENGINE_RESERVED && e->n_blocks) {
        kv_block_id *blocks = mem_array(e->n_blocks, sizeof(*blocks));
        memcpy(blocks, e->blocks, e->n_blocks * sizeof(*blocks));
        ev->engine.blocks = blocks;
    }
    if (e->logprobs) {
        struct token_logprobs *lp = mem_alloc(sizeof(*lp));
        *lp = *e->logprobs;
        ev->engine.logprobs = lp;
    }
    post_event(n, ev);
}

void node_post_kv_send(void *node, const struct kv_send_event *e)
{
    struct node_event *ev = mem_zalloc(sizeof(*ev));
    ev->kind = NODE_KV_SEND;
    ev->send = *e;
    ev->send.message = copy_text(e->message);
    post_event(node, ev);
}

void node_post_kv_recv(void *node, const struct kv_recv_event *e)
{
    struct node_event *ev = mem_zalloc(sizeof(*ev));
    ev->kind = NODE_KV_RECV;
    ev->recv = *e;
    ev->recv.message = copy_text(e->message);
    post_event(node, ev);
}

/* Says goodbye; the loop ends when that has been heard, or soon. */
static void leave(struct node *n, const char *reason)
{
    if (n->leaving) return;
    n->leaving = true;
    n->leave_ms = clock_now_ms();
    links_say_goodbye(n->links, reason);
}

/* A device that has failed computes nothing any more.  What it was asked for goes on elsewhere as after a death: that
 * it failed here is not said of each job, which would count against the job. */
static bool leave_failed_device(struct node *n)
{
    if (!n->links || !backend_failed(ranks_backend(n->model.ranks, 0))) return false;
    n->failed = true;
    leave(n, "its device has failed");
    return true;
}

static void on_box(uv_poll_t *h, int status, int events)
{
    struct node *n = h->data;
    struct mailbox *box = h == &n->engine_poll ? n->engine_box : n->kv_box;
    struct node_event *ev;

    (void)status, (void)events;
    if (leave_failed_device(n)) return;
    for (int i = 0; i < EVENTS_AT_ONCE && (ev = mailbox_try_take(box)); i++) {
        n->role->on_event(n->state, ev);
        event_free(ev);
    }
    jobs_flush(n->jobs);
}

/* ---- the coordinator's side ---- */

static void fill_load(struct node *n, Baton__Control__Load *out, uint32_t by_state[KV_STATE_COUNT])
{
    struct engine_load load;
    struct kv_metrics *kv = n->role->kv_metrics(n->state);
    bool sends = n->role->role == BATON__CONTROL__ROLE__PREFILL;
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");

    if (f && fscanf(f, "%*d %ld", &pages) != 1) pages = 0;
    if (f) fclose(f);
    engine_load(n->model.engine, &load);
    out->running = load.n_running;
    out->waiting = load.n_waiting;
    out->reserved = load.n_reserved;
    out->blocks_free = load.blocks[KV_FREE] + load.blocks[KV_CACHED];
    out->blocks_total = n->model.n_blocks;
    memcpy(by_state, load.blocks, sizeof(load.blocks));
    out->n_blocks_by_state = KV_STATE_COUNT;
    out->blocks_by_state = by_state;
    out->prefill_tok_s = load.prefill_tok_s;
    out->decode_tok_s = load.decode_tok_s;
    out->prefix_queries = load.prefix_queries;
    out->prefix_hits = load.prefix_hits;
    if (sends)
        out->kv_bytes_sent = (uint64_t)metric_value(kv->bytes);
    else
        out->kv_bytes_received = (uint64_t)metric_value(kv->bytes);
    out->transfers = (uint32_t)metric_value(kv->transfers);
    out->rss_bytes = (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void fill_heartbeat(void *ctx, Baton__Control__Heartbeat *h)
{
    static uint32_t by_state[KV_STATE_COUNT]; /* until the message is packed, on this thread */
    static Baton__Control__Load load;
    struct node *n = ctx;

    baton__control__load__init(&load);
    fill_load(n, &load, by_state);
    h->load = &load;
    h->draining = n->draining;
}

static void tell_ready(struct node *n)
{
    const char *kv = n->hello.n_kv_endpoints ? n->hello.kv_endpoints[0] : "-";

    if (n->told_ready) return;
    n->told_ready = true;
    log_info("ready", "admin=%s kv=%s", node_admin_address(n->admin), kv);
    if (n->run.ready_fd < 0) return;
    dprintf(n->run.ready_fd, "ready %s admin=%s kv=%s\n", n->run.self->name, node_admin_address(n->admin), kv);
    close(n->run.ready_fd);
    n->run.ready_fd = -1;
}

static void on_welcome(void *ctx, struct link *l)
{
    (void)l;
    tell_ready(ctx);
}

static void on_message(void *ctx, struct link *l, const Baton__Control__ControlMessage *m)
{
    struct node *n = ctx;
    n->role->on_message(n->state, l, m);
}

static void on_lost(void *ctx, uint64_t incarnation)
{
    struct node *n = ctx;
    n->role->on_coordinator_lost(n->state, incarnation);
}

/* What it does not take in is not made. */
static void on_behind(void *ctx, uint64_t incarnation, bool behind)
{
    struct node *n = ctx;
    engine_pause(n->model.engine, incarnation, behind);
}

static void fill_hello(struct node *n)
{
    Baton__Control__Register *h = &n->hello;

    baton__control__register__init(h);
    h->node = n->run.self->name;
    h->role = n->role->role;
    h->model = n->model.config->name;
    cache_geometry_pack(&n->geometry, &n->model.geometry);
    h->geometry = &n->geometry.msg;
    h->max_seqs = n->run.self->max_seqs;
    h->n_blocks = n->model.n_blocks_each;
    h->max_context = n->model.max_context;
    h->n_vocab = n->model.info.n_vocab;
    h->version = (char *)(uintptr_t)BATON_VERSION;
    h->admin = (char *)(uintptr_t)node_admin_address(n->admin);
    n->role->describe(n->state, h);
}

/* ---- life and death ---- */

static void on_signal(uv_signal_t *h, int number)
{
    struct node *n = h->data;

    if (number == SIGINT || n->draining) {
        log_info("stopping", "signal=%d jobs=%u", number, jobs_count(n->jobs));
        leave(n, "the node was told to stop at once");
        return;
    }
    n->draining = true;
    n->drain_ms = clock_now_ms();
    log_info("draining", "jobs=%u", jobs_count(n->jobs));
    links_beat(n->links);
}

static void on_tick(uv_timer_t *h)
{
    struct node *n = h->data;

    if (!leave_failed_device(n)) jobs_retry(n->jobs, n->model.engine);
    jobs_withdraw_late(n->jobs, n->model.engine);
    jobs_flush(n->jobs);
    log_left_out();
    if (n->leaving && (!links_any_up(n->links) || clock_now_ms() - n->leave_ms > GOODBYE_MS)) uv_stop(&n->loop);
    if (!n->draining || n->leaving) return;
    n->idle_ticks = jobs_count(n->jobs) == 0 ? n->idle_ticks + 1 : 0;
    if (n->idle_ticks >= GRACE_TICKS) {
        log_info("drained", "ms=%llu", (unsigned long long)(clock_now_ms() - n->drain_ms));
        leave(n, "the node has drained");
    } else if (clock_now_ms() - n->drain_ms > n->run.cfg.coordinator.shutdown_timeout_ms) {
        log_warn("drain_timeout", "jobs=%u", jobs_count(n->jobs));
        leave(n, "the node's time to drain is over");
    }
}

static enum status open_loop(struct node *n, struct error *err)
{
    if (uv_loop_init(&n->loop) != 0) return error_set(err, ERR_IO, "cannot make an event loop");
    n->loop.data = n;
    uv_poll_init(&n->loop, &n->engine_poll, mailbox_fd(n->engine_box));
    uv_poll_init(&n->loop, &n->kv_poll, mailbox_fd(n->kv_box));
    uv_signal_init(&n->loop, &n->sigterm);
    uv_signal_init(&n->loop, &n->sigint);
    uv_timer_init(&n->loop, &n->tick);
    n->engine_poll.data = n->kv_poll.data = n->sigterm.data = n->sigint.data = n->tick.data = n;
    uv_poll_start(&n->engine_poll, UV_READABLE, on_box);
    uv_poll_start(&n->kv_poll, UV_READABLE, on_box);
    uv_signal_start(&n->sigterm, on_signal, SIGTERM);
    uv_signal_start(&n->sigint, on_signal, SIGINT);
    uv_timer_start(&n->tick, on_tick, TICK_MS, TICK_MS);
    return OK;
}

static enum status open_node(struct node *n, struct error *err)
{
    n->coordinators = config_list_join(&n->run.cfg.coordinator.control);
    const struct links_options lo = { .loop = &n->loop,
                                      .endpoints = n->coordinators,
                                      .incarnation = n->incarnation,
                                      .hello = &n->hello,
                                      .fill_heartbeat = fill_heartbeat,
                                      .on_welcome = on_welcome,
                                      .on_message = on_message,
                                      .on_lost = on_lost,
                                      .ctx = n,
                                      .on_behind = on_behind,
                                      .kept_bytes = n->run.cfg.coordinator.link_bytes };
    enum status st;

    n->metrics = metrics_create();
    n->jobs = jobs_create();
    metric_set(metrics_get(n->metrics, METRIC_GAUGE, "baton_build_info", "The program's version.",
                           "version=\"" BATON_VERSION "\"", NULL, 0),
               1);
    if ((st = mailbox_create(&n->engine_box, ENGINE_EVENTS_MAX)) != OK) return st;
    if ((st = mailbox_create(&n->kv_box, KV_EVENTS_MAX)) != OK) return st;
    if ((st = open_loop(n, err)) != OK) return st;
    if ((st = node_admin_open(&n->admin, &n->loop, n, n->run.self->admin, err)) != OK) return st;
    if ((st = load_model(&n->model, &n->run, on_engine_event, n, err)) != OK) return st;
    if ((st = n->role->open(n, &n->state, err)) != OK) return st;
    fill_hello(n);
    return links_open(&n->links, &lo, err);
}

static void close_any(uv_handle_t *h, void *ctx)
{
    (void)ctx;
    if (!uv_is_closing(h)) uv_close(h, NULL);
}

static void drop_events(struct mailbox *box)
{
    struct node_event *ev;
    while (box && (ev = mailbox_try_take(box))) event_free(ev);
    mailbox_destroy(box);
}

static void close_node(struct node *n)
{
    if (n->engine_box) mailbox_close(n->engine_box); /* nobody takes any more: who waits goes on to its end */
    if (n->kv_box) mailbox_close(n->kv_box);
    links_close(n->links);
    n->links = NULL;
    if (n->state) n->role->stop(n->state);  /* before the engine: these threads touch its KV memory */
    stop_model(&n->model);                  /* before the role: its events go there */
    if (n->state) n->role->close(n->state); /* before the backend: frames are its memory */
    unload_model(&n->model);
    node_admin_close(n->admin);
    if (n->loop.data == n) {
        uv_walk(&n->loop, close_any, NULL);
        uv_run(&n->loop, UV_RUN_DEFAULT);
        uv_loop_close(&n->loop);
    }
    drop_events(n->engine_box);
    drop_events(n->kv_box);
    jobs_destroy(n->jobs);
    metrics_destroy(n->metrics);
    zsock_context_term();
}

static int run_node(struct node *n)
{
    struct error err = { OK, "" };
    enum status st = open_node(n, &err);

    if (st != OK && !start_report_failed(n->run.ready_fd, err.text))
        log_error("start_failed", "status=%s reason=%s", status_text(st), log_quote(err.text));
    if (st == OK) uv_run(&n->loop, UV_RUN_DEFAULT);
    close_node(n);
    const int code = st == OK && !n->failed ? 0 : 1;
    if (st == OK) log_info("stopped", "exit=%d", code);
    return code;
}

int node_main(const struct node_role *role, int argc, char **argv)
{
    struct node *n = mem_zalloc(sizeof(*n));
    enum log_level level = LOG_LEVEL_INFO;
    struct error err = { OK, "" };
    int code = 0;

    signal(SIGPIPE, SIG_IGN);
    /* KV frames come and go by the megabyte: keep their memory instead of mapping it anew each time. */
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 16 << 20);
    n->role = role;
    if (config_load(&n->run, role->config, argc, argv, &err) != OK) {
        if (!start_report_failed(n->run.ready_fd, err.text)) fprintf(stderr, "%s: %s\n", role->program, err.text);
        code = 2;
    } else if (!n->run.help && !n->run.check_only) {
        if (log_level_parse(n->run.cfg.log.level, &level) != OK) level = LOG_LEVEL_INFO;
        log_init(level, n->run.self->name);
        n->incarnation = random_id();
        code = run_node(n);
    } else if (n->run.check_only) {
        printf("%s: the configuration is fine\n", role->program);
    }
    mem_free(n->coordinators);
    config_fini(&n->run);
    mem_free(n);
    return code;
}
