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
