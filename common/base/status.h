/* status.h - the one table of result codes: name, HTTP status, whether a retry can help.
 *
 * Every call that can fail returns enum status, 0 = OK, and gives results through `out` pointers.
 * The API, the wire and the logs all read this table, so they cannot disagree. */
#ifndef BASE_STATUS_H
#define BASE_STATUS_H
#include <stdbool.h>

#define MUST_CHECK             __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

/*        code               text                    HTTP  retryable  from a peer */
#define STATUS_TABLE(X)                                                                                                \
    X(OK, "ok", 200, false, OK)                                                                                        \
    X(ERR_INVALID, "invalid", 400, false, ERR_CORRUPT)         /* a value that is not allowed */                       \
    X(ERR_PARSE, "parse_error", 400, false, ERR_CORRUPT)       /* bytes that are not the format */                     \
    X(ERR_UNSUPPORTED, "unsupported", 400, false, ERR_CORRUPT) /* well formed, but left out */                         \
    X(ERR_CONTEXT_LENGTH, "context_length", 400, false, ERR_CORRUPT)                                                   \
    X(ERR_DENIED, "denied", 403, false, ERR_CORRUPT)                                                                   \
    X(ERR_NOT_FOUND, "not_found", 404, false, ERR_STALE)                                                               \
    X(ERR_MISMATCH, "mismatch", 409, false, ERR_CORRUPT) /* two sides do not fit */                                    \
    X(ERR_TOO_LARGE, "too_large", 413, false, ERR_CORRUPT)                                                             \
    X(ERR_FULL, "full", 429, true, ERR_FULL) /* a configured bound is reached */                                       \
    X(ERR_CANCELLED, "cancelled", 499, false, ERR_STALE)                                                               \
    X(ERR_INTERNAL, "internal", 500, true, ERR_INTERNAL)                                                               \
    X(ERR_IO, "io", 500, true, ERR_IO)                                                                                 \
    X(ERR_CORRUPT, "corrupt", 500, true, ERR_CORRUPT) /* a checksum or a range is wrong */                             \
    X(ERR_STALE, "stale", 500, true, ERR_STALE)       /* of an older epoch or process */                               \
    X(ERR_NO_MEMORY, "no_memory", 503, true, ERR_NO_MEMORY)                                                            \
    X(ERR_NO_BLOCKS, "no_blocks", 503, true, ERR_NO_BLOCKS)       /* the kv pool is empty */                           \
    X(ERR_UNAVAILABLE, "unavailable", 503, true, ERR_UNAVAILABLE) /* no node can do it now */                          \
    X(ERR_CLOSED, "closed", 503, true, ERR_CLOSED)                /* the peer is gone */                               \
    X(ERR_TIMEOUT, "timeout", 504, true, ERR_TIMEOUT)

enum status {
#define X(code, text, http, retry, from_peer) code,
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
/* What `st` is called when the bytes in which it was found came from another process of the cluster: damage on the way,
 * or a peer that is wrong, but never the client's fault.  Always retryable, or OK; ERR_INTERNAL outside the table. */
enum status status_from_peer(enum status st);
#endif
