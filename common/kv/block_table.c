/* block_table.c - grows and empties a sequence's list of blocks. */
#include "kv/block_table.h"

#include "base/mem.h"

#include <assert.h>
#include <stddef.h>

enum status block_table_init(struct block_table *t, uint32_t max_blocks)
{
    void *ids = NULL;
    enum status st = mem_try_array(&ids, max_blocks, sizeof(*t->ids));
    if (st != OK) return st;
    *t = (struct block_table){ ids, 0, max_blocks };
    return OK;
}

void block_table_fini(struct block_table *t)
{
    assert(t->n == 0 && "a table is freed with blocks in it");
    mem_free(t->ids);
    *t = (struct block_table){ 0 };
}

enum status block_table_grow(struct block_table *t, struct kv_pool *pool, uint32_t n, enum kv_block_state state)
{
    assert(n <= t->cap);
    if (n <= t->n) return OK;
    /* Counted first: two growing sequences must never hold half of what each needs. */
    if (n - t->n > kv_pool_n_free(pool)) return ERR_NO_BLOCKS;
    while (t->n < n) {
        enum status st = kv_pool_take(pool, state, &t->ids[t->n]);
        assert(st == OK);
        (void)st;
        t->n++;
    }
    return OK;
}

void block_table_set_state(const struct block_table *t, struct kv_pool *pool, enum kv_block_state state)
{
    for (uint32_t i = 0; i < t->n; i++) kv_pool_set_state(pool, t->ids[i], state);
}

void block_table_shrink(struct block_table *t, struct kv_pool *pool, uint32_t n)
{
    while (t->n > n) kv_pool_unref(pool, t->ids[--t->n]);
}

void block_table_clear(struct block_table *t, struct kv_pool *pool)
{
    block_table_shrink(t, pool, 0);
}
