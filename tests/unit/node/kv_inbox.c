/* kv_inbox: only exact coverage completes a transfer; whatever else comes closes it or is dropped. */
#include "node/kv_inbox.h"

#include "helpers/kv_fake.h"

#include <criterion/criterion.h>

#define SESSION  77
#define N_TOKENS 200 /* three full blocks and a part of a fourth */

static struct cache_geometry geom;
static struct kv_store *from, *to;
static struct kv_map *from_map, *to_map;
static struct kv_inbox *in;
static const kv_block_id from_blocks[] = { 5, 1, 3, 7 };
static const kv_block_id to_blocks[] = { 2, 0, 6, 4 };
static uint8_t payload[KV_WIRE_FRAME_MAX];

static void start_with(const struct cache_geometry *g, uint64_t credit)
{
    geom = *g;
    from = fake_store(&geom, 8, true);
    to = fake_store(&geom, 8, false);
    from_map = fake_map(from);
    to_map = fake_map(to);
    in = kv_inbox_create(to_map, &geom);
    cr_assert_eq(kv_inbox_add(in, &(struct kv_offer){ .key = { 1, 2, 3 },
                                                      .reservation = 9,
                                                      .blocks = to_blocks,
                                                      .n_blocks = 4,
                                                      .n_tokens = N_TOKENS,
                                                      .credit_bytes = credit }),
                 OK);
}

static void start(uint64_t credit)
{
    const struct cache_geometry g = fake_geometry(4, 3, 64);
    start_with(&g, credit);
}

static void stop(void)
{
    kv_inbox_destroy(in);
    kv_map_destroy(from_map);
    kv_map_destroy(to_map);
    fake_store_free(from);
    fake_store_free(to);
}

static uint64_t total(void)
{
    return kv_cover_expected_bytes(&geom, N_TOKENS, 0);
}

/* What a change to a frame is made with. */
struct change {
    uint32_t epoch, flip;
    uint64_t reservation, session;
    bool resum; /* the checksum is right again after the change */
    uint32_t add_bytes;
};

static enum kv_inbox_verdict put(struct kv_wire_range r, struct change ch, struct kv_inbox_result *res)
{
    const struct kv_wire_id id = { 1, 2, ch.epoch ? ch.epoch : 3, ch.reservation ? ch.reservation : 9 };
    struct kv_wire_note note;
    Baton__Kv__BlockHeader *b = &note.block;
    uint8_t buf[CODEC_HEADER_MAX];
    size_t n = (size_t)kv_wire_range_bytes(&geom, &r);

    kv_wire_note_init(&note, BATON__KV__KV_MESSAGE__BODY_BLOCK, &id);
    b->fingerprint = geom.fingerprint;
    b->codec = geom.groups[r.group].codec;
    b->group = r.group;
    b->l0 = r.l0, b->l1 = r.l1, b->h0 = r.h0, b->h1 = r.h1, b->t0 = r.t0, b->t1 = r.t1;
    b->n_bytes = (uint32_t)n + ch.add_bytes;
    if (r.t1 <= N_TOKENS && r.l1 <= geom.groups[r.group].n_layers)
        cr_assert_eq(kv_cut_pack(from_map, &geom, &r, from_blocks + r.t0 / 64, payload), OK);
    if (ch.flip && ch.resum) payload[ch.flip] = 0x80;
    kv_wire_pack(&note.m, bytes_of(payload, b->n_bytes), buf);
    if (ch.flip && !ch.resum) payload[ch.flip] ^= 1;
    memset(res, 0, sizeof(*res));
    return kv_inbox_data(in, ch.session ? ch.session : SESSION, &note.m, bytes_of(payload, b->n_bytes), res);
}

static enum kv_inbox_verdict commit(uint32_t n_tokens, uint64_t bytes, struct kv_inbox_result *res)
{
    Baton__Kv__Commit c = BATON__KV__COMMIT__INIT;
    Baton__Kv__RequestId id = BATON__KV__REQUEST_ID__INIT;

    id.incarnation = 1;
    id.counter = 2;
    c.request = &id;
    c.epoch = 3;
    c.reservation = 9;
    c.n_tokens = n_tokens;
    c.n_bytes = bytes;
    c.first_token = 123;
    memset(res, 0, sizeof(*res));
    return kv_inbox_commit(in, SESSION, &c, res);
}

static const struct kv_wire_range all = { 0, 4, 0, 3, 0, N_TOKENS };

Test(kv_inbox, completes_when_all_is_covered_and_committed_in_any_order)
{
    for (uint64_t max = 1; max < 1 << 20; max *= 3)
        for (int early = 0; early < 2; early++) {
            struct kv_inbox_result res;
            enum kv_inbox_verdict v = KV_INBOX_STORED;
            struct kv_cut_walk w = kv_cut_walk_of(&all);

            start(1 << 20);
            if (early) cr_assert_eq(commit(N_TOKENS, total(), &res), KV_INBOX_STORED);
            while (kv_cut_walk_has_next(&w)) {
                struct kv_wire_range r = kv_cut_walk_peek(&w, &geom, max);
                cr_assert_eq(v, KV_INBOX_STORED);
                v = put(r, (struct change){ 0 }, &res);
                cr_assert_eq(res.credit, kv_wire_range_bytes(&geom, &r));
                kv_cut_walk_pass(&w, &r);
            }
            if (!early) {
                cr_assert_eq(v, KV_INBOX_STORED);
                v = commit(N_TOKENS, total(), &res);
            }
            cr_assert_eq(v, KV_INBOX_COMPLETE);
            cr_assert_eq(res.first_token, 123);
            cr_assert_eq(res.bytes, total());
            cr_assert(fake_same(from, from_blocks, to, to_blocks, N_TOKENS));
            cr_assert_eq(put(all, (struct change){ 0 }, &res), KV_INBOX_STALE);
            stop();
        }
}

Test(kv_inbox, takes_as_much_as_was_granted_and_no_byte_more)
{
    for (int less = 0; less < 2; less++) {
        struct kv_cut_walk w = kv_cut_walk_of(&all);
        struct kv_inbox_result res;
        start(1); /* for the geometry */
        const struct kv_wire_range first = kv_cut_walk_peek(&w, &geom, 1 << 14);
        const uint64_t bytes = kv_wire_range_bytes(&geom, &first);
        stop();
        start(bytes - (uint64_t)less);
        cr_assert_eq(put(first, (struct change){ 0 }, &res), less ? KV_INBOX_FAILED : KV_INBOX_STORED);
        stop();
    }
}

/* Each frame of each group but one, then the commit, then that one: a transfer waits for all groups alike. */
Test(kv_inbox, completes_when_all_groups_are_covered)
{
    const struct cache_geometry g = fake_interleaved(7, 3, 64);
    for (uint32_t last = 0; last < 2; last++) {
        const uint32_t n_layers[2] = { g.groups[0].n_layers, g.groups[1].n_layers };
        struct kv_inbox_result res;
        start_with(&g, 1 << 20);
        cr_assert(n_layers[0] == 3 && n_layers[1] == 4);
        const struct kv_wire_range other = { 0, n_layers[!last], 0, 3, 0, N_TOKENS, !last };
        const struct kv_wire_range most = { 0, n_layers[last] - 1, 0, 3, 0, N_TOKENS, last };
        const struct kv_wire_range rest = { n_layers[last] - 1, n_layers[last], 0, 3, 0, N_TOKENS, last };
        cr_assert_eq(put(other, (struct change){ 0 }, &res), KV_INBOX_STORED);
        cr_assert_eq(put(most, (struct change){ 0 }, &res), KV_INBOX_STORED);
        cr_assert_eq(commit(N_TOKENS, total(), &res), KV_INBOX_STORED);
        cr_assert_eq(put(rest, (struct change){ 0 }, &res), KV_INBOX_COMPLETE);
        cr_assert_eq(res.bytes, total());
        cr_assert(fake_same(from, from_blocks, to, to_blocks, N_TOKENS));
        stop();
    }
}

#define FROM_SLOT 3
#define TO_SLOT   1

/* Heads [h0, h1) of a layer's states, as they are in the sender's slot. */
static enum kv_inbox_verdict put_states(struct kv_wire_state s, uint32_t position, struct kv_inbox_result *res)
{
    const struct kv_wire_id id = { 1, 2, 3, 9 };
    struct kv_wire_note note;
    uint8_t buf[CODEC_HEADER_MAX];

    kv_wire_note_init(&note, BATON__KV__KV_MESSAGE__BODY_STATE, &id);
    note.state.fingerprint = geom.fingerprint;
    note.state.codec = geom.groups[s.group].codec;
    note.state.group = s.group;
    note.state.layer = s.layer;
    note.state.h0 = s.h0, note.state.h1 = s.h1, note.state.offset = s.offset;
    note.state.n_bytes = s.n_bytes;
    note.state.position = position;
    kv_wire_pack(&note.m, bytes_of(payload, s.n_bytes), buf);
    memset(res, 0, sizeof(*res));
    return kv_inbox_data(in, SESSION, &note.m, bytes_of(payload, s.n_bytes), res);
}

static enum kv_inbox_verdict put_all_states(uint32_t group, uint64_t max, uint32_t position,
                                            struct kv_inbox_result *res)
{
    enum kv_inbox_verdict v = KV_INBOX_STORED;
    struct kv_state_walk w = kv_state_walk_of(group, 0, geom.groups[group].n_layers);
    while (kv_state_walk_has_next(&w)) {
        const struct kv_wire_state s = kv_state_walk_peek(&w, &geom, max);
        cr_assert_eq(v, KV_INBOX_STORED);
        cr_assert_eq(kv_cut_pack_state(from_map, &geom, &s, FROM_SLOT, payload), OK);
        v = put_states(s, position, res);
        kv_state_walk_pass(&w, &geom, &s);
    }
    return v;
}

static void start_hybrid(void)
{
    const struct cache_geometry g = fake_hybrid(9, 3, 64);
    const struct kv_offer offer = { { 1, 2, 3 }, 9, to_blocks, 4, N_TOKENS, 0, 1 << 20, TO_SLOT };
    start_with(&g, 1 << 20);
    kv_inbox_close(in, &offer.key);
    cr_assert_eq(kv_inbox_add(in, &offer), OK);
}

Test(kv_inbox, a_snapshot_for_a_group_of_another_kind_ends_the_transfer)
{
    struct kv_inbox_result res;
    start(1 << 20);
    cr_assert_eq(put_states((struct kv_wire_state){ .h1 = 1, .n_bytes = 100 }, N_TOKENS, &res), KV_INBOX_FAILED);
    cr_assert_not_null(strstr(res.err.text, "a part of a snapshot for cache group 0, which is of kind K and V"), "%s",
                       res.err.text);
    stop();
}

/* In frames of one head and of all, before and after the blocks. */
Test(kv_inbox, a_hybrid_is_whole_once_its_blocks_and_both_parts_of_its_states_are_there)
{
    for (uint64_t max = 1; max < 1 << 20; max *= 10)
        for (uint32_t last = 0; last < 3; last++) {
            struct kv_inbox_result res;
            enum kv_inbox_verdict v = KV_INBOX_STORED;
            start_hybrid();
            cr_assert_eq(kv_cut_check_map(to_map, &geom, &res.err), OK, "%s", res.err.text);
            cr_assert_eq(commit(N_TOKENS, total(), &res), KV_INBOX_STORED);
            for (uint32_t i = 1; i <= 3; i++) {
                const uint32_t group = (last + i) % 3;
                const struct kv_wire_range blocks = { 0, geom.groups[0].n_layers, 0, 3, 0, N_TOKENS, 0 };
                cr_assert_eq(v, KV_INBOX_STORED);
                v = group == 0 ? put(blocks, (struct change){ 0 }, &res) : put_all_states(group, max, N_TOKENS, &res);
            }
            cr_assert_eq(v, KV_INBOX_COMPLETE);
            cr_assert_eq(res.bytes, total());
            cr_assert(fake_same(from, from_blocks, to, to_blocks, N_TOKENS));
            cr_assert(fake_same_states(from, FROM_SLOT, to, TO_SLOT));
            cr_assert_not(fake_same_states(from, FROM_SLOT, to, TO_SLOT + 1));
            stop();
        }
}

Test(kv_inbox, refuses_states_that_are_not_those_of_the_prompts_end)
{
    const struct {
        struct kv_wire_state s;
        uint32_t position;
        const char *says;
    } rows[] = {
        { { .h1 = 3, .n_bytes = 3 * 448, .group = 2 }, N_TOKENS - 1, "a snapshot after 199 tokens, expected is" },
        { { .h1 = 4, .n_bytes = 4 * 448, .group = 2 }, N_TOKENS, "heads [0, 4) of a frame are not within [0, 3)" },
        { { .layer = 2, .h1 = 1, .n_bytes = 448, .group = 2 }, N_TOKENS, "layer 2 of cache group 2, which has 2" },
        { { .h1 = 2, .n_bytes = 448, .group = 2 }, N_TOKENS, "neither all of them nor a part of one" },
        { { .h1 = 1, .n_bytes = 444, .group = 2 }, N_TOKENS, "neither all of them nor a part of one" },
    };
    struct kv_inbox_result res;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        start_hybrid();
        memset(payload, 0, 4096);
        cr_assert_eq(put_states(rows[i].s, rows[i].position, &res), KV_INBOX_FAILED);
        cr_assert(strstr(res.err.text, rows[i].says), "%s", res.err.text);
        stop();
    }
}

Test(kv_inbox, refuses_states_that_come_twice_or_are_not_finite)
{
    const struct kv_wire_state s = { .h0 = 1, .h1 = 2, .n_bytes = 448, .group = 2 };
    const float bad[] = { NAN, INFINITY, -INFINITY };
    struct kv_inbox_result res;
    start_hybrid();
    memset(payload, 0, 4096);
    cr_assert_eq(put_states(s, N_TOKENS, &res), KV_INBOX_STORED);
    cr_assert_eq(put_states(s, N_TOKENS, &res), KV_INBOX_FAILED);
    cr_assert_not_null(strstr(res.err.text, "came twice or uncalled for"), "%s", res.err.text);
    stop();
    for (size_t i = 0; i < 3; i++) {
        start_hybrid();
        memset(payload, 0, 4096);
        memcpy(payload + 444, &bad[i], sizeof(float));
        cr_assert_eq(put_states(s, N_TOKENS, &res), KV_INBOX_FAILED);
        cr_assert_eq(res.err.status, ERR_CORRUPT);
        cr_assert_eq(commit(N_TOKENS, total(), &res), KV_INBOX_STALE);
        stop();
    }
}

Test(kv_inbox, an_offer_of_a_hybrid_needs_a_slot)
{
    const struct cache_geometry g = fake_hybrid(9, 3, 64);
    struct kv_offer offer = { { 1, 2, 4 }, 9, to_blocks, 4, N_TOKENS, 0, 1 << 20, FAKE_SLOTS };
    start_with(&g, 1 << 20);
    cr_assert_eq(kv_inbox_add(in, &offer), ERR_INVALID);
    offer.slot = STATE_SLOT_NONE;
    cr_assert_eq(kv_inbox_add(in, &offer), ERR_INVALID);
    offer.slot = FAKE_SLOTS - 1;
    cr_assert_eq(kv_inbox_add(in, &offer), OK);
    stop();
}

Test(kv_inbox, a_geometry_that_is_not_that_of_the_memory_is_refused_by_name)
{
    struct cache_geometry g = fake_interleaved(7, 3, 64);
    struct error err;
    start_with(&g, 1 << 20);
    cr_assert_eq(kv_cut_check_map(to_map, &g, NULL), OK);
    g.groups[1].kind = BATON__KV__CACHE_KIND__WINDOW;
    g.groups[1].window = 100;
    cr_assert_eq(kv_cut_check_map(to_map, &g, &err), ERR_UNSUPPORTED);
    cr_assert(strstr(err.text, "cache group 1 of kind sliding window") && strstr(err.text, "has K and V of 3"), "%s",
              err.text);
    g.groups[1].kind = BATON__KV__CACHE_KIND__LATENT;
    g.groups[1].window = 0;
    cr_assert_eq(kv_cut_check_map(to_map, &g, &err), ERR_UNSUPPORTED);
    cr_assert(strstr(err.text, "cache group 1 of kind latent") && strstr(err.text, "has K and V of 3"), "%s", err.text);
    g.groups[1].kind = BATON__KV__CACHE_KIND__SNAPSHOT;
    cr_assert_eq(kv_cut_check_map(to_map, &g, &err), ERR_UNSUPPORTED);
    cr_assert(strstr(err.text, "cache group 1 of kind snapshot") && strstr(err.text, "states of 0"), "%s", err.text);
    g = geom;
    g.groups[1].head_dim = 80;
    cr_assert_eq(kv_cut_check_map(to_map, &g, &err), ERR_UNSUPPORTED);
    cr_assert(strstr(err.text, "3 heads of 80") && strstr(err.text, "3 heads of 64"), "%s", err.text);
    g = fake_geometry(6, 3, 64);
    cr_assert_eq(kv_cut_check_map(to_map, &g, &err), ERR_UNSUPPORTED);
    cr_assert_str_eq(err.text, "a cache of 6 layers, where the memory has 7");
    stop();
}

Test(kv_inbox, refuses_what_came_before)
{
    struct kv_inbox_result res;
    start(1 << 20);
    cr_assert_eq(put((struct kv_wire_range){ 1, 2, 1, 2, 64, 128 }, (struct change){ 0 }, &res), KV_INBOX_STORED);
    cr_assert_eq(put(all, (struct change){ 0 }, &res), KV_INBOX_FAILED);
    cr_assert_eq(res.err.status, ERR_CORRUPT);
    cr_assert_eq(kv_inbox_n_open(in), 0);
    cr_assert_eq(put(all, (struct change){ 0 }, &res), KV_INBOX_STALE);
    stop();
}

Test(kv_inbox, drops_frames_of_other_epochs_reservations_and_sessions)
{
    struct kv_inbox_result res;
    const struct change stale[] = { { .epoch = 2 }, { .epoch = 4 }, { .reservation = 8 }, { .session = 5 } };
    start(1 << 20);
    cr_assert_eq(put((struct kv_wire_range){ 0, 1, 0, 3, 0, 64 }, (struct change){ 0 }, &res), KV_INBOX_STORED);
    for (size_t i = 0; i < 4; i++)
        cr_assert_eq(put((struct kv_wire_range){ 1, 2, 0, 3, 0, 64 }, stale[i], &res), KV_INBOX_STALE);
    cr_assert_eq(kv_inbox_n_open(in), 1);
    stop();
}

Test(kv_inbox, closes_the_epoch_on_a_flipped_bit_and_on_values_no_sender_makes)
{
    struct kv_inbox_result res;
    start(1 << 20);
    cr_assert_eq(put(all, (struct change){ .flip = 100 }, &res), KV_INBOX_FAILED);
    cr_assert_eq(res.err.status, ERR_CORRUPT);
    stop();
    start(1 << 20);
    cr_assert_eq(put(all, (struct change){ .flip = 100, .resum = true }, &res), KV_INBOX_FAILED);
    cr_assert_eq(res.err.status, ERR_CORRUPT);
    cr_assert_eq(commit(N_TOKENS, total(), &res), KV_INBOX_STALE);
    stop();
}

Test(kv_inbox, refuses_ranges_sizes_and_bytes_beyond_the_credit)
{
    struct kv_inbox_result res;
    const struct kv_wire_range bad[] = { { 0, 5, 0, 3, 0, 64 }, { 0, 1, 0, 3, 0, 100 }, { 0, 1, 0, 3, 192, 256 } };
    for (size_t i = 0; i < 3; i++) {
        start(1 << 20);
        cr_assert_eq(put(bad[i], (struct change){ 0 }, &res), KV_INBOX_FAILED, "row %zu", i);
        stop();
    }
    start(1 << 20);
    cr_assert_eq(put(all, (struct change){ .add_bytes = 4 }, &res), KV_INBOX_FAILED);
    stop();
    start(100);
    cr_assert_eq(put(all, (struct change){ 0 }, &res), KV_INBOX_FAILED);
    cr_assert_eq(res.err.status, ERR_TOO_LARGE);
    stop();
    start(1 << 20);
    cr_assert_eq(commit(N_TOKENS - 1, total(), &res), KV_INBOX_FAILED);
    stop();
    start(1 << 20);
    cr_assert_eq(commit(N_TOKENS, total() - 1, &res), KV_INBOX_FAILED);
    stop();
}

Test(kv_inbox, does_not_expect_tokens_of_a_prefix_hit)
{
    struct kv_inbox_result res;
    const struct kv_wire_range rest = { 0, 4, 0, 3, 64, N_TOKENS };
    start(1 << 20);
    kv_inbox_close(in, &(struct seq_key){ 1, 2, 3 });
    cr_assert_eq(kv_inbox_add(in, &(struct kv_offer){ { 1, 2, 3 }, 9, to_blocks, 4, N_TOKENS, 64, 1 << 20 }), OK);
    cr_assert_eq(commit(N_TOKENS, kv_cover_expected_bytes(&geom, N_TOKENS, 64), &res), KV_INBOX_STORED);
    cr_assert_eq(put(rest, (struct change){ 0 }, &res), KV_INBOX_COMPLETE);
    stop();
}

Test(kv_inbox, forgets_closed_offers_and_checks_new_ones)
{
    struct kv_inbox_result res;
    const struct kv_offer good = { { 1, 2, 3 }, 9, to_blocks, 4, N_TOKENS, 0, 1 << 20 };
    struct kv_offer bad = good;
    start(1 << 20);
    cr_assert_eq(kv_inbox_add(in, &good), ERR_INVALID);
    kv_inbox_close(in, &good.key);
    kv_inbox_close(in, &good.key);
    cr_assert_eq(put(all, (struct change){ 0 }, &res), KV_INBOX_STALE);
    bad.n_blocks = 3;
    cr_assert_eq(kv_inbox_add(in, &bad), ERR_INVALID);
    bad = good;
    bad.n_tokens = 0;
    cr_assert_eq(kv_inbox_add(in, &bad), ERR_INVALID);
    bad = good;
    bad.hit_tokens = 65;
    cr_assert_eq(kv_inbox_add(in, &bad), ERR_INVALID);
    stop();
}

Test(kv_inbox, fails_what_a_lost_session_was_feeding)
{
    struct kv_inbox_result res;
    struct error why;
    error_set(&why, ERR_CORRUPT, "torn");
    start(1 << 20);
    cr_assert_not(kv_inbox_fail_session(in, SESSION, &why, &res));
    put((struct kv_wire_range){ 0, 1, 0, 3, 0, 64 }, (struct change){ 0 }, &res);
    cr_assert_not(kv_inbox_fail_session(in, SESSION + 1, &why, &res));
    cr_assert(kv_inbox_fail_session(in, SESSION, &why, &res));
    cr_assert_eq(res.id.lo, 2);
    cr_assert_not(kv_inbox_fail_session(in, SESSION, &why, &res));
    stop();
}
