/* status.h - the one table of result codes: name, HTTP status, whether a retry can help.
 *
 * Every call that can fail returns enum status, 0 = OK, and gives results through `out` pointers.
 * The API, the wire and the logs all read this table, so they cannot disagree. */
#ifndef BASE_STATUS_H
#define BASE_STATUS_H
#include <stdbool.h>

#define MUST_CHECK             __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

/*        code               text                    HTTP  retryable */
#define STATUS_TABLE(X)                                                                                                \
    X(OK, "ok", 200, false)                                                                                            \
    X(ERR_INVALID, "invalid", 400, false)         /* a value that is not allowed */                                    \
    X(ERR_PARSE, "parse_error", 400, false)       /* bytes that are not the format */                                  \
    X(ERR_UNSUPPORTED, "unsupported", 400, false) /* well formed, but left out */                                      \
    X(ERR_CONTEXT_LENGTH, "context_length", 400, false)                                                                \
    X(ERR_DENIED, "denied", 403, false)                                                                                \
    X(ERR_NOT_FOUND, "not_found", 404, false)                                                                          \
    X(ERR_MISMATCH, "mismatch", 409, false) /* two sides do not fit */                                                 \
    X(ERR_TOO_LARGE, "too_large", 413, false)                                                                          \
    X(ERR_FULL, "full", 429, true) /* a configured bound is reached */                                                 \
    X(ERR_CANCELLED, "cancelled", 499, false)                                                                          \
    X(ERR_INTERNAL, "internal", 500, true)                                                                             \
    X(ERR_IO, "io", 500, true)                                                                                         \
    X(ERR_CORRUPT, "corrupt", 500, true) /* a checksum or a range is wrong */                                          \
    X(ERR_STALE, "stale", 500, true)     /* of an older epoch or process */                                            \
    X(ERR_NO_MEMORY, "no_memory", 503, true)                                                                           \
    X(ERR_NO_BLOCKS, "no_blocks", 503, true)     /* the kv pool is empty */                                            \
    X(ERR_UNAVAILABLE, "unavailable", 503, true) /* no node can do it now */                                           \
    X(ERR_CLOSED, "closed", 503, true)           /* the peer is gone */                                                \
    X(ERR_TIMEOUT, "timeout", 504, true)

enum status {
#define X(code, text, http, retry) code,
    STATUS_TABLE(X)
#undef X
        STATUS_COUNT
};

/* The word for `st` in logs, on the wire and in metrics labels; "unknown" outside the table. */
const char *status_text(enum status st);
/* The HTTP status that answers a request which ended so; 500 outside the table. */
int status_http(enum status st);
/* Whether the same request may succeed if it is sent again. */
bool status_is_retryable(enum status st);
#endif
