/* kv_link.c - a prefill node's lanes to one decode node. */
#include "node/kv_link.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/random.h"
#include "wire/zsock.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>

#define SEND_AHEAD 4096 /* messages; the frame pool is the real bound */

struct lane {
    struct zsock *z;
    void *monitor;
    char *endpoint;
    uint64_t seq;
    uint64_t n_sent, n_read; /* messages after its Hello; read: as the peer says */
    uint64_t since_us;       /* when something became unread, or was last read */
};

struct kv_link {
    struct kv_link_options opt;
    char *peer;
    enum kv_link_state state;
    struct error why;
    uint64_t session, opened_us;
    uint32_t next_lane;
    uint32_t n_lanes;
    struct lane lanes[KV_LINK_MAX_LANES];
};

void kv_link_lose(struct kv_link *l, const struct error *why)
{
    if (l->state == KV_LINK_LOST) return;
    l->state = KV_LINK_LOST;
    l->why = *why;
    log_warn_limited("kv_link_lost", "to=%s reason=%s", log_quote(l->peer), log_quote(why->text));
}

static void lose_by_errno(struct kv_link *l, uint32_t lane)
{
    struct error err;
    error_set(&err, ERR_CLOSED, "cannot send on lane %u to %s: %s", lane, l->peer, zmq_strerror(errno));
    kv_link_lose(l, &err);
}

static void note_sent(struct lane *lane)
{
    if (lane->n_sent++ == lane->n_read) lane->since_us = clock_now_us();
}

/* The socket's events on a PAIR of our own: the only way to learn that a connection has ended. */
static enum status lane_monitor(struct lane *lane, struct error *err)
{
    static _Atomic uint64_t counter;
    const int linger = 0;
    char name[64];

    snprintf(name, sizeof(name), "inproc://kv-monitor-%llu", (unsigned long long)atomic_fetch_add(&counter, 1));
    if (zmq_socket_monitor(zsock_raw(lane->z), name,
                           ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_CLOSED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                               ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH) != 0)
        return error_set(err, ERR_IO, "cannot monitor a KV lane: %s", zmq_strerror(errno));
    lane->monitor = zmq_socket(zsock_context(), ZMQ_PAIR);
    if (!lane->monitor || zmq_connect(lane->monitor, name) != 0)
        return error_set(err, ERR_IO, "cannot monitor a KV lane: %s", zmq_strerror(errno));
    zmq_setsockopt(lane->monitor, ZMQ_LINGER, &linger, sizeof(linger));
    return OK;
}

static enum status say_hello(struct kv_link *l, uint32_t lane, struct error *err)
{
    struct cache_geometry_message geometry;
    struct kv_wire_note note;
    uint8_t buf[CODEC_HEADER_MAX];
    size_t n;

    kv_wire_note_init(&note, BATON__KV__KV_MESSAGE__BODY_HELLO, NULL);
    note.hello.version = PROTOCOL_VERSION;
    note.hello.incarnation = l->opt.incarnation;
    note.hello.lane = lane;
    note.hello.n_lanes = l->n_lanes;
    note.hello.session = l->session;
    note.hello.node = (char *)(uintptr_t)l->opt.node;
    cache_geometry_pack(&geometry, l->opt.geometry);
    note.hello.geometry = &geometry.msg;
    n = kv_wire_pack(&note.m, (struct bytes){ NULL, 0 }, buf);
    if (n == 0) return error_set(err, ERR_TOO_LARGE, "names of node and model do not fit a KV header");
    if (zmq_send(zsock_raw(l->lanes[lane].z), buf, n, ZMQ_DONTWAIT) >= 0) return OK;
    return error_set(err, ERR_CLOSED, "cannot greet %s on lane %u: %s", l->peer, lane, zmq_strerror(errno));
}

static enum status lane_open(struct kv_link *l, uint32_t idx, struct error *err)
{
    const struct zsock_options opt = { .max_message_bytes = CODEC_HEADER_MAX,
                                       .reconnect_ms = -1,
                                       .send_hwm = SEND_AHEAD };
    struct lane *lane = &l->lanes[idx];
    enum status st;

    lane->endpoint = mem_strdup(l->opt.endpoints[idx]);
    if ((st = zsock_open(&lane->z, ZSOCK_DEALER, &opt, err)) != OK) return st;
    if ((st = lane_monitor(lane, err)) != OK) return st;
    if ((st = zsock_connect(lane->z, lane->endpoint, err)) != OK) return st;
    return say_hello(l, idx, err);
}

enum status kv_link_open(struct kv_link **out, const struct kv_link_options *opt, struct error *err)
{
    struct kv_link *l;
    enum status st;

    if (opt->n_lanes == 0 || opt->n_lanes > KV_LINK_MAX_LANES)
        return error_set(err, ERR_INVALID, "%s has %u KV lanes, 1 to %d are possible", opt->peer, opt->n_lanes,
                         KV_LINK_MAX_LANES);
    l = mem_zalloc(sizeof(*l));
    l->opt = *opt;
    l->peer = mem_strdup(opt->peer);
    l->n_lanes = opt->n_lanes;
    l->opened_us = clock_now_us();
    l->session = random_id();
    for (uint32_t i = 0; i < l->n_lanes; i++)
        if ((st = lane_open(l, i, err)) != OK) goto fail;
    l->opt.endpoints = NULL;
    l->opt.peer = NULL;
    *out = l;
    return OK;
fail:
    kv_link_close(l);
    return st;
}

void kv_link_close(struct kv_link *l)
{
    if (!l) return;
    for (uint32_t i = 0; i < l->n_lanes; i++) {
        struct lane *lane = &l->lanes[i];
        if (lane->z) zmq_socket_monitor(zsock_raw(lane->z), NULL, 0);
        zsock_close(lane->z);
        if (lane->monitor) zmq_close(lane->monitor);
        mem_free(lane->endpoint);
    }
    mem_free(l->peer);
    mem_free(l);
}

enum kv_link_state kv_link_state(const struct kv_link *l)
{
    return l->state;
}
uint64_t kv_link_opened_us(const struct kv_link *l)
{
    return l->opened_us;
}
const struct error *kv_link_error(const struct kv_link *l)
{
    return &l->why;
}

bool kv_link_has_endpoints(const struct kv_link *l, const char *const *endpoints, uint32_t n)
{
    if (n != l->n_lanes) return false;
    for (uint32_t i = 0; i < n; i++)
        if (strcmp(endpoints[i], l->lanes[i].endpoint) != 0) return false;
    return true;
}

uint32_t kv_link_sockets(const struct kv_link *l, void *sockets[KV_LINK_MAX_SOCKETS])
{
    uint32_t n = 0;
    sockets[n++] = zsock_raw(l->lanes[0].z);
    for (uint32_t i = 0; i < l->n_lanes; i++) sockets[n++] = l->lanes[i].monitor;
    return n;
}

void kv_link_watch(struct kv_link *l)
{
    for (uint32_t i = 0; i < l->n_lanes; i++) {
        uint8_t part[256];
        int n;
        /* Each event is two frames: number and value, then the address. */
        while ((n = zmq_recv(l->lanes[i].monitor, part, sizeof(part), ZMQ_DONTWAIT)) >= 0) {
            struct error err;
            int more = 0;
            size_t n_more = sizeof(more);
            zmq_getsockopt(l->lanes[i].monitor, ZMQ_RCVMORE, &more, &n_more);
            if (!more) continue;
            error_set(&err, ERR_CLOSED, "lane %u to %s at %s is gone", i, l->peer, l->lanes[i].endpoint);
            kv_link_lose(l, &err);
        }
    }
}

static void on_hello_ack(struct kv_link *l, const Baton__Kv__HelloAck *a)
{
    struct error err;

    if (a->status == OK && a->version == PROTOCOL_VERSION) {
        if (l->state == KV_LINK_GREETING) l->state = KV_LINK_READY;
        return;
    }
    if (a->status > OK && a->status < STATUS_COUNT)
        error_set(&err, (enum status)a->status, "%s refuses: %s", l->peer, a->message);
    else
        error_set(&err, ERR_MISMATCH, "%s speaks protocol version %u, this is version %d", l->peer, a->version,
                  PROTOCOL_VERSION);
    kv_link_lose(l, &err);
}

static void on_lane_ack(struct kv_link *l, const Baton__Kv__LaneAck *a)
{
    struct lane *lane = a->lane < l->n_lanes ? &l->lanes[a->lane] : NULL;
    struct error err;

    if (lane && a->n_messages >= lane->n_read && a->n_messages <= lane->n_sent) {
        lane->n_read = a->n_messages;
        lane->since_us = clock_now_us();
        return;
    }
    error_set(&err, ERR_CORRUPT, "%s has read %llu messages of lane %u, which were not sent", l->peer,
              (unsigned long long)a->n_messages, a->lane);
    kv_link_lose(l, &err);
}

bool kv_link_awaits(const struct kv_link *l)
{
    for (uint32_t i = 0; i < l->n_lanes; i++)
        if (l->lanes[i].n_sent != l->lanes[i].n_read) return true;
    return false;
}

void kv_link_forgive(struct kv_link *l, uint64_t now_us)
{
    for (uint32_t i = 0; i < l->n_lanes; i++) l->lanes[i].since_us = now_us;
}

void kv_link_check_silence(struct kv_link *l, uint64_t now_us)
{
    for (uint32_t i = 0; i < l->n_lanes && l->state == KV_LINK_READY; i++) {
        const struct lane *lane = &l->lanes[i];
        struct error err;

        if (lane->n_sent == lane->n_read || now_us <= lane->since_us + KV_LINK_SILENCE_MS * 1000ull) continue;
        error_set(&err, ERR_TIMEOUT, "%s has read nothing of lane %u for %d ms", l->peer, i, KV_LINK_SILENCE_MS);
        kv_link_lose(l, &err);
    }
}

bool kv_link_receive(struct kv_link *l, struct codec_arena *a, Baton__Kv__KvMessage **out)
{
    while (l->state != KV_LINK_LOST) {
        uint8_t buf[CODEC_HEADER_MAX];
        int n = zmq_recv(zsock_raw(l->lanes[0].z), buf, sizeof(buf), ZMQ_DONTWAIT);
        struct error err;

        if (n < 0) return false;
        if (kv_wire_open(a, bytes_of(buf, (size_t)n), out, &err) != OK) {
            error_prefix(&err, "from %s", l->peer);
            kv_link_lose(l, &err);
            return false;
        }
        switch ((*out)->body_case) {
        case BATON__KV__KV_MESSAGE__BODY_HELLO_ACK: on_hello_ack(l, (*out)->hello_ack); break;
        case BATON__KV__KV_MESSAGE__BODY_LANE_ACK: on_lane_ack(l, (*out)->lane_ack); break;
        default: return true;
        }
    }
    return false;
}

void kv_link_send(struct kv_link *l, Baton__Kv__KvMessage *m)
{
    uint8_t buf[CODEC_HEADER_MAX];
    size_t n = kv_wire_pack(m, (struct bytes){ NULL, 0 }, buf);

    if (l->state == KV_LINK_LOST || n == 0) return;
    note_sent(&l->lanes[0]);
    if (zmq_send(zsock_raw(l->lanes[0].z), buf, n, ZMQ_DONTWAIT) < 0) lose_by_errno(l, 0);
}

void kv_link_send_data(struct kv_link *l, Baton__Kv__KvMessage *m, struct frame *f)
{
    const bool is_block = m->body_case == BATON__KV__KV_MESSAGE__BODY_BLOCK;
    const uint32_t n_bytes = is_block ? m->block->n_bytes : m->state->n_bytes;
    uint32_t idx = l->next_lane++ % l->n_lanes;
    struct lane *lane = &l->lanes[idx];
    void *s = zsock_raw(lane->z);
    uint8_t buf[CODEC_HEADER_MAX];
    zmq_msg_t payload;
    size_t n;

    *(is_block ? &m->block->seq : &m->state->seq) = ++lane->seq;
    note_sent(lane);
    n = kv_wire_pack(m, bytes_of(frame_bytes(f), n_bytes), buf);
    zmq_msg_init_data(&payload, frame_bytes(f), n_bytes, frame_give_back, f);
    if (l->state == KV_LINK_LOST || zmq_send(s, buf, n, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0 ||
        zmq_msg_send(&payload, s, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&payload); /* gives the frame back */
        lose_by_errno(l, idx);
    }
}
