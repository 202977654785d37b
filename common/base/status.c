/* status.c - lookups in the table of result codes. */
#include "base/status.h"

#include <stddef.h>

static const struct status_row {
    const char *text;
    int http;
    bool retryable;
    enum status from_peer;
} rows[STATUS_COUNT] = {
#define X(code, text, http, retry, from_peer) [code] = { text, http, retry, from_peer },
    STATUS_TABLE(X)
#undef X
};

static const struct status_row *row_of(enum status st)
{
    return (unsigned)st < STATUS_COUNT ? &rows[st] : NULL;
}

const char *status_text(enum status st)
{
    const struct status_row *row = row_of(st);
    return row ? row->text : "unknown";
}

int status_http(enum status st)
{
    const struct status_row *row = row_of(st);
    return row ? row->http : 500;
}

bool status_is_retryable(enum status st)
{
    const struct status_row *row = row_of(st);
    return row && row->retryable;
}

enum status status_from_peer(enum status st)
{
    const struct status_row *row = row_of(st);
    return row ? row->from_peer : ERR_INTERNAL;
}
