/* recovery.c - a node failed a request: a new epoch, somewhere else.  The only place that raises epochs. */
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "coordinator/dispatch_internal.h"
#include "coordinator/meters.h"
#include "coordinator/served_model.h"
#include "text/vocab.h"

#include <stdio.h>

/* Whether what was sent is a whole answer, and only the word of it is missing. */
static bool output_is_complete(const struct request *r, enum request_finish *finish)
{
    uint32_t n = request_n_output(r);
    if (n == 0) return false;
    if (!r->sampling.ignore_eos && vocab_is_end(r->model->vocab, r->tokens[r->n_tokens - 1])) {
        *finish = REQUEST_FINISH_STOP;
        return true;
    }
    *finish = REQUEST_FINISH_LENGTH;
    return n >= r->sampling.max_tokens;
}

/* Lets go of everything that the old epoch has out there, except the decode node's hold if `keep_decode`. */
static void release_epoch(struct dispatch *d, struct request *r, bool keep_decode)
{
    request_drop_early(r);
    for (struct hold *h = r->holds, *next; h; h = next) {
        next = h->next;
        if (h->cancelling || (keep_decode && h->node == r->decode)) continue;
        hold_computed(h);
        jobs_send_cancel(d, r, h);
    }
}

/* Counts the attempt.  False: the request has ended instead. */
static bool may_go_on(struct dispatch *d, struct request *r, enum status st, const char *why)
{
    enum request_finish finish;
    if (request_is_over(r)) return false;
    if (output_is_complete(r, &finish)) {
        dispatch_finish(d, r, finish);
        return false;
    }
    if (++r->attempts >= d->opt.max_attempts) {
        char text[API_ERROR_TEXT_MAX];
        snprintf(text, sizeof(text), "gave up after %u attempts: %s", r->attempts, why[0] ? why : status_text(st));
        dispatch_fail(d, r, status_http(st) >= 500 ? st : ERR_UNAVAILABLE, NULL, text);
        return false;
    }
    metric_add(d->opt.meters->migrated, 1);
    log_warn("request_migrates", "req=%s epoch=%u state=%s output=%u reason=%s", log_quote(r->tag), r->epoch,
             request_state_name(r->state), request_n_output(r), log_quote(why));
    return true;
}

static void replay(struct dispatch *d, struct request *r)
{
    release_epoch(d, r, false);
    r->epoch++;
    dispatch_requeue(d, r);
}

void recovery_decode_lost(struct dispatch *d, struct request *r, enum status st, const char *why)
{
    if (!may_go_on(d, r, st, why)) return;
    r->avoid = r->decode ? r->decode->incarnation : 0;
    replay(d, r);
}

void recovery_no_room(struct dispatch *d, struct request *r)
{
    replay(d, r);
}

/* Another prefill node for the reservation that stays: false if there is none now. */
static bool pick_prefill(struct dispatch *d, struct request *r, struct node **out)
{
    static struct router_node rows[REGISTRY_MAX_NODES];
    static struct node *from[REGISTRY_MAX_NODES];
    uint32_t n = registry_snapshot(&d->registry, clock_now_us(), rows, from);
    struct router_ask ask = {
        .model_idx = r->model->idx, .n_tokens = r->n_tokens, .avoid_prefill = -1, .avoid_decode = -1
    };
    int decode = -1, picked;
    for (uint32_t i = 0; i < n; i++) {
        if (from[i] == r->decode) decode = (int)i;
        if (from[i]->incarnation == r->avoid) ask.avoid_prefill = (int)i;
    }
    if (decode < 0 || router_pick_prefill(rows, n, &ask, decode, &picked) != ROUTER_PICKED) return false;
    *out = picked < 0 ? NULL : from[picked];
    return true;
}

/* A connection that broke twice: the decode node may be dead without anyone knowing yet.  It gets no new work until its
 * next heartbeat, so that attempts are not spent faster than a death is noticed. */
static bool doubt_decode(struct request *r, enum status st)
{
    if (st != ERR_CLOSED || !r->decode || r->attempts < 2) return false;
    r->decode->doubted = true;
    return true;
}

void recovery_prefill_lost(struct dispatch *d, struct request *r, enum status st, const char *why)
{
    struct node *next;
    uint32_t old_epoch = r->epoch;
    if (!may_go_on(d, r, st, why)) return;
    r->avoid = r->prefill ? r->prefill->incarnation : 0;
    struct hold *kept = r->decode ? request_find_hold(r, r->decode, r->epoch) : NULL;
    /* A reservation knows the tokens it was made with: once the client has more, it is a replay. */
    if (doubt_decode(r, st) || !kept || kept->cancelling || r->n_reserved_tokens != r->n_tokens ||
        !pick_prefill(d, r, &next)) {
        replay(d, r);
        return;
    }
    release_epoch(d, r, true);
    kept->epoch = ++r->epoch;
    r->prefill = NULL;
    r->local = !next;
    if (next) jobs_take_prefill(r, next);
    request_set_state(r, REQUEST_RESERVING);
    if (jobs_send_rebind(d, r, old_epoch) != OK)
        recovery_decode_lost(d, r, ERR_CLOSED, "the decode node cannot be reached");
}

void recovery_stalled(struct dispatch *d, struct request *r)
{
    bool at_prefill = r->state == REQUEST_RESERVED || r->state == REQUEST_PREFILLING || r->state == REQUEST_HANDOFF;
    char why[128];
    snprintf(why, sizeof(why), "no progress in state %s for %u ms", request_state_name(r->state),
             d->opt.limits.progress_timeout_ms);
    if (at_prefill && !r->local)
        recovery_prefill_lost(d, r, ERR_TIMEOUT, why);
    else
        recovery_decode_lost(d, r, ERR_TIMEOUT, why);
}

static void lose_node(struct dispatch *d, struct request *r, struct node *n, const char *why)
{
    bool was_decode = n == r->decode, was_prefill = n == r->prefill, held = false;
    for (struct hold *h = r->holds, *next; h; h = next) {
        next = h->next;
        if (h->node != n) continue;
        held |= h->epoch == r->epoch;
        dispatch_close_hold(d, r, h);
    }
    if (request_is_over(r)) return;
    if (was_decode) {
        /* a finished answer only waits for the prefill node's report */
        if (r->finish_pending) dispatch_try_complete(d, r, true);
        if (!request_is_over(r)) recovery_decode_lost(d, r, ERR_CLOSED, why);
    } else if (was_prefill && held && r->state != REQUEST_DECODING) {
        recovery_prefill_lost(d, r, ERR_CLOSED, why);
    } else if (was_prefill) {
        dispatch_try_complete(d, r, true);
    }
}

void recovery_node_gone(struct dispatch *d, struct node *n, const char *why)
{
    struct request *r, *next;
    char text[160];
    n->alive = false;
    snprintf(text, sizeof(text), "node %s is lost: %s", n->name, why);
    HASH_ITER(hh, d->by_id, r, next) lose_node(d, r, n, text);
    HASH_ITER(hh, d->by_id, r, next)
    {
        if (r->decode == n) r->decode = NULL;
        if (r->prefill == n) r->prefill = NULL;
    }
    dispatch_kick(d);
}
