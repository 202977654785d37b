/* kv_map.h - where a model's cache lies: (layer, kv head) of the whole model -> rank, and the rank's own numbers.
 *
 * The wire side knows ranges of the whole model and this map; which ranks there are, how they share layers and heads,
 * and how their backends lay blocks out is behind it.  A block id stands for the same tokens on every rank.
 *
 * Threads: any, each call on streams of its own.  Two callers never unpack into the same (layer, head, block), nor does
 * one pack what another unpacks. */
#ifndef STORE_KV_MAP_H
#define STORE_KV_MAP_H
#include "kv/kv_pool.h"
#include "parallel/mesh.h"
#include "store/kv_store.h"

struct kv_map;

struct kv_range { /* layers and kv heads of the whole model, tokens of a sequence */
    uint32_t l0, l1, h0, h1, t0, t1;
    /* Layers are numbered within a group: number i is layer layers[i] of the model.  NULL: all are of one group. */
    const uint16_t *layers;
};

/* stores[mesh_n_ranks()], borrowed as long as frames are moved: rank r's KV memory; their backends until the map ends.
 * ERR_INVALID, with the numbers, if one is not what the mesh gives to its rank, or they differ in blocks or in the
 * geometry of a head. */
enum status kv_map_create(struct kv_map **out, const struct mesh *mesh, struct kv_store *const *stores,
                          struct error *err) MUST_CHECK;
void kv_map_destroy(struct kv_map *map); /* NULL is fine */
const struct mesh *kv_map_mesh(const struct kv_map *map);
/* Of each layer of the whole model: n_kv_heads counts all heads. */
struct kv_geometry kv_map_geometry(const struct kv_map *map);
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
#endif
