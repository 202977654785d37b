/* fake_node.h - a node as the coordinator sees one: a session over a DEALER that a test speaks through. */
#ifndef TESTS_COORDINATOR_FAKE_NODE_H
#define TESTS_COORDINATOR_FAKE_NODE_H
#include "base/clock.h"
#include "proto/control.pb-c.h"
#include "wire/cache_geometry.h"
#include "wire/codec.h"
#include "wire/session.h"
#include "wire/zsock.h"

#include <criterion/criterion.h>
#include <uv.h>
#include <zmq.h>

typedef Baton__Control__ControlMessage message;
#define IS(body) BATON__CONTROL__CONTROL_MESSAGE__BODY_##body

struct fake_node {
    void *socket;
    struct session s;
    bool over; /* the coordinator does not know the session */
    uint64_t incarnation, coordinator;
    const char *name;
    bool decode;
    uint32_t max_context; /* 0: the model's */
    uint32_t head_dim;    /* of its cache */
    uint32_t n_vocab;     /* of its model */
    uint32_t n_peers;     /* nodes of the other role, as it was told last */
    message *got;         /* freed by the next receive */
};

static inline void fake_flush(struct fake_node *n)
{
    struct session_frame f;
    uint8_t buf[SESSION_HEADER + 4096];
    while (session_next(&n->s, clock_now_ms(), &f)) {
        session_pack_header(&f, buf);
        if (f.body.n) memcpy(buf + SESSION_HEADER, f.body.p, f.body.n);
        cr_assert_eq(zmq_send(n->socket, buf, SESSION_HEADER + f.body.n, 0), (int)(SESSION_HEADER + f.body.n));
        session_sent(&n->s, &f, clock_now_ms());
    }
}

static inline void fake_send(struct fake_node *n, message *m)
{
    m->version = PROTOCOL_VERSION;
    m->incarnation = n->incarnation;
    m->to_incarnation = n->coordinator;
    size_t len = baton__control__control_message__get_packed_size(m);
    cr_assert_leq(len, 4096u);
    baton__control__control_message__pack(m, session_add(&n->s, len));
    fake_flush(n);
}

static inline message *fake_take(struct fake_node *n, zmq_msg_t *msg)
{
    struct session_frame f;
    uint32_t version;
    cr_assert_eq(session_parse(bytes_of(zmq_msg_data(msg), zmq_msg_size(msg)), &f, &version), OK);
    enum session_verdict v = session_receive(&n->s, &f, clock_now_ms());
    n->over |= v == SESSION_OVER;
    if (v != SESSION_DELIVER) return NULL;
    return baton__control__control_message__unpack(NULL, f.body.n, f.body.p);
}

/* The next message, while the coordinator's loop runs; NULL after `rounds` without one. */
static inline message *fake_receive(struct fake_node *n, uv_loop_t *loop, int rounds)
{
    if (n->got) baton__control__control_message__free_unpacked(n->got, NULL);
    n->got = NULL;
    for (int i = 0; i < rounds && !n->over; i++) {
        zmq_msg_t msg;
        uv_run(loop, UV_RUN_NOWAIT);
        zmq_msg_init(&msg);
        zmq_pollitem_t item = { .socket = n->socket, .events = ZMQ_POLLIN };
        zmq_poll(&item, 1, 2);
        if (zmq_msg_recv(&msg, n->socket, ZMQ_DONTWAIT) >= 0) n->got = fake_take(n, &msg);
        zmq_msg_close(&msg);
        fake_flush(n);
        if (n->got && n->got->body_case ==
                          BATON__CONTROL__CONTROL_MESSAGE__BODY_PEERS) { /* at any join: counted, not handed out */
            n->n_peers = (uint32_t)n->got->peers->n_peers;
            baton__control__control_message__free_unpacked(n->got, NULL);
            n->got = NULL;
        }
        if (n->got) return n->got;
    }
    return NULL;
}

static inline message *fake_expect(struct fake_node *n, uv_loop_t *loop, int body)
{
    message *m = fake_receive(n, loop, 2000);
    cr_assert_not_null(m, "%s: nothing came, %d expected", n->name, body);
    cr_assert_eq((int)m->body_case, body, "%s: got %d, expected %d", n->name, (int)m->body_case, body);
    return m;
}

static inline void fake_hello(struct fake_node *n, uint64_t fingerprint, uint32_t max_seqs)
{
    message m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Register hello = BATON__CONTROL__REGISTER__INIT;
    struct cache_geometry g = { .fingerprint = fingerprint };
    struct cache_geometry_message gm;
    char *lanes[] = { (char *)"tcp://127.0.0.1:1" };
    cache_geometry_set_uniform(&g, 2,
                               &(struct cache_group){ .kind = BATON__KV__CACHE_KIND__KV,
                                                      .codec = BATON__KV__CODEC__INT8,
                                                      .n_heads = 1,
                                                      .head_dim = n->head_dim,
                                                      .block_tokens = 64 });
    cache_geometry_pack(&gm, &g);
    hello.node = (char *)n->name;
    hello.role = n->decode ? BATON__CONTROL__ROLE__DECODE : BATON__CONTROL__ROLE__PREFILL;
    hello.model = (char *)"tiny";
    hello.geometry = &gm.msg;
    hello.n_kv_endpoints = 1;
    hello.kv_endpoints = lanes;
    hello.max_seqs = max_seqs;
    hello.n_blocks = 64;
    hello.n_vocab = n->n_vocab;
    hello.max_context = n->max_context;
    hello.local_prefill = (char *)"auto";
    m.body_case = IS(HELLO);
    m.hello = &hello;
    fake_send(n, &m);
}

static inline struct fake_node fake_open(const char *endpoint, const char *name, uint64_t incarnation, bool decode)
{
    static uint64_t session;
    struct fake_node n = { .incarnation = incarnation, .name = name, .decode = decode, .head_dim = 16, .n_vocab = 8 };
    int linger = 0;
    session_init(&n.s, true, 0xFA4E0000u + ++session, 1 << 20, clock_now_ms());
    session_dial(&n.s, clock_now_ms());
    n.socket = zmq_socket(zsock_context(), ZMQ_DEALER);
    zmq_setsockopt(n.socket, ZMQ_LINGER, &linger, sizeof(linger));
    cr_assert_eq(zmq_connect(n.socket, endpoint), 0);
    return n;
}

static inline void fake_close(struct fake_node *n)
{
    if (n->got) baton__control__control_message__free_unpacked(n->got, NULL);
    session_fini(&n->s);
    zmq_close(n->socket);
    *n = (struct fake_node){ 0 };
}
#endif
