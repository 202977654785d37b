/* orders.c - what the dispatcher tells nodes: reserve, prefill, rebind, cancel. */
#include "base/clock.h"
#include "base/log.h"
#include "coordinator/cluster/dispatch_internal.h"
#include "coordinator/served_model.h"
#include "wire/control_note.h"
#include "wire/job.h"

#include <stdio.h>

#define GROWTH_TOKENS 256 /* room for output that a reservation is expected to take at first */

uint32_t orders_reserve_tokens(const struct request *r)
{
    uint32_t left = r->sampling.max_tokens - request_n_output(r);
    uint32_t growth = r->wide || left < GROWTH_TOKENS ? left : GROWTH_TOKENS;
    return r->n_tokens + growth;
}

/* What is left of the time that the request has to its next token. */
static uint32_t deadline_ms(const struct dispatch *d, const struct request *r)
{
    uint64_t whole = d->opt.limits.request_timeout_ms;
    uint64_t used = r->due_since ? request_elapsed(clock_now_us(), r->due_since) / 1000 : 0;
    return used < whole ? (uint32_t)(whole - used) : 1;
}

static void pack(const struct dispatch *d, struct request *r, struct job_message *out)
{
    struct job_record j = {
        .incarnation = d->opt.incarnation,
        .counter = r->id,
        .epoch = r->epoch,
        .tokens = r->tokens,
        .n_tokens = r->n_tokens,
        .n_prompt = r->n_prompt,
        .sampling = r->sampling,
        .deadline_ms = deadline_ms(d, r),
        .cache_salt = r->cache_salt,
        .priority = r->priority,
    };
    /* a replay does not compute again what has arrived */
    if (r->n_prompt_rows + 1 >= r->n_prompt) j.sampling.n_prompt_logprobs = -1;
    job_pack(out, &j);
}

enum status orders_send(struct dispatch *d, struct node *n, Baton__Control__ControlMessage *m)
{
    enum status st = control_send(d->control, n->peer, n->incarnation, m);
    if (control_is_behind(n->peer) && !n->behind) {
        log_warn_limited("node_behind", "node=%s role=%s", n->name, n->decode ? "decode" : "prefill");
        n->behind = true;
    }
    return st;
}

void orders_take_decode(struct request *r, struct node *n)
{
    uint32_t blocks = router_blocks(orders_reserve_tokens(r), n->block_tokens);
    r->decode = n;
    snprintf(r->decode_name, sizeof(r->decode_name), "%s", n->name);
    request_open_hold(r, n, blocks, r->local ? r->n_tokens : 0);
}

void orders_take_prefill(struct request *r, struct node *n)
{
    r->prefill = n;
    snprintf(r->prefill_name, sizeof(r->prefill_name), "%s", n->name);
    request_open_hold(r, n, 0, r->n_tokens);
}

enum status orders_send_reserve(struct dispatch *d, struct request *r)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Reserve reserve = BATON__CONTROL__RESERVE__INIT;
    struct job_message job;
    pack(d, r, &job);
    reserve.job = &job.msg;
    reserve.local_prefill = r->local;
    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_RESERVE;
    m.reserve = &reserve;
    enum status st = orders_send(d, r->decode, &m);
    request_find_hold(r, r->decode, r->epoch)->told = st == OK;
    return st;
}

enum status orders_send_prefill(struct dispatch *d, struct request *r, uint64_t credit, ProtobufCBinaryData key,
                                uint32_t hit_tokens)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Prefill prefill = BATON__CONTROL__PREFILL__INIT;
    struct job_message job;
    pack(d, r, &job);
    prefill.job = &job.msg;
    prefill.reservation = r->reservation;
    prefill.decode_node = r->decode->name;
    prefill.decode_incarnation = r->decode->incarnation;
    prefill.n_kv_endpoints = r->decode->n_kv_endpoints;
    prefill.kv_endpoints = r->decode->kv_endpoints;
    prefill.credit_bytes = credit;
    prefill.key = key;
    prefill.hit_tokens = hit_tokens;
    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_PREFILL;
    m.prefill = &prefill;
    r->handoff_since = clock_now_us();
    enum status st = orders_send(d, r->prefill, &m);
    request_find_hold(r, r->prefill, r->epoch)->told = st == OK;
    return st;
}

enum status orders_send_rebind(struct dispatch *d, struct request *r, uint32_t old_epoch)
{
    const struct control_id id = { .incarnation = d->opt.incarnation, .counter = r->id };
    struct control_note note;
    control_note_init(&note, BATON__CONTROL__CONTROL_MESSAGE__BODY_REBIND, &id);
    note.rebind.old_epoch = old_epoch;
    note.rebind.new_epoch = r->epoch;
    note.rebind.local_prefill = r->local;
    return orders_send(d, r->decode, &note.m);
}

static void send_cancel(struct dispatch *d, struct node *n, uint64_t request, uint32_t epoch)
{
    const struct control_id id = { d->opt.incarnation, request, epoch };
    struct control_note note;
    control_note_init(&note, BATON__CONTROL__CONTROL_MESSAGE__BODY_CANCEL, &id);
    /* It is repeated until it is acknowledged, or the node is declared dead. */
    if (orders_send(d, n, &note.m) != OK) n->retry_at = clock_now_us() + 200000;
}

void orders_send_cancel(struct dispatch *d, struct request *r, struct hold *h)
{
    if (!h->told) {
        dispatch_close_hold(d, r, h);
        return;
    }
    h->cancelling = true;
    h->cancel_sent = clock_now_us();
    h->n_cancels++;
    send_cancel(d, h->node, r->id, request_is_over(r) ? 0 : h->epoch);
}

void orders_cancel_unknown(struct dispatch *d, struct node *n, uint64_t id, uint32_t epoch)
{
    send_cancel(d, n, id, epoch);
}
