/* http_status.c - lookup in the table of statuses. */
#include "http/http_status.h"

#include <stddef.h>

static const struct http_status rows[] = {
#define X(status, reason, type) { status, reason, type },
    HTTP_STATUS_TABLE(X)
#undef X
};

const struct http_status *http_status_find(int status)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (rows[i].status == status) return &rows[i];
    return NULL;
}
