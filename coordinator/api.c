/* api.c - the routing table and the checks that come before any handler. */
#include "coordinator/api.h"

#include "base/strbuf.h"
#include "coordinator/api_error.h"
#include "coordinator/meters.h"
#include "coordinator/services.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

enum route_flags { ROUTE_PREFIX = 1, ROUTE_WORK = 2 /* refused while draining */ };

static const struct route {
    const char *path;
    const char *method;
    unsigned flags;
    const char *endpoint;
    void (*handler)(const struct api_ask *ask);
} routes[] = {
    { "/v1/chat/completions", "POST", ROUTE_WORK, "chat_completions", api_chat_completions },
    { "/v1/completions", "POST", ROUTE_WORK, "completions", api_completions },
    { "/v1/models", "GET", 0, "models", api_models_list },
    { "/v1/models/", "GET", ROUTE_PREFIX, "models", api_models_get },
    { "/tokenize", "POST", 0, "tokenize", api_tokenize },
    { "/detokenize", "POST", 0, "detokenize", api_detokenize },
    { "/health", "GET", 0, "health", api_health },
    { "/live", "GET", 0, "live", api_live },
    { "/ready", "GET", 0, "ready", api_ready },
    { "/metrics", "GET", 0, "metrics", api_metrics },
    { "/admin/nodes", "GET", 0, "admin", api_nodes },
};
#define N_ROUTES (sizeof(routes) / sizeof(routes[0]))

static bool path_matches(const struct route *r, const char *path)
{
    size_t n = strlen(r->path);
    if (r->flags & ROUTE_PREFIX) return !strncmp(path, r->path, n) && path[n];
    return !strcmp(path, r->path);
}

static bool method_matches(const struct route *r, const char *method)
{
    return !strcmp(r->method, method) || (!strcmp(method, "HEAD") && !strcmp(r->method, "GET"));
}

/* The row of the path and the method; *path_known says whether the path has any. */
static const struct route *find_route(const char *path, const char *method, bool *path_known)
{
    *path_known = false;
    for (size_t i = 0; i < N_ROUTES; i++) {
        if (!path_matches(&routes[i], path)) continue;
        *path_known = true;
        if (method_matches(&routes[i], method)) return &routes[i];
    }
    return NULL;
}

static void allow_of(const char *path, char *buf, size_t cap)
{
    size_t n = 0;
    buf[0] = '\0';
    if (!strcmp(path, "*")) n = (size_t)snprintf(buf, cap, "GET, HEAD, POST, "); /* the server as a whole */
    for (size_t i = 0; i < N_ROUTES && n < cap; i++)
        if (path_matches(&routes[i], path))
            n += (size_t)snprintf(buf + n, cap - n, "%s%s, ", routes[i].method,
                                  strcmp(routes[i].method, "GET") ? "" : ", HEAD");
    if (n < cap) snprintf(buf + n, cap - n, "OPTIONS");
}

static bool id_is_plain(const char *id)
{
    size_t n = 0;
    for (; id[n]; n++)
        if (id[n] <= ' ' || id[n] > '~' || n >= API_REQUEST_ID_MAX) return false;
    return n > 0;
}

static void set_common_headers(struct api_ask *ask)
{
    const char *id = http_header(ask->x, "X-Request-Id"), *origin = http_header(ask->x, "Origin");
    if (id && id_is_plain(id))
        snprintf(ask->request_id, sizeof(ask->request_id), "%s", id);
    else
        snprintf(ask->request_id, sizeof(ask->request_id), "req-%016llx-%llx", (unsigned long long)ask->sv->incarnation,
                 (unsigned long long)++ask->sv->last_call);
    http_set_header(ask->x, "X-Request-Id", ask->request_id);
    if (!origin) return;
    http_set_header(ask->x, "Access-Control-Allow-Origin", origin);
    http_set_header(ask->x, "Access-Control-Expose-Headers", "X-Request-Id, x-baton-ignored-params, Retry-After");
    http_set_header(ask->x, "Vary", "Origin");
}

static void preflight(const struct api_ask *ask, const char *path)
{
    char allow[128];
    const char *headers = http_header(ask->x, "Access-Control-Request-Headers");
    allow_of(path, allow, sizeof(allow));
    http_set_header(ask->x, "Allow", allow);
    http_set_header(ask->x, "Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS");
    http_set_header(ask->x, "Access-Control-Allow-Headers",
                    headers ? headers : "Authorization, Content-Type, X-Request-Id");
    http_set_header(ask->x, "Access-Control-Max-Age", "86400");
    api_reply(ask, 204, NULL, NULL, 0);
}

static bool is_json(const char *type)
{
    static const char json[] = "application/json";
    size_t n = strlen(json);
    return !strncasecmp(type, json, n) && (!type[n] || type[n] == ';' || type[n] == ' ');
}

/* False: `e` says why the request does not get to its handler. */
static bool may_pass(const struct api_ask *ask, const struct route *r, struct api_error *e)
{
    const char *type = http_header(ask->x, "Content-Type"), *coding = http_header(ask->x, "Content-Encoding");
    if (coding && *coding && strcasecmp(coding, "identity") != 0) {
        http_set_header(ask->x, "Accept-Encoding", "identity");
        api_error_http(e, 415, NULL, "Content-Encoding %.40s is not taken: send the body as it is", coding);
        return false;
    }
    if (!strcmp(r->method, "POST") && type && !is_json(type)) {
        api_error_http(e, 415, NULL, "Content-Type must be application/json, not %.80s", type);
        return false;
    }
    if ((r->flags & ROUTE_WORK) && ask->sv->draining) {
        api_error_set(e, ERR_UNAVAILABLE, "draining", NULL, "the coordinator is shutting down");
        meters_rejected(ask->sv->meters, "draining");
        return false;
    }
    return true;
}

static void refuse_route(struct api_ask *ask, const char *path, const char *method, bool path_known)
{
    struct api_error e;
    if (path_known) {
        char allow[128];
        allow_of(path, allow, sizeof(allow));
        http_set_header(ask->x, "Allow", allow);
        api_error_http(&e, 405, NULL, "%.16s is not allowed on %.120s; allowed: %s", method, path, allow);
    } else {
        api_error_set(&e, ERR_NOT_FOUND, NULL, NULL, "there is no endpoint %.120s", path);
    }
    ask->endpoint = "none";
    api_reply_error(ask, "", &e);
}

void api_handle(void *services, struct http_exchange *x)
{
    struct api_ask ask = { .sv = services, .x = x, .tail = "", .endpoint = "none" };
    const char *path = http_path(x), *method = http_method(x);
    struct api_error e;
    bool path_known;
    set_common_headers(&ask);
    const struct route *r = find_route(path, method, &path_known);
    if (!strcmp(method, "OPTIONS")) { /* everywhere: a browser shows an error only after its preflight went well */
        preflight(&ask, path);
        return;
    }
    if (!r) {
        refuse_route(&ask, path, method, path_known);
        return;
    }
    ask.endpoint = r->endpoint;
    if (r->flags & ROUTE_PREFIX) ask.tail = path + strlen(r->path);
    if (may_pass(&ask, r, &e))
        r->handler(&ask);
    else
        api_reply_error(&ask, "", &e);
}

void api_refused(void *services, struct http_exchange *x, int status)
{
    struct api_ask ask = { .sv = services, .x = x, .tail = "", .endpoint = "none" };
    set_common_headers(&ask);
    bool passes = status == 408 || status == 429 || status == 503; /* the same request may succeed later */
    http_set_header(x, "x-should-retry", passes ? "true" : "false");
    meters_request(ask.sv->meters, "", ask.endpoint, status);
}

void api_reply(const struct api_ask *ask, int status, const char *type, const void *body, size_t n)
{
    meters_request(ask->sv->meters, "", ask->endpoint, status);
    http_reply(ask->x, status, type, body, n);
}

void api_reply_json(const struct api_ask *ask, int status, const char *model, const struct strbuf *body)
{
    meters_request(ask->sv->meters, model, ask->endpoint, status);
    http_reply(ask->x, status, "application/json", strbuf_cstr(body), body->n);
}

void api_reply_json_take(const struct api_ask *ask, int status, const char *model, struct strbuf *body)
{
    meters_request(ask->sv->meters, model, ask->endpoint, status);
    http_reply_take(ask->x, status, "application/json", body);
}

void api_reply_error(const struct api_ask *ask, const char *model, const struct api_error *e)
{
    meters_request(ask->sv->meters, model, ask->endpoint, e->http);
    if (e->http == 429) meters_rejected(ask->sv->meters, e->code ? e->code : "full");
    if (e->http == 503 && e->code && strcmp(e->code, "draining") != 0) meters_rejected(ask->sv->meters, e->code);
    api_error_reply(e, ask->x);
}
