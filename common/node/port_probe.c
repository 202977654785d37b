/* port_probe.c - whether a TCP port refuses connections. */
#include "node/port_probe.h"

#include "base/mem.h"

#include <netdb.h>
#include <string.h>

struct port_probe {
    uv_getaddrinfo_t name;
    uv_tcp_t tcp;
    uv_connect_t connect;
    port_probe_fn fn;
    void *ctx;
    bool has_tcp;
};

static void on_closed(uv_handle_t *h)
{
    mem_free(h->data);
}

static void finish(struct port_probe *p, int status)
{
    if (p->fn) p->fn(p->ctx, status == UV_ECONNREFUSED);
    p->fn = NULL;
    if (!p->has_tcp)
        mem_free(p);
    else if (!uv_is_closing((uv_handle_t *)&p->tcp))
        uv_close((uv_handle_t *)&p->tcp, on_closed);
}

static void on_connected(uv_connect_t *c, int status)
{
    finish(c->data, status);
}

static void on_name(uv_getaddrinfo_t *req, int status, struct addrinfo *found)
{
    struct port_probe *p = req->data;

    if (status == 0 && p->fn) {
        uv_tcp_init(req->loop, &p->tcp);
        p->has_tcp = true;
        p->tcp.data = p->connect.data = p;
        status = uv_tcp_connect(&p->connect, &p->tcp, found->ai_addr, on_connected);
    } else if (status == 0) {
        status = UV_ECANCELED;
    }
    uv_freeaddrinfo(found);
    if (status != 0) finish(p, status);
}

struct port_probe *port_probe_start(uv_loop_t *loop, const char *endpoint, port_probe_fn fn, void *ctx)
{
    const struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
    const char *host = endpoint + strlen("tcp://"), *colon = strrchr(endpoint, ':');
    struct port_probe *p;
    char name[256];
    size_t n;

    if (strncmp(endpoint, "tcp://", strlen("tcp://")) != 0 || !colon || colon <= host) return NULL;
    n = (size_t)(colon - host);
    if (*host == '[' && n > 2 && colon[-1] == ']') host++, n -= 2;
    if (n >= sizeof(name)) return NULL;
    memcpy(name, host, n);
    name[n] = 0;
    p = mem_zalloc(sizeof(*p));
    p->fn = fn;
    p->ctx = ctx;
    p->name.data = p;
    if (uv_getaddrinfo(loop, &p->name, on_name, name, colon + 1, &hints) == 0) return p;
    mem_free(p);
    return NULL;
}

void port_probe_cancel(struct port_probe *p)
{
    if (!p) return;
    p->fn = NULL;
    if (p->has_tcp && !uv_is_closing((uv_handle_t *)&p->tcp)) uv_close((uv_handle_t *)&p->tcp, on_closed);
}
