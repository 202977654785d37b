/* http_conn.c - the life of one connection: reading, timeouts, sending, closing.
 *
 * Reading never stops, so a client that closes is noticed in every state; a half-close counts as gone.
 *
 *   IDLE -> HEAD -> BODY -> BUSY -> IDLE      on_read, http_conn_process, http_conn_answered
 *   any -> FLUSH -> LINGER -> CLOSED          finish, on_written, on_timer: last answer given
 *   any -> CLOSED                             http_conn_close: client gone, stalled or server closed */
#include "http/http_internal.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/mem_later.h"

#include <assert.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#define MAX_BACKLOG          64u  /* unsent bytes, in units of max_unsent_bytes */
#define MIN_BODY_BYTES_PER_S 512u /* a slower upload gets 408 */
#define MAX_BODIES           16u  /* server->body_bytes in units of the largest body */

static void on_timer(uv_timer_t *timer);
static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf);

static void set_timer(struct http_conn *c, uint64_t ms)
{
    if (c->state != CONN_CLOSED) uv_timer_start(&c->timer, on_timer, ms, 0);
}

static uint32_t patience(const struct http_conn *c)
{
    const struct http_limits *limits = &c->server->limits;
    return c->state == CONN_HEAD ? limits->header_timeout_ms : limits->idle_timeout_ms;
}

/* Waits for more of a head, or for one, in steps: connections may become short meanwhile. */
static void wait_on(struct http_conn *c)
{
    uint64_t waited = uv_now(c->server->loop) - c->waits_since, left = patience(c);
    left = left > waited ? left - waited : 0;
    set_timer(c, left < HTTP_SHORT_MS ? left : HTTP_SHORT_MS);
}

/* Whether it has waited for as long as it may. */
static bool waited_enough(const struct http_conn *c)
{
    uint64_t waited = uv_now(c->server->loop) - c->waits_since;
    return waited >= patience(c) || (waited >= HTTP_SHORT_MS && http_seat_is_short(c->server));
}

static void set_state(struct http_conn *c, enum conn_state state)
{
    const struct http_limits *limits = &c->server->limits;
    if (c->state == CONN_CLOSED) return;
    c->state = state;
    switch (state) {
    case CONN_IDLE:
    case CONN_HEAD:
        c->waits_since = uv_now(c->server->loop);
        wait_on(c);
        break;
    case CONN_BODY:
        c->body_mark = 0;
        set_timer(c, limits->header_timeout_ms);
        break;
    case CONN_BUSY:
    case CONN_FLUSH:
        c->stall_armed = false;
        set_timer(c, HTTP_STALL_MS);
        break;
    case CONN_LINGER: set_timer(c, HTTP_LINGER_MS); break;
    case CONN_CLOSED: break;
    }
}

static void free_flying(struct http_conn *c)
{
    mem_free(c->flying_body ? c->flying : NULL);
    mem_free_later(c->flying_body ? c->flying_body : c->flying, c->flying_bytes);
    c->flying = c->flying_body = NULL;
}

static void unlink_conn(struct http_conn *c)
{
    struct http_server *s = c->server;
    if (c->prev) {
        c->prev->next = c->next;
    } else {
        s->conns = c->next;
    }
    if (c->next) c->next->prev = c->prev;
    s->n_conns--;
}

static void on_closed(uv_handle_t *handle)
{
    struct http_conn *c = handle->data;
    if (--c->open_handles > 0) return;
    struct http_server *s = c->server;
    if (c->x) http_exchange_lost(c->x);
    unlink_conn(c);
    strbuf_fini(&c->in);
    strbuf_fini(&c->out);
    free_flying(c);
    mem_free(c->proxy);
    mem_free(c);
    http_server_free_if_last(s);
}

void http_conn_close(struct http_conn *c)
{
    if (c->state == CONN_CLOSED) return;
    c->state = CONN_CLOSED;
    http_seat_give(c);
    uv_close(&c->u.handle, on_closed);
    uv_close((uv_handle_t *)&c->timer, on_closed);
}

/* The client is gone and the loop says so: an owner hears of it before anything else happens. */
static void client_gone(struct http_conn *c)
{
    struct http_exchange *x = c->x;
    http_conn_close(c);
    c->x = NULL;
    if (x) http_exchange_lost(x);
}

static void on_shutdown(uv_shutdown_t *req, int status)
{
    struct http_conn *c = req->handle->data;
    if (status < 0) http_conn_close(c);
}

/* All of the last answer is sent.  Closing at once could reset the connection under bytes that the client has
 * not read yet, so it gets FIN first and time to close by itself. */
static void linger(struct http_conn *c)
{
    if (c->abort_after_flush || uv_shutdown(&c->shutdown_req, &c->u.stream, on_shutdown) != 0) {
        http_conn_close(c);
        return;
    }
    set_state(c, CONN_LINGER);
}

/* No more requests are read here: sends what is left, then ends the connection. */
static void finish(struct http_conn *c)
{
    if (c->state == CONN_CLOSED || c->state == CONN_LINGER) return;
    strbuf_fini(&c->in);
    set_state(c, CONN_FLUSH);
    http_conn_flush(c);
    if (c->state == CONN_FLUSH && http_conn_unsent(c) == 0) linger(c);
}

size_t http_conn_unsent(const struct http_conn *c)
{
    return c->out.n + uv_stream_get_write_queue_size(&c->u.stream);
}

static void on_written(uv_write_t *req, int status)
{
    struct http_conn *c = req->handle->data;
    free_flying(c);
    c->sent_bytes += c->flying_bytes;
    c->flying_bytes = 0;
    if (c->state == CONN_CLOSED) return;
    if (status < 0) {
        client_gone(c);
        return;
    }
    http_conn_flush(c);
    if (c->state == CONN_FLUSH && http_conn_unsent(c) == 0) linger(c);
}

void http_conn_flush(struct http_conn *c)
{
    uint64_t most = (uint64_t)MAX_BACKLOG * c->server->limits.max_unsent_bytes;
    if (c->state == CONN_CLOSED || c->out.n == 0) return;
    if (c->out.overflowed || (c->flying && c->out.n > most)) {
        http_conn_close(c);
        return;
    }
    if (c->flying) return;
    uv_buf_t buf = uv_buf_init(c->out.s, (unsigned)c->out.n);
    int sent = uv_try_write(&c->u.stream, &buf, 1);
    if (sent < 0 && sent != UV_EAGAIN) {
        http_conn_close(c);
        return;
    }
    if (sent > 0) {
        c->sent_bytes += (uint64_t)sent;
        strbuf_drop(&c->out, (size_t)sent);
    }
    if (c->out.n == 0) return;
    c->flying = strbuf_take(&c->out, &c->flying_bytes);
    buf = uv_buf_init(c->flying, (unsigned)c->flying_bytes);
    if (uv_write(&c->write_req, &c->u.stream, &buf, 1, on_written) != 0) http_conn_close(c);
}

void http_conn_send_body(struct http_conn *c, char *body, size_t n)
{
    uv_buf_t bufs[2];
    size_t n_head;
    if (c->state == CONN_CLOSED) {
        mem_free_later(body, n);
        return;
    }
    assert(!c->flying && c->out.n > 0);
    c->flying = strbuf_take(&c->out, &n_head);
    c->flying_body = body;
    c->flying_bytes = n_head + n;
    bufs[0] = uv_buf_init(c->flying, (unsigned)n_head);
    bufs[1] = uv_buf_init(body, (unsigned)n);
    if (uv_write(&c->write_req, &c->u.stream, bufs, 2, on_written) != 0) http_conn_close(c);
}

void http_conn_answered(struct http_conn *c)
{
    bool go_on = c->x->keep_alive && !c->server->closing;
    http_exchange_free(c->x);
    c->x = NULL;
    http_conn_flush(c);
    if (c->state == CONN_CLOSED) return;
    if (!go_on || c->abort_after_flush) {
        finish(c);
        return;
    }
    set_state(c, CONN_IDLE);
    /* The next request of a pipeline is read from the timer, not from inside the handler's call. */
    if (c->in.n > 0 && !c->processing) set_timer(c, 0);
}

static struct http_exchange *exchange_new(struct http_conn *c)
{
    struct http_exchange *x = mem_zalloc(sizeof(*x));
    const struct http_limits *limits = &c->server->limits;
    x->conn = c;
    http_request_init(&x->req, limits->max_header_bytes, limits->max_body_bytes);
    strbuf_init(&x->headers, 64u << 10);
    return x;
}

/* The server answers by itself: the handler never sees this request. */
static void refuse(struct http_conn *c, int status, const char *text)
{
    struct http_server *s = c->server;
    if (!c->x) c->x = exchange_new(c);
    if (s->refused) s->refused(s->ctx, c->x, status);
    http_add_error(c->x, status, text);
    http_exchange_free(c->x);
    c->x = NULL;
    finish(c);
}

/* Keeps the server's sum of body bytes up to date; false when all bodies together are too many. */
static bool count_body(struct http_conn *c)
{
    struct http_server *s = c->server;
    struct http_exchange *x = c->x;
    s->body_bytes += x->req.body.n - x->body_counted;
    x->body_counted = x->req.body.n;
    return s->body_bytes <= (uint64_t)MAX_BODIES * s->limits.max_body_bytes;
}

static void deliver(struct http_conn *c)
{
    struct http_exchange *x = c->x;
    x->keep_alive = x->req.keep_alive && c->seat != SEAT_RESERVE;
    x->delivered = true;
    set_state(c, CONN_BUSY);
    c->server->handler(c->server->ctx, x);
}

/* A connection of the reserve asks for what the reserve is there for, without a body. */
static bool may_stay(struct http_conn *c, enum http_feed got)
{
    const struct http_request *req = &c->x->req;
    if (c->seat != SEAT_RESERVE || !req->has_target) return true;
    if (got != HTTP_FEED_HEAD && http_seat_is_reserved_path(c->server, http_request_path(req))) return true;
    if (c->listener->reserved)
        refuse(c, 404, "only probes and metrics are answered at this address");
    else if (c->is_crowd)
        refuse(c, 429, "too many connections of this address");
    else
        refuse(c, 503, "too many connections");
    return false;
}

/* The client sees noise at best: what is wrong stands in the log. */
static void log_tls(const struct http_conn *c)
{
    char client[INET6_ADDRSTRLEN];
    log_warn_limited("tls_refused", "address=%s client=%s reason=%s", log_quote(c->listener->name),
                     c->listener->is_unix ? "local" : http_address_text(&c->address, client),
                     log_quote(c->x->req.fail_text));
}

/* Feeds raw bytes to the request being read until it is complete or the bytes are used up. */
static size_t read_request(struct http_conn *c, const char *data, size_t n)
{
    size_t used;
    if (!c->x) {
        c->x = exchange_new(c);
        set_state(c, CONN_HEAD);
    }
    bool had_head = c->x->req.head_done;
    enum http_feed got = http_request_feed(&c->x->req, data, n, &used);
    if (got != HTTP_FEED_FAIL && !may_stay(c, got)) return n;
    if (!had_head && c->x->req.head_done && got != HTTP_FEED_FAIL && !http_seat_forwarded(c->x)) {
        refuse(c, 429, "too many connections of this client");
        return n;
    }
    if (got != HTTP_FEED_FAIL && !count_body(c)) {
        refuse(c, 503, "too many request bodies at once");
        return n;
    }
    switch (got) {
    case HTTP_FEED_MORE: break;
    case HTTP_FEED_HEAD:
        set_state(c, CONN_BODY);
        if (c->x->req.expects_continue && used == n) {
            strbuf_puts(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
            http_conn_flush(c);
        }
        break;
    case HTTP_FEED_DONE: deliver(c); break;
    case HTTP_FEED_FAIL:
        if (c->x->req.is_tls) log_tls(c);
        refuse(c, c->x->req.fail_status, c->x->req.fail_text);
        return n;
    }
    return used;
}

static bool can_read(const struct http_conn *c)
{
    return c->state == CONN_IDLE || c->state == CONN_HEAD || c->state == CONN_BODY;
}

/* Returns how many of the bytes are dealt with: all of them once the connection is past reading. */
static size_t process(struct http_conn *c, const char *data, size_t n)
{
    size_t done = 0;
    assert(!c->processing);
    c->processing = true;
    while (done < n && can_read(c)) done += read_request(c, data + done, n - done);
    c->processing = false;
    return c->state == CONN_BUSY ? done : n;
}

static void process_pipeline(struct http_conn *c)
{
    struct strbuf in = c->in; /* finish() may free c->in while these bytes are read */
    strbuf_init(&c->in, HTTP_MAX_PIPELINE);
    size_t done = process(c, in.s, in.n);
    if (done < in.n) strbuf_add(&c->in, in.s + done, in.n - done);
    strbuf_fini(&in);
}

/* The PROXY header that a trusted proxy may begin with.  Returns the bytes that belong to it; false in c->past_proxy:
 * more are to come. */
static size_t take_proxy(struct http_conn *c, const char *data, size_t n)
{
    struct http_address client;
    size_t have = c->proxy_bytes, used = 0, more = HTTP_PROXY_V2_MAX - have < n ? HTTP_PROXY_V2_MAX - have : n;
    if (have == 0 && data[0] != '\r') { /* no PROXY header begins so */
        c->past_proxy = true;
        return 0;
    }
    if (!c->proxy) c->proxy = mem_alloc(HTTP_PROXY_V2_MAX);
    memcpy(c->proxy + have, data, more);
    c->proxy_bytes += more;
    enum http_proxy got = http_proxy_read((const uint8_t *)c->proxy, c->proxy_bytes, &client, &used);
    if (got == HTTP_PROXY_MORE) return more;
    c->past_proxy = true;
    if (got == HTTP_PROXY_LOCAL || (got == HTTP_PROXY_CLIENT && http_seat_proxied(c, &client))) return used - have;
    if (got == HTTP_PROXY_NONE) { /* what was held back is the beginning of a request */
        process(c, c->proxy, have);
        return 0;
    }
    if (got == HTTP_PROXY_BAD)
        refuse(c, 400, "not a valid PROXY header of version 2");
    else
        refuse(c, 429, "too many connections of this client");
    return n;
}

static void take_bytes(struct http_conn *c, const char *data, size_t n)
{
    size_t done = 0;
    if (!c->past_proxy && c->is_front) {
        size_t used = take_proxy(c, data, n);
        data += used;
        n -= used;
    }
    if (c->in.n > 0 && can_read(c)) process_pipeline(c); /* older bytes first */
    if (c->in.n == 0 && can_read(c)) done = process(c, data, n);
    if (c->state > CONN_BUSY) return; /* read only to notice the end */
    if (done < n) strbuf_add(&c->in, data + done, n - done);
    if (c->in.overflowed && c->x) {
        /* Too long a pipeline: the answer under way is the last one here. */
        c->x->keep_alive = false;
        strbuf_fini(&c->in);
    }
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct http_conn *c = stream->data;
    if (n > 0 && c->state != CONN_CLOSED) take_bytes(c, buf->base, (size_t)n);
    if (n >= 0 || c->state == CONN_CLOSED) return;
    if (n == UV_EOF && !c->x && http_conn_unsent(c) > 0) {
        /* Every request is answered; a client that shut down its side may still be reading. */
        c->abort_after_flush = true;
        finish(c);
        return;
    }
    client_gone(c);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    /* libuv reads into it and hands it back before it asks again, so connections share one. */
    struct http_conn *c = handle->data;
    *buf = uv_buf_init(c->server->read_buffer, HTTP_READ_BYTES);
}

static void check_stall(struct http_conn *c)
{
    size_t left = uv_stream_get_write_queue_size(&c->u.stream);
    uint64_t sent = c->sent_bytes + c->flying_bytes - left;
    if (c->stall_armed && sent == c->sent_mark) {
        client_gone(c);
        return;
    }
    c->stall_armed = left > 0;
    c->sent_mark = sent;
    set_timer(c, HTTP_STALL_MS);
}

static void check_upload(struct http_conn *c)
{
    uint64_t now = c->x->req.body_raw_bytes, ms = c->server->limits.header_timeout_ms;
    if ((now - c->body_mark) * 1000 < ms * MIN_BODY_BYTES_PER_S) {
        refuse(c, 408, "the request's body did not arrive in time");
        return;
    }
    c->body_mark = now;
    set_timer(c, ms);
}

static void on_timer(uv_timer_t *timer)
{
    struct http_conn *c = timer->data;
    switch (c->state) {
    case CONN_IDLE:
        if (c->in.n > 0) {
            process_pipeline(c);
        } else if (waited_enough(c)) {
            finish(c);
        } else {
            wait_on(c);
        }
        break;
    case CONN_HEAD:
        if (waited_enough(c))
            refuse(c, 408, "the request's head did not arrive in time");
        else
            wait_on(c);
        break;
    case CONN_BODY: check_upload(c); break;
    case CONN_BUSY:
    case CONN_FLUSH: check_stall(c); break;
    case CONN_LINGER: http_conn_close(c); break;
    case CONN_CLOSED: break;
    }
}

static void set_socket_options(struct http_conn *c)
{
    int fd;
    unsigned timeout_ms = HTTP_STALL_MS;
    if (c->listener->is_unix) return;
    uv_tcp_nodelay(&c->u.tcp, 1);
    uv_tcp_keepalive(&c->u.tcp, 1, 60);
    if (uv_fileno(&c->u.handle, &fd) != 0) return;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
}

static struct http_conn *conn_new(struct http_listener *l)
{
    struct http_server *s = l->server;
    struct http_conn *c = mem_zalloc(sizeof(*c));
    c->server = s;
    c->listener = l;
    strbuf_init(&c->in, HTTP_MAX_PIPELINE);
    int e = l->is_unix ? uv_pipe_init(s->loop, &c->u.pipe, 0) : uv_tcp_init(s->loop, &c->u.tcp);
    assert(e == 0); /* it opens no socket yet and cannot fail */
    uv_timer_init(s->loop, &c->timer);
    c->u.handle.data = c->timer.data = c;
    c->open_handles = 2;
    c->next = s->conns;
    if (s->conns) s->conns->prev = c;
    s->conns = c;
    s->n_conns++;
    return c;
}

void http_conn_accept(struct http_listener *l)
{
    struct http_conn *c = conn_new(l);
    if (uv_accept(&l->u.stream, &c->u.stream) != 0) {
        http_conn_close(c);
        return;
    }
    enum http_entry entry = http_seat_take(c);
    if (entry == HTTP_ENTRY_GONE || uv_read_start(&c->u.stream, on_alloc, on_read) != 0) {
        http_conn_close(c);
        return;
    }
    set_socket_options(c);
    set_state(c, CONN_IDLE);
    if (entry == HTTP_ENTRY_REFUSED) refuse(c, 503, "too many connections");
}
