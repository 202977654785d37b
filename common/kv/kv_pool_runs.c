/* kv_pool_runs.c - pools that share one memory: a tenant's block i is the run [i * run, (i + 1) * run) of its blocks.
 */
#include "base/mem.h"
#include "kv/kv_pool_internal.h"

#include <assert.h>

static uint32_t run_of(const struct kv_pool *tenant, kv_block_id block)
{
    return block / tenant->run;
}

void kv_runs_count(struct kv_pool *memory, kv_block_id id, int busy, int unfree)
{
    for (int t = 0; t < KV_POOL_TENANTS; t++) {
        struct kv_pool *tenant = memory->tenants[t];
        if (!tenant || run_of(tenant, id) >= tenant->n_blocks) continue;
        tenant->busy[run_of(tenant, id)] += (uint32_t)busy;
        tenant->unfree[run_of(tenant, id)] += (uint32_t)unfree;
    }
}

void kv_runs_mark(struct kv_pool *tenant, kv_block_id id, enum kv_block_state state)
{
    for (uint32_t i = 0; i < tenant->run; i++) kv_pool_move(tenant->memory, id * tenant->run + i, state);
}

static void take_run(struct kv_pool *tenant, kv_block_id id)
{
    struct kv_pool *memory = tenant->memory;
    for (uint32_t i = 0; i < tenant->run; i++) {
        const kv_block_id block = id * tenant->run + i;
        kv_pool_free_remove(memory, block);
        memory->blocks[block].refs = 1;
        kv_runs_count(memory, block, 1, 1);
        kv_pool_move(memory, block, KV_ACTIVE);
    }
    tenant->n_present++;
    kv_pool_free_add(tenant, id);
}

static void give_run_back(struct kv_pool *tenant, kv_block_id id)
{
    kv_pool_free_remove(tenant, id);
    tenant->n_present--;
    for (uint32_t i = 0; i < tenant->run; i++) kv_pool_unref(tenant->memory, id * tenant->run + i);
}

void kv_runs_spare(struct kv_pool *tenant, kv_block_id id)
{
    if (tenant->memory && tenant->n_present > tenant->n_reserved) give_run_back(tenant, id);
}

/* Who has the idle block that was used longest ago and may be given up; NULL: nobody.  A tenant keeps what is reserved.
 */
static struct kv_pool *oldest_of_tenants(const struct kv_pool *memory, const struct kv_pool *but, uint64_t *used)
{
    struct kv_pool *found = NULL;
    for (int t = 0; t < KV_POOL_TENANTS; t++) {
        struct kv_pool *tenant = memory->tenants[t];
        if (!tenant || tenant == but || tenant->n_idle == 0 || tenant->n_present <= tenant->n_reserved) continue;
        const uint64_t then = tenant->blocks[tenant->oldest].used;
        if (found && then > *used) continue;
        found = tenant;
        *used = then;
    }
    return found;
}

bool kv_runs_evict_for_blocks(struct kv_pool *memory)
{
    uint64_t used = 0;
    struct kv_pool *tenant = oldest_of_tenants(memory, NULL, &used);
    if (tenant && (memory->n_idle == 0 || used < memory->blocks[memory->oldest].used))
        kv_pool_evict(tenant);
    else if (memory->n_idle > 0)
        kv_pool_evict(memory);
    return memory->n_free > 0;
}

/* From the end, as blocks are taken from the beginning: so that what is free lies together. */
static kv_block_id free_run(const struct kv_pool *tenant)
{
    for (uint32_t id = tenant->n_blocks; id-- > 0;)
        if (tenant->unfree[id] == 0) return id;
    return KV_NONE;
}

/* The run, nobody's, of the block that was used longest ago. */
static kv_block_id idle_run(const struct kv_pool *tenant, uint64_t *used)
{
    const struct kv_pool *memory = tenant->memory;
    for (kv_block_id b = memory->oldest; b != KV_NONE; b = memory->blocks[b].next) {
        const uint32_t id = run_of(tenant, b);
        *used = memory->blocks[b].used;
        if (id < tenant->n_blocks && tenant->busy[id] == 0) return id;
    }
    return KV_NONE;
}

static void forget_run(struct kv_pool *tenant, kv_block_id id)
{
    struct kv_pool *memory = tenant->memory;
    for (uint32_t i = 0; i < tenant->run; i++) kv_pool_forget(memory, id * tenant->run + i);
}

/* A run that is free, or has become so: of what was used before `before`. */
static kv_block_id make_run(struct kv_pool *tenant, uint64_t before)
{
    for (;;) {
        uint64_t used = UINT64_MAX, other_used = UINT64_MAX;
        const kv_block_id free = free_run(tenant);
        if (free != KV_NONE) return free;
        const kv_block_id idle = idle_run(tenant, &used);
        struct kv_pool *other = oldest_of_tenants(tenant->memory, tenant, &other_used);
        if (idle == KV_NONE) used = UINT64_MAX;
        if ((used < other_used ? used : other_used) >= before) return KV_NONE;
        if (used < other_used)
            forget_run(tenant, idle);
        else
            kv_pool_evict(other);
    }
}

bool kv_runs_find(struct kv_pool *tenant)
{
    const uint64_t own = tenant->n_idle > 0 ? tenant->blocks[tenant->oldest].used : UINT64_MAX;
    const kv_block_id id = make_run(tenant, own);
    if (id != KV_NONE)
        take_run(tenant, id);
    else if (tenant->n_idle > 0)
        kv_pool_forget(tenant, tenant->oldest);
    return tenant->n_free > 0;
}

kv_block_id kv_runs_beside(const struct kv_pool *memory)
{
    const struct kv_pool *tenant = memory->tenants[0];
    for (uint32_t run = 0; tenant && run < tenant->n_blocks; run++) {
        if (tenant->unfree[run] == 0 || tenant->unfree[run] == tenant->run) continue;
        kv_block_id id = run * tenant->run;
        while (!kv_pool_is_free(memory, id)) id++;
        return id;
    }
    return KV_NONE;
}

uint32_t kv_runs_n_idle(const struct kv_pool *memory)
{
    uint32_t n = 0;
    for (int t = 0; t < KV_POOL_TENANTS; t++) {
        const struct kv_pool *tenant = memory->tenants[t];
        if (!tenant) continue;
        const uint32_t spare = tenant->n_present - tenant->n_reserved;
        n += (spare < tenant->n_idle ? spare : tenant->n_idle) * tenant->run;
    }
    return n;
}

bool kv_pool_reserve(struct kv_pool *pool, uint32_t n)
{
    if (n > pool->n_blocks) return false;
    if (!pool->memory) return true;
    while (pool->n_present < n) {
        const kv_block_id id = make_run(pool, UINT64_MAX);
        if (id == KV_NONE) break;
        take_run(pool, id);
    }
    const bool is_there = pool->n_present >= n;
    if (is_there) pool->n_reserved = n;
    for (kv_block_id id = 0; pool->n_free > 0 && pool->n_present > pool->n_reserved; id++)
        if (kv_pool_is_free(pool, id)) give_run_back(pool, id);
    return is_there;
}

enum status kv_pool_create_runs(struct kv_pool **out, struct kv_pool *memory, uint32_t run)
{
    struct kv_pool *tenant = NULL;
    void *busy = NULL, *unfree = NULL;
    int t = 0;
    while (t < KV_POOL_TENANTS && memory->tenants[t]) t++;
    assert(t < KV_POOL_TENANTS && run > 0 && memory->n_free == memory->n_blocks);
    enum status st = kv_pool_create(&tenant, memory->n_blocks / run);
    if (st == OK) st = mem_try_array(&busy, tenant->n_blocks, sizeof(*tenant->busy));
    if (st == OK) st = mem_try_array(&unfree, tenant->n_blocks, sizeof(*tenant->unfree));
    if (st != OK) {
        mem_free(busy);
        if (tenant) kv_pool_destroy(tenant);
        return st;
    }
    for (kv_block_id id = 0; id < tenant->n_blocks; id++) kv_pool_free_remove(tenant, id); /* none is there yet */
    tenant->run = run;
    tenant->memory = memory;
    tenant->busy = busy;
    tenant->unfree = unfree;
    memory->tenants[t] = tenant;
    *out = tenant;
    return OK;
}

void kv_runs_leave(struct kv_pool *tenant)
{
    struct kv_pool *memory = tenant->memory;
    tenant->n_reserved = 0;
    while (tenant->n_idle > 0) kv_pool_drop(tenant, tenant->oldest);
    for (kv_block_id id = 0; tenant->n_free > 0; id++)
        if (kv_pool_is_free(tenant, id)) give_run_back(tenant, id);
    assert(tenant->n_present == 0 && "a block outlives its pool");
    for (int t = 0; t < KV_POOL_TENANTS; t++)
        if (memory->tenants[t] == tenant) memory->tenants[t] = NULL;
}
