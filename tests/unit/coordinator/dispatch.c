/* dispatch: a request's way through fake nodes, and what happens when they fail it. */
#include "coordinator/dispatch.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "coordinator/meters.h"
#include "coordinator/registry.h"
#include "tests/unit/coordinator/fake_node.h"
#include "tests/unit/coordinator/tiny_model.h"

#include <criterion/criterion.h>
#include <string.h>

#define INCARNATION 0xC0FFEEu

static struct bench { /* one coordinator, its owner, its nodes */
    uv_loop_t loop;
    struct dispatch *d;
    struct meters *meters;
    struct served_model *models[1];
    struct fake_node p0, d0, d1;
    struct request *r;
    int32_t tokens[64];
    uint32_t n_tokens;
    uint32_t stop_after; /* the owner is content with so many tokens; 0 = never */
    int ended;           /* enum request_state, -1 = not yet */
    struct api_error error;
} b;

static void on_token(void *owner, int32_t id, const struct logprob_row *row)
{
    b.tokens[b.n_tokens++] = id;
    if (b.stop_after == b.n_tokens) dispatch_finish(b.d, b.r, REQUEST_FINISH_STOP);
}

static void on_prompt_logprobs(void *owner, uint32_t position, const struct logprob_row *row) {}

static void on_end(void *owner, struct request *r)
{
    b.ended = (int)r->state;
    b.error = r->error;
}

static const struct request_events events = { on_token, on_prompt_logprobs, on_end };

static void start(void)
{
    struct error err;
    log_init(LOG_LEVEL_ERROR, "test");
    uv_loop_init(&b.loop);
    b.meters = meters_create();
    b.models[0] = tiny_model();
    b.ended = -1;
    struct dispatch_options opt = { .loop = &b.loop,
                                    .control = "tcp://127.0.0.1:0",
                                    .incarnation = INCARNATION,
                                    .models = b.models,
                                    .n_models = 1,
                                    .meters = b.meters,
                                    .limits = { 60000, 10000 },
                                    .max_queue = 4,
                                    .max_queue_bytes = 1 << 20,
                                    .max_attempts = 3 };
    cr_assert_eq(dispatch_create(&b.d, &opt, &err), OK, "%s", err.text);
}

static void join(struct fake_node *n, const char *name, uint64_t incarnation, bool decode, uint32_t max_seqs)
{
    *n = fake_open(dispatch_endpoint(b.d), name, incarnation, decode);
    fake_hello(n, 0xF00D, max_seqs);
    n->coordinator = fake_expect(n, &b.loop, IS(WELCOME))->incarnation;
    cr_assert_eq(n->coordinator, INCARNATION);
}

static struct request *submit(uint32_t max_tokens)
{
    struct request_sampling s = { .max_tokens = max_tokens, .n_logprobs = -1, .n_prompt_logprobs = -1 };
    int32_t *ids = mem_array(10, sizeof(*ids));
    b.r = dispatch_submit(b.d, b.models[0], ids, 10, 0, &s, "", &events, &b, "test");
    return b.r;
}

static void pair_and_request(void)
{
    start();
    join(&b.p0, "p0", 1, false, 4);
    join(&b.d0, "d0", 2, true, 4);
    submit(8);
}

static void spin(void)
{
    for (int i = 0; i < 100; i++) {
        uv_run(&b.loop, UV_RUN_NOWAIT);
        zmq_poll(NULL, 0, 1);
    }
}

static Baton__Kv__RequestId id_of(uint64_t counter)
{
    Baton__Kv__RequestId id = BATON__KV__REQUEST_ID__INIT;
    id.incarnation = INCARNATION;
    id.counter = counter;
    return id;
}

/* A message of one type about request 1; `fill` are further assignments to x. */
#define SAY(node, TYPE, lower, BODY, number, fill)                                                                     \
    do {                                                                                                               \
        message m_ = BATON__CONTROL__CONTROL_MESSAGE__INIT;                                                            \
        Baton__Control__##TYPE x = BATON__CONTROL__##BODY##__INIT;                                                     \
        Baton__Kv__RequestId id_ = id_of(1);                                                                           \
        x.request = &id_;                                                                                              \
        x.epoch = number;                                                                                              \
        fill;                                                                                                          \
        m_.body_case = IS(BODY);                                                                                       \
        m_.lower = &x;                                                                                                 \
        fake_send(node, &m_);                                                                                          \
    } while (0)

static void say_reserved(struct fake_node *n, uint32_t epoch)
{
    SAY(n, Reserved, reserved, RESERVED, epoch, x.reservation = 77; x.credit_bytes = 1000);
}

static void say_token(struct fake_node *n, uint32_t epoch, uint32_t idx, int32_t id)
{
    Baton__Control__Token t = BATON__CONTROL__TOKEN__INIT, *list[] = { &t };
    t.output_idx = idx;
    t.id = id;
    SAY(n, Tokens, tokens, TOKENS, epoch, x.n_tokens = 1; x.tokens = list);
}

static void say_prefill_done(struct fake_node *n, uint32_t epoch, bool ended)
{
    SAY(n, PrefillDone, prefill_done, PREFILL_DONE, epoch, x.kv_bytes = 500; x.ended = ended; x.finish = ended);
}

static void say_finished(struct fake_node *n, uint32_t epoch, uint32_t n_output)
{
    SAY(n, Finished, finished, FINISHED, epoch, x.finish = 2; x.n_output = n_output);
}

static void say_failed(struct fake_node *n, uint32_t epoch, enum status st, bool kept)
{
    SAY(n, Failed, failed, FAILED, epoch, x.status = st; x.message = (char *)"broken"; x.reservation_kept = kept);
}

static void say_cancel_ack(struct fake_node *n, uint32_t epoch)
{
    SAY(n, CancelAck, cancel_ack, CANCEL_ACK, epoch, (void)0);
}

/* Up to the prompt's job at the prefill node, in epoch 1. */
static void to_prefill(void)
{
    pair_and_request();
    message *m = fake_expect(&b.d0, &b.loop, IS(RESERVE));
    cr_assert(m->reserve->job->epoch == 1 && m->reserve->job->n_tokens == 10 && !m->reserve->local_prefill);
    say_reserved(&b.d0, 1);
    m = fake_expect(&b.p0, &b.loop, IS(PREFILL));
    cr_assert(m->prefill->reservation == 77 && m->prefill->credit_bytes == 1000 && m->prefill->decode_incarnation == 2);
}

static void expect_tokens(uint32_t n)
{
    for (int i = 0; i < 2000 && b.n_tokens < n; i++) spin();
    cr_assert_eq(b.n_tokens, n);
}

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

Test(dispatch, rebinds_the_reservation_when_the_prefill_fails)
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

Test(dispatch, waits_for_a_word_of_a_decode_node_that_was_not_reached_twice)
{
    clock_set_for_test(1000000);
    to_prefill();
    say_failed(&b.p0, 1, ERR_CLOSED, false);
    fake_expect(&b.d0, &b.loop, IS(REBIND));
    say_reserved(&b.d0, 2);
    fake_expect(&b.p0, &b.loop, IS(PREFILL));
    clock_set_for_test(1500000);
    say_failed(&b.p0, 2, ERR_CLOSED, false);
    cr_assert_eq(fake_expect(&b.d0, &b.loop, IS(CANCEL))->cancel->epoch, 2);
    message *m = fake_receive(&b.d0, &b.loop, 200);
    cr_assert(!m || m->body_case != IS(RESERVE)); /* the third attempt is kept for a node that lives */
    clock_set_for_test(1600000);
    say_cancel_ack(&b.d0, 2);
    cr_assert_eq(fake_expect(&b.d0, &b.loop, IS(RESERVE))->reserve->job->epoch, 3);
}

Test(dispatch, replays_when_the_client_has_tokens_already)
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

Test(dispatch, takes_another_decode_node_when_one_falls_silent)
{
    clock_set_for_test(1000000);
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

Test(dispatch, gives_up_honestly_after_max_attempts)
{
    to_prefill();
    say_failed(&b.p0, 1, ERR_IO, false);
    for (uint32_t epoch = 2; epoch <= 3; epoch++) {
        fake_expect(&b.d0, &b.loop, IS(REBIND));
        say_reserved(&b.d0, epoch);
        fake_expect(&b.p0, &b.loop, IS(PREFILL));
        say_failed(&b.p0, epoch, ERR_IO, false);
    }
    spin();
    cr_assert_eq(b.ended, REQUEST_FAILED);
    cr_assert(b.error.http == 500 && strstr(b.error.message, "3 attempts") && strstr(b.error.message, "broken"));
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
    cr_assert_eq(dispatch_check_room(b.d, b.models[0], 3, 0, &e), OK);
    cr_assert_eq(dispatch_check_room(b.d, b.models[0], 4, 0, &e), ERR_FULL);
    cr_assert(e.http == 429 && e.retry_after_s && e.retry);
    say_failed(&b.d0, 1, ERR_INVALID, false);
    cr_assert_eq(fake_expect(&b.d0, &b.loop, IS(RESERVE))->reserve->job->request->counter, 2);
}

Test(dispatch, has_no_room_without_a_decode_node)
{
    struct api_error e;
    start();
    join(&b.p0, "p0", 1, false, 4);
    cr_assert_eq(dispatch_check_room(b.d, b.models[0], 1, 0, &e), ERR_UNAVAILABLE);
    cr_assert_str_eq(e.code, "no_decode_node");
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

Test(dispatch, asks_an_unknown_node_to_register)
{
    start();
    b.d0 = fake_open(dispatch_endpoint(b.d), "d0", 5, true);
    message m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Heartbeat h = BATON__CONTROL__HEARTBEAT__INIT;
    m.body_case = IS(HEARTBEAT);
    m.heartbeat = &h;
    fake_send(&b.d0, &m);
    cr_assert_eq(fake_expect(&b.d0, &b.loop, IS(REFUSED))->refused->status, ERR_STALE);
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
        zmq_send(b.d0.socket, raw, sizeof(raw), 0);
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
