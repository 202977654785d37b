/* leases.h - whose work a node still keeps after their sessions have ended, and until when.  Plain data. */
#ifndef NODE_LEASES_H
#define NODE_LEASES_H
#include <stdbool.h>
#include <stdint.h>

#define LEASES_MAX 8 /* earlier coordinators at one address */

struct leases {
    struct lease {
        uint64_t incarnation; /* 0 = empty */
        uint64_t until_ms;
    } items[LEASES_MAX];
};

bool leases_add(struct leases *ls, uint64_t incarnation, uint64_t until_ms); /* false: there is no room */
void leases_shorten(struct leases *ls, uint64_t until_ms);
void leases_extend(struct leases *ls, uint64_t ms);
bool leases_take(struct leases *ls, uint64_t incarnation);        /* removes it, if it is there */
uint64_t leases_take_expired(struct leases *ls, uint64_t now_ms); /* removes one; 0 = none */
#endif
