/* kv_wire.h - KV plane messages: packing with checksum, opening with checks, ranges.
 *
 * A data message is a header frame (a KvMessage with a BlockHeader or a StateHeader) and a payload frame; all other
 * messages are one frame.  Nothing here knows sockets or memory of blocks: docs/wire.md describes the format. */
#ifndef WIRE_KV_WIRE_H
#define WIRE_KV_WIRE_H
#include "base/bytes.h"
#include "base/error.h"
#include "base/kv_block.h"
#include "proto/kv.pb-c.h"
#include "wire/cache_geometry.h"
#include "wire/codec.h"

#include <stdbool.h>

#define KV_WIRE_FRAME_MAX ((size_t)4 << 20)   /* bytes of one payload frame */
#define KV_WIRE_ARENA     ((size_t)256 << 10) /* enough to open any header frame */

/* What one request's transfer is called on the wire. */
struct kv_wire_id {
    uint64_t hi, lo; /* request: incarnation, counter */
    uint32_t epoch;
    uint64_t reservation;
};

/* What a block frame covers: layers x kv heads x tokens of a group of the geometry, whose layers are counted within it.
 */
struct kv_wire_range {
    uint32_t l0, l1, h0, h1, t0, t1, group;
};

/* What a state frame covers: bytes [offset, offset + n_bytes) of one head's state, or whole states of several heads. */
struct kv_wire_state {
    uint32_t layer, h0, h1, offset, n_bytes, group;
};

/* Bytes that a range takes in a payload frame; UINT64_MAX: more than can be counted. */
uint64_t kv_wire_range_bytes(const struct cache_geometry *g, const struct kv_wire_range *r);

/* A message with its parts beside it.  After kv_wire_note_init() the caller fills in what is special to its kind, then
 * sends &note.m; the note is not moved in between. */
struct kv_wire_note {
    Baton__Kv__KvMessage m;
    Baton__Kv__RequestId request;
    union {
        Baton__Kv__Hello hello;
        Baton__Kv__HelloAck hello_ack;
        Baton__Kv__BlockHeader block;
        Baton__Kv__StateHeader state;
        Baton__Kv__Credit credit;
        Baton__Kv__Commit commit;
        Baton__Kv__Stored stored;
        Baton__Kv__Abort abort;
        Baton__Kv__AbortAck abort_ack;
        Baton__Kv__LaneAck lane_ack;
    };
};
/* An empty message of that kind about the transfer `id`; NULL for kinds that are about none (Hello, HelloAck, LaneAck).
 */
void kv_wire_note_init(struct kv_wire_note *note, Baton__Kv__KvMessage__BodyCase kind, const struct kv_wire_id *id);

/* Packs a message with its checksum: over the packed header with checksum 0, then the payload, if it has one.
 * Returns the length, or 0 if it does not fit CODEC_HEADER_MAX. */
size_t kv_wire_pack(Baton__Kv__KvMessage *m, struct bytes payload, uint8_t buf[CODEC_HEADER_MAX]);
/* Unpacks a header frame; messages without payload are checked against their checksum (ERR_CORRUPT).  Every
 * sub-message that handlers read is present.  The result lives in the arena. */
enum status kv_wire_open(struct codec_arena *a, struct bytes header, Baton__Kv__KvMessage **out,
                         struct error *err) MUST_CHECK;
/* Whether the message comes with a second frame. */
bool kv_wire_has_payload(const Baton__Kv__KvMessage *m);
/* A data message's checksum against header and payload; and n_bytes against the payload's size. */
enum status kv_wire_check_payload(Baton__Kv__KvMessage *m, struct bytes payload, struct error *err) MUST_CHECK;
/* Whether a block header fits the geometry and a transfer of n_tokens, and its n_bytes its ranges. */
enum status kv_wire_check_block(const Baton__Kv__BlockHeader *b, const struct cache_geometry *g, uint32_t n_tokens,
                                struct error *err) MUST_CHECK;
struct kv_wire_range kv_wire_block_range(const Baton__Kv__BlockHeader *b);
/* The same of a state header: it is of the state after n_tokens. */
enum status kv_wire_check_state(const Baton__Kv__StateHeader *s, const struct cache_geometry *g, uint32_t n_tokens,
                                struct error *err) MUST_CHECK;
struct kv_wire_state kv_wire_state_of(const Baton__Kv__StateHeader *s);

/* Which transfer a message speaks of; false for Hello and HelloAck. */
bool kv_wire_message_id(const Baton__Kv__KvMessage *m, struct kv_wire_id *out);
#endif
