/* call.c - a call's way: start, tokens in, text out, one end. */
#include "coordinator/call.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/mem_later.h"
#include "base/metrics.h"
#include "coordinator/cluster/dispatch.h"
#include "coordinator/meters.h"
#include "coordinator/served_model.h"
#include "coordinator/services.h"
#include "http/sse.h"

#include <stdio.h>
#include <string.h>

#define HEADER_HOLD_US 10000000u /* without a token for so long: headers and pings, so that nobody hangs up */
#define PING_US        10000000u
#define UNSENT_BYTES   ((size_t)256 << 10)
#define SLOW_CLIENT_US 60000000u

static void on_token(void *owner, int32_t id, const struct logprob_row *row);
static void on_prompt_logprobs(void *owner, uint32_t position, const struct logprob_row *row);
static void on_end(void *owner, struct request *r);

static const struct request_events events = { on_token, on_prompt_logprobs, on_end };

static void unlink_call(struct call *c)
{
    if (c->prev)
        c->prev->next = c->next;
    else
        c->sv->calls = c->next;
    if (c->next) c->next->prev = c->prev;
    c->sv->n_calls--;
}

static void free_call(struct call *c)
{
    choices_free(c->choices, c->n_choices);
    api_request_destroy(c->req);
    mem_free(c);
}

/* Lets go of what still runs, then of the call itself, once no worker reads it any more. */
static void destroy(struct call *c, const struct api_error *why)
{
    c->over = c->dropped = true;
    for (uint32_t i = 0; i < c->n_choices; i++)
        if (c->choices[i].request) dispatch_cancel(c->sv->dispatch, c->choices[i].request, why);
    unlink_call(c);
    if (c->job)
        call_job_cancel(c->job);
    else
        free_call(c);
}

static void count(const struct call *c, int status)
{
    meters_request(c->sv->meters, c->model->name, c->endpoint, status);
}

static void write_event(struct call *c, struct strbuf *json)
{
    sse_data(c->x, json->s, json->n);
    c->last_write = clock_now_us();
    strbuf_fini_later(json);
}

/* Opens the event stream; from here on an error is an event. */
static void begin_stream(struct call *c)
{
    if (c->begun) return;
    c->begun = true;
    c->last_write = clock_now_us();
    sse_begin(c->x);
    for (uint32_t i = 0; c->format->begin_chunk && i < c->n_choices; i++) {
        struct strbuf json = STRBUF_INIT;
        c->format->begin_chunk(&c->choices[i], &json);
        write_event(c, &json);
    }
}

void call_fail(struct call *c, const struct api_error *e)
{
    struct http_exchange *x = c->x;
    if (c->over) return;
    c->over = true;
    c->x = NULL;
    count(c, e->http);
    if (e->http == 429) meters_rejected(c->sv->meters, e->code ? e->code : "full");
    if (!c->begun) {
        api_error_reply(e, x);
    } else {
        struct strbuf json = STRBUF_INIT;
        api_error_json(e, &json);
        sse_data(x, json.s, json.n);
        strbuf_fini(&json);
        http_end(x);
    }
    destroy(c, e);
}

static void on_gone(void *ctx, struct http_exchange *x)
{
    struct call *c = ctx;
    struct api_error e;
    api_error_set(&e, ERR_CANCELLED, NULL, NULL, "the client went away");
    metric_add(c->sv->meters->disconnects, 1);
    count(c, e.http);
    c->x = NULL;
    destroy(c, &e);
}

/* The whole answer is written: here, or on a worker. */
static void reply_whole(struct call *c, struct strbuf *json)
{
    struct http_exchange *x = c->x;
    struct api_error e = { 0 };
    if (json->overflowed) {
        strbuf_fini_later(json);
        api_error_set(&e, ERR_INTERNAL, NULL, NULL, "the answer is larger than %zu MiB", STRBUF_MAX >> 20);
        call_fail(c, &e);
        return;
    }
    count(c, 200);
    c->x = NULL;
    http_reply_take(x, 200, "application/json", json);
    destroy(c, &e);
}

static void finish_call(struct call *c)
{
    struct strbuf json = STRBUF_INIT;
    struct http_exchange *x = c->x;
    struct api_error none = { 0 };
    if (!c->req->stream) {
        if ((c->job = call_job_whole(c))) return;
        answer_whole(c, &json);
        reply_whole(c, &json);
        return;
    }
    if (c->req->include_usage) {
        answer_usage_chunk(c, &json);
        write_event(c, &json);
    }
    count(c, 200);
    c->x = NULL;
    sse_done(x);
    destroy(c, &none);
}

/* Writes what has come since the last chunk.  While a worker writes one, all that comes waits. */
static void flush(struct choice *ch)
{
    struct call *c = ch->call;
    struct strbuf json = STRBUF_INIT;
    if (!c->req->stream || ch->text.n == 0 || c->job) return;
    begin_stream(c);
    if ((c->job = call_job_chunk(ch))) return;
    c->format->text_chunk(ch, &json);
    write_event(c, &json);
    strbuf_reset(&ch->text);
    token_log_clear(&ch->log);
}

/* Echoed prompts come with all their logprobs or not at all. */
static bool prompt_is_known(const struct choice *ch)
{
    const struct request *r = ch->request;
    return r->sampling.n_prompt_logprobs < 0 || r->n_prompt_rows + 1 >= r->n_prompt;
}

/* A prompt is computed and shipped once: the others start when its full blocks are cached at both nodes. */
static void start_others(struct choice *first, const struct request *r)
{
    struct call *c = first->call;
    const char *slash = strrchr(r->tag, '/');
    char tag[API_REQUEST_ID_MAX + 16];
    if (!first->leads) return;
    first->leads = false;
    for (uint32_t k = 1; k < c->req->n; k++) {
        struct choice *ch = first + k;
        int32_t *ids = mem_array(r->n_prompt, sizeof(*ids));
        memcpy(ids, r->tokens, r->n_prompt * sizeof(*ids));
        snprintf(tag, sizeof(tag), "%.*s/%u", (int)(slash - r->tag), r->tag, ch->idx);
        struct request_spec spec = { .model = c->model,
                                     .tokens = ids,
                                     .n_prompt = r->n_prompt,
                                     .priority = r->priority,
                                     .sampling = r->sampling,
                                     .limit_from = r->limit_from,
                                     .hidden = r->hidden,
                                     .cache_salt = r->cache_salt,
                                     .tag = tag,
                                     .events = &events,
                                     .owner = ch };
        spec.sampling.choice = k;
        ch->request = dispatch_submit(c->sv->dispatch, &spec);
    }
}

static void on_token(void *owner, int32_t id, const struct logprob_row *row)
{
    struct choice *ch = owner;
    struct call *c = ch->call;
    bool stop = false;
    /* the second token comes from the decode node: all KV is there */
    if (request_n_output(ch->request) == 2) start_others(ch, ch->request);
    if (!prompt_is_known(ch)) {
        struct api_error e;
        api_error_set(&e, ERR_INTERNAL, NULL, NULL, "the node computed no logprobs of the prompt");
        call_fail(c, &e);
        return;
    }
    if (c->req->stream) begin_stream(c);
    if (!c->hide_output) {
        uint32_t at = ch->echo_chars + ch->stream.chars;
        stop = stream_feed(&ch->stream, id, &ch->text);
        if (c->req->sampling.n_logprobs >= 0) token_log_add(&ch->log, id, at, row);
        if (stop) token_log_cut(&ch->log, ch->echo_chars + ch->stream.chars, c->req->echo ? ch->request->n_prompt : 0);
    }
    if (stop) {
        ch->stopped = true;
        dispatch_finish(c->sv->dispatch, ch->request, FINISH_STOP);
    } else {
        flush(ch);
    }
}

static void on_prompt_logprobs(void *owner, uint32_t position, const struct logprob_row *row)
{
    struct choice *ch = owner;
    if (position < ch->log.n) token_log_set(&ch->log, position, row);
}

static void keep_results(struct choice *ch, const struct request *r)
{
    ch->n_prompt = r->n_prompt;
    ch->tokens = request_count(r);
    ch->t = r->t;
    memcpy(ch->decode_name, r->decode_name, sizeof(ch->decode_name));
    if (!r->local) memcpy(ch->prefill_name, r->prefill_name, sizeof(ch->prefill_name));
    ch->finish_reason = r->finish == FINISH_STOP && !ch->call->hide_output ? "stop" : "length";
}

/* The last chunk of a choice that has ended; false while others are being written. */
static bool write_end(struct choice *ch)
{
    struct call *c = ch->call;
    struct strbuf json = STRBUF_INIT;
    flush(ch);
    if (c->job) return false;
    begin_stream(c);
    c->format->end_chunk(ch, &json);
    write_event(c, &json);
    token_log_clear(&ch->log);
    return true;
}

static void end_choice(struct choice *ch)
{
    struct call *c = ch->call;
    if (!ch->stopped && !c->hide_output && !ch->ended) stream_finish(&ch->stream, &ch->text);
    ch->ended = true;
    if (c->req->stream && !write_end(ch)) return;
    ch->ended = false; /* nothing more is due */
    if (++c->n_done == c->n_choices) finish_call(c);
}

/* A worker has written what was too large for here: sends it, and what came meanwhile. */
void call_job_done(struct call *c, bool whole, struct strbuf *json)
{
    c->job = NULL;
    if (c->dropped) {
        strbuf_fini_later(json);
        free_call(c);
        return;
    }
    if (whole) {
        reply_whole(c, json);
        return;
    }
    write_event(c, json);
    uint32_t n = c->n_choices;
    for (uint32_t i = 0; i < n && !c->job; i++) {
        bool last = c->n_done + 1 == n && c->choices[i].ended;
        if (c->choices[i].ended)
            end_choice(&c->choices[i]); /* the last one's end may free the call */
        else
            flush(&c->choices[i]);
        if (last) return;
    }
}

static void on_end(void *owner, struct request *r)
{
    struct choice *ch = owner;
    ch->request = NULL;
    if (ch->call->over) return;
    keep_results(ch, r);
    if (r->state != REQUEST_DONE) {
        call_fail(ch->call, &r->error);
        return;
    }
    start_others(ch, r);
    end_choice(ch);
}

/* The answers to one prompt: the first one starts. */
static void start_prompt(struct call *c, uint32_t i, struct admitted_prompt *p, const char *request_id)
{
    uint32_t n = (uint32_t)c->req->n;
    struct choice *ch = &c->choices[i * n];
    char tag[API_REQUEST_ID_MAX + 16];
    ch->leads = n > 1;
    snprintf(tag, sizeof(tag), c->n_choices > 1 ? "%s/%u" : "%s", request_id, ch->idx);
    struct request_spec spec = { .model = c->model,
                                 .tokens = p->ids,
                                 .n_prompt = p->n,
                                 .priority = (int32_t)c->req->priority,
                                 .sampling = p->sampling,
                                 .limit_from = p->limit_from,
                                 .hidden = c->hide_output,
                                 .cache_salt = c->req->cache_salt,
                                 .tag = tag,
                                 .events = &events,
                                 .owner = ch };
    p->ids = NULL;
    ch->request = dispatch_submit(c->sv->dispatch, &spec);
}

void call_create(const struct api_ask *ask, struct call_plan *plan)
{
    struct services *sv = ask->sv;
    struct call *c = mem_zalloc(sizeof(*c));
    struct admitted *a = &plan->admitted;
    c->sv = sv;
    c->x = ask->x;
    c->format = plan->format;
    c->req = plan->req;
    c->model = a->model;
    c->endpoint = ask->endpoint;
    c->hide_output = a->hide_output;
    c->created = clock_unix_s();
    c->started = c->last_write = clock_now_us();
    snprintf(c->id, sizeof(c->id), "%s%016llx%08llx", c->format->id_prefix, (unsigned long long)sv->incarnation,
             (unsigned long long)++sv->last_call);
    c->next = sv->calls;
    if (c->next) c->next->prev = c;
    sv->calls = c;
    sv->n_calls++;
    if (c->req->ignored.n) {
        http_set_header(c->x, "x-baton-ignored-params", c->req->ignored.s);
        meters_ignored(sv->meters, c->req->ignored.s);
    }
    c->n_choices = plan->n_choices;
    c->choices = plan->choices;
    plan->req = NULL;
    plan->choices = NULL;
    for (uint32_t i = 0; i < c->n_choices; i++) c->choices[i].call = c;
    for (uint32_t i = 0; i < a->n_prompts; i++) start_prompt(c, i, &a->prompts[i], ask->request_id);
    http_on_gone(c->x, on_gone, c);
}

static void check_slow(struct call *c, uint64_t now)
{
    struct api_error e;
    if (http_unsent(c->x) <= UNSENT_BYTES) {
        c->slow_since = 0;
        return;
    }
    if (!c->slow_since) c->slow_since = now;
    if (request_elapsed(now, c->slow_since) < SLOW_CLIENT_US) return;
    api_error_set(&e, ERR_CANCELLED, NULL, NULL, "the client did not read its answer for 60 s");
    call_fail(c, &e);
}

void call_tick(struct call *c, uint64_t now)
{
    if (!c->req->stream || !c->x) return;
    if (!c->begun && request_elapsed(now, c->started) > HEADER_HOLD_US) begin_stream(c);
    if (c->begun && request_elapsed(now, c->last_write) > PING_US) {
        sse_ping(c->x);
        c->last_write = now;
    }
    if (c->begun) check_slow(c, now);
}
