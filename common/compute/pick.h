/* pick.h - what the sampler wants of a row of logits, and what a backend picks for it: so the row itself can stay where
 * it is.
 *
 * A row is edited first, in this order: bias, repetition, frequency, presence, then what is banned or masked becomes
 * -infinity.  Candidates are in the order of draws: falling logit, equal ones by rising id. */
#ifndef COMPUTE_PICK_H
#define COMPUTE_PICK_H
#include "base/select.h"

#include <stdbool.h>
#include <stdint.h>

#define PICK_MAX 256 /* candidates of a row */

/* A token of the text so far, each once. */
struct pick_seen {
    int32_t id;
    uint32_t n_output; /* how often it is in the output */
};

/* One row's edits and wishes.  All pointers are host memory that stays until the stream has come so far; ids are in the
 * vocabulary. */
struct pick_row {
    const int32_t *bias_ids; /* [n_bias]; logit += bias, entry by entry */
    const float *bias;
    uint32_t n_bias;
    const struct pick_seen *seen; /* [n_seen] */
    uint32_t n_seen;
    float repetition;      /* of tokens seen: a positive logit is divided by it, another multiplied; 1: off */
    float frequency;       /* logit -= frequency * n_output; 0: off */
    float presence;        /* logit -= presence, where n_output > 0; 0: off */
    const int32_t *banned; /* [n_banned] */
    uint32_t n_banned;
    const uint32_t *mask; /* bit id % 32 of word id / 32: it may be drawn; [(n_vocab + 31) / 32]; NULL: all may */
    uint32_t want;        /* candidates, 1 to PICK_MAX */
    float temperature;    /* > 0: the candidates' weights are wanted, */
    bool wants_mass;      /* and their sum over the row */
    bool wants_sum;       /* for logprobs */
    int32_t ask;          /* a token whose logit is wanted, or -1 */
};

struct picked {
    bool finite; /* the row held numbers alone before its edits; otherwise n is 0, and NaN what is a number here */
    uint32_t n;  /* candidates: as many as are wanted, or the vocabulary has */
    float asked; /* the logit of `ask` */
    double mass; /* sum of exp((logit - best) / temperature) over the row; 0 if the best is not finite */
    double sum;  /* sum of exp(logit - best), likewise */
    struct candidate best[PICK_MAX]; /* value: the logit */
    float weight[PICK_MAX];          /* exp((logit - best) / temperature) of these, where wanted */
};

static inline bool pick_allows(const uint32_t *mask, uint32_t id)
{
    return !mask || (mask[id / 32] >> id % 32 & 1);
}
#endif
