/* seq.c - the sequence machine as a table of legal moves. */
#include "engine/seq.h"

#include "base/mem.h"
#include "engine/seq_prefix.h"

#include <assert.h>
#include <string.h>

#define MOVE(to) (1u << (to))

/* SEQ_DONE has no way out. */
static const struct {
    unsigned moves;
    enum kv_block_state blocks; /* what its blocks are while it is in this state */
} STATES[SEQ_STATE_COUNT] = {
    [SEQ_WAITING] = { MOVE(SEQ_FETCHING) | MOVE(SEQ_RESERVED) | MOVE(SEQ_PREFILL) | MOVE(SEQ_DECODE) | MOVE(SEQ_DONE),
                      KV_FREE },
    [SEQ_FETCHING] = { MOVE(SEQ_RESERVED) | MOVE(SEQ_PREFILL) | MOVE(SEQ_WAITING) | MOVE(SEQ_DONE), KV_RECEIVING },
    [SEQ_RESERVED] = { MOVE(SEQ_PREFILL) | MOVE(SEQ_DECODE) | MOVE(SEQ_WAITING) | MOVE(SEQ_DONE), KV_RESERVED },
    [SEQ_PREFILL] = { MOVE(SEQ_DECODE) | MOVE(SEQ_HELD) | MOVE(SEQ_WAITING) | MOVE(SEQ_DONE), KV_ACTIVE },
    [SEQ_DECODE] = { MOVE(SEQ_WAITING) | MOVE(SEQ_DONE), KV_ACTIVE },
    [SEQ_HELD] = { MOVE(SEQ_DONE), KV_SENDING },
    [SEQ_DONE] = { 0, KV_FREE },
};

void seq_set_state(struct seq *s, struct kv_pool *pool, enum seq_state to)
{
    assert((STATES[s->state].moves & MOVE(to)) && "a legal move");
    if (STATES[to].blocks == KV_FREE)
        seq_release_blocks(s, pool); /* preempted: its KV goes with its blocks */
    else
        block_table_set_state(&s->table, pool, STATES[to].blocks);
    if (to == SEQ_PREFILL || to == SEQ_DECODE) s->started = true;
    s->state = to;
}

void seq_cut(struct seq *s, struct kv_pool *pool, uint32_t n)
{
    if (n == 0) return;
    assert(n <= seq_n_output(s));
    s->n_tokens -= n;
    assert(s->prefix.n_hashes * KV_BLOCK_TOKENS <= s->n_tokens);
    if (s->n_computed > s->n_tokens) s->n_computed = s->n_tokens;
    s->n_drafts -= n < s->n_drafts ? n : s->n_drafts;
    block_table_shrink(&s->table, pool, block_table_blocks_for((uint64_t)s->n_tokens + 1));
}

void seq_drop_saved(struct seq *s)
{
    if (s->saved != STATE_SLOT_NONE) state_pool_give_back(s->states, s->saved);
    s->saved = STATE_SLOT_NONE;
}

uint32_t seq_blocks_max(const struct seq_request *r)
{
    /* The last token that is sampled is never fed; a prefill-only sequence feeds its input alone, a
     * reservation asks for a block to grow into. */
    uint64_t fed = r->mode == ENGINE_PREFILL_ONLY ? r->n_tokens : (uint64_t)r->n_prompt + r->sampling.max_tokens - 1;
    return block_table_blocks_for(fed);
}

uint32_t seq_blocks_to_admit(const struct seq *s)
{
    if (s->mode == ENGINE_PREFILL_ONLY) return block_table_blocks_for(s->n_tokens);
    uint32_t n = seq_is_reservation(s) ? block_table_blocks_for(s->n_tokens) + 1
                                       : block_table_blocks_for((uint64_t)s->n_tokens + 1);
    return n < s->table.cap ? n : s->table.cap;
}

uint32_t seq_window_first(const struct seq *s)
{
    return window_first_block(s->windows->tokens, seq_is_reservation(s) ? s->n_tokens : s->n_computed);
}

enum status seq_create(struct seq **out, const struct seq_request *r)
{
    struct seq *s = mem_zalloc(sizeof(*s));
    size_t room = (size_t)r->n_prompt + r->sampling.max_tokens;
    void *tokens = NULL, *hashes = NULL;
    enum status st = mem_try_array(&tokens, room, sizeof(*s->tokens));
    s->tokens = tokens;
    if (st == OK) st = block_table_init(&s->table, seq_blocks_max(r));
    if (st == OK) st = window_table_init(&s->window, s->table.cap);
    if (st == OK) st = mem_try_array(&hashes, s->table.cap, sizeof(*s->prefix.hashes));
    s->prefix.hashes = hashes;
    sampling_copy(&s->sampling, &r->sampling);
    if (st != OK) {
        seq_destroy(s);
        return st;
    }
    s->key = r->key;
    s->mode = r->mode;
    s->priority = r->priority;
    s->n_tokens = s->n_input = r->n_tokens;
    s->n_prompt = r->n_prompt;
    s->slot = s->saved = STATE_SLOT_NONE;
    s->filling.window_block = SEQ_NO_BLOCK;
    s->wants_hidden = r->wants_hidden;
    s->mask = r->mask;
    s->mask_ctx = r->mask_ctx;
    s->n_prompt_logprobs_sent = 1; /* the first token has nothing before it */
    memcpy(s->tokens, r->tokens, r->n_tokens * sizeof(*s->tokens));
    *out = s;
    return OK;
}

void seq_destroy(struct seq *s)
{
    if (!s) return;
    block_table_fini(&s->table);
    window_table_fini(&s->window);
    mem_free(s->prefix.hashes);
    sampling_fini(&s->sampling);
    mem_free(s->tokens);
    mem_free(s);
}

static bool same_key(const struct seq_key *a, const struct seq_key *b)
{
    return a->hi == b->hi && a->lo == b->lo && a->epoch == b->epoch;
}

static struct seq **bucket_of(const struct seq_set *set, const struct seq_key *k)
{
    uint64_t h = (k->lo ^ (k->hi >> 7) ^ ((uint64_t)k->epoch << 40)) * 0x9E3779B97F4A7C15u;
    return &set->buckets[(h >> 32) & (set->n_buckets - 1)];
}

void seq_set_init(struct seq_set *set, uint32_t cap)
{
    *set = (struct seq_set){ .cap = cap, .n_buckets = 16 };
    while (set->n_buckets < cap) set->n_buckets *= 2;
    set->order = mem_array(cap, sizeof(*set->order));
    set->buckets = mem_array(set->n_buckets, sizeof(*set->buckets));
}

void seq_set_fini(struct seq_set *set)
{
    assert(set->n == 0);
    mem_free(set->order);
    mem_free(set->buckets);
    *set = (struct seq_set){ 0 };
}

struct seq *seq_set_find(const struct seq_set *set, const struct seq_key *key)
{
    struct seq *s = *bucket_of(set, key);
    while (s && !same_key(&s->key, key)) s = s->next_in_bucket;
    return s;
}

static void link_in(struct seq_set *set, struct seq *s)
{
    struct seq **b = bucket_of(set, &s->key);
    s->next_in_bucket = *b;
    *b = s;
}

static void unlink_from(struct seq_set *set, struct seq *s)
{
    struct seq **at = bucket_of(set, &s->key);
    while (*at != s) at = &(*at)->next_in_bucket;
    *at = s->next_in_bucket;
}

enum status seq_set_add(struct seq_set *set, struct seq *s)
{
    if (set->n == set->cap) return ERR_FULL;
    if (seq_set_find(set, &s->key)) return ERR_INVALID;
    link_in(set, s);
    uint32_t at = set->n++;
    for (; at > 0 && set->order[at - 1]->priority > s->priority; at--) set->order[at] = set->order[at - 1];
    set->order[at] = s;
    return OK;
}

void seq_set_remove(struct seq_set *set, struct seq *s)
{
    uint32_t i = 0;
    while (set->order[i] != s) i++;
    memmove(&set->order[i], &set->order[i + 1], (set->n - i - 1) * sizeof(*set->order));
    set->n--;
    unlink_from(set, s);
}

enum status seq_set_rekey(struct seq_set *set, struct seq *s, uint32_t epoch)
{
    struct seq_key key = { s->key.hi, s->key.lo, epoch };
    if (seq_set_find(set, &key)) return ERR_INVALID;
    unlink_from(set, s);
    s->key = key;
    link_in(set, s);
    return OK;
}
