/* port_probe.h - whether a TCP port refuses connections: the one sure sign that nobody listens there.
 *
 * ZeroMQ dials on its own and does not say why it failed.  Loop thread only. */
#ifndef NODE_PORT_PROBE_H
#define NODE_PORT_PROBE_H
#include <stdbool.h>
#include <uv.h>

/* `refuses`: the host answered that nobody listens.  Anything else, an unknown name or silence, too, is false. */
typedef void (*port_probe_fn)(void *ctx, bool refuses);

struct port_probe;

/* One try at a "tcp://host:port"; NULL if it is no such endpoint.  fn is called once, unless cancelled before. */
struct port_probe *port_probe_start(uv_loop_t *loop, const char *endpoint, port_probe_fn fn, void *ctx);
void port_probe_cancel(struct port_probe *p); /* not after fn; NULL is fine */
#endif
