/* port_probe.c - whether a TCP port refuses connections. */
#include "node/port_probe.h"

#include "base/host_port.h"
#include "base/mem.h"

#include <netdb.h>
#include <stdio.h>
#include <string.h>

struct port_probe {
    uv_getaddrinfo_t name;
    uv_tcp_t tcp;
    uv_connect_t connect;
    struct addrinfo *found, *next; /* of next and those behind it nothing is known yet */
    port_probe_fn fn;              /* NULL: cancelled */
    void *ctx;
    int status;   /* of the last address */
    bool has_tcp; /* the socket is open */
    bool refused; /* by one address at least */
};

static void try_next(struct port_probe *p);

static void finish(struct port_probe *p, bool refuses)
{
    if (p->fn) p->fn(p->ctx, refuses);
    uv_freeaddrinfo(p->found);
    mem_free(p);
}

/* What this host cannot even try, such as IPv6 where it is off, says nothing about the other one. */
static bool is_untried(int status)
{
    return status == UV_EADDRNOTAVAIL || status == UV_ENETUNREACH || status == UV_EAFNOSUPPORT;
}

static void on_closed(uv_handle_t *h)
{
    struct port_probe *p = h->data;

    p->has_tcp = false;
    if (p->status == UV_ECONNREFUSED) p->refused = true;
    if (p->status != UV_ECONNREFUSED && !is_untried(p->status))
        finish(p, false);
    else
        try_next(p);
}

static void hang_up(struct port_probe *p)
{
    if (p->has_tcp && !uv_is_closing((uv_handle_t *)&p->tcp)) uv_close((uv_handle_t *)&p->tcp, on_closed);
}

static void on_connected(uv_connect_t *c, int status)
{
    struct port_probe *p = c->data;

    p->status = status;
    hang_up(p);
}

/* A name may have several addresses, of which ZeroMQ dials one: all must refuse. */
static void try_next(struct port_probe *p)
{
    const struct addrinfo *to = p->next;

    if (!to || !p->fn) {
        finish(p, p->refused);
        return;
    }
    p->next = to->ai_next;
    uv_tcp_init(p->name.loop, &p->tcp);
    p->has_tcp = true;
    p->tcp.data = p->connect.data = p;
    p->status = uv_tcp_connect(&p->connect, &p->tcp, to->ai_addr, on_connected);
    if (p->status != 0) hang_up(p);
}

static void on_name(uv_getaddrinfo_t *req, int status, struct addrinfo *found)
{
    struct port_probe *p = req->data;

    p->found = p->next = found; /* none after a failure */
    try_next(p);
}

struct port_probe *port_probe_start(uv_loop_t *loop, const char *endpoint, port_probe_fn fn, void *ctx)
{
    const struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
    struct host_port hp;
    struct port_probe *p;
    char port[8];

    if (!host_port_split(endpoint, &hp) || !hp.is_tcp) return NULL;
    snprintf(port, sizeof(port), "%u", hp.lo);
    p = mem_zalloc(sizeof(*p));
    p->fn = fn;
    p->ctx = ctx;
    p->name.data = p;
    if (uv_getaddrinfo(loop, &p->name, on_name, hp.host, port, &hints) == 0) return p;
    mem_free(p);
    return NULL;
}

void port_probe_cancel(struct port_probe *p)
{
    if (!p) return;
    p->fn = NULL;
    hang_up(p);
}
