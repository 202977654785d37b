/* queue.c - a list with two bounds. */
#include "coordinator/queue.h"

#include "coordinator/request.h"

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

void queue_push(struct queue *q, struct request *r)
{
    count_in(q, r);
    r->q_prev = q->tail;
    r->q_next = NULL;
    if (q->tail)
        q->tail->q_next = r;
    else
        q->head = r;
    q->tail = r;
}

void queue_push_front(struct queue *q, struct request *r)
{
    count_in(q, r);
    r->q_prev = NULL;
    r->q_next = q->head;
    if (q->head)
        q->head->q_prev = r;
    else
        q->tail = r;
    q->head = r;
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
