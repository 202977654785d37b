/* held: a rank's numbers of its heads are those of its runs, and all ranks' together are the model's. */
#include "parallel/held.h"

#include <criterion/criterion.h>

Test(held, counts_through_runs_in_their_order)
{
    /* of 2 q, 2 k and 6 v: the second of each pair */
    const struct shard second = { 1, 2 };
    const struct held h = {
        10, 3, { shard_run(second), shard_widen(shard_run(second), 1, 2), shard_widen(shard_tiles(second, 3, 2), 1, 4) }
    };
    static const uint32_t want[] = { 1, 3, 5, 7, 9 };
    cr_assert_eq(held_n(&h), 5);
    for (uint32_t i = 0; i < 5; i++) cr_assert_eq(held_head(&h, i), want[i], "head %u", i);
    const struct held all = held_all(4), none = held_all(0);
    for (uint32_t i = 0; i < 4; i++) cr_assert_eq(held_head(&all, i), i);
    cr_assert_eq(held_n(&none), 0);
}

/* Tiles of which a rank has all units are one run: its tensors are read as one rank's. */
Test(held, tiles_that_are_whole_are_one_run)
{
    const struct shard_runs r = shard_tiles((struct shard){ 0, 3 }, 4, 3);
    cr_assert(r.begin == 0 && r.n == 12 && r.run == 12 && r.stride == 12);
    const struct shard_runs wide = shard_widen(shard_tiles((struct shard){ 1, 3 }, 2, 4), 16, 5);
    cr_assert(wide.begin == 21 && wide.n == 64 && wide.run == 32 && wide.stride == 64);
}

Test(held, tiles_cover_a_whole_over_ranks)
{
    for (uint32_t size = 1; size < 9; size++)
        for (uint32_t tiles = 1; tiles < 4; tiles++)
            for (uint32_t ranks = 1; ranks <= size; ranks++) {
                uint32_t times[32] = { 0 };
                for (uint32_t r = 0; r < ranks; r++) {
                    const struct held h = held_run(size * tiles, shard_tiles(shard_units(size, r, ranks), tiles, size));
                    for (uint32_t i = 0; i < held_n(&h); i++) times[held_head(&h, i)]++;
                }
                for (uint32_t i = 0; i < size * tiles; i++) cr_assert_eq(times[i], 1);
            }
}
