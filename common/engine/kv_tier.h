/* kv_tier.h - KV blocks that the pool had no room for, kept by the hash of their prefix: in RAM, then in a file.
 *
 * A bounded arena of blocks in RAM; what falls out of it, least recently used first, is written to a bounded file by a
 * thread of its own, if there is one, and read by another while the engine computes.  A block that is found stays where
 * it is: when the pool gives it up again, nothing has to be copied.  Every block has a checksum, so bytes that have
 * changed are never used: what is lost here is computed again, and costs time alone.  Threads: engine thread only,
 * except kv_tier_stats(). */
#ifndef ENGINE_KV_TIER_H
#define ENGINE_KV_TIER_H
#include "base/error.h"
#include "kv/kv_pool.h"
#include "kv/prefix_hash.h"

#include <sys/types.h>

struct kv_store;
struct kv_tier;

struct kv_tier_io { /* how the file is read and written; tests make it fail */
    ssize_t (*read)(int fd, void *p, size_t n, off_t at);
    ssize_t (*write)(int fd, const void *p, size_t n, off_t at);
};

struct kv_tier_options {
    uint64_t ram_bytes;          /* > 0 */
    const char *path;            /* folder of the file; NULL or "": none */
    uint64_t disk_bytes;         /* of the file */
    uint64_t other_bytes;        /* memory that others have asked for and not touched yet */
    const struct kv_tier_io *io; /* NULL: pread and pwrite */
    void (*on_read)(void *ctx);  /* a read is over: kv_tier_get() again.  From another thread; NULL: nobody waits */
    void *ctx;
};

enum kv_tier_level { KV_TIER_RAM, KV_TIER_DISK, KV_TIER_LEVEL_COUNT };
enum kv_tier_drop {
    KV_TIER_CORRUPT,
    KV_TIER_READ_ERROR,
    KV_TIER_WRITE_ERROR,
    KV_TIER_QUEUE_FULL, /* the disk is slower than blocks come */
    KV_TIER_NO_ROOM,    /* least recently used in the last level */
    KV_TIER_DROP_COUNT
};
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
enum kv_tier_found { KV_TIER_MISS, KV_TIER_FOUND, KV_TIER_COMING };
/* Fills `block` with what hashes[0] names.  MISS: it is not there, not any more, or reading it is slower than the
 * `compute_us` (0: unknown) that computing it takes; the block's bytes are then of no meaning.  COMING: it is being
 * read, from now on if it was not, and so are some of hashes[1..n), which will be asked for next; or it would have to
 * be and `may_read` is false.  Ask again. */
enum kv_tier_found kv_tier_get(struct kv_tier *t, const struct prefix_hash *hashes, uint32_t n, kv_block_id block,
                               double compute_us, bool may_read);
/* Nobody will ask for what is being read. */
void kv_tier_drop_reads(struct kv_tier *t);
/* From any thread. */
void kv_tier_stats(const struct kv_tier *t, struct kv_tier_stats *out);
#endif
