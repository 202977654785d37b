/* openai: request bodies are read, defaulted, ignored or refused by name. */
#include "coordinator/api_error.h"
#include "coordinator/openai_fields.h"

#include "http/http_status.h"

#include <criterion/criterion.h>
#include <string.h>

static const struct openai_limits limits = { .max_prompt_logprobs = 20 };

static enum status parse(enum api_endpoint endpoint, const char *body, struct api_request **r, struct api_error *e)
{
    *r = NULL;
    return openai_parse(r, endpoint, bytes_of(body, strlen(body)), &limits, e);
}

#define USER "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

Test(openai, fills_in_defaults)
{
    struct api_request *r;
    struct api_error e;
    cr_assert_eq(parse(API_CHAT, "{" USER "}", &r, &e), OK);
    cr_assert_eq(r->max_tokens, -1);
    cr_assert_eq(r->sampling.n_logprobs, -1);
    cr_assert(r->sampling.temperature == 1 && r->sampling.top_p == 1 && r->sampling.min_p == 0 &&
              r->sampling.repetition_penalty == 1);
    cr_assert(!r->stream && !r->has_seed && !r->n_stops && !r->sampling.n_bias);
    cr_assert_str_eq(r->model, "");
    cr_assert_eq(json_array_size(r->messages), 1);
    api_request_destroy(r);
}

Test(openai, reads_every_field)
{
    struct api_request *r;
    struct api_error e;
    cr_assert_eq(
        parse(API_COMPLETIONS,
              "{\"model\":\"m\",\"prompt\":[[1,2],\"x\"],\"max_tokens\":7,\"max_completion_tokens\":7,"
              "\"min_tokens\":2,\"priority\":-7,\"temperature\":0,\"top_p\":0.5,\"top_k\":40,\"min_p\":0.1,"
              "\"frequency_penalty\":-2,\"presence_penalty\":2,\"repeat_penalty\":1.5,\"ignore_eos\":true,"
              "\"echo\":true,\"return_tokens_as_token_ids\":true,\"stream\":true,"
              "\"stream_options\":{\"include_usage\":true},\"stop\":[\"a\",\"b\"],\"seed\":-9223372036854775808,"
              "\"logit_bias\":{\"5\":-100},\"logprobs\":5,\"n\":1,\"best_of\":1,\"suffix\":null,\"tools\":null}",
              &r, &e),
        OK, "%s", e.message);
    cr_assert_eq(r->n_prompts, 2);
    cr_assert(r->prompts[0].n_ids == 2 && r->prompts[0].ids[1] == 2 && !strcmp(r->prompts[1].text, "x"));
    cr_assert(r->max_tokens == 7 && r->sampling.min_tokens == 2 && r->priority == -7 && r->sampling.top_k == 40 &&
              r->sampling.n_logprobs == 5);
    cr_assert(r->sampling.frequency_penalty == -2 && r->sampling.presence_penalty == 2 &&
              r->sampling.repetition_penalty == 1.5);
    cr_assert(r->sampling.ignore_eos && r->echo && r->tokens_as_ids && r->stream && r->include_usage);
    cr_assert(r->has_seed && r->sampling.seed == (uint64_t)INT64_MIN);
    cr_assert(r->n_stops == 2 && !strcmp(r->stops[1].text, "b"));
    cr_assert(r->sampling.n_bias == 1 && r->sampling.bias_ids[0] == 5 && r->sampling.bias[0] == -100);
    api_request_destroy(r);
}

Test(openai, joins_text_parts_and_maps_developer)
{
    struct api_request *r;
    struct api_error e;
    cr_assert_eq(parse(API_CHAT,
                       "{\"messages\":[{\"role\":\"developer\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
                       "{\"type\":\"text\",\"text\":\"b\"}],\"name\":\"x\",\"tool_calls\":null}]}",
                       &r, &e),
                 OK, "%s", e.message);
    const json_t *m = json_array_get(r->messages, 0);
    cr_assert_str_eq(json_string_value(json_object_get(m, "role")), "system");
    cr_assert_str_eq(json_string_value(json_object_get(m, "content")), "a\nb");
    api_request_destroy(r);
}

Test(openai, names_what_it_ignores_unless_strict)
{
    static const char body[] = "{" USER ",\"user\":\"u\",\"metadata\":{\"a\":\"b\"},\"modalities\":[\"text\"],"
                               "\"store\":true}";
    struct openai_limits strict = { .max_prompt_logprobs = 20, .strict_params = true };
    struct api_request *r;
    struct api_error e;
    cr_assert_eq(parse(API_CHAT, body, &r, &e), OK);
    cr_assert_str_eq(r->ignored.s, "user, metadata, store");
    api_request_destroy(r);
    cr_assert_eq(openai_parse(&r, API_CHAT, bytes_of(body, strlen(body)), &strict, &e), ERR_UNSUPPORTED);
    cr_assert_str_eq(e.param, "user");
}

static const struct bad {
    enum api_endpoint endpoint;
    const char *body, *param, *word;
} bad[] = {
    { API_CHAT, "", "", "empty" },
    { API_CHAT, "{", "", "JSON" },
    { API_CHAT, "[1]", "", "object" },
    { API_CHAT, "{\"a\":1,\"a\":2}", "", "twice" },
    { API_CHAT, "{\"x\":\"\xFF\"}", "", "byte 6" },
    { API_CHAT, "{}", "messages", "required" },
    { API_CHAT, "{\"messages\":[]}", "messages", "at least one" },
    { API_CHAT, "{\"messages\":[1]}", "messages", "messages[0]" },
    { API_CHAT, "{\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}", "messages", "tool" },
    { API_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}", "messages",
      "image_url" },
    { API_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"tool_calls\":[{}]}]}", "messages",
      "tool_calls" },
    { API_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":null}]}", "messages", "null" },
    { API_CHAT, "{" USER ",\"temperature\":101}", "temperature", "100" },
    { API_CHAT, "{" USER ",\"temperature\":NaN}", "", "JSON" },
    { API_CHAT, "{" USER ",\"temperature\":1e999}", "", "too large" },
    { API_CHAT, "{" USER ",\"top_p\":-0.1}", "top_p", "1" },
    { API_CHAT, "{" USER ",\"max_tokens\":-2}", "max_tokens", "-1" },
    { API_CHAT, "{" USER ",\"max_tokens\":2.5}", "max_tokens", "integer" },
    { API_CHAT, "{" USER ",\"n\":2,\"best_of\":3}", "best_of", "'n'" },
    { API_CHAT, "{" USER ",\"mirostat\":2}", "mirostat", "be 0" },
    { API_CHAT, "{" USER ",\"tool_choice\":\"required\"}", "tool_choice", "\"none\"" },
    { API_CHAT, "{" USER ",\"response_format\":{\"type\":\"json_object\"}}", "response_format", "\"text\"" },
    { API_CHAT, "{" USER ",\"skip_special_tokens\":false}", "skip_special_tokens", "true" },
    { API_CHAT, "{" USER ",\"seed\":99999999999999999999}", "", "integer" },
    { API_CHAT, "{" USER ",\"max_tokens\":1,\"max_completion_tokens\":2}", "max_completion_tokens", "differ" },
    { API_CHAT, "{" USER ",\"priority\":1.5}", "priority", "integer" },
    { API_CHAT, "{" USER ",\"priority\":2147483648}", "priority", "2147483647" },
    { API_COMPLETIONS, "{\"prompt\":\"a\",\"priority\":\"high\"}", "priority", "string" },
    { API_CHAT, "{" USER ",\"max_tokens\":2,\"min_tokens\":3}", "min_tokens", "3" },
    { API_CHAT, "{" USER ",\"top_logprobs\":3}", "top_logprobs", "logprobs" },
    { API_CHAT, "{" USER ",\"stream_options\":{\"include_usage\":true}}", "stream_options", "stream" },
    { API_CHAT, "{" USER ",\"stop\":[1]}", "stop", "string" },
    { API_CHAT, "{" USER ",\"n\":0}", "n", "1 to 128" },
    { API_COMPLETIONS, "{\"prompt\":[[1],[2]],\"n\":65}", "n", "128" },
    { API_CHAT, "{" USER ",\"tools\":[{}]}", "tools", "tools" },
    { API_CHAT, "{" USER ",\"echo\":true}", "echo", "echo" },
    { API_CHAT, "{" USER ",\"modalities\":[\"audio\"]}", "modalities", "text" },
    { API_CHAT, "{" USER ",\"logit_bias\":{\"-1\":1}}", "logit_bias", "-1" },
    { API_CHAT, "{" USER ",\"logit_bias\":{\"1\":101}}", "logit_bias", "100" },
    { API_COMPLETIONS, "{\"prompt\":[]}", "prompt", "empty" },
    { API_COMPLETIONS, "{\"prompt\":[[1],[]]}", "prompt", "prompt[1]" },
    { API_COMPLETIONS, "{\"prompt\":[1,2.5]}", "prompt", "prompt[1]" },
    { API_COMPLETIONS, "{\"prompt\":[1,99999999999]}", "prompt", "99999999999" },
    { API_COMPLETIONS, "{\"prompt\":\"x\",\"max_tokens\":0}", "max_tokens", "echo" },
    { API_COMPLETIONS, "{\"prompt\":\"x\",\"logprobs\":21}", "logprobs", "20" },
    { API_COMPLETIONS, "{\"prompt\":\"x\",\"suffix\":\"y\"}", "suffix", "suffix" },
};

Test(openai, refuses_bad_bodies_by_name)
{
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct api_request *r;
        struct api_error e;
        enum status st = parse(bad[i].endpoint, bad[i].body, &r, &e);
        cr_assert_neq(st, OK, "%s", bad[i].body);
        cr_assert_eq(e.http, 400, "%s", bad[i].body);
        cr_assert_str_eq(e.param, bad[i].param, "%s: param %s", bad[i].body, e.param);
        cr_assert_not_null(strstr(e.message, bad[i].word), "%s: %s", bad[i].body, e.message);
    }
}

/* Each of them asks for nothing: what comes out is what comes out without it. */
static const char *const neutral[] = {
    "\"tools\":[]",
    "\"tools\":[],\"tool_choice\":\"auto\",\"parallel_tool_calls\":true",
    "\"tool_choice\":\"none\",\"parallel_tool_calls\":false",
    "\"functions\":[],\"function_call\":\"none\"",
    "\"response_format\":{\"type\":\"text\"},\"modalities\":[\"text\"]",
    "\"mirostat\":0,\"mirostat_tau\":5.0,\"mirostat_eta\":0.1",
    "\"typical_p\":1,\"tfs_z\":1.0,\"dynatemp_range\":0,\"dynatemp_exponent\":1,\"top_n_sigma\":-1",
    "\"xtc_probability\":0,\"xtc_threshold\":0.1,\"dry_multiplier\":0,\"dry_base\":1.75,"
    "\"dry_sequence_breakers\":[\"a\"]",
    "\"n\":1.0,\"best_of\":1",
    "\"top_logprobs\":0,\"logprobs\":false",
    "\"logprobs\":0",
    "\"stop\":\"\",\"cache_salt\":\"\",\"grammar\":\"\",\"user\":\"\",\"reasoning_effort\":\"\"",
    "\"stop\":[],\"logit_bias\":{},\"metadata\":{},\"chat_template_kwargs\":{},\"stop_token_ids\":[]",
    "\"stop\":[\"\"]",
    "\"store\":false,\"service_tier\":\"auto\",\"verbosity\":\"medium\"",
    "\"seed\":-1",
    "\"cache_prompt\":true,\"id_slot\":-1,\"n_predict\":-1,\"n_probs\":0,\"samplers\":[]",
    "\"use_beam_search\":false,\"length_penalty\":1,\"skip_special_tokens\":true,\"detokenize\":true",
    "\"thinking\":{\"type\":\"disabled\"},\"stream\":false,\"stream_options\":{}",
    "\"temperature\":1,\"top_p\":1,\"top_k\":0.0,\"min_p\":0,\"presence_penalty\":0,\"min_tokens\":0.0",
};

Test(openai, neutral_values_ask_for_nothing)
{
    const struct openai_limits strict = { .max_prompt_logprobs = 20, .strict_params = true };
    for (size_t i = 0; i < sizeof(neutral) / sizeof(neutral[0]); i++) {
        struct api_request *r = NULL;
        struct api_error e = { 0 };
        struct strbuf body = STRBUF_INIT;
        strbuf_addf(&body, "{" USER ",%s}", neutral[i]);
        cr_assert_eq(openai_parse(&r, API_CHAT, bytes_of(body.s, body.n), &strict, &e), OK, "%s: %s", neutral[i],
                     e.message);
        cr_assert(r->n == 1 && r->sampling.n_logprobs == -1 && !r->n_stops && !r->sampling.n_bias && !r->has_seed &&
                      !r->ignored.n,
                  "%s", neutral[i]);
        cr_assert(r->sampling.temperature == 1 && r->sampling.top_p == 1 && r->sampling.top_k == 0 &&
                      r->max_tokens == -1 && !r->sampling.min_tokens,
                  "%s", neutral[i]);
        cr_assert(!r->cache_salt[0] && !r->stream, "%s", neutral[i]);
        api_request_destroy(r);
        strbuf_fini(&body);
    }
}

Test(openai, takes_what_clients_send_back)
{
    static const char body[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a\",\"name\":\"\"},"
        "{\"role\":\"assistant\",\"content\":null,\"refusal\":null,\"tool_calls\":[],\"annotations\":[],"
        "\"audio\":null,\"function_call\":null,\"reasoning_content\":\"\"},"
        "{\"role\":\"assistant\",\"tool_calls\":null},{\"role\":\"user\",\"content\":[]}]}";
    struct api_request *r;
    struct api_error e;
    cr_assert_eq(parse(API_CHAT, body, &r, &e), OK, "%s", e.message);
    cr_assert_eq(json_array_size(r->messages), 4);
    for (size_t i = 1; i < 4; i++)
        cr_assert_str_eq(json_string_value(json_object_get(json_array_get(r->messages, i), "content")), "");
    api_request_destroy(r);
}

Test(openai, whole_numbers_no_limit_and_least_top_p)
{
    struct api_request *r;
    struct api_error e;
    cr_assert_eq(parse(API_COMPLETIONS,
                       "{\"prompt\":[1.0,2],\"max_tokens\":7.0,\"seed\":42.0,\"top_k\":5e0,\"logprobs\":2.0,\"n\":3,"
                       "\"best_of\":3,\"top_p\":0}",
                       &r, &e),
                 OK, "%s", e.message);
    cr_assert(r->prompts[0].ids[0] == 1 && r->max_tokens == 7 && r->has_seed && r->sampling.seed == 42 &&
              r->sampling.top_k == 5);
    cr_assert(r->sampling.n_logprobs == 2 && r->n == 3 && r->sampling.top_p > 0 && r->sampling.top_p < 1e-5);
    api_request_destroy(r);
    cr_assert_eq(parse(API_COMPLETIONS, "{\"prompt\":\"x\",\"max_tokens\":-1}", &r, &e), OK, "%s", e.message);
    cr_assert_eq(r->max_tokens, INT32_MAX);
    api_request_destroy(r);
}

/* Valid JSON that is not taken has no code "invalid_json" and is not called invalid; what is not valid has and is. */
static const struct body {
    const char *body;
    bool valid;
    const char *word;
} bodies[] = {
    { "[]", true, "not an array" },
    { "5", true, "not an integer" },
    { "null", true, "not null" },
    { "\"x\"", true, "not a string" },
    { "{\"seed\":99999999999999999999}", true, "too large" },
    { "{\"temperature\":1e999}", true, "too large" },
    { "{\"a\":1,\"a\":2}", true, "twice" },
    { "{\"prompt\":\"a\\u0000\"}", true, "NUL" },
    { "{\"a\\u0000\":1}", true, "NUL" },
    { "{\"prompt\":\"\\ud83d\"}", true, "surrogate" },
    { "{\"prompt\":\"\\ude00\"}", true, "surrogate" },
    { "{\"prompt\":\"\\ud83d\\u0041\"}", true, "surrogate" },
    { "", false, "the body is empty" },
    { " \r\n", false, "the body is empty" },
    { "{\"prompt\":\"x\"", false, "ends too early" },
    { "{\"prompt\":\"x", false, "ends too early" },
    { "{\"prompt\":\"x\"}}", false, "follows after its end" },
    { "{'prompt':1}", false, "line 1, column 2" },
    { "{\"n\":NaN}", false, "after \"{\"n\":N" },
    { "{\"n\":01}", false, "cannot be read" },
    { "{\"p\":\"\\x\"}", false, "cannot be read" },
    { "{\"p\":\"\\uZZZZ\"}", false, "cannot be read" },
};

Test(openai, says_what_is_wrong_with_a_body)
{
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        const struct body *b = &bodies[i];
        struct api_error e = { 0 };
        json_t *root;
        enum status st = openai_load_object(&root, bytes_of(b->body, strlen(b->body)), NULL, &e);
        cr_assert_eq(st, b->valid ? ERR_INVALID : ERR_PARSE, "%s", b->body);
        cr_assert_eq(e.http, 400, "%s", b->body);
        cr_assert_eq(e.code != NULL, !b->valid, "%s: %s", b->body, e.message);
        cr_assert_eq(strstr(e.message, "not valid JSON") == NULL, b->valid || !strcmp(b->word, "the body is empty"),
                     "%s", e.message);
        cr_assert_not_null(strstr(e.message, b->word), "%s: %s", b->body, e.message);
    }
}

Test(openai, knows_its_limits_of_nesting_and_takes_a_byte_order_mark)
{
    static const char marked[] = "\xEF\xBB\xBF{\"a\":1}";
    struct strbuf body = STRBUF_INIT;
    struct api_error e = { 0 };
    json_t *root;
    for (int i = 0; i < 100000; i++) strbuf_putc(&body, '[');
    for (int i = 0; i < 100000; i++) strbuf_putc(&body, ']');
    cr_assert_eq(openai_load_object(&root, bytes_of(body.s, body.n), NULL, &e), ERR_INVALID);
    cr_assert(!e.code && strstr(e.message, "2048"), "%s", e.message);
    strbuf_fini(&body);
    cr_assert_eq(openai_load_object(&root, bytes_of(marked, strlen(marked)), NULL, &e), OK, "%s", e.message);
    json_decref(root);
}

Test(openai, every_status_of_an_end_is_one_that_can_be_sent)
{
    for (int st = OK; st < STATUS_COUNT; st++) {
        const struct http_status *row = http_status_find(status_http((enum status)st));
        cr_assert(row || st == ERR_CANCELLED, "%s", status_text((enum status)st)); /* nobody is left to send 499 to */
        if (row && row->status >= 400) cr_assert(row->type[0]);
    }
}

#define ENDS_WITH(role)                                                                                                \
    "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"" role "\",\"content\":\"x\"}]"

Test(openai, opens_a_turn_or_continues_one)
{
    static const struct {
        const char *body;
        bool prefill;   /* coordinator.prefill_assistant */
        int add, go_on; /* -1: refused */
    } rows[] = {
        { "{" ENDS_WITH("assistant") "}", false, 1, 0 },
        { "{" ENDS_WITH("assistant") "}", true, 0, 1 },
        { "{" ENDS_WITH("user") "}", true, 1, 0 },
        { "{" ENDS_WITH("assistant") ",\"continue_final_message\":true}", false, 0, 1 },
        { "{" ENDS_WITH("assistant") ",\"continue_final_message\":false}", true, 1, 0 },
        { "{" ENDS_WITH("assistant") ",\"add_generation_prompt\":true}", true, 1, 0 },
        { "{" ENDS_WITH("assistant") ",\"add_generation_prompt\":false}", false, 0, 0 },
        { "{" ENDS_WITH("assistant") ",\"add_generation_prompt\":false,\"continue_final_message\":true}", false, 0, 1 },
        { "{" ENDS_WITH("assistant") ",\"add_generation_prompt\":true,\"continue_final_message\":true}", false, -1, 0 },
        { "{" ENDS_WITH("user") ",\"continue_final_message\":true}", false, -1, 0 },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct openai_limits with = { .max_prompt_logprobs = 20, .prefill_assistant = rows[i].prefill };
        struct api_request *r = NULL;
        struct api_error e = { 0 };
        enum status st = openai_parse(&r, API_CHAT, bytes_of(rows[i].body, strlen(rows[i].body)), &with, &e);
        cr_assert_eq(st == OK, rows[i].add >= 0, "row %zu: %s", i, e.message);
        if (st != OK) {
            cr_assert_str_eq(e.param, "continue_final_message");
            continue;
        }
        cr_assert(r->add_generation_prompt == rows[i].add && r->continue_final == rows[i].go_on, "row %zu", i);
        api_request_destroy(r);
    }
}

Test(openai, bounds_batches_stops_and_biases)
{
    struct api_request *r;
    struct api_error e;
    struct strbuf body = STRBUF_INIT;
    strbuf_puts(&body, "{\"prompt\":[");
    for (int i = 0; i <= OPENAI_MAX_CHOICES; i++) strbuf_puts(&body, i ? ",\"x\"" : "\"x\"");
    strbuf_puts(&body, "]}");
    cr_assert_neq(parse(API_COMPLETIONS, body.s, &r, &e), OK);
    strbuf_reset(&body);
    strbuf_puts(&body, "{\"prompt\":\"x\",\"stop\":[");
    for (int i = 0; i <= OPENAI_MAX_STOPS; i++) strbuf_puts(&body, i ? ",\"x\"" : "\"x\"");
    strbuf_puts(&body, "]}");
    cr_assert_neq(parse(API_COMPLETIONS, body.s, &r, &e), OK);
    strbuf_reset(&body);
    strbuf_puts(&body, "{\"prompt\":\"x\",\"logit_bias\":{");
    for (int i = 0; i <= SAMPLING_MAX_BIAS; i++) strbuf_addf(&body, "%s\"%d\":1", i ? "," : "", i);
    strbuf_puts(&body, "}}");
    cr_assert_neq(parse(API_COMPLETIONS, body.s, &r, &e), OK);
    cr_assert_not_null(strstr(e.message, "1024"));
    strbuf_fini(&body);
}

/* Its client has left. */
Test(openai, parsing_ends_when_it_is_stopped)
{
    static const char body[] = "{\"prompt\": \"some words\"}";
    struct api_error e = { 0 };
    struct api_request *r;
    atomic_bool stop = false;
    const struct openai_limits with = { .stop = &stop };
    cr_assert_eq(openai_parse(&r, API_COMPLETIONS, bytes_of(body, strlen(body)), &with, &e), OK, "%s", e.message);
    api_request_destroy(r);
    stop = true;
    cr_assert_eq(openai_parse(&r, API_COMPLETIONS, bytes_of(body, strlen(body)), &with, &e), ERR_CANCELLED);
}

Test(openai, other_endpoints_take_what_asks_for_nothing)
{
    static const struct {
        const char *name, *value;
        bool lenient, strict;
    } rows[] = {
        { "tools", "[]", true, true },           { "tools", "[1]", false, false },
        { "mystery", "null", true, true },       { "mystery", "0", false, false },
        { "user", "\"someone\"", true, false },  { "user", "\"\"", true, true },
        { "logprobs", "0", true, true },         { "with_pieces", "false", true, true },
        { "with_pieces", "true", false, false }, { "temperature", "1", false, false },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        json_t *v = json_loads(rows[i].value, JSON_DECODE_ANY, NULL);
        struct api_error e = { 0 };
        for (int strict = 0; strict < 2; strict++) {
            bool taken = fields_check_other(rows[i].name, v, API_TOKENIZE, strict, &e) == OK;
            cr_assert_eq(taken, strict ? rows[i].strict : rows[i].lenient, "%s: %s", rows[i].name, rows[i].value);
            cr_assert(taken || strstr(e.message, rows[i].name), "%s", e.message);
        }
        json_decref(v);
    }
}
