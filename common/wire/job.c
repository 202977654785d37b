/* job.c - packs and unpacks the record of a job. */
#include "wire/job.h"

#include <assert.h>
#include <string.h>

_Static_assert((int)FINISH_NONE == (int)BATON__CONTROL__FINISH__FINISH_NONE, "one set of numbers");
_Static_assert((int)FINISH_STOP == (int)BATON__CONTROL__FINISH__STOP, "one set of numbers");
_Static_assert((int)FINISH_LENGTH == (int)BATON__CONTROL__FINISH__LENGTH, "one set of numbers");
_Static_assert((int)FINISH_CANCELLED == (int)BATON__CONTROL__FINISH__CANCELLED, "one set of numbers");
_Static_assert((int)FINISH_FAILED == (int)BATON__CONTROL__FINISH__FAILED, "one set of numbers");

/* How an option's kind travels. */
static const struct kind {
    ProtobufCType wire;
    size_t size;
} kinds[] = {
    [SAMPLING_F32] = { PROTOBUF_C_TYPE_FLOAT, sizeof(float) },
    [SAMPLING_U32] = { PROTOBUF_C_TYPE_UINT32, sizeof(uint32_t) },
    [SAMPLING_I32] = { PROTOBUF_C_TYPE_SINT32, sizeof(int32_t) },
    [SAMPLING_U64] = { PROTOBUF_C_TYPE_FIXED64, sizeof(uint64_t) },
    [SAMPLING_BOOL] = { PROTOBUF_C_TYPE_BOOL, sizeof(protobuf_c_boolean) },
};

/* Where the option stands in a Sampling message: proto's field has the option's name. */
static size_t wire_offset(const struct sampling_option *o)
{
    const ProtobufCFieldDescriptor *f =
        protobuf_c_message_descriptor_get_field_by_name(&baton__control__sampling__descriptor, o->name);
    assert(f && f->type == kinds[o->kind].wire && f->label == PROTOBUF_C_LABEL_NONE);
    return f->offset;
}

static void pack_sampling(Baton__Control__Sampling *out, const struct sampling_params *p)
{
    baton__control__sampling__init(out);
    for (size_t i = 0; i < sampling_n_options; i++) {
        const struct sampling_option *o = &sampling_options[i];
        const char *from = (const char *)p + o->offset;
        char *to = (char *)out + wire_offset(o);
        if (o->kind == SAMPLING_BOOL)
            *(protobuf_c_boolean *)(void *)to = *(const bool *)(const void *)from;
        else
            memcpy(to, from, kinds[o->kind].size);
    }
    out->n_bias_ids = out->n_bias = p->n_bias;
    out->bias_ids = p->bias_ids;
    out->bias = p->bias;
}

static enum status unpack_sampling(struct sampling_params *out, const Baton__Control__Sampling *m, struct error *err)
{
    *out = (struct sampling_params){ 0 };
    for (size_t i = 0; i < sampling_n_options; i++) {
        const struct sampling_option *o = &sampling_options[i];
        const char *from = (const char *)m + wire_offset(o);
        char *to = (char *)out + o->offset;
        if (o->kind == SAMPLING_BOOL)
            *(bool *)(void *)to = *(const protobuf_c_boolean *)(const void *)from != 0;
        else
            memcpy(to, from, kinds[o->kind].size);
    }
    if (m->n_bias != m->n_bias_ids || m->n_bias > SAMPLING_MAX_BIAS)
        return error_set(err, ERR_INVALID, "bias: %zu values for %zu ids, at most %d are possible", m->n_bias,
                         m->n_bias_ids, SAMPLING_MAX_BIAS);
    out->n_bias = (uint32_t)m->n_bias;
    out->bias_ids = m->bias_ids;
    out->bias = m->bias;
    return sampling_check(out, err);
}

void job_pack(struct job_message *out, const struct job_record *j)
{
    baton__control__job__init(&out->msg);
    baton__kv__request_id__init(&out->id);
    pack_sampling(&out->sampling, &j->sampling);
    out->id.incarnation = j->incarnation;
    out->id.counter = j->counter;
    out->msg.request = &out->id;
    out->msg.epoch = j->epoch;
    out->msg.n_tokens = j->n_tokens;
    out->msg.tokens = j->tokens;
    out->msg.n_prompt = j->n_prompt;
    out->msg.sampling = &out->sampling;
    out->msg.deadline_ms = j->deadline_ms;
    out->msg.cache_salt = j->cache_salt;
    out->msg.priority = j->priority;
}

enum status job_unpack(struct job_record *out, const Baton__Control__Job *m, struct error *err)
{
    if (!m) return error_set(err, ERR_PARSE, "a job message without a job");
    if (!m->request) return error_set(err, ERR_PARSE, "a job lacks its request's id");
    if (!m->sampling) return error_set(err, ERR_PARSE, "a job lacks its sampling options");
    if (m->request->incarnation == 0 || m->epoch == 0)
        return error_set(err, ERR_INVALID, "a job of incarnation %llu in epoch %u: both begin at 1",
                         (unsigned long long)m->request->incarnation, m->epoch);
    if (m->n_tokens == 0 || m->n_tokens > UINT32_MAX / 2)
        return error_set(err, ERR_INVALID, "a job of %zu tokens, it must have from 1 to %u", m->n_tokens,
                         UINT32_MAX / 2);
    if (m->n_prompt == 0 || m->n_prompt > m->n_tokens)
        return error_set(err, ERR_INVALID, "a prompt of %u of the job's %zu tokens", m->n_prompt, m->n_tokens);
    *out = (struct job_record){
        .incarnation = m->request->incarnation,
        .counter = m->request->counter,
        .epoch = m->epoch,
        .tokens = m->tokens,
        .n_tokens = (uint32_t)m->n_tokens,
        .n_prompt = m->n_prompt,
        .deadline_ms = m->deadline_ms,
        .cache_salt = m->cache_salt,
        .priority = m->priority,
    };
    return unpack_sampling(&out->sampling, m->sampling, err);
}

Baton__Control__Finish finish_pack(enum finish_reason finish)
{
    return (Baton__Control__Finish)finish;
}

enum finish_reason finish_unpack(Baton__Control__Finish wire)
{
    return (uint32_t)wire < FINISH_REASON_COUNT ? (enum finish_reason)wire : FINISH_FAILED;
}
