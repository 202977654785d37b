/* http_peer: addresses, networks, and what proxies say of their clients. */
#include "http/http_peer.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <string.h>

static struct http_address address(const char *text)
{
    struct http_address a = { { 0 } };
    cr_assert(http_address_parse(&a, text, strlen(text)), "%s", text);
    return a;
}

static struct http_trust trust(const char *network)
{
    struct http_trust t = { .n = 0 };
    struct error err = { 0 };
    cr_assert_eq(http_trust_add(&t, network, &err), OK, "%s", err.text);
    return t;
}

static bool has(const char *network, const char *text)
{
    struct http_trust t = trust(network);
    struct http_address a = address(text);
    return http_trust_has(&t, &a);
}

Test(http_peer, networks)
{
    cr_assert(has("10.0.0.0/8", "10.255.3.4") && !has("10.0.0.0/8", "11.0.0.1"));
    cr_assert(has("192.168.1.128/25", "192.168.1.200") && !has("192.168.1.128/25", "192.168.1.100"));
    cr_assert(has("10.0.0.1", "10.0.0.1") && !has("10.0.0.1", "10.0.0.2"));
    cr_assert(has("fd00::/8", "fd12:3456::1") && !has("fd00::/8", "fe80::1"));
    cr_assert(has("10.0.0.0/8", "::ffff:10.1.1.1"), "a mapped address is the same one");
    cr_assert(has("0.0.0.0/0", "8.8.8.8") && !has("0.0.0.0/0", "2001:db8::1"));
}

Test(http_peer, what_is_no_network_is_refused)
{
    static const char *const bad[] = { "", "10.0.0", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/x", "fd00::/129", "proxy" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct http_trust t = { .n = 0 };
        struct error err = { 0 };
        cr_assert_eq(http_trust_add(&t, bad[i], &err), ERR_INVALID, "%s", bad[i]);
    }
}

Test(http_peer, addresses_are_written_as_they_are_read)
{
    static const char *const texts[] = { "10.0.0.1", "2001:db8::5", "::1", "0.0.0.0" };
    char buf[INET6_ADDRSTRLEN];
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct http_address a = address(texts[i]);
        cr_assert_str_eq(http_address_text(&a, buf), texts[i]);
    }
}

static bool forwarded(const char *field, const char *expect)
{
    struct http_trust t = trust("10.0.0.0/8");
    struct http_address got, want = { { 0 } };
    if (!http_address_forwarded(&got, field, &t)) return expect == NULL;
    if (expect) want = address(expect);
    return expect && memcmp(&got, &want, sizeof(want)) == 0;
}

Test(http_peer, the_last_that_is_no_proxy_of_ours_is_the_client)
{
    cr_assert(forwarded("8.8.8.8", "8.8.8.8"));
    cr_assert(forwarded("1.1.1.1, 8.8.8.8, 10.0.0.7", "8.8.8.8"), "what a client wrote itself stands in front");
    cr_assert(forwarded(" 2001:db8::5 ", "2001:db8::5"));
    cr_assert(forwarded("[2001:db8::5]", "2001:db8::5"));
    cr_assert(forwarded("10.0.0.1, 10.0.0.2", NULL));
    cr_assert(forwarded("8.8.8.8, nonsense", NULL));
    cr_assert(forwarded("", NULL));
    cr_assert(forwarded(",", NULL));
}

static size_t proxy_header(uint8_t *p, uint8_t command, uint8_t family, const void *addresses, size_t n)
{
    memcpy(p, "\r\n\r\n\0\r\nQUIT\n", 12);
    p[12] = command;
    p[13] = family;
    p[14] = (uint8_t)(n >> 8);
    p[15] = (uint8_t)n;
    memcpy(p + 16, addresses, n);
    return 16 + n;
}

Test(http_peer, proxy_headers)
{
    uint8_t p[HTTP_PROXY_V2_MAX + 64] = { 0 };
    static const uint8_t v4[12] = { 8, 8, 4, 4, 10, 0, 0, 1, 1, 2, 3, 4 }, zeros[HTTP_PROXY_V2_MAX];
    struct http_address got, want = address("8.8.4.4"), v6 = address("2001:db8::9");
    size_t used = 0, n = proxy_header(p, 0x21, 0x11, v4, sizeof(v4));
    for (size_t i = 1; i < n; i++) cr_assert_eq(http_proxy_read(p, i, &got, &used), HTTP_PROXY_MORE, "%zu", i);
    cr_assert_eq(http_proxy_read(p, n + 5, &got, &used), HTTP_PROXY_CLIENT);
    cr_assert(used == n && memcmp(&got, &want, sizeof(want)) == 0);

    uint8_t v6_pair[36 + 7] = { 0 };
    memcpy(v6_pair, v6.b, sizeof(v6.b));
    n = proxy_header(p, 0x21, 0x21, v6_pair, sizeof(v6_pair)); /* with something more behind the addresses */
    cr_assert_eq(http_proxy_read(p, n, &got, &used), HTTP_PROXY_CLIENT);
    cr_assert(used == n && memcmp(&got, &v6, sizeof(v6)) == 0);

    n = proxy_header(p, 0x20, 0x00, v4, 0);
    cr_assert_eq(http_proxy_read(p, n, &got, &used), HTTP_PROXY_LOCAL);
    n = proxy_header(p, 0x11, 0x11, v4, sizeof(v4));
    cr_assert_eq(http_proxy_read(p, n, &got, &used), HTTP_PROXY_BAD, "version 1");
    n = proxy_header(p, 0x21, 0x11, v4, 8);
    cr_assert_eq(http_proxy_read(p, n, &got, &used), HTTP_PROXY_BAD, "too short");
    n = proxy_header(p, 0x21, 0x11, zeros, HTTP_PROXY_V2_MAX);
    cr_assert_eq(http_proxy_read(p, n, &got, &used), HTTP_PROXY_BAD, "too long");
    cr_assert_eq(http_proxy_read((const uint8_t *)"GET / HTTP/1.1", 14, &got, &used), HTTP_PROXY_NONE);
    cr_assert_eq(http_proxy_read((const uint8_t *)"\r\nGET", 5, &got, &used), HTTP_PROXY_NONE);
}

Test(http_peer, networks_of_every_width)
{
    static const struct {
        const char *network, *in, *out;
    } rows[] = {
        { "128.0.0.0/1", "255.0.0.1", "127.0.0.1" },
        { "10.0.0.0/7", "11.255.255.255", "12.0.0.0" },
        { "10.128.0.0/9", "10.129.0.0", "10.127.0.0" },
        { "10.1.2.0/31", "10.1.2.1", "10.1.2.2" },
        { "10.1.2.3/32", "10.1.2.3", "10.1.2.2" },
        { "2001:db8::/32", "2001:db8:ffff::", "2001:db9::" },
        { "2001:db8::/33", "2001:db8:7fff::", "2001:db8:8000::" },
        { "::1/128", "::1", "::2" },
        { "::2/127", "::3", "::1" },
        { "[fd00::1]", "fd00::1", "fd00::2" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        cr_assert(has(rows[i].network, rows[i].in) && !has(rows[i].network, rows[i].out), "%s", rows[i].network);
    static const char *const bad[] = { "10.0.0.0/-1",
                                       "10.0.0.0/ 8",
                                       "10.0.0.0/+8",
                                       "10.0.0.0/8x",
                                       "/8",
                                       "[::1",
                                       "::1]",
                                       "[]",
                                       "[",
                                       "1.2.3.4.5",
                                       "2001:db8::5/129",
                                       "1111:2222:3333:4444:5555:6666:255.255.255.2555" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct http_trust t = { .n = 0 };
        struct error err = { 0 };
        cr_assert(http_trust_add(&t, bad[i], &err) == ERR_INVALID && t.n == 0, "%s", bad[i]);
    }
    struct http_address longest = address("1111:2222:3333:4444:5555:6666:255.255.255.255");
    cr_assert(longest.b[0] == 0x11 && longest.b[15] == 255);
    struct http_trust t = { .n = 0 };
    struct error err = { 0 };
    for (int i = 0; i < HTTP_MAX_TRUSTED; i++) cr_assert_eq(http_trust_add(&t, "10.0.0.1", &err), OK);
    cr_assert_eq(http_trust_add(&t, "10.0.0.1", &err), ERR_FULL);
    cr_assert_str_eq(err.text, "more than 64 networks");
}

Test(http_peer, loopback_is_the_whole_network)
{
    static const char *const own[] = { "127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1" };
    static const char *const other[] = { "128.0.0.1", "126.0.0.1", "::2", "::", "fe80::1" };
    for (size_t i = 0; i < 4; i++) {
        struct http_address a = address(own[i]);
        cr_assert(http_address_is_loopback(&a), "%s", own[i]);
    }
    for (size_t i = 0; i < 5; i++) {
        struct http_address a = address(other[i]);
        cr_assert_not(http_address_is_loopback(&a), "%s", other[i]);
    }
}

Test(http_peer, forwarded_fields_with_blanks_and_loopback)
{
    cr_assert(forwarded("8.8.8.8,127.0.0.1", "8.8.8.8"));
    cr_assert(forwarded("8.8.8.8 , 10.0.0.1 ,::1", "8.8.8.8"));
    cr_assert(forwarded("8.8.8.8,9.9.9.9", "9.9.9.9"));
    cr_assert(forwarded("8.8.8.8,  ", NULL));
    cr_assert(forwarded(", 8.8.8.8", "8.8.8.8"));
    cr_assert(forwarded("127.0.0.1", NULL));
}

Test(http_peer, proxy_headers_at_their_bounds)
{
    static const struct {
        uint8_t command, family;
        size_t n;
        enum http_proxy want;
    } rows[] = {
        { 0x21, 0x11, 12, HTTP_PROXY_CLIENT },
        { 0x21, 0x12, 12, HTTP_PROXY_CLIENT },
        { 0x21, 0x11, 11, HTTP_PROXY_BAD },
        { 0x21, 0x21, 36, HTTP_PROXY_CLIENT },
        { 0x21, 0x21, 35, HTTP_PROXY_BAD },
        { 0x21, 0x31, 216, HTTP_PROXY_LOCAL },
        { 0x21, 0x00, 0, HTTP_PROXY_LOCAL },
        { 0x21, 0x41, 40, HTTP_PROXY_BAD },
        { 0x20, 0x11, 12, HTTP_PROXY_LOCAL },
        { 0x22, 0x11, 12, HTTP_PROXY_BAD },
        { 0x31, 0x11, 12, HTTP_PROXY_BAD },
        { 0x11, 0x11, 12, HTTP_PROXY_BAD },
        { 0x21, 0x11, HTTP_PROXY_V2_MAX - HTTP_PROXY_V2_HEAD, HTTP_PROXY_CLIENT },
        { 0x21, 0x11, HTTP_PROXY_V2_MAX - HTTP_PROXY_V2_HEAD + 1, HTTP_PROXY_BAD },
    };
    static const uint8_t zeros[HTTP_PROXY_V2_MAX];
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint8_t p[2 * HTTP_PROXY_V2_MAX];
        struct http_address got;
        size_t used = 0, n = proxy_header(p, rows[i].command, rows[i].family, zeros, rows[i].n);
        cr_assert_eq(http_proxy_read(p, n, &got, &used), rows[i].want, "%zu", i);
        if (rows[i].want != HTTP_PROXY_BAD) {
            cr_assert_eq(used, n, "%zu", i);
            cr_assert(rows[i].n == 0 || http_proxy_read(p, n - 1, &got, &used) == HTTP_PROXY_MORE, "%zu", i);
        }
    }
}

Test(http_peer, connections_are_counted_by_address)
{
    struct http_peer *peers = NULL;
    struct http_address a = address("8.8.8.8"), b = address("8.8.8.9");
    struct http_address host = address("2001:db8:1:2::1"), same = address("2001:db8:1:2:ffff::9");
    struct http_peer *first = http_peer_take(&peers, &a, 2), *second = http_peer_take(&peers, &a, 2);
    cr_assert(first && second == first);
    cr_assert_null(http_peer_take(&peers, &a, 2));
    struct http_peer *other = http_peer_take(&peers, &b, 2);
    cr_assert(other && other != first);
    http_peer_give(&peers, second);
    cr_assert_not_null(http_peer_take(&peers, &a, 2));
    struct http_peer *wide = http_peer_take(&peers, &host, 1);
    cr_assert_not_null(wide);
    cr_assert_null(http_peer_take(&peers, &same, 1), "one host has 2^64 addresses");
    http_peer_give(&peers, first);
    http_peer_give(&peers, first);
    http_peer_give(&peers, other);
    http_peer_give(&peers, wide);
    http_peer_give(&peers, NULL);
    cr_assert_null(peers);
}
