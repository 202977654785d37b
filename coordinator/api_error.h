/* api_error.h - an error as the API says it: HTTP status, type, code, param and a sentence.
 *
 * The body is {"error":{message,type,param,code}}: the words of `type` are llama-server's, `code` is OpenAI's
 * string, so that clients and tests of both read it.  Filled in place, never allocated. */
#ifndef COORDINATOR_API_ERROR_H
#define COORDINATOR_API_ERROR_H
#include "base/status.h"

#include <stdint.h>

struct error;
struct strbuf;
struct http_exchange;

#define API_ERROR_TEXT_MAX  768
#define API_ERROR_PARAM_MAX 128

struct api_error {
    enum status status; /* OK = no error */
    int http;
    const char *type;                /* static */
    const char *code;                /* static; NULL = null */
    char param[API_ERROR_PARAM_MAX]; /* "" = null */
    char message[API_ERROR_TEXT_MAX];
    uint32_t n_prompt_tokens, n_ctx; /* said where n_ctx > 0 */
    uint32_t retry_after_s;          /* 0 = no such header */
    bool retry;                      /* x-should-retry */
};

/* Fills `e` from the status table and returns `st`, so that a failing line reads `return api_error_set(...)`.
 * `code` is static or NULL; `param` is copied, NULL for none. */
enum status api_error_set(struct api_error *e, enum status st, const char *code, const char *param, const char *fmt,
                          ...) PRINTF_LIKE(5, 6);
/* The same for an HTTP status which the status table does not have (405, 415, 501). */
void api_error_http(struct api_error *e, int http, const char *code, const char *fmt, ...) PRINTF_LIKE(4, 5);
/* Takes over what a lower layer said. */
enum status api_error_from(struct api_error *e, const struct error *err, const char *param);
/* Appends the body. */
void api_error_json(const struct api_error *e, struct strbuf *out);
/* Answers with the body and the headers that belong to it.  The exchange is gone after this. */
void api_error_reply(const struct api_error *e, struct http_exchange *x);
#endif
