/* cache_groups: layers that keep the same make one group, wherever they stand; the node's own geometry fits its memory.
 */
#include "node/cache_groups.h"

#include "helpers/kv_fake.h"
#include "node/kv_cut.h"

#include <criterion/criterion.h>

/* What comes out of a memory that was made for `g` is `g`. */
static void expect_same(const struct cache_geometry *g)
{
    struct kv_store *kv = fake_store(g, 2, false);
    struct kv_map *map = fake_map(kv);
    struct cache_geometry out = { .fingerprint = g->fingerprint, .model_name = "fake" };
    struct error err = { OK, "" };
    cr_assert_eq(cache_groups_fill(&out, map, &err), OK, "%s", err.text);
    cr_assert_eq(cache_geometry_check_same(g, &out, "a", "b", &err), OK, "%s", err.text);
    cr_assert_eq(kv_cut_check_map(map, &out, &err), OK, "%s", err.text);
    kv_map_destroy(map);
    fake_store_free(kv);
}

Test(cache_groups, find_the_groups_of_every_kind_of_layer)
{
    struct cache_geometry g = fake_geometry(30, 3, 64);
    expect_same(&g);
    g = fake_hybrid(9, 3, 64);
    expect_same(&g);
    g = fake_hybrid(48, 2, 128);
    expect_same(&g);
    /* two shapes of heads in turn: layers 0 3 6, and the others */
    g = fake_interleaved(7, 3, 64);
    g.groups[1].head_dim = 128;
    g.groups[1].n_heads = 2;
    expect_same(&g);
    g = fake_windows(7, 3, 64, 100);
    expect_same(&g);
    /* layers that read another's cache */
    g = fake_interleaved(7, 3, 64);
    g.groups[1] = (struct cache_group){ .first = g.groups[1].first, .n_layers = g.groups[1].n_layers };
    expect_same(&g);
}

Test(cache_groups, know_which_part_of_a_state_a_group_is)
{
    struct cache_geometry g = fake_hybrid(9, 3, 64);
    struct kv_store *kv = fake_store(&g, 2, false);
    struct kv_map *map = fake_map(kv);
    cr_assert_eq(cache_group_part(&g, map, 1), STATE_TAIL);
    cr_assert_eq(cache_group_part(&g, map, 2), STATE_MATRIX);
    kv_map_destroy(map);
    for (uint32_t l = 3; l < 9; l += 4) {
        kv->states->layers[l].parts[STATE_TAIL].geom.n_heads = 0;
        kv->states->layers[l].held[STATE_TAIL] = held_all(0);
    }
    map = fake_map(kv);
    cr_assert_eq(cache_group_part(&g, map, 1), STATE_MATRIX, "the only one that is there");
    kv_map_destroy(map);
    fake_store_free(kv);
}

Test(cache_groups, more_kinds_than_the_wire_has_are_refused)
{
    struct cache_geometry g = fake_geometry(12, 3, 64);
    struct kv_store *kv = fake_store(&g, 2, false);
    struct kv_map *map;
    struct error err;
    for (uint32_t l = 0; l < 12; l++) kv->layers[l].geom.head_dim = 16 * (l + 1);
    map = fake_map(kv);
    cr_assert_eq(cache_groups_fill(&g, map, &err), ERR_UNSUPPORTED);
    cr_assert_str_eq(err.text, "layer 8 needs another cache group, there are 8");
    kv_map_destroy(map);
    fake_store_free(kv);
}
