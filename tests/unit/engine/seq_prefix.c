/* seq_prefix: random sequences with common beginnings beside a naive model of what each block holds. */
#include "engine/seq_prefix.h"

#include "base/mem.h"

#include <criterion/criterion.h>
#include <string.h>

#define N_BLOCKS 24
#define N_SEQS   6
#define DEPTH    7 /* blocks of the longest sequence */
#define N_OPS    20000
#define N_TOKENS (DEPTH * KV_BLOCK_TOKENS)

struct rig {
    struct kv_pool *pool;
    struct prefix_cache *cache;
    struct seq *live[N_SEQS];
    /* The naive model: the tokens whose KV a block holds, from position 0 to its end; 0: unknown. */
    uint32_t n_held[N_BLOCKS];
    int32_t held[N_BLOCKS][N_TOKENS];
    uint64_t random, n_hits, n_tails, n_refused;
};

static uint32_t draw(struct rig *r, uint32_t n)
{
    r->random = r->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(r->random >> 33) % n;
}

static uint32_t n_holders(const struct rig *r, kv_block_id id)
{
    uint32_t n = 0;
    for (int i = 0; i < N_SEQS; i++)
        for (uint32_t b = 0; r->live[i] && b < r->live[i]->table.n; b++) n += r->live[i]->table.ids[b] == id;
    return n;
}

/* New blocks are nobody else's, and what they held before is over. */
static bool grow(struct rig *r, struct seq *s, uint32_t n)
{
    uint32_t had = s->table.n;
    if (block_table_grow(&s->table, r->pool, n, KV_ACTIVE) != OK) return false;
    for (uint32_t b = had; b < s->table.n; b++) {
        cr_assert_eq(n_holders(r, s->table.ids[b]), 1, "a referenced block was taken");
        r->n_held[s->table.ids[b]] = 0;
    }
    return true;
}

static void expect_hits_hold_the_prefix(struct rig *r, const struct seq *s)
{
    cr_assert_lt(s->n_computed, s->n_tokens, "the last token is always computed");
    cr_assert_eq(s->n_computed, s->table.n * KV_BLOCK_TOKENS);
    for (uint32_t b = 0; b < s->table.n; b++) {
        kv_block_id id = s->table.ids[b];
        cr_assert_eq(r->n_held[id], (b + 1) * KV_BLOCK_TOKENS);
        cr_assert_eq(memcmp(r->held[id], s->tokens, r->n_held[id] * sizeof(int32_t)), 0);
    }
    r->n_hits += s->table.n;
}

/* The tail of its input, from whoever else has computed it and has gone on behind it since. */
static void copy_tail(struct rig *r, struct seq *s)
{
    kv_block_id to, from;
    if (!seq_find_tail(s, &to, &from)) return;
    cr_assert_eq(n_holders(r, to), 1);
    cr_assert_geq(r->n_held[from], s->n_tokens);
    cr_assert_eq(memcmp(r->held[from], s->tokens, s->n_tokens * sizeof(int32_t)), 0);
    seq_took_tail(s);
    r->n_held[to] = s->n_computed;
    memcpy(r->held[to], s->tokens, s->n_computed * sizeof(int32_t));
    r->n_tails++;
}

/* Computes up to `end` tokens: what is written is the sequence's own. */
static void compute(struct rig *r, struct seq *s, uint32_t end)
{
    for (uint32_t b = s->n_computed / KV_BLOCK_TOKENS; b * KV_BLOCK_TOKENS < end; b++) {
        kv_block_id id = s->table.ids[b];
        cr_assert_eq(n_holders(r, id), 1, "a shared block was written");
        r->n_held[id] = end < (b + 1) * KV_BLOCK_TOKENS ? end : (b + 1) * KV_BLOCK_TOKENS;
        memcpy(r->held[id], s->tokens, r->n_held[id] * sizeof(int32_t));
    }
    s->n_computed = end;
    seq_publish(s);
}

/* Tokens [from, to); each block is one of two: many sequences begin alike. */
static void fill_tokens(struct rig *r, int32_t *tokens, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++) {
        int32_t kind = i % KV_BLOCK_TOKENS ? tokens[i - 1] / 1000 : (int32_t)draw(r, 2);
        tokens[i] = (int32_t)i + 1000 * kind;
    }
}

static void begin(struct rig *r, int slot)
{
    int32_t tokens[N_TOKENS];
    uint32_t n = draw(r, 2) ? 1 + draw(r, N_TOKENS - 1) : 1 + draw(r, 8) * 31; /* some come again */
    struct seq_request q = { .mode = ENGINE_GENERATE, .tokens = tokens, .n_tokens = n, .n_prompt = n };
    struct seq *s;
    fill_tokens(r, tokens, 0, n);
    q.sampling.max_tokens = N_TOKENS - n;
    q.sampling.n_prompt_logprobs = -1;
    cr_assert_eq(seq_create(&s, &q), OK);
    s->prefix.cache = r->cache;
    seq_take_prefix(s, r->pool, false);
    expect_hits_hold_the_prefix(r, s);
    r->live[slot] = s;
    if (grow(r, s, seq_blocks_to_admit(s))) {
        copy_tail(r, s);
        seq_set_state(s, r->pool, SEQ_PREFILL);
        return;
    }
    r->n_refused++;
    seq_release_blocks(s, r->pool);
    seq_destroy(s);
    r->live[slot] = NULL;
}

static void end(struct rig *r, int slot)
{
    seq_set_state(r->live[slot], r->pool, SEQ_DONE);
    seq_destroy(r->live[slot]);
    r->live[slot] = NULL;
}

/* A chunk of the prompt, or a few tokens more. */
static void go_on(struct rig *r, int slot)
{
    struct seq *s = r->live[slot];
    if (s->n_computed < s->n_tokens) {
        compute(r, s, s->n_computed + 1 + draw(r, s->n_tokens - s->n_computed));
        return;
    }
    uint32_t more = 1 + draw(r, KV_BLOCK_TOKENS);
    if (s->n_tokens + more >= N_TOKENS || !grow(r, s, block_table_blocks_for(s->n_tokens + more))) {
        end(r, slot);
        return;
    }
    fill_tokens(r, s->tokens, s->n_tokens, s->n_tokens + more);
    s->n_tokens += more;
    compute(r, s, s->n_tokens);
}

static void expect_counts(const struct rig *r)
{
    uint32_t counts[KV_STATE_COUNT], held = 0;
    for (kv_block_id id = 0; id < N_BLOCKS; id++) held += n_holders(r, id) > 0;
    kv_pool_counts(r->pool, counts);
    cr_assert_eq(counts[KV_FREE] + counts[KV_CACHED], N_BLOCKS - held);
    cr_assert_eq(kv_pool_n_free(r->pool), N_BLOCKS - held);
}

/* The blocks that can be copied behind a chain of b blocks. */
static void see_tails(struct rig *r, const struct prefix_hash *prev, uint32_t b, uint32_t kind, bool *seen)
{
    const struct prefix_hash root = { 0 };
    int32_t tokens[KV_BLOCK_TOKENS];
    kv_block_id id;
    for (uint32_t i = 0; i < KV_BLOCK_TOKENS; i++) tokens[i] = (int32_t)(b * KV_BLOCK_TOKENS + i + 1000 * kind);
    for (uint32_t n = 1; n < KV_BLOCK_TOKENS; n++) {
        const struct prefix_hash tail = prefix_hash_extend(&root, prev, tokens, n);
        if (prefix_cache_find(r->cache, &tail, &id)) seen[id] = true;
    }
}

/* Nobody runs: every cached block can be reached, so none outlived what it follows. */
static void expect_all_reachable(struct rig *r)
{
    uint32_t counts[KV_STATE_COUNT], n = 0;
    bool seen[N_BLOCKS] = { false };
    for (uint32_t kinds = 0; kinds < 1u << DEPTH; kinds++) {
        struct prefix_hash root = { 0 }, hashes[DEPTH];
        kv_block_id ids[DEPTH];
        for (uint32_t b = 0; b < DEPTH; b++) {
            int32_t tokens[KV_BLOCK_TOKENS];
            for (uint32_t i = 0; i < KV_BLOCK_TOKENS; i++)
                tokens[i] = (int32_t)(b * KV_BLOCK_TOKENS + i + 1000 * (kinds >> b & 1));
            hashes[b] = prefix_hash_extend(&root, b ? &hashes[b - 1] : &root, tokens, KV_BLOCK_TOKENS);
        }
        uint32_t hits = prefix_cache_match(r->cache, hashes, DEPTH, ids);
        for (uint32_t b = 0; b < hits; b++) seen[ids[b]] = true;
        for (uint32_t b = 0; b <= hits && b < DEPTH; b++)
            if (kinds >> b <= 1) see_tails(r, b ? &hashes[b - 1] : &root, b, kinds >> b, seen);
        for (uint32_t b = hits; b-- > 0;) kv_pool_unref(r->pool, ids[b]);
    }
    for (int i = 0; i < N_BLOCKS; i++) n += seen[i];
    kv_pool_counts(r->pool, counts);
    cr_assert_eq(n, counts[KV_CACHED]);
}

Test(seq_prefix, hits_are_right_and_nothing_shared_is_written_or_taken)
{
    struct rig *r = mem_zalloc(sizeof(*r));
    r->random = 7;
    cr_assert_eq(kv_pool_create(&r->pool, N_BLOCKS), OK);
    cr_assert_eq(prefix_cache_create(&r->cache, r->pool), OK);
    for (int op = 0; op < N_OPS; op++) {
        int slot = (int)draw(r, N_SEQS);
        if (!r->live[slot])
            begin(r, slot);
        else if (draw(r, 8) == 0)
            end(r, slot);
        else
            go_on(r, slot);
        expect_counts(r);
        if (op % 100 != 99) continue;
        for (int i = 0; i < N_SEQS; i++)
            if (r->live[i]) end(r, i);
        expect_all_reachable(r);
    }
    cr_assert_gt(r->n_hits, 1000);
    cr_assert_gt(r->n_tails, 100);
    cr_assert_gt(r->n_refused, 10, "the pool was never short");
    prefix_cache_destroy(r->cache);
    kv_pool_destroy(r->pool);
    mem_free(r);
}
