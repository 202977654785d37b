/* recurrent states in the engine: slots, snapshots, swap.  Whatever happens to a sequence, its tokens and logprobs are
 * those of a run alone without any of it. */
#include "store/state_store.h"
#include "unit/engine/engine_runs.h"

#define N_PROMPT 300

static struct rig_options options(uint32_t snapshots)
{
    struct rig_options o = rig_defaults();
    o.recurrent = true;
    o.prefix_cache = snapshots > 0;
    o.snapshots = snapshots;
    return o;
}

static void submit(struct rig *r, uint32_t i, enum engine_mode mode, const int32_t *tokens, uint32_t n,
                   uint32_t max_tokens)
{
    const struct sampling_params p = drawn(max_tokens);
    submit_with(r, i, mode, tokens, n, &p, NULL);
}

static void run(struct rig *r, uint32_t i, const int32_t *tokens, uint32_t n, uint32_t max_tokens)
{
    submit(r, i, ENGINE_GENERATE, tokens, n, max_tokens);
    WAIT(r, r->heard[i].n_done == 1);
    cr_assert_eq(r->heard[i].finish, FINISH_LENGTH);
}

static struct engine_load load_of(struct rig *r)
{
    struct engine_load load;
    engine_load(r->engine, &load);
    return load;
}

/* The model forgets nothing: another first token changes the answer's logprobs. */
Test(states, are_what_answers_depend_on)
{
    struct rig_options o = options(0), plain = rig_defaults();
    struct rig *r = rig_of(o), *without = rig_of(plain);
    int32_t other[N_PROMPT];
    memcpy(other, prompt(), sizeof(other));
    other[0]++;
    run(r, 0, prompt(), N_PROMPT, 8);
    run(r, 1, other, N_PROMPT, 8);
    run(without, 0, prompt(), N_PROMPT, 8);
    cr_assert_neq(memcmp(r->heard[0].lp, r->heard[1].lp, 8 * sizeof(float)), 0);
    cr_assert_neq(memcmp(r->heard[0].lp, without->heard[0].lp, 8 * sizeof(float)), 0);
    rig_free(r);
    rig_free(without);
}

Test(states, any_chunks_and_any_crowd_give_the_bits_of_one_alone)
{
    static const uint32_t chunks[] = { 64, 128, 256 };
    struct rig *alone = rig_of(options(0));
    for (uint32_t i = 0; i < 12; i++) run(alone, i, prompt() + i, 1 + i * 41, 20);
    for (uint32_t c = 0; c < 3; c++) {
        struct rig_options o = options(c ? 8 : 0);
        o.chunk = chunks[c];
        struct rig *r = rig_of(o);
        for (uint32_t i = 0; i < 12; i++) submit(r, i, ENGINE_GENERATE, prompt() + i, 1 + i * 41, 20);
        for (uint32_t i = 0; i < 12; i++) {
            WAIT(r, r->heard[i].n_done == 1);
            expect_same_bits(&alone->heard[i], &r->heard[i]);
        }
        expect_idle(r);
        rig_free(r);
    }
    rig_free(alone);
}

Test(states, a_prompt_goes_on_from_the_longest_prefix_with_a_snapshot)
{
    struct rig *off = rig_of(options(0)), *on = rig_of(options(40)); /* one every 4 blocks, and before the last token */
    const uint32_t lengths[] = { N_PROMPT, N_PROMPT, 257, 256, 200, 200, 900, 950, 70, 70 };
    const uint32_t cached[] = { 0, 256, 256, 0, 192, 192, 256, 896, 0, 64 };
    for (uint32_t i = 0; i < 10; i++) {
        run(off, i, prompt(), lengths[i], 12);
        run(on, i, prompt(), lengths[i], 12);
        expect_same_bits(&off->heard[i], &on->heard[i]);
        cr_assert_eq(off->heard[i].cached, 0);
        cr_assert_eq(on->heard[i].cached, cached[i], "%u: %u", i, on->heard[i].cached);
    }
    expect_idle(on);
    cr_assert_gt(load_of(on).states.n_snapshots, 5);
    cr_assert_eq(load_of(on).prefix_hits, 256 + 256 + 192 + 192 + 256 + 896 + 64);
    rig_free(off);
    rig_free(on);
}

Test(states, an_answer_leaves_snapshots_too)
{
    struct rig *off = rig_of(options(0)), *on = rig_of(options(40));
    int32_t next[N_PROMPT + 250];
    memcpy(next, prompt(), sizeof(next));
    run(on, 0, prompt(), N_PROMPT, 240);
    memcpy(next + N_PROMPT, on->heard[0].out, 240 * sizeof(int32_t));
    run(on, 1, next, N_PROMPT + 250, 20);
    run(off, 1, next, N_PROMPT + 250, 20);
    cr_assert_eq(on->heard[1].cached, 512, "539 tokens were computed before");
    expect_same_bits(&off->heard[1], &on->heard[1]);
    rig_free(off);
    rig_free(on);
}

Test(states, without_room_for_snapshots_nothing_is_found)
{
    struct rig_options o = options(1);
    o.snapshots = 0;
    struct rig *r = rig_of(o);
    for (uint32_t i = 0; i < 2; i++) {
        run(r, i, prompt(), N_PROMPT, 10);
        cr_assert_eq(r->heard[i].cached, 0);
        cr_assert_eq(r->heard[i].longest_chunk, 128, "and no chunk is cut for one");
    }
    expect_same_bits(&r->heard[0], &r->heard[1]);
    cr_assert_eq(load_of(r).states.n_snapshots, 0);
    rig_free(r);
}

/* Common and own parts, pools of blocks and of slots that are too small: hits, evictions, preemptions. */
static struct engine_load crowd(struct rig_options o)
{
    enum { N = 24 };
    struct rig *off = rig_of(options(0)), *on;
    o.n_blocks = 14;
    on = rig_of(o);
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
    const struct engine_load load = load_of(on);
    cr_assert_eq(load.swapped_blocks, 0);
    rig_free(off);
    rig_free(on);
    return load;
}

Test(states, a_crowd_under_pressure_gets_the_same_bits)
{
    struct rig_options o = options(3);
    struct engine_load load = crowd(o);
    cr_assert(load.preemptions[PREEMPT_RECOMPUTE] > 0 && load.preemptions[PREEMPT_SWAP] == 0);
    cr_assert_gt(load.prefix_hits, 0);
    o.max_seqs = 5; /* fewer slots than sequences: the others wait */
    load = crowd(o);
    cr_assert_leq(load.states.n_snapshots, 8);
}

Test(states, a_swapped_sequence_takes_its_state_along)
{
    struct rig_options o = options(3);
    o.swap_blocks = 100;
    struct engine_load load = crowd(o);
    cr_assert(load.preemptions[PREEMPT_SWAP] > 0 && load.preemptions[PREEMPT_RECOMPUTE] == 0);
    o.swap_blocks = 4;
    o.snapshots = 0;
    load = crowd(o);
    cr_assert(load.preemptions[PREEMPT_SWAP] > 0 && load.preemptions[PREEMPT_RECOMPUTE] > 0, "%llu %llu",
              (unsigned long long)load.preemptions[0], (unsigned long long)load.preemptions[1]);
}

/* As a hand-off does it: blocks and the state's slot, from one engine's memory to another's. */
static void carry(struct rig *from, struct rig *to, uint32_t i)
{
    const struct kv_store *a = engine_kv(from->engine), *b = engine_kv(to->engine);
    uint8_t *bytes = mem_alloc(kv_store_block_bytes(a));
    for (uint32_t k = to->heard[i].n_hits / 64; k < (from->heard[i].kv_t1 + 63) / 64; k++) {
        cr_assert_eq(kv_store_read_block(a, from->heard[i].blocks[k], bytes), OK);
        cr_assert_eq(kv_store_write_block(b, to->heard[i].blocks[k], bytes), OK);
    }
    mem_free(bytes);
    bytes = mem_alloc(a->states->slot_bytes);
    cr_assert_eq(state_store_read(a->states, from->heard[i].last_state, 0, a->states->slot_bytes, bytes), OK);
    cr_assert_eq(state_store_write(b->states, to->heard[i].slot, 0, a->states->slot_bytes, bytes), OK);
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
    cr_assert_neq(p->heard[i].last_state, STATE_SLOT_NONE);
    carry(p, d, i);
    cr_assert_eq(engine_release(p->engine, &key), OK);
    cr_assert_eq(engine_start_decode(d->engine, &key, p->heard[i].out[0]), OK);
    WAIT(d, d->heard[i].n_done == 1);
}

Test(states, are_handed_over_with_the_last_chunk)
{
    struct rig *alone = rig_of(options(0)), *p = rig_of(options(8)), *d = rig_of(options(8));
    const uint32_t lengths[] = { 1, 2, 63, 64, 65, 128, 129, 255, 300, 300, 301 };
    for (uint32_t i = 0; i < 11; i++) {
        run(alone, i, prompt(), lengths[i], 30);
        hand_over(p, d, i, lengths[i]);
        cr_assert_eq(d->heard[i].n_out, 29);
        cr_assert_eq(memcmp(d->heard[i].out, alone->heard[i].out + 1, 29 * sizeof(int32_t)), 0, "%u", i);
        cr_assert_eq(memcmp(d->heard[i].lp, alone->heard[i].lp + 1, 29 * sizeof(float)), 0);
    }
    cr_assert_eq(d->heard[9].n_hits, 256, "the KV of a prompt's blocks is not shipped again, the state is");
    cr_assert_eq(p->heard[9].cached, 256);
    expect_idle(p);
    expect_idle(d);
    rig_free(alone);
    rig_free(p);
    rig_free(d);
}

/* What a reservation has found is KV alone: if it computes after all, it goes back to where a snapshot is. */
Test(states, a_reservation_that_computes_goes_back_to_a_snapshot)
{
    struct rig *alone = rig_of(options(0)), *p = rig_of(options(0)), *d = rig_of(options(8));
    run(alone, 0, prompt(), N_PROMPT, 30);
    hand_over(p, d, 0, N_PROMPT); /* KV that comes from elsewhere, without any snapshot */
    for (uint32_t i = 1; i < 4; i++) {
        const struct seq_key key = { 1, i, 1 };
        submit(d, i, ENGINE_RESERVE, prompt(), N_PROMPT, 30);
        WAIT(d, d->heard[i].n_reserved == 1);
        cr_assert_eq(d->heard[i].n_hits, 256);
        cr_assert_eq(engine_start_prefill(d->engine, &key), OK);
        WAIT(d, d->heard[i].n_done == 1);
        cr_assert_eq(d->heard[i].cached, i == 1 ? 0 : 256, "%u: the second one finds the snapshot of the first", i);
        cr_assert_eq(d->heard[i].n_reserved, 1);
        expect_same_bits(&alone->heard[0], &d->heard[i]);
    }
    expect_idle(d);
    cr_assert_eq(load_of(d).prefix_hits, 2 * 256);
    rig_free(alone);
    rig_free(p);
    rig_free(d);
}

/* Blocks that come back from the tier are of use up to the last snapshot that is in the pool or the tier. */
static void run_through_tier(uint32_t snapshots, uint32_t tier_blocks, uint32_t disk_blocks)
{
    enum { N = 6 };
    struct rig *off = rig_of(options(0)), *on;
    struct rig_options o = options(snapshots);
    uint32_t n_cached = 0;
    o.max_seqs = 2;
    o.n_blocks = 8;
    o.tier_blocks = tier_blocks;
    o.tier_disk_blocks = disk_blocks;
    on = rig_of(o);
    for (uint32_t i = 0; i < 3 * N; i++) {
        int32_t tokens[N_PROMPT];
        memcpy(tokens, prompt(), sizeof(tokens));
        tokens[0] = (int32_t)(i % N);
        if (i < N) run(off, i, tokens, N_PROMPT, 10);
        run(on, i, tokens, N_PROMPT, 10);
        expect_same_bits(&off->heard[i % N], &on->heard[i]);
        n_cached += on->heard[i].cached;
    }
    expect_idle(on);
    cr_assert_eq(n_cached, load_of(on).prefix_hits);
    if (tier_blocks >= 40) cr_assert_eq(n_cached, 2 * N * 256);
    if (disk_blocks > 0) cr_assert(n_cached > 0 && n_cached <= 2 * N * 256); /* a busy disk is left out */
    if (tier_blocks < 10) cr_assert_lt(n_cached, N * 256);
    rig_free(off);
    rig_free(on);
}

Test(states, blocks_and_snapshots_come_back_from_the_tier)
{
    run_through_tier(12, 40, 0);
    run_through_tier(12, 10, 40);
    run_through_tier(2, 40, 0); /* most snapshots come from the tier, too */
    run_through_tier(2, 12, 60);
    run_through_tier(2, 4, 0); /* what is there leads nowhere */
}

Test(states, cancel_gives_slots_back_in_every_state)
{
    struct rig_options o = options(4);
    o.max_seqs = 4;
    struct rig *r = rig_of(o);
    for (uint32_t i = 0; i < 12; i++)
        submit(r, i,
               i % 3 == 0   ? ENGINE_PREFILL_ONLY
               : i % 3 == 1 ? ENGINE_RESERVE
                            : ENGINE_GENERATE,
               prompt(), N_PROMPT, 50);
    WAIT(r, r->heard[0].n_out == 1);
    WAIT(r, r->heard[1].n_reserved == 1);
    for (uint32_t i = 0; i < 12; i++) cr_assert_eq(engine_cancel(r->engine, &(struct seq_key){ 1, i, 1 }), OK);
    for (uint32_t i = 0; i < 12; i++) WAIT(r, r->heard[i].n_done == 1);
    expect_idle(r);
    rig_free(r);
}

Test(states, too_few_slots_are_refused)
{
    struct rig_options o = options(0);
    struct rig *r = rig_of(o);
    struct kv_store *kv = engine_kv(r->engine);
    cr_assert_eq(kv->states->n_slots, o.max_seqs);
    struct engine_options eo = { .kv = kv,
                                 .max_seqs = o.max_seqs + 1,
                                 .max_batch_tokens = 256,
                                 .chunk_tokens = 64,
                                 .max_commands = 8,
                                 .max_context = 1024 };
    struct engine *e = NULL;
    struct error err = { 0 };
    eo.model = (struct model *)(uintptr_t)engine_model(r->engine);
    cr_assert_eq(engine_create(&e, &eo, &err), ERR_INVALID);
    cr_assert_str_eq(err.text, "there are 32 slots for recurrent states, max_seqs is 33");
    rig_free(r);
}
