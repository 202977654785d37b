/* cache_hash.c - packs a cache layer by layer. */
#include "helpers/cache_hash.h"

#include "base/mem.h"
#include "store/state_store.h"

#include <criterion/criterion.h>
#include <xxhash.h>

static void add_blocks(XXH3_state_t *hash, const struct kv_map *map, uint32_t layer, const kv_block_id *blocks,
                       uint32_t n_tokens)
{
    const struct kv_geometry g = kv_map_geometry(map, layer);
    const struct kv_range all = { layer, layer + 1, 0, g.n_kv_heads, 0, n_tokens, NULL };
    size_t token = 0;
    for (int v = 0; v < 2; v++) token += kv_value_bytes(&g, v) + kv_scale_bytes(&g, v);
    if (g.n_kv_heads == 0) return;
    uint8_t *wire = mem_alloc(token * n_tokens * g.n_kv_heads);
    cr_assert_eq(kv_map_pack(map, &all, blocks, wire), OK);
    XXH3_64bits_update(hash, wire, token * n_tokens * g.n_kv_heads);
    mem_free(wire);
}

static void add_states(XXH3_state_t *hash, const struct kv_map *map, uint32_t layer, uint32_t part, state_slot_id slot)
{
    const struct state_geometry g = kv_map_state_geometry(map, layer, part);
    const struct kv_state_range all = { layer, part, 0, g.n_heads };
    const size_t bytes = g.n_heads * state_wire_bytes(&g);
    if (g.n_heads == 0) return;
    uint8_t *wire = mem_alloc(bytes);
    cr_assert_eq(kv_map_pack_state(map, &all, slot, wire), OK);
    XXH3_64bits_update(hash, wire, bytes);
    mem_free(wire);
}

uint64_t cache_hash(const struct kv_map *map, const kv_block_id *blocks, uint32_t n_tokens, state_slot_id slot)
{
    XXH3_state_t *hash = XXH3_createState();
    XXH3_64bits_reset(hash);
    for (uint32_t l = 0; l < kv_map_mesh(map)->n_layers; l++) {
        add_blocks(hash, map, l, blocks, n_tokens);
        for (uint32_t p = 0; p < STATE_PARTS; p++) add_states(hash, map, l, p, slot);
    }
    const uint64_t all = XXH3_64bits_digest(hash);
    XXH3_freeState(hash);
    return all;
}
