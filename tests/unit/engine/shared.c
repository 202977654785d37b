/* One memory for blocks, windows and states: sequences that crowd it get the bits of those that have plenty, each group
 * on its own, and all of it comes back. */
#include "kv/window_table.h"
#include "store/kv_store.h"
#include "unit/engine/engine_runs.h"

#define N        24
#define N_PROMPT 300
#define N_OUT    70

static const char *const FILES[] = { "qwen35.q", "qwen3next.q", "gemma3.q", "gemma2.f16", "gpt-oss.q" };
#define N_FILES (sizeof(FILES) / sizeof(FILES[0]))

static struct rig *rig_on(const char *name, struct rig_options o)
{
    char path[256];
    snprintf(path, sizeof(path), TEST_DATA "/golden/families/%s.gguf", name);
    o.path = path;
    o.context = 512;
    return rig_of(o);
}

static void submit(struct rig *r, uint32_t i)
{
    struct sampling_params p = drawn(N_OUT);
    int32_t tokens[N_PROMPT];
    const uint32_t n = 80 + i * 53 % 200;
    memcpy(tokens, prompt(), sizeof(tokens));
    for (uint32_t k = 64 + i % 3 * 64; k < n; k++) tokens[k] = (int32_t)((k + i) % 160);
    p.ignore_eos = true;
    submit_with(r, i, ENGINE_GENERATE, tokens, n, &p, NULL);
}

static struct engine_load crowd(const char *name, struct rig_options o)
{
    struct rig_options plenty = rig_defaults();
    struct rig *off = rig_on(name, plenty), *on = rig_on(name, o);
    for (uint32_t i = 0; i < N; i++) {
        submit(off, i);
        submit(on, i);
    }
    for (uint32_t i = 0; i < N; i++) {
        WAIT(off, off->heard[i].n_done == 1);
        WAIT(on, on->heard[i].n_done == 1);
        cr_assert_eq(on->heard[i].finish, FINISH_LENGTH, "%s: %u", name, i);
        expect_same_bits(&off->heard[i], &on->heard[i]);
    }
    expect_idle(on);
    struct engine_load load;
    engine_load(on->engine, &load);
    rig_free(off);
    rig_free(on);
    return load;
}

/* Room for two or three sequences at once. */
static struct rig_options tight(void)
{
    struct rig_options o = rig_defaults();
    o.shared = true;
    o.n_blocks = 52;
    o.prefix_cache = true;
    o.snapshots = 2;
    return o;
}

Test(shared, a_crowd_under_pressure_gets_the_same_bits)
{
    uint64_t n_preempted = 0, n_hits = 0;
    for (size_t i = 0; i < N_FILES; i++) {
        const struct engine_load load = crowd(FILES[i], tight());
        n_preempted += load.preemptions[PREEMPT_RECOMPUTE];
        n_hits += load.prefix_hits;
        cr_assert_leq(load.states.n_snapshots, 2);
    }
    cr_assert_gt(n_preempted, 0);
    cr_assert_gt(n_hits, 0);
}

Test(shared, what_is_preempted_comes_back_to_other_places)
{
    struct rig_options o = tight();
    uint64_t n_swapped = 0;
    o.swap_blocks = 400;
    for (size_t i = 0; i < N_FILES; i++) n_swapped += crowd(FILES[i], o).preemptions[PREEMPT_SWAP];
    cr_assert_gt(n_swapped, 0);
}

/* States and blocks of all ranks go to the host, and come back. */
Test(shared, a_crowd_on_ranks_gets_the_bits_of_one)
{
    static const char *const files[] = { "qwen35.q", "qwen3next.q" };
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        struct rig_options o = tight();
        o.tp = 2;
        o.pp = 2;
        const struct engine_load forgotten = crowd(files[i], o);
        o.swap_blocks = 400;
        const struct engine_load swapped = crowd(files[i], o);
        cr_assert_gt(forgotten.preemptions[PREEMPT_RECOMPUTE], 0, "%s", files[i]);
        cr_assert_gt(swapped.preemptions[PREEMPT_SWAP], 0, "%s", files[i]);
    }
}

/* What never could go on is refused at once; the largest that can has all there is. */
Test(shared, a_sequence_that_fits_the_empty_memory_gets_to_its_end)
{
    for (size_t i = 0; i < N_FILES; i++) {
        struct rig_options o = tight();
        struct rig *all = rig_on(FILES[i], o);
        const struct kv_runs runs = engine_kv(all->engine)->runs;
        const uint32_t window = kv_store_window(engine_kv(all->engine)), n = 200;
        const uint32_t n_windows = runs.window > 0 ? window_blocks_max(window, o.chunk, 256) : 0;
        cr_assert(runs.window + runs.slot > 0, "%s", FILES[i]);
        rig_free(all);
        const uint32_t run = runs.window + runs.slot; /* of the one that there is */
        o.n_blocks = (block_table_blocks_for(n + 55) + n_windows * runs.window + runs.slot + run - 1) / run * run;
        struct rig *r = rig_on(FILES[i], o);
        struct sampling_params p = drawn(56);
        p.ignore_eos = true;
        for (uint32_t k = 0; k < 3; k++) {
            submit_with(r, k, ENGINE_GENERATE, prompt() + k, n, &p, NULL);
            WAIT(r, r->heard[k].n_done == 1);
            cr_assert_eq(r->heard[k].finish, FINISH_LENGTH, "%s", FILES[i]);
        }
        expect_idle(r);
        rig_free(r);
        o.n_blocks = runs.slot > 0 ? runs.slot + 3 : n_windows * runs.window + 3;
        r = rig_on(FILES[i], o);
        const struct seq_request q = { { 1, 0, 1 }, ENGINE_GENERATE, prompt(), n, n, p, NULL };
        cr_assert_eq(engine_submit(r->engine, &q), ERR_NO_BLOCKS, "%s", FILES[i]);
        rig_free(r);
    }
}

/* Prompts that push each other out of the pool are found in the tier: blocks, and the windows or the state that go with
 * them. */
static void run_through_tier(const char *name, uint32_t ram, uint32_t disk)
{
    enum { PROMPTS = 20, LONG = 200 };
    struct rig_options o = tight();
    uint32_t n_cached = 0;
    o.tier_blocks = ram;
    o.tier_disk_blocks = disk;
    o.snapshots = 1;
    struct rig *off = rig_on(name, rig_defaults()), *on = rig_on(name, o);
    struct sampling_params p = drawn(10);
    p.ignore_eos = true;
    for (uint32_t i = 0; i < 3 * PROMPTS; i++) {
        int32_t tokens[LONG];
        memcpy(tokens, prompt(), sizeof(tokens));
        tokens[0] = (int32_t)(i % PROMPTS);
        if (i < PROMPTS) run_with(off, i, tokens, LONG, &p, NULL);
        run_with(on, i, tokens, LONG, &p, NULL);
        expect_same_bits(&off->heard[i % PROMPTS], &on->heard[i]);
        n_cached += on->heard[i].cached;
    }
    expect_idle(on);
    struct engine_load load;
    engine_load(on->engine, &load);
    if (disk == 0) cr_assert_eq(n_cached, 2 * PROMPTS * 192, "%s: %u", name, n_cached);
    cr_assert(n_cached <= 2 * PROMPTS * 192);
    cr_assert_gt(load.tier.hits[KV_TIER_RAM] + load.tier.hits[KV_TIER_DISK], 0, "%s", name);
    rig_free(off);
    rig_free(on);
}

Test(shared, what_is_pushed_out_comes_back_from_the_tier)
{
    for (size_t i = 0; i < N_FILES; i++) run_through_tier(FILES[i], 500, 0);
    run_through_tier("qwen35.q", 60, 400); /* a busy disk is left out */
    run_through_tier("gemma3.q", 60, 400);
}
