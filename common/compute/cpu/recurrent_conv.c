/* recurrent_conv.c - the depthwise causal convolution of recurrent layers, and the tail of inputs that it leaves.
 *
 * Items are (row, run of channels): each reads the rows before it, or the tail where there are none.  Tails are
 * moved on when all rows of their sequence are done; a sequence of one row moves its own. */
#include "compute/cpu/cpu_internal.h"
#include "compute/cpu/recurrent.h"
#include "compute/cpu/state_slice.h"

#include <assert.h>
#include <string.h>

#define RUN_CHANNELS 1024

struct conv_run {
    const struct cpu_backend *b;
    float *out;
    const float *x;
    size_t out_ld, ld;
    const struct conv_facts *facts;
    const struct state_slices *tail;
    const struct batch *batch;
    uint32_t channels, runs;
};

static const float zeros[STATE_LANES];

static const struct batch_seq *seq_of(const struct batch *batch, const struct batch_seq *last, uint32_t row)
{
    if (last && row >= last->row0 && row - last->row0 < last->n_rows) return last;
    for (last = batch->seqs; row < last->row0 || row - last->row0 >= last->n_rows; last++) {}
    return last;
}

static uint32_t run_width(const struct conv_run *r, uint32_t c0)
{
    return r->channels - c0 < RUN_CHANNELS ? r->channels - c0 : RUN_CHANNELS;
}

static float *tail_of(const struct conv_run *r, const struct batch_seq *seq, uint32_t channel)
{
    return state_slot(r->tail, seq->state) + channel / STATE_LANES * state_vector_values(&r->tail->geom);
}

/* Tap j is the input `kernel - 1 - j` positions ago. */
static void set_taps(const struct conv_run *r, struct conv_row *c, const struct batch_seq *seq, uint32_t row,
                     uint32_t c0)
{
    const uint32_t back = r->facts->kernel - 1, at = row - seq->row0;
    for (uint32_t j = 0; j <= back; j++) {
        if (at + j >= back) {
            c->tap[j] = r->x + (size_t)(row + j - back) * r->ld + c0;
            c->tap_step[j] = STATE_LANES;
        } else if (seq->pos0 == 0) {
            c->tap[j] = zeros;
            c->tap_step[j] = 0;
        } else {
            c->tap[j] = tail_of(r, seq, c0) + (size_t)(at + j) * STATE_LANES;
            c->tap_step[j] = state_vector_values(&r->tail->geom);
        }
    }
}

/* The tail after the sequence's rows: their last ones, and before them what is left of the old tail. */
static void move_tail(const struct conv_run *r, const struct batch_seq *seq, uint32_t c0)
{
    const uint32_t back = r->facts->kernel - 1, n = seq->n_rows, width = run_width(r, c0);
    for (uint32_t c = c0; c < c0 + width; c += STATE_LANES) {
        float *tail = tail_of(r, seq, c);
        for (uint32_t j = 0; j < back; j++) {
            const float *from = seq->pos0 == 0 ? zeros : tail + (size_t)(j + n) * STATE_LANES;
            if (j + n >= back) from = r->x + (size_t)(seq->row0 + j + n - back) * r->ld + c;
            memcpy(tail + (size_t)j * STATE_LANES, from, sizeof(zeros));
        }
    }
}

static void conv_items(void *arg, uint32_t i0, uint32_t i1, uint32_t member)
{
    const struct conv_run *r = arg;
    const struct conv_facts *f = r->facts;
    const struct batch_seq *seq = NULL;
    for (uint32_t i = i0; i < i1; i++) {
        const uint32_t row = i / r->runs, c0 = i % r->runs * RUN_CHANNELS;
        struct conv_row c = { .w = f->w + c0,
                              .w_ld = r->channels,
                              .bias = f->bias ? f->bias + c0 : NULL,
                              .kernel = f->kernel,
                              .silu = f->silu };
        seq = seq_of(r->batch, seq, row);
        set_taps(r, &c, seq, row, c0);
        r->b->kernels->conv_row(r->out + row * r->out_ld + c0, &c, run_width(r, c0));
        if (seq->n_rows == 1) move_tail(r, seq, c0);
    }
}

static void tail_items(void *arg, uint32_t i0, uint32_t i1, uint32_t member)
{
    const struct conv_run *r = arg;
    for (uint32_t i = i0; i < i1; i++) {
        const struct batch_seq *seq = &r->batch->seqs[i / r->runs];
        if (seq->n_rows > 1) move_tail(r, seq, i % r->runs * RUN_CHANNELS);
    }
}

enum status cpu_conv_step(struct backend *b, struct stream *s, float *out, size_t out_ld, const float *x, size_t ld,
                          const struct conv_facts *facts, const struct state_slices *tail, const struct step *step)
{
    struct conv_run run = { .b = cpu_of(b),
                            .out = out,
                            .x = x,
                            .out_ld = out_ld,
                            .ld = ld,
                            .facts = facts,
                            .tail = tail,
                            .batch = step->batch };
    if (facts->kernel < 2 || facts->kernel > CONV_MAX_KERNEL) return ERR_UNSUPPORTED;
    assert(tail->geom.rows == facts->kernel - 1 && cpu_state_slot_bytes(b, &tail->geom) <= tail->stride);
    run.channels = tail->geom.n_heads * tail->geom.cols;
    run.runs = (run.channels + RUN_CHANNELS - 1) / RUN_CHANNELS;
    cpu_for_rows(cpu_of(b), step->batch->n_rows * run.runs, 1, conv_items, &run);
    if (step->batch->n_rows > step->batch->n_seqs)
        cpu_for_rows(cpu_of(b), step->batch->n_seqs * run.runs, 1, tail_items, &run);
    return OK;
}
