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
    uint32_t n_known, n_strangers;
    kv_peers_told_fn told;
    void *ctx;
};

struct kv_peers *kv_peers_create(kv_peers_told_fn told, void *ctx)
{
    struct kv_peers *p = mem_zalloc(sizeof(*p));
    p->told = told;
    p->ctx = ctx;
    return p;
}

static void drop(struct kv_peers *p, struct slot *s)
{
    *(s->entry.known ? &p->n_known : &p->n_strangers) -= 1;
    HASH_DEL(p->slots, s);
    mem_free(s);
}

void kv_peers_destroy(struct kv_peers *p)
{
    struct slot *s, *next;
    if (!p) return;
    HASH_ITER(hh, p->slots, s, next) drop(p, s);
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

struct kv_peer_entry *kv_peers_untold(struct kv_peers *p)
{
    for (struct slot *s = p->slots; s; s = s->hh.next)
        if (s->entry.n_read != s->entry.n_told && !s->entry.ignored) return &s->entry;
    return NULL;
}

void kv_peers_prove(struct kv_peers *p, struct kv_peer_entry *e)
{
    if (e->known) return;
    e->known = true;
    p->n_strangers--;
    p->n_known++;
}

/* Makes room in the newcomer's own table.  A coordinator's word may come after a peer's Hello: who would be pushed out
 * as a stranger is asked about once more. */
static void make_room(struct kv_peers *p, bool known)
{
    struct slot *s, *next;
    HASH_ITER(hh, p->slots, s, next)
    {
        if (known ? p->n_known < KV_PEERS_MAX : p->n_strangers < KV_STRANGERS_MAX) return;
        if (!s->entry.known && p->told(p->ctx, s->entry.incarnation)) kv_peers_prove(p, &s->entry);
        if (s->entry.known == known) drop(p, s);
    }
}

struct kv_peer_entry *kv_peers_put(struct kv_peers *p, const void *id, size_t n, uint64_t session, uint64_t incarnation)
{
    bool known = incarnation != 0 && p->told(p->ctx, incarnation);
    struct slot *s;

    if (n > KV_PEER_ID_MAX) return NULL;
    HASH_FIND(hh, p->slots, id, n, s);
    if (s) drop(p, s);
    make_room(p, known);
    s = mem_zalloc(sizeof(*s));
    *(known ? &p->n_known : &p->n_strangers) += 1;
    s->entry.known = known;
    s->entry.incarnation = incarnation;
    s->entry.session = session;
    s->entry.id_len = n;
    memcpy(s->entry.id, id, n);
    HASH_ADD(hh, p->slots, entry.id[0], (unsigned)n, s);
    return &s->entry;
}
