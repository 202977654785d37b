/* kv_wire.c - KV plane messages: packing, checksums, and every check that needs no state. */
#include "wire/kv_wire.h"

#include "base/log.h"

#include <assert.h>
#include <inttypes.h>
#define XXH_STATIC_LINKING_ONLY /* its state on the stack */
#include <xxhash.h>
#ifdef __x86_64__
#include <xxh_x86dispatch.h> /* the same sums, with the widest vectors this processor has */
#endif

uint64_t kv_wire_range_bytes(const struct cache_geometry *g, const struct kv_wire_range *r)
{
    uint64_t n = cache_group_head_bytes(&g->groups[r->group], r->t1 - r->t0);
    if (!size_mul(n, r->l1 - r->l0, &n) || !size_mul(n, r->h1 - r->h0, &n)) return UINT64_MAX;
    return n;
}

void kv_wire_note_init(struct kv_wire_note *note, Baton__Kv__KvMessage__BodyCase kind, const struct kv_wire_id *id)
{
#define PART(name, type) (baton__kv__##type##__init(&note->name), note->m.name = &note->name)
#define PART_ABOUT(name, type)                                                                                         \
    (PART(name, type), note->name.request = &note->request, note->name.epoch = id->epoch,                              \
     note->name.reservation = id->reservation)
    baton__kv__kv_message__init(&note->m);
    baton__kv__request_id__init(&note->request);
    note->m.body_case = kind;
    if (id) note->request.incarnation = id->hi, note->request.counter = id->lo;
    switch (kind) {
    case BATON__KV__KV_MESSAGE__BODY_HELLO: PART(hello, hello); break;
    case BATON__KV__KV_MESSAGE__BODY_HELLO_ACK: PART(hello_ack, hello_ack); break;
    case BATON__KV__KV_MESSAGE__BODY_LANE_ACK: PART(lane_ack, lane_ack); break;
    case BATON__KV__KV_MESSAGE__BODY_BLOCK: PART_ABOUT(block, block_header); break;
    case BATON__KV__KV_MESSAGE__BODY_STATE: PART_ABOUT(state, state_header); break;
    case BATON__KV__KV_MESSAGE__BODY_CREDIT: PART_ABOUT(credit, credit); break;
    case BATON__KV__KV_MESSAGE__BODY_COMMIT: PART_ABOUT(commit, commit); break;
    case BATON__KV__KV_MESSAGE__BODY_STORED: PART_ABOUT(stored, stored); break;
    case BATON__KV__KV_MESSAGE__BODY_ABORT: PART_ABOUT(abort, abort); break;
    case BATON__KV__KV_MESSAGE__BODY_ABORT_ACK: PART_ABOUT(abort_ack, abort_ack); break;
    default: assert(!"a kind of KV message that is known");
    }
#undef PART_ABOUT
#undef PART
}

/* 0 stands for "none", so a sum of 0 travels as 1. */
static uint64_t checksum(const uint8_t *header, size_t n, struct bytes payload)
{
    XXH3_state_t state;
    uint64_t sum;

    XXH3_INITSTATE(&state);
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, header, n);
    if (payload.n) XXH3_64bits_update(&state, payload.p, payload.n);
    sum = XXH3_64bits_digest(&state);
    return sum ? sum : 1;
}

bool kv_wire_has_payload(const Baton__Kv__KvMessage *m)
{
    return m->body_case == BATON__KV__KV_MESSAGE__BODY_BLOCK || m->body_case == BATON__KV__KV_MESSAGE__BODY_STATE;
}

static uint64_t *checksum_field(Baton__Kv__KvMessage *m)
{
    if (m->body_case == BATON__KV__KV_MESSAGE__BODY_BLOCK) return &m->block->checksum;
    if (m->body_case == BATON__KV__KV_MESSAGE__BODY_STATE) return &m->state->checksum;
    return &m->checksum;
}

size_t kv_wire_pack(Baton__Kv__KvMessage *m, struct bytes payload, uint8_t buf[CODEC_HEADER_MAX])
{
    uint64_t *field = checksum_field(m);
    size_t n;

    *field = 0;
    n = baton__kv__kv_message__get_packed_size(m);
    if (n + 2 * sizeof(uint64_t) > CODEC_HEADER_MAX) return 0;
    baton__kv__kv_message__pack(m, buf);
    *field = checksum(buf, n, payload);
    return baton__kv__kv_message__pack(m, buf);
}

/* The sum is over a fresh packing: bytes in another order or form than ours are refused with it. */
static enum status check_sum(Baton__Kv__KvMessage *m, struct bytes payload, struct error *err)
{
    uint8_t buf[CODEC_HEADER_MAX];
    uint64_t *field = checksum_field(m);
    uint64_t said = *field, sum;
    size_t n;

    *field = 0;
    n = baton__kv__kv_message__get_packed_size(m);
    if (n <= sizeof(buf)) n = baton__kv__kv_message__pack(m, buf);
    *field = said;
    if (n > sizeof(buf)) return error_set(err, ERR_TOO_LARGE, "a header of %zu bytes", n);
    sum = checksum(buf, n, payload);
    if (sum == said) return OK;
    return error_set(err, ERR_CORRUPT,
                     "checksum of a message with %zu payload bytes is %016" PRIx64 ", its header says %016" PRIx64,
                     payload.n, sum, said);
}

static bool is_complete(const Baton__Kv__KvMessage *m)
{
    switch (m->body_case) {
    case BATON__KV__KV_MESSAGE__BODY_HELLO: return m->hello && m->hello->geometry;
    case BATON__KV__KV_MESSAGE__BODY_HELLO_ACK: return m->hello_ack;
    case BATON__KV__KV_MESSAGE__BODY_BLOCK: return m->block && m->block->request;
    case BATON__KV__KV_MESSAGE__BODY_CREDIT: return m->credit && m->credit->request;
    case BATON__KV__KV_MESSAGE__BODY_COMMIT: return m->commit && m->commit->request;
    case BATON__KV__KV_MESSAGE__BODY_STORED: return m->stored && m->stored->request;
    case BATON__KV__KV_MESSAGE__BODY_ABORT: return m->abort && m->abort->request;
    case BATON__KV__KV_MESSAGE__BODY_ABORT_ACK: return m->abort_ack && m->abort_ack->request;
    case BATON__KV__KV_MESSAGE__BODY_LANE_ACK: return m->lane_ack;
    case BATON__KV__KV_MESSAGE__BODY_STATE: return m->state && m->state->request;
    default: return false;
    }
}

enum status kv_wire_open(struct codec_arena *a, struct bytes header, Baton__Kv__KvMessage **out, struct error *err)
{
    ProtobufCMessage *base;
    Baton__Kv__KvMessage *m;
    enum status st;

    if (header.n > CODEC_HEADER_MAX)
        return error_set(err, ERR_TOO_LARGE, "a header frame of %zu bytes, at most %zu are allowed", header.n,
                         CODEC_HEADER_MAX);
    st = codec_unpack(a, &baton__kv__kv_message__descriptor, header, &base, err);
    if (st != OK) return st;
    m = (Baton__Kv__KvMessage *)base;
    if (!is_complete(m)) return error_set(err, ERR_PARSE, "a KV message of kind %d lacks its parts", (int)m->body_case);
    if (!kv_wire_has_payload(m) && (st = check_sum(m, (struct bytes){ NULL, 0 }, err)) != OK) return st;
    *out = m;
    return OK;
}

enum status kv_wire_check_payload(Baton__Kv__KvMessage *m, struct bytes payload, struct error *err)
{
    bool is_block = m->body_case == BATON__KV__KV_MESSAGE__BODY_BLOCK;
    uint32_t said = is_block ? m->block->n_bytes : m->state->n_bytes;
    if (payload.n > KV_WIRE_FRAME_MAX || said != payload.n)
        return error_set(err, ERR_CORRUPT, "a frame of %zu bytes whose header says %u", payload.n, said);
    if (is_block ? m->block->sealed : m->state->sealed)
        return error_set(err, ERR_UNSUPPORTED, "a sealed frame, but sealing is off here");
    return check_sum(m, payload, err);
}

struct kv_wire_range kv_wire_block_range(const Baton__Kv__BlockHeader *b)
{
    return (struct kv_wire_range){ b->l0, b->l1, b->h0, b->h1, b->t0, b->t1, b->group };
}

static enum status check_span(const char *what, uint32_t a, uint32_t b, uint32_t n, struct error *err)
{
    if (a < b && b <= n) return OK;
    return error_set(err, ERR_CORRUPT, "%s [%u, %u) of a frame are not within [0, %u)", what, a, b, n);
}

/* What a header says of the model and its group. */
static enum status check_group(uint64_t fingerprint, uint32_t group, Baton__Kv__Codec codec,
                               const struct cache_geometry *g, struct error *err)
{
    if (fingerprint != g->fingerprint)
        return error_set(err, ERR_MISMATCH, "a frame of model %016" PRIx64 ", here is %016" PRIx64, fingerprint,
                         g->fingerprint);
    if (group >= g->n_groups) return error_set(err, ERR_CORRUPT, "a frame of cache group %u of %u", group, g->n_groups);
    if (codec != g->groups[group].codec)
        return error_set(err, ERR_MISMATCH, "a frame in codec %s, group %u is kept in %s here", cache_codec_name(codec),
                         group, cache_codec_name(g->groups[group].codec));
    return OK;
}

enum status kv_wire_check_block(const Baton__Kv__BlockHeader *b, const struct cache_geometry *g, uint32_t n_tokens,
                                struct error *err)
{
    struct kv_wire_range r = kv_wire_block_range(b);
    enum status st = check_group(b->fingerprint, b->group, b->codec, g, err);
    uint64_t n_bytes;

    if (st != OK) return st;
    const struct cache_group *c = &g->groups[r.group];
    if (!cache_group_has_blocks(c))
        return error_set(err, ERR_CORRUPT, "a frame of blocks for cache group %u, which is of kind %s", r.group,
                         cache_kind_name(c->kind));
    if ((st = check_span("layers", r.l0, r.l1, c->n_layers, err)) != OK) return st;
    if ((st = check_span("kv heads", r.h0, r.h1, c->n_heads, err)) != OK) return st;
    if ((st = check_span("tokens", r.t0, r.t1, n_tokens, err)) != OK) return st;
    if (r.t0 % c->block_tokens || (r.t1 % c->block_tokens && r.t1 != n_tokens))
        return error_set(err, ERR_CORRUPT, "tokens [%u, %u) of %u do not end on block borders", r.t0, r.t1, n_tokens);
    n_bytes = kv_wire_range_bytes(g, &r);
    if (n_bytes != b->n_bytes || n_bytes > KV_WIRE_FRAME_MAX)
        return error_set(err, ERR_CORRUPT, "a frame of %u bytes for ranges that take %" PRIu64, b->n_bytes, n_bytes);
    return OK;
}

struct kv_wire_state kv_wire_state_of(const Baton__Kv__StateHeader *s)
{
    return (struct kv_wire_state){ s->layer, s->h0, s->h1, s->offset, s->n_bytes, s->group };
}

/* Whole states of some heads, or a part of one head's that ends at a border of units, or with the state. */
static enum status check_state_bytes(const struct kv_wire_state *s, uint64_t head_bytes, struct error *err)
{
    uint64_t end = (uint64_t)s->offset + s->n_bytes;
    bool whole = s->offset == 0 && s->n_bytes == head_bytes * (s->h1 - s->h0);
    bool part = s->h1 - s->h0 == 1 && s->n_bytes && s->offset % CACHE_STATE_UNIT == 0 && end <= head_bytes &&
                (end % CACHE_STATE_UNIT == 0 || end == head_bytes);
    if ((whole || part) && s->n_bytes <= KV_WIRE_FRAME_MAX) return OK;
    return error_set(err, ERR_CORRUPT,
                     "bytes [%u, %" PRIu64 ") of heads [%u, %u), whose states take %" PRIu64 " each: neither all of "
                     "them nor a part of one in units of %u",
                     s->offset, end, s->h0, s->h1, head_bytes, CACHE_STATE_UNIT);
}

enum status kv_wire_check_state(const Baton__Kv__StateHeader *h, const struct cache_geometry *g, uint32_t n_tokens,
                                struct error *err)
{
    struct kv_wire_state s = kv_wire_state_of(h);
    enum status st = check_group(h->fingerprint, h->group, h->codec, g, err);

    if (st != OK) return st;
    const struct cache_group *c = &g->groups[s.group];
    if (c->kind != BATON__KV__CACHE_KIND__SNAPSHOT)
        return error_set(err, ERR_CORRUPT, "a part of a snapshot for cache group %u, which is of kind %s", s.group,
                         cache_kind_name(c->kind));
    if (s.layer >= c->n_layers)
        return error_set(err, ERR_CORRUPT, "layer %u of cache group %u, which has %u", s.layer, s.group, c->n_layers);
    if ((st = check_span("heads", s.h0, s.h1, c->n_heads, err)) != OK) return st;
    if (h->position != n_tokens)
        return error_set(err, ERR_CORRUPT, "a snapshot after %u tokens, expected is the one after %u", h->position,
                         n_tokens);
    return check_state_bytes(&s, cache_group_state_bytes(c), err);
}

bool kv_wire_message_id(const Baton__Kv__KvMessage *m, struct kv_wire_id *out)
{
#define ID_OF(b)                                                                                                       \
    (struct kv_wire_id)                                                                                                \
    {                                                                                                                  \
        (b)->request->incarnation, (b)->request->counter, (b)->epoch, (b)->reservation                                 \
    }
    switch (m->body_case) {
    case BATON__KV__KV_MESSAGE__BODY_BLOCK: *out = ID_OF(m->block); return true;
    case BATON__KV__KV_MESSAGE__BODY_STATE: *out = ID_OF(m->state); return true;
    case BATON__KV__KV_MESSAGE__BODY_CREDIT: *out = ID_OF(m->credit); return true;
    case BATON__KV__KV_MESSAGE__BODY_COMMIT: *out = ID_OF(m->commit); return true;
    case BATON__KV__KV_MESSAGE__BODY_STORED: *out = ID_OF(m->stored); return true;
    case BATON__KV__KV_MESSAGE__BODY_ABORT: *out = ID_OF(m->abort); return true;
    case BATON__KV__KV_MESSAGE__BODY_ABORT_ACK: *out = ID_OF(m->abort_ack); return true;
    default: return false;
    }
#undef ID_OF
}
