/* kv_transfer.c - packs a transfer's parts into frames, one after the other, and ends them with a commit. */
#include "node/kv_transfer.h"

#include "base/clock.h"
#include "base/mem.h"

#include <assert.h>
#include <string.h>
#include <utlist.h>

struct kv_part {
    struct kv_cut_walk walk;
    struct kv_part *prev, *next;
    struct mark written;
    bool is_states;
    struct kv_state_walk states; /* of states, instead of walk and blocks */
    state_slot_id slot;
    uint32_t position;
    uint32_t t0; /* of blocks[0] */
    kv_block_id blocks[];
};

struct kv_part *kv_part_create(const struct kv_wire_range *r, const kv_block_id *blocks, const struct mark *written)
{
    uint32_t n = (r->t1 - r->t0 + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    struct kv_part *p = mem_zalloc(sizeof(*p) + n * sizeof(kv_block_id));

    assert(r->t0 % KV_BLOCK_TOKENS == 0 && r->t0 < r->t1);
    p->walk = kv_cut_walk_of(r);
    p->t0 = r->t0;
    if (written) p->written = *written;
    memcpy(p->blocks, blocks, n * sizeof(kv_block_id));
    return p;
}

struct kv_part *kv_part_of_states(const struct kv_state_walk *walk, state_slot_id slot, uint32_t position,
                                  const struct mark *written)
{
    struct kv_part *p = mem_zalloc(sizeof(*p));

    p->is_states = true;
    p->states = *walk;
    p->slot = slot;
    p->position = position;
    if (written) p->written = *written;
    return p;
}

void kv_part_free(struct kv_part *p)
{
    mem_free(p);
}

struct kv_transfer *kv_transfer_create(const struct kv_send_job *job)
{
    struct kv_transfer *t = mem_zalloc(sizeof(*t));

    t->key = job->key;
    t->reservation = job->reservation;
    t->peer = mem_strdup(job->decode_node);
    t->n_endpoints = job->n_endpoints;
    for (uint32_t i = 0; i < job->n_endpoints && i < KV_LINK_MAX_LANES; i++)
        t->endpoints[i] = mem_strdup(job->endpoints[i]);
    t->n_tokens = job->n_tokens;
    t->hit_tokens = job->hit_tokens;
    t->credit = job->credit_bytes;
    return t;
}

void kv_transfer_free(struct kv_transfer *t)
{
    struct kv_part *p, *next;

    if (!t) return;
    DL_FOREACH_SAFE(t->parts, p, next) kv_part_free(p);
    for (uint32_t i = 0; i < KV_LINK_MAX_LANES; i++) mem_free(t->endpoints[i]);
    mem_free(t->peer);
    mem_free(t);
}

/* Leaves out what nobody needs; false: that is all of it.  Both numbers of tokens are multiples of 64. */
static bool skip_needless(const struct kv_transfer *t, const struct cache_geometry *g, struct kv_part *p)
{
    struct kv_wire_range all = p->walk.all;

    if (p->is_states) return true;
    const uint32_t first = cache_group_first_token(&g->groups[all.group], t->n_tokens);
    const uint32_t t0 = first > t->hit_tokens ? first : t->hit_tokens;
    if (all.t0 < t0) {
        all.t0 = t0;
        p->walk = kv_cut_walk_of(&all);
    }
    return all.t0 < all.t1;
}

void kv_transfer_add(struct kv_transfer *t, const struct cache_geometry *g, struct kv_part *p, uint64_t posted_us)
{
    if (!skip_needless(t, g, p)) {
        kv_part_free(p);
        return;
    }
    if (!t->parts) t->heard_us = clock_now_us();
    t->computed_us = posted_us;
    DL_APPEND(t->parts, p);
}

void kv_transfer_commit(struct kv_transfer *t, int32_t first_token)
{
    t->commit_due = true;
    t->first_token = first_token;
    t->heard_us = clock_now_us();
}

void kv_transfer_credit(struct kv_transfer *t, uint64_t bytes)
{
    if (bytes <= t->bytes) t->credit += bytes;
}

static struct kv_wire_id id_of(const struct kv_transfer *t)
{
    return (struct kv_wire_id){ t->key.hi, t->key.lo, t->key.epoch, t->reservation };
}

/* The next frame of the first part: what it covers, and its header. */
struct cut {
    struct kv_wire_range range;
    struct kv_wire_state states;
    uint32_t n_bytes;
    struct kv_wire_note note;
};

static void fill_block(struct cut *c, const struct kv_part *p, const struct kv_transfer_means *means,
                       const struct kv_wire_id *id)
{
    const struct kv_wire_range r = c->range = kv_cut_walk_peek(&p->walk, means->geometry, means->frame_bytes);
    Baton__Kv__BlockHeader *b = &c->note.block;

    kv_wire_note_init(&c->note, BATON__KV__KV_MESSAGE__BODY_BLOCK, id);
    b->fingerprint = means->geometry->fingerprint;
    b->codec = means->geometry->groups[r.group].codec;
    b->group = r.group;
    b->l0 = r.l0;
    b->l1 = r.l1;
    b->h0 = r.h0;
    b->h1 = r.h1;
    b->t0 = r.t0;
    b->t1 = r.t1;
    c->n_bytes = b->n_bytes = (uint32_t)kv_wire_range_bytes(means->geometry, &r);
}

static void fill_states(struct cut *c, const struct kv_part *p, const struct kv_transfer_means *means,
                        const struct kv_wire_id *id)
{
    const struct kv_wire_state s = c->states = kv_state_walk_peek(&p->states, means->geometry, means->frame_bytes);
    Baton__Kv__StateHeader *h = &c->note.state;

    kv_wire_note_init(&c->note, BATON__KV__KV_MESSAGE__BODY_STATE, id);
    h->fingerprint = means->geometry->fingerprint;
    h->codec = means->geometry->groups[s.group].codec;
    h->group = s.group;
    h->layer = s.layer;
    h->h0 = s.h0;
    h->h1 = s.h1;
    h->position = p->position;
    c->n_bytes = h->n_bytes = s.n_bytes;
}

static enum status pack(const struct cut *c, const struct kv_part *p, const struct kv_transfer_means *means,
                        uint8_t *bytes)
{
    enum status st = mark_wait(&p->written);
    if (st != OK) return st;
    if (p->is_states) return kv_cut_pack_state(means->map, means->geometry, &c->states, p->slot, bytes);
    return kv_cut_pack(means->map, means->geometry, &c->range, p->blocks + (c->range.t0 - p->t0) / KV_BLOCK_TOKENS,
                       bytes);
}

/* The frame has left: it counts, and what comes next is what follows it. */
static void pass(struct kv_transfer *t, const struct kv_transfer_means *means, const struct cut *c)
{
    struct kv_part *p = t->parts;

    t->credit -= c->n_bytes;
    t->bytes += c->n_bytes;
    t->frames++;
    metric_add(means->metrics->bytes, c->n_bytes);
    metric_add(means->metrics->frames, 1);
    if (p->is_states)
        kv_state_walk_pass(&p->states, means->geometry, &c->states);
    else
        kv_cut_walk_pass(&p->walk, &c->range);
    if (p->is_states ? kv_state_walk_has_next(&p->states) : kv_cut_walk_has_next(&p->walk)) return;
    DL_DELETE(t->parts, p);
    kv_part_free(p);
}

static enum kv_transfer_step send_frame(struct kv_transfer *t, const struct kv_transfer_means *means, struct error *err)
{
    struct kv_part *p = t->parts;
    const struct kv_wire_id id = id_of(t);
    struct cut c;
    struct frame *f;

    (p->is_states ? fill_states : fill_block)(&c, p, means, &id);
    if (c.n_bytes > t->credit || !(f = frame_pool_take(means->pool))) return KV_TRANSFER_WAITS;
    if (pack(&c, p, means, frame_bytes(f)) != OK) {
        error_set(err, ERR_INTERNAL, "cannot pack %s of cache group %u", p->is_states ? "states" : "blocks",
                  p->is_states ? c.states.group : c.range.group);
        frame_give_back(NULL, f);
        return KV_TRANSFER_BROKEN;
    }
    kv_link_send_data(t->link, &c.note.m, f);
    pass(t, means, &c);
    return KV_TRANSFER_SENT;
}

static void send_commit(struct kv_transfer *t)
{
    const struct kv_wire_id id = id_of(t);
    struct kv_wire_note note;

    kv_wire_note_init(&note, BATON__KV__KV_MESSAGE__BODY_COMMIT, &id);
    note.commit.n_tokens = t->n_tokens;
    note.commit.first_token = t->first_token;
    note.commit.n_bytes = t->bytes;
    note.commit.n_frames = t->frames;
    kv_link_send(t->link, &note.m);
    t->commit_sent = true;
}

enum kv_transfer_step kv_transfer_step(struct kv_transfer *t, const struct kv_transfer_means *means, struct error *err)
{
    if (kv_link_state(t->link) != KV_LINK_READY) return KV_TRANSFER_WAITS;
    if (t->parts) return send_frame(t, means, err);
    if (!t->commit_due || t->commit_sent) return KV_TRANSFER_WAITS;
    send_commit(t);
    return KV_TRANSFER_SENT;
}

void kv_transfer_abort(const struct kv_transfer *t, enum status status, const char *text)
{
    const struct kv_wire_id id = id_of(t);
    struct kv_wire_note note;

    if (!t->link) return;
    kv_wire_note_init(&note, BATON__KV__KV_MESSAGE__BODY_ABORT, &id);
    note.abort.status = status;
    note.abort.message = (char *)(uintptr_t)text;
    kv_link_send(t->link, &note.m);
}

bool kv_transfer_is_late(const struct kv_transfer *t, uint64_t now_us, uint64_t limit_us)
{
    if (!t->parts && !t->commit_due) return false;
    return now_us >= t->heard_us && now_us - t->heard_us > limit_us;
}
