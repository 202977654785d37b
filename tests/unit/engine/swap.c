/* swap: blocks come back bit for bit, slots are never lost, and a full arena says so. */
#include "engine/swap.h"

#include "base/mem.h"
#include "model/model.h"

#include <criterion/criterion.h>
#include <string.h>

#define LAYERS 3
#define BLOCKS 8
#define SLICE  192

static enum status copy(struct backend *b, struct stream *s, void *dst, const void *src, size_t bytes)
{
    memcpy(dst, src, bytes);
    return OK;
}

static enum status sync_nothing(struct backend *b, struct stream *s)
{
    return OK;
}

static const struct backend_ops OPS = { .name = "cpu", .upload = copy, .download = copy, .sync = sync_nothing };
static struct backend backend = { &OPS };
static uint8_t memory[LAYERS][BLOCKS * (SLICE + 64)];
static struct kv_slices slices[LAYERS];

/* Layers of different sizes, every byte different from its neighbours. */
static struct kv_store store(void)
{
    for (uint32_t l = 0; l < LAYERS; l++) {
        slices[l] = (struct kv_slices){ .base = memory[l], .slice_bytes = SLICE + (l == 1 ? 64 : 0) };
        for (size_t i = 0; i < sizeof(memory[l]); i++) memory[l][i] = (uint8_t)(i * 7 + l * 31 + i / 251);
    }
    return (struct kv_store){ LAYERS, BLOCKS, slices, memory[0], sizeof(memory), &backend };
}

#define BLOCK_BYTES (3 * SLICE + 64)

static struct swap *swap_of(const struct kv_store *kv, uint32_t n_slots)
{
    struct swap *sw = NULL;
    struct error err = { 0 };
    cr_assert_eq(swap_create(&sw, kv, (uint64_t)n_slots * BLOCK_BYTES + 17, &err), OK, "%s", err.text);
    return sw;
}

static const uint8_t *slice_of(uint32_t l, kv_block_id b)
{
    return slices[l].base + b * slices[l].slice_bytes;
}

Test(swap, brings_blocks_back_into_other_ids)
{
    struct kv_store kv = store();
    struct swap *sw = swap_of(&kv, 4);
    struct swap_run run = { 0 };
    uint8_t before[3][LAYERS][SLICE + 64];
    const kv_block_id from[] = { 5, 0, 2 }, to[] = { 7, 2, 1 };
    for (int i = 0; i < 3; i++)
        for (uint32_t l = 0; l < LAYERS; l++) memcpy(before[i][l], slice_of(l, from[i]), slices[l].slice_bytes);
    cr_assert_eq(swap_out(sw, from, 3, &run), OK);
    cr_assert_eq(swap_n_used(sw), 3);
    for (uint32_t l = 0; l < LAYERS; l++) memset(slices[l].base, 0xee, BLOCKS * slices[l].slice_bytes);
    cr_assert_eq(swap_in(sw, to, &run), OK);
    for (int i = 0; i < 3; i++)
        for (uint32_t l = 0; l < LAYERS; l++)
            cr_assert_eq(memcmp(before[i][l], slice_of(l, to[i]), slices[l].slice_bytes), 0, "block %d layer %u", i, l);
    cr_assert(run.n == 0 && swap_n_used(sw) == 0);
    swap_destroy(sw);
}

Test(swap, says_when_it_is_full_and_loses_no_slot)
{
    struct kv_store kv = store();
    struct swap *sw = swap_of(&kv, 5);
    struct swap_run a = { 0 }, b = { 0 }, c = { 0 };
    const kv_block_id ids[] = { 0, 1, 2, 3, 4, 5 };
    cr_assert_eq(swap_out(sw, ids, 6, &a), ERR_FULL);
    cr_assert_eq(swap_out(sw, ids, 0, &a), ERR_FULL);
    for (int round = 0; round < 50; round++) {
        cr_assert_eq(swap_out(sw, ids, 2, &a), OK);
        cr_assert_eq(swap_out(sw, ids, 2, &b), OK);
        cr_assert_eq(swap_out(sw, ids, 2, &c), ERR_FULL);
        cr_assert_eq(swap_out(sw, ids, 1, &c), OK);
        if (round % 2) swap_drop(sw, &a);
        swap_drop(sw, &b);
        cr_assert_eq(swap_in(sw, ids, &c), OK);
        swap_drop(sw, &a); /* empty, every other time */
        cr_assert_eq(swap_n_used(sw), 0);
    }
    swap_destroy(sw);
}

Test(swap, of_no_bytes_is_always_full)
{
    struct kv_store kv = store();
    struct swap *sw = NULL;
    struct swap_run run = { 0 };
    struct error err = { 0 };
    cr_assert_eq(swap_create(&sw, &kv, 0, &err), OK);
    cr_assert_eq(swap_out(sw, &(kv_block_id){ 1 }, 1, &run), ERR_FULL);
    swap_destroy(sw);
}

Test(swap, refuses_what_does_not_fit_before_it_is_taken)
{
    struct kv_store kv = store();
    struct swap *sw = NULL;
    struct error err = { 0 };
    cr_assert_eq(swap_create(&sw, &kv, BLOCK_BYTES - 1, &err), ERR_INVALID);
    cr_assert(strstr(err.text, "kv.swap_bytes: 639 bytes"), "%s", err.text);
    cr_assert_eq(swap_create(&sw, &kv, 1ull << 41, &err), ERR_NO_MEMORY);
    cr_assert(strstr(err.text, "kv.swap_bytes: 2097152.0 MiB of memory are needed beside "), "%s", err.text);
    cr_assert(strstr(err.text, "(KV pool), "), "%s", err.text);
    cr_assert_null(sw);
}
