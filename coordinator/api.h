/* api.h - the table of endpoints, and what every answer has in common. */
#ifndef COORDINATOR_API_H
#define COORDINATOR_API_H
#include "http/http_server.h"

struct api_error;
struct services;
struct strbuf;

#define API_REQUEST_ID_MAX 64

struct api_ask { /* one HTTP request on its way to its handler; borrows */
    struct services *sv;
    struct http_exchange *x;
    char request_id[API_REQUEST_ID_MAX + 1]; /* the client's X-Request-Id, or made here */
    const char *tail;                        /* path behind a prefix route */
    const char *endpoint;                    /* label of metrics */
};

/* The http_handler_fn of the coordinator: finds the row, checks method, type and state, calls its handler. */
void api_handle(void *services, struct http_exchange *x);

/* Its http_refused_fn: what the HTTP server refuses by itself is counted and has the headers of every answer. */
void api_refused(void *services, struct http_exchange *x, int status);

/* Answers that are counted by endpoint.  The exchange is gone after these; `model` may be "". */
void api_reply_json(const struct api_ask *ask, int status, const char *model, const struct strbuf *body);
/* The same, taking the memory of `body`: for large ones. */
void api_reply_json_take(const struct api_ask *ask, int status, const char *model, struct strbuf *body);
/* Of any type. */
void api_reply(const struct api_ask *ask, int status, const char *type, const void *body, size_t n);
void api_reply_error(const struct api_ask *ask, const char *model, const struct api_error *e);

/* Handlers; each answers now or later. */
void api_chat_completions(const struct api_ask *ask);
void api_completions(const struct api_ask *ask);
void api_models_list(const struct api_ask *ask);
void api_models_get(const struct api_ask *ask);
void api_tokenize(const struct api_ask *ask);
void api_detokenize(const struct api_ask *ask);
void api_health(const struct api_ask *ask);
void api_live(const struct api_ask *ask);
void api_ready(const struct api_ask *ask);
void api_metrics(const struct api_ask *ask);
void api_nodes(const struct api_ask *ask);
#endif
