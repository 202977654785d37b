/* prefix_cache.c - a hash map from prefix hashes to block ids; a block has up to two names. */
#include "kv/prefix_cache.h"

#include "base/mem.h"

#include <assert.h>

#define NONE UINT32_MAX

enum kind { FULL, TAIL, KIND_COUNT }; /* name i is block i / KIND_COUNT's, of kind i % KIND_COUNT */

struct name {
    struct prefix_hash hash;
    uint32_t next; /* in its bucket */
    bool known;
};

struct prefix_cache {
    struct kv_pool *pool;
    struct name *names;    /* [n_blocks * KIND_COUNT] */
    uint32_t *buckets;     /* [n_buckets], NONE: empty */
    uint32_t n_buckets;    /* a power of two */
    prefix_evict_fn evict; /* NULL: nobody */
    void *ctx;
};

static uint32_t *bucket_of(const struct prefix_cache *c, const struct prefix_hash *h)
{
    return &c->buckets[h->hi & (c->n_buckets - 1)];
}

static kv_block_id find(const struct prefix_cache *c, const struct prefix_hash *h)
{
    uint32_t i = *bucket_of(c, h);
    while (i != NONE && !prefix_hash_equal(&c->names[i].hash, h)) i = c->names[i].next;
    return i == NONE ? NONE : i / KIND_COUNT;
}

static void unlink_name(struct prefix_cache *c, uint32_t i)
{
    uint32_t *at = bucket_of(c, &c->names[i].hash);
    while (*at != i) at = &c->names[*at].next;
    *at = c->names[i].next;
    c->names[i].known = false;
}

static void forget(void *ctx, kv_block_id id)
{
    struct prefix_cache *c = ctx;
    const struct name *full = &c->names[id * KIND_COUNT + FULL];
    if (full->known && c->evict) c->evict(c->ctx, &full->hash, id);
    for (uint32_t i = id * KIND_COUNT; i < (id + 1) * KIND_COUNT; i++)
        if (c->names[i].known) unlink_name(c, i);
}

enum status prefix_cache_create(struct prefix_cache **out, struct kv_pool *pool)
{
    uint32_t n = kv_pool_n_blocks(pool), n_buckets = 16;
    void *names = NULL, *buckets = NULL;
    while (n_buckets < n) n_buckets *= 2;
    enum status st = mem_try_array(&names, n, KIND_COUNT * sizeof(struct name));
    if (st == OK) st = mem_try_array(&buckets, n_buckets, sizeof(uint32_t));
    if (st != OK) {
        mem_free(names);
        return st;
    }
    struct prefix_cache *c = mem_zalloc(sizeof(*c));
    *c = (struct prefix_cache){ .pool = pool, .names = names, .buckets = buckets, .n_buckets = n_buckets };
    for (uint32_t i = 0; i < n_buckets; i++) c->buckets[i] = NONE;
    kv_pool_on_forget(pool, forget, c);
    *out = c;
    return OK;
}

void prefix_cache_destroy(struct prefix_cache *c)
{
    if (!c) return;
    mem_free(c->names);
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

static void publish(struct prefix_cache *c, const struct prefix_hash *hash, kv_block_id id, enum kind kind)
{
    uint32_t i = id * KIND_COUNT + kind;
    if (find(c, hash) != NONE) return;
    assert(!c->names[i].known && "a block has one content");
    uint32_t *bucket = bucket_of(c, hash);
    c->names[i] = (struct name){ *hash, *bucket, true };
    *bucket = i;
    kv_pool_keep(c->pool, id);
}

void prefix_cache_publish(struct prefix_cache *c, const struct prefix_hash *hash, kv_block_id id)
{
    publish(c, hash, id, FULL);
}

void prefix_cache_publish_tail(struct prefix_cache *c, const struct prefix_hash *hash, kv_block_id id)
{
    publish(c, hash, id, TAIL);
}

bool prefix_cache_find(const struct prefix_cache *c, const struct prefix_hash *hash, kv_block_id *id)
{
    *id = find(c, hash);
    return *id != NONE;
}

void prefix_cache_touch(struct prefix_cache *c, const struct prefix_hash *hashes, uint32_t n)
{
    while (n-- > 0) {
        kv_block_id id = find(c, &hashes[n]);
        if (id != NONE) kv_pool_touch(c->pool, id);
    }
}
