/* engine: many sequences at once give each the tokens it gets alone, and every way ends with one DONE. */
#include "formats/gguf.h"
#include "unit/engine/engine_rig.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Half of the sequences are sampled, half greedy; prompts differ in length and content. */
static struct sampling_params mixed_params(uint32_t i, uint32_t max_tokens)
{
    struct sampling_params p = params(max_tokens);
    p.n_logprobs = 0;
    if (i % 2 == 0) return p;
    p.temperature = 1.0f;
    p.top_p = 0.9f;
    p.top_k = 40;
    p.frequency_penalty = 0.3f;
    p.seed = i;
    return p;
}

static uint32_t prompt_of(uint32_t i, int32_t tokens[512])
{
    uint32_t n = 1 + (i * 53) % 300;
    for (uint32_t k = 0; k < n; k++) tokens[k] = (int32_t)((k * 7 + i * 31 + k * k) % 160);
    return n;
}

static void submit(struct rig *r, uint32_t i, enum engine_mode mode, const struct sampling_params *p)
{
    int32_t tokens[512];
    uint32_t n = prompt_of(i, tokens);
    struct seq_request q = { { 1, i, 1 }, mode, tokens, n, n, *p };
    cr_assert_eq(engine_submit(r->engine, &q), OK);
}

static void run_alone_in(struct rig_options o, uint32_t i, uint32_t max_tokens, struct heard *out)
{
    struct rig *r = rig_of(o);
    struct sampling_params p = mixed_params(i, max_tokens);
    submit(r, i, ENGINE_GENERATE, &p);
    WAIT(r, r->heard[i].n_done == 1);
    *out = r->heard[i];
    expect_idle(r);
    rig_free(r);
}

static void run_alone(uint32_t i, uint32_t max_tokens, struct heard *out)
{
    run_alone_in(rig_defaults(), i, max_tokens, out);
}

static void expect_same_tokens(const struct heard *a, const struct heard *b, uint32_t i)
{
    cr_assert_eq(a->n_out, b->n_out, "sequence %u: %u and %u tokens", i, a->n_out, b->n_out);
    cr_assert_eq(memcmp(a->out, b->out, a->n_out * sizeof(*a->out)), 0, "sequence %u", i);
    cr_assert_eq(memcmp(a->lp, b->lp, a->n_out * sizeof(*a->lp)), 0, "logprobs of sequence %u", i);
}

/* Returns what the engine counted. */
static struct engine_load expect_crowd_like_alone(struct rig_options o, uint32_t n, uint32_t max_tokens)
{
    struct engine_load load;
    struct rig_options roomy = rig_defaults();
    struct rig *r = rig_of(o);
    roomy.path = o.path;
    for (uint32_t i = 0; i < n; i++) {
        struct sampling_params p = mixed_params(i, max_tokens);
        submit(r, i, ENGINE_GENERATE, &p);
    }
    for (uint32_t i = 0; i < n; i++) WAIT(r, r->heard[i].n_done == 1);
    expect_idle(r);
    engine_load(r->engine, &load);
    cr_assert_eq(load.swapped_blocks, 0);
    for (uint32_t i = 0; i < n; i += 3) {
        struct heard alone;
        run_alone_in(roomy, i, max_tokens, &alone);
        cr_assert_eq(alone.n_out, max_tokens);
        expect_same_tokens(&alone, &r->heard[i], i);
        cr_assert_eq(r->heard[i].finish, FINISH_LENGTH);
    }
    rig_free(r);
    return load;
}

Test(engine, thirty_two_at_once_get_what_each_gets_alone)
{
    struct engine_load load = expect_crowd_like_alone(rig_defaults(), 32, 40);
    cr_assert(load.preemptions[PREEMPT_SWAP] == 0 && load.preemptions[PREEMPT_RECOMPUTE] == 0);
}

Test(engine, a_crowd_on_a_real_model_gets_what_each_gets_alone)
{
    const char *dir = getenv("BATON_TEST_MODELS");
    char path[512];
    struct rig_options o = rig_defaults();
    snprintf(path, sizeof(path), "%s/SmolLM2-135M-Instruct.Q4_1.gguf", dir ? dir : TEST_DATA "/../models");
    if (access(path, R_OK) != 0) cr_skip_test("%s is not there", path);
    o.path = path;
    o.n_blocks = 48; /* too few for all: some are preempted as well */
    o.swap_blocks = 8;
    expect_crowd_like_alone(o, 12, 24);
}

Test(engine, preemption_changes_no_token)
{
    struct rig_options o = rig_defaults();
    o.n_blocks = 12; /* 32 sequences of up to 6 blocks each */
    struct engine_load load = expect_crowd_like_alone(o, 32, 70);
    cr_assert(load.preemptions[PREEMPT_SWAP] == 0 && load.preemptions[PREEMPT_RECOMPUTE] > 0);
    o.swap_blocks = 100;
    load = expect_crowd_like_alone(o, 32, 70);
    cr_assert(load.preemptions[PREEMPT_SWAP] > 0 && load.preemptions[PREEMPT_RECOMPUTE] == 0);
    o.swap_blocks = 4; /* room for one or two at a time */
    load = expect_crowd_like_alone(o, 32, 70);
    cr_assert(load.preemptions[PREEMPT_SWAP] > 0 && load.preemptions[PREEMPT_RECOMPUTE] > 0);
}

Test(engine, a_prefill_and_a_decode_node_make_the_stream_of_one)
{
    struct rig *p = rig_of(rig_defaults()), *d = rig_of(rig_defaults());
    for (uint32_t i = 3; i < 9; i++) {
        struct sampling_params sp = mixed_params(i, 30);
        struct seq_key key = { 1, i, 1 };
        struct heard alone;
        int32_t tokens[512];
        uint32_t n = prompt_of(i, tokens);
        submit(d, i, ENGINE_RESERVE, &sp);
        submit(p, i, ENGINE_PREFILL_ONLY, &sp);
        WAIT(d, d->heard[i].n_reserved == 1);
        WAIT(p, p->heard[i].n_out == 1);
        cr_assert_eq(p->heard[i].kv_t1, n, "the whole prompt was told of");
        cr_assert_eq(p->heard[i].progress, n);
        cr_assert_eq(d->heard[i].n_blocks, (n + 63) / 64 + ((n + 29 + 63) / 64 > (n + 63) / 64));
        /* Here the bytes would be carried over; the other way of a reservation is to compute them. */
        cr_assert_eq(engine_start_prefill(d->engine, &key), OK);
        WAIT(d, d->heard[i].n_done == 1);
        cr_assert_eq(engine_release(p->engine, &key), OK);
        WAIT(p, p->heard[i].n_done == 1);
        cr_assert_eq(p->heard[i].finish, FINISH_STOP);
        run_alone(i, 30, &alone);
        expect_same_tokens(&alone, &d->heard[i], i);
        cr_assert_eq(p->heard[i].out[0], alone.out[0]);
    }
    expect_idle(p);
    expect_idle(d);
    rig_free(p);
    rig_free(d);
}

/* Carries every layer's blocks of n tokens from one engine to another through the wire's order. */
static void carry(struct rig *from, const kv_block_id *src, struct rig *to, const kv_block_id *dst, uint32_t n)
{
    struct kv_store *a = engine_kv(from->engine), *b = engine_kv(to->engine);
    uint8_t wire[64 * 1024];
    for (uint32_t l = 0; l < a->n_layers; l++)
        for (uint32_t blk = 0; blk * 64 < n; blk++)
            for (uint32_t hv = 0; hv < 2 * a->layers[l].geom.n_kv_heads; hv++) {
                uint32_t t1 = n - blk * 64 < 64 ? n - blk * 64 : 64;
                struct kv_piece p = { .layer = l, .head = hv / 2, .block = src[blk], .t1 = t1, .is_v = hv % 2 };
                p.scales = sizeof(wire) / 2;
                cr_assert_eq(a->backend->ops->kv_pack(a->backend, NULL, a->layers, &p, 1, wire), OK);
                p.block = dst[blk];
                cr_assert_eq(b->backend->ops->kv_unpack(b->backend, NULL, b->layers, &p, 1, wire), OK);
            }
}

/* No event tells of it: the counts are polled. */
static void expect_receiving(struct rig *r, uint32_t n_blocks)
{
    struct engine_load load;
    for (int i = 0; i < 1000 * WAIT_S; i++, usleep(1000)) {
        engine_load(r->engine, &load);
        if (load.blocks[KV_RECEIVING] == n_blocks) return;
    }
    cr_assert_eq(load.blocks[KV_RECEIVING], n_blocks);
}

Test(engine, decode_on_carried_blocks_continues_the_stream)
{
    struct rig *p = rig_of(rig_defaults()), *d = rig_of(rig_defaults());
    const uint32_t i = 5;
    struct sampling_params sp = mixed_params(i, 30);
    struct seq_key key = { 1, i, 1 };
    struct heard alone;
    struct engine_load load;
    int32_t tokens[512];
    uint32_t n = prompt_of(i, tokens);
    /* Blocks of the sender are learnt from a reservation on it: both pools are fresh, so ids repeat. */
    submit(p, i, ENGINE_RESERVE, &sp);
    submit(d, i, ENGINE_RESERVE, &sp);
    WAIT(p, p->heard[i].n_reserved == 1);
    WAIT(d, d->heard[i].n_reserved == 1);
    engine_load(d->engine, &load);
    cr_assert_eq(load.blocks[KV_RESERVED], d->heard[i].n_blocks);
    cr_assert_eq(engine_receiving(d->engine, &key), OK);
    cr_assert_eq(engine_start_prefill(p->engine, &key), OK);
    WAIT(p, p->heard[i].n_out >= 1);
    carry(p, p->heard[i].blocks, d, d->heard[i].blocks, n);
    expect_receiving(d, d->heard[i].n_blocks);
    cr_assert_eq(engine_start_decode(d->engine, &key, p->heard[i].out[0]), OK);
    WAIT(d, d->heard[i].n_done == 1);
    run_alone(i, 30, &alone);
    cr_assert_eq(d->heard[i].n_out, 29);
    cr_assert_eq(d->heard[i].next_idx, 30);
    cr_assert_eq(memcmp(d->heard[i].out, alone.out + 1, 29 * sizeof(int32_t)), 0);
    WAIT(p, p->heard[i].n_done == 1);
    rig_free(p);
    rig_free(d);
}

Test(engine, a_replay_goes_on_where_the_stream_was)
{
    const uint32_t i = 7, sent = 11;
    struct heard alone;
    int32_t tokens[512];
    run_alone(i, 40, &alone);
    struct rig *r = rig_of(rig_defaults());
    uint32_t n = prompt_of(i, tokens);
    memcpy(tokens + n, alone.out, sent * sizeof(*tokens));
    struct seq_request q = { { 1, i, 2 }, ENGINE_GENERATE, tokens, n + sent, n, mixed_params(i, 40) };
    cr_assert_eq(engine_submit(r->engine, &q), OK);
    WAIT(r, r->heard[i].n_done == 1);
    cr_assert_eq(r->heard[i].n_out, 40 - sent);
    cr_assert_eq(r->heard[i].next_idx, 40, "indices go on");
    cr_assert_eq(memcmp(r->heard[i].out, alone.out + sent, (40 - sent) * sizeof(int32_t)), 0);
    rig_free(r);
}

Test(engine, end_tokens_stop_unless_ignored_or_too_early)
{
    struct heard alone;
    run_alone(4, 40, &alone);
    uint32_t first = 0;
    struct rig_options o = rig_defaults();
    o.end_id = alone.out[5];
    while (alone.out[first] != o.end_id) first++;
    struct rig *r = rig_of(o);
    struct sampling_params p = params(40);
    submit(r, 4, ENGINE_GENERATE, &p);
    WAIT(r, r->heard[4].n_done == 1);
    cr_assert_eq(r->heard[4].n_out, first + 1, "the end token itself is told of");
    cr_assert_eq(r->heard[4].token_finish, FINISH_STOP);
    cr_assert_eq(r->heard[4].finish, FINISH_STOP);
    rig_free(r);

    r = rig_of(o);
    p.ignore_eos = true;
    p.n_logprobs = 0;
    submit(r, 4, ENGINE_GENERATE, &p);
    WAIT(r, r->heard[4].n_done == 1);
    expect_same_tokens(&alone, &r->heard[4], 4);
    rig_free(r);

    r = rig_of(o);
    p.ignore_eos = false;
    p.min_tokens = first + 3;
    submit(r, 4, ENGINE_GENERATE, &p);
    WAIT(r, r->heard[4].n_done == 1);
    cr_assert_gt(r->heard[4].n_out, first + 2);
    rig_free(r);
}

Test(engine, prompt_logprobs_come_for_every_position_once)
{
    struct rig_options o = rig_defaults();
    double sums[2];
    for (int pass = 0; pass < 2; pass++) {
        struct rig *r = rig_of(o);
        const uint32_t i = 5; /* 266 tokens: several chunks and slices */
        int32_t tokens[512];
        uint32_t n = prompt_of(i, tokens);
        struct sampling_params p = params(2);
        p.n_prompt_logprobs = 3;
        p.n_logprobs = 5;
        submit(r, i, pass ? ENGINE_PREFILL_ONLY : ENGINE_GENERATE, &p);
        WAIT(r, r->heard[i].n_out >= 1);
        cr_assert_eq(r->heard[i].n_prompt_lp, n - 1);
        cr_assert_eq(r->heard[i].last_lp_pos, n - 1);
        cr_assert_lt(r->heard[i].first_lp, 0.0f);
        sums[pass] = r->heard[i].prompt_lp_sum;
        rig_free(r);
        o.chunk = 64;
    }
    cr_assert_eq(sums[0], sums[1], "chunks change no bit");
}

Test(engine, cancel_gives_everything_back_in_every_state)
{
    struct rig_options o = rig_defaults();
    o.n_blocks = 20;
    struct rig *r = rig_of(o);
    struct sampling_params p = params(200);
    submit(r, 10, ENGINE_RESERVE, &p);     /* RESERVED */
    submit(r, 2, ENGINE_PREFILL_ONLY, &p); /* HELD */
    submit(r, 3, ENGINE_GENERATE, &p);     /* running */
    submit(r, 5, ENGINE_RESERVE, &p);
    for (uint32_t i = 20; i < 26; i++) submit(r, i, ENGINE_RESERVE, &p); /* some wait for blocks */
    WAIT(r, r->heard[10].n_reserved == 1 && r->heard[2].n_out == 1 && r->heard[3].n_out > 2);
    const uint32_t all[] = { 10, 2, 3, 5, 20, 21, 22, 23, 24, 25 };
    for (int i = 0; i < 10; i++) cr_assert_eq(engine_cancel(r->engine, &(struct seq_key){ 1, all[i], 1 }), OK);
    for (int i = 0; i < 10; i++) {
        WAIT(r, r->heard[all[i]].n_done == 1);
        cr_assert_eq(r->heard[all[i]].finish, FINISH_CANCELLED);
    }
    expect_idle(r);
    cr_assert_eq(engine_cancel(r->engine, &(struct seq_key){ 1, 3, 1 }), OK);
    WAIT(r, r->heard[3].n_gone == 1);
    cr_assert_eq(r->heard[3].gone_status, ERR_NOT_FOUND);
    cr_assert_eq(r->heard[3].n_done, 1);
    rig_free(r);
}

Test(engine, reservations_wait_in_order_until_blocks_are_free)
{
    struct rig_options o = rig_defaults();
    o.n_blocks = 6;
    struct rig *r = rig_of(o);
    struct sampling_params p = params(20);
    struct seq_key first = { 1, 5, 1 };
    submit(r, 5, ENGINE_RESERVE, &p); /* 266 tokens: 5 blocks and one to grow into fit max_tokens: 5 */
    WAIT(r, r->heard[5].n_reserved == 1);
    submit(r, 11, ENGINE_RESERVE, &p); /* 284 tokens: does not fit beside it */
    submit(r, 0, ENGINE_RESERVE, &p);  /* 1 token: would fit, but does not overtake */
    cr_assert_eq(engine_rebind(r->engine, &first, 2), OK);
    WAIT(r, r->heard[5].n_reserved == 2);
    cr_assert_eq(r->heard[5].epoch, 2);
    cr_assert_eq(r->heard[0].n_reserved, 0);
    first.epoch = 2;
    cr_assert_eq(engine_cancel(r->engine, &first), OK);
    WAIT(r, r->heard[11].n_reserved == 1 && r->heard[0].n_reserved == 1);
    rig_free(r);
}

Test(engine, refuses_at_once_what_can_never_be_done)
{
    struct rig_options o = rig_defaults();
    o.n_blocks = 4;
    struct rig *r = rig_of(o);
    int32_t tokens[512];
    prompt_of(1, tokens);
    struct seq_request q = { { 1, 1, 1 }, ENGINE_GENERATE, tokens, 50, 50, params(10) };
    struct seq_request bad = q;
    bad.n_tokens = bad.n_prompt = 0;
    cr_assert_eq(engine_submit(r->engine, &bad), ERR_INVALID);
    bad = q;
    bad.n_prompt = 51;
    cr_assert_eq(engine_submit(r->engine, &bad), ERR_INVALID);
    bad = q;
    bad.sampling.max_tokens = 2000;
    cr_assert_eq(engine_submit(r->engine, &bad), ERR_CONTEXT_LENGTH);
    bad.sampling.max_tokens = UINT32_MAX;
    cr_assert_eq(engine_submit(r->engine, &bad), ERR_CONTEXT_LENGTH);
    bad.sampling.max_tokens = 400;
    cr_assert_eq(engine_submit(r->engine, &bad), ERR_NO_BLOCKS);
    bad.sampling.max_tokens = 4 * KV_BLOCK_TOKENS - 50 + 2;
    cr_assert_eq(engine_submit(r->engine, &bad), ERR_NO_BLOCKS);
    bad = q;
    bad.mode = (enum engine_mode)99;
    cr_assert_eq(engine_submit(r->engine, &bad), ERR_INVALID);
    bad = q;
    bad.n_tokens = 60; /* ten of an answer of ten */
    cr_assert_eq(engine_submit(r->engine, &bad), ERR_INVALID);
    bad = q;
    bad.sampling.max_tokens = 0;
    cr_assert_eq(engine_submit(r->engine, &bad), ERR_INVALID);
    bad = q;
    bad.sampling.temperature = -1.0f;
    cr_assert_eq(engine_submit(r->engine, &bad), ERR_INVALID);
    bad = q;
    bad.sampling.n_bias = SAMPLING_MAX_BIAS + 1;
    cr_assert_eq(engine_submit(r->engine, &bad), ERR_INVALID);
    bad = q;
    bad.sampling.n_bias = 1;
    bad.sampling.bias_ids = (int32_t[]){ 160 };
    bad.sampling.bias = (float[]){ 1.0f };
    cr_assert_eq(engine_submit(r->engine, &bad), ERR_INVALID, "a bias for no token");
    tokens[3] = 160;
    cr_assert_eq(engine_submit(r->engine, &q), ERR_INVALID, "no such token");
    tokens[3] = -1;
    cr_assert_eq(engine_submit(r->engine, &q), ERR_INVALID);
    expect_idle(r);
    rig_free(r);
}

/* One weight of the last norm is no number. */
static void damage_norm(const char *path)
{
    const float bad = NAN;
    struct gguf *g = NULL;
    cr_assert_eq(gguf_open(&g, path, NULL), OK);
    off_t at = (off_t)tensor_dir_find(gguf_tensors(g), "output_norm.weight")->offset;
    gguf_close(g);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    cr_assert_eq(pwrite(fd, &bad, sizeof(bad), at), sizeof(bad));
    close(fd);
}

Test(engine, what_is_no_number_is_an_error_and_no_token)
{
    struct tiny_options tiny = tiny_defaults();
    struct rig_options o = rig_defaults();
    char *path = tiny_write(&tiny);
    int32_t tokens[512];
    damage_norm(path);
    o.path = path;
    struct rig *r = rig_of(o);
    prompt_of(1, tokens);
    for (uint64_t i = 0; i < 2; i++) {
        struct seq_request q = { { 1, i, 1 }, i ? ENGINE_PREFILL_ONLY : ENGINE_GENERATE, tokens, 50, 50, params(10) };
        cr_assert_eq(engine_submit(r->engine, &q), OK);
        WAIT(r, r->heard[i].n_done == 1);
        cr_assert_eq(r->heard[i].finish, FINISH_FAILED);
        cr_assert_eq(r->heard[i].status, ERR_CORRUPT);
        cr_assert_eq(r->heard[i].n_out, 0);
    }
    expect_idle(r);
    rig_free(r);
    tiny_remove(path);
}

Test(engine, repeated_and_misplaced_commands_do_no_harm)
{
    struct rig *r = rig_of(rig_defaults());
    struct sampling_params p = params(20);
    struct seq_key key = { 1, 6, 1 };
    submit(r, 6, ENGINE_RESERVE, &p);
    submit(r, 6, ENGINE_RESERVE, &p);
    WAIT(r, r->heard[6].n_reserved == 1);
    cr_assert_eq(engine_release(r->engine, &key), OK);
    WAIT(r, r->heard[6].n_gone == 1);
    cr_assert_eq(r->heard[6].gone_status, ERR_STALE);
    cr_assert_eq(engine_start_decode(r->engine, &key, 5000), ERR_INVALID);
    cr_assert_eq(engine_start_prefill(r->engine, &key), OK);
    cr_assert_eq(engine_start_prefill(r->engine, &key), OK);
    cr_assert_eq(engine_start_decode(r->engine, &key, 3), OK);
    WAIT(r, r->heard[6].n_done == 1);
    cr_assert_eq(r->heard[6].n_out, 20);
    expect_idle(r);
    rig_free(r);
}

static void submit_ranked(struct rig *r, uint32_t i, enum engine_mode mode, int32_t priority, uint32_t max_tokens)
{
    int32_t tokens[512];
    uint32_t n = prompt_of(i, tokens);
    struct seq_request q = { { 1, i, 1 }, mode, tokens, n, n, params(max_tokens), .priority = priority };
    cr_assert_eq(engine_submit(r->engine, &q), OK);
}

Test(engine, who_waits_is_admitted_by_priority_then_arrival)
{
    struct rig_options o = rig_defaults();
    o.max_seqs = 1;
    struct rig *r = rig_of(o);
    const uint32_t arrival[] = { 1, 2, 3, 4, 5 }, order[] = { 1, 4, 3, 5, 2 };
    const int32_t priority[] = { 0, 9, 0, -2, 0 };
    for (int i = 0; i < 5; i++) { /* the first one runs when the others come */
        submit_ranked(r, arrival[i], ENGINE_RESERVE, priority[i], 20);
        if (i == 0) WAIT(r, r->heard[1].n_reserved == 1);
    }
    for (int i = 0; i < 5; i++) {
        WAIT(r, r->heard[order[i]].n_reserved == 1);
        for (int k = i + 1; k < 5; k++)
            cr_assert_eq(r->heard[order[k]].n_reserved, 0, "%u before %u", order[k], order[i]);
        cr_assert_eq(engine_cancel(r->engine, &(struct seq_key){ 1, order[i], 1 }), OK);
    }
    expect_idle(r);
    rig_free(r);
}

Test(engine, who_matters_most_is_never_preempted)
{
    struct rig_options o = rig_defaults();
    struct engine_load load;
    o.n_blocks = 12;
    struct rig *r = rig_of(o);
    for (uint32_t i = 1; i < 6; i++) submit_ranked(r, i, ENGINE_GENERATE, 0, 150);
    submit_ranked(r, 8, ENGINE_GENERATE, -1, 150); /* the youngest */
    WAIT(r, r->heard[8].n_done == 1);
    cr_assert_eq(r->heard[8].progress, 1 + (8 * 53) % 300, "its prompt was computed once, none of its output again");
    for (uint32_t i = 1; i < 6; i++) WAIT(r, r->heard[i].n_done == 1);
    engine_load(r->engine, &load);
    cr_assert_gt(load.preemptions[PREEMPT_RECOMPUTE], 0);
    expect_idle(r);
    rig_free(r);
}

/* A long prompt beside a stream: rows of its longest chunk. */
static uint32_t longest_chunk_beside_a_stream(uint32_t max_gap_us)
{
    struct rig_options o = rig_defaults();
    o.max_gap_us = max_gap_us;
    struct rig *r = rig_of(o);
    struct seq_request q = { { 1, 1, 1 }, ENGINE_GENERATE, NULL, 700, 700, params(1), 0 };
    int32_t tokens[700];
    for (int i = 0; i < 700; i++) tokens[i] = i * 13 % 160;
    q.tokens = tokens;
    submit_ranked(r, 2, ENGINE_GENERATE, 0, 900);
    WAIT(r, r->heard[2].n_out > 2);
    cr_assert_eq(engine_submit(r->engine, &q), OK);
    WAIT(r, r->heard[1].n_done == 1);
    cr_assert_eq(r->heard[2].n_done, 0, "the stream ran all the time");
    uint32_t rows = r->heard[1].longest_chunk;
    rig_free(r);
    return rows;
}

Test(engine, a_long_prompt_is_cut_finer_beside_running_streams)
{
    cr_assert_eq(longest_chunk_beside_a_stream(0), 128);
    cr_assert_eq(longest_chunk_beside_a_stream(1), 64, "nothing fits, but a block goes through");
    cr_assert_eq(longest_chunk_beside_a_stream(3600u * 1000 * 1000), 128, "it all fits");
}

Test(engine, cancel_while_swapped_gives_everything_back)
{
    struct rig_options o = rig_defaults();
    struct engine_load load;
    o.n_blocks = 12;
    o.swap_blocks = 100;
    struct rig *r = rig_of(o);
    for (uint32_t i = 1; i < 9; i++) submit_ranked(r, i, ENGINE_GENERATE, 0, 240);
    for (int i = 0; i < 1000 * WAIT_S; i++, usleep(100)) {
        engine_load(r->engine, &load);
        if (load.swapped_blocks > 0) break;
    }
    cr_assert_gt(load.swapped_blocks, 0);
    for (uint32_t i = 8; i > 0; i--) cr_assert_eq(engine_cancel(r->engine, &(struct seq_key){ 1, i, 1 }), OK);
    for (uint32_t i = 1; i < 9; i++) WAIT(r, r->heard[i].n_done == 1);
    expect_idle(r);
    engine_load(r->engine, &load);
    cr_assert_eq(load.swapped_blocks, 0);
    rig_free(r);
}

Test(engine, destroy_ends_what_runs)
{
    struct rig *r = rig_of(rig_defaults());
    struct sampling_params p = params(200);
    for (uint32_t i = 0; i < 8; i++) submit(r, i, i % 2 ? ENGINE_GENERATE : ENGINE_RESERVE, &p);
    WAIT(r, r->heard[1].n_out > 0);
    engine_destroy(r->engine);
    for (uint32_t i = 0; i < 8; i++) cr_assert_eq(r->heard[i].n_done, 1);
    backend_close(r->backend);
    tiny_remove(r->path);
    mem_free(r);
}

Test(engine, refuses_options_that_would_starve_prompts)
{
    struct tiny_options tiny = tiny_defaults();
    char *path = tiny_write(&tiny);
    struct model_info info;
    struct error err = { 0 };
    struct backend *be;
    cr_assert_eq(model_read_info(&info, path, &err), OK);
    struct backend_limits lim = model_limits(&info, 128, 1024);
    cr_assert_eq(backend_open(&be, "cpu", &(struct backend_options){ .n_threads = 1, .limits = lim }, &err), OK);
    struct model_options mo = { .path = path, .backend = be, .max_batch_tokens = 128, .weights_fd = -1 };
    struct engine_options eo = { .max_seqs = 100,
                                 .max_batch_tokens = 128,
                                 .chunk_tokens = 64,
                                 .max_context = 1024,
                                 .max_commands = 8,
                                 .on_event = on_event };
    struct engine *e = NULL;
    cr_assert_eq(model_open(&eo.model, &mo, &err), OK, "%s", err.text);
    cr_assert_eq(model_kv_create(&eo.kv, eo.model, 8, &err), OK);
    cr_assert_eq(engine_create(&e, &eo, &err), ERR_INVALID);
    cr_assert(strstr(err.text, "164"), "%s", err.text);
    const struct {
        uint32_t max_seqs, max_commands, chunk_tokens, max_context;
        const char *says; /* NULL: fine */
    } rows[] = {
        { 0, 8, 64, 1024, "max_seqs is 0 and max_commands 8" },
        { 4, 0, 64, 1024, "max_seqs is 4 and max_commands 0" },
        { 65, 8, 64, 1024, "at least max_seqs + 64 = 129" },
        { 64, 8, 63, 1024, "chunk_tokens is 63" },
        { 64, 8, 64, 0, "max_context is 0, allowed is 1 to " },
        { 64, 8, 64, info.context_length + 1, "max_context is " },
        { 64, 8, 64, info.context_length, NULL },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        eo.max_seqs = rows[i].max_seqs;
        eo.max_commands = rows[i].max_commands;
        eo.chunk_tokens = rows[i].chunk_tokens;
        eo.max_context = rows[i].max_context;
        cr_assert_eq(engine_create(&e, &eo, &err), rows[i].says ? ERR_INVALID : OK, "row %zu: %s", i, err.text);
        if (rows[i].says) cr_assert(strstr(err.text, rows[i].says), "%s", err.text);
    }
    engine_destroy(e); /* and with it what stayed with the caller until then */
    backend_close(be);
    tiny_remove(path);
}
