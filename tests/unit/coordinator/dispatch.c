/* dispatch: a request's way through fake nodes, its end, and who may join. */
#include "base/clock.h"
#include "tests/unit/coordinator/bench.h"

Test(dispatch, carries_a_request_from_queue_to_end)
{
    to_prefill();
    say_token(&b.p0, 1, 0, 3);
    expect_tokens(1);
    cr_assert_eq(b.r->state, REQUEST_HANDOFF);
    say_prefill_done(&b.p0, 1, false);
    say_token(&b.d0, 1, 1, 4);
    expect_tokens(2);
    cr_assert_eq(b.r->state, REQUEST_DECODING);
    say_finished(&b.d0, 1, 2);
    spin();
    cr_assert_eq(b.ended, REQUEST_DONE);
    cr_assert_eq(dispatch_n_open(b.d), 0);
    cr_assert_eq(metric_value(b.meters->kv_bytes), 500);
    cr_assert_null(fake_receive(&b.p0, &b.loop, 20)); /* nothing to cancel */
}

Test(dispatch, waits_for_the_prefill_nodes_report_before_the_end)
{
    to_prefill();
    say_token(&b.p0, 1, 0, 3);
    expect_tokens(1);
    say_token(&b.d0, 1, 1, 4);
    say_finished(&b.d0, 1, 2);
    expect_tokens(2);
    cr_assert_eq(b.ended, -1);
    say_prefill_done(&b.p0, 1, false);
    spin();
    cr_assert_eq(b.ended, REQUEST_DONE);
}

Test(dispatch, ends_at_the_first_token_and_frees_the_reservation)
{
    to_prefill();
    say_token(&b.p0, 1, 0, 0);
    say_prefill_done(&b.p0, 1, true);
    cr_assert_eq(fake_expect(&b.d0, &b.loop, IS(CANCEL))->cancel->epoch, 0);
    cr_assert(b.ended == REQUEST_DONE && dispatch_n_open(b.d) == 1);
    say_cancel_ack(&b.d0, 0);
    spin();
    cr_assert_eq(dispatch_n_open(b.d), 0);
}

Test(dispatch, puts_tokens_of_two_nodes_in_order)
{
    to_prefill();
    say_token(&b.d0, 1, 2, 5);
    say_token(&b.d0, 1, 1, 4);
    spin();
    cr_assert_eq(b.n_tokens, 0);
    say_token(&b.p0, 1, 0, 3);
    expect_tokens(3);
    cr_assert(b.tokens[0] == 3 && b.tokens[1] == 4 && b.tokens[2] == 5);
}

Test(dispatch, drops_what_is_stale_repeated_or_impossible)
{
    to_prefill();
    say_token(&b.p0, 1, 0, 3);
    expect_tokens(1);
    say_token(&b.p0, 1, 0, 3);  /* again */
    say_token(&b.p0, 9, 1, 3);  /* another epoch */
    say_token(&b.p0, 1, 99, 3); /* past max_tokens */
    say_token(&b.p0, 1, 1, 99); /* not in the vocabulary */
    spin();
    cr_assert_eq(b.n_tokens, 1);
    cr_assert_eq(metric_value(b.meters->tokens_dropped), 4);
}

static void say_token_beside(struct fake_node *n, uint32_t idx, int32_t id, int32_t alternative)
{
    Baton__Control__TokenLogprobs row = BATON__CONTROL__TOKEN_LOGPROBS__INIT;
    Baton__Control__Token t = BATON__CONTROL__TOKEN__INIT, *list[] = { &t };
    row.top_ids = &alternative;
    row.top = &(float){ -1.0f };
    row.n_top_ids = row.n_top = 1;
    t.output_idx = idx;
    t.id = id;
    t.logprobs = &row;
    SAY(n, Tokens, tokens, TOKENS, 1, x.n_tokens = 1; x.tokens = list);
}

Test(dispatch, takes_no_logprobs_of_what_is_no_token)
{
    to_prefill();
    say_token_beside(&b.p0, 0, 3, TINY_COUNT - 1);
    expect_tokens(1);
    cr_assert_eq(b.n_rows, 1);
    static const int32_t impossible[] = { TINY_COUNT, -1, INT32_MAX };
    for (uint32_t i = 0; i < 3; i++) say_token_beside(&b.d0, i + 1, 4, impossible[i]);
    expect_tokens(4);
    cr_assert_eq(b.n_rows, 1, "the tokens are there, their rows are not");
}

Test(dispatch, refuses_a_hopeless_request_at_once)
{
    pair_and_request();
    fake_expect(&b.d0, &b.loop, IS(RESERVE));
    say_failed(&b.d0, 1, ERR_CONTEXT_LENGTH, false);
    spin();
    cr_assert(b.ended == REQUEST_FAILED && b.error.http == 400);
    cr_assert_eq(dispatch_n_open(b.d), 0); /* the prefill node had heard nothing */
}

Test(dispatch, cancels_at_both_nodes_until_they_acknowledge)
{
    struct api_error why;
    to_prefill();
    api_error_set(&why, ERR_CANCELLED, NULL, NULL, "gone");
    dispatch_cancel(b.d, b.r, &why);
    cr_assert_eq(b.ended, REQUEST_CANCELLED);
    fake_expect(&b.p0, &b.loop, IS(CANCEL));
    fake_expect(&b.d0, &b.loop, IS(CANCEL));
    fake_expect(&b.d0, &b.loop, IS(CANCEL)); /* again after a second */
    say_cancel_ack(&b.d0, 0);
    spin();
    cr_assert_eq(dispatch_n_open(b.d), 1);
    say_cancel_ack(&b.p0, 0);
    spin();
    cr_assert_eq(dispatch_n_open(b.d), 0);
}

Test(dispatch, an_owner_may_stop_inside_its_token)
{
    to_prefill();
    b.stop_after = 1;
    say_token(&b.p0, 1, 0, 3);
    fake_expect(&b.p0, &b.loop, IS(CANCEL));
    cr_assert(b.ended == REQUEST_DONE && b.n_tokens == 1);
    say_token(&b.d0, 1, 1, 4);
    spin();
    cr_assert_eq(b.n_tokens, 1);
}

Test(dispatch, lets_no_more_out_than_a_node_takes)
{
    struct api_error e;
    start();
    join(&b.p0, "p0", 1, false, 4);
    join(&b.d0, "d0", 2, true, 1);
    submit(8);
    struct request *second = submit(8);
    fake_expect(&b.d0, &b.loop, IS(RESERVE));
    spin();
    cr_assert_eq(second->state, REQUEST_QUEUED);
    cr_assert_eq(dispatch_check_room(b.d, 3, 0, &e), OK);
    cr_assert_eq(dispatch_check_room(b.d, 4, 0, &e), ERR_FULL);
    cr_assert(e.http == 429 && e.retry_after_s && e.retry);
    say_failed(&b.d0, 1, ERR_CONTEXT_LENGTH, false);
    cr_assert_eq(fake_expect(&b.d0, &b.loop, IS(RESERVE))->reserve->job->request->counter, 2);
}

Test(dispatch, counts_what_another_coordinator_has_at_a_node)
{
    message m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Heartbeat h = BATON__CONTROL__HEARTBEAT__INIT;
    Baton__Control__Load load = BATON__CONTROL__LOAD__INIT;
    start();
    join(&b.d0, "d0", 2, true, 4);
    join(&b.d1, "d1", 3, true, 4);
    load.running = 3;
    load.reserved = 1;
    load.blocks_total = load.blocks_free = 64;
    h.load = &load;
    m.body_case = IS(HEARTBEAT);
    m.heartbeat = &h;
    fake_send(&b.d0, &m);
    spin();
    for (uint32_t i = 0; i < 4; i++) { /* all seats of d0 are another one's */
        submit(8);
        cr_assert_eq(expect_job(&b.d1, IS(RESERVE))->reserve->job->request->counter, i + 1);
    }
    submit(8);
    spin();
    cr_assert_eq(b.r->state, REQUEST_QUEUED);
}

/* It stands still, or its network does: what would wait there waits here, and goes elsewhere. */
Test(dispatch, gives_no_new_work_to_a_node_that_does_not_take_it_in)
{
    uint32_t n = 0;
    b.link_bytes = 4000;
    start();
    join(&b.d0, "d0", 2, true, 64);
    do {
        submit(8);
        beat(&b.d0); /* it lives, and reads nothing */
        spin();
        n++;
    } while (n < 60 && b.r->state == REQUEST_RESERVING);
    cr_assert(n > 3 && b.r->state == REQUEST_QUEUED, "%u asked", n);
    join(&b.d1, "d1", 3, true, 1);
    cr_assert_eq(expect_job(&b.d1, IS(RESERVE))->reserve->job->request->counter, n);
    struct request *next = submit(8);
    beat(&b.d0);
    spin();
    cr_assert_eq(next->state, REQUEST_QUEUED); /* d1 is full */
    for (uint32_t i = 1; i < n; i++) cr_assert_eq(expect_job(&b.d0, IS(RESERVE))->reserve->job->request->counter, i);
    cr_assert_eq(expect_job(&b.d0, IS(RESERVE))->reserve->job->request->counter, n + 1); /* it has acknowledged */
    cr_assert_eq(next->epoch, 1);
}

Test(dispatch, a_name_is_taken_for_both_roles)
{
    start();
    join(&b.p0, "n0", 1, false, 4);
    b.d0 = fake_open(dispatch_endpoint(b.d), "n0", 2, true);
    fake_hello(&b.d0, 0xF00D, 4);
    message *m = fake_expect(&b.d0, &b.loop, IS(REFUSED));
    cr_assert(m->refused->status == ERR_UNAVAILABLE && strstr(m->refused->message, "prefill node named n0"));
}

Test(dispatch, refuses_a_node_of_another_file_with_both_values)
{
    start();
    b.d0 = fake_open(dispatch_endpoint(b.d), "d0", 5, true);
    fake_hello(&b.d0, 0xBAD, 4);
    message *m = fake_expect(&b.d0, &b.loop, IS(REFUSED));
    cr_assert_eq(m->refused->status, ERR_MISMATCH);
    cr_assert(strstr(m->refused->message, "0bad") && strstr(m->refused->message, "f00d"));
}

Test(dispatch, refuses_a_node_of_another_cache_with_both_values)
{
    start();
    join(&b.p0, "p0", 1, false, 4);
    b.d0 = fake_open(dispatch_endpoint(b.d), "d0", 5, true);
    b.d0.head_dim = 32;
    fake_hello(&b.d0, 0xF00D, 4);
    message *m = fake_expect(&b.d0, &b.loop, IS(REFUSED));
    cr_assert_eq(m->refused->status, ERR_MISMATCH);
    cr_assert_not_null(strstr(m->refused->message, "head_dim (group 0) differs: d0 has 32, p0 has 16"), "%s",
                       m->refused->message);
    b.d1 = fake_open(dispatch_endpoint(b.d), "d1", 6, true);
    b.d1.head_dim = 0;
    fake_hello(&b.d1, 0xF00D, 4);
    m = fake_expect(&b.d1, &b.loop, IS(REFUSED));
    cr_assert_eq(m->refused->status, ERR_INVALID);
    cr_assert_not_null(strstr(m->refused->message, "node d1: cache group 0: head_dim is 0"), "%s", m->refused->message);
}

Test(dispatch, an_unknown_node_must_begin_a_new_session)
{
    start();
    b.d0 = fake_open(dispatch_endpoint(b.d), "d0", 5, true);
    message m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Heartbeat h = BATON__CONTROL__HEARTBEAT__INIT;
    m.body_case = IS(HEARTBEAT);
    m.heartbeat = &h;
    fake_send(&b.d0, &m);
    cr_assert_null(fake_receive(&b.d0, &b.loop, 2000));
    cr_assert(b.d0.over);
}

Test(dispatch, a_node_of_another_version_is_told_in_words_it_reads)
{
    start();
    b.d0 = fake_open(dispatch_endpoint(b.d), "d0", 5, true);
    const uint8_t raw[] = { 0x08, 1, 0x52, 0 }; /* a Register of version 1, without a session */
    zmq_send(b.d0.socket, raw, sizeof(raw), 0);
    message *m = NULL;
    for (int i = 0; i < 2000 && !m; i++) {
        uint8_t buf[1024];
        uv_run(&b.loop, UV_RUN_NOWAIT);
        zmq_poll(NULL, 0, 1);
        int n = zmq_recv(b.d0.socket, buf, sizeof(buf), ZMQ_DONTWAIT);
        if (n > 0) m = baton__control__control_message__unpack(NULL, (size_t)n, buf);
    }
    cr_assert(m && m->body_case == IS(REFUSED));
    char ours[32];
    snprintf(ours, sizeof(ours), "version %d", PROTOCOL_VERSION);
    cr_assert(strstr(m->refused->message, "version 1") && strstr(m->refused->message, ours), "%s", m->refused->message);
    baton__control__control_message__free_unpacked(m, NULL);
}

/* What a killed process looks like: no word, and its connection ends. */
Test(dispatch, a_node_whose_connection_ends_is_doubted_then_dead)
{
    start();
    join(&b.d0, "d0", 2, true, 4);
    struct node *n = registry_find_name(dispatch_registry(b.d), "d0");
    cr_assert(n && !n->doubted);
    zmq_close(b.d0.socket);
    for (int i = 0; i < 2000 && !n->doubted; i++) {
        uv_run(&b.loop, UV_RUN_NOWAIT);
        zmq_poll(NULL, 0, 1);
    }
    cr_assert(n->doubted && n->alive);
    uint64_t doubted = clock_now_us();
    for (int i = 0; i < 20000 && n->alive; i++) {
        uv_run(&b.loop, UV_RUN_NOWAIT);
        zmq_poll(NULL, 0, 1);
    }
    cr_assert_not(n->alive);
    cr_assert_geq(clock_now_us() - doubted, 100000ull);
}

Test(dispatch, a_node_that_dials_again_in_time_is_doubted_no_more)
{
    start();
    join(&b.d0, "d0", 2, true, 4);
    struct node *n = registry_find_name(dispatch_registry(b.d), "d0");
    zmq_close(b.d0.socket);
    for (int i = 0; i < 2000 && !n->doubted; i++) {
        uv_run(&b.loop, UV_RUN_NOWAIT);
        zmq_poll(NULL, 0, 1);
    }
    cr_assert(n->doubted);
    b.d0.socket = zmq_socket(zsock_context(), ZMQ_DEALER);
    cr_assert_eq(zmq_connect(b.d0.socket, dispatch_endpoint(b.d)), 0);
    session_dial(&b.d0.s, clock_now_ms());
    fake_flush(&b.d0);
    submit(8); /* goes out on the new connection */
    fake_expect(&b.d0, &b.loop, IS(RESERVE));
    cr_assert(n->alive && !n->doubted && !n->unreachable_since);
}

Test(dispatch, a_name_is_free_at_once_after_a_goodbye)
{
    clock_set_for_test(1000000);
    pair_and_request();
    fake_expect(&b.d0, &b.loop, IS(RESERVE));
    struct fake_node again = fake_open(dispatch_endpoint(b.d), "d0", 12, true);
    fake_hello(&again, 0xF00D, 4);
    message *m = fake_expect(&again, &b.loop, IS(REFUSED)); /* heard just now: the name is taken */
    cr_assert_not_null(strstr(m->refused->message, "d0"));

    message bye = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Goodbye g = BATON__CONTROL__GOODBYE__INIT;
    bye.body_case = IS(GOODBYE);
    bye.goodbye = &g;
    fake_send(&b.d0, &bye);
    spin();
    cr_assert_not(registry_can_serve(dispatch_registry(b.d), b.models[0]));
    fake_hello(&again, 0xF00D, 4);
    fake_expect(&again, &b.loop, IS(WELCOME));
    cr_assert_eq(fake_expect(&again, &b.loop, IS(RESERVE))->reserve->job->epoch, 2); /* what it held goes on */
}

Test(dispatch, says_goodbye_when_it_closes)
{
    start();
    join(&b.d0, "d0", 2, true, 4);
    dispatch_close(b.d);
    fake_expect(&b.d0, &b.loop, IS(GOODBYE));
}

Test(dispatch, survives_garbage_and_missing_parts)
{
    static const int bodies[] = { 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31 };
    to_prefill();
    zmq_send(b.d0.socket, "garbage", 7, 0);
    zmq_send(b.d0.socket, "", 0, 0);
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        /* version 1, the node's incarnation, to us, and a body without any field */
        uint8_t raw[] = { 0x08,
                          1,
                          0x11,
                          2,
                          0,
                          0,
                          0,
                          0,
                          0,
                          0,
                          0,
                          0x19,
                          0xEE,
                          0xFF,
                          0xC0,
                          0,
                          0,
                          0,
                          0,
                          0,
                          (uint8_t)((bodies[i] * 8 + 2) | 0x80),
                          (uint8_t)((bodies[i] * 8 + 2) >> 7),
                          0 };
        memcpy(session_add(&b.d0.s, sizeof(raw)), raw, sizeof(raw));
        fake_flush(&b.d0);
    }
    say_token(&b.p0, 1, 0, 3);
    expect_tokens(1);
}

Test(dispatch, close_ends_every_request)
{
    to_prefill();
    dispatch_close(b.d);
    cr_assert_eq(b.ended, REQUEST_FAILED);
    cr_assert_str_eq(b.error.code, "draining");
    fake_close(&b.p0);
    fake_close(&b.d0);
    uv_run(&b.loop, UV_RUN_DEFAULT);
    meters_destroy(b.meters);
}
