/* cache_geometry.h - what the cache of a model is: groups of layers whose cache is alike, and what went into it.
 *
 * Nodes say it of themselves (Hello, Register) and may work together only where it is the same.  One plain record,
 * packed and unpacked here; what comes out of cache_geometry_unpack() makes sense: every layer stands in a group, in
 * several only if those are snapshots (a convolution's tail and a state), and each group's numbers are those of its
 * kind and bounded. */
#ifndef WIRE_CACHE_GEOMETRY_H
#define WIRE_CACHE_GEOMETRY_H
#include "base/error.h"
#include "proto/kv.pb-c.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CACHE_LAYERS_MAX      256
#define CACHE_PLACES_MAX      (2 * CACHE_LAYERS_MAX) /* of layers in groups */
#define CACHE_GROUPS_MAX      8
#define CACHE_HEADS_MAX       4096
#define CACHE_HEAD_DIM_MAX    4096                 /* values of one head and token */
#define CACHE_STATE_MAX       ((uint32_t)1 << 22)  /* values of one head's state */
#define CACHE_STATE_UNIT      ((uint32_t)64 << 10) /* parts of a state begin at multiples of so many bytes */
#define CACHE_MODEL_NAME_SIZE 64

struct cache_group {
    Baton__Kv__CacheKind kind;
    Baton__Kv__Codec codec;
    uint32_t first, n_layers; /* its layers are layers[first..first + n_layers) of the geometry */
    uint32_t n_heads, head_dim, block_tokens, window, rope_dim; /* as in proto/kv.proto */
};

struct cache_geometry {
    uint64_t fingerprint; /* of the model file */
    uint32_t n_layers, n_groups;
    struct cache_group groups[CACHE_GROUPS_MAX];
    uint16_t layers[CACHE_PLACES_MAX]; /* group after group, rising within each */
    bool rotated;
    float rope_base, rope_scale;
    uint32_t rope_dims, rope_kind;
    char model_name[CACHE_MODEL_NAME_SIZE]; /* for messages to people; may be cut off */
};

/* A group of all layers 0..n_layers, the only one: heads, head_dim, codec and block_tokens are `like`'s. */
void cache_geometry_set_uniform(struct cache_geometry *g, uint32_t n_layers, const struct cache_group *like);

struct cache_geometry_message { /* the parts of a Geometry message, which point at each other: not to be moved */
    Baton__Kv__Geometry msg;
    Baton__Kv__LayerGroup groups[CACHE_GROUPS_MAX], *refs[CACHE_GROUPS_MAX];
    uint32_t layers[CACHE_PLACES_MAX];
};
/* out->msg is the message; it borrows the model's name. */
void cache_geometry_pack(struct cache_geometry_message *out, const struct cache_geometry *g);
/* ERR_INVALID names what does not make sense, and what would; ERR_UNSUPPORTED: a kind or codec that this program has
 * not heard of, with those that it has. */
enum status cache_geometry_unpack(struct cache_geometry *out, const Baton__Kv__Geometry *m,
                                  struct error *err) MUST_CHECK;
/* Whether two sides can share a cache.  ERR_MISMATCH names the first difference, with both sides' values and names. */
enum status cache_geometry_check_same(const struct cache_geometry *ours, const struct cache_geometry *theirs,
                                      const char *our_name, const char *their_name, struct error *err) MUST_CHECK;

const char *cache_kind_name(Baton__Kv__CacheKind kind);
const char *cache_codec_name(Baton__Kv__Codec codec);
/* Whether it is kept token by token, in blocks. */
bool cache_group_has_blocks(const struct cache_group *c);
/* Bytes of one (layer, head) of n tokens, with all that belongs to them (K and V, scales); 0 if it has no blocks. */
uint64_t cache_group_head_bytes(const struct cache_group *c, uint64_t n_tokens);
/* Bytes of one head's state; 0 if it is no snapshot. */
uint64_t cache_group_state_bytes(const struct cache_group *c);
/* The first token whose cache still counts once n_tokens are there: a multiple of block_tokens. */
uint32_t cache_group_first_token(const struct cache_group *c, uint32_t n_tokens);
/* Which of the group's layers are in [l0, l1) of the model: [*p0, *p1), counted within the group; false: none. */
bool cache_group_places(const struct cache_geometry *g, uint32_t group, uint32_t l0, uint32_t l1, uint32_t *p0,
                        uint32_t *p1);
/* Tokens of a block, which all groups with blocks have alike; 0 if none has. */
uint32_t cache_geometry_block_tokens(const struct cache_geometry *g);
/* What `bytes` of this cache would be in 16 bits a value, without scales. */
uint64_t cache_geometry_16bit_bytes(const struct cache_geometry *g, uint64_t bytes);
#endif
