/* openai_fields.c - the table of request fields: what is read, ignored or refused, and which values ask for nothing. */
#include "coordinator/openai_fields.h"

#include "base/mem.h"
#include "base/token_id.h"
#include "coordinator/api_error.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHAT (1u << API_CHAT)
#define TEXT (1u << API_COMPLETIONS)
#define BOTH (CHAT | TEXT)
#define TOK  (1u << API_TOKENIZE)

static enum status refuse(struct parse *p, const char *name, const char *want, const json_t *v)
{
    return api_error_set(p->e, ERR_INVALID, NULL, name, "'%s' must be %s, not %s", name, want, openai_kind(v));
}

enum status fields_unsupported(struct parse *p, const char *name, const char *why)
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
    *(float *)(void *)((char *)p->r + f->offset) = (float)d;
    return OK;
}

static enum status int_in(struct parse *p, const char *name, const json_t *v, int64_t min, int64_t max, int64_t *out)
{
    int64_t i;
    if (!openai_whole(v, &i)) return refuse(p, name, "an integer", v);
    if (i < min || i > max)
        return api_error_set(p->e, ERR_INVALID, NULL, name, "'%s' must be from %lld to %lld, got %lld", name,
                             (long long)min, (long long)max, (long long)i);
    *out = i;
    return OK;
}

/* -1 where the row allows it: off, as 0. */
static enum status read_count(struct parse *p, const struct field *f, const json_t *v)
{
    int64_t i = 0;
    enum status st = int_in(p, f->name, v, (int64_t)f->min, (int64_t)f->max, &i);
    if (st == OK) *(uint32_t *)(void *)((char *)p->r + f->offset) = i < 0 ? 0 : (uint32_t)i;
    return st;
}

static enum status read_bool(struct parse *p, const char *name, const json_t *v, bool *out)
{
    if (!json_is_boolean(v)) return refuse(p, name, "true or false", v);
    *out = json_is_true(v);
    return OK;
}

/* -1 = no limit: what the context leaves. */
static enum status read_limit(struct parse *p, const char *name, const json_t *v)
{
    int64_t *to = !strcmp(name, "max_tokens") ? &p->r->max_tokens : &p->r->max_completion_tokens;
    enum status st = int_in(p, name, v, -1, INT32_MAX, to);
    if (st == OK && *to < 0) *to = INT32_MAX;
    return st;
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
            return fields_unsupported(p, path, "is not supported");
    }
    return OK;
}

static enum status read_seed(struct parse *p, const char *name, const json_t *v)
{
    int64_t seed;
    if (!openai_whole(v, &seed)) return refuse(p, name, "a 64-bit integer", v);
    p->r->sampling.seed = (uint64_t)seed;
    p->r->has_seed = true;
    return OK;
}

static enum status read_logit_bias(struct parse *p, const char *name, const json_t *v)
{
    const char *key;
    json_t *item;
    struct sampling_params *s = &p->r->sampling;
    if (!json_is_object(v)) return refuse(p, name, "an object of token ids", v);
    if (json_object_size(v) > SAMPLING_MAX_BIAS)
        return api_error_set(p->e, ERR_INVALID, NULL, name, "'logit_bias' may have at most %d entries, got %zu",
                             SAMPLING_MAX_BIAS, json_object_size(v));
    sampling_alloc_bias(s, (uint32_t)json_object_size(v));
    json_object_foreach((json_t *)v, key, item)
    {
        char *end;
        errno = 0;
        long id = strtol(key, &end, 10);
        if (*key < '0' || *key > '9' || *end || errno || !token_id_ok(id, INT32_MAX))
            return api_error_set(p->e, ERR_INVALID, NULL, name, "'logit_bias': the key \"%.40s\" is not a token id",
                                 key);
        double b = json_number_value(item);
        if (!json_is_number(item) || !(b >= -100 && b <= 100))
            return api_error_set(p->e, ERR_INVALID, NULL, name,
                                 "'logit_bias': the value of \"%.40s\" must be a number from -100 "
                                 "to 100",
                                 key);
        s->bias_ids[s->n_bias] = (int32_t)id;
        s->bias[s->n_bias++] = (float)b;
    }
    return OK;
}

static enum status read_flag(struct parse *p, const char *name, const json_t *v, struct field_flag *out)
{
    out->given = true;
    return read_bool(p, name, v, &out->on);
}

static enum status read_add_prompt(struct parse *p, const char *name, const json_t *v)
{
    return read_flag(p, name, v, &p->add_generation_prompt);
}

static enum status read_continue(struct parse *p, const char *name, const json_t *v)
{
    return read_flag(p, name, v, &p->continue_final);
}

static enum status read_chat_logprobs(struct parse *p, const char *name, const json_t *v)
{
    return read_bool(p, name, v, &p->chat_logprobs);
}

static enum status read_text_logprobs(struct parse *p, const char *name, const json_t *v)
{
    int64_t n = 0;
    enum status st = int_in(p, name, v, 0, SAMPLING_MAX_LOGPROBS, &n);
    if (st == OK) p->r->sampling.n_logprobs = (int32_t)n;
    return st;
}

static enum status read_top_logprobs(struct parse *p, const char *name, const json_t *v)
{
    return int_in(p, name, v, 0, SAMPLING_MAX_LOGPROBS, &p->top_logprobs);
}

static enum status read_best_of(struct parse *p, const char *name, const json_t *v)
{
    return int_in(p, name, v, 1, OPENAI_MAX_CHOICES, &p->best_of);
}

#define AT(member) offsetof(struct api_request, member)
/* the neutral values of a row */
#define OR(...) .neutral = { __VA_ARGS__ }
#define FALSE   NEUTRAL_FALSE
#define TRUE    NEUTRAL_TRUE
#define EMPTY   NEUTRAL_EMPTY
#define ZERO    NEUTRAL_ZERO
#define ONE     NEUTRAL_ONE
#define MINUS   NEUTRAL_MINUS_ONE
#define NUMBER  NEUTRAL_NUMBER

static const struct field fields[] = {
    { "model", FIELD_FN, BOTH, .fn = read_model },
    { "messages", FIELD_FN, CHAT, .fn = read_messages },
    { "prompt", FIELD_FN, TEXT, .fn = read_prompt },
    { "max_tokens", FIELD_FN, BOTH, .fn = read_limit },
    { "max_completion_tokens", FIELD_FN, BOTH, .fn = read_limit },
    { "min_tokens", FIELD_COUNT, BOTH, AT(sampling.min_tokens), 0, INT32_MAX },
    { "temperature", FIELD_NUM, BOTH, AT(sampling.temperature), 0, 100 },
    { "top_p", FIELD_NUM, BOTH, AT(sampling.top_p), 0, 1 },
    { "top_k", FIELD_COUNT, BOTH, AT(sampling.top_k), -1, INT32_MAX },
    { "min_p", FIELD_NUM, BOTH, AT(sampling.min_p), 0, 1 },
    { "frequency_penalty", FIELD_NUM, BOTH, AT(sampling.frequency_penalty), -2, 2 },
    { "presence_penalty", FIELD_NUM, BOTH, AT(sampling.presence_penalty), -2, 2 },
    { "repetition_penalty", FIELD_NUM, BOTH, AT(sampling.repetition_penalty), 0.01, 10 },
    { "repeat_penalty", FIELD_NUM, BOTH, AT(sampling.repetition_penalty), 0.01, 10 },
    { "ignore_eos", FIELD_BOOL, BOTH, AT(sampling.ignore_eos) },
    { "parse_special", FIELD_BOOL, TEXT, AT(parse_special) },
    { "priority", FIELD_INT, BOTH, AT(priority), INT32_MIN, INT32_MAX },
    { "echo", FIELD_BOOL, TEXT, AT(echo) },
    { "return_tokens_as_token_ids", FIELD_BOOL, BOTH, AT(tokens_as_ids) },
    { "stream", FIELD_BOOL, BOTH, AT(stream) },
    { "stream_options", FIELD_FN, BOTH, .fn = read_stream_options },
    { "stop", FIELD_FN, BOTH, .fn = read_stop, OR(EMPTY) },
    { "seed", FIELD_FN, BOTH, .fn = read_seed, OR(MINUS) },
    { "logit_bias", FIELD_FN, BOTH, .fn = read_logit_bias, OR(EMPTY) },
    { "logprobs", FIELD_FN, CHAT, .fn = read_chat_logprobs, OR(FALSE | ZERO) },
    { "logprobs", FIELD_FN, TEXT, .fn = read_text_logprobs, OR(FALSE) },
    { "top_logprobs", FIELD_FN, CHAT, .fn = read_top_logprobs, OR(ZERO) },
    { "cache_salt", FIELD_FN, BOTH, .fn = read_cache_salt, OR(EMPTY) },
    { "add_generation_prompt", FIELD_FN, CHAT, .fn = read_add_prompt },
    { "add_generation_prompt", FIELD_REFUSED, TEXT, OR(FALSE | TRUE) },
    { "continue_final_message", FIELD_FN, CHAT, .fn = read_continue },
    { "continue_final_message", FIELD_REFUSED, TEXT, OR(FALSE) },
    { "n", FIELD_INT, BOTH, AT(n), 1, OPENAI_MAX_CHOICES },
    { "best_of", FIELD_FN, BOTH, .fn = read_best_of },
    /* accepted, and without effect */
    { "user", FIELD_IGNORED, BOTH, OR(EMPTY) },
    { "metadata", FIELD_IGNORED, BOTH, OR(EMPTY) },
    { "store", FIELD_IGNORED, BOTH, OR(FALSE) },
    { "service_tier", FIELD_IGNORED, BOTH, OR(EMPTY, "auto default") },
    { "prediction", FIELD_IGNORED, BOTH, OR(EMPTY) },
    { "verbosity", FIELD_IGNORED, BOTH, OR(EMPTY, "medium") },
    { "audio", FIELD_IGNORED, BOTH, OR(EMPTY) },
    { "web_search_options", FIELD_IGNORED, BOTH },
    { "safety_identifier", FIELD_IGNORED, BOTH, OR(EMPTY) },
    { "prompt_cache_key", FIELD_IGNORED, BOTH, OR(EMPTY) },
    { "prompt_cache_retention", FIELD_IGNORED, BOTH, OR(EMPTY, "in_memory in-memory") },
    /* known and left out: OpenAI's */
    { "tools", FIELD_REFUSED, BOTH, OR(EMPTY) },
    { "tool_choice", FIELD_REFUSED, BOTH, OR(EMPTY, "none auto") },
    { "parallel_tool_calls", FIELD_REFUSED, BOTH, OR(FALSE | TRUE) },
    { "functions", FIELD_REFUSED, BOTH, OR(EMPTY) },
    { "function_call", FIELD_REFUSED, BOTH, OR(EMPTY, "none auto") },
    { "response_format", FIELD_REFUSED, BOTH, OR(EMPTY, "text") },
    { "modalities", FIELD_REFUSED, BOTH, OR(EMPTY, "text") },
    { "reasoning_effort", FIELD_REFUSED, BOTH, OR(EMPTY, "none") },
    { "suffix", FIELD_REFUSED, TEXT, OR(EMPTY) },
    { "top_logprobs", FIELD_REFUSED, TEXT, OR(ZERO) },
    { "echo", FIELD_REFUSED, CHAT, OR(FALSE) },
    /* llama-server's */
    { "n_predict", FIELD_REFUSED, BOTH, OR(MINUS) },
    { "n_keep", FIELD_REFUSED, BOTH, OR(ZERO) },
    { "n_discard", FIELD_REFUSED, BOTH, OR(ZERO) },
    { "n_indent", FIELD_REFUSED, BOTH, OR(ZERO) },
    { "n_probs", FIELD_REFUSED, BOTH, OR(ZERO) },
    { "min_keep", FIELD_REFUSED, BOTH, OR(ZERO) },
    { "typical_p", FIELD_REFUSED, BOTH, OR(ONE) },
    { "tfs_z", FIELD_REFUSED, BOTH, OR(ONE) },
    { "top_n_sigma", FIELD_REFUSED, BOTH, OR(ZERO | MINUS) },
    { "mirostat", FIELD_REFUSED, BOTH, OR(ZERO) },
    { "mirostat_tau", FIELD_REFUSED, BOTH, OR(NUMBER) },
    { "mirostat_eta", FIELD_REFUSED, BOTH, OR(NUMBER) },
    { "dynatemp_range", FIELD_REFUSED, BOTH, OR(ZERO) },
    { "dynatemp_exponent", FIELD_REFUSED, BOTH, OR(NUMBER) },
    { "xtc_probability", FIELD_REFUSED, BOTH, OR(ZERO) },
    { "xtc_threshold", FIELD_REFUSED, BOTH, OR(NUMBER) },
    { "dry_multiplier", FIELD_REFUSED, BOTH, OR(ZERO) },
    { "dry_base", FIELD_REFUSED, BOTH, OR(NUMBER) },
    { "dry_allowed_length", FIELD_REFUSED, BOTH, OR(NUMBER) },
    { "dry_penalty_last_n", FIELD_REFUSED, BOTH, OR(NUMBER) },
    { "dry_sequence_breakers", FIELD_REFUSED, BOTH, OR(NEUTRAL_LIST) },
    { "repeat_last_n", FIELD_REFUSED, BOTH, OR(MINUS) },
    { "samplers", FIELD_REFUSED, BOTH, OR(EMPTY) },
    { "grammar", FIELD_REFUSED, BOTH, OR(EMPTY) },
    { "grammar_lazy", FIELD_REFUSED, BOTH, OR(FALSE) },
    { "grammar_triggers", FIELD_REFUSED, BOTH, OR(EMPTY) },
    { "preserved_tokens", FIELD_REFUSED, BOTH, OR(EMPTY) },
    { "json_schema", FIELD_REFUSED, BOTH },
    { "lora", FIELD_REFUSED, BOTH, OR(EMPTY) },
    { "image_data", FIELD_REFUSED, BOTH, OR(EMPTY) },
    { "cache_prompt", FIELD_REFUSED, BOTH, OR(TRUE) },
    { "id_slot", FIELD_REFUSED, BOTH, OR(MINUS) },
    { "timings_per_token", FIELD_REFUSED, BOTH, OR(FALSE) },
    { "post_sampling_probs", FIELD_REFUSED, BOTH, OR(FALSE) },
    { "return_progress", FIELD_REFUSED, BOTH, OR(FALSE) },
    { "return_tokens", FIELD_REFUSED, BOTH, OR(FALSE) },
    { "response_fields", FIELD_REFUSED, BOTH, OR(EMPTY) },
    { "t_max_predict_ms", FIELD_REFUSED, BOTH, OR(ZERO | MINUS) },
    { "t_max_prompt_ms", FIELD_REFUSED, BOTH, OR(ZERO | MINUS) },
    { "reasoning_format", FIELD_REFUSED, BOTH, OR(EMPTY, "none auto") },
    { "reasoning_in_content", FIELD_REFUSED, BOTH, OR(FALSE) },
    { "thinking_forced_open", FIELD_REFUSED, BOTH, OR(FALSE) },
    { "parse_tool_calls", FIELD_REFUSED, BOTH, OR(FALSE | TRUE) },
    { "chat_template", FIELD_REFUSED, BOTH, OR(EMPTY) },
    { "chat_template_kwargs", FIELD_REFUSED, BOTH, OR(EMPTY) },
    /* vLLM's, and what others send along */
    { "use_beam_search", FIELD_REFUSED, BOTH, OR(FALSE) },
    { "length_penalty", FIELD_REFUSED, BOTH, OR(NUMBER) },
    { "early_stopping", FIELD_REFUSED, BOTH, OR(FALSE | TRUE) },
    { "stop_token_ids", FIELD_REFUSED, BOTH, OR(EMPTY) },
    { "include_stop_str_in_output", FIELD_REFUSED, BOTH, OR(FALSE) },
    { "skip_special_tokens", FIELD_REFUSED, BOTH, OR(TRUE) },
    { "spaces_between_special_tokens", FIELD_REFUSED, BOTH, OR(FALSE | TRUE) },
    { "detokenize", FIELD_REFUSED, BOTH, OR(TRUE) },
    { "add_special_tokens", FIELD_REFUSED, CHAT, OR(FALSE) },
    { "add_special_tokens", FIELD_REFUSED, TEXT, OR(TRUE) },
    { "prompt_logprobs", FIELD_REFUSED, BOTH, OR(FALSE) },
    { "truncate_prompt_tokens", FIELD_REFUSED, BOTH },
    { "allowed_token_ids", FIELD_REFUSED, BOTH, OR(EMPTY) },
    { "bad_words", FIELD_REFUSED, BOTH, OR(EMPTY) },
    { "logits_processors", FIELD_REFUSED, BOTH, OR(EMPTY) },
    { "guided_json", FIELD_REFUSED, BOTH },
    { "guided_regex", FIELD_REFUSED, BOTH, OR(EMPTY) },
    { "guided_choice", FIELD_REFUSED, BOTH, OR(EMPTY) },
    { "guided_grammar", FIELD_REFUSED, BOTH, OR(EMPTY) },
    { "structured_outputs", FIELD_REFUSED, BOTH, OR(EMPTY) },
    { "documents", FIELD_REFUSED, BOTH, OR(EMPTY) },
    { "include_reasoning", FIELD_REFUSED, BOTH, OR(FALSE | TRUE) },
    { "return_token_ids", FIELD_REFUSED, BOTH, OR(FALSE) },
    { "kv_transfer_params", FIELD_REFUSED, BOTH, OR(EMPTY) },
    { "vllm_xargs", FIELD_REFUSED, BOTH, OR(EMPTY) },
    { "mm_processor_kwargs", FIELD_REFUSED, BOTH, OR(EMPTY) },
    { "thinking", FIELD_REFUSED, BOTH, OR(EMPTY, "disabled") },
    { "enable_thinking", FIELD_REFUSED, BOTH, OR(FALSE) },
    { "extra_body", FIELD_REFUSED, BOTH, OR(EMPTY) },
    /* /tokenize's, of either server */
    { "with_pieces", FIELD_REFUSED, TOK, OR(FALSE) },
    { "return_token_strs", FIELD_REFUSED, TOK, OR(FALSE) },
};

const struct field *fields_find(const char *name, enum api_endpoint endpoint)
{
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        if ((fields[i].endpoints & (1u << endpoint)) && !strcmp(fields[i].name, name)) return &fields[i];
    return NULL;
}

static enum status ignore(struct parse *p, const struct field *f)
{
    if (p->limits->strict_params) return fields_unsupported(p, f->name, "is not supported");
    if (p->r->ignored.n) strbuf_puts(&p->r->ignored, ", ");
    strbuf_puts(&p->r->ignored, f->name);
    return OK;
}

static enum status leave_out(struct parse *p, const struct field *f)
{
    char words[128], why[192];
    neutral_describe(&f->neutral, words, sizeof(words));
    snprintf(why, sizeof(why), words[0] ? "is not supported: leave it out, or let it be %s" : "is not supported%s",
             words);
    return fields_unsupported(p, f->name, why);
}

enum status fields_check_other(const char *name, const json_t *v, enum api_endpoint endpoint, bool strict,
                               struct api_error *e)
{
    struct parse p = { .e = e };
    const struct field *own = fields_find(name, endpoint), *any = NULL;
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        if (strcmp(fields[i].name, name) != 0) continue;
        any = &fields[i];
        if (neutral_is(&any->neutral, v) || (any->kind == FIELD_IGNORED && !strict)) return OK;
    }
    if (json_is_null(v)) return OK;
    if (own && own->kind == FIELD_REFUSED) return leave_out(&p, own);
    return api_error_set(e, ERR_UNSUPPORTED, "unsupported_parameter", name,
                         "'%.60s' is not a parameter that this endpoint supports%s", name,
                         any ? ", and its value would ask others for something" : "");
}

enum status fields_read(struct parse *p, const struct field *f, const json_t *v)
{
    char *at = (char *)p->r + f->offset;
    if (neutral_is(&f->neutral, v)) return OK;
    switch (f->kind) {
    case FIELD_NUM: return read_num(p, f, v);
    case FIELD_INT: return int_in(p, f->name, v, (int64_t)f->min, (int64_t)f->max, (int64_t *)(void *)at);
    case FIELD_COUNT: return read_count(p, f, v);
    case FIELD_BOOL: return read_bool(p, f->name, v, (bool *)at);
    case FIELD_FN: return f->fn(p, f->name, v);
    case FIELD_IGNORED: return ignore(p, f);
    case FIELD_REFUSED: return leave_out(p, f);
    }
    return ERR_INTERNAL;
}
