/* http_answer.c - the exchange as its handler sees it: reading the request, writing the answer. */
#include "http/http_internal.h"

#include "base/json_write.h"
#include "base/mem.h"
#include "base/mem_later.h"
#include "http/http_status.h"

#include <assert.h>
#include <time.h>

const char *http_method(const struct http_exchange *x)
{
    return http_request_method(&x->req);
}

const char *http_path(const struct http_exchange *x)
{
    return http_request_path(&x->req);
}

const char *http_query(const struct http_exchange *x)
{
    return http_request_query(&x->req);
}

const char *http_header(const struct http_exchange *x, const char *name)
{
    return http_request_field(&x->req, name);
}

struct bytes http_body(const struct http_exchange *x)
{
    return bytes_of(x->req.body.s, x->req.body.n);
}

char *http_take_body(struct http_exchange *x, size_t *n)
{
    if (x->conn) x->conn->server->body_bytes -= x->body_counted;
    x->body_counted = 0;
    return strbuf_take(&x->req.body, n);
}

/* What it was counted for at its connection's server. */
static void uncount(struct http_exchange *x)
{
    if (!x->conn) return;
    x->conn->server->body_bytes -= x->body_counted;
    http_peer_give(&x->conn->server->peers, x->peer);
    x->peer = NULL;
}

void http_exchange_free(struct http_exchange *x)
{
    uncount(x);
    http_request_fini(&x->req);
    strbuf_fini(&x->headers);
    mem_free(x);
}

void http_exchange_lost(struct http_exchange *x)
{
    uncount(x);
    x->conn = NULL;
    if (!x->delivered) {
        http_exchange_free(x);
    } else if (x->on_gone) {
        x->on_gone(x->gone_ctx, x);
        http_exchange_free(x);
    }
}

void http_on_gone(struct http_exchange *x, http_gone_fn fn, void *ctx)
{
    x->on_gone = fn;
    x->gone_ctx = ctx;
    if (fn && !x->conn) {
        fn(ctx, x);
        http_exchange_free(x);
    }
}

void http_set_header(struct http_exchange *x, const char *name, const char *value)
{
    assert(!x->begun);
    strbuf_addf(&x->headers, "%s: ", name);
    for (const char *p = value; *p; p++) {
        unsigned char c = (unsigned char)*p;
        /* A value may echo what a client sent: it must not start a new line. */
        strbuf_putc(&x->headers, c < 0x20 || c == 0x7F ? ' ' : *p);
    }
    strbuf_puts(&x->headers, "\r\n");
}

static void add_start(struct strbuf *out, int status)
{
    char date[40];
    time_t now = time(NULL);
    struct tm utc;
    const struct http_status *row = http_status_find(status);
    assert(row); /* what is sent stands in the table */
    gmtime_r(&now, &utc);
    strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", &utc);
    strbuf_addf(out, "HTTP/1.1 %d %s\r\nDate: %s\r\n", status, row->reason, date);
}

void http_add_error(struct http_exchange *x, int status, const char *text)
{
    struct strbuf body = STRBUF_INIT, *out = &x->conn->out;
    strbuf_puts(&body, "{\"error\":{\"message\":");
    json_cstr(&body, text);
    strbuf_addf(&body, ",\"type\":\"%s\",\"param\":null,\"code\":null}}", http_status_find(status)->type);
    add_start(out, status);
    if (status == 503 || status == 429) strbuf_puts(out, "Retry-After: 1\r\n");
    strbuf_add(out, x->headers.s, x->headers.n);
    strbuf_addf(out, "Content-Type: application/json\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", body.n,
                strbuf_cstr(&body));
    strbuf_fini(&body);
}

/* Writes the head of x's answer up to the empty line; `length` < 0: the length is not known. */
static void add_head(struct http_exchange *x, int status, const char *content_type, int64_t length)
{
    struct strbuf *out = &x->conn->out;
    assert(!x->begun);
    x->begun = true;
    x->no_body = x->req.is_head || status == 204 || status == 304;
    if (length < 0 && x->req.is_http10 && !x->no_body) x->keep_alive = false; /* the end is the close */
    add_start(out, status);
    if (content_type) strbuf_addf(out, "Content-Type: %s\r\n", content_type);
    if (length >= 0 && status != 204 && status != 304) {
        strbuf_addf(out, "Content-Length: %lld\r\n", (long long)length);
    }
    if (length < 0 && !x->req.is_http10) {
        strbuf_puts(out, "Transfer-Encoding: chunked\r\n");
        x->chunked = !x->no_body;
    }
    if (!x->keep_alive) {
        strbuf_puts(out, "Connection: close\r\n");
    } else if (x->req.is_http10) {
        strbuf_puts(out, "Connection: keep-alive\r\n");
    }
    strbuf_add(out, x->headers.s, x->headers.n);
    strbuf_puts(out, "\r\n");
}

void http_reply(struct http_exchange *x, int status, const char *content_type, const void *body, size_t n)
{
    struct http_conn *c = x->conn;
    if (!c) {
        http_exchange_free(x);
        return;
    }
    add_head(x, status, content_type, (int64_t)n);
    if (!x->no_body && n > 0) strbuf_add(&c->out, body, n);
    http_conn_answered(c);
}

void http_reply_take(struct http_exchange *x, int status, const char *content_type, struct strbuf *body)
{
    struct http_conn *c = x->conn;
    bool small = body->n < HTTP_COPY_BYTES;
    if (small || !c || x->req.is_head || c->flying || c->out.n > 0) {
        http_reply(x, status, content_type, body->s, body->n);
        strbuf_fini_later(body);
        return;
    }
    size_t n = body->n;
    add_head(x, status, content_type, (int64_t)n);
    http_conn_send_body(c, strbuf_take(body, &n), n);
    http_conn_answered(c);
}

void http_begin(struct http_exchange *x, int status, const char *content_type)
{
    if (!x->conn) return;
    add_head(x, status, content_type, -1);
    http_conn_flush(x->conn);
}

void http_write(struct http_exchange *x, const void *p, size_t n)
{
    struct http_conn *c = x->conn;
    if (!c || n == 0) return; /* an empty chunk would end the answer */
    assert(x->begun);
    if (x->no_body) return;
    if (x->chunked) strbuf_addf(&c->out, "%zx\r\n", n);
    strbuf_add(&c->out, p, n);
    if (x->chunked) strbuf_puts(&c->out, "\r\n");
    http_conn_flush(c);
}

void http_end(struct http_exchange *x)
{
    struct http_conn *c = x->conn;
    if (!c) {
        http_exchange_free(x);
        return;
    }
    assert(x->begun);
    if (x->chunked) strbuf_puts(&c->out, "0\r\n\r\n");
    http_conn_answered(c);
}

size_t http_unsent(const struct http_exchange *x)
{
    return x->conn ? http_conn_unsent(x->conn) : 0;
}
