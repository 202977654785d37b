/* codec: a frame costs at most the arena, whatever it says. */
#include "wire/codec.h"

#include "base/mem.h"
#include "proto/control.pb-c.h"

#include <criterion/criterion.h>

static size_t job_frame(uint8_t **out, uint32_t n_tokens)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Reserve r = BATON__CONTROL__RESERVE__INIT;
    Baton__Control__Job j = BATON__CONTROL__JOB__INIT;
    size_t n;

    j.n_tokens = n_tokens;
    j.tokens = mem_array(n_tokens, sizeof(int32_t));
    for (uint32_t i = 0; i < n_tokens; i++) j.tokens[i] = (int32_t)i;
    r.job = &j;
    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_RESERVE;
    m.reserve = &r;
    n = baton__control__control_message__get_packed_size(&m);
    *out = mem_alloc(n);
    baton__control__control_message__pack(&m, *out);
    mem_free(j.tokens);
    return n;
}

Test(codec, unpacks_message_after_message)
{
    struct codec_arena *a = codec_arena_create(1 << 20);
    for (uint32_t i = 1; i < 20000; i = i * 3 + 1) {
        ProtobufCMessage *base;
        uint8_t *frame;
        size_t n = job_frame(&frame, i);
        cr_assert_eq(codec_unpack(a, &baton__control__control_message__descriptor, bytes_of(frame, n), &base, NULL),
                     OK);
        Baton__Control__Job *j = ((Baton__Control__ControlMessage *)base)->reserve->job;
        cr_assert_eq(j->n_tokens, i);
        cr_assert_eq(j->tokens[i - 1], (int32_t)i - 1);
        mem_free(frame);
    }
    codec_arena_destroy(a);
}

Test(codec, says_too_large_beyond_the_arena)
{
    struct codec_arena *a = codec_arena_create(64 << 10);
    ProtobufCMessage *base;
    struct error err;
    uint8_t *frame;
    size_t n = job_frame(&frame, 100000);

    cr_assert_eq(codec_unpack(a, &baton__control__control_message__descriptor, bytes_of(frame, n), &base, &err),
                 ERR_TOO_LARGE);
    mem_free(frame);
    n = job_frame(&frame, 10);
    cr_assert_eq(codec_unpack(a, &baton__control__control_message__descriptor, bytes_of(frame, n), &base, &err), OK);
    for (size_t cut = 1; cut < n; cut++)
        cr_assert_neq(codec_unpack(a, &baton__control__control_message__descriptor, bytes_of(frame, cut), &base, &err),
                      OK, "cut at %zu", cut);
    mem_free(frame);
    codec_arena_destroy(a);
}
