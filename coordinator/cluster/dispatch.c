/* dispatch.c - the queue's way into the cluster, ends, and deadlines. */
#include "coordinator/cluster/dispatch.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "coordinator/cluster/dispatch_internal.h"
#include "coordinator/meters.h"
#include "coordinator/served_model.h"

#include <assert.h>
#include <stdio.h>

#define TICK_MS          50
#define HELD_UP_US       150000u
#define GRACE_US         1000000u
#define CANCEL_REPEAT_US 1000000u
#define CANCEL_MAX       40       /* then the node's lease has long ended */
#define LATE_US          250000u  /* how long an answer's end waits for the prefill node's report */
#define AVOID_US         1000000u /* how long a request keeps away from the node that failed it last */

static void place(struct dispatch *d);

static void free_reaped(struct dispatch *d)
{
    while (d->reap) {
        struct request *r = d->reap;
        d->reap = r->reap_next;
        HASH_DELETE(hh, d->by_id, r);
        request_destroy(r);
    }
}

static void on_stage(uv_idle_t *h)
{
    struct dispatch *d = h->data;
    uv_idle_stop(&d->stage);
    free_reaped(d);
    place(d);
}

void dispatch_kick(struct dispatch *d)
{
    if (!d->closing) uv_idle_start(&d->stage, on_stage);
}

static void reap_if_clear(struct dispatch *d, struct request *r)
{
    if (!request_is_over(r) || r->holds || r->reaped) return;
    r->reaped = true;
    r->reap_next = d->reap;
    d->reap = r;
    dispatch_kick(d);
}

void dispatch_close_hold(struct dispatch *d, struct request *r, struct hold *h)
{
    request_close_hold(r, h);
    reap_if_clear(d, r);
    dispatch_kick(d); /* room for others */
}

static double seconds(uint64_t from, uint64_t to)
{
    return from && to > from ? (double)(to - from) / 1e6 : 0;
}

static void log_end(const struct request *r)
{
    struct request_tokens n = request_count(r);
    uint32_t n_output = request_n_output(r);
    double itl = n_output > 1 ? seconds(r->t.first_token, r->t.last_token) * 1e3 / (n_output - 1) : 0;
    enum log_level level = r->state == REQUEST_FAILED ? LOG_LEVEL_WARN : LOG_LEVEL_INFO;
    log_write(level, "request_done",
              "req=%s id=%llu model=%s state=%s prefill=%s decode=%s prompt_length=%u prompt=%u cached=%u output=%u "
              "max_tokens=%u limit=%s "
              "epochs=%u queue_ms=%.1f "
              "prefill_ms=%.1f kv_ms=%.1f kv_bytes=%llu ttft_ms=%.1f itl_ms=%.2f total_ms=%.1f status=%s%s%s",
              log_quote(r->tag), (unsigned long long)r->id, r->model->name, request_state_name(r->state),
              r->local ? "local" : r->prefill_name, r->decode_name, r->n_prompt, n.prompt, n.cached, n.output,
              r->sampling.max_tokens, token_limit_name(r->limit_from), r->epoch,
              seconds(r->t.created, r->t.dispatched ? r->t.dispatched : r->t.ended) * 1e3, r->t.prefill_us / 1e3,
              r->t.handoff_us / 1e3, (unsigned long long)r->t.kv_bytes, seconds(r->t.created, r->t.first_token) * 1e3,
              itl, seconds(r->t.created, r->t.ended) * 1e3, status_text(r->error.status),
              r->error.status ? " reason=" : "", r->error.status ? log_quote(r->error.message) : "");
}

static void measure_end(struct dispatch *d, const struct request *r)
{
    struct meters *m = d->opt.meters;
    struct request_tokens n = request_count(r);
    if (r->state == REQUEST_CANCELLED) metric_add(m->cancelled, 1);
    if (r->t.dispatched) metric_observe(m->queue_time, seconds(r->t.created, r->t.dispatched));
    if (r->t.first_token) {
        metric_observe(m->prefill_time, seconds(r->t.dispatched, r->t.first_token));
        metric_observe(m->decode_time, seconds(r->t.first_token, r->t.last_token));
    }
    metric_add(m->prompt_tokens_total, n.prompt);
    metric_add(m->generation_tokens_total, n.output);
    metric_add(m->cached_tokens_total, n.cached);
    if (r->state != REQUEST_DONE) return;
    metric_observe(m->e2e, seconds(r->t.created, r->t.ended));
    if (n.prompt) metric_observe(m->prompt_tokens, n.prompt);
    metric_observe(m->generation_tokens, n.output);
}

/* State, holds, owner, log, metrics. */
static void end_request(struct dispatch *d, struct request *r, enum request_state how)
{
    if (request_is_over(r)) return;
    if (r->queued) queue_remove(&d->queue, r);
    request_set_state(r, how);
    request_drop_early(r);
    for (struct hold *h = r->holds, *next; h; h = next) {
        next = h->next;
        /* a prefill node that just ships the rest of a finished answer reports by itself */
        bool reports = how == REQUEST_DONE && r->finish_pending && h->node == r->prefill && h->epoch == r->epoch;
        if (!reports && !h->cancelling) orders_send_cancel(d, r, h);
    }
    log_end(r);
    measure_end(d, r);
    void *owner = r->owner;
    r->owner = NULL;
    if (owner) r->events->end(owner, r);
    reap_if_clear(d, r);
}

void dispatch_fail(struct dispatch *d, struct request *r, enum status st, const char *code, const char *text)
{
    if (request_is_over(r)) return;
    api_error_set(&r->error, st, code, NULL, "%s", text);
    end_request(d, r, REQUEST_FAILED);
}

void dispatch_finish(struct dispatch *d, struct request *r, enum finish_reason finish)
{
    if (request_is_over(r)) return;
    r->finish = finish;
    end_request(d, r, REQUEST_DONE);
}

void dispatch_cancel(struct dispatch *d, struct request *r, const struct api_error *why)
{
    if (request_is_over(r)) return;
    r->error = *why;
    end_request(d, r, REQUEST_CANCELLED);
}

void dispatch_try_complete(struct dispatch *d, struct request *r, bool late)
{
    if (request_is_over(r) || !r->finish_pending) return;
    if (r->early || !r->t.first_token || request_n_output(r) < r->finish_n_output) return;
    bool reporting = r->prefill && request_find_hold(r, r->prefill, r->epoch);
    if (reporting && !late) return;
    dispatch_finish(d, r, r->finish);
}

void dispatch_requeue(struct dispatch *d, struct request *r)
{
    r->prefill = r->decode = NULL;
    r->finish_pending = false;
    request_set_state(r, REQUEST_QUEUED);
    queue_push_front(&d->queue, r);
    dispatch_kick(d);
}

struct placing { /* one run over the queue */
    struct router_node rows[REGISTRY_MAX_NODES];
    struct node *from[REGISTRY_MAX_NODES];
    uint32_t n;
    struct router_pair broken[PAIRS_MAX];
    uint32_t n_broken;
    bool blocked[DISPATCH_MAX_MODELS]; /* by model: those behind wait for their turn */
};

static int row_of(struct node *const *from, uint32_t n, uint64_t incarnation)
{
    for (uint32_t i = 0; i < n; i++)
        if (from[i]->incarnation == incarnation) return (int)i;
    return -1;
}

uint32_t dispatch_broken_pairs(const struct dispatch *d, struct node *const *from, uint32_t n,
                               struct router_pair out[PAIRS_MAX])
{
    uint32_t n_out = 0;
    uint64_t now = clock_now_us();
    for (uint32_t i = 0; i < d->pairs.n; i++) {
        const struct pair *p = &d->pairs.rows[i];
        struct router_pair row = { .prefill = row_of(from, n, p->prefill),
                                   .decode = row_of(from, n, p->decode),
                                   .often = pair_fails_often(p),
                                   .rests = pair_needs_rest(p, now) };
        if (pair_is_broken(p, now) && row.prefill >= 0 && row.decode >= 0) out[n_out++] = row;
    }
    return n_out;
}

static void take_snapshot(struct dispatch *d, struct placing *p)
{
    p->n = registry_snapshot(&d->registry, clock_now_us(), p->rows, p->from);
    p->n_broken = dispatch_broken_pairs(d, p->from, p->n, p->broken);
}

/* The row of the node that failed the request last, while that counts; -1 = none. */
static int row_to_avoid(const struct placing *p, const struct request *r)
{
    if (!r->avoid || request_elapsed(clock_now_us(), r->avoided_at) > AVOID_US) return -1;
    return row_of(p->from, p->n, r->avoid);
}

static void start(struct dispatch *d, struct request *r, struct placing *p, struct router_choice c)
{
    struct node *decode = p->from[c.decode], *prefill = c.prefill < 0 ? NULL : p->from[c.prefill];
    queue_remove(&d->queue, r);
    request_set_state(r, REQUEST_RESERVING);
    r->local = !prefill;
    r->n_reserved_tokens = r->n_tokens;
    orders_take_decode(r, decode);
    if (prefill) orders_take_prefill(r, prefill);
    if (prefill) pairs_tried(&d->pairs, prefill->incarnation, decode->incarnation, clock_now_us());
    if (orders_send_reserve(d, r) != OK) {
        recovery_doubt(d, decode, "it cannot be asked for a reservation");
        recovery_refused(d, r, decode, ERR_UNAVAILABLE, "the decode node cannot be reached");
    }
    take_snapshot(d, p);
}

/* Nodes came and went since it was admitted: what does not fit those that are there is cut off, as it is for those who
 * ask for too much.  False if that leaves no room for a token. */
static bool cut_to_fit(struct dispatch *d, struct request *r)
{
    uint32_t longest = registry_context(&d->registry, r->model);
    if (longest <= r->n_tokens || r->n_prompt + r->sampling.max_tokens <= longest) return false;
    r->sampling.max_tokens = longest - r->n_prompt;
    r->limit_from = TOKEN_LIMIT_CONTEXT;
    if (r->sampling.min_tokens > r->sampling.max_tokens) r->sampling.min_tokens = r->sampling.max_tokens;
    dispatch_kick(d);
    return true;
}

static void place_one(struct dispatch *d, struct request *r, struct placing *p)
{
    int to_avoid = row_to_avoid(p, r);
    struct router_ask ask = {
        .model_idx = r->model->idx,
        .reserve_tokens = orders_reserve_tokens(r),
        .max_tokens = r->n_prompt + r->sampling.max_tokens,
        .n_tokens = r->n_tokens,
        .avoid_prefill = to_avoid,
        .avoid_decode = to_avoid,
        .broken = p->broken,
        .n_broken = p->n_broken,
        .no_handoff = recovery_is_last_attempt(d, r),
    };
    struct router_choice c;
    switch (router_pick(p->rows, p->n, &ask, &c)) {
    case ROUTER_PICKED: start(d, r, p, c); return;
    case ROUTER_TOO_LONG:
        if (cut_to_fit(d, r)) break;
        dispatch_fail(d, r, r->t.first_token ? ERR_UNAVAILABLE : ERR_CONTEXT_LENGTH, NULL,
                      "no node takes a sequence of this length any more");
        return;
    case ROUTER_NO_DECODE: /* for how long: check_request() */
    case ROUTER_BUSY:
    case ROUTER_NO_PREFILL: break;
    }
    p->blocked[r->model->idx] = true;
}

static void place(struct dispatch *d)
{
    static struct placing p; /* too large for the stack; one thread */
    if (!d->queue.head || d->closing) return;
    take_snapshot(d, &p);
    for (uint32_t i = 0; i < DISPATCH_MAX_MODELS; i++) p.blocked[i] = false;
    for (struct request *r = d->queue.head, *next; r; r = next) {
        next = r->q_next;
        if (!p.blocked[r->model->idx]) place_one(d, r, &p);
        /* an owner's callback may have ended any other request */
        if (next && !next->queued) next = d->queue.head;
    }
}

static void repeat_cancels(struct dispatch *d, struct request *r, uint64_t now)
{
    for (struct hold *h = r->holds, *next; h; h = next) {
        next = h->next;
        if (!h->cancelling) {
            bool forgotten = request_is_over(r) &&
                             request_elapsed(now, r->t.ended) > (uint64_t)d->opt.limits.progress_timeout_ms * 1000;
            if (forgotten) orders_send_cancel(d, r, h);
            continue;
        }
        if (request_elapsed(now, h->cancel_sent) < CANCEL_REPEAT_US) continue;
        if (h->n_cancels >= CANCEL_MAX) {
            log_warn("cancel_unanswered", "req=%s node=%s epoch=%u", log_quote(r->tag), h->node->name, h->epoch);
            dispatch_close_hold(d, r, h);
        } else {
            orders_send_cancel(d, r, h);
        }
    }
}

/* Since when each model lacks nodes. */
static void check_models(struct dispatch *d, uint64_t now)
{
    for (uint32_t i = 0; i < d->opt.n_models; i++) {
        bool lacking = registry_missing(&d->registry, d->opt.models[i]) != ROUTER_PICKED;
        if (!lacking) d->lacking_since[i] = 0;
        if (lacking && !d->lacking_since[i]) d->lacking_since[i] = now;
    }
}

/* Waits for a node to come (back) at all, rather than for room.  False: it has ended. */
static bool waits_for_a_node(struct dispatch *d, struct request *r, uint64_t now)
{
    uint64_t since = d->lacking_since[r->model->idx];
    if (r->state != REQUEST_QUEUED || !since) return true;
    if (since < r->state_since) since = r->state_since;
    if (request_elapsed(now, since) < (uint64_t)d->opt.limits.node_wait_ms * 1000) return true;
    bool prefill = registry_missing(&d->registry, r->model) == ROUTER_NO_PREFILL;
    dispatch_fail(d, r, ERR_UNAVAILABLE, prefill ? "no_prefill_node" : "no_decode_node",
                  prefill ? "no prefill node serves the model, and its decode nodes read no prompts themselves"
                          : "no decode node serves the model");
    return false;
}

/* Whether the node that a request waits for is in doubt: members_check() ends it, or it is heard again. */
static bool is_judged_elsewhere(const struct request *r, const struct node *computing)
{
    return (r->decode && r->decode->doubted) || (request_is_at_prefill(r) && computing && computing->doubted);
}

static void check_request(struct dispatch *d, struct request *r, uint64_t now)
{
    const struct node *computing = r->local ? r->decode : r->prefill;
    repeat_cancels(d, r, now);
    if (request_is_over(r) || !waits_for_a_node(d, r, now)) return;
    if (r->finish_pending && request_elapsed(now, r->progress) > LATE_US) dispatch_try_complete(d, r, true);
    switch (request_check_deadline(r, &d->opt.limits, now, computing ? computing->last_progress : 0)) {
    case REQUEST_IN_TIME: break;
    case REQUEST_STALLED:
        if (!is_judged_elsewhere(r, computing)) recovery_stalled(d, r);
        break;
    case REQUEST_TIMED_OUT:
        dispatch_fail(d, r, ERR_TIMEOUT, "deadline_exceeded",
                      r->state == REQUEST_QUEUED ? "the request waited too long for a free node"
                                                 : "the first token took too long");
        break;
    }
}

/* The time in which this loop stood still counts for nobody. */
static void forgive(struct dispatch *d, uint64_t held)
{
    struct request *r, *next;
    control_forgive(d->control);
    HASH_ITER(hh, d->by_id, r, next) r->progress += held;
    for (uint32_t i = 0; i < d->opt.n_models; i++)
        if (d->lacking_since[i]) d->lacking_since[i] += held;
}

/* A loop that was held up itself has messages waiting unread: nobody is judged before they are read. */
static void check_members(struct dispatch *d, uint64_t now)
{
    uint64_t mine = uv_hrtime() / 1000, held = mine - d->last_tick;
    d->last_tick = mine;
    if (held > HELD_UP_US) {
        forgive(d, held);
        d->judge_from = mine + (held < GRACE_US ? held : GRACE_US);
    }
    if (mine >= d->judge_from) members_check(d, now);
}

static void on_tick(uv_timer_t *t)
{
    struct dispatch *d = t->data;
    uint64_t now = clock_now_us();
    struct request *r, *next;
    log_left_out();
    peers_tell(d);
    check_members(d, now);
    check_models(d, now);
    HASH_ITER(hh, d->by_id, r, next) check_request(d, r, now);
    metric_set(d->opt.meters->garbage, (double)control_n_garbage(d->control));
    if (d->queue.head) dispatch_kick(d);
}

enum status dispatch_create(struct dispatch **out, const struct dispatch_options *opt, struct error *err)
{
    struct dispatch *d = mem_zalloc(sizeof(*d));
    assert(opt->n_models <= DISPATCH_MAX_MODELS);
    d->opt = *opt;
    queue_init(&d->queue, opt->max_queue, opt->max_queue_bytes);
    const struct control_options co = { opt->loop, opt->control, opt->incarnation, opt->link_bytes };
    enum status st = control_open(&d->control, &co, &members_events, d, err);
    if (st != OK) {
        mem_free(d);
        return st;
    }
    uv_idle_init(opt->loop, &d->stage);
    uv_timer_init(opt->loop, &d->tick);
    d->stage.data = d->tick.data = d;
    d->n_handles = 2;
    d->last_tick = uv_hrtime() / 1000;
    uv_timer_start(&d->tick, on_tick, TICK_MS, TICK_MS);
    *out = d;
    return OK;
}

static void on_closed(uv_handle_t *h)
{
    struct dispatch *d = h->data;
    if (--d->n_handles > 0) return;
    registry_fini(&d->registry);
    mem_free(d);
}

void dispatch_close(struct dispatch *d)
{
    struct request *r, *next;
    if (!d) return;
    d->closing = true;
    HASH_ITER(hh, d->by_id, r, next)
    dispatch_fail(d, r, ERR_UNAVAILABLE, "draining", "the coordinator is shutting down");
    HASH_ITER(hh, d->by_id, r, next)
    {
        HASH_DELETE(hh, d->by_id, r);
        request_destroy(r);
    }
    members_say_goodbye(d);
    control_close(d->control);
    uv_close((uv_handle_t *)&d->stage, on_closed);
    uv_close((uv_handle_t *)&d->tick, on_closed);
}

const char *dispatch_endpoint(const struct dispatch *d)
{
    return control_endpoint(d->control);
}

struct registry *dispatch_registry(struct dispatch *d)
{
    return &d->registry;
}

const uint32_t *dispatch_state_counts(const struct dispatch *d)
{
    return d->counts;
}

uint32_t dispatch_n_open(const struct dispatch *d)
{
    return HASH_COUNT(d->by_id);
}

enum status dispatch_check_room(const struct dispatch *d, uint32_t n, uint64_t bytes, struct api_error *e)
{
    if (queue_check_room(&d->queue, n, bytes) == OK) return OK;
    return api_error_set(e, ERR_FULL, "queue_full", NULL,
                         "the queue is full: %u of %u requests, %llu of %llu bytes wait", d->queue.n, d->queue.max_n,
                         (unsigned long long)d->queue.bytes, (unsigned long long)d->queue.max_bytes);
}

struct request *dispatch_submit(struct dispatch *d, const struct request_spec *spec)
{
    struct request *r = request_create(spec, d->counts);
    r->id = ++d->last_id;
    HASH_ADD(hh, d->by_id, id, sizeof(r->id), r);
    queue_push(&d->queue, r);
    dispatch_kick(d);
    return r;
}
