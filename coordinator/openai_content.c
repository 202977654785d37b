/* openai_content.c - the request fields that hold text: messages, prompts, stop strings. */
#include "base/mem.h"
#include "base/token_id.h"
#include "coordinator/api_error.h"
#include "coordinator/neutral.h"
#include "coordinator/openai.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *api;
    const char *template; /* what chat templates call it */
} roles[] = {
    { "system", "system" },
    { "developer", "system" },
    { "user", "user" },
    { "assistant", "assistant" },
};

static enum status read_role(const char **out, const json_t *message, size_t i, struct api_error *e)
{
    char path[48];
    const json_t *v = json_object_get(message, "role");
    snprintf(path, sizeof(path), "messages[%zu].role", i);
    if (!json_is_string(v)) return api_error_set(e, ERR_INVALID, NULL, "messages", "'%s' must be a string", path);
    for (size_t k = 0; k < sizeof(roles) / sizeof(roles[0]); k++) {
        if (strcmp(roles[k].api, json_string_value(v)) != 0) continue;
        *out = roles[k].template;
        return OK;
    }
    return api_error_set(e, ERR_INVALID, NULL, "messages",
                         "'%s' must be system, developer, user or assistant, got \"%.40s\"", path,
                         json_string_value(v));
}

static enum status read_part(struct strbuf *text, const json_t *part, size_t i, size_t k, struct api_error *e)
{
    char path[64];
    const char *type = json_string_value(json_object_get(part, "type"));
    const json_t *v = json_object_get(part, "text");
    snprintf(path, sizeof(path), "messages[%zu].content[%zu]", i, k);
    if (!type || strcmp(type, "text") != 0)
        return api_error_set(e, ERR_UNSUPPORTED, "unsupported_parameter", "messages",
                             "'%s': only parts of type \"text\" are supported, got %s%.40s%s", path, type ? "\"" : "",
                             type ? type : openai_kind(part), type ? "\"" : "");
    if (!json_is_string(v)) return api_error_set(e, ERR_INVALID, NULL, "messages", "'%s.text' must be a string", path);
    if (k) strbuf_putc(text, '\n');
    strbuf_add(text, json_string_value(v), json_string_length(v));
    return OK;
}

static enum status read_content(struct strbuf *text, const json_t *v, const char *role, size_t i, struct api_error *e)
{
    char path[48];
    /* what a model answered with something else than text */
    if ((!v || json_is_null(v)) && !strcmp(role, "assistant")) return OK;
    snprintf(path, sizeof(path), "messages[%zu].content", i);
    if (json_is_string(v)) {
        strbuf_add(text, json_string_value(v), json_string_length(v));
        return OK;
    }
    if (!json_is_array(v))
        return api_error_set(e, ERR_INVALID, NULL, "messages",
                             "'%s' must be a string or an array of text parts, not %s", path,
                             v ? openai_kind(v) : "absent");
    for (size_t k = 0; k < json_array_size(v); k++) {
        enum status st = read_part(text, json_array_get(v, k), i, k, e);
        if (st != OK) return st;
    }
    return OK;
}

/* Members of a message beside those that are read.  Clients send back what they got, and what others gave them. */
static const struct {
    const char *name;
    struct neutral neutral;
} members[] = {
    { "tool_calls", { NEUTRAL_EMPTY, NULL } },
    { "tool_call_id", { NEUTRAL_EMPTY, NULL } },
    { "function_call", { NEUTRAL_EMPTY, NULL } },
    { "annotations", { NEUTRAL_EMPTY, NULL } },
    { "audio", { NEUTRAL_EMPTY, NULL } },
    { "images", { NEUTRAL_EMPTY, NULL } },
    { "refusal", { NEUTRAL_EMPTY, NULL } },
    { "reasoning", { NEUTRAL_EMPTY, NULL } },
    { "reasoning_content", { NEUTRAL_EMPTY, NULL } },
    { "thinking_blocks", { NEUTRAL_EMPTY, NULL } },
    { "metadata", { NEUTRAL_EMPTY, NULL } },
    { "provider_specific_fields", { NEUTRAL_EMPTY, NULL } },
    { "prefix", { NEUTRAL_FALSE, NULL } },
};

static bool asks_for_nothing(const char *name, const json_t *v)
{
    if (json_is_null(v)) return true;
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
        if (!strcmp(members[i].name, name)) return neutral_is(&members[i].neutral, v);
    return false;
}

/* Refuses members which would change the answer. */
static enum status check_members(const json_t *message, size_t i, struct api_error *e)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)message, key, v)
    {
        char path[API_ERROR_PARAM_MAX];
        if (asks_for_nothing(key, v) || !strcmp(key, "role") || !strcmp(key, "content") || !strcmp(key, "name"))
            continue;
        snprintf(path, sizeof(path), "messages[%zu].%.60s", i, key);
        return api_error_set(e, ERR_UNSUPPORTED, "unsupported_parameter", "messages", "'%s' is not supported", path);
    }
    return OK;
}

static enum status read_message(json_t *out, const json_t *message, size_t i, struct api_error *e)
{
    const char *role = NULL;
    struct strbuf text = STRBUF_INIT;
    enum status st;
    if (!json_is_object(message)) {
        char path[48];
        snprintf(path, sizeof(path), "messages[%zu]", i);
        return api_error_set(e, ERR_INVALID, NULL, "messages", "'%s' must be an object, not %s", path,
                             openai_kind(message));
    }
    if ((st = read_role(&role, message, i, e)) == OK && (st = check_members(message, i, e)) == OK &&
        (st = read_content(&text, json_object_get(message, "content"), role, i, e)) == OK) {
        json_t *m = json_pack("{s:s, s:s%}", "role", role, "content", strbuf_cstr(&text), text.n);
        if (!m || json_array_append_new(out, m) != 0)
            st = api_error_set(e, ERR_NO_MEMORY, NULL, "messages", "out of memory");
    }
    strbuf_fini(&text);
    return st;
}

enum status openai_read_messages(struct api_request *r, const json_t *v, struct api_error *e)
{
    if (!json_is_array(v) || json_array_size(v) == 0)
        return api_error_set(e, ERR_INVALID, NULL, "messages", "'messages' must be an array of at least one message");
    json_decref(r->messages);
    r->messages = json_array();
    for (size_t i = 0; i < json_array_size(v); i++) {
        enum status st = read_message(r->messages, json_array_get(v, i), i, e);
        if (st != OK) return st;
    }
    return OK;
}

/* What stands where a token id should: its value, or its kind. */
static const char *shown(const json_t *v, char *buf, size_t cap)
{
    if (!json_is_integer(v)) return openai_kind(v);
    snprintf(buf, cap, "%lld", (long long)json_integer_value(v));
    return buf;
}

enum status openai_read_ids(int32_t **out, size_t *n, const json_t *array, const char *path, const char *param,
                            struct api_error *e)
{
    size_t count = json_array_size(array);
    if (!json_is_array(array))
        return api_error_set(e, ERR_INVALID, NULL, param, "'%s' must be an array of token ids, not %s", path,
                             array ? openai_kind(array) : "absent");
    if (count == 0) return api_error_set(e, ERR_INVALID, NULL, param, "'%s' is an empty array", path);
    void *ids = NULL;
    if (mem_try_array(&ids, count, sizeof(int32_t)) != OK)
        return api_error_set(e, ERR_NO_MEMORY, NULL, param, "out of memory");
    for (size_t i = 0; i < count; i++) {
        const json_t *v = json_array_get(array, i);
        int64_t id;
        if (!openai_whole(v, &id) || !token_id_ok(id, INT32_MAX)) {
            char buf[32];
            mem_free(ids);
            return api_error_set(e, ERR_INVALID, NULL, param, "'%s[%zu]' is %s, which is not a token id", path, i,
                                 shown(v, buf, sizeof(buf)));
        }
        ((int32_t *)ids)[i] = (int32_t)id;
    }
    *out = ids;
    *n = count;
    return OK;
}

static enum status read_one_prompt(struct api_prompt *out, const json_t *v, const char *path, struct api_error *e)
{
    if (json_is_string(v)) {
        out->n_text = json_string_length(v);
        out->text = mem_strndup(json_string_value(v), out->n_text);
        return OK;
    }
    return openai_read_ids(&out->ids, &out->n_ids, v, path, "prompt", e);
}

enum status openai_read_prompt(struct api_request *r, const json_t *v, struct api_error *e)
{
    const json_t *first = json_array_get(v, 0);
    bool batch = json_is_string(first) || json_is_array(first);
    size_t n = batch ? json_array_size(v) : 1;
    if (!json_is_string(v) && !json_is_array(v))
        return api_error_set(e, ERR_INVALID, NULL, "prompt",
                             "'prompt' must be a string, an array of token ids, or an array of "
                             "either, not %s",
                             openai_kind(v));
    if (json_is_array(v) && json_array_size(v) == 0)
        return api_error_set(e, ERR_INVALID, NULL, "prompt", "'prompt' is an empty array");
    if (n > OPENAI_MAX_CHOICES)
        return api_error_set(e, ERR_INVALID, NULL, "prompt", "'prompt' has %zu entries; at most %d are allowed", n,
                             OPENAI_MAX_CHOICES);
    r->prompts = mem_array(n, sizeof(*r->prompts));
    r->n_prompts = (uint32_t)n;
    for (size_t i = 0; i < n; i++) {
        char path[32] = "prompt";
        if (batch) snprintf(path, sizeof(path), "prompt[%zu]", i);
        enum status st = read_one_prompt(&r->prompts[i], batch ? json_array_get(v, i) : v, path, e);
        if (st != OK) return st;
    }
    return OK;
}

static enum status add_stop(struct api_request *r, const json_t *v, struct api_error *e)
{
    size_t n = json_string_length(v);
    if (!json_is_string(v) || n > OPENAI_MAX_STOP)
        return api_error_set(e, ERR_INVALID, NULL, "stop", "each of 'stop' must be a string of at most %d bytes",
                             OPENAI_MAX_STOP);
    if (n == 0) return OK; /* stops nothing */
    r->stops[r->n_stops].text = mem_strndup(json_string_value(v), n);
    r->stops[r->n_stops++].n = n;
    return OK;
}

enum status openai_read_stop(struct api_request *r, const json_t *v, struct api_error *e)
{
    if (!json_is_array(v)) return add_stop(r, v, e);
    if (json_array_size(v) > OPENAI_MAX_STOPS)
        return api_error_set(e, ERR_INVALID, NULL, "stop", "'stop' may have at most %d strings, got %zu",
                             OPENAI_MAX_STOPS, json_array_size(v));
    for (size_t i = 0; i < json_array_size(v); i++) {
        enum status st = add_stop(r, json_array_get(v, i), e);
        if (st != OK) return st;
    }
    return OK;
}
