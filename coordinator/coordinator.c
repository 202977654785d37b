/* coordinator.c - puts the parts together, and takes them apart in order. */
#include "coordinator/coordinator.h"

#include "base/clock.h"
#include "base/fds.h"
#include "base/log.h"
#include "base/mem.h"
#include "coordinator/api.h"
#include "coordinator/ask.h"
#include "coordinator/call.h"
#include "coordinator/cluster/dispatch.h"
#include "coordinator/meters.h"
#include "coordinator/served_model.h"
#include "coordinator/work.h"

#include <string.h>
#include <sys/random.h>

#define OTHER_DESCRIPTORS (HTTP_RESERVE + 256u) /* nodes' links, listening sockets, files */
#define LEAST_CONNECTIONS 16
#define TICK_MS           250
#define DRAIN_TICK_MS     20
#define MAX_HEADER_BYTES  (64u << 10)
#define HEADER_MS         30000
#define IDLE_MS           75000

static enum status load_models(struct coordinator *co, struct error *err)
{
    for (uint32_t i = 0; i < co->sv.cfg->n_models; i++) {
        const struct config_model *m = &co->sv.cfg->models[i];
        enum status st = served_model_open(&co->sv.models[i], m->name, m->path, err);
        if (st != OK) return st;
        co->sv.models[i]->idx = i;
        co->sv.n_models = i + 1;
        log_info("model_loaded", "model=%s vocab=%u context=%u fingerprint=%016llx", m->name, co->sv.models[i]->n_vocab,
                 co->sv.models[i]->context_length, (unsigned long long)co->sv.models[i]->fingerprint);
    }
    if (co->sv.n_models == 0) return error_set(err, ERR_INVALID, "no model is configured: models: [{name, path}]");
    return OK;
}

static enum status open_dispatch(struct coordinator *co, struct error *err)
{
    const struct config *cfg = co->sv.cfg;
    struct dispatch_options opt = {
        .loop = co->loop,
        .control = cfg->coordinator.control.items[0], /* checked: there is one */
        .incarnation = co->sv.incarnation,
        .models = co->sv.models,
        .n_models = co->sv.n_models,
        .meters = co->sv.meters,
        .limits = { cfg->coordinator.request_timeout_ms, cfg->coordinator.progress_timeout_ms,
                    cfg->coordinator.node_wait_ms },
        .max_queue = cfg->coordinator.max_queue,
        .max_queue_bytes = cfg->coordinator.max_queue_bytes,
        .max_attempts = cfg->coordinator.max_attempts,
        .heartbeat_ms = cfg->coordinator.heartbeat_ms,
        .dead_after_ms = cfg->coordinator.dead_after_ms,
        .link_bytes = cfg->coordinator.link_bytes,
    };
    return dispatch_create(&co->sv.dispatch, &opt, err);
}

static enum status open_work(struct coordinator *co, struct error *err)
{
    struct work_limits limits = {
        .threads = co->sv.cfg->coordinator.workers,
        .max_items = co->sv.cfg->coordinator.max_work,
        .max_bytes = co->sv.cfg->coordinator.max_work_bytes,
    };
    json_object_seed(0); /* jansson does it at its first object, which would be on several threads */
    return work_create(&co->sv.work, co->loop, &limits, err);
}

/* As many descriptors as may be had; fewer connections where those are not enough. */
static enum status fit_descriptors(const struct coordinator *co, uint32_t *max_connections, struct error *err)
{
    uint32_t want = co->sv.cfg->coordinator.max_connections;
    uint64_t had = fds_raise(), fit = had > OTHER_DESCRIPTORS ? had - OTHER_DESCRIPTORS : 0;
    *max_connections = want < fit ? want : (uint32_t)fit;
    if (fit >= want) return OK;
    if (fit < LEAST_CONNECTIONS)
        return error_set(
            err, ERR_INVALID,
            "coordinator.max_connections: %u need %u descriptors, and this process may have %llu (ulimit -Hn)", want,
            want + OTHER_DESCRIPTORS, (unsigned long long)had);
    log_warn("connections_limited", "max_connections=%u descriptors=%llu needed=%u taken=%u", want,
             (unsigned long long)had, want + OTHER_DESCRIPTORS, *max_connections);
    return OK;
}

static enum status trust_proxies(const struct coordinator *co, struct http_trust *out, struct error *err)
{
    const struct config_list *list = &co->sv.cfg->coordinator.trusted_proxies;
    for (uint32_t i = 0; i < list->n; i++) {
        if (http_trust_add(out, list->items[i], err) != OK) return error_prefix(err, "coordinator.trusted_proxies");
    }
    return OK;
}

static enum status open_http(struct coordinator *co, struct error *err)
{
    static const char *const probes[] = { "/live", "/ready", "/health", "/metrics", NULL };
    const struct config_list *addresses = &co->sv.cfg->coordinator.http;
    struct http_limits limits = {
        .reserved_paths = probes,
        .max_header_bytes = MAX_HEADER_BYTES,
        .max_body_bytes = co->sv.cfg->coordinator.max_body_bytes,
        .max_unsent_bytes = 256u << 10,
        .header_timeout_ms = HEADER_MS,
        .idle_timeout_ms = IDLE_MS,
    };
    enum status st = fit_descriptors(co, &limits.max_connections, err);
    if (st != OK) return st;
    uint32_t each = co->sv.cfg->coordinator.max_connections_per_address;
    limits.max_per_address = each ? each : (limits.max_connections + 3) / 4;
    if ((st = trust_proxies(co, &limits.trusted, err)) != OK) return st;
    st = http_server_open(&co->http, co->loop, addresses->items[0], &limits, api_handle, &co->sv, err);
    if (st == OK) http_server_on_refused(co->http, api_refused);
    for (uint32_t i = 1; i < addresses->n && st == OK; i++)
        st = http_server_listen(co->http, addresses->items[i], false, err);
    if (st != OK) return error_prefix(err, "coordinator.http");
    if (!co->sv.cfg->coordinator.admin[0]) return OK;
    st = http_server_listen(co->http, co->sv.cfg->coordinator.admin, true, err);
    return st == OK ? OK : error_prefix(err, "coordinator.admin");
}

/* Drained: every call is answered, or the time for that is over. */
static void check_drain(struct coordinator *co, uint64_t now)
{
    uint64_t limit = (uint64_t)co->sv.cfg->coordinator.shutdown_timeout_ms * 1000;
    bool late = request_elapsed(now, co->drain_began) > limit;
    uint32_t left = co->sv.n_calls + co->sv.n_asks;
    if (late && left) log_warn("drain_late", "calls=%u", left);
    if (late || left == 0) coordinator_stop(co);
}

static void on_tick(uv_timer_t *t)
{
    struct coordinator *co = t->data;
    uint64_t now = clock_now_us();
    for (struct call *c = co->sv.calls, *next; c; c = next) {
        next = c->next;
        call_tick(c, now);
    }
    if (co->sv.draining) check_drain(co, now);
}

enum status coordinator_create(struct coordinator **out, uv_loop_t *loop, const struct config *cfg, struct error *err)
{
    struct coordinator *co = mem_zalloc(sizeof(*co));
    enum status st;
    co->loop = loop;
    co->sv.cfg = cfg;
    co->sv.started = clock_now_us();
    co->sv.meters = meters_create();
    if (getrandom(&co->sv.incarnation, sizeof(co->sv.incarnation), 0) != (ssize_t)sizeof(co->sv.incarnation)) {
        st = error_set(err, ERR_INTERNAL, "no random numbers to be had");
        goto fail;
    }
    if ((st = load_models(co, err)) != OK) goto fail;
    if ((st = open_dispatch(co, err)) != OK) goto fail;
    if ((st = open_work(co, err)) != OK) goto fail;
    if ((st = open_http(co, err)) != OK) goto fail;
    uv_timer_init(loop, &co->tick);
    co->tick.data = co;
    uv_timer_start(&co->tick, on_tick, TICK_MS, TICK_MS);
    *out = co;
    return OK;
fail:
    http_server_close(co->http);
    co->http = NULL;
    dispatch_close(co->sv.dispatch);
    co->sv.dispatch = NULL;
    work_close(co->sv.work);
    co->sv.work = NULL;
    uv_run(loop, UV_RUN_NOWAIT); /* the closes */
    coordinator_destroy(co);
    return st;
}

void coordinator_drain(struct coordinator *co)
{
    if (co->sv.draining) return;
    co->sv.draining = true;
    co->drain_began = clock_now_us();
    log_info("draining", "calls=%u", co->sv.n_calls + co->sv.n_asks);
    uv_timer_start(&co->tick, on_tick, 0, DRAIN_TICK_MS);
}

void coordinator_stop(struct coordinator *co)
{
    struct api_error e;
    if (co->stopped) return;
    co->stopped = co->sv.draining = true;
    api_error_set(&e, ERR_UNAVAILABLE, "draining", NULL, "the coordinator is shutting down");
    ask_fail_all(&co->sv, &e);
    while (co->sv.calls) call_fail(co->sv.calls, &e);
    work_close(co->sv.work);
    co->sv.work = NULL;
    dispatch_close(co->sv.dispatch);
    co->sv.dispatch = NULL;
    http_server_close(co->http);
    co->http = NULL;
    uv_close((uv_handle_t *)&co->tick, NULL);
    log_info("stopped", "uptime_s=%llu", (unsigned long long)((clock_now_us() - co->sv.started) / 1000000));
}

void coordinator_destroy(struct coordinator *co)
{
    if (!co) return;
    for (uint32_t i = 0; i < co->sv.n_models; i++) served_model_close(co->sv.models[i]);
    meters_destroy(co->sv.meters);
    mem_free(co);
}
