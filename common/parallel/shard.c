/* shard.c - cuts units into contiguous runs, one per rank. */
#include "parallel/shard.h"

#include <assert.h>

struct shard shard_units(uint32_t n, uint32_t rank, uint32_t size)
{
    assert(size > 0 && rank < size);
    return (struct shard){ (uint32_t)((uint64_t)n * rank / size), (uint32_t)((uint64_t)n * (rank + 1) / size) };
}

struct shard shard_rows(uint32_t n, uint32_t rank, uint32_t size)
{
    struct shard s = shard_units(n / SHARD_ROWS + (n % SHARD_ROWS != 0), rank, size);
    s.begin *= SHARD_ROWS;
    s.end = s.end * SHARD_ROWS < n ? s.end * SHARD_ROWS : n;
    return s;
}

struct shard shard_kv_heads(struct shard q, uint32_t n_heads, uint32_t n_kv_heads)
{
    assert(n_kv_heads > 0 && n_heads % n_kv_heads == 0);
    uint32_t group = n_heads / n_kv_heads;
    return (struct shard){ q.begin / group, (q.end + group - 1) / group };
}
