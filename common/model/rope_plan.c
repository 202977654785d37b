/* rope_plan.c - context scaling as divisors of frequencies. */
#include "model/rope_plan.h"

#include <math.h>

#define TWO_PI 6.28318530717958647692

bool rope_is_long(const struct rope_facts *f, uint32_t max_context)
{
    return max_context > f->original_context;
}

/* The pair that turns `turns` times within the original context. */
static double pair_of(const struct rope_facts *f, double turns)
{
    return f->dims * log(f->original_context / (turns * TWO_PI)) / (2 * log((double)f->base));
}

static double clamp(double v, double low, double high)
{
    return v < low ? low : v > high ? high : v;
}

/* What YaRN divides the frequency of pair i by. */
static double yarn_divisor(const struct rope_facts *f, uint32_t i)
{
    const double low = fmax(0, floor(pair_of(f, (double)f->beta_fast)));
    const double high = fmin(f->dims - 1, ceil(pair_of(f, (double)f->beta_slow)));
    const double keep = 1 - clamp((i - low) / fmax(0.001, high - low), 0, 1);
    return 1 / (keep + (1 - keep) / (double)f->factor);
}

static const float *divisors(const struct rope_facts *f, const struct rope_divisors *given, uint32_t max_context)
{
    if (given->freqs) return given->freqs;
    return rope_is_long(f, max_context) ? given->longer : given->shorter;
}

void rope_plan(struct rope_params *out, float *factors, const struct rope_facts *f, const struct rope_divisors *given,
               uint32_t max_context)
{
    const float *d = divisors(f, given, max_context);
    const bool yarn = f->scaling == ROPE_YARN;
    *out = (struct rope_params){ .base = f->base,
                                 .scale = f->scaling == ROPE_LINEAR ? 1.0f / f->factor : 1.0f,
                                 .dims = f->dims,
                                 .neox = f->neox,
                                 .attn_factor = f->attn_factor };
    if (yarn && f->magnitude) out->attn_factor *= (float)(1 + 0.1 * log((double)f->factor));
    if (!yarn && !d) return;
    for (uint32_t i = 0; i < f->dims / 2; i++)
        factors[i] = yarn ? (float)(yarn_divisor(f, i) * (d ? (double)d[i] : 1.0)) : d[i];
    out->freq_factors = factors;
}
