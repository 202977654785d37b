/* control_note: each kind of message about a request names it, in its own part. */
#include "wire/control_note.h"

#include "base/mem.h"

#include <criterion/criterion.h>

#define BODY(name) BATON__CONTROL__CONTROL_MESSAGE__BODY_##name

/* The field `name` of the message's part; its parts have no type in common. */
static const void *field(const Baton__Control__ControlMessage *m, const char *name)
{
    const ProtobufCFieldDescriptor *part =
        protobuf_c_message_descriptor_get_field(&baton__control__control_message__descriptor, (unsigned)m->body_case);
    const char *body = *(const char *const *)(const void *)((const char *)m + part->offset);
    const ProtobufCFieldDescriptor *f = protobuf_c_message_descriptor_get_field_by_name(part->descriptor, name);
    return f ? body + f->offset : NULL;
}

Test(control_note, messages_of_every_kind_name_their_request_over_the_wire)
{
    static const Baton__Control__ControlMessage__BodyCase kinds[] = {
        BODY(RESERVED),     BODY(REBIND),   BODY(TOKENS), BODY(PROMPT_LOGPROBS), BODY(PROGRESS),
        BODY(PREFILL_DONE), BODY(FINISHED), BODY(FAILED), BODY(CANCEL),          BODY(CANCEL_ACK),
    };
    const struct control_id id = { 11, 12, 13 };
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct control_note note;
        control_note_init(&note, kinds[i], &id);
        size_t n = baton__control__control_message__get_packed_size(&note.m);
        uint8_t *bytes = mem_alloc(n);
        baton__control__control_message__pack(&note.m, bytes);
        Baton__Control__ControlMessage *m = baton__control__control_message__unpack(NULL, n, bytes);
        cr_assert(m && m->body_case == kinds[i]);
        const Baton__Kv__RequestId *request = *(Baton__Kv__RequestId *const *)field(m, "request");
        const uint32_t *epoch = field(m, "epoch");
        cr_assert(request && request->incarnation == 11 && request->counter == 12, "kind %d", (int)kinds[i]);
        cr_assert_eq(!epoch, kinds[i] == BODY(REBIND));
        if (epoch) cr_assert_eq(*epoch, 13);
        baton__control__control_message__free_unpacked(m, NULL);
        mem_free(bytes);
    }
}
