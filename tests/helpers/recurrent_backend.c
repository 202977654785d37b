/* recurrent_backend.c - an embedding with a memory. */
#include "helpers/recurrent_backend.h"

#include "base/mem.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#define HEADS 3
#define ROWS  5
#define COLS  16

#define BACKENDS_MAX 16

static struct backend_ops ops;
static const struct backend_ops *real;
static struct {
    const struct backend *backend;
    const struct state_store *states;
} memories[BACKENDS_MAX];
static uint32_t n_memories;

static size_t slot_bytes(struct backend *b, const struct state_geometry *g)
{
    return ((size_t)g->n_heads * g->rows * g->cols * sizeof(float) + 63) / 64 * 64;
}

static float *slot_at(const struct state_slices *s, uint32_t slot)
{
    return (float *)(void *)(s->base + slot * s->stride);
}

static enum status state_copy(struct backend *b, struct stream *st, const struct state_slices *s, uint32_t from,
                              uint32_t to)
{
    memcpy(slot_at(s, to), slot_at(s, from), slot_bytes(b, &s->geom));
    return OK;
}

static enum status state_pack(struct backend *b, struct stream *st, const struct state_slices *s, uint32_t slot,
                              uint32_t h0, uint32_t h1, uint8_t *wire)
{
    const size_t head = (size_t)s->geom.rows * s->geom.cols;
    if (h0 >= h1 || h1 > s->geom.n_heads) return ERR_INVALID;
    memcpy(wire, slot_at(s, slot) + h0 * head, (h1 - h0) * head * sizeof(float));
    return OK;
}

static enum status state_unpack(struct backend *b, struct stream *st, const struct state_slices *s, uint32_t slot,
                                uint32_t h0, uint32_t h1, const uint8_t *wire)
{
    const size_t head = (size_t)s->geom.rows * s->geom.cols;
    float *to = slot_at(s, slot) + h0 * head;
    if (h0 >= h1 || h1 > s->geom.n_heads) return ERR_INVALID;
    memcpy(to, wire, (h1 - h0) * head * sizeof(float));
    for (size_t i = 0; i < (h1 - h0) * head; i++)
        if (!isfinite(to[i])) return ERR_CORRUPT;
    return OK;
}

/* Every value after a token depends on the one before, the token and its position. */
static void step_values(float *v, size_t n, int32_t token, uint32_t pos, bool is_first)
{
    for (size_t i = 0; i < n; i++) {
        const uint32_t h = ((uint32_t)token * 2654435761u) ^ (pos * 40503u) ^ ((uint32_t)i * 97u);
        v[i] = 0.9375f * (is_first ? 0.0f : v[i]) + (float)(int32_t)(h % 2001u) / 1000.0f - 1.0f;
    }
}

static const struct state_store *states_of(const struct backend *b)
{
    uint32_t i = n_memories; /* the last one: memory of a backend that is closed comes again */
    while (i > 0 && memories[i - 1].backend != b) i--;
    return i > 0 ? memories[i - 1].states : NULL;
}

static void remember(const struct state_store *states, float *row, uint32_t n_cols, uint32_t slot, int32_t token,
                     uint32_t pos)
{
    uint32_t at = 0;
    for (uint32_t l = 0; l < states->n_layers; l++)
        for (int p = 0; p < STATE_PARTS; p++) {
            const struct state_slices *s = &states->layers[l].parts[p];
            const size_t n = (size_t)s->geom.n_heads * s->geom.rows * s->geom.cols;
            float *v = slot_at(s, slot);
            step_values(v, n, token, pos, pos == 0);
            for (size_t i = 0; i < n; i++, at = (at + 1) % n_cols) row[at] += 0.02f * v[i];
        }
}

static enum status embed(struct backend *b, struct stream *s, float *out, const struct embedding *table,
                         const struct step *step)
{
    const enum status st = real->embed(b, s, out, table, step);
    const struct state_store *states = states_of(b);
    if (!states || st != OK) return st;
    for (uint32_t i = 0; i < step->batch->n_seqs; i++) {
        const struct batch_seq *q = &step->batch->seqs[i];
        cr_assert_lt(q->state, states->n_slots);
        for (uint32_t r = q->row0; r < q->row0 + q->n_rows; r++)
            remember(states, out + (size_t)r * table->n_cols, table->n_cols, q->state, step->batch->tokens[r],
                     q->pos0 + r - q->row0);
    }
    return OK;
}

void recurrent_backend_install(struct backend *cpu)
{
    if (cpu->ops == &ops) return;
    real = cpu->ops;
    ops = *real;
    ops.embed = embed;
    ops.state_slot_bytes = slot_bytes;
    ops.state_copy = state_copy;
    ops.state_pack = state_pack;
    ops.state_unpack = state_unpack;
    cpu->ops = &ops;
}

void recurrent_backend_states(struct kv_store *kv, uint32_t n_slots)
{
    struct state_layer_geometry *layers = mem_array(kv->n_layers, sizeof(*layers));
    struct error err = { 0 };
    for (uint32_t l = 0; l < kv->n_layers; l++)
        if (l % 2 == 0) {
            layers[l].parts[STATE_TAIL] = (struct state_geometry){ HEADS + 1, 3, COLS };
            layers[l].parts[STATE_MATRIX] = (struct state_geometry){ HEADS, ROWS, COLS };
        }
    cr_assert_eq(state_store_create(&kv->states, kv->backend, layers, kv->n_layers, n_slots, &err), OK, "%s", err.text);
    mem_free(layers);
    cr_assert_lt(n_memories, BACKENDS_MAX);
    memories[n_memories].backend = kv->backend;
    memories[n_memories++].states = kv->states;
}
