/* kv_tier_read.h - reads of blocks from the tier's file, a few at once, while the engine computes.
 *
 * A thread of its own has them under way through base/io_read and compares their checksums.  Threads: the engine's,
 * except where it says otherwise. */
#ifndef STORE_KV_TIER_READ_H
#define STORE_KV_TIER_READ_H
#include "store/kv_tier_base.h"

#include <stdbool.h>

#define KV_TIER_MAX_READS 4

struct kv_tier_reads;

uint64_t kv_tier_reads_bytes(size_t block_bytes); /* of memory */
/* Of the file `fd`, which is opened anew.  opt: io, on_read, ctx. */
enum status kv_tier_reads_create(struct kv_tier_reads **out, int fd, const struct kv_tier_options *opt,
                                 size_t block_bytes, struct error *err) MUST_CHECK;
void kv_tier_reads_destroy(struct kv_tier_reads *r); /* waits for what is under way; NULL is fine */
/* Asks for a slot whose bytes have that checksum.  False: as many as can be are under way. */
bool kv_tier_reads_ask(struct kv_tier_reads *r, uint32_t slot, uint64_t sum);
void kv_tier_reads_go(struct kv_tier_reads *r); /* begins all that were asked for, at once */

enum kv_tier_read_state { KV_READ_NONE, KV_READ_COMING, KV_READ_DONE, KV_READ_FAILED, KV_READ_CORRUPT };
struct kv_tier_read {
    enum kv_tier_read_state state;
    const uint8_t *bytes; /* DONE: until it is dropped */
    double us;            /* DONE, FAILED, CORRUPT: what it added to the reads before it */
};
/* What has become of a read; NONE: there is none. */
struct kv_tier_read kv_tier_reads_look(struct kv_tier_reads *r, uint32_t slot, uint64_t sum);
/* Nobody wants it any more.  One that is under way takes its place until it is over. */
void kv_tier_reads_drop(struct kv_tier_reads *r, uint32_t slot, uint64_t sum);
void kv_tier_reads_drop_all(struct kv_tier_reads *r);
#endif
