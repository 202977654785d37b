/* kv_tier_base.h - what all levels of the KV tier share: options, names, counters, the checksum of a block. */
#ifndef STORE_KV_TIER_BASE_H
#define STORE_KV_TIER_BASE_H
#include "base/error.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

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
enum kv_tier_found { KV_TIER_MISS, KV_TIER_FOUND, KV_TIER_COMING };

struct kv_tier_counters { /* written by the engine's thread and the writer, read by any; each by itself */
    atomic_uint blocks[KV_TIER_LEVEL_COUNT];
    atomic_ullong hits[KV_TIER_LEVEL_COUNT], dropped[KV_TIER_DROP_COUNT];
};
void kv_tier_drop(struct kv_tier_counters *c, enum kv_tier_drop why);
uint64_t kv_tier_sum(const uint8_t *p, size_t n);
#endif
