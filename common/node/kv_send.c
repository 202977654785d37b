/* kv_send.c - the prefill node's KV plane: the thread that drives all transfers over all links. */
#include "node/kv_send.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mailbox.h"
#include "base/mem.h"
#include "node/kv_links.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <utlist.h>
#include <zmq.h>

#define COMMANDS_MAX 65536
#define FRAMES_BYTES ((size_t)16 << 20) /* of all buffers in flight */
#define FRAMES_MIN   4
#define FRAMES_MAX   256
#define TICK_MS      200

enum command_kind { CMD_BEGIN, CMD_PIECE, CMD_COMMIT, CMD_END, CMD_PEERS, CMD_STOP };

struct command {
    enum command_kind kind;
    struct seq_key key;
    struct kv_transfer *transfer; /* BEGIN */
    struct kv_part *part;         /* PIECE */
    struct kv_links_told *told;   /* PEERS */
    int32_t first_token;
    bool tell;
    uint64_t posted_us;
};

struct kv_send {
    struct kv_send_options opt;
    struct kv_metrics metrics;
    struct mailbox *box;
    struct frame_pool *pool;
    struct codec_arena *arena;
    pthread_t thread;
    bool started, stop;
    uint64_t due_us; /* when the next round is to begin at the latest */
    struct kv_transfer *transfers;
    struct kv_links *links;
    struct metric *n_ready;
};

/* ---- the callers' side ---- */

static void command_free(struct command *c)
{
    kv_transfer_free(c->transfer);
    kv_part_free(c->part);
    kv_links_told_free(c->told);
    mem_free(c);
}

/* Where the sender is behind by COMMANDS_MAX, an engine waits here and does not step. */
static void post(struct kv_send *s, const struct command *c)
{
    struct command *copy = mem_alloc(sizeof(*copy));

    *copy = *c;
    copy->posted_us = clock_now_us();
    if (mailbox_post_wait(s->box, copy) != OK) command_free(copy); /* its thread has ended */
}

void kv_send_begin(struct kv_send *s, const struct kv_send_job *job)
{
    post(s, &(struct command){ .kind = CMD_BEGIN, .key = job->key, .transfer = kv_transfer_create(job) });
}

/* The engine knows layers of the model, the wire those of a group. */
static void send_blocks(struct kv_send *s, const struct seq_key *key, const struct kv_wire_range *piece, bool windows,
                        const kv_block_id *blocks, const struct mark *written)
{
    const struct cache_geometry *g = s->opt.geometry;

    for (uint32_t i = 0; i < g->n_groups; i++) {
        const uint32_t l0 = piece->l0, l1 = piece->l1;
        struct kv_wire_range r = { .h1 = g->groups[i].n_heads, .t0 = piece->t0, .t1 = piece->t1, .group = i };
        if ((g->groups[i].kind == BATON__KV__CACHE_KIND__WINDOW) != windows) continue;
        if (!cache_group_has_blocks(&g->groups[i]) || !cache_group_places(g, i, l0, l1, &r.l0, &r.l1)) continue;
        post(s, &(struct command){ .kind = CMD_PIECE, .key = *key, .part = kv_part_create(&r, blocks, written) });
    }
}

void kv_send_piece(struct kv_send *s, const struct seq_key *key, uint32_t l0, uint32_t l1, uint32_t t0, uint32_t t1,
                   const kv_block_id *blocks, const struct mark *written)
{
    const struct kv_wire_range piece = { .l0 = l0, .l1 = l1, .t0 = t0, .t1 = t1 };
    send_blocks(s, key, &piece, false, blocks, written);
}

void kv_send_window(struct kv_send *s, const struct seq_key *key, uint32_t l0, uint32_t l1, uint32_t t0, uint32_t t1,
                    const kv_block_id *blocks, const struct mark *written)
{
    const struct kv_wire_range piece = { .l0 = l0, .l1 = l1, .t0 = t0, .t1 = t1 };
    send_blocks(s, key, &piece, true, blocks, written);
}

void kv_send_states(struct kv_send *s, const struct seq_key *key, uint32_t l0, uint32_t l1, uint32_t position,
                    state_slot_id slot, const struct mark *written)
{
    const struct cache_geometry *g = s->opt.geometry;

    for (uint32_t i = 0; i < g->n_groups; i++) {
        uint32_t p0, p1;
        if (g->groups[i].kind != BATON__KV__CACHE_KIND__SNAPSHOT || !cache_group_places(g, i, l0, l1, &p0, &p1))
            continue;
        const struct kv_state_walk walk = kv_state_walk_of(i, p0, p1);
        post(s, &(struct command){
                    .kind = CMD_PIECE, .key = *key, .part = kv_part_of_states(&walk, slot, position, written) });
    }
}

void kv_send_commit(struct kv_send *s, const struct seq_key *key, int32_t first_token)
{
    post(s, &(struct command){ .kind = CMD_COMMIT, .key = *key, .first_token = first_token });
}

void kv_send_end(struct kv_send *s, const struct seq_key *key, bool tell)
{
    post(s, &(struct command){ .kind = CMD_END, .key = *key, .tell = tell });
}

void kv_send_peers(struct kv_send *s, uint64_t coordinator, const struct kv_links_peer *peers, uint32_t n)
{
    post(s, &(struct command){ .kind = CMD_PEERS, .told = kv_links_told_copy(coordinator, peers, n) });
}

struct kv_metrics *kv_send_metrics(struct kv_send *s)
{
    return &s->metrics;
}

/* ---- the thread's side ---- */

static bool same_key(const struct seq_key *a, const struct seq_key *b)
{
    return a->hi == b->hi && a->lo == b->lo && a->epoch == b->epoch;
}

static struct kv_transfer *find(struct kv_send *s, const struct seq_key *key)
{
    struct kv_transfer *t;
    DL_FOREACH(s->transfers, t)
    if (same_key(&t->key, key)) return t;
    return NULL;
}

/* The one way a transfer ends. */
static void finish(struct kv_send *s, struct kv_transfer *t, enum kv_send_event_kind kind, const struct error *why)
{
    struct kv_send_event ev = { .kind = kind, .key = t->key };

    if (kind == KV_SEND_DONE) {
        ev.bytes = t->bytes;
        ev.handoff_us = clock_now_us() - t->computed_us;
        metric_add(s->metrics.transfers, 1);
        metric_observe(s->metrics.seconds, (double)ev.handoff_us / 1e6);
    } else if (kind == KV_SEND_FAILED) {
        ev.status = why->status;
        ev.message = why->text;
        kv_metrics_failed(&s->metrics, why->status);
    }
    DL_DELETE(s->transfers, t);
    kv_transfer_free(t);
    s->opt.on_event(s->opt.ctx, &ev);
}

static void on_begin(struct kv_send *s, struct kv_transfer *t)
{
    const struct kv_links_peer peer = { t->peer, (const char *const *)t->endpoints, t->n_endpoints };
    struct error err;

    DL_APPEND(s->transfers, t);
    t->heard_us = clock_now_us();
    if (kv_links_attach(s->links, &peer, &t->link, &err) != OK) finish(s, t, KV_SEND_FAILED, &err);
}

static void on_end(struct kv_send *s, const struct command *c)
{
    struct kv_transfer *t = find(s, &c->key);
    struct kv_send_event ev = { .kind = KV_SEND_CLOSED, .key = c->key };

    if (!t) {
        s->opt.on_event(s->opt.ctx, &ev);
        return;
    }
    if (c->tell) kv_transfer_abort(t, ERR_CANCELLED, "cancelled");
    finish(s, t, KV_SEND_CLOSED, NULL);
}

static void run_command(struct kv_send *s, struct command *c)
{
    struct kv_transfer *t = c->kind == CMD_PIECE || c->kind == CMD_COMMIT ? find(s, &c->key) : NULL;

    switch (c->kind) {
    case CMD_BEGIN: on_begin(s, c->transfer); break;
    case CMD_PIECE:
        if (t)
            kv_transfer_add(t, s->opt.geometry, c->part, c->posted_us);
        else
            kv_part_free(c->part);
        break;
    case CMD_COMMIT:
        if (t) kv_transfer_commit(t, c->first_token);
        break;
    case CMD_END: on_end(s, c); break;
    case CMD_PEERS: kv_links_want(s->links, c->told); break;
    case CMD_STOP: s->stop = true; break;
    }
    mem_free(c);
}

static void run_commands(struct kv_send *s)
{
    struct command *c;
    while ((c = mailbox_try_take(s->box))) run_command(s, c);
}

static struct kv_transfer *find_by_wire(struct kv_send *s, const struct kv_link *link, const Baton__Kv__KvMessage *m)
{
    struct kv_wire_id id;
    struct kv_transfer *t;

    if (!kv_wire_message_id(m, &id)) return NULL;
    t = find(s, &(struct seq_key){ id.hi, id.lo, id.epoch });
    return t && t->link == link && t->reservation == id.reservation ? t : NULL;
}

static void on_stored(struct kv_send *s, struct kv_transfer *t, uint32_t status, const char *text)
{
    struct error err;

    if (status == OK && t->commit_sent) {
        finish(s, t, KV_SEND_DONE, NULL);
        return;
    }
    if (status == OK || status >= STATUS_COUNT) status = ERR_INTERNAL;
    error_set(&err, (enum status)status, "%s has not stored it: %s", t->peer, text);
    finish(s, t, KV_SEND_FAILED, &err);
}

static void on_answer(struct kv_send *s, struct kv_link *link, const Baton__Kv__KvMessage *m)
{
    struct kv_transfer *t = find_by_wire(s, link, m);

    if (!t) {
        if (m->body_case != BATON__KV__KV_MESSAGE__BODY_ABORT_ACK) metric_add(s->metrics.stale, 1);
        return;
    }
    t->heard_us = clock_now_us();
    switch (m->body_case) {
    case BATON__KV__KV_MESSAGE__BODY_CREDIT: kv_transfer_credit(t, m->credit->bytes); break;
    case BATON__KV__KV_MESSAGE__BODY_STORED: on_stored(s, t, m->stored->status, m->stored->message); break;
    case BATON__KV__KV_MESSAGE__BODY_ABORT:
        on_stored(s, t, m->abort->status ? m->abort->status : ERR_CANCELLED, m->abort->message);
        break;
    default: break;
    }
}

static bool link_in_use(void *ctx, const struct kv_link *link)
{
    const struct kv_send *s = ctx;
    const struct kv_transfer *t;
    DL_FOREACH(s->transfers, t)
    if (t->link == link) return true;
    return false;
}

static void on_link_lost(void *ctx, struct kv_link *link)
{
    struct kv_send *s = ctx;
    struct kv_transfer *t, *next;

    DL_FOREACH_SAFE(s->transfers, t, next)
    if (t->link == link) finish(s, t, KV_SEND_FAILED, kv_link_error(link));
}

static void read_links(struct kv_send *s, uint64_t late_us)
{
    for (uint32_t i = 0; i < kv_links_count(s->links); i++) {
        struct kv_link *link = kv_links_at(s->links, i);
        Baton__Kv__KvMessage *m;

        while (kv_link_receive(link, s->arena, &m)) on_answer(s, link, m);
        kv_link_watch(link);
    }
    kv_links_tend(s->links, late_us);
    metric_set(s->n_ready, kv_links_ready(s->links));
}

/* A transfer that has heard nothing for too long fails. */
static void check_deadlines(struct kv_send *s)
{
    uint64_t now = clock_now_us(), limit = (uint64_t)s->opt.progress_timeout_ms * 1000;
    struct kv_transfer *t, *next;

    DL_FOREACH_SAFE(s->transfers, t, next)
    {
        struct error err;
        if (!kv_transfer_is_late(t, now, limit)) continue;
        error_set(&err, ERR_TIMEOUT, "%s has not answered for %u ms", t->peer, s->opt.progress_timeout_ms);
        kv_transfer_abort(t, ERR_TIMEOUT, err.text);
        finish(s, t, KV_SEND_FAILED, &err);
    }
}

/* One frame of each transfer in turn; true if anything was sent. */
static bool send_round(struct kv_send *s)
{
    const struct kv_transfer_means means = { s->opt.geometry, s->opt.map, s->pool, s->opt.frame_bytes, &s->metrics };
    struct kv_transfer *t, *next;
    bool sent = false;

    DL_FOREACH_SAFE(s->transfers, t, next)
    {
        struct error err;
        switch (kv_transfer_step(t, &means, &err)) {
        case KV_TRANSFER_WAITS: break;
        case KV_TRANSFER_SENT: sent = true; break;
        case KV_TRANSFER_BROKEN:
            kv_transfer_abort(t, err.status, err.text);
            finish(s, t, KV_SEND_FAILED, &err);
            sent = true;
            break;
        }
    }
    return sent;
}

static void wait_for_work(struct kv_send *s, int timeout_ms)
{
    zmq_pollitem_t items[2 + KV_LINKS_MAX * KV_LINK_MAX_SOCKETS];
    int n = 0;

    items[n++] = (zmq_pollitem_t){ NULL, mailbox_fd(s->box), ZMQ_POLLIN, 0 };
    items[n++] = (zmq_pollitem_t){ NULL, frame_pool_fd(s->pool), ZMQ_POLLIN, 0 };
    for (uint32_t i = 0; i < kv_links_count(s->links); i++) {
        void *sockets[KV_LINK_MAX_SOCKETS];
        uint32_t k = kv_link_sockets(kv_links_at(s->links, i), sockets);
        for (uint32_t j = 0; j < k; j++) items[n++] = (zmq_pollitem_t){ sockets[j], 0, ZMQ_POLLIN, 0 };
    }
    if (zmq_poll(items, n, timeout_ms) > 0 && items[1].revents) frame_pool_clear_fd(s->pool);
}

static int wait_ms(const struct kv_send *s)
{
    int links = kv_links_wait_ms(s->links);
    return s->transfers && (links < 0 || links > TICK_MS) ? TICK_MS : links;
}

/* By how much a round begins too late: this process stood still, and what the others said in that time may still be
 * unread. */
static uint64_t late_by(struct kv_send *s)
{
    uint64_t now = clock_now_us(), late = s->due_us && now > s->due_us ? now - s->due_us : 0;
    struct kv_transfer *t;

    DL_FOREACH(s->transfers, t)
    t->heard_us += late;
    return late;
}

static void *send_main(void *arg)
{
    struct kv_send *s = arg;

    while (!s->stop) {
        uint64_t began = clock_now_us(), late_us = late_by(s);
        int wait = 0;
        run_commands(s);
        read_links(s, late_us);
        if (!send_round(s)) wait = wait_ms(s);
        check_deadlines(s);
        s->due_us = wait < 0 ? UINT64_MAX : began + (uint64_t)wait * 1000;
        if (wait && !s->stop) wait_for_work(s, wait);
    }
    return NULL;
}

static void open_links(struct kv_send *s)
{
    const struct kv_links_options opt = {
        s->opt.node, s->opt.incarnation, s->opt.geometry, link_in_use, on_link_lost, s
    };
    char name[256], labels[300];

    s->links = kv_links_create(&opt);
    metrics_label(name, sizeof(name), s->opt.node);
    snprintf(labels, sizeof(labels), "node=\"%s\"", name);
    s->n_ready = metrics_get(s->opt.metrics, METRIC_GAUGE, "baton_kv_links",
                             "Decode nodes to which all KV lanes are open and greeted.", labels, NULL, 0);
}

/* At least one head of one block, or of one state, of any group. */
static size_t largest_frame(const struct kv_send_options *opt)
{
    uint64_t most = opt->frame_bytes;
    for (uint32_t i = 0; i < opt->geometry->n_groups; i++) {
        uint64_t block = cache_group_head_bytes(&opt->geometry->groups[i], KV_BLOCK_TOKENS);
        uint64_t state = cache_group_state_bytes(&opt->geometry->groups[i]);
        if (block > most) most = block;
        if (state > most) most = state;
    }
    return (size_t)most;
}

enum status kv_send_open(struct kv_send **out, const struct kv_send_options *opt, struct error *err)
{
    struct kv_send *s = mem_zalloc(sizeof(*s));
    size_t frame = largest_frame(opt), n_frames = FRAMES_BYTES / frame;
    enum status st;

    s->opt = *opt;
    kv_metrics_init(&s->metrics, opt->metrics, opt->node, "sent");
    n_frames = n_frames < FRAMES_MIN ? FRAMES_MIN : n_frames > FRAMES_MAX ? FRAMES_MAX : n_frames;
    if (frame > KV_WIRE_FRAME_MAX) {
        st = error_set(err, ERR_INVALID, "kv.frame_bytes is %zu, at most %zu are possible", frame, KV_WIRE_FRAME_MAX);
        goto fail;
    }
    open_links(s);
    s->arena = codec_arena_create(KV_WIRE_ARENA);
    if ((st = kv_cut_check_map(opt->map, opt->geometry, err)) != OK) goto fail;
    if ((st = mailbox_create(&s->box, COMMANDS_MAX)) != OK) goto fail;
    if ((st = frame_pool_create(&s->pool, kv_map_backend(opt->map), (uint32_t)n_frames, frame)) != OK) goto fail;
    s->started = pthread_create(&s->thread, NULL, send_main, s) == 0;
    if (!s->started) {
        st = error_set(err, ERR_NO_MEMORY, "cannot start the thread that sends KV");
        goto fail;
    }
    pthread_setname_np(s->thread, "kv-send");
    *out = s;
    return OK;
fail:
    kv_send_destroy(s);
    return st;
}

void kv_send_stop(struct kv_send *s)
{
    if (!s || !s->started) return;
    post(s, &(struct command){ .kind = CMD_STOP });
    mailbox_close(s->box);
    pthread_join(s->thread, NULL);
    s->started = false;
}

void kv_send_destroy(struct kv_send *s)
{
    struct command *c;
    struct kv_transfer *t, *next;

    if (!s) return;
    kv_send_stop(s);
    while (s->box && (c = mailbox_try_take(s->box))) command_free(c);
    DL_FOREACH_SAFE(s->transfers, t, next) kv_transfer_free(t);
    kv_links_destroy(s->links);
    frame_pool_destroy(s->pool);
    mailbox_destroy(s->box);
    codec_arena_destroy(s->arena);
    mem_free(s);
}
