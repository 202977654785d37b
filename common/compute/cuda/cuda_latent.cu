/* cuda_latent.cu - a cache of latents (MLA): its slices, the write of a step's rows into them, and attention over them,
 * whose kernels are cuda_latent_int8.cu's and cuda_latent_f16.cu's. */
#include "compute/cuda/cuda_latent.h"

#define WRITE_THREADS 128

/* --- slices and the wire --- */
size_t cuda_latent_slice_bytes(const struct kv_geometry *g)
{
    const size_t token = kv_value_bytes(g, false) + kv_scale_bytes(g, false) + kv_value_bytes(g, true);
    return cu_latent_ok(g) ? KV_BLOCK_TOKENS * token : 0;
}

enum status cuda_latent_place(const struct kv_slices *layer, const struct kv_piece *p, struct kv_place *out)
{
    const struct kv_geometry *g = &layer->geom;
    if (!cu_latent_ok(g) || p->head != 0 || p->t0 >= p->t1 || p->t1 > KV_BLOCK_TOKENS) return ERR_INVALID;
    const struct cu_latent l = cu_latent_of(g);
    uint8_t *slice = layer->base + p->block * layer->stride;
    if (p->is_v)
        *out = kv_place{ slice + l.rope, NULL, l.rope_dim, 0, 2, CU_KV_ROWS, l.int8 ? 0x7f80u : 0x7c00u };
    else if (l.int8)
        *out = kv_place{ slice, (float *)(slice + l.scales), l.dim, l.groups, 1, CU_KV_ROWS, 0 };
    else
        *out = kv_place{ slice, NULL, l.dim, 0, 2, CU_KV_ROWS, 0x7c00u };
    return OK;
}

/* --- write --- */
struct write_args {
    const float *c, *k_rope;
    size_t c_ld, rope_ld, stride;
    uint8_t *base;
    struct cu_latent at;
    struct step_view step;
};

/* A group of a token by a warp. */
static __device__ void write_group(const struct write_args &a, uint8_t *slice, uint32_t t, const float *c,
                                   uint32_t group)
{
    const uint32_t lane = threadIdx.x % CU_WARP, at = group * LATENT_GROUP, end = min(a.at.dim, at + LATENT_GROUP);
    uint32_t amax = 0;
    for (uint32_t d = at + lane; d < end; d += CU_WARP) amax = max(amax, __float_as_uint(c[d]) & 0x7fffffffu);
    for (int step = 16; step; step /= 2) amax = max(amax, __shfl_xor_sync(0xffffffffu, amax, step));
    const struct cu_step step = cu_step_of(amax, 127.0f);
    for (uint32_t d = at + lane; d < end; d += CU_WARP) {
        const uint32_t bits = step.finite ? __float_as_uint(__fmaf_rn(c[d], step.inv, CU_ROUND)) : 0;
        slice[t * a.at.dim + d] = (uint8_t)bits;
    }
    if (lane == 0) ((float *)(slice + a.at.scales))[t * a.at.groups + group] = step.scale;
}

static __global__ void latent_write_kernel(struct write_args a)
{
    const uint32_t row = blockIdx.x, pos = a.step.pos[row], t = pos % KV_BLOCK_TOKENS;
    const struct step_seq &seq = a.step.seqs[a.step.seq[row]];
    uint8_t *slice = a.base + seq.blocks[pos / KV_BLOCK_TOKENS] * a.stride;
    const float *c = a.c + row * a.c_ld, *rope = a.k_rope + row * a.rope_ld;
    uint16_t *to = (uint16_t *)(slice + a.at.rope) + t * a.at.rope_dim;
    for (uint32_t d = threadIdx.x; d < a.at.rope_dim; d += WRITE_THREADS)
        to[d] = a.at.int8 ? cu_float_to_bf16(rope[d]) : cu_float_to_half(rope[d]);
    if (a.at.int8)
        for (uint32_t g = threadIdx.x / CU_WARP; g < a.at.groups; g += WRITE_THREADS / CU_WARP)
            write_group(a, slice, t, c, g);
    else
        for (uint32_t d = threadIdx.x; d < a.at.dim; d += WRITE_THREADS)
            ((uint16_t *)slice)[t * a.at.dim + d] = cu_float_to_half(c[d]);
}

enum status cuda_latent_write(struct backend *b, struct stream *s, const float *c, size_t c_ld, const float *k_rope,
                              size_t rope_ld, const struct kv_slices *kv, const struct step *step)
{
    const struct write_args a = {
        c, k_rope, c_ld, rope_ld, kv->stride, kv->base, cu_latent_of(&kv->geom), step_view_of(step)
    };
    assert(kv->geom.kind == KV_LATENT && cu_latent_ok(&kv->geom));
    if (a.step.n_rows == 0) return OK;
    return cuda_check(b, cu_launch(latent_write_kernel, a.step.n_rows, WRITE_THREADS, 0, cu_stream(b, s), a),
                      "latent_write");
}

/* --- attention --- */
static struct latent_args args_of(const struct cuda_backend *b, const struct act *out, const float *q, size_t q_ld,
                                  uint32_t n_heads, const struct kv_slices *kv, float scale, const struct step *step)
{
    struct latent_args a = {};
    a.at = cu_latent_of(&kv->geom);
    a.q_ld = q_ld;
    a.attn.step = step_view_of(step);
    a.attn.group = n_heads < LATENT_QUERIES ? n_heads : LATENT_QUERIES;
    a.attn.kv.base = kv->base;
    a.attn.kv.stride = kv->stride;
    a.attn.kv.n_heads = cu_div_up(n_heads, a.attn.group);
    a.attn.kv.dim = a.at.dim;
    a.attn.kv.int8 = a.at.int8;
    a.attn.q = q;
    a.attn.out = out->f;
    a.attn.out_ld = (size_t)n_heads * a.at.dim;
    a.attn.partials = b->attn.partials;
    a.attn.scale = scale;
    a.attn.n_heads = n_heads;
    a.attn.tile_queries = LATENT_QUERIES;
    return a;
}

/* Items of sequences that are not split, and whether there are others. */
static uint32_t count(const struct attn_args *a, const struct batch *batch, bool *any_split)
{
    uint32_t n = 0;
    *any_split = false;
    for (uint32_t i = 0; i < batch->n_seqs; i++) {
        const uint32_t rows = batch->seqs[i].n_rows;
        if (rows && attn_is_split(a->group, rows))
            *any_split = true;
        else
            n += cu_div_up(rows * a->group, a->tile_queries) * a->kv.n_heads;
    }
    return n;
}

static cudaError_t launch(struct cuda_backend *b, struct latent_args *a, const struct batch *batch, cudaStream_t s)
{
    bool any_split;
    const uint32_t whole = count(&a->attn, batch, &any_split);
    cudaError_t (*const kernel)(const struct latent_args *, uint32_t, cudaStream_t) =
        a->at.int8 ? cuda_latent_int8 : cuda_latent_f16;
    cudaError_t e = cudaSuccess;
    if (whole) e = kernel(a, whole, s);
    if (e != cudaSuccess || !any_split) return e;
    a->attn.split = true;
    e = kernel(a, 2 * (uint32_t)b->n_sms, s); /* the same launch however long sequences are */
    return e == cudaSuccess ? cuda_attn_merge(&a->attn, s) : e;
}

enum status cuda_attention_latent(struct backend *backend, struct stream *s, struct act *out, const float *q,
                                  size_t q_ld, const float *q_rope, size_t rope_ld, size_t rope_step, uint32_t n_heads,
                                  const struct kv_slices *kv, float scale, const struct step *step)
{
    struct cuda_backend *b = cuda_of(backend);
    struct latent_args a = args_of(b, out, q, q_ld, n_heads, kv, scale, step);
    a.q_rope = q_rope;
    a.rope_ld = rope_ld;
    a.rope_step = rope_step;
    assert(kv->geom.kind == KV_LATENT && cu_latent_ok(&kv->geom) && kv->geom.head_dim <= b->limits.max_latent);
    assert(n_heads <= b->limits.max_heads && out->n == a.attn.step.n_rows * n_heads && out->k == kv->geom.head_dim);
    if (out->n == 0) return OK;
    const enum status st = cuda_check(backend, launch(b, &a, step->batch, cu_stream(backend, s)), "attention_latent");
    return st == OK ? cuda_quantize(backend, s, out) : st;
}
