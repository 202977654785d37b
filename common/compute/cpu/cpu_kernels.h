/* cpu_kernels.h - the inner loops that exist once per instruction set, and the layouts they share.
 *
 * Every row of a table gives the same bits as the "ref" row: docs/numerics.md says which. */
#ifndef COMPUTE_CPU_CPU_KERNELS_H
#define COMPUTE_CPU_CPU_KERNELS_H
#include "base/kv_block.h"
#include "compute/backend.h"
#include "compute/cpu/pack.h"
#include "compute/cpu/recurrent_slab.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- quantized activations ---
 * Tiles of up to 8 rows; a tile of h rows has, per block of 32 columns, 52 h bytes:
 *     int8 q[h][32], fp32 scale[h][2], int32 minus_sum[h][2], fp32 sum[h]
 * scale and minus_sum (of q) are per group of 16 columns; sum is the block's scale[0] sum[0] + scale[1] sum[1]. */
#define ACT_TILE      8
#define ACT_BLOCK     32
#define ACT_ROW_BYTES 52 /* per row and block */

static inline uint32_t act_blocks(uint32_t k)
{
    return (k + ACT_BLOCK - 1) / ACT_BLOCK;
}

/* Height of the tile that row r of n belongs to. */
static inline uint32_t act_tile_height(uint32_t n, uint32_t r)
{
    uint32_t left = n - r / ACT_TILE * ACT_TILE;
    return left < ACT_TILE ? left : ACT_TILE;
}

/* Bytes of the quantized form of n rows. */
static inline size_t act_tiles_bytes(uint32_t n, uint32_t k)
{
    size_t bytes = (size_t)n * act_blocks(k) * ACT_ROW_BYTES;
    return (bytes + 63) & ~(size_t)63;
}

/* Where the tile of row r begins. */
static inline size_t act_tile_offset(uint32_t r, uint32_t k)
{
    return (size_t)(r / ACT_TILE * ACT_TILE) * act_blocks(k) * ACT_ROW_BYTES;
}

/* --- matmul --- */
struct matmul_job {
    enum dtype type;
    const struct pack_format *format;
    uint32_t n_rows, n_cols; /* of the weight */
    const uint8_t *data;     /* panels */
    size_t panel_bytes;
    uint32_t n;       /* rows of the activations */
    const float *f;   /* [n][n_cols] */
    const uint8_t *q; /* tiles */
    float *y;
    size_t ld;
    bool accumulate;
};

/* y for panels [p0, p1) and activation rows [r0, r1); r0 is a multiple of ACT_TILE, r1 - r0 at most MATMUL_ITEM_ROWS.
 * scratch: matmul_scratch_bytes(n_cols), 64-byte aligned, for this thread. */
typedef void (*matmul_fn)(const struct matmul_job *job, uint32_t p0, uint32_t p1, uint32_t r0, uint32_t r1,
                          void *scratch);

#define MATMUL_ITEM_ROWS 128 /* their quantized columns stay in a core's second cache */

/* A panel unpacked to bytes and floats: 512 and 4 x 64 per block of 32 columns. */
static inline size_t matmul_scratch_bytes(uint32_t n_cols)
{
    return (size_t)act_blocks(n_cols) * 768;
}

/* --- attention --- */

/* The online softmax of one query over a run of blocks. */
struct attn_state {
    float max, sum;
};

/* What attn_softmax() hands to the sum over V. */
struct attn_weights {
    float alpha; /* factor for what has been summed so far */
    float scale; /* of the int16 weights */
};

/* Tokens [first, end) of a block are seen, one at least. */
struct attn_seen {
    uint32_t first, end;
};

struct cpu_kernels {
    const char *name;
    uint32_t flags; /* enum cpu_flag, all of which must be there */
    /* NULL, or a level whose bits this one must give in a small product before it is used. */
    const struct cpu_kernels *checked_by;
    matmul_fn matmul;

    /* --- rows of fp32; k is a multiple of 16 --- */
    void (*rmsnorm)(float *out, const float *x, const float *w, uint32_t k, float eps);
    void (*norm_add)(float *x, const float *y, const float *w, uint32_t k, float eps);
    void (*glu[GLU_COUNT])(float *out, const float *gate, const float *up, uint32_t k);
    void (*gate)(float *x, const float *gate, uint32_t k);
    /* Row r of a tile of h rows. */
    void (*quantize)(uint8_t *tile, uint32_t h, uint32_t r, const float *x, uint32_t k);
    /* rest = x minus what quantize() made of it there. */
    void (*lost_by_quantizing)(float *rest, const uint8_t *tile, uint32_t h, uint32_t r, const float *x, uint32_t k);
    /* x += the sum over j < n of w[j] y[j]; y [n][k]. */
    void (*add_weighted)(float *x, const float *y, const float *w, uint32_t n, uint32_t k);
    /* Any n. */
    void (*route_gate)(float *p, const float *x, uint32_t n, enum route_gate gate); /* of the chosen: as they are */
    void (*add)(float *y, const float *b, uint32_t n);
    void (*scale)(float *x, uint32_t n, float factor);
    void (*softcap)(float *x, uint32_t n, float cap);
    /* Weights of logits: exp((x - top) / t), summed, or one by one in place. */
    float (*exp_sum)(const float *x, uint32_t n, float top, float t);
    void (*exp_row)(float *x, uint32_t n, float top, float t);

    /* --- one head --- */
    /* y[i] = x[i] c[i] + x[partner] s[i]; neox: partner half a head away, else the neighbour. */
    void (*rope)(float *x, const float *c, const float *s, uint32_t dims, bool neox);
    void (*rotate)(float *x, uint32_t dim); /* Hadamard, in place */
    /* int8 values and their scale; the caller puts them in their places. */
    float (*kv_quantize)(int8_t *out, const float *x, uint32_t dim);
    void (*to_half)(uint16_t *out, const float *x, uint32_t dim);
    /* int16 values, each four in the order 0 2 1 3, and their scale. */
    float (*q_quantize)(int16_t *out, const float *x, uint32_t dim);

    /* --- one block of 64 tokens, n queries --- */
    /* s[i][t] = (q_i . k_t) k_scale[t] q_scale[i]; k in slice order, q from q_quantize(). */
    void (*qk_int8)(float *s, const int8_t *k, const float *k_scale, const int16_t *q, const float *q_scale, uint32_t n,
                    uint32_t dim);
    /* o[i] = o[i] alpha + (p_i . v) scale; v in slice order, p from softmax_int8(). */
    void (*pv_int8)(float *o, const int8_t *v, const int16_t *p, const struct attn_weights *w, uint32_t n,
                    uint32_t dim);
    /* Scores of one query to int16 weights (each four as 0 2 1 3) that have v_scale in them. */
    struct attn_weights (*softmax_int8)(int16_t *p, struct attn_state *state, const float *s, const float *v_scale,
                                        struct attn_seen seen);
    void (*qk_f16)(float *s, const uint16_t *k, const float *q, float scale, uint32_t dim);
    /* s becomes the weights; returns alpha. */
    float (*softmax_f16)(float *s, struct attn_state *state, struct attn_seen seen);
    void (*pv_f16)(float *o, const uint16_t *v, const float *p, float alpha, struct attn_seen seen, uint32_t dim);
    /* Adds a later segment's (state, o) to what came before. */
    void (*merge)(float *o, struct attn_state *state, const float *o2, const struct attn_state *state2, uint32_t dim);
    void (*finish)(float *out, const float *o, const struct attn_state *state, uint32_t dim);

    /* --- V of 4 tokens: int8[dim][4] to and from four rows --- */
    void (*v_unzip)(int8_t *rows, const int8_t *v, uint32_t dim);
    void (*v_zip)(int8_t *v, const int8_t *rows, uint32_t dim);
    /* Whether the value -128 is among n bytes. */
    bool (*has_min8)(const int8_t *x, size_t n);

    /* --- one block of 64 latents --- */
    /* s[i][t] += (q_i . k_t) scale for n queries; k is bf16 [64 / 16][dim][16]. */
    void (*qk_bf16)(float *s, const uint16_t *k, const float *q, float scale, uint32_t n, uint32_t dim);
    /* Weights of one query, as softmax_f16() leaves them, to int16 weights for pv_int8() that have v_scale in them. */
    struct attn_weights (*weigh)(int16_t *out, const float *p, const float *v_scale, float alpha,
                                 struct attn_seen seen);
    /* int8 in the slice order of K to that of V. */
    void (*k_to_v)(int8_t *v, const int8_t *k, uint32_t dim);

    /* --- recurrent layers --- */
    void (*conv_row)(float *out, const struct conv_row *c, uint32_t n); /* n a multiple of 16 */
    /* x *= factor / sqrt(sum of squares + eps); n a multiple of 16 */
    void (*unit_length)(float *x, uint32_t n, float eps, float factor);
    void (*delta_slab)(const struct delta_slab *slab); /* at least one row */
    void (*mamba2_slab)(const struct mamba2_slab *slab);
    /* One group of n columns, a multiple of 16. */
    void (*norm_gate)(float *out, const float *x, const float *gate, const float *w, uint32_t n, float eps,
                      bool gate_first);
};

extern const struct cpu_kernels cpu_kernels_ref, cpu_kernels_avx2, cpu_kernels_vnni256, cpu_kernels_avxvnni,
    cpu_kernels_avx512, cpu_kernels_vnni, cpu_kernels_amx;
/* Slowest first; row 0 is the reference; ends with NULL. */
extern const struct cpu_kernels *const cpu_kernel_levels[];
/* The fastest level that `flags` allow. */
const struct cpu_kernels *cpu_kernels_best(uint32_t flags);
/* The level of that name, or NULL. */
const struct cpu_kernels *cpu_kernels_named(const char *name);
#endif
