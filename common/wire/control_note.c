/* control_note.c - the part that all messages about a request have in common. */
#include "wire/control_note.h"

#include <assert.h>

void control_note_init(struct control_note *note, Baton__Control__ControlMessage__BodyCase kind,
                       const struct control_id *id)
{
#define PART(name, type)                                                                                               \
    (baton__control__##type##__init(&note->name), note->name.request = &note->request, note->m.name = &note->name)
#define PART_OF_EPOCH(name, type) (PART(name, type), note->name.epoch = id->epoch)
    baton__control__control_message__init(&note->m);
    baton__kv__request_id__init(&note->request);
    note->request.incarnation = id->incarnation;
    note->request.counter = id->counter;
    note->m.body_case = kind;
    switch (kind) {
    case BATON__CONTROL__CONTROL_MESSAGE__BODY_REBIND: PART(rebind, rebind); break;
    case BATON__CONTROL__CONTROL_MESSAGE__BODY_RESERVED: PART_OF_EPOCH(reserved, reserved); break;
    case BATON__CONTROL__CONTROL_MESSAGE__BODY_TOKENS: PART_OF_EPOCH(tokens, tokens); break;
    case BATON__CONTROL__CONTROL_MESSAGE__BODY_PROMPT_LOGPROBS: PART_OF_EPOCH(prompt_logprobs, prompt_logprobs); break;
    case BATON__CONTROL__CONTROL_MESSAGE__BODY_PROGRESS: PART_OF_EPOCH(progress, progress); break;
    case BATON__CONTROL__CONTROL_MESSAGE__BODY_PREFILL_DONE: PART_OF_EPOCH(prefill_done, prefill_done); break;
    case BATON__CONTROL__CONTROL_MESSAGE__BODY_FINISHED: PART_OF_EPOCH(finished, finished); break;
    case BATON__CONTROL__CONTROL_MESSAGE__BODY_FAILED: PART_OF_EPOCH(failed, failed); break;
    case BATON__CONTROL__CONTROL_MESSAGE__BODY_CANCEL: PART_OF_EPOCH(cancel, cancel); break;
    case BATON__CONTROL__CONTROL_MESSAGE__BODY_CANCEL_ACK: PART_OF_EPOCH(cancel_ack, cancel_ack); break;
    default: assert(!"a kind of message about a request");
    }
#undef PART_OF_EPOCH
#undef PART
}
