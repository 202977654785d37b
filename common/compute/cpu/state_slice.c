/* state_slice.c - slots of recurrent state: their size, and their way to the wire's canonical order and back. */
#include "compute/cpu/state_slice.h"

#include <string.h>

#define LANE_BYTES (STATE_LANES * sizeof(float))

size_t cpu_state_slot_bytes(struct backend *b, const struct state_geometry *g)
{
    if (g->n_heads == 0 || g->n_heads > STATE_MAX_HEADS || g->rows == 0 || g->rows > STATE_MAX_ROWS || g->cols == 0 ||
        g->cols > STATE_MAX_COLS || g->cols % STATE_LANES != 0)
        return 0;
    return (size_t)g->n_heads * state_wire_bytes(g);
}

enum status cpu_state_copy(struct backend *b, struct stream *s, const struct state_slices *state, uint32_t from,
                           uint32_t to)
{
    if (from != to) memcpy(state_slot(state, to), state_slot(state, from), cpu_state_slot_bytes(b, &state->geom));
    return OK;
}

static bool has_heads(const struct state_geometry *g, uint32_t h0, uint32_t h1)
{
    return h0 < h1 && h1 <= g->n_heads;
}

enum status cpu_state_pack(struct backend *b, struct stream *s, const struct state_slices *state, uint32_t slot,
                           uint32_t h0, uint32_t h1, uint8_t *wire)
{
    const struct state_geometry *g = &state->geom;
    if (!has_heads(g, h0, h1)) return ERR_INVALID;
    const float *head = state_slot(state, slot) + (size_t)h0 * g->rows * g->cols;
    for (uint32_t h = h0; h < h1; h++, head += (size_t)g->rows * g->cols)
        for (uint32_t r = 0; r < g->rows; r++)
            for (uint32_t v = 0; v < g->cols / STATE_LANES; v++, wire += LANE_BYTES)
                memcpy(wire, head + v * state_vector_values(g) + (size_t)r * STATE_LANES, LANE_BYTES);
    return OK;
}

static bool all_finite(const uint8_t *wire, size_t n)
{
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, wire + i * sizeof(bits), sizeof(bits));
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}

enum status cpu_state_unpack(struct backend *b, struct stream *s, const struct state_slices *state, uint32_t slot,
                             uint32_t h0, uint32_t h1, const uint8_t *wire)
{
    const struct state_geometry *g = &state->geom;
    if (!has_heads(g, h0, h1)) return ERR_INVALID;
    if (!all_finite(wire, (size_t)(h1 - h0) * g->rows * g->cols)) return ERR_CORRUPT;
    float *head = state_slot(state, slot) + (size_t)h0 * g->rows * g->cols;
    for (uint32_t h = h0; h < h1; h++, head += (size_t)g->rows * g->cols)
        for (uint32_t r = 0; r < g->rows; r++)
            for (uint32_t v = 0; v < g->cols / STATE_LANES; v++, wire += LANE_BYTES)
                memcpy(head + v * state_vector_values(g) + (size_t)r * STATE_LANES, wire, LANE_BYTES);
    return OK;
}
