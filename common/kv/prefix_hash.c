/* prefix_hash.c - XXH3-128 over the little-endian bytes of hashes and ids. */
#include "kv/prefix_hash.h"

#include "kv/block_table.h"

#include <assert.h>
#include <string.h>
#include <xxhash.h>

static struct prefix_hash hash_of(const void *p, size_t n, uint64_t seed)
{
    XXH128_hash_t h = XXH3_128bits_withSeed(p, n, seed);
    return (struct prefix_hash){ h.low64, h.high64 };
}

static struct prefix_hash fold(const struct prefix_hash *a, const char *text)
{
    const struct prefix_hash both[2] = { *a, hash_of(text, strlen(text), 0) };
    return hash_of(both, sizeof(both), 0);
}

struct prefix_hash prefix_hash_cluster(uint64_t fingerprint, const char *secret)
{
    return fold(&(struct prefix_hash){ fingerprint, 0 }, secret);
}

struct prefix_hash prefix_hash_root(const struct prefix_hash *cluster, const char *adapter, const char *salt)
{
    struct prefix_hash h = fold(cluster, adapter);
    return fold(&h, salt);
}

struct prefix_hash prefix_hash_extend(const struct prefix_hash *root, const struct prefix_hash *prev,
                                      const int32_t *ids, uint32_t n)
{
    struct { /* no padding: hashed as bytes */
        struct prefix_hash prev;
        int32_t ids[KV_BLOCK_TOKENS];
    } block = { .prev = *prev };
    assert(n > 0 && n <= KV_BLOCK_TOKENS);
    memcpy(block.ids, ids, n * sizeof(*ids));
    return hash_of(&block, sizeof(block.prev) + n * sizeof(*ids), root->lo);
}
