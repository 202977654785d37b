/* zsock.c - one ZeroMQ socket with Baton's options, watched by a libuv loop. */
#include "wire/zsock.h"

#include "base/host_port.h"
#include "base/mem.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>

#define IO_THREADS 2

struct zsock {
    void *socket;
    zsock_fn fn;
    void *ctx;
    bool watched, closing;
    int n_handles; /* libuv handles that are not closed yet */
    uv_poll_t poll;
    uv_prepare_t prepare;
    uv_idle_t idle;
};

static pthread_mutex_t context_lock = PTHREAD_MUTEX_INITIALIZER;
static void *context;

void *zsock_context(void)
{
    void *c;
    pthread_mutex_lock(&context_lock);
    if (!context) {
        context = zmq_ctx_new();
        zmq_ctx_set(context, ZMQ_IO_THREADS, IO_THREADS);
    }
    c = context;
    pthread_mutex_unlock(&context_lock);
    return c;
}

void zsock_context_term(void)
{
    pthread_mutex_lock(&context_lock);
    if (context) zmq_ctx_term(context);
    context = NULL;
    pthread_mutex_unlock(&context_lock);
}

static enum status set_int(void *s, int option, int value, struct error *err)
{
    if (zmq_setsockopt(s, option, &value, sizeof(value)) == 0) return OK;
    return error_set(err, ERR_INTERNAL, "ZeroMQ refuses option %d = %d: %s", option, value, zmq_strerror(errno));
}

static enum status set_options(void *s, enum zsock_kind kind, const struct zsock_options *opt, struct error *err)
{
    int64_t max = opt->max_message_bytes ? (int64_t)opt->max_message_bytes : -1;
    const struct {
        int option, value;
        bool use;
    } table[] = {
        { ZMQ_LINGER, 0, true },
        { ZMQ_ROUTER_MANDATORY, 1, kind == ZSOCK_ROUTER },
        { ZMQ_RECONNECT_IVL, opt->reconnect_ms, kind == ZSOCK_DEALER && opt->reconnect_ms != 0 },
        { ZMQ_RECONNECT_IVL_MAX, 1000, kind == ZSOCK_DEALER && opt->reconnect_ms > 0 },
        { ZMQ_HEARTBEAT_IVL, opt->heartbeat_ms, opt->heartbeat_ms > 0 },
        { ZMQ_HEARTBEAT_TIMEOUT, opt->heartbeat_timeout_ms, opt->heartbeat_timeout_ms > 0 },
        { ZMQ_SNDHWM, opt->send_hwm, opt->send_hwm > 0 },
        { ZMQ_RCVHWM, opt->recv_hwm, opt->recv_hwm > 0 },
        { ZMQ_SNDBUF, opt->send_buffer_bytes, opt->send_buffer_bytes > 0 },
        { ZMQ_RCVBUF, opt->recv_buffer_bytes, opt->recv_buffer_bytes > 0 },
    };
    enum status st;

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (table[i].use && (st = set_int(s, table[i].option, table[i].value, err)) != OK) return st;
    if (zmq_setsockopt(s, ZMQ_MAXMSGSIZE, &max, sizeof(max)) != 0)
        return error_set(err, ERR_INTERNAL, "ZeroMQ refuses MAXMSGSIZE: %s", zmq_strerror(errno));
    return OK;
}

enum status zsock_open(struct zsock **out, enum zsock_kind kind, const struct zsock_options *opt, struct error *err)
{
    static const int types[] = { [ZSOCK_ROUTER] = ZMQ_ROUTER, [ZSOCK_DEALER] = ZMQ_DEALER, [ZSOCK_PAIR] = ZMQ_PAIR };
    struct zsock *z = mem_zalloc(sizeof(*z));
    enum status st;

    z->socket = zmq_socket(zsock_context(), types[kind]);
    if (!z->socket) {
        st = error_set(err, ERR_IO, "cannot make a ZeroMQ socket: %s", zmq_strerror(errno));
        goto fail;
    }
    if ((st = set_options(z->socket, kind, opt, err)) != OK) goto fail;
    *out = z;
    return OK;
fail:
    zsock_close(z);
    return st;
}

static void on_handle_closed(uv_handle_t *h)
{
    struct zsock *z = h->data;
    if (--z->n_handles == 0) mem_free(z);
}

void zsock_close(struct zsock *z)
{
    void *s;

    if (!z || z->closing) return;
    z->closing = true;
    s = z->socket;
    z->socket = NULL;
    if (z->watched) { /* the fd leaves the loop before ZeroMQ closes it */
        uv_close((uv_handle_t *)&z->poll, on_handle_closed);
        uv_close((uv_handle_t *)&z->prepare, on_handle_closed);
        uv_close((uv_handle_t *)&z->idle, on_handle_closed);
    }
    if (s) zmq_close(s);
    if (!z->watched) mem_free(z);
}

void zsock_set_linger(struct zsock *z, int ms)
{
    zmq_setsockopt(z->socket, ZMQ_LINGER, &ms, sizeof(ms));
}

static enum status name_error(const char *what, const char *endpoint, struct error *err)
{
    int e = errno;
    enum status st = e == EADDRINUSE || e == EADDRNOTAVAIL || e == EACCES ? ERR_IO : ERR_INVALID;
    return error_set(err, st, "cannot %s %s: %s", what, endpoint, zmq_strerror(e));
}

static bool has_address(const char *name, int family)
{
    const struct addrinfo hints = { .ai_family = family, .ai_socktype = SOCK_STREAM };
    struct addrinfo *found = NULL;

    if (getaddrinfo(name, NULL, &hints, &found) != 0) return false;
    freeaddrinfo(found);
    return true;
}

/* Whether ZeroMQ's IPv6 mode is right for tcp://HOST:PORT.  In that mode an IPv4 address is bound and named as
 * ::ffff:A.B.C.D, and a name with both kinds of address is reached by IPv6 only: so it is on for addresses in brackets
 * and for names that have no IPv4 address. */
static bool wants_ipv6(const char *endpoint)
{
    struct host_port hp;

    if (!host_port_split(endpoint, &hp) || strcmp(hp.host, "*") == 0) return false;
    return hp.is_ipv6 || (!has_address(hp.host, AF_INET) && has_address(hp.host, AF_INET6));
}

/* ZeroMQ binds addresses and names of interfaces; any other name is looked up here.  What zmq_bind() returns. */
static int bind_name(void *socket, const char *endpoint)
{
    struct sockaddr_storage found;
    struct host_port hp;
    char address[NI_MAXHOST], text[NI_MAXHOST + 32];

    if (!host_port_split(endpoint, &hp) || host_port_resolve(&hp, &found) != 0 ||
        getnameinfo((struct sockaddr *)&found, sizeof(found), address, sizeof(address), NULL, 0, NI_NUMERICHOST) != 0)
        return errno = ENODEV, -1;
    snprintf(text, sizeof(text), found.ss_family == AF_INET6 ? "tcp://[%s]:%u" : "tcp://%s:%u", address, hp.lo);
    return zmq_bind(socket, text);
}

enum status zsock_bind(struct zsock *z, const char *endpoint, char **bound, struct error *err)
{
    char last[512] = "", known[512];
    size_t n = sizeof(last);

    endpoint = host_port_known(known, sizeof(known), endpoint);
    if (set_int(z->socket, ZMQ_IPV6, wants_ipv6(endpoint), err) != OK) return ERR_INTERNAL;
    if (zmq_bind(z->socket, endpoint) != 0 && (errno != ENODEV || bind_name(z->socket, endpoint) != 0)) {
        if (errno != ENODEV) return name_error("bind", endpoint, err);
        return error_set(err, ERR_INVALID, "cannot bind %s: no interface and no host has that name", endpoint);
    }
    if (zmq_getsockopt(z->socket, ZMQ_LAST_ENDPOINT, last, &n) != 0) return name_error("name", endpoint, err);
    *bound = mem_strdup(last);
    return OK;
}

enum status zsock_connect(struct zsock *z, const char *endpoint, struct error *err)
{
    char known[512];

    endpoint = host_port_known(known, sizeof(known), endpoint);
    if (set_int(z->socket, ZMQ_IPV6, wants_ipv6(endpoint), err) != OK) return ERR_INTERNAL;
    if (zmq_connect(z->socket, endpoint) != 0) return name_error("connect to", endpoint, err);
    return OK;
}

void *zsock_raw(struct zsock *z)
{
    return z->socket;
}

static bool can_receive(const struct zsock *z)
{
    int events = 0;
    size_t n = sizeof(events);
    if (!z->socket || zmq_getsockopt(z->socket, ZMQ_EVENTS, &events, &n) != 0) return false;
    return events & ZMQ_POLLIN;
}

static void on_idle(uv_idle_t *h)
{
    (void)h;
}

/* ZMQ_FD only tells that ZMQ_EVENTS may have changed. */
static void on_poll(uv_poll_t *h, int status, int events)
{
    (void)h, (void)status, (void)events;
}

/* Runs before each wait of the loop, hence also after every send that a callback made: a send can swallow the edge
 * of what came in meanwhile.  Whenever something was received the loop goes round once more without waiting, as that
 * receiver may have sent on another socket. */
static void on_prepare(uv_prepare_t *h)
{
    struct zsock *z = h->data;
    if (can_receive(z)) {
        uv_idle_start(&z->idle, on_idle);
        z->fn(z->ctx, z);
    } else {
        uv_idle_stop(&z->idle);
    }
}

enum status zsock_watch(struct zsock *z, uv_loop_t *loop, zsock_fn fn, void *ctx, struct error *err)
{
    int fd = -1;
    size_t n = sizeof(fd);

    if (zmq_getsockopt(z->socket, ZMQ_FD, &fd, &n) != 0 || uv_poll_init(loop, &z->poll, fd) != 0)
        return error_set(err, ERR_IO, "cannot watch a ZeroMQ socket");
    z->fn = fn;
    z->ctx = ctx;
    z->watched = true;
    z->n_handles = 3;
    uv_prepare_init(loop, &z->prepare);
    uv_idle_init(loop, &z->idle);
    z->poll.data = z->prepare.data = z->idle.data = z;
    uv_poll_start(&z->poll, UV_READABLE, on_poll);
    uv_prepare_start(&z->prepare, on_prepare);
    return OK;
}
