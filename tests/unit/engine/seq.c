/* seq: a set is walked by priority, then arrival. */
#include "engine/seq.h"

#include <criterion/criterion.h>
#include <string.h>

static struct seq *seq_of(uint64_t lo, int32_t priority)
{
    struct seq *s = NULL;
    const struct seq_request r = { .key = { 1, lo, 1 },
                                   .mode = ENGINE_GENERATE,
                                   .tokens = (const int32_t[]){ 1 },
                                   .n_tokens = 1,
                                   .n_prompt = 1,
                                   .sampling = { .max_tokens = 1 },
                                   .priority = priority };
    cr_assert_eq(seq_create(&s, &r), OK);
    return s;
}

Test(seq, rank_is_priority_then_arrival)
{
    static const struct {
        int32_t priorities[6];
        uint64_t order[6];
    } rows[] = {
        { { 0, 0, 0, 0, 0, 0 }, { 0, 1, 2, 3, 4, 5 } },
        { { 5, 4, 3, 2, 1, 0 }, { 5, 4, 3, 2, 1, 0 } },
        { { 0, -1, 0, -1, 7, 0 }, { 1, 3, 0, 2, 5, 4 } },
        { { INT32_MAX, INT32_MIN, 0, INT32_MAX, INT32_MIN, 0 }, { 1, 4, 2, 5, 0, 3 } },
    };
    for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
        struct seq_set set;
        seq_set_init(&set, 6);
        for (uint64_t i = 0; i < 6; i++) cr_assert_eq(seq_set_add(&set, seq_of(i, rows[r].priorities[i])), OK);
        for (int i = 0; i < 6; i++) cr_assert_eq(set.order[i]->key.lo, rows[r].order[i], "row %zu place %d", r, i);
        while (set.n > 0) {
            struct seq *s = set.order[set.n / 2];
            seq_set_remove(&set, s);
            cr_assert_null(seq_set_find(&set, &s->key));
            seq_destroy(s);
        }
        seq_set_fini(&set);
    }
}

Test(seq, keeps_its_own_biases)
{
    int32_t ids[SAMPLING_MAX_BIAS];
    float values[SAMPLING_MAX_BIAS];
    struct seq *s = NULL;
    struct seq_request r = { .key = { 1, 1, 1 },
                             .tokens = (const int32_t[]){ 1 },
                             .n_tokens = 1,
                             .n_prompt = 1,
                             .sampling = {
                                 .max_tokens = 1, .n_bias = SAMPLING_MAX_BIAS, .bias_ids = ids, .bias = values } };
    for (int i = 0; i < SAMPLING_MAX_BIAS; i++) {
        ids[i] = i;
        values[i] = (float)-i;
    }
    cr_assert_eq(seq_create(&s, &r), OK);
    memset(ids, 0, sizeof(ids)); /* the caller's are gone once it is submitted */
    memset(values, 0, sizeof(values));
    for (int i = 0; i < SAMPLING_MAX_BIAS; i++)
        cr_assert(s->sampling.bias_ids[i] == i && s->sampling.bias[i] == (float)-i);
    seq_destroy(s);
}

/* Blocks of a cut tail go back at once; one that takes the next token stays. */
Test(seq, a_cut_gives_blocks_back)
{
    struct kv_pool *pool = NULL;
    struct seq *s = NULL;
    int32_t tokens[100] = { 0 };
    struct sampling_params p = { .top_p = 1.0f, .repetition_penalty = 1.0f, .max_tokens = 400 };
    struct seq_request r = {
        .mode = ENGINE_GENERATE, .tokens = tokens, .n_tokens = 100, .n_prompt = 100, .sampling = p
    };
    cr_assert_eq(kv_pool_create(&pool, 8), OK);
    cr_assert_eq(seq_create(&s, &r), OK);
    seq_set_state(s, pool, SEQ_PREFILL);
    cr_assert_eq(block_table_grow(&s->table, pool, 4, KV_ACTIVE), OK);
    s->n_tokens = 230; /* 100 + 130 of output, of which 20 are guesses */
    s->n_drafts = 20;
    s->n_computed = 230;
    cr_assert_eq(seq_n_verified(s), 210);
    seq_cut(s, pool, 0);
    cr_assert(s->n_tokens == 230 && s->table.n == 4);
    seq_cut(s, pool, 15);
    cr_assert(s->n_tokens == 215 && s->n_computed == 215 && s->n_drafts == 5);
    cr_assert_eq(s->table.n, 4, "tokens 192 to 214 are in the fourth block");
    s->n_computed = 150;
    seq_cut(s, pool, 24);
    cr_assert(s->n_tokens == 191 && s->n_computed == 150 && s->n_drafts == 0);
    cr_assert(s->table.n == 3 && kv_pool_n_free(pool) == 5);
    cr_assert_eq(block_table_grow(&s->table, pool, 4, KV_ACTIVE), OK);
    seq_cut(s, pool, 191 - 128); /* 128 are left: two blocks, and the next token's */
    cr_assert(s->n_tokens == 128 && s->table.n == 3);
    seq_set_state(s, pool, SEQ_DONE);
    cr_assert_eq(kv_pool_n_free(pool), 8);
    seq_destroy(s);
    kv_pool_destroy(pool);
}

Test(seq, a_set_has_a_bound_and_no_key_twice)
{
    enum { CAP = 40 };
    struct seq_set set;
    struct seq *more = seq_of(CAP, 0), *twin = seq_of(3, 0);
    seq_set_init(&set, CAP);
    for (uint64_t i = 0; i < CAP - 1; i++) cr_assert_eq(seq_set_add(&set, seq_of(i, 0)), OK);
    cr_assert_eq(seq_set_add(&set, twin), ERR_INVALID);
    cr_assert_eq(seq_set_add(&set, seq_of(CAP - 1, 0)), OK);
    cr_assert_eq(seq_set_add(&set, more), ERR_FULL);
    cr_assert(set.n == CAP && set.n_buckets == 64);
    for (uint64_t i = 0; i < CAP; i++) {
        const struct seq_key keys[] = { { 1, i, 1 }, { 2, i, 1 }, { 1, i + CAP, 1 }, { 1, i, 2 } };
        cr_assert_eq(seq_set_find(&set, &keys[0])->key.lo, i);
        for (int k = 1; k < 4; k++) cr_assert_null(seq_set_find(&set, &keys[k]), "every part of a key counts");
    }
    struct seq *third = set.order[3];
    cr_assert_eq(seq_set_rekey(&set, third, 1), ERR_INVALID, "that is its own");
    cr_assert_eq(seq_set_rekey(&set, third, 7), OK);
    cr_assert_null(seq_set_find(&set, &(struct seq_key){ 1, 3, 1 }));
    cr_assert_eq(seq_set_find(&set, &(struct seq_key){ 1, 3, 7 }), third);
    while (set.n > 0) {
        struct seq *s = set.order[0];
        seq_set_remove(&set, s);
        seq_destroy(s);
    }
    seq_set_fini(&set);
    seq_destroy(more);
    seq_destroy(twin);
    seq_destroy(NULL);
}

/* What is fed needs a block: all of a prompt, and of an answer all but its last token. */
Test(seq, needs_blocks_for_what_is_fed)
{
    static const int32_t tokens[200] = { 0 };
    static const struct {
        enum engine_mode mode;
        uint32_t n_prompt, n_tokens, max_tokens, most, to_admit;
    } rows[] = {
        { ENGINE_PREFILL_ONLY, 64, 64, 500, 1, 1 }, { ENGINE_PREFILL_ONLY, 65, 65, 500, 2, 2 },
        { ENGINE_PREFILL_ONLY, 60, 70, 500, 2, 2 }, { ENGINE_GENERATE, 60, 60, 5, 1, 1 },
        { ENGINE_GENERATE, 60, 60, 6, 2, 1 },       { ENGINE_GENERATE, 63, 63, 99, 3, 1 },
        { ENGINE_GENERATE, 64, 64, 99, 3, 2 },      { ENGINE_GENERATE, 64, 64, 1, 1, 1 },
        { ENGINE_RESERVE, 64, 64, 99, 3, 2 },       { ENGINE_RESERVE, 65, 65, 99, 3, 3 },
        { ENGINE_RESERVE, 128, 128, 1, 2, 2 },      { ENGINE_RESERVE, 64, 64, 65, 2, 2 },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct seq_request r = { .mode = rows[i].mode,
                                       .tokens = tokens,
                                       .n_tokens = rows[i].n_tokens,
                                       .n_prompt = rows[i].n_prompt,
                                       .sampling = { .max_tokens = rows[i].max_tokens } };
        struct seq *s = NULL;
        cr_assert_eq(seq_blocks_max(&r), rows[i].most, "row %zu: %u", i, seq_blocks_max(&r));
        cr_assert_eq(seq_create(&s, &r), OK);
        cr_assert_eq(seq_blocks_to_admit(s), rows[i].to_admit, "row %zu: %u", i, seq_blocks_to_admit(s));
        cr_assert(s->table.cap == rows[i].most && s->window.cap == rows[i].most);
        cr_assert(s->n_tokens == rows[i].n_tokens && s->n_input == rows[i].n_tokens && s->n_prompt == rows[i].n_prompt);
        cr_assert(s->n_prompt_logprobs_sent == 1 && s->slot == STATE_SLOT_NONE && s->saved == STATE_SLOT_NONE);
        seq_destroy(s);
    }
}

Test(seq, its_blocks_are_what_its_state_makes_of_them)
{
    static const struct {
        enum seq_state path[4];
        uint32_t n;
        enum kv_block_state blocks;
        bool started;
    } rows[] = {
        { { SEQ_PREFILL }, 1, KV_ACTIVE, true },
        { { SEQ_DECODE }, 1, KV_ACTIVE, true },
        { { SEQ_RESERVED }, 1, KV_RESERVED, false },
        { { SEQ_FETCHING }, 1, KV_RECEIVING, false },
        { { SEQ_FETCHING, SEQ_RESERVED, SEQ_DECODE }, 3, KV_ACTIVE, true },
        { { SEQ_FETCHING, SEQ_PREFILL, SEQ_HELD }, 3, KV_SENDING, true },
        { { SEQ_RESERVED, SEQ_PREFILL, SEQ_DECODE }, 3, KV_ACTIVE, true },
        { { SEQ_PREFILL, SEQ_WAITING }, 2, KV_FREE, true },
        { { SEQ_DECODE, SEQ_WAITING }, 2, KV_FREE, true },
        { { SEQ_RESERVED, SEQ_WAITING }, 2, KV_FREE, false },
        { { SEQ_FETCHING, SEQ_WAITING }, 2, KV_FREE, false },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct kv_pool *pool = NULL;
        struct seq *s = seq_of(1, 0);
        uint32_t counts[KV_STATE_COUNT];
        cr_assert_eq(kv_pool_create(&pool, 3), OK);
        cr_assert_eq(block_table_grow(&s->table, pool, 1, KV_RESERVED), OK);
        for (uint32_t k = 0; k < rows[i].n; k++) seq_set_state(s, pool, rows[i].path[k]);
        kv_pool_counts(pool, counts);
        cr_assert_eq(counts[rows[i].blocks], rows[i].blocks == KV_FREE ? 3 : 1, "row %zu", i);
        cr_assert_eq(s->started, rows[i].started, "row %zu", i);
        if (s->state != SEQ_WAITING) seq_set_state(s, pool, SEQ_DONE);
        cr_assert_eq(kv_pool_n_free(pool), 3);
        seq_destroy(s);
        kv_pool_destroy(pool);
    }
}
