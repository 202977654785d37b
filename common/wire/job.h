/* job.h - what a request is on the wire, enough to compute it or to go on with it anywhere: one record, packed by the
 * coordinator and unpacked by nodes, and how it ended, the other way round. */
#ifndef WIRE_JOB_H
#define WIRE_JOB_H
#include "job/finish.h"
#include "job/sampling.h"
#include "proto/control.pb-c.h"

struct job_record {                /* arrays and strings are borrowed */
    uint64_t incarnation, counter; /* the request's id; the incarnation is its coordinator's */
    uint32_t epoch;
    int32_t *tokens; /* [n_tokens]: prompt, then the output so far */
    uint32_t n_tokens, n_prompt;
    struct sampling_params sampling;
    uint32_t deadline_ms; /* left until its next token is late */
    char *cache_salt;     /* "" = none */
    int32_t priority;     /* lower is earlier */
};

struct job_message { /* the parts of a Job message, which point at each other: not to be moved */
    Baton__Control__Job msg;
    Baton__Control__Sampling sampling;
    Baton__Kv__RequestId id;
};

/* out->msg is the message; it borrows from the record. */
void job_pack(struct job_message *out, const struct job_record *j);
/* The record borrows from the message.  ERR_PARSE: a part is missing; ERR_INVALID names the first value that cannot be,
 * and what would be right.  Ids of tokens are for those who know the vocabulary. */
enum status job_unpack(struct job_record *out, const Baton__Control__Job *m, struct error *err) MUST_CHECK;

Baton__Control__Finish finish_pack(enum finish_reason finish);
/* What a peer says: FINISH_FAILED for what is no reason. */
enum finish_reason finish_unpack(Baton__Control__Finish wire);
#endif
