/* sampling.h - how tokens of a request are drawn: one plain record from the API to the sampler.
 *
 * It is read at the API, travels in Job messages (wire/job.h), and is used by the sampler; the engine and whoever
 * unpacks it check it with the same function.  A new option is a member here with its row in sampling.c, a line of
 * proto's Sampling under the row's name, a row in coordinator/openai_fields.c, and its use in engine/sampler.c. */
#ifndef JOB_SAMPLING_H
#define JOB_SAMPLING_H
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SAMPLING_MAX_LOGPROBS 20   /* alternatives of one token */
#define SAMPLING_MAX_BIAS     1024 /* entries of logit_bias */

struct sampling_params {
    float temperature;                         /* 0 = greedy */
    uint32_t top_k;                            /* 0 = off */
    float top_p;                               /* 1 = off */
    float min_p;                               /* 0 = off */
    float repetition_penalty;                  /* 1 = off; over prompt and output */
    float frequency_penalty, presence_penalty; /* 0 = off; over output */
    uint64_t seed;                             /* always set: the coordinator draws a missing one */
    uint32_t choice;                           /* which of `n` answers to a prompt: each draws differently */
    uint32_t max_tokens;                       /* output tokens at most, > 0 */
    uint32_t min_tokens;                       /* end tokens are masked before this many */
    bool ignore_eos;                           /* end tokens do not end generation */
    int32_t n_logprobs;                        /* -1 = none, else 0..20 alternatives */
    int32_t n_prompt_logprobs;                 /* -1 = none, else for every prompt token (echo) */
    uint32_t n_bias;
    int32_t *bias_ids; /* [n_bias], borrowed, unless it comes from sampling_copy() or sampling_alloc_bias() */
    float *bias;
};

/* Nothing asked for: what a request is that names no option.  max_tokens and seed are still to be set. */
struct sampling_params sampling_defaults(void);
/* ERR_INVALID names the first value that is out of range (or NaN), and what would be right.  Whether ids are in a
 * vocabulary is for those who have one. */
enum status sampling_check(const struct sampling_params *p, struct error *err) MUST_CHECK;
/* A copy with biases of its own. */
void sampling_copy(struct sampling_params *out, const struct sampling_params *in);
/* Room for n biases; n_bias stays. */
void sampling_alloc_bias(struct sampling_params *p, uint32_t n);
/* Gives biases of its own back. */
void sampling_fini(struct sampling_params *p);

/* The options but for biases, one by one. */
enum sampling_kind { SAMPLING_F32, SAMPLING_U32, SAMPLING_I32, SAMPLING_U64, SAMPLING_BOOL };
struct sampling_option {
    const char *name; /* in messages, and on the wire */
    enum sampling_kind kind;
    size_t offset;   /* in struct sampling_params */
    double min, max; /* both included; SAMPLING_U64 and SAMPLING_BOOL take every value */
};
extern const struct sampling_option sampling_options[];
extern const size_t sampling_n_options;
#endif
