/* kv_inbox.c - what a decode node expects to receive, and what it has stored. */
#include "node/kv_inbox.h"

#include "base/clock.h"
#include "base/mem.h"

#include <pthread.h>
#include <string.h>
#include <uthash.h>

#define PROGRESS_US 500000 /* between two progress reports of one offer */

struct offer_key { /* no padding: hashed as bytes */
    uint64_t hi, lo, epoch;
};

enum offer_state { OFFER_OPEN, OFFER_COMPLETE, OFFER_CLOSED };

/* Guarded by the inbox's lock; writers, whom kv_inbox_close() awaits, read `blocks` and `slot` without it. */
struct offer {
    struct offer_key key;
    uint64_t reservation;
    uint64_t session; /* of the sender, once its first frame came */
    enum offer_state state;
    uint32_t n_tokens;
    kv_block_id *blocks, *window_blocks;
    state_slot_id slot;
    struct kv_cover *cover;
    uint64_t granted, received, expected;
    uint32_t n_writers;
    uint32_t n_waiters; /* receive threads that wait for the writers */
    bool committed;
    int32_t first_token;
    uint64_t first_us;
    uint64_t told_us; /* the last progress report */
    UT_hash_handle hh;
};

struct kv_inbox {
    const struct kv_map *map;
    const struct cache_geometry *geometry;
    pthread_mutex_t lock;
    pthread_cond_t no_writers;
    struct offer *offers;
};

struct kv_inbox *kv_inbox_create(const struct kv_map *map, const struct cache_geometry *geometry)
{
    struct kv_inbox *in = mem_zalloc(sizeof(*in));
    in->map = map;
    in->geometry = geometry;
    pthread_mutex_init(&in->lock, NULL);
    pthread_cond_init(&in->no_writers, NULL);
    return in;
}

static void offer_free(struct offer *o)
{
    if (!o) return;
    mem_free(o->blocks);
    mem_free(o->window_blocks);
    kv_cover_destroy(o->cover);
    mem_free(o);
}

void kv_inbox_destroy(struct kv_inbox *in)
{
    struct offer *o, *next;
    if (!in) return;
    HASH_ITER(hh, in->offers, o, next)
    {
        HASH_DEL(in->offers, o);
        offer_free(o);
    }
    pthread_cond_destroy(&in->no_writers);
    pthread_mutex_destroy(&in->lock);
    mem_free(in);
}

static struct offer *find(struct kv_inbox *in, uint64_t hi, uint64_t lo, uint32_t epoch)
{
    struct offer_key key = { hi, lo, epoch };
    struct offer *o;
    HASH_FIND(hh, in->offers, &key, sizeof(key), o);
    return o;
}

static bool has_kind(const struct cache_geometry *g, Baton__Kv__CacheKind kind)
{
    for (uint32_t i = 0; i < g->n_groups; i++)
        if (g->groups[i].kind == kind) return true;
    return false;
}

/* Whether the offer names memory for every kind of group. */
static bool has_places(const struct kv_inbox *in, const struct kv_offer *offer)
{
    const struct cache_geometry *g = in->geometry;
    if (has_kind(g, BATON__KV__CACHE_KIND__WINDOW) && !offer->window_blocks) return false;
    return !has_kind(g, BATON__KV__CACHE_KIND__SNAPSHOT) || offer->slot < kv_map_n_slots(in->map);
}

static kv_block_id *copy_of(const kv_block_id *ids, uint32_t n)
{
    kv_block_id *copy = mem_array(n, sizeof(*copy));
    memcpy(copy, ids, n * sizeof(*copy));
    return copy;
}

enum status kv_inbox_add(struct kv_inbox *in, const struct kv_offer *offer)
{
    const struct cache_geometry *g = in->geometry;
    uint32_t n = (offer->n_tokens + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    struct kv_cover *cover;
    struct offer *o;
    enum status st;

    if (offer->n_tokens == 0 || offer->n_blocks < n || offer->hit_tokens % KV_BLOCK_TOKENS ||
        offer->hit_tokens >= offer->n_tokens || !has_places(in, offer))
        return ERR_INVALID;
    if ((st = kv_cover_create(&cover, g, offer->n_tokens, offer->hit_tokens)) != OK) return st;
    o = mem_zalloc(sizeof(*o));
    o->key = (struct offer_key){ offer->key.hi, offer->key.lo, offer->key.epoch };
    o->reservation = offer->reservation;
    o->n_tokens = offer->n_tokens;
    o->blocks = copy_of(offer->blocks, n);
    if (offer->window_blocks) o->window_blocks = copy_of(offer->window_blocks, n);
    o->slot = offer->slot;
    o->cover = cover;
    o->granted = offer->credit_bytes;
    o->expected = kv_cover_expected_bytes(g, offer->n_tokens, offer->hit_tokens);

    pthread_mutex_lock(&in->lock);
    if (find(in, offer->key.hi, offer->key.lo, offer->key.epoch)) {
        pthread_mutex_unlock(&in->lock);
        offer_free(o);
        return ERR_INVALID;
    }
    HASH_ADD(hh, in->offers, key, sizeof(o->key), o);
    pthread_mutex_unlock(&in->lock);
    return OK;
}

/* With the lock: no writer of `o` is left when this returns. */
static void await_writers(struct kv_inbox *in, struct offer *o)
{
    while (o->n_writers > 0) pthread_cond_wait(&in->no_writers, &in->lock);
}

void kv_inbox_close(struct kv_inbox *in, const struct seq_key *key)
{
    struct offer *o;

    pthread_mutex_lock(&in->lock);
    o = find(in, key->hi, key->lo, key->epoch);
    if (o) {
        o->state = OFFER_CLOSED;
        await_writers(in, o);
        while (o->n_waiters > 0) pthread_cond_wait(&in->no_writers, &in->lock);
        HASH_DEL(in->offers, o);
    }
    pthread_mutex_unlock(&in->lock);
    offer_free(o);
}

uint32_t kv_inbox_n_open(struct kv_inbox *in)
{
    uint32_t n = 0;
    pthread_mutex_lock(&in->lock);
    for (struct offer *o = in->offers; o; o = o->hh.next) n += o->state == OFFER_OPEN;
    pthread_mutex_unlock(&in->lock);
    return n;
}

/* With the lock: the open offer that a message of this session speaks of. */
static struct offer *find_open(struct kv_inbox *in, uint64_t session, const struct kv_wire_id *id)
{
    struct offer *o = find(in, id->hi, id->lo, id->epoch);
    if (!o || o->state != OFFER_OPEN || o->reservation != id->reservation) return NULL;
    if (o->session && o->session != session) return NULL;
    return o;
}

static enum kv_inbox_verdict fail(struct offer *o)
{
    o->state = OFFER_CLOSED;
    return KV_INBOX_FAILED;
}

/* With the lock: complete once all of every group is stored and the commit has come. */
static enum kv_inbox_verdict judge(struct offer *o, struct kv_inbox_result *out)
{
    if (!kv_cover_is_whole(o->cover) || !o->committed) return KV_INBOX_STORED;
    o->state = OFFER_COMPLETE;
    out->first_token = o->first_token;
    out->n_tokens = o->n_tokens;
    out->bytes = o->received;
    out->first_us = o->first_us;
    return KV_INBOX_COMPLETE;
}

struct part { /* what a data frame is, once it fits its offer */
    struct kv_cells cells;
    uint32_t t0, n_bytes;
    bool is_state;
};

static enum status read_header(const struct kv_inbox *in, const struct offer *o, const Baton__Kv__KvMessage *m,
                               struct part *p, struct error *err)
{
    enum status st;
    p->is_state = m->body_case == BATON__KV__KV_MESSAGE__BODY_STATE;
    if (p->is_state) {
        const struct kv_wire_state s = kv_wire_state_of(m->state);
        if ((st = kv_wire_check_state(m->state, in->geometry, o->n_tokens, err)) != OK) return st;
        p->cells = kv_cover_of_state(o->cover, &s);
        p->n_bytes = s.n_bytes;
        return OK;
    }
    const struct kv_wire_range r = kv_wire_block_range(m->block);
    if ((st = kv_wire_check_block(m->block, in->geometry, o->n_tokens, err)) != OK) return st;
    p->cells = kv_cover_of_block(o->cover, &r);
    p->t0 = r.t0;
    p->n_bytes = m->block->n_bytes;
    return OK;
}

/* With the lock: all that can be said about a frame before its bytes are written. */
static enum status admit(struct kv_inbox *in, struct offer *o, uint64_t session, const Baton__Kv__KvMessage *m,
                         struct part *p, struct error *err)
{
    const struct kv_cells *c = &p->cells;
    enum status st = read_header(in, o, m, p, err);

    if (st != OK) return st;
    if (p->n_bytes > o->granted - o->received)
        return error_set(err, ERR_TOO_LARGE, "%u bytes sent, but only %llu were granted", p->n_bytes,
                         (unsigned long long)(o->granted - o->received));
    if (!kv_cover_claim(o->cover, c))
        return error_set(err, ERR_CORRUPT,
                         "layers [%u, %u) heads [%u, %u) %s [%u, %u) of cache group %u came twice or uncalled for",
                         c->l0, c->l1, c->h0, c->h1, p->is_state ? "units" : "blocks", c->c0, c->c1, c->group);
    if (!o->session) {
        o->session = session;
        o->first_us = clock_now_us();
    }
    o->received += p->n_bytes;
    o->n_writers++;
    return OK;
}

/* Without the lock. */
static enum status write_part(const struct kv_inbox *in, const struct offer *o, const Baton__Kv__KvMessage *m,
                              const struct part *p, const uint8_t *bytes)
{
    if (p->is_state) {
        const struct kv_wire_state s = kv_wire_state_of(m->state);
        return kv_cut_unpack_state(in->map, in->geometry, &s, o->slot, bytes);
    }
    const struct kv_wire_range r = kv_wire_block_range(m->block);
    const bool is_window = in->geometry->groups[r.group].kind == BATON__KV__CACHE_KIND__WINDOW;
    const kv_block_id *blocks = is_window ? o->window_blocks : o->blocks;
    return kv_cut_unpack(in->map, in->geometry, &r, blocks + p->t0 / KV_BLOCK_TOKENS, bytes);
}

/* With the lock: the bytes are written, or (st) were refused. */
static enum kv_inbox_verdict settle(struct kv_inbox *in, struct offer *o, const struct part *p, enum status st,
                                    struct kv_inbox_result *out)
{
    const struct kv_cells *c = &p->cells;
    uint64_t now;

    if (--o->n_writers == 0) pthread_cond_broadcast(&in->no_writers);
    if (o->state != OFFER_OPEN) return KV_INBOX_STALE;
    if (st != OK) {
        error_set(&out->err, st, "%s in layers [%u, %u) %s [%u, %u) of cache group %u",
                  st == ERR_UNSUPPORTED ? "a snapshot, which this node does not keep,"
                                        : "a value or a scale out of range",
                  c->l0, c->l1, p->is_state ? "units" : "blocks", c->c0, c->c1, c->group);
        return fail(o);
    }
    kv_cover_store(o->cover, c);
    o->granted += p->n_bytes;
    out->credit = p->n_bytes;
    out->bytes = o->received;
    now = clock_now_us();
    if (now - o->told_us >= PROGRESS_US) {
        o->told_us = now;
        out->progress = true;
    }
    return judge(o, out);
}

enum kv_inbox_verdict kv_inbox_data(struct kv_inbox *in, uint64_t session, Baton__Kv__KvMessage *m,
                                    struct bytes payload, struct kv_inbox_result *out)
{
    enum status st = kv_wire_check_payload(m, payload, &out->err); /* the long part: without the lock */
    enum kv_inbox_verdict v;
    struct part p = { 0 };
    struct offer *o;

    kv_wire_message_id(m, &out->id);
    pthread_mutex_lock(&in->lock);
    o = find_open(in, session, &out->id);
    if (!o) {
        v = st == OK ? KV_INBOX_STALE : KV_INBOX_GARBAGE;
    } else if (st != OK || admit(in, o, session, m, &p, &out->err) != OK) {
        v = fail(o);
    } else {
        pthread_mutex_unlock(&in->lock);
        st = write_part(in, o, m, &p, payload.p);
        pthread_mutex_lock(&in->lock);
        v = settle(in, o, &p, st, out);
    }
    pthread_mutex_unlock(&in->lock);
    return v;
}

enum kv_inbox_verdict kv_inbox_commit(struct kv_inbox *in, uint64_t session, const Baton__Kv__Commit *c,
                                      struct kv_inbox_result *out)
{
    enum kv_inbox_verdict v = KV_INBOX_STALE;
    struct offer *o;

    out->id = (struct kv_wire_id){ c->request->incarnation, c->request->counter, c->epoch, c->reservation };
    pthread_mutex_lock(&in->lock);
    o = find_open(in, session, &out->id);
    if (o && (o->committed || c->n_tokens != o->n_tokens || c->n_bytes != o->expected)) {
        error_set(&out->err, ERR_CORRUPT, "commit of %u tokens in %llu bytes, expected one of %u tokens in %llu bytes",
                  c->n_tokens, (unsigned long long)c->n_bytes, o->n_tokens, (unsigned long long)o->expected);
        v = fail(o);
    } else if (o) {
        o->committed = true;
        o->first_token = c->first_token;
        v = judge(o, out);
    }
    pthread_mutex_unlock(&in->lock);
    return v;
}

enum kv_inbox_verdict kv_inbox_abort(struct kv_inbox *in, uint64_t session, const Baton__Kv__Abort *a,
                                     struct kv_inbox_result *out)
{
    enum kv_inbox_verdict v = KV_INBOX_STALE;
    struct offer *o;

    out->id = (struct kv_wire_id){ a->request->incarnation, a->request->counter, a->epoch, a->reservation };
    pthread_mutex_lock(&in->lock);
    o = find_open(in, session, &out->id);
    if (o) {
        error_set(&out->err, a->status > OK && a->status < STATUS_COUNT ? (enum status)a->status : ERR_CANCELLED,
                  "the prefill node gave up: %s", a->message);
        v = fail(o);
        o->n_waiters++;
        await_writers(in, o);
        o->n_waiters--;
        pthread_cond_broadcast(&in->no_writers);
    }
    pthread_mutex_unlock(&in->lock);
    return v;
}

bool kv_inbox_fail_session(struct kv_inbox *in, uint64_t session, const struct error *why, struct kv_inbox_result *out)
{
    bool found = false;

    pthread_mutex_lock(&in->lock);
    for (struct offer *o = in->offers; o && !found; o = o->hh.next) {
        if (o->state != OFFER_OPEN || o->session != session) continue;
        o->state = OFFER_CLOSED;
        out->id = (struct kv_wire_id){ o->key.hi, o->key.lo, (uint32_t)o->key.epoch, o->reservation };
        out->err = *why;
        found = true;
    }
    pthread_mutex_unlock(&in->lock);
    return found;
}
