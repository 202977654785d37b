/* sched.c - divides a step's token budget, and picks who is preempted. */
#include "engine/sched.h"

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Rows of a prompt's next chunk within `room`; 0 if not even a block's rest fits. */
static uint32_t chunk_rows(const struct sched_seq *s, uint32_t room)
{
    uint32_t left = s->n_tokens - s->n_computed;
    if (left <= room) return left;
    uint32_t end = (s->n_computed + room) / SCHED_BLOCK_TOKENS * SCHED_BLOCK_TOKENS;
    return end > s->n_computed ? end - s->n_computed : 0;
}

uint32_t sched_plan(const struct sched_limits *lim, const struct sched_seq *seqs, uint32_t n, uint32_t *rows)
{
    uint32_t left = lim->max_batch_tokens;
    for (uint32_t i = 0; i < n; i++) {
        rows[i] = seqs[i].decoding && left > 0 ? 1 : 0;
        left -= rows[i];
    }
    for (uint32_t i = 0; i < n && left > 0; i++) {
        if (seqs[i].decoding) continue;
        rows[i] = chunk_rows(&seqs[i], min_u32(left, lim->chunk_tokens));
        left -= rows[i];
        /* A younger prompt does not overtake one that only waits for a larger rest of the budget. */
        if (rows[i] == 0) break;
    }
    return lim->max_batch_tokens - left;
}

uint32_t sched_pick_victim(const struct sched_victim *seqs, uint32_t n, uint32_t asking)
{
    for (uint32_t i = n; i-- > asking;)
        if (seqs[i].can_preempt && seqs[i].n_blocks > 0) return i;
    return n;
}
