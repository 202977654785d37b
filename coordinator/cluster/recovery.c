/* recovery.c - a node failed a request: a new epoch, somewhere else.  The only place that raises epochs. */
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "coordinator/cluster/dispatch_internal.h"
#include "coordinator/meters.h"
#include "coordinator/served_model.h"
#include "text/vocab.h"

#include <stdio.h>

#define REFUSED_PAUSE_US 100000u /* then the node is asked again */
#define MAX_REFUSALS     30      /* in a row, for reasons that do not pass by themselves */

/* Whether what was sent is a whole answer, and only the word of it is missing. */
static bool output_is_complete(const struct request *r, enum finish_reason *finish)
{
    uint32_t n = request_n_output(r);
    if (n == 0) return false;
    if (!r->sampling.ignore_eos && vocab_is_end(r->model->vocab, r->tokens[r->n_tokens - 1])) {
        *finish = FINISH_STOP;
        return true;
    }
    *finish = FINISH_LENGTH;
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
        orders_send_cancel(d, r, h);
    }
}

/* The third node in a row that fails it is the last: a request that kills its nodes must not get them all. */
static void give_up(struct dispatch *d, struct request *r, const char *why)
{
    char text[API_ERROR_TEXT_MAX];
    log_error("request_given_up", "req=%s id=%llu attempts=%u nodes=%s output=%u reason=%s", log_quote(r->tag),
              (unsigned long long)r->id, r->failures.n, r->failures.nodes, request_n_output(r), log_quote(why));
    snprintf(text, sizeof(text), "gave up after %u attempts: %s", r->failures.n, why);
    dispatch_fail(d, r, ERR_INTERNAL, "nodes_failed", text);
}

/* A node failed the request: counts it, if the node had taken the work on.  False: the request has ended. */
static bool may_go_on(struct dispatch *d, struct request *r, const char *node, enum status st, const char *why)
{
    enum finish_reason finish;
    bool taken_on = r->state > REQUEST_RESERVING;
    if (request_is_over(r)) return false;
    if (output_is_complete(r, &finish)) {
        dispatch_finish(d, r, finish);
        return false;
    }
    if (!why || !why[0]) why = status_text(st);
    if (taken_on && request_count_failure(r, node) >= d->opt.max_attempts) {
        give_up(d, r, why);
        return false;
    }
    metric_add(d->opt.meters->migrated, 1);
    log_warn("request_migrates", "req=%s epoch=%u state=%s node=%s attempts=%u output=%u reason=%s", log_quote(r->tag),
             r->epoch, request_state_name(r->state), node, r->failures.n, request_n_output(r), log_quote(why));
    return true;
}

bool recovery_is_last_attempt(const struct dispatch *d, const struct request *r)
{
    return r->failures.n && r->failures.n + 1 >= d->opt.max_attempts;
}

static void replay(struct dispatch *d, struct request *r)
{
    release_epoch(d, r, false);
    r->epoch++;
    if (!r->due_since) r->due_since = clock_now_us();
    dispatch_requeue(d, r);
}

static void avoid(struct request *r, const struct node *n)
{
    r->avoid = n ? n->incarnation : 0;
    r->avoided_at = clock_now_us();
}

void recovery_decode_lost(struct dispatch *d, struct request *r, enum status st, const char *why)
{
    if (!may_go_on(d, r, r->decode_name, st, why)) return;
    avoid(r, r->decode);
    replay(d, r);
}

void recovery_doubt(struct dispatch *d, struct node *n, const char *why)
{
    if (!n->doubted) log_warn("node_doubted", "node=%s reason=%s", n->name, log_quote(why));
    n->doubted = true;
    dispatch_kick(d);
}

void recovery_undoubt(struct dispatch *d, struct node *n)
{
    struct request *r, *next;
    HASH_ITER(hh, d->by_id, r, next)
    if (r->decode == n || r->prefill == n) r->progress = clock_now_us();
    n->doubted = false;
    dispatch_kick(d);
}

bool recovery_is_no_room(enum status st)
{
    return st == ERR_NO_BLOCKS || st == ERR_FULL || st == ERR_NO_MEMORY;
}

/* Whether the reason passes by itself: other work ends, the node drains away.  A node that says it has no room while
 * it holds nothing else would say so for ever. */
static bool reason_passes(const struct node *n, enum status st)
{
    bool alone = n->n_active + n->foreign_active == 0 && !n->foreign_blocks; /* the refused one's hold is closed */
    return st == ERR_UNAVAILABLE || (recovery_is_no_room(st) && !alone);
}

void recovery_refused(struct dispatch *d, struct request *r, struct node *n, enum status st, const char *why)
{
    n->retry_at = clock_now_us() + REFUSED_PAUSE_US;
    if (!reason_passes(n, st) && ++r->refusals >= MAX_REFUSALS) {
        log_error("request_given_up", "req=%s id=%llu refusals=%u nodes=%s output=%u reason=%s", log_quote(r->tag),
                  (unsigned long long)r->id, r->refusals, n->name, request_n_output(r), log_quote(why));
        dispatch_fail(d, r, recovery_is_no_room(st) ? st : ERR_INTERNAL, NULL, why[0] ? why : status_text(st));
        return;
    }
    log_debug("job_refused", "req=%s node=%s status=%s", log_quote(r->tag), n->name, status_text(st));
    replay(d, r);
}

/* Another prefill node for the reservation that stays: false if there is none now. */
static bool pick_prefill(struct dispatch *d, struct request *r, struct node **out)
{
    static struct router_node rows[REGISTRY_MAX_NODES];
    static struct node *from[REGISTRY_MAX_NODES];
    static struct router_pair broken[PAIRS_MAX];
    uint32_t n = registry_snapshot(&d->registry, clock_now_us(), rows, from);
    struct router_ask ask = {
        .model_idx = r->model->idx,
        .max_tokens = r->n_prompt + r->sampling.max_tokens,
        .n_tokens = r->n_tokens,
        .avoid_prefill = -1,
        .avoid_decode = -1,
        .broken = broken,
        .n_broken = dispatch_broken_pairs(d, from, n, broken),
        .no_handoff = recovery_is_last_attempt(d, r),
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

/* The reservation stays, and another prefill node or the decode node itself computes the prompt.  False: it cannot be;
 * a reservation knows the tokens it was made with, so once the client has more, it is a replay. */
static bool rebind(struct dispatch *d, struct request *r)
{
    struct node *next;
    uint32_t old_epoch = r->epoch;
    struct hold *kept = r->decode ? request_find_hold(r, r->decode, r->epoch) : NULL;
    if (!kept || kept->cancelling || !kept->told || r->n_reserved_tokens != r->n_tokens || !pick_prefill(d, r, &next))
        return false;
    release_epoch(d, r, true);
    kept->epoch = ++r->epoch;
    r->prefill = NULL;
    r->local = !next;
    if (next) orders_take_prefill(r, next);
    if (next) pairs_tried(&d->pairs, next->incarnation, r->decode->incarnation, clock_now_us());
    request_set_state(r, REQUEST_RESERVING);
    if (orders_send_rebind(d, r, old_epoch) == OK) return true;
    recovery_doubt(d, r->decode, "it cannot be told of a new epoch");
    return false;
}

static void change_prefill(struct dispatch *d, struct request *r)
{
    avoid(r, r->prefill);
    if (!rebind(d, r)) replay(d, r);
}

void recovery_prefill_lost(struct dispatch *d, struct request *r, enum status st, const char *why)
{
    const char *node = r->local ? r->decode_name : r->prefill_name;
    if (may_go_on(d, r, node, st, why)) change_prefill(d, r);
}

void recovery_prefill_unready(struct dispatch *d, struct request *r)
{
    change_prefill(d, r);
}

void recovery_silent(struct dispatch *d, struct node *n)
{
    static const char why[] = "nothing is heard of it";
    struct request *r, *next;
    recovery_doubt(d, n, why);
    HASH_ITER(hh, d->by_id, r, next)
    {
        if (request_is_over(r)) continue;
        if (r->decode == n && r->state == REQUEST_RESERVING)
            recovery_decode_lost(d, r, ERR_TIMEOUT, why);
        else if (r->prefill == n && !r->local && request_is_at_prefill(r))
            change_prefill(d, r);
    }
}

void recovery_stalled(struct dispatch *d, struct request *r)
{
    char why[128];
    snprintf(why, sizeof(why), "no progress in state %s for %u ms", request_state_name(r->state),
             d->opt.limits.progress_timeout_ms);
    if (request_is_at_prefill(r) && !r->local)
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
    pairs_forget(&d->pairs, n->incarnation);
    snprintf(text, sizeof(text), "node %s is lost: %s", n->name, why);
    HASH_ITER(hh, d->by_id, r, next) lose_node(d, r, n, text);
    HASH_ITER(hh, d->by_id, r, next)
    {
        if (r->decode == n) r->decode = NULL;
        if (r->prefill == n) r->prefill = NULL;
    }
    dispatch_kick(d);
}
