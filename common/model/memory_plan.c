/* memory_plan.c - weights in memory, streamed, or refused. */
#include "model/memory_plan.h"

#include "base/bytes.h"

#include <stdio.h>

#define MIB (1024.0 * 1024.0)

static uint64_t sum(uint64_t a, uint64_t b)
{
    uint64_t s;
    return size_add(a, b, &s) ? s : UINT64_MAX;
}

enum status memory_plan(enum weights_mode *mode, const struct memory_need *n, const struct host_memory *left,
                        struct error *err)
{
    const uint64_t beside = sum(n->kv, n->buffers);
    char what[80], others[80];
    snprintf(what, sizeof(what), "weights (%.1f MiB, %.1f MiB if streamed)", (double)n->resident / MIB,
             (double)n->stream / MIB);
    snprintf(others, sizeof(others), "KV %.1f MiB, step buffers %.1f MiB", (double)n->kv / MIB,
             (double)n->buffers / MIB);
    if (*mode == WEIGHTS_AUTO) {
        enum status st = host_memory_fit(left, what, n->resident, others, sum(beside, MEMORY_PLAN_SPARE), NULL);
        *mode = st == OK ? WEIGHTS_RESIDENT : WEIGHTS_STREAM;
    }
    return host_memory_fit(left, what, *mode == WEIGHTS_STREAM ? n->stream : n->resident, others, beside, err);
}
