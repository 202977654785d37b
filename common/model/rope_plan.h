/* rope_plan.h - what a file says about positions, as the backend wants it: pure functions of numbers.
 *
 * Every way to stretch a context is a base, a factor for all frequencies, a divisor for each, and a factor for cos and
 * sin.  YaRN and LongRoPE are divisors. */
#ifndef MODEL_ROPE_PLAN_H
#define MODEL_ROPE_PLAN_H
#include "compute/backend.h"

enum rope_scaling {
    ROPE_PLAIN,  /* as trained */
    ROPE_LINEAR, /* all frequencies divided by `factor` */
    ROPE_YARN,   /* slow pairs are divided by `factor`, fast ones stay, those between are in between */
    ROPE_LONG    /* divisors of the file, others above the original context */
};

/* One table of positions, as metadata has it. */
struct rope_facts {
    enum rope_scaling scaling;
    bool neox;
    float base;
    uint32_t dims;
    float factor;
    uint32_t original_context;
    float attn_factor;
    float beta_fast, beta_slow; /* YaRN: pairs that turn more often than fast in the original context stay */
    bool magnitude;             /* YaRN: cos and sin grow by 1 + 0.1 ln(factor) */
};

/* The file's divisors, dims/2 each, or NULL. */
struct rope_divisors {
    const float *freqs, *longer, *shorter;
};

/* Whether a session of that context takes the divisors for long ones. */
bool rope_is_long(const struct rope_facts *f, uint32_t max_context);
/* The parameters for sessions of max_context; factors [dims/2] is filled where any divisor is not 1, and
 * out->freq_factors is NULL otherwise. */
void rope_plan(struct rope_params *out, float *factors, const struct rope_facts *f, const struct rope_divisors *given,
               uint32_t max_context);
#endif
