/* prefix cache in the engine: what is found is not computed, and not a bit of the answer changes. */
#include "unit/engine/engine_runs.h"

#include <errno.h>
#include <stdatomic.h>

#define N_PROMPT 300

static struct rig *rig_with(bool cache)
{
    struct rig_options o = rig_defaults();
    o.prefix_cache = cache;
    return rig_of(o);
}

Test(prefix, a_prompt_is_found_again_and_gives_the_same_bits)
{
    struct rig *off = rig_with(false), *on = rig_with(true);
    struct sampling_params p = drawn(40);
    struct engine_load load;
    run_with(off, 0, prompt(), N_PROMPT, &p, NULL);
    for (uint32_t i = 0; i < 3; i++) run_with(on, i, prompt(), i == 2 ? 256 : N_PROMPT, &p, NULL);
    cr_assert_eq(on->heard[0].cached, 0);
    cr_assert_eq(on->heard[1].cached, N_PROMPT - 1, "the last token is always computed");
    cr_assert_eq(on->heard[2].cached, 256 - 1, "of a full block, too");
    expect_same_bits(&off->heard[0], &on->heard[0]);
    expect_same_bits(&off->heard[0], &on->heard[1]);
    expect_idle(on);
    engine_load(on->engine, &load);
    cr_assert_eq(load.prefix_queries, 2 * N_PROMPT + 256);
    cr_assert_eq(load.prefix_hits, N_PROMPT - 1 + 256 - 1);
    rig_free(off);
    rig_free(on);
}

Test(prefix, an_answer_is_part_of_the_next_prompt)
{
    struct rig *off = rig_with(false), *on = rig_with(true);
    struct sampling_params p = drawn(100);
    int32_t next[N_PROMPT + 100 + 20];
    memcpy(next, prompt(), sizeof(next));
    run_with(on, 0, prompt(), N_PROMPT, &p, NULL);
    memcpy(next + N_PROMPT, on->heard[0].out, 100 * sizeof(int32_t));
    run_with(on, 1, next, N_PROMPT + 120, &p, NULL);
    run_with(off, 1, next, N_PROMPT + 120, &p, NULL);
    cr_assert_eq(on->heard[1].cached, 384, "399 tokens were computed before");
    expect_same_bits(&off->heard[1], &on->heard[1]);
    rig_free(off);
    rig_free(on);
}

/* Answers to one prompt fork from the first one, whose own answer goes on in the block that they copy. */
Test(prefix, several_answers_compute_one_token_each_and_give_the_bits_of_requests_alone)
{
    enum { N = 8, N_TAIL = 60 };
    static const uint32_t lengths[] = { N_TAIL, 128 + N_TAIL, 192 };
    for (uint32_t l = 0; l < 3; l++) {
        struct rig *off = rig_with(false), *on = rig_with(true);
        struct engine_load before, load;
        for (uint32_t i = 0; i < N; i++) {
            struct sampling_params p = drawn(i ? 20 : 100);
            p.choice = i;
            run_with(off, i, prompt(), lengths[l], &p, NULL);
            submit_with(on, i, ENGINE_GENERATE, prompt(), lengths[l], &p, NULL);
            if (i == 0) WAIT(on, on->heard[0].n_out > 1);
            if (i == 0) engine_load(on->engine, &before);
        }
        for (uint32_t i = 0; i < N; i++) {
            WAIT(on, on->heard[i].n_done == 1);
            expect_same_bits(&off->heard[i], &on->heard[i]);
            cr_assert_eq(on->heard[i].cached, i ? lengths[l] - 1 : 0);
        }
        engine_load(on->engine, &load);
        cr_assert_eq(before.prefill_tokens, lengths[l]);
        cr_assert_eq(load.prefill_tokens - before.prefill_tokens, N - 1);
        cr_assert_neq(on->heard[1].out[0] + 1000 * on->heard[1].out[1] + 1000000 * on->heard[1].out[2],
                      on->heard[2].out[0] + 1000 * on->heard[2].out[1] + 1000000 * on->heard[2].out[2]);
        expect_idle(on);
        rig_free(off);
        rig_free(on);
    }
}

/* Prefill-only ones hand the copied tail over with its last token. */
Test(prefix, several_answers_on_a_prefill_node)
{
    struct rig *r = rig_with(true);
    for (uint32_t i = 0; i < 4; i++) {
        struct sampling_params p = drawn(5);
        p.choice = i;
        submit_with(r, i, ENGINE_PREFILL_ONLY, prompt(), N_PROMPT, &p, NULL);
        WAIT(r, r->heard[i].n_out == 1);
        cr_assert_eq(r->heard[i].cached, i ? N_PROMPT - 1 : 0);
        cr_assert_eq(r->heard[i].kv_t1, N_PROMPT);
        if (i % 2) cr_assert_eq(engine_release(r->engine, &(struct seq_key){ 1, i, 1 }), OK);
    }
    for (uint32_t i = 0; i < 4; i += 2) cr_assert_eq(engine_cancel(r->engine, &(struct seq_key){ 1, i, 1 }), OK);
    expect_idle(r);
    rig_free(r);
}

/* Common and own parts, in a pool that is too small: hits, evictions and preemptions under way. */
Test(prefix, a_crowd_under_pressure_gets_the_same_bits)
{
    enum { N = 24 };
    struct rig_options o = rig_defaults();
    struct rig *off = rig_of(o), *on;
    struct engine_load load;
    o.prefix_cache = true;
    o.n_blocks = 14;
    on = rig_of(o);
    for (uint32_t i = 0; i < N; i++) {
        struct sampling_params p = drawn(70);
        int32_t tokens[N_PROMPT];
        uint32_t n = 100 + i * 53 % 180;
        memcpy(tokens, prompt(), sizeof(tokens));
        for (uint32_t k = 64 + i % 3 * 64; k < n; k++) tokens[k] = (int32_t)((k + i) % 160);
        submit_with(off, i, ENGINE_GENERATE, tokens, n, &p, NULL);
        submit_with(on, i, ENGINE_GENERATE, tokens, n, &p, NULL);
    }
    for (uint32_t i = 0; i < N; i++) {
        WAIT(off, off->heard[i].n_done == 1);
        WAIT(on, on->heard[i].n_done == 1);
        expect_same_bits(&off->heard[i], &on->heard[i]);
    }
    expect_idle(on);
    engine_load(on->engine, &load);
    cr_assert_gt(load.preemptions, 0);
    cr_assert_gt(load.prefix_hits, 0);
    rig_free(off);
    rig_free(on);
}

Test(prefix, what_was_found_is_handed_over_too)
{
    struct rig *r = rig_with(true);
    struct sampling_params p = drawn(5);
    run_with(r, 0, prompt(), N_PROMPT, &p, NULL);
    submit_with(r, 1, ENGINE_PREFILL_ONLY, prompt(), N_PROMPT, &p, NULL);
    WAIT(r, r->heard[1].n_out == 1);
    cr_assert_eq(r->heard[1].cached, N_PROMPT - 1);
    cr_assert_eq(r->heard[1].kv_t1, N_PROMPT, "from token 0 on, in order");
    cr_assert_eq(r->heard[1].out[0], r->heard[0].out[0]);
    cr_assert_eq(engine_release(r->engine, &(struct seq_key){ 1, 1, 1 }), OK);
    expect_idle(r);
    rig_free(r);
}

Test(prefix, a_reservation_names_its_hits_and_keeps_them)
{
    struct rig *r = rig_with(true);
    struct sampling_params p = drawn(40);
    struct seq_key key = { 1, 1, 1 }, again = { 1, 1, 2 };
    kv_block_id hits[4];
    run_with(r, 0, prompt(), N_PROMPT, &p, NULL);
    submit_with(r, 1, ENGINE_RESERVE, prompt(), N_PROMPT, &p, NULL);
    WAIT(r, r->heard[1].n_reserved == 1);
    cr_assert_eq(r->heard[1].n_hits, 256);
    memcpy(hits, r->heard[1].blocks, sizeof(hits));
    cr_assert_eq(engine_receiving(r->engine, &key), OK);
    cr_assert_eq(engine_rebind(r->engine, &key, 2), OK);
    WAIT(r, r->heard[1].n_reserved == 2);
    cr_assert_eq(r->heard[1].n_hits, 256);
    cr_assert_eq(memcmp(hits, r->heard[1].blocks, sizeof(hits)), 0);
    cr_assert_eq(engine_start_prefill(r->engine, &again), OK);
    WAIT(r, r->heard[1].n_done == 1);
    cr_assert_eq(r->heard[1].cached, N_PROMPT - 1, "what is left is copied when it is clear that no hand-off comes");
    expect_same_bits(&r->heard[0], &r->heard[1]);
    rig_free(r);
}

/* Received KV can be found as soon as decoding starts. */
Test(prefix, received_blocks_are_published)
{
    struct rig *r = rig_with(true);
    struct sampling_params p = drawn(40);
    submit_with(r, 1, ENGINE_RESERVE, prompt(), N_PROMPT, &p, NULL);
    WAIT(r, r->heard[1].n_reserved == 1);
    submit_with(r, 2, ENGINE_RESERVE, prompt(), N_PROMPT, &p, NULL);
    WAIT(r, r->heard[2].n_reserved == 1);
    cr_assert_eq(r->heard[2].n_hits, 0, "nothing is there yet");
    cr_assert_eq(engine_start_decode(r->engine, &(struct seq_key){ 1, 1, 1 }, 3), OK);
    WAIT(r, r->heard[1].n_out > 0);
    submit_with(r, 3, ENGINE_RESERVE, prompt(), N_PROMPT, &p, NULL);
    WAIT(r, r->heard[3].n_reserved == 1);
    cr_assert_eq(r->heard[3].n_hits, 256);
    rig_free(r);
}

Test(prefix, another_salt_finds_nothing)
{
    struct rig *r = rig_with(true);
    struct sampling_params p = drawn(4);
    static const char *const salts[] = { NULL, "a", "b", "a", "" };
    for (uint32_t i = 0; i < 5; i++) run_with(r, i, prompt(), N_PROMPT, &p, salts[i]);
    for (uint32_t i = 0; i < 5; i++) cr_assert_eq(r->heard[i].cached, i < 3 ? 0 : N_PROMPT - 1, "%u", i);
    rig_free(r);
}

Test(prefix, prompt_logprobs_are_computed_whatever_is_there)
{
    struct rig *r = rig_with(true);
    struct sampling_params p = drawn(4);
    p.n_prompt_logprobs = 0;
    for (uint32_t i = 0; i < 2; i++) {
        run_with(r, i, prompt(), N_PROMPT, &p, NULL);
        cr_assert_eq(r->heard[i].cached, 0);
        cr_assert_eq(r->heard[i].n_prompt_lp, N_PROMPT - 1);
    }
    cr_assert_eq(r->heard[0].prompt_lp_sum, r->heard[1].prompt_lp_sum);
    rig_free(r);
}

/* Prompts that overflow the pool, twice: the second time they come from the tier. */
static void run_through_tier(uint32_t tier_blocks, uint32_t disk_blocks)
{
    enum { N = 6 };
    struct rig_options o = rig_defaults();
    struct rig *off = rig_of(o), *on;
    struct engine_load load;
    o.prefix_cache = true;
    o.n_blocks = 8;
    o.tier_blocks = tier_blocks;
    o.tier_disk_blocks = disk_blocks;
    on = rig_of(o);
    for (uint32_t i = 0; i < 2 * N; i++) {
        struct sampling_params p = drawn(30);
        int32_t tokens[N_PROMPT];
        for (uint32_t k = 0; k < N_PROMPT; k++) tokens[k] = (int32_t)((k * k + i % N * 3 + k) % 160);
        if (i < N) run_with(off, i, tokens, N_PROMPT, &p, NULL);
        run_with(on, i, tokens, N_PROMPT, &p, NULL);
        expect_same_bits(&off->heard[i % N], &on->heard[i]);
        cr_assert(i >= N || on->heard[i].cached == 0);
        /* A disk may be slower than blocks come. */
        cr_assert(i < N || disk_blocks > 0 || on->heard[i].cached >= 256, "%u: %u", i, on->heard[i].cached);
    }
    engine_load(on->engine, &load);
    cr_assert_gt(load.tier.hits[disk_blocks ? KV_TIER_DISK : KV_TIER_RAM], 0);
    cr_assert_leq(load.tier.blocks[KV_TIER_RAM], tier_blocks);
    rig_free(off);
    rig_free(on);
}

Test(prefix, what_the_pool_had_no_room_for_comes_back_from_ram)
{
    run_through_tier(40, 0);
}

Test(prefix, what_ram_had_no_room_for_comes_back_from_disk)
{
    run_through_tier(10 + 4, 60);
}

/* A disk that answers when it is told to, or not at all. */
static atomic_int n_reads, stand_still, read_errno, flip;

static ssize_t test_read(int fd, void *p, size_t n, off_t at)
{
    atomic_fetch_add(&n_reads, 1);
    while (atomic_load(&stand_still)) usleep(100);
    errno = atomic_load(&read_errno);
    if (errno) return -1;
    ssize_t k = pread(fd, p, n, at);
    for (ssize_t i = 0; atomic_load(&flip) && i < k; i += 64) ((uint8_t *)p)[i] ^= 1;
    return k;
}

static const int32_t *prompt_of(uint32_t kind)
{
    static int32_t tokens[N_PROMPT];
    for (uint32_t k = 0; k < N_PROMPT; k++) tokens[k] = (int32_t)((k * k + kind * 3 + k) % 160);
    return tokens;
}

/* Prompt 0 lies on the disk alone, those of kinds 1 to 4 after it. */
static struct rig *rig_on_disk(void)
{
    static const struct kv_tier_io io = { test_read, pwrite };
    struct rig_options o = rig_defaults();
    struct engine_load load;
    struct sampling_params p = drawn(30);
    o.prefix_cache = true;
    o.n_blocks = 16;
    o.tier_blocks = 10 + 4;
    o.tier_disk_blocks = 60;
    o.tier_io = &io;
    struct rig *r = rig_of(o);
    for (uint32_t i = 0; i < 9; i++) {
        run_with(r, i, prompt_of(i), N_PROMPT, &p, NULL);
        usleep(40000); /* for the writer, whose disk may stall: a full queue drops */
    }
    engine_load(r->engine, &load);
    cr_assert_geq(load.tier.blocks[KV_TIER_DISK], 8);
    cr_assert_eq(load.tier.dropped[KV_TIER_QUEUE_FULL], 0);
    return r;
}

static bool is_reading(struct rig *r, int n)
{
    struct engine_load load;
    for (int i = 0; i < 1000 * WAIT_S; i++) {
        engine_load(r->engine, &load); /* follows by a moment */
        if (atomic_load(&n_reads) >= n && load.blocks[KV_RECEIVING] > 0 && load.n_waiting > 0) return true;
        usleep(1000);
    }
    return false;
}

/* Two wait for the disk, the second one for what is read for the first; the others go on. */
Test(prefix, nobody_waits_for_anothers_reads)
{
    struct rig *r = rig_on_disk();
    struct sampling_params p = drawn(30);
    atomic_store(&stand_still, 1);
    struct engine_load load;
    for (uint32_t i = 0; i < 2; i++) submit_with(r, 20 + i, ENGINE_GENERATE, prompt_of(0), N_PROMPT, &p, NULL);
    cr_assert(is_reading(r, 4));
    run_with(r, 30, prompt(), 100, &p, "other");
    cr_assert(r->heard[20].n_out + r->heard[21].n_out == 0 && is_reading(r, 4));
    atomic_store(&stand_still, 0);
    for (uint32_t i = 0; i < 2; i++) {
        WAIT(r, r->heard[20 + i].n_done == 1);
        expect_same_bits(&r->heard[0], &r->heard[20 + i]);
        cr_assert_geq(r->heard[20 + i].cached, 256);
    }
    engine_load(r->engine, &load);
    cr_assert_eq(load.tier.hits[KV_TIER_DISK], 4, "once for both");
    expect_idle(r);
    rig_free(r);
}

Test(prefix, a_cancelled_request_leaves_its_reads)
{
    struct rig *r = rig_on_disk();
    struct sampling_params p = drawn(30);
    struct seq_key again = { 1, 21, 2 };
    atomic_store(&stand_still, 1);
    submit_with(r, 20, ENGINE_GENERATE, prompt_of(0), N_PROMPT, &p, NULL);
    submit_with(r, 21, ENGINE_RESERVE, prompt_of(1), N_PROMPT, &p, NULL);
    cr_assert(is_reading(r, 4));
    cr_assert_eq(engine_rebind(r->engine, &(struct seq_key){ 1, 21, 1 }, 2), OK);
    cr_assert_eq(engine_cancel(r->engine, &(struct seq_key){ 1, 20, 1 }), OK);
    WAIT(r, r->heard[20].n_done == 1);
    WAIT(r, r->heard[21].n_reserved == 1); /* its turn, and the disk is busy: it does not wait */
    cr_assert_eq(r->heard[21].epoch, 2);
    cr_assert_eq(engine_cancel(r->engine, &again), OK);
    WAIT(r, r->heard[21].n_done == 1);
    expect_idle(r);
    atomic_store(&stand_still, 0);
    run_with(r, 22, prompt_of(0), N_PROMPT, &p, NULL);
    expect_same_bits(&r->heard[0], &r->heard[22]);
    rig_free(r);
}

/* One prompt each: after a slow read the next one might not pay. */
static void expect_computed(atomic_int *what, int value, enum kv_tier_drop why)
{
    struct rig *r = rig_on_disk();
    struct sampling_params p = drawn(30);
    struct engine_load load;
    atomic_store(what, value);
    run_with(r, 20, prompt_of(0), N_PROMPT, &p, NULL);
    expect_same_bits(&r->heard[0], &r->heard[20]);
    cr_assert_eq(r->heard[20].cached, 0);
    engine_load(r->engine, &load);
    cr_assert_eq(load.tier.dropped[why], 1);
    expect_idle(r);
    rig_free(r);
}

Test(prefix, a_disk_that_fails_costs_time_alone)
{
    expect_computed(&read_errno, EIO, KV_TIER_READ_ERROR);
}

Test(prefix, a_disk_that_lies_costs_time_alone)
{
    expect_computed(&flip, 1, KV_TIER_CORRUPT);
}

Test(prefix, a_tier_without_a_prefix_cache_is_refused)
{
    struct rig *r = rig_with(false);
    struct engine *again = NULL;
    struct error err = { 0 };
    int32_t end = -1;
    struct engine_options o = { .model = (struct model *)engine_model(r->engine),
                                .kv = engine_kv(r->engine),
                                .end_ids = &end,
                                .n_end_ids = 1,
                                .max_seqs = 2,
                                .max_batch_tokens = 128,
                                .chunk_tokens = 64,
                                .max_context = 1024,
                                .max_commands = 4,
                                .tier_bytes = 1 << 20,
                                .on_event = on_event,
                                .ctx = r };
    cr_assert_eq(engine_create(&again, &o, &err), ERR_INVALID);
    cr_assert(strstr(err.text, "kv.prefix_cache is off"), "%s", err.text);
    rig_free(r);
}
