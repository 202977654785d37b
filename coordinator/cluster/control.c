/* control.c - frames of the ROUTER socket to sessions and their messages, and back. */
#include "coordinator/cluster/control.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "wire/codec.h"
#include "wire/session.h"
#include "wire/zmonitor.h"

#include <errno.h>
#include <string.h>
#include <uthash.h>
#include <zmq.h>

#define MAX_UNPACKED   ((size_t)256 << 20)
#define HWM            100000
#define LINGER_MS      200 /* cancels and goodbyes of a coordinator that stops */
#define TICK_MS        50
#define PROBES         10 /* after a lost connection, */
#define PROBE_MS       10 /* so far apart */
#define ROUTING_MAX    255
#define MAX_STRANGERS  256                /* sessions whose node has not joined */
#define STRANGER_BYTES ((size_t)64 << 10) /* what such a one may leave unacknowledged */

struct control_peer {
    struct session s;
    uint64_t id;
    uint8_t routing[ROUTING_MAX];
    size_t n_routing;
    void *owner;
    bool forgotten; /* freed at the end of the round */
    struct control_peer *next_forgotten;
    UT_hash_handle hh;
};

struct control {
    struct zsock *sock;
    struct zmonitor *monitor;
    struct codec_arena *arena;
    char *endpoint;
    size_t kept_bytes;
    uint64_t incarnation, n_garbage;
    struct control_events on;
    void *ctx;
    struct control_peer *peers;     /* uthash by id, the oldest first */
    struct control_peer *forgotten; /* list */
    int probes_left;
    uv_timer_t *tick, *probe;
};

struct frames { /* one multipart message: routing id, body; the rest is thrown away */
    zmq_msg_t routing, body;
    int n;
};

/* False when nothing is there. */
static bool receive(void *s, struct frames *f)
{
    int more = 1;
    f->n = 0;
    zmq_msg_init(&f->routing);
    zmq_msg_init(&f->body);
    while (more) {
        zmq_msg_t extra;
        zmq_msg_t *to = f->n == 0 ? &f->routing : f->n == 1 ? &f->body : &extra;
        if (to == &extra) zmq_msg_init(&extra);
        int n = zmq_msg_recv(to, s, ZMQ_DONTWAIT);
        more = n >= 0 && zmq_msg_more(to);
        if (to == &extra) zmq_msg_close(&extra);
        if (n < 0) return f->n > 0;
        f->n++;
    }
    return true;
}

/* ---- out ---- */

static enum status send_raw(struct control *c, struct bytes routing, const void *head, size_t n_head, struct bytes tail)
{
    void *s = zsock_raw(c->sock);
    zmq_msg_t msg;
    if (zmq_msg_init_size(&msg, n_head + tail.n) != 0) return ERR_NO_MEMORY;
    memcpy(zmq_msg_data(&msg), head, n_head);
    if (tail.n) memcpy((uint8_t *)zmq_msg_data(&msg) + n_head, tail.p, tail.n);
    bool sent = zmq_send(s, routing.p, routing.n, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0;
    int why = errno;
    if (sent && zmq_msg_send(&msg, s, ZMQ_DONTWAIT) >= 0) return OK;
    zmq_msg_close(&msg);
    return !sent && why == EAGAIN ? ERR_FULL : ERR_CLOSED;
}

/* A frame outside of any session that is known here. */
static void answer(struct control *c, struct bytes routing, enum session_kind kind, const struct session_frame *to)
{
    struct session_frame f = { .kind = kind, .id = to ? to->id : 0, .connection = to ? to->connection : 0 };
    uint8_t head[SESSION_HEADER];
    session_pack_header(&f, head);
    if (send_raw(c, routing, head, sizeof(head), (struct bytes){ NULL, 0 }) != OK)
        log_debug("control_unanswered", "kind=%d", (int)kind);
}

static void flush(struct control *c, struct control_peer *p)
{
    struct session_frame f;
    uint64_t now = clock_now_ms();
    while (!p->forgotten && session_next(&p->s, now, &f)) {
        uint8_t head[SESSION_HEADER];
        session_pack_header(&f, head);
        enum status st = send_raw(c, bytes_of(p->routing, p->n_routing), head, sizeof(head), f.body);
        if (st == OK) {
            session_sent(&p->s, &f, now);
            continue;
        }
        if (st != ERR_CLOSED) return; /* goes on at the next tick */
        session_lost(&p->s);
        c->on.unreachable(c->ctx, p);
        return;
    }
}

static size_t fill(struct control *c, uint64_t to_incarnation, Baton__Control__ControlMessage *m)
{
    m->version = PROTOCOL_VERSION;
    m->incarnation = c->incarnation;
    m->to_incarnation = to_incarnation;
    return baton__control__control_message__get_packed_size(m);
}

enum status control_send(struct control *c, struct control_peer *p, uint64_t to_incarnation,
                         Baton__Control__ControlMessage *m)
{
    if (!p || p->forgotten) return ERR_CLOSED;
    size_t n = fill(c, to_incarnation, m);
    if (n > CODEC_CONTROL_MAX - SESSION_HEADER) return ERR_TOO_LARGE;
    uint8_t *to = session_add(&p->s, n);
    if (!to) return ERR_FULL;
    baton__control__control_message__pack(m, to);
    flush(c, p);
    return OK;
}

enum status control_send_note(struct control *c, struct control_peer *p, uint64_t to_incarnation,
                              Baton__Control__ControlMessage *m)
{
    if (!p || p->forgotten) return ERR_CLOSED;
    uint8_t *to = session_add_note(&p->s, fill(c, to_incarnation, m));
    if (!to) return ERR_FULL;
    baton__control__control_message__pack(m, to);
    flush(c, p);
    return OK;
}

bool control_is_behind(const struct control_peer *p)
{
    return p && session_is_behind(&p->s);
}

void control_probe(struct control *c, struct control_peer *p)
{
    if (!p || p->forgotten) return;
    session_ping(&p->s);
    if (p->s.state == SESSION_DOWN)
        c->on.unreachable(c->ctx, p);
    else
        flush(c, p);
}

/* ---- peers ---- */

void control_adopt(struct control *c, struct control_peer *p, void *owner)
{
    p->owner = owner;
    p->s.max_bytes = c->kept_bytes;
}

void *control_owner(const struct control_peer *p)
{
    return p->owner;
}

/* The record stays until nobody up the stack can look at it. */
void control_forget(struct control *c, struct control_peer *p)
{
    if (!p || p->forgotten) return;
    p->forgotten = true;
    p->owner = NULL;
    HASH_DEL(c->peers, p);
    p->next_forgotten = c->forgotten;
    c->forgotten = p;
}

static void free_forgotten(struct control *c)
{
    while (c->forgotten) {
        struct control_peer *p = c->forgotten;
        c->forgotten = p->next_forgotten;
        session_fini(&p->s);
        mem_free(p);
    }
}

void control_forgive(struct control *c)
{
    struct control_peer *p, *next;
    HASH_ITER(hh, c->peers, p, next) session_forgive(&p->s, clock_now_ms());
}

/* An unknown peer never pushes a known one out: the oldest stranger goes. */
static void make_room(struct control *c)
{
    struct control_peer *p, *next, *oldest = NULL;
    uint32_t n = 0;
    HASH_ITER(hh, c->peers, p, next)
    {
        if (p->owner) continue;
        if (!oldest) oldest = p;
        n++;
    }
    if (n >= MAX_STRANGERS) control_forget(c, oldest);
}

static struct control_peer *greet(struct control *c, const struct session_frame *f)
{
    if (f->kind != SESSION_HELLO || !(f->flags & SESSION_FRESH) || f->ack != 0) return NULL;
    make_room(c);
    struct control_peer *p = mem_zalloc(sizeof(*p));
    p->id = f->id;
    session_init(&p->s, false, f->id, STRANGER_BYTES, clock_now_ms());
    HASH_ADD(hh, c->peers, id, sizeof(p->id), p);
    return p;
}

static void end_session(struct control *c, struct control_peer *p, struct bytes routing, const struct session_frame *f)
{
    answer(c, routing, SESSION_RESET, f);
    c->on.over(c->ctx, p);
    control_forget(c, p);
}

/* ---- in ---- */

static void garbage(struct control *c, size_t n, int frames)
{
    c->n_garbage++;
    log_debug("control_garbage", "frames=%d bytes=%zu", frames, n);
}

/* A node of before sessions, or of a later version, is told in a bare message, which every version reads. */
static bool tell_version(struct control *c, struct bytes routing, struct bytes body, uint32_t version)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Refused refused = BATON__CONTROL__REFUSED__INIT;
    ProtobufCMessage *theirs;
    uint8_t buf[512];
    struct error err;
    if (version == 0 && codec_unpack(c->arena, &baton__control__control_message__descriptor, body, &theirs, &err) == OK)
        version = ((const Baton__Control__ControlMessage *)theirs)->version;
    if (version == 0 || version == PROTOCOL_VERSION) return false;
    error_set(&err, ERR_MISMATCH, "the node speaks version %u of the protocol, this coordinator version %d", version,
              PROTOCOL_VERSION);
    refused.status = ERR_MISMATCH;
    refused.message = err.text;
    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_REFUSED;
    m.refused = &refused;
    size_t n = fill(c, 0, &m);
    if (n > sizeof(buf)) return true;
    baton__control__control_message__pack(&m, buf);
    if (send_raw(c, routing, buf, n, (struct bytes){ NULL, 0 }) != OK) log_debug("control_unanswered", "kind=refused");
    return true;
}

static void deliver_message(struct control *c, struct control_peer *p, struct bytes body)
{
    ProtobufCMessage *m;
    struct error err;
    if (codec_unpack(c->arena, &baton__control__control_message__descriptor, body, &m, &err) != OK)
        garbage(c, body.n, 2);
    else
        c->on.message(c->ctx, p, (const Baton__Control__ControlMessage *)m);
}

static void on_frame(struct control *c, struct bytes routing, const struct session_frame *f)
{
    struct control_peer *p;
    uint64_t now = clock_now_ms();
    HASH_FIND(hh, c->peers, &f->id, sizeof(f->id), p);
    if (!p && !(p = greet(c, f))) {
        if (f->kind != SESSION_RESET) answer(c, routing, SESSION_RESET, f);
        return;
    }
    bool takes_over = f->kind == SESSION_HELLO && f->connection > p->s.connection;
    if (!takes_over && (routing.n != p->n_routing || memcmp(routing.p, p->routing, routing.n) != 0)) {
        p->s.count.stale++; /* late words of an older connection, or one that its node did not dial anew */
        if (f->connection == p->s.connection) answer(c, routing, SESSION_REOPEN, f);
        return;
    }
    enum session_verdict v = session_receive(&p->s, f, now);
    if (v == SESSION_OVER) {
        end_session(c, p, routing, f);
        return;
    }
    if (v == SESSION_TAKEN) {
        memcpy(p->routing, routing.p, routing.n);
        p->n_routing = routing.n;
    }
    /* late words of a connection that is gone do not show that anybody lives */
    if (f->connection == p->s.connection && p->s.state != SESSION_DOWN) c->on.heard(c->ctx, p);
    if (v == SESSION_DELIVER && !p->forgotten) deliver_message(c, p, f->body);
    if (p->forgotten)
        answer(c, routing, SESSION_RESET, f);
    else
        flush(c, p);
}

static void deliver(struct control *c, struct frames *f)
{
    struct bytes routing = bytes_of(zmq_msg_data(&f->routing), zmq_msg_size(&f->routing));
    struct bytes body = bytes_of(zmq_msg_data(&f->body), zmq_msg_size(&f->body));
    struct session_frame frame;
    uint32_t version;
    if (routing.n == 0 || routing.n > ROUTING_MAX) return;
    if (f->n == 2 && session_parse(body, &frame, &version) == OK) {
        on_frame(c, routing, &frame);
        return;
    }
    garbage(c, body.n, f->n);
    if (f->n == 2 && tell_version(c, routing, body, version)) return;
    answer(c, routing, SESSION_REOPEN, NULL); /* damaged: something of somebody's is lost */
}

static void on_readable(void *ctx, struct zsock *z)
{
    struct control *c = ctx;
    struct frames f;
    bool got = true;
    /* bounded, so that HTTP gets its turn while nodes talk; the socket's watch calls again */
    for (int i = 0; i < 1000 && got; i++) {
        got = receive(zsock_raw(z), &f);
        if (got) deliver(c, &f);
        zmq_msg_close(&f.routing);
        zmq_msg_close(&f.body);
    }
    free_forgotten(c);
}

/* ---- time ---- */

static void on_tick(uv_timer_t *t)
{
    struct control *c = t->data;
    struct control_peer *p, *next;
    uint64_t now = clock_now_ms();
    HASH_ITER(hh, c->peers, p, next)
    {
        (void)session_tick(&p->s, now); /* an acceptor only says REOPEN, in flush() */
        flush(c, p);
    }
    free_forgotten(c);
}

static void on_probe(uv_timer_t *t)
{
    struct control *c = t->data;
    c->on.disconnected(c->ctx);
    if (--c->probes_left <= 0) uv_timer_stop(t);
    free_forgotten(c);
}

static void on_disconnected(void *ctx, int event)
{
    struct control *c = ctx;
    (void)event;
    c->probes_left = PROBES;
    if (!uv_is_active((uv_handle_t *)c->probe)) uv_timer_start(c->probe, on_probe, 0, PROBE_MS);
}

static uv_timer_t *timer(uv_loop_t *loop, struct control *c)
{
    uv_timer_t *t = mem_zalloc(sizeof(*t));
    uv_timer_init(loop, t);
    t->data = c;
    return t;
}

enum status control_open(struct control **out, const struct control_options *opt, const struct control_events *events,
                         void *ctx, struct error *err)
{
    struct control *c = mem_zalloc(sizeof(*c));
    uv_loop_t *loop = opt->loop;
    const struct zsock_options zopt = { .max_message_bytes = CODEC_CONTROL_MAX, .send_hwm = HWM, .recv_hwm = HWM };
    enum status st;
    c->incarnation = opt->incarnation;
    c->kept_bytes = opt->kept_bytes;
    c->on = *events;
    c->ctx = ctx;
    c->arena = codec_arena_create(MAX_UNPACKED);
    if ((st = zsock_open(&c->sock, ZSOCK_ROUTER, &zopt, err)) != OK) goto fail;
    c->probe = timer(loop, c);
    if ((st = zmonitor_open(&c->monitor, c->sock, ZMQ_EVENT_DISCONNECTED, loop, on_disconnected, c, err)) != OK)
        goto fail;
    if ((st = zsock_bind(c->sock, opt->endpoint, &c->endpoint, err)) != OK) {
        error_prefix(err, "coordinator.control");
        goto fail;
    }
    if ((st = zsock_watch(c->sock, loop, on_readable, c, err)) != OK) goto fail;
    c->tick = timer(loop, c);
    uv_timer_start(c->tick, on_tick, TICK_MS, TICK_MS);
    *out = c;
    return OK;
fail:
    control_close(c);
    return st;
}

static void on_timer_closed(uv_handle_t *h)
{
    mem_free(h);
}

void control_close(struct control *c)
{
    struct control_peer *p, *next;
    if (!c) return;
    HASH_ITER(hh, c->peers, p, next) control_forget(c, p);
    free_forgotten(c);
    if (c->tick) uv_close((uv_handle_t *)c->tick, on_timer_closed);
    if (c->probe) uv_close((uv_handle_t *)c->probe, on_timer_closed);
    zmonitor_close(c->monitor);
    if (c->sock) zsock_set_linger(c->sock, LINGER_MS);
    zsock_close(c->sock);
    codec_arena_destroy(c->arena);
    mem_free(c->endpoint);
    mem_free(c);
}

const char *control_endpoint(const struct control *c)
{
    return c->endpoint;
}

uint64_t control_n_garbage(const struct control *c)
{
    return c->n_garbage;
}
