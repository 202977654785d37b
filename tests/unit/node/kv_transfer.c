/* kv_send to kv_recv over loopback: bytes arrive in place, and every failure is told to both sides. */
#include "node/kv_recv.h"
#include "node/kv_send.h"

#include "base/mailbox.h"
#include "helpers/kv_fake.h"
#include "wire/zsock.h"

#include <criterion/criterion.h>
#include <stdatomic.h>
#include <zmq.h>

#define N_TOKENS 500
#define N_BLOCKS 16
#define WAIT_MS  10000

struct note { /* an event of either side */
    bool sender;
    enum kv_send_event_kind kind;
    struct seq_key key;
    enum status status;
    int32_t first_token;
    uint64_t bytes;
    char text[ERROR_TEXT_MAX];
};

struct pair {
    struct cache_geometry sg, rg;
    struct kv_store *from, *to;
    struct kv_map *from_map, *to_map;
    struct kv_recv *recv;
    struct kv_send *send;
    struct metrics *metrics;
    struct mailbox *recv_box, *send_box;
    kv_block_id blocks_from[N_BLOCKS], blocks_to[N_BLOCKS];
};

static void on_recv(void *ctx, const struct kv_recv_event *ev)
{
    if (ev->kind == KV_RECV_PROGRESS) return;
    struct note *n = mem_zalloc(sizeof(*n));
    *n = (struct note){ .key = ev->key, .status = ev->status, .first_token = ev->first_token, .bytes = ev->bytes };
    snprintf(n->text, sizeof(n->text), "%s", ev->message ? ev->message : "");
    cr_assert_eq(mailbox_post(((struct pair *)ctx)->recv_box, n), OK);
}

static void on_send(void *ctx, const struct kv_send_event *ev)
{
    struct note *n = mem_zalloc(sizeof(*n));
    *n = (struct note){ .sender = true, .kind = ev->kind, .key = ev->key, .status = ev->status, .bytes = ev->bytes };
    snprintf(n->text, sizeof(n->text), "%s", ev->message ? ev->message : "");
    cr_assert_eq(mailbox_post(((struct pair *)ctx)->send_box, n), OK);
}

static struct note await(struct mailbox *box)
{
    struct note *n = mailbox_take(box, WAIT_MS), copy;
    cr_assert_not_null(n, "no event came");
    copy = *n;
    mem_free(n);
    return copy;
}

static void open_recv(struct pair *p, const char *endpoint)
{
    struct kv_recv_options r = { endpoint, 2, "d0", 11, &p->rg, p->to_map, p->metrics, on_recv, p };
    struct error err;
    cr_assert_eq(kv_recv_open(&p->recv, &r, &err), OK, "%s", err.text);
}

static void make_stores(struct pair *p, const struct cache_geometry *g)
{
    memset(p, 0, sizeof(*p));
    p->sg = p->rg = *g;
    p->from = fake_store(&p->sg, N_BLOCKS, true);
    p->to = fake_store(&p->rg, N_BLOCKS, false);
    p->from_map = fake_map(p->from);
    p->to_map = fake_map(p->to);
    p->metrics = metrics_create();
    for (uint32_t i = 0; i < N_BLOCKS; i++) {
        p->blocks_from[i] = (i * 5 + 3) % N_BLOCKS;
        p->blocks_to[i] = (i * 7 + 1) % N_BLOCKS;
    }
}

/* Both sides, over the maps that are there by now. */
static void open_sides(struct pair *p)
{
    struct kv_send_options s = { "p0", 12, &p->sg, NULL, 40000, 1000, NULL, on_send, p };
    struct error err;

    cr_assert_eq(mailbox_create(&p->recv_box, 64), OK);
    cr_assert_eq(mailbox_create(&p->send_box, 64), OK);
    open_recv(p, "tcp://127.0.0.1:0");
    s.map = p->from_map;
    s.metrics = p->metrics;
    cr_assert_eq(kv_send_open(&p->send, &s, &err), OK, "%s", err.text);
}

static void start_with(struct pair *p, const struct cache_geometry *g)
{
    make_stores(p, g);
    open_sides(p);
}

static void start(struct pair *p)
{
    const struct cache_geometry g = fake_geometry(6, 3, 64);
    start_with(p, &g);
}

static void stop(struct pair *p)
{
    struct note *n;
    kv_send_destroy(p->send);
    kv_recv_close(p->recv);
    while ((n = mailbox_try_take(p->recv_box))) mem_free(n);
    while ((n = mailbox_try_take(p->send_box))) mem_free(n);
    mailbox_destroy(p->recv_box);
    mailbox_destroy(p->send_box);
    metrics_destroy(p->metrics);
    kv_map_destroy(p->from_map);
    kv_map_destroy(p->to_map);
    fake_store_free(p->from);
    fake_store_free(p->to);
    zsock_context_term();
}

static void offer(struct pair *p, struct seq_key key, uint64_t credit)
{
    struct kv_offer o = { key, 1000 + key.epoch, p->blocks_to, N_BLOCKS, N_TOKENS, 0, credit };
    cr_assert_eq(kv_inbox_add(kv_recv_inbox(p->recv), &o), OK);
}

static void begin(struct pair *p, struct seq_key key, uint64_t credit)
{
    const char *endpoints[2] = { kv_recv_endpoint(p->recv, 0), kv_recv_endpoint(p->recv, 1) };
    kv_send_begin(p->send, &(struct kv_send_job){ key, 1000 + key.epoch, "d0", endpoints, 2, credit, N_TOKENS, 0 });
}

/* Chunks of 192 tokens, three layers at a time, as an engine would report them. */
static void pieces_marked(struct pair *p, struct seq_key key, const struct mark *written)
{
    for (uint32_t t = 0; t < N_TOKENS; t += 192)
        for (uint32_t l = 0; l < 6; l += 3)
            kv_send_piece(p->send, &key, l, l + 3, t, t + 192 < N_TOKENS ? t + 192 : N_TOKENS, p->blocks_from + t / 64,
                          written);
}

static void pieces(struct pair *p, struct seq_key key)
{
    pieces_marked(p, key, NULL);
}

static void expect_transfer(struct pair *p, struct seq_key key, uint64_t credit)
{
    struct note r, s;
    offer(p, key, credit);
    begin(p, key, credit);
    pieces(p, key);
    kv_send_commit(p->send, &key, 4321);
    r = await(p->recv_box);
    cr_assert_eq(r.status, OK, "%s", r.text);
    cr_assert_eq(r.first_token, 4321);
    cr_assert_eq(r.bytes, kv_cover_expected_bytes(&p->rg, N_TOKENS, 0));
    cr_assert(fake_same(p->from, p->blocks_from, p->to, p->blocks_to, N_TOKENS));
    s = await(p->send_box);
    cr_assert_eq(s.kind, KV_SEND_DONE, "%s", s.text);
    cr_assert_eq(s.bytes, r.bytes);
    kv_inbox_close(kv_recv_inbox(p->recv), &key);
}

Test(kv_transfer, stores_all_bytes_in_place_time_after_time)
{
    struct pair p;
    start(&p);
    for (uint32_t i = 1; i < 20; i++) {
        memset(p.to->memory, 0, p.to->bytes);
        expect_transfer(&p, (struct seq_key){ 1, i, 1 }, i % 2 ? 1 << 20 : 40000);
    }
    stop(&p);
}

/* The states go last, with the last chunk's layers, in frames of few heads. */
Test(kv_transfer, a_hybrids_states_follow_its_blocks)
{
    const struct cache_geometry g = fake_hybrid(9, 3, 64);
    struct pair p;
    start_with(&p, &g);
    for (uint32_t i = 1; i < 8; i++) {
        const struct seq_key key = { 1, i, 1 };
        const state_slot_id from = i % FAKE_SLOTS, to = (i + 1) % FAKE_SLOTS;
        const uint64_t credit = i % 2 ? 1 << 20 : 40000;
        memset(p.to->memory, 0, p.to->bytes);
        memset(p.to->states->memory, 0, p.to->states->bytes);
        cr_assert_eq(kv_inbox_add(kv_recv_inbox(p.recv), &(struct kv_offer){ key, 1000 + key.epoch, p.blocks_to,
                                                                             N_BLOCKS, N_TOKENS, 0, credit, to }),
                     OK);
        begin(&p, key, credit);
        for (uint32_t t = 0; t < N_TOKENS; t += 192)
            for (uint32_t l = 0; l < 9; l += 2) {
                const uint32_t t1 = t + 192 < N_TOKENS ? t + 192 : N_TOKENS, l1 = l + 2 < 9 ? l + 2 : 9;
                kv_send_piece(p.send, &key, l, l1, t, t1, p.blocks_from + t / 64, NULL);
                if (t1 == N_TOKENS) kv_send_states(p.send, &key, l, l1, t1, from, NULL);
            }
        kv_send_commit(p.send, &key, 4321);
        const struct note r = await(p.recv_box);
        cr_assert_eq(r.status, OK, "%s", r.text);
        cr_assert_eq(r.bytes, kv_cover_expected_bytes(&p.rg, N_TOKENS, 0));
        cr_assert(fake_same(p.from, p.blocks_from, p.to, p.blocks_to, N_TOKENS));
        cr_assert(fake_same_states(p.from, from, p.to, to));
        cr_assert_eq(await(p.send_box).kind, KV_SEND_DONE);
        kv_inbox_close(kv_recv_inbox(p.recv), &key);
    }
    stop(&p);
}

/* Of layers with a window the blocks of the prompt's end alone are sent, from and to ids of their own; none of them if
 * the decode node has them. */
Test(kv_transfer, a_windows_last_blocks_are_all_that_is_sent_of_it)
{
    enum { WINDOW = 100, FIRST = 384 }; /* 500 - 100 = 400, in the block that begins there */
    const struct cache_geometry g = fake_windows(6, 3, 64, WINDOW);
    struct pair p;
    start_with(&p, &g);
    for (uint32_t i = 0; i < 6; i++) {
        const struct seq_key key = { 1, i, 1 };
        const uint32_t hits = i % 3 * 192; /* before the window, and into it */
        const uint64_t credit = i % 2 ? 1 << 20 : 40000, all = kv_cover_expected_bytes(&p.rg, N_TOKENS, hits);
        const char *endpoints[2] = { kv_recv_endpoint(p.recv, 0), kv_recv_endpoint(p.recv, 1) };
        kv_block_id windows_from[N_BLOCKS], windows_to[N_BLOCKS];
        for (uint32_t b = 0; b < N_BLOCKS; b++) {
            windows_from[b] = b * 64 < FIRST ? UINT32_MAX : p.blocks_from[N_BLOCKS - 1 - b];
            windows_to[b] = b * 64 < FIRST ? UINT32_MAX : p.blocks_to[N_BLOCKS - 1 - b];
        }
        memset(p.to->memory, 0, p.to->bytes);
        const struct kv_offer o = { .key = key,
                                    .reservation = 1001,
                                    .blocks = p.blocks_to,
                                    .n_blocks = N_BLOCKS,
                                    .n_tokens = N_TOKENS,
                                    .hit_tokens = hits,
                                    .credit_bytes = credit,
                                    .window_blocks = windows_to };
        cr_assert_eq(kv_inbox_add(kv_recv_inbox(p.recv), &o), OK);
        kv_send_begin(p.send, &(struct kv_send_job){ key, 1001, "d0", endpoints, 2, credit, N_TOKENS, hits });
        for (uint32_t t = 0; t < N_TOKENS; t += 192)
            for (uint32_t l = 0; l < 6; l += 3) {
                const uint32_t t1 = t + 192 < N_TOKENS ? t + 192 : N_TOKENS;
                kv_send_piece(p.send, &key, l, l + 3, t, t1, p.blocks_from + t / 64, NULL);
                kv_send_window(p.send, &key, l, l + 3, t, t1, windows_from + t / 64, NULL);
            }
        kv_send_commit(p.send, &key, 4321);
        const struct note r = await(p.recv_box);
        cr_assert_eq(r.status, OK, "%s", r.text);
        cr_assert_eq(r.bytes, all);
        cr_assert(
            fake_same_layers(p.from, p.blocks_from + hits / 64, p.to, p.blocks_to + hits / 64, N_TOKENS - hits, false));
        cr_assert(fake_same_layers(p.from, windows_from + 6, p.to, windows_to + 6, N_TOKENS - FIRST, true));
        cr_assert_eq(await(p.send_box).kind, KV_SEND_DONE);
        kv_inbox_close(kv_recv_inbox(p.recv), &key);
    }
    stop(&p);
}

/* A side's cache over ranks in place of the only one. */
struct ranks {
    struct mesh mesh;
    struct kv_store *stores[16];
};

static struct kv_map *cut_over(struct ranks *r, uint32_t tp, uint32_t pp)
{
    struct kv_map *map;
    struct error err;
    r->mesh = (struct mesh){ tp, pp, 6 };
    for (uint32_t i = 0; i < mesh_n_ranks(&r->mesh); i++) {
        const uint32_t n_layers = shard_n(mesh_layers(&r->mesh, i));
        const struct shard heads = shard_kv_heads(shard_units(6, i % tp, tp), 6, 3);
        const struct cache_geometry g = fake_geometry(n_layers, shard_n(heads), 64);
        r->stores[i] = fake_store(&g, N_BLOCKS, false);
        for (uint32_t l = 0; l < n_layers; l++) r->stores[i]->held[l] = held_run(3, shard_run(heads));
    }
    cr_assert_eq(kv_map_create(&map, &r->mesh, r->stores, &err), OK, "%s", err.text);
    return map;
}

static void ranks_free(struct ranks *r)
{
    for (uint32_t i = 0; i < mesh_n_ranks(&r->mesh); i++) fake_store_free(r->stores[i]);
}

static void copy_cache(const struct kv_map *to, const struct kv_map *from, const kv_block_id *blocks)
{
    static uint8_t wire[6 * 3 * 2 * N_TOKENS * 68];
    const struct kv_range all = { 0, 6, 0, 3, 0, N_TOKENS };
    cr_assert_eq(kv_map_pack(from, &all, blocks, wire), OK);
    cr_assert_eq(kv_map_unpack(to, &all, blocks, wire), OK);
}

/* What goes over the sockets is of the whole model, whatever ranks hold it here and there. */
Test(kv_transfer, ranks_of_either_side_do_not_matter)
{
    static const uint32_t shapes[][4] = { { 2, 2, 1, 1 }, { 1, 1, 4, 3 }, { 3, 1, 2, 2 } };
    const struct cache_geometry whole = fake_geometry(6, 3, 64);
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        struct ranks from = { 0 }, to = { 0 };
        struct seq_key key = { 1, 1, 1 };
        struct pair p;
        struct note n;
        make_stores(&p, &whole);
        struct kv_map *one_from = p.from_map, *one_to = p.to_map;
        p.from_map = cut_over(&from, shapes[i][0], shapes[i][1]);
        p.to_map = cut_over(&to, shapes[i][2], shapes[i][3]);
        copy_cache(p.from_map, one_from, p.blocks_from);
        open_sides(&p);
        offer(&p, key, 1 << 20);
        begin(&p, key, 1 << 20);
        pieces(&p, key);
        kv_send_commit(p.send, &key, 7);
        n = await(p.recv_box);
        cr_assert_eq(n.status, OK, "%s", n.text);
        n = await(p.send_box);
        cr_assert_eq(n.kind, KV_SEND_DONE, "%s", n.text);
        copy_cache(one_to, p.to_map, p.blocks_to);
        cr_assert(fake_same(p.from, p.blocks_from, p.to, p.blocks_to, N_TOKENS), "shapes %zu", i);
        stop(&p);
        ranks_free(&from);
        ranks_free(&to);
        kv_map_destroy(one_from);
        kv_map_destroy(one_to);
    }
}

/* The engine reports layers of the model; they travel by group, and each lands where it belongs. */
Test(kv_transfer, stores_the_layers_of_several_groups_in_place)
{
    const struct cache_geometry g = fake_interleaved(6, 3, 64);
    struct pair p;
    start_with(&p, &g);
    for (uint32_t i = 1; i < 5; i++) {
        memset(p.to->memory, 0, p.to->bytes);
        expect_transfer(&p, (struct seq_key){ 1, i, 1 }, i % 2 ? 1 << 20 : 40000);
    }
    stop(&p);
}

Test(kv_transfer, other_groups_are_refused_with_both_sides_values)
{
    struct pair p;
    struct note n;
    start(&p);
    p.rg = fake_interleaved(6, 3, 64); /* read at each Hello, of which none has come */
    offer(&p, (struct seq_key){ 1, 1, 1 }, 1 << 20);
    begin(&p, (struct seq_key){ 1, 1, 1 }, 1 << 20);
    n = await(p.send_box);
    cr_assert_eq(n.kind, KV_SEND_FAILED);
    cr_assert_eq(n.status, ERR_MISMATCH);
    cr_assert(strstr(n.text, "number of cache groups differs: d0 has 2, ") && strstr(n.text, "p0\" has 1"), "%s",
              n.text);
    stop(&p);
}

Test(kv_transfer, two_at_once_do_not_mix)
{
    struct pair p;
    struct note n;
    start(&p);
    for (uint32_t i = 1; i <= 8; i++) {
        offer(&p, (struct seq_key){ 1, i, 1 }, 100000);
        begin(&p, (struct seq_key){ 1, i, 1 }, 100000);
    }
    for (uint32_t i = 1; i <= 8; i++) {
        pieces(&p, (struct seq_key){ 1, i, 1 });
        kv_send_commit(p.send, &(struct seq_key){ 1, i, 1 }, (int32_t)i);
    }
    for (uint32_t i = 1; i <= 8; i++) {
        n = await(p.recv_box);
        cr_assert_eq(n.status, OK, "%s", n.text);
        cr_assert_eq((uint64_t)n.first_token, n.key.lo);
        n = await(p.send_box);
        cr_assert_eq(n.kind, KV_SEND_DONE, "%s", n.text);
    }
    stop(&p);
}

Test(kv_transfer, refuses_another_geometry_with_both_sides_values)
{
    struct pair p;
    struct note n;
    start(&p);
    p.rg.fingerprint = 43; /* read at each Hello, of which none has come */
    offer(&p, (struct seq_key){ 1, 1, 1 }, 1 << 20);
    begin(&p, (struct seq_key){ 1, 1, 1 }, 1 << 20);
    n = await(p.send_box);
    cr_assert_eq(n.kind, KV_SEND_FAILED);
    cr_assert_eq(n.status, ERR_MISMATCH);
    cr_assert(strstr(n.text, "000000000000002a") && strstr(n.text, "000000000000002b"), "%s", n.text);
    stop(&p);
}

Test(kv_transfer, an_unreachable_decode_node_fails_the_transfer_and_a_later_one_works)
{
    struct pair p;
    struct note n;
    const char *dead[2] = { "tcp://127.0.0.1:1", "tcp://127.0.0.1:1" };
    struct seq_key key = { 1, 1, 1 };
    start(&p);
    kv_send_begin(p.send, &(struct kv_send_job){ key, 5, "d0", dead, 2, 1 << 20, N_TOKENS, 0 });
    pieces(&p, key);
    n = await(p.send_box);
    cr_assert_eq(n.kind, KV_SEND_FAILED);
    cr_assert_eq(n.status, ERR_CLOSED, "%s", n.text);
    expect_transfer(&p, (struct seq_key){ 1, 2, 1 }, 1 << 20);
    stop(&p);
}

Test(kv_transfer, a_decode_node_that_ends_is_noticed_and_its_successor_gets_a_new_session)
{
    struct pair p;
    struct note n;
    char endpoint[256];
    struct seq_key key = { 1, 2, 1 };
    start(&p);
    expect_transfer(&p, (struct seq_key){ 1, 1, 1 }, 1 << 20);
    begin(&p, key, 1 << 20);
    snprintf(endpoint, sizeof(endpoint), "%s", kv_recv_endpoint(p.recv, 0));
    kv_recv_close(p.recv);
    n = await(p.send_box);
    cr_assert_eq(n.kind, KV_SEND_FAILED);
    cr_assert_eq(n.status, ERR_CLOSED, "%s", n.text);
    open_recv(&p, "tcp://127.0.0.1:0");
    expect_transfer(&p, (struct seq_key){ 1, 3, 1 }, 1 << 20);
    stop(&p);
}

Test(kv_transfer, ending_is_told_to_the_other_side_and_always_answered)
{
    struct pair p;
    struct note n;
    struct seq_key key = { 1, 1, 1 };
    start(&p);
    offer(&p, key, 1 << 20);
    begin(&p, key, 1 << 20);
    pieces(&p, key);
    kv_send_end(p.send, &key, true);
    n = await(p.send_box);
    cr_assert_eq(n.kind, KV_SEND_CLOSED);
    n = await(p.recv_box);
    cr_assert_eq(n.status, ERR_CANCELLED, "%s", n.text);
    kv_send_end(p.send, &key, true);
    n = await(p.send_box);
    cr_assert_eq(n.kind, KV_SEND_CLOSED);
    kv_inbox_close(kv_recv_inbox(p.recv), &key);
    expect_transfer(&p, (struct seq_key){ 1, 1, 2 }, 1 << 20);
    stop(&p);
}

Test(kv_transfer, silence_ends_in_a_timeout)
{
    struct pair p;
    struct note n;
    struct seq_key key = { 1, 1, 1 };
    start(&p);
    begin(&p, key, 1 << 20); /* there is no such offer: its frames are dropped */
    pieces(&p, key);
    kv_send_commit(p.send, &key, 1);
    n = await(p.send_box);
    cr_assert_eq(n.kind, KV_SEND_FAILED);
    cr_assert_eq(n.status, ERR_TIMEOUT, "%s", n.text);
    stop(&p);
}

Test(kv_transfer, garbage_from_strangers_harms_nobody)
{
    struct pair p;
    void *s;
    start(&p);
    s = zmq_socket(zsock_context(), ZMQ_DEALER);
    cr_assert_eq(zmq_connect(s, kv_recv_endpoint(p.recv, 0)), 0);
    for (int i = 0; i < 100; i++) {
        char junk[300];
        memset(junk, i, sizeof(junk));
        zmq_send(s, junk, (size_t)(i * 3), i % 5 ? 0 : ZMQ_SNDMORE);
    }
    for (uint32_t i = 1; i < 5; i++) expect_transfer(&p, (struct seq_key){ 1, i, 1 }, 1 << 20);
    zmq_close(s);
    stop(&p);
}

/* A device that writes KV no sooner than somebody waits for its mark. */
struct slow_device {
    struct backend base;
    struct kv_store *kv;
    uint8_t *kv_memory;
    atomic_uint waits;
    enum status status;
};

static enum status write_late(struct backend *b, const struct mark *m)
{
    struct slow_device *d = (struct slow_device *)b;
    cr_assert_eq(m->at, 5);
    if (atomic_fetch_add(&d->waits, 1) == 0) memcpy(d->kv->memory, d->kv_memory, d->kv->bytes);
    return d->status;
}

static const struct backend_ops slow_ops = { .name = "slow", .mark_wait = write_late };

static void hold_back(struct slow_device *d, struct pair *p)
{
    *d = (struct slow_device){ .base = { .ops = &slow_ops }, .kv = p->from, .kv_memory = mem_alloc(p->from->bytes) };
    memcpy(d->kv_memory, p->from->memory, p->from->bytes);
    memset(p->from->memory, 0, p->from->bytes);
}

Test(kv_transfer, kv_is_read_once_its_mark_has_passed)
{
    const struct seq_key key = { 9, 1, 1 };
    struct slow_device d;
    struct pair p;
    struct note n;
    start(&p);
    hold_back(&d, &p);
    offer(&p, key, 1 << 20);
    begin(&p, key, 1 << 20);
    pieces_marked(&p, key, &(struct mark){ &d.base, NULL, 5 });
    kv_send_commit(p.send, &key, 4321);
    n = await(p.recv_box);
    cr_assert_eq(n.status, OK, "%s", n.text);
    cr_assert_geq(atomic_load(&d.waits), 1);
    cr_assert_eq(memcmp(p.from->memory, d.kv_memory, p.from->bytes), 0);
    cr_assert(fake_same(p.from, p.blocks_from, p.to, p.blocks_to, N_TOKENS), "it was read before it was there");
    cr_assert_eq(await(p.send_box).kind, KV_SEND_DONE);
    stop(&p);
    mem_free(d.kv_memory);
}

Test(kv_transfer, a_device_that_fails_fails_the_transfer)
{
    const struct seq_key key = { 9, 2, 1 };
    struct slow_device d;
    struct pair p;
    start(&p);
    hold_back(&d, &p);
    d.status = ERR_INTERNAL;
    offer(&p, key, 1 << 20);
    begin(&p, key, 1 << 20);
    pieces_marked(&p, key, &(struct mark){ &d.base, NULL, 5 });
    struct note n = await(p.send_box);
    cr_assert_eq(n.kind, KV_SEND_FAILED);
    cr_assert_eq(n.status, ERR_INTERNAL);
    stop(&p);
    mem_free(d.kv_memory);
}
