/* zsock_range.h - binds a free port of a range, for hosts whose firewall lets only some through. */
#ifndef WIRE_ZSOCK_RANGE_H
#define WIRE_ZSOCK_RANGE_H
#include "wire/zsock.h"

/* "tcp://host:9100-9199": the first port that can be bound; any other endpoint as zsock_bind(). */
enum status zsock_bind_range(struct zsock *z, const char *endpoint, char **bound, struct error *err) MUST_CHECK;
#endif
