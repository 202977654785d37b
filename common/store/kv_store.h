/* kv_store.h - the bytes behind block ids on one rank: one run of block slices per layer, in backend memory.
 *
 * Layers without blocks (recurrent ones, or those that read another's) have slices of no bytes.
 *
 * Where a model has blocks of windowed layers or states as well, all lie in one memory, a block after the other with
 * all of its layers: block i of windowed layers, or slot i, is where blocks [i * run, (i + 1) * run) would be
 * (struct kv_runs).  Which of them is there at a time is the pools' business (kv/kv_pool.h).
 *
 * The cache of a model is a chain of its ranks' stores, rank 0's first.  A block id stands for the same tokens in all
 * of them, so whole blocks are moved in all stores of a chain at once.
 *
 * Threads: whole blocks are moved by one thread at a time per block; different blocks by any. */
#ifndef STORE_KV_STORE_H
#define STORE_KV_STORE_H
#include "base/error.h"
#include "compute/backend.h"
#include "parallel/held.h"

struct state_store;
struct state_layer_geometry;

/* How one memory is shared by what a model keeps: a block of windowed layers takes the place of `window` blocks of the
 * others, a slot for states that of `slot`.  0: it has a memory of its own, or there is none. */
struct kv_runs {
    uint32_t window, slot;
};

/* KV memory of the rank's layers: layer l's block slices start at layers[l].base. */
struct kv_store {
    uint32_t n_layers, n_blocks;
    uint32_t n_window_blocks; /* of windowed layers, whose ids are their own; 0: no layer is windowed */
    struct kv_runs runs;      /* who takes the place of blocks */
    struct kv_slices *layers; /* [n_layers] */
    struct held *held; /* [n_layers]: which of the model's heads they have; all of them, unless the caller says more */
    uint8_t *memory;
    size_t bytes;
    struct backend *backend;    /* borrowed */
    struct state_store *states; /* owned: of recurrent layers; NULL: there are none */
    struct kv_store *next;      /* the next rank's; owned.  NULL: there is none */
};

/* Bytes of one block over n_layers layers of these geometries, and of those that have a window alone. */
size_t kv_store_bytes_for(struct backend *backend, const struct kv_geometry *layers, uint32_t n_layers);
size_t kv_store_window_bytes_for(struct backend *backend, const struct kv_geometry *layers, uint32_t n_layers);
/* n_blocks blocks of zeroes.  Refused with the numbers: what does not fit the memory left (ERR_NO_MEMORY) or an address
 * space (ERR_TOO_LARGE), 0 blocks (ERR_INVALID). */
enum status kv_store_create(struct kv_store **out, struct backend *backend, const struct kv_geometry *layers,
                            uint32_t n_layers, uint32_t n_blocks, struct error *err) MUST_CHECK;
/* The same, where layers with a window have n_window_blocks blocks of their own (struct kv_slices' windowed). */
enum status kv_store_create_windowed(struct kv_store **out, struct backend *backend, const struct kv_geometry *layers,
                                     uint32_t n_layers, uint32_t n_blocks, uint32_t n_window_blocks,
                                     struct error *err) MUST_CHECK;
/* The runs with the least waste for blocks of these bytes: of windowed layers, of the others, and of a slot, over all
 * ranks.  Without bytes for the others nothing is shared. */
struct kv_runs kv_runs_for(size_t others, size_t windows, size_t slot);
/* Bytes of a rank's memory that a block takes if it is shared so. */
size_t kv_store_shared_bytes_for(struct backend *backend, const struct kv_geometry *layers,
                                 const struct state_layer_geometry *states, uint32_t n_layers, struct kv_runs runs);
/* The same, all in one memory of n_blocks blocks, which has room for as many whole runs as fit. */
enum status kv_store_create_shared(struct kv_store **out, struct backend *backend, const struct kv_geometry *layers,
                                   const struct state_layer_geometry *states, uint32_t n_layers, struct kv_runs runs,
                                   uint32_t n_blocks, struct error *err) MUST_CHECK;
void kv_store_destroy(struct kv_store *kv); /* with those behind it; NULL is fine */

/* Store `rank` of the chain. */
const struct kv_store *kv_store_of(const struct kv_store *kv, uint32_t rank);
/* Bytes of host memory that the chain has asked for, with its states, touched or not. */
uint64_t kv_store_host_bytes(const struct kv_store *kv);

/* A block in host memory: the slices of layers that are not windowed, one after the other, of all stores of the chain.
 */
size_t kv_store_block_bytes(const struct kv_store *kv);
enum status kv_store_read_block(const struct kv_store *kv, uint32_t block, uint8_t *dst) MUST_CHECK;
enum status kv_store_write_block(const struct kv_store *kv, uint32_t block, const uint8_t *src) MUST_CHECK;
enum status kv_store_copy_block(const struct kv_store *kv, uint32_t to, uint32_t from) MUST_CHECK;

/* The same of recurrent states, whose slots have the same numbers in all stores of the chain; 0 slots: there are none.
 * Bytes [at, at + n) of a slot are those of all ranks, one after the other. */
uint32_t kv_store_n_slots(const struct kv_store *kv);
size_t kv_store_state_bytes(const struct kv_store *kv); /* of one slot */
enum status kv_store_copy_state(const struct kv_store *kv, uint32_t from, uint32_t to) MUST_CHECK;
enum status kv_store_read_state(const struct kv_store *kv, uint32_t slot, size_t at, size_t n, uint8_t *dst) MUST_CHECK;
enum status kv_store_write_state(const struct kv_store *kv, uint32_t slot, size_t at, size_t n,
                                 const uint8_t *src) MUST_CHECK;

/* A block of the windowed layers of all stores: bytes [at, at + n) of their slices, one after the other. */
uint32_t kv_store_n_window_blocks(const struct kv_store *kv); /* 0: no layer is windowed */
uint32_t kv_store_window(const struct kv_store *kv);          /* tokens of the widest window of such layers */
size_t kv_store_window_bytes(const struct kv_store *kv);
enum status kv_store_read_window(const struct kv_store *kv, uint32_t block, size_t at, size_t n,
                                 uint8_t *dst) MUST_CHECK;
enum status kv_store_write_window(const struct kv_store *kv, uint32_t block, size_t at, size_t n,
                                  const uint8_t *src) MUST_CHECK;
#endif
