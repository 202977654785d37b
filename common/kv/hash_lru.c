/* hash_lru.c - chained buckets, a list by last use and a list of free slots, all in one array. */
#include "kv/hash_lru.h"

#include "base/mem.h"

#include <assert.h>

#define NONE HASH_LRU_NONE

enum status hash_lru_init(struct hash_lru *l, uint32_t n_slots)
{
    void *slots = NULL, *buckets = NULL;
    uint32_t n_buckets = 16;
    assert(n_slots > 0 && n_slots <= UINT32_MAX / 2);
    while (n_buckets < n_slots) n_buckets *= 2;
    enum status st = mem_try_array(&slots, n_slots, sizeof(*l->slots));
    if (st == OK) st = mem_try_array(&buckets, n_buckets, sizeof(*l->buckets));
    if (st != OK) {
        mem_free(slots);
        return st;
    }
    *l = (struct hash_lru){ slots, buckets, n_slots, 0, n_buckets, NONE, NONE, 0 };
    for (uint32_t i = 0; i < n_buckets; i++) l->buckets[i] = NONE;
    for (uint32_t i = 0; i < n_slots; i++) l->slots[i].chain = i + 1 < n_slots ? i + 1 : NONE;
    return OK;
}

void hash_lru_fini(struct hash_lru *l)
{
    mem_free(l->slots);
    mem_free(l->buckets);
    *l = (struct hash_lru){ 0 };
}

static uint32_t *bucket_of(const struct hash_lru *l, const struct prefix_hash *h)
{
    return &l->buckets[h->hi & (l->n_buckets - 1)];
}

uint32_t hash_lru_find(const struct hash_lru *l, const struct prefix_hash *h)
{
    uint32_t slot = *bucket_of(l, h);
    while (slot != NONE && !prefix_hash_equal(&l->slots[slot].hash, h)) slot = l->slots[slot].chain;
    return slot;
}

static void list_remove(struct hash_lru *l, uint32_t slot)
{
    const struct hash_lru_slot *s = &l->slots[slot];
    *(s->prev == NONE ? &l->oldest : &l->slots[s->prev].next) = s->next;
    *(s->next == NONE ? &l->newest : &l->slots[s->next].prev) = s->prev;
}

static void list_add(struct hash_lru *l, uint32_t slot)
{
    struct hash_lru_slot *s = &l->slots[slot];
    s->prev = l->newest;
    s->next = NONE;
    *(s->prev == NONE ? &l->oldest : &l->slots[s->prev].next) = slot;
    l->newest = slot;
}

void hash_lru_touch(struct hash_lru *l, uint32_t slot)
{
    list_remove(l, slot);
    list_add(l, slot);
}

uint32_t hash_lru_in_the_way(const struct hash_lru *l)
{
    return l->free == NONE ? l->oldest : NONE;
}

uint32_t hash_lru_add(struct hash_lru *l, const struct prefix_hash *h)
{
    uint32_t slot = l->free, *bucket = bucket_of(l, h);
    assert(slot != NONE && hash_lru_find(l, h) == NONE);
    l->free = l->slots[slot].chain;
    l->slots[slot].hash = *h;
    l->slots[slot].chain = *bucket;
    *bucket = slot;
    list_add(l, slot);
    l->n_used++;
    return slot;
}

void hash_lru_remove(struct hash_lru *l, uint32_t slot)
{
    uint32_t *at = bucket_of(l, &l->slots[slot].hash);
    while (*at != slot) at = &l->slots[*at].chain;
    *at = l->slots[slot].chain;
    list_remove(l, slot);
    l->slots[slot].chain = l->free;
    l->free = slot;
    l->n_used--;
}
