/* http_server.c - the server's beginning and end. */
#include "http/http_server.h"

#include "base/mem.h"
#include "http/http_internal.h"

void http_server_free_if_last(struct http_server *s)
{
    if (!s->closing || s->n_conns > 0) return;
    for (uint32_t i = 0; i < s->n_listeners; i++)
        if (s->listeners[i].open) return;
    for (uint32_t i = 0; i < s->n_listeners; i++) mem_free(s->listeners[i].name);
    mem_free(s->read_buffer);
    mem_free(s);
}

enum status http_server_open(struct http_server **out, uv_loop_t *loop, const char *address,
                             const struct http_limits *limits, http_handler_fn handler, void *ctx, struct error *err)
{
    struct http_server *s = mem_zalloc(sizeof(*s));
    s->loop = loop;
    s->limits = *limits;
    s->handler = handler;
    s->ctx = ctx;
    s->read_buffer = mem_alloc(HTTP_READ_BYTES);
    enum status st = http_server_listen(s, address, false, err);
    if (st == OK)
        *out = s;
    else
        http_server_close(s);
    return st;
}

void http_server_on_refused(struct http_server *s, http_refused_fn fn)
{
    s->refused = fn;
}

void http_server_close(struct http_server *s)
{
    if (!s || s->closing) return;
    s->closing = true;
    for (uint32_t i = 0; i < s->n_listeners; i++) http_listener_close(&s->listeners[i]);
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
    return s->listeners[0].port;
}

const char *http_server_address(const struct http_server *s, uint32_t i)
{
    return i < s->n_listeners ? s->listeners[i].name : NULL;
}

uint32_t http_server_connections(const struct http_server *s)
{
    return s->n_conns;
}
