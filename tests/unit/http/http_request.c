/* http_request: what is read, and what is refused because two readers could read it differently. */
#include "http/http_request.h"

#include <criterion/criterion.h>
#include <string.h>

#define MAX_HEADER           4096
#define MAX_BODY             1000
#define HEAD                 "POST / HTTP/1.1\r\nHost: h\r\n"
#define REFUSED(raw, status) expect_refused(raw, sizeof(raw) - 1, status)

/* Feeds pieces of this size until the request is complete or refused; returns what came last. */
static enum http_feed feed(struct http_request *r, const char *raw, size_t n, size_t piece, size_t *used_all)
{
    enum http_feed got = HTTP_FEED_MORE;
    http_request_init(r, MAX_HEADER, MAX_BODY);
    *used_all = 0;
    while (*used_all < n && got != HTTP_FEED_FAIL && got != HTTP_FEED_DONE) {
        size_t used, give = n - *used_all < piece ? n - *used_all : piece;
        got = http_request_feed(r, raw + *used_all, give, &used);
        *used_all += used;
    }
    return got;
}

static void expect_refused(const char *raw, size_t n, int status)
{
    struct http_request r;
    size_t used;
    for (size_t piece = 1; piece <= n; piece = piece == 1 ? n : n + 1) {
        enum http_feed got = feed(&r, raw, n, piece, &used);
        cr_assert(got == HTTP_FEED_FAIL && r.fail_status == status, "want %d, got %d \"%s\" for %.80s", status,
                  r.fail_status, r.fail_text, raw);
        cr_assert(strlen(r.fail_text) > 10);
        http_request_fini(&r);
    }
}

Test(http_request, reads_head_and_chunked_body)
{
    static const char raw[] = "\r\nPUT /a/b?c=d?e HTTP/1.1\r\nHost: h\r\nX-Empty:\r\nx-two: 1\r\nX-Two: 2\r\n"
                              "Transfer-Encoding: Chunked\r\nExpect: 100-Continue\r\n\r\n"
                              "A;x=\"y\"\r\n0123456789\r\n0\r\nT: t\r\n\r\nGET";
    for (size_t piece = 1; piece < sizeof(raw); piece++) {
        struct http_request r;
        size_t used;
        cr_assert_eq(feed(&r, raw, sizeof(raw) - 1, piece, &used), HTTP_FEED_DONE);
        cr_assert_eq(used, sizeof(raw) - 1 - 3);
        cr_assert_str_eq(http_request_method(&r), "PUT");
        cr_assert_str_eq(http_request_path(&r), "/a/b");
        cr_assert_str_eq(http_request_query(&r), "c=d?e");
        cr_assert_str_eq(http_request_field(&r, "x-empty"), "");
        cr_assert_str_eq(http_request_field(&r, "X-TWO"), "1");
        cr_assert_null(http_request_field(&r, "t"), "a trailer is not a header");
        cr_assert(r.body.n == 10 && r.keep_alive && r.expects_continue && !r.is_head && !r.is_http10);
        http_request_fini(&r);
    }
}

Test(http_request, knows_who_keeps_the_connection)
{
    static const struct {
        const char *raw;
        bool keep;
    } cases[] = { { "GET / HTTP/1.1\r\nHost: h\r\n\r\n", true },
                  { "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", false },
                  { "GET / HTTP/1.0\r\n\r\n", false },
                  { "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true },
                  { "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", true },
                  { "CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n", false },
                  { "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", true } };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct http_request r;
        size_t used;
        cr_assert_eq(feed(&r, cases[i].raw, strlen(cases[i].raw), 1000, &used), HTTP_FEED_DONE, "%s", cases[i].raw);
        cr_assert_eq(r.keep_alive, cases[i].keep, "%s", cases[i].raw);
        cr_assert_eq(used, strlen(cases[i].raw));
        http_request_fini(&r);
    }
}

Test(http_request, decodes_the_path_and_not_the_query)
{
    static const struct {
        const char *target, *path, *query;
    } cases[] = { { "/v1/models/a%2Fb%20c", "/v1/models/a/b c", "" },
                  { "/%c3%a9?x=%41%zz", "/\xc3\xa9", "x=%41%zz" },
                  { "http://h/%41%2541", "/A%41", "" },
                  { "/a+b", "/a+b", "" } };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct http_request r;
        char raw[200];
        size_t used;
        snprintf(raw, sizeof(raw), "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", cases[i].target);
        cr_assert_eq(feed(&r, raw, strlen(raw), 1000, &used), HTTP_FEED_DONE, "%s", raw);
        cr_assert_str_eq(http_request_path(&r), cases[i].path);
        cr_assert_str_eq(http_request_query(&r), cases[i].query);
        http_request_fini(&r);
    }
    REFUSED("GET /a%2 HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    REFUSED("GET /a%g1 HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    REFUSED("GET /a% HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    REFUSED("GET /a%00b HTTP/1.1\r\nHost: h\r\n\r\n", 400);
}

Test(http_request, says_in_its_own_words_what_is_wrong)
{
    static const struct {
        const char *raw, *word;
    } cases[] = { { "HELO there\r\n\r\n", "method" },
                  { HEAD "Content-Length: abc\r\n\r\n", "Content-Length is no number" },
                  { HEAD "X\x01Y: a\r\n\r\n", "header field" },
                  { HEAD "Transfer-Encoding: chunked\r\n\r\nzz\r\n", "chunk's size" } };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct http_request r;
        size_t used;
        cr_assert_eq(feed(&r, cases[i].raw, strlen(cases[i].raw), 1000, &used), HTTP_FEED_FAIL, "%s", cases[i].raw);
        cr_assert_not_null(strstr(r.fail_text, cases[i].word), "%s: %s", cases[i].raw, r.fail_text);
        http_request_fini(&r);
    }
}

Test(http_request, refuses_what_two_readers_could_read_differently)
{
    REFUSED(HEAD "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
    REFUSED(HEAD "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400);
    REFUSED(HEAD "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400);
    REFUSED(HEAD "Content-Length: 3, 3\r\n\r\nabc", 400);
    REFUSED(HEAD "Content-Length: +3\r\n\r\nabc", 400);
    REFUSED(HEAD "Content-Length: 0x3\r\n\r\nabc", 400);
    REFUSED(HEAD "Content-Length: -1\r\n\r\n", 400);
    REFUSED(HEAD "Content-Length: 99999999999999999999999\r\n\r\n", 400);
    REFUSED(HEAD "Content-Length : 3\r\n\r\nabc", 400);
    REFUSED(HEAD " Content-Length: 3\r\n\r\nabc", 400);
    REFUSED(HEAD "X-Name: a\r\n b\r\n\r\n", 400);
    REFUSED(HEAD "X-Name: a\nb: c\r\n\r\n", 400);
    REFUSED(HEAD "X-Name: a\rb: c\r\n\r\n", 400);
    REFUSED(HEAD "X-Name: a\0b\r\n\r\n", 400);
    REFUSED("POST / HTTP/1.1\nHost: h\n\n", 400);
    REFUSED(HEAD "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400);
    REFUSED(HEAD "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
    REFUSED(HEAD "Transfer-Encoding: xchunked\r\n\r\n", 400);
    REFUSED(HEAD "Transfer-Encoding: identity\r\n\r\n", 400);
    REFUSED("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
    REFUSED(HEAD "Transfer-Encoding: chunked\r\n\r\n3\r\nabcX\r\n0\r\n\r\n", 400);
    REFUSED(HEAD "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", 400);
    REFUSED(HEAD "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", 400);
    REFUSED(HEAD "Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400);
    REFUSED("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400);
    REFUSED("GET / HTTP/1.1\r\n\r\n", 400);
    REFUSED("GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    REFUSED("GET / HTTP/1.1 x\r\nHost: h\r\n\r\n", 400);
    REFUSED("HELO there\r\n\r\n", 400);
    REFUSED("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", 400);
    REFUSED("\r\n\r\n\r\n\r\n\r\n\r\n", 400);
    REFUSED("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
    REFUSED("PRI * HTTP/2.0\r\n\r\n", 505);
    REFUSED("PRI / HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    REFUSED("GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505);
    REFUSED("GET / HTTP/3.0\r\nHost: h\r\n\r\n", 505);
    REFUSED("GET / HTTP/0.9\r\nHost: h\r\n\r\n", 505);
    REFUSED("GET / HTTP/1.2\r\nHost: h\r\n\r\n", 505);
    REFUSED("GET / HTTP/2\r\nHost: h\r\n\r\n", 505);
    REFUSED("GET / HTTP/x.y\r\nHost: h\r\n\r\n", 400);
    REFUSED("GET / HTTQ/1.1\r\nHost: h\r\n\r\n", 400);
    REFUSED(HEAD "Expect: tea\r\n\r\n", 417);
}

Test(http_request, refuses_what_is_too_large)
{
    struct strbuf sb = STRBUF_INIT;
    REFUSED(HEAD "Content-Length: 1001\r\nExpect: 100-continue\r\n\r\n", 413);
    strbuf_puts(&sb, HEAD "Transfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 1001; i++) strbuf_puts(&sb, "1\r\nx\r\n");
    expect_refused(sb.s, sb.n, 413);
    strbuf_reset(&sb);
    strbuf_puts(&sb, HEAD "Transfer-Encoding: chunked\r\n\r\n1;");
    for (int i = 0; i < 20000; i++) strbuf_putc(&sb, 'e');
    expect_refused(sb.s, sb.n, 413);
    strbuf_reset(&sb);
    strbuf_puts(&sb, HEAD "X-Name: ");
    for (int i = 0; i < 5000; i++) strbuf_putc(&sb, 'x');
    expect_refused(sb.s, sb.n, 431);
    strbuf_reset(&sb);
    strbuf_puts(&sb, HEAD);
    for (int i = 0; i < 101; i++) strbuf_addf(&sb, "A%d: 1\r\n", i);
    strbuf_puts(&sb, "\r\n");
    expect_refused(sb.s, sb.n, 431);
    strbuf_fini(&sb);
}
