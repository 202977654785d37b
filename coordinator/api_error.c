/* api_error.c - status to the words of the API, and the body that carries them. */
#include "coordinator/api_error.h"

#include "base/error.h"
#include "base/json_write.h"
#include "base/strbuf.h"
#include "http/http_server.h"
#include "http/http_status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *type_of(int http)
{
    const struct http_status *row = http_status_find(http);
    return row ? row->type : "server_error"; /* 499 is counted and never sent */
}

static void fill(struct api_error *e, enum status st, int http, const char *code)
{
    *e = (struct api_error){ .status = st, .http = http, .type = type_of(http), .code = code };
    e->retry = http == 429 || http == 503 || http == 504;
    if (http == 429 || http == 503) e->retry_after_s = 1;
    if (st == ERR_CONTEXT_LENGTH) {
        e->type = "exceed_context_size_error";
        e->code = "context_length_exceeded";
    }
}

enum status api_error_set(struct api_error *e, enum status st, const char *code, const char *param, const char *fmt,
                          ...)
{
    fill(e, st, status_http(st), code);
    if (param) snprintf(e->param, sizeof(e->param), "%s", param);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->message, sizeof(e->message), fmt, ap);
    va_end(ap);
    return st;
}

void api_error_http(struct api_error *e, int http, const char *code, const char *fmt, ...)
{
    fill(e, ERR_INVALID, http, code);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->message, sizeof(e->message), fmt, ap);
    va_end(ap);
}

enum status api_error_from(struct api_error *e, const struct error *err, const char *param)
{
    return api_error_set(e, err->status, NULL, param, "%s", err->text);
}

void api_error_json(const struct api_error *e, struct strbuf *out)
{
    strbuf_puts(out, "{\"error\":{\"message\":");
    json_cstr(out, e->message);
    strbuf_puts(out, ",\"type\":");
    json_cstr(out, e->type);
    strbuf_puts(out, ",\"param\":");
    json_cstr(out, e->param[0] ? e->param : NULL);
    strbuf_puts(out, ",\"code\":");
    json_cstr(out, e->code);
    if (e->n_ctx) strbuf_addf(out, ",\"n_prompt_tokens\":%u,\"n_ctx\":%u", e->n_prompt_tokens, e->n_ctx);
    strbuf_puts(out, "}}");
}

void api_error_reply(const struct api_error *e, struct http_exchange *x)
{
    struct strbuf body = STRBUF_INIT;
    char seconds[16];
    api_error_json(e, &body);
    http_set_header(x, "x-should-retry", e->retry ? "true" : "false");
    if (e->retry_after_s) {
        snprintf(seconds, sizeof(seconds), "%u", e->retry_after_s);
        http_set_header(x, "Retry-After", seconds);
    }
    http_reply(x, e->http, "application/json", body.s, body.n);
    strbuf_fini(&body);
}
