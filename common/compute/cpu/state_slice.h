/* state_slice.h - how the CPU lays out a slot of recurrent state.
 *
 * Per head, 16 columns at a time: [cols / 16][rows][16], so that lanes are columns and a kernel that walks over the
 * rows of some columns reads one run.  As heads and their vectors follow each other, vector v of the slot begins at v *
 * rows * 16, whatever the heads' width. */
#ifndef COMPUTE_CPU_STATE_SLICE_H
#define COMPUTE_CPU_STATE_SLICE_H
#include "compute/backend.h"

#define STATE_LANES     16
#define STATE_MAX_ROWS  1024
#define STATE_MAX_COLS  65536
#define STATE_MAX_HEADS 65536

static inline size_t state_vector_values(const struct state_geometry *g)
{
    return (size_t)g->rows * STATE_LANES;
}

/* Vectors of all heads. */
static inline uint32_t state_vectors(const struct state_geometry *g)
{
    return g->n_heads * (g->cols / STATE_LANES);
}

static inline float *state_slot(const struct state_slices *s, uint32_t slot)
{
    return (float *)(void *)(s->base + slot * s->stride);
}

/* The ops; contracts in compute/backend.h. */
size_t cpu_state_slot_bytes(struct backend *b, const struct state_geometry *geom);
enum status cpu_state_copy(struct backend *b, struct stream *s, const struct state_slices *state, uint32_t from,
                           uint32_t to);
enum status cpu_state_pack(struct backend *b, struct stream *s, const struct state_slices *state, uint32_t slot,
                           uint32_t h0, uint32_t h1, uint8_t *wire);
enum status cpu_state_unpack(struct backend *b, struct stream *s, const struct state_slices *state, uint32_t slot,
                             uint32_t h0, uint32_t h1, const uint8_t *wire);
#endif
