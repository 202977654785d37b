/* stress/handoff: transfers that are cut off at any moment by either side; what completes is right, and what was
 * fenced is never written again. */
#include "node/kv_recv.h"
#include "node/kv_send.h"

#include "base/mailbox.h"
#include "helpers/kv_fake.h"
#include "wire/zsock.h"

#include <stdio.h>
#include <stdlib.h>

#define SLOTS    4
#define PER_SLOT 5 /* blocks */
#define N_TOKENS 300
#define ROUNDS   600
#define WAIT_MS  20000

struct slot { /* one transfer after the other, always into the same blocks */
    struct seq_key key;
    kv_block_id from[PER_SLOT], to[PER_SLOT];
    bool sending, fenced;
};

struct rig {
    struct cache_geometry geometry;
    struct kv_store *from, *to;
    struct kv_map *from_map, *to_map;
    struct kv_recv *recv;
    struct kv_send *send;
    struct metrics *metrics;
    struct mailbox *box;
    struct slot slots[SLOTS];
    uint32_t seed, counter, n_stored, n_cut;
};

struct note {
    bool sender;
    struct seq_key key;
    int kind;
};

static void check(bool ok, const char *what)
{
    if (ok) return;
    fprintf(stderr, "stress/handoff: %s\n", what);
    abort();
}

static uint32_t draw(struct rig *r, uint32_t n)
{
    r->seed = r->seed * 1664525 + 1013904223;
    return (r->seed >> 8) % n;
}

static void post(struct rig *r, bool sender, const struct seq_key *key, int kind)
{
    struct note *n = mem_zalloc(sizeof(*n));
    *n = (struct note){ sender, *key, kind };
    check(mailbox_post(r->box, n) == OK, "the mailbox is full");
}

static void on_recv(void *ctx, const struct kv_recv_event *ev)
{
    if (ev->kind != KV_RECV_PROGRESS) post(ctx, false, &ev->key, ev->kind);
}

static void on_send(void *ctx, const struct kv_send_event *ev)
{
    post(ctx, true, &ev->key, ev->kind);
}

static void begin(struct rig *r, struct slot *s)
{
    const char *endpoints[2] = { kv_recv_endpoint(r->recv, 0), kv_recv_endpoint(r->recv, 1) };
    const uint64_t credit = 60000;

    s->key = (struct seq_key){ 1, ++r->counter, 1 };
    s->sending = true;
    s->fenced = false;
    check(kv_inbox_add(kv_recv_inbox(r->recv),
                       &(struct kv_offer){ s->key, r->counter, s->to, PER_SLOT, N_TOKENS, 0, credit }) == OK,
          "an offer was refused");
    kv_send_begin(r->send, &(struct kv_send_job){ s->key, r->counter, "to", endpoints, 2, credit, N_TOKENS, 0 });
    for (uint32_t l = 0; l < 4; l += 2) kv_send_piece(r->send, &s->key, l, l + 2, 0, N_TOKENS, s->from, NULL);
    kv_send_commit(r->send, &s->key, 1);
}

/* The receiver's side gives up; its blocks are its own again at once. */
static void fence(struct rig *r, struct slot *s)
{
    uint8_t *slice = r->to->layers[0].base + s->to[0] * r->to->layers[0].stride;

    kv_inbox_close(kv_recv_inbox(r->recv), &s->key);
    s->fenced = true;
    memset(slice, 0x55, 64); /* a late writer is a data race here, which ThreadSanitizer sees */
    kv_send_end(r->send, &s->key, false);
    r->n_cut++;
}

static void on_note(struct rig *r, const struct note *n)
{
    struct slot *s = r->slots;

    while (s < r->slots + SLOTS && (s->key.lo != n->key.lo || !s->sending)) s++;
    if (s == r->slots + SLOTS) return; /* of a transfer that is over */
    if (n->sender) {
        s->sending = false;
        kv_inbox_close(kv_recv_inbox(r->recv), &s->key);
        return;
    }
    if (n->kind != KV_RECV_STORED || s->fenced) return;
    check(fake_same(r->from, s->from, r->to, s->to, N_TOKENS), "stored bytes differ");
    r->n_stored++;
}

static void open_rig(struct rig *r)
{
    struct error err;

    r->geometry = fake_geometry(4, 2, 64);
    r->from = fake_store(&r->geometry, SLOTS * PER_SLOT, true);
    r->to = fake_store(&r->geometry, SLOTS * PER_SLOT, false);
    r->from_map = fake_map(r->from);
    r->to_map = fake_map(r->to);
    r->metrics = metrics_create();
    check(mailbox_create(&r->box, 1024) == OK, "no mailbox");
    const struct kv_recv_options ro = {
        "tcp://127.0.0.1:0", 2, "to", 1, &r->geometry, r->to_map, r->metrics, on_recv, r
    };
    const struct kv_send_options so = { "from", 2, &r->geometry, r->from_map, 20000, 5000, r->metrics, on_send, r };
    check(kv_recv_open(&r->recv, &ro, &err) == OK, err.text);
    check(kv_send_open(&r->send, &so, &err) == OK, err.text);
    for (uint32_t i = 0; i < SLOTS * PER_SLOT; i++) {
        r->slots[i / PER_SLOT].from[i % PER_SLOT] = i;
        r->slots[i / PER_SLOT].to[i % PER_SLOT] = SLOTS * PER_SLOT - 1 - i;
    }
}

static void close_rig(struct rig *r)
{
    struct note *n;

    kv_send_destroy(r->send);
    kv_recv_close(r->recv);
    while ((n = mailbox_try_take(r->box))) mem_free(n);
    mailbox_destroy(r->box);
    metrics_destroy(r->metrics);
    kv_map_destroy(r->from_map);
    kv_map_destroy(r->to_map);
    fake_store_free(r->from);
    fake_store_free(r->to);
    zsock_context_term();
}

int main(void)
{
    struct rig r = { .seed = 7 };

    open_rig(&r);
    for (uint32_t started = 0, live = 0; started < ROUNDS || live > 0;) {
        struct note *n;
        live = 0;
        for (struct slot *s = r.slots; s < r.slots + SLOTS; s++) {
            if (!s->sending && started < ROUNDS) {
                begin(&r, s);
                started++;
                if (draw(&r, 3) == 0) kv_send_end(r.send, &s->key, true); /* the sender's side gives up */
            } else if (s->sending && !s->fenced && draw(&r, 12) == 0) {
                fence(&r, s);
            }
            live += s->sending;
        }
        if (live == 0) continue;
        n = mailbox_take(r.box, WAIT_MS);
        check(n != NULL, "nothing happens any more");
        on_note(&r, n);
        mem_free(n);
    }
    check(r.n_stored > 0 && r.n_cut > 0, "nothing was tried");
    printf("stress/handoff: %u stored, %u fenced of %u\n", r.n_stored, r.n_cut, ROUNDS);
    close_rig(&r);
    return 0;
}
