/* level_ref.c - the reference level: plain C that defines what every faster level must answer, bit for bit. */
#include "compute/cpu/vec_ref_tmpl.h"

#include "compute/cpu/vec_tmpl.h"

#include "compute/cpu/recurrent_tmpl.h"

/* One output of a quantized matrix: exact sums per 16 columns, then fp32 in ascending columns. */
static float dot_quantized(const struct matmul_job *job, const uint8_t *panel, uint32_t lane, uint32_t row)
{
    const struct pack_format *f = job->format;
    uint32_t h = act_tile_height(job->n, row), r = row % ACT_TILE;
    const uint8_t *tile = job->q + act_tile_offset(row, job->n_cols);
    int32_t offset = f->has_offset ? 1 << f->offset_shift : 0;
    float acc = 0;
    for (uint32_t b = 0; b < job->n_cols / PACK_BLOCK; b++, tile += h * ACT_ROW_BYTES) {
        const int8_t *q = (const int8_t *)tile + (size_t)r * ACT_BLOCK;
        struct pack_row_block w;
        float scale[2], sum, part[2];
        int32_t minus_sum[2];
        memcpy(scale, tile + 32 * h + 8 * r, 8);
        memcpy(minus_sum, tile + 40 * h + 8 * r, 8);
        memcpy(&sum, tile + 48 * h + 4 * r, 4);
        pack_read_block(&w, f, panel, b, lane);
        for (int g = 0; g < 2; g++) {
            int32_t dot = 0;
            for (int i = 0; i < 16; i++) dot += (w.code[16 * g + i] - offset) * q[16 * g + i];
            part[g] = (float)dot;
        }
        if (f->scales == PACK_K16 || f->scales == PACK_K16M) {
            for (int g = 0; g < 2; g++) {
                acc = __builtin_fmaf(w.d[g], part[g] * scale[g], acc);
                if (f->scales == PACK_K16M) acc = __builtin_fmaf(w.m[g], (float)-minus_sum[g] * scale[g], acc);
            }
        } else {
            acc = __builtin_fmaf(w.d[0], __builtin_fmaf(part[1], scale[1], part[0] * scale[0]), acc);
            if (!f->has_offset) acc = __builtin_fmaf(w.m[0], sum, acc);
        }
    }
    return acc;
}

static float dot_float(const struct matmul_job *job, const uint8_t *panel, uint32_t lane, uint32_t row)
{
    const float *x = job->f + (size_t)row * job->n_cols;
    float acc = 0;
    for (uint32_t c = 0; c < job->n_cols; c++) {
        size_t at = c * (size_t)PANEL_ROWS + lane;
        float w;
        if (job->type == DTYPE_F32)
            memcpy(&w, panel + 4 * at, 4);
        else if (job->type == DTYPE_F16)
            w = half_to_float(half_load(panel + 2 * at));
        else
            w = bf16_to_float(half_load(panel + 2 * at));
        acc = __builtin_fmaf(x[c], w, acc);
    }
    return acc;
}

static void matmul(const struct matmul_job *job, uint32_t p0, uint32_t p1, uint32_t r0, uint32_t r1, void *scratch)
{
    for (uint32_t p = p0; p < p1; p++)
        for (uint32_t row = r0; row < r1; row++)
            for (uint32_t lane = 0; lane < PANEL_ROWS && p * PANEL_ROWS + lane < job->n_rows; lane++) {
                const uint8_t *panel = job->data + p * job->panel_bytes;
                float v = job->format->scales == PACK_FLOAT ? dot_float(job, panel, lane, row)
                                                            : dot_quantized(job, panel, lane, row);
                float *y = job->y + row * job->ld + p * PANEL_ROWS + lane;
                *y = job->accumulate ? *y + v : v;
            }
}

/* Where head_q_quantize() and attn_softmax_int8() dot_put value i. */
static uint32_t quad_place(uint32_t i)
{
    static const uint8_t place[4] = { 0, 2, 1, 3 };
    return (i & ~3u) + place[i & 3];
}

static void qk_int8(float *s, const int8_t *k, const float *k_scale, const int16_t *q, const float *q_scale, uint32_t n,
                    uint32_t dim)
{
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t t = 0; t < KV_BLOCK_TOKENS; t++) {
            const int8_t *kt = k + (size_t)t / 16 * 16 * dim + t % 16 * 4;
            int32_t dot = 0;
            for (uint32_t d = 0; d < dim; d++) dot += q[i * dim + quad_place(d)] * kt[d / 4 * 64 + d % 4];
            s[i * KV_BLOCK_TOKENS + t] = (float)dot * k_scale[t] * q_scale[i];
        }
}

static void pv_int8(float *o, const int8_t *v, const int16_t *p, const struct attn_weights *w, uint32_t n, uint32_t dim)
{
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t d = 0; d < dim; d++) {
            int32_t dot = 0;
            for (uint32_t t = 0; t < KV_BLOCK_TOKENS; t++)
                dot += p[i * KV_BLOCK_TOKENS + quad_place(t)] * v[(size_t)t / 4 * 4 * dim + d * 4 + t % 4];
            float *at = &o[i * dim + d];
            *at = __builtin_fmaf((float)dot, w[i].scale, *at * w[i].alpha);
        }
}

static void v_unzip(int8_t *rows, const int8_t *v, uint32_t dim)
{
    for (uint32_t t = 0; t < 4; t++)
        for (uint32_t d = 0; d < dim; d++) rows[t * dim + d] = v[4 * d + t];
}

static void v_zip(int8_t *v, const int8_t *rows, uint32_t dim)
{
    for (uint32_t t = 0; t < 4; t++)
        for (uint32_t d = 0; d < dim; d++) v[4 * d + t] = rows[t * dim + d];
}

static void k_to_v(int8_t *v, const int8_t *k, uint32_t dim)
{
    for (uint32_t t = 0; t < KV_BLOCK_TOKENS; t++)
        for (uint32_t d = 0; d < dim; d++)
            v[(size_t)t / 4 * 4 * dim + 4 * (size_t)d + t % 4] =
                k[t / 16 * 16 * (size_t)dim + d / 4 * 64 + t % 16 * 4 + d % 4];
}

static bool has_min8(const int8_t *x, size_t n)
{
    int8_t found = 0;
    for (size_t i = 0; i < n; i++) found |= (int8_t)(x[i] == INT8_MIN);
    return found;
}

const struct cpu_kernels cpu_kernels_ref = { .name = "ref",
                                             .flags = 0,
                                             .matmul = matmul,
                                             .qk_int8 = qk_int8,
                                             .pv_int8 = pv_int8,
                                             .v_unzip = v_unzip,
                                             .v_zip = v_zip,
                                             .k_to_v = k_to_v,
                                             .has_min8 = has_min8,
                                             VEC_KERNELS,
                                             RECURRENT_KERNELS };
