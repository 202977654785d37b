/* batch.c - lays sequences' next tokens one after the other. */
#include "engine/batch.h"

#include "base/mem.h"

#include <assert.h>
#include <string.h>

void step_batch_init(struct step_batch *sb, uint32_t max_rows, uint32_t max_seqs)
{
    *sb = (struct step_batch){ .max_rows = max_rows, .max_seqs = max_seqs };
    sb->tokens = mem_array(max_rows, sizeof(*sb->tokens));
    sb->seqs = mem_array(max_seqs, sizeof(*sb->seqs));
    sb->owners = mem_array(max_seqs, sizeof(*sb->owners));
    step_batch_reset(sb);
}

void step_batch_fini(struct step_batch *sb)
{
    mem_free(sb->tokens);
    mem_free(sb->seqs);
    mem_free(sb->owners);
    *sb = (struct step_batch){ 0 };
}

void step_batch_reset(struct step_batch *sb)
{
    sb->b = (struct batch){ .tokens = sb->tokens, .seqs = sb->seqs };
    sb->n_prefill_rows = sb->n_decode_rows = 0;
}

void step_batch_add(struct step_batch *sb, struct seq *s, uint32_t n_rows)
{
    struct batch *b = &sb->b;
    assert(b->n_rows + n_rows <= sb->max_rows && b->n_seqs < sb->max_seqs);
    assert(s->n_computed + n_rows <= s->n_tokens);
    memcpy(sb->tokens + b->n_rows, s->tokens + s->n_computed, n_rows * sizeof(*sb->tokens));
    sb->seqs[b->n_seqs] = (struct batch_seq){
        .row0 = b->n_rows, .n_rows = n_rows, .pos0 = s->n_computed, .blocks = s->table.ids, .n_blocks = s->table.n
    };
    sb->owners[b->n_seqs++] = s;
    b->n_rows += n_rows;
    if (s->state == SEQ_DECODE)
        sb->n_decode_rows += n_rows;
    else
        sb->n_prefill_rows += n_rows;
}
