/* bench.h - a coordinator's dispatcher with an owner and fake nodes: what tests of a request's way begin with. */
#ifndef TESTS_COORDINATOR_BENCH_H
#define TESTS_COORDINATOR_BENCH_H
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "coordinator/cluster/dispatch.h"
#include "coordinator/meters.h"
#include "tests/unit/coordinator/fake_node.h"
#include "tests/unit/coordinator/tiny_model.h"
#include "wire/job.h"

#include <criterion/criterion.h>
#include <string.h>

#define INCARNATION  0xC0FFEEu
#define NODE_WAIT_MS 5000

static struct bench { /* one coordinator, its owner, its nodes */
    uv_loop_t loop;
    struct dispatch *d;
    struct meters *meters;
    struct served_model *models[1];
    struct fake_node p0, d0, d1;
    struct request *r;
    int32_t tokens[1024];
    uint32_t n_tokens, n_rows; /* rows: tokens that came with logprobs */
    uint32_t dead_after_ms;    /* of nodes; 0: a slow machine kills nobody */
    uint64_t link_bytes;       /* 0: plenty */
    uint32_t stop_after;       /* the owner is content with so many tokens; 0 = never */
    int ended;                 /* enum request_state, -1 = not yet */
    struct api_error error;
    struct request_failures failures; /* both as it ended: the request itself is freed then */
} b;

static inline void on_token(void *owner, int32_t id, const struct logprob_row *row)
{
    b.tokens[b.n_tokens++] = id;
    b.n_rows += row != NULL;
    if (b.stop_after == b.n_tokens) dispatch_finish(b.d, b.r, FINISH_STOP);
}

static inline void on_prompt_logprobs(void *owner, uint32_t position, const struct logprob_row *row) {}

static inline void on_end(void *owner, struct request *r)
{
    b.ended = (int)r->state;
    b.error = r->error;
    b.failures = r->failures;
}

static const struct request_events events = { on_token, on_prompt_logprobs, on_end };

static inline void start(void)
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
                                    .limits = { 60000, 10000, NODE_WAIT_MS },
                                    .max_queue = 4,
                                    .max_queue_bytes = 1 << 20,
                                    .max_attempts = 3,
                                    .heartbeat_ms = 1000,
                                    .link_bytes = b.link_bytes ? b.link_bytes : 1 << 20,
                                    .dead_after_ms = b.dead_after_ms ? b.dead_after_ms : 600000 };
    cr_assert_eq(dispatch_create(&b.d, &opt, &err), OK, "%s", err.text);
}

static inline void join(struct fake_node *n, const char *name, uint64_t incarnation, bool decode, uint32_t max_seqs)
{
    *n = fake_open(dispatch_endpoint(b.d), name, incarnation, decode);
    fake_hello(n, 0xF00D, max_seqs);
    n->coordinator = fake_expect(n, &b.loop, IS(WELCOME))->incarnation;
    cr_assert_eq(n->coordinator, INCARNATION);
}

static inline struct request *submit(uint32_t max_tokens)
{
    struct request_spec s = { .model = b.models[0],
                              .tokens = mem_array(10, sizeof(int32_t)),
                              .n_prompt = 10,
                              .sampling = sampling_defaults(),
                              .cache_salt = "",
                              .tag = "test",
                              .events = &events,
                              .owner = &b };
    s.sampling.max_tokens = max_tokens;
    b.r = dispatch_submit(b.d, &s);
    return b.r;
}

static inline void pair_and_request_of(uint32_t max_tokens)
{
    start();
    join(&b.p0, "p0", 1, false, 4);
    join(&b.d0, "d0", 2, true, 4);
    submit(max_tokens);
}

static inline void pair_and_request(void)
{
    pair_and_request_of(8);
}

static inline void spin(void)
{
    for (int i = 0; i < 100; i++) {
        uv_run(&b.loop, UV_RUN_NOWAIT);
        zmq_poll(NULL, 0, 1);
    }
}

static inline Baton__Kv__RequestId id_of(uint64_t counter)
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

static inline void say_reserved(struct fake_node *n, uint32_t epoch)
{
    SAY(n, Reserved, reserved, RESERVED, epoch, x.reservation = 77; x.credit_bytes = 1000);
}

static inline void say_token(struct fake_node *n, uint32_t epoch, uint32_t idx, int32_t id)
{
    Baton__Control__Token t = BATON__CONTROL__TOKEN__INIT, *list[] = { &t };
    t.output_idx = idx;
    t.id = id;
    SAY(n, Tokens, tokens, TOKENS, epoch, x.n_tokens = 1; x.tokens = list);
}

static inline void say_prefill_done(struct fake_node *n, uint32_t epoch, bool ended)
{
    SAY(n, PrefillDone, prefill_done, PREFILL_DONE, epoch, x.kv_bytes = 500; x.ended = ended;
        x.finish = finish_pack(ended ? FINISH_STOP : FINISH_NONE));
}

static inline void say_finished(struct fake_node *n, uint32_t epoch, uint32_t n_output)
{
    SAY(n, Finished, finished, FINISHED, epoch, x.finish = finish_pack(FINISH_LENGTH); x.n_output = n_output);
}

static inline void say_failed(struct fake_node *n, uint32_t epoch, enum status st, bool kept)
{
    SAY(n, Failed, failed, FAILED, epoch, x.status = st; x.message = (char *)"broken"; x.reservation_kept = kept);
}

static inline void say_cancel_ack(struct fake_node *n, uint32_t epoch)
{
    SAY(n, CancelAck, cancel_ack, CANCEL_ACK, epoch, (void)0);
}

/* Up to the prompt's job at the prefill node, in epoch 1. */
static inline void to_prefill(void)
{
    pair_and_request();
    message *m = fake_expect(&b.d0, &b.loop, IS(RESERVE));
    cr_assert(m->reserve->job->epoch == 1 && m->reserve->job->n_tokens == 10 && !m->reserve->local_prefill);
    say_reserved(&b.d0, 1);
    m = fake_expect(&b.p0, &b.loop, IS(PREFILL));
    cr_assert(m->prefill->reservation == 77 && m->prefill->credit_bytes == 1000 && m->prefill->decode_incarnation == 2);
}

static inline void expect_tokens(uint32_t n)
{
    for (int i = 0; i < 2000 && b.n_tokens < n; i++) spin();
    cr_assert_eq(b.n_tokens, n);
}

/* What a decode node hears next, other than echoes of heartbeats. */
static inline message *expect_job(struct fake_node *n, int body)
{
    message *m;
    do m = fake_receive(n, &b.loop, 2000);
    while (m && m->body_case == IS(HEARTBEAT_ACK));
    cr_assert(m && (int)m->body_case == body, "%s: got %d, expected %d", n->name, m ? (int)m->body_case : 0, body);
    return m;
}

static inline void beat(struct fake_node *n)
{
    message m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Heartbeat h = BATON__CONTROL__HEARTBEAT__INIT;
    m.body_case = IS(HEARTBEAT);
    m.heartbeat = &h;
    fake_send(n, &m);
}
#endif
