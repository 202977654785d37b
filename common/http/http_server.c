/* http_server.c - the listening socket and the server's end. */
#include "http/http_server.h"

#include "base/mem.h"
#include "http/http_internal.h"

#include <netdb.h>
#include <string.h>

#define BACKLOG 511

/* "host:port" or "[v6]:port" to a socket address. */
static enum status resolve(const char *address, struct sockaddr_storage *out, struct error *err)
{
    char host[256];
    const char *colon = strrchr(address, ':');
    size_t n = colon ? (size_t)(colon - address) : 0;
    if (n >= 2 && address[0] == '[' && address[n - 1] == ']') {
        address++;
        n -= 2;
    }
    if (!colon || n == 0 || n >= sizeof(host)) {
        return error_set(err, ERR_INVALID, "%s: an HTTP address is host:port", address);
    }
    memcpy(host, address, n);
    host[n] = '\0';
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV };
    struct addrinfo *list = NULL;
    int e = getaddrinfo(host, colon + 1, &hints, &list);
    if (e != 0) return error_set(err, ERR_INVALID, "%s: %s", address, gai_strerror(e));
    memcpy(out, list->ai_addr, list->ai_addrlen);
    freeaddrinfo(list);
    return OK;
}

void http_server_free_if_last(struct http_server *s)
{
    if (!s->closing || s->listening || s->n_conns > 0) return;
    mem_free(s->read_buffer);
    mem_free(s);
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct http_server *s = listener->data;
    if (status == 0 && !s->closing) http_conn_accept(s);
}

static void on_listener_closed(uv_handle_t *handle)
{
    struct http_server *s = handle->data;
    s->listening = false;
    http_server_free_if_last(s);
}

static uint16_t bound_port(const uv_tcp_t *listener)
{
    struct sockaddr_storage name;
    int len = sizeof(name);
    if (uv_tcp_getsockname(listener, (struct sockaddr *)&name, &len) != 0) return 0;
    return ntohs(name.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&name)->sin6_port
                                            : ((struct sockaddr_in *)&name)->sin_port);
}

enum status http_server_open(struct http_server **out, uv_loop_t *loop, const char *address,
                             const struct http_limits *limits, http_handler_fn handler, void *ctx, struct error *err)
{
    struct sockaddr_storage addr;
    enum status st = resolve(address, &addr, err);
    if (st != OK) return st;
    struct http_server *s = mem_zalloc(sizeof(*s));
    s->loop = loop;
    s->limits = *limits;
    s->handler = handler;
    s->ctx = ctx;
    s->read_buffer = mem_alloc(HTTP_READ_BYTES);
    int e = uv_tcp_init(loop, &s->listener);
    if (e != 0) {
        s->closing = true;
        http_server_free_if_last(s);
        return error_set(err, ERR_IO, "%s: %s", address, uv_strerror(e));
    }
    s->listener.data = s;
    s->listening = true;
    if ((e = uv_tcp_bind(&s->listener, (struct sockaddr *)&addr, 0)) != 0 ||
        (e = uv_listen((uv_stream_t *)&s->listener, BACKLOG, on_connection)) != 0) {
        http_server_close(s);
        return error_set(err, ERR_IO, "cannot listen on %s: %s", address, uv_strerror(e));
    }
    s->port = bound_port(&s->listener);
    *out = s;
    return OK;
}

void http_server_on_refused(struct http_server *s, http_refused_fn fn)
{
    s->refused = fn;
}

static void stop_listening(struct http_server *s)
{
    uv_handle_t *listener = (uv_handle_t *)&s->listener;
    if (s->listening && !uv_is_closing(listener)) uv_close(listener, on_listener_closed);
}

void http_server_close(struct http_server *s)
{
    if (!s || s->closing) return;
    s->closing = true;
    stop_listening(s);
    for (struct http_conn *c = s->conns; c; c = c->next) http_conn_close(c);
    /* Connections stay in the list until the loop has closed them, so on_gone may call back into here. */
    for (struct http_conn *c = s->conns; c; c = c->next) {
        struct http_exchange *x = c->x;
        c->x = NULL;
        if (x) http_exchange_lost(x);
    }
    http_server_free_if_last(s);
}

uint16_t http_server_port(const struct http_server *s)
{
    return s->port;
}

uint32_t http_server_connections(const struct http_server *s)
{
    return s->n_conns;
}
