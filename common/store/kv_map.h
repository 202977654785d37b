/* kv_map.h - where a model's cache lies: (layer, head) of the whole model -> rank, and the rank's own numbers.
 *
 * The wire side knows ranges of the whole model and this map; which ranks there are, how they share layers and heads,
 * and how their backends lay blocks out is behind it.  A block id stands for the same tokens on every rank.
 *
 * Threads: any, each call on streams of its own.  Two callers never unpack into the same (layer, head, block), nor does
 * one pack what another unpacks. */
#ifndef STORE_KV_MAP_H
#define STORE_KV_MAP_H
#include "kv/kv_pool.h"
#include "kv/state_pool.h"
#include "parallel/mesh.h"
#include "store/kv_store.h"

struct kv_map;

struct kv_range { /* layers and kv heads of the whole model, tokens of a sequence */
    uint32_t l0, l1, h0, h1, t0, t1;
    /* Layers of one geometry, numbered within a group: number i is layer layers[i] of the model.  NULL: all are of one
     * group. */
    const uint16_t *layers;
};

/* stores[mesh_n_ranks()], borrowed as long as frames are moved: rank r's KV memory; their backends until the map ends.
 * ERR_INVALID, with the numbers, if one is not what the mesh gives to its rank, those of a stage differ in blocks,
 * slots or the geometry of a layer, or a head is on none of them. */
enum status kv_map_create(struct kv_map **out, const struct mesh *mesh, struct kv_store *const *stores,
                          struct error *err) MUST_CHECK;
void kv_map_destroy(struct kv_map *map); /* NULL is fine */
const struct mesh *kv_map_mesh(const struct kv_map *map);
/* Of a layer of the whole model: n_kv_heads counts all heads; 0: the layer has no blocks.  window: of layers whose
 * block ids are those of windows; 0 of all others. */
struct kv_geometry kv_map_geometry(const struct kv_map *map, uint32_t layer);
/* The backend whose host_alloc() memory frames come from. */
struct backend *kv_map_backend(const struct kv_map *map);

/* The range's bytes in the wire's canonical order (docs/kv-format.md), whichever ranks hold them; `blocks[0]` holds
 * token t0, a multiple of 64.  One call of a backend per rank for up to KV_MAP_PIECES pieces.  ERR_INVALID: the range
 * or a block is not there. */
#define KV_MAP_PIECES 1024
enum status kv_map_pack(const struct kv_map *map, const struct kv_range *r, const kv_block_id *blocks,
                        uint8_t *wire) MUST_CHECK;
/* The same back, to every rank that holds a head.  ERR_CORRUPT: a value or a scale that no sender makes. */
enum status kv_map_unpack(const struct kv_map *map, const struct kv_range *r, const kv_block_id *blocks,
                          const uint8_t *wire) MUST_CHECK;

struct kv_state_range { /* heads of one part (enum state_part) of a layer's recurrent states */
    uint32_t layer, part, h0, h1;
};
/* Heads and their shape over all ranks; n_heads 0: the layer has no such part. */
struct state_geometry kv_map_state_geometry(const struct kv_map *map, uint32_t layer, uint32_t part);
uint32_t kv_map_n_slots(const struct kv_map *map); /* 0: no layer has states */
/* The heads' states in a slot, one after the other, as state_pack() and state_unpack() of compute/backend.h have them.
 * ERR_INVALID: heads or a slot that are not there; ERR_CORRUPT: values that are not finite. */
enum status kv_map_pack_state(const struct kv_map *map, const struct kv_state_range *r, state_slot_id slot,
                              uint8_t *wire) MUST_CHECK;
enum status kv_map_unpack_state(const struct kv_map *map, const struct kv_state_range *r, state_slot_id slot,
                                const uint8_t *wire) MUST_CHECK;
#endif
