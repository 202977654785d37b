/* host_port.c - the one place where such a text is taken apart. */
#include "base/host_port.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define TCP      "tcp://"
#define MAX_PORT 65535

/* At most five digits, as more are no port. */
static bool read_port(const char **text, uint32_t *out)
{
    const char *p = *text;
    uint32_t v = 0;
    while (isdigit((unsigned char)*p) && p - *text < 5) v = v * 10 + (uint32_t)(*p++ - '0');
    if (p == *text || v > MAX_PORT) return false;
    *text = p;
    *out = v;
    return true;
}

static bool read_ports(const char *text, uint32_t *lo, uint32_t *hi)
{
    if (!read_port(&text, lo)) return false;
    *hi = *lo;
    if (*text == '-') {
        text++;
        if (*lo == 0 || !read_port(&text, hi)) return false;
    }
    return *text == '\0' && *hi >= *lo;
}

/* An IPv6 address, with a zone where it has one: fe80::1%eth0. */
static bool is_ipv6(const char *host)
{
    char address[INET6_ADDRSTRLEN];
    uint8_t v6[16];
    const size_t n = strcspn(host, "%");
    if (n >= sizeof(address) || (host[n] == '%' && host[n + 1] == '\0')) return false;
    memcpy(address, host, n);
    address[n] = '\0';
    return inet_pton(AF_INET6, address, v6) == 1;
}

/* A name of the DNS, of an interface, or an IPv4 address. */
static bool is_name(const char *host)
{
    if (strcmp(host, "*") == 0) return true;
    for (const char *p = host; *p; p++)
        if (!isalnum((unsigned char)*p) && !strchr(".-_", *p)) return false;
    return *host != '\0';
}

bool host_port_split(const char *text, struct host_port *out)
{
    struct host_port hp = { .is_tcp = strncmp(text, TCP, strlen(TCP)) == 0 };
    const char *host = hp.is_tcp ? text + strlen(TCP) : text, *colon = strrchr(host, ':');
    if (!colon || !read_ports(colon + 1, &hp.lo, &hp.hi)) return false;
    size_t n = (size_t)(colon - host);
    hp.is_ipv6 = n >= 2 && host[0] == '[' && host[n - 1] == ']';
    if (hp.is_ipv6) host++, n -= 2;
    if (n >= sizeof(hp.host)) return false;
    memcpy(hp.host, host, n);
    if (!(hp.is_ipv6 ? is_ipv6(hp.host) : is_name(hp.host))) return false;
    *out = hp;
    return true;
}

bool host_port_replace(char *buf, size_t cap, const char *text, uint32_t port)
{
    struct host_port hp;
    if (!host_port_split(text, &hp)) return false;
    const int before = (int)(strrchr(text, ':') - text);
    const int n = snprintf(buf, cap, "%.*s:%u", before, text, port);
    return n > 0 && (size_t)n < cap;
}

bool host_port_lane(char *buf, size_t cap, const char *text, uint32_t lane, uint32_t instead)
{
    struct host_port hp;
    if (!host_port_split(text, &hp)) return false;
    const uint64_t port = hp.lo ? (uint64_t)hp.lo + lane : instead;
    return port <= UINT16_MAX && host_port_replace(buf, cap, text, (uint32_t)port);
}

/* localhost means this host everywhere (RFC 6761), also where no /etc/hosts says so, as in a bare container. */
static const char *known_name(const char *host)
{
    struct addrinfo *found = NULL;
    if (strcasecmp(host, "localhost") != 0) return host;
    if (getaddrinfo(host, NULL, NULL, &found) != 0) return "127.0.0.1";
    freeaddrinfo(found);
    return host;
}

const char *host_port_known(char *buf, size_t cap, const char *text)
{
    struct host_port hp;
    if (!host_port_split(text, &hp)) return text;
    const char *host = known_name(hp.host);
    if (host == hp.host) return text;
    const int n = snprintf(buf, cap, "%s%s%s", hp.is_tcp ? TCP : "", host, strrchr(text, ':'));
    return n > 0 && (size_t)n < cap ? buf : text;
}

int host_port_resolve(const struct host_port *hp, struct sockaddr_storage *out)
{
    const char *host = known_name(hp->host);
    static const int families[] = { AF_INET, AF_INET6 };
    struct addrinfo *found = NULL;
    char port[8];
    int e = EAI_NONAME;
    snprintf(port, sizeof(port), "%u", hp->lo);
    for (int i = hp->is_ipv6 ? 1 : 0; i < 2 && !found; i++) {
        const struct addrinfo hints = { .ai_family = families[i],
                                        .ai_socktype = SOCK_STREAM,
                                        .ai_flags = AI_PASSIVE | AI_NUMERICSERV };
        e = getaddrinfo(host, port, &hints, &found);
    }
    if (e != 0) return e;
    memset(out, 0, sizeof(*out));
    memcpy(out, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return 0;
}
