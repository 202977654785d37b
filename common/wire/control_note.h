/* control_note.h - a control message about one request, with its parts beside it.
 *
 * After control_note_init() the caller fills in what is special to its kind, then sends &note.m; the note is not moved
 * in between. */
#ifndef WIRE_CONTROL_NOTE_H
#define WIRE_CONTROL_NOTE_H
#include "proto/control.pb-c.h"

struct control_id { /* a request's attempt: who asks for it, its number there, which attempt */
    uint64_t incarnation, counter;
    uint32_t epoch;
};

struct control_note {
    Baton__Control__ControlMessage m;
    Baton__Kv__RequestId request;
    union {
        Baton__Control__Reserved reserved;
        Baton__Control__Rebind rebind;
        Baton__Control__Tokens tokens;
        Baton__Control__PromptLogprobs prompt_logprobs;
        Baton__Control__Progress progress;
        Baton__Control__PrefillDone prefill_done;
        Baton__Control__Finished finished;
        Baton__Control__Failed failed;
        Baton__Control__Cancel cancel;
        Baton__Control__CancelAck cancel_ack;
    };
};

/* An empty message of one of the kinds above about `id`; a Rebind's epochs are the caller's to set. */
void control_note_init(struct control_note *note, Baton__Control__ControlMessage__BodyCase kind,
                       const struct control_id *id);
#endif
