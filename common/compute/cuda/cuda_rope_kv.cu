/* cuda_rope_kv.cu - RoPE and rotation of q and k, and the quantized k and v into the blocks of their sequences; each by
 * itself, or both in one pass over the rows.
 *
 * A warp takes a head.  cos and sin come from tables that the host computes, in double as the CPU does: the same
 * floats.  A table is made of chunks of positions, which stay where they are for the backend's life; step_begin() adds
 * those that a step is the first to need. */
#include "compute/cuda/cu_math.h"
#include "compute/cuda/cuda_kv.h"

#include <float.h>
#include <math.h>

#define MAX_DIM    512
#define ROPE_WARPS 4

/* --- tables --- */
static bool same_params(const struct rope_table *t, const struct rope_params *p)
{
    const struct rope_params *o = &t->params;
    if (o->base != p->base || o->scale != p->scale || o->dims != p->dims || o->neox != p->neox ||
        o->attn_factor != p->attn_factor || !o->freq_factors != !p->freq_factors)
        return false;
    return !p->freq_factors || memcmp(t->factors, p->freq_factors, p->dims / 2 * sizeof(float)) == 0;
}

static uint32_t chunks_of(const struct cuda_backend *b)
{
    return b->limits.max_context / ROPE_CHUNK + 1;
}

static void compute_chunk(const struct rope_table *t, uint32_t chunk, float2 *out)
{
    const struct rope_params *p = &t->params;
    for (uint32_t i = 0; i < p->dims / 2; i++) {
        double f = pow((double)p->base, -2.0 * i / p->dims) * (double)p->scale;
        if (p->freq_factors) f /= (double)p->freq_factors[i];
        for (uint32_t j = 0; j < ROPE_CHUNK; j++) {
            double sine, cosine;
            sincos((double)(chunk * ROPE_CHUNK + j) * f, &sine, &cosine);
            out[(size_t)j * (p->dims / 2) + i] =
                make_float2((float)cosine * p->attn_factor, (float)sine * p->attn_factor);
        }
    }
}

/* Chunk number t->n_chunks, and its place in the list that kernels read. */
static enum status add_chunk(struct cuda_backend *b, struct stream *s, struct rope_table *t)
{
    const size_t bytes = (size_t)ROPE_CHUNK * (t->params.dims / 2) * sizeof(float2);
    void *p = NULL;
    enum status st = cuda_alloc(&b->base, bytes, &p);
    if (st != OK) return st;
    float2 *host = (float2 *)mem_alloc(bytes);
    compute_chunk(t, t->n_chunks, host);
    t->chunks[t->n_chunks] = (float2 *)p;
    st = cuda_upload(&b->base, s, p, host, bytes);
    if (st == OK) st = cuda_upload(&b->base, s, t->list + t->n_chunks, &p, sizeof(p));
    mem_free(host);
    t->n_chunks++;
    return st;
}

static enum status cover(struct cuda_backend *b, struct stream *s, struct rope_table *t)
{
    enum status st = OK;
    while (st == OK && t->n_chunks < chunks_of(b) && (size_t)t->n_chunks * ROPE_CHUNK < b->rope.end)
        st = add_chunk(b, s, t);
    return st;
}

static enum status add_table(struct cuda_backend *b, const struct rope_params *p, struct rope_table **out)
{
    struct rope_tables *all = &b->rope;
    if (all->n == MAX_ROPE_TABLES) return ERR_UNSUPPORTED;
    struct rope_table *t = &all->tables[all->n];
    void *list = NULL;
    enum status st = cuda_alloc(&b->base, chunks_of(b) * sizeof(*t->list), &list);
    if (st != OK) return st;
    *t = rope_table{};
    t->params = *p;
    t->list = (const float2 **)list;
    t->chunks = (float2 **)mem_zalloc(chunks_of(b) * sizeof(*t->chunks));
    if (p->freq_factors) {
        t->factors = (float *)mem_array(p->dims / 2, sizeof(float));
        memcpy(t->factors, p->freq_factors, p->dims / 2 * sizeof(float));
        t->params.freq_factors = t->factors;
    }
    all->n++;
    *out = t;
    return OK;
}

static enum status table_of(struct cuda_backend *b, struct stream *s, const struct rope_params *p,
                            struct rope_table **out)
{
    *out = NULL;
    for (uint32_t i = 0; i < b->rope.n && !*out; i++)
        if (same_params(&b->rope.tables[i], p)) *out = &b->rope.tables[i];
    enum status st = *out ? OK : add_table(b, p, out);
    return st == OK ? cover(b, s, *out) : st;
}

enum status cuda_rope_begin(struct cuda_backend *b, struct stream *s, const struct batch *batch)
{
    enum status st = OK;
    b->rope.end = 0;
    for (uint32_t i = 0; i < batch->n_seqs; i++) {
        const uint32_t end = batch->seqs[i].pos0 + batch->seqs[i].n_rows;
        if (end > b->rope.end) b->rope.end = end;
    }
    for (uint32_t i = 0; i < b->rope.n && st == OK; i++) st = cover(b, s, &b->rope.tables[i]);
    return st;
}

void cuda_rope_fini(struct cuda_backend *b)
{
    for (uint32_t i = 0; i < b->rope.n; i++) {
        struct rope_table *t = &b->rope.tables[i];
        for (uint32_t c = 0; c < t->n_chunks; c++) cuda_release(&b->base, t->chunks[c], 0);
        cuda_release(&b->base, t->list, 0);
        mem_free(t->chunks);
        mem_free(t->factors);
    }
    b->rope.n = 0;
}

/* --- a head in a warp --- */
struct rope_run {
    struct step_view step;
    const float2 *const *table; /* NULL: heads stay as they are */
    uint32_t dims, dim, size;   /* size: of the rotation; 0: none */
    bool neox;
    float norm;
    float *q, *keys; /* heads to turn */
    uint32_t n_heads, n_keys;
    const float *k, *v; /* to store, or NULL */
    size_t ld;
    struct cu_kv kv;
};

static __device__ __forceinline__ uint32_t lane_of(void)
{
    return threadIdx.x % CU_WARP;
}

static __device__ void turn_pairs(const struct rope_run &r, float *x, uint32_t pos)
{
    const uint32_t half = r.dims / 2;
    const float2 *row = r.table[pos / ROPE_CHUNK] + (size_t)(pos % ROPE_CHUNK) * half;
    for (uint32_t i = lane_of(); i < half; i += CU_WARP) {
        const uint32_t at = r.neox ? i : 2 * i, to = r.neox ? half + i : 2 * i + 1;
        const float a = x[at], b = x[to], c = row[i].x, s = row[i].y;
        x[at] = __fmaf_rn(a, c, __fmul_rn(b, -s));
        x[to] = __fmaf_rn(b, c, __fmul_rn(a, s));
    }
    __syncwarp();
}

static __device__ void rotate(const struct rope_run &r, float *x)
{
    for (uint32_t step = 1; step < r.size; step *= 2) {
        const bool last = 2 * step == r.size;
        for (uint32_t i = lane_of(); i < r.dim / 2; i += CU_WARP) {
            const uint32_t at = i / step * 2 * step + i % step;
            const float a = x[at], b = x[at + step], up = __fadd_rn(a, b), down = __fsub_rn(a, b);
            x[at] = last ? __fmul_rn(up, r.norm) : up;
            x[at + step] = last ? __fmul_rn(down, r.norm) : down;
        }
        __syncwarp();
    }
}

static __device__ void store_int8(const struct rope_run &r, uint8_t *part, bool is_v, uint32_t t, const float *x)
{
    uint32_t amax = 0;
    for (uint32_t d = lane_of(); d < r.dim; d += CU_WARP) amax = max(amax, __float_as_uint(x[d]) & 0x7fffffffu);
    for (int step = 16; step; step /= 2) amax = max(amax, __shfl_xor_sync(0xffffffffu, amax, step));
    const struct cu_step step = cu_step_of(amax, 127.0f);
    for (uint32_t d = lane_of(); d < r.dim; d += CU_WARP) {
        const uint32_t q = step.finite ? __float_as_uint(__fmaf_rn(x[d], step.inv, CU_ROUND)) & 0xffu : 0;
        part[cu_kv_int8_at(r.dim, is_v, t, d)] = (uint8_t)q;
    }
    if (lane_of() == 0) ((float *)(part + (size_t)KV_BLOCK_TOKENS * r.dim))[t] = step.scale;
}

static __device__ void store(const struct rope_run &r, uint32_t row, uint32_t head, bool is_v, const float *x)
{
    const struct step_seq &seq = r.step.seqs[r.step.seq[row]];
    const uint32_t pos = r.step.pos[row], t = pos % KV_BLOCK_TOKENS;
    uint8_t *part = cu_kv_part(r.kv, seq, pos / KV_BLOCK_TOKENS, head, is_v);
    if (r.kv.int8) {
        store_int8(r, part, is_v, t, x);
        return;
    }
    uint16_t *halves = (uint16_t *)part;
    for (uint32_t d = lane_of(); d < r.dim; d += CU_WARP)
        halves[cu_kv_half_at(r.dim, is_v, t, d)] = cu_float_to_half(x[d]);
}

/* Warps are heads: those of q, then keys to turn, then keys and values to store. */
static __global__ void rope_kernel(struct rope_run r)
{
    __shared__ float heads[ROPE_WARPS][MAX_DIM];
    float *x = heads[threadIdx.x / CU_WARP];
    const uint32_t row = blockIdx.x, n_stored = r.k ? r.kv.n_heads : 0;
    uint32_t h = blockIdx.y * ROPE_WARPS + threadIdx.x / CU_WARP;
    const float *from;
    float *to = NULL;
    bool is_v = false, stores = false;
    if (h < r.n_heads) {
        from = to = r.q + row * r.ld + (size_t)h * r.dim;
    } else if ((h -= r.n_heads) < (r.n_keys ? r.n_keys : n_stored)) { /* keys that are turned are stored, too */
        from = r.n_keys ? r.keys : r.k;
        from += row * r.ld + (size_t)h * r.dim;
        if (r.n_keys) to = r.keys + row * r.ld + (size_t)h * r.dim;
        stores = r.k != NULL;
    } else if ((h -= r.n_keys ? r.n_keys : n_stored) < n_stored) {
        from = r.v + row * r.ld + (size_t)h * r.dim;
        is_v = stores = true;
    } else {
        return;
    }
    for (uint32_t d = lane_of(); d < r.dim; d += CU_WARP) x[d] = from[d];
    __syncwarp();
    if (to) {
        turn_pairs(r, x, r.step.pos[row]);
        rotate(r, x);
        for (uint32_t d = lane_of(); d < r.dim; d += CU_WARP) to[d] = x[d];
    }
    if (stores) store(r, row, h, is_v, x);
}

static enum status run_rows(struct backend *backend, struct stream *s, struct rope_run *r, bool rotates,
                            const struct rope_params *rope, const struct step *step)
{
    struct cuda_backend *b = cuda_of(backend);
    enum status st = OK;
    assert(cu_kv_dim_ok(r->dim) && (!rope || (rope->dims <= r->dim && rope->dims % 2 == 0)));
    r->step = step_view_of(step);
    if (rope) {
        struct rope_table *t;
        if ((st = table_of(b, s, rope, &t)) != OK) return st;
        r->table = t->list;
        r->dims = rope->dims;
        r->neox = rope->neox;
        r->size = rotates ? r->dim & (~r->dim + 1) : 0;
        r->norm = rotates ? 1.0f / sqrtf((float)r->size) : 1.0f;
    }
    const uint32_t n_keys = r->n_keys ? r->n_keys : r->k ? r->kv.n_heads : 0;
    const uint32_t warps = r->n_heads + n_keys + (r->k ? r->kv.n_heads : 0);
    if (r->step.n_rows == 0 || warps == 0) return OK;
    return cuda_check(backend,
                      cu_launch(rope_kernel, dim3(r->step.n_rows, cu_div_up(warps, ROPE_WARPS)), ROPE_WARPS * CU_WARP,
                                0, cu_stream(backend, s), *r),
                      "rope_kv_write");
}

enum status cuda_rope(struct backend *b, struct stream *s, float *x, size_t ld, uint32_t n_heads,
                      const struct kv_geometry *geom, const struct rope_params *rope, const struct step *step)
{
    struct rope_run r = {};
    r.dim = geom->head_dim;
    r.q = x;
    r.n_heads = n_heads;
    r.ld = ld;
    return run_rows(b, s, &r, geom->rotate, rope, step);
}

enum status cuda_kv_write(struct backend *b, struct stream *s, const float *k, const float *v, size_t ld,
                          const struct kv_slices *kv, const struct step *step)
{
    struct rope_run r = {};
    r.dim = kv->geom.head_dim;
    r.kv = cu_kv_of(kv);
    r.k = k;
    r.v = v;
    r.ld = ld;
    return run_rows(b, s, &r, false, NULL, step);
}

enum status cuda_rope_kv_write(struct backend *b, struct stream *s, float *qkv, size_t ld, uint32_t n_heads,
                               size_t k_off, size_t v_off, const struct kv_slices *kv, const struct rope_params *rope,
                               const struct step *step)
{
    struct rope_run r = {};
    r.dim = kv->geom.head_dim;
    r.kv = cu_kv_of(kv);
    r.q = qkv;
    r.n_heads = n_heads;
    r.keys = qkv + k_off;
    r.n_keys = kv->geom.n_kv_heads;
    r.k = qkv + k_off;
    r.v = qkv + v_off;
    r.ld = ld;
    return run_rows(b, s, &r, kv->geom.rotate, rope, step);
}
