/* merge_queue.h - a priority queue of possible merges, the lowest key first.
 *
 * Merges are never removed when a neighbour changes; the user checks a popped one against `a` and `b`. */
#ifndef TEXT_MERGE_QUEUE_H
#define TEXT_MERGE_QUEUE_H
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

struct merge {
    uint64_t key;  /* priority in the high half, index of the left symbol in the low one */
    uint32_t a, b; /* what the two symbols were when the merge was found */
};

struct merge_queue { /* zero is the empty queue */
    struct merge *items;
    size_t n, cap;
};

/* Empties the queue and makes room for all merges of a text of n_symbols. */
enum status merge_queue_reset(struct merge_queue *q, size_t n_symbols) MUST_CHECK;
void merge_queue_push(struct merge_queue *q, struct merge m);
bool merge_queue_pop(struct merge_queue *q, struct merge *out); /* false: empty */
void merge_queue_fini(struct merge_queue *q);
#endif
