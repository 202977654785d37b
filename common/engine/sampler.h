/* sampler.h - one token from one row of logits: penalties, bias, filters, draw, logprobs.
 *
 * Pure: the same logits, parameters, history and (seed, choice, output index) give the same token on every
 * node.  Order: logit_bias, repetition, frequency and presence penalties, min_tokens mask; then, if temperature > 0,
 * temperature, top-k, top-p, min-p and the draw; otherwise the arg-max (lowest id on ties).
 * Logprobs are of the distribution after bias and penalties, before temperature and filters ("raw" model
 * probabilities when neither is set). */
#ifndef ENGINE_SAMPLER_H
#define ENGINE_SAMPLER_H
#include "job/sampling.h"

#include <stdbool.h>
#include <stdint.h>

struct token_logprobs {
    float logprob; /* of the token itself */
    uint32_t n_top;
    int32_t top_ids[SAMPLING_MAX_LOGPROBS]; /* falling */
    float top[SAMPLING_MAX_LOGPROBS];
};

struct sampler; /* scratch for one thread, sized by the vocabulary */
struct sampler *sampler_create(uint32_t n_vocab, const int32_t *end_ids, uint32_t n_end_ids);
void sampler_destroy(struct sampler *s);

/* Whether all are numbers.  What a model of broken weights computes may not be. */
bool sampler_can_draw(const struct sampler *s, const float *logits);
/* `history`: prompt then output tokens; output starts at n_prompt.  `logits` is used as scratch. */
int32_t sampler_draw(struct sampler *s, float *logits, const struct sampling_params *p, const int32_t *history,
                     uint32_t n_prompt, uint32_t n_output, struct token_logprobs *lp /* may be NULL */);
/* Logprobs of `token` and the top n under plain softmax(logits) (prompt logprobs). */
void sampler_logprobs(struct sampler *s, const float *logits, int32_t token, uint32_t n_top, struct token_logprobs *lp);
bool sampler_is_end(const struct sampler *s, int32_t id);
/* The uniform draw in [0, 1) for (seed, choice, output index): a counter-based generator, the same everywhere. */
double sampler_uniform(uint64_t seed, uint32_t choice, uint32_t output_idx);
#endif
