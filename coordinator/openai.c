/* openai.c - the table of request fields, and the parse that walks it. */
#include "coordinator/openai.h"

#include "base/mem.h"
#include "base/utf8.h"
#include "coordinator/api_error.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct parse {
    struct api_request *r;
    const struct openai_limits *limits;
    struct api_error *e;
    int64_t top_logprobs;
    bool chat_logprobs;
};

typedef enum status (*field_fn)(struct parse *p, const char *name, const json_t *v);

enum field_kind { FIELD_NUM, FIELD_INT, FIELD_BOOL, FIELD_FN, FIELD_IGNORED };

struct field {
    const char *name;
    enum field_kind kind;
    unsigned endpoints; /* bits of enum api_endpoint */
    size_t offset;      /* in struct api_request */
    double min, max;
    field_fn fn;
};

#define CHAT (1u << API_CHAT)
#define TEXT (1u << API_COMPLETIONS)
#define BOTH (CHAT | TEXT)

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

static enum status refuse(struct parse *p, const char *name, const char *want, const json_t *v)
{
    return api_error_set(p->e, ERR_INVALID, NULL, name, "'%s' must be %s, not %s", name, want, openai_kind(v));
}

static enum status unsupported(struct parse *p, const char *name, const char *why)
{
    return api_error_set(p->e, ERR_UNSUPPORTED, "unsupported_parameter", name, "'%s' %s", name, why);
}

static enum status read_num(struct parse *p, const struct field *f, const json_t *v)
{
    if (!json_is_number(v)) return refuse(p, f->name, "a number", v);
    double d = json_number_value(v);
    if (!isfinite(d) || d < f->min || d > f->max)
        return api_error_set(p->e, ERR_INVALID, NULL, f->name, "'%s' must be from %g to %g, got %g", f->name, f->min,
                             f->max, d);
    *(double *)((char *)p->r + f->offset) = d;
    return OK;
}

static enum status int_in(struct parse *p, const char *name, const json_t *v, int64_t min, int64_t max, int64_t *out)
{
    if (!json_is_integer(v)) return refuse(p, name, "an integer", v);
    int64_t i = json_integer_value(v);
    if (i < min || i > max)
        return api_error_set(p->e, ERR_INVALID, NULL, name, "'%s' must be from %lld to %lld, got %lld", name,
                             (long long)min, (long long)max, (long long)i);
    *out = i;
    return OK;
}

static enum status read_bool(struct parse *p, const char *name, const json_t *v, bool *out)
{
    if (!json_is_boolean(v)) return refuse(p, name, "true or false", v);
    *out = json_is_true(v);
    return OK;
}

static enum status read_model(struct parse *p, const char *name, const json_t *v)
{
    if (!json_is_string(v)) return refuse(p, name, "a string", v);
    if (json_string_length(v) > 256)
        return api_error_set(p->e, ERR_INVALID, NULL, name, "'model' is longer than 256 bytes");
    mem_free(p->r->model);
    p->r->model = mem_strndup(json_string_value(v), json_string_length(v));
    return OK;
}

static enum status read_cache_salt(struct parse *p, const char *name, const json_t *v)
{
    if (!json_is_string(v)) return refuse(p, name, "a string", v);
    if (json_string_length(v) == 0 || json_string_length(v) > OPENAI_MAX_SALT)
        return api_error_set(p->e, ERR_INVALID, NULL, name, "'cache_salt' must have 1 to %d bytes, got %zu",
                             OPENAI_MAX_SALT, json_string_length(v));
    mem_free(p->r->cache_salt);
    p->r->cache_salt = mem_strdup(json_string_value(v));
    return OK;
}

static enum status read_messages(struct parse *p, const char *name, const json_t *v)
{
    return openai_read_messages(p->r, v, p->e);
}

static enum status read_prompt(struct parse *p, const char *name, const json_t *v)
{
    return openai_read_prompt(p->r, v, p->e);
}

static enum status read_stop(struct parse *p, const char *name, const json_t *v)
{
    return openai_read_stop(p->r, v, p->e);
}

static enum status read_stream_options(struct parse *p, const char *name, const json_t *v)
{
    const char *key;
    json_t *item;
    if (!json_is_object(v)) return refuse(p, name, "an object", v);
    json_object_foreach((json_t *)v, key, item)
    {
        char path[API_ERROR_PARAM_MAX];
        snprintf(path, sizeof(path), "stream_options.%s", key);
        bool on = false;
        enum status st;
        if (json_is_null(item)) continue;
        if ((st = read_bool(p, path, item, &on)) != OK) return st;
        if (!strcmp(key, "include_usage"))
            p->r->include_usage = on;
        else if (strcmp(key, "include_obfuscation") != 0 && on)
            return unsupported(p, path, "is not supported");
    }
    return OK;
}

static enum status read_seed(struct parse *p, const char *name, const json_t *v)
{
    if (!json_is_integer(v)) return refuse(p, name, "a 64-bit integer", v);
    p->r->seed = (uint64_t)json_integer_value(v);
    p->r->has_seed = true;
    return OK;
}

static enum status read_logit_bias(struct parse *p, const char *name, const json_t *v)
{
    const char *key;
    json_t *item;
    struct api_request *r = p->r;
    if (!json_is_object(v)) return refuse(p, name, "an object of token ids", v);
    if (json_object_size(v) > OPENAI_MAX_BIAS)
        return api_error_set(p->e, ERR_INVALID, NULL, name, "'logit_bias' may have at most %d entries, got %zu",
                             OPENAI_MAX_BIAS, json_object_size(v));
    r->bias_ids = mem_resize(r->bias_ids, json_object_size(v) + 1, sizeof(*r->bias_ids));
    r->bias = mem_resize(r->bias, json_object_size(v) + 1, sizeof(*r->bias));
    json_object_foreach((json_t *)v, key, item)
    {
        char *end;
        errno = 0;
        long id = strtol(key, &end, 10);
        if (*key < '0' || *key > '9' || *end || errno || id > INT32_MAX)
            return api_error_set(p->e, ERR_INVALID, NULL, name, "'logit_bias': the key \"%.40s\" is not a token id",
                                 key);
        double b = json_number_value(item);
        if (!json_is_number(item) || !(b >= -100 && b <= 100))
            return api_error_set(p->e, ERR_INVALID, NULL, name,
                                 "'logit_bias': the value of \"%.40s\" must be a number from -100 "
                                 "to 100",
                                 key);
        r->bias_ids[r->n_bias] = (int32_t)id;
        r->bias[r->n_bias++] = (float)b;
    }
    return OK;
}

static enum status read_logprobs(struct parse *p, const char *name, const json_t *v)
{
    if (p->r->endpoint == API_CHAT) return read_bool(p, name, v, &p->chat_logprobs);
    if (json_is_false(v)) return OK;
    return int_in(p, name, v, 0, OPENAI_MAX_LOGPROBS, &p->r->n_logprobs);
}

static enum status read_top_logprobs(struct parse *p, const char *name, const json_t *v)
{
    return int_in(p, name, v, 0, OPENAI_MAX_LOGPROBS, &p->top_logprobs);
}

static enum status read_one(struct parse *p, const char *name, const json_t *v)
{
    if (!json_is_integer(v)) return refuse(p, name, "an integer", v);
    if (json_integer_value(v) == 1) return OK;
    return unsupported(p, name, "may only be 1");
}

static enum status read_suffix(struct parse *p, const char *name, const json_t *v)
{
    return unsupported(p, name, "is not supported: the prompt's continuation is all there is");
}

static enum status read_response_format(struct parse *p, const char *name, const json_t *v)
{
    const char *type = json_string_value(json_object_get(v, "type"));
    if (type && !strcmp(type, "text")) return OK;
    return unsupported(p, name, "other than {\"type\":\"text\"} is not supported");
}

static enum status read_modalities(struct parse *p, const char *name, const json_t *v)
{
    const char *only = json_string_value(json_array_get(v, 0));
    if (json_array_size(v) != 1 || !only || strcmp(only, "text") != 0)
        return unsupported(p, name, "may only be [\"text\"]");
    return OK;
}

#define AT(member) offsetof(struct api_request, member)

static const struct field fields[] = {
    { "model", FIELD_FN, BOTH, .fn = read_model },
    { "messages", FIELD_FN, CHAT, .fn = read_messages },
    { "prompt", FIELD_FN, TEXT, .fn = read_prompt },
    { "max_tokens", FIELD_INT, BOTH, AT(max_tokens), 0, INT32_MAX },
    { "max_completion_tokens", FIELD_INT, BOTH, AT(max_completion_tokens), 0, INT32_MAX },
    { "min_tokens", FIELD_INT, BOTH, AT(min_tokens), 0, INT32_MAX },
    { "temperature", FIELD_NUM, BOTH, AT(temperature), 0, 100 },
    { "top_p", FIELD_NUM, BOTH, AT(top_p), 1e-6, 1 },
    { "top_k", FIELD_INT, BOTH, AT(top_k), -1, INT32_MAX },
    { "min_p", FIELD_NUM, BOTH, AT(min_p), 0, 1 },
    { "frequency_penalty", FIELD_NUM, BOTH, AT(frequency_penalty), -2, 2 },
    { "presence_penalty", FIELD_NUM, BOTH, AT(presence_penalty), -2, 2 },
    { "repetition_penalty", FIELD_NUM, BOTH, AT(repetition_penalty), 0.01, 10 },
    { "repeat_penalty", FIELD_NUM, BOTH, AT(repetition_penalty), 0.01, 10 },
    { "ignore_eos", FIELD_BOOL, BOTH, AT(ignore_eos) },
    { "priority", FIELD_INT, BOTH, AT(priority), INT32_MIN, INT32_MAX },
    { "echo", FIELD_BOOL, TEXT, AT(echo) },
    { "return_tokens_as_token_ids", FIELD_BOOL, BOTH, AT(tokens_as_ids) },
    { "stream", FIELD_BOOL, BOTH, AT(stream) },
    { "stream_options", FIELD_FN, BOTH, .fn = read_stream_options },
    { "stop", FIELD_FN, BOTH, .fn = read_stop },
    { "seed", FIELD_FN, BOTH, .fn = read_seed },
    { "logit_bias", FIELD_FN, BOTH, .fn = read_logit_bias },
    { "logprobs", FIELD_FN, BOTH, .fn = read_logprobs },
    { "top_logprobs", FIELD_FN, CHAT, .fn = read_top_logprobs },
    { "cache_salt", FIELD_FN, BOTH, .fn = read_cache_salt },
    { "n", FIELD_INT, BOTH, AT(n), 1, OPENAI_MAX_CHOICES },
    { "best_of", FIELD_FN, TEXT, .fn = read_one },
    { "suffix", FIELD_FN, TEXT, .fn = read_suffix },
    { "response_format", FIELD_FN, BOTH, .fn = read_response_format },
    { "modalities", FIELD_IGNORED, BOTH, .fn = read_modalities },
    { "user", FIELD_IGNORED, BOTH },
    { "metadata", FIELD_IGNORED, BOTH },
    { "store", FIELD_IGNORED, BOTH },
    { "service_tier", FIELD_IGNORED, BOTH },
    { "prediction", FIELD_IGNORED, BOTH },
    { "verbosity", FIELD_IGNORED, BOTH },
    { "audio", FIELD_IGNORED, BOTH },
    { "web_search_options", FIELD_IGNORED, BOTH },
    { "safety_identifier", FIELD_IGNORED, BOTH },
    { "prompt_cache_key", FIELD_IGNORED, BOTH },
    { "prompt_cache_retention", FIELD_IGNORED, BOTH },
};

static const struct field *field_find(const char *name, enum api_endpoint endpoint)
{
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        if ((fields[i].endpoints & (1u << endpoint)) && !strcmp(fields[i].name, name)) return &fields[i];
    return NULL;
}

static enum status ignore(struct parse *p, const struct field *f, const json_t *v)
{
    if (f->fn) {
        enum status st = f->fn(p, f->name, v);
        if (st != OK) return st;
    }
    if (p->limits->strict_params) return unsupported(p, f->name, "is not supported");
    if (p->r->ignored.n) strbuf_puts(&p->r->ignored, ", ");
    strbuf_puts(&p->r->ignored, f->name);
    return OK;
}

static enum status read_field(struct parse *p, const struct field *f, const json_t *v)
{
    char *at = (char *)p->r + f->offset;
    switch (f->kind) {
    case FIELD_NUM: return read_num(p, f, v);
    case FIELD_INT: return int_in(p, f->name, v, (int64_t)f->min, (int64_t)f->max, (int64_t *)(void *)at);
    case FIELD_BOOL: return read_bool(p, f->name, v, (bool *)at);
    case FIELD_FN: return f->fn(p, f->name, v);
    case FIELD_IGNORED: return ignore(p, f, v);
    }
    return ERR_INTERNAL;
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
    if (r->max_tokens >= 0 && r->min_tokens > r->max_tokens)
        return api_error_set(p->e, ERR_INVALID, NULL, "min_tokens",
                             "'min_tokens' (%lld) is more than 'max_tokens' (%lld)", (long long)r->min_tokens,
                             (long long)r->max_tokens);
    return OK;
}

/* What no single field can know. */
static enum status check_together(struct parse *p)
{
    struct api_request *r = p->r;
    if (r->endpoint == API_CHAT && !r->messages)
        return api_error_set(p->e, ERR_INVALID, NULL, "messages", "'messages' is required");
    if (r->endpoint == API_COMPLETIONS && !r->n_prompts)
        return api_error_set(p->e, ERR_INVALID, NULL, "prompt", "'prompt' is required");
    if (r->n * r->n_prompts > OPENAI_MAX_CHOICES)
        return api_error_set(p->e, ERR_INVALID, NULL, "n", "'n' times %u prompts is more than %d answers", r->n_prompts,
                             OPENAI_MAX_CHOICES);
    if (r->include_usage && !r->stream)
        return api_error_set(p->e, ERR_INVALID, NULL, "stream_options",
                             "'stream_options' is only allowed when 'stream' is true");
    if (p->top_logprobs >= 0 && !p->chat_logprobs)
        return api_error_set(p->e, ERR_INVALID, NULL, "top_logprobs",
                             "'top_logprobs' is only allowed when 'logprobs' is true");
    if (p->chat_logprobs) r->n_logprobs = p->top_logprobs < 0 ? 0 : p->top_logprobs;
    if (r->echo && r->n_logprobs > (int64_t)p->limits->max_prompt_logprobs)
        return api_error_set(p->e, ERR_INVALID, NULL, "logprobs",
                             "'logprobs' together with 'echo' may be at most %u, got %lld",
                             p->limits->max_prompt_logprobs, (long long)r->n_logprobs);
    return check_lengths(p);
}

static enum status check_utf8(struct bytes body, struct api_error *e)
{
    for (size_t i = 0, len; i < body.n; i += len) {
        len = utf8_seq_len((const char *)body.p + i, body.n - i);
        if (len == 0)
            return api_error_set(e, ERR_PARSE, "invalid_json", NULL,
                                 "the body is not valid JSON: no valid UTF-8 at byte %zu", i);
    }
    return OK;
}

enum status openai_load_object(json_t **out, struct bytes body, struct api_error *e)
{
    json_error_t err;
    enum status st = check_utf8(body, e);
    if (st != OK) return st;
    json_t *root = json_loadb((const char *)body.p, body.n, JSON_REJECT_DUPLICATES, &err);
    if (!root)
        return api_error_set(e, ERR_PARSE, "invalid_json", NULL,
                             "the body is not valid JSON: %s (line %d, column %d, byte %d)",
                             body.n ? err.text : "it is empty", err.line, err.column, err.position);
    if (!json_is_object(root)) {
        api_error_set(e, ERR_PARSE, "invalid_json", NULL, "the body must be a JSON object, not %s", openai_kind(root));
        json_decref(root);
        return ERR_PARSE;
    }
    *out = root;
    return OK;
}

static enum status parse_root(struct parse *p, const json_t *root)
{
    const char *name;
    json_t *v;
    json_object_foreach((json_t *)root, name, v)
    {
        const struct field *f = field_find(name, p->r->endpoint);
        enum status st;
        if (json_is_null(v)) continue;
        if (!f) {
            char shown[64];
            snprintf(shown, sizeof(shown), "%.63s", name);
            return unsupported(p, shown, "is not a parameter that this endpoint supports");
        }
        if ((st = read_field(p, f, v)) != OK) return st;
    }
    return check_together(p);
}

enum status openai_parse(struct api_request **out, enum api_endpoint endpoint, struct bytes body,
                         const struct openai_limits *limits, struct api_error *e)
{
    json_t *root;
    enum status st = openai_load_object(&root, body, e);
    if (st != OK) return st;
    struct api_request *r = mem_zalloc(sizeof(*r));
    r->endpoint = endpoint;
    r->max_tokens = r->max_completion_tokens = r->n_logprobs = -1;
    r->temperature = r->top_p = r->repetition_penalty = 1;
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

void api_request_destroy(struct api_request *r)
{
    if (!r) return;
    for (uint32_t i = 0; i < r->n_prompts; i++) {
        mem_free(r->prompts[i].text);
        mem_free(r->prompts[i].ids);
    }
    for (uint32_t i = 0; i < r->n_stops; i++) mem_free(r->stops[i].text);
    mem_free(r->prompts);
    json_decref(r->messages);
    strbuf_fini(&r->ignored);
    mem_free(r->bias_ids);
    mem_free(r->bias);
    mem_free(r->cache_salt);
    mem_free(r->model);
    mem_free(r);
}
