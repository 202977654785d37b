/* job_reports.c - what a node says about its jobs. */
#include "base/mem.h"
#include "node/jobs_internal.h"
#include "wire/job.h"

#include <stdio.h>
#include <utlist.h>

#define ROWS_MAX 64 /* of one message */

static Baton__Kv__RequestId request_of(const struct job *j)
{
    Baton__Kv__RequestId id = BATON__KV__REQUEST_ID__INIT;
    id.incarnation = j->key.hi;
    id.counter = j->key.lo;
    return id;
}

/* Jobs of a coordinator that is gone (its link may be up for the next one) have no one to hear of them. */
static bool is_heard(const struct job *j)
{
    return !j->silent && link_incarnation(j->link) == j->key.hi;
}

void reports_free(struct job *j)
{
    struct report *r, *next;
    LL_FOREACH_SAFE(j->reports, r, next) mem_free(r);
    j->reports = NULL;
}

static void add_report(struct jobs *js, struct job *j, const struct engine_event *ev, bool is_prompt)
{
    struct report *r;

    if (!is_heard(j)) return;
    r = mem_zalloc(sizeof(*r));
    r->is_prompt = is_prompt;
    r->idx = ev->output_idx;
    r->token = ev->token;
    r->has_logprobs = ev->logprobs != NULL;
    if (ev->logprobs) r->logprobs = *ev->logprobs;
    LL_APPEND(j->reports, r); /* a few at a time: flushed each round */
    if (j->has_reports) return;
    j->has_reports = true;
    j->next_with_reports = js->with_reports;
    js->with_reports = j;
}

void job_add_token(struct jobs *js, struct job *j, const struct engine_event *ev)
{
    add_report(js, j, ev, false);
}

void job_add_prompt_logprobs(struct jobs *js, struct job *j, const struct engine_event *ev)
{
    add_report(js, j, ev, true);
}

static void fill_logprobs(Baton__Control__TokenLogprobs *out, struct token_logprobs *lp)
{
    baton__control__token_logprobs__init(out);
    out->logprob = lp->logprob;
    out->n_top_ids = out->n_top = lp->n_top;
    out->top_ids = lp->top_ids;
    out->top = lp->top;
}

static void send_tokens(struct job *j, struct report **rows, uint32_t n)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Tokens t = BATON__CONTROL__TOKENS__INIT;
    Baton__Control__Token tokens[ROWS_MAX], *refs[ROWS_MAX];
    Baton__Control__TokenLogprobs logprobs[ROWS_MAX];
    Baton__Kv__RequestId id = request_of(j);

    for (uint32_t i = 0; i < n; i++) {
        baton__control__token__init(&tokens[i]);
        tokens[i].output_idx = rows[i]->idx;
        tokens[i].id = rows[i]->token;
        if (rows[i]->has_logprobs) {
            fill_logprobs(&logprobs[i], &rows[i]->logprobs);
            tokens[i].logprobs = &logprobs[i];
        }
        refs[i] = &tokens[i];
    }
    t.request = &id;
    t.epoch = j->key.epoch;
    t.n_tokens = n;
    t.tokens = refs;
    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_TOKENS;
    m.tokens = &t;
    link_send(j->link, &m);
}

static void send_prompt_logprobs(struct job *j, struct report **rows, uint32_t n)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__PromptLogprobs p = BATON__CONTROL__PROMPT_LOGPROBS__INIT;
    Baton__Control__TokenLogprobs logprobs[ROWS_MAX], *refs[ROWS_MAX];
    Baton__Kv__RequestId id = request_of(j);

    for (uint32_t i = 0; i < n; i++) {
        fill_logprobs(&logprobs[i], &rows[i]->logprobs);
        refs[i] = &logprobs[i];
    }
    p.request = &id;
    p.epoch = j->key.epoch;
    p.first_position = rows[0]->idx;
    p.n_rows = n;
    p.rows = refs;
    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_PROMPT_LOGPROBS;
    m.prompt_logprobs = &p;
    link_send(j->link, &m);
}

/* Runs of one kind with rising positions share a message. */
static void flush_job(struct job *j)
{
    struct report *r = j->reports;

    while (r && is_heard(j)) {
        struct report *rows[ROWS_MAX];
        uint32_t n = 0;
        do {
            rows[n++] = r;
            r = r->next;
        } while (r && n < ROWS_MAX && r->is_prompt == rows[0]->is_prompt && r->idx == rows[0]->idx + n);
        if (rows[0]->is_prompt)
            send_prompt_logprobs(j, rows, n);
        else
            send_tokens(j, rows, n);
    }
    reports_free(j);
    j->has_reports = false;
}

void jobs_flush(struct jobs *js)
{
    while (js->with_reports) {
        struct job *j = js->with_reports;
        js->with_reports = j->next_with_reports;
        flush_job(j);
    }
}

void job_send_reserved(struct job *j, uint64_t credit_bytes, uint32_t hit_tokens)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Reserved r = BATON__CONTROL__RESERVED__INIT;
    Baton__Kv__RequestId id = request_of(j);

    if (!is_heard(j)) return;
    r.request = &id;
    r.epoch = j->key.epoch;
    r.reservation = j->reservation;
    r.credit_bytes = credit_bytes;
    r.hit_tokens = hit_tokens;
    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_RESERVED;
    m.reserved = &r;
    link_send(j->link, &m);
}

static void send_progress(struct job *j, Baton__Control__Stage stage, uint32_t tokens, uint64_t bytes, uint32_t cached)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Progress p = BATON__CONTROL__PROGRESS__INIT;
    Baton__Kv__RequestId id = request_of(j);

    if (!is_heard(j)) return;
    p.request = &id;
    p.epoch = j->key.epoch;
    p.stage = stage;
    p.tokens = tokens;
    p.bytes = bytes;
    p.cached_tokens = cached;
    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_PROGRESS;
    m.progress = &p;
    link_send(j->link, &m);
}

void job_send_progress(struct job *j, Baton__Control__Stage stage, uint32_t tokens, uint64_t bytes)
{
    send_progress(j, stage, tokens, bytes, 0);
}

void job_send_computed(struct job *j, const struct engine_event *ev)
{
    send_progress(j, BATON__CONTROL__STAGE__COMPUTED, ev->t1, 0, ev->cached_tokens);
}

static uint32_t clip(uint64_t us)
{
    return us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
}

void job_send_prefill_done(struct jobs *js, struct job *j, uint64_t prefill_us, enum finish_reason ended)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__PrefillDone p = BATON__CONTROL__PREFILL_DONE__INIT;
    Baton__Kv__RequestId id = request_of(j);

    jobs_flush(js);
    if (!is_heard(j)) return;
    p.request = &id;
    p.epoch = j->key.epoch;
    p.kv_bytes = j->kv_bytes;
    p.prefill_us = clip(prefill_us);
    p.handoff_us = clip(j->handoff_us);
    p.ended = ended != FINISH_NONE;
    p.finish = finish_pack(ended);
    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_PREFILL_DONE;
    m.prefill_done = &p;
    link_send(j->link, &m);
}

void job_send_finished(struct jobs *js, struct job *j, const struct engine_event *done)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Finished f = BATON__CONTROL__FINISHED__INIT;
    Baton__Kv__RequestId id = request_of(j);

    jobs_flush(js);
    if (!is_heard(j)) return;
    f.request = &id;
    f.epoch = j->key.epoch;
    f.finish = finish_pack(done->finish);
    f.n_output = j->n_output;
    f.decode_us = clip(done->decode_us);
    f.prefill_us = clip(done->prefill_us);
    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_FINISHED;
    m.finished = &f;
    link_send(j->link, &m);
}

static void send_failed(struct link *l, uint64_t hi, uint64_t lo, uint32_t epoch, enum status st, const char *text,
                        bool kept)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Failed f = BATON__CONTROL__FAILED__INIT;
    Baton__Kv__RequestId id = BATON__KV__REQUEST_ID__INIT;

    id.incarnation = hi;
    id.counter = lo;
    f.request = &id;
    f.epoch = epoch;
    f.status = st;
    f.message = (char *)(uintptr_t)(text ? text : status_text(st));
    f.reservation_kept = kept;
    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_FAILED;
    m.failed = &f;
    link_send(l, &m);
}

void job_send_failed(struct jobs *js, struct job *j, enum status st, const char *text, bool reservation_kept)
{
    jobs_flush(js);
    if (is_heard(j)) send_failed(j->link, j->key.hi, j->key.lo, j->key.epoch, st, text, reservation_kept);
}

void link_send_failed(struct link *l, uint64_t lo, uint32_t epoch, enum status st, const char *text)
{
    send_failed(l, link_incarnation(l), lo, epoch, st, text, false);
}

void link_send_cancel_ack(struct link *l, uint64_t lo, uint32_t epoch)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__CancelAck a = BATON__CONTROL__CANCEL_ACK__INIT;
    Baton__Kv__RequestId id = BATON__KV__REQUEST_ID__INIT;

    id.incarnation = link_incarnation(l);
    id.counter = lo;
    a.request = &id;
    a.epoch = epoch;
    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_CANCEL_ACK;
    m.cancel_ack = &a;
    link_send(l, &m);
}
