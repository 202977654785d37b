/* hash_lru.h - a fixed number of slots, each known by the hash of a prefix, in order of last use.
 *
 * Knows slot numbers, not what lies in them.  No allocation after its creation.  Threads: one at a time. */
#ifndef KV_HASH_LRU_H
#define KV_HASH_LRU_H
#include "base/status.h"
#include "kv/prefix_hash.h"

#define HASH_LRU_NONE UINT32_MAX

struct hash_lru_slot {
    struct prefix_hash hash;
    uint32_t chain;      /* next in its bucket, or next free one */
    uint32_t prev, next; /* by last use, oldest first */
};

struct hash_lru {
    struct hash_lru_slot *slots; /* owned */
    uint32_t *buckets;           /* owned, [n_buckets]: a power of two */
    uint32_t n_slots, n_used, n_buckets, oldest, newest, free;
};

enum status hash_lru_init(struct hash_lru *l, uint32_t n_slots) MUST_CHECK;
void hash_lru_fini(struct hash_lru *l); /* zeroed is fine */
/* HASH_LRU_NONE: not there. */
uint32_t hash_lru_find(const struct hash_lru *l, const struct prefix_hash *h);
/* The slot was used just now. */
void hash_lru_touch(struct hash_lru *l, uint32_t slot);
/* The slot that has to be removed before another one is added; HASH_LRU_NONE while one is free. */
uint32_t hash_lru_in_the_way(const struct hash_lru *l);
/* Gives `h`, which is not there, a free slot: used just now. */
uint32_t hash_lru_add(struct hash_lru *l, const struct prefix_hash *h);
void hash_lru_remove(struct hash_lru *l, uint32_t slot);
#endif
