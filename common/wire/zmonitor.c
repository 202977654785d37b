/* zmonitor.c - a ZeroMQ socket's connections as they come and go. */
#include "wire/zmonitor.h"

#include "base/mem.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>

#define EVENTS_AT_ONCE 64

struct zmonitor {
    struct zsock *of, *pair;
    zmonitor_fn fn;
    void *ctx;
};

/* Two frames: event (u16) and value (u32), then an address.  0: nothing is there. */
static int receive(struct zsock *pair)
{
    uint8_t head[8], address[256];
    uint16_t event;
    int more = 0;
    size_t n = sizeof(more);

    if (zmq_recv(zsock_raw(pair), head, sizeof(head), ZMQ_DONTWAIT) < (int)sizeof(event)) return 0;
    memcpy(&event, head, sizeof(event));
    while (zmq_getsockopt(zsock_raw(pair), ZMQ_RCVMORE, &more, &n) == 0 && more)
        if (zmq_recv(zsock_raw(pair), address, sizeof(address), ZMQ_DONTWAIT) < 0) break;
    return event;
}

/* One call for all that is there, the last, as the callback may close the monitor. */
static void on_readable(void *ctx, struct zsock *pair)
{
    struct zmonitor *m = ctx;
    int last = 0, event;

    for (int i = 0; i < EVENTS_AT_ONCE && (event = receive(pair)); i++) last = event;
    if (last) m->fn(m->ctx, last);
}

enum status zmonitor_open(struct zmonitor **out, struct zsock *of, int events, uv_loop_t *loop, zmonitor_fn fn,
                          void *ctx, struct error *err)
{
    static _Atomic uint64_t counter;
    const struct zsock_options opt = { .max_message_bytes = 0 };
    struct zmonitor *m = mem_zalloc(sizeof(*m));
    char name[64];
    enum status st;

    *m = (struct zmonitor){ .of = of, .fn = fn, .ctx = ctx };
    snprintf(name, sizeof(name), "inproc://monitor-%llu", (unsigned long long)atomic_fetch_add(&counter, 1));
    if (zmq_socket_monitor(zsock_raw(of), name, events) != 0) {
        st = error_set(err, ERR_IO, "cannot monitor a socket: %s", zmq_strerror(errno));
        goto fail;
    }
    if ((st = zsock_open(&m->pair, ZSOCK_PAIR, &opt, err)) != OK) goto fail;
    if ((st = zsock_connect(m->pair, name, err)) != OK) goto fail;
    if ((st = zsock_watch(m->pair, loop, on_readable, m, err)) != OK) goto fail;
    *out = m;
    return OK;
fail:
    zmonitor_close(m);
    return st;
}

void zmonitor_close(struct zmonitor *m)
{
    if (!m) return;
    zmq_socket_monitor(zsock_raw(m->of), NULL, 0);
    zsock_close(m->pair);
    mem_free(m);
}
