/* prefix_cache.h - finds the blocks that hold a prefix by their hashes, and keeps them after their last use.
 *
 * Full blocks whose KV is final are in it, to be shared, and tails: blocks that begin with the last, incomplete part of
 * a prompt, whatever their owner writes behind it, to be copied.  It holds no references: an idle block stays until the
 * pool takes it for something else, in order of last use.  prefix_cache_touch() makes that order leaves first: a block
 * is used after those that follow it, so it is taken after them.  No allocation after its creation.  Threads: engine
 * thread only. */
#ifndef KV_PREFIX_CACHE_H
#define KV_PREFIX_CACHE_H
#include "kv/kv_pool.h"
#include "kv/prefix_hash.h"

struct prefix_cache;

/* For the blocks of `pool`, which outlives it. */
enum status prefix_cache_create(struct prefix_cache **out, struct kv_pool *pool) MUST_CHECK;
void prefix_cache_destroy(struct prefix_cache *c); /* NULL is fine */
/* Somebody else may keep the full blocks that the pool takes for something else: called while they still hold it. */
typedef void (*prefix_evict_fn)(void *ctx, const struct prefix_hash *hash, kv_block_id id);
void prefix_cache_on_evict(struct prefix_cache *c, prefix_evict_fn evict, void *ctx);
/* Whether what `hash` names can be had from somebody else than a pool. */
typedef bool (*prefix_elsewhere_fn)(void *ctx, const struct prefix_hash *hash);
/* How many of hashes[0..n) are there from the first one on; ids[i] has a new reference for each. */
uint32_t prefix_cache_match(struct prefix_cache *c, const struct prefix_hash *hashes, uint32_t n, kv_block_id *ids);
/* The referenced block `id` holds what `hash` names.  If another one does already, that one stays the known one. */
void prefix_cache_publish(struct prefix_cache *c, const struct prefix_hash *hash, kv_block_id id);
/* The same for a block that begins with the tail `hash` names.  A block may be known by both. */
void prefix_cache_publish_tail(struct prefix_cache *c, const struct prefix_hash *hash, kv_block_id id);
/* Which block holds what `hash` names; without a reference: it lasts until a block is taken. */
bool prefix_cache_find(const struct prefix_cache *c, const struct prefix_hash *hash, kv_block_id *id);
/* The chain hashes[0..n) was used just now. */
void prefix_cache_touch(struct prefix_cache *c, const struct prefix_hash *hashes, uint32_t n);
#endif
