/* host_port: what is taken apart, and every shape that is not. */
#include "base/host_port.h"

#include <criterion/criterion.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof(*(a)))

Test(host_port, texts_are_taken_apart)
{
    static const struct {
        const char *text;
        struct host_port want;
    } rows[] = {
        { "127.0.0.1:8080", { "127.0.0.1", 8080, 8080, false, false } },
        { "a-b.c_d.example:0", { "a-b.c_d.example", 0, 0, false, false } },
        { "eth0.100:65535", { "eth0.100", 65535, 65535, false, false } },
        { "*:9", { "*", 9, 9, false, false } },
        { "[::1]:9000", { "::1", 9000, 9000, false, true } },
        { "[::]:1-65535", { "::", 1, 65535, false, true } },
        { "[::ffff:10.0.0.1]:1", { "::ffff:10.0.0.1", 1, 1, false, true } },
        { "[fe80::1%eth0]:9000", { "fe80::1%eth0", 9000, 9000, false, true } },
        { "tcp://[::1]:9000-9099", { "::1", 9000, 9099, true, true } },
        { "tcp://host:00080", { "host", 80, 80, true, false } },
        { "host:7-7", { "host", 7, 7, false, false } },
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct host_port got;
        cr_assert(host_port_split(rows[i].text, &got), "%s", rows[i].text);
        cr_assert_str_eq(got.host, rows[i].want.host);
        cr_assert(got.lo == rows[i].want.lo && got.hi == rows[i].want.hi, "%s: %u-%u", rows[i].text, got.lo, got.hi);
        cr_assert(got.is_tcp == rows[i].want.is_tcp && got.is_ipv6 == rows[i].want.is_ipv6, "%s", rows[i].text);
    }
}

Test(host_port, what_is_of_another_form_is_refused)
{
    static const char *const bad[] = {
        /* no port */
        "",
        ":",
        "host",
        "host:",
        "[::1]",
        "[::1]:",
        "::1",
        "tcp://",
        "tcp://host",
        "tcp://:",
        "tcp://[::1]",
        /* no host */
        ":80",
        "[]:80",
        "tcp://:80",
        "tcp://[]:80",
        "[%eth0]:80",
        /* no number */
        "host:x",
        "host:*",
        "host:80x",
        "host: 80",
        "host:80 ",
        "host:+80",
        "host:-80",
        "host:0x50",
        "host:8.0",
        /* out of range */
        "host:65536",
        "host:99999",
        "host:000080",
        "host:4294967376",
        "host:18446744073709551696",
        /* no range */
        "host:9-",
        "host:-9",
        "host:9-8",
        "host:0-9",
        "host:9-65536",
        "host:1-2-3",
        "host:1-2x",
        "host:1--2",
        /* IPv6 without its brackets, half of them, or something else in them */
        "::1:80",
        "fe80::1%eth0:80",
        "[::1:80",
        "::1]:80",
        "[[::1]]:80",
        "[::1]x:80",
        "x[::1]:80",
        "[::1]80",
        "[127.0.0.1]:80",
        "[host]:80",
        "[*]:80",
        "[::g]:80",
        "[1:2:3]:80",
        "[::1%]:80",
        "[::1]:[::1]:80",
        /* no name */
        "ho st:80",
        "host/:80",
        "a,b:80",
        "a@b:80",
        "**:80",
        "*.a:80",
        "h\x80st:80",
        "host\n:80",
        "unix:/a:80",
        /* other schemes */
        "ipc:///tmp/a:80",
        "http://host:80",
        "TCP://host:80",
        "tcp:/host:80",
        "tcp://tcp://host:80",
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct host_port got = { .host = "untouched", .lo = 1, .hi = 2 };
        cr_assert(!host_port_split(bad[i], &got), "\"%s\"", bad[i]);
        cr_assert(strcmp(got.host, "untouched") == 0 && got.lo == 1 && got.hi == 2, "\"%s\"", bad[i]);
    }
}

Test(host_port, hosts_have_a_bound)
{
    struct host_port got;
    char text[300];
    for (size_t n = 254; n <= 260; n++) {
        memset(text, 'a', n);
        memcpy(text + n, ":80", 4);
        cr_assert_eq(host_port_split(text, &got), n < sizeof(got.host), "%zu bytes", n);
    }
    memset(text, '1', sizeof(text));
    memcpy(text, "[::", 3);
    memcpy(text + 100, "]:80", 5);
    cr_assert(!host_port_split(text, &got));
}

Test(host_port, a_port_is_replaced)
{
    char buf[32];
    cr_assert(host_port_replace(buf, sizeof(buf), "tcp://[::1]:9000-9099", 9001));
    cr_assert_str_eq(buf, "tcp://[::1]:9001");
    cr_assert(host_port_replace(buf, sizeof(buf), "host:0", 65535));
    cr_assert_str_eq(buf, "host:65535");
    cr_assert(!host_port_replace(buf, sizeof(buf), "host", 1));
    cr_assert(host_port_replace(buf, 7, "host:0", 1));
    cr_assert(!host_port_replace(buf, 6, "host:0", 1), "cut off");
}

Test(host_port, addresses_to_bind)
{
    struct sockaddr_storage got;
    struct host_port hp;
    cr_assert(host_port_split("127.0.0.1:80", &hp));
    cr_assert_eq(host_port_resolve(&hp, &got), 0);
    cr_assert(got.ss_family == AF_INET && ntohs(((struct sockaddr_in *)&got)->sin_port) == 80);
    cr_assert(host_port_split("[::1]:81", &hp));
    cr_assert_eq(host_port_resolve(&hp, &got), 0);
    cr_assert(got.ss_family == AF_INET6 && ntohs(((struct sockaddr_in6 *)&got)->sin6_port) == 81);
    cr_assert(host_port_split("nobody.invalid:80", &hp));
    cr_assert_neq(host_port_resolve(&hp, &got), 0);
}

Test(host_port, a_lane_has_the_port_beside_lane_0)
{
    static const struct {
        const char *text;
        uint32_t lane, instead;
        const char *want; /* NULL: refused */
    } rows[] = {
        { "tcp://10.0.0.1:9100", 0, 7, "tcp://10.0.0.1:9100" },
        { "tcp://10.0.0.1:9100", 3, 7, "tcp://10.0.0.1:9103" },
        { "tcp://[::1]:65530", 5, 7, "tcp://[::1]:65535" },
        { "tcp://[::1]:65530", 6, 7, NULL },
        { "host:1", UINT32_MAX, 7, NULL },
        { "tcp://host:0", 3, 40123, "tcp://host:40123" },
        { "tcp://host:0", 3, 0, "tcp://host:0" },
        { "tcp://host", 0, 7, NULL },
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        char buf[64];
        const bool fine = host_port_lane(buf, sizeof(buf), rows[i].text, rows[i].lane, rows[i].instead);
        cr_assert_eq(fine, rows[i].want != NULL, "%s lane %u", rows[i].text, rows[i].lane);
        if (fine) cr_assert_str_eq(buf, rows[i].want);
    }
}

Test(host_port, names_of_this_host_are_known)
{
    static const char *const as_they_are[] = { "tcp://[::1]:80", "10.0.0.1:0", "localhost.example:80", "localhost",
                                               "" };
    char buf[64];
    for (size_t i = 0; i < COUNT(as_they_are); i++)
        cr_assert_eq(host_port_known(buf, sizeof(buf), as_they_are[i]), as_they_are[i]);
    struct addrinfo *found = NULL;
    const bool knows = getaddrinfo("localhost", NULL, NULL, &found) == 0; /* a bare container may not */
    if (knows) freeaddrinfo(found);
    cr_assert_str_eq(host_port_known(buf, sizeof(buf), "tcp://LocalHost:9000-9009"),
                     knows ? "tcp://LocalHost:9000-9009" : "tcp://127.0.0.1:9000-9009");
    cr_assert_str_eq(host_port_known(buf, sizeof(buf), "localhost:1"), knows ? "localhost:1" : "127.0.0.1:1");
    struct sockaddr_storage got;
    struct host_port hp;
    cr_assert(host_port_split("localhost:82", &hp));
    cr_assert_eq(host_port_resolve(&hp, &got), 0);
    cr_assert(got.ss_family == AF_INET && ntohs(((struct sockaddr_in *)&got)->sin_port) == 82);
}
