/* http_peer.h - who a connection comes from: addresses, trusted proxies and what they say, connections of each.
 *
 * Pure but for the counts, without any socket.  IPv4 is kept as mapped IPv6; of an IPv6 address the first 64 bits
 * count, as one host has all of those. */
#ifndef HTTP_HTTP_PEER_H
#define HTTP_HTTP_PEER_H
#include "base/error.h"

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <uthash.h>

#define HTTP_MAX_TRUSTED   64
#define HTTP_PROXY_V2_MAX  536 /* header and addresses, with room for what proxies add */
#define HTTP_PROXY_V2_HEAD 16

struct http_address {
    uint8_t b[16];
};

struct http_trust { /* networks whose word about a client's address is taken */
    struct {
        struct http_address network;
        uint32_t bits;
    } items[HTTP_MAX_TRUSTED];
    uint32_t n;
};

/* "10.0.0.1", "10.0.0.0/8", "fd00::/8". */
enum status http_trust_add(struct http_trust *t, const char *text, struct error *err) MUST_CHECK;
bool http_trust_has(const struct http_trust *t, const struct http_address *a);

bool http_address_parse(struct http_address *out, const char *text, size_t n);
/* False: neither IPv4 nor IPv6. */
bool http_address_of(struct http_address *out, const struct sockaddr *from);
/* As inet_ntop() writes it, IPv4 without the mapping; returns buf. */
const char *http_address_text(const struct http_address *a, char buf[INET6_ADDRSTRLEN]);
bool http_address_is_loopback(const struct http_address *a);
/* The client that X-Forwarded-For names: the last address that is no proxy of ours.  False: none. */
bool http_address_forwarded(struct http_address *out, const char *field, const struct http_trust *t);

enum http_proxy {
    HTTP_PROXY_NONE, /* the bytes are no PROXY header */
    HTTP_PROXY_MORE,
    HTTP_PROXY_LOCAL, /* complete, without an address: the proxy itself asks */
    HTTP_PROXY_CLIENT,
    HTTP_PROXY_BAD,
};
/* Reads a PROXY v2 header at the start of n bytes; *used is its length once it is complete. */
enum http_proxy http_proxy_read(const uint8_t *p, size_t n, struct http_address *out, size_t *used);

struct http_peer { /* an address that has connections */
    struct http_address address;
    uint32_t n;
    UT_hash_handle hh;
};
/* Counts one more of this address; NULL if it has `max` already. */
struct http_peer *http_peer_take(struct http_peer **peers, const struct http_address *a, uint32_t max);
void http_peer_give(struct http_peer **peers, struct http_peer *p); /* NULL is fine */
#endif
