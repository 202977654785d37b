/* port_probe: a port refuses when every address of its host says so. */
#include "node/port_probe.h"

#include <criterion/criterion.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <unistd.h>

static uv_loop_t loop;
static int calls;
static bool refused;

static void on_probed(void *ctx, bool refuses)
{
    cr_assert_eq(ctx, &calls);
    calls++;
    refused = refuses;
}

/* Listens on a port, or binds it alone: then it refuses.  False: this host has no such address. */
static bool bind_port(int family, uint16_t *port, bool listens)
{
    struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
    struct sockaddr *to = family == AF_INET ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6;
    socklen_t n = family == AF_INET ? sizeof(v4) : sizeof(v6);
    const int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, to, n) != 0) return false;
    if (listens) cr_assert_eq(listen(fd, 8), 0);
    cr_assert_eq(getsockname(fd, to, &n), 0);
    *port = ntohs(family == AF_INET ? v4.sin_port : v6.sin6_port);
    return true;
}

static bool refuses(const char *host, uint16_t port)
{
    char endpoint[64];
    snprintf(endpoint, sizeof(endpoint), "tcp://%s:%u", host, port);
    calls = 0;
    cr_assert(port_probe_start(&loop, endpoint, on_probed, &calls), "%s", endpoint);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_assert_eq(calls, 1);
    return refused;
}

static void setup(void)
{
    cr_assert_eq(uv_loop_init(&loop), 0);
}

TestSuite(port_probe, .init = setup);

Test(port_probe, a_listener_does_not_refuse_and_a_free_port_does)
{
    uint16_t taken = 0, unheard = 0;
    cr_assert(bind_port(AF_INET, &taken, true) && bind_port(AF_INET, &unheard, false));
    cr_assert(!refuses("127.0.0.1", taken));
    cr_assert(refuses("127.0.0.1", unheard));
}

Test(port_probe, a_name_that_nobody_has_refuses_nothing)
{
    cr_assert(!refuses("nobody.invalid", 80));
}

Test(port_probe, what_is_no_port_is_not_tried)
{
    static const char *const bad[] = { "",          "tcp://", "tcp://host", "tcp://:1", "tcp://[::1:1", "127.0.0.1:1",
                                       "ipc:///x:1" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        cr_assert_null(port_probe_start(&loop, bad[i], on_probed, &calls), "%s", bad[i]);
}

Test(port_probe, one_that_is_cancelled_says_nothing)
{
    struct port_probe *p = port_probe_start(&loop, "tcp://127.0.0.1:1", on_probed, &calls);
    cr_assert(p);
    port_probe_cancel(p);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_assert_eq(calls, 0);
    cr_assert_eq(uv_loop_close(&loop), 0, "all is closed");
}

/* A host of both kinds of address, in an /etc/hosts that this process alone sees. */
static bool has_two_addresses(const char *name)
{
    char path[] = "/tmp/baton-hosts-XXXXXX";
    const int fd = mkstemp(path);
    FILE *f = fdopen(fd, "w");
    fprintf(f, "::1 %s\n127.0.0.1 %s\n", name, name);
    fclose(f);
    const bool fine = unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
                      mount(path, "/etc/hosts", NULL, MS_BIND, NULL) == 0;
    unlink(path);
    return fine;
}

Test(port_probe, every_address_of_a_name_must_refuse)
{
    uint16_t taken = 0, unheard = 0;
    if (!has_two_addresses("both.invalid"))
        cr_skip_test("a name of two addresses takes a mount, which is not permitted");
    cr_assert(bind_port(AF_INET, &taken, true) && bind_port(AF_INET, &unheard, false));
    cr_assert(!refuses("both.invalid", taken), "IPv4 listens, whatever IPv6 says");
    cr_assert(refuses("both.invalid", unheard));
    if (!bind_port(AF_INET6, &taken, true)) cr_skip_test("this host has no ::1");
    cr_assert(!refuses("both.invalid", taken), "IPv6 listens, whatever IPv4 says");
}
