/* http_request.h - turns raw bytes of a connection into one checked request, without any socket.
 *
 * Stricter than llhttp alone, so that no proxy in front can read a message differently: lines end with
 * CRLF and nothing else, no folded headers, one Host, Transfer-Encoding is "chunked" or absent and never stands
 * beside Content-Length. */
#ifndef HTTP_HTTP_REQUEST_H
#define HTTP_HTTP_REQUEST_H
#include "base/bytes.h"
#include "base/strbuf.h"

#include <llhttp.h>

#define HTTP_MAX_FIELDS 100

struct http_field {
    uint32_t name, value; /* offsets of NUL-terminated text in `text` */
};

struct http_request {
    llhttp_t parser;
    uint32_t max_header_bytes, max_body_bytes;
    struct strbuf text; /* target and header fields, NUL after each */
    struct strbuf body;
    struct http_field fields[HTTP_MAX_FIELDS];
    uint32_t n_fields;
    uint32_t target;         /* offset of the path in `text` */
    uint32_t query;          /* offset of the query in `text` */
    size_t head_bytes;       /* raw bytes so far */
    uint64_t body_raw_bytes; /* with chunk framing */
    uint32_t line_bytes, n_lines, n_empty;
    uint8_t prev;    /* last raw byte of the head */
    bool is_tls;     /* no HTTP at all: a handshake of TLS begins so */
    bool has_target; /* method and path are known */
    bool head_done, complete;
    bool keep_alive;
    bool is_http10;
    bool is_head;          /* HEAD: the answer has no body */
    bool expects_continue; /* the client waits for "100 Continue" */
    int fail_status;       /* HTTP status to refuse with; 0 = fine so far */
    char fail_text[160];
};

enum http_feed {
    HTTP_FEED_MORE, /* all bytes used, the request goes on */
    HTTP_FEED_HEAD, /* the head is complete and a body follows */
    HTTP_FEED_DONE,
    HTTP_FEED_FAIL, /* fail_status and fail_text say why; the connection cannot go on */
};

/* Prepares an empty request; http_request_fini() frees what it gathered. */
void http_request_init(struct http_request *r, uint32_t max_header_bytes, uint32_t max_body_bytes);
void http_request_fini(struct http_request *r);
/* Reads up to n bytes; *used says how many belong to this request.  After DONE or FAIL no more may be fed. */
enum http_feed http_request_feed(struct http_request *r, const char *data, size_t n, size_t *used);
/* Value of the first field with this name, case-insensitive; NULL if absent. */
const char *http_request_field(const struct http_request *r, const char *name);
/* The same of the last one. */
const char *http_request_last_field(const struct http_request *r, const char *name);
const char *http_request_method(const struct http_request *r);
const char *http_request_path(const struct http_request *r);
const char *http_request_query(const struct http_request *r);
#endif
