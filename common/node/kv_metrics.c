/* kv_metrics.c - the hand-off's counters, the same names on both sides. */
#include "node/kv_metrics.h"

#include <stdio.h>

static const double seconds_bounds[] = { 0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10 };

void kv_metrics_init(struct kv_metrics *k, struct metrics *all, const char *node, const char *direction)
{
    char name[256], labels[512];

    metrics_label(name, sizeof(name), node);
    snprintf(labels, sizeof(labels), "node=\"%s\",direction=\"%s\"", name, direction);
    k->all = all;
    k->node = node;
    k->bytes = metrics_get(all, METRIC_COUNTER, "baton_kv_transfer_bytes_total", "Payload bytes of KV frames.", labels,
                           NULL, 0);
    k->frames = metrics_get(all, METRIC_COUNTER, "baton_kv_transfer_frames_total", "KV frames.", labels, NULL, 0);
    k->transfers = metrics_get(all, METRIC_COUNTER, "baton_kv_transfers_total",
                               "Hand-offs that were stored as a whole.", labels, NULL, 0);
    k->seconds = metrics_get(all, METRIC_HISTOGRAM, "baton_kv_transfer_seconds",
                             "Sent: last KV computed until stored; received: first frame until complete.", labels,
                             seconds_bounds, sizeof(seconds_bounds) / sizeof(seconds_bounds[0]));
    k->stale = metrics_get(all, METRIC_COUNTER, "baton_kv_stale_messages_total",
                           "KV messages of an older epoch or of no transfer, dropped.", labels, NULL, 0);
}

void kv_metrics_failed(struct kv_metrics *k, enum status reason)
{
    char name[256], labels[512];

    metrics_label(name, sizeof(name), k->node);
    snprintf(labels, sizeof(labels), "node=\"%s\",reason=\"%s\"", name, status_text(reason));
    metric_add(metrics_get(k->all, METRIC_COUNTER, "baton_kv_transfer_failures_total",
                           "Hand-offs that failed, by reason.", labels, NULL, 0),
               1);
}
