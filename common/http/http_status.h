/* http_status.h - the one table of statuses that are ever sent: reason, and the word for it in JSON error bodies.
 *
 * The words are OpenAI's and llama-server's.  docs/api.md has a row for each that is an error; lint compares. */
#ifndef HTTP_HTTP_STATUS_H
#define HTTP_HTTP_STATUS_H

/*    status  reason                             error type */
#define HTTP_STATUS_TABLE(X)                                                                                           \
    X(200, "OK", "")                                                                                                   \
    X(204, "No Content", "")                                                                                           \
    X(400, "Bad Request", "invalid_request_error")                                                                     \
    X(403, "Forbidden", "permission_error")                                                                            \
    X(404, "Not Found", "not_found_error")                                                                             \
    X(405, "Method Not Allowed", "invalid_request_error")                                                              \
    X(408, "Request Timeout", "timeout_error")                                                                         \
    X(409, "Conflict", "invalid_request_error")                                                                        \
    X(413, "Content Too Large", "invalid_request_error")                                                               \
    X(415, "Unsupported Media Type", "invalid_request_error")                                                          \
    X(417, "Expectation Failed", "invalid_request_error")                                                              \
    X(429, "Too Many Requests", "rate_limit_error")                                                                    \
    X(431, "Request Header Fields Too Large", "invalid_request_error")                                                 \
    X(500, "Internal Server Error", "server_error")                                                                    \
    X(501, "Not Implemented", "not_supported_error")                                                                   \
    X(503, "Service Unavailable", "unavailable_error")                                                                 \
    X(504, "Gateway Timeout", "timeout_error")                                                                         \
    X(505, "HTTP Version Not Supported", "invalid_request_error")

struct http_status {
    int status;
    const char *reason;
    const char *type; /* "" where it is no error */
};

/* NULL: the status is not one that is sent. */
const struct http_status *http_status_find(int status);
#endif
