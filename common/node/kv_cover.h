/* kv_cover.h - which parts of a transfer have come: exact coverage, counted per group of the cache.
 *
 * A group with blocks has a cell for each (layer, head, block) that is expected, a snapshot one for each (layer, head,
 * 64 KiB of state), a group without a cache none.  A frame's cells are claimed when it comes and stored once its bytes
 * are; nothing is claimed twice.  Pure: no locks, no bytes. */
#ifndef NODE_KV_COVER_H
#define NODE_KV_COVER_H
#include "wire/kv_wire.h"

struct kv_cover;

/* Of a sequence of n_tokens, the first hit_tokens (a multiple of a block) of which are there.  ERR_NO_MEMORY. */
enum status kv_cover_create(struct kv_cover **out, const struct cache_geometry *g, uint32_t n_tokens,
                            uint32_t hit_tokens) MUST_CHECK;
void kv_cover_destroy(struct kv_cover *c); /* NULL is fine */

struct kv_cells { /* of one group: layers x heads x columns (blocks, or units of a state) */
    uint32_t group, l0, l1, h0, h1, c0, c1;
};
/* The cells of frames that were checked against the geometry (kv_wire_check_block, kv_wire_check_state). */
struct kv_cells kv_cover_of_block(const struct kv_cover *c, const struct kv_wire_range *r);
struct kv_cells kv_cover_of_state(const struct kv_cover *c, const struct kv_wire_state *s);

/* False if any of them was claimed before or is not expected; then none is taken. */
bool kv_cover_claim(struct kv_cover *c, const struct kv_cells *cells);
/* Their bytes are stored; each claim once. */
void kv_cover_store(struct kv_cover *c, const struct kv_cells *cells);
/* All cells of all groups are stored. */
bool kv_cover_is_whole(const struct kv_cover *c);
/* The first group of which something is missing, and how many cells; n_groups: none. */
uint32_t kv_cover_first_gap(const struct kv_cover *c, uint64_t *n_missing);

/* Payload bytes of all that is expected. */
uint64_t kv_cover_expected_bytes(const struct cache_geometry *g, uint32_t n_tokens, uint32_t hit_tokens);
#endif
