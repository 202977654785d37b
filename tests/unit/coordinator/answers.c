/* answers: what a client reads of a completion, from the node's messages to the bytes of its answer. */
#include "tests/unit/coordinator/house_say.h"

Test(answers, a_whole_answer_counts_and_times_what_was_done)
{
    char want[512];
    clock_set_for_test(T0);
    house_open("");
    int fd = send_request("POST /v1/completions", "{\"prompt\":\"hi\",\"max_tokens\":3}");
    HOUSE_UNTIL(h.co->sv.n_calls == 1);
    clock_set_for_test(T0 + 5000);
    house_join(&h.d0, "d0", 2, true);
    const Baton__Control__Job *job = next_reserve();
    cr_assert_str_eq(prompt_of(job), "<257>hi");
    cr_assert(job->n_prompt == 3 && job->sampling->max_tokens == 3 && job->epoch == 1 && job->priority == 0);
    cr_assert(job->sampling->logprobs == -1 && job->sampling->prompt_logprobs == -1);
    say_reserved(&h.d0, 1);
    SAY(&h.d0, 1, Progress, progress, PROGRESS, x.stage = BATON__CONTROL__STAGE__COMPUTED; x.tokens = 3;
        x.cached_tokens = 1);
    clock_set_for_test(T0 + 30000);
    say_text(&h.d0, 1, 0, "a");
    HOUSE_UNTIL(h.co->sv.calls->choices[0].text.n == 1);
    clock_set_for_test(T0 + 70000);
    say_text(&h.d0, 1, 1, "b\n");
    say_finished(&h.d0, 1, 3, FINISH_LENGTH);
    struct reply r = read_reply(fd);
    cr_assert_eq(r.status, 200);
    cr_assert(has_line(&r, "Content-Type: application/json"), "%s", r.head);
    snprintf(want, sizeof(want), "{\"id\":\"cmpl-%016llx00000002\",\"object\":\"text_completion\",\"created\":",
             (unsigned long long)h.co->sv.incarnation);
    cr_assert_eq(strncmp(r.body, want, strlen(want)), 0, "%s", r.body);
    snprintf(
        want, sizeof(want),
        ",\"model\":\"tiny\",\"system_fingerprint\":\"baton-%016llx\",\"choices\":[{\"index\":0,\"text\":\"ab\\n\","
        "\"logprobs\":null,\"finish_reason\":\"length\"}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":3,"
        "\"total_tokens\":6,\"prompt_tokens_details\":{\"cached_tokens\":1},",
        (unsigned long long)h.co->sv.models[0]->fingerprint);
    const char *const parts[] = {
        want,
        "\"timings\":{\"cache_n\":1,\"prompt_n\":2,\"predicted_n\":3,\"queue_ms\":5,\"ttft_ms\":30,\"prompt_ms\":15,"
        "\"prompt_per_second\":133.33333",
        "\"predicted_ms\":40,\"predicted_per_second\":50,\"kv_transfer_ms\":0,\"kv_bytes\":0,\"kv_bytes_16bit\":0,"
        "\"prefill_node\":\"d0\",\"decode_node\":\"d0\"}}",
    };
    expect_all(r.body, parts, 3);
    cr_assert(h.co->sv.n_calls == 0 && h.co->sv.calls == NULL);
    cr_assert_eq(metric_of("baton_requests_total{model=\"tiny\",endpoint=\"completions\",status=\"200\"}"), 1);
    cr_assert_eq(metric_of("baton_prompt_tokens_total"), 3);
    cr_assert_eq(metric_of("baton_generation_tokens_total"), 3);
    cr_assert_eq(metric_of("baton_prompt_tokens_cached_total"), 1);
    cr_assert_float_eq(metric_of("baton_time_to_first_token_seconds_sum"), 0.030, 1e-9);
    cr_assert_float_eq(metric_of("baton_inter_token_latency_seconds_sum"), 0.040, 1e-9);
    cr_assert_eq(metric_of("baton_inter_token_latency_seconds_count"), 2);
    cr_assert_float_eq(metric_of("baton_e2e_request_latency_seconds_sum"), 0.070, 1e-9);
    cr_assert_float_eq(metric_of("baton_request_queue_time_seconds_sum"), 0.005, 1e-9);
    cr_assert_float_eq(metric_of("baton_request_prefill_time_seconds_sum"), 0.025, 1e-9);
    cr_assert_float_eq(metric_of("baton_request_decode_time_seconds_sum"), 0.040, 1e-9);
    static const int bounds[] = { 1,    2,    5,    10,    20,    50,    100,    200,   500,
                                  1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000 };
    for (size_t i = 0; i < sizeof(bounds) / sizeof(bounds[0]); i++) { /* three tokens each way */
        char series[96];
        snprintf(series, sizeof(series), "baton_request_prompt_tokens_bucket{le=\"%d\"}", bounds[i]);
        cr_assert_eq(metric_of(series), bounds[i] >= 3, "%s", series);
        snprintf(series, sizeof(series), "baton_request_generation_tokens_bucket{le=\"%d\"}", bounds[i]);
        cr_assert_eq(metric_of(series), bounds[i] >= 3, "%s", series);
    }
    house_close();
}

Test(answers, a_hand_off_names_both_nodes_and_what_it_took)
{
    clock_set_for_test(T0);
    house_open("");
    house_join(&h.p0, "p0", 1, false);
    house_join(&h.d0, "d0", 2, true);
    int fd = send_request("POST /v1/chat/completions",
                          "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"max_tokens\":2,\"seed\":7,"
                          "\"priority\":3,\"cache_salt\":\"s\"}");
    const Baton__Control__Job *job = next_reserve();
    cr_assert_str_eq(prompt_of(job), "<257>[user]hi[a]");
    cr_assert(job->sampling->seed == 7 && job->priority == 3 && strcmp(job->cache_salt, "s") == 0);
    say_reserved(&h.d0, 1);
    message *m = next_job(&h.p0, IS(PREFILL));
    cr_assert_eq(m->prefill->reservation, 77);
    clock_set_for_test(T0 + 8000);
    say_text(&h.p0, 1, 0, "y");
    SAY(&h.p0, 1, PrefillDone, prefill_done, PREFILL_DONE, x.kv_bytes = 544; x.prefill_us = 4000; x.handoff_us = 2500);
    struct request *request = h.co->sv.calls->choices[0].request;
    HOUSE_UNTIL(request->t.kv_bytes == 544);
    cr_assert_eq(request->state, REQUEST_DECODING);
    clock_set_for_test(T0 + 9000);
    say_token(&h.d0, 1, 1, BYTES_WORD);
    say_finished(&h.d0, 1, 2, FINISH_STOP);
    struct reply r = read_reply(fd);
    const char *const parts[] = {
        "{\"id\":\"chatcmpl-",
        "\"object\":\"chat.completion\",",
        "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"yword\",\"refusal\":null},"
        "\"logprobs\":null,\"finish_reason\":\"stop\"}],",
        "\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":2,\"total_tokens\":14,",
        "\"cache_n\":0,\"prompt_n\":12,\"predicted_n\":2,\"queue_ms\":0,\"ttft_ms\":8,\"prompt_ms\":4,"
        "\"prompt_per_second\":3000,\"predicted_ms\":1,\"predicted_per_second\":1000,\"kv_transfer_ms\":2.5,"
        "\"kv_bytes\":544,\"kv_bytes_16bit\":870,\"prefill_node\":\"p0\",\"decode_node\":\"d0\"}}",
    };
    expect_all(r.body, parts, 5);
    cr_assert_eq(metric_of("baton_kv_transfer_bytes_total"), 544);
    cr_assert_float_eq(metric_of("baton_kv_transfer_seconds_sum"), 0.0025, 1e-9);
    cr_assert_eq(dispatch_n_open(h.co->sv.dispatch), 0);
    house_close();
}

Test(answers, a_stream_is_a_chunk_for_each_token)
{
    clock_set_for_test(T0);
    open_one("");
    int fd = send_request("POST /v1/chat/completions",
                          "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"max_completion_tokens\":2,"
                          "\"stream\":true,\"user\":\"u\",\"store\":true,\"stream_options\":{\"include_usage\":true}}");
    next_reserve();
    say_reserved(&h.d0, 1);
    say_text(&h.d0, 1, 0, "ab");
    say_finished(&h.d0, 1, 2, FINISH_LENGTH);
    struct reply r = read_reply(fd);
    cr_assert(r.status == 200 && has_line(&r, "Content-Type: text/event-stream"), "%s", r.head);
    cr_assert(has_line(&r, "x-baton-ignored-params: user, store"), "%s", r.head);
    const char *const parts[] = {
        "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null},\"logprobs\":null,"
        "\"finish_reason\":null}],\"usage\":null}\n\ndata: {\"id\":\"chatcmpl-",
        "[{\"index\":0,\"delta\":{\"content\":\"a\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n",
        "[{\"index\":0,\"delta\":{\"content\":\"b\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n",
        "[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"length\"}],\"usage\":null,\"timings\":{",
        "\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":2,\"total_tokens\":14,",
        "\"reasoning_tokens\":0}}}\n\ndata: [DONE]\n\n",
    };
    const char *at = r.body;
    for (size_t i = 0; i < 6; i++) { /* in this order */
        at = strstr(at, parts[i]);
        cr_assert(at, "want %s\nin %s", parts[i], r.body);
    }
    cr_assert_eq(metric_of("baton_ignored_params_total{param=\"user\"}"), 1);
    cr_assert_eq(metric_of("baton_ignored_params_total{param=\"store\"}"), 1);
    house_close();
}

Test(answers, a_stream_of_text_has_no_first_chunk_and_no_usage_unasked)
{
    open_one("");
    int fd = send_request("POST /v1/completions", "{\"prompt\":[1,2,258],\"max_tokens\":1,\"stream\":true}");
    const Baton__Control__Job *job = next_reserve();
    cr_assert(job->n_tokens == 3 && job->tokens[0] == 1 && job->tokens[2] == 258, "ids are taken as they are");
    say_reserved(&h.d0, 1);
    say_text(&h.d0, 1, 0, "a");
    say_finished(&h.d0, 1, 1, FINISH_LENGTH);
    struct reply r = read_reply(fd);
    const char *const parts[] = {
        "\"object\":\"text_completion\"",
        "\"choices\":[{\"index\":0,\"text\":\"a\",\"logprobs\":null,\"finish_reason\":null}]}\n\n",
        "\"choices\":[{\"index\":0,\"text\":\"\",\"logprobs\":null,\"finish_reason\":\"length\"}],\"timings\":{",
        "}}\n\ndata: [DONE]\n\n",
    };
    expect_all(r.body, parts, 4);
    cr_assert_not(strstr(r.body, "usage"));
    cr_assert_not(strstr(r.head, "x-baton-ignored-params"));
    int events = 0;
    for (const char *p = r.body; (p = strstr(p, "data: ")); p++) events++;
    cr_assert_eq(events, 3);
    house_close();
}

Test(answers, text_that_may_become_a_stop_string_waits)
{
    open_one("");
    int fd = send_request("POST /v1/completions",
                          "{\"prompt\":\"p\",\"max_tokens\":9,\"stop\":[\"STOP\"],\"logprobs\":0,\"stream\":true}");
    next_reserve();
    say_reserved(&h.d0, 1);
    say_text(&h.d0, 1, 0, "aSTxSTOP");
    next_job(&h.d0, IS(CANCEL)); /* enough has come */
    SAY(&h.d0, 1, CancelAck, cancel_ack, CANCEL_ACK, x.epoch = 0);
    struct reply r = read_reply(fd);
    const char *const parts[] = { "\"text\":\"a\",\"logprobs\":{\"tokens\":[\"a\"]", "\"text\":\"STx\"",
                                  "\"tokens\":[\"S\",\"T\",\"x\"]", "\"text_offset\":[1,2,3]",
                                  "\"text\":\"\",\"logprobs\":null,\"finish_reason\":\"stop\"" };
    expect_all(r.body, parts, 5);
    cr_assert_not(strstr(r.body, "STOP"));
    HOUSE_UNTIL(dispatch_n_open(h.co->sv.dispatch) == 0);
    house_close();
}

Test(answers, several_answers_share_a_prompt_that_is_computed_once)
{
    open_one("");
    int fd = send_request("POST /v1/completions", "{\"prompt\":[\"p\",\"q\"],\"n\":2,\"max_tokens\":2,\"seed\":5}");
    const Baton__Control__Job *job = next_reserve();
    cr_assert(job->request->counter == 1 && job->sampling->choice == 0 && job->tokens[1] == 'p');
    job = next_reserve();
    cr_assert(job->request->counter == 2 && job->sampling->choice == 0 && job->tokens[1] == 'q');
    for (uint64_t k = 1; k <= 2; k++) say_reserved(&h.d0, k);
    say_text(&h.d0, 1, 0, "a");
    cr_assert_null(fake_receive(&h.d0, &h.loop, 20), "the first answer's first token is not enough");
    say_text(&h.d0, 1, 1, "b");
    job = next_reserve();
    cr_assert(job->request->counter == 3 && job->sampling->choice == 1 && job->tokens[1] == 'p');
    cr_assert(job->n_tokens == 2 && job->sampling->seed == 5 && job->sampling->max_tokens == 2);
    say_finished(&h.d0, 1, 2, FINISH_LENGTH);
    say_text(&h.d0, 2, 0, "c"); /* ends after one: the other one begins all the same */
    say_finished(&h.d0, 2, 1, FINISH_STOP);
    job = next_reserve();
    cr_assert(job->request->counter == 4 && job->sampling->choice == 1 && job->tokens[1] == 'q');
    for (uint64_t k = 3; k <= 4; k++) {
        say_reserved(&h.d0, k);
        say_text(&h.d0, k, 0, k == 3 ? "de" : "fg");
        say_finished(&h.d0, k, 2, FINISH_LENGTH);
    }
    struct reply r = read_reply(fd);
    const char *const parts[] = {
        "\"choices\":[{\"index\":0,\"text\":\"ab\",\"logprobs\":null,\"finish_reason\":\"length\"},",
        "{\"index\":1,\"text\":\"de\"",
        "{\"index\":2,\"text\":\"c\",\"logprobs\":null,\"finish_reason\":\"stop\"}",
        "{\"index\":3,\"text\":\"fg\"",
        "\"prompt_tokens\":4,\"completion_tokens\":7,\"total_tokens\":11",
    };
    expect_all(r.body, parts, 5);
    house_close();
}

/* One row of the prompt's logprobs, and one of the answer's. */
Test(answers, an_echoed_prompt_comes_with_its_logprobs)
{
    int32_t top_id = 'z';
    float top = -0.5f;
    Baton__Control__TokenLogprobs row = BATON__CONTROL__TOKEN_LOGPROBS__INIT, *rows[] = { &row, &row };
    open_one("");
    int fd = send_request("POST /v1/completions",
                          "{\"prompt\":\"h\xC3\xA9\",\"echo\":true,\"logprobs\":1,\"max_tokens\":1}");
    const Baton__Control__Job *job = next_reserve();
    cr_assert(job->n_tokens == 4 && job->sampling->logprobs == 1 && job->sampling->prompt_logprobs == 1);
    row.logprob = -2.0f;
    row.top_ids = &top_id;
    row.top = &top;
    row.n_top = row.n_top_ids = 1;
    say_reserved(&h.d0, 1);
    SAY(&h.d0, 1, PromptLogprobs, prompt_logprobs, PROMPT_LOGPROBS, x.first_position = 1; x.rows = rows; x.n_rows = 2);
    SAY(&h.d0, 1, PromptLogprobs, prompt_logprobs, PROMPT_LOGPROBS, x.first_position = 3; x.rows = rows; x.n_rows = 1);
    say_row(&h.d0, 1, 0, 'o', &row);
    say_finished(&h.d0, 1, 1, FINISH_LENGTH);
    struct reply r = read_reply(fd);
    const char *const parts[] = {
        "\"text\":\"h\xC3\xA9o\",",
        "\"tokens\":[\"<s>\",\"h\",",
        "\"token_logprobs\":[null,-2,-2,-2,-2],\"top_logprobs\":[null,{\"z\":-0.5,\"h\":-2},",
        "{\"z\":-0.5,\"o\":-2}],\"text_offset\":[0,0,1,1,2]}",
        "\"completion_tokens\":1,",
    };
    expect_all(r.body, parts, 5);
    house_close();
}

Test(answers, an_echo_of_ids_says_their_text_and_may_be_all)
{
    Baton__Control__TokenLogprobs row = BATON__CONTROL__TOKEN_LOGPROBS__INIT, *rows[] = { &row };
    open_one("");
    int fd =
        send_request("POST /v1/completions", "{\"prompt\":[257,104],\"echo\":true,\"logprobs\":0,\"max_tokens\":0}");
    const Baton__Control__Job *job = next_reserve();
    cr_assert_eq(job->sampling->max_tokens, 1, "a node computes one at least");
    say_reserved(&h.d0, 1);
    SAY(&h.d0, 1, PromptLogprobs, prompt_logprobs, PROMPT_LOGPROBS, x.first_position = 1; x.rows = rows; x.n_rows = 1);
    say_text(&h.d0, 1, 0, "x");
    say_finished(&h.d0, 1, 1, FINISH_STOP);
    struct reply r = read_reply(fd);
    expect_in(r.body, "\"text\":\"<s>h\",\"logprobs\":{\"tokens\":[\"<s>\",\"h\"]");
    expect_in(r.body, "\"text_offset\":[0,3]},\"finish_reason\":\"length\"}");
    expect_in(r.body, "\"prompt_tokens\":2,\"completion_tokens\":0,\"total_tokens\":2,");
    house_close();
}

Test(answers, a_node_that_keeps_a_prompts_logprobs_back_is_found_out)
{
    open_one("");
    int fd = send_request("POST /v1/completions", "{\"prompt\":\"hi\",\"echo\":true,\"logprobs\":0,\"max_tokens\":1}");
    next_reserve();
    say_reserved(&h.d0, 1);
    say_text(&h.d0, 1, 0, "x");
    struct reply r = read_reply(fd);
    cr_assert_eq(r.status, 500);
    expect_in(r.body, "the node computed no logprobs of the prompt");
    house_close();
}
