/* recurrent_scan.c - the recurrences: the gated delta rule, and Mamba-2's scan.
 *
 * Items are (sequence, head, some columns): a column of S knows nothing of the others, so an item walks over all rows
 * of its sequence with its columns in the core's first cache.  DeltaNet's q and k, which heads and columns share, are
 * brought to their length before. */
#include "compute/cpu/cpu_internal.h"
#include "compute/cpu/recurrent.h"
#include "compute/cpu/state_slice.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define SLAB_VECS 2 /* of columns in an item: 16 KiB of S at 128 rows */

struct scan_run {
    struct cpu_backend *b;
    float *out;
    size_t out_ld;
    const struct delta_inputs *delta;
    const struct delta_facts *delta_facts;
    const struct mamba2_inputs *mamba2;
    const struct mamba2_facts *mamba2_facts;
    const struct state_slices *state;
    const struct batch *batch;
    uint32_t slabs; /* of a head */
};

/* Columns of one head of one sequence. */
struct slab {
    const struct batch_seq *seq;
    uint32_t head, col, n_vecs;
    float *s;
};

static struct slab slab_of(const struct scan_run *r, uint32_t item)
{
    const struct state_geometry *g = &r->state->geom;
    const uint32_t vecs = g->cols / STATE_LANES, v = item % r->slabs * SLAB_VECS;
    struct slab s = { .col = v * STATE_LANES, .n_vecs = vecs - v < SLAB_VECS ? vecs - v : SLAB_VECS };
    item /= r->slabs;
    s.head = item % g->n_heads;
    s.seq = &r->batch->seqs[item / g->n_heads];
    s.s = state_slot(r->state, s.seq->state) + ((size_t)s.head * vecs + v) * state_vector_values(g);
    if (s.seq->pos0 == 0) memset(s.s, 0, s.n_vecs * state_vector_values(g) * sizeof(float));
    return s;
}

/* --- DeltaNet --- */
static void delta_rows(void *arg, uint32_t row0, uint32_t row1, uint32_t member)
{
    const struct scan_run *r = arg;
    const struct cpu_kernels *k = r->b->kernels;
    const struct delta_inputs *in = r->delta;
    const struct delta_facts *f = r->delta_facts;
    const uint32_t keys = r->state->geom.rows;
    for (uint32_t i = row0; i < row1; i++) {
        float *head = in->qkv + i * in->ld;
        for (uint32_t h = 0; h < 2 * f->n_k_heads; h++, head += keys)
            k->unit_length(head, keys, f->eps, h < f->n_k_heads ? 1.0f / sqrtf((float)keys) : 1.0f);
    }
}

static void delta_items(void *arg, uint32_t i0, uint32_t i1, uint32_t member)
{
    const struct scan_run *r = arg;
    const struct delta_inputs *in = r->delta;
    const struct delta_facts *f = r->delta_facts;
    const struct state_geometry *g = &r->state->geom;
    for (uint32_t i = i0; i < i1; i++) {
        const struct slab s = slab_of(r, i);
        const uint32_t key_head = f->tiled ? s.head % f->n_k_heads : s.head / (f->n_v_heads / f->n_k_heads);
        const float *row = in->qkv + s.seq->row0 * in->ld;
        const float *k = row + (size_t)(f->n_k_heads + key_head) * g->rows;
        const struct delta_slab slab = {
            .s = s.s,
            .q = row + (size_t)key_head * g->rows,
            .k = k,
            .v = row + 2 * (size_t)f->n_k_heads * g->rows + (size_t)s.head * g->cols + s.col,
            .alpha = in->alpha + s.seq->row0 * in->alpha_ld + s.head,
            .beta = in->beta + s.seq->row0 * in->beta_ld + s.head,
            .dt_bias = f->dt_bias[s.head],
            .a = f->a[s.head],
            .out = r->out + s.seq->row0 * r->out_ld + (size_t)s.head * g->cols + s.col,
            .ld = in->ld,
            .alpha_ld = in->alpha_ld,
            .beta_ld = in->beta_ld,
            .out_ld = r->out_ld,
            .keys = g->rows,
            .n_vecs = s.n_vecs,
            .n_rows = s.seq->n_rows,
        };
        if (slab.n_rows) r->b->kernels->delta_slab(&slab);
    }
}

static void run_slabs(struct scan_run *r, rows_fn items)
{
    const struct state_geometry *g = &r->state->geom;
    r->slabs = (g->cols / STATE_LANES + SLAB_VECS - 1) / SLAB_VECS;
    cpu_for_rows(r->b, r->batch->n_seqs * g->n_heads * r->slabs, 1, items, r);
}

enum status cpu_delta_rule(struct backend *b, struct stream *s, float *out, size_t out_ld,
                           const struct delta_inputs *in, const struct delta_facts *facts,
                           const struct state_slices *state, const struct step *step)
{
    struct scan_run run = { .b = cpu_of(b),
                            .out = out,
                            .out_ld = out_ld,
                            .delta = in,
                            .delta_facts = facts,
                            .state = state,
                            .batch = step->batch };
    if (state->geom.rows % STATE_LANES != 0) return ERR_UNSUPPORTED;
    assert(cpu_state_slot_bytes(b, &state->geom) <= state->stride);
    assert(facts->n_v_heads == state->geom.n_heads && facts->n_k_heads && facts->n_v_heads % facts->n_k_heads == 0);
    cpu_for_rows(cpu_of(b), step->batch->n_rows, 1, delta_rows, &run);
    run_slabs(&run, delta_items);
    return OK;
}

/* --- Mamba-2 --- */
static void mamba2_items(void *arg, uint32_t i0, uint32_t i1, uint32_t member)
{
    const struct scan_run *r = arg;
    const struct mamba2_inputs *in = r->mamba2;
    const struct mamba2_facts *f = r->mamba2_facts;
    const struct state_geometry *g = &r->state->geom;
    for (uint32_t i = i0; i < i1; i++) {
        const struct slab s = slab_of(r, i);
        const float *row = in->xbc + s.seq->row0 * in->ld;
        const float *b = row + (size_t)f->n_heads * g->cols + s.head / (f->n_heads / f->n_groups) * (size_t)g->rows;
        const struct mamba2_slab slab = {
            .s = s.s,
            .x = row + (size_t)s.head * g->cols + s.col,
            .b = b,
            .c = b + (size_t)f->n_groups * g->rows,
            .dt = in->dt + s.seq->row0 * in->dt_ld + s.head,
            .dt_bias = f->dt_bias[s.head],
            .a = f->a[s.head],
            .d = f->d[s.head],
            .out = r->out + s.seq->row0 * r->out_ld + (size_t)s.head * g->cols + s.col,
            .ld = in->ld,
            .dt_ld = in->dt_ld,
            .out_ld = r->out_ld,
            .rows = g->rows,
            .n_vecs = s.n_vecs,
            .n_rows = s.seq->n_rows,
        };
        r->b->kernels->mamba2_slab(&slab);
    }
}

enum status cpu_mamba2_scan(struct backend *b, struct stream *s, float *out, size_t out_ld,
                            const struct mamba2_inputs *in, const struct mamba2_facts *facts,
                            const struct state_slices *state, const struct step *step)
{
    struct scan_run run = { .b = cpu_of(b),
                            .out = out,
                            .out_ld = out_ld,
                            .mamba2 = in,
                            .mamba2_facts = facts,
                            .state = state,
                            .batch = step->batch };
    assert(cpu_state_slot_bytes(b, &state->geom) <= state->stride);
    assert(facts->n_heads == state->geom.n_heads && facts->n_groups && facts->n_heads % facts->n_groups == 0);
    run_slabs(&run, mamba2_items);
    return OK;
}
