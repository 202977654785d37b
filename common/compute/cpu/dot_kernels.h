/* dot_kernels.h - matmul and the integer products of attention for one vector instruction set.
 *
 * Included by level_avx2.c, level_avx512.c and level_vnni.c after their vec_*.h.  One or two activation rows
 * read the packed panel directly, each weight once; more rows go over a panel that is unpacked first. */
#include "compute/cpu/cpu_kernels.h"
#include "compute/cpu/unroll.h"

#include <string.h>

#define NOINLINE static __attribute__((noinline))

/* How a block's sums become fp32; what an unpacked panel still has to know. */
enum dot_kind { KIND_D, KIND_D8, KIND_DM, KIND_K16, KIND_K16M, KIND_COUNT };

#define UNPACKED_BYTES 768 /* a block: 512 codes, then d, m, d of the upper 16 columns, m of them */

struct weights { /* one block of one panel in registers */
    ivec code[8];
    vec d[2], m[2];
};

struct act_at { /* one block of activations: row r of a tile of h */
    const int8_t *q;
    const float *scale;
    const int32_t *minus_sum;
    const float *sum;
};

VEC struct act_at act_block(const uint8_t *tile, uint32_t h, uint32_t r)
{
    return (struct act_at){ (const int8_t *)tile + (size_t)r * ACT_BLOCK,
                            (const float *)(const void *)(tile + 32 * h) + 2 * r,
                            (const int32_t *)(const void *)(tile + 40 * h) + 2 * r,
                            (const float *)(const void *)(tile + 48 * h) + r };
}

/* --- unpacking --- */
VEC void load_codes(struct weights *w, const uint8_t *block, int bits)
{
    if (bits == 8) {
        UNROLL for (int j = 0; j < 8; j++) w->code[j] = iv_load(block + 64 * j);
        return;
    }
    UNROLL for (int j = 0; j < 4; j++)
    {
        ivec x = iv_load(block + 64 * j);
        w->code[j] = iv_and8(x, 0x0f);
        w->code[4 + j] = iv_and8(iv_right(x, 4), 0x0f);
    }
    if (bits == 5) {
        ivec plane = iv_load(block + 256);
        UNROLL for (int j = 0; j < 8; j++)
        {
            ivec bit = j < 4 ? iv_left(plane, 4 - j) : iv_right(plane, j - 4);
            w->code[j] = iv_or(w->code[j], iv_and8(bit, 0x10));
        }
    }
    if (bits == 6) {
        UNROLL for (int j = 0; j < 8; j++)
        {
            ivec plane = iv_load(block + 256 + 64 * (j / 4));
            ivec top = j % 4 < 3 ? iv_left(plane, 4 - 2 * (j % 4)) : iv_right(plane, 2);
            w->code[j] = iv_or(w->code[j], iv_and8(top, 0x30));
        }
    }
}

VEC void load_scales(struct weights *w, const uint8_t *s, const uint8_t *super, int scales)
{
    w->m[0] = w->m[1] = v_set(0);
    if (scales == PACK_D || scales == PACK_DM) {
        w->d[0] = w->d[1] = v_load_half((const uint16_t *)(const void *)s);
        if (scales == PACK_DM) w->m[0] = w->m[1] = v_load_half((const uint16_t *)(const void *)(s + 32));
        return;
    }
    vec d = v_load_half((const uint16_t *)(const void *)super);
    vec m = v_load_half((const uint16_t *)(const void *)(super + 32));
    if (scales == PACK_K) {
        w->d[0] = w->d[1] = v_mul(d, v_load_u8(s));
        w->m[0] = w->m[1] = v_neg(v_mul(m, v_load_u8(s + 16)));
    } else if (scales == PACK_K16) {
        w->d[0] = v_mul(d, v_load_i8(s));
        w->d[1] = v_mul(d, v_load_i8(s + 16));
    } else {
        w->d[0] = v_mul(d, v_load_u8(s));
        w->d[1] = v_mul(d, v_load_u8(s + 16));
        w->m[0] = v_neg(v_mul(m, v_load_u8(s + 32)));
        w->m[1] = v_neg(v_mul(m, v_load_u8(s + 48)));
    }
}

/* Walks the blocks of a panel. */
struct cursor {
    const uint8_t *at, *super;
    uint32_t b;
};

VEC void load_block(struct weights *w, struct cursor *c, int bits, int scales)
{
    const int planes = bits == 8 ? 512 : bits == 6 ? 384 : bits == 5 ? 320 : 256;
    if (scales >= PACK_K && c->b % 8 == 0) {
        c->super = c->at;
        c->at += PACK_SUPER_BYTES;
    }
    load_codes(w, c->at, bits);
    load_scales(w, c->at + planes, c->super, scales);
    c->at += planes + (scales == PACK_DM || scales == PACK_K16M ? 64 : 32);
    c->b++;
}

VEC void unpack(uint8_t *out, const uint8_t *panel, uint32_t blocks, int bits, int scales)
{
    struct cursor c = { panel, panel, 0 };
    for (; c.b < blocks; out += UNPACKED_BYTES) {
        struct weights w;
        load_block(&w, &c, bits, scales);
        UNROLL for (int j = 0; j < 8; j++) iv_store(out + 64 * j, w.code[j]);
        float *s = (float *)(void *)(out + 512);
        v_store(s, w.d[0]);
        v_store(s + 16, w.m[0]);
        v_store(s + 32, w.d[1]);
        v_store(s + 48, w.m[1]);
    }
}

/* --- the products of one block --- */
VEC ivec start_of(const int32_t *minus_sum, int kind, int shift)
{
    if (kind == KIND_DM || kind == KIND_K16M || (kind == KIND_D8 && LEVEL_SIGNED8)) return iv_zero();
    return iv_scaled(minus_sum, shift);
}

/* acc[r] += one block's part for `rows` rows; the order of operations is the reference's. */
VEC void add_block(vec *acc, const struct weights *w, struct act_at a, int kind, int shift, int rows)
{
    const int bits = kind == KIND_D8 ? 8 : kind == KIND_K16 ? 6 : 5;
    vec part[LEVEL_ROWS];
    UNROLL for (int g = 0; g < 2; g++)
    {
        UNROLL for (int r = 0; r < rows; r++)
        {
            const int at = 2 * r + g;
            ivec dot = start_of(a.minus_sum + at, kind, shift);
            vec f = iv_float(iv_dot4(dot, w->code + 4 * g, a.q + r * ACT_BLOCK + 16 * g, bits));
            vec scale = v_set(a.scale[at]);
            if (kind == KIND_K16 || kind == KIND_K16M) {
                acc[r] = v_fma(w->d[g], v_mul(f, scale), acc[r]);
                if (kind == KIND_K16M) acc[r] = v_fma(w->m[g], v_set((float)-a.minus_sum[at] * a.scale[at]), acc[r]);
            } else if (g == 0) {
                part[r] = v_mul(f, scale);
            } else {
                acc[r] = v_fma(w->d[0], v_fma(f, scale, part[r]), acc[r]);
                if (kind == KIND_DM) acc[r] = v_fma(w->m[0], v_set(a.sum[r]), acc[r]);
            }
        }
    }
}

struct output {
    float *y; /* row 0, lane 0 */
    size_t ld;
    uint32_t lanes; /* <= 16 */
    bool accumulate;
};

VEC void put(const struct output *o, const vec *acc, int rows)
{
    UNROLL for (int r = 0; r < rows; r++)
    {
        float *y = o->y + (size_t)r * o->ld;
        if (o->lanes == PANEL_ROWS)
            v_store(y, o->accumulate ? v_add(v_load(y), acc[r]) : acc[r]);
        else
            v_store_first(y, o->accumulate ? v_add(v_load_first(y, o->lanes), acc[r]) : acc[r], o->lanes);
    }
}

static struct output output_of(const struct matmul_job *job, uint32_t p, uint32_t row)
{
    uint32_t left = job->n_rows - p * PANEL_ROWS;
    return (struct output){ job->y + row * job->ld + (size_t)p * PANEL_ROWS, job->ld,
                            left < PANEL_ROWS ? left : PANEL_ROWS, job->accumulate };
}

/* --- many rows: an unpacked panel times rows [r, r + rows) of a tile --- */
typedef void (*tile_fn)(const struct output *o, const uint8_t *panel, uint32_t blocks, const uint8_t *tile, uint32_t h,
                        uint32_t r, int shift);

VEC void tile_rows(const struct output *o, const uint8_t *panel, uint32_t blocks, const uint8_t *tile, uint32_t h,
                   uint32_t r, int kind, int shift, int rows)
{
    vec acc[LEVEL_ROWS];
    UNROLL for (int i = 0; i < rows; i++) acc[i] = v_set(0);
    for (uint32_t b = 0; b < blocks; b++, panel += UNPACKED_BYTES, tile += h * ACT_ROW_BYTES) {
        struct weights w;
        const float *s = (const float *)(const void *)(panel + 512);
        UNROLL for (int j = 0; j < 8; j++) w.code[j] = iv_load(panel + 64 * j);
        w.d[0] = v_load(s);
        w.m[0] = v_load(s + 16);
        w.d[1] = v_load(s + 32);
        w.m[1] = v_load(s + 48);
        add_block(acc, &w, act_block(tile, h, r), kind, shift, rows);
    }
    put(o, acc, rows);
}

#define TILE(kind, rows)                                                                                               \
    TARGET NOINLINE void tile_##kind##_##rows(const struct output *o, const uint8_t *panel, uint32_t blocks,           \
                                              const uint8_t *tile, uint32_t h, uint32_t r, int shift)                  \
    {                                                                                                                  \
        tile_rows(o, panel, blocks, tile, h, r, kind, shift, rows);                                                    \
    }
#define TILES(rows)                                                                                                    \
    TILE(KIND_D, rows)                                                                                                 \
    TILE(KIND_D8, rows)                                                                                                \
    TILE(KIND_DM, rows) TILE(KIND_K16, rows) TILE(KIND_K16M, rows)
#define TILE_COLUMN(rows)                                                                                              \
    {                                                                                                                  \
        tile_KIND_D_##rows, tile_KIND_D8_##rows, tile_KIND_DM_##rows, tile_KIND_K16_##rows, tile_KIND_K16M_##rows      \
    }

TILES(1)
TILES(2)
#if LEVEL_ROWS == 8
TILES(3)
TILES(4)
TILES(5)
TILES(6)
TILES(7)
TILES(8)
#endif

static const tile_fn tiles[LEVEL_ROWS][KIND_COUNT] = {
    TILE_COLUMN(1), TILE_COLUMN(2),
#if LEVEL_ROWS == 8
    TILE_COLUMN(3), TILE_COLUMN(4), TILE_COLUMN(5), TILE_COLUMN(6), TILE_COLUMN(7), TILE_COLUMN(8),
#endif
};

/* --- one or two rows, straight from the packed panel --- */
VEC void direct_rows(const struct matmul_job *job, uint32_t p0, uint32_t p1, uint32_t row, uint32_t r, int bits,
                     int scales, int kind, int shift, int rows)
{
    const uint32_t blocks = job->n_cols / PACK_BLOCK, h = act_tile_height(job->n, row);
    for (uint32_t p = p0; p < p1; p++) {
        const uint8_t *panel = job->data + p * job->panel_bytes;
        const uint8_t *tile = job->q + act_tile_offset(row, job->n_cols);
        struct output o = output_of(job, p, row + r);
        struct cursor c = { panel, panel, 0 };
        vec acc[LEVEL_ROWS];
        UNROLL for (int i = 0; i < rows; i++) acc[i] = v_set(0);
        for (; c.b < blocks; tile += h * ACT_ROW_BYTES) {
            struct weights w;
            load_block(&w, &c, bits, scales);
            add_block(acc, &w, act_block(tile, h, r), kind, shift, rows);
        }
        put(&o, acc, rows);
    }
}

/* --- one packed format: how to read it, and its kind --- */
typedef void (*direct_fn)(const struct matmul_job *job, uint32_t p0, uint32_t p1, uint32_t row, uint32_t r);

struct format_kernels {
    enum dot_kind kind;
    void (*unpack)(uint8_t *out, const uint8_t *panel, uint32_t blocks);
    direct_fn direct[LEVEL_ROWS];
};

#define DIRECT(name, bits, scales, kind, shift, rows)                                                                  \
    TARGET NOINLINE void direct##rows##_##name(const struct matmul_job *job, uint32_t p0, uint32_t p1, uint32_t row,   \
                                               uint32_t r)                                                             \
    {                                                                                                                  \
        direct_rows(job, p0, p1, row, r, bits, scales, kind, shift, rows);                                             \
    }
#if LEVEL_ROWS == 8
#define DIRECTS(name, bits, scales, kind, shift)                                                                       \
    DIRECT(name, bits, scales, kind, shift, 1)                                                                         \
    DIRECT(name, bits, scales, kind, shift, 2)                                                                         \
    DIRECT(name, bits, scales, kind, shift, 3)                                                                         \
    DIRECT(name, bits, scales, kind, shift, 4)
#define DIRECT_LIST(name)                                                                                              \
    {                                                                                                                  \
        direct1_##name, direct2_##name, direct3_##name, direct4_##name                                                 \
    }
#define DIRECT_ROWS 4
#else
#define DIRECTS(name, bits, scales, kind, shift)                                                                       \
    DIRECT(name, bits, scales, kind, shift, 1)                                                                         \
    DIRECT(name, bits, scales, kind, shift, 2)
#define DIRECT_LIST(name)                                                                                              \
    {                                                                                                                  \
        direct1_##name, direct2_##name                                                                                 \
    }
#define DIRECT_ROWS 2
#endif
#define FORMAT(name, bits, scales, kind, shift)                                                                        \
    TARGET NOINLINE void unpack_##name(uint8_t *out, const uint8_t *panel, uint32_t blocks)                            \
    {                                                                                                                  \
        unpack(out, panel, blocks, bits, scales);                                                                      \
    }                                                                                                                  \
    DIRECTS(name, bits, scales, kind, shift)                                                                           \
    static const struct format_kernels format_##name = { kind, unpack_##name, DIRECT_LIST(name) };

FORMAT(q4_0, 4, PACK_D, KIND_D, 3)
FORMAT(q4_1, 4, PACK_DM, KIND_DM, 0)
FORMAT(q5_0, 5, PACK_D, KIND_D, 4)
FORMAT(q5_1, 5, PACK_DM, KIND_DM, 0)
FORMAT(q8_0, 8, PACK_D, KIND_D8, 7)
FORMAT(q2_k, 4, PACK_K16M, KIND_K16M, 0)
FORMAT(q3_k, 4, PACK_K16, KIND_K16, 2)
FORMAT(q4_k, 4, PACK_K, KIND_DM, 0)
FORMAT(q5_k, 5, PACK_K, KIND_DM, 0)
FORMAT(q6_k, 6, PACK_K16, KIND_K16, 5)

static const struct format_kernels *const format_kernels[] = {
    [DTYPE_Q4_0] = &format_q4_0, [DTYPE_Q4_1] = &format_q4_1, [DTYPE_Q5_0] = &format_q5_0, [DTYPE_Q5_1] = &format_q5_1,
    [DTYPE_Q8_0] = &format_q8_0, [DTYPE_Q2_K] = &format_q2_k, [DTYPE_Q3_K] = &format_q3_k, [DTYPE_Q4_K] = &format_q4_k,
    [DTYPE_Q5_K] = &format_q5_k, [DTYPE_Q6_K] = &format_q6_k,
};

static void matmul_quantized(const struct matmul_job *job, uint32_t p0, uint32_t p1, uint32_t r0, uint32_t r1,
                             void *scratch)
{
    const struct format_kernels *f = format_kernels[job->type];
    const uint32_t blocks = job->n_cols / PACK_BLOCK;
    if (r1 - r0 <= ACT_TILE && act_tile_height(job->n, r0) == r1 - r0) {
        for (uint32_t row = r0; row < r1;) {
            uint32_t n = r1 - row < DIRECT_ROWS ? r1 - row : DIRECT_ROWS;
            f->direct[n - 1](job, p0, p1, r0, row - r0);
            row += n;
        }
        return;
    }
    for (uint32_t p = p0; p < p1; p++) {
        f->unpack(scratch, job->data + p * job->panel_bytes, blocks);
        for (uint32_t row = r0; row < r1;) {
            uint32_t h = act_tile_height(job->n, row), r = row % ACT_TILE;
            uint32_t n = h - r < LEVEL_ROWS ? h - r : LEVEL_ROWS;
            struct output o = output_of(job, p, row);
            tiles[n - 1][f->kind](&o, scratch, blocks, job->q + act_tile_offset(row, job->n_cols), h, r,
                                  job->format->offset_shift);
            row += n;
        }
    }
}

/* --- float weights: one FMA per column, ascending --- */
VEC vec load_weight(const uint8_t *panel, uint32_t c, enum dtype type)
{
    size_t at = (size_t)c * PANEL_ROWS;
    if (type == DTYPE_F32) return v_load((const float *)(const void *)panel + at);
    const uint16_t *p = (const uint16_t *)(const void *)panel + at;
    return type == DTYPE_F16 ? v_load_half(p) : v_load_bf16(p);
}

VEC void float_tile(const struct matmul_job *job, uint32_t p, int panels, uint32_t row, int rows, enum dtype type)
{
    const float *x = job->f + (size_t)row * job->n_cols;
    const uint8_t *data = job->data + p * job->panel_bytes;
    vec acc[8];
    UNROLL for (int i = 0; i < panels * rows; i++) acc[i] = v_set(0);
    for (uint32_t c = 0; c < job->n_cols; c++) {
        UNROLL for (int i = 0; i < panels; i++)
        {
            vec w = load_weight(data + (size_t)i * job->panel_bytes, c, type);
            UNROLL for (int r = 0; r < rows; r++) acc[i * rows + r] =
                v_fma(v_set(x[(size_t)r * job->n_cols + c]), w, acc[i * rows + r]);
        }
    }
    UNROLL for (int i = 0; i < panels; i++)
    {
        struct output o = output_of(job, p + (uint32_t)i, row);
        put(&o, acc + i * rows, rows);
    }
}

/* Few rows take several panels at a time, so that eight sums do not wait for each other. */
VEC void float_rows(const struct matmul_job *job, uint32_t p0, uint32_t p1, uint32_t row, int rows, int panels,
                    enum dtype type)
{
    uint32_t p = p0;
    for (; p + (uint32_t)panels <= p1; p += (uint32_t)panels) float_tile(job, p, panels, row, rows, type);
    for (; panels > 1 && p < p1; p++) float_tile(job, p, 1, row, rows, type);
}

VEC void float_panels(const struct matmul_job *job, uint32_t p0, uint32_t p1, uint32_t r0, uint32_t r1, enum dtype type)
{
    for (uint32_t row = r0; row < r1;) {
        switch (r1 - row) {
        case 1:
            float_rows(job, p0, p1, row, 1, 4, type);
            row += 1;
            break;
        case 2:
        case 3:
            float_rows(job, p0, p1, row, 2, 4, type);
            row += 2;
            break;
        case 4:
        case 5:
        case 6:
        case 7:
            float_rows(job, p0, p1, row, 4, 2, type);
            row += 4;
            break;
        default:
            float_rows(job, p0, p1, row, 8, 1, type);
            row += 8;
            break;
        }
    }
}

#define FLOAT_TYPE(name, type)                                                                                         \
    TARGET NOINLINE void float_##name(const struct matmul_job *job, uint32_t p0, uint32_t p1, uint32_t r0,             \
                                      uint32_t r1)                                                                     \
    {                                                                                                                  \
        float_panels(job, p0, p1, r0, r1, type);                                                                       \
    }
FLOAT_TYPE(f32, DTYPE_F32)
FLOAT_TYPE(f16, DTYPE_F16)
FLOAT_TYPE(bf16, DTYPE_BF16)

static void matmul_float(const struct matmul_job *job, uint32_t p0, uint32_t p1, uint32_t r0, uint32_t r1)
{
    if (job->type == DTYPE_F32)
        float_f32(job, p0, p1, r0, r1);
    else if (job->type == DTYPE_F16)
        float_f16(job, p0, p1, r0, r1);
    else
        float_bf16(job, p0, p1, r0, r1);
}

static void matmul(const struct matmul_job *job, uint32_t p0, uint32_t p1, uint32_t r0, uint32_t r1, void *scratch)
{
    if (job->format->scales == PACK_FLOAT)
        matmul_float(job, p0, p1, r0, r1);
    else
        matmul_quantized(job, p0, p1, r0, r1, scratch);
}

/* --- attention: int16 q or weights times int8 k or v, `rows` queries --- */
VEC void qk_rows(float *s, const int8_t *k, const float *k_scale, const int16_t *q, const float *q_scale, uint32_t dim,
                 int rows)
{
    for (uint32_t j = 0; j < ATTN_BLOCK / 16; j++) {
        ivec acc[LEVEL_ROWS];
        UNROLL for (int r = 0; r < rows; r++) acc[r] = iv_zero();
        for (uint32_t d = 0; d < dim; d += 4, k += 64) {
            ivec x = iv_load(k), even = iv_even(x), odd = iv_odd(x);
            UNROLL for (int r = 0; r < rows; r++)
            {
                const int16_t *qr = q + (size_t)r * dim + d;
                acc[r] = iv_dot16(acc[r], even, iv_four(qr));
                acc[r] = iv_dot16(acc[r], odd, iv_four(qr + 2));
            }
        }
        vec ks = v_load(k_scale + 16 * j);
        UNROLL for (int r = 0; r < rows; r++)
            v_store(s + r * ATTN_BLOCK + 16 * j, v_mul(v_mul(iv_float(acc[r]), ks), v_set(q_scale[r])));
    }
}

VEC void pv_rows(float *o, const int8_t *v, const int16_t *p, const struct attn_weights *w, uint32_t dim, int rows)
{
    for (uint32_t i = 0; i < dim; i += 16) {
        ivec acc[LEVEL_ROWS];
        UNROLL for (int r = 0; r < rows; r++) acc[r] = iv_zero();
        const int8_t *at = v + 4 * (size_t)i;
        for (uint32_t t = 0; t < ATTN_BLOCK; t += 4, at += 4 * (size_t)dim) {
            ivec x = iv_load(at), even = iv_even(x), odd = iv_odd(x);
            UNROLL for (int r = 0; r < rows; r++)
            {
                const int16_t *pr = p + r * ATTN_BLOCK + t;
                acc[r] = iv_dot16(acc[r], even, iv_four(pr));
                acc[r] = iv_dot16(acc[r], odd, iv_four(pr + 2));
            }
        }
        UNROLL for (int r = 0; r < rows; r++)
        {
            float *at_o = o + (size_t)r * dim + i;
            v_store(at_o, v_fma(iv_float(acc[r]), v_set(w[r].scale), v_mul(v_load(at_o), v_set(w[r].alpha))));
        }
    }
}

#define ATTN_CASES(call)                                                                                               \
    switch (n - i) {                                                                                                   \
    case 1:                                                                                                            \
        call(1);                                                                                                       \
        i += 1;                                                                                                        \
        break;                                                                                                         \
    case 2:                                                                                                            \
        call(2);                                                                                                       \
        i += 2;                                                                                                        \
        break;                                                                                                         \
        ATTN_MORE(call)                                                                                                \
    default:                                                                                                           \
        call(LEVEL_ROWS);                                                                                              \
        i += LEVEL_ROWS;                                                                                               \
        break;                                                                                                         \
    }
#if LEVEL_ROWS == 8
#define ATTN_MORE(call)                                                                                                \
    case 3:                                                                                                            \
        call(3);                                                                                                       \
        i += 3;                                                                                                        \
        break;                                                                                                         \
    case 4:                                                                                                            \
    case 5:                                                                                                            \
        call(4);                                                                                                       \
        i += 4;                                                                                                        \
        break;                                                                                                         \
    case 6:                                                                                                            \
    case 7:                                                                                                            \
        call(6);                                                                                                       \
        i += 6;                                                                                                        \
        break;
#else
#define ATTN_MORE(call)
#endif

TARGET static void qk_int8(float *s, const int8_t *k, const float *k_scale, const int16_t *q, const float *q_scale,
                           uint32_t n, uint32_t dim)
{
#define QK(rows) qk_rows(s + (size_t)i * ATTN_BLOCK, k, k_scale, q + (size_t)i * dim, q_scale + i, dim, rows)
    for (uint32_t i = 0; i < n;) ATTN_CASES(QK)
#undef QK
}

TARGET static void pv_int8(float *o, const int8_t *v, const int16_t *p, const struct attn_weights *w, uint32_t n,
                           uint32_t dim)
{
#define PV(rows) pv_rows(o + (size_t)i * dim, v, p + (size_t)i * ATTN_BLOCK, w + i, dim, rows)
    for (uint32_t i = 0; i < n;) ATTN_CASES(PV)
#undef PV
}

/* --- the wire --- */
TARGET static void v_unzip(int8_t *rows, const int8_t *v, uint32_t dim)
{
    const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    for (uint32_t d = 0; d < dim; d += 16, v += 64, rows += 16) {
        __m128i x[4];
        UNROLL for (int j = 0; j < 4; j++) x[j] =
            _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)(v + 16 * j)), order);
        __m128i a = _mm_unpacklo_epi32(x[0], x[1]), b = _mm_unpackhi_epi32(x[0], x[1]);
        __m128i c = _mm_unpacklo_epi32(x[2], x[3]), e = _mm_unpackhi_epi32(x[2], x[3]);
        _mm_storeu_si128((__m128i *)(void *)rows, _mm_unpacklo_epi64(a, c));
        _mm_storeu_si128((__m128i *)(void *)(rows + dim), _mm_unpackhi_epi64(a, c));
        _mm_storeu_si128((__m128i *)(void *)(rows + 2 * (size_t)dim), _mm_unpacklo_epi64(b, e));
        _mm_storeu_si128((__m128i *)(void *)(rows + 3 * (size_t)dim), _mm_unpackhi_epi64(b, e));
    }
}

TARGET static void v_zip(int8_t *v, const int8_t *rows, uint32_t dim)
{
    for (uint32_t d = 0; d < dim; d += 16, v += 64, rows += 16) {
        __m128i x[4];
        UNROLL for (int j = 0; j < 4; j++) x[j] =
            _mm_loadu_si128((const __m128i *)(const void *)(rows + (size_t)j * dim));
        __m128i a = _mm_unpacklo_epi8(x[0], x[1]), b = _mm_unpackhi_epi8(x[0], x[1]);
        __m128i c = _mm_unpacklo_epi8(x[2], x[3]), e = _mm_unpackhi_epi8(x[2], x[3]);
        _mm_storeu_si128((__m128i *)(void *)v, _mm_unpacklo_epi16(a, c));
        _mm_storeu_si128((__m128i *)(void *)(v + 16), _mm_unpackhi_epi16(a, c));
        _mm_storeu_si128((__m128i *)(void *)(v + 32), _mm_unpacklo_epi16(b, e));
        _mm_storeu_si128((__m128i *)(void *)(v + 48), _mm_unpackhi_epi16(b, e));
    }
}

TARGET static bool has_min8(const int8_t *x, size_t n)
{
    const __m256i min = _mm256_set1_epi8(INT8_MIN);
    __m256i found = _mm256_setzero_si256();
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(x + i));
        found = _mm256_or_si256(found, _mm256_cmpeq_epi8(v, min));
    }
    bool any = _mm256_movemask_epi8(found) != 0;
    for (; i < n; i++) any |= x[i] == INT8_MIN;
    return any;
}

/* The slots of a kernel table that this file fills. */
#define DOT_KERNELS                                                                                                    \
    .matmul = matmul, .qk_int8 = qk_int8, .pv_int8 = pv_int8, .v_unzip = v_unzip, .v_zip = v_zip, .has_min8 = has_min8
