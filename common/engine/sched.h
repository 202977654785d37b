/* sched.h - what one step computes: a pure plan over plain structs.
 *
 * Every decoding sequence gets its one row first; the rest of the token budget goes to prefill chunks in
 * order of rank (priority, then arrival).  A chunk ends on a block border unless it is its sequence's last, so that
 * what is handed over is whole blocks.  Beside decoding sequences the chunks are cut so that the step is predicted to
 * end within the gap that running streams may see; one block always goes through. */
#ifndef ENGINE_SCHED_H
#define ENGINE_SCHED_H
#include "base/kv_block.h"

#include <stdbool.h>
#include <stdint.h>

struct sched_limits {
    uint32_t max_batch_tokens; /* rows of one step */
    uint32_t chunk_tokens;     /* rows of one sequence in one step, at least a block */
    double max_gap_us;         /* between two tokens of a running stream; 0: no bound */
};

/* What rows were measured to cost on this machine; 0: not measured yet. */
struct sched_cost {
    double position;  /* what each position before a row adds to its cost: a share of row_us, from the model's shape */
    double row_us;    /* a row of a prompt at position 0 */
    double decode_us; /* a step of decoding rows alone, */
    double decode_rows; /* and how many they were */
};

struct sched_seq {
    bool decoding;       /* the last known token is to be fed, and guesses after it; otherwise a prompt */
    uint32_t n_tokens;   /* known, as far as a chunk may go: all, or a multiple of a block */
    uint32_t n_computed; /* of them, < n_tokens */
};

/* rows[i] = how many rows sequence i gets (0: none in this step); seqs are in order of rank.  Returns the
 * sum, at most max_batch_tokens. */
uint32_t sched_plan(const struct sched_limits *lim, const struct sched_cost *cost, const struct sched_seq *seqs,
                    uint32_t n, uint32_t *rows);

/* Predicted cost of n decoding rows in a step; never less than what was measured for fewer. */
double sched_decode_us(const struct sched_cost *cost, uint32_t n);
/* n rows of a prompt from position pos0 on, in rows at position 0. */
double sched_work(const struct sched_cost *cost, uint32_t pos0, uint32_t n);

struct sched_step { /* what a step was */
    uint32_t n_decode_rows, n_prefill_rows;
    double work; /* of the prefill rows */
};
/* Takes a measured step into the costs. */
void sched_learn(struct sched_cost *cost, const struct sched_step *step, double us);

struct sched_victim {
    bool can_preempt; /* runs, and nobody outside reads its blocks */
    uint32_t n_blocks;
};

/* Who gives its blocks up for sequence `asking`: the last in rank that can, which may be `asking` itself.  Sequences
 * are in order of rank.  Returns n if nobody can. */
uint32_t sched_pick_victim(const struct sched_victim *seqs, uint32_t n, uint32_t asking);
#endif
