/* openai.c - the parse of a request body: field by field, then what no single field can know. */
#include "coordinator/openai_fields.h"

#include "base/mem.h"
#include "coordinator/api_error.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define LEAST_TOP_P 1e-6f /* the likeliest token alone */

const char *openai_kind(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a number";
    case JSON_NULL: return "null";
    default: return "a boolean";
    }
}

bool openai_whole(const json_t *v, int64_t *out)
{
    double d = json_number_value(v);
    if (json_is_integer(v)) {
        *out = json_integer_value(v);
        return true;
    }
    if (!json_is_real(v) || !(fabs(d) <= 0x1p53) || d != floor(d)) return false;
    *out = (int64_t)d;
    return true;
}

static enum status check_lengths(struct parse *p)
{
    struct api_request *r = p->r;
    if (r->max_tokens < 0) r->max_tokens = r->max_completion_tokens;
    if (r->max_completion_tokens >= 0 && r->max_completion_tokens != r->max_tokens)
        return api_error_set(p->e, ERR_INVALID, NULL, "max_completion_tokens",
                             "'max_tokens' (%lld) and 'max_completion_tokens' (%lld) differ; give one",
                             (long long)r->max_tokens, (long long)r->max_completion_tokens);
    r->max_completion_tokens = r->max_tokens;
    if (r->max_tokens == 0 && !r->echo)
        return api_error_set(p->e, ERR_INVALID, NULL, "max_tokens",
                             "'max_tokens' must be at least 1 (0 is allowed with echo)");
    if (r->max_tokens >= 0 && r->sampling.min_tokens > r->max_tokens)
        return api_error_set(p->e, ERR_INVALID, NULL, "min_tokens",
                             "'min_tokens' (%u) is more than 'max_tokens' (%lld)", r->sampling.min_tokens,
                             (long long)r->max_tokens);
    return OK;
}

/* Whether the answer opens a new turn, as it does by default, or goes on with the last message. */
static enum status check_turn(struct parse *p)
{
    struct api_request *r = p->r;
    const json_t *last = json_array_get(r->messages, json_array_size(r->messages) - 1);
    const char *role = json_string_value(json_object_get(last, "role"));
    bool assistant = role && !strcmp(role, "assistant");
    bool silent = !p->add_generation_prompt.given && !p->continue_final.given;
    r->continue_final = p->continue_final.on || (silent && assistant && p->limits->prefill_assistant);
    r->add_generation_prompt = p->add_generation_prompt.given ? p->add_generation_prompt.on : !r->continue_final;
    if (r->continue_final && r->add_generation_prompt)
        return api_error_set(
            p->e, ERR_INVALID, NULL, "continue_final_message",
            "'continue_final_message' and 'add_generation_prompt' cannot both be true: an answer goes on "
            "with the last message, or opens a new turn");
    if (r->continue_final && !assistant)
        return api_error_set(p->e, ERR_INVALID, NULL, "continue_final_message",
                             "'continue_final_message' needs a last message of role \"assistant\"");
    return OK;
}

/* What no single field can know. */
static enum status check_together(struct parse *p)
{
    struct api_request *r = p->r;
    if (r->endpoint == API_CHAT && !r->messages)
        return api_error_set(p->e, ERR_INVALID, NULL, "messages", "'messages' is required");
    if (r->endpoint == API_CHAT && check_turn(p) != OK) return ERR_INVALID;
    if (r->endpoint == API_COMPLETIONS && !r->n_prompts)
        return api_error_set(p->e, ERR_INVALID, NULL, "prompt", "'prompt' is required");
    if (r->n * r->n_prompts > OPENAI_MAX_CHOICES)
        return api_error_set(p->e, ERR_INVALID, NULL, "n", "'n' times %u prompts is more than %d answers", r->n_prompts,
                             OPENAI_MAX_CHOICES);
    if (r->include_usage && !r->stream)
        return api_error_set(p->e, ERR_INVALID, NULL, "stream_options",
                             "'stream_options' is only allowed when 'stream' is true");
    if (p->best_of && p->best_of != r->n)
        return fields_unsupported(p, "best_of", "may only be equal to 'n': every answer is returned");
    if (p->top_logprobs >= 0 && !p->chat_logprobs)
        return api_error_set(p->e, ERR_INVALID, NULL, "top_logprobs",
                             "'top_logprobs' is only allowed when 'logprobs' is true");
    if (p->chat_logprobs) r->sampling.n_logprobs = p->top_logprobs < 0 ? 0 : (int32_t)p->top_logprobs;
    if (r->echo && r->sampling.n_logprobs > (int64_t)p->limits->max_prompt_logprobs)
        return api_error_set(p->e, ERR_INVALID, NULL, "logprobs",
                             "'logprobs' together with 'echo' may be at most %u, got %d",
                             p->limits->max_prompt_logprobs, r->sampling.n_logprobs);
    if (r->sampling.top_p < LEAST_TOP_P) r->sampling.top_p = LEAST_TOP_P;
    return check_lengths(p);
}

static enum status parse_root(struct parse *p, const json_t *root)
{
    const char *name;
    json_t *v;
    json_object_foreach((json_t *)root, name, v)
    {
        const struct field *f = fields_find(name, p->r->endpoint);
        enum status st;
        if (json_is_null(v)) continue;
        if (!f) {
            char shown[64];
            snprintf(shown, sizeof(shown), "%.63s", name);
            return fields_unsupported(p, shown, "is not a parameter that this endpoint supports");
        }
        if ((st = fields_read(p, f, v)) != OK) return st;
    }
    return check_together(p);
}

enum status openai_parse(struct api_request **out, enum api_endpoint endpoint, struct bytes body,
                         const struct openai_limits *limits, struct api_error *e)
{
    json_t *root;
    enum status st = openai_load_object(&root, body, limits->stop, e);
    if (st != OK) return st;
    struct api_request *r = mem_zalloc(sizeof(*r));
    r->endpoint = endpoint;
    r->max_tokens = r->max_completion_tokens = -1;
    r->sampling = sampling_defaults();
    r->parse_special = true;
    r->n = 1;
    struct parse p = { .r = r, .limits = limits, .e = e, .top_logprobs = -1 };
    st = parse_root(&p, root);
    json_decref(root);
    if (st != OK) {
        api_request_destroy(r);
        return st;
    }
    if (!r->model) r->model = mem_strdup("");
    if (!r->cache_salt) r->cache_salt = mem_strdup("");
    *out = r;
    return OK;
}

void api_request_drop_texts(struct api_request *r)
{
    for (uint32_t i = 0; i < r->n_prompts; i++) {
        mem_free(r->prompts[i].text);
        mem_free(r->prompts[i].ids);
    }
    mem_free(r->prompts);
    json_decref(r->messages);
    r->prompts = NULL;
    r->n_prompts = 0;
    r->messages = NULL;
}

void api_request_destroy(struct api_request *r)
{
    if (!r) return;
    api_request_drop_texts(r);
    for (uint32_t i = 0; i < r->n_stops; i++) mem_free(r->stops[i].text);
    strbuf_fini(&r->ignored);
    sampling_fini(&r->sampling);
    mem_free(r->cache_salt);
    mem_free(r->model);
    mem_free(r);
}
