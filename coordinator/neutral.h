/* neutral.h - values of a JSON member that ask for nothing, and so are taken wherever the member's name is known.
 *
 * Clients send fields at their defaults.  A row of a table says which values of its field are neutral; null always is.
 */
#ifndef COORDINATOR_NEUTRAL_H
#define COORDINATOR_NEUTRAL_H
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

enum neutral_value {
    NEUTRAL_FALSE = 1,
    NEUTRAL_TRUE = 2,
    NEUTRAL_BOOL = NEUTRAL_FALSE | NEUTRAL_TRUE,
    NEUTRAL_EMPTY = 4, /* "", [], {} */
    NEUTRAL_ZERO = 8,
    NEUTRAL_ONE = 16,
    NEUTRAL_MINUS_ONE = 32,
    NEUTRAL_NUMBER = 64, /* any: it shapes what another field would turn on */
    NEUTRAL_LIST = 128,  /* any array, for the same reason */
};

struct neutral {
    unsigned values;   /* bits of enum neutral_value */
    const char *words; /* "none auto": these strings, lists of them, objects whose "type" is one; NULL: none */
};

bool neutral_is(const struct neutral *n, const json_t *v);
/* For messages: `false, "none" or empty`.  Cut at `cap`. */
const char *neutral_describe(const struct neutral *n, char *buf, size_t cap);
#endif
