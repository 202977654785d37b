/* jobs_internal.h - what jobs.c and job_reports.c share. */
#ifndef NODE_JOBS_INTERNAL_H
#define NODE_JOBS_INTERNAL_H
#include "node/jobs.h"

struct report { /* a token, or logprobs of a prompt position */
    struct report *next;
    bool is_prompt;
    bool has_logprobs;
    uint32_t idx;
    int32_t token;
    struct token_logprobs logprobs;
};

struct jobs {
    struct job *by_id;
    uint32_t n;
    struct job *with_reports; /* list by next_with_reports */
};

void reports_free(struct job *j);
#endif
