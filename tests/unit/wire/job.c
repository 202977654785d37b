/* job: random records survive the wire, and what cannot be is refused by name. */
#include "wire/job.h"

#include "base/mem.h"
#include "wire/codec.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define TOKENS_MAX 300

static uint64_t state = 20240607;

static uint64_t next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static uint32_t below(uint32_t n)
{
    return (uint32_t)(next() >> 20) % n;
}

static float between(double min, double max)
{
    return (float)(min + (max - min) * ((double)(next() >> 11) * 0x1p-53));
}

struct filled { /* a record with room for what it borrows */
    struct job_record j;
    int32_t tokens[TOKENS_MAX], bias_ids[SAMPLING_MAX_BIAS];
    float bias[SAMPLING_MAX_BIAS];
    char salt[20];
};

static void draw_option(struct sampling_params *p, const struct sampling_option *o)
{
    void *at = (char *)p + o->offset;
    switch (o->kind) {
    case SAMPLING_F32: *(float *)at = between(o->min, o->max); break;
    case SAMPLING_U32: *(uint32_t *)at = (uint32_t)(o->min + (double)below(1u << 30)); break;
    case SAMPLING_I32: *(int32_t *)at = (int32_t)(o->min + below((uint32_t)(o->max - o->min) + 1)); break;
    case SAMPLING_U64: *(uint64_t *)at = next(); break;
    case SAMPLING_BOOL: *(bool *)at = below(2); break;
    }
}

static void draw(struct filled *f)
{
    struct job_record *j = &f->j;
    *j = (struct job_record){ .incarnation = next() | 1,
                              .counter = next(),
                              .epoch = 1 + below(1000),
                              .tokens = f->tokens,
                              .n_tokens = 1 + below(TOKENS_MAX),
                              .deadline_ms = (uint32_t)next(),
                              .cache_salt = f->salt,
                              .priority = (int32_t)next() };
    j->n_prompt = 1 + below(j->n_tokens);
    for (uint32_t i = 0; i < j->n_tokens; i++) f->tokens[i] = (int32_t)below(INT32_MAX);
    snprintf(f->salt, sizeof(f->salt), "%u", below(3));
    for (size_t i = 0; i < sampling_n_options; i++) draw_option(&j->sampling, &sampling_options[i]);
    if (j->sampling.min_tokens > j->sampling.max_tokens) j->sampling.min_tokens = j->sampling.max_tokens;
    j->sampling.n_bias = below(4) ? below(5) : SAMPLING_MAX_BIAS;
    j->sampling.bias_ids = f->bias_ids;
    j->sampling.bias = f->bias;
    for (uint32_t i = 0; i < j->sampling.n_bias; i++) {
        f->bias_ids[i] = (int32_t)below(INT32_MAX);
        f->bias[i] = between(-100, 100);
    }
}

static void expect_same(const struct job_record *a, const struct job_record *b)
{
    cr_assert(a->incarnation == b->incarnation && a->counter == b->counter && a->epoch == b->epoch);
    cr_assert(a->n_tokens == b->n_tokens && a->n_prompt == b->n_prompt);
    cr_assert_arr_eq(a->tokens, b->tokens, a->n_tokens * sizeof(*a->tokens));
    cr_assert(a->deadline_ms == b->deadline_ms && a->priority == b->priority);
    cr_assert_str_eq(a->cache_salt, b->cache_salt);
    for (size_t i = 0; i < sampling_n_options; i++) {
        const struct sampling_option *o = &sampling_options[i];
        static const size_t size[] = { [SAMPLING_F32] = 4,
                                       [SAMPLING_U32] = 4,
                                       [SAMPLING_I32] = 4,
                                       [SAMPLING_U64] = 8,
                                       [SAMPLING_BOOL] = sizeof(bool) };
        cr_assert_arr_eq((const char *)&a->sampling + o->offset, (const char *)&b->sampling + o->offset, size[o->kind],
                         "%s", o->name);
    }
    cr_assert_eq(a->sampling.n_bias, b->sampling.n_bias);
    if (a->sampling.n_bias == 0) return;
    cr_assert_arr_eq(a->sampling.bias_ids, b->sampling.bias_ids, a->sampling.n_bias * sizeof(int32_t));
    cr_assert_arr_eq(a->sampling.bias, b->sampling.bias, a->sampling.n_bias * sizeof(float));
}

Test(job, random_records_survive_the_wire)
{
    struct codec_arena *arena = codec_arena_create(1 << 20);
    for (int i = 0; i < 2000; i++) {
        static struct filled f;
        struct job_message m;
        struct job_record back;
        ProtobufCMessage *base;
        struct error err;
        draw(&f);
        job_pack(&m, &f.j);
        size_t n = baton__control__job__get_packed_size(&m.msg);
        uint8_t *bytes = mem_alloc(n);
        baton__control__job__pack(&m.msg, bytes);
        cr_assert_eq(codec_unpack(arena, &baton__control__job__descriptor, bytes_of(bytes, n), &base, NULL), OK);
        cr_assert_eq(job_unpack(&back, (const Baton__Control__Job *)base, &err), OK, "%s", err.text);
        expect_same(&f.j, &back);
        mem_free(bytes);
    }
    codec_arena_destroy(arena);
}

/* Each option has a field of its own, and each field that is no bias is an option. */
Test(job, the_wire_has_the_options_and_no_others)
{
    cr_assert_eq(baton__control__sampling__descriptor.n_fields, sampling_n_options + 2);
    for (size_t i = 0; i < sampling_n_options; i++)
        cr_assert_not_null(protobuf_c_message_descriptor_get_field_by_name(&baton__control__sampling__descriptor,
                                                                           sampling_options[i].name),
                           "%s", sampling_options[i].name);
}

static void expect_refused(const struct job_message *m, enum status st, const char *what)
{
    struct job_record out;
    struct error err = { OK, "" };
    cr_assert_eq(job_unpack(&out, &m->msg, &err), st, "%s", what);
    cr_assert_not_null(strstr(err.text, what), "\"%s\" does not say \"%s\"", err.text, what);
}

#define SPOIL(what, st, say)                                                                                           \
    do {                                                                                                               \
        job_pack(&m, &f.j);                                                                                            \
        what;                                                                                                          \
        expect_refused(&m, st, say);                                                                                   \
    } while (0)

Test(job, what_cannot_be_is_refused_by_name)
{
    static struct filled f;
    struct job_message m;
    draw(&f);
    f.j.n_tokens = 5;
    f.j.n_prompt = 4;
    f.j.sampling.n_bias = 2;
    f.j.sampling.max_tokens = f.j.sampling.min_tokens = 7;
    SPOIL(m.msg.request = NULL, ERR_PARSE, "request");
    SPOIL(m.msg.sampling = NULL, ERR_PARSE, "sampling");
    SPOIL(m.id.incarnation = 0, ERR_INVALID, "incarnation 0");
    SPOIL(m.msg.epoch = 0, ERR_INVALID, "epoch 0");
    SPOIL(m.msg.n_tokens = 0, ERR_INVALID, "0 tokens");
    SPOIL(m.msg.n_tokens = (size_t)1 << 32, ERR_INVALID, "4294967296 tokens");
    SPOIL(m.msg.n_prompt = 0, ERR_INVALID, "a prompt of 0");
    SPOIL(m.msg.n_prompt = 6, ERR_INVALID, "a prompt of 6 of the job's 5");
    SPOIL(m.sampling.temperature = -1, ERR_INVALID, "temperature is -1");
    SPOIL(m.sampling.temperature = NAN, ERR_INVALID, "temperature is");
    SPOIL(m.sampling.top_p = 1.5f, ERR_INVALID, "top_p is 1.5, it must be from 0 to 1");
    SPOIL(m.sampling.repetition_penalty = 0, ERR_INVALID, "repetition_penalty is 0");
    SPOIL(m.sampling.presence_penalty = -INFINITY, ERR_INVALID, "presence_penalty is -inf");
    SPOIL(m.sampling.max_tokens = 0, ERR_INVALID, "max_tokens is 0");
    SPOIL(m.sampling.min_tokens = 8, ERR_INVALID, "min_tokens is 8");
    SPOIL(m.sampling.logprobs = 21, ERR_INVALID, "logprobs is 21, it must be from -1 to 20");
    SPOIL(m.sampling.prompt_logprobs = -5, ERR_INVALID, "prompt_logprobs is -5");
    SPOIL(m.sampling.n_bias = 1, ERR_INVALID, "1 values for 2 ids");
    SPOIL(m.sampling.n_bias = m.sampling.n_bias_ids = SAMPLING_MAX_BIAS + 1, ERR_INVALID, "1025 values for 1025 ids");
    f.bias_ids[1] = -3;
    SPOIL((void)0, ERR_INVALID, "bias_ids: entry 1 is -3");
    cr_assert_eq(job_unpack(&(struct job_record){ 0 }, NULL, NULL), ERR_PARSE);
}

Test(job, reasons_survive_the_wire_and_unknown_ones_are_failures)
{
    for (int i = 0; i < FINISH_REASON_COUNT; i++)
        cr_assert_eq((int)finish_unpack(finish_pack((enum finish_reason)i)), i);
    cr_assert_eq(finish_unpack((Baton__Control__Finish)FINISH_REASON_COUNT), FINISH_FAILED);
    cr_assert_eq(finish_unpack((Baton__Control__Finish)-1), FINISH_FAILED);
    cr_assert(!finish_is_answer(FINISH_NONE) && finish_is_answer(FINISH_STOP) && finish_is_answer(FINISH_LENGTH));
    cr_assert(!finish_is_answer(FINISH_CANCELLED) && !finish_is_answer(FINISH_FAILED));
}
