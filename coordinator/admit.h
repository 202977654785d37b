/* admit.h - from a parsed API request to prompts and sampling that the cluster can run: model, tokens, lengths.
 *
 * What is admitted fits: every token id is in the vocabulary, prompt and answer are within the context, no field is
 * left open (seed, max_tokens). */
#ifndef COORDINATOR_ADMIT_H
#define COORDINATOR_ADMIT_H
#include "coordinator/openai.h"
#include "coordinator/request.h"

struct api_error;
struct coordinator;

struct admitted_prompt {
    int32_t *ids; /* mem_free; NULL once taken */
    uint32_t n;
    uint32_t n_hidden;                /* tokens in front that are no part of the echoed text (BOS) */
    struct request_sampling sampling; /* its biases are the API request's */
};

struct admitted {
    struct served_model *model;
    struct admitted_prompt *prompts;
    uint32_t n_prompts;
    bool hide_output; /* echo with max_tokens 0: one token is computed, none is shown */
};

/* The caller gives *out back with admitted_fini(), also after failure. */
enum status admit(const struct coordinator *co, const struct api_request *r, struct admitted *out,
                  struct api_error *e) MUST_CHECK;
void admitted_fini(struct admitted *a);
#endif
