/* sampler.h - one token from what was picked of one row of logits.
 *
 * Pure: the same logits, parameters, history and (seed, choice, output index) give the same token on every
 * node.  Order: logit_bias, repetition, frequency and presence penalties, min_tokens, mask; then, if temperature > 0,
 * temperature, top-k, top-p, min-p and the draw; otherwise the arg-max (lowest id on ties).  docs/sampling.md defines
 * each of them, and the order in which a draw goes through the tokens.
 * The row stays with the model: sampler_ask() says what is to be picked from it (compute/pick.h), sampler_draw() draws
 * from that.  Only where 256 candidates cannot tell, the weights of the whole row are asked for.
 * Logprobs are of the distribution after bias, penalties and masks, before temperature and filters ("raw" model
 * probabilities where nothing of that is set). */
#ifndef ENGINE_SAMPLER_H
#define ENGINE_SAMPLER_H
#include "compute/pick.h"
#include "job/sampling.h"

#include <stdbool.h>
#include <stdint.h>

struct token_logprobs {
    float logprob; /* of the token itself */
    uint32_t n_top;
    int32_t top_ids[SAMPLING_MAX_LOGPROBS]; /* falling */
    float top[SAMPLING_MAX_LOGPROBS];
};

/* A token, and its logit after bias, penalties and masks. */
struct drawn {
    int32_t token;
    float logit;
};

struct sampler; /* scratch for one thread, sized by the vocabulary */
struct sampler *sampler_create(uint32_t n_vocab, const int32_t *end_ids, uint32_t n_end_ids);
void sampler_destroy(struct sampler *s);

/* Rows that are asked for from here on may take the place of what earlier ones point to. */
void sampler_begin(struct sampler *s);
/* What is to be picked for the token that follows `history`: prompt, then output from n_prompt on.  `mask` may be NULL
 * (compute/pick.h).  *out points into p, the mask and the sampler's memory; false: there is no room beside the rows
 * asked for since sampler_begin(), after which there always is. */
bool sampler_ask(struct sampler *s, struct pick_row *out, const struct sampling_params *p, const int32_t *history,
                 uint32_t n_prompt, uint32_t n_output, const uint32_t *mask) MUST_CHECK;
/* Draws the output's token n_output from what was picked.  False: it lies beyond the candidates, or the filters end
 * beyond them, so sampler_draw_beyond() is to be asked. */
bool sampler_draw(const struct sampler *s, struct drawn *out, const struct picked *from,
                  const struct sampling_params *p, uint32_t n_output) MUST_CHECK;
/* The same from the whole row: its logits as they were picked from, and exp((logit - best) / temperature) of each. */
struct drawn sampler_draw_beyond(struct sampler *s, const struct picked *from, const float *logits,
                                 const float *weights, const struct sampling_params *p, uint32_t n_output);
/* Logprobs of a token and of the first n_top candidates; `sum` was wanted, and n_top candidates. */
void sampler_logprobs(const struct picked *from, const struct drawn *token, uint32_t n_top, struct token_logprobs *lp);
bool sampler_is_end(const struct sampler *s, int32_t id);
/* Room for a row of logits, for whoever calls sampler_draw_beyond(). */
float *sampler_row(struct sampler *s);
/* The uniform draw in [0, 1) for (seed, choice, output index): a counter-based generator, the same everywhere. */
double sampler_uniform(uint64_t seed, uint32_t choice, uint32_t output_idx);
#endif
