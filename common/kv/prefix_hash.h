/* prefix_hash.h - names the KV of a block by all tokens up to its end: chained hashes, the same in every process.
 *
 * XXH3-128 over the hash before and the block's ids (64; fewer in a prompt's tail) as u32 little-endian, seeded with
 * what else the KV depends on or may be shared by: model, adapter, the client's cache_salt, the cluster's secret. */
#ifndef KV_PREFIX_HASH_H
#define KV_PREFIX_HASH_H
#include <stdbool.h>
#include <stdint.h>

struct prefix_hash {
    uint64_t lo, hi;
};

/* What all chains of a cluster and a model begin with. */
struct prefix_hash prefix_hash_cluster(uint64_t fingerprint, const char *secret);
/* The root of one request's chain; "" for none. */
struct prefix_hash prefix_hash_root(const struct prefix_hash *cluster, const char *adapter, const char *salt);
/* The hash of the block with `ids`[n] that follows `prev`; the first one follows the root.  n: KV_BLOCK_TOKENS, or
 * fewer for a tail, which nothing follows. */
struct prefix_hash prefix_hash_extend(const struct prefix_hash *root, const struct prefix_hash *prev,
                                      const int32_t *ids, uint32_t n);

static inline bool prefix_hash_equal(const struct prefix_hash *a, const struct prefix_hash *b)
{
    return a->lo == b->lo && a->hi == b->hi;
}
#endif
