/* kv_recv.c - the decode node's KV plane: one ROUTER and one thread per lane. */
#include "node/kv_recv.h"

#include "base/clock.h"
#include "base/host_port.h"
#include "base/log.h"
#include "base/mailbox.h"
#include "base/mem.h"
#include "node/kv_peers.h"
#include "node/kv_told.h"
#include "wire/zsock_range.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>

#define OUTGOING_MAX  65536 /* answers on their way to lane 0 */
#define RECEIVE_AHEAD 32    /* messages that ZeroMQ holds for a lane that is behind */

struct outgoing { /* to the peer of a session, through lane 0 */
    uint64_t session;
    size_t n;
    uint8_t bytes[];
};

struct lane {
    struct kv_recv *recv;
    uint32_t idx;
    struct zsock *z;
    char *endpoint;
    struct kv_peers *peers;
    struct codec_arena *arena;
    struct mailbox *box; /* lane 0: struct outgoing; all: the stop mark */
    pthread_t thread;
    bool started;
    bool stop;
};

struct kv_recv {
    struct kv_recv_options opt;
    struct kv_inbox *inbox;
    struct kv_metrics metrics;
    struct kv_told *told;
    uint32_t n_lanes;
    struct lane lanes[];
};

static const char stop_mark;

static bool is_told(void *ctx, uint64_t incarnation)
{
    return kv_told_has(((struct kv_recv *)ctx)->told, incarnation);
}

void kv_recv_told(struct kv_recv *r, uint64_t coordinator, const uint64_t *incarnations, uint32_t n)
{
    kv_told_set(r->told, coordinator, incarnations, n);
}

static void note_bad_peer(struct lane *lane, const struct error *why)
{
    kv_metrics_failed(&lane->recv->metrics, why->status);
    log_warn_limited("kv_peer_refused", "lane=%u reason=%s", lane->idx, log_quote(why->text));
}

static void send_now(struct lane *zero, uint64_t session, const uint8_t *bytes, size_t n)
{
    struct kv_peer_entry *p = kv_peers_by_session(zero->peers, session);
    void *s = zsock_raw(zero->z);

    if (!p) return;
    if (zmq_send(s, p->id, p->id_len, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0 || zmq_send(s, bytes, n, ZMQ_DONTWAIT) < 0)
        log_debug("kv_answer_lost", "session=%016llx reason=%s", (unsigned long long)session, zmq_strerror(errno));
}

/* From any receive thread; lane 0's socket belongs to lane 0's thread. */
static void answer(struct lane *lane, uint64_t session, Baton__Kv__KvMessage *m)
{
    struct lane *zero = &lane->recv->lanes[0];
    uint8_t buf[CODEC_HEADER_MAX];
    size_t n = kv_wire_pack(m, (struct bytes){ NULL, 0 }, buf);
    struct outgoing *o;

    if (lane == zero) {
        send_now(zero, session, buf, n);
        return;
    }
    o = mem_alloc(sizeof(*o) + n);
    o->session = session;
    o->n = n;
    memcpy(o->bytes, buf, n);
    if (mailbox_post_wait(zero->box, o) != OK) mem_free(o); /* closed: the process ends */
}

static void answer_credit(struct lane *lane, uint64_t session, const struct kv_inbox_result *res)
{
    struct kv_wire_note note;

    kv_wire_note_init(&note, BATON__KV__KV_MESSAGE__BODY_CREDIT, &res->id);
    note.credit.bytes = res->credit;
    answer(lane, session, &note.m);
}

static void answer_stored(struct lane *lane, uint64_t session, const struct kv_wire_id *id, enum status status,
                          const char *text)
{
    struct kv_wire_note note;

    kv_wire_note_init(&note, BATON__KV__KV_MESSAGE__BODY_STORED, id);
    note.stored.status = status;
    note.stored.message = (char *)(uintptr_t)text;
    answer(lane, session, &note.m);
}

static void answer_abort(struct lane *lane, uint64_t session, const struct kv_wire_id *id)
{
    struct kv_wire_note note;

    kv_wire_note_init(&note, BATON__KV__KV_MESSAGE__BODY_ABORT_ACK, id);
    answer(lane, session, &note.m);
}

static void answer_hello(struct lane *lane, uint64_t session, const struct error *why)
{
    struct kv_wire_note note;

    kv_wire_note_init(&note, BATON__KV__KV_MESSAGE__BODY_HELLO_ACK, NULL);
    note.hello_ack.version = PROTOCOL_VERSION;
    note.hello_ack.incarnation = lane->recv->opt.incarnation;
    note.hello_ack.status = why ? why->status : OK;
    note.hello_ack.message = (char *)(uintptr_t)(why ? why->text : "");
    answer(lane, session, &note.m);
}

/* Every sender whose messages were read in this go hears how far its lane has come. */
static void answer_read(struct lane *lane)
{
    struct kv_peer_entry *peer;

    while ((peer = kv_peers_untold(lane->peers))) {
        struct kv_wire_note note;

        peer->n_told = peer->n_read;
        kv_wire_note_init(&note, BATON__KV__KV_MESSAGE__BODY_LANE_ACK, NULL);
        note.lane_ack.lane = lane->idx;
        note.lane_ack.n_messages = peer->n_read;
        answer(lane, peer->session, &note.m);
    }
}

static void report_failure(struct lane *lane, uint64_t session, const struct kv_inbox_result *res)
{
    struct kv_recv *r = lane->recv;
    struct kv_recv_event ev = {
        .kind = KV_RECV_FAILED,
        .key = { res->id.hi, res->id.lo, res->id.epoch },
        .status = res->err.status,
        .message = res->err.text,
    };

    answer_stored(lane, session, &res->id, res->err.status, res->err.text);
    kv_metrics_failed(&r->metrics, res->err.status);
    r->opt.on_event(r->opt.ctx, &ev);
}

/* Something was lost on this lane, so nothing that this session still sends can become complete: its transfers end
 * now, and the sender is told to come back with a new session. */
static void reject_peer(struct lane *lane, struct kv_peer_entry *peer, const struct error *why)
{
    struct kv_inbox_result res;

    note_bad_peer(lane, why);
    while (kv_inbox_fail_session(lane->recv->inbox, peer->session, why, &res))
        report_failure(lane, peer->session, &res);
    answer_hello(lane, peer->session, why);
    peer->ignored = true;
}

static void report_complete(struct lane *lane, uint64_t session, const struct kv_inbox_result *res)
{
    struct kv_recv *r = lane->recv;
    struct kv_recv_event ev = {
        .kind = KV_RECV_STORED,
        .key = { res->id.hi, res->id.lo, res->id.epoch },
        .first_token = res->first_token,
        .n_tokens = res->n_tokens,
        .bytes = res->bytes,
        .us = clock_now_us() - res->first_us,
    };

    r->opt.on_event(r->opt.ctx, &ev);
    answer_stored(lane, session, &res->id, OK, "");
    metric_add(r->metrics.transfers, 1);
    metric_observe(r->metrics.seconds, (double)ev.us / 1e6);
}

static void report_progress(struct lane *lane, const struct kv_inbox_result *res)
{
    struct kv_recv *r = lane->recv;
    struct kv_recv_event ev = {
        .kind = KV_RECV_PROGRESS,
        .key = { res->id.hi, res->id.lo, res->id.epoch },
        .bytes = res->bytes,
    };
    r->opt.on_event(r->opt.ctx, &ev);
}

static void act_on(struct lane *lane, struct kv_peer_entry *peer, enum kv_inbox_verdict v,
                   const struct kv_inbox_result *res)
{
    struct kv_recv *r = lane->recv;

    if (res->credit) {
        metric_add(r->metrics.bytes, (double)res->credit);
        metric_add(r->metrics.frames, 1);
    }
    switch (v) {
    case KV_INBOX_STORED:
        kv_peers_prove(lane->peers, peer);
        if (res->credit) answer_credit(lane, peer->session, res);
        if (res->progress) report_progress(lane, res);
        break;
    case KV_INBOX_COMPLETE: report_complete(lane, peer->session, res); break;
    case KV_INBOX_STALE: metric_add(r->metrics.stale, 1); break;
    case KV_INBOX_FAILED: report_failure(lane, peer->session, res); break;
    case KV_INBOX_GARBAGE: reject_peer(lane, peer, &res->err); break;
    }
}

static enum status check_hello(const struct lane *lane, const Baton__Kv__Hello *h, struct error *err)
{
    const struct kv_recv *r = lane->recv;

    if (h->version != PROTOCOL_VERSION)
        return error_set(err, ERR_MISMATCH, "protocol version differs: %s has %d, %s has %u", r->opt.node,
                         PROTOCOL_VERSION, log_quote(h->node), h->version);
    if (h->lane != lane->idx || h->n_lanes != r->n_lanes || h->session == 0)
        return error_set(err, ERR_MISMATCH,
                         "lanes differ: this is lane %u of %u of %s, %s connects its lane %u of %u "
                         "(set kv.lanes alike)",
                         lane->idx, r->n_lanes, r->opt.node, log_quote(h->node), h->lane, h->n_lanes);
    struct cache_geometry theirs;
    enum status st = cache_geometry_unpack(&theirs, h->geometry, err);
    return st == OK ? cache_geometry_check_same(r->opt.geometry, &theirs, r->opt.node, log_quote(h->node), err) : st;
}

static void on_hello(struct lane *lane, const void *id, size_t n_id, const Baton__Kv__Hello *h)
{
    struct kv_peer_entry *peer = kv_peers_put(lane->peers, id, n_id, h->session, h->incarnation);
    struct error err;
    enum status st;

    if (!peer) return;
    st = check_hello(lane, h, &err);
    if (st != OK) note_bad_peer(lane, &err);
    if (lane->idx == 0 || st != OK) answer_hello(lane, h->session, st == OK ? NULL : &err);
    if (st == OK)
        log_debug("kv_peer", "lane=%u from=%s session=%016llx", lane->idx, log_quote(h->node),
                  (unsigned long long)h->session);
    peer->ignored = st != OK;
}

static void on_message(struct lane *lane, struct kv_peer_entry *peer, Baton__Kv__KvMessage *m, struct bytes payload)
{
    struct kv_inbox *in = lane->recv->inbox;
    struct kv_inbox_result res = { 0 };
    enum kv_inbox_verdict v;

    switch (m->body_case) {
    case BATON__KV__KV_MESSAGE__BODY_BLOCK:
    case BATON__KV__KV_MESSAGE__BODY_STATE: v = kv_inbox_data(in, peer->session, m, payload, &res); break;
    case BATON__KV__KV_MESSAGE__BODY_COMMIT: v = kv_inbox_commit(in, peer->session, m->commit, &res); break;
    case BATON__KV__KV_MESSAGE__BODY_ABORT:
        v = kv_inbox_abort(in, peer->session, m->abort, &res);
        answer_abort(lane, peer->session, &res.id);
        break;
    default:
        error_set(&res.err, ERR_PARSE, "a message of kind %d, which senders do not send", (int)m->body_case);
        v = KV_INBOX_GARBAGE;
    }
    act_on(lane, peer, v, &res);
}

/* parts: identity, header, and for data the payload. */
static void on_parts(struct lane *lane, zmq_msg_t *parts, int n_parts)
{
    const void *id = zmq_msg_data(&parts[0]);
    size_t n_id = zmq_msg_size(&parts[0]);
    struct kv_peer_entry *peer = kv_peers_find(lane->peers, id, n_id);
    struct bytes payload = { NULL, 0 };
    Baton__Kv__KvMessage *m = NULL;
    struct error err;
    enum status st;

    if (peer && peer->ignored) return;
    if (n_parts < 2 || n_parts > 3)
        st = error_set(&err, ERR_PARSE, "a KV message of %d frames", n_parts - 1);
    else
        st = kv_wire_open(lane->arena, bytes_of(zmq_msg_data(&parts[1]), zmq_msg_size(&parts[1])), &m, &err);
    if (st == OK && (n_parts == 3) != kv_wire_has_payload(m))
        st = error_set(&err, ERR_PARSE, "a KV message of kind %d in %d frames", (int)m->body_case, n_parts - 1);
    if (st == OK && m->body_case == BATON__KV__KV_MESSAGE__BODY_HELLO) {
        on_hello(lane, id, n_id, m->hello);
        return;
    }
    if (st == OK && !peer) st = error_set(&err, ERR_DENIED, "a peer that has not said hello");
    if (st == OK) {
        peer->n_read++;
        if (n_parts == 3) payload = bytes_of(zmq_msg_data(&parts[2]), zmq_msg_size(&parts[2]));
        on_message(lane, peer, m, payload);
    } else if (peer) {
        reject_peer(lane, peer, &err);
    } else {
        note_bad_peer(lane, &err);
        peer = kv_peers_put(lane->peers, id, n_id, 0, 0);
        if (peer) peer->ignored = true;
    }
}

/* False when nothing is waiting. */
static bool receive_one(struct lane *lane)
{
    void *s = zsock_raw(lane->z);
    zmq_msg_t parts[3], rest;
    int n = 0, more = 1;

    while (more) {
        zmq_msg_t *part = n < 3 ? &parts[n] : &rest;
        zmq_msg_init(part);
        if (zmq_msg_recv(part, s, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(part);
            break;
        }
        more = zmq_msg_more(part);
        if (n >= 3) zmq_msg_close(&rest);
        n++;
    }
    if (n > 0 && !more) on_parts(lane, parts, n);
    for (int i = 0; i < n && i < 3; i++) zmq_msg_close(&parts[i]);
    return n > 0;
}

static void send_waiting(struct lane *lane)
{
    void *msg;

    while ((msg = mailbox_try_take(lane->box))) {
        struct outgoing *o = msg;
        if (msg == &stop_mark) {
            lane->stop = true;
            continue;
        }
        if (!lane->stop) send_now(lane, o->session, o->bytes, o->n);
        mem_free(o);
    }
}

static void *lane_main(void *arg)
{
    struct lane *lane = arg;
    zmq_pollitem_t items[2] = { { zsock_raw(lane->z), 0, ZMQ_POLLIN, 0 },
                                { NULL, mailbox_fd(lane->box), ZMQ_POLLIN, 0 } };

    while (!lane->stop) {
        if (zmq_poll(items, 2, -1) < 0 && errno != EINTR) break;
        send_waiting(lane);
        /* A few at a time, so that credits do not wait behind a burst. */
        for (int i = 0; i < 4 && !lane->stop && receive_one(lane); i++) send_waiting(lane);
        if (!lane->stop) answer_read(lane);
    }
    return NULL;
}

/* "tcp://host:P" for lane i: P becomes P + i; port 0 and a range stay, as each lane takes what is free. */
static enum status lane_endpoint(char *buf, size_t cap, const char *endpoint, uint32_t lane, struct error *err)
{
    struct host_port hp;

    if (!host_port_split(endpoint, &hp) || !hp.is_tcp)
        return error_set(err, ERR_INVALID, "kv endpoint %s is not tcp://HOST:PORT", log_quote(endpoint));
    if (hp.lo != hp.hi) {
        snprintf(buf, cap, "%s", endpoint);
        return OK;
    }
    if (!host_port_lane(buf, cap, endpoint, lane, 0))
        return error_set(err, ERR_INVALID, "kv endpoint %s has no usable port for lane %u", endpoint, lane);
    return OK;
}

static enum status lane_open(struct kv_recv *r, uint32_t idx, struct error *err)
{
    const struct zsock_options opt = { .max_message_bytes = KV_WIRE_FRAME_MAX,
                                       .send_hwm = OUTGOING_MAX,
                                       .recv_hwm = RECEIVE_AHEAD };
    struct lane *lane = &r->lanes[idx];
    char endpoint[512];
    enum status st;

    lane->recv = r;
    lane->idx = idx;
    lane->peers = kv_peers_create(is_told, r);
    lane->arena = codec_arena_create(KV_WIRE_ARENA);
    if ((st = lane_endpoint(endpoint, sizeof(endpoint), r->opt.endpoint, idx, err)) != OK) return st;
    if ((st = mailbox_create(&lane->box, OUTGOING_MAX)) != OK) return st;
    if ((st = zsock_open(&lane->z, ZSOCK_ROUTER, &opt, err)) != OK) return st;
    if ((st = zsock_bind_range(lane->z, endpoint, &lane->endpoint, err)) != OK)
        error_prefix(err, "decode.kv of %s, lane %u", r->opt.node, idx);
    return st;
}

enum status kv_recv_open(struct kv_recv **out, const struct kv_recv_options *opt, struct error *err)
{
    struct kv_recv *r = mem_zalloc(sizeof(*r) + opt->n_lanes * sizeof(struct lane));
    enum status st;

    r->opt = *opt;
    r->n_lanes = opt->n_lanes;
    r->told = kv_told_create();
    kv_metrics_init(&r->metrics, opt->metrics, opt->node, "received");
    if ((st = kv_cut_check_map(opt->map, opt->geometry, err)) != OK) goto fail;
    r->inbox = kv_inbox_create(opt->map, opt->geometry);
    for (uint32_t i = 0; i < r->n_lanes; i++)
        if ((st = lane_open(r, i, err)) != OK) goto fail;
    for (uint32_t i = 0; i < r->n_lanes; i++) {
        r->lanes[i].started = pthread_create(&r->lanes[i].thread, NULL, lane_main, &r->lanes[i]) == 0;
        if (!r->lanes[i].started) {
            st = error_set(err, ERR_NO_MEMORY, "cannot start the thread of KV lane %u", i);
            goto fail;
        }
        pthread_setname_np(r->lanes[i].thread, "kv-recv");
    }
    *out = r;
    return OK;
fail:
    kv_recv_close(r);
    return st;
}

void kv_recv_stop(struct kv_recv *r)
{
    for (uint32_t i = 0; i < r->n_lanes; i++) {
        struct lane *lane = &r->lanes[i];
        if (!lane->started) continue;
        if (mailbox_post_wait(lane->box, (void *)(uintptr_t)&stop_mark) == OK) mailbox_close(lane->box);
    }
    for (uint32_t i = 0; i < r->n_lanes; i++) {
        if (r->lanes[i].started) pthread_join(r->lanes[i].thread, NULL);
        r->lanes[i].started = false;
    }
}

void kv_recv_close(struct kv_recv *r)
{
    if (!r) return;
    kv_recv_stop(r);
    for (uint32_t i = 0; i < r->n_lanes; i++) {
        struct lane *lane = &r->lanes[i];
        if (lane->box) send_waiting(lane);
        zsock_close(lane->z);
        mailbox_destroy(lane->box);
        kv_peers_destroy(lane->peers);
        codec_arena_destroy(lane->arena);
        mem_free(lane->endpoint);
    }
    kv_inbox_destroy(r->inbox);
    kv_told_destroy(r->told);
    mem_free(r);
}

struct kv_inbox *kv_recv_inbox(struct kv_recv *r)
{
    return r->inbox;
}
uint32_t kv_recv_n_lanes(const struct kv_recv *r)
{
    return r->n_lanes;
}
const char *kv_recv_endpoint(const struct kv_recv *r, uint32_t lane)
{
    return r->lanes[lane].endpoint;
}
struct kv_metrics *kv_recv_metrics(struct kv_recv *r)
{
    return &r->metrics;
}
