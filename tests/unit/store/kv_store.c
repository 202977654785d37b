/* kv_store: blocks and states move in all stores of a chain at once, and any bytes of a slot are those of the whole. */
#include "store/kv_store.h"

#include "base/mem.h"
#include "store/state_store.h"

#include <criterion/criterion.h>
#include <string.h>

#define BLOCKS 3
#define SLOTS  3
#define RANKS  3

static struct backend *cpu;
static struct kv_store *chain;

/* Two ranks with states of different sizes, and one between them that has none. */
static const uint32_t N_LAYERS[RANKS] = { 2, 1, 3 };
static const uint32_t STATE_ROWS[RANKS] = { 16, 0, 32 };

static void add_rank(struct kv_store **end, uint32_t rank)
{
    struct kv_geometry layers[4];
    struct state_layer_geometry states[4] = { 0 };
    struct error err = { OK, "" };
    for (uint32_t l = 0; l < N_LAYERS[rank]; l++) {
        layers[l] = (struct kv_geometry){ .n_kv_heads = 1 + rank, .head_dim = 16, .format = KV_INT8 };
        states[l].parts[STATE_MATRIX] = (struct state_geometry){ 1, STATE_ROWS[rank], 16 };
    }
    cr_assert_eq(kv_store_create(end, cpu, layers, N_LAYERS[rank], BLOCKS, &err), OK, "%s", err.text);
    if (STATE_ROWS[rank] > 0)
        cr_assert_eq(state_store_create(&(*end)->states, cpu, states, N_LAYERS[rank], SLOTS, &err), OK, "%s", err.text);
}

static void start(void)
{
    const struct backend_options opt = {
        .n_threads = 1,
        .limits = { .max_rows = 8, .max_context = 64, .max_cols = 64, .max_heads = 4, .max_head_dim = 32 }
    };
    struct error err = { OK, "" };
    cr_assert_eq(backend_open(&cpu, "cpu", &opt, &err), OK, "%s", err.text);
    struct kv_store **end = &chain;
    for (uint32_t r = 0; r < RANKS; r++, end = &(*end)->next) add_rank(end, r);
}

static void stop(void)
{
    kv_store_destroy(chain);
    backend_close(cpu);
}

TestSuite(kv_store, .init = start, .fini = stop);

static uint8_t *random_bytes(size_t n, uint32_t seed)
{
    uint8_t *p = mem_alloc(n);
    for (size_t i = 0; i < n; i++) p[i] = (uint8_t)((seed = seed * 1664525u + 1013904223u) >> 24);
    return p;
}

Test(kv_store, a_chain_counts_all_of_its_stores)
{
    size_t block = 0, slot = 0;
    uint64_t host = 0;
    for (uint32_t r = 0; r < RANKS; r++) {
        const struct kv_store *kv = kv_store_of(chain, r);
        cr_assert_eq(kv->n_layers, N_LAYERS[r]);
        block += kv->bytes / BLOCKS;
        slot += kv->states ? kv->states->slot_bytes : 0;
        host += kv->bytes + (kv->states ? kv->states->bytes : 0);
    }
    cr_assert_null(kv_store_of(chain, RANKS - 1)->next);
    cr_assert_eq(kv_store_block_bytes(chain), block);
    cr_assert_eq(kv_store_state_bytes(chain), slot);
    cr_assert_eq(kv_store_host_bytes(chain), host);
    cr_assert_eq(kv_store_n_slots(chain), SLOTS);
    cr_assert_eq(kv_store_n_slots(kv_store_of(chain, 1)), SLOTS, "of those behind a store without states, too");
}

Test(kv_store, blocks_move_on_all_ranks)
{
    const size_t n = kv_store_block_bytes(chain);
    uint8_t *want[2] = { random_bytes(n, 1), random_bytes(n, 2) }, *got = mem_alloc(n);
    cr_assert_eq(kv_store_write_block(chain, 0, want[0]), OK);
    cr_assert_eq(kv_store_write_block(chain, 1, want[1]), OK);
    cr_assert_eq(kv_store_copy_block(chain, 2, 0), OK);
    cr_assert_eq(kv_store_copy_block(chain, 0, 1), OK);
    for (uint32_t b = 0; b < BLOCKS; b++) {
        cr_assert_eq(kv_store_read_block(chain, b, got), OK);
        cr_assert_eq(memcmp(got, want[b == 2 ? 0 : 1], n), 0, "block %u", b);
    }
    /* The last rank's last layer is behind all others. */
    const struct kv_slices *last = &kv_store_of(chain, 2)->layers[2];
    cr_assert_eq(memcmp(last->base + last->stride, want[1] + n - last->stride, last->stride), 0);
    mem_free(want[0]);
    mem_free(want[1]);
    mem_free(got);
}

Test(kv_store, any_bytes_of_a_state_are_those_of_the_whole)
{
    const size_t n = kv_store_state_bytes(chain), border = chain->states->slot_bytes;
    const size_t cuts[] = { 0, 1, border - 1, border, border + 1, n - 1, n };
    uint8_t *want = random_bytes(n, 3), *got = mem_alloc(n);
    for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++)
        for (size_t j = i; j < sizeof(cuts) / sizeof(cuts[0]); j++) {
            const size_t at = cuts[i], len = cuts[j] - at;
            memset(got, 0, n);
            cr_assert_eq(kv_store_write_state(chain, 0, 0, n, got), OK);
            cr_assert_eq(kv_store_write_state(chain, 0, at, len, want + at), OK);
            cr_assert_eq(kv_store_copy_state(chain, 0, 1), OK);
            cr_assert_eq(kv_store_read_state(chain, 1, 0, n, got), OK);
            for (size_t k = 0; k < n; k++)
                cr_assert_eq(got[k], k >= at && k < at + len ? want[k] : 0, "byte %zu of [%zu, %zu)", k, at, at + len);
            cr_assert_eq(kv_store_write_state(chain, 2, 0, n, want), OK);
            memset(got, 0, n);
            cr_assert_eq(kv_store_read_state(chain, 2, at, len, got), OK);
            cr_assert_eq(memcmp(got, want + at, len), 0);
        }
    mem_free(want);
    mem_free(got);
}

/* ---- one memory for all ---- */

Test(kv_store, runs_waste_as_little_as_can_be)
{
    const struct {
        size_t others, windows, slot;
        uint32_t window_run, slot_run;
    } rows[] = {
        { 100, 0, 0, 0, 0 },     { 0, 100, 0, 0, 0 },       { 0, 0, 100, 0, 0 },   { 100, 100, 0, 1, 0 },
        { 100, 500, 0, 5, 0 },   { 100, 520, 0, 5, 0 },     { 100, 580, 0, 6, 0 }, { 100, 60, 0, 1, 0 },
        { 100, 0, 9701, 0, 98 }, { 100, 520, 1040, 5, 10 }, { 100, 0, 30, 0, 1 },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct kv_runs r = kv_runs_for(rows[i].others, rows[i].windows, rows[i].slot);
        cr_assert(r.window == rows[i].window_run && r.slot == rows[i].slot_run, "%zu: %u and %u", i, r.window, r.slot);
    }
}

/* Whatever has its places and nothing else's keeps its bytes. */
Test(kv_store, blocks_windows_and_states_of_other_places_do_not_touch)
{
    enum { ALL = 24 };
    const struct kv_geometry g = { .n_kv_heads = 1, .head_dim = 16, .format = KV_INT8 };
    struct kv_geometry layers[5] = { g, g, g, g, g };
    struct state_layer_geometry states[5] = { 0 };
    struct kv_store *kv;
    struct error err = { OK, "" };
    for (uint32_t l = 1; l < 5; l++) layers[l].window = l < 4 ? 64 : 0; /* three of five */
    states[2].parts[STATE_MATRIX] = (struct state_geometry){ 3, 64, 16 };
    states[3].parts[STATE_TAIL] = (struct state_geometry){ 2, 3, 16 };
    const size_t windows = kv_store_window_bytes_for(cpu, layers, 5),
                 others = kv_store_bytes_for(cpu, layers, 5) - windows, slot = state_store_bytes_for(cpu, states, 5);
    const struct kv_runs runs = kv_runs_for(others, windows, slot);
    cr_assert(runs.window == 2 && runs.slot >= 2, "%u %u", runs.window, runs.slot);
    cr_assert_eq(kv_store_create_shared(&kv, cpu, layers, states, 5, runs, ALL, &err), OK, "%s", err.text);
    cr_assert_eq(kv->bytes, ALL * kv_store_shared_bytes_for(cpu, layers, states, 5, runs));
    cr_assert(kv->n_window_blocks == ALL / 2 && kv_store_n_slots(kv) == ALL / runs.slot);
    cr_assert(kv_store_block_bytes(kv) == others && kv_store_window_bytes(kv) == windows);
    cr_assert_eq(kv_store_state_bytes(kv), slot);
    /* Blocks 0 and 1, the windows' block that is in place of the next ones, and the last slot. */
    uint8_t *a = random_bytes(others, 4), *w = random_bytes(windows, 5), *s = random_bytes(slot, 6);
    uint8_t *got = mem_alloc(others + windows + slot);
    for (int round = 0; round < 2; round++) {
        for (uint32_t b = 0; b < 2; b++) cr_assert_eq(kv_store_write_block(kv, b, a), OK);
        cr_assert_eq(kv_store_write_window(kv, 1, 0, windows, w), OK);
        cr_assert_eq(kv_store_write_state(kv, ALL / runs.slot - 1, 0, slot, s), OK);
        if (round == 0) cr_assert_eq(kv_store_copy_state(kv, ALL / runs.slot - 1, ALL / runs.slot - 2), OK);
        for (uint32_t b = 0; b < 2; b++) {
            cr_assert_eq(kv_store_read_block(kv, b, got), OK);
            cr_assert_eq(memcmp(got, a, others), 0);
        }
        cr_assert_eq(kv_store_read_window(kv, 1, 0, windows, got), OK);
        cr_assert_eq(memcmp(got, w, windows), 0);
        for (uint32_t k = 1; k <= 2; k++) {
            cr_assert_eq(kv_store_read_state(kv, ALL / runs.slot - k, 0, slot, got), OK);
            cr_assert_eq(memcmp(got, s, slot), 0);
        }
    }
    cr_assert_eq(kv_store_create_shared(&kv, cpu, layers, states, 5, runs, 0, &err), ERR_INVALID);
    kv_store_destroy(kv);
    mem_free(a);
    mem_free(w);
    mem_free(s);
    mem_free(got);
}

/* Two stores: layers with a window have blocks of their own, and not as many. */
static struct kv_store *windowed_chain(void)
{
    static const struct kv_geometry first[] = { { .n_kv_heads = 1, .head_dim = 16 },
                                                { .n_kv_heads = 2, .head_dim = 16, .window = 100 },
                                                { .n_kv_heads = 0 },
                                                { .n_kv_heads = 1, .head_dim = 32, .window = 300 } },
                                    second[] = { { .n_kv_heads = 1, .head_dim = 16, .window = 200 },
                                                 { .n_kv_heads = 3, .head_dim = 16 } };
    struct kv_store *kv = NULL;
    struct error err = { OK, "" };
    cr_assert_eq(kv_store_create_windowed(&kv, cpu, first, 4, BLOCKS, 5, &err), OK, "%s", err.text);
    cr_assert_eq(kv_store_create_windowed(&kv->next, cpu, second, 2, BLOCKS, 5, &err), OK, "%s", err.text);
    return kv;
}

Test(kv_store, layers_with_a_window_have_blocks_of_their_own)
{
    struct kv_store *kv = windowed_chain();
    size_t blocks = 0, windows = 0;
    for (const struct kv_store *s = kv; s; s = s->next) {
        const uint8_t *at = s->memory;
        for (uint32_t l = 0; l < s->n_layers; l++) {
            const struct kv_slices *k = &s->layers[l];
            cr_assert_eq(k->windowed, k->geom.window > 0);
            cr_assert_eq(k->base, at, "layers stand one behind the other");
            at += k->slice_bytes * (k->windowed ? 5 : BLOCKS);
            *(k->windowed ? &windows : &blocks) += k->slice_bytes;
        }
        cr_assert_eq(s->bytes, (size_t)(at - s->memory));
    }
    cr_assert(blocks > 0 && windows > 0 && kv->layers[2].slice_bytes == 0);
    cr_assert_eq(kv_store_block_bytes(kv), blocks);
    cr_assert_eq(kv_store_window_bytes(kv), windows);
    cr_assert(kv_store_n_window_blocks(kv) == 5 && kv_store_window(kv) == 300 && kv_store_window(kv->next) == 200);
    cr_assert(kv_store_n_window_blocks(chain) == 0 && kv_store_window(chain) == 0 && kv_store_window_bytes(chain) == 0);
    kv_store_destroy(kv);
}

Test(kv_store, any_bytes_of_a_window_block_are_those_of_the_whole)
{
    struct kv_store *kv = windowed_chain();
    const size_t n = kv_store_window_bytes(kv), first = kv->layers[1].slice_bytes,
                 border = first + kv->layers[3].slice_bytes, n_block = kv_store_block_bytes(kv);
    const size_t cuts[] = { 0, 1, first - 1, first, first + 1, border - 1, border, border + 1, n - 1, n };
    uint8_t *want = random_bytes(n, 3), *got = mem_alloc(n), *block = random_bytes(n_block, 4), *zero = mem_zalloc(n);
    for (uint32_t b = 0; b < BLOCKS; b++) cr_assert_eq(kv_store_write_block(kv, b, block), OK);
    for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++)
        for (size_t j = i; j < sizeof(cuts) / sizeof(cuts[0]); j++) {
            const size_t at = cuts[i], len = cuts[j] - at;
            for (uint32_t b = 0; b < 5; b++) cr_assert_eq(kv_store_write_window(kv, b, 0, n, zero), OK);
            cr_assert_eq(kv_store_write_window(kv, 4, at, len, want + at), OK);
            cr_assert_eq(kv_store_read_window(kv, 4, 0, n, got), OK);
            for (size_t k = 0; k < n; k++) cr_assert_eq(got[k], k >= at && k < at + len ? want[k] : 0);
            cr_assert_eq(kv_store_read_window(kv, 3, 0, n, got), OK);
            cr_assert_eq(memcmp(got, zero, n), 0);
            cr_assert_eq(kv_store_write_window(kv, 0, 0, n, want), OK);
            memset(got, 0, n);
            cr_assert_eq(kv_store_read_window(kv, 0, at, len, got), OK);
            cr_assert_eq(memcmp(got, want + at, len), 0);
        }
    cr_assert_eq(kv_store_read_window(kv, 0, n - 1, 2, got), ERR_INVALID);
    cr_assert_eq(kv_store_write_window(kv, 0, n, 1, got), ERR_INVALID);
    uint8_t *still = mem_alloc(n_block);
    for (uint32_t b = 0; b < BLOCKS; b++) {
        cr_assert_eq(kv_store_read_block(kv, b, still), OK);
        cr_assert_eq(memcmp(still, block, n_block), 0, "block %u of the other layers", b);
    }
    mem_free(want);
    mem_free(got);
    mem_free(block);
    mem_free(still);
    mem_free(zero);
    kv_store_destroy(kv);
}

Test(kv_store, what_cannot_be_is_refused_with_its_numbers)
{
    static const struct kv_geometry usual = { .n_kv_heads = 1, .head_dim = 16 },
                                    huge = { .n_kv_heads = 1u << 20, .head_dim = 512 };
    struct kv_store *kv = NULL;
    struct error err = { OK, "" };
    cr_assert_eq(kv_store_create(&kv, cpu, &usual, 1, 0, &err), ERR_INVALID);
    cr_assert_str_eq(err.text, "KV memory for 0 blocks");
    cr_assert_eq(kv_store_create(&kv, cpu, &huge, 1, UINT32_MAX, &err), ERR_TOO_LARGE);
    cr_assert(strstr(err.text, "4294967295 KV blocks of ") && strstr(err.text, "do not fit an address space"), "%s",
              err.text);
    cr_assert_eq(kv_store_create(&kv, cpu, &huge, 1, 1u << 20, &err), ERR_NO_MEMORY);
    cr_assert(strstr(err.text, "1048576 KV blocks of "), "%s", err.text);
    cr_assert_null(kv);
    cr_assert_eq(kv_store_create_windowed(&kv, cpu, &usual, 1, 2, 7, &err), OK);
    cr_assert(kv_store_n_window_blocks(kv) == 0 && !kv->layers[0].windowed, "no layer has a window");
    cr_assert_eq(kv->bytes, 2 * kv_store_block_bytes(kv));
    kv_store_destroy(kv);
}
