/* codec.c - unpacks protobuf-c messages out of an arena with a bound. */
#include "wire/codec.h"

#include "base/mem.h"

#include <stdbool.h>
#include <stdint.h>

#define ARENA_ALIGN 16
#define CHUNK_MIN   ((size_t)16 << 10)

struct chunk {
    struct chunk *next;
    size_t cap, used;
    _Alignas(ARENA_ALIGN) uint8_t data[];
};

struct codec_arena {
    ProtobufCAllocator allocator;
    struct chunk *chunks; /* the newest first; the last one is kept between messages */
    size_t max_bytes;
    size_t bytes; /* capacity of all chunks */
    bool exhausted;
};

static struct chunk *chunk_add(struct codec_arena *a, size_t want)
{
    size_t cap = a->bytes < CHUNK_MIN ? CHUNK_MIN : a->bytes;
    struct chunk *c;
    void *p;

    if (cap < want) cap = want;
    if (cap > a->max_bytes - a->bytes) cap = a->max_bytes - a->bytes;
    if (cap < want || mem_try_array(&p, 1, sizeof(*c) + cap) != OK) {
        a->exhausted = true;
        return NULL;
    }
    c = p;
    c->cap = cap;
    c->next = a->chunks;
    a->chunks = c;
    a->bytes += cap;
    return c;
}

static void *arena_alloc(void *ctx, size_t size)
{
    struct codec_arena *a = ctx;
    struct chunk *c = a->chunks;
    void *p;

    if (size > a->max_bytes) {
        a->exhausted = true;
        return NULL;
    }
    size = (size + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    if (!c || size > c->cap - c->used) c = chunk_add(a, size);
    if (!c) return NULL;
    p = c->data + c->used;
    c->used += size;
    return p;
}

static void arena_free(void *ctx, void *p)
{
    (void)ctx, (void)p;
}

/* Keeps the first (small) chunk only, so that one large message does not hold its memory for ever. */
static void arena_reset(struct codec_arena *a)
{
    while (a->chunks && a->chunks->next) {
        struct chunk *c = a->chunks;
        a->chunks = c->next;
        a->bytes -= c->cap;
        mem_free(c);
    }
    if (a->chunks) a->chunks->used = 0;
    a->exhausted = false;
}

struct codec_arena *codec_arena_create(size_t max_bytes)
{
    struct codec_arena *a = mem_zalloc(sizeof(*a));
    a->max_bytes = max_bytes;
    a->allocator = (ProtobufCAllocator){ arena_alloc, arena_free, a };
    return a;
}

void codec_arena_destroy(struct codec_arena *a)
{
    if (!a) return;
    arena_reset(a);
    mem_free(a->chunks);
    mem_free(a);
}

enum status codec_unpack(struct codec_arena *a, const ProtobufCMessageDescriptor *type, struct bytes frame,
                         ProtobufCMessage **out, struct error *err)
{
    ProtobufCMessage *m;

    arena_reset(a);
    m = protobuf_c_message_unpack(type, &a->allocator, frame.n, frame.p);
    if (m) {
        *out = m;
        return OK;
    }
    if (a->exhausted)
        return error_set(err, ERR_TOO_LARGE, "a %s of %zu bytes needs more than %zu bytes unpacked", type->short_name,
                         frame.n, a->max_bytes);
    return error_set(err, ERR_PARSE, "%zu bytes are not a %s", frame.n, type->short_name);
}
