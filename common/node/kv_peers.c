/* kv_peers.c - who has said Hello on one lane of the KV plane. */
#include "node/kv_peers.h"

#include "base/mem.h"

#include <string.h>
#include <uthash.h>

struct slot {
    struct kv_peer_entry entry;
    UT_hash_handle hh; /* keeps the order of arrival */
};

struct kv_peers {
    struct slot *slots;
};

struct kv_peers *kv_peers_create(void)
{
    return mem_zalloc(sizeof(struct kv_peers));
}

void kv_peers_destroy(struct kv_peers *p)
{
    struct slot *s, *next;
    if (!p) return;
    HASH_ITER(hh, p->slots, s, next)
    {
        HASH_DEL(p->slots, s);
        mem_free(s);
    }
    mem_free(p);
}

struct kv_peer_entry *kv_peers_find(struct kv_peers *p, const void *id, size_t n)
{
    struct slot *s;
    HASH_FIND(hh, p->slots, id, n, s);
    return s ? &s->entry : NULL;
}

struct kv_peer_entry *kv_peers_by_session(struct kv_peers *p, uint64_t session)
{
    struct kv_peer_entry *found = NULL;
    for (struct slot *s = p->slots; s; s = s->hh.next)
        if (s->entry.session == session && !s->entry.ignored) found = &s->entry;
    return found;
}

struct kv_peer_entry *kv_peers_put(struct kv_peers *p, const void *id, size_t n, uint64_t session)
{
    struct slot *s;

    if (n > KV_PEER_ID_MAX) return NULL;
    HASH_FIND(hh, p->slots, id, n, s);
    if (s) {
        HASH_DEL(p->slots, s);
        mem_free(s);
    } else if (HASH_COUNT(p->slots) >= KV_PEERS_MAX) {
        s = p->slots;
        HASH_DEL(p->slots, s);
        mem_free(s);
    }
    s = mem_zalloc(sizeof(*s));
    s->entry.session = session;
    s->entry.id_len = n;
    memcpy(s->entry.id, id, n);
    HASH_ADD(hh, p->slots, entry.id[0], (unsigned)n, s);
    return &s->entry;
}
