/* shard: every unit is on exactly one rank, and a rank has the kv heads that its query heads read. */
#include "parallel/shard.h"

#include <criterion/criterion.h>

Test(shard, covers_all_units_once_and_evenly)
{
    for (uint32_t n = 1; n < 70; n++)
        for (uint32_t size = 1; size < 12; size++) {
            uint32_t next = 0;
            for (uint32_t rank = 0; rank < size; rank++) {
                struct shard s = shard_units(n, rank, size);
                cr_assert_eq(s.begin, next);
                cr_assert(s.end - s.begin == n / size || s.end - s.begin == n / size + 1);
                next = s.end;
            }
            cr_assert_eq(next, n);
        }
}

Test(shard, kv_heads_are_replicated_when_ranks_exceed_them)
{
    struct shard q0 = shard_units(8, 0, 4), q1 = shard_units(8, 1, 4);
    struct shard a = shard_kv_heads(q0, 8, 2), b = shard_kv_heads(q1, 8, 2);
    cr_assert(a.begin == 0 && a.end == 1);
    cr_assert(b.begin == 0 && b.end == 1, "query heads 2 and 3 read kv head 0 as well");
    struct shard uneven = shard_kv_heads(shard_units(9, 1, 2), 9, 3); /* query heads 4..8 */
    cr_assert(uneven.begin == 1 && uneven.end == 3);
    struct shard whole = shard_kv_heads(shard_units(9, 0, 1), 9, 3);
    cr_assert(whole.begin == 0 && whole.end == 3);
}
