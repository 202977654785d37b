/* kv_tier.h - KV blocks that the pool had no room for, kept by the hash of their prefix: in RAM, then in a file.
 *
 * A bounded arena of blocks in RAM; what falls out of it, least recently used first, is written to a bounded file by a
 * thread of its own, if there is one, and read by another while the engine computes.  A block that is found stays where
 * it is: when the pool gives it up again, nothing has to be copied.  A block of windowed layers and a snapshot of
 * states are kept in pieces as large as a block, each with a name of its own, and found where all of them are.  Every
 * block has a checksum, so bytes that have changed are never used: what is lost here is computed again, and costs time
 * alone.  Threads: engine thread only, except kv_tier_stats(). */
#ifndef STORE_KV_TIER_H
#define STORE_KV_TIER_H
#include "base/error.h"
#include "kv/kv_pool.h"
#include "kv/prefix_hash.h"
#include "store/kv_tier_base.h"

#include <stdbool.h>

struct kv_store;
struct kv_tier;

struct kv_tier_stats {
    uint32_t blocks[KV_TIER_LEVEL_COUNT];
    uint64_t hits[KV_TIER_LEVEL_COUNT]; /* blocks that came back */
    uint64_t dropped[KV_TIER_DROP_COUNT];
};

/* A tier for blocks of `kv` (borrowed).  Refused with the numbers: memory or a file that would not fit (ERR_NO_MEMORY,
 * ERR_IO), sizes that hold too few blocks or do not go together (ERR_INVALID). */
enum status kv_tier_create(struct kv_tier **out, const struct kv_store *kv, const struct kv_tier_options *opt,
                           struct error *err) MUST_CHECK;
void kv_tier_destroy(struct kv_tier *t); /* NULL is fine; joins its threads */
/* Keeps a copy of `block`, which holds what `hash` names and is about to be taken for something else. */
void kv_tier_put(struct kv_tier *t, const struct prefix_hash *hash, kv_block_id block);
/* The chain hashes[0..n) is asked for just now: what follows falls out before what it follows. */
void kv_tier_touch(struct kv_tier *t, const struct prefix_hash *hashes, uint32_t n);
/* Fills `block` with what hashes[0] names.  MISS: it is not there, not any more, or reading it is slower than the
 * `compute_us` (0: unknown) that computing it takes; the block's bytes are then of no meaning.  COMING: it is being
 * read, from now on if it was not, and so are some of hashes[1..n), which will be asked for next; or it would have to
 * be and `may_read` is false.  Ask again. */
enum kv_tier_found kv_tier_get(struct kv_tier *t, const struct prefix_hash *hashes, uint32_t n, kv_block_id block,
                               double compute_us, bool may_read);
/* What takes several pieces. */
enum kv_tier_thing { KV_TIER_WINDOW_BLOCK, KV_TIER_STATE };
uint32_t kv_tier_pieces(const struct kv_tier *t, enum kv_tier_thing thing);
/* As kv_tier_put(), of a windowed block or a slot.  What would fill more than half of the RAM is not kept. */
void kv_tier_put_thing(struct kv_tier *t, enum kv_tier_thing thing, const struct prefix_hash *hash, uint32_t id);
bool kv_tier_has_thing(const struct kv_tier *t, enum kv_tier_thing thing, const struct prefix_hash *hash);
void kv_tier_touch_thing(struct kv_tier *t, enum kv_tier_thing thing, const struct prefix_hash *hash);
/* As kv_tier_get(), of one of its pieces; compute_us is what computing the piece's share takes. */
enum kv_tier_found kv_tier_get_piece(struct kv_tier *t, enum kv_tier_thing thing, const struct prefix_hash *hash,
                                     uint32_t id, uint32_t piece, double compute_us, bool may_read);
/* Nobody will ask for what is being read. */
void kv_tier_drop_reads(struct kv_tier *t);
/* From any thread. */
void kv_tier_stats(const struct kv_tier *t, struct kv_tier_stats *out);
#endif
