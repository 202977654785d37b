/* kv_tier_disk.h - the file under kv_tier.c: slots of one block, written by a thread of their own, read by the
 * engine's.
 *
 * The file has its full size from the start and no name, so nothing stays behind.  It is not read after a restart.  A
 * write error ends its use; a read error or a wrong checksum loses one block. */
#ifndef ENGINE_KV_TIER_DISK_H
#define ENGINE_KV_TIER_DISK_H
#include "engine/kv_tier.h"

#include <stdatomic.h>

#define KV_TIER_MIN_QUEUE 8 /* blocks on their way to the file, in buffers of the arena */

struct kv_tier_counters { /* written by the engine's thread and the writer, read by any; each by itself */
    atomic_uint blocks[KV_TIER_LEVEL_COUNT];
    atomic_ullong hits[KV_TIER_LEVEL_COUNT], dropped[KV_TIER_DROP_COUNT];
};
void kv_tier_drop(struct kv_tier_counters *c, enum kv_tier_drop why);
uint64_t kv_tier_sum(const uint8_t *p, size_t n);

struct kv_tier_disk;

/* `buffers`[n_queue + 1] of block_bytes each lie behind one another and stay the caller's. */
enum status kv_tier_disk_create(struct kv_tier_disk **out, const struct kv_tier_options *opt, size_t block_bytes,
                                uint8_t *buffers, uint32_t n_queue, struct kv_tier_counters *counters,
                                struct error *err) MUST_CHECK;
void kv_tier_disk_destroy(struct kv_tier_disk *d); /* NULL is fine */
/* Has *buffer written and gives another one for it.  False: it is dropped (and counted), or there already; *buffer
 * stays. */
bool kv_tier_disk_put(struct kv_tier_disk *d, const struct prefix_hash *hash, uint64_t sum, uint8_t **buffer);
void kv_tier_disk_touch(struct kv_tier_disk *d, const struct prefix_hash *hash);
/* The checked bytes, valid until the next call; NULL: as kv_tier_get() says. */
const uint8_t *kv_tier_disk_get(struct kv_tier_disk *d, const struct prefix_hash *hash, double compute_us);
/* Whether reading a block, which lately took read_us (0: not measured), beats computing it. */
bool kv_tier_disk_pays(double read_us, double compute_us);
#endif
