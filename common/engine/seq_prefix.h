/* seq_prefix.h - a sequence and the prefix cache: what it finds there, what it leaves there. */
#ifndef ENGINE_SEQ_PREFIX_H
#define ENGINE_SEQ_PREFIX_H
#include "engine/seq.h"
#include "store/kv_tier.h"

/* What the hashes of a request begin with; adapter 0: none; salt NULL: none. */
struct prefix_hash seq_prefix_root(const struct prefix_hash *cluster, uint32_t adapter, const char *salt);
/* Whether its tokens are looked for in the prefix cache and the tier. */
bool seq_is_looked_up(const struct seq *s);
/* Gives a sequence without blocks those of the longest cached prefix that leaves its last token to be computed; only
 * full ones, which it shares.  Where layers have states or windows, the prefix ends where those are there, too, here or
 * in the tier (NULL: none); with one, which may have the rest, it may end before. */
void seq_take_prefix(struct seq *s, struct kv_pool *pool, const struct kv_tier *tier);
/* How many of its first blocks, hashed by now, are of use to it if all of them are there. */
uint32_t seq_blocks_of_use(struct seq *s, const struct kv_tier *tier);
/* Shares the windows' blocks that its computed tokens end with, or takes none where none count.  False: some are not
 * there any more. */
bool seq_begin_window(struct seq *s);
/* Gives those back that no row to come looks back to. */
void seq_slide_window(struct seq *s);
/* Whether all that it lacks of its input, but the last token, is in the block *from, too: before it writes into its own
 * block *to, it may copy that one. */
bool seq_find_tail(struct seq *s, kv_block_id *to, kv_block_id *from);
void seq_took_tail(struct seq *s); /* it has */
/* Makes its computed blocks findable: full ones, and the tail of its input. */
void seq_publish(struct seq *s);
/* Gives all blocks and the live slot back; what is computed stays findable while there is room.  A sequence that is not
 * swapped out has then computed nothing. */
void seq_release_blocks(struct seq *s, struct kv_pool *pool);
#endif
