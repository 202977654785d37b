/* cache_plan.c - how a node's memory for its cache is divided: KV blocks, states of running sequences, snapshots. */
#include "node/cache_plan.h"

#include "base/bytes.h"
#include "base/kv_block.h"

#define BLOCKS_MAX    (UINT32_MAX / 2)
#define SNAPSHOTS_MAX 8192 /* however small they are: each costs bookkeeping, too */

typedef unsigned long long ull;

static enum status plan_slots(uint32_t *out, const struct cache_need *n, struct error *err)
{
    *out = 0;
    if (n->state_bytes == 0) return OK;
    const uint64_t snapshots = n->snapshot_bytes / n->state_bytes;
    if (n->snapshot_bytes > 0 && snapshots == 0)
        return error_set(err, ERR_INVALID,
                         "kv.snapshot_bytes: %llu bytes hold no recurrent state of %zu bytes; at least those are "
                         "needed, or 0 for no "
                         "snapshots",
                         (ull)n->snapshot_bytes, n->state_bytes);
    *out = n->max_seqs + (snapshots < SNAPSHOTS_MAX ? (uint32_t)snapshots : SNAPSHOTS_MAX);
    return OK;
}

/* Ids alone. */
static uint64_t blocks_without_bytes(const struct cache_need *n)
{
    const uint64_t one = (n->max_context + (uint64_t)KV_BLOCK_TOKENS) / KV_BLOCK_TOKENS;
    const uint64_t all = 2 * one * n->max_seqs, most = (uint64_t)1 << 20;
    return all < most ? all : one > most ? one : most;
}

/* Of how many blocks one is of layers with a window, too. */
static double blocks_per_window(const struct cache_need *n)
{
    const double half = (double)n->max_context / KV_BLOCK_TOKENS / 2 / n->window_blocks;
    return half < 1 ? 1 : half > 4 ? 4 : half;
}

static enum status plan_blocks(struct cache_plan *out, const struct cache_need *n, uint64_t memory, struct error *err)
{
    uint64_t blocks = n->block_bytes > 0 ? memory / n->block_bytes : blocks_without_bytes(n), windows = 0;
    const size_t others = n->block_bytes - n->window_bytes;
    if (n->window_bytes > 0) {
        windows = (uint64_t)((double)memory / (blocks_per_window(n) * (double)others + (double)n->window_bytes));
        if (windows < n->window_blocks) windows = blocks; /* not even one sequence's */
    }
    if (windows > blocks_without_bytes(n)) windows = blocks_without_bytes(n);
    if (n->window_bytes > 0)
        blocks = others > 0 ? (memory - windows * n->window_bytes) / others : blocks_without_bytes(n);
    if (blocks == 0 || blocks > BLOCKS_MAX)
        return error_set(err, ERR_INVALID, "kv_memory of %llu bytes holds %llu blocks of %zu bytes", (ull)n->kv_memory,
                         (ull)blocks, n->block_bytes);
    out->n_blocks = (uint32_t)blocks;
    out->n_window_blocks = (uint32_t)windows;
    return OK;
}

enum status cache_plan(struct cache_plan *out, const struct cache_need *n, struct error *err)
{
    uint64_t states, least;
    enum status st = plan_slots(&out->n_slots, n, err);
    if (st != OK) return st;
    if (!size_mul(n->state_bytes, n->max_seqs, &states) || !size_add(states, n->block_bytes, &least))
        return error_set(err, ERR_TOO_LARGE, "recurrent states of %u sequences of %zu bytes each", n->max_seqs,
                         n->state_bytes);
    if (n->state_bytes > 0 && least > n->kv_memory)
        return error_set(err, ERR_INVALID,
                         "kv_memory is %llu bytes; the recurrent states of %u sequences (max_seqs) take %zu each, and "
                         "a KV block %zu: at "
                         "least %llu are needed",
                         (ull)n->kv_memory, n->max_seqs, n->state_bytes, n->block_bytes, (ull)least);
    return plan_blocks(out, n, n->kv_memory - states, err);
}
