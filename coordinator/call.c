/* call.c - a call's way: start, tokens in, text out, one end. */
#include "coordinator/call.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "coordinator/coordinator.h"
#include "coordinator/dispatch.h"
#include "coordinator/meters.h"
#include "coordinator/served_model.h"
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
        c->co->calls = c->next;
    if (c->next) c->next->prev = c->prev;
    c->co->n_calls--;
}

/* Lets go of what still runs, then of the call itself. */
static void destroy(struct call *c, const struct api_error *why)
{
    c->over = true;
    for (uint32_t i = 0; i < c->n_choices; i++) {
        struct choice *ch = &c->choices[i];
        if (ch->request) dispatch_cancel(c->co->dispatch, ch->request, why);
        stream_fini(&ch->stream);
        strbuf_fini(&ch->text);
        token_log_fini(&ch->log);
    }
    unlink_call(c);
    api_request_destroy(c->req);
    mem_free(c->choices);
    mem_free(c);
}

static void count(const struct call *c, int status)
{
    meters_request(c->co->meters, c->model->name, c->endpoint, status);
}

static void write_event(struct call *c, struct strbuf *json)
{
    sse_data(c->x, json->s, json->n);
    c->last_write = clock_now_us();
    strbuf_fini(json);
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
    if (e->http == 429) meters_rejected(c->co->meters, e->code ? e->code : "full");
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
    metric_add(c->co->meters->disconnects, 1);
    count(c, e.http);
    c->x = NULL;
    destroy(c, &e);
}

static void finish_call(struct call *c)
{
    struct strbuf json = STRBUF_INIT;
    struct http_exchange *x = c->x;
    struct api_error none = { 0 };
    if (!c->req->stream) {
        answer_whole(c, &json);
        count(c, 200);
        c->x = NULL;
        http_reply(x, 200, "application/json", json.s, json.n);
        strbuf_fini(&json);
        destroy(c, &none);
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

/* Writes what has come since the last chunk. */
static void flush(struct choice *ch)
{
    struct call *c = ch->call;
    struct strbuf json = STRBUF_INIT;
    if (!c->req->stream || ch->text.n == 0) return;
    begin_stream(c);
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
    struct request_sampling sampling = r->sampling;
    const char *slash = strrchr(r->tag, '/');
    char tag[API_REQUEST_ID_MAX + 16];
    if (!first->leads) return;
    first->leads = false;
    for (uint32_t k = 1; k < c->req->n; k++) {
        struct choice *ch = first + k;
        int32_t *ids = mem_array(r->n_prompt, sizeof(*ids));
        memcpy(ids, r->tokens, r->n_prompt * sizeof(*ids));
        sampling.choice = k;
        snprintf(tag, sizeof(tag), "%.*s/%u", (int)(slash - r->tag), r->tag, ch->idx);
        ch->request = dispatch_submit(c->co->dispatch, c->model, ids, r->n_prompt, r->priority, &sampling,
                                      r->cache_salt, &events, ch, tag);
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
        if (c->req->n_logprobs >= 0) token_log_add(&ch->log, id, at, row);
        if (stop) token_log_cut(&ch->log, ch->echo_chars + ch->stream.chars, c->req->echo ? ch->request->n_prompt : 0);
    }
    if (stop) {
        ch->stopped = true;
        dispatch_finish(c->co->dispatch, ch->request, REQUEST_FINISH_STOP);
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
    ch->n_output = ch->call->hide_output ? 0 : request_n_output(r);
    ch->t = r->t;
    memcpy(ch->decode_name, r->decode_name, sizeof(ch->decode_name));
    if (!r->local) memcpy(ch->prefill_name, r->prefill_name, sizeof(ch->prefill_name));
    ch->finish_reason = r->finish == REQUEST_FINISH_STOP && !ch->call->hide_output ? "stop" : "length";
}

static void end_choice(struct choice *ch)
{
    struct call *c = ch->call;
    struct strbuf json = STRBUF_INIT;
    if (!ch->stopped && !c->hide_output) stream_finish(&ch->stream, &ch->text);
    if (c->req->stream) {
        flush(ch);
        begin_stream(c);
        c->format->end_chunk(ch, &json);
        write_event(c, &json);
        token_log_clear(&ch->log);
    }
    if (++c->n_done == c->n_choices) finish_call(c);
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

/* The prompt as the beginning of the answer: its text, and an entry for each token. */
static void echo(struct choice *ch, const struct admitted_prompt *p)
{
    const struct call *c = ch->call;
    const struct api_prompt *given = &c->req->prompts[ch->idx / c->req->n];
    struct strbuf text = STRBUF_INIT;
    struct detok detok;
    uint32_t chars = 0;
    detok_init(&detok, c->model->vocab, true);
    for (uint32_t i = 0; i < p->n; i++) {
        size_t before = text.n;
        if (c->req->n_logprobs >= 0) token_log_add(&ch->log, p->ids[i], chars, NULL);
        if (i < p->n_hidden) continue;
        detok_add(&detok, p->ids[i], &text);
        chars += stream_count_chars(strbuf_cstr(&text) + before, text.n - before);
    }
    detok_flush(&detok, &text);
    if (given->text)
        strbuf_add(&ch->text, given->text, given->n_text);
    else
        strbuf_add(&ch->text, text.s, text.n);
    ch->echo_chars = stream_count_chars(strbuf_cstr(&ch->text), ch->text.n);
    strbuf_fini(&text);
}

static void init_choice(struct call *c, uint32_t i, const struct admitted_prompt *p)
{
    struct choice *ch = &c->choices[i];
    *ch = (struct choice){ .call = c, .idx = i };
    stream_init(&ch->stream, c->model->vocab, c->req->stops, c->req->n_stops, p->sampling.min_tokens);
    ch->log.n_top = c->req->n_logprobs > 0 ? (uint32_t)c->req->n_logprobs : 0;
    if (c->req->echo) echo(ch, p);
}

/* The answers to one prompt: the first one starts. */
static void start_prompt(struct call *c, uint32_t i, struct admitted_prompt *p, const char *request_id)
{
    uint32_t n = (uint32_t)c->req->n;
    struct choice *ch = &c->choices[i * n];
    char tag[API_REQUEST_ID_MAX + 16];
    for (uint32_t k = 0; k < n; k++) init_choice(c, i * n + k, p);
    ch->leads = n > 1;
    snprintf(tag, sizeof(tag), c->n_choices > 1 ? "%s/%u" : "%s", request_id, ch->idx);
    int32_t *ids = p->ids;
    p->ids = NULL;
    ch->request = dispatch_submit(c->co->dispatch, c->model, ids, p->n, (int32_t)c->req->priority, &p->sampling,
                                  c->req->cache_salt, &events, ch, tag);
}

/* Takes `req` and the prompts out of `a`. */
static void create(const struct api_ask *ask, struct api_request *req, struct admitted *a,
                   const struct answer_format *format)
{
    struct coordinator *co = ask->co;
    struct call *c = mem_zalloc(sizeof(*c));
    c->co = co;
    c->x = ask->x;
    c->format = format;
    c->req = req;
    c->model = a->model;
    c->endpoint = ask->endpoint;
    c->hide_output = a->hide_output;
    c->created = clock_unix_s();
    c->started = c->last_write = clock_now_us();
    snprintf(c->id, sizeof(c->id), "%s%016llx%08llx", format->id_prefix, (unsigned long long)co->incarnation,
             (unsigned long long)++co->last_call);
    c->next = co->calls;
    if (c->next) c->next->prev = c;
    co->calls = c;
    co->n_calls++;
    if (req->ignored.n) {
        http_set_header(c->x, "x-baton-ignored-params", req->ignored.s);
        meters_ignored(co->meters, req->ignored.s);
    }
    c->n_choices = a->n_prompts * (uint32_t)req->n;
    c->choices = mem_array(c->n_choices, sizeof(*c->choices));
    for (uint32_t i = 0; i < a->n_prompts; i++) start_prompt(c, i, &a->prompts[i], ask->request_id);
    http_on_gone(c->x, on_gone, c);
}

void call_start(const struct api_ask *ask, enum api_endpoint endpoint, const struct answer_format *format)
{
    const struct config *cfg = ask->co->cfg;
    struct openai_limits limits = { cfg->coordinator.max_prompt_logprobs, cfg->coordinator.strict_params };
    struct api_request *req = NULL;
    struct admitted a = { 0 };
    struct api_error e;
    enum status st = openai_parse(&req, endpoint, http_body(ask->x), &limits, &e);
    if (st == OK) st = admit(ask->co, req, &a, &e);
    if (st == OK) {
        create(ask, req, &a, format);
    } else {
        api_reply_error(ask, a.model ? a.model->name : "", &e);
        api_request_destroy(req);
    }
    admitted_fini(&a);
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
