/* kv_cut.h - the wire's view of a node's cache: ranges of the model's groups of layers, cut into frames.
 *
 * By layer within the group, global head and token numbers, so neither side needs to know the other's layout, nor its
 * own: that is the kv map's.  Any thread may call; two callers never write the same (layer, head, block). */
#ifndef NODE_KV_CUT_H
#define NODE_KV_CUT_H
#include "store/kv_map.h"
#include "wire/kv_wire.h"

/* Whether a node's cache is what its geometry on the wire says, group by group; the rope part comes from the model.
 * ERR_UNSUPPORTED with both sides' values, also for a kind of cache that is on the wire and not in a node yet. */
enum status kv_cut_check_map(const struct kv_map *map, const struct cache_geometry *g, struct error *err) MUST_CHECK;
/* `blocks[0]` holds token r->t0, which is a multiple of 64.  `wire` has kv_wire_range_bytes(r) bytes. */
enum status kv_cut_pack(const struct kv_map *map, const struct cache_geometry *g, const struct kv_wire_range *r,
                        const kv_block_id *blocks, uint8_t *wire) MUST_CHECK;
/* ERR_CORRUPT: a value or a scale that no sender makes. */
enum status kv_cut_unpack(const struct kv_map *map, const struct cache_geometry *g, const struct kv_wire_range *r,
                          const kv_block_id *blocks, const uint8_t *wire) MUST_CHECK;

/* Whole states of some heads of one layer in a slot; `wire` has s->n_bytes.  ERR_CORRUPT: values that are not finite;
 * ERR_UNSUPPORTED: a part of one head's state. */
enum status kv_cut_pack_state(const struct kv_map *map, const struct cache_geometry *g, const struct kv_wire_state *s,
                              state_slot_id slot, uint8_t *wire) MUST_CHECK;
enum status kv_cut_unpack_state(const struct kv_map *map, const struct cache_geometry *g, const struct kv_wire_state *s,
                                state_slot_id slot, const uint8_t *wire) MUST_CHECK;

/* Walks a range in frames of at most max_bytes (at least one head of one block each), block by block: as many layers
 * as fit, or some heads of one layer. */
struct kv_cut_walk {
    struct kv_wire_range all;
    uint32_t layer, head, token; /* the next frame starts here */
};
struct kv_cut_walk kv_cut_walk_of(const struct kv_wire_range *all);
bool kv_cut_walk_has_next(const struct kv_cut_walk *w);
struct kv_wire_range kv_cut_walk_peek(const struct kv_cut_walk *w, const struct cache_geometry *g, uint64_t max_bytes);
void kv_cut_walk_pass(struct kv_cut_walk *w, const struct kv_wire_range *frame);

/* Walks the states of a group's layers [l0, l1) in frames of at most max_bytes (at least one head's): as many heads of
 * one layer as fit. */
struct kv_state_walk {
    uint32_t group, l1;
    uint32_t layer, head; /* the next frame starts here */
};
struct kv_state_walk kv_state_walk_of(uint32_t group, uint32_t l0, uint32_t l1);
bool kv_state_walk_has_next(const struct kv_state_walk *w);
struct kv_wire_state kv_state_walk_peek(const struct kv_state_walk *w, const struct cache_geometry *g,
                                        uint64_t max_bytes);
void kv_state_walk_pass(struct kv_state_walk *w, const struct cache_geometry *g, const struct kv_wire_state *frame);
#endif
