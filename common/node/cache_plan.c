/* cache_plan.c - how a node's memory for its cache is divided: KV blocks, states of running sequences, snapshots. */
#include "node/cache_plan.h"

#include "base/bytes.h"
#include "base/kv_block.h"

#define BLOCKS_MAX    (UINT32_MAX / 2)
#define SNAPSHOTS_MAX 8192 /* however small they are: each costs bookkeeping, too */

typedef unsigned long long ull;

static enum status count_snapshots(uint32_t *out, const struct cache_need *n, struct error *err)
{
    const uint64_t fit = n->state_bytes > 0 ? n->snapshot_bytes / n->state_bytes : 0;
    *out = fit < SNAPSHOTS_MAX ? (uint32_t)fit : SNAPSHOTS_MAX;
    if (n->state_bytes == 0 || n->snapshot_bytes == 0 || fit > 0) return OK;
    return error_set(err, ERR_INVALID,
                     "kv.snapshot_bytes: %llu bytes hold no recurrent state of %zu bytes; at least those are "
                     "needed, or 0 for no "
                     "snapshots",
                     (ull)n->snapshot_bytes, n->state_bytes);
}

/* Ids alone. */
static uint64_t blocks_without_bytes(const struct cache_need *n)
{
    const uint64_t one = (n->max_context + (uint64_t)KV_BLOCK_TOKENS) / KV_BLOCK_TOKENS;
    const uint64_t all = 2 * one * n->max_seqs, most = (uint64_t)1 << 20;
    return all < most ? all : one > most ? one : most;
}

static enum status refuse(const struct cache_need *n, uint64_t blocks, struct error *err)
{
    return error_set(err, ERR_INVALID, "kv_memory of %llu bytes holds %llu blocks of %zu bytes", (ull)n->kv_memory,
                     (ull)blocks, n->block_bytes);
}

/* Whole runs: there is no use for a part of one. */
static enum status plan_shared(struct cache_plan *out, const struct cache_need *n, uint32_t snapshots,
                               struct error *err)
{
    const uint32_t run = n->window_run > n->slot_run ? n->window_run : n->slot_run;
    const uint64_t least = n->slot_run + (uint64_t)n->window_run * n->window_blocks + 1;
    uint64_t bytes, blocks;
    if (!size_add(n->kv_memory, n->snapshot_bytes, &bytes)) bytes = UINT64_MAX;
    blocks = bytes / n->shared_bytes / run * run;
    if (n->slot_run == 0) blocks = n->kv_memory / n->shared_bytes / run * run;
    if (blocks < least)
        return error_set(err, ERR_INVALID,
                         "kv_memory is %llu bytes; a sequence of one token takes %llu for its blocks, windows and "
                         "recurrent states",
                         (ull)n->kv_memory, (ull)(least * n->shared_bytes));
    if (blocks > BLOCKS_MAX) return refuse(n, blocks, err);
    out->n_blocks = (uint32_t)blocks;
    out->n_window_blocks = n->window_run > 0 ? out->n_blocks / n->window_run : 0;
    out->n_snapshots = snapshots;
    out->n_blocks_each = (uint32_t)(blocks - least) + 1;
    return OK;
}

uint64_t cache_plan_memory(const struct cache_need *n, uint64_t left)
{
    uint64_t blocks, states, most;
    const uint64_t snapshots = n->state_bytes > 0 || n->shared_bytes > 0 ? n->snapshot_bytes : 0,
                   own = left > snapshots ? left - snapshots : 0;
    if (!size_mul(blocks_without_bytes(n), n->block_bytes, &blocks) ||
        !size_mul(n->state_bytes, n->max_seqs, &states) || !size_add(blocks, states, &most))
        return own;
    return own < most ? own : most;
}

static enum status plan_apart(struct cache_plan *out, const struct cache_need *n, uint32_t snapshots, struct error *err)
{
    uint64_t states, least;
    if (!size_mul(n->state_bytes, n->max_seqs, &states) || !size_add(states, n->block_bytes, &least))
        return error_set(err, ERR_TOO_LARGE, "recurrent states of %u sequences of %zu bytes each", n->max_seqs,
                         n->state_bytes);
    if (n->state_bytes > 0 && least > n->kv_memory)
        return error_set(err, ERR_INVALID,
                         "kv_memory is %llu bytes; the recurrent states of %u sequences (max_seqs) take %zu each, and "
                         "a KV block %zu: at "
                         "least %llu are needed",
                         (ull)n->kv_memory, n->max_seqs, n->state_bytes, n->block_bytes, (ull)least);
    const uint64_t all = n->block_bytes > 0 ? (n->kv_memory - states) / n->block_bytes : 0;
    const bool has_bytes = n->block_bytes > n->window_bytes; /* otherwise ids alone */
    const uint64_t blocks = has_bytes ? all : blocks_without_bytes(n);
    if (blocks == 0 || blocks > BLOCKS_MAX || (n->window_bytes > 0 && all == 0)) return refuse(n, all, err);
    out->n_blocks = out->n_blocks_each = (uint32_t)blocks;
    out->n_window_blocks = n->window_bytes == 0 ? 0 : all < blocks ? (uint32_t)all : out->n_blocks;
    out->n_slots = n->state_bytes > 0 ? n->max_seqs + snapshots : 0;
    return OK;
}

enum status cache_plan(struct cache_plan *out, const struct cache_need *n, struct error *err)
{
    uint32_t snapshots;
    enum status st = count_snapshots(&snapshots, n, err);
    *out = (struct cache_plan){ 0 };
    if (st != OK) return st;
    const bool is_shared = n->window_run > 0 || n->slot_run > 0;
    return is_shared ? plan_shared(out, n, snapshots, err) : plan_apart(out, n, snapshots, err);
}
