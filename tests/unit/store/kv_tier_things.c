/* kv_tier_things: a windows' block and a state come back from RAM or the file with all of their pieces, or are not
 * there. */
#include "base/mem.h"
#include "store/kv_store.h"
#include "store/kv_tier.h"
#include "store/state_store.h"

#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

#define ALL    40
#define WAIT_S 60

static struct backend *cpu;
static struct kv_store *kv;
static size_t block, thing_bytes[2]; /* of a windows' block, of a slot */

static void start(void)
{
    const struct backend_options opt = {
        .n_threads = 1,
        .limits = { .max_rows = 8, .max_context = 64, .max_cols = 64, .max_heads = 4, .max_head_dim = 32 }
    };
    const struct kv_geometry g = { .n_kv_heads = 1, .head_dim = 16, .format = KV_INT8 };
    struct kv_geometry layers[4] = { g, g, g, g };
    struct state_layer_geometry states[4] = { 0 };
    struct error err = { OK, "" };
    for (uint32_t l = 1; l < 4; l++) layers[l].window = 64;
    states[2].parts[STATE_MATRIX] = (struct state_geometry){ 3, 64, 16 };
    states[3].parts[STATE_TAIL] = (struct state_geometry){ 2, 3, 16 };
    cr_assert_eq(backend_open(&cpu, "cpu", &opt, &err), OK, "%s", err.text);
    const size_t windows = kv_store_window_bytes_for(cpu, layers, 4);
    block = kv_store_bytes_for(cpu, layers, 4) - windows;
    const struct kv_runs runs = kv_runs_for(block, windows, state_store_bytes_for(cpu, states, 4));
    cr_assert_eq(kv_store_create_shared(&kv, cpu, layers, states, 4, runs, ALL, &err), OK, "%s", err.text);
    thing_bytes[KV_TIER_WINDOW_BLOCK] = kv_store_window_bytes(kv);
    thing_bytes[KV_TIER_STATE] = kv_store_state_bytes(kv);
}

static void stop(void)
{
    kv_store_destroy(kv);
    backend_close(cpu);
}

TestSuite(kv_tier_things, .init = start, .fini = stop);

static struct kv_tier *tier_of(uint32_t n_ram, uint32_t n_disk)
{
    const struct kv_tier_options opt = { .ram_bytes = n_ram * block,
                                         .path = n_disk > 0 ? "/tmp" : NULL,
                                         .disk_bytes = n_disk * block };
    struct error err = { OK, "" };
    struct kv_tier *t;
    cr_assert_eq(kv_tier_create(&t, kv, &opt, &err), OK, "%s", err.text);
    return t;
}

static struct prefix_hash hash_of(uint64_t content)
{
    return (struct prefix_hash){ content * 0x9E3779B97F4A7C15u, content };
}

static void fill(enum kv_tier_thing thing, uint32_t id, uint32_t content)
{
    const size_t n = thing_bytes[thing];
    uint8_t *bytes = mem_alloc(n);
    for (size_t i = 0; i < n; i++) bytes[i] = (uint8_t)(content * 31 + i + i / 251);
    cr_assert_eq(thing == KV_TIER_STATE ? kv_store_write_state(kv, id, 0, n, bytes)
                                        : kv_store_write_window(kv, id, 0, n, bytes),
                 OK);
    mem_free(bytes);
}

static void expect_content(enum kv_tier_thing thing, uint32_t id, uint32_t content)
{
    const size_t n = thing_bytes[thing];
    uint8_t *bytes = mem_alloc(n);
    cr_assert_eq(thing == KV_TIER_STATE ? kv_store_read_state(kv, id, 0, n, bytes)
                                        : kv_store_read_window(kv, id, 0, n, bytes),
                 OK);
    for (size_t i = 0; i < n; i++) cr_assert_eq(bytes[i], (uint8_t)(content * 31 + i + i / 251), "byte %zu", i);
    mem_free(bytes);
}

static void put(struct kv_tier *t, enum kv_tier_thing thing, uint32_t content)
{
    const struct prefix_hash h = hash_of(content);
    fill(thing, 1, content);
    kv_tier_put_thing(t, thing, &h, 1);
}

static bool get(struct kv_tier *t, enum kv_tier_thing thing, uint32_t content)
{
    const struct prefix_hash h = hash_of(content);
    fill(thing, 0, 99);
    for (uint32_t i = 0; i < kv_tier_pieces(t, thing); i++) {
        enum kv_tier_found found = KV_TIER_COMING;
        for (int k = 0; k < 10000 * WAIT_S && found == KV_TIER_COMING; k++) {
            found = kv_tier_get_piece(t, thing, &h, 0, i, 0, true);
            if (found == KV_TIER_COMING) usleep(100);
        }
        cr_assert_neq(found, KV_TIER_COMING);
        if (found == KV_TIER_MISS) return false;
    }
    expect_content(thing, 0, content);
    return true;
}

static bool has(struct kv_tier *t, enum kv_tier_thing thing, uint32_t content)
{
    const struct prefix_hash h = hash_of(content);
    return kv_tier_has_thing(t, thing, &h);
}

Test(kv_tier_things, come_back_whole_and_apart_from_each_other)
{
    struct kv_tier *t = tier_of(ALL, 0);
    cr_assert(kv_tier_pieces(t, KV_TIER_WINDOW_BLOCK) == 3 && kv_tier_pieces(t, KV_TIER_STATE) > 3);
    for (uint32_t i = 1; i <= 3; i++) { /* of the same prefix */
        put(t, KV_TIER_WINDOW_BLOCK, i);
        put(t, KV_TIER_STATE, i);
    }
    for (uint32_t i = 1; i <= 3; i++) {
        cr_assert(has(t, KV_TIER_WINDOW_BLOCK, i) && get(t, KV_TIER_WINDOW_BLOCK, i));
        cr_assert(has(t, KV_TIER_STATE, i) && get(t, KV_TIER_STATE, i));
    }
    cr_assert_not(has(t, KV_TIER_STATE, 4));
    cr_assert_not(get(t, KV_TIER_STATE, 4));
    kv_tier_destroy(t);
}

Test(kv_tier_things, without_one_piece_are_not_there)
{
    const uint32_t n = (uint32_t)((thing_bytes[KV_TIER_STATE] + block - 1) / block);
    struct kv_tier *t = tier_of(2 * n + 1, 0);
    const struct prefix_hash one = hash_of(1), other = hash_of(70);
    put(t, KV_TIER_STATE, 1);
    put(t, KV_TIER_STATE, 2);
    kv_tier_put(t, &other, 0); /* the place that was left */
    cr_assert(has(t, KV_TIER_STATE, 1) && has(t, KV_TIER_STATE, 2));
    kv_tier_touch_thing(t, KV_TIER_STATE, &one);
    put(t, KV_TIER_WINDOW_BLOCK, 3);
    cr_assert(!has(t, KV_TIER_STATE, 2), "used longest ago");
    cr_assert(has(t, KV_TIER_STATE, 1) && get(t, KV_TIER_STATE, 1));
    cr_assert_not(get(t, KV_TIER_STATE, 2));
    kv_tier_destroy(t);
}

Test(kv_tier_things, that_would_fill_the_memory_are_not_kept)
{
    const uint32_t n = (uint32_t)((thing_bytes[KV_TIER_STATE] + block - 1) / block);
    struct kv_tier *t = tier_of(2 * n - 1, 0);
    put(t, KV_TIER_STATE, 1);
    cr_assert_not(has(t, KV_TIER_STATE, 1));
    put(t, KV_TIER_WINDOW_BLOCK, 1);
    cr_assert(has(t, KV_TIER_WINDOW_BLOCK, 1));
    kv_tier_destroy(t);
}

Test(kv_tier_things, come_back_from_the_file)
{
    const uint32_t n = (uint32_t)((thing_bytes[KV_TIER_STATE] + block - 1) / block);
    struct kv_tier *t = tier_of(8 * n, 20 * n);
    struct kv_tier_stats stats;
    for (uint32_t i = 1; i <= 12; i++) {
        put(t, KV_TIER_STATE, i);
        usleep(20000); /* so that the queue of writes stays short */
    }
    kv_tier_stats(t, &stats);
    cr_assert_gt(stats.blocks[KV_TIER_DISK], 0);
    cr_assert(has(t, KV_TIER_STATE, 1), "%llu dropped", (unsigned long long)stats.dropped[KV_TIER_QUEUE_FULL]);
    for (uint32_t i = 1; i <= 12; i++)
        if (has(t, KV_TIER_STATE, i)) cr_assert(get(t, KV_TIER_STATE, i), "%u", i);
    kv_tier_destroy(t);
}
