/* control.c - frames of the ROUTER socket to messages and back. */
#include "coordinator/control.h"

#include "base/log.h"
#include "base/mem.h"
#include "wire/codec.h"
#include "wire/zsock.h"

#include <errno.h>
#include <zmq.h>

#define MAX_UNPACKED ((size_t)256 << 20)
#define HWM          100000
#define LINGER_MS    200 /* cancels and goodbyes of a coordinator that stops */

struct control {
    struct zsock *sock;
    struct codec_arena *arena;
    char *endpoint;
    uint64_t incarnation, n_garbage;
    control_message_fn fn;
    void *ctx;
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

static void deliver(struct control *c, struct frames *f)
{
    ProtobufCMessage *m;
    struct error err;
    struct bytes body = bytes_of(zmq_msg_data(&f->body), zmq_msg_size(&f->body));
    if (f->n != 2 || codec_unpack(c->arena, &baton__control__control_message__descriptor, body, &m, &err) != OK) {
        c->n_garbage++;
        log_debug("control_garbage", "frames=%d bytes=%zu", f->n, body.n);
        return;
    }
    c->fn(c->ctx, zmq_msg_data(&f->routing), zmq_msg_size(&f->routing), (const Baton__Control__ControlMessage *)m);
}

static void on_readable(void *ctx, struct zsock *z)
{
    struct control *c = ctx;
    struct frames f;
    /* bounded, so that HTTP gets its turn while nodes talk; the socket's watch calls again */
    for (int i = 0; i < 1000; i++) {
        bool got = receive(zsock_raw(z), &f);
        if (got) deliver(c, &f);
        zmq_msg_close(&f.routing);
        zmq_msg_close(&f.body);
        if (!got) return;
    }
}

enum status control_open(struct control **out, uv_loop_t *loop, const char *endpoint, uint64_t incarnation,
                         control_message_fn fn, void *ctx, struct error *err)
{
    struct control *c = mem_zalloc(sizeof(*c));
    struct zsock_options opt = { .max_message_bytes = CODEC_CONTROL_MAX,
                                 .heartbeat_ms = 1000,
                                 .heartbeat_timeout_ms = 5000,
                                 .send_hwm = HWM,
                                 .recv_hwm = HWM };
    enum status st;
    c->incarnation = incarnation;
    c->fn = fn;
    c->ctx = ctx;
    c->arena = codec_arena_create(MAX_UNPACKED);
    if ((st = zsock_open(&c->sock, ZSOCK_ROUTER, &opt, err)) != OK) goto fail;
    if ((st = zsock_bind(c->sock, endpoint, &c->endpoint, err)) != OK) {
        error_prefix(err, "coordinator.control");
        goto fail;
    }
    if ((st = zsock_watch(c->sock, loop, on_readable, c, err)) != OK) goto fail;
    *out = c;
    return OK;
fail:
    control_close(c);
    return st;
}

void control_close(struct control *c)
{
    if (!c) return;
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

enum status control_send(struct control *c, const uint8_t *routing, size_t n_routing, uint64_t to_incarnation,
                         Baton__Control__ControlMessage *m)
{
    void *s = zsock_raw(c->sock);
    zmq_msg_t body;
    m->version = PROTOCOL_VERSION;
    m->incarnation = c->incarnation;
    m->to_incarnation = to_incarnation;
    size_t n = baton__control__control_message__get_packed_size(m);
    if (n > CODEC_CONTROL_MAX || zmq_msg_init_size(&body, n) != 0) return ERR_TOO_LARGE;
    baton__control__control_message__pack(m, zmq_msg_data(&body));
    if (zmq_send(s, routing, n_routing, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0) {
        int why = errno;
        zmq_msg_close(&body);
        return why == EAGAIN ? ERR_FULL : ERR_CLOSED;
    }
    if (zmq_msg_send(&body, s, ZMQ_DONTWAIT) >= 0) return OK;
    zmq_msg_close(&body);
    return ERR_CLOSED;
}
