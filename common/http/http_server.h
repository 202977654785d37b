/* http_server.h - HTTP/1.1 over libuv and llhttp: keep-alive, bounds, streaming answers, gone clients.
 *
 * Everything runs on the loop's thread.  A handler gets each complete request (body read, within
 * limits) as an exchange and answers now or later.  The exchange stays valid until its answer is finished or
 * `on_gone` has run: after either the handler must not touch it.  A lost exchange without `on_gone` waits for its
 * answer, which goes nowhere.  Paths are percent-decoded, queries as sent; an absolute target's host is cut off. */
#ifndef HTTP_HTTP_SERVER_H
#define HTTP_HTTP_SERVER_H
#include "base/bytes.h"
#include "base/error.h"
#include "base/strbuf.h"
#include "http/http_peer.h"

#include <uv.h>

struct http_server;
struct http_exchange;

#define HTTP_UNIX          "unix:" /* before the path of a socket's file */
#define HTTP_RESERVE       64u
#define HTTP_MAX_LISTENERS 17

struct http_limits {
    uint32_t max_connections;  /* further ones get 503 and are closed */
    uint32_t max_per_address;  /* of them; past it 429; 0: no such bound */
    struct http_trust trusted; /* their word about a client's address counts, and they are not bounded by their own */
    /* Ends with NULL: what HTTP_RESERVE more connections may ask for, past both bounds.  NULL: nothing. */
    const char *const *reserved_paths;
    uint32_t max_header_bytes;  /* 431 */
    uint32_t max_body_bytes;    /* 413, before the body is read where its length is declared */
    uint32_t max_unsent_bytes;  /* per connection; http_unsent() lets the writer see it; 64 times that: gone */
    uint32_t header_timeout_ms; /* 408 */
    uint32_t idle_timeout_ms;   /* keep-alive */
};

typedef void (*http_handler_fn)(void *ctx, struct http_exchange *x);
/* A request that cannot get to the handler is refused with `status`: it may set headers, and reads what has come so
 * far. */
typedef void (*http_refused_fn)(void *ctx, struct http_exchange *x, int status);
typedef void (*http_gone_fn)(void *ctx, struct http_exchange *x);

/* Binds "host:port" (port 0: any free one), "[v6]:port" or "unix:PATH" and starts to accept.  The caller owns the
 * server. */
enum status http_server_open(struct http_server **out, uv_loop_t *loop, const char *address,
                             const struct http_limits *limits, http_handler_fn handler, void *ctx,
                             struct error *err) MUST_CHECK;
/* `fn` hears of every request that the server answers by itself, with the handler's ctx. */
void http_server_on_refused(struct http_server *s, http_refused_fn fn);
/* Binds one more address.  `reserved`: only the reserved paths are answered there, from the reserve. */
enum status http_server_listen(struct http_server *s, const char *address, bool reserved, struct error *err) MUST_CHECK;
/* Address i (in order of binding) with the port that it got; NULL past the last. */
const char *http_server_address(const struct http_server *s, uint32_t i);
/* Closes everything; on_gone runs for unfinished exchanges.  Memory goes when the loop has run the closes. */
void http_server_close(struct http_server *s);
uint16_t http_server_port(const struct http_server *s); /* of the first address; 0: a socket's file */
uint32_t http_server_connections(const struct http_server *s);

const char *http_method(const struct http_exchange *x);
const char *http_path(const struct http_exchange *x);                     /* without query */
const char *http_query(const struct http_exchange *x);                    /* "" without */
const char *http_header(const struct http_exchange *x, const char *name); /* case-insensitive; NULL if absent */
struct bytes http_body(const struct http_exchange *x);
/* Hands the body (mem_free) to the caller: for other threads, and for when the exchange is gone. */
char *http_take_body(struct http_exchange *x, size_t *n);

/* Adds a header to the answer; before reply or begin. */
void http_set_header(struct http_exchange *x, const char *name, const char *value);
/* The whole answer.  The exchange is gone after this. */
void http_reply(struct http_exchange *x, int status, const char *content_type, const void *body, size_t n);
/* The same with the memory of `body` (mem_free), which is not copied; leaves `body` empty. */
void http_reply_take(struct http_exchange *x, int status, const char *content_type, struct strbuf *body);
/* A streamed answer (chunked): begin, any number of writes, end. */
void http_begin(struct http_exchange *x, int status, const char *content_type);
void http_write(struct http_exchange *x, const void *p, size_t n);
void http_end(struct http_exchange *x);
size_t http_unsent(const struct http_exchange *x);
/* `fn` runs once if the client goes away before the answer is finished, in every state: from the loop, inside
 * http_server_close(), or at once if the client is gone already; never inside a write. */
void http_on_gone(struct http_exchange *x, http_gone_fn fn, void *ctx);
#endif
