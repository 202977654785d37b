/* ask.c - the way of a body: loop, worker, loop. */
#include "coordinator/ask.h"

#include "base/mem.h"
#include "base/mem_later.h"
#include "base/metrics.h"
#include "coordinator/cluster/dispatch.h"
#include "coordinator/meters.h"
#include "coordinator/services.h"

#include <assert.h>

static void unlink_ask(struct ask *a)
{
    struct services *sv = a->http.sv;
    if (a->prev)
        a->prev->next = a->next;
    else
        sv->asks = a->next;
    if (a->next) a->next->prev = a->prev;
    sv->n_asks--;
}

static void link_ask(struct ask *a)
{
    struct services *sv = a->http.sv;
    a->next = sv->asks;
    if (a->next) a->next->prev = a;
    sv->asks = a;
    sv->n_asks++;
}

static void on_gone(void *ctx, struct http_exchange *x)
{
    struct ask *a = ctx;
    struct api_error e;
    api_error_set(&e, ERR_CANCELLED, NULL, NULL, "the client went away");
    metric_add(a->http.sv->meters->disconnects, 1);
    meters_request(a->http.sv->meters, "", a->http.endpoint, e.http);
    a->http.x = NULL;
    work_cancel(a->http.sv->work, &a->item);
}

static void run(struct work_item *item)
{
    struct ask *a = (struct ask *)item;
    a->status = a->kind->prepare(a);
    mem_free(a->body);
    a->body = NULL;
}

static void done(struct work_item *item)
{
    struct ask *a = (struct ask *)item;
    unlink_ask(a);
    if (a->http.x) {
        http_on_gone(a->http.x, NULL, NULL);
        if (a->status == OK)
            a->kind->answer(a);
        else
            api_reply_error(&a->http, a->model, &a->e);
    }
    a->kind->fini(a);
    mem_free_later(a->body, a->n_body); /* still there if it was cancelled before its turn */
    mem_free(a);
}

static void refuse_full(const struct api_ask *http)
{
    struct api_error e;
    const struct work *w = http->sv->work;
    api_error_set(&e, ERR_FULL, "workers_full", NULL,
                  "too many requests are being read: %u, with %llu bytes; try again", work_items(w),
                  (unsigned long long)work_bytes(w));
    api_reply_error(http, "", &e);
}

void ask_start(const struct api_ask *http, const struct ask_kind *kind, void (*init)(struct ask *ask, const void *arg),
               const void *arg)
{
    struct services *sv = http->sv;
    if (!work_has_room(sv->work, http_body(http->x).n)) {
        refuse_full(http);
        return;
    }
    struct ask *a = mem_zalloc(kind->size);
    a->item.run = run;
    a->item.done = done;
    a->item.bytes = http_body(http->x).n;
    a->http = *http;
    a->http.tail = "";
    a->kind = kind;
    a->model = "";
    for (uint32_t i = 0; i < sv->n_models; i++)
        a->n_ctx[i] = registry_context(dispatch_registry(sv->dispatch), sv->models[i]);
    if (init) init(a, arg);
    a->body = http_take_body(http->x, &a->n_body);
    link_ask(a);
    http_on_gone(http->x, on_gone, a);
    enum status st = work_submit(sv->work, &a->item);
    assert(st == OK); /* there is room, and this thread alone takes it */
}

struct bytes ask_body(const struct ask *ask)
{
    return bytes_of(ask->body, ask->n_body);
}

void ask_fail_all(struct services *sv, const struct api_error *e)
{
    for (struct ask *a = sv->asks; a; a = a->next) {
        struct http_exchange *x = a->http.x;
        if (!x) continue;
        http_on_gone(x, NULL, NULL);
        api_reply_error(&a->http, "", e);
        a->http.x = NULL;
        work_cancel(sv->work, &a->item);
    }
}
