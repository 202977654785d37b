/* block_table.h - which blocks hold a sequence's tokens: entry b covers positions [64 b, 64 b + 64).
 *
 * A table holds one reference of the pool for each of its blocks.  Its room is fixed when it is made,
 * so growing it in a step allocates nothing. */
#ifndef KV_BLOCK_TABLE_H
#define KV_BLOCK_TABLE_H
#include "base/kv_block.h"
#include "kv/kv_pool.h"

struct block_table {
    kv_block_id *ids; /* owned */
    uint32_t n, cap;
};

/* Blocks that n_tokens need. */
static inline uint32_t block_table_blocks_for(uint64_t n_tokens)
{
    return (uint32_t)((n_tokens + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS);
}

/* An empty table with room for max_blocks. */
enum status block_table_init(struct block_table *t, uint32_t max_blocks) MUST_CHECK;
/* Frees the room; the table must be empty (block_table_clear() first).  A zeroed table is fine. */
void block_table_fini(struct block_table *t);
/* Takes blocks until there are n, all or nothing.  ERR_NO_BLOCKS: the table is as it was. */
enum status block_table_grow(struct block_table *t, struct kv_pool *pool, uint32_t n,
                             enum kv_block_state state) MUST_CHECK;
/* Gives the blocks from entry n on back; fewer stay as they are. */
void block_table_shrink(struct block_table *t, struct kv_pool *pool, uint32_t n);
/* Puts all blocks into one state. */
void block_table_set_state(const struct block_table *t, struct kv_pool *pool, enum kv_block_state state);
/* Gives all blocks back. */
void block_table_clear(struct block_table *t, struct kv_pool *pool);
#endif
