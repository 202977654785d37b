/* ask.h - one HTTP request whose body is read on a worker, and answered on the loop.
 *
 * `prepare` is a function of the body and what the coordinator knows of its models: it reads nothing else and writes
 * into its own struct only.  The client may leave, and the process may end, in between: then `answer` is not called. */
#ifndef COORDINATOR_ASK_H
#define COORDINATOR_ASK_H
#include "base/bytes.h"
#include "config/config.h"
#include "coordinator/api.h"
#include "coordinator/api_error.h"
#include "coordinator/work.h"

struct ask {
    struct work_item item;
    struct ask *prev, *next; /* of the services' list */
    struct api_ask http;     /* x is NULL once the client is gone */
    const struct ask_kind *kind;
    char *body; /* owned; freed on the worker */
    size_t n_body;
    uint32_t n_ctx[CONFIG_MAX_MODELS]; /* longest context that a node offers, by model */
    enum status status;                /* of `prepare`; not OK: e is the answer */
    struct api_error e;
    const char *model; /* label of metrics, "" until `prepare` knows it */
};

struct ask_kind {
    size_t size;                             /* of the struct that begins with struct ask */
    enum status (*prepare)(struct ask *ask); /* on a worker; fills ask->e where it fails */
    void (*answer)(struct ask *ask);         /* on the loop, after OK */
    void (*fini)(struct ask *ask);           /* frees what `prepare` made; after `answer`, or instead of it */
};

/* Takes the body out of the exchange and hands it to a worker, or answers that the house is full.  `init` (may be NULL)
 * fills the kind's own members before. */
void ask_start(const struct api_ask *http, const struct ask_kind *kind, void (*init)(struct ask *ask, const void *arg),
               const void *arg);
struct bytes ask_body(const struct ask *ask);
/* Answers every ask with `e` and cancels its work. */
void ask_fail_all(struct services *sv, const struct api_error *e);
#endif
