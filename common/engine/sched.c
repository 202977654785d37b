/* sched.c - divides a step's token budget, and picks who is preempted. */
#include "engine/sched.h"

#include "base/ewma.h"

/* Shorter pieces say little about a row: what a step costs besides its rows weighs too much in them. */
#define LEARN_ROWS (KV_BLOCK_TOKENS / 2)

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

double sched_decode_us(const struct sched_cost *cost, uint32_t n)
{
    if (n == 0) return 0.0;
    return n > cost->decode_rows && cost->decode_rows > 0 ? cost->decode_us * n / cost->decode_rows : cost->decode_us;
}

double sched_work(const struct sched_cost *cost, uint32_t pos0, uint32_t n)
{
    return n * (1.0 + cost->position * (pos0 + 0.5 * n));
}

void sched_learn(struct sched_cost *cost, const struct sched_step *step, double us)
{
    if (step->n_prefill_rows == 0 && step->n_decode_rows > 0) {
        cost->decode_us = ewma(cost->decode_us, us);
        cost->decode_rows = ewma(cost->decode_rows, step->n_decode_rows);
    } else if (step->n_prefill_rows >= LEARN_ROWS) {
        double prefill_us = us - sched_decode_us(cost, step->n_decode_rows);
        /* The decoding rows' part is a guess: however high it is, the prompt's is not taken for nothing. */
        if (prefill_us < 0.5 * us) prefill_us = 0.5 * us;
        cost->row_us = ewma(cost->row_us, prefill_us / step->work);
    }
}

/* Rows of a prompt's next chunk within `room`; 0 if not even a block's rest fits. */
static uint32_t chunk_rows(const struct sched_seq *s, uint32_t room)
{
    uint32_t left = s->n_tokens - s->n_computed;
    if (left <= room) return left;
    uint32_t end = (s->n_computed + room) / KV_BLOCK_TOKENS * KV_BLOCK_TOKENS;
    return end > s->n_computed ? end - s->n_computed : 0;
}

/* How many of a prompt's next `room` rows cost at most `us`, in whole blocks. */
static uint32_t rows_within(const struct sched_cost *cost, const struct sched_seq *s, uint32_t room, double us)
{
    uint32_t n = 0;
    while (n < room) {
        uint32_t next = min_u32(n + KV_BLOCK_TOKENS, room);
        if (sched_work(cost, s->n_computed, next) * cost->row_us > us) break;
        n = next;
    }
    return n;
}

struct time_left { /* of the gap that running streams may see */
    bool is_bound;
    bool is_first; /* no prompt has got rows yet */
    double us;
};

static struct time_left time_beside(const struct sched_limits *lim, const struct sched_cost *cost, uint32_t n_decoding)
{
    struct time_left t = { n_decoding > 0 && lim->max_gap_us > 0.0, true, 0.0 };
    /* Before the first measurement nothing is known to fit. */
    t.us = cost->row_us > 0.0 ? lim->max_gap_us - sched_decode_us(cost, n_decoding) : -1.0;
    return t;
}

static uint32_t room_for(const struct time_left *t, const struct sched_cost *cost, const struct sched_seq *s,
                         uint32_t room)
{
    if (!t->is_bound) return room;
    uint32_t fit = rows_within(cost, s, room, t->us);
    if (t->is_first && fit < KV_BLOCK_TOKENS) fit = KV_BLOCK_TOKENS; /* a prompt always goes on */
    return min_u32(room, fit);
}

uint32_t sched_plan(const struct sched_limits *lim, const struct sched_cost *cost, const struct sched_seq *seqs,
                    uint32_t n, uint32_t *rows)
{
    uint32_t left = lim->max_batch_tokens;
    for (uint32_t i = 0; i < n; i++) {
        rows[i] = seqs[i].decoding ? min_u32(left, seqs[i].n_tokens - seqs[i].n_computed) : 0;
        left -= rows[i];
    }
    struct time_left time = time_beside(lim, cost, lim->max_batch_tokens - left);
    for (uint32_t i = 0; i < n && left > 0; i++) {
        if (seqs[i].decoding) continue;
        rows[i] = chunk_rows(&seqs[i], room_for(&time, cost, &seqs[i], min_u32(left, lim->chunk_tokens)));
        left -= rows[i];
        time.us -= sched_work(cost, seqs[i].n_computed, rows[i]) * cost->row_us;
        time.is_first = false;
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
