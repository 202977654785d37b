/* gauges.c - gauges of requests, nodes and workers, set anew whenever somebody asks for them. */
#include "coordinator/gauges.h"

#include "base/metrics.h"
#include "coordinator/cluster/dispatch.h"
#include "coordinator/meters.h"
#include "kv/kv_pool.h"

#include <stdio.h>

static void gauge(struct meters *m, const char *name, const char *help, const char *labels, double v)
{
    metric_set(metrics_get(m->all, METRIC_GAUGE, name, help, labels, NULL, 0), v);
}

static void set_requests(struct meters *m, const uint32_t *n)
{
    static const struct {
        const char *labels;
        enum request_state first, last;
    } stages[] = {
        { "stage=\"admit\"", REQUEST_QUEUED, REQUEST_RESERVING },
        { "stage=\"prefill\"", REQUEST_RESERVED, REQUEST_PREFILLING },
        { "stage=\"transfer\"", REQUEST_HANDOFF, REQUEST_HANDOFF },
    };
    uint32_t running = 0;
    for (int s = REQUEST_RESERVED; s <= REQUEST_DECODING; s++) running += n[s];
    gauge(m, "baton_num_requests_running", "Requests that hold a reservation.", "", running);
    for (size_t i = 0; i < sizeof(stages) / sizeof(stages[0]); i++) {
        uint32_t waiting = 0;
        for (int s = (int)stages[i].first; s <= (int)stages[i].last; s++) waiting += n[s];
        gauge(m, "baton_num_requests_waiting", "Requests by what they wait for.", stages[i].labels, waiting);
    }
}

static void set_node(struct meters *m, const struct node *n, uint64_t now)
{
    char labels[160];
    const char *role = n->decode ? "decode" : "prefill";
    snprintf(labels, sizeof(labels), "role=\"%s\",node=\"%s\"", role, n->name);
    gauge(m, "baton_node_up", "Whether the node lives.", labels, n->alive);
    gauge(m, "baton_node_heartbeat_age_seconds", "Since the node was last heard of.", labels,
          (double)request_elapsed(now, n->last_seen) / 1e6);
    snprintf(labels, sizeof(labels), "node=\"%s\"", n->name);
    double total = n->load.blocks_total ? n->load.blocks_total : 1;
    double used = n->load.blocks_total - n->load.blocks_free;
    bool counted = n->alive && n->load.blocks_free <= n->load.blocks_total;
    gauge(m, "baton_kv_cache_usage_ratio", "Share of the node's KV blocks in use.", labels, counted ? used / total : 0);
    gauge(m, "baton_prefix_cache_hit_ratio",
          "Share of the tokens a node looked up in its prefix cache that were found.", labels,
          n->load.prefix_queries ? (double)n->load.prefix_hits / (double)n->load.prefix_queries : 0);
    for (int s = 0; s < KV_STATE_COUNT && s < NODE_MAX_STATES; s++) {
        snprintf(labels, sizeof(labels), "node=\"%s\",state=\"%s\"", n->name,
                 kv_block_state_name((enum kv_block_state)s));
        gauge(m, "baton_kv_blocks", "KV blocks of a node by state, as of its last heartbeat.", labels,
              n->alive ? n->load.by_state[s] : 0);
    }
}

void gauges_render(struct meters *m, const uint32_t *state_counts, uint32_t n_bodies, const struct registry *nodes,
                   uint64_t now, struct strbuf *out)
{
    set_requests(m, state_counts);
    gauge(m, "baton_bodies_in_work", "Bodies and large answers at the workers.", "", n_bodies);
    for (const struct node *n = nodes->nodes; n; n = n->next) set_node(m, n, now);
    metrics_render(m->all, out);
    metrics_add_process(out);
}
