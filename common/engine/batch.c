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
    sb->logit0 = mem_array(max_seqs, sizeof(*sb->logit0));
    step_batch_reset(sb);
}

void step_batch_fini(struct step_batch *sb)
{
    mem_free(sb->tokens);
    mem_free(sb->seqs);
    mem_free(sb->owners);
    mem_free(sb->logit0);
    *sb = (struct step_batch){ 0 };
}

void step_batch_reset(struct step_batch *sb)
{
    sb->b = (struct batch){ .tokens = sb->tokens, .seqs = sb->seqs };
    sb->n_prefill_rows = sb->n_decode_rows = sb->n_logits = sb->n_shipping = 0;
}

/* The next token comes from the last row, once all known tokens are computed, and from the row before each guess;
 * logprobs of the prompt from all rows since the last one that was told of, hidden states from all. */
static uint32_t n_logits_of(const struct seq *s, uint32_t n_rows)
{
    const uint32_t end = s->n_computed + n_rows, told = s->n_prompt_logprobs_sent; /* by the row of told - 1 */
    if (s->state == SEQ_PREFILL && s->wants_hidden) return n_rows;
    const bool wants_prompt = s->state == SEQ_PREFILL && s->sampling.n_prompt_logprobs >= 0;
    if (wants_prompt && told < s->n_prompt && told <= end) return end - (told - 1);
    return end == s->n_tokens ? 1 + s->n_drafts : 0;
}

void step_batch_add(struct step_batch *sb, struct seq *s, uint32_t n_rows)
{
    struct batch *b = &sb->b;
    assert(b->n_rows + n_rows <= sb->max_rows && b->n_seqs < sb->max_seqs);
    assert(s->n_computed + n_rows <= s->n_tokens);
    memcpy(sb->tokens + b->n_rows, s->tokens + s->n_computed, n_rows * sizeof(*sb->tokens));
    sb->seqs[b->n_seqs] = (struct batch_seq){ .row0 = b->n_rows,
                                              .n_rows = n_rows,
                                              .pos0 = s->n_computed,
                                              .blocks = s->table.ids,
                                              .n_blocks = s->table.n,
                                              .n_logits = n_logits_of(s, n_rows),
                                              .state = s->slot,
                                              .window_blocks = s->window.ids };
    sb->logit0[b->n_seqs] = sb->n_logits;
    sb->n_logits += sb->seqs[b->n_seqs].n_logits;
    sb->owners[b->n_seqs++] = s;
    sb->n_shipping += s->mode == ENGINE_PREFILL_ONLY;
    b->n_rows += n_rows;
    if (s->state == SEQ_DECODE)
        sb->n_decode_rows += n_rows;
    else
        sb->n_prefill_rows += n_rows;
}
