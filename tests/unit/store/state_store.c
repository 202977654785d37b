/* state_store: slots are apart, copies and ranges of bytes are whole, and what cannot be is refused with the numbers.
 */
#include "store/state_store.h"

#include "base/mem.h"
#include "store/kv_store.h"
#include "store/swap.h"

#include <criterion/criterion.h>
#include <string.h>

#define LAYERS 4
#define SLOTS  5

static struct backend *cpu;
static struct state_store *store;
static const struct state_layer_geometry geometry[LAYERS] = {
    [1] = { { { 3, 3, 16 }, { 2, 16, 32 } } }, /* a tail and a state */
    [2] = { { { 0 }, { 1, 8, 16 } } },
    [3] = { { { 3, 3, 16 }, { 2, 16, 32 } } },
};

static void start(void)
{
    const struct backend_options opt = {
        .n_threads = 1,
        .limits = { .max_rows = 8, .max_context = 64, .max_cols = 64, .max_heads = 2, .max_head_dim = 32 }
    };
    struct error err = { OK, "" };
    cr_assert_eq(backend_open(&cpu, "cpu", &opt, &err), OK, "%s", err.text);
    cr_assert_eq(state_store_create(&store, cpu, geometry, LAYERS, SLOTS, &err), OK, "%s", err.text);
}

static void stop(void)
{
    state_store_destroy(store);
    backend_close(cpu);
}

static uint8_t byte_of(uint32_t content, size_t i)
{
    return (uint8_t)(content * 31 + i + i / 251);
}

static void write_all(uint32_t slot, uint32_t content)
{
    uint8_t *bytes = mem_alloc(store->slot_bytes);
    for (size_t i = 0; i < store->slot_bytes; i++) bytes[i] = byte_of(content, i);
    cr_assert_eq(state_store_write(store, slot, 0, store->slot_bytes, bytes), OK);
    mem_free(bytes);
}

static void expect_content(uint32_t slot, uint32_t content)
{
    uint8_t *bytes = mem_alloc(store->slot_bytes);
    cr_assert_eq(state_store_read(store, slot, 0, store->slot_bytes, bytes), OK);
    for (size_t i = 0; i < store->slot_bytes; i++) cr_assert_eq(bytes[i], byte_of(content, i), "byte %zu", i);
    mem_free(bytes);
}

Test(state_store, keeps_slots_apart, .init = start, .fini = stop)
{
    for (uint32_t i = 0; i < SLOTS; i++) write_all(i, i);
    for (uint32_t i = 0; i < SLOTS; i++) expect_content(i, i);
    cr_assert_eq(state_store_copy(store, 1, 4), OK);
    for (uint32_t i = 0; i < SLOTS; i++) expect_content(i, i == 4 ? 1 : i);
}

Test(state_store, reads_and_writes_any_range, .init = start, .fini = stop)
{
    uint8_t bytes[1000];
    for (size_t at = 0; at < store->slot_bytes; at += 777) {
        const size_t left = store->slot_bytes - at, n = left < sizeof(bytes) ? left : sizeof(bytes);
        write_all(2, 2);
        write_all(3, 3);
        cr_assert_eq(state_store_read(store, 2, at, n, bytes), OK);
        for (size_t i = 0; i < n; i++) cr_assert_eq(bytes[i], byte_of(2, at + i));
        cr_assert_eq(state_store_write(store, 3, at, n, bytes), OK);
        uint8_t *all = mem_alloc(store->slot_bytes);
        cr_assert_eq(state_store_read(store, 3, 0, store->slot_bytes, all), OK);
        for (size_t i = 0; i < store->slot_bytes; i++)
            cr_assert_eq(all[i], byte_of(i >= at && i < at + n ? 2 : 3, i), "at %zu byte %zu", at, i);
        mem_free(all);
    }
    cr_assert_eq(state_store_read(store, 2, store->slot_bytes - 10, 11, bytes), ERR_INVALID);
}

/* A state goes to the swap in places of a block's size, and comes back into another slot. */
Test(state_store, goes_through_the_swap_with_its_blocks, .init = start, .fini = stop)
{
    static const struct kv_geometry kv_layers[LAYERS] = { { .n_kv_heads = 2, .head_dim = 32 } };
    struct kv_store *kv;
    struct swap *sw;
    struct swap_run run = { 0 }, other = { 0 };
    struct error err = { OK, "" };
    const kv_block_id from[] = { 1, 2 }, to[] = { 3, 0 };
    cr_assert_eq(kv_store_create(&kv, cpu, kv_layers, LAYERS, 4, &err), OK, "%s", err.text);
    const size_t block = kv_store_block_bytes(kv);
    const uint32_t places = 2 + (uint32_t)((store->slot_bytes + block - 1) / block);
    kv->states = store;
    cr_assert_eq(swap_create(&sw, kv, (uint64_t)(places + 1) * block, &err), OK, "%s", err.text);
    for (size_t i = 0; i < kv->bytes; i++) kv->memory[i] = (uint8_t)(i / block);
    write_all(1, 7);
    cr_assert_eq(swap_out(sw, &(struct swap_things){ .blocks = from, .n_blocks = 2, .slot = 1 }, &run), OK);
    cr_assert_eq(swap_n_used(sw), places);
    cr_assert_eq(swap_out(sw, &(struct swap_things){ .blocks = from, .n_blocks = 2, .slot = 2 }, &other), ERR_FULL,
                 "its state does not fit");
    write_all(1, 8);
    cr_assert_eq(swap_in(sw, &(struct swap_things){ .blocks = to, .n_blocks = 2, .slot = 4 }, &run), OK);
    expect_content(4, 7);
    cr_assert(kv->memory[3 * block] == 1 && kv->memory[0] == 2);
    cr_assert_eq(swap_n_used(sw), 0);
    swap_destroy(sw);
    kv->states = NULL;
    kv_store_destroy(kv);
}

Test(state_store, goes_through_the_swap_of_a_model_without_blocks, .init = start, .fini = stop)
{
    static const struct kv_geometry none[LAYERS];
    struct kv_store *kv;
    struct swap *sw;
    struct swap_run run = { 0 };
    struct error err = { OK, "" };
    const kv_block_id ids[] = { 1 };
    cr_assert_eq(kv_store_create(&kv, cpu, none, LAYERS, 4, &err), OK, "%s", err.text);
    cr_assert_eq(kv_store_block_bytes(kv), 0);
    kv->states = store;
    cr_assert_eq(swap_create(&sw, kv, 1 << 20, &err), OK, "%s", err.text);
    write_all(1, 9);
    cr_assert_eq(swap_out(sw, &(struct swap_things){ .blocks = ids, .n_blocks = 1, .slot = 1 }, &run), OK);
    cr_assert_eq(swap_in(sw, &(struct swap_things){ .blocks = ids, .n_blocks = 1, .slot = 0 }, &run), OK);
    expect_content(0, 9);
    swap_destroy(sw);
    kv->states = NULL;
    kv_store_destroy(kv);
}

static void expect_refused(const struct state_layer_geometry *layers, uint32_t n_slots, enum status st,
                           const char *says)
{
    struct state_store *s = NULL;
    struct error err = { OK, "" };
    cr_assert_eq(state_store_create(&s, cpu, layers, LAYERS, n_slots, &err), st, "%s", err.text);
    cr_assert(strstr(err.text, says), "%s", err.text);
    cr_assert_null(s);
}

Test(state_store, refuses_what_cannot_be, .init = start, .fini = stop)
{
    static const struct state_layer_geometry none[LAYERS], odd[LAYERS] = { [2] = { { { 0 }, { 2, 16, 17 } } } };
    expect_refused(geometry, 0, ERR_INVALID, "memory for 0 recurrent states");
    expect_refused(none, 4, ERR_INVALID, "memory for 4 recurrent states of 0 bytes");
    expect_refused(odd, 4, ERR_UNSUPPORTED,
                   "layer 2 has states of 2 heads of 16 x 17, for which the cpu backend has no kernels");
    expect_refused(geometry, UINT32_MAX, ERR_NO_MEMORY, "4294967295 recurrent states");
    cr_assert_eq(state_store_bytes_for(cpu, none, LAYERS), 0);
}
