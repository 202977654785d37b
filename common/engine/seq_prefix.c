/* seq_prefix.c - hashes a sequence's full blocks as they come, and trades them with the prefix cache. */
#include "engine/seq_prefix.h"

#include <assert.h>

/* Hashes blocks up to n; their tokens are known and never change. */
static void hash_blocks(struct seq *s, uint32_t n)
{
    struct prefix_chain *c = &s->prefix;
    for (; c->n_hashes < n; c->n_hashes++) {
        const struct prefix_hash *prev = c->n_hashes ? &c->hashes[c->n_hashes - 1] : &c->root;
        c->hashes[c->n_hashes] = prefix_hash_extend(&c->root, prev, s->tokens + c->n_hashes * BLOCK_TABLE_TOKENS);
    }
}

void seq_take_prefix(struct seq *s)
{
    struct prefix_chain *c = &s->prefix;
    uint32_t n = (s->n_tokens - 1) / BLOCK_TABLE_TOKENS;
    assert(s->table.n == 0);
    /* Logprobs of a prompt come from computing it. */
    if (!c->cache || s->sampling.n_prompt_logprobs >= 0) return;
    hash_blocks(s, n);
    c->n_published = s->table.n = prefix_cache_match(c->cache, c->hashes, n, s->table.ids);
    s->n_computed = s->table.n * BLOCK_TABLE_TOKENS;
}

void seq_publish(struct seq *s)
{
    struct prefix_chain *c = &s->prefix;
    uint32_t n = s->n_computed / BLOCK_TABLE_TOKENS;
    if (!c->cache) return;
    hash_blocks(s, n);
    for (; c->n_published < n; c->n_published++)
        prefix_cache_publish(c->cache, &c->hashes[c->n_published], s->table.ids[c->n_published]);
}

void seq_release_blocks(struct seq *s, struct kv_pool *pool)
{
    struct prefix_chain *c = &s->prefix;
    /* All again: where a twin of a block was the known one and has been evicted since, the rest of the chain could not
     * be found any more. */
    c->n_published = 0;
    if (s->table.n > 0) seq_publish(s);
    block_table_clear(&s->table, pool);
    if (c->cache) prefix_cache_touch(c->cache, c->hashes, c->n_hashes);
    c->n_published = 0;
    if (s->swapped.n == 0) s->n_computed = 0;
}
