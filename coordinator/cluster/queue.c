/* queue.c - a list in order of priority, with two bounds. */
#include "coordinator/cluster/queue.h"

#include "coordinator/cluster/request.h"

#include <assert.h>

void queue_init(struct queue *q, uint32_t max_n, uint64_t max_bytes)
{
    *q = (struct queue){ .max_n = max_n, .max_bytes = max_bytes };
}

enum status queue_check_room(const struct queue *q, uint32_t n, uint64_t bytes)
{
    if (q->n >= q->max_n || n > q->max_n - q->n) return ERR_FULL;
    if (q->bytes > q->max_bytes || bytes > q->max_bytes - q->bytes) return ERR_FULL;
    return OK;
}

static void count_in(struct queue *q, struct request *r)
{
    assert(!r->queued);
    r->queued = true;
    q->n++;
    q->bytes += request_bytes(r);
}

/* Links r in behind `prev`, NULL: as the first. */
static void link_behind(struct queue *q, struct request *prev, struct request *r)
{
    struct request *next = prev ? prev->q_next : q->head;
    r->q_prev = prev;
    r->q_next = next;
    *(prev ? &prev->q_next : &q->head) = r;
    *(next ? &next->q_prev : &q->tail) = r;
}

void queue_push(struct queue *q, struct request *r)
{
    struct request *prev = q->tail; /* from the end: most requests have the priority of the last one */
    while (prev && prev->priority > r->priority) prev = prev->q_prev;
    count_in(q, r);
    link_behind(q, prev, r);
}

void queue_push_front(struct queue *q, struct request *r)
{
    struct request *next = q->head;
    while (next && next->priority < r->priority) next = next->q_next;
    count_in(q, r);
    link_behind(q, next ? next->q_prev : q->tail, r);
}

void queue_remove(struct queue *q, struct request *r)
{
    assert(r->queued);
    r->queued = false;
    q->n--;
    q->bytes -= request_bytes(r);
    if (r->q_prev)
        r->q_prev->q_next = r->q_next;
    else
        q->head = r->q_next;
    if (r->q_next)
        r->q_next->q_prev = r->q_prev;
    else
        q->tail = r->q_prev;
    r->q_prev = r->q_next = NULL;
}
