/* dot_tmpl.h - matmul for one vector instruction set.
 *
 * Included by the level_*.c files after their vec_*_tmpl.h.  Weights are unpacked in registers, once for up to
 * LEVEL_ROWS activation rows.  Where that is few, formats that are dear to unpack are unpacked to memory first. */
#ifndef COMPUTE_CPU_DOT_TMPL_H
#define COMPUTE_CPU_DOT_TMPL_H
#include "compute/cpu/cpu_kernels.h"
#include "compute/cpu/unroll.h"

#include <string.h>

#define DOT_NOINLINE static __attribute__((noinline))

/* How a block's sums become fp32. */
enum dot_kind { DOT_D, DOT_D8, DOT_DM, DOT_K16, DOT_K16D8, DOT_K16M, DOT_KINDS };
#define DOT_WIDE_CODES(kind) ((kind) == DOT_D8 || (kind) == DOT_K16D8)

struct dot_weights { /* one block of one panel in registers */
    ivec code[8];
    vec d[2], m[2];
};

struct dot_act { /* one block of activations: row r of a tile of h */
    const int8_t *q;
    const float *scale;
    const int32_t *minus_sum;
    const float *sum;
};

VEC struct dot_act dot_act_block(const uint8_t *tile, uint32_t h, uint32_t r)
{
    return (struct dot_act){ (const int8_t *)tile + (size_t)r * ACT_BLOCK,
                             (const float *)(const void *)(tile + 32 * h) + 2 * r,
                             (const int32_t *)(const void *)(tile + 40 * h) + 2 * r,
                             (const float *)(const void *)(tile + 48 * h) + r };
}

/* --- unpacking --- */
#define DOT_BOOKED(bits, book) ((bits) | (book) << 4) /* codes that name entries of a codebook */

VEC void dot_load_codes(struct dot_weights *w, const uint8_t *block, int bits)
{
    const int book = bits >> 4;
    bits &= 15;
    if (bits == 8) {
        UNROLL for (int j = 0; j < 8; j++) w->code[j] = iv_load(block + 64 * j);
        return;
    }
    UNROLL for (int j = 0; j < 8 && bits <= 3; j++) w->code[j] =
        iv_and8(iv_right(iv_load(block + 64 * (j / 4)), 2 * (j % 4)), 3);
    UNROLL for (int j = 0; j < 4 && bits > 3; j++)
    {
        ivec x = iv_load(block + 64 * j);
        w->code[j] = iv_and8(x, 0x0f);
        w->code[4 + j] = iv_and8(iv_right(x, 4), 0x0f);
    }
    if (bits == 3 || bits == 5) {
        const int at = bits - 1;
        ivec plane = iv_load(block + 64 * at);
        UNROLL for (int j = 0; j < 8; j++)
        {
            ivec bit = j < at ? iv_left(plane, at - j) : iv_right(plane, j - at);
            w->code[j] = iv_or(w->code[j], iv_and8(bit, (uint8_t)(1 << at)));
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
    UNROLL for (int j = 0; j < 8 && book; j++) w->code[j] = iv_lookup(pack_books[book], w->code[j]);
}

VEC void dot_load_scales(struct dot_weights *w, const uint8_t *s, const uint8_t *super, int scales)
{
    w->m[0] = w->m[1] = v_set(0);
    if (scales == PACK_D || scales == PACK_DM) {
        w->d[0] = w->d[1] = v_load_half((const uint16_t *)(const void *)s);
        if (scales == PACK_DM) w->m[0] = w->m[1] = v_load_half((const uint16_t *)(const void *)(s + 32));
        return;
    }
    if (scales == PACK_BF) {
        w->d[0] = w->d[1] = v_load_bf16((const uint16_t *)(const void *)s);
        return;
    }
    if (scales == PACK_K32 || scales == PACK_K16) {
        vec d = v_load((const float *)(const void *)super);
        w->d[0] = v_mul(d, v_load_i8(s));
        w->d[1] = scales == PACK_K32 ? w->d[0] : v_mul(d, v_load_i8(s + 16));
        return;
    }
    vec d = v_load_half((const uint16_t *)(const void *)super);
    vec m = v_load_half((const uint16_t *)(const void *)(super + 32));
    if (scales == PACK_K) {
        w->d[0] = w->d[1] = v_mul(d, v_load_u8(s));
        w->m[0] = w->m[1] = v_neg(v_mul(m, v_load_u8(s + 16)));
    } else {
        w->d[0] = v_mul(d, v_load_u8(s));
        w->d[1] = v_mul(d, v_load_u8(s + 16));
        w->m[0] = v_neg(v_mul(m, v_load_u8(s + 32)));
        w->m[1] = v_neg(v_mul(m, v_load_u8(s + 48)));
    }
}

/* Walks the blocks of a panel. */
struct dot_cursor {
    const uint8_t *at, *super;
    uint32_t b;
};

/* The hardware runs ahead of one or two rows by itself; behind the products of more it falls back. */
VEC void dot_prefetch(const struct dot_cursor *c, int bits)
{
    UNROLL for (int i = 0; i < (bits & 15); i++) __builtin_prefetch(c->at + 2048 + 64 * i, 0, 3);
}

VEC void dot_load_block(struct dot_weights *w, struct dot_cursor *c, int bits, int scales)
{
    const int planes = (bits & 15) * 64;
    if (scales >= PACK_K && c->b % 8 == 0) {
        c->super = c->at;
        c->at += PACK_SUPER_BYTES;
    }
    dot_load_codes(w, c->at, bits);
    dot_load_scales(w, c->at + planes, c->super, scales);
    c->at += planes + (scales == PACK_DM || scales == PACK_K16M ? 64 : scales == PACK_K32 ? 16 : 32);
    c->b++;
}

/* --- the products of one block --- */
VEC ivec dot_start(const int32_t *minus_sum, int kind, int shift)
{
    if (kind == DOT_DM || kind == DOT_K16M || (DOT_WIDE_CODES(kind) && LEVEL_SIGNED8)) return iv_zero();
    return iv_scaled(minus_sum, shift);
}

/* Group g's exact sums of `rows` rows: into `part`, and with the block's last group into acc; the order of operations
 * is the reference's. */
VEC void dot_add_sums(vec *acc, vec *part, const ivec *dot, const struct dot_weights *w, struct dot_act a, int g,
                      int kind, int rows)
{
    UNROLL for (int r = 0; r < rows; r++)
    {
        const int at = 2 * r + g;
        vec f = iv_float(dot[r]), scale = v_set(a.scale[at]);
        if (kind >= DOT_K16) {
            acc[r] = v_fma(w->d[g], v_mul(f, scale), acc[r]);
            if (kind == DOT_K16M) acc[r] = v_fma(w->m[g], v_set((float)-a.minus_sum[at] * a.scale[at]), acc[r]);
        } else if (g == 0) {
            part[r] = v_mul(f, scale);
        } else {
            acc[r] = v_fma(w->d[0], v_fma(f, scale, part[r]), acc[r]);
            if (kind == DOT_DM) acc[r] = v_fma(w->m[0], v_set(a.sum[r]), acc[r]);
        }
    }
}

/* acc[r] += one block's part for `rows` rows. */
VEC void dot_add_block(vec *acc, const struct dot_weights *w, struct dot_act a, int kind, int shift, int rows)
{
    const int bits = DOT_WIDE_CODES(kind) ? 8 : kind == DOT_K16 ? 6 : 5;
    vec part[LEVEL_ROWS];
    UNROLL for (int g = 0; g < 2; g++)
    {
        ivec dot[LEVEL_ROWS];
        UNROLL for (int r = 0; r < rows; r++) dot[r] = dot_start(a.minus_sum + 2 * r + g, kind, shift);
        /* Step by step over all rows: no product waits for the one before it. */
        UNROLL for (int step = 0; step < LEVEL_DOT_STEPS; step++)
        {
            UNROLL for (int r = 0; r < rows; r++) dot[r] =
                iv_dot4(dot[r], w->code + 4 * g, a.q + r * ACT_BLOCK + 16 * g, bits, step);
        }
        dot_add_sums(acc, part, dot, w, a, g, kind, rows);
    }
}

struct dot_output {
    float *y; /* row 0, lane 0 */
    size_t ld;
    uint32_t lanes; /* <= 16 */
    bool accumulate;
};

VEC void dot_put(const struct dot_output *o, const vec *acc, int rows)
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

static struct dot_output dot_output_of(const struct matmul_job *job, uint32_t p, uint32_t row)
{
    uint32_t left = job->n_rows - p * PANEL_ROWS;
    return (struct dot_output){ job->y + row * job->ld + (size_t)p * PANEL_ROWS, job->ld,
                                left < PANEL_ROWS ? left : PANEL_ROWS, job->accumulate };
}

#ifndef LEVEL_AMX /* level_amx.c goes on in its own way */
/* --- a panel times rows [r, r + rows) of the tile that begins with activation row `row` --- */
#define DOT_UNPACKED 0 /* in place of bits: blocks of struct dot_weights */

VEC void dot_panel_rows(const struct matmul_job *job, const uint8_t *panel, uint32_t p, uint32_t row, uint32_t r,
                        int bits, int scales, int kind, int shift, int rows)
{
    const uint32_t blocks = job->n_cols / PACK_BLOCK, h = act_tile_height(job->n, row);
    const uint8_t *tile = job->q + act_tile_offset(row, job->n_cols);
    const struct dot_output o = dot_output_of(job, p, row + r);
    struct dot_cursor c = { panel, panel, 0 };
    vec acc[LEVEL_ROWS];
    UNROLL for (int i = 0; i < rows; i++) acc[i] = v_set(0);
    for (uint32_t b = 0; b < blocks; b++, tile += h * ACT_ROW_BYTES) {
        struct dot_weights w;
        if (rows > 2) dot_prefetch(&c, bits);
        if (bits == DOT_UNPACKED)
            w = ((const struct dot_weights *)(const void *)panel)[b];
        else
            dot_load_block(&w, &c, bits, scales);
        dot_add_block(acc, &w, dot_act_block(tile, h, r), kind, shift, rows);
    }
    dot_put(&o, acc, rows);
}

typedef void (*dot_rows_fn)(const struct matmul_job *job, const uint8_t *panel, uint32_t p, uint32_t row, uint32_t r);

#define DOT_ROWS(name, bits, scales, kind, shift, rows)                                                                \
    TARGET DOT_NOINLINE void dot_by##rows##_##name(const struct matmul_job *job, const uint8_t *panel, uint32_t p,     \
                                                   uint32_t row, uint32_t r)                                           \
    {                                                                                                                  \
        dot_panel_rows(job, panel, p, row, r, bits, scales, kind, shift, rows);                                        \
    }
#if LEVEL_ROWS == 8
#define DOT_ALL_ROWS(name, bits, scales, kind, shift)                                                                  \
    DOT_ROWS(name, bits, scales, kind, shift, 1)                                                                       \
    DOT_ROWS(name, bits, scales, kind, shift, 2)                                                                       \
    DOT_ROWS(name, bits, scales, kind, shift, 3)                                                                       \
    DOT_ROWS(name, bits, scales, kind, shift, 4)                                                                       \
    DOT_ROWS(name, bits, scales, kind, shift, 5)                                                                       \
    DOT_ROWS(name, bits, scales, kind, shift, 6)                                                                       \
    DOT_ROWS(name, bits, scales, kind, shift, 7)                                                                       \
    DOT_ROWS(name, bits, scales, kind, shift, 8)
#define DOT_ROWS_LIST(name)                                                                                            \
    {                                                                                                                  \
        dot_by1_##name, dot_by2_##name, dot_by3_##name, dot_by4_##name, dot_by5_##name, dot_by6_##name,                \
            dot_by7_##name, dot_by8_##name                                                                             \
    }
#else
#define DOT_ALL_ROWS(name, bits, scales, kind, shift)                                                                  \
    DOT_ROWS(name, bits, scales, kind, shift, 1)                                                                       \
    DOT_ROWS(name, bits, scales, kind, shift, 2)
#define DOT_ROWS_LIST(name)                                                                                            \
    {                                                                                                                  \
        dot_by1_##name, dot_by2_##name                                                                                 \
    }
#endif

struct dot_format {
    dot_rows_fn rows[LEVEL_ROWS];
    enum dot_kind kind;
    void (*unpack)(struct dot_weights *out, const uint8_t *panel, uint32_t blocks); /* NULL: never worth it */
};

#if LEVEL_ROWS == 8
#define DOT_FORMAT(name, bits, scales, kind, shift)                                                                    \
    DOT_ALL_ROWS(name, bits, scales, kind, shift)                                                                      \
    static const struct dot_format dot_format_##name = { DOT_ROWS_LIST(name), kind, NULL };
#else
_Static_assert(sizeof(struct dot_weights) == 768, "matmul_scratch_bytes() counts these");
/* Two rows share the unpacking of a weight: from DOT_UNPACK_ROWS rows on it is cheaper to do it once, in memory. */
#define DOT_UNPACK_ROWS 16
#define DOT_DEAR(bits)  ((bits) != 4 && (bits) != 8)
#define DOT_FORMAT(name, bits, scales, kind, shift)                                                                    \
    TARGET DOT_NOINLINE void dot_unpack_##name(struct dot_weights *out, const uint8_t *panel, uint32_t blocks)         \
    {                                                                                                                  \
        struct dot_cursor c = { panel, panel, 0 };                                                                     \
        while (c.b < blocks) dot_load_block(out++, &c, bits, scales);                                                  \
    }                                                                                                                  \
    DOT_ALL_ROWS(name, bits, scales, kind, shift)                                                                      \
    static const struct dot_format dot_format_##name = { DOT_ROWS_LIST(name), kind,                                    \
                                                         DOT_DEAR(bits) ? dot_unpack_##name : NULL };

DOT_ALL_ROWS(unpacked_d, DOT_UNPACKED, 0, DOT_D, job->format->offset_shift)
DOT_ALL_ROWS(unpacked_d8, DOT_UNPACKED, 0, DOT_D8, job->format->offset_shift)
DOT_ALL_ROWS(unpacked_dm, DOT_UNPACKED, 0, DOT_DM, job->format->offset_shift)
DOT_ALL_ROWS(unpacked_k16, DOT_UNPACKED, 0, DOT_K16, job->format->offset_shift)
DOT_ALL_ROWS(unpacked_k16d8, DOT_UNPACKED, 0, DOT_K16D8, job->format->offset_shift)
DOT_ALL_ROWS(unpacked_k16m, DOT_UNPACKED, 0, DOT_K16M, job->format->offset_shift)

static const dot_rows_fn dot_unpacked_rows[DOT_KINDS][LEVEL_ROWS] = {
    [DOT_D] = DOT_ROWS_LIST(unpacked_d),         [DOT_D8] = DOT_ROWS_LIST(unpacked_d8),
    [DOT_DM] = DOT_ROWS_LIST(unpacked_dm),       [DOT_K16] = DOT_ROWS_LIST(unpacked_k16),
    [DOT_K16D8] = DOT_ROWS_LIST(unpacked_k16d8), [DOT_K16M] = DOT_ROWS_LIST(unpacked_k16m),
};
#endif

#include "compute/cpu/dot_formats_tmpl.h"

static void dot_matmul_quantized(const struct matmul_job *job, uint32_t p0, uint32_t p1, uint32_t r0, uint32_t r1,
                                 void *scratch)
{
    const struct dot_format *f = dot_formats[job->type];
    for (uint32_t p = p0; p < p1; p++) {
        const uint8_t *panel = job->data + p * job->panel_bytes;
        const dot_rows_fn *rows = f->rows;
#if LEVEL_ROWS < 8
        if (f->unpack && r1 - r0 >= DOT_UNPACK_ROWS) {
            f->unpack(scratch, panel, job->n_cols / PACK_BLOCK);
            panel = scratch;
            rows = dot_unpacked_rows[f->kind];
        }
#endif
        for (uint32_t row = r0, n; row < r1; row += n) {
            uint32_t r = row % ACT_TILE, left = act_tile_height(job->n, row) - r;
            n = left < LEVEL_ROWS ? left : LEVEL_ROWS;
            rows[n - 1](job, panel, p, row - r, r);
        }
    }
}

#include "compute/cpu/float_tmpl.h"

static void dot_matmul(const struct matmul_job *job, uint32_t p0, uint32_t p1, uint32_t r0, uint32_t r1, void *scratch)
{
    if (job->format->scales == PACK_FLOAT)
        float_matmul(job, p0, p1, r0, r1);
    else
        dot_matmul_quantized(job, p0, p1, r0, r1, scratch);
}

/* The slots of a kernel table that this file fills. */
#define DOT_KERNELS .matmul = dot_matmul
#endif
#endif
