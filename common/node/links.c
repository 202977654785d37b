/* links.c - a node's connections to its coordinators: register, heartbeat, notice loss. */
#include "node/links.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "wire/codec.h"
#include "wire/zsock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>

#define MAX_LINKS        16
#define TICK_MS          250
#define REGISTER_MS      1000
#define REFUSED_MS       2000 /* between two tries after a refusal */
#define HEARTBEAT_MS     1000 /* until a Welcome says otherwise */
#define DEAD_AFTER_MS    3000
#define SEND_AHEAD       100000 /* messages */
#define ARENA_MAX        ((size_t)256 << 20)
#define MESSAGES_AT_ONCE 256

struct link {
    struct links *all;
    char *endpoint;
    struct zsock *z;
    uint64_t incarnation; /* of the coordinator; 0 = not up */
    uint32_t heartbeat_ms, dead_after_ms;
    uint64_t heard_ms; /* last message of the coordinator */
    uint64_t spoke_ms; /* last Register or Heartbeat */
    bool refused;
    bool version_told;
    char refusal[ERROR_TEXT_MAX]; /* logged last */
};

struct links {
    struct links_options opt;
    struct codec_arena *arena;
    uv_timer_t *timer;
    uint32_t n;
    struct link items[MAX_LINKS];
};

uint64_t link_incarnation(const struct link *l)
{
    return l->incarnation;
}

void link_send(struct link *l, Baton__Control__ControlMessage *m)
{
    zmq_msg_t msg;
    size_t n;

    if (!l->z) return;
    m->version = PROTOCOL_VERSION;
    m->incarnation = l->all->opt.incarnation;
    m->to_incarnation = l->incarnation;
    n = baton__control__control_message__get_packed_size(m);
    if (zmq_msg_init_size(&msg, n) != 0) return;
    baton__control__control_message__pack(m, zmq_msg_data(&msg));
    if (zmq_msg_send(&msg, zsock_raw(l->z), ZMQ_DONTWAIT) >= 0) return;
    log_warn("control_send_failed", "to=%s kind=%d reason=%s", l->endpoint, (int)m->body_case, zmq_strerror(errno));
    zmq_msg_close(&msg);
}

static void send_register(struct link *l)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;

    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_HELLO;
    m.hello = (Baton__Control__Register *)(uintptr_t)l->all->opt.hello;
    l->spoke_ms = clock_now_ms();
    link_send(l, &m);
}

static void send_heartbeat(struct link *l)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Heartbeat h = BATON__CONTROL__HEARTBEAT__INIT;

    l->all->opt.fill_heartbeat(l->all->opt.ctx, &h);
    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_HEARTBEAT;
    m.heartbeat = &h;
    l->spoke_ms = clock_now_ms();
    link_send(l, &m);
}

static void on_readable(void *ctx, struct zsock *z);

static enum status connect_link(struct link *l, struct error *err)
{
    const struct zsock_options opt = { .max_message_bytes = CODEC_CONTROL_MAX,
                                       .heartbeat_ms = HEARTBEAT_MS,
                                       .heartbeat_timeout_ms = DEAD_AFTER_MS,
                                       .reconnect_ms = 100,
                                       .send_hwm = SEND_AHEAD,
                                       .recv_hwm = SEND_AHEAD };
    enum status st;

    if ((st = zsock_open(&l->z, ZSOCK_DEALER, &opt, err)) != OK) return st;
    if ((st = zsock_connect(l->z, l->endpoint, err)) != OK) return st;
    return zsock_watch(l->z, l->all->opt.loop, on_readable, l, err);
}

/* A fresh socket, so that nothing queued for the lost coordinator reaches the next one at its address. */
static void reconnect(struct link *l)
{
    struct error err;

    zsock_close(l->z);
    l->z = NULL;
    if (connect_link(l, &err) != OK) log_error("control_connect", "reason=%s", log_quote(err.text));
}

static void lose(struct link *l, const char *why)
{
    if (l->incarnation) {
        log_warn("coordinator_lost", "endpoint=%s reason=%s", l->endpoint, log_quote(why));
        l->all->opt.on_lost(l->all->opt.ctx, l);
    }
    l->incarnation = 0;
}

static void on_welcome(struct link *l, uint64_t incarnation, const Baton__Control__Welcome *w)
{
    bool again = l->incarnation == incarnation;

    if (l->incarnation && !again) lose(l, "another process has taken its place");
    l->incarnation = incarnation;
    l->heartbeat_ms = w->heartbeat_ms >= 100 && w->heartbeat_ms <= 60000 ? w->heartbeat_ms : HEARTBEAT_MS;
    l->dead_after_ms =
        w->dead_after_ms >= l->heartbeat_ms && w->dead_after_ms <= 600000 ? w->dead_after_ms : 3 * l->heartbeat_ms;
    l->heard_ms = clock_now_ms();
    l->refused = false;
    l->refusal[0] = 0;
    if (again) return;
    log_info("registered", "coordinator=%s incarnation=%016llx", l->endpoint, (unsigned long long)incarnation);
    send_heartbeat(l);
    l->all->opt.on_welcome(l->all->opt.ctx, l);
}

static void on_refused(struct link *l, const Baton__Control__Refused *r)
{
    if (r->status == ERR_STALE) { /* it has declared us dead, or is new itself: introduce ourselves at once */
        lose(l, r->message);
        send_register(l);
        return;
    }
    lose(l, r->message);
    l->refused = true;
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
    if (m->version != PROTOCOL_VERSION) {
        if (!l->version_told)
            log_error("version_differs", "coordinator=%s speaks=%u this_node=%d", l->endpoint, m->version,
                      PROTOCOL_VERSION);
        l->version_told = true;
        return;
    }
    if (m->to_incarnation != l->all->opt.incarnation || m->incarnation == 0) return; /* for an older process */
    if (m->body_case == BATON__CONTROL__CONTROL_MESSAGE__BODY_WELCOME && m->welcome) {
        on_welcome(l, m->incarnation, m->welcome);
        return;
    }
    if (m->incarnation != l->incarnation) return;
    l->heard_ms = clock_now_ms();
    if (m->body_case == BATON__CONTROL__CONTROL_MESSAGE__BODY_GOODBYE) {
        lose(l, m->goodbye->reason);
        return;
    }
    if (m->body_case != BATON__CONTROL__CONTROL_MESSAGE__BODY_HEARTBEAT_ACK)
        l->all->opt.on_message(l->all->opt.ctx, l, m);
}

/* False when nothing is there.  Frames beyond the first make a message garbage. */
static bool receive(struct link *l)
{
    zmq_msg_t msg;
    ProtobufCMessage *base;
    struct error err;
    int n_frames = 0, more = 1;
    enum status st = ERR_PARSE;

    while (more) {
        zmq_msg_init(&msg);
        if (zmq_msg_recv(&msg, zsock_raw(l->z), ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&msg);
            return false;
        }
        more = zmq_msg_more(&msg);
        if (++n_frames == 1 && !more)
            st = codec_unpack(l->all->arena, &baton__control__control_message__descriptor,
                              bytes_of(zmq_msg_data(&msg), zmq_msg_size(&msg)), &base, &err);
        zmq_msg_close(&msg);
    }
    if (st == OK)
        on_message(l, (const Baton__Control__ControlMessage *)base);
    else
        log_warn_limited("control_garbage", "from=%s frames=%d", l->endpoint, n_frames);
    return true;
}

static void on_readable(void *ctx, struct zsock *z)
{
    struct link *l = ctx;
    for (int i = 0; i < MESSAGES_AT_ONCE && l->z == z; i++)
        if (!receive(l)) return;
}

static void tick_link(struct link *l, uint64_t now)
{
    if (l->incarnation && now - l->heard_ms > l->dead_after_ms) {
        lose(l, "no heartbeat is acknowledged");
        reconnect(l);
    }
    if (l->incarnation) {
        /* half a tick early rather than late */
        if (now - l->spoke_ms + TICK_MS / 2 >= l->heartbeat_ms) send_heartbeat(l);
        return;
    }
    if (now - l->spoke_ms + TICK_MS / 2 >= (l->refused ? REFUSED_MS : REGISTER_MS)) send_register(l);
}

static void on_tick(uv_timer_t *t)
{
    struct links *ls = t->data;
    uint64_t now = clock_now_ms();
    for (uint32_t i = 0; i < ls->n; i++) tick_link(&ls->items[i], now);
}

static enum status add_link(struct links *ls, const char *endpoint, size_t n, struct error *err)
{
    struct link *l = &ls->items[ls->n];
    enum status st;

    if (ls->n == MAX_LINKS) return error_set(err, ERR_FULL, "more than %d coordinators are named", MAX_LINKS);
    l->all = ls;
    l->endpoint = mem_strndup(endpoint, n);
    ls->n++;
    if ((st = connect_link(l, err)) != OK) return st;
    send_register(l);
    return OK;
}

enum status links_open(struct links **out, const struct links_options *opt, struct error *err)
{
    struct links *ls = mem_zalloc(sizeof(*ls));
    enum status st;

    ls->opt = *opt;
    ls->arena = codec_arena_create(ARENA_MAX);
    for (const char *p = opt->endpoints; *p;) {
        size_t n = strcspn(p, ",");
        if (n > 0 && (st = add_link(ls, p, n, err)) != OK) goto fail;
        p += n + (p[n] == ',');
    }
    if (ls->n == 0) {
        st = error_set(err, ERR_INVALID, "no coordinator is named");
        goto fail;
    }
    ls->timer = mem_zalloc(sizeof(*ls->timer));
    uv_timer_init(opt->loop, ls->timer);
    ls->timer->data = ls;
    uv_timer_start(ls->timer, on_tick, TICK_MS, TICK_MS);
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
    if (ls->timer) uv_close((uv_handle_t *)ls->timer, on_timer_closed);
    for (uint32_t i = 0; i < ls->n; i++) {
        zsock_close(ls->items[i].z);
        mem_free(ls->items[i].endpoint);
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

    bye.reason = (char *)(uintptr_t)reason;
    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_GOODBYE;
    m.goodbye = &bye;
    for (uint32_t i = 0; i < ls->n; i++)
        if (ls->items[i].incarnation) link_send(&ls->items[i], &m);
}
