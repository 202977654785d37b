/* seq_prefix.h - a sequence and the prefix cache: what it finds there, what it leaves there. */
#ifndef ENGINE_SEQ_PREFIX_H
#define ENGINE_SEQ_PREFIX_H
#include "engine/seq.h"

/* Gives a sequence without blocks those of the longest cached prefix that leaves its last token to be computed. */
void seq_take_prefix(struct seq *s);
/* Makes its full, computed blocks findable. */
void seq_publish(struct seq *s);
/* Gives all blocks back; what is computed stays findable while there is room.  A sequence that is not swapped out has
 * then computed nothing. */
void seq_release_blocks(struct seq *s, struct kv_pool *pool);
#endif
