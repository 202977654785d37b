/* sched.h - what one step computes: a pure plan over plain structs.
 *
 * Every decoding sequence gets its one row first; the rest of the token budget goes to prefill chunks in
 * order of arrival.  A chunk ends on a block border unless it is its sequence's last, so that what is handed over
 * is whole blocks. */
#ifndef ENGINE_SCHED_H
#define ENGINE_SCHED_H
#include <stdbool.h>
#include <stdint.h>

#define SCHED_BLOCK_TOKENS 64

struct sched_limits {
    uint32_t max_batch_tokens; /* rows of one step */
    uint32_t chunk_tokens;     /* rows of one sequence in one step, at least a block */
};

struct sched_seq {
    bool decoding;       /* one token to feed; otherwise a prompt */
    uint32_t n_tokens;   /* known */
    uint32_t n_computed; /* of them, < n_tokens */
};

/* rows[i] = how many rows sequence i gets (0: none in this step); seqs are in order of arrival.  Returns the
 * sum, at most max_batch_tokens. */
uint32_t sched_plan(const struct sched_limits *lim, const struct sched_seq *seqs, uint32_t n, uint32_t *rows);

struct sched_victim {
    bool can_preempt; /* runs, and nobody outside reads its blocks */
    uint32_t n_blocks;
};

/* Who gives its blocks up for sequence `asking`: the youngest that can, which may be `asking` itself.  Sequences are in
 * order of arrival.  Returns n if nobody can. */
uint32_t sched_pick_victim(const struct sched_victim *seqs, uint32_t n, uint32_t asking);
#endif
