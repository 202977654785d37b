/* http_seat: who is let in when connections are short, and several listening addresses; real sockets, one loop. */
#include "http/http_server.h"

#include "base/host_port.h"
#include "base/mem.h"
#include "base/strbuf.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define MANY 200

static uv_loop_t loop;
static struct http_server *server;
static struct strbuf answer;
static const char *const probes[] = { "/live", "/metrics", NULL };

static struct http_limits limits_of(uint32_t max, uint32_t per_address)
{
    struct http_limits l = { .max_connections = max,
                             .max_per_address = per_address,
                             .reserved_paths = probes,
                             .max_header_bytes = 4096,
                             .max_body_bytes = 1 << 20,
                             .max_unsent_bytes = 4096,
                             .header_timeout_ms = 30000,
                             .idle_timeout_ms = 30000 };
    return l;
}

static void handler(void *ctx, struct http_exchange *x)
{
    struct strbuf big = STRBUF_INIT;
    if (strcmp(http_path(x), "/hold") == 0) return;
    for (int i = 0; strcmp(http_path(x), "/big") == 0 && i < 200000; i++) strbuf_addf(&big, "%d,", i);
    strbuf_puts(&big, "the end");
    http_reply_take(x, 200, "text/plain", &big);
    cr_assert_eq(big.n, 0);
}

static void open_server(const char *address, const struct http_limits *limits)
{
    struct error err = { 0 };
    cr_assert_eq(uv_loop_init(&loop), 0);
    cr_assert_eq(http_server_open(&server, &loop, address, limits, handler, NULL, &err), OK, "%s", err.text);
}

static void close_server(void)
{
    http_server_close(server);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_assert_eq(uv_loop_close(&loop), 0);
    strbuf_fini(&answer);
}

static int dial_port(uint16_t port)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

static uint16_t port_of(const char *address)
{
    struct host_port hp;
    cr_assert(host_port_split(address, &hp), "%s", address);
    return (uint16_t)hp.lo;
}

static int dial(void)
{
    return dial_port(http_server_port(server));
}

static void turn(int n)
{
    for (int i = 0; i < n; i++) uv_run(&loop, UV_RUN_NOWAIT);
}

static void say(int fd, const void *p, size_t n)
{
    cr_assert_eq(send(fd, p, n, MSG_NOSIGNAL), (ssize_t)n);
    turn(3);
}

static void ask(int fd, const char *path, const char *more)
{
    char text[512];
    snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: h\r\n%s\r\n", path, more);
    say(fd, text, strlen(text));
}

/* Reads until `text` has come, or the end. */
static void expect(int fd, const char *text)
{
    char buf[65536];
    strbuf_reset(&answer);
    for (int i = 0; i < 20000; i++) {
        turn(1);
        ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
        if (n > 0) strbuf_add(&answer, buf, (size_t)n);
        if (n == 0 || memmem(strbuf_cstr(&answer), answer.n, text, strlen(text))) break;
        if (n < 0) poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, 1);
    }
    cr_assert(memmem(strbuf_cstr(&answer), answer.n, text, strlen(text)), "no \"%s\" in \"%s\"", text,
              strbuf_cstr(&answer));
}

static void one(int fd, const char *path, const char *more, const char *text)
{
    ask(fd, path, more);
    expect(fd, text);
    close(fd);
    turn(3);
}

Test(http_seat, probes_are_answered_in_a_full_house)
{
    struct http_limits l = limits_of(3, 0);
    int held[3];
    open_server("127.0.0.1:0", &l);
    for (int i = 0; i < 3; i++) ask(held[i] = dial(), "/hold", "");
    one(dial(), "/live", "", "200 OK");
    one(dial(), "/metrics?x=1", "", "the end");
    one(dial(), "/other", "", "503 ");
    one(dial(), "/live/", "", "503 ");
    int fd = dial();
    say(fd, "POST /live HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n", 52);
    expect(fd, "503 ");
    close(fd);
    close(held[0]);
    turn(5);
    one(dial(), "/other", "", "200 OK");
    close(held[1]);
    close(held[2]);
    close_server();
}

Test(http_seat, half_sent_requests_do_not_shut_probes_out)
{
    struct http_limits l = limits_of(16, 0);
    int half[MANY];
    open_server("127.0.0.1:0", &l);
    for (int i = 0; i < MANY; i++) say(half[i] = dial(), i % 2 ? "GET /x" : "GET /live HTTP/1.1\r\nHo", i % 2 ? 6 : 22);
    cr_assert_leq(http_server_connections(server), 16 + HTTP_RESERVE);
    for (int i = 0; i < 10; i++) one(dial(), "/live", "", "200 OK");
    for (int i = 0; i < MANY; i++) close(half[i]);
    close_server();
}

Test(http_seat, an_admin_address_answers_probes_alone)
{
    struct http_limits l = limits_of(1, 0);
    struct error err = { 0 };
    open_server("127.0.0.1:0", &l);
    cr_assert_eq(http_server_listen(server, "127.0.0.1:0", true, &err), OK, "%s", err.text);
    const char *admin = http_server_address(server, 1);
    uint16_t port = port_of(admin);
    cr_assert_null(http_server_address(server, 2));
    one(dial_port(port), "/live", "", "200 OK");
    one(dial_port(port), "/big", "", "404 ");
    one(dial(), "/big", "", "the end");
    close_server();
}

static const char proxied[] = "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"
                              "\x08\x08\x04\x04\x0a\0\0\x01\x01\x02\x03\x04";

Test(http_seat, clients_behind_a_proxy_are_counted_by_its_word)
{
    struct http_limits l = limits_of(16, 2);
    open_server("127.0.0.1:0", &l); /* loopback is a proxy, too */
    int fds[3];
    for (int i = 0; i < 5; i++) one(dial(), "/x", "", "200 OK");
    for (int i = 0; i < 3; i++) {
        fds[i] = dial();
        say(fds[i], proxied, 10); /* in two pieces */
        say(fds[i], proxied + 10, sizeof(proxied) - 1 - 10);
        if (i < 2) ask(fds[i], "/hold", "");
    }
    expect(fds[2], "429 ");
    int fd = dial();
    one(fd, "/x", "X-Forwarded-For: 1.2.3.4, 8.8.4.4\r\n", "429 ");
    one(dial(), "/x", "X-Forwarded-For: 8.8.4.4, 1.2.3.4\r\n", "200 OK");
    close(fds[0]);
    turn(5);
    one(dial(), "/x", "X-Forwarded-For: 8.8.4.4\r\n", "200 OK");
    fd = dial();
    say(fd, "\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c", 16);
    expect(fd, "400 ");
    fd = dial();
    say(fd, "\r\n", 2); /* empty lines before a request are fine */
    one(fd, "/x", "", "200 OK");
    close(fds[1]);
    close(fds[2]);
    close_server();
}

Test(http_seat, several_addresses_serve_the_same)
{
    struct http_limits l = limits_of(16, 0);
    struct error err = { 0 };
    struct stat st;
    char path[64], address[80];
    snprintf(path, sizeof(path), "/tmp/http_seat.%d.sock", (int)getpid());
    snprintf(address, sizeof(address), "unix:%s", path);
    open_server(address, &l);
    cr_assert_eq(http_server_listen(server, "127.0.0.1:0", false, &err), OK, "%s", err.text);
    cr_assert_str_eq(http_server_address(server, 0), address);
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0660);
    cr_assert_neq(http_server_listen(server, address, false, &err), OK, "it is in use");
    cr_assert_not_null(strstr(err.text, path));
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    snprintf(to.sun_path, sizeof(to.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    one(fd, "/big", "", "199999,the end");
    one(dial_port(port_of(http_server_address(server, 1))), "/x", "", "200 OK");
    close_server();
    cr_assert_neq(stat(path, &st), 0, "the file goes with the server");
}

Test(http_seat, a_stale_socket_is_taken_over_and_a_file_is_not)
{
    struct http_limits l = limits_of(16, 0);
    struct error err = { 0 };
    char path[64], address[80];
    snprintf(path, sizeof(path), "/tmp/http_seat.%d.stale", (int)getpid());
    snprintf(address, sizeof(address), "unix:%s", path);
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    snprintf(to.sun_path, sizeof(to.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    close(fd);
    open_server(address, &l);
    close_server();
    FILE *f = fopen(path, "w");
    cr_assert_not_null(f);
    fclose(f);
    cr_assert_eq(uv_loop_init(&loop), 0);
    cr_assert_neq(http_server_open(&server, &loop, address, &l, handler, NULL, &err), OK);
    cr_assert_not_null(strstr(err.text, "a file is there"), "%s", err.text);
    cr_assert_eq(unlink(path), 0, "it is left alone");
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
}
