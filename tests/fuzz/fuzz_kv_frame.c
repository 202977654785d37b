/* fuzz_kv_frame.c - KV header and payload frames as a receive thread takes them, into a small inbox.
 *
 * Input: 2 bytes length of the header, the header, the payload.  A header that opens is also tried with its checksum
 * made right and with the ids of the open offer, so that the checks behind those are reached. */
#include "node/kv_inbox.h"

#include "../helpers/kv_fake.h"

#include <stdlib.h>

#define N_TOKENS 130

static Baton__Kv__Geometry geometry;
static struct kv_map *map;
static struct codec_arena *arena;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void set_up(void)
{
    geometry = fake_geometry(2, 2, 16);
    map = fake_map(fake_store(&geometry, 4, false));
    arena = codec_arena_create(KV_WIRE_ARENA);
}

static void try_message(struct kv_inbox *in, Baton__Kv__KvMessage *m, struct bytes payload)
{
    struct kv_inbox_result res = { 0 };

    switch (m->body_case) {
    case BATON__KV__KV_MESSAGE__BODY_HELLO:
        if (kv_wire_check_geometry(&geometry, m->hello->geometry, "a", "b", &res.err) == OK) break;
        if (res.err.text[0] == 0) abort();
        break;
    case BATON__KV__KV_MESSAGE__BODY_BLOCK: kv_inbox_block(in, 1, m, payload, &res); break;
    case BATON__KV__KV_MESSAGE__BODY_COMMIT: kv_inbox_commit(in, 1, m->commit, &res); break;
    case BATON__KV__KV_MESSAGE__BODY_ABORT: kv_inbox_abort(in, 1, m->abort, &res); break;
    default: break;
    }
}

/* The same block as a peer would send it that knows the offer. */
static void try_block_of_offer(struct kv_inbox *in, Baton__Kv__KvMessage *m, struct bytes payload)
{
    Baton__Kv__BlockHeader *b = m->block;
    uint8_t buf[CODEC_HEADER_MAX];

    b->request->incarnation = 1;
    b->request->counter = 2;
    b->epoch = 3;
    b->reservation = 4;
    b->fingerprint = geometry.fingerprint;
    b->codec = geometry.codec;
    b->n_bytes = (uint32_t)payload.n;
    b->sealed = false;
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
    if (kv_inbox_add(in, &(struct kv_offer){ { 1, 2, 3 }, 4, blocks, 3, N_TOKENS, 0, 1 << 20 }) != OK) abort();
    if (kv_wire_open(arena, header, &m, NULL) == OK) {
        try_message(in, m, payload);
        if (m->body_case == BATON__KV__KV_MESSAGE__BODY_BLOCK) {
            try_block_of_offer(in, m, payload);
            try_block_of_offer(in, m, payload);
        }
    }
    kv_inbox_destroy(in);
    return 0;
}
