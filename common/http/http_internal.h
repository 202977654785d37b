/* http_internal.h - what the files of the HTTP server share: server, connection, exchange.
 *
 * A connection owns at most one exchange, which is being read or answered (`x`); the rest of a
 * pipeline waits as raw bytes in `in`.  An exchange outlives its connection if nobody asked to hear of the loss. */
#ifndef HTTP_HTTP_INTERNAL_H
#define HTTP_HTTP_INTERNAL_H
#include "http/http_request.h"
#include "http/http_server.h"

#define HTTP_STALL_MS     30000u /* no byte leaves for this long: the client counts as gone */
#define HTTP_SHORT_MS     5000u  /* a head's time, and an idle connection's, while connections are short */
#define HTTP_LINGER_MS    2000u  /* after the last answer: time for the client to read it and close */
#define HTTP_READ_BYTES   (64u << 10)
#define HTTP_COPY_BYTES   (64u << 10) /* a longer answer is sent from where it lies */
#define HTTP_MAX_PIPELINE (64u << 10) /* bytes kept while an answer is under way */

union http_handle {
    uv_handle_t handle;
    uv_stream_t stream;
    uv_tcp_t tcp;
    uv_pipe_t pipe;
};

struct http_listener {
    union http_handle u;
    struct http_server *server;
    char *name; /* as it was asked for, with the port that it got */
    uint16_t port;
    bool is_unix, reserved;
    bool open; /* the handle is */
};

struct http_server {
    uv_loop_t *loop;
    struct http_listener listeners[HTTP_MAX_LISTENERS];
    uint32_t n_listeners;
    struct http_limits limits;
    http_handler_fn handler;
    http_refused_fn refused; /* NULL: nobody asked */
    void *ctx;
    struct http_conn *conns;                 /* doubly linked */
    uint32_t n_conns;                        /* with those that are closing */
    uint32_t n_seated;                       /* within max_connections */
    struct http_conn *reserve[HTTP_RESERVE]; /* oldest first */
    uint32_t n_reserve;
    struct http_peer *peers; /* connections by address */
    uint64_t body_bytes;     /* of all unfinished requests; bounded by max_body_total() */
    char *read_buffer;       /* HTTP_READ_BYTES */
    bool closing;
};

enum conn_state {
    CONN_IDLE,   /* no byte of a request is here */
    CONN_HEAD,   /* reading a head */
    CONN_BODY,   /* reading a body */
    CONN_BUSY,   /* the handler owes an answer */
    CONN_FLUSH,  /* last answer given, bytes are still to be sent */
    CONN_LINGER, /* all sent and shut down; waits for the client to close */
    CONN_CLOSED, /* handles are closing */
};

enum conn_seat { SEAT_NONE, SEAT_HOUSE, SEAT_RESERVE };

struct http_conn {
    union http_handle u;
    uv_timer_t timer;
    uv_write_t write_req;
    uv_shutdown_t shutdown_req;
    struct http_server *server;
    const struct http_listener *listener;
    enum conn_seat seat;
    struct http_address address; /* of the client, as far as is known */
    struct http_peer *peer;      /* where it is counted; NULL: nowhere */
    bool is_front;               /* loopback, a socket's file or a trusted proxy: what it says of its client counts */
    bool is_crowd;               /* its address has too many */
    char *proxy;                 /* beginning of a PROXY header; NULL: none */
    size_t proxy_bytes;
    bool past_proxy; /* the next bytes are HTTP */
    struct http_conn *prev, *next;
    enum conn_state state;
    struct http_exchange *x; /* being read or answered */
    struct strbuf in;        /* raw bytes not read yet */
    struct strbuf out;       /* not given to libuv yet */
    char *flying;            /* bytes of write_req; NULL = no write under way */
    char *flying_body;       /* sent behind it; NULL = none */
    size_t flying_bytes;     /* length of both */
    uint64_t sent_bytes;     /* taken by the socket, without those of `flying` */
    uint64_t sent_mark;      /* bytes sent at the last stall check */
    uint64_t body_mark;      /* body bytes at the last timer tick */
    uint32_t open_handles;
    uint64_t waits_since;   /* loop time of the current state, IDLE and HEAD */
    bool stall_armed;       /* bytes were waiting at the last stall check */
    bool processing;        /* http_conn_process() is on the stack */
    bool abort_after_flush; /* close without a graceful end */
};

struct http_exchange {
    struct http_conn *conn; /* NULL: the connection is gone */
    struct http_request req;
    struct strbuf headers; /* "Name: value\r\n" lines of the answer */
    http_gone_fn on_gone;
    void *gone_ctx;
    struct http_peer *peer; /* where X-Forwarded-For is counted; NULL: nowhere */
    uint64_t body_counted;  /* its share of server->body_bytes */
    bool delivered;         /* the handler has it */
    bool begun, chunked, no_body, keep_alive;
};

/* http_conn.c */
void http_conn_accept(struct http_listener *l);
/* Starts to close; idempotent.  on_gone of an unfinished exchange runs once the loop has closed it. */
void http_conn_close(struct http_conn *c);
/* Sends what is in `out` as far as the socket takes it; libuv keeps the rest. */
void http_conn_flush(struct http_conn *c);
/* Sends what is in `out` and behind it n bytes at `body` (mem_free), which it takes; nothing else may be unsent. */
void http_conn_send_body(struct http_conn *c, char *body, size_t n);
size_t http_conn_unsent(const struct http_conn *c);
/* The answer of c->x is complete: frees it and goes on with the next request or to the end. */
void http_conn_answered(struct http_conn *c);
/* http_listen.c */
void http_listener_close(struct http_listener *l);
/* http_seat.c */
enum http_entry { HTTP_ENTRY_FINE, HTTP_ENTRY_REFUSED /* without being read */, HTTP_ENTRY_GONE };
enum http_entry http_seat_take(struct http_conn *c);
void http_seat_give(struct http_conn *c); /* idempotent */
bool http_seat_is_reserved_path(const struct http_server *s, const char *path);
/* Connections are short: unfinished heads wait HTTP_SHORT_MS only. */
bool http_seat_is_short(const struct http_server *s);
/* A proxy has named its client, for the connection or for one request.  False: that address has too many. */
bool http_seat_proxied(struct http_conn *c, const struct http_address *client);
bool http_seat_forwarded(struct http_exchange *x);
/* http_server.c: frees a closed server once its last handle is gone. */
void http_server_free_if_last(struct http_server *s);
/* http_answer.c */
void http_exchange_free(struct http_exchange *x);
/* The connection is lost: tells the handler if it asked for it, and frees x; else x waits for its answer. */
void http_exchange_lost(struct http_exchange *x);
/* Appends a JSON error answer with x's headers, which ends the connection. */
void http_add_error(struct http_exchange *x, int status, const char *text);
#endif
