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

/* Units that do not all lie side by side: n of them in runs of `run`, the first at `begin`, the others `stride` apart.
 */
struct shard_runs {
    uint32_t begin, n, run, stride;
};

static inline struct shard_runs shard_run(struct shard s)
{
    return (struct shard_runs){ s.begin, shard_n(s), shard_n(s), shard_n(s) };
}
/* Of a whole that is n_tiles tiles of `size` units, the same units of each. */
static inline struct shard_runs shard_tiles(struct shard s, uint32_t n_tiles, uint32_t size)
{
    const uint32_t n = shard_n(s) * n_tiles;
    return shard_n(s) == size ? (struct shard_runs){ s.begin, n, n, n }
                              : (struct shard_runs){ s.begin, n, shard_n(s), size };
}
/* Those of a whole whose units are each `width` of the given one's, behind `before` others. */
static inline struct shard_runs shard_widen(struct shard_runs r, uint32_t width, uint32_t before)
{
    return (struct shard_runs){ before + r.begin * width, r.n * width, r.run * width, r.stride * width };
}
#endif
