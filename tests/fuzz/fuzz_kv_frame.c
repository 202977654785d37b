/* fuzz_kv_frame.c - KV header and payload frames as a receive thread takes them, into a small inbox.
 *
 * Input: 2 bytes length of the header, the header, the payload.  A header that opens is also tried with its checksum
 * made right and with the ids of the open offer, so that the checks behind those are reached. */
#include "node/kv_inbox.h"

#include "../helpers/kv_fake.h"

#include <stdlib.h>

#define N_TOKENS 130

static struct cache_geometry geometry;
static struct kv_map *map;
static struct codec_arena *arena;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* K and V of layer 0, of a window of layer 3, in layers 1 and 2 a tail and a state of two units a head. */
static void set_up(void)
{
    const struct cache_group state = { .kind = BATON__KV__CACHE_KIND__SNAPSHOT,
                                       .codec = BATON__KV__CODEC__F32,
                                       .first = 2,
                                       .n_layers = 2,
                                       .n_heads = 2,
                                       .head_dim = 20000 };
    geometry = fake_geometry(4, 2, 16);
    geometry.n_groups = 4;
    geometry.groups[0].n_layers = 1;
    geometry.groups[1] = state;
    geometry.groups[1].head_dim = 48;
    geometry.groups[1].first = 1;
    geometry.groups[2] = state;
    geometry.groups[2].first = 3;
    geometry.groups[3] = geometry.groups[0];
    geometry.groups[3].kind = BATON__KV__CACHE_KIND__WINDOW;
    geometry.groups[3].window = 60;
    geometry.groups[3].first = 5;
    memcpy(geometry.layers, (uint16_t[]){ 0, 1, 2, 1, 2, 3 }, 6 * sizeof(uint16_t));
    map = fake_map(fake_store(&geometry, 4, false));
    arena = codec_arena_create(KV_WIRE_ARENA);
}

/* What unpacks makes sense: it packs to the same again, and its layers are counted once, but for snapshots. */
static void try_geometry(const Baton__Kv__Geometry *m)
{
    struct cache_geometry theirs, again;
    struct cache_geometry_message packed;
    struct error err = { OK, "" };
    bool seen[CACHE_LAYERS_MAX] = { false };
    uint32_t n = 0;

    if (cache_geometry_unpack(&theirs, m, &err) != OK) {
        if (err.text[0] == 0) abort();
        return;
    }
    for (uint32_t i = 0; i < theirs.n_groups; i++)
        for (uint32_t k = 0; k < theirs.groups[i].n_layers; k++) {
            bool *layer = &seen[theirs.layers[theirs.groups[i].first + k]];
            if (*layer && theirs.groups[i].kind != BATON__KV__CACHE_KIND__SNAPSHOT) abort();
            n += !*layer;
            *layer = true;
        }
    cache_geometry_pack(&packed, &theirs);
    if (n != theirs.n_layers || cache_geometry_unpack(&again, &packed.msg, &err) != OK) abort();
    if (memcmp(again.groups, theirs.groups, sizeof(again.groups)) != 0) abort();
    if (memcmp(again.layers, theirs.layers, sizeof(again.layers)) != 0) abort();
    if (cache_geometry_check_same(&geometry, &theirs, "a", "b", &err) != OK && err.text[0] == 0) abort();
    kv_cover_expected_bytes(&theirs, UINT32_MAX, 0);
    cache_geometry_16bit_bytes(&theirs, UINT64_MAX / 2);
}

static void try_message(struct kv_inbox *in, Baton__Kv__KvMessage *m, struct bytes payload)
{
    struct kv_inbox_result res = { 0 };

    switch (m->body_case) {
    case BATON__KV__KV_MESSAGE__BODY_HELLO: try_geometry(m->hello->geometry); break;
    case BATON__KV__KV_MESSAGE__BODY_BLOCK:
    case BATON__KV__KV_MESSAGE__BODY_STATE: kv_inbox_data(in, 1, m, payload, &res); break;
    case BATON__KV__KV_MESSAGE__BODY_COMMIT: kv_inbox_commit(in, 1, m->commit, &res); break;
    case BATON__KV__KV_MESSAGE__BODY_ABORT: kv_inbox_abort(in, 1, m->abort, &res); break;
    default: break;
    }
}

static void name_offer(Baton__Kv__RequestId *id)
{
    id->incarnation = 1;
    id->counter = 2;
}

/* The same data as a peer would send it that knows the offer. */
static void try_data_of_offer(struct kv_inbox *in, Baton__Kv__KvMessage *m, struct bytes payload)
{
    uint8_t buf[CODEC_HEADER_MAX];

    if (m->body_case == BATON__KV__KV_MESSAGE__BODY_BLOCK) {
        Baton__Kv__BlockHeader *b = m->block;
        name_offer(b->request);
        b->epoch = 3;
        b->reservation = 4;
        b->fingerprint = geometry.fingerprint;
        b->codec = BATON__KV__CODEC__INT8;
        b->n_bytes = (uint32_t)payload.n;
        b->sealed = false;
    } else {
        Baton__Kv__StateHeader *s = m->state;
        name_offer(s->request);
        s->epoch = 3;
        s->reservation = 4;
        s->fingerprint = geometry.fingerprint;
        s->codec = BATON__KV__CODEC__F32;
        s->n_bytes = (uint32_t)payload.n;
        s->position = N_TOKENS;
        s->sealed = false;
    }
    if (kv_wire_pack(m, payload, buf)) try_message(in, m, payload);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const kv_block_id blocks[] = { 2, 0, 3 };
    Baton__Kv__KvMessage *m;
    struct kv_inbox *in;
    struct bytes header, payload;
    size_t n;

    if (!map) set_up();
    if (size < 2) return 0;
    n = data[0] | (size_t)data[1] << 8;
    if (n > size - 2) n = size - 2;
    header = bytes_of(data + 2, n);
    payload = bytes_of(data + 2 + n, size - 2 - n);
    in = kv_inbox_create(map, &geometry);
    if (kv_inbox_add(in, &(struct kv_offer){ { 1, 2, 3 }, 4, blocks, 3, N_TOKENS, 0, 1 << 20, 1, blocks }) != OK)
        abort();
    if (kv_wire_open(arena, header, &m, NULL) == OK) {
        try_message(in, m, payload);
        if (kv_wire_has_payload(m)) {
            try_data_of_offer(in, m, payload);
            try_data_of_offer(in, m, payload);
        }
    }
    kv_inbox_destroy(in);
    return 0;
}
