/* admit.h - from a parsed API request to prompts and sampling that the cluster can run: model, tokens, lengths.
 *
 * Runs on a worker: it reads models, which never change, and what the view says of the rest.  What is admitted fits:
 * every token id is in the vocabulary, prompt and answer are within the context, no field is left open (seed,
 * max_tokens). */
#ifndef COORDINATOR_ADMIT_H
#define COORDINATOR_ADMIT_H
#include "coordinator/cluster/dispatch.h"
#include "coordinator/openai.h"

#include <stdatomic.h>

struct api_error;
struct services;

struct admitted_prompt {
    int32_t *ids; /* mem_free; NULL once taken */
    uint32_t n;
    uint32_t n_hidden;               /* tokens in front that are no part of the echoed text (BOS) */
    struct sampling_params sampling; /* its biases are the API request's */
    enum token_limit_source limit_from;
};

struct admitted {
    struct served_model *model;
    struct admitted_prompt *prompts;
    uint32_t n_prompts;
    bool hide_output; /* echo with max_tokens 0: one token is computed, none is shown */
};

struct admit_view {
    const struct services *sv; /* for its models and configuration alone */
    const uint32_t *n_ctx;     /* by model */
    const atomic_bool *stop;   /* once true, tokenizing ends with ERR_CANCELLED */
};

/* The caller gives *out back with admitted_fini(), also after failure. */
enum status admit(const struct admit_view *view, const struct api_request *r, struct admitted *out,
                  struct api_error *e) MUST_CHECK;
/* What all of it costs while it waits, with n answers to each prompt. */
uint64_t admitted_bytes(const struct admitted *a, uint32_t n);
void admitted_fini(struct admitted *a);
#endif
