/* openai: request bodies are read, defaulted, ignored or refused by name. */
#include "coordinator/openai.h"
#include "coordinator/api_error.h"

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
    cr_assert_eq(r->n_logprobs, -1);
    cr_assert(r->temperature == 1 && r->top_p == 1 && r->min_p == 0 && r->repetition_penalty == 1);
    cr_assert(!r->stream && !r->has_seed && !r->n_stops && !r->n_bias);
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
    cr_assert(r->max_tokens == 7 && r->min_tokens == 2 && r->priority == -7 && r->top_k == 40 && r->n_logprobs == 5);
    cr_assert(r->frequency_penalty == -2 && r->presence_penalty == 2 && r->repetition_penalty == 1.5);
    cr_assert(r->ignore_eos && r->echo && r->tokens_as_ids && r->stream && r->include_usage);
    cr_assert(r->has_seed && r->seed == (uint64_t)INT64_MIN);
    cr_assert(r->n_stops == 2 && !strcmp(r->stops[1].text, "b"));
    cr_assert(r->n_bias == 1 && r->bias_ids[0] == 5 && r->bias[0] == -100);
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
    static const char body[] = "{" USER ",\"user\":\"u\",\"metadata\":{},\"modalities\":[\"text\"]}";
    struct openai_limits strict = { .max_prompt_logprobs = 20, .strict_params = true };
    struct api_request *r;
    struct api_error e;
    cr_assert_eq(parse(API_CHAT, body, &r, &e), OK);
    cr_assert_str_eq(r->ignored.s, "user, metadata, modalities");
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
    { API_CHAT, "{\"a\":1,\"a\":2}", "", "duplicate" },
    { API_CHAT, "{\"x\":\"\xFF\"}", "", "byte 6" },
    { API_CHAT, "{}", "messages", "required" },
    { API_CHAT, "{\"messages\":[]}", "messages", "at least one" },
    { API_CHAT, "{\"messages\":[1]}", "messages", "messages[0]" },
    { API_CHAT, "{\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}", "messages", "tool" },
    { API_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}", "messages",
      "image_url" },
    { API_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"tool_calls\":[]}]}", "messages", "tool_calls" },
    { API_CHAT, "{" USER ",\"temperature\":101}", "temperature", "100" },
    { API_CHAT, "{" USER ",\"temperature\":NaN}", "", "JSON" },
    { API_CHAT, "{" USER ",\"temperature\":1e999}", "", "JSON" },
    { API_CHAT, "{" USER ",\"top_p\":0}", "top_p", "1" },
    { API_CHAT, "{" USER ",\"seed\":99999999999999999999}", "", "integer" },
    { API_CHAT, "{" USER ",\"max_tokens\":1,\"max_completion_tokens\":2}", "max_completion_tokens", "differ" },
    { API_CHAT, "{" USER ",\"priority\":1.5}", "priority", "integer" },
    { API_CHAT, "{" USER ",\"priority\":2147483648}", "priority", "2147483647" },
    { API_COMPLETIONS, "{\"prompt\":\"a\",\"priority\":\"high\"}", "priority", "string" },
    { API_CHAT, "{" USER ",\"max_tokens\":2,\"min_tokens\":3}", "min_tokens", "3" },
    { API_CHAT, "{" USER ",\"top_logprobs\":3}", "top_logprobs", "logprobs" },
    { API_CHAT, "{" USER ",\"stream_options\":{\"include_usage\":true}}", "stream_options", "stream" },
    { API_CHAT, "{" USER ",\"stop\":\"\"}", "stop", "1 to" },
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
    for (int i = 0; i <= OPENAI_MAX_BIAS; i++) strbuf_addf(&body, "%s\"%d\":1", i ? "," : "", i);
    strbuf_puts(&body, "}}");
    cr_assert_neq(parse(API_COMPLETIONS, body.s, &r, &e), OK);
    cr_assert_not_null(strstr(e.message, "1024"));
    strbuf_fini(&body);
}
