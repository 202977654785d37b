/* kv_tier_disk.h - the file under kv_tier.c: slots of one block, written by one thread, read by another.
 *
 * The file has its full size from the start and no name, so nothing stays behind.  It is not read after a restart.  A
 * write error ends its use; a read error or a wrong checksum loses one block. */
#ifndef STORE_KV_TIER_DISK_H
#define STORE_KV_TIER_DISK_H
#include "kv/prefix_hash.h"
#include "store/kv_tier_base.h"

#define KV_TIER_MIN_QUEUE 8 /* blocks on their way to the file, in buffers of the arena */

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
bool kv_tier_disk_has(struct kv_tier_disk *d, const struct prefix_hash *hash);
/* As kv_tier_get(); a read begins with kv_tier_disk_go().  FOUND: *bytes are the checked ones, until
 * kv_tier_disk_used(). */
enum kv_tier_found kv_tier_disk_get(struct kv_tier_disk *d, const struct prefix_hash *hash, double compute_us,
                                    bool may_read, const uint8_t **bytes);
void kv_tier_disk_used(struct kv_tier_disk *d, const struct prefix_hash *hash);
/* It will be asked for soon: has it read if it must be.  False: it is not there, or enough is under way. */
bool kv_tier_disk_ahead(struct kv_tier_disk *d, const struct prefix_hash *hash);
void kv_tier_disk_go(struct kv_tier_disk *d);
void kv_tier_disk_drop_reads(struct kv_tier_disk *d);
/* Whether reading a block, which lately took read_us (0: not measured), beats computing it. */
bool kv_tier_disk_pays(double read_us, double compute_us);
#endif
