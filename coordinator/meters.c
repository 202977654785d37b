/* meters.c - registration of the coordinator's metrics, and counters with labels. */
#include "coordinator/meters.h"

#include "base/mem.h"
#include "base/metrics.h"

#include <stdio.h>
#include <string.h>

static const double token_bounds[] = { 1,    2,    5,    10,    20,    50,    100,    200,   500,
                                       1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000 };
#define N_TOKEN_BOUNDS (sizeof(token_bounds) / sizeof(token_bounds[0]))

static struct metric *counter(struct meters *m, const char *name, const char *help)
{
    return metrics_get(m->all, METRIC_COUNTER, name, help, "", NULL, 0);
}

static struct metric *histogram(struct meters *m, const char *name, const char *help, const double *bounds, uint32_t n)
{
    return metrics_get(m->all, METRIC_HISTOGRAM, name, help, "", bounds, n);
}

static struct metric *duration(struct meters *m, const char *name, const char *help)
{
    return histogram(m, name, help, METRICS_REQUEST_BOUNDS, METRICS_N_REQUEST_BOUNDS);
}

static void add_histograms(struct meters *m)
{
    m->ttft = histogram(m, "baton_time_to_first_token_seconds", "From the request's arrival to its first token.",
                        METRICS_TTFT_BOUNDS, METRICS_N_TTFT_BOUNDS);
    m->itl = histogram(m, "baton_inter_token_latency_seconds", "Each gap between two tokens of one answer.",
                       METRICS_ITL_BOUNDS, METRICS_N_ITL_BOUNDS);
    m->e2e = duration(m, "baton_e2e_request_latency_seconds", "From the request's arrival to its end.");
    m->queue_time = duration(m, "baton_request_queue_time_seconds", "Time in the coordinator's queue.");
    m->prefill_time = duration(m, "baton_request_prefill_time_seconds", "From dispatch to the first token.");
    m->decode_time = duration(m, "baton_request_decode_time_seconds", "From the first token to the last.");
    m->prompt_tokens =
        histogram(m, "baton_request_prompt_tokens", "Prompt tokens of a request.", token_bounds, N_TOKEN_BOUNDS);
    m->generation_tokens =
        histogram(m, "baton_request_generation_tokens", "Output tokens of a request.", token_bounds, N_TOKEN_BOUNDS);
    m->kv_seconds = histogram(m, "baton_kv_transfer_seconds",
                              "From the last computed KV of a prompt to all of it stored at the decode node.",
                              METRICS_TTFT_BOUNDS, METRICS_N_TTFT_BOUNDS);
}

struct meters *meters_create(void)
{
    struct meters *m = mem_zalloc(sizeof(*m));
    m->all = metrics_create();
    add_histograms(m);
    m->prompt_tokens_total = counter(m, "baton_prompt_tokens_total", "Prompt tokens of all requests.");
    m->generation_tokens_total = counter(m, "baton_generation_tokens_total", "Output tokens of all requests.");
    m->cached_tokens_total = counter(m, "baton_prompt_tokens_cached_total", "Prompt tokens found in a prefix cache.");
    m->kv_bytes = counter(m, "baton_kv_transfer_bytes_total", "KV bytes shipped from prefill to decode nodes.");
    m->migrated = counter(m, "baton_requests_migrated_total", "New epochs: requests that went on elsewhere.");
    m->cancelled = counter(m, "baton_requests_cancelled_total", "Requests that were cancelled.");
    m->disconnects = counter(m, "baton_client_disconnects_total", "Clients that left before their answer's end.");
    m->tokens_dropped =
        counter(m, "baton_token_events_dropped_total", "Token events of an old epoch or a wrong index.");
    m->garbage = metrics_get(m->all, METRIC_GAUGE, "baton_control_garbage_frames",
                             "Control frames that were no message.", "", NULL, 0);
    metric_set(metrics_get(m->all, METRIC_GAUGE, "baton_build_info", "The program.",
                           "version=\"" BATON_VERSION "\",role=\"coordinator\"", NULL, 0),
               1);
    return m;
}

void meters_destroy(struct meters *m)
{
    if (!m) return;
    metrics_destroy(m->all);
    mem_free(m);
}

void meters_request(struct meters *m, const char *model, const char *endpoint, int status)
{
    char name[160], labels[256];
    snprintf(labels, sizeof(labels), "model=\"%s\",endpoint=\"%s\",status=\"%d\"",
             metrics_label(name, sizeof(name), model), endpoint, status);
    metric_add(metrics_get(m->all, METRIC_COUNTER, "baton_requests_total", "Answered requests.", labels, NULL, 0), 1);
}

/* `value` is one of ours, or already escaped */
static void add_labelled(struct meters *m, const char *name, const char *help, const char *label, const char *value)
{
    char labels[128];
    snprintf(labels, sizeof(labels), "%s=\"%s\"", label, value);
    metric_add(metrics_get(m->all, METRIC_COUNTER, name, help, labels, NULL, 0), 1);
}

void meters_rejected(struct meters *m, const char *reason)
{
    add_labelled(m, "baton_requests_rejected_total", "Requests that were not taken in.", "reason", reason);
}

void meters_ignored(struct meters *m, const char *names)
{
    while (*names) {
        size_t n = strcspn(names, ",");
        char name[48];
        snprintf(name, sizeof(name), "%.*s", (int)n, names);
        add_labelled(m, "baton_ignored_params_total", "Request fields that were accepted and ignored.", "param", name);
        names += n;
        names += strspn(names, ", ");
    }
}

void meters_kv_failure(struct meters *m, const char *reason)
{
    add_labelled(m, "baton_kv_transfer_failures_total", "Hand-offs that failed.", "reason", reason);
}
