/* http_server: real sockets on loopback against one loop: framing, bounds, clients that leave. */
#include "http/http_server.h"

#include "base/strbuf.h"
#include "http/sse.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define DEADLINE_S 20
#define HELD       8

struct rig {
    uv_loop_t loop;
    struct http_server *server;
    struct http_exchange *held[HELD]; /* requests for /hold, /stream and /bare */
    int n_held, n_gone, n_seen;
    bool closed;
};

static const struct http_limits usual = { .max_connections = 16,
                                          .max_header_bytes = 4096,
                                          .max_body_bytes = 1000,
                                          .max_unsent_bytes = 4096,
                                          .header_timeout_ms = 10000,
                                          .idle_timeout_ms = 10000 };

static void on_gone(void *ctx, struct http_exchange *x)
{
    struct rig *r = ctx;
    r->n_gone++;
    for (int i = 0; i < r->n_held; i++) {
        if (r->held[i] == x) r->held[i] = NULL;
    }
}

static void reply_echo(struct http_exchange *x)
{
    struct strbuf sb = STRBUF_INIT;
    struct bytes body = http_body(x);
    const char *name = http_header(x, "x-NAME");
    strbuf_addf(&sb, "%s %s ?%s name=%s body=", http_method(x), http_path(x), http_query(x), name ? name : "-");
    strbuf_add(&sb, body.p, body.n);
    if (name) http_set_header(x, "X-Name", name);
    http_reply(x, 200, "text/plain", sb.s, sb.n);
    strbuf_fini(&sb);
}

static void handler(void *ctx, struct http_exchange *x)
{
    struct rig *r = ctx;
    const char *path = http_path(x);
    r->n_seen++;
    if (strcmp(path, "/hold") == 0 || strcmp(path, "/stream") == 0 || strcmp(path, "/bare") == 0) {
        cr_assert(r->n_held < HELD);
        r->held[r->n_held++] = x;
        if (strcmp(path, "/bare") != 0) http_on_gone(x, on_gone, r);
        if (strcmp(path, "/stream") == 0) sse_begin(x);
    } else if (strcmp(path, "/empty") == 0) {
        http_reply(x, 204, NULL, NULL, 0);
    } else if (strcmp(path, "/inject") == 0) {
        http_set_header(x, "X-Id", "a\r\nEvil: 1");
        http_reply(x, 200, "text/plain", "ok", 2);
    } else if (strcmp(path, "/close") == 0) {
        http_server_close(r->server);
        http_reply(x, 200, "text/plain", "late", 4);
    } else {
        reply_echo(x);
    }
}

static struct rig *rig_open(const struct http_limits *limits)
{
    struct rig *r = calloc(1, sizeof(*r));
    struct error err = { 0 };
    cr_assert(uv_loop_init(&r->loop) == 0);
    enum status st = http_server_open(&r->server, &r->loop, "127.0.0.1:0", limits, handler, r, &err);
    cr_assert(st == OK, "%s", err.text);
    return r;
}

static void rig_close(struct rig *r)
{
    http_server_close(r->server);
    uv_run(&r->loop, UV_RUN_DEFAULT);
    cr_assert(uv_loop_close(&r->loop) == 0);
    free(r);
}

static int dial(struct rig *r)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(http_server_port(r->server)) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    cr_assert(connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0);
    return fd;
}

/* One turn of the loop, waiting a little for it or for fd. */
static void turn(struct rig *r, int fd)
{
    struct pollfd p[2] = { { .fd = uv_backend_fd(&r->loop), .events = POLLIN }, { .fd = fd, .events = POLLIN } };
    uv_run(&r->loop, UV_RUN_NOWAIT);
    poll(p, fd < 0 ? 1 : 2, 5);
    uv_run(&r->loop, UV_RUN_NOWAIT);
}

static void send_n(struct rig *r, int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t sent = send(fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent > 0) {
            p += sent;
            n -= (size_t)sent;
        } else if (errno == EAGAIN) {
            uv_run(&r->loop, UV_RUN_NOWAIT);
        } else {
            return; /* the server has closed: what it said is there to read */
        }
    }
}

static void send_text(struct rig *r, int fd, const char *text)
{
    send_n(r, fd, text, strlen(text));
}

/* Reads until `want` has come (NULL: until the server closes).  The text stays until the next call. */
static const char *read_until(struct rig *r, int fd, const char *want)
{
    static struct strbuf got;
    char part[65536];
    time_t end = time(NULL) + DEADLINE_S;
    strbuf_reset(&got);
    while (time(NULL) < end) {
        turn(r, fd);
        ssize_t n = recv(fd, part, sizeof(part), MSG_DONTWAIT);
        if (n > 0) strbuf_add(&got, part, (size_t)n);
        if (want && strstr(strbuf_cstr(&got), want)) return got.s;
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            cr_assert_null(want, "closed before \"%s\" came: %s", want, strbuf_cstr(&got));
            return strbuf_cstr(&got);
        }
    }
    cr_assert(false, "\"%s\" did not come: %.300s", want ? want : "close", strbuf_cstr(&got));
    return NULL;
}

#define WAIT_FOR(r, cond)                                                                                              \
    do {                                                                                                               \
        time_t end_ = time(NULL) + DEADLINE_S;                                                                         \
        while (!(cond) && time(NULL) < end_) turn(r, -1);                                                              \
        cr_assert(cond);                                                                                               \
    } while (0)

static void expect_has(const char *text, const char *want)
{
    cr_assert(strstr(text, want), "no \"%s\" in:\n%s", want, text);
}

/* Sends one raw request and expects this status, a JSON error and the end of the connection. */
static void expect_refusal(const struct http_limits *limits, const char *raw, size_t n, int status)
{
    char start[32];
    struct rig *r = rig_open(limits);
    int fd = dial(r);
    send_n(r, fd, raw, n);
    const char *got = read_until(r, fd, NULL);
    snprintf(start, sizeof(start), "HTTP/1.1 %d ", status);
    cr_assert(strncmp(got, start, strlen(start)) == 0, "want %d for %.60s, got: %s", status, raw, got);
    expect_has(got, "{\"error\":{\"message\":\"");
    expect_has(got, "\"param\":null,\"code\":null}}");
    cr_assert_eq(r->n_seen, 0);
    close(fd);
    rig_close(r);
}

Test(http_server, answers_and_keeps_the_connection)
{
    struct rig *r = rig_open(&usual);
    int fd = dial(r);
    for (int i = 0; i < 3; i++) {
        send_text(r, fd, "POST /a/b?x=1&y HTTP/1.1\r\nHost: h\r\nX-Name:  me\t \r\nContent-Length: 3\r\n\r\nabc");
        const char *got = read_until(r, fd, "body=abc");
        expect_has(got, "HTTP/1.1 200 OK\r\n");
        expect_has(got, "Content-Type: text/plain\r\nContent-Length: 33\r\nX-Name: me\r\n\r\n");
        expect_has(got, "POST /a/b ?x=1&y name=me body=abc");
    }
    cr_assert_eq(http_server_connections(r->server), 1);
    send_text(r, fd, "GET http://h:1/abs HTTP/1.1\r\nHost: h\r\nX-Name:\r\nConnection: close\r\n\r\n");
    const char *got = read_until(r, fd, NULL);
    expect_has(got, "Connection: close\r\n");
    expect_has(got, "GET /abs ? name= body=");
    close(fd);
    rig_close(r);
}

Test(http_server, bytes_may_come_one_by_one)
{
    static const char raw[] = "\r\nPOST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                              "3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: t\r\n\r\n";
    struct rig *r = rig_open(&usual);
    int fd = dial(r);
    for (size_t i = 0; i < sizeof(raw) - 1; i++) {
        send_n(r, fd, raw + i, 1);
        uv_run(&r->loop, UV_RUN_NOWAIT);
    }
    expect_has(read_until(r, fd, "body=abcde"), "POST /x ? name=- body=abcde");
    close(fd);
    rig_close(r);
}

Test(http_server, pipelined_requests_are_answered_in_order)
{
    struct rig *r = rig_open(&usual);
    int fd = dial(r);
    send_text(r, fd, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\nGET /3 HT");
    WAIT_FOR(r, r->n_held == 1);
    send_text(r, fd, "TP/1.1\r\nHost: h\r\n\r\n");
    for (int i = 0; i < 5; i++) turn(r, fd);
    cr_assert_eq(r->n_seen, 1);
    http_reply(r->held[0], 200, "text/plain", "first", 5);
    const char *got = read_until(r, fd, "GET /3");
    const char *a = strstr(got, "first"), *b = strstr(got, "GET /2"), *c = strstr(got, "GET /3");
    cr_assert(a && b && c && a < b && b < c);
    close(fd);
    rig_close(r);
}

Test(http_server, too_long_a_pipeline_ends_after_the_answer)
{
    struct rig *r = rig_open(&usual);
    int fd = dial(r);
    send_text(r, fd, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    WAIT_FOR(r, r->n_held == 1);
    for (int i = 0; i < 4000; i++) send_text(r, fd, "GET /more HTTP/1.1\r\nHost: h\r\n\r\n");
    for (int i = 0; i < 20; i++) turn(r, -1);
    http_reply(r->held[0], 200, "text/plain", "first", 5);
    expect_has(read_until(r, fd, NULL), "Connection: close");
    cr_assert_eq(r->n_seen, 1);
    close(fd);
    rig_close(r);
}

Test(http_server, waits_with_100_continue)
{
    struct rig *r = rig_open(&usual);
    int fd = dial(r);
    send_text(r, fd, "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    cr_assert_str_eq(read_until(r, fd, "\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    send_text(r, fd, "hi");
    expect_has(read_until(r, fd, "body=hi"), "200 OK");
    close(fd);
    rig_close(r);
}

#define HEAD                 "POST / HTTP/1.1\r\nHost: h\r\n"
#define REFUSED(raw, status) expect_refusal(&usual, raw, sizeof(raw) - 1, status)

Test(http_server, a_refusal_is_json_and_ends_the_connection)
{
    REFUSED(HEAD "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
    REFUSED(HEAD "Content-Length: 1001\r\nExpect: 100-continue\r\n\r\n", 413);
    REFUSED("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", 400);
}

Test(http_server, a_refused_upload_still_reads_its_answer)
{
    struct rig *r = rig_open(&usual);
    int fd = dial(r);
    char part[8192];
    memset(part, 'x', sizeof(part));
    send_text(r, fd, HEAD "Content-Length: 4000000\r\n\r\n");
    for (int i = 0; i < 400; i++) send_n(r, fd, part, sizeof(part));
    expect_has(read_until(r, fd, NULL), "HTTP/1.1 413 ");
    close(fd);
    rig_close(r);
}

Test(http_server, answers_without_body_have_none)
{
    struct rig *r = rig_open(&usual);
    int fd = dial(r);
    send_text(r, fd,
              "HEAD /x HTTP/1.1\r\nHost: h\r\n\r\nGET /empty HTTP/1.1\r\nHost: h\r\n\r\n"
              "HEAD /stream HTTP/1.1\r\nHost: h\r\n\r\n");
    const char *got = read_until(r, fd, "event-stream");
    expect_has(got, "Content-Length: 22\r\n\r\nHTTP/1.1 204 No Content\r\n");
    cr_assert_null(strstr(strstr(got, " 204 "), "Content-Length"));
    WAIT_FOR(r, r->n_held == 1);
    sse_data(r->held[0], "x", 1);
    sse_done(r->held[0]);
    send_text(r, fd, "GET /last HTTP/1.1\r\nHost: h\r\n\r\n");
    cr_assert(strncmp(read_until(r, fd, "GET /last"), "HTTP/1.1 200", 12) == 0);
    close(fd);
    rig_close(r);
}

Test(http_server, streams_are_chunked_and_framed)
{
    struct rig *r = rig_open(&usual);
    int fd = dial(r);
    send_text(r, fd, "GET /stream HTTP/1.1\r\nHost: h\r\n\r\n");
    const char *got = read_until(r, fd, "\r\n\r\n");
    expect_has(got, "Content-Type: text/event-stream\r\n");
    expect_has(got, "Transfer-Encoding: chunked\r\n");
    expect_has(got, "Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n");
    sse_data(r->held[0], "{\"a\":1}", 7);
    cr_assert_str_eq(read_until(r, fd, "\n\n\r\n"), "f\r\ndata: {\"a\":1}\n\n\r\n");
    sse_ping(r->held[0]);
    http_write(r->held[0], "", 0);
    sse_done(r->held[0]);
    cr_assert_str_eq(read_until(r, fd, "\r\n0\r\n\r\n"), "3\r\n:\n\n\r\ne\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
    send_text(r, fd, "GET /next HTTP/1.1\r\nHost: h\r\n\r\n");
    read_until(r, fd, "GET /next");
    cr_assert_eq(r->n_gone, 0);
    close(fd);
    rig_close(r);
}

Test(http_server, speaks_http_1_0)
{
    struct rig *r = rig_open(&usual);
    int fd = dial(r);
    send_text(r, fd, "GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    expect_has(read_until(r, fd, "body="), "Connection: keep-alive\r\n");
    send_text(r, fd, "GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    WAIT_FOR(r, r->n_held == 1);
    sse_done(r->held[0]);
    const char *got = read_until(r, fd, NULL);
    expect_has(got, "Connection: close\r\n");
    expect_has(got, "\r\n\r\ndata: [DONE]\n\n");
    cr_assert_null(strstr(got, "chunked"));
    close(fd);
    rig_close(r);
}

static void leave(int fd, int how)
{
    if (how == 0) {
        close(fd);
    } else if (how == 1) {
        shutdown(fd, SHUT_WR);
    } else {
        struct linger now = { .l_onoff = 1, .l_linger = 0 };
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        close(fd);
    }
}

Test(http_server, a_client_that_leaves_is_noticed_in_every_state)
{
    static const char *const paths[] = { "/hold", "/stream" };
    for (int how = 0; how < 3; how++) {
        for (int p = 0; p < 2; p++) {
            char raw[80];
            struct rig *r = rig_open(&usual);
            int fd = dial(r);
            snprintf(raw, sizeof(raw), "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", paths[p]);
            send_text(r, fd, raw);
            WAIT_FOR(r, r->n_held == 1);
            leave(fd, how);
            WAIT_FOR(r, r->n_gone == 1);
            WAIT_FOR(r, http_server_connections(r->server) == 0);
            rig_close(r);
            if (how == 1) close(fd);
        }
    }
}

Test(http_server, a_client_that_leaves_early_was_never_there)
{
    static const char *const parts[] = { "", "GET /x HT", HEAD "Content-Length: 9\r\n\r\nabc" };
    for (int i = 0; i < 3; i++) {
        struct rig *r = rig_open(&usual);
        int fd = dial(r);
        send_text(r, fd, parts[i]);
        for (int k = 0; k < 3; k++) turn(r, -1);
        close(fd);
        WAIT_FOR(r, http_server_connections(r->server) == 0);
        cr_assert_eq(r->n_seen + r->n_gone, 0);
        rig_close(r);
    }
}

Test(http_server, a_one_shot_client_gets_its_answer)
{
    struct rig *r = rig_open(&usual); /* as `printf ... | nc -N` does: request, then shut down */
    int fd = dial(r);
    send_text(r, fd, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
    shutdown(fd, SHUT_WR);
    expect_has(read_until(r, fd, NULL), "GET /x");
    close(fd);
    rig_close(r);
}

Test(http_server, slow_heads_bodies_and_idlers_time_out)
{
    struct http_limits quick = usual;
    quick.header_timeout_ms = 60;
    quick.idle_timeout_ms = 60;
    static const char head[] = "GET / HT", body[] = HEAD "Content-Length: 900\r\n\r\nabc";
    expect_refusal(&quick, head, sizeof(head) - 1, 408);
    expect_refusal(&quick, body, sizeof(body) - 1, 408);
    struct rig *r = rig_open(&quick);
    int fd = dial(r);
    cr_assert_str_eq(read_until(r, fd, NULL), "");
    close(fd);
    rig_close(r);
}

Test(http_server, connections_are_bounded)
{
    struct http_limits few = usual;
    few.max_connections = 2;
    struct rig *r = rig_open(&few);
    int a = dial(r), b = dial(r);
    WAIT_FOR(r, http_server_connections(r->server) == 2);
    int c = dial(r);
    const char *got = read_until(r, c, NULL);
    expect_has(got, "HTTP/1.1 503 ");
    expect_has(got, "Retry-After: 1\r\n");
    expect_has(got, "unavailable_error");
    close(c);
    close(b);
    WAIT_FOR(r, http_server_connections(r->server) == 1);
    send_text(r, a, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
    read_until(r, a, "GET /x");
    close(a);
    rig_close(r);
}

Test(http_server, exchanges_survive_the_server)
{
    struct rig *r = rig_open(&usual);
    int a = dial(r), b = dial(r);
    send_text(r, a, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    send_text(r, b, "POST /bare HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi");
    WAIT_FOR(r, r->n_held == 2);
    struct http_exchange *bare = r->held[0] && http_body(r->held[0]).n ? r->held[0] : r->held[1];
    http_server_close(r->server);
    cr_assert_eq(r->n_gone, 1);
    uv_run(&r->loop, UV_RUN_DEFAULT);
    cr_assert(bytes_eq(http_body(bare), "hi", 2));
    cr_assert_eq(http_unsent(bare), 0);
    http_begin(bare, 200, "text/plain");
    http_write(bare, "x", 1);
    http_end(bare);
    cr_assert(uv_loop_close(&r->loop) == 0);
    close(a);
    close(b);
    free(r);
}

Test(http_server, may_be_closed_from_inside_a_handler)
{
    struct rig *r = rig_open(&usual);
    int fd = dial(r);
    send_text(r, fd, "GET /close HTTP/1.1\r\nHost: h\r\n\r\nGET /x HTTP/1.1\r\nHost: h\r\n\r\n");
    WAIT_FOR(r, r->n_seen == 1);
    uv_run(&r->loop, UV_RUN_DEFAULT);
    cr_assert_eq(r->n_seen, 1);
    cr_assert(uv_loop_close(&r->loop) == 0);
    close(fd);
    free(r);
}

Test(http_server, large_answers_arrive_whole_and_unread_ones_are_bounded)
{
    struct rig *r = rig_open(&usual);
    struct strbuf big = STRBUF_INIT;
    int fd = dial(r);
    for (int i = 0; i < (16 << 20) / 16; i++) strbuf_puts(&big, "0123456789abcdef");
    strbuf_puts(&big, "THE END");
    send_text(r, fd, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    WAIT_FOR(r, r->n_held == 1);
    http_reply(r->held[0], 200, "text/plain", big.s, big.n);
    cr_assert(strlen(read_until(r, fd, "THE END")) > big.n);
    send_text(r, fd, "GET /stream HTTP/1.1\r\nHost: h\r\n\r\n");
    WAIT_FOR(r, r->n_held == 2);
    size_t most = 0;
    for (int i = 0; i < 100000 && r->n_gone == 0; i++) {
        http_write(r->held[1], big.s, 4096);
        if (http_unsent(r->held[1]) > most) most = http_unsent(r->held[1]);
        uv_run(&r->loop, UV_RUN_NOWAIT);
    }
    cr_assert_eq(r->n_gone, 1);
    cr_assert(most > usual.max_unsent_bytes && most < 1u << 20, "%zu", most);
    close(fd);
    strbuf_fini(&big);
    rig_close(r);
}

Test(http_server, an_echoed_header_cannot_start_a_line)
{
    struct rig *r = rig_open(&usual);
    int fd = dial(r);
    send_text(r, fd, "GET /inject HTTP/1.1\r\nHost: h\r\n\r\n");
    expect_has(read_until(r, fd, "\r\n\r\nok"), "X-Id: a  Evil: 1\r\n");
    close(fd);
    rig_close(r);
}

Test(http_server, bad_addresses_are_named)
{
    static const char *const bad[] = { "", "8080", ":8080", "127.0.0.1", "127.0.0.1:x", "999.0.0.1:1" };
    uv_loop_t loop;
    struct http_server *s = NULL;
    struct error err = { 0 };
    cr_assert(uv_loop_init(&loop) == 0);
    for (int i = 0; i < 6; i++) {
        cr_assert(http_server_open(&s, &loop, bad[i], &usual, handler, NULL, &err) != OK, "%s", bad[i]);
        cr_assert_null(s);
    }
    struct rig *r = rig_open(&usual);
    char taken[32];
    snprintf(taken, sizeof(taken), "127.0.0.1:%u", http_server_port(r->server));
    cr_assert(http_server_open(&s, &loop, taken, &usual, handler, NULL, &err) == ERR_IO);
    expect_has(err.text, taken);
    expect_has(err.text, "address already in use");
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_assert(uv_loop_close(&loop) == 0);
    rig_close(r);
}
