/* kv_store.h - the bytes behind block ids on one rank: one run of block slices per layer, in backend memory.
 *
 * Layers without blocks (recurrent ones, or those that read another's) have slices of no bytes.
 * Threads: whole blocks are moved by one thread at a time per block; different blocks by any. */
#ifndef STORE_KV_STORE_H
#define STORE_KV_STORE_H
#include "base/error.h"
#include "compute/backend.h"

struct state_store;

/* KV memory of the rank's layers: layer l's block slices start at layers[l].base. */
struct kv_store {
    uint32_t n_layers, n_blocks;
    struct kv_slices *layers; /* [n_layers] */
    uint8_t *memory;
    size_t bytes;
    struct backend *backend;    /* borrowed */
    struct state_store *states; /* owned: of recurrent layers; NULL: there are none */
};

/* Bytes of one block over n_layers layers of these geometries. */
size_t kv_store_bytes_for(struct backend *backend, const struct kv_geometry *layers, uint32_t n_layers);
/* n_blocks blocks of zeroes.  Refused with the numbers: what does not fit the memory left (ERR_NO_MEMORY) or an address
 * space (ERR_TOO_LARGE), 0 blocks (ERR_INVALID). */
enum status kv_store_create(struct kv_store **out, struct backend *backend, const struct kv_geometry *layers,
                            uint32_t n_layers, uint32_t n_blocks, struct error *err) MUST_CHECK;
void kv_store_destroy(struct kv_store *kv); /* NULL is fine */

/* A block in host memory: the layers' slices, one after the other. */
size_t kv_store_block_bytes(const struct kv_store *kv);
enum status kv_store_read_block(const struct kv_store *kv, uint32_t block, uint8_t *dst) MUST_CHECK;
enum status kv_store_write_block(const struct kv_store *kv, uint32_t block, const uint8_t *src) MUST_CHECK;
enum status kv_store_copy_block(const struct kv_store *kv, uint32_t to, uint32_t from) MUST_CHECK;
#endif
