/* links: a node registers, keeps in touch, and notices every way in which its coordinator is lost. */
#include "node/links.h"

#include "base/mem.h"
#include "wire/codec.h"
#include "wire/zsock.h"

#include <criterion/criterion.h>
#include <string.h>
#include <zmq.h>

#define NODE 77

struct rig { /* a fake coordinator and the node's links on one loop */
    uv_loop_t loop;
    struct zsock *router;
    struct codec_arena *arena;
    uv_timer_t timer;
    char *bound;
    struct links *links;
    struct link *link;
    Baton__Control__Register hello;
    uint8_t id[255];
    size_t id_len;
    uint64_t incarnation; /* of the coordinator */
    bool mute, refuse;
    int registers, heartbeats, welcomed, lost, messages;
    int stop_at_registers, stop_at_lost, stop_at_messages, stop_at_heartbeats;
    uint32_t dead_after_ms;
};

static void reply(struct rig *r, Baton__Control__ControlMessage *m)
{
    uint8_t buf[1024];
    m->version = PROTOCOL_VERSION;
    m->incarnation = r->incarnation;
    if (!m->to_incarnation) m->to_incarnation = NODE;
    zmq_send(zsock_raw(r->router), r->id, r->id_len, ZMQ_SNDMORE);
    zmq_send(zsock_raw(r->router), buf, baton__control__control_message__pack(m, buf), 0);
}

static void welcome(struct rig *r)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Welcome w = BATON__CONTROL__WELCOME__INIT;
    w.heartbeat_ms = 250;
    w.dead_after_ms = r->dead_after_ms;
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
        else if (!r->mute)
            welcome(r);
        return;
    }
    cr_assert_eq(m->body_case, BATON__CONTROL__CONTROL_MESSAGE__BODY_HEARTBEAT);
    if (++r->heartbeats == r->stop_at_heartbeats) uv_stop(&r->loop);
    if (r->mute) return;
    out.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_HEARTBEAT_ACK;
    out.heartbeat_ack = &ack;
    reply(r, &out);
}

static void on_router(void *ctx, struct zsock *z)
{
    struct rig *r = ctx;
    uint8_t body[4096];
    int n;

    while ((n = zmq_recv(zsock_raw(z), r->id, sizeof(r->id), ZMQ_DONTWAIT)) >= 0) {
        ProtobufCMessage *m;
        r->id_len = (size_t)n;
        n = zmq_recv(zsock_raw(z), body, sizeof(body), 0);
        cr_assert_eq(
            codec_unpack(r->arena, &baton__control__control_message__descriptor, bytes_of(body, (size_t)n), &m, NULL),
            OK);
        on_frame(r, (const Baton__Control__ControlMessage *)m);
    }
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

static void on_lost(void *ctx, struct link *l)
{
    struct rig *r = ctx;
    cr_assert_neq(link_incarnation(l), 0);
    if (++r->lost == r->stop_at_lost) uv_stop(&r->loop);
}

static void on_timeout(uv_timer_t *t)
{
    (void)t;
    cr_assert(false, "the loop did not end in time");
}

static void start(struct rig *r, uint32_t dead_after_ms)
{
    const struct zsock_options opt = { .max_message_bytes = 1 << 20 };

    r->incarnation = 1000;
    r->dead_after_ms = dead_after_ms;
    uv_loop_init(&r->loop);
    uv_timer_init(&r->loop, &r->timer);
    uv_timer_start(&r->timer, on_timeout, 20000, 0);
    r->arena = codec_arena_create(1 << 20);
    cr_assert_eq(zsock_open(&r->router, ZSOCK_ROUTER, &opt, NULL), OK);
    cr_assert_eq(zsock_bind(r->router, "tcp://127.0.0.1:0", &r->bound, NULL), OK);
    cr_assert_eq(zsock_watch(r->router, &r->loop, on_router, r, NULL), OK);
    baton__control__register__init(&r->hello);
    r->hello.node = (char *)(uintptr_t) "n0";
    const struct links_options lo = { &r->loop, r->bound, NODE, &r->hello, fill, on_welcome, on_message, on_lost, r };
    cr_assert_eq(links_open(&r->links, &lo, NULL), OK);
}

static void stop(struct rig *r)
{
    links_close(r->links);
    zsock_close(r->router);
    uv_close((uv_handle_t *)&r->timer, NULL);
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

Test(links, loses_a_silent_coordinator_and_registers_anew)
{
    struct rig r = { .stop_at_heartbeats = 2, .stop_at_lost = 1 };
    start(&r, 600);
    run(&r);
    r.mute = true;
    run(&r);
    cr_assert_eq(r.lost, 1);
    cr_assert_not(links_any_up(r.links));
    r.mute = false;
    r.stop_at_heartbeats = r.heartbeats + 1;
    run(&r);
    cr_assert_eq(r.welcomed, 2);
    stop(&r);
}

Test(links, loses_everything_when_another_process_answers)
{
    struct rig r = { .stop_at_heartbeats = 1, .stop_at_lost = 1 };
    start(&r, 5000);
    run(&r);
    r.incarnation = 2000;
    welcome(&r);
    run(&r);
    cr_assert_eq(r.lost, 1);
    r.stop_at_heartbeats = r.heartbeats + 1;
    run(&r);
    cr_assert_eq(link_incarnation(r.link), 2000);
    stop(&r);
}

Test(links, registers_at_once_when_it_is_not_known_any_more)
{
    struct rig r = { .stop_at_heartbeats = 1, .stop_at_registers = 2 };
    start(&r, 5000);
    run(&r);
    refuse(&r, ERR_STALE, "who are you?");
    run(&r);
    cr_assert_eq(r.lost, 1);
    cr_assert_eq(r.registers, 2);
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
