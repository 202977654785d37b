/* window_table.h - which blocks hold the last tokens of a sequence in layers that look back over a window only.
 *
 * Entry b covers positions [64 b, 64 b + 64), as in the block table beside it; entries before `first` are given back.
 * Blocks are of a pool of their own.  A sequence is promised so many blocks as it may hold at once before it gets any,
 * so that going on never fails: see struct windows.  Threads: engine thread only. */
#ifndef KV_WINDOW_TABLE_H
#define KV_WINDOW_TABLE_H
#include "kv/block_table.h"
#include "kv/prefix_cache.h"

struct window_table {
    kv_block_id *ids;       /* owned */
    uint32_t first, n, cap; /* entries [first, n) hold a reference each */
    uint32_t promised;
};

/* The first block whose tokens still count once n_tokens are there: the next row looks back over `window` tokens, its
 * own among them. */
static inline uint32_t window_first_block(uint32_t window, uint32_t n_tokens)
{
    return n_tokens > window ? (n_tokens - window) / KV_BLOCK_TOKENS : 0;
}

/* Blocks that a sequence of n_tokens holds at most while it computes in chunks of `chunk` rows. */
uint32_t window_blocks_max(uint32_t window, uint32_t chunk, uint32_t n_tokens);

struct windows { /* what the tables of an engine share */
    struct kv_pool *pool;
    struct prefix_cache *cache; /* of the pool's blocks; NULL: off */
    uint32_t promised;          /* of the pool, to all tables */
    uint32_t tokens;            /* of the widest window */
};
/* n_blocks blocks; caches: with a prefix cache.  ERR_NO_MEMORY, ERR_INVALID: 0 blocks. */
enum status windows_create(struct windows **out, uint32_t n_blocks, uint32_t tokens, bool caches) MUST_CHECK;
/* The same, of runs of blocks of `memory` (kv_pool_create_runs()). */
enum status windows_create_runs(struct windows **out, struct kv_pool *memory, uint32_t run, uint32_t tokens,
                                bool caches) MUST_CHECK;
void windows_destroy(struct windows *w); /* NULL is fine; all tables must be empty */

enum status window_table_init(struct window_table *t, uint32_t max_blocks) MUST_CHECK;
void window_table_fini(struct window_table *t); /* must hold no blocks; zeroed is fine */
/* Makes the sequence's promise `n` blocks, if it is less.  False: so many are not left, nothing has changed. */
bool window_table_promise(struct window_table *t, struct windows *w, uint32_t n) MUST_CHECK;
/* Makes it `n` blocks, if it is more; it must not hold more. */
void window_table_lower(struct window_table *t, struct windows *w, uint32_t n);
/* An empty table begins at block `first`, and takes blocks [first, n) of hashes from the cache, which has them all. */
void window_table_share(struct window_table *t, struct windows *w, const struct prefix_hash *hashes, uint32_t first,
                        uint32_t n);
/* The same, one block after the other: the table's next one is shared if the cache has it (false: it has not), or is
 * one that the caller has taken. */
bool window_table_share_next(struct window_table *t, struct windows *w, const struct prefix_hash *hash);
void window_table_append(struct window_table *t, kv_block_id id);
/* Takes blocks until there are entries up to n, as far as the promise goes. */
void window_table_grow(struct window_table *t, struct windows *w, uint32_t n);
/* Gives entries before `first` back. */
void window_table_slide(struct window_table *t, struct windows *w, uint32_t first);
/* Gives all blocks and the promise back. */
void window_table_clear(struct window_table *t, struct windows *w);

/* The most blocks h <= n of a prefix such that all blocks of the window behind it, [first(64 h), h), are in the cache,
 * or elsewhere (NULL: nowhere). */
uint32_t window_longest(const struct windows *w, const struct prefix_hash *hashes, uint32_t n,
                        prefix_elsewhere_fn elsewhere, void *ctx);
/* How many of hashes[first..n) the cache has, one after the other. */
uint32_t window_run(const struct windows *w, const struct prefix_hash *hashes, uint32_t first, uint32_t n);
#endif
