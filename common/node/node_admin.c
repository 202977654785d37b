/* node_admin.c - /metrics, /live and /ready of a node. */
#include "node/node_admin.h"

#include "base/host_port.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct node_admin {
    struct node *node;
    struct http_server *server;
    char address[300];
    uint64_t prompt_tokens, generation_tokens, steps, prefix_queries, prefix_hits, preemptions[PREEMPT_KIND_COUNT],
        tier_hits[KV_TIER_LEVEL_COUNT], tier_dropped[KV_TIER_DROP_COUNT]; /* counted so far */
};

static struct metric *series(struct node *n, enum metric_kind kind, const char *name, const char *help,
                             const char *more)
{
    char label[256], all[512];

    metrics_label(label, sizeof(label), node_config(n)->self->name);
    snprintf(all, sizeof(all), "node=\"%s\"%s", label, more);
    return metrics_get(node_metrics(n), kind, name, help, all, NULL, 0);
}

static void count_up(struct node *n, const char *name, const char *help, const char *more, uint64_t now,
                     uint64_t *before)
{
    metric_add(series(n, METRIC_COUNTER, name, help, more), (double)(now - *before));
    *before = now;
}

static const char *const PREEMPT_LABELS[PREEMPT_KIND_COUNT] = {
    [PREEMPT_SWAP] = ",kind=\"swap\"",
    [PREEMPT_RECOMPUTE] = ",kind=\"recompute\"",
};

static void update_prefix_cache(struct node_admin *a, const struct engine_load *load)
{
    struct node *n = a->node;
    count_up(n, "baton_prefix_cache_queries_total", "Tokens looked up in the prefix cache.", "", load->prefix_queries,
             &a->prefix_queries);
    count_up(n, "baton_prefix_cache_hit_tokens_total", "Tokens found in the prefix cache.", "", load->prefix_hits,
             &a->prefix_hits);
    metric_set(
        series(n, METRIC_GAUGE, "baton_prefix_cache_hit_ratio", "Share of tokens looked up that were found.", ""),
        load->prefix_queries ? (double)load->prefix_hits / (double)load->prefix_queries : 0);
}

static const char *const TIER_LEVELS[KV_TIER_LEVEL_COUNT] = {
    [KV_TIER_RAM] = ",level=\"ram\"",
    [KV_TIER_DISK] = ",level=\"disk\"",
};

static const char *const TIER_DROPS[KV_TIER_DROP_COUNT] = {
    [KV_TIER_CORRUPT] = ",reason=\"corrupt\"",         [KV_TIER_READ_ERROR] = ",reason=\"read_error\"",
    [KV_TIER_WRITE_ERROR] = ",reason=\"write_error\"", [KV_TIER_QUEUE_FULL] = ",reason=\"queue_full\"",
    [KV_TIER_NO_ROOM] = ",reason=\"no_room\"",
};

static void update_kv_tier(struct node_admin *a, const struct kv_tier_stats *tier)
{
    struct node *n = a->node;
    for (int l = 0; l < KV_TIER_LEVEL_COUNT; l++) {
        metric_set(series(n, METRIC_GAUGE, "baton_kv_tier_blocks", "Cached KV blocks beyond the pool.", TIER_LEVELS[l]),
                   tier->blocks[l]);
        count_up(n, "baton_kv_tier_hit_tokens_total", "Tokens whose KV came back from the tier.", TIER_LEVELS[l],
                 tier->hits[l] * KV_BLOCK_TOKENS, &a->tier_hits[l]);
    }
    for (int r = 0; r < KV_TIER_DROP_COUNT; r++)
        count_up(n, "baton_kv_tier_dropped_total", "KV blocks that the tier has given up.", TIER_DROPS[r],
                 tier->dropped[r], &a->tier_dropped[r]);
}

static void update(struct node_admin *a)
{
    struct node *n = a->node;
    struct engine_load load;
    char more[64];

    engine_load(node_engine(n), &load);
    for (int s = 0; s < KV_STATE_COUNT; s++) {
        snprintf(more, sizeof(more), ",state=\"%s\"", kv_block_state_name((enum kv_block_state)s));
        metric_set(series(n, METRIC_GAUGE, "baton_kv_blocks", "KV blocks by state.", more), load.blocks[s]);
    }
    metric_set(series(n, METRIC_GAUGE, "baton_node_requests_running", "Sequences that compute.", ""), load.n_running);
    metric_set(series(n, METRIC_GAUGE, "baton_node_requests_waiting", "Sequences that wait for blocks.", ""),
               load.n_waiting);
    metric_set(series(n, METRIC_GAUGE, "baton_node_requests_reserved", "Sequences whose KV is to come.", ""),
               load.n_reserved);
    metric_set(series(n, METRIC_GAUGE, "baton_node_prefill_tokens_per_second", "Measured rate of prefill.", ""),
               load.prefill_tok_s);
    metric_set(series(n, METRIC_GAUGE, "baton_node_decode_tokens_per_second", "Measured rate of decode.", ""),
               load.decode_tok_s);
    count_up(n, "baton_prompt_tokens_total", "Prompt tokens computed.", "", load.prefill_tokens, &a->prompt_tokens);
    count_up(n, "baton_generation_tokens_total", "Tokens decoded.", "", load.decode_tokens, &a->generation_tokens);
    count_up(n, "baton_engine_steps_total", "Steps of the engine.", "", load.steps, &a->steps);
    for (int k = 0; k < PREEMPT_KIND_COUNT; k++)
        count_up(n, "baton_preemptions_total", "Sequences that gave their KV blocks up.", PREEMPT_LABELS[k],
                 load.preemptions[k], &a->preemptions[k]);
    metric_set(series(n, METRIC_GAUGE, "baton_kv_swapped_blocks", "KV blocks of preempted sequences in RAM.", ""),
               load.swapped_blocks);
    for (uint32_t live = 0; live < 2 && load.states.n_slots > 0; live++)
        metric_set(series(n, METRIC_GAUGE, "baton_state_slots", "Slots that hold recurrent states.",
                          live ? "use=\"live\"" : "use=\"snapshot\""),
                   live ? load.states.n_live : load.states.n_snapshots);
    update_prefix_cache(a, &load);
    update_kv_tier(a, &load.tier);
    metric_set(series(n, METRIC_GAUGE, "baton_node_ready", "1: registered and not draining.", ""), node_is_ready(n));
}

static void reply_metrics(struct node_admin *a, struct http_exchange *x)
{
    struct strbuf sb = STRBUF_INIT;

    update(a);
    metrics_render(node_metrics(a->node), &sb);
    metrics_add_process(&sb);
    http_reply(x, 200, "text/plain; version=0.0.4; charset=utf-8", strbuf_cstr(&sb), sb.n);
    strbuf_fini(&sb);
}

static void reply_text(struct http_exchange *x, int status, const char *text)
{
    http_reply(x, status, "text/plain; charset=utf-8", text, strlen(text));
}

static void on_request(void *ctx, struct http_exchange *x)
{
    struct node_admin *a = ctx;
    const char *path = http_path(x);

    if (strcmp(http_method(x), "GET") != 0)
        reply_text(x, 405, "only GET\n");
    else if (strcmp(path, "/metrics") == 0)
        reply_metrics(a, x);
    else if (strcmp(path, "/live") == 0)
        reply_text(x, 200, "live\n");
    else if (strcmp(path, "/ready") == 0)
        reply_text(x, node_is_ready(a->node) ? 200 : 503,
                   node_is_ready(a->node)      ? "ready\n"
                   : node_is_draining(a->node) ? "draining\n"
                                               : "no coordinator has welcomed this node\n");
    else
        reply_text(x, 404, "known paths: /metrics /live /ready\n");
}

/* Listens on `address`, or on the first free port of "host:low-high". */
static enum status listen_on(struct node_admin *a, uv_loop_t *loop, const char *address,
                             const struct http_limits *limits, struct error *err)
{
    struct host_port hp;
    char one[512];
    enum status st = ERR_IO;
    if (!host_port_split(address, &hp) || hp.lo == hp.hi) /* a path, too */
        return http_server_open(&a->server, loop, address, limits, on_request, a, err);
    for (uint32_t port = hp.lo; port <= hp.hi && st == ERR_IO; port++) {
        if (!host_port_replace(one, sizeof(one), address, port))
            return error_set(err, ERR_INVALID, "%s is too long for an address", address);
        st = http_server_open(&a->server, loop, one, limits, on_request, a, err);
    }
    return st;
}

enum status node_admin_open(struct node_admin **out, uv_loop_t *loop, struct node *node, const char *address,
                            struct error *err)
{
    const struct http_limits limits = { .max_connections = 64,
                                        .max_header_bytes = 16 << 10,
                                        .max_body_bytes = 1024,
                                        .max_unsent_bytes = 4 << 20,
                                        .header_timeout_ms = 10000,
                                        .idle_timeout_ms = 60000 };
    struct node_admin *a = mem_zalloc(sizeof(*a));
    enum status st;

    a->node = node;
    st = listen_on(a, loop, address, &limits, err);
    if (st != OK) {
        error_prefix(err, "admin");
        mem_free(a);
        return st;
    }
    if (!host_port_replace(a->address, sizeof(a->address), address, http_server_port(a->server)))
        snprintf(a->address, sizeof(a->address), "%s", address);
    *out = a;
    return OK;
}

void node_admin_close(struct node_admin *a)
{
    if (!a) return;
    http_server_close(a->server);
    mem_free(a);
}

const char *node_admin_address(const struct node_admin *a)
{
    return a->address;
}
