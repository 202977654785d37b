/* state_store.h - the bytes behind state slots on one rank: recurrent states of its layers, in backend memory.
 *
 * A slot is one sequence's states of all layers, or a snapshot of them (kv/state_pool.h).  A layer has up to two parts,
 * each with heads of its own: its convolution's tail and its state (compute/backend.h).
 * Threads: a slot is moved by one thread at a time; different slots by any. */
#ifndef STORE_STATE_STORE_H
#define STORE_STATE_STORE_H
#include "base/error.h"
#include "compute/backend.h"
#include "parallel/held.h"

enum state_part { STATE_TAIL, STATE_MATRIX, STATE_PARTS };

/* A part without heads is not there; a layer without parts has no state. */
struct state_layer_geometry {
    struct state_geometry parts[STATE_PARTS];
    struct held held[STATE_PARTS]; /* which of the model's heads a part has; no runs: all of them */
};
struct state_layer {
    struct state_slices parts[STATE_PARTS];
    struct held held[STATE_PARTS];
};

struct state_store {
    uint32_t n_layers, n_slots;
    struct state_layer *layers; /* [n_layers] */
    uint8_t *memory;            /* NULL: it lies in a kv_store's */
    size_t bytes, slot_bytes;   /* of the memory; of one slot over all layers and parts */
    struct backend *backend;    /* borrowed */
};

/* Bytes of one slot over n_layers layers of these geometries; 0: none has a state. */
size_t state_store_bytes_for(struct backend *backend, const struct state_layer_geometry *layers, uint32_t n_layers);
/* n_slots slots of zeroes.  Refused with the numbers: a geometry that the backend has no kernels for (ERR_UNSUPPORTED),
 * what does not fit the memory left (ERR_NO_MEMORY) or an address space (ERR_TOO_LARGE), 0 slots or bytes
 * (ERR_INVALID). */
enum status state_store_create(struct state_store **out, struct backend *backend,
                               const struct state_layer_geometry *layers, uint32_t n_layers, uint32_t n_slots,
                               struct error *err) MUST_CHECK;
/* The same in memory of somebody else that outlives it: slot i at memory + i * stride, with all layers. */
enum status state_store_create_in(struct state_store **out, struct backend *backend,
                                  const struct state_layer_geometry *layers, uint32_t n_layers, uint32_t n_slots,
                                  uint8_t *memory, size_t stride, struct error *err) MUST_CHECK;
void state_store_destroy(struct state_store *s); /* NULL is fine */

/* A slot to another: what was there is gone. */
enum status state_store_copy(const struct state_store *s, uint32_t from, uint32_t to) MUST_CHECK;
/* Bytes [at, at + n) of a slot out of and into host memory; the layers' parts lie one after the other. */
enum status state_store_read(const struct state_store *s, uint32_t slot, size_t at, size_t n, uint8_t *dst) MUST_CHECK;
enum status state_store_write(const struct state_store *s, uint32_t slot, size_t at, size_t n,
                              const uint8_t *src) MUST_CHECK;
#endif
