/* zsock_range.c - one port after the other. */
#include "wire/zsock_range.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum status zsock_bind_range(struct zsock *z, const char *endpoint, char **bound, struct error *err)
{
    const char *colon = strrchr(endpoint, ':'), *dash = colon ? strchr(colon, '-') : NULL;
    char one[512];
    struct error last;
    enum status st = ERR_INVALID;
    if (strncmp(endpoint, "tcp://", 6) != 0 || !dash) return zsock_bind(z, endpoint, bound, err);
    const unsigned long lo = strtoul(colon + 1, NULL, 10), hi = strtoul(dash + 1, NULL, 10);
    if (lo == 0 || hi < lo || hi > 65535)
        return error_set(err, ERR_INVALID, "%s: a range of ports is low-high, within 1..65535", endpoint);
    for (unsigned long port = lo; port <= hi; port++) {
        snprintf(one, sizeof(one), "%.*s:%lu", (int)(colon - endpoint), endpoint, port);
        st = zsock_bind(z, one, bound, &last);
        if (st != ERR_IO) break; /* bound, or no other port is better */
    }
    if (st == OK) return OK;
    if (st == ERR_IO) return error_set(err, st, "no port of %s can be bound; the last: %s", endpoint, last.text);
    return error_set(err, st, "%s", last.text);
}
