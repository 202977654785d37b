/* cuda_kv.h - how a kv block's slice of one layer lies on the GPU.
 *
 * Per kv head, K then V; each part is a multiple of 64 bytes.
 * int8: K as [64 tokens][dim]; V as [dim][64 places], token t at place (t / 2 % 4) * 16 + t / 8 * 2 + t % 2; 64 fp32
 * scales after each.  So 16 bytes of a row are what a lane gives to the tensor core: of K from 16 dimensions of a
 * token, of V from the 16 tokens whose weights that lane has made (cuda_attn_int8.cu). fp16: K as [dim / 8][64
 * tokens][8], so that lanes are tokens; V as [64 tokens][dim]. */
#ifndef COMPUTE_CUDA_CUDA_KV_H
#define COMPUTE_CUDA_CUDA_KV_H
#include "compute/cuda/cuda_internal.h"

static inline bool cu_kv_dim_ok(uint32_t dim)
{
    return dim > 0 && dim % 16 == 0 && dim <= 512;
}

static inline __host__ __device__ size_t cu_kv_part_bytes(uint32_t dim, bool int8)
{
    const size_t values = (size_t)KV_BLOCK_TOKENS * dim;
    return int8 ? values + KV_BLOCK_TOKENS * sizeof(float) : 2 * values;
}

/* Where value d of token t stands in a part: of int8 in bytes, of fp16 in those. */
static __device__ __forceinline__ uint32_t cu_kv_column(uint32_t t)
{
    return t / 2 % 4 * 16 + t / 8 * 2 + t % 2;
}
static __device__ __forceinline__ uint32_t cu_kv_int8_at(uint32_t dim, bool is_v, uint32_t t, uint32_t d)
{
    return is_v ? d * KV_BLOCK_TOKENS + cu_kv_column(t) : t * dim + d;
}
static __device__ __forceinline__ uint32_t cu_kv_half_at(uint32_t dim, bool is_v, uint32_t t, uint32_t d)
{
    return is_v ? t * dim + d : (d / 8 * KV_BLOCK_TOKENS + t) * 8 + d % 8;
}

/* struct kv_slices of a KV_HEADS cache as kernels take it. */
struct cu_kv {
    uint8_t *base;
    size_t stride, part_bytes;
    uint32_t n_heads, dim;
    bool int8, windowed;
};

static inline struct cu_kv cu_kv_of(const struct kv_slices *kv)
{
    const bool int8 = kv->geom.format == KV_INT8;
    return cu_kv{
        kv->base, kv->stride,  cu_kv_part_bytes(kv->geom.head_dim, int8), kv->geom.n_kv_heads, kv->geom.head_dim,
        int8,     kv->windowed
    };
}

/* K or V of one head in one block, as kernels that move it take it.  Values are `bytes` wide; a token has cols of them,
 * and n_scales scales. */
enum cu_kv_layout {
    CU_KV_ROWS,   /* token by token */
    CU_KV_PLACES, /* int8 V */
    CU_KV_EIGHTS, /* fp16 K */
};
struct kv_place {
    uint8_t *values;
    float *scales; /* token by token */
    uint32_t cols, n_scales, bytes;
    enum cu_kv_layout layout;
    uint32_t not_finite; /* bits of a 16-bit value that are all set in one that is not finite */
};

/* Where a piece lies.  ERR_INVALID: a head or tokens that the geometry has not. */
enum status cuda_kv_place(const struct kv_slices *layer, const struct kv_piece *piece, struct kv_place *out);
/* The same of a KV_LATENT cache, and its slices' bytes; 0: there are no kernels for it (cuda_latent.cu). */
enum status cuda_latent_place(const struct kv_slices *layer, const struct kv_piece *piece, struct kv_place *out);
size_t cuda_latent_slice_bytes(const struct kv_geometry *geom);

static __device__ __forceinline__ uint8_t *cu_kv_part(const struct cu_kv &kv, const struct step_seq &seq,
                                                      uint32_t block, uint32_t head, bool is_v)
{
    const uint32_t id = (kv.windowed ? seq.window_blocks : seq.blocks)[block];
    return kv.base + id * kv.stride + (2 * head + is_v) * kv.part_bytes;
}
#endif
