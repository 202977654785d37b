/* shard.h - which slice of a tensor a rank of a tensor-parallel group holds.
 *
 * Heads and feed-forward rows are cut into runs that differ by one unit at most.  When there are more ranks than
 * kv heads, a kv head is held by several ranks. */
#ifndef PARALLEL_SHARD_H
#define PARALLEL_SHARD_H
#include <stdint.h>

struct shard {
    uint32_t begin, end; /* units of the whole, begin < end unless there are more ranks than units */
};

/* The units of n that `rank` of `size` holds: contiguous, in rank order, every unit exactly once. */
struct shard shard_units(uint32_t n, uint32_t rank, uint32_t size);
/* The rows of n that a rank computes, in runs that begin at multiples of SHARD_ROWS: a panel of weights and a group of
 * activations are not cut.  Empty where there are fewer runs than ranks. */
#define SHARD_ROWS 16
struct shard shard_rows(uint32_t n, uint32_t rank, uint32_t size);
/* The kv heads that the query heads `q` (of n_heads over n_kv_heads) read. */
struct shard shard_kv_heads(struct shard q, uint32_t n_heads, uint32_t n_kv_heads);
static inline uint32_t shard_n(struct shard s)
{
    return s.end - s.begin;
}
#endif
