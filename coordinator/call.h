/* call.h - one HTTP call for completions: its choices in the cluster, and the answer that is streamed or collected.
 *
 * A call lives from its start to its answer's end, a failure, or its client's leaving, whichever is first.  The two
 * endpoints differ in their JSON only (struct answer_format). */
#ifndef COORDINATOR_CALL_H
#define COORDINATOR_CALL_H
#include "base/strbuf.h"
#include "coordinator/admit.h"
#include "coordinator/api.h"
#include "coordinator/logprobs.h"
#include "coordinator/openai.h"
#include "coordinator/stream.h"

struct call;
struct call_job;
struct http_exchange;

struct choice { /* answer idx % n to prompt idx / n */
    struct call *call;
    uint32_t idx;
    struct request *request; /* NULL: it has ended */
    struct stream stream;
    struct strbuf text;   /* the answer; when streaming, what is not written yet */
    struct token_log log; /* its tokens, the same; unused without logprobs */
    uint32_t echo_chars;  /* characters of the echoed prompt */
    bool stopped;         /* by a stop string */
    bool ended;           /* its last chunk is due */
    bool leads;           /* further answers to its prompt wait until the prompt's KV is cached */
    const char *finish_reason;
    /* what is left of the request after its end */
    uint32_t n_prompt;
    struct request_tokens tokens;
    struct request_timing t;
    char prefill_name[NODE_NAME_MAX + 1], decode_name[NODE_NAME_MAX + 1]; /* prefill "": the decode node itself */
};

struct answer_format {
    const char *object, *chunk_object, *id_prefix;
    /* each appends one JSON document; a chunk is one event */
    void (*begin_chunk)(const struct choice *c, struct strbuf *out); /* NULL: none */
    void (*text_chunk)(const struct choice *c, struct strbuf *out);  /* c->text and c->log */
    void (*end_chunk)(const struct choice *c, struct strbuf *out);
    void (*choice)(const struct choice *c, struct strbuf *out); /* of the whole answer */
};

struct call {
    struct call *prev, *next;
    struct services *sv;
    struct http_exchange *x; /* NULL once answered or gone */
    const struct answer_format *format;
    struct api_request *req;
    const struct served_model *model;
    const char *endpoint;
    char id[64];
    int64_t created;
    bool hide_output;
    bool begun;           /* the event stream is open */
    bool over;            /* nothing more is to be heard */
    bool dropped;         /* goes with the job under way */
    struct call_job *job; /* a large chunk, or the answer, is being written on a worker; NULL: none */
    struct choice *choices;
    uint32_t n_choices, n_done;
    uint64_t started, last_write, slow_since; /* clock_now_us; slow_since 0 = keeps up */
};

struct call_plan { /* all that a call begins with, as a worker made it of the body */
    const struct answer_format *format;
    struct api_request *req; /* without its texts */
    struct admitted admitted;
    struct choice *choices; /* with the echoed prompts */
    uint32_t n_choices;
};

/* Has the body of `ask` read on a worker; then submits what it asks for, or answers with the error.  call_plan.c */
void call_start(const struct api_ask *ask, enum api_endpoint endpoint, const struct answer_format *format);
/* Begins the call of a plan and takes what it needs out of it. */
void call_create(const struct api_ask *ask, struct call_plan *plan);
void choices_free(struct choice *choices, uint32_t n); /* NULL is fine */
/* Ends a call with an error: a status before the first byte, an event after it. */
void call_fail(struct call *c, const struct api_error *e);
/* Pings, early headers, clients that do not read. */
void call_tick(struct call *c, uint64_t now);

/* call_job.c: chunks and answers that would hold up the loop are written on a worker.  NULL: small, to be written at
 * once.  The job of a chunk takes the choice's text and log.  At its end it calls call_job_done(). */
struct call_job *call_job_chunk(struct choice *ch);
struct call_job *call_job_whole(struct call *c);
void call_job_cancel(struct call_job *job);
void call_job_done(struct call *c, bool whole, struct strbuf *json);

/* Writers shared by both formats: answer.c. */
void answer_head(const struct call *c, const char *object,
                 struct strbuf *out); /* {"id":... up to and with "choices":[ */
void answer_whole(const struct call *c, struct strbuf *out);
void answer_usage_chunk(const struct call *c, struct strbuf *out);
/* ,"usage":null} or } : the end of a chunk. */
void answer_chunk_tail(const struct call *c, struct strbuf *out);
/* The end of a choice's last chunk, with its timings. */
void answer_last_tail(const struct choice *c, struct strbuf *out);
#endif
