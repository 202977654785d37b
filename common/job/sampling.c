/* sampling.c - the table of sampling options, and the one check of their values. */
#include "job/sampling.h"

#include "base/mem.h"

#include <string.h>

/* Bounds of factors and logits: beyond them nothing is meant, and float arithmetic gets coarse.  Both exact as floats.
 */
#define MUCH       1e6
#define LITTLE     0x1p-20
#define AT(member) offsetof(struct sampling_params, member)

const struct sampling_option sampling_options[] = {
    { "temperature", SAMPLING_F32, AT(temperature), 0, MUCH },
    { "top_k", SAMPLING_U32, AT(top_k), 0, UINT32_MAX },
    { "top_p", SAMPLING_F32, AT(top_p), 0, 1 },
    { "min_p", SAMPLING_F32, AT(min_p), 0, 1 },
    { "repetition_penalty", SAMPLING_F32, AT(repetition_penalty), LITTLE, MUCH },
    { "frequency_penalty", SAMPLING_F32, AT(frequency_penalty), -MUCH, MUCH },
    { "presence_penalty", SAMPLING_F32, AT(presence_penalty), -MUCH, MUCH },
    { "seed", SAMPLING_U64, AT(seed), 0, 0 },
    { "choice", SAMPLING_U32, AT(choice), 0, UINT32_MAX },
    { "max_tokens", SAMPLING_U32, AT(max_tokens), 1, UINT32_MAX },
    { "min_tokens", SAMPLING_U32, AT(min_tokens), 0, UINT32_MAX },
    { "ignore_eos", SAMPLING_BOOL, AT(ignore_eos), 0, 0 },
    { "logprobs", SAMPLING_I32, AT(n_logprobs), -1, SAMPLING_MAX_LOGPROBS },
    { "prompt_logprobs", SAMPLING_I32, AT(n_prompt_logprobs), -1, SAMPLING_MAX_LOGPROBS },
};
const size_t sampling_n_options = sizeof(sampling_options) / sizeof(sampling_options[0]);

struct sampling_params sampling_defaults(void)
{
    return (struct sampling_params){
        .temperature = 1, .top_p = 1, .repetition_penalty = 1, .n_logprobs = -1, .n_prompt_logprobs = -1
    };
}

/* Those of a kind whose every value is one read as their least. */
static double value_of(const struct sampling_params *p, const struct sampling_option *o)
{
    const char *at = (const char *)p + o->offset;
    switch (o->kind) {
    case SAMPLING_F32: return (double)*(const float *)(const void *)at;
    case SAMPLING_U32: return *(const uint32_t *)(const void *)at;
    case SAMPLING_I32: return *(const int32_t *)(const void *)at;
    case SAMPLING_U64:
    case SAMPLING_BOOL: break;
    }
    return o->min;
}

static enum status check_bias(const struct sampling_params *p, struct error *err)
{
    if (p->n_bias > SAMPLING_MAX_BIAS)
        return error_set(err, ERR_INVALID, "bias: %u entries, at most %d are possible", p->n_bias, SAMPLING_MAX_BIAS);
    for (uint32_t i = 0; i < p->n_bias; i++) {
        double v = (double)p->bias[i];
        if (p->bias_ids[i] < 0)
            return error_set(err, ERR_INVALID, "bias_ids: entry %u is %d, token ids begin at 0", i, p->bias_ids[i]);
        if (!(v >= -MUCH && v <= MUCH))
            return error_set(err, ERR_INVALID, "bias: entry %u is %g, it must be from %g to %g", i, v, -MUCH, MUCH);
    }
    return OK;
}

enum status sampling_check(const struct sampling_params *p, struct error *err)
{
    for (size_t i = 0; i < sampling_n_options; i++) {
        const struct sampling_option *o = &sampling_options[i];
        double v = value_of(p, o);
        if (!(v >= o->min && v <= o->max)) /* NaN is in no range */
            return error_set(err, ERR_INVALID, "%s is %.9g, it must be from %.7g to %.10g", o->name, v, o->min, o->max);
    }
    if (p->min_tokens > p->max_tokens)
        return error_set(err, ERR_INVALID, "min_tokens is %u, it must be at most max_tokens, which is %u",
                         p->min_tokens, p->max_tokens);
    return check_bias(p, err);
}

void sampling_alloc_bias(struct sampling_params *p, uint32_t n)
{
    char *both = mem_array(n, sizeof(*p->bias_ids) + sizeof(*p->bias)); /* ids, then values */
    p->bias_ids = (int32_t *)(void *)both;
    p->bias = (float *)(void *)(both + n * sizeof(*p->bias_ids));
}

void sampling_copy(struct sampling_params *out, const struct sampling_params *in)
{
    *out = *in;
    out->bias_ids = NULL;
    out->bias = NULL;
    if (in->n_bias == 0) return;
    sampling_alloc_bias(out, in->n_bias);
    memcpy(out->bias_ids, in->bias_ids, in->n_bias * sizeof(*in->bias_ids));
    memcpy(out->bias, in->bias, in->n_bias * sizeof(*in->bias));
}

void sampling_fini(struct sampling_params *p)
{
    mem_free(p->bias_ids);
    p->bias_ids = NULL;
    p->bias = NULL;
    p->n_bias = 0;
}
