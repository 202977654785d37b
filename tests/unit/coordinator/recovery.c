/* recovery: nodes fail a request, are not there, or make no sense, and it goes on. */
#include "base/clock.h"
#include "tests/unit/coordinator/bench.h"

Test(recovery, rebinds_the_reservation_when_the_prefill_fails)
{
    to_prefill();
    say_failed(&b.p0, 1, ERR_IO, false);
    message *m = fake_expect(&b.d0, &b.loop, IS(REBIND));
    cr_assert(m->rebind->old_epoch == 1 && m->rebind->new_epoch == 2 && !m->rebind->local_prefill);
    say_reserved(&b.d0, 2);
    cr_assert_eq(fake_expect(&b.p0, &b.loop, IS(PREFILL))->prefill->job->epoch, 2);
    say_token(&b.p0, 1, 0, 9); /* of the old epoch */
    say_token(&b.p0, 2, 0, 3);
    expect_tokens(1);
    cr_assert_eq(b.tokens[0], 3);
}

Test(recovery, gives_no_new_work_to_a_decode_node_that_was_not_reached)
{
    clock_set_for_test(1000000);
    to_prefill();
    say_failed(&b.p0, 1, ERR_CLOSED, false);
    fake_expect(&b.d0, &b.loop, IS(REBIND)); /* the question whether it lives */
    struct request *second = submit(8);
    spin();
    cr_assert_eq(second->state, REQUEST_QUEUED);
    clock_set_for_test(1100000);
    say_reserved(&b.d0, 2);
    cr_assert_eq(fake_expect(&b.d0, &b.loop, IS(RESERVE))->reserve->job->request->counter, 2);
    fake_expect(&b.p0, &b.loop, IS(PREFILL));
}

Test(recovery, takes_another_decode_node_than_the_one_that_was_not_reached)
{
    to_prefill();
    join(&b.d1, "d1", 3, true, 4);
    say_token(&b.p0, 1, 0, 3); /* so that it is a replay */
    expect_tokens(1);
    say_failed(&b.p0, 1, ERR_CLOSED, false);
    cr_assert_eq(expect_job(&b.d1, IS(RESERVE))->reserve->job->epoch, 2);
}

/* Both are heard, so doubt ends at once; what they cannot do together is remembered. */
Test(recovery, does_not_choose_a_pair_that_cannot_reach_each_other)
{
    to_prefill();
    join(&b.d1, "d1", 3, true, 8);
    say_failed(&b.p0, 1, ERR_CLOSED, false);
    expect_job(&b.d0, IS(CANCEL)); /* its reservation is of no use to the only prefill node */
    say_cancel_ack(&b.d0, 1);
    cr_assert_eq(expect_job(&b.d1, IS(RESERVE))->reserve->job->epoch, 2);
    for (uint64_t i = 2; i < 4; i++) { /* d0 is idle */
        struct request *r = submit(8);
        cr_assert_eq(expect_job(&b.d1, IS(RESERVE))->reserve->job->request->counter, i);
        cr_assert_eq(r->failures.n, 0);
    }
}

/* Once may be a lost connection; then the decode node reads the prompts itself until a hand-off works again. */
Test(recovery, the_only_pair_is_tried_again_and_then_passed_over)
{
    to_prefill();
    say_failed(&b.p0, 1, ERR_CLOSED, false);
    cr_assert_not(fake_expect(&b.d0, &b.loop, IS(REBIND))->rebind->local_prefill);
    say_reserved(&b.d0, 2);
    fake_expect(&b.p0, &b.loop, IS(PREFILL));
    submit(8);
    cr_assert_not(fake_expect(&b.d0, &b.loop, IS(RESERVE))->reserve->local_prefill);
    say_failed(&b.p0, 2, ERR_CLOSED, false);
    cr_assert(fake_expect(&b.d0, &b.loop, IS(REBIND))->rebind->local_prefill);
    say_reserved(&b.d0, 3);
    submit(8);
    cr_assert(fake_expect(&b.d0, &b.loop, IS(RESERVE))->reserve->local_prefill);
}

/* It is unreachable before anybody knows that it is dead: no attempt, no answer, until one of its name is back. */
Test(recovery, waits_for_the_only_decode_node_to_come_back)
{
    to_prefill();
    say_token(&b.p0, 1, 0, 3);
    expect_tokens(1);
    fake_close(&b.d0);
    say_failed(&b.p0, 1, ERR_CLOSED, false);
    spin();
    submit(8); /* one more in the meantime */
    for (int i = 0; i < 5; i++) spin();
    cr_assert(b.ended == -1 && dispatch_state_counts(b.d)[REQUEST_QUEUED] == 2);
    join(&b.d1, "d1", 3, true, 4);
    message *m = fake_expect(&b.d1, &b.loop, IS(RESERVE)); /* the replay before the new one */
    cr_assert(m->reserve->job->request->counter == 1 && m->reserve->job->epoch == 2);
    cr_assert_eq(fake_expect(&b.d1, &b.loop, IS(RESERVE))->reserve->job->request->counter, 2);
}

Test(recovery, asks_again_when_a_reservation_is_refused)
{
    static const enum status reasons[] = { ERR_NO_BLOCKS, ERR_FULL, ERR_UNAVAILABLE, ERR_STALE, ERR_INTERNAL };
    enum { N = sizeof(reasons) / sizeof(reasons[0]) };
    pair_and_request();
    for (uint32_t epoch = 1; epoch <= N; epoch++) {
        cr_assert_eq(expect_job(&b.d0, IS(RESERVE))->reserve->job->epoch, epoch);
        say_failed(&b.d0, epoch, reasons[epoch - 1], false);
    }
    cr_assert_eq(expect_job(&b.d0, IS(RESERVE))->reserve->job->epoch, N + 1);
    cr_assert(b.ended == -1 && b.r->failures.n == 0);
}

Test(recovery, a_node_that_refuses_for_ever_is_not_asked_for_ever)
{
    pair_and_request();
    for (uint32_t epoch = 1; b.ended == -1 && epoch < 100; epoch++) {
        expect_job(&b.d0, IS(RESERVE));
        say_failed(&b.d0, epoch, ERR_INVALID, false);
        spin();
    }
    cr_assert(b.ended == REQUEST_FAILED && b.error.http == 500 && !b.error.retry);
}

Test(recovery, an_unanswered_reservation_is_no_attempt)
{
    clock_set_for_test(1000000);
    pair_and_request();
    fake_expect(&b.d0, &b.loop, IS(RESERVE));
    for (uint64_t t = 2000000; t <= 12000000; t += 500000) {
        clock_set_for_test(t);
        beat(&b.p0);
        beat(&b.d0);
        spin();
    }
    cr_assert_eq(expect_job(&b.d0, IS(CANCEL))->cancel->epoch, 1);
    cr_assert_eq(expect_job(&b.d0, IS(RESERVE))->reserve->job->epoch, 2);
    cr_assert_eq(b.r->failures.n, 0);
}

Test(recovery, a_prefill_node_that_declines_is_no_attempt)
{
    to_prefill();
    say_failed(&b.p0, 1, ERR_UNAVAILABLE, false);
    cr_assert_eq(fake_expect(&b.d0, &b.loop, IS(CANCEL))->cancel->epoch, 1);
    say_cancel_ack(&b.d0, 1);
    fake_expect(&b.d0, &b.loop, IS(RESERVE));
    cr_assert_eq(b.r->failures.n, 0);
}

Test(recovery, a_dead_prefill_node_makes_the_decode_node_read_the_prompt)
{
    clock_set_for_test(1000000);
    b.dead_after_ms = 3000;
    to_prefill();
    for (uint64_t t = 1500000; t <= 5500000; t += 500000) {
        clock_set_for_test(t);
        beat(&b.d0);
        spin();
    }
    message *m = expect_job(&b.d0, IS(REBIND));
    cr_assert(m->rebind->new_epoch == 2 && m->rebind->local_prefill);
    submit(8); /* and of new requests, too */
    cr_assert(expect_job(&b.d0, IS(RESERVE))->reserve->local_prefill);
}

/* Before it is dead: its prompt is cheap to begin elsewhere, and it is no attempt. */
Test(recovery, a_silent_prefill_nodes_prompt_is_read_elsewhere_at_once)
{
    clock_set_for_test(1000000);
    b.dead_after_ms = 30000;
    to_prefill();
    for (uint64_t t = 1500000; t <= 3000000; t += 500000) {
        clock_set_for_test(t);
        beat(&b.d0);
        spin();
    }
    cr_assert_eq(expect_job(&b.d0, IS(REBIND))->rebind->new_epoch, 2);
    cr_assert(b.r->failures.n == 0 && registry_find_name(dispatch_registry(b.d), "p0"));
    submit(8); /* and it gets no new work */
    cr_assert(expect_job(&b.d0, IS(RESERVE))->reserve->local_prefill);
}

Test(recovery, replays_when_the_client_has_tokens_already)
{
    to_prefill();
    say_token(&b.p0, 1, 0, 3);
    expect_tokens(1);
    say_failed(&b.p0, 1, ERR_CORRUPT, false);
    cr_assert_eq(fake_expect(&b.d0, &b.loop, IS(CANCEL))->cancel->epoch, 1);
    message *m = fake_expect(&b.d0, &b.loop, IS(RESERVE));
    cr_assert(m->reserve->job->epoch == 2 && m->reserve->job->n_tokens == 11 && m->reserve->job->n_prompt == 10);
    cr_assert_eq(m->reserve->job->tokens[10], 3);
    say_cancel_ack(&b.d0, 1);
    say_reserved(&b.d0, 2);
    fake_expect(&b.p0, &b.loop, IS(PREFILL));
    say_token(&b.p0, 2, 1, 4);
    expect_tokens(2);
    cr_assert_eq(metric_value(b.meters->migrated), 1);
}

Test(recovery, takes_another_decode_node_when_one_falls_silent)
{
    clock_set_for_test(1000000);
    b.dead_after_ms = 3000;
    to_prefill();
    join(&b.d1, "d1", 3, true, 4);
    say_token(&b.p0, 1, 0, 3);
    say_prefill_done(&b.p0, 1, false);
    say_token(&b.d0, 1, 1, 4);
    expect_tokens(2);
    for (uint64_t t = 1500000; t <= 5500000; t += 500000) { /* d0 says nothing any more */
        message beat = BATON__CONTROL__CONTROL_MESSAGE__INIT;
        Baton__Control__Heartbeat h = BATON__CONTROL__HEARTBEAT__INIT;
        beat.body_case = IS(HEARTBEAT);
        beat.heartbeat = &h;
        clock_set_for_test(t);
        fake_send(&b.p0, &beat);
        fake_send(&b.d1, &beat);
        spin();
    }
    message *m;
    do m = fake_receive(&b.d1, &b.loop, 2000);
    while (m && m->body_case == IS(HEARTBEAT_ACK));
    cr_assert(m && m->body_case == IS(RESERVE));
    cr_assert(m->reserve->job->epoch == 2 && m->reserve->job->n_tokens == 12);
    cr_assert_eq(b.ended, -1);
}

/* Nobody could go on with its work: it keeps it, and goes on itself once it is heard. */
Test(recovery, keeps_what_the_only_decode_node_does_while_it_is_silent)
{
    clock_set_for_test(1000000);
    b.dead_after_ms = 3000;
    to_prefill();
    say_token(&b.p0, 1, 0, 3);
    say_prefill_done(&b.p0, 1, false);
    say_token(&b.d0, 1, 1, 4);
    expect_tokens(2);
    for (uint64_t t = 3000000; t <= 25000000; t += 2000000) {
        clock_set_for_test(t);
        beat(&b.p0);
        spin();
    }
    cr_assert_eq(b.r->epoch, 1);
    say_token(&b.d0, 1, 2, 5);
    expect_tokens(3);
    cr_assert(b.r->epoch == 1 && b.r->failures.n == 0);
    for (uint64_t t = 27000000; t <= 57000000; t += 2000000) { /* longer than its lease */
        clock_set_for_test(t);
        beat(&b.p0);
        spin();
    }
    cr_assert(b.ended == -1 && b.r->epoch == 2 && b.r->decode == NULL);
}

Test(recovery, gives_up_after_three_failures_in_a_row)
{
    to_prefill();
    say_failed(&b.p0, 1, ERR_IO, false);
    cr_assert_not(fake_expect(&b.d0, &b.loop, IS(REBIND))->rebind->local_prefill);
    say_reserved(&b.d0, 2);
    fake_expect(&b.p0, &b.loop, IS(PREFILL));
    say_failed(&b.p0, 2, ERR_IO, false);
    cr_assert(fake_expect(&b.d0, &b.loop, IS(REBIND))->rebind->local_prefill); /* the last one has no hand-off */
    say_reserved(&b.d0, 3);
    spin();
    cr_assert_eq(b.ended, -1);
    say_failed(&b.d0, 3, ERR_IO, false);
    spin();
    cr_assert_eq(b.ended, REQUEST_FAILED);
    cr_assert(b.error.http == 500 && !b.error.retry && strstr(b.error.message, "3 attempts"));
    cr_assert(strstr(b.error.message, "broken") && !strcmp(b.failures.nodes, "p0,p0,d0"));
}

/* Each loss comes after more tokens than a streak allows, as when nodes are restarted one after the other. */
Test(recovery, a_long_stream_outlives_any_number_of_failures)
{
    pair_and_request_of(1000);
    for (uint32_t epoch = 1; epoch <= 8; epoch++) {
        cr_assert_eq(expect_job(&b.d0, IS(RESERVE))->reserve->job->epoch, epoch);
        say_reserved(&b.d0, epoch);
        fake_expect(&b.p0, &b.loop, IS(PREFILL));
        uint32_t first = b.n_tokens;
        for (uint32_t i = 0; i < REQUEST_STREAK_TOKENS; i++) say_token(&b.p0, epoch, first + i, 3);
        expect_tokens(first + REQUEST_STREAK_TOKENS);
        say_prefill_done(&b.p0, epoch, false);
        spin(); /* two nodes, two connections */
        say_failed(&b.d0, epoch, ERR_IO, false);
    }
    spin();
    cr_assert_eq(b.ended, -1);
}

/* A flipped bit is a peer's bytes that make no sense, whatever the parser calls it. */
Test(recovery, damage_is_never_the_clients_fault)
{
    for (int st = OK + 1; st < STATUS_COUNT; st++) {
        memset(&b, 0, sizeof(b));
        to_prefill();
        say_token(&b.p0, 1, 0, 3);
        expect_tokens(1);
        say_failed(&b.d0, 1, st, true);
        cr_assert_eq(expect_job(&b.d0, IS(CANCEL))->cancel->epoch, 1, "%s", status_text(st));
        say_cancel_ack(&b.d0, 1);
        cr_assert_eq(expect_job(&b.d0, IS(RESERVE))->reserve->job->epoch, 2, "%s", status_text(st));
        cr_assert_eq(b.ended, -1);
        dispatch_close(b.d);
        fake_close(&b.p0);
        fake_close(&b.d0);
        uv_run(&b.loop, UV_RUN_DEFAULT);
        meters_destroy(b.meters);
    }
}

Test(recovery, waits_for_a_decode_node_and_then_says_there_is_none)
{
    struct api_error e;
    clock_set_for_test(1000000);
    start();
    join(&b.p0, "p0", 1, false, 4);
    cr_assert_eq(dispatch_check_room(b.d, 1, 0, &e), OK);
    spin(); /* it is known that none is there */
    clock_set_for_test(2000000);
    submit(8);
    for (uint64_t t = 2500000; t < 2000000 + NODE_WAIT_MS * 1000; t += 500000) {
        clock_set_for_test(t);
        beat(&b.p0);
        spin();
        cr_assert_eq(b.ended, -1);
    }
    clock_set_for_test(2000000 + NODE_WAIT_MS * 1000);
    spin();
    cr_assert(b.ended == REQUEST_FAILED && b.error.http == 503 && b.error.retry && b.error.retry_after_s);
    cr_assert_str_eq(b.error.code, "no_decode_node");
}

Test(recovery, serves_what_was_asked_before_any_node_came)
{
    start();
    submit(4000); /* as much as the model's context has room for */
    spin();
    cr_assert_eq(b.ended, -1);
    b.d0 = fake_open(dispatch_endpoint(b.d), "d0", 2, true);
    b.d0.max_context = 100;
    fake_hello(&b.d0, 0xF00D, 4);
    b.d0.coordinator = fake_expect(&b.d0, &b.loop, IS(WELCOME))->incarnation;
    message *m = fake_expect(&b.d0, &b.loop, IS(RESERVE));
    cr_assert(m->reserve->local_prefill && m->reserve->job->sampling->max_tokens == 90);
}
