/* calls: the life of a call: its ends, its waits, and what a worker writes of it. */
#include "tests/unit/coordinator/house_say.h"

Test(calls, a_failure_is_a_status_before_the_first_byte_and_an_event_after_it)
{
    open_one("  max_attempts: 1\n");
    for (uint64_t k = 1; k <= 2; k++) {
        int fd = send_request("POST /v1/completions", "{\"prompt\":\"a\",\"stream\":true}");
        next_reserve();
        say_reserved(&h.d0, k);
        if (k == 2) say_text(&h.d0, k, 0, "x");
        say_failed(&h.d0, k, ERR_INTERNAL);
        struct reply r = read_reply(fd);
        cr_assert_eq(r.status >= 500, k == 1, "%d %s", r.status, r.body);
        expect_in(r.body, k == 1 ? "{\"error\":{\"message\":\"" : "\n\ndata: {\"error\":{\"message\":\"");
        cr_assert_not(strstr(r.body, "[DONE]"));
        HOUSE_UNTIL(dispatch_n_open(h.co->sv.dispatch) == 0);
    }
    cr_assert_eq(h.co->sv.n_calls, 0);
    house_close();
}

Test(calls, a_full_queue_takes_no_more)
{
    house_open("  max_queue: 1\n");
    int first = send_request("POST /v1/completions", "{\"prompt\":\"a\"}");
    HOUSE_UNTIL(h.co->sv.n_calls == 1);
    struct reply r = ask("POST /v1/completions", "{\"prompt\":\"a\"}");
    cr_assert(r.status == 429 && has_line(&r, "Retry-After: 1") && has_line(&r, "x-should-retry: true"), "%s", r.head);
    expect_in(r.body, "the queue is full: 1 of 1 requests, ");
    cr_assert_eq(metric_of("baton_requests_rejected_total{reason=\"queue_full\"}"), 1);
    cr_assert_eq(metric_of("baton_requests_total{model=\"tiny\",endpoint=\"completions\",status=\"429\"}"), 1);
    cr_assert_eq(metric_of("baton_num_requests_waiting{stage=\"admit\"}"), 1);
    cr_assert_eq(metric_of("baton_num_requests_running"), 0);
    close(first);
    HOUSE_UNTIL(h.co->sv.n_calls == 0);
    house_close();
}

Test(calls, gauges_follow_a_request_through_its_stages)
{
    static const char *const stage[] = { "admit", "prefill", "prefill", "transfer", "none" };
    open_one("");
    house_join(&h.p0, "p0", 1, false);
    int fd = send_request("POST /v1/completions", "{\"prompt\":\"a\",\"max_tokens\":4}");
    next_reserve();
    struct request *request = h.co->sv.calls->choices[0].request;
    for (int i = 0; i < 5; i++) {
        static const enum request_state states[] = { REQUEST_RESERVING, REQUEST_RESERVED, REQUEST_PREFILLING,
                                                     REQUEST_HANDOFF, REQUEST_DECODING };
        if (i == 1) say_reserved(&h.d0, 1);
        if (i == 2)
            SAY(&h.p0, 1, Progress, progress, PROGRESS, x.stage = BATON__CONTROL__STAGE__COMPUTED; x.tokens = 1);
        if (i == 3) say_text(&h.p0, 1, 0, "x");
        if (i == 4)
            SAY(&h.d0, 1, Progress, progress, PROGRESS, x.stage = BATON__CONTROL__STAGE__COMMITTED; x.tokens = 1);
        HOUSE_UNTIL(request->state == states[i]);
        static const char *const all[] = { "admit", "prefill", "transfer" };
        for (int k = 0; k < 3; k++) {
            char series[96];
            snprintf(series, sizeof(series), "baton_num_requests_waiting{stage=\"%s\"}", all[k]);
            cr_assert_eq(metric_of(series), strcmp(stage[i], all[k]) == 0, "%d: %s", i, all[k]);
        }
        cr_assert_eq(metric_of("baton_num_requests_running"), i > 0, "%d", i);
    }
    struct reply r = ask("GET /admin/nodes", NULL);
    expect_in(r.body, "\"requests_running\":1,\"requests_waiting\":0,");
    expect_in(r.body, "\"decoding\":1}");
    close(fd);
    HOUSE_UNTIL(h.co->sv.n_calls == 0);
    house_close();
}

static void wait_for(int fd, struct strbuf *got, const char *want)
{
    time_t end = time(NULL) + HOUSE_WAIT_S;
    while (!strstr(strbuf_cstr(got), want)) cr_assert(read_some(fd, got) && time(NULL) < end, "%s", strbuf_cstr(got));
}

static void tick_at(struct call *c, uint64_t now)
{
    clock_set_for_test(now);
    call_tick(c, now);
}

Test(calls, a_long_wait_has_headers_and_pings)
{
    struct strbuf got = STRBUF_INIT;
    clock_set_for_test(T0);
    house_open("");
    int fd = send_request("POST /v1/completions", "{\"prompt\":\"a\",\"stream\":true}");
    HOUSE_UNTIL(h.co->sv.n_calls == 1);
    struct call *c = h.co->sv.calls;
    tick_at(c, T0 + 10000000);
    cr_assert_not(c->begun, "ten seconds are not over");
    tick_at(c, T0 + 10000001);
    cr_assert(c->begun);
    wait_for(fd, &got, "\r\n\r\n");
    tick_at(c, T0 + 20000001);
    cr_assert_eq(c->last_write, T0 + 10000001, "headers count as written");
    cr_assert_not(strstr(got.s, ":\n\n"));
    tick_at(c, T0 + 20000002);
    cr_assert_eq(c->last_write, T0 + 20000002);
    wait_for(fd, &got, ":\n\n");
    int whole = send_request("POST /v1/completions", "{\"prompt\":\"a\"}");
    HOUSE_UNTIL(h.co->sv.n_calls == 2);
    tick_at(h.co->sv.calls, T0 + 29000000);
    cr_assert_not(h.co->sv.calls->begun, "an answer in one piece has one head");
    close(fd);
    close(whole);
    strbuf_fini(&got);
    HOUSE_UNTIL(h.co->sv.n_calls == 0);
    cr_assert_eq(metric_of("baton_client_disconnects_total"), 2);
    house_close();
}

/* Twenty alternatives of each token are much JSON: it is written on a worker. */
Test(calls, large_answers_are_written_elsewhere)
{
    float top[SAMPLING_MAX_LOGPROBS] = { 0 };
    int32_t ids[SAMPLING_MAX_LOGPROBS];
    Baton__Control__TokenLogprobs row = BATON__CONTROL__TOKEN_LOGPROBS__INIT;
    for (int i = 0; i < SAMPLING_MAX_LOGPROBS; i++) ids[i] = 'a' + i;
    row.top_ids = ids;
    row.top = top;
    row.n_top = row.n_top_ids = SAMPLING_MAX_LOGPROBS;
    for (int stream = 0; stream < 2; stream++) {
        char body[256];
        open_one("");
        snprintf(body, sizeof(body), "{\"prompt\":[%s],\"max_tokens\":56,\"logprobs\":20,\"stream\":%s}",
                 stream ? "[1,2],[3]" : "1,2", stream ? "true" : "false");
        int fd = send_request("POST /v1/completions", body);
        next_reserve();
        if (stream) next_reserve();
        for (uint64_t k = 1; k <= (stream ? 2 : 1); k++) say_reserved(&h.d0, k);
        if (stream) HOUSE_UNTIL(h.co->sv.calls->choices[1].request->state == REQUEST_RESERVED);
        struct call *c = h.co->sv.calls;
        /* a stream holds back what a worker writes: let it seem so, until both answers are in */
        c->job = stream ? (struct call_job *)c : NULL;
        for (uint64_t k = 1; k <= (stream ? 2 : 1); k++) {
            for (uint32_t i = 0; i < 56; i++) say_row(&h.d0, k, i, BYTES_WORD, &row);
            say_finished(&h.d0, k, 56, FINISH_LENGTH);
        }
        if (stream) {
            HOUSE_UNTIL(c->choices[0].ended && c->choices[1].ended && c->choices[1].text.n == 56 * 4);
            struct strbuf json = STRBUF_INIT;
            strbuf_puts(&json, "{\"first\":1}");
            call_job_done(c, false, &json);
            cr_assert(c->job && work_items(h.co->sv.work) == 1, "a chunk of 56 tokens is written by a worker");
        }
        struct reply r = read_reply(fd);
        cr_assert_eq(r.status, 200);
        size_t n = 0;
        for (const char *p = r.body; (p = strstr(p, "\"t\":0")); p++) n++;
        cr_assert_eq(n, stream ? 112 : 56, "%zu", n);
        n = 0;
        for (const char *p = r.body; (p = strstr(p, "\"finish_reason\":\"length\"")); p++) n++;
        cr_assert_eq(n, stream ? 2 : 1);
        cr_assert_eq(strstr(r.body, "[DONE]") != NULL, stream);
        HOUSE_UNTIL(h.co->sv.n_calls == 0);
        cr_assert_eq(work_items(h.co->sv.work), 0);
        house_close();
    }
}

Test(calls, a_client_that_leaves_while_a_worker_writes_is_let_go)
{
    float top[SAMPLING_MAX_LOGPROBS] = { 0 };
    int32_t ids[SAMPLING_MAX_LOGPROBS] = { 0 };
    Baton__Control__TokenLogprobs row = BATON__CONTROL__TOKEN_LOGPROBS__INIT;
    row.top_ids = ids;
    row.top = top;
    row.n_top = row.n_top_ids = SAMPLING_MAX_LOGPROBS;
    open_one("");
    int fd = send_request("POST /v1/completions", "{\"prompt\":[1],\"max_tokens\":56,\"logprobs\":20}");
    next_reserve();
    say_reserved(&h.d0, 1);
    for (uint32_t i = 0; i < 56; i++) say_row(&h.d0, 1, i, BYTES_WORD, &row);
    struct call *c = h.co->sv.calls;
    HOUSE_UNTIL(c->choices[0].log.n == 56);
    close(fd);
    say_finished(&h.d0, 1, 56, FINISH_LENGTH);
    HOUSE_UNTIL(h.co->sv.n_calls == 0 && work_items(h.co->sv.work) == 0);
    house_close();
}

Test(calls, a_client_that_does_not_read_is_given_up)
{
    clock_set_for_test(T0);
    open_one("");
    int fd = send_request("POST /v1/completions", "{\"prompt\":\"a\",\"stream\":true,\"max_tokens\":9}");
    next_reserve();
    say_reserved(&h.d0, 1);
    say_text(&h.d0, 1, 0, "x");
    struct call *c = h.co->sv.calls;
    HOUSE_UNTIL(c->begun);
    static char much[8 << 20];
    memset(much, ' ', sizeof(much));
    http_write(c->x, much, sizeof(much)); /* more than sockets hold */
    cr_assert_gt(http_unsent(c->x), (size_t)256 << 10);
    call_tick(c, T0 + 1);
    cr_assert_eq(c->slow_since, T0 + 1);
    call_tick(c, T0 + 60000000);
    cr_assert_eq(c->slow_since, T0 + 1, "not yet");
    call_tick(c, T0 + 60000001);
    cr_assert_eq(h.co->sv.n_calls, 0);
    next_job(&h.d0, IS(CANCEL));
    close(fd);
    house_close();
}

Test(calls, who_stops_ends_all_that_is_under_way)
{
    open_one("");
    int fd = send_request("POST /v1/completions", "{\"prompt\":\"a\"}");
    next_reserve();
    coordinator_drain(h.co);
    for (int i = 0; i < 50; i++) house_turn(-1);
    cr_assert_not(h.co->stopped, "a drain waits for the answer");
    coordinator_stop(h.co);
    struct reply r = read_reply(fd);
    cr_assert_eq(r.status, 503);
    expect_in(r.body, "the coordinator is shutting down");
    house_close();
}
