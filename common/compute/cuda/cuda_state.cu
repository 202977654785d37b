/* cuda_state.cu - slots of recurrent state: their size, and their way to the wire's canonical order and back, which is
 * their own. */
#include "compute/cuda/cuda_state.h"

#define STATE_MAX_ROWS  512 /* a warp has its columns and two tiles of rows in shared memory */
#define STATE_MAX_COLS  65536
#define STATE_MAX_HEADS 65536
#define STATE_QUANTUM   16

size_t cuda_state_slot_bytes(struct backend *b, const struct state_geometry *g)
{
    if (g->n_heads == 0 || g->n_heads > STATE_MAX_HEADS || g->rows == 0 || g->rows > STATE_MAX_ROWS || g->cols == 0 ||
        g->cols > STATE_MAX_COLS || g->cols % STATE_QUANTUM != 0)
        return 0;
    return (size_t)g->n_heads * state_wire_bytes(g);
}

enum status cuda_state_copy(struct backend *b, struct stream *s, const struct state_slices *state, uint32_t from,
                            uint32_t to)
{
    return from == to ? OK
                      : cuda_copy(b, s, state_slot(state, to), state_slot(state, from),
                                  cuda_state_slot_bytes(b, &state->geom));
}

static bool has_heads(const struct state_geometry *g, uint32_t h0, uint32_t h1)
{
    return h0 < h1 && h1 <= g->n_heads;
}

enum status cuda_state_pack(struct backend *b, struct stream *s, const struct state_slices *state, uint32_t slot,
                            uint32_t h0, uint32_t h1, uint8_t *wire)
{
    const size_t head = state_wire_bytes(&state->geom);
    if (!has_heads(&state->geom, h0, h1)) return ERR_INVALID;
    const uint8_t *from = (const uint8_t *)state_slot(state, slot) + h0 * head;
    const enum status st = cuda_download(b, s, wire, from, (h1 - h0) * head);
    return st == OK ? cuda_sync(b, s) : st;
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

/* The copy runs while the host looks at what is copied. */
enum status cuda_state_unpack(struct backend *b, struct stream *s, const struct state_slices *state, uint32_t slot,
                              uint32_t h0, uint32_t h1, const uint8_t *wire)
{
    const size_t head = state_wire_bytes(&state->geom);
    if (!has_heads(&state->geom, h0, h1)) return ERR_INVALID;
    uint8_t *to = (uint8_t *)state_slot(state, slot) + h0 * head;
    enum status st = cuda_check(b, cudaMemcpyAsync(to, wire, (h1 - h0) * head, cudaMemcpyHostToDevice, cu_stream(b, s)),
                                "state_unpack");
    const bool good = all_finite(wire, (h1 - h0) * head / sizeof(float));
    const enum status waited = cuda_sync(b, s);
    if (st == OK) st = waited;
    return st == OK && !good ? ERR_CORRUPT : st;
}
