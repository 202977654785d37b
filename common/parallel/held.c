/* held.c - numbers of heads: a rank's own, and the whole model's. */
#include "parallel/held.h"

#include <assert.h>

struct held held_run(uint32_t n_heads, struct shard_runs run)
{
    return (struct held){ .n_heads = n_heads, .n_runs = 1, .runs = { run } };
}

struct held held_all(uint32_t n)
{
    return held_run(n, shard_run((struct shard){ 0, n }));
}

uint32_t held_n(const struct held *h)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < h->n_runs; i++) n += h->runs[i].n;
    return n;
}

uint32_t held_head(const struct held *h, uint32_t i)
{
    const struct shard_runs *r = h->runs;
    for (; i >= r->n; r++) i -= r->n;
    assert(r < h->runs + h->n_runs);
    return r->begin + i / r->run * r->stride + i % r->run;
}
