/* request: legal moves, deadlines, tokens out of order, the queue's bounds. */
#include "coordinator/cluster/request.h"
#include "base/clock.h"
#include "base/mem.h"
#include "coordinator/cluster/queue.h"
#include "tests/unit/coordinator/tiny_model.h"

#include <criterion/criterion.h>
#include <signal.h>

static uint32_t counts[REQUEST_STATE_COUNT];

static struct request *request_of(uint32_t n_prompt)
{
    const struct request_spec spec = { .model = tiny_model(),
                                       .tokens = mem_array(n_prompt, sizeof(int32_t)),
                                       .n_prompt = n_prompt,
                                       .sampling = { .max_tokens = 1000 },
                                       .cache_salt = "",
                                       .tag = "test" };
    return request_create(&spec, counts);
}

Test(request, counts_its_states)
{
    struct request *r = request_of(3);
    cr_assert_eq(counts[REQUEST_QUEUED], 1);
    request_set_state(r, REQUEST_RESERVING);
    request_advance(r, REQUEST_DECODING);
    cr_assert_eq(r->state, REQUEST_DECODING);
    cr_assert(counts[REQUEST_QUEUED] == 0 && counts[REQUEST_DECODING] == 1);
    request_advance(r, REQUEST_PREFILLING); /* not backwards */
    cr_assert_eq(r->state, REQUEST_DECODING);
    request_set_state(r, REQUEST_DONE);
    request_destroy(r);
    for (int s = 0; s < REQUEST_STATE_COUNT; s++) cr_assert_eq(counts[s], 0);
}

Test(request, refuses_an_illegal_move, .signal = SIGABRT)
{
    request_set_state(request_of(1), REQUEST_DECODING);
}

Test(request, local_prefill_has_no_handoff)
{
    struct request *r = request_of(1);
    r->local = true;
    request_set_state(r, REQUEST_RESERVING);
    request_advance(r, REQUEST_DECODING);
    cr_assert_eq(r->state, REQUEST_DECODING);
    request_destroy(r);
}

Test(request, keeps_early_tokens_in_order)
{
    struct request *r = request_of(1);
    struct logprob_row row = { -1.5f, 2, (int32_t[]){ 4, 5 }, (float[]){ -0.5f, -1.5f } };
    cr_assert(request_add_early(r, 3, 33, NULL) && request_add_early(r, 1, 11, &row) &&
              request_add_early(r, 2, 22, NULL));
    cr_assert_not(request_add_early(r, 2, 99, NULL));
    cr_assert_null(request_take_early(r, 0));
    struct early_token *t = request_take_early(r, 1);
    cr_assert(t && t->id == 11 && t->has_row && t->row.n_top == 2 && t->row.top_ids[1] == 5);
    mem_free(t);
    t = request_take_early(r, 2);
    cr_assert(t && t->id == 22 && !t->has_row);
    mem_free(t);
    request_destroy(r);
}

Test(request, grows_its_tokens_past_the_prompt)
{
    struct request *r = request_of(255);
    for (int i = 0; i < 600; i++) request_add_token(r, i);
    cr_assert(request_n_output(r) == 600 && r->tokens[255] == 0 && r->tokens[854] == 599);
    request_destroy(r);
}

Test(request, deadlines_restart_with_progress)
{
    const struct request_limits l = { .request_timeout_ms = 10000, .progress_timeout_ms = 1000 };
    clock_set_for_test(1000000);
    struct request *r = request_of(1);
    cr_assert_eq(request_check_deadline(r, &l, 10000000, 0), REQUEST_IN_TIME);
    cr_assert_eq(request_check_deadline(r, &l, 12000000, 0), REQUEST_TIMED_OUT);
    request_set_state(r, REQUEST_RESERVING);
    cr_assert_eq(request_check_deadline(r, &l, 2100000, 0), REQUEST_STALLED);
    request_set_state(r, REQUEST_RESERVED);
    cr_assert_eq(request_check_deadline(r, &l, 2100000, 1500000), REQUEST_IN_TIME); /* its turn has not come */
    clock_set_for_test(2000000);
    request_advance(r, REQUEST_DECODING);
    request_add_token(r, 1);
    cr_assert_eq(request_check_deadline(r, &l, 2900000, 0), REQUEST_IN_TIME);
    cr_assert_eq(request_check_deadline(r, &l, 3100000, 0), REQUEST_STALLED);
    cr_assert_eq(request_check_deadline(r, &l, 1900000, 0), REQUEST_IN_TIME); /* a clock read before */
    request_destroy(r);
}

Test(request, a_replay_is_due_from_its_nodes_loss)
{
    const struct request_limits l = { .request_timeout_ms = 10000, .progress_timeout_ms = 100000 };
    clock_set_for_test(1000000);
    struct request *r = request_of(1);
    request_set_state(r, REQUEST_RESERVING);
    request_advance(r, REQUEST_DECODING);
    request_add_token(r, 1);
    cr_assert_eq(request_check_deadline(r, &l, 50000000, 0), REQUEST_IN_TIME);
    r->due_since = 50000000; /* as recovery.c does */
    request_set_state(r, REQUEST_QUEUED);
    request_set_state(r, REQUEST_RESERVING); /* asked, refused and queued again: that restarts nothing */
    clock_set_for_test(59000000);
    request_set_state(r, REQUEST_QUEUED);
    cr_assert_eq(request_check_deadline(r, &l, 59900000, 0), REQUEST_IN_TIME);
    cr_assert_eq(request_check_deadline(r, &l, 60100000, 0), REQUEST_TIMED_OUT);
    request_add_token(r, 1);
    cr_assert_eq(request_check_deadline(r, &l, 60100000, 0), REQUEST_IN_TIME);
    request_destroy(r);
}

Test(request, failures_count_while_no_more_tokens_come)
{
    struct request *r = request_of(1);
    cr_assert(request_count_failure(r, "d0") == 1 && request_count_failure(r, "d1") == 2);
    cr_assert_str_eq(r->failures.nodes, "d0,d1");
    for (int i = 0; i < REQUEST_STREAK_TOKENS - 1; i++) request_add_token(r, i);
    cr_assert_eq(request_count_failure(r, "d0"), 3);
    for (int i = 0; i < REQUEST_STREAK_TOKENS; i++) request_add_token(r, i);
    cr_assert_eq(request_count_failure(r, "p0"), 1);
    cr_assert_str_eq(r->failures.nodes, "p0");
    for (int i = 0; i < 200; i++) request_count_failure(r, "a-name-that-is-long"); /* cut off, not overrun */
    cr_assert_eq(r->failures.n, 201);
    request_destroy(r);
}

Test(request, holds_count_against_their_node)
{
    struct request *r = request_of(1);
    struct node n = { .name = (char *)"d0" };
    struct hold *h = request_open_hold(r, &n, 5, 70);
    cr_assert(n.n_active == 1 && n.n_blocks_used == 5 && n.queued_tokens == 70);
    cr_assert_eq(request_find_hold(r, &n, 1), h);
    hold_computed(h);
    cr_assert_eq(n.queued_tokens, 0);
    request_close_hold(r, h);
    cr_assert(n.n_active == 0 && n.n_blocks_used == 0 && !r->holds);
    request_destroy(r);
}

Test(queue, is_first_in_first_out_and_bounded)
{
    struct queue q;
    struct request *a = request_of(1), *b = request_of(1), *c = request_of(1);
    queue_init(&q, 3, 3 * request_bytes(a));
    cr_assert_eq(queue_check_room(&q, 3, 3 * request_bytes(a)), OK);
    cr_assert_eq(queue_check_room(&q, 4, 0), ERR_FULL);
    cr_assert_eq(queue_check_room(&q, 1, 3 * request_bytes(a) + 1), ERR_FULL);
    queue_push(&q, a);
    queue_push(&q, b);
    queue_push_front(&q, c);
    cr_assert(q.head == c && q.tail == b && q.n == 3);
    queue_remove(&q, a);
    cr_assert(c->q_next == b && b->q_prev == c && q.bytes == 2 * request_bytes(b));
    queue_remove(&q, c);
    queue_remove(&q, b);
    cr_assert(!q.head && !q.tail && q.bytes == 0);
    request_destroy(a);
    request_destroy(b);
    request_destroy(c);
}

Test(queue, stands_by_priority_then_arrival)
{
    static const struct {
        int32_t priority;
        bool front;
    } steps[] = { { 0, false }, { 5, false }, { 0, false }, { -3, false }, { 0, true }, { 5, true }, { 9, true } };
    static const size_t want[] = { 3, 4, 0, 2, 5, 1, 6 };
    enum { N = sizeof(steps) / sizeof(steps[0]) };
    struct request *r[N], *at;
    struct queue q;
    queue_init(&q, N, UINT64_MAX);
    for (size_t i = 0; i < N; i++) {
        r[i] = request_of(1);
        r[i]->priority = steps[i].priority;
        (steps[i].front ? queue_push_front : queue_push)(&q, r[i]);
    }
    at = q.head;
    for (size_t i = 0; i < N; i++, at = at->q_next) cr_assert_eq(at, r[want[i]], "place %zu", i);
    cr_assert_null(at);
    at = q.tail;
    for (size_t i = N; i-- > 0; at = at->q_prev) cr_assert_eq(at, r[want[i]], "place %zu from behind", i);
    for (size_t i = 0; i < N; i++) queue_remove(&q, r[i]);
    cr_assert(!q.head && !q.tail && q.n == 0);
    for (size_t i = 0; i < N; i++) request_destroy(r[i]);
}

Test(request, counts_a_prompt_once_and_no_hidden_token)
{
    static const struct {
        uint32_t choice, n_output;
        bool hidden;
        struct request_tokens want;
    } rows[] = {
        { 0, 0, false, { 0, 0, 0 } }, { 0, 3, false, { 7, 4, 3 } }, { 1, 3, false, { 0, 0, 3 } },
        { 0, 1, true, { 7, 4, 0 } },  { 1, 1, true, { 0, 0, 0 } },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct request *r = request_of(7);
        r->sampling.choice = rows[i].choice;
        r->hidden = rows[i].hidden;
        r->t.cached_tokens = 4;
        for (uint32_t k = 0; k < rows[i].n_output; k++) request_add_token(r, 1);
        struct request_tokens n = request_count(r);
        cr_assert(n.prompt == rows[i].want.prompt && n.cached == rows[i].want.cached && n.output == rows[i].want.output,
                  "row %zu", i);
        request_destroy(r);
    }
}
