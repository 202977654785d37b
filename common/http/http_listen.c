/* http_listen.c - listening sockets: host:port, [v6]:port, unix:PATH. */
#include "base/host_port.h"
#include "base/mem.h"
#include "http/http_internal.h"

#include <errno.h>
#include <netdb.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG   4096 /* the kernel takes less where net.core.somaxconn says so */
#define UNIX_MASK 0117 /* a socket's file has mode 0660 */

/* "host:port" or "[v6]:port" to a socket address. */
static enum status resolve(const char *address, struct sockaddr_storage *out, struct error *err)
{
    struct host_port hp;
    if (!host_port_split(address, &hp) || hp.is_tcp || hp.lo != hp.hi)
        return error_set(err, ERR_INVALID, "%s: an HTTP address is host:port, [v6]:port or unix:PATH", address);
    const int e = host_port_resolve(&hp, out);
    return e == 0 ? OK : error_set(err, ERR_INVALID, "%s: %s", address, gai_strerror(e));
}

static uint16_t bound_port(const uv_tcp_t *tcp)
{
    struct sockaddr_storage name;
    int len = sizeof(name);
    if (uv_tcp_getsockname(tcp, (struct sockaddr *)&name, &len) != 0) return 0;
    return ntohs(name.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&name)->sin6_port
                                            : ((struct sockaddr_in *)&name)->sin_port);
}

static void on_connection(uv_stream_t *stream, int status)
{
    struct http_listener *l = stream->data;
    /* Without a free descriptor libuv takes what waits and closes it, so this does not come again at once. */
    if (status == 0 && !l->server->closing) http_conn_accept(l);
}

static enum status listen_on(struct http_listener *l, const char *address, int bound, struct error *err)
{
    int e = bound;
    if (e == 0) e = uv_listen(&l->u.stream, BACKLOG, on_connection);
    if (e == 0) return OK;
    return error_set(err, ERR_IO, "cannot listen on %s: %s", address, uv_strerror(e));
}

static enum status listen_tcp(struct http_listener *l, const char *address, struct error *err)
{
    struct sockaddr_storage addr;
    char name[512];
    enum status st = resolve(address, &addr, err);
    if (st != OK) return st;
    int e = uv_tcp_init(l->server->loop, &l->u.tcp);
    if (e != 0) return error_set(err, ERR_IO, "%s: %s", address, uv_strerror(e));
    l->open = true;
    st = listen_on(l, address, uv_tcp_bind(&l->u.tcp, (struct sockaddr *)&addr, 0), err);
    if (st != OK) return st;
    l->port = bound_port(&l->u.tcp);
    if (host_port_replace(name, sizeof(name), address, l->port)) l->name = mem_strdup(name);
    return OK;
}

/* A socket's file that nobody listens on any more is taken away. */
static enum status clear_path(const char *path, struct error *err)
{
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    struct stat st;
    if (lstat(path, &st) != 0) return OK;
    if (!S_ISSOCK(st.st_mode)) return error_set(err, ERR_IO, "cannot listen on unix:%s: a file is there", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    memcpy(to.sun_path, path, strlen(path) + 1);
    int e = fd < 0 ? errno : connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0 ? 0 : errno;
    if (fd >= 0) close(fd);
    if (e != ECONNREFUSED) return error_set(err, ERR_IO, "cannot listen on unix:%s: another process does", path);
    if (unlink(path) != 0) return error_set(err, ERR_IO, "cannot remove the stale %s: %s", path, strerror(errno));
    return OK;
}

static enum status listen_unix(struct http_listener *l, const char *address, struct error *err)
{
    const char *path = address + strlen(HTTP_UNIX);
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof(((struct sockaddr_un *)0)->sun_path))
        return error_set(err, ERR_INVALID, "%s: a socket's path has 1 to %zu bytes", address,
                         sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
    enum status st = clear_path(path, err);
    if (st != OK) return st;
    int e = uv_pipe_init(l->server->loop, &l->u.pipe, 0);
    if (e != 0) return error_set(err, ERR_IO, "%s: %s", address, uv_strerror(e));
    l->open = l->is_unix = true;
    mode_t before = umask(UNIX_MASK); /* from its first moment on */
    e = uv_pipe_bind(&l->u.pipe, path);
    umask(before);
    l->name = mem_strdup(address);
    return listen_on(l, address, e, err); /* libuv removes the file when it closes the socket */
}

static void on_closed(uv_handle_t *handle)
{
    struct http_listener *l = handle->data;
    l->open = false;
    http_server_free_if_last(l->server);
}

void http_listener_close(struct http_listener *l)
{
    if (l->open && !uv_is_closing(&l->u.handle)) uv_close(&l->u.handle, on_closed);
}

enum status http_server_listen(struct http_server *s, const char *address, bool reserved, struct error *err)
{
    if (s->n_listeners == HTTP_MAX_LISTENERS)
        return error_set(err, ERR_FULL, "more than %d HTTP addresses", HTTP_MAX_LISTENERS);
    struct http_listener *l = &s->listeners[s->n_listeners++];
    l->server = s;
    l->reserved = reserved;
    bool is_unix = strncmp(address, HTTP_UNIX, strlen(HTTP_UNIX)) == 0;
    enum status st = is_unix ? listen_unix(l, address, err) : listen_tcp(l, address, err);
    if (l->open) l->u.handle.data = l;
    return st;
}
