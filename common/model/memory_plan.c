/* memory_plan.c - weights in memory, streamed, or refused. */
#include "model/memory_plan.h"

#include "base/bytes.h"

#define MIB (1024.0 * 1024.0)

static bool fits(uint64_t weights, uint64_t spare, const struct memory_need *n, uint64_t left)
{
    uint64_t sum;
    return size_add(weights, n->kv, &sum) && size_add(sum, n->buffers, &sum) && size_add(sum, spare, &sum) &&
           sum <= left;
}

enum status memory_plan(enum weights_mode *mode, const struct memory_need *n, const struct host_memory *left,
                        struct error *err)
{
    enum weights_mode m = *mode;
    if (m == WEIGHTS_AUTO) m = fits(n->resident, MEMORY_PLAN_SPARE, n, left->bytes) ? WEIGHTS_RESIDENT : WEIGHTS_STREAM;
    uint64_t weights = m == WEIGHTS_STREAM ? n->stream : n->resident;
    *mode = m;
    if (fits(weights, 0, n, left->bytes)) return OK;
    return error_set(
        err, ERR_NO_MEMORY,
        "the weights need %.1f MiB of memory (%.1f MiB if streamed), KV %.1f MiB and step buffers %.1f MiB, "
        "but %.1f MiB are available (%s)",
        (double)n->resident / MIB, (double)n->stream / MIB, (double)n->kv / MIB, (double)n->buffers / MIB,
        (double)left->bytes / MIB, left->from);
}
