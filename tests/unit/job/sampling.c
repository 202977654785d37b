/* sampling: each option's range, by name; copies own their biases. */
#include "job/sampling.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

static struct sampling_params least(void)
{
    struct sampling_params p = sampling_defaults();
    p.max_tokens = 1;
    return p;
}

Test(sampling, defaults_ask_for_nothing_but_a_length)
{
    struct sampling_params p = sampling_defaults();
    struct error err;
    cr_assert_eq(sampling_check(&p, &err), ERR_INVALID);
    cr_assert_not_null(strstr(err.text, "max_tokens is 0"), "%s", err.text);
    p.max_tokens = 1;
    cr_assert_eq(sampling_check(&p, NULL), OK);
}

static void put(struct sampling_params *p, const struct sampling_option *o, double v)
{
    void *at = (char *)p + o->offset;
    if (o->kind == SAMPLING_F32) *(float *)at = (float)v;
    if (o->kind == SAMPLING_U32) *(uint32_t *)at = (uint32_t)v;
    if (o->kind == SAMPLING_I32) *(int32_t *)at = (int32_t)v;
}

static void expect_refused(const struct sampling_option *o, double v)
{
    struct sampling_params p = least();
    struct error err = { OK, "" };
    put(&p, o, v);
    cr_assert_eq(sampling_check(&p, &err), ERR_INVALID, "%s = %g", o->name, v);
    cr_assert(!strncmp(err.text, o->name, strlen(o->name)), "%s = %g: %s", o->name, v, err.text);
}

Test(sampling, values_out_of_range_are_refused_by_name)
{
    for (size_t i = 0; i < sampling_n_options; i++) {
        const struct sampling_option *o = &sampling_options[i];
        struct sampling_params p = least();
        if (o->kind == SAMPLING_U64 || o->kind == SAMPLING_BOOL) continue;
        p.max_tokens = UINT32_MAX; /* so that min_tokens may be as large */
        put(&p, o, o->min);
        cr_assert_eq(sampling_check(&p, NULL), OK, "%s may be %g", o->name, o->min);
        p = least();
        p.max_tokens = UINT32_MAX;
        put(&p, o, o->max);
        cr_assert_eq(sampling_check(&p, NULL), OK, "%s may be %g", o->name, o->max);
        if (o->kind == SAMPLING_F32) {
            expect_refused(o, o->min - 0.1);
            expect_refused(o, o->max + 0.1);
            expect_refused(o, (double)NAN);
            expect_refused(o, (double)INFINITY);
            expect_refused(o, (double)-INFINITY);
        } else {
            if (o->kind == SAMPLING_I32 || o->min > 0) expect_refused(o, o->min - 1);
            if (o->max < INT32_MAX) expect_refused(o, o->max + 1);
        }
    }
}

Test(sampling, what_contradicts_itself_is_refused)
{
    struct sampling_params p = least();
    struct error err;
    p.max_tokens = 4;
    p.min_tokens = 4;
    cr_assert_eq(sampling_check(&p, NULL), OK);
    p.min_tokens = 5;
    cr_assert_eq(sampling_check(&p, &err), ERR_INVALID);
    cr_assert_not_null(strstr(err.text, "min_tokens is 5, it must be at most max_tokens, which is 4"), "%s", err.text);
}

Test(sampling, biases_are_bounded_numbers_for_token_ids)
{
    int32_t ids[SAMPLING_MAX_BIAS + 1] = { 0, INT32_MAX };
    float bias[SAMPLING_MAX_BIAS + 1] = { 100, -100 };
    struct sampling_params p = least();
    struct error err;
    p.bias_ids = ids;
    p.bias = bias;
    p.n_bias = SAMPLING_MAX_BIAS;
    cr_assert_eq(sampling_check(&p, NULL), OK);
    p.n_bias++;
    cr_assert_eq(sampling_check(&p, &err), ERR_INVALID);
    cr_assert_not_null(strstr(err.text, "1025 entries, at most 1024"), "%s", err.text);
    p.n_bias = 2;
    ids[1] = -1;
    cr_assert_eq(sampling_check(&p, &err), ERR_INVALID);
    cr_assert_not_null(strstr(err.text, "bias_ids: entry 1 is -1"), "%s", err.text);
    ids[1] = 3;
    const float wrong[] = { NAN, INFINITY, -2e6f };
    for (size_t i = 0; i < 3; i++) {
        bias[1] = wrong[i];
        cr_assert_eq(sampling_check(&p, &err), ERR_INVALID);
        cr_assert_not_null(strstr(err.text, "bias: entry 1 is"), "%s", err.text);
    }
}

Test(sampling, a_copy_outlives_what_it_was_made_of)
{
    struct sampling_params p = least(), copy;
    sampling_alloc_bias(&p, 3);
    p.n_bias = 3;
    for (uint32_t i = 0; i < 3; i++) {
        p.bias_ids[i] = (int32_t)i + 7;
        p.bias[i] = (float)i;
    }
    sampling_copy(&copy, &p);
    memset(p.bias_ids, 0, 3 * sizeof(*p.bias_ids));
    memset(p.bias, 0, 3 * sizeof(*p.bias));
    sampling_fini(&p);
    cr_assert(p.n_bias == 0 && !p.bias_ids);
    cr_assert(copy.n_bias == 3 && copy.bias_ids[2] == 9 && copy.bias[2] == 2 && copy.max_tokens == 1);
    sampling_fini(&copy);
}
