/* prefix_cache.c - a hash map from prefix hashes to block ids. */
#include "kv/prefix_cache.h"

#include "base/mem.h"

#include <assert.h>

#define NONE UINT32_MAX

struct entry { /* of a block */
    struct prefix_hash hash;
    kv_block_id next; /* in its bucket */
    bool known;
};

struct prefix_cache {
    struct kv_pool *pool;
    struct entry *entries; /* [n_blocks] */
    kv_block_id *buckets;  /* [n_buckets], NONE: empty */
    uint32_t n_buckets;    /* a power of two */
    prefix_evict_fn evict; /* NULL: nobody */
    void *ctx;
};

static kv_block_id *bucket_of(const struct prefix_cache *c, const struct prefix_hash *h)
{
    return &c->buckets[h->hi & (c->n_buckets - 1)];
}

static kv_block_id find(const struct prefix_cache *c, const struct prefix_hash *h)
{
    kv_block_id id = *bucket_of(c, h);
    while (id != NONE && !prefix_hash_equal(&c->entries[id].hash, h)) id = c->entries[id].next;
    return id;
}

static void forget(void *ctx, kv_block_id id)
{
    struct prefix_cache *c = ctx;
    if (c->evict) c->evict(c->ctx, &c->entries[id].hash, id);
    kv_block_id *at = bucket_of(c, &c->entries[id].hash);
    while (*at != id) at = &c->entries[*at].next;
    *at = c->entries[id].next;
    c->entries[id].known = false;
}

enum status prefix_cache_create(struct prefix_cache **out, struct kv_pool *pool)
{
    uint32_t n = kv_pool_n_blocks(pool), n_buckets = 16;
    void *entries = NULL, *buckets = NULL;
    while (n_buckets < n) n_buckets *= 2;
    enum status st = mem_try_array(&entries, n, sizeof(struct entry));
    if (st == OK) st = mem_try_array(&buckets, n_buckets, sizeof(kv_block_id));
    if (st != OK) {
        mem_free(entries);
        return st;
    }
    struct prefix_cache *c = mem_zalloc(sizeof(*c));
    *c = (struct prefix_cache){ .pool = pool, .entries = entries, .buckets = buckets, .n_buckets = n_buckets };
    for (uint32_t i = 0; i < n_buckets; i++) c->buckets[i] = NONE;
    kv_pool_on_forget(pool, forget, c);
    *out = c;
    return OK;
}

void prefix_cache_destroy(struct prefix_cache *c)
{
    if (!c) return;
    mem_free(c->entries);
    mem_free(c->buckets);
    mem_free(c);
}

void prefix_cache_on_evict(struct prefix_cache *c, prefix_evict_fn evict, void *ctx)
{
    c->evict = evict;
    c->ctx = ctx;
}

uint32_t prefix_cache_match(struct prefix_cache *c, const struct prefix_hash *hashes, uint32_t n, kv_block_id *ids)
{
    for (uint32_t i = 0; i < n; i++) {
        kv_block_id id = find(c, &hashes[i]);
        if (id == NONE) return i;
        kv_pool_ref(c->pool, id);
        ids[i] = id;
    }
    return n;
}

void prefix_cache_publish(struct prefix_cache *c, const struct prefix_hash *hash, kv_block_id id)
{
    struct entry *e = &c->entries[id];
    if (find(c, hash) != NONE) return;
    assert(!e->known && "a block has one content");
    kv_block_id *bucket = bucket_of(c, hash);
    *e = (struct entry){ *hash, *bucket, true };
    *bucket = id;
    kv_pool_keep(c->pool, id);
}

void prefix_cache_touch(struct prefix_cache *c, const struct prefix_hash *hashes, uint32_t n)
{
    while (n-- > 0) {
        kv_block_id id = find(c, &hashes[n]);
        if (id != NONE) kv_pool_touch(c->pool, id);
    }
}
