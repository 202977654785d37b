/* kv_metrics.h - the hand-off's counters, the same names on both sides. */
#ifndef NODE_KV_METRICS_H
#define NODE_KV_METRICS_H
#include "base/metrics.h"

struct kv_metrics {
    struct metrics *all;
    const char *node;
    struct metric *bytes; /* payload bytes of frames: sent, or received and stored */
    struct metric *frames;
    struct metric *transfers; /* that were stored as a whole */
    struct metric *seconds;   /* sender: last KV computed -> STORED; receiver: first frame -> complete */
    struct metric *stale;     /* messages of no open transfer */
};

/* direction: "sent" or "received".  `node` is borrowed. */
void kv_metrics_init(struct kv_metrics *k, struct metrics *all, const char *node, const char *direction);
void kv_metrics_failed(struct kv_metrics *k, enum status reason);
#endif
