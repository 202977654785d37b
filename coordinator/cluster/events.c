/* events.c - what nodes say about requests: reservations, tokens, progress, ends. */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/token_id.h"
#include "coordinator/cluster/dispatch_internal.h"
#include "coordinator/meters.h"
#include "coordinator/served_model.h"
#include "wire/job.h"

struct event { /* what every message about a request says */
    struct node *node;
    struct request *r;
    uint32_t epoch;
    struct hold *hold; /* of this node and epoch, or NULL */
    bool current;      /* this epoch, and the request is not over */
};

/* Finds the request; for one that is not known any more the node is told to let go. */
static bool find(struct dispatch *d, struct node *n, const Baton__Kv__RequestId *id, uint32_t epoch, bool tell,
                 struct event *out)
{
    struct request *r = NULL;
    if (!id || id->incarnation != d->opt.incarnation) return false;
    HASH_FIND(hh, d->by_id, &id->counter, sizeof(id->counter), r);
    if (!r) {
        if (tell) orders_cancel_unknown(d, n, id->counter, 0);
        return false;
    }
    *out = (struct event){ .node = n, .r = r, .epoch = epoch, .hold = request_find_hold(r, n, epoch) };
    out->current = out->hold && !out->hold->cancelling && epoch == r->epoch && !request_is_over(r);
    if (out->current) n->last_progress = clock_now_us();
    return true;
}

static void on_reserved(struct dispatch *d, struct node *n, const Baton__Control__Reserved *m)
{
    struct event e;
    if (!find(d, n, m->request, m->epoch, true, &e) || !e.current || n != e.r->decode) return;
    struct request *r = e.r;
    if (r->state != REQUEST_RESERVING) return;
    r->reservation = m->reservation;
    r->refusals = 0;
    request_set_state(r, REQUEST_RESERVED);
    if (r->local) return;
    if (orders_send_prefill(d, r, m->credit_bytes, m->key, m->hit_tokens) == OK) return;
    recovery_doubt(d, r->prefill, "it cannot be told of a prompt");
    recovery_prefill_unready(d, r);
}

/* False if the alternatives do not make sense. */
static bool row_of(const Baton__Control__TokenLogprobs *m, uint32_t n_vocab, struct logprob_row *out)
{
    if (!m || m->n_top_ids != m->n_top || m->n_top > SAMPLING_MAX_LOGPROBS) return false;
    for (size_t i = 0; i < m->n_top_ids; i++)
        if (!token_id_ok(m->top_ids[i], n_vocab)) return false;
    *out = (struct logprob_row){ m->logprob, (uint32_t)m->n_top, m->top_ids, m->top };
    return true;
}

static void take_token(struct dispatch *d, struct request *r, const struct node *n, int32_t id,
                       const struct logprob_row *row)
{
    uint64_t before = r->t.last_token;
    request_advance(r, r->local || n == r->decode ? REQUEST_DECODING : REQUEST_HANDOFF);
    request_add_token(r, id);
    if (before)
        metric_observe(d->opt.meters->itl, (double)(r->t.last_token - before) / 1e6);
    else
        metric_observe(d->opt.meters->ttft, (double)(r->t.last_token - r->t.created) / 1e6);
    if (r->owner) r->events->token(r->owner, id, row);
}

/* Tokens that came ahead of this one and are next now. */
static void take_early(struct dispatch *d, struct request *r)
{
    struct early_token *t;
    while (!request_is_over(r) && (t = request_take_early(r, request_n_output(r)))) {
        take_token(d, r, r->decode, t->id, t->has_row ? &t->row : NULL);
        mem_free(t);
    }
}

static void on_token(struct dispatch *d, const struct event *e, const Baton__Control__Token *t)
{
    struct request *r = e->r;
    struct logprob_row row;
    bool has_row = row_of(t->logprobs, r->model->n_vocab, &row);
    uint32_t next = request_n_output(r);
    bool usable = token_id_ok(t->id, r->model->n_vocab) && t->output_idx < r->sampling.max_tokens;
    if (usable && t->output_idx == next) {
        take_token(d, r, e->node, t->id, has_row ? &row : NULL);
        take_early(d, r);
        return;
    }
    bool kept = usable && t->output_idx > next && request_add_early(r, t->output_idx, t->id, has_row ? &row : NULL);
    if (!kept) metric_add(d->opt.meters->tokens_dropped, 1);
}

static void on_tokens(struct dispatch *d, struct node *n, const Baton__Control__Tokens *m)
{
    struct event e;
    if (!find(d, n, m->request, m->epoch, true, &e)) return;
    if (e.current) request_touch(e.r);
    if (e.hold) hold_computed(e.hold);
    for (size_t i = 0; i < m->n_tokens; i++) {
        bool current = e.current && !request_is_over(e.r);
        if (current)
            on_token(d, &e, m->tokens[i]);
        else
            metric_add(d->opt.meters->tokens_dropped, 1);
    }
    dispatch_try_complete(d, e.r, false);
}

static void on_prompt_logprobs(struct dispatch *d, struct node *n, const Baton__Control__PromptLogprobs *m)
{
    struct event e;
    if (!find(d, n, m->request, m->epoch, true, &e) || !e.current) return;
    struct request *r = e.r;
    request_advance(r, REQUEST_PREFILLING);
    request_touch(r);
    for (size_t i = 0; i < m->n_rows; i++) {
        struct logprob_row row;
        uint64_t position = (uint64_t)m->first_position + i;
        /* in order, without gaps; after a replay the known ones come again */
        if (position != r->n_prompt_rows + 1 || position >= r->n_prompt) continue;
        if (!row_of(m->rows[i], r->model->n_vocab, &row)) continue;
        r->n_prompt_rows++;
        if (r->owner) r->events->prompt_logprobs(r->owner, (uint32_t)position, &row);
    }
}

static void on_progress(struct dispatch *d, struct node *n, const Baton__Control__Progress *m)
{
    struct event e;
    if (!find(d, n, m->request, m->epoch, true, &e) || !e.current) return;
    request_touch(e.r);
    if (m->stage == BATON__CONTROL__STAGE__COMPUTED) {
        request_advance(e.r, REQUEST_PREFILLING);
        /* of whoever makes the first token; a replay finds more */
        bool counts = !e.r->t.first_token && m->cached_tokens < e.r->n_prompt;
        if (counts) e.r->t.cached_tokens = m->cached_tokens;
    }
    if (m->stage == BATON__CONTROL__STAGE__COMMITTED && e.r->state == REQUEST_HANDOFF)
        request_set_state(e.r, REQUEST_DECODING);
}

static void on_prefill_done(struct dispatch *d, struct node *n, const Baton__Control__PrefillDone *m)
{
    struct event e;
    if (!find(d, n, m->request, m->epoch, false, &e) || !e.hold) return;
    struct request *r = e.r;
    r->t.kv_bytes += m->kv_bytes;
    r->t.kv_bytes_16bit += cache_geometry_16bit_bytes(&n->geometry, m->kv_bytes);
    r->t.prefill_us = m->prefill_us;
    r->t.handoff_us = m->handoff_us;
    metric_add(d->opt.meters->kv_bytes, (double)m->kv_bytes);
    if (m->kv_bytes) metric_observe(d->opt.meters->kv_seconds, m->handoff_us / 1e6);
    dispatch_close_hold(d, r, e.hold);
    if (!e.current) return;
    if (!m->ended && r->decode) pairs_worked(&d->pairs, n->incarnation, r->decode->incarnation);
    request_touch(r);
    enum finish_reason finish = finish_unpack(m->finish);
    if (m->ended && finish_is_answer(finish) && r->t.first_token) {
        dispatch_finish(d, r, finish);
        return;
    }
    if (m->ended) {
        recovery_prefill_lost(d, r, ERR_INTERNAL, "the prefill node ended the request without a token");
        return;
    }
    if (r->state == REQUEST_HANDOFF) request_set_state(r, REQUEST_DECODING);
    dispatch_try_complete(d, r, false);
}

static void on_finished(struct dispatch *d, struct node *n, const Baton__Control__Finished *m)
{
    struct event e;
    if (!find(d, n, m->request, m->epoch, false, &e) || !e.hold) return;
    struct request *r = e.r;
    dispatch_close_hold(d, r, e.hold);
    if (!e.current || n != r->decode) return;
    request_touch(r);
    if (r->local) r->t.prefill_us = m->prefill_us;
    enum finish_reason finish = finish_unpack(m->finish);
    if (!finish_is_answer(finish)) {
        recovery_decode_lost(d, r, ERR_INTERNAL, "the decode node gave the request up");
        return;
    }
    r->finish = finish;
    r->finish_pending = true;
    r->finish_n_output = m->n_output <= r->sampling.max_tokens ? m->n_output : 0;
    dispatch_try_complete(d, r, false);
}

/* What a node says of a request in answer to being asked, rather than of work that it had taken on. */
static bool is_answer(const struct event *e)
{
    return e->r->state == REQUEST_RESERVING ||
           (e->r->state == REQUEST_RESERVED && !e->r->local && e->node == e->r->prefill);
}

/* The request does not fit the node.  All else that a node finds wrong in what it reads is damage on the way or another
 * node's fault, and never the client's: this process checked the request before it sent it. */
static bool is_too_long(const struct event *e, enum status st)
{
    return st == ERR_CONTEXT_LENGTH && is_answer(e);
}

static bool is_refusal(const struct event *e, enum status st)
{
    bool busy = st == ERR_UNAVAILABLE || recovery_is_no_room(st);
    return e->r->state == REQUEST_RESERVING || (busy && is_answer(e));
}

/* Heard of both is no sign that they hear each other: others are chosen for a while. */
static void pair_failed(struct dispatch *d, const struct request *r, const struct node *prefill,
                        const struct node *decode, const char *why)
{
    log_warn_limited("pair_unreached", "prefill=%s decode=%s reason=%s", prefill->name, decode->name, log_quote(why));
    pairs_failed(&d->pairs, prefill->incarnation, decode->incarnation, r->handoff_since, clock_now_us());
}

static void on_failed(struct dispatch *d, struct node *n, const Baton__Control__Failed *m)
{
    struct event e;
    enum status said = m->status && m->status < STATUS_COUNT ? (enum status)m->status : ERR_INTERNAL;
    enum status st = status_from_peer(said);
    if (!find(d, n, m->request, m->epoch, false, &e) || !e.hold) return;
    struct request *r = e.r;
    bool from_decode = n->decode, kept = from_decode && m->reservation_kept;
    if (!kept) dispatch_close_hold(d, r, e.hold);
    if (!e.current) return;
    log_warn_limited("job_failed", "req=%s node=%s epoch=%u state=%s status=%s reason=%s", log_quote(r->tag), n->name,
                     m->epoch, request_state_name(r->state), status_text(said), log_quote(m->message));
    if (is_too_long(&e, said)) {
        dispatch_fail(d, r, said, NULL, m->message[0] ? m->message : status_text(said));
    } else if (is_refusal(&e, st)) {
        recovery_refused(d, r, n, st, m->message);
    } else if (from_decode && !kept) {
        if (recovery_is_no_room(st)) r->wide = true;
        recovery_decode_lost(d, r, st, m->message);
    } else {
        struct node *decode = r->decode;
        meters_kv_failure(d->opt.meters, status_text(st));
        if (!from_decode && decode && pairs_is_unreached(said)) pair_failed(d, r, n, decode, m->message);
        recovery_prefill_lost(d, r, st, m->message);
        /* Either end of the connection may be gone, and the one that speaks is not: the other one gets no new work
         * until it is heard, as in its answer to the Rebind or Cancel that was just sent. */
        if (st == ERR_CLOSED && !from_decode && decode) recovery_doubt(d, decode, m->message);
    }
}

static void on_cancel_ack(struct dispatch *d, struct node *n, const Baton__Control__CancelAck *m)
{
    struct event e;
    if (!find(d, n, m->request, m->epoch, false, &e)) return;
    for (struct hold *h = e.r->holds, *next; h; h = next) {
        next = h->next;
        if (h->node == n && h->cancelling && (m->epoch == 0 || h->epoch <= m->epoch)) dispatch_close_hold(d, e.r, h);
    }
}

void events_message(struct dispatch *d, struct node *n, const Baton__Control__ControlMessage *m)
{
    switch (m->body_case) {
    case BATON__CONTROL__CONTROL_MESSAGE__BODY_RESERVED: on_reserved(d, n, m->reserved); break;
    case BATON__CONTROL__CONTROL_MESSAGE__BODY_TOKENS: on_tokens(d, n, m->tokens); break;
    case BATON__CONTROL__CONTROL_MESSAGE__BODY_PROMPT_LOGPROBS: on_prompt_logprobs(d, n, m->prompt_logprobs); break;
    case BATON__CONTROL__CONTROL_MESSAGE__BODY_PROGRESS: on_progress(d, n, m->progress); break;
    case BATON__CONTROL__CONTROL_MESSAGE__BODY_PREFILL_DONE: on_prefill_done(d, n, m->prefill_done); break;
    case BATON__CONTROL__CONTROL_MESSAGE__BODY_FINISHED: on_finished(d, n, m->finished); break;
    case BATON__CONTROL__CONTROL_MESSAGE__BODY_FAILED: on_failed(d, n, m->failed); break;
    case BATON__CONTROL__CONTROL_MESSAGE__BODY_CANCEL_ACK: on_cancel_ack(d, n, m->cancel_ack); break;
    default: log_debug("message_ignored", "node=%s body=%d", n->name, (int)m->body_case); break;
    }
}
