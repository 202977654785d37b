/* swap: blocks come back bit for bit, slots are never lost, and a full arena says so. */
#include "store/swap.h"

#include "base/mem.h"
#include "unit/store/kv_blocks.h"

#include <criterion/criterion.h>
#include <string.h>

#define BLOCKS_OF(ids, n) ((struct swap_things){ .blocks = (ids), .n_blocks = (n), .slot = STATE_SLOT_NONE })

static struct swap *swap_of(uint32_t n_slots)
{
    struct swap *sw = NULL;
    struct error err = { 0 };
    cr_assert_eq(swap_create(&sw, &kv, (uint64_t)n_slots * BLOCK_BYTES + 17, &err), OK, "%s", err.text);
    return sw;
}

Test(swap, brings_blocks_back_into_other_ids)
{
    struct swap *sw = swap_of(4);
    struct swap_run run = { 0 };
    const kv_block_id from[] = { 5, 0, 2 }, to[] = { 7, 2, 1 };
    for (uint32_t i = 0; i < 3; i++) fill(from[i], 50 + i);
    cr_assert_eq(swap_out(sw, &BLOCKS_OF(from, 3), &run), OK);
    cr_assert_eq(swap_n_used(sw), 3);
    for (uint32_t l = 0; l < LAYERS; l++) memset(slices[l].base, 0xee, BLOCKS * slices[l].slice_bytes);
    cr_assert_eq(swap_in(sw, &BLOCKS_OF(to, 3), &run), OK);
    for (uint32_t i = 0; i < 3; i++) expect_content(to[i], 50 + i);
    cr_assert(run.n == 0 && swap_n_used(sw) == 0);
    swap_destroy(sw);
}

Test(swap, says_when_it_is_full_and_loses_no_slot)
{
    struct swap *sw = swap_of(5);
    struct swap_run a = { 0 }, b = { 0 }, c = { 0 };
    const kv_block_id ids[] = { 0, 1, 2, 3, 4, 5 };
    cr_assert_eq(swap_out(sw, &BLOCKS_OF(ids, 6), &a), ERR_FULL);
    cr_assert_eq(swap_out(sw, &BLOCKS_OF(ids, 0), &a), ERR_FULL);
    for (int round = 0; round < 50; round++) {
        cr_assert_eq(swap_out(sw, &BLOCKS_OF(ids, 2), &a), OK);
        cr_assert_eq(swap_out(sw, &BLOCKS_OF(ids, 2), &b), OK);
        cr_assert_eq(swap_out(sw, &BLOCKS_OF(ids, 2), &c), ERR_FULL);
        cr_assert_eq(swap_out(sw, &BLOCKS_OF(ids, 1), &c), OK);
        if (round % 2) swap_drop(sw, &a);
        swap_drop(sw, &b);
        cr_assert_eq(swap_in(sw, &BLOCKS_OF(ids, 1), &c), OK);
        swap_drop(sw, &a); /* empty, every other time */
        cr_assert_eq(swap_n_used(sw), 0);
    }
    swap_destroy(sw);
}

Test(swap, of_no_bytes_is_always_full)
{
    struct swap *sw = NULL;
    struct swap_run run = { 0 };
    struct error err = { 0 };
    cr_assert_eq(swap_create(&sw, &kv, 0, &err), OK);
    cr_assert_eq(swap_out(sw, &BLOCKS_OF(&(kv_block_id){ 1 }, 1), &run), ERR_FULL);
    swap_destroy(sw);
}

Test(swap, refuses_what_does_not_fit_before_it_is_taken)
{
    struct swap *sw = NULL;
    struct error err = { 0 };
    cr_assert_eq(swap_create(&sw, &kv, BLOCK_BYTES - 1, &err), ERR_INVALID);
    cr_assert(strstr(err.text, "kv.swap_bytes: 639 bytes"), "%s", err.text);
    cr_assert_eq(swap_create(&sw, &kv, 1ull << 41, &err), ERR_NO_MEMORY);
    cr_assert(strstr(err.text, "kv.swap_bytes: 2097152.0 MiB of memory are needed beside "), "%s", err.text);
    cr_assert(strstr(err.text, "(KV pool), "), "%s", err.text);
    cr_assert_null(sw);
}
