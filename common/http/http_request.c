/* http_request.c - scans a request's head, drives llhttp and applies the limits. */
#include "http/http_request.h"

#include "base/mem_later.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* Chunk framing may be this many times larger than the body: one-byte chunks cost six. */
#define MAX_FRAMING_FACTOR 8
#define MAX_EMPTY_LINES    4
#define TLS_HANDSHAKE      0x16 /* first byte of what a client of TLS sends; no request begins so */

static int fail(struct http_request *r, int status, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Always -1, which is what makes llhttp stop when a callback returns it. */
static int fail(struct http_request *r, int status, const char *fmt, ...)
{
    if (r->fail_status) return -1;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(r->fail_text, sizeof(r->fail_text), fmt, ap);
    va_end(ap);
    r->fail_status = status;
    return -1;
}

static int on_url(llhttp_t *p, const char *at, size_t n)
{
    struct http_request *r = p->data;
    strbuf_add(&r->text, at, n);
    return 0;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Percent-decodes in place. */
static int decode_path(struct http_request *r, char *path)
{
    char *to = path;
    for (const char *from = path; *from; from++) {
        if (*from != '%') {
            *to++ = *from;
            continue;
        }
        int high = hex_digit(from[1]), low = high < 0 ? -1 : hex_digit(from[2]);
        if (low < 0) return fail(r, 400, "a %% in the path is not followed by two hexadecimal digits");
        if (high == 0 && low == 0) return fail(r, 400, "the path has a NUL");
        *to++ = (char)(high << 4 | low);
        from += 2;
    }
    *to = '\0';
    return 0;
}

/* "http://host/path?query" and "/path?query" both leave the path and the query. */
static int on_url_complete(llhttp_t *p)
{
    struct http_request *r = p->data;
    strbuf_putc(&r->text, '\0');
    char *url = r->text.s, *path = url;
    size_t scheme = strncasecmp(url, "http://", 7) == 0 ? 7 : strncasecmp(url, "https://", 8) == 0 ? 8 : 0;
    if (scheme > 0) {
        path = strchr(url + scheme, '/');
        if (!path) return fail(r, 400, "the request target has no path");
    }
    char *mark = strchr(path, '?');
    r->target = (uint32_t)(path - url);
    r->query = (uint32_t)(r->text.n - 1);
    if (mark) {
        *mark = '\0';
        r->query = (uint32_t)(mark + 1 - url);
    }
    r->has_target = true;
    return decode_path(r, path);
}

static int on_field(llhttp_t *p, const char *at, size_t n)
{
    struct http_request *r = p->data;
    if (r->head_done) return 0; /* trailers are read and dropped */
    if (r->n_fields == HTTP_MAX_FIELDS) {
        return fail(r, 431, "more than %d header fields", HTTP_MAX_FIELDS);
    }
    struct http_field *f = &r->fields[r->n_fields];
    if (f->name == 0) f->name = (uint32_t)r->text.n; /* the target stands before, so never 0 */
    strbuf_add(&r->text, at, n);
    return 0;
}

static int on_field_complete(llhttp_t *p)
{
    struct http_request *r = p->data;
    if (r->head_done) return 0;
    strbuf_putc(&r->text, '\0');
    r->fields[r->n_fields].value = (uint32_t)r->text.n;
    return 0;
}

static int on_value(llhttp_t *p, const char *at, size_t n)
{
    struct http_request *r = p->data;
    if (!r->head_done) strbuf_add(&r->text, at, n);
    return 0;
}

static int on_value_complete(llhttp_t *p)
{
    struct http_request *r = p->data;
    if (r->head_done) return 0;
    while (r->text.n > r->fields[r->n_fields].value) { /* blanks after a value are not part of it */
        char last = r->text.s[r->text.n - 1];
        if (last != ' ' && last != '\t') break;
        r->text.n--;
    }
    strbuf_putc(&r->text, '\0');
    r->n_fields++;
    return 0;
}

static uint32_t count_fields(const struct http_request *r, const char *name)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->n_fields; i++) {
        if (strcasecmp(r->text.s + r->fields[i].name, name) == 0) n++;
    }
    return n;
}

static int check_framing(struct http_request *r)
{
    const llhttp_t *p = &r->parser;
    uint32_t n_te = count_fields(r, "transfer-encoding");
    uint32_t n_length = count_fields(r, "content-length");
    if (n_te > 0 && n_length > 0) {
        return fail(r, 400, "both Content-Length and Transfer-Encoding are given");
    }
    if (n_te > 1 || n_length > 1) return fail(r, 400, "the body's length is given twice");
    if (n_te == 1 && strcasecmp(http_request_field(r, "transfer-encoding"), "chunked") != 0) {
        return fail(r, 400, "Transfer-Encoding must be chunked");
    }
    if (n_te == 1 && r->is_http10) return fail(r, 400, "HTTP/1.0 has no Transfer-Encoding");
    if (n_length == 1 && p->content_length > r->max_body_bytes) {
        return fail(r, 413, "the body has %llu bytes; at most %u are taken", (unsigned long long)p->content_length,
                    r->max_body_bytes);
    }
    return 0;
}

static int on_headers_complete(llhttp_t *p)
{
    struct http_request *r = p->data;
    r->is_http10 = p->http_minor == 0;
    r->is_head = p->method == HTTP_HEAD;
    /* The rest of a CONNECT would not be HTTP. */
    r->keep_alive = llhttp_should_keep_alive(p) && p->method != HTTP_CONNECT;
    if (p->http_major != 1 || p->http_minor > 1) {
        return fail(r, 505, "HTTP/%u.%u is not spoken here; use HTTP/1.1", p->http_major, p->http_minor);
    }
    uint32_t n_hosts = count_fields(r, "host");
    if (n_hosts > 1 || (n_hosts == 0 && !r->is_http10)) {
        return fail(r, 400, "a request needs one Host header");
    }
    if (check_framing(r) != 0) return -1;
    const char *expect = http_request_field(r, "expect");
    if (expect && !r->is_http10) {
        if (strcasecmp(expect, "100-continue") != 0) {
            return fail(r, 417, "only Expect: 100-continue is known");
        }
        r->expects_continue = true;
    }
    r->head_done = true;
    return 0;
}

static int on_body(llhttp_t *p, const char *at, size_t n)
{
    struct http_request *r = p->data;
    if (n > r->max_body_bytes - r->body.n) {
        return fail(r, 413, "the body is larger than %u bytes", r->max_body_bytes);
    }
    strbuf_add(&r->body, at, n);
    return 0;
}

static int on_message_complete(llhttp_t *p)
{
    struct http_request *r = p->data;
    r->complete = true;
    return HPE_PAUSED; /* what follows belongs to the next request */
}

static const llhttp_settings_t settings = {
    .on_url = on_url,
    .on_url_complete = on_url_complete,
    .on_header_field = on_field,
    .on_header_field_complete = on_field_complete,
    .on_header_value = on_value,
    .on_header_value_complete = on_value_complete,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

void http_request_init(struct http_request *r, uint32_t max_header_bytes, uint32_t max_body_bytes)
{
    memset(r, 0, sizeof(*r));
    r->max_header_bytes = max_header_bytes;
    r->max_body_bytes = max_body_bytes;
    strbuf_init(&r->text, (size_t)max_header_bytes + 2 * HTTP_MAX_FIELDS + 64);
    strbuf_init(&r->body, max_body_bytes ? max_body_bytes : 1);
    llhttp_init(&r->parser, HTTP_REQUEST, &settings);
    r->parser.data = r;
}

void http_request_fini(struct http_request *r)
{
    strbuf_fini(&r->text);
    strbuf_fini_later(&r->body);
}

/* Takes one raw byte of the head: 1 = the head ends with it, 0 = it goes on, -1 = refused. */
static int scan_byte(struct http_request *r, uint8_t b)
{
    uint8_t prev = r->prev;
    if (r->head_bytes == 0 && b == TLS_HANDSHAKE) {
        r->is_tls = true;
        return fail(r, 400, "TLS is not spoken here; use http://, or a proxy in front that ends TLS");
    }
    r->prev = b;
    if (++r->head_bytes > r->max_header_bytes) {
        return fail(r, 431, "the head is larger than %u bytes", r->max_header_bytes);
    }
    if ((prev == '\r') != (b == '\n')) return fail(r, 400, "lines of a request end with CR LF");
    if (b == '\0') return fail(r, 400, "a NUL byte in the head");
    if (b == '\r') return 0;
    if (b != '\n') {
        bool folded = r->line_bytes == 0 && (b == ' ' || b == '\t');
        if (folded) return fail(r, 400, "a line of the head begins with a blank");
        if (r->n_lines == 0 && b == ' ' && prev == ' ') {
            return fail(r, 400, "two blanks in the request line");
        }
        r->line_bytes++;
        return 0;
    }
    bool empty = r->line_bytes == 0;
    r->line_bytes = 0;
    if (!empty) {
        r->n_lines++;
        return 0;
    }
    if (r->n_lines > 0) return 1;
    if (++r->n_empty > MAX_EMPTY_LINES) return fail(r, 400, "empty lines instead of a request");
    return 0;
}

/* llhttp's error in words of ours. */
static const char *fault_of(enum llhttp_errno e)
{
    switch (e) {
    case HPE_INVALID_METHOD: return "its method is not known";
    case HPE_INVALID_URL: return "its target is no path";
    case HPE_INVALID_VERSION: return "its first line does not end with HTTP/1.0 or HTTP/1.1";
    case HPE_INVALID_CONSTANT: return "its first line is not: METHOD, PATH, HTTP/1.1";
    case HPE_INVALID_HEADER_TOKEN: return "a header field has a character that may not be there";
    case HPE_INVALID_CONTENT_LENGTH: return "Content-Length is no number";
    case HPE_UNEXPECTED_CONTENT_LENGTH: return "the body's length is given twice";
    case HPE_INVALID_TRANSFER_ENCODING: return "Transfer-Encoding must be chunked";
    case HPE_INVALID_CHUNK_SIZE: return "a chunk's size is no hexadecimal number";
    case HPE_LF_EXPECTED:
    case HPE_STRICT: return "its lines do not end as they must";
    default: return "it breaks HTTP's grammar";
    }
}

/* Whether what llhttp refused was a version at all. */
static bool is_other_version(const llhttp_t *p)
{
    return p->http_major > 1 || (p->http_major == 1 && p->http_minor > 1) || (p->http_major == 0 && p->http_minor > 0);
}

/* Runs llhttp over bytes that passed the scan. */
static enum http_feed execute(struct http_request *r, const char *data, size_t n, size_t *used)
{
    enum llhttp_errno e = llhttp_execute(&r->parser, data, n);
    *used = n;
    if (r->fail_status) return HTTP_FEED_FAIL;
    if (r->complete) {
        const char *end = llhttp_get_error_pos(&r->parser);
        if (end >= data && end <= data + n) *used = (size_t)(end - data);
        return HTTP_FEED_DONE;
    }
    if (e == HPE_OK) return HTTP_FEED_MORE;
    if (e == HPE_INVALID_VERSION && is_other_version(&r->parser))
        fail(r, 505, "HTTP/%u.%u is not spoken here; use HTTP/1.1", r->parser.http_major, r->parser.http_minor);
    else
        fail(r, 400, "not a valid HTTP request: %s", fault_of(e));
    return HTTP_FEED_FAIL;
}

static enum http_feed feed_head(struct http_request *r, const char *data, size_t n, size_t *used)
{
    size_t i = 0;
    int end = 0;
    while (i < n && end == 0) end = scan_byte(r, (uint8_t)data[i++]);
    if (end < 0) return HTTP_FEED_FAIL;
    enum http_feed got = execute(r, data, i, used);
    *used = i;
    if (got == HTTP_FEED_FAIL) return got;
    if (end > 0 && !r->head_done && r->parser.method == HTTP_PRI) { /* llhttp waits for the rest of HTTP/2's preface */
        fail(r, 505, "HTTP/2 is not spoken here; use HTTP/1.1");
        return HTTP_FEED_FAIL;
    }
    if (r->head_done != (end > 0)) { /* the scan and llhttp must agree where the head ends */
        fail(r, 400, "not a valid HTTP request: its head does not end where its lines do");
        return HTTP_FEED_FAIL;
    }
    return got == HTTP_FEED_MORE && end > 0 ? HTTP_FEED_HEAD : got;
}

enum http_feed http_request_feed(struct http_request *r, const char *data, size_t n, size_t *used)
{
    *used = 0;
    if (!r->head_done) return feed_head(r, data, n, used);
    enum http_feed got = execute(r, data, n, used);
    r->body_raw_bytes += *used;
    uint64_t bound = (uint64_t)r->max_body_bytes * MAX_FRAMING_FACTOR + r->max_header_bytes;
    if (got == HTTP_FEED_MORE && r->body_raw_bytes > bound) {
        fail(r, 413, "the body's chunk framing is too large");
        return HTTP_FEED_FAIL;
    }
    return got;
}

const char *http_request_field(const struct http_request *r, const char *name)
{
    for (uint32_t i = 0; i < r->n_fields; i++) {
        if (strcasecmp(r->text.s + r->fields[i].name, name) == 0) return r->text.s + r->fields[i].value;
    }
    return NULL;
}

const char *http_request_last_field(const struct http_request *r, const char *name)
{
    for (uint32_t i = r->n_fields; i-- > 0;) {
        if (strcasecmp(r->text.s + r->fields[i].name, name) == 0) return r->text.s + r->fields[i].value;
    }
    return NULL;
}

const char *http_request_method(const struct http_request *r)
{
    return llhttp_method_name((llhttp_method_t)r->parser.method);
}

const char *http_request_path(const struct http_request *r)
{
    return r->text.s + r->target;
}

const char *http_request_query(const struct http_request *r)
{
    return r->text.s + r->query;
}
