/* prompts: bodies to jobs: templates, lengths against the context, what the model cannot take. */
#include "tests/unit/coordinator/house_say.h"

Test(prompts, lengths_against_the_context)
{
    static const struct {
        const char *line;
        int fill; /* bytes of the prompt */
        const char *more;
        uint32_t max_tokens, min_tokens; /* of the job; 0: refused */
        const char *want;
    } rows[] = {
        { "completions", 62, "", 1, 0, "" }, /* with the token at the beginning, 63 of 64 */
        { "completions", 63, "", 0, 0, "the prompt has 64 tokens; the context of 64 tokens leaves no room" },
        { "completions", 500, "", 0, 0, "the prompt has at least 71 tokens; " },
        { "completions", 40, "", 16, 0, "" },
        { "completions", 40, ",\"max_tokens\":23", 23, 0, "" },
        { "completions", 40, ",\"max_tokens\":24,\"min_tokens\":24", 23, 23, "" },
        { "completions", 40, ",\"max_tokens\":4,\"min_tokens\":2", 4, 2, "" },
        { "chat/completions", 40, "", 14, 0, "" },
        { "chat/completions", 40, ",\"max_tokens\":3", 3, 0, "" },
        { "chat/completions", 54, "", 0, 0, "the prompt has 64 tokens; " },
    };
    open_one("");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char line[64], body[1024], text[512] = { 0 };
        memset(text, 'a', (size_t)rows[i].fill);
        snprintf(line, sizeof(line), "POST /v1/%s", rows[i].line);
        if (rows[i].line[1] == 'h')
            snprintf(body, sizeof(body), "{\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]%s}", text,
                     rows[i].more);
        else
            snprintf(body, sizeof(body), "{\"prompt\":\"%s\"%s}", text, rows[i].more);
        int fd = send_request(line, body);
        if (rows[i].max_tokens) {
            const Baton__Control__Job *job = next_reserve();
            cr_assert_eq(job->sampling->max_tokens, rows[i].max_tokens, "%zu: %u", i, job->sampling->max_tokens);
            cr_assert_eq(job->sampling->min_tokens, rows[i].min_tokens, "%zu: %u", i, job->sampling->min_tokens);
            close(fd);
            uint64_t counter = job->request->counter;
            next_job(&h.d0, IS(CANCEL));
            SAY(&h.d0, counter, CancelAck, cancel_ack, CANCEL_ACK, x.epoch = 0);
        } else {
            struct reply r = read_reply(fd);
            cr_assert_eq(r.status, 400);
            expect_in(r.body, rows[i].want);
            expect_in(r.body, "\"code\":\"context_length_exceeded\",\"n_prompt_tokens\":");
            expect_in(r.body, rows[i].fill == 500 ? "\"n_prompt_tokens\":71,\"n_ctx\":64}"
                                                  : "\"n_prompt_tokens\":64,\"n_ctx\":64}");
        }
    }
    cr_assert_eq(metric_of("baton_client_disconnects_total"), 7);
    cr_assert_eq(metric_of("baton_requests_total{model=\"tiny\",endpoint=\"completions\",status=\"499\"}"), 5);
    cr_assert_eq(metric_of("baton_requests_cancelled_total"), 7);
    house_close();
}

Test(prompts, what_the_model_cannot_take_is_refused_by_name)
{
    static const struct {
        const char *line, *body;
        const char *want;
    } rows[] = {
        { "completions", "{\"prompt\":[1,259]}", "token 1 of prompt 0 is 259; the vocabulary has 259 tokens" },
        { "completions", "{\"prompt\":[[1],[2,300]]}", "token 1 of prompt 1 is 300" },
        { "completions", "{\"prompt\":\"a\",\"logit_bias\":{\"259\":1}}",
          "'logit_bias' names token 259; the vocabulary" },
        { "completions", "{\"prompt\":\"a\",\"model\":\"b\"}", "model \\\"b\\\" is not served here" },
        { "chat/completions", "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"continue_final_message\":true}",
          "needs a last message of role" },
    };
    open_one("");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char line[64];
        snprintf(line, sizeof(line), "POST /v1/%s", rows[i].line);
        expect_in(ask(line, rows[i].body).body, rows[i].want);
    }
    cr_assert_eq(h.co->sv.n_calls, 0);
    house_close();
}

Test(prompts, an_empty_prompt_gives_nothing_to_begin_with)
{
    house_open_with("{{ '' }}", "");
    struct vocab *v = h.co->sv.models[0]->vocab;
    v->add_bos = false;
    expect_in(ask("POST /v1/completions", "{\"prompt\":\"\"}").body,
              "'prompt' is empty: it gives no token to begin with");
    expect_in(ask("POST /v1/chat/completions", "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}").body,
              "'messages' is empty");
    house_close();
}

Test(prompts, a_chat_may_go_on_with_its_last_message)
{
    static const struct {
        const char *roles, *more, *want;
    } rows[] = {
        { "assistant", ",\"continue_final_message\":true", "<257>[user]q[assistant]ye" },
        { "assistant", "", "<257>[user]q[assistant]ye[a]" },
        { "assistant", ",\"add_generation_prompt\":false", "<257>[user]q[assistant]ye" },
    };
    open_one("");
    for (size_t i = 0; i < 3; i++) {
        char body[256];
        snprintf(body, sizeof(body),
                 "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"%s\",\"content\":\"ye\"}]%s}",
                 rows[i].roles, rows[i].more);
        int fd = send_request("POST /v1/chat/completions", body);
        const Baton__Control__Job *job = next_reserve();
        cr_assert_str_eq(prompt_of(job), rows[i].want);
        uint64_t counter = job->request->counter;
        close(fd);
        next_job(&h.d0, IS(CANCEL));
        SAY(&h.d0, counter, CancelAck, cancel_ack, CANCEL_ACK, x.epoch = 0);
    }
    house_close();
}

Test(prompts, what_a_chat_template_cannot_do_is_said)
{
    static const struct {
        const char *chat_template;
        int status;
        const char *want;
    } rows[] = {
        { NULL, 501, "the model has no chat template: use /v1/completions" },
        { "{% bogus %}", 501, "the chat template of model tiny: " },
        { "{{ raise_exception('no tools here') }}", 400, "no tools here" },
        { "{{ 1 // 0 }}", 500, "\"code\":\"template_failed\"" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        house_open_with(rows[i].chat_template, "");
        struct reply r = ask("POST /v1/chat/completions", "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}");
        cr_assert_eq(r.status, rows[i].status, "%zu: %d %s", i, r.status, r.body);
        expect_in(r.body, rows[i].want);
        cr_assert(has_line(&r, "x-should-retry: false"), "%s", r.head);
        house_close();
    }
    house_open_with("upside down", "");
    struct reply r = ask("POST /v1/chat/completions", "{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"}],"
                                                      "\"continue_final_message\":true}");
    expect_in(r.body, "the model's chat template does not show the last message as it is given");
    house_close();
}

Test(prompts, options_of_the_coordinator_reach_the_job)
{
    open_one("  default_max_tokens: 5\n  prefill_assistant: true\n  content_specials: true\n");
    int fd = send_request("POST /v1/chat/completions",
                          "{\"messages\":[{\"role\":\"assistant\",\"content\":\"a<|end|>\"}],\"logprobs\":true,"
                          "\"top_logprobs\":2}");
    const Baton__Control__Job *job = next_reserve();
    cr_assert_str_eq(prompt_of(job), "<257>[assistant]a<256>");
    cr_assert(job->sampling->max_tokens == 5 && job->sampling->logprobs == 2 && job->sampling->prompt_logprobs == -1);
    uint64_t seed = job->sampling->seed;
    int other = send_request("POST /v1/completions", "{\"prompt\":\"a<|end|>\",\"n\":1}");
    job = next_reserve();
    cr_assert(job->sampling->max_tokens == 16 && job->sampling->seed != seed, "a missing seed is drawn");
    close(fd);
    close(other);
    house_close();
}
