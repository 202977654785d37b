/* zsock_range.c - one port after the other. */
#include "wire/zsock_range.h"

#include "base/host_port.h"

enum status zsock_bind_range(struct zsock *z, const char *endpoint, char **bound, struct error *err)
{
    struct host_port hp;
    char one[512];
    struct error last;
    enum status st = ERR_INVALID;
    if (!host_port_split(endpoint, &hp) || hp.lo == hp.hi) return zsock_bind(z, endpoint, bound, err);
    for (uint32_t port = hp.lo; port <= hp.hi; port++) {
        if (!host_port_replace(one, sizeof(one), endpoint, port))
            return error_set(err, ERR_INVALID, "%s is too long for an endpoint", endpoint);
        st = zsock_bind(z, one, bound, &last);
        if (st != ERR_IO) break; /* bound, or no other port is better */
    }
    if (st == OK) return OK;
    if (st == ERR_IO) return error_set(err, st, "no port of %s can be bound; the last: %s", endpoint, last.text);
    return error_set(err, st, "%s", last.text);
}
