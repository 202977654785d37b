/* job_reports.c - what a node says about its jobs. */
#include "base/mem.h"
#include "node/jobs_internal.h"
#include "wire/control_note.h"
#include "wire/job.h"

#include <stdio.h>
#include <utlist.h>

#define ROWS_MAX 64 /* of one message */

#define BODY(name) BATON__CONTROL__CONTROL_MESSAGE__BODY_##name

static void begin(struct control_note *note, Baton__Control__ControlMessage__BodyCase kind, const struct job *j)
{
    const struct control_id id = { j->key.hi, j->key.lo, j->key.epoch };
    control_note_init(note, kind, &id);
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
    Baton__Control__Token tokens[ROWS_MAX], *refs[ROWS_MAX];
    Baton__Control__TokenLogprobs logprobs[ROWS_MAX];
    struct control_note note;

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
    begin(&note, BODY(TOKENS), j);
    note.tokens.n_tokens = n;
    note.tokens.tokens = refs;
    link_send(j->link, &note.m);
}

static void send_prompt_logprobs(struct job *j, struct report **rows, uint32_t n)
{
    Baton__Control__TokenLogprobs logprobs[ROWS_MAX], *refs[ROWS_MAX];
    struct control_note note;

    for (uint32_t i = 0; i < n; i++) {
        fill_logprobs(&logprobs[i], &rows[i]->logprobs);
        refs[i] = &logprobs[i];
    }
    begin(&note, BODY(PROMPT_LOGPROBS), j);
    note.prompt_logprobs.first_position = rows[0]->idx;
    note.prompt_logprobs.n_rows = n;
    note.prompt_logprobs.rows = refs;
    link_send(j->link, &note.m);
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
    struct control_note note;

    if (!is_heard(j)) return;
    begin(&note, BODY(RESERVED), j);
    note.reserved.reservation = j->reservation;
    note.reserved.credit_bytes = credit_bytes;
    note.reserved.hit_tokens = hit_tokens;
    link_send(j->link, &note.m);
}

static void send_progress(struct job *j, Baton__Control__Stage stage, uint32_t tokens, uint64_t bytes, uint32_t cached)
{
    struct control_note note;

    if (!is_heard(j)) return;
    begin(&note, BODY(PROGRESS), j);
    note.progress.stage = stage;
    note.progress.tokens = tokens;
    note.progress.bytes = bytes;
    note.progress.cached_tokens = cached;
    link_send(j->link, &note.m);
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
    struct control_note note;

    jobs_flush(js);
    if (!is_heard(j)) return;
    begin(&note, BODY(PREFILL_DONE), j);
    note.prefill_done.kv_bytes = j->kv_bytes;
    note.prefill_done.prefill_us = clip(prefill_us);
    note.prefill_done.handoff_us = clip(j->handoff_us);
    note.prefill_done.ended = ended != FINISH_NONE;
    note.prefill_done.finish = finish_pack(ended);
    link_send(j->link, &note.m);
}

void job_send_finished(struct jobs *js, struct job *j, const struct engine_event *done)
{
    struct control_note note;

    jobs_flush(js);
    if (!is_heard(j)) return;
    begin(&note, BODY(FINISHED), j);
    note.finished.finish = finish_pack(done->finish);
    note.finished.n_output = j->n_output;
    note.finished.decode_us = clip(done->decode_us);
    note.finished.prefill_us = clip(done->prefill_us);
    link_send(j->link, &note.m);
}

static void send_failed(struct link *l, const struct control_id *id, enum status st, const char *text, bool kept)
{
    struct control_note note;

    control_note_init(&note, BODY(FAILED), id);
    note.failed.status = st;
    note.failed.message = (char *)(uintptr_t)(text ? text : status_text(st));
    note.failed.reservation_kept = kept;
    link_send(l, &note.m);
}

void job_send_failed(struct jobs *js, struct job *j, enum status st, const char *text, bool reservation_kept)
{
    const struct control_id id = { j->key.hi, j->key.lo, j->key.epoch };

    jobs_flush(js);
    if (is_heard(j)) send_failed(j->link, &id, st, text, reservation_kept);
}

void link_send_failed(struct link *l, uint64_t lo, uint32_t epoch, enum status st, const char *text)
{
    const struct control_id id = { link_incarnation(l), lo, epoch };
    send_failed(l, &id, st, text, false);
}

void link_send_cancel_ack(struct link *l, uint64_t lo, uint32_t epoch)
{
    const struct control_id id = { link_incarnation(l), lo, epoch };
    struct control_note note;

    control_note_init(&note, BODY(CANCEL_ACK), &id);
    link_send(l, &note.m);
}
