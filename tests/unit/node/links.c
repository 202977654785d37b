/* links: a node registers, keeps in touch, and notices every way in which its coordinator is lost. */
#include "node/links.h"

#include "base/clock.h"
#include "base/mem.h"
#include "wire/codec.h"
#include "wire/session.h"
#include "wire/zsock.h"

#include <criterion/criterion.h>
#include <string.h>
#include <zmq.h>

#define NODE 77
#define KEPT 20000 /* bytes that a link keeps */

struct rig { /* a fake coordinator and the node's links on one loop */
    uv_loop_t loop;
    struct zsock *router;
    struct codec_arena *arena;
    uv_timer_t timer, poke;
    char *bound;
    struct links *links;
    struct link *link;
    Baton__Control__Register hello;
    uint8_t id[255];
    size_t id_len;
    uint64_t incarnation; /* of the coordinator */
    struct session s;
    bool mute;    /* takes nothing in and says nothing */
    bool amnesia; /* knows no session */
    bool refuse;
    int connections;
    uint64_t lost_incarnation;
    int registers, heartbeats, welcomed, lost, messages;
    int stop_at_registers, stop_at_lost, stop_at_messages, stop_at_heartbeats;
    uint32_t lease_ms;
    int behind, caught_up; /* how often each was told */
};

static void send_frame(struct rig *r, const struct session_frame *f)
{
    uint8_t buf[SESSION_HEADER + 1024];
    session_pack_header(f, buf);
    if (f->body.n) memcpy(buf + SESSION_HEADER, f->body.p, f->body.n);
    zmq_send(zsock_raw(r->router), r->id, r->id_len, ZMQ_SNDMORE);
    zmq_send(zsock_raw(r->router), buf, SESSION_HEADER + f->body.n, 0);
}

static void flush(struct rig *r)
{
    struct session_frame f;
    while (!r->mute && session_next(&r->s, clock_now_ms(), &f)) {
        send_frame(r, &f);
        session_sent(&r->s, &f, clock_now_ms());
    }
}

static void reply(struct rig *r, Baton__Control__ControlMessage *m)
{
    m->version = PROTOCOL_VERSION;
    m->incarnation = r->incarnation;
    if (!m->to_incarnation) m->to_incarnation = NODE;
    baton__control__control_message__pack(m, session_add(&r->s, baton__control__control_message__get_packed_size(m)));
    flush(r);
}

static void welcome(struct rig *r)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Welcome w = BATON__CONTROL__WELCOME__INIT;
    w.heartbeat_ms = 250;
    w.lease_ms = r->lease_ms;
    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_WELCOME;
    m.welcome = &w;
    reply(r, &m);
}

static void refuse(struct rig *r, enum status st, const char *text)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Refused f = BATON__CONTROL__REFUSED__INIT;
    f.status = st;
    f.message = (char *)(uintptr_t)text;
    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_REFUSED;
    m.refused = &f;
    reply(r, &m);
}

static void cancel(struct rig *r, uint64_t to)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Cancel c = BATON__CONTROL__CANCEL__INIT;
    m.to_incarnation = to;
    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_CANCEL;
    m.cancel = &c;
    reply(r, &m);
}

static void on_frame(struct rig *r, const Baton__Control__ControlMessage *m)
{
    Baton__Control__ControlMessage out = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__HeartbeatAck ack = BATON__CONTROL__HEARTBEAT_ACK__INIT;

    cr_assert_eq(m->version, PROTOCOL_VERSION);
    cr_assert_eq(m->incarnation, NODE);
    if (m->body_case == BATON__CONTROL__CONTROL_MESSAGE__BODY_HELLO) {
        cr_assert_str_eq(m->hello->node, "n0");
        if (++r->registers == r->stop_at_registers) uv_stop(&r->loop);
        if (r->refuse)
            refuse(r, ERR_MISMATCH, "another model");
        else
            welcome(r);
        return;
    }
    cr_assert_eq(m->body_case, BATON__CONTROL__CONTROL_MESSAGE__BODY_HEARTBEAT);
    if (++r->heartbeats == r->stop_at_heartbeats) uv_stop(&r->loop);
    out.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_HEARTBEAT_ACK;
    out.heartbeat_ack = &ack;
    reply(r, &out);
}

static void on_session_frame(struct rig *r, const struct session_frame *f)
{
    ProtobufCMessage *m;
    if (r->amnesia && !(f->flags & SESSION_FRESH)) {
        struct session_frame reset = { .kind = SESSION_RESET, .id = f->id, .connection = f->connection };
        send_frame(r, &reset);
        return;
    }
    if (f->id != r->s.id && f->kind == SESSION_HELLO) {
        session_fini(&r->s);
        session_init(&r->s, false, f->id, 1 << 20, clock_now_ms());
        r->amnesia = false;
    }
    if (f->kind == SESSION_HELLO) r->connections++;
    if (session_receive(&r->s, f, clock_now_ms()) == SESSION_DELIVER) {
        cr_assert_eq(codec_unpack(r->arena, &baton__control__control_message__descriptor, f->body, &m, NULL), OK);
        on_frame(r, (const Baton__Control__ControlMessage *)m);
    }
    flush(r);
}

static void on_router(void *ctx, struct zsock *z)
{
    struct rig *r = ctx;
    uint8_t body[4096], id[255];
    int n;

    while ((n = zmq_recv(zsock_raw(z), id, sizeof(id), ZMQ_DONTWAIT)) >= 0) {
        struct session_frame f;
        uint32_t version;
        size_t id_len = (size_t)n;
        n = zmq_recv(zsock_raw(z), body, sizeof(body), 0);
        if (r->mute) continue;
        memcpy(r->id, id, id_len);
        r->id_len = id_len;
        cr_assert_eq(session_parse(bytes_of(body, (size_t)n), &f, &version), OK);
        on_session_frame(r, &f);
    }
}

static void on_poke(uv_timer_t *t)
{
    struct rig *r = t->data;
    flush(r);
}

static void fill(void *ctx, Baton__Control__Heartbeat *h)
{
    (void)ctx;
    h->draining = true;
}

static void on_welcome(void *ctx, struct link *l)
{
    struct rig *r = ctx;
    r->welcomed++;
    r->link = l;
}

static void on_message(void *ctx, struct link *l, const Baton__Control__ControlMessage *m)
{
    struct rig *r = ctx;
    cr_assert_eq(m->body_case, BATON__CONTROL__CONTROL_MESSAGE__BODY_CANCEL);
    cr_assert_eq(link_incarnation(l), r->incarnation);
    if (++r->messages == r->stop_at_messages) uv_stop(&r->loop);
}

static void on_lost(void *ctx, uint64_t incarnation)
{
    struct rig *r = ctx;
    cr_assert_neq(incarnation, 0);
    r->lost_incarnation = incarnation;
    if (++r->lost == r->stop_at_lost) uv_stop(&r->loop);
}

static void on_behind(void *ctx, uint64_t incarnation, bool behind)
{
    struct rig *r = ctx;
    cr_assert_eq(incarnation, 1000);
    if (behind)
        r->behind++;
    else
        r->caught_up++;
}

static void on_timeout(uv_timer_t *t)
{
    (void)t;
    cr_assert(false, "the loop did not end in time");
}

static void start(struct rig *r, uint32_t lease_ms)
{
    const struct zsock_options opt = { .max_message_bytes = 1 << 20 };

    r->incarnation = 1000;
    r->lease_ms = lease_ms;
    uv_loop_init(&r->loop);
    uv_timer_init(&r->loop, &r->timer);
    uv_timer_start(&r->timer, on_timeout, 20000, 0);
    uv_timer_init(&r->loop, &r->poke);
    r->poke.data = r;
    uv_timer_start(&r->poke, on_poke, 50, 50);
    r->arena = codec_arena_create(1 << 20);
    cr_assert_eq(zsock_open(&r->router, ZSOCK_ROUTER, &opt, NULL), OK);
    cr_assert_eq(zsock_bind(r->router, "tcp://127.0.0.1:0", &r->bound, NULL), OK);
    cr_assert_eq(zsock_watch(r->router, &r->loop, on_router, r, NULL), OK);
    baton__control__register__init(&r->hello);
    r->hello.node = (char *)(uintptr_t) "n0";
    const struct links_options lo = { .loop = &r->loop,
                                      .endpoints = r->bound,
                                      .incarnation = NODE,
                                      .hello = &r->hello,
                                      .fill_heartbeat = fill,
                                      .on_welcome = on_welcome,
                                      .on_message = on_message,
                                      .on_lost = on_lost,
                                      .ctx = r,
                                      .on_behind = on_behind,
                                      .kept_bytes = KEPT };
    cr_assert_eq(links_open(&r->links, &lo, NULL), OK);
}

static void stop(struct rig *r)
{
    links_close(r->links);
    zsock_close(r->router);
    uv_close((uv_handle_t *)&r->timer, NULL);
    uv_close((uv_handle_t *)&r->poke, NULL);
    session_fini(&r->s);
    uv_run(&r->loop, UV_RUN_DEFAULT);
    cr_assert_eq(uv_loop_close(&r->loop), 0);
    codec_arena_destroy(r->arena);
    mem_free(r->bound);
    zsock_context_term();
}

static void run(struct rig *r)
{
    uv_run(&r->loop, UV_RUN_DEFAULT);
}

Test(links, beats_while_it_is_acknowledged_and_hears_only_what_is_meant_for_it)
{
    struct rig r = { .stop_at_heartbeats = 4 };
    start(&r, 5000);
    cr_assert_not(links_any_up(r.links));
    run(&r);
    cr_assert(links_any_up(r.links));
    cr_assert_eq(r.registers, 1);
    cr_assert_eq(r.welcomed, 1);
    cancel(&r, NODE + 1); /* for an older process */
    r.incarnation = 999;
    cancel(&r, NODE); /* from another coordinator */
    r.incarnation = 1000;
    cancel(&r, NODE);
    r.stop_at_messages = 1;
    run(&r);
    cr_assert_eq(r.messages, 1);
    cr_assert_eq(r.lost, 0);
    stop(&r);
}

Test(links, loses_a_silent_coordinator_after_its_lease_and_registers_anew)
{
    struct rig r = { .stop_at_heartbeats = 2, .stop_at_lost = 1 };
    start(&r, 2000);
    run(&r);
    r.mute = true;
    run(&r);
    cr_assert_eq(r.lost, 1);
    cr_assert_eq(r.lost_incarnation, 1000);
    cr_assert_not(links_any_up(r.links));
    r.mute = false;
    r.stop_at_heartbeats = r.heartbeats + 1;
    run(&r);
    cr_assert_eq(r.welcomed, 2);
    stop(&r);
}

static void on_unmute(uv_timer_t *t)
{
    struct rig *r = t->data;
    r->mute = false;
}

/* Silence shorter than the lease: another connection, the same session, and nothing is lost. */
Test(links, keeps_everything_through_a_silence_within_the_lease)
{
    struct rig r = { .stop_at_heartbeats = 1 };
    uv_timer_t timer;
    start(&r, 30000);
    run(&r);
    uint64_t session = r.s.id;
    r.mute = true;
    cancel(&r, NODE); /* said while nobody hears */
    uv_timer_init(&r.loop, &timer);
    timer.data = &r;
    uv_timer_start(&timer, on_unmute, 2500, 0);
    r.stop_at_messages = 1;
    run(&r);
    cr_assert_eq(r.messages, 1);
    cr_assert_eq(r.s.id, session);
    cr_assert_geq(r.connections, 2);
    cr_assert(r.lost == 0 && r.registers == 1 && r.welcomed == 1);
    uv_close((uv_handle_t *)&timer, NULL);
    stop(&r);
}

/* The lease is cut short, not ended: 5 s, or what is left of the lease. */
Test(links, keeps_a_coordinators_work_a_while_when_another_process_answers)
{
    struct rig r = { .stop_at_heartbeats = 1, .stop_at_lost = 1 };
    start(&r, 1500);
    run(&r);
    uint64_t now = clock_now_ms();
    r.incarnation = 2000;
    r.amnesia = true;
    run(&r);
    cr_assert_eq(r.lost, 1);
    cr_assert_eq(r.lost_incarnation, 1000);
    cr_assert_eq(link_incarnation(r.link), 2000);
    cr_assert_eq(r.welcomed, 2);
    cr_assert_geq(clock_now_ms() - now, 500ull);
    stop(&r);
}

Test(links, drops_everything_at_once_when_it_was_given_up)
{
    struct rig r = { .stop_at_heartbeats = 1, .stop_at_lost = 1 };
    start(&r, 30000);
    run(&r);
    r.amnesia = true; /* the same process does not know the session any more */
    run(&r);
    cr_assert_eq(r.lost_incarnation, 1000);
    cr_assert_eq(r.registers, 2);
    stop(&r);
}

Test(links, drops_everything_at_a_goodbye)
{
    struct rig r = { .stop_at_heartbeats = 1, .stop_at_lost = 1 };
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Goodbye g = BATON__CONTROL__GOODBYE__INIT;
    start(&r, 30000);
    run(&r);
    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_GOODBYE;
    m.goodbye = &g;
    reply(&r, &m);
    run(&r);
    cr_assert_eq(r.lost, 1);
    r.stop_at_heartbeats = r.heartbeats + 1;
    run(&r); /* and registers for the next one */
    cr_assert_eq(r.welcomed, 2);
    stop(&r);
}

/* Nobody listens there any more: the work goes after 5 s, not after the lease. */
Test(links, gives_up_early_when_the_port_refuses)
{
    struct rig r = { .stop_at_heartbeats = 1, .stop_at_lost = 1 };
    start(&r, 600000);
    run(&r);
    zsock_close(r.router);
    r.router = NULL;
    r.mute = true;
    run(&r);
    cr_assert_eq(r.lost, 1);
    stop(&r);
}

Test(links, a_damaged_frame_costs_a_connection_and_nothing_else)
{
    struct rig r = { .stop_at_heartbeats = 1 };
    start(&r, 30000);
    run(&r);
    uint8_t junk[SESSION_HEADER + 8] = { 'B', 'T', 'N', PROTOCOL_VERSION, SESSION_DATA };
    zmq_send(zsock_raw(r.router), r.id, r.id_len, ZMQ_SNDMORE);
    zmq_send(zsock_raw(r.router), junk, sizeof(junk), 0);
    cancel(&r, NODE);
    r.stop_at_messages = 1;
    run(&r);
    cr_assert_eq(r.connections, 2);
    cr_assert(r.lost == 0 && r.registers == 1);
    stop(&r);
}

Test(links, keeps_asking_slowly_when_it_is_refused)
{
    struct rig r = { .refuse = true, .stop_at_registers = 2 };
    start(&r, 5000);
    run(&r);
    cr_assert_eq(r.welcomed, 0);
    cr_assert_not(links_any_up(r.links));
    cr_assert_eq(r.registers, 2);
    stop(&r);
}

static void send_beats(struct rig *r, int n)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Heartbeat h = BATON__CONTROL__HEARTBEAT__INIT;
    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_HEARTBEAT;
    m.heartbeat = &h;
    for (int i = 0; i < n; i++) link_send(r->link, &m); /* numbered ones, unlike those of the clock */
}

/* Who makes messages is told to hold back; what must be said goes on, and nothing is given up. */
Test(links, holds_back_for_a_coordinator_that_does_not_acknowledge)
{
    struct rig r = { .stop_at_heartbeats = 1 };
    int n = 0;
    start(&r, 30000);
    run(&r);
    r.mute = true;
    for (; !r.behind && n < 1000; n++) send_beats(&r, 1);
    cr_assert(r.behind == 1 && n > 20, "after %d messages", n);
    send_beats(&r, n / 2);
    cr_assert(r.behind == 1 && r.caught_up == 0 && r.lost == 0);
    r.mute = false;
    r.stop_at_heartbeats = r.heartbeats + n + n / 2;
    run(&r); /* all of them arrive, and are acknowledged */
    for (int i = 0; i < 500 && !r.caught_up; i++) {
        r.stop_at_heartbeats = r.heartbeats + 1;
        run(&r);
    }
    cr_assert(r.behind == 1 && r.caught_up == 1 && r.lost == 0 && r.registers == 1);
    stop(&r);
}

/* Nobody waits for one that is gone. */
Test(links, goes_on_when_one_that_did_not_acknowledge_is_lost)
{
    struct rig r = { .stop_at_heartbeats = 1, .stop_at_lost = 1 };
    start(&r, 500);
    run(&r);
    r.mute = true;
    for (int n = 0; !r.behind && n < 1000; n++) send_beats(&r, 1);
    run(&r);
    cr_assert(r.lost == 1 && r.behind == 1 && r.caught_up == 1);
    stop(&r);
}
