/* kv_cover: every expected cell of every group comes exactly once, whatever its kind and whatever the order. */
#include "node/kv_cover.h"

#include "base/mem.h"

#include <criterion/criterion.h>

#define KIND(name)  BATON__KV__CACHE_KIND__##name
#define CODEC(name) BATON__KV__CODEC__##name
#define N_TOKENS    300

static struct cache_geometry hybrid(void)
{
    struct cache_geometry g = {
        .n_layers = 8,
        .n_groups = 4,
        .groups = { { KIND(SNAPSHOT), CODEC(F32), 0, 3, 3, 40000, 0, 0, 0 }, /* 160,000 bytes a head: 3 units */
                    { KIND(KV), CODEC(INT8), 3, 2, 2, 64, 64, 0, 0 },
                    { KIND(WINDOW), CODEC(INT8), 5, 2, 2, 64, 64, 100, 0 },
                    { KIND(CACHE_NONE), CODEC(CODEC_NONE), 7, 1, 0, 0, 0, 0, 0 } },
        .layers = { 0, 1, 2, 3, 7, 4, 5, 6 },
    };
    return g;
}

static bool put(struct kv_cover *c, struct kv_cells cells)
{
    if (!kv_cover_claim(c, &cells)) return false;
    kv_cover_store(c, &cells);
    return true;
}

static bool put_block(struct kv_cover *c, struct kv_wire_range r)
{
    return put(c, kv_cover_of_block(c, &r));
}

static bool put_state(struct kv_cover *c, struct kv_wire_state s)
{
    return put(c, kv_cover_of_state(c, &s));
}

Test(kv_cover, is_whole_when_all_groups_are)
{
    struct cache_geometry g = hybrid();
    struct kv_cover *c;
    uint64_t n;
    cr_assert_eq(kv_cover_create(&c, &g, N_TOKENS, 0), OK);
    for (uint32_t l = 0; l < 3; l++) {
        cr_assert(!kv_cover_is_whole(c));
        cr_assert(put_state(c, (struct kv_wire_state){ l, 0, 2, 0, 2 * 160000, 0 }));           /* two heads whole */
        cr_assert(put_state(c, (struct kv_wire_state){ l, 2, 3, 131072, 160000 - 131072, 0 })); /* one in parts */
        cr_assert(put_state(c, (struct kv_wire_state){ l, 2, 3, 0, 131072, 0 }));
    }
    cr_assert_eq(kv_cover_first_gap(c, &n), 1);
    cr_assert_eq(n, 2 * 2 * 5);
    cr_assert(put_block(c, (struct kv_wire_range){ 0, 2, 0, 2, 64, N_TOKENS, 1 }));
    cr_assert(put_block(c, (struct kv_wire_range){ 0, 1, 0, 2, 0, 64, 1 }));
    cr_assert(put_block(c, (struct kv_wire_range){ 1, 2, 0, 1, 0, 64, 1 }));
    cr_assert(put_block(c, (struct kv_wire_range){ 1, 2, 1, 2, 0, 64, 1 }));
    cr_assert_eq(kv_cover_first_gap(c, &n), 2);
    cr_assert_eq(n, 2 * 2 * 2, "blocks 3 and 4 hold the last 100 of 300 tokens");
    cr_assert(put_block(c, (struct kv_wire_range){ 0, 2, 0, 2, 192, N_TOKENS, 2 }));
    cr_assert(kv_cover_is_whole(c));
    cr_assert_eq(kv_cover_first_gap(c, &n), 4);
    kv_cover_destroy(c);
}

Test(kv_cover, nothing_comes_twice_or_uncalled_for)
{
    struct cache_geometry g = hybrid();
    struct kv_cover *c;
    cr_assert_eq(kv_cover_create(&c, &g, N_TOKENS, 128), OK);
    cr_assert(!put_block(c, (struct kv_wire_range){ 0, 1, 0, 1, 64, 128, 1 }), "a hit");
    cr_assert(!put_block(c, (struct kv_wire_range){ 0, 1, 0, 1, 64, 192, 1 }), "half of it is");
    cr_assert(put_block(c, (struct kv_wire_range){ 0, 1, 0, 1, 128, 192, 1 }));
    cr_assert(!put_block(c, (struct kv_wire_range){ 0, 1, 0, 2, 128, 192, 1 }), "one head came before");
    cr_assert(put_block(c, (struct kv_wire_range){ 0, 1, 1, 2, 128, 192, 1 }), "and the other was not taken for it");
    cr_assert(!put_block(c, (struct kv_wire_range){ 0, 1, 0, 1, 128, 192, 2 }), "before the window");
    cr_assert(put_block(c, (struct kv_wire_range){ 0, 1, 0, 1, 192, 256, 2 }));
    cr_assert(put_state(c, (struct kv_wire_state){ 1, 2, 3, 65536, 65536, 0 }));
    cr_assert(!put_state(c, (struct kv_wire_state){ 1, 2, 3, 0, 160000, 0 }), "a unit of it came before");
    cr_assert(!put_state(c, (struct kv_wire_state){ 1, 0, 3, 0, 3 * 160000, 0 }));
    cr_assert(put_state(c, (struct kv_wire_state){ 1, 0, 2, 0, 2 * 160000, 0 }));
    kv_cover_destroy(c);
}

Test(kv_cover, expected_bytes_are_those_of_all_groups)
{
    struct cache_geometry g = hybrid();
    uint64_t states = 3 * 3 * 160000, token = 2 * 2 * 2 * 68;
    cr_assert_eq(kv_cover_expected_bytes(&g, N_TOKENS, 0), states + token * 300 + token * (300 - 192));
    cr_assert_eq(kv_cover_expected_bytes(&g, N_TOKENS, 256), states + token * 44 + token * 44);
    cr_assert_eq(kv_cover_expected_bytes(&g, 90, 0), states + token * 90 + token * 90);
}
