/* codec.h - packs and unpacks protobuf-c messages within bounds.
 *
 * Unpacking allocates from a bounded arena (ProtobufCAllocator) that is released in one piece, so a hostile frame
 * costs at most CODEC_ARENA_MAX bytes.  The wire's version rule: another major version is refused by name. */
#ifndef WIRE_CODEC_H
#define WIRE_CODEC_H
#include "base/bytes.h"
#include "base/error.h"

#include <protobuf-c/protobuf-c.h>

#define PROTOCOL_VERSION  4
#define CODEC_CONTROL_MAX ((size_t)64 << 20) /* bytes of one control frame */
#define CODEC_HEADER_MAX  ((size_t)4096)     /* bytes of one KV header frame */

struct codec_arena; /* one per thread, reused: memory of the last message goes with the next unpack */
struct codec_arena *codec_arena_create(size_t max_bytes);
void codec_arena_destroy(struct codec_arena *a);

/* Unpacks `frame` as a message of `type`; the result lives in the arena until its next use.  ERR_PARSE: not such a
 * message; ERR_TOO_LARGE: over the arena's bound. */
enum status codec_unpack(struct codec_arena *a, const ProtobufCMessageDescriptor *type, struct bytes frame,
                         ProtobufCMessage **out, struct error *err) MUST_CHECK;
#endif
