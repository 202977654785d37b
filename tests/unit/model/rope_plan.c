/* Unit: context scaling as divisors of frequencies. */
#include "model/rope_plan.h"

#include <criterion/criterion.h>
#include <math.h>

#define DIMS 16

static const struct rope_facts PLAIN = { .scaling = ROPE_PLAIN,
                                         .base = 10000.0f,
                                         .dims = DIMS,
                                         .factor = 4.0f,
                                         .original_context = 256,
                                         .attn_factor = 1.0f,
                                         .beta_fast = 32.0f,
                                         .beta_slow = 1.0f,
                                         .magnitude = true };
static const struct rope_divisors NONE = { 0 };

Test(rope_plan, linear_scaling_is_one_factor_and_none_is_none)
{
    float factors[DIMS / 2];
    struct rope_params p;
    struct rope_facts f = PLAIN;
    rope_plan(&p, factors, &f, &NONE, 4096);
    cr_assert(p.scale == 1.0f && p.attn_factor == 1.0f && !p.freq_factors && p.dims == DIMS && !p.neox);
    f.scaling = ROPE_LINEAR;
    f.neox = true;
    rope_plan(&p, factors, &f, &NONE, 4096);
    cr_assert(p.scale == 0.25f && !p.freq_factors && p.neox);
}

/* The formula of the YaRN paper, written down another way: pair i turns context * base^(-2i/dims) / 2 pi times. */
Test(rope_plan, yarn_keeps_fast_pairs_and_stretches_slow_ones)
{
    float factors[DIMS / 2];
    struct rope_params p;
    struct rope_facts f = PLAIN;
    f.scaling = ROPE_YARN;
    rope_plan(&p, factors, &f, &NONE, 4096);
    cr_assert_eq(p.freq_factors, factors);
    cr_assert_float_eq(p.attn_factor, 1.0f + 0.1f * logf(4.0f), 1e-6f);
    cr_assert_eq(p.scale, 1.0f);
    for (uint32_t i = 0; i < DIMS / 2; i++) {
        const double turns = 256 * pow(10000, -2.0 * i / DIMS) / (2 * 3.14159265358979);
        if (turns > 32) cr_assert_eq(factors[i], 1.0f, "pair %u turns %g times", i, turns);
        if (turns < 0.3) cr_assert_float_eq(factors[i], 4.0f, 1e-6f, "pair %u turns %g times", i, turns);
        if (i > 0) cr_assert_geq(factors[i], factors[i - 1]);
    }
    cr_assert(factors[2] > 1.0f && factors[2] < 4.0f, "in between: %g", (double)factors[2]);
    f.magnitude = false;
    rope_plan(&p, factors, &f, &NONE, 4096);
    cr_assert_eq(p.attn_factor, 1.0f);
}

Test(rope_plan, the_session_chooses_between_long_and_short_divisors)
{
    float longer[DIMS / 2], shorter[DIMS / 2], freqs[DIMS / 2], factors[DIMS / 2];
    struct rope_params p;
    struct rope_facts f = PLAIN;
    for (uint32_t i = 0; i < DIMS / 2; i++) {
        longer[i] = 2.0f + (float)i;
        shorter[i] = 1.5f;
        freqs[i] = 8.0f;
    }
    struct rope_divisors given = { NULL, longer, shorter };
    f.attn_factor = 1.19f;
    rope_plan(&p, factors, &f, &given, 256);
    cr_assert(factors[3] == 1.5f && p.attn_factor == 1.19f);
    rope_plan(&p, factors, &f, &given, 257);
    cr_assert_eq(factors[3], 5.0f);
    f.scaling = ROPE_YARN; /* on top of divisors */
    given.freqs = freqs;
    rope_plan(&p, factors, &f, &given, 257);
    cr_assert(factors[0] == 8.0f && factors[DIMS / 2 - 1] == 32.0f);
}
