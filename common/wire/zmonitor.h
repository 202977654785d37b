/* zmonitor.h - a ZeroMQ socket's connections as they come and go, told on a libuv loop.
 *
 * ZeroMQ names a descriptor, not a peer: whoever listens must find out itself whom it was. */
#ifndef WIRE_ZMONITOR_H
#define WIRE_ZMONITOR_H
#include "wire/zsock.h"

struct zmonitor;

/* `event` is one of ZMQ_EVENT_*, of those in `events`. */
typedef void (*zmonitor_fn)(void *ctx, int event);
enum status zmonitor_open(struct zmonitor **out, struct zsock *of, int events, uv_loop_t *loop, zmonitor_fn fn,
                          void *ctx, struct error *err) MUST_CHECK;
void zmonitor_close(struct zmonitor *m); /* before the socket's own close; NULL is fine */
#endif
