/* events: what a node says of a request counts if it fits: its epoch, its node, its order, its numbers. */
#include "tests/unit/coordinator/bench.h"

static uint32_t row_positions[16], n_positions;

static void keep_position(void *owner, uint32_t position, const struct logprob_row *row)
{
    cr_assert_lt(n_positions, 16);
    row_positions[n_positions++] = position;
}

/* Turns of the loop until a condition holds. */
#define UNTIL(cond)                                                                                                    \
    do {                                                                                                               \
        for (int i_ = 0; i_ < 200 && !(cond); i_++) spin();                                                            \
        cr_assert(cond);                                                                                               \
    } while (0)

static void say_row(struct fake_node *n, uint32_t idx, size_t n_ids, size_t n_top, int32_t last_id)
{
    int32_t ids[32] = { 0 };
    float top[32] = { 0 };
    Baton__Control__TokenLogprobs row = BATON__CONTROL__TOKEN_LOGPROBS__INIT;
    Baton__Control__Token t = BATON__CONTROL__TOKEN__INIT, *list[] = { &t };
    ids[n_ids ? n_ids - 1 : 0] = last_id;
    row.top_ids = ids;
    row.n_top_ids = n_ids;
    row.top = top;
    row.n_top = n_top;
    t.output_idx = idx;
    t.id = 3;
    t.logprobs = &row;
    SAY(n, Tokens, tokens, TOKENS, 1, x.n_tokens = 1; x.tokens = list);
}

Test(events, alternatives_of_a_token_must_make_sense)
{
    static const struct {
        size_t n_ids, n_top;
        int32_t last_id;
        bool fine;
    } rows[] = {
        { 0, 0, 0, true },           { 1, 1, TINY_COUNT - 1, true },
        { 20, 20, 0, true },         { 21, 21, 0, false },
        { 2, 1, 0, false },          { 1, 2, 0, false },
        { 1, 1, TINY_COUNT, false }, { 3, 3, -1, false },
    };
    start();
    join(&b.d0, "d0", 2, true, 4);
    submit(20);
    fake_expect(&b.d0, &b.loop, IS(RESERVE));
    uint32_t n_rows = 0;
    for (uint32_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        say_row(&b.d0, i, rows[i].n_ids, rows[i].n_top, rows[i].last_id);
        expect_tokens(i + 1);
        n_rows += rows[i].fine;
        cr_assert_eq(b.n_rows, n_rows, "%u: the token counts, its row %s", i, rows[i].fine ? "too" : "does not");
    }
}

Test(events, a_token_is_of_the_vocabulary_and_within_what_was_asked)
{
    static const int32_t ids[] = { 0, TINY_COUNT - 1, TINY_COUNT, -1, INT32_MAX };
    start();
    join(&b.d0, "d0", 2, true, 4);
    submit(2);
    fake_expect(&b.d0, &b.loop, IS(RESERVE));
    for (int i = 4; i >= 0; i--)
        say_token(&b.d0, 1, i > 1 ? 0 : (uint32_t)i, ids[i]); /* the good ones come last, 1 before 0 */
    expect_tokens(2);
    cr_assert(b.tokens[0] == 0 && b.tokens[1] == TINY_COUNT - 1);
    say_token(&b.d0, 1, 2, 3); /* past the two that were asked for */
    say_token(&b.d0, 1, 3, 3);
    UNTIL(metric_value(b.meters->tokens_dropped) == 5);
    cr_assert_eq(b.n_tokens, 2);
}

Test(events, a_reservation_is_of_its_node_its_epoch_and_its_time)
{
    pair_and_request();
    fake_expect(&b.d0, &b.loop, IS(RESERVE));
    say_reserved(&b.p0, 1); /* a prefill node reserves nothing */
    say_reserved(&b.d0, 2);
    spin();
    cr_assert_eq(b.r->state, REQUEST_RESERVING);
    say_reserved(&b.d0, 1);
    fake_expect(&b.p0, &b.loop, IS(PREFILL));
    cr_assert(b.r->state == REQUEST_RESERVED && b.r->reservation == 77);
    SAY(&b.d0, Reserved, reserved, RESERVED, 1, x.reservation = 78);
    cr_assert_null(fake_receive(&b.p0, &b.loop, 20), "said twice");
    cr_assert_eq(b.r->reservation, 77);
}

static void say_rows(uint32_t first, uint32_t n, bool broken)
{
    static int32_t bad = -1;
    static float zero;
    Baton__Control__TokenLogprobs row = BATON__CONTROL__TOKEN_LOGPROBS__INIT, *rows[8];
    for (uint32_t i = 0; i < n; i++) rows[i] = &row;
    if (broken) {
        row.top_ids = &bad;
        row.top = &zero;
        row.n_top_ids = row.n_top = 1;
    }
    SAY(&b.d0, PromptLogprobs, prompt_logprobs, PROMPT_LOGPROBS, 1, x.first_position = first; x.rows = rows;
        x.n_rows = n);
}

Test(events, rows_of_a_prompt_come_in_order_and_once)
{
    static const struct request_events listening = { on_token, keep_position, on_end };
    start();
    join(&b.d0, "d0", 2, true, 4);
    submit(8)->events = &listening; /* of ten tokens: positions 1 to 9 */
    fake_expect(&b.d0, &b.loop, IS(RESERVE));
    say_reserved(&b.d0, 1);
    say_rows(0, 1, false); /* the first token has none */
    say_rows(2, 1, false); /* not yet */
    say_rows(1, 3, false);
    UNTIL(n_positions == 3);
    say_rows(2, 4, false); /* two known, two new */
    say_rows(6, 1, true);  /* no row at all */
    say_rows(6, 6, false); /* more than the prompt has */
    UNTIL(b.r->n_prompt_rows == 9);
    say_rows(10, 1, false);
    spin();
    cr_assert_eq(n_positions, 9);
    for (uint32_t i = 0; i < 9; i++) cr_assert_eq(row_positions[i], i + 1);
    cr_assert_eq(b.r->state, REQUEST_PREFILLING);
}

static void say_computed(struct fake_node *n, uint32_t cached)
{
    SAY(n, Progress, progress, PROGRESS, 1, x.stage = BATON__CONTROL__STAGE__COMPUTED; x.tokens = 10;
        x.cached_tokens = cached);
}

Test(events, progress_tells_stages_and_what_was_cached)
{
    to_prefill();
    SAY(&b.d0, Progress, progress, PROGRESS, 1, x.stage = BATON__CONTROL__STAGE__COMMITTED); /* not before a token */
    say_computed(&b.p0, 9);
    UNTIL(b.r->t.cached_tokens == 9);
    cr_assert_eq(b.r->state, REQUEST_PREFILLING);
    say_computed(&b.p0, 10); /* all of the prompt: the last token is always computed */
    spin();
    cr_assert_eq(b.r->t.cached_tokens, 9);
    SAY(&b.p0, Progress, progress, PROGRESS, 2, x.stage = BATON__CONTROL__STAGE__COMPUTED; x.cached_tokens = 3);
    spin();
    cr_assert_eq(b.r->t.cached_tokens, 9, "of another epoch");
    say_token(&b.p0, 1, 0, 3);
    expect_tokens(1);
    say_computed(&b.p0, 5); /* after the first token it is another one's prompt */
    spin();
    cr_assert(b.r->t.cached_tokens == 9 && b.r->state == REQUEST_HANDOFF);
    SAY(&b.d0, Progress, progress, PROGRESS, 1, x.stage = BATON__CONTROL__STAGE__STORED);
    spin();
    cr_assert_eq(b.r->state, REQUEST_HANDOFF);
    SAY(&b.d0, Progress, progress, PROGRESS, 1, x.stage = BATON__CONTROL__STAGE__COMMITTED);
    UNTIL(b.r->state == REQUEST_DECODING);
}

Test(events, a_prefill_nodes_report_is_counted)
{
    to_prefill();
    cr_assert_eq(b.r->holds->next != NULL, true);
    SAY(&b.p0, PrefillDone, prefill_done, PREFILL_DONE, 1, x.kv_bytes = 1000; x.prefill_us = 11; x.handoff_us = 22);
    UNTIL(b.r->t.kv_bytes == 1000);
    cr_assert(b.r->t.prefill_us == 11 && b.r->t.handoff_us == 22);
    cr_assert_eq(b.r->t.kv_bytes_16bit, 1600, "64 bytes of 16 bits for each 40");
    cr_assert_eq(metric_value(b.meters->kv_bytes), 1000);
    SAY(&b.p0, PrefillDone, prefill_done, PREFILL_DONE, 1, x.kv_bytes = 1000); /* its hold is gone */
    spin();
    cr_assert(b.r->t.kv_bytes == 1000 && b.ended == -1);
    say_token(&b.p0, 1, 0, 3); /* late, and of nobody */
    spin();
    cr_assert_eq(b.n_tokens, 0);
    say_token(&b.d0, 1, 0, 4);
    say_finished(&b.d0, 1, 1);
    UNTIL(b.ended == REQUEST_DONE);
}

Test(events, an_end_waits_for_tokens_that_are_due)
{
    start();
    join(&b.d0, "d0", 2, true, 4);
    submit(8);
    fake_expect(&b.d0, &b.loop, IS(RESERVE));
    say_reserved(&b.d0, 1);
    say_token(&b.d0, 1, 0, 3);
    expect_tokens(1);
    SAY(&b.d0, Finished, finished, FINISHED, 2, x.finish = finish_pack(FINISH_STOP);
        x.n_output = 1); /* another epoch */
    spin();
    cr_assert_eq(b.ended, -1);
    SAY(&b.d0, Finished, finished, FINISHED, 1, x.finish = finish_pack(FINISH_STOP);
        x.n_output = 9); /* more than asked */
    UNTIL(b.ended == REQUEST_DONE);
    cr_assert_eq(dispatch_n_open(b.d), 0);
}

Test(events, what_a_node_does_not_know_of_is_cancelled_there)
{
    to_prefill();
    message m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Reserved r = BATON__CONTROL__RESERVED__INIT;
    Baton__Kv__RequestId id = id_of(99);
    r.request = &id;
    r.epoch = 4;
    m.body_case = IS(RESERVED);
    m.reserved = &r;
    fake_send(&b.d0, &m);
    message *got = fake_expect(&b.d0, &b.loop, IS(CANCEL));
    cr_assert(got->cancel->request->counter == 99 && got->cancel->epoch == 0);
    id.incarnation = INCARNATION + 1; /* another coordinator's is its own concern */
    fake_send(&b.d0, &m);
    cr_assert_null(fake_receive(&b.d0, &b.loop, 20));
}

Test(events, an_acknowledged_cancel_frees_what_it_was_for)
{
    struct api_error why;
    to_prefill();
    api_error_set(&why, ERR_CANCELLED, NULL, NULL, "gone");
    cr_assert_eq(registry_find_name(dispatch_registry(b.d), "d0")->n_active, 1);
    say_cancel_ack(&b.d0, 0); /* nothing was cancelled */
    spin();
    cr_assert_eq(registry_find_name(dispatch_registry(b.d), "d0")->n_active, 1);
    dispatch_cancel(b.d, b.r, &why);
    fake_expect(&b.d0, &b.loop, IS(CANCEL));
    fake_expect(&b.p0, &b.loop, IS(CANCEL));
    say_cancel_ack(&b.d0, 1); /* this epoch and all before it */
    say_cancel_ack(&b.p0, 0);
    UNTIL(dispatch_n_open(b.d) == 0);
    const struct node *d0 = registry_find_name(dispatch_registry(b.d), "d0");
    const struct node *p0 = registry_find_name(dispatch_registry(b.d), "p0");
    cr_assert(d0->n_active == 0 && d0->n_blocks_used == 0 && p0->n_active == 0 && p0->queued_tokens == 0);
}

Test(events, failures_before_and_after_the_work_began)
{
    static const struct {
        enum status said;
        bool early; /* in answer to Reserve */
        int http;   /* 0: it goes on */
    } rows[] = {
        { ERR_CONTEXT_LENGTH, true, 400 }, { ERR_CONTEXT_LENGTH, false, 0 },
        { ERR_UNAVAILABLE, true, 0 },      { ERR_FULL, true, 0 },
        { ERR_INTERNAL, true, 0 },         { ERR_INTERNAL, false, 0 },
        { STATUS_COUNT, false, 0 },        { OK, true, 0 },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        b = (struct bench){ 0 };
        start();
        join(&b.d0, "d0", 2, true, 4);
        submit(8);
        fake_expect(&b.d0, &b.loop, IS(RESERVE));
        if (!rows[i].early) {
            say_reserved(&b.d0, 1);
            say_token(&b.d0, 1, 0, 3);
            expect_tokens(1);
        }
        say_failed(&b.d0, 1, rows[i].said, false);
        if (rows[i].http) {
            UNTIL(b.ended == REQUEST_FAILED);
            cr_assert(b.error.http == rows[i].http && strcmp(b.error.message, "broken") == 0, "%zu", i);
        } else {
            UNTIL(b.r->epoch == 2 || b.r->state == REQUEST_QUEUED);
            cr_assert_eq(b.ended, -1, "%zu", i);
            cr_assert_eq(b.r->n_tokens, rows[i].early ? 10 : 11, "what it has written is kept");
        }
        dispatch_close(b.d);
        fake_close(&b.d0);
        uv_run(&b.loop, UV_RUN_DEFAULT);
        meters_destroy(b.meters);
    }
}
