/* kv_wire: what is packed opens again; anything changed on the way is refused. */
#include "wire/kv_wire.h"

#include "base/mem.h"
#include "base/strbuf.h"

#include <criterion/criterion.h>
#include <string.h>

static struct cache_geometry geometry(void)
{
    struct cache_geometry g = { .fingerprint = 0x1122334455667788, .rope_base = 100000.0F, .model_name = "m" };
    const struct cache_group like = { .kind = BATON__KV__CACHE_KIND__KV,
                                      .codec = BATON__KV__CODEC__INT8,
                                      .n_heads = 3,
                                      .head_dim = 64,
                                      .block_tokens = 64 };
    cache_geometry_set_uniform(&g, 30, &like);
    return g;
}

/* The same, and a snapshot of 160,000 bytes a head in its last six layers. */
static struct cache_geometry hybrid(void)
{
    struct cache_geometry g = geometry();
    g.n_groups = 2;
    g.groups[0].n_layers = 24;
    g.groups[1] = (struct cache_group){ .kind = BATON__KV__CACHE_KIND__SNAPSHOT,
                                        .codec = BATON__KV__CODEC__F32,
                                        .first = 24,
                                        .n_layers = 6,
                                        .n_heads = 40,
                                        .head_dim = 40000 };
    return g;
}

static Baton__Kv__BlockHeader block(Baton__Kv__RequestId *id)
{
    Baton__Kv__BlockHeader b = BATON__KV__BLOCK_HEADER__INIT;
    *id = (Baton__Kv__RequestId)BATON__KV__REQUEST_ID__INIT;
    id->incarnation = 7;
    id->counter = 9;
    b.request = id;
    b.epoch = 1;
    b.reservation = 5;
    b.fingerprint = 0x1122334455667788;
    b.codec = BATON__KV__CODEC__INT8;
    b.l1 = 2;
    b.h1 = 3;
    b.t1 = 100;
    b.n_bytes = 2 * 3 * 100 * 136;
    return b;
}

static size_t pack_block(uint8_t *buf, Baton__Kv__BlockHeader *b, struct bytes payload)
{
    Baton__Kv__KvMessage m = BATON__KV__KV_MESSAGE__INIT;
    m.body_case = BATON__KV__KV_MESSAGE__BODY_BLOCK;
    m.block = b;
    return kv_wire_pack(&m, payload, buf);
}

Test(kv_wire, opens_what_was_packed)
{
    struct codec_arena *a = codec_arena_create(KV_WIRE_ARENA);
    Baton__Kv__RequestId id;
    Baton__Kv__BlockHeader b = block(&id);
    struct cache_geometry g = geometry();
    Baton__Kv__KvMessage *m;
    struct bytes payload = { mem_zalloc(b.n_bytes), b.n_bytes };
    uint8_t buf[CODEC_HEADER_MAX];
    struct kv_wire_id wid;
    size_t n = pack_block(buf, &b, payload);

    cr_assert_gt(n, 0);
    cr_assert_eq(kv_wire_open(a, bytes_of(buf, n), &m, NULL), OK);
    cr_assert_eq(kv_wire_check_payload(m, payload, NULL), OK);
    cr_assert_eq(kv_wire_check_block(m->block, &g, 100, NULL), OK);
    cr_assert(kv_wire_message_id(m, &wid));
    cr_assert(wid.hi == 7 && wid.lo == 9 && wid.epoch == 1 && wid.reservation == 5);
    mem_free((void *)(uintptr_t)payload.p);
    codec_arena_destroy(a);
}

Test(kv_wire, notices_every_flipped_bit_of_header_and_payload)
{
    struct codec_arena *a = codec_arena_create(KV_WIRE_ARENA);
    Baton__Kv__RequestId id;
    Baton__Kv__BlockHeader b = block(&id);
    Baton__Kv__KvMessage *m;
    uint8_t bytes[64] = { 1, 2, 3 }, buf[CODEC_HEADER_MAX];
    struct bytes payload = { bytes, sizeof(bytes) };
    size_t n;

    b.n_bytes = sizeof(bytes);
    n = pack_block(buf, &b, payload);
    for (size_t bit = 0; bit < (n + sizeof(bytes)) * 8; bit++) {
        uint8_t *p = bit < n * 8 ? &buf[bit / 8] : &bytes[bit / 8 - n];
        *p ^= (uint8_t)(1U << bit % 8);
        cr_assert(kv_wire_open(a, bytes_of(buf, n), &m, NULL) != OK ||
                      m->body_case != BATON__KV__KV_MESSAGE__BODY_BLOCK ||
                      kv_wire_check_payload(m, payload, NULL) != OK,
                  "bit %zu", bit);
        *p ^= (uint8_t)(1U << bit % 8);
    }
    cr_assert_eq(kv_wire_open(a, bytes_of(buf, n), &m, NULL), OK);
    cr_assert_eq(kv_wire_check_payload(m, payload, NULL), OK);
    codec_arena_destroy(a);
}

Test(kv_wire, control_messages_carry_their_own_checksum)
{
    struct codec_arena *a = codec_arena_create(KV_WIRE_ARENA);
    Baton__Kv__RequestId id = BATON__KV__REQUEST_ID__INIT;
    Baton__Kv__Commit c = BATON__KV__COMMIT__INIT;
    Baton__Kv__KvMessage m = BATON__KV__KV_MESSAGE__INIT, *out;
    uint8_t buf[CODEC_HEADER_MAX];
    size_t n;

    c.request = &id;
    c.first_token = -1;
    c.n_tokens = 77;
    m.body_case = BATON__KV__KV_MESSAGE__BODY_COMMIT;
    m.commit = &c;
    n = kv_wire_pack(&m, (struct bytes){ NULL, 0 }, buf);
    cr_assert_eq(kv_wire_open(a, bytes_of(buf, n), &out, NULL), OK);
    cr_assert_eq(out->commit->n_tokens, 77);
    cr_assert_eq(out->commit->first_token, -1);
    for (size_t bit = 0; bit < n * 8; bit++) {
        buf[bit / 8] ^= (uint8_t)(1U << bit % 8);
        /* Bits of a varint beyond the field's width are not part of its value. */
        if (kv_wire_open(a, bytes_of(buf, n), &out, NULL) == OK && out->body_case != BATON__KV__KV_MESSAGE__BODY_BLOCK)
            cr_assert(out->commit->n_tokens == 77 && out->commit->first_token == -1, "bit %zu", bit);
        buf[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
    codec_arena_destroy(a);
}

Test(kv_wire, notes_of_every_kind_open_and_name_their_transfer)
{
    struct codec_arena *a = codec_arena_create(KV_WIRE_ARENA);
    const struct kv_wire_id id = { 11, 12, 13, 14 };
    for (int kind = BATON__KV__KV_MESSAGE__BODY_HELLO; kind <= BATON__KV__KV_MESSAGE__BODY_STATE; kind++) {
        const bool is_about = kind != BATON__KV__KV_MESSAGE__BODY_HELLO &&
                              kind != BATON__KV__KV_MESSAGE__BODY_HELLO_ACK &&
                              kind != BATON__KV__KV_MESSAGE__BODY_LANE_ACK;
        const struct cache_geometry g = geometry();
        struct cache_geometry_message gm;
        Baton__Kv__KvMessage *out;
        struct kv_wire_note note;
        struct kv_wire_id got;
        struct error err;
        uint8_t buf[CODEC_HEADER_MAX];
        kv_wire_note_init(&note, (Baton__Kv__KvMessage__BodyCase)kind, is_about ? &id : NULL);
        cache_geometry_pack(&gm, &g);
        if (kind == BATON__KV__KV_MESSAGE__BODY_HELLO) note.hello.geometry = &gm.msg;
        const size_t n = kv_wire_pack(&note.m, (struct bytes){ NULL, 0 }, buf);
        cr_assert_eq(kv_wire_open(a, bytes_of(buf, n), &out, &err), OK, "kind %d: %s", kind, err.text);
        cr_assert_eq((int)out->body_case, kind);
        cr_assert_eq(kv_wire_message_id(out, &got), is_about);
        if (is_about) cr_assert(got.hi == 11 && got.lo == 12 && got.epoch == 13 && got.reservation == 14);
    }
    codec_arena_destroy(a);
}

Test(kv_wire, refuses_ranges_that_do_not_fit)
{
    struct cache_geometry g = geometry();
    Baton__Kv__RequestId id;
    struct error err;
    const struct {
        uint32_t l0, l1, h0, h1, t0, t1;
    } bad[] = {
        { 0, 31, 0, 3, 0, 100 },
        { 2, 2, 0, 3, 0, 100 },
        { 3, 2, 0, 3, 0, 100 },
        { 0, 2, 0, 4, 0, 100 },
        { 0, 2, 2, 1, 0, 100 },
        { 0, 2, 0, 3, 1, 100 },
        { 0, 2, 0, 3, 64, 64 },
        { 0, 2, 0, 3, 0, 99 },
        { 0, 2, 0, 3, 0, 128 },
        { 0, 2, 0, 3, 128, 192 },
        { 0, UINT32_MAX, 0, UINT32_MAX, 0, 100 },
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        Baton__Kv__BlockHeader b = block(&id);
        struct kv_wire_range r = { bad[i].l0, bad[i].l1, bad[i].h0, bad[i].h1, bad[i].t0, bad[i].t1, 0 };
        b.l0 = r.l0, b.l1 = r.l1, b.h0 = r.h0, b.h1 = r.h1, b.t0 = r.t0, b.t1 = r.t1;
        b.n_bytes = (uint32_t)kv_wire_range_bytes(&g, &r);
        cr_assert_eq(kv_wire_check_block(&b, &g, 100, NULL), ERR_CORRUPT, "row %zu", i);
    }
    Baton__Kv__BlockHeader b = block(&id);
    b.n_bytes--;
    cr_assert_eq(kv_wire_check_block(&b, &g, 100, NULL), ERR_CORRUPT);
    b = block(&id);
    b.codec = BATON__KV__CODEC__F16;
    cr_assert_eq(kv_wire_check_block(&b, &g, 100, NULL), ERR_MISMATCH);
    b = block(&id);
    b.fingerprint++;
    cr_assert_eq(kv_wire_check_block(&b, &g, 100, NULL), ERR_MISMATCH);
    b = block(&id);
    b.group = 1;
    cr_assert_eq(kv_wire_check_block(&b, &g, 100, &err), ERR_CORRUPT);
    cr_assert_str_eq(err.text, "a frame of cache group 1 of 1");
    g = hybrid();
    b.codec = BATON__KV__CODEC__F32;
    cr_assert_eq(kv_wire_check_block(&b, &g, 100, &err), ERR_CORRUPT);
    cr_assert_not_null(strstr(err.text, "blocks for cache group 1, which is of kind snapshot"), "%s", err.text);
    b = block(&id);
    b.l0 = 23, b.l1 = 25;
    cr_assert_eq(kv_wire_check_block(&b, &g, 100, NULL), ERR_CORRUPT, "the group has 24 layers");
}

Test(kv_wire, a_token_of_smollm2_takes_12240_bytes)
{
    struct cache_geometry g = geometry();
    struct kv_wire_range r = { 0, 30, 0, 3, 0, 1, 0 };
    cr_assert_eq(kv_wire_range_bytes(&g, &r), 12240);
    g.groups[0].codec = BATON__KV__CODEC__F16;
    cr_assert_eq(kv_wire_range_bytes(&g, &r), 30 * 3 * 2 * 128);
}

static Baton__Kv__StateHeader state(Baton__Kv__RequestId *id)
{
    Baton__Kv__StateHeader s = BATON__KV__STATE_HEADER__INIT;
    Baton__Kv__BlockHeader b = block(id);
    s.request = b.request;
    s.epoch = b.epoch;
    s.reservation = b.reservation;
    s.fingerprint = b.fingerprint;
    s.codec = BATON__KV__CODEC__F32;
    s.group = 1;
    s.layer = 5;
    s.h1 = 2;
    s.n_bytes = 2 * 160000;
    s.position = 100;
    return s;
}

Test(kv_wire, parts_of_a_snapshot_open_and_carry_a_checksum)
{
    struct codec_arena *a = codec_arena_create(KV_WIRE_ARENA);
    Baton__Kv__KvMessage m = BATON__KV__KV_MESSAGE__INIT, *out;
    Baton__Kv__RequestId id;
    Baton__Kv__StateHeader s = state(&id);
    uint8_t bytes[64] = { 1, 2, 3 }, buf[CODEC_HEADER_MAX];
    struct bytes payload = { bytes, sizeof(bytes) };
    struct kv_wire_id wid;

    s.n_bytes = sizeof(bytes);
    m.body_case = BATON__KV__KV_MESSAGE__BODY_STATE;
    m.state = &s;
    cr_assert(kv_wire_has_payload(&m));
    size_t n = kv_wire_pack(&m, payload, buf);
    cr_assert_eq(kv_wire_open(a, bytes_of(buf, n), &out, NULL), OK);
    cr_assert_eq(kv_wire_check_payload(out, payload, NULL), OK);
    cr_assert(kv_wire_message_id(out, &wid));
    cr_assert(wid.hi == 7 && wid.lo == 9 && wid.epoch == 1 && wid.reservation == 5);
    bytes[63] ^= 1;
    cr_assert_eq(kv_wire_check_payload(out, payload, NULL), ERR_CORRUPT);
    bytes[63] ^= 1;
    out->state->layer ^= 1;
    cr_assert_eq(kv_wire_check_payload(out, payload, NULL), ERR_CORRUPT);
    codec_arena_destroy(a);
}

Test(kv_wire, parts_of_a_snapshot_are_whole_heads_or_units_of_one)
{
    struct cache_geometry g = hybrid(), plain = geometry();
    Baton__Kv__RequestId id;
    struct error err;
    const struct {
        uint32_t layer, h0, h1, offset, n_bytes, position;
        enum status st;
    } rows[] = {
        { 5, 0, 2, 0, 320000, 100, OK },
        { 0, 39, 40, 0, 160000, 100, OK },
        { 0, 39, 40, 0, 65536, 100, OK },
        { 0, 39, 40, 65536, 160000 - 65536, 100, OK },
        { 6, 0, 2, 0, 320000, 100, ERR_CORRUPT },             /* no such layer in the group */
        { 5, 0, 41, 0, 41 * 160000, 100, ERR_CORRUPT },       /* no such head */
        { 5, 1, 1, 0, 0, 100, ERR_CORRUPT },                  /* nothing */
        { 5, 0, 40, 0, 40 * 160000, 100, ERR_CORRUPT },       /* more than a frame may have */
        { 5, 0, 2, 0, 319999, 100, ERR_CORRUPT },             /* not all of both */
        { 5, 0, 2, 65536, 320000 - 65536, 100, ERR_CORRUPT }, /* parts are of one head */
        { 5, 0, 1, 4, 65536, 100, ERR_CORRUPT },              /* between units */
        { 5, 0, 1, 65536, 100, 100, ERR_CORRUPT },            /* ends between units */
        { 5, 0, 1, 131072, 65536, 100, ERR_CORRUPT },         /* beyond the state */
        { 5, 0, 1, 0, 0, 100, ERR_CORRUPT },                  /* empty */
        { 5, 0, 1, UINT32_MAX - 65535, 65536, 100, ERR_CORRUPT },
        { 5, 0, 2, 0, 320000, 99, ERR_CORRUPT }, /* not the state of this prompt */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        Baton__Kv__StateHeader s = state(&id);
        s.layer = rows[i].layer, s.h0 = rows[i].h0, s.h1 = rows[i].h1;
        s.offset = rows[i].offset, s.n_bytes = rows[i].n_bytes, s.position = rows[i].position;
        cr_assert_eq(kv_wire_check_state(&s, &g, 100, &err), rows[i].st, "row %zu", i);
    }
    Baton__Kv__StateHeader s = state(&id);
    s.codec = BATON__KV__CODEC__BF16;
    cr_assert_eq(kv_wire_check_state(&s, &g, 100, NULL), ERR_MISMATCH);
    s = state(&id);
    cr_assert_eq(kv_wire_check_state(&s, &plain, 100, NULL), ERR_CORRUPT, "there is one group");
    s.group = 0;
    s.codec = BATON__KV__CODEC__INT8;
    cr_assert_eq(kv_wire_check_state(&s, &plain, 100, &err), ERR_CORRUPT);
    cr_assert_not_null(strstr(err.text, "a part of a snapshot for cache group 0, which is of kind K and V"), "%s",
                       err.text);
}
