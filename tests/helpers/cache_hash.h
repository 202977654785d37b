/* cache_hash.h - a model's whole cache as the wire has it, whatever ranks hold it: its bytes in a hash. */
#ifndef HELPERS_CACHE_HASH_H
#define HELPERS_CACHE_HASH_H
#include "kv/kv_pool.h"
#include "store/kv_map.h"

/* Layer by layer: K and V, or latents, of n_tokens in those blocks; then each part of the states in that slot. */
uint64_t cache_hash(const struct kv_map *map, const kv_block_id *blocks, uint32_t n_tokens, state_slot_id slot);
#endif
