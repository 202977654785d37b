/* kv_tier_base.c - the counters and the checksum of all levels of the KV tier. */
#include "store/kv_tier_base.h"

#include <xxhash.h>

void kv_tier_drop(struct kv_tier_counters *c, enum kv_tier_drop why)
{
    atomic_fetch_add_explicit(&c->dropped[why], 1, memory_order_relaxed);
}

uint64_t kv_tier_sum(const uint8_t *p, size_t n)
{
    return XXH3_64bits(p, n);
}
