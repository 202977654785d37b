/* links.c - a node's connections to its coordinators: register, heartbeat, notice loss. */
#include "node/links.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/random.h"
#include "node/leases.h"
#include "node/port_probe.h"
#include "wire/codec.h"
#include "wire/session.h"
#include "wire/zmonitor.h"
#include "wire/zsock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>

#define MAX_LINKS        16
#define TICK_MS          100
#define HELD_UP_MS       1000 /* a tick so late says that this process stood still itself */
#define PROBE_MS         500  /* between two looks at a silent coordinator's port */
#define REDIAL_MS        20   /* after a lost connection; doubled while none comes about, */
#define REDIAL_MAX_MS    500  /* to this */
#define REFUSED_MS       1000 /* between two tries after a refusal */
#define HEARTBEAT_MS     1000 /* until a Welcome says otherwise */
#define LEASE_MS         30000
#define SEND_AHEAD       100000 /* messages */
#define ARENA_MAX        ((size_t)256 << 20)
#define MESSAGES_AT_ONCE 256

struct link {
    struct links *all;
    char *endpoint;
    struct zsock *z;
    struct zmonitor *monitor;
    struct port_probe *probe;
    struct session s;
    uint64_t dial_at; /* 0 = there is a socket */
    uint32_t redial_ms;
    uint64_t incarnation; /* of the coordinator; 0 = not up */
    uint64_t behind;      /* incarnation of which on_behind was told; 0 = of none */
    uint32_t heartbeat_ms, lease_ms;
    uint64_t heard_ms;   /* last frame of the coordinator */
    uint64_t refuses_ms; /* since when its port refuses; 0 = it does not */
    uint64_t probed_ms;
    uint64_t beat_ms; /* last heartbeat */
    uint64_t register_at;
    struct leases leases; /* of coordinators whose sessions have ended */
    bool refused;
    char refusal[ERROR_TEXT_MAX]; /* logged last */
};

struct links {
    struct links_options opt;
    struct codec_arena *arena;
    uv_timer_t *tick, *redial;
    uint64_t last_tick;
    bool leaving;
    uint32_t n;
    struct link items[MAX_LINKS];
};

uint64_t link_incarnation(const struct link *l)
{
    return l->incarnation;
}

/* ---- out ---- */

static void flush(struct link *l)
{
    struct session_frame f;
    uint64_t now = clock_now_ms();

    while (l->z && session_next(&l->s, now, &f)) {
        zmq_msg_t msg;
        if (zmq_msg_init_size(&msg, SESSION_HEADER + f.body.n) != 0) return;
        session_pack_header(&f, zmq_msg_data(&msg));
        if (f.body.n) memcpy((uint8_t *)zmq_msg_data(&msg) + SESSION_HEADER, f.body.p, f.body.n);
        if (zmq_msg_send(&msg, zsock_raw(l->z), ZMQ_DONTWAIT) < 0) { /* goes on at the next tick */
            zmq_msg_close(&msg);
            return;
        }
        session_sent(&l->s, &f, now);
    }
}

/* Tells whether work for the coordinator is to be held back. */
static void tell_behind(struct link *l, bool behind)
{
    const struct links_options *opt = &l->all->opt;
    uint64_t whom = behind ? l->incarnation : l->behind;

    if (behind == (l->behind != 0) || !whom) return;
    l->behind = behind ? whom : 0;
    if (behind)
        log_warn_limited("control_behind", "coordinator=%s unacknowledged=%zu bytes=%zu", l->endpoint, l->s.n,
                         l->s.bytes);
    else
        log_info_limited("control_caught_up", "coordinator=%s unacknowledged=%zu", l->endpoint, l->s.n);
    if (opt->on_behind) opt->on_behind(opt->ctx, whom, behind);
}

static size_t fill(struct link *l, Baton__Control__ControlMessage *m)
{
    m->version = PROTOCOL_VERSION;
    m->incarnation = l->all->opt.incarnation;
    m->to_incarnation = l->incarnation;
    return baton__control__control_message__get_packed_size(m);
}

static void end_session(struct link *l, const char *why);

void link_send(struct link *l, Baton__Control__ControlMessage *m)
{
    size_t n = fill(l, m);
    uint8_t *to = n <= CODEC_CONTROL_MAX - SESSION_HEADER ? session_add(&l->s, n) : NULL;

    if (to) {
        baton__control__control_message__pack(m, to);
        flush(l);
        tell_behind(l, session_is_behind(&l->s));
        return;
    }
    log_warn("control_send_failed", "to=%s kind=%d bytes=%zu unacknowledged=%zu", l->endpoint, (int)m->body_case, n,
             l->s.bytes);
    end_session(l, "more waits for its acknowledgement than may be kept");
}

static void send_register(struct link *l)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;

    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_HELLO;
    m.hello = (Baton__Control__Register *)(uintptr_t)l->all->opt.hello;
    l->register_at = 0;
    link_send(l, &m);
}

static void send_heartbeat(struct link *l)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Heartbeat h = BATON__CONTROL__HEARTBEAT__INIT;
    uint8_t *to;

    l->all->opt.fill_heartbeat(l->all->opt.ctx, &h);
    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_HEARTBEAT;
    m.heartbeat = &h;
    l->beat_ms = clock_now_ms();
    if (!(to = session_add_note(&l->s, fill(l, &m)))) return;
    baton__control__control_message__pack(&m, to);
    flush(l);
}

/* ---- connections and sessions ---- */

static void on_readable(void *ctx, struct zsock *z);

static void hang_up(struct link *l)
{
    zmonitor_close(l->monitor);
    zsock_close(l->z);
    l->monitor = NULL;
    l->z = NULL;
    session_lost(&l->s);
}

static void on_redial(uv_timer_t *t);

static void dial_in(struct link *l, uint32_t ms)
{
    uv_timer_t *t = l->all->redial;
    l->dial_at = clock_now_ms() + ms;
    if (!uv_is_active((uv_handle_t *)t) || uv_timer_get_due_in(t) > ms) uv_timer_start(t, on_redial, ms, 0);
}

/* The rest goes out again on a new connection; `why` is told where one was there to lose. */
static void redial(struct link *l, const char *why)
{
    bool was_open = l->s.state == SESSION_OPEN;

    if (!l->z) return;
    hang_up(l);
    l->redial_ms = was_open || !l->redial_ms ? REDIAL_MS : l->redial_ms * 2;
    if (l->redial_ms > REDIAL_MAX_MS) l->redial_ms = REDIAL_MAX_MS;
    dial_in(l, l->redial_ms);
    if (was_open)
        log_info_limited("control_redialled", "coordinator=%s connection=%u unacknowledged=%zu reason=%s", l->endpoint,
                         l->s.connection, l->s.n, log_quote(why));
}

static void on_monitor(void *ctx, int event)
{
    (void)event;
    redial(ctx, "the connection was lost");
}

static enum status dial(struct link *l, struct error *err)
{
    const struct zsock_options opt = { .max_message_bytes = CODEC_CONTROL_MAX,
                                       .reconnect_ms = REDIAL_MS,
                                       .send_hwm = SEND_AHEAD,
                                       .recv_hwm = SEND_AHEAD };
    const int events = ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                       ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
    uv_loop_t *loop = l->all->opt.loop;
    enum status st;

    l->dial_at = 0;
    session_dial(&l->s, clock_now_ms());
    if ((st = zsock_open(&l->z, ZSOCK_DEALER, &opt, err)) != OK) return st;
    if ((st = zmonitor_open(&l->monitor, l->z, events, loop, on_monitor, l, err)) != OK) return st;
    if ((st = zsock_connect(l->z, l->endpoint, err)) != OK) return st;
    if ((st = zsock_watch(l->z, loop, on_readable, l, err)) != OK) return st;
    flush(l);
    return OK;
}

static void begin_session(struct link *l)
{
    uint64_t now = clock_now_ms();

    tell_behind(l, false);
    session_fini(&l->s);
    session_init(&l->s, true, random_id(), l->all->opt.kept_bytes, now);
    l->register_at = now;
}

/* ---- whose work is kept, and how long ---- */

static void drop(struct link *l, uint64_t incarnation, const char *why)
{
    log_warn("coordinator_lost", "endpoint=%s incarnation=%016llx reason=%s", l->endpoint,
             (unsigned long long)incarnation, log_quote(why));
    l->all->opt.on_lost(l->all->opt.ctx, incarnation);
}

static void lose(struct link *l, const char *why)
{
    uint64_t incarnation = l->incarnation;

    if (!incarnation) return;
    l->incarnation = 0;
    drop(l, incarnation, why);
}

/* The session has ended without a word why: the coordinator's work stays until that is known, or the lease is over. */
static void hold(struct link *l)
{
    if (!l->incarnation) return;
    if (leases_add(&l->leases, l->incarnation, l->heard_ms + l->lease_ms))
        l->incarnation = 0;
    else
        lose(l, "too many coordinators have answered at its address");
}

static void end_session(struct link *l, const char *why)
{
    lose(l, why);
    begin_session(l);
    redial(l, why);
}

/* Who welcomes: one of before, which has dropped its work here itself, or another, which means that it is gone. */
static void settle_held(struct link *l, uint64_t incarnation)
{
    if (leases_take(&l->leases, incarnation)) drop(l, incarnation, "it had given this node up");
    leases_shorten(&l->leases, clock_now_ms() + LINKS_SHORT_LEASE_MS);
}

/* ---- in ---- */

static void on_welcome(struct link *l, uint64_t incarnation, const Baton__Control__Welcome *w)
{
    if (l->incarnation == incarnation) return;
    hold(l);
    settle_held(l, incarnation);
    tell_behind(l, false); /* that was for the one of before */
    l->incarnation = incarnation;
    l->heartbeat_ms = w->heartbeat_ms >= 100 && w->heartbeat_ms <= 60000 ? w->heartbeat_ms : HEARTBEAT_MS;
    l->lease_ms = w->lease_ms >= 100 && w->lease_ms <= 600000 ? w->lease_ms : LEASE_MS;
    l->refused = false;
    l->refusal[0] = 0;
    log_info("registered", "coordinator=%s incarnation=%016llx", l->endpoint, (unsigned long long)incarnation);
    send_heartbeat(l);
    l->all->opt.on_welcome(l->all->opt.ctx, l);
}

static void on_refused(struct link *l, const Baton__Control__Refused *r)
{
    lose(l, r->message);
    l->refused = true;
    l->register_at = clock_now_ms() + REFUSED_MS;
    if (strncmp(l->refusal, r->message, sizeof(l->refusal) - 1) == 0) return;
    snprintf(l->refusal, sizeof(l->refusal), "%s", r->message);
    log_error("refused", "coordinator=%s status=%s reason=%s", l->endpoint,
              r->status < STATUS_COUNT ? status_text((enum status)r->status) : "unknown", log_quote(r->message));
}

static void on_message(struct link *l, const Baton__Control__ControlMessage *m)
{
    if (m->body_case == BATON__CONTROL__CONTROL_MESSAGE__BODY_REFUSED && m->refused) {
        on_refused(l, m->refused);
        return;
    }
    if (m->to_incarnation != l->all->opt.incarnation || m->incarnation == 0) return; /* for an older process */
    if (m->body_case == BATON__CONTROL__CONTROL_MESSAGE__BODY_WELCOME && m->welcome) {
        on_welcome(l, m->incarnation, m->welcome);
        return;
    }
    if (m->incarnation != l->incarnation) return;
    if (m->body_case == BATON__CONTROL__CONTROL_MESSAGE__BODY_GOODBYE && m->goodbye)
        end_session(l, m->goodbye->reason);
    else if (m->body_case != BATON__CONTROL__CONTROL_MESSAGE__BODY_HEARTBEAT_ACK)
        l->all->opt.on_message(l->all->opt.ctx, l, m);
}

static const Baton__Control__ControlMessage *unpack(struct link *l, struct bytes body)
{
    ProtobufCMessage *base;
    struct error err;
    if (codec_unpack(l->all->arena, &baton__control__control_message__descriptor, body, &base, &err) == OK)
        return (const Baton__Control__ControlMessage *)base;
    return NULL;
}

/* A coordinator of another version says so in a message without a header; anything else is damage. */
static void on_bare(struct link *l, struct bytes raw)
{
    const Baton__Control__ControlMessage *m = raw.n ? unpack(l, raw) : NULL;

    if (m && m->version != PROTOCOL_VERSION && m->body_case == BATON__CONTROL__CONTROL_MESSAGE__BODY_REFUSED) {
        on_refused(l, m->refused);
        return;
    }
    redial(l, "a damaged frame");
}

/* The coordinator does not know the session (any more). */
static void on_over(struct link *l)
{
    hold(l);
    if (l->all->leaving) { /* as it has heard the goodbye */
        hang_up(l);
        return;
    }
    begin_session(l);
    redial(l, "the coordinator does not know the session");
}

static void on_frame(struct link *l, const struct session_frame *f)
{
    const Baton__Control__ControlMessage *m;
    uint64_t now = clock_now_ms();

    if (f->kind == SESSION_REOPEN && f->id == 0) {
        redial(l, "the coordinator has received a damaged frame");
        return;
    }
    if (f->id != l->s.id || f->connection != l->s.connection) return;
    l->heard_ms = now;
    l->refuses_ms = 0;
    switch (session_receive(&l->s, f, now)) {
    case SESSION_DELIVER:
        if ((m = unpack(l, f->body)))
            on_message(l, m);
        else
            log_warn_limited("control_garbage", "from=%s bytes=%zu", l->endpoint, f->body.n);
        break;
    case SESSION_DIAL: redial(l, f->kind == SESSION_REOPEN ? "the coordinator asks for it" : "a gap"); break;
    case SESSION_OVER: on_over(l); break;
    default: break;
    }
    tell_behind(l, session_is_behind(&l->s));
}

/* False when nothing is there.  A message is one frame; more of them are damage. */
static bool receive(struct link *l)
{
    zmq_msg_t msg;
    struct session_frame f;
    struct zsock *z = l->z;
    uint32_t version;
    int n_frames = 0, more = 1;

    while (more) {
        zmq_msg_init(&msg);
        if (zmq_msg_recv(&msg, zsock_raw(z), ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&msg);
            return false;
        }
        more = zmq_msg_more(&msg);
        n_frames++;
        if (more || n_frames > 1) {
            zmq_msg_close(&msg);
            continue;
        }
        struct bytes raw = bytes_of(zmq_msg_data(&msg), zmq_msg_size(&msg));
        if (session_parse(raw, &f, &version) == OK)
            on_frame(l, &f);
        else
            on_bare(l, raw);
        zmq_msg_close(&msg);
    }
    if (n_frames > 1 && l->z == z) redial(l, "a damaged frame");
    return true;
}

static void on_readable(void *ctx, struct zsock *z)
{
    struct link *l = ctx;
    for (int i = 0; i < MESSAGES_AT_ONCE && l->z == z; i++)
        if (!receive(l)) break;
    flush(l);
}

/* ---- time ---- */

static void on_probed(void *ctx, bool refuses)
{
    struct link *l = ctx;

    l->probe = NULL;
    if (!refuses)
        l->refuses_ms = 0;
    else if (!l->refuses_ms)
        l->refuses_ms = clock_now_ms();
}

static void check_lease(struct link *l, uint64_t now)
{
    uint64_t over;

    if (l->s.state != SESSION_OPEN && !l->probe && now - l->probed_ms >= PROBE_MS) {
        l->probed_ms = now;
        l->probe = port_probe_start(l->all->opt.loop, l->endpoint, on_probed, l);
    }
    if (l->refuses_ms) leases_shorten(&l->leases, l->refuses_ms + LINKS_SHORT_LEASE_MS);
    if (l->incarnation && l->refuses_ms && now - l->refuses_ms >= LINKS_SHORT_LEASE_MS)
        end_session(l, "its port refuses connections");
    else if (l->incarnation && now > l->heard_ms && now - l->heard_ms >= l->lease_ms)
        end_session(l, "it was silent for its lease");
    while ((over = leases_take_expired(&l->leases, now))) drop(l, over, "it has not come back");
}

static void redial_if_due(struct link *l, uint64_t now)
{
    struct error err;

    if (!l->dial_at || now < l->dial_at || dial(l, &err) == OK) return;
    log_error("control_connect", "reason=%s", log_quote(err.text));
    hang_up(l);
    dial_in(l, REDIAL_MAX_MS);
}

static void tick_link(struct link *l, uint64_t now)
{
    if (session_tick(&l->s, now) == SESSION_DIAL) redial(l, "silence");
    check_lease(l, now);
    redial_if_due(l, now);
    if (l->register_at && !l->all->leaving && now >= l->register_at) send_register(l);
    /* half a tick early rather than late */
    if (l->incarnation && now - l->beat_ms + TICK_MS / 2 >= l->heartbeat_ms) send_heartbeat(l);
    flush(l);
}

/* What stood still itself has messages waiting unread: nobody is judged before they are read. */
static void forgive(struct links *ls, uint64_t ms)
{
    for (uint32_t i = 0; i < ls->n; i++) {
        struct link *l = &ls->items[i];
        session_forgive(&l->s, clock_now_ms());
        l->heard_ms += ms;
        if (l->refuses_ms) l->refuses_ms += ms;
        leases_extend(&l->leases, ms);
    }
}

static void on_tick(uv_timer_t *t)
{
    struct links *ls = t->data;
    uint64_t now = clock_now_ms(), passed = now - ls->last_tick;

    ls->last_tick = now;
    if (passed > HELD_UP_MS) forgive(ls, passed);
    for (uint32_t i = 0; i < ls->n; i++) tick_link(&ls->items[i], now);
}

static void on_redial(uv_timer_t *t)
{
    struct links *ls = t->data;
    uint64_t now = clock_now_ms() + 2; /* the loop's clock may be a little ahead */
    for (uint32_t i = 0; i < ls->n; i++) redial_if_due(&ls->items[i], now);
}

/* ---- life ---- */

static enum status add_link(struct links *ls, const char *endpoint, size_t n, struct error *err)
{
    struct link *l = &ls->items[ls->n];
    enum status st;

    if (ls->n == MAX_LINKS) return error_set(err, ERR_FULL, "more than %d coordinators are named", MAX_LINKS);
    l->all = ls;
    l->endpoint = mem_strndup(endpoint, n);
    ls->n++;
    begin_session(l);
    if ((st = dial(l, err)) != OK) return st;
    send_register(l);
    return OK;
}

static uv_timer_t *timer(struct links *ls)
{
    uv_timer_t *t = mem_zalloc(sizeof(*t));
    uv_timer_init(ls->opt.loop, t);
    t->data = ls;
    return t;
}

enum status links_open(struct links **out, const struct links_options *opt, struct error *err)
{
    struct links *ls = mem_zalloc(sizeof(*ls));
    enum status st;

    ls->opt = *opt;
    ls->arena = codec_arena_create(ARENA_MAX);
    ls->tick = timer(ls);
    ls->redial = timer(ls);
    ls->last_tick = clock_now_ms();
    for (const char *p = opt->endpoints; *p;) {
        size_t n = strcspn(p, ",");
        if (n > 0 && (st = add_link(ls, p, n, err)) != OK) goto fail;
        p += n + (p[n] == ',');
    }
    if (ls->n == 0) {
        st = error_set(err, ERR_INVALID, "no coordinator is named");
        goto fail;
    }
    uv_timer_start(ls->tick, on_tick, TICK_MS, TICK_MS);
    *out = ls;
    return OK;
fail:
    links_close(ls);
    return st;
}

static void on_timer_closed(uv_handle_t *h)
{
    mem_free(h);
}

void links_close(struct links *ls)
{
    if (!ls) return;
    uv_close((uv_handle_t *)ls->tick, on_timer_closed);
    uv_close((uv_handle_t *)ls->redial, on_timer_closed);
    for (uint32_t i = 0; i < ls->n; i++) {
        struct link *l = &ls->items[i];
        port_probe_cancel(l->probe);
        hang_up(l);
        session_fini(&l->s);
        mem_free(l->endpoint);
    }
    codec_arena_destroy(ls->arena);
    mem_free(ls);
}

bool links_any_up(const struct links *ls)
{
    for (uint32_t i = 0; i < ls->n; i++)
        if (ls->items[i].incarnation) return true;
    return false;
}

void links_beat(struct links *ls)
{
    for (uint32_t i = 0; i < ls->n; i++)
        if (ls->items[i].incarnation) send_heartbeat(&ls->items[i]);
}

void links_say_goodbye(struct links *ls, const char *reason)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Goodbye bye = BATON__CONTROL__GOODBYE__INIT;

    ls->leaving = true;
    bye.reason = (char *)(uintptr_t)reason;
    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_GOODBYE;
    m.goodbye = &bye;
    for (uint32_t i = 0; i < ls->n; i++)
        if (ls->items[i].incarnation) link_send(&ls->items[i], &m);
}
