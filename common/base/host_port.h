/* host_port.h - texts that name a port: "host:9000", "[::1]:9000", "tcp://host:9000", and ranges, "host:9000-9099". */
#ifndef BASE_HOST_PORT_H
#define BASE_HOST_PORT_H
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

struct host_port {
    char host[256];  /* a name, an IPv4 address, an IPv6 address without its brackets, or "*" */
    uint32_t lo, hi; /* the same for one port; a range begins above 0, as that is any port */
    bool is_tcp;     /* "tcp://" stood before it */
    bool is_ipv6;    /* an address in brackets */
};

/* False, and *out as it was: not of that form.  Looks no name up. */
bool host_port_split(const char *text, struct host_port *out) MUST_CHECK;
/* Writes `text` with one port in place of the one, or the range, that it ends with.  False: it cannot be split, or
 * does not fit. */
bool host_port_replace(char *buf, size_t cap, const char *text, uint32_t port) MUST_CHECK;
/* Writes the endpoint of a lane, where `text` names that of lane 0: its port plus `lane`; port 0 becomes `instead`, as
 * each lane then has a port of its own.  False: it cannot be split, does not fit, or there is no such port. */
bool host_port_lane(char *buf, size_t cap, const char *text, uint32_t lane, uint32_t instead) MUST_CHECK;
/* `text`, or where it names a localhost that this host's files do not know, the same with 127.0.0.1, written to buf. */
const char *host_port_known(char *buf, size_t cap, const char *text);
/* The address to bind for it, with port `lo`: of a name that has both kinds the IPv4 one, on every plane.  May wait for
 * the DNS.  0, or what gai_strerror() has words for. */
int host_port_resolve(const struct host_port *hp, struct sockaddr_storage *out) MUST_CHECK;
#endif
