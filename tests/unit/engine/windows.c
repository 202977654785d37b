/* windows in the engine: layers that look back over 100 tokens keep the blocks of these alone, and not a bit of any
 * answer changes, whatever is shared, preempted or handed over. */
#include "unit/engine/engine_runs.h"

#include <stdio.h>
#include <stdlib.h>

#define N_PROMPT 300
#define WINDOW   100

static void patch_u32(uint8_t *bytes, size_t n, const char *key, uint32_t value)
{
    uint8_t *at = memmem(bytes, n, key, strlen(key));
    cr_assert_not_null(at, "%s", key);
    memcpy(at + strlen(key) + sizeof(uint32_t), &value, sizeof(value)); /* behind its type */
}

/* A Gemma 2 of two kinds of layers in turn, with a longer context and window than its file has. */
static const char *model_path(void)
{
    static char path[64];
    FILE *f = fopen(TEST_DATA "/golden/families/gemma2.f16.gguf", "rb");
    uint8_t *bytes = mem_alloc(1 << 20);
    cr_assert_not_null(f);
    const size_t n = fread(bytes, 1, 1 << 20, f);
    fclose(f);
    patch_u32(bytes, n, "gemma2.context_length", 1024);
    patch_u32(bytes, n, "gemma2.attention.sliding_window", WINDOW);
    snprintf(path, sizeof(path), "/tmp/windows_%d.gguf", (int)getpid());
    f = fopen(path, "wb");
    cr_assert(f && fwrite(bytes, 1, n, f) == n && fclose(f) == 0);
    mem_free(bytes);
    return path;
}

static struct rig_options options(uint32_t window_blocks)
{
    struct rig_options o = rig_defaults();
    o.path = model_path();
    o.window_blocks = window_blocks;
    o.prefix_cache = window_blocks > 0;
    return o;
}

static struct rig *rig_with(struct rig_options o)
{
    struct rig *r = rig_of(o);
    unlink(o.path);
    return r;
}

static struct sampling_params drawn_on(uint32_t max_tokens)
{
    struct sampling_params p = drawn(max_tokens);
    p.ignore_eos = true;
    return p;
}

static void submit(struct rig *r, uint32_t i, enum engine_mode mode, const int32_t *tokens, uint32_t n,
                   uint32_t max_tokens)
{
    const struct sampling_params p = drawn_on(max_tokens);
    submit_with(r, i, mode, tokens, n, &p, NULL);
}

static void run(struct rig *r, uint32_t i, const int32_t *tokens, uint32_t n, uint32_t max_tokens)
{
    submit(r, i, ENGINE_GENERATE, tokens, n, max_tokens);
    WAIT(r, r->heard[i].n_done == 1);
    cr_assert_eq(r->heard[i].finish, FINISH_LENGTH);
}

/* A prompt of 900 tokens and 100 more in a pool that holds five blocks of a window: 100 tokens, 128 of a chunk. */
Test(windows, a_long_sequence_needs_the_blocks_of_its_window_alone)
{
    struct rig *all = rig_with(options(0)), *few = rig_with(options(5));
    for (uint32_t i = 0; i < 3; i++) {
        run(all, i, prompt() + i, 900, 100);
        run(few, i, prompt() + i, 900, 100);
        expect_same_bits(&all->heard[i], &few->heard[i]);
    }
    expect_idle(few);
    rig_free(all);
    rig_free(few);
}

Test(windows, any_chunks_and_any_crowd_give_the_bits_of_one_alone)
{
    static const uint32_t chunks[] = { 64, 128, 256 };
    struct rig *alone = rig_with(options(0));
    for (uint32_t i = 0; i < 12; i++) run(alone, i, prompt() + i, 1 + i * 61, 40);
    for (uint32_t c = 0; c < 3; c++) {
        struct rig_options o = options(c == 1 ? 12 : 60);
        o.chunk = chunks[c];
        struct rig *r = rig_with(o);
        for (uint32_t i = 0; i < 12; i++) submit(r, i, ENGINE_GENERATE, prompt() + i, 1 + i * 61, 40);
        for (uint32_t i = 0; i < 12; i++) {
            WAIT(r, r->heard[i].n_done == 1);
            expect_same_bits(&alone->heard[i], &r->heard[i]);
        }
        expect_idle(r);
        rig_free(r);
    }
    rig_free(alone);
}

Test(windows, a_prompt_goes_on_where_the_blocks_of_the_window_are_held)
{
    struct rig *off = rig_with(options(0)), *on = rig_with(options(40));
    const uint32_t lengths[] = { N_PROMPT, N_PROMPT, 257, 256, 200, 900, 950 },
                   cached[] = { 0, 256, 256, 192, 192, 256, 896 };
    for (uint32_t i = 0; i < 7; i++) {
        run(off, i, prompt(), lengths[i], 12);
        run(on, i, prompt(), lengths[i], 12);
        expect_same_bits(&off->heard[i], &on->heard[i]);
        cr_assert_eq(on->heard[i].cached, cached[i], "%u: %u", i, on->heard[i].cached);
    }
    expect_idle(on);
    rig_free(off);
    rig_free(on);
}

/* Where other sequences have taken the window's blocks, the KV of the other layers alone is of no use. */
Test(windows, a_prefix_without_its_window_is_computed_again)
{
    struct rig *off = rig_with(options(0)), *on = rig_with(options(8));
    int32_t other[900];
    for (uint32_t k = 0; k < 900; k++) other[k] = (int32_t)((k * 5 + 3) % 160);
    run(off, 0, prompt(), N_PROMPT, 12);
    run(on, 1, prompt(), N_PROMPT, 12);
    run(on, 2, other, 900, 12);
    run(on, 3, prompt(), N_PROMPT, 12);
    cr_assert_eq(on->heard[3].cached, 0);
    expect_same_bits(&off->heard[0], &on->heard[1]);
    expect_same_bits(&off->heard[0], &on->heard[3]);
    rig_free(off);
    rig_free(on);
}

/* Common and own parts in pools that are too small: hits, evictions, preemptions by recomputing and by swapping. */
static struct engine_load crowd(struct rig_options o)
{
    enum { N = 24 };
    struct rig *off = rig_with(options(0)), *on;
    o.path = model_path();
    on = rig_with(o);
    for (uint32_t i = 0; i < N; i++) {
        int32_t tokens[N_PROMPT];
        uint32_t n = 100 + i * 53 % 180;
        memcpy(tokens, prompt(), sizeof(tokens));
        for (uint32_t k = 64 + i % 3 * 64; k < n; k++) tokens[k] = (int32_t)((k + i) % 160);
        submit(off, i, ENGINE_GENERATE, tokens, n, 70);
        submit(on, i, ENGINE_GENERATE, tokens, n, 70);
    }
    for (uint32_t i = 0; i < N; i++) {
        WAIT(off, off->heard[i].n_done == 1);
        WAIT(on, on->heard[i].n_done == 1);
        expect_same_bits(&off->heard[i], &on->heard[i]);
    }
    expect_idle(on);
    struct engine_load load;
    engine_load(on->engine, &load);
    cr_assert_eq(load.swapped_blocks, 0);
    rig_free(off);
    rig_free(on);
    return load;
}

Test(windows, a_crowd_under_pressure_gets_the_same_bits)
{
    struct rig_options o = options(14);
    o.n_blocks = 14;
    struct engine_load load = crowd(o);
    cr_assert(load.preemptions[PREEMPT_RECOMPUTE] > 0 && load.preemptions[PREEMPT_SWAP] == 0);
    cr_assert_gt(load.prefix_hits, 0);
    o.swap_blocks = 200;
    load = crowd(o);
    cr_assert(load.preemptions[PREEMPT_SWAP] > 0 && load.preemptions[PREEMPT_RECOMPUTE] == 0);
    o.n_blocks = 256; /* the windows' pool alone is short */
    o.window_blocks = 12;
    crowd(o);
    o.n_blocks = 14;
    o.tier_blocks = 40;
    crowd(o);
}

/* As a hand-off does it: the other layers' blocks from the hits on, and the windows' from where the prompt's end looks
 * back to. */
static void carry(struct rig *from, struct rig *to, uint32_t i, uint32_t n)
{
    const struct kv_store *a = engine_kv(from->engine), *b = engine_kv(to->engine);
    const size_t window = kv_store_window_bytes(a);
    uint8_t *bytes = mem_alloc(kv_store_block_bytes(a) + window);
    const uint32_t hits = to->heard[i].n_hits / 64, first = n > WINDOW ? (n - WINDOW) / 64 : 0;
    for (uint32_t k = hits; k < (n + 63) / 64; k++) {
        cr_assert_eq(kv_store_read_block(a, from->heard[i].blocks[k], bytes), OK);
        cr_assert_eq(kv_store_write_block(b, to->heard[i].blocks[k], bytes), OK);
    }
    for (uint32_t k = hits > first ? hits : first; k < (n + 63) / 64; k++) {
        cr_assert_eq(kv_store_read_window(a, from->heard[i].window_blocks[k], 0, window, bytes), OK);
        cr_assert_eq(kv_store_write_window(b, to->heard[i].window_blocks[k], 0, window, bytes), OK);
    }
    mem_free(bytes);
}

static void hand_over(struct rig *p, struct rig *d, uint32_t i, uint32_t n)
{
    const struct seq_key key = { 1, i, 1 };
    submit(d, i, ENGINE_RESERVE, prompt(), n, 30);
    WAIT(d, d->heard[i].n_reserved == 1);
    submit(p, i, ENGINE_PREFILL_ONLY, prompt(), n, 30);
    WAIT(p, p->heard[i].n_out == 1);
    cr_assert_eq(p->heard[i].kv_t1, n);
    carry(p, d, i, n);
    cr_assert_eq(engine_release(p->engine, &key), OK);
    cr_assert_eq(engine_start_decode(d->engine, &key, p->heard[i].out[0]), OK);
    WAIT(d, d->heard[i].n_done == 1);
}

Test(windows, the_windows_blocks_are_all_that_is_handed_over)
{
    struct rig *alone = rig_with(options(0)), *p = rig_with(options(30)), *d = rig_with(options(30));
    const uint32_t lengths[] = { 1, 64, 65, 100, 101, 164, 165, 300, 300, 301, 700, 250 };
    for (uint32_t i = 0; i < 12; i++) {
        run(alone, i, prompt(), lengths[i], 30);
        hand_over(p, d, i, lengths[i]);
        cr_assert_eq(d->heard[i].n_out, 29);
        cr_assert_eq(memcmp(d->heard[i].out, alone->heard[i].out + 1, 29 * sizeof(int32_t)), 0, "%u", i);
        cr_assert_eq(memcmp(d->heard[i].lp, alone->heard[i].lp + 1, 29 * sizeof(float)), 0, "%u", i);
    }
    cr_assert_eq(d->heard[8].n_hits, 256);
    cr_assert_eq(d->heard[10].n_hits, 256, "its window begins behind all hits");
    expect_idle(p);
    expect_idle(d);
    rig_free(alone);
    rig_free(p);
    rig_free(d);
}

/* KV that came from elsewhere has windows of its prompt's end alone: a reservation that computes from an earlier place
 * goes back. */
Test(windows, a_reservation_that_computes_goes_back_to_where_windows_are)
{
    struct rig *alone = rig_with(options(0)), *p = rig_with(options(30)), *d = rig_with(options(30));
    const uint32_t n_cached[] = { 192, 512, 640 };
    for (uint32_t k = 0; k < 3; k++) run(alone, k, prompt(), k == 0 ? 250 : 700, 30);
    hand_over(p, d, 10, 700);
    for (uint32_t i = 0; i < 3; i++) {
        const struct seq_key key = { 1, i, 1 };
        const uint32_t n = i == 0 ? 250 : 700;
        submit(d, i, ENGINE_RESERVE, prompt(), n, 30);
        WAIT(d, d->heard[i].n_reserved == 1);
        cr_assert_eq(engine_start_prefill(d->engine, &key), OK);
        WAIT(d, d->heard[i].n_done == 1);
        expect_same_bits(&alone->heard[i], &d->heard[i]);
        cr_assert_leq(d->heard[i].cached, n_cached[i]);
    }
    cr_assert_eq(d->heard[2].cached, 640);
    expect_idle(d);
    rig_free(alone);
    rig_free(p);
    rig_free(d);
}

Test(windows, cancel_gives_blocks_back_in_every_state)
{
    struct rig_options o = options(16);
    struct rig *r = rig_with(o);
    for (uint32_t i = 0; i < 12; i++)
        submit(r, i,
               i % 3 == 0   ? ENGINE_PREFILL_ONLY
               : i % 3 == 1 ? ENGINE_RESERVE
                            : ENGINE_GENERATE,
               prompt(), N_PROMPT, 50);
    WAIT(r, r->heard[0].n_out == 1);
    for (uint32_t i = 0; i < 12; i++) cr_assert_eq(engine_cancel(r->engine, &(struct seq_key){ 1, i, 1 }), OK);
    for (uint32_t i = 0; i < 12; i++) WAIT(r, r->heard[i].n_done == 1);
    expect_idle(r);
    rig_free(r); /* the pool of windows would find a block that is missing */
}
