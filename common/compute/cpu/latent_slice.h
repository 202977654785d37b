/* latent_slice.h - how the CPU lays out one kv block's slice of a layer that keeps latents.
 *
 * int8: each group of up to LATENT_GROUP values like K of a head of that size, [token / 16][dim / 4][16 tokens][4] and
 * 64 fp32 scales; then the RoPE parts, bf16 [token / 16][rope_dim][16 tokens].
 * fp16: [token / 16][latent + rope_dim][16 tokens].
 * The latents are keys and values at once.  They lie here once, as keys: the kernels turn a block of them to the order
 * of values for all queries that go over it together. */
#ifndef COMPUTE_CPU_LATENT_SLICE_H
#define COMPUTE_CPU_LATENT_SLICE_H
#include "compute/backend.h"
#include "compute/cpu/cpu_kernels.h"

#define LATENT_MAX      1024
#define LATENT_MAX_ROPE 256

/* One head of a latent of multiples of 16 up to LATENT_MAX, a RoPE part up to LATENT_MAX_ROPE, no rotation. */
bool latent_slice_ok(const struct kv_geometry *geom);
size_t latent_slice_bytes(const struct kv_geometry *geom);

/* Values of group g. */
static inline uint32_t latent_group_dim(const struct kv_geometry *geom, uint32_t g)
{
    const uint32_t left = geom->head_dim - g * LATENT_GROUP;
    return left < LATENT_GROUP ? left : LATENT_GROUP;
}

/* int8: a group's values in a slice, and its 64 scales. */
static inline uint8_t *latent_group(uint8_t *slice, uint32_t g)
{
    return slice + (size_t)g * KV_BLOCK_TOKENS * (LATENT_GROUP + sizeof(float));
}

static inline float *latent_scales(const struct kv_geometry *geom, uint8_t *slice, uint32_t g)
{
    return (float *)(void *)(latent_group(slice, g) + (size_t)KV_BLOCK_TOKENS * latent_group_dim(geom, g));
}

/* int8: the RoPE parts in a slice. */
static inline uint16_t *latent_rope(const struct kv_geometry *geom, uint8_t *slice)
{
    const size_t token = geom->head_dim + latent_groups(geom->head_dim) * sizeof(float);
    return (uint16_t *)(void *)(slice + KV_BLOCK_TOKENS * token);
}

/* One token's latent and RoPE part, quantized, into a slice. */
void latent_slice_put(const struct cpu_kernels *k, const struct kv_geometry *geom, uint8_t *slice, uint32_t t,
                      const float *c, const float *rope);

/* A piece to and from the wire's canonical order: contracts in compute/backend.h. */
enum status latent_slice_pack(const struct kv_slices *layer, const struct kv_piece *piece, uint8_t *wire);
enum status latent_slice_unpack(const struct cpu_kernels *k, const struct kv_slices *layer,
                                const struct kv_piece *piece, const uint8_t *wire);
#endif
