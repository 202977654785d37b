/* merge_queue.c - a priority queue of possible merges, as a binary heap. */
#include "text/merge_queue.h"

#include "base/mem.h"

#include <assert.h>

enum status merge_queue_reset(struct merge_queue *q, size_t n_symbols)
{
    /* n-1 merges at the start; each of at most n-1 merges done takes one out and puts two in. */
    size_t need = 2 * n_symbols, cap = 64;
    void *items = NULL;
    enum status st;

    q->n = 0;
    if (need <= q->cap) return OK;
    while (cap < need) cap *= 2;
    if ((st = mem_try_array(&items, cap, sizeof(*q->items))) != OK) return st;
    mem_free(q->items);
    q->items = items;
    q->cap = cap;
    return OK;
}

void merge_queue_push(struct merge_queue *q, struct merge m)
{
    size_t i = q->n++;

    assert(q->n <= q->cap);
    while (i > 0) {
        size_t parent = (i - 1) / 2;
        if (q->items[parent].key <= m.key) break;
        q->items[i] = q->items[parent];
        i = parent;
    }
    q->items[i] = m;
}

bool merge_queue_pop(struct merge_queue *q, struct merge *out)
{
    if (q->n == 0) return false;
    *out = q->items[0];
    struct merge last = q->items[--q->n];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= q->n) break;
        if (child + 1 < q->n && q->items[child + 1].key < q->items[child].key) child++;
        if (last.key <= q->items[child].key) break;
        q->items[i] = q->items[child];
        i = child;
    }
    q->items[i] = last;
    return true;
}

void merge_queue_fini(struct merge_queue *q)
{
    mem_free(q->items);
    *q = (struct merge_queue){ 0 };
}
