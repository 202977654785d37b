/* batch.h - the flat arrays of one step, made once and filled anew each time. */
#ifndef ENGINE_BATCH_H
#define ENGINE_BATCH_H
#include "compute/backend.h"
#include "engine/seq.h"

struct step_batch {
    struct batch b; /* what the model runs; points into the arrays below */
    int32_t *tokens;
    struct batch_seq *seqs;
    struct seq **owners; /* [b.n_seqs] */
    uint32_t *logit0;    /* [b.n_seqs] the batch's logit row that is the sequence's first */
    uint32_t n_logits;   /* of all */
    uint32_t n_shipping; /* sequences whose KV leaves while it is computed */
    uint32_t max_rows, max_seqs;
    uint32_t n_prefill_rows, n_decode_rows;
};

void step_batch_init(struct step_batch *sb, uint32_t max_rows, uint32_t max_seqs);
void step_batch_fini(struct step_batch *sb);
void step_batch_reset(struct step_batch *sb);
/* The next n_rows tokens of a running sequence. */
void step_batch_add(struct step_batch *sb, struct seq *s, uint32_t n_rows);
#endif
