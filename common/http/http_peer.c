/* http_peer.c - who a connection comes from. */
#include "http/http_peer.h"

#include "base/mem.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOST_BITS 64 /* of an IPv6 address */

static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

static void put_v4(struct http_address *out, const void *v4)
{
    memcpy(out->b, mapped, sizeof(mapped));
    memcpy(out->b + sizeof(mapped), v4, 4);
}

static bool is_v4(const struct http_address *a)
{
    return memcmp(a->b, mapped, sizeof(mapped)) == 0;
}

static bool starts_alike(const struct http_address *a, const struct http_address *b, uint32_t bits)
{
    uint32_t whole = bits / 8, rest = bits % 8;
    if (memcmp(a->b, b->b, whole) != 0) return false;
    return rest == 0 || (a->b[whole] ^ b->b[whole]) >> (8 - rest) == 0;
}

bool http_address_parse(struct http_address *out, const char *text, size_t n)
{
    char buf[INET6_ADDRSTRLEN];
    uint8_t v4[4];
    if (n >= 2 && text[0] == '[' && text[n - 1] == ']') {
        text++;
        n -= 2;
    }
    if (n == 0 || n >= sizeof(buf)) return false;
    memcpy(buf, text, n);
    buf[n] = '\0';
    if (inet_pton(AF_INET, buf, v4) == 1) {
        put_v4(out, v4);
        return true;
    }
    return inet_pton(AF_INET6, buf, out->b) == 1;
}

bool http_address_of(struct http_address *out, const struct sockaddr *from)
{
    if (from->sa_family == AF_INET) {
        put_v4(out, &((const struct sockaddr_in *)(const void *)from)->sin_addr);
        return true;
    }
    if (from->sa_family != AF_INET6) return false;
    memcpy(out->b, &((const struct sockaddr_in6 *)(const void *)from)->sin6_addr, sizeof(out->b));
    return true;
}

const char *http_address_text(const struct http_address *a, char buf[INET6_ADDRSTRLEN])
{
    const bool v4 = is_v4(a);
    return inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? a->b + sizeof(mapped) : a->b, buf, INET6_ADDRSTRLEN);
}

bool http_address_is_loopback(const struct http_address *a)
{
    static const struct http_address v6 = { { [15] = 1 } };
    return is_v4(a) ? a->b[12] == 127 : memcmp(a, &v6, sizeof(v6)) == 0;
}

enum status http_trust_add(struct http_trust *t, const char *text, struct error *err)
{
    const char *slash = strchr(text, '/');
    size_t n = slash ? (size_t)(slash - text) : strlen(text);
    struct http_address a;
    char *end = NULL;
    if (t->n == HTTP_MAX_TRUSTED) return error_set(err, ERR_FULL, "more than %d networks", HTTP_MAX_TRUSTED);
    bool fine = http_address_parse(&a, text, n);
    uint32_t width = fine && is_v4(&a) ? 32 : 128;
    unsigned long bits = slash ? strtoul(slash + 1, &end, 10) : width;
    fine = fine && bits <= width && (!slash || (slash[1] >= '0' && slash[1] <= '9' && *end == '\0'));
    if (!fine)
        return error_set(err, ERR_INVALID, "\"%.60s\" is no address; such as 10.0.0.1, 10.0.0.0/8 or fd00::/8", text);
    t->items[t->n].network = a;
    t->items[t->n++].bits = 128 - width + (uint32_t)bits;
    return OK;
}

bool http_trust_has(const struct http_trust *t, const struct http_address *a)
{
    for (uint32_t i = 0; i < t->n; i++)
        if (starts_alike(&t->items[i].network, a, t->items[i].bits)) return true;
    return false;
}

bool http_address_forwarded(struct http_address *out, const char *field, const struct http_trust *t)
{
    size_t end = strlen(field);
    while (end > 0) {
        size_t begin = end;
        while (begin > 0 && field[begin - 1] != ',') begin--;
        size_t from = begin, to = end;
        while (from < to && field[from] == ' ') from++;
        while (to > from && field[to - 1] == ' ') to--;
        if (!http_address_parse(out, field + from, to - from)) return false; /* what stands before may be made up */
        if (!http_trust_has(t, out) && !http_address_is_loopback(out)) return true;
        end = begin > 0 ? begin - 1 : 0;
    }
    return false;
}

enum http_proxy http_proxy_read(const uint8_t *p, size_t n, struct http_address *out, size_t *used)
{
    static const uint8_t signature[12] = "\r\n\r\n\0\r\nQUIT\n";
    size_t known = n < sizeof(signature) ? n : sizeof(signature);
    if (memcmp(p, signature, known) != 0) return HTTP_PROXY_NONE;
    if (n < HTTP_PROXY_V2_HEAD) return HTTP_PROXY_MORE;
    size_t length = (size_t)p[14] << 8 | p[15];
    uint8_t command = p[12], family = p[13];
    if (command >> 4 != 2 || (command & 15) > 1 || HTTP_PROXY_V2_HEAD + length > HTTP_PROXY_V2_MAX)
        return HTTP_PROXY_BAD;
    if (n < HTTP_PROXY_V2_HEAD + length) return HTTP_PROXY_MORE;
    *used = HTTP_PROXY_V2_HEAD + length;
    const uint8_t *source = p + HTTP_PROXY_V2_HEAD;
    if ((command & 15) == 0) return HTTP_PROXY_LOCAL;
    if (family >> 4 == 1 && length >= 12) {
        put_v4(out, source);
        return HTTP_PROXY_CLIENT;
    }
    if (family >> 4 == 2 && length >= 36) {
        memcpy(out->b, source, sizeof(out->b));
        return HTTP_PROXY_CLIENT;
    }
    return family >> 4 == 0 || family >> 4 == 3 ? HTTP_PROXY_LOCAL : HTTP_PROXY_BAD;
}

struct http_peer *http_peer_take(struct http_peer **peers, const struct http_address *a, uint32_t max)
{
    struct http_address key = *a;
    struct http_peer *p;
    if (!is_v4(a)) memset(key.b + HOST_BITS / 8, 0, sizeof(key.b) - HOST_BITS / 8);
    HASH_FIND(hh, *peers, &key, sizeof(key), p);
    if (p && p->n >= max) return NULL;
    if (!p) {
        p = mem_zalloc(sizeof(*p));
        p->address = key;
        HASH_ADD(hh, *peers, address, sizeof(p->address), p);
    }
    p->n++;
    return p;
}

void http_peer_give(struct http_peer **peers, struct http_peer *p)
{
    if (!p || --p->n > 0) return;
    HASH_DEL(*peers, p);
    mem_free(p);
}
