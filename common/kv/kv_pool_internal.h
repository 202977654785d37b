/* kv_pool_internal.h - what kv_pool.c (ids, references, states) and kv_pool_runs.c (pools that share one memory) share.
 */
#ifndef KV_KV_POOL_INTERNAL_H
#define KV_KV_POOL_INTERNAL_H
#include "kv/kv_pool.h"

#include <stdatomic.h>
#include <stdbool.h>

#define KV_NONE         UINT32_MAX
#define KV_POOL_TENANTS 2 /* windows and states */

struct kv_block {
    uint32_t refs;
    enum kv_block_state state;
    bool kept;              /* goes to the idle list, not to the free ones */
    kv_block_id prev, next; /* in the idle list, while it has no reference */
    uint64_t used;          /* when it was put there, by the memory's clock */
};

struct kv_pool {
    uint32_t n_blocks, n_free, n_idle;
    struct kv_block *blocks;
    uint64_t *free;           /* a bit for each */
    uint32_t first_free;      /* words before it have none */
    kv_block_id oldest, last; /* idle list, by last use; KV_NONE: empty */
    kv_forget_fn forget;
    void *ctx;
    uint64_t clock;
    /* Written by the engine thread only, read by metrics from any thread: each number is true by
     * itself, a sum over states may be off by the moves under way.  Relaxed is enough. */
    atomic_uint counts[KV_STATE_COUNT];

    struct kv_pool *tenants[KV_POOL_TENANTS]; /* pools of runs of these blocks; NULL: none */
    /* Of a tenant: */
    struct kv_pool *memory; /* whose blocks its runs are; NULL: it is none */
    uint32_t run, n_present, n_reserved;
    uint32_t *busy, *unfree; /* [n_blocks], of each run: blocks that are referenced, that are not free */
};

/* A block is free, idle or referenced: told to the tenants' counts. */
void kv_runs_count(struct kv_pool *memory, kv_block_id id, int busy, int unfree);
/* What a tenant's block is now, its run is, too. */
void kv_runs_mark(struct kv_pool *tenant, kv_block_id id, enum kv_block_state state);
/* Gives the run of a block that has just become free back, unless it is reserved. */
void kv_runs_spare(struct kv_pool *tenant, kv_block_id id);
/* Forgets the idle block that was used longest ago, this pool's or a tenant's, so that some are free.  False: there is
 * none. */
bool kv_runs_evict_for_blocks(struct kv_pool *memory);
/* The tenant gets a run, or forgets an idle block of its own if that was used longer ago than what would have to make
 * room. False: there is neither. */
bool kv_runs_find(struct kv_pool *tenant);
/* A free block in a run of which others are not, so that whole runs stay free; KV_NONE: there is none, or no tenant. */
kv_block_id kv_runs_beside(const struct kv_pool *memory);
/* Blocks that tenants could give back. */
uint32_t kv_runs_n_idle(const struct kv_pool *memory);
/* All runs go back; no block of the tenant may be referenced. */
void kv_runs_leave(struct kv_pool *tenant);

/* kv_pool.c's */
void kv_pool_free_add(struct kv_pool *pool, kv_block_id id);
void kv_pool_free_remove(struct kv_pool *pool, kv_block_id id);
bool kv_pool_is_free(const struct kv_pool *pool, kv_block_id id);
void kv_pool_move(struct kv_pool *pool, kv_block_id id, enum kv_block_state to);
/* A block that is not referenced is free from now on. */
void kv_pool_forget(struct kv_pool *pool, kv_block_id id);
void kv_pool_drop(struct kv_pool *pool, kv_block_id id);
#endif
