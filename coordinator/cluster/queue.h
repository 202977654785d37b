/* queue.h - requests that wait for room in the cluster: by priority, then first come first served; bounded in count
 * and bytes.
 *
 * Intrusive: a request stands in at most one queue, through its own links.  The queue borrows its requests. */
#ifndef CLUSTER_QUEUE_H
#define CLUSTER_QUEUE_H
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

struct request;

struct queue {
    struct request *head, *tail;
    uint32_t n, max_n;
    uint64_t bytes, max_bytes;
};

void queue_init(struct queue *q, uint32_t max_n, uint64_t max_bytes);
/* ERR_FULL if `n` more requests of `bytes` in all would pass a bound. */
enum status queue_check_room(const struct queue *q, uint32_t n, uint64_t bytes) MUST_CHECK;
/* Behind the others of its priority, or, for what was already admitted once, in front of them.  Bounds are the caller's
 * to check. */
void queue_push(struct queue *q, struct request *r);
void queue_push_front(struct queue *q, struct request *r);
void queue_remove(struct queue *q, struct request *r);
#endif
