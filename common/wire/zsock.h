/* zsock.h - one ZeroMQ socket, one thread: options that Baton always sets, bounded receive.
 *
 * LINGER 0, MAXMSGSIZE, ROUTER_MANDATORY, IPV6 where an endpoint needs it.  With a libuv loop the fd is watched
 * edge-triggered: the callback runs until ZMQ_EVENTS is empty, also after each send. */
#ifndef WIRE_ZSOCK_H
#define WIRE_ZSOCK_H
#include "base/error.h"

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct zsock;

enum zsock_kind { ZSOCK_ROUTER, ZSOCK_DEALER, ZSOCK_PAIR };

struct zsock_options {
    uint64_t max_message_bytes; /* MAXMSGSIZE */
    int heartbeat_ms;           /* 0 = none */
    int heartbeat_timeout_ms;
    int reconnect_ms;                         /* -1 = never */
    int send_hwm, recv_hwm;                   /* messages; 0 = ZeroMQ's default */
    int send_buffer_bytes, recv_buffer_bytes; /* kernel buffers; 0 = system default */
};

/* The process's context with `io_threads`, made on first use. */
void *zsock_context(void);
void zsock_context_term(void);

enum status zsock_open(struct zsock **out, enum zsock_kind kind, const struct zsock_options *opt,
                       struct error *err) MUST_CHECK;
void zsock_close(struct zsock *z); /* NULL is fine */
/* What was sent last may still go out for so long after the close. */
void zsock_set_linger(struct zsock *z, int ms);
/* Binds; *bound (caller frees with mem_free) is the real endpoint, with the port that was chosen. */
enum status zsock_bind(struct zsock *z, const char *endpoint, char **bound, struct error *err) MUST_CHECK;
enum status zsock_connect(struct zsock *z, const char *endpoint, struct error *err) MUST_CHECK;
void *zsock_raw(struct zsock *z); /* the ZeroMQ socket */

/* Calls fn on the loop's thread whenever something can be received; fn receives until ERR_UNAVAILABLE. */
typedef void (*zsock_fn)(void *ctx, struct zsock *z);
enum status zsock_watch(struct zsock *z, uv_loop_t *loop, zsock_fn fn, void *ctx, struct error *err) MUST_CHECK;
#endif
