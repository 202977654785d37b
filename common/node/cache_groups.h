/* cache_groups.h - the cache of a node, as the wire has it: layers that keep the same make a group.
 *
 * Pure: facts of each layer in, groups out; and which part of the recurrent states a snapshot group is. */
#ifndef NODE_CACHE_GROUPS_H
#define NODE_CACHE_GROUPS_H
#include "store/kv_map.h"
#include "wire/cache_geometry.h"

/* Fills n_layers, the groups and `rotated` of *g from the map's layers.  Groups stand in the order in which layers
 * first ask for one; a layer's parts of states in that of enum state_part.  ERR_UNSUPPORTED, with the number, if there
 * are more kinds of layers than the wire has groups. */
enum status cache_groups_fill(struct cache_geometry *g, const struct kv_map *map, struct error *err) MUST_CHECK;
/* Which part of its layers' states a group of kind SNAPSHOT has. */
uint32_t cache_group_part(const struct cache_geometry *g, const struct kv_map *map, uint32_t group);
#endif
