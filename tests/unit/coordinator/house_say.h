/* house_say.h - what nodes of a house say about requests, and what they are asked. */
#ifndef TESTS_COORDINATOR_HOUSE_SAY_H
#define TESTS_COORDINATOR_HOUSE_SAY_H
#include "coordinator/call.h"
#include "tests/unit/coordinator/house.h"

#define T0 5000000u /* the frozen clock's beginning, us */

static inline Baton__Kv__RequestId id_of(uint64_t counter)
{
    Baton__Kv__RequestId id = BATON__KV__REQUEST_ID__INIT;
    id.incarnation = h.co->sv.incarnation;
    id.counter = counter;
    return id;
}

/* A message of one type about request `counter` in epoch 1; `fill` are further assignments to x. */
#define SAY(node, counter_, TYPE, lower, BODY, fill)                                                                   \
    do {                                                                                                               \
        message m_ = BATON__CONTROL__CONTROL_MESSAGE__INIT;                                                            \
        Baton__Control__##TYPE x = BATON__CONTROL__##BODY##__INIT;                                                     \
        Baton__Kv__RequestId id_ = id_of(counter_);                                                                    \
        x.request = &id_;                                                                                              \
        x.epoch = 1;                                                                                                   \
        fill;                                                                                                          \
        m_.body_case = IS(BODY);                                                                                       \
        m_.lower = &x;                                                                                                 \
        fake_send(node, &m_);                                                                                          \
    } while (0)

static inline void say_reserved(struct fake_node *n, uint64_t counter)
{
    SAY(n, counter, Reserved, reserved, RESERVED, x.reservation = 77; x.credit_bytes = 1000);
}

static inline void say_row(struct fake_node *n, uint64_t counter, uint32_t idx, int32_t id,
                           Baton__Control__TokenLogprobs *row)
{
    Baton__Control__Token t = BATON__CONTROL__TOKEN__INIT, *list[] = { &t };
    t.output_idx = idx;
    t.id = id;
    t.logprobs = row;
    SAY(n, counter, Tokens, tokens, TOKENS, x.n_tokens = 1; x.tokens = list);
}

static inline void say_token(struct fake_node *n, uint64_t counter, uint32_t idx, int32_t id)
{
    say_row(n, counter, idx, id, NULL);
}

/* Each byte of `text` as a token, from output `idx` on. */
static inline void say_text(struct fake_node *n, uint64_t counter, uint32_t idx, const char *text)
{
    for (; *text; text++) say_token(n, counter, idx++, (uint8_t)*text);
}

static inline void say_finished(struct fake_node *n, uint64_t counter, uint32_t n_output, enum finish_reason why)
{
    SAY(n, counter, Finished, finished, FINISHED, x.finish = finish_pack(why); x.n_output = n_output;
        x.prefill_us = 15000);
}

static inline void say_failed(struct fake_node *n, uint64_t counter, enum status st)
{
    SAY(n, counter, Failed, failed, FAILED, x.status = st; x.message = (char *)"broken");
}

static inline message *next_job(struct fake_node *n, int body)
{
    message *m;
    do m = fake_receive(n, &h.loop, 2000);
    while (m && m->body_case == IS(HEARTBEAT_ACK));
    cr_assert(m && (int)m->body_case == body, "%s: got %d, expected %d", n->name, m ? (int)m->body_case : 0, body);
    return m;
}

static inline const Baton__Control__Job *next_reserve(void)
{
    return next_job(&h.d0, IS(RESERVE))->reserve->job;
}

/* A house with one decode node, which reads prompts itself. */
static inline void open_one(const char *options)
{
    house_open(options);
    house_join(&h.d0, "d0", 2, true);
}

static inline void expect_all(const char *text, const char *const *want, size_t n)
{
    for (size_t i = 0; i < n; i++) cr_assert(strstr(text, want[i]), "want %s\nin %s", want[i], text);
}

static inline void expect_in(const char *text, const char *want)
{
    expect_all(text, &want, 1);
}

/* The tokens of a job's prompt, as text; those that are no bytes as their numbers. */
static inline const char *prompt_of(const Baton__Control__Job *j)
{
    static char out[1024];
    size_t n = 0;
    for (size_t i = 0; i < j->n_tokens && n < sizeof(out) - 16; i++)
        n += (size_t)snprintf(out + n, sizeof(out) - n, j->tokens[i] < 256 ? "%c" : "<%d>", j->tokens[i]);
    out[n] = '\0';
    return out;
}
#endif
