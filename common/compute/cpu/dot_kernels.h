/* dot_kernels.h - matmul for one vector instruction set.
 *
 * Included by level_avx2.c, level_avx512.c and level_vnni.c after their vec_*.h.  One or two activation rows
 * read the packed panel directly, each weight once; more rows go over a panel that is unpacked first. */
#include "compute/cpu/cpu_kernels.h"
#include "compute/cpu/unroll.h"

#include <string.h>

#define NOINLINE static __attribute__((noinline))

/* How a block's sums become fp32; what an unpacked panel still has to know. */
enum dot_kind { KIND_D, KIND_D8, KIND_DM, KIND_K16, KIND_K16D8, KIND_K16M, KIND_COUNT };
#define TWO_SCALES(kind) ((kind) == KIND_K16 || (kind) == KIND_K16D8) /* per block, and no minima */
#define WIDE_CODES(kind) ((kind) == KIND_D8 || (kind) == KIND_K16D8)

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
#define BOOKED(bits, book) ((bits) | (book) << 4) /* codes that name entries of a codebook */

VEC void load_codes(struct weights *w, const uint8_t *block, int bits)
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

VEC void load_scales(struct weights *w, const uint8_t *s, const uint8_t *super, int scales)
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
struct cursor {
    const uint8_t *at, *super;
    uint32_t b;
};

VEC void load_block(struct weights *w, struct cursor *c, int bits, int scales)
{
    const int planes = (bits & 15) * 64;
    if (scales >= PACK_K && c->b % 8 == 0) {
        c->super = c->at;
        c->at += PACK_SUPER_BYTES;
    }
    load_codes(w, c->at, bits);
    load_scales(w, c->at + planes, c->super, scales);
    c->at += planes + (scales == PACK_DM || scales == PACK_K16M ? 64 : scales == PACK_K32 ? 16 : 32);
    c->b++;
}

/* An unpacked block: 512 codes, then 16 floats each of d (KIND_D, KIND_D8); d, m (KIND_DM); d of both groups
 * (KIND_K16, KIND_K16D8); or d, m of the first and of the second group (KIND_K16M). */
#define UNPACKED_BYTES(kind) (512 + 64 * ((kind) == KIND_K16M ? 4 : (kind) == KIND_DM || TWO_SCALES(kind) ? 2 : 1))

/* Blocks [b0, b1) of a panel; b0 is a multiple of 8. */
VEC void unpack(uint8_t *out, const uint8_t *panel, uint32_t b0, uint32_t b1, int bits, int scales, int kind)
{
    struct cursor c = { panel, panel, b0 };
    for (; c.b < b1; out += UNPACKED_BYTES(kind)) {
        struct weights w;
        load_block(&w, &c, bits, scales);
        UNROLL for (int j = 0; j < 8; j++) iv_store(out + 64 * j, w.code[j]);
        float *s = (float *)(void *)(out + 512);
        v_store(s, w.d[0]);
        if (kind == KIND_DM) v_store(s + 16, w.m[0]);
        if (TWO_SCALES(kind)) v_store(s + 16, w.d[1]);
        if (kind != KIND_K16M) continue;
        v_store(s + 16, w.m[0]);
        v_store(s + 32, w.d[1]);
        v_store(s + 48, w.m[1]);
    }
}

VEC void load_unpacked(struct weights *w, const uint8_t *block, int kind)
{
    const float *s = (const float *)(const void *)(block + 512);
    UNROLL for (int j = 0; j < 8; j++) w->code[j] = iv_load(block + 64 * j);
    w->d[0] = w->d[1] = v_load(s);
    w->m[0] = w->m[1] = v_set(0);
    if (kind == KIND_DM) w->m[0] = v_load(s + 16);
    if (TWO_SCALES(kind)) w->d[1] = v_load(s + 16);
    if (kind != KIND_K16M) return;
    w->m[0] = v_load(s + 16);
    w->d[1] = v_load(s + 32);
    w->m[1] = v_load(s + 48);
}

/* --- the products of one block --- */
VEC ivec start_of(const int32_t *minus_sum, int kind, int shift)
{
    if (kind == KIND_DM || kind == KIND_K16M || (WIDE_CODES(kind) && LEVEL_SIGNED8)) return iv_zero();
    return iv_scaled(minus_sum, shift);
}

/* acc[r * panels + p] += one block's part for `rows` rows and `panels` panels; the order of operations is the
 * reference's.  An activation is broadcast once for all panels. */
VEC void add_block(vec *acc, const struct weights *w, struct act_at a, int kind, int shift, int rows, int panels)
{
    const int bits = WIDE_CODES(kind) ? 8 : kind == KIND_K16 ? 6 : 5;
    vec part[LEVEL_ROWS];
    UNROLL for (int g = 0; g < 2; g++)
    {
        ivec dot[LEVEL_ROWS];
        UNROLL for (int i = 0; i < rows * panels; i++) dot[i] =
            start_of(a.minus_sum + 2 * (i / panels) + g, kind, shift);
        UNROLL for (int step = 0; step < LEVEL_DOT_STEPS; step++)
        {
            UNROLL for (int i = 0; i < rows * panels; i++) dot[i] =
                iv_dot4(dot[i], w[i % panels].code + 4 * g, a.q + i / panels * ACT_BLOCK + 16 * g, bits, step);
        }
        UNROLL for (int i = 0; i < rows * panels; i++)
        {
            const int r = i / panels, p = i % panels, at = 2 * r + g;
            vec f = iv_float(dot[i]), scale = v_set(a.scale[at]);
            if (kind >= KIND_K16) {
                acc[i] = v_fma(w[p].d[g], v_mul(f, scale), acc[i]);
                if (kind == KIND_K16M) acc[i] = v_fma(w[p].m[g], v_set((float)-a.minus_sum[at] * a.scale[at]), acc[i]);
            } else if (g == 0) {
                part[i] = v_mul(f, scale);
            } else {
                acc[i] = v_fma(w[p].d[0], v_fma(f, scale, part[i]), acc[i]);
                if (kind == KIND_DM) acc[i] = v_fma(w[p].m[0], v_set(a.sum[r]), acc[i]);
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

/* --- many rows: unpacked blocks of one or two panels times rows [r, r + rows) of a tile --- */
struct tile_job {
    const uint8_t *weights; /* panel after panel */
    uint32_t blocks;
    const uint8_t *tile; /* of activations, at the first of these blocks */
    uint32_t h, r;
    int shift;
    float *acc; /* [rows][panels][16], goes on from one run of blocks to the next */
};
typedef void (*tile_fn)(const struct tile_job *t);

VEC void tile_rows(const struct tile_job *t, int kind, int rows, int panels)
{
    const uint8_t *weights = t->weights, *tile = t->tile;
    const size_t panel_bytes = (size_t)t->blocks * (size_t)UNPACKED_BYTES(kind);
    vec acc[LEVEL_ROWS];
    UNROLL for (int i = 0; i < rows * panels; i++) acc[i] = v_load(t->acc + i * PANEL_ROWS);
    for (uint32_t b = 0; b < t->blocks; b++, weights += UNPACKED_BYTES(kind), tile += t->h * ACT_ROW_BYTES) {
        struct weights w[LEVEL_PANELS];
        UNROLL for (int p = 0; p < panels; p++) load_unpacked(&w[p], weights + p * panel_bytes, kind);
        add_block(acc, w, act_block(tile, t->h, t->r), kind, t->shift, rows, panels);
    }
    UNROLL for (int i = 0; i < rows * panels; i++) v_store(t->acc + i * PANEL_ROWS, acc[i]);
}

#define TILE(kind, rows, panels)                                                                                       \
    TARGET NOINLINE void tile_##kind##_##rows##x##panels(const struct tile_job *t)                                     \
    {                                                                                                                  \
        tile_rows(t, kind, rows, panels);                                                                              \
    }
#define TILES(rows, panels)                                                                                            \
    TILE(KIND_D, rows, panels)                                                                                         \
    TILE(KIND_D8, rows, panels)                                                                                        \
    TILE(KIND_DM, rows, panels)                                                                                        \
    TILE(KIND_K16, rows, panels) TILE(KIND_K16D8, rows, panels) TILE(KIND_K16M, rows, panels)
#define TILE_COLUMN(rows, panels)                                                                                      \
    {                                                                                                                  \
        tile_KIND_D_##rows##x##panels, tile_KIND_D8_##rows##x##panels, tile_KIND_DM_##rows##x##panels,                 \
            tile_KIND_K16_##rows##x##panels, tile_KIND_K16D8_##rows##x##panels, tile_KIND_K16M_##rows##x##panels       \
    }

#define TILE_ROWS (LEVEL_ROWS / LEVEL_PANELS)
TILES(1, 1)
TILES(2, 1)
#if LEVEL_PANELS == 2
TILES(3, 1)
TILES(4, 1)
TILES(1, 2)
TILES(2, 2)
TILES(3, 2)
TILES(4, 2)
#endif

static const tile_fn tiles[LEVEL_PANELS][TILE_ROWS][KIND_COUNT] = {
#if LEVEL_PANELS == 2
    { TILE_COLUMN(1, 1), TILE_COLUMN(2, 1), TILE_COLUMN(3, 1), TILE_COLUMN(4, 1) },
    { TILE_COLUMN(1, 2), TILE_COLUMN(2, 2), TILE_COLUMN(3, 2), TILE_COLUMN(4, 2) },
#else
    { TILE_COLUMN(1, 1), TILE_COLUMN(2, 1) },
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
            add_block(acc, &w, act_block(tile, h, r), kind, shift, rows, 1);
        }
        put(&o, acc, rows);
    }
}

/* --- one packed format: how to read it, and its kind --- */
typedef void (*direct_fn)(const struct matmul_job *job, uint32_t p0, uint32_t p1, uint32_t row, uint32_t r);

struct format_kernels {
    enum dot_kind kind;
    size_t unpacked_bytes; /* of a block */
    void (*unpack)(uint8_t *out, const uint8_t *panel, uint32_t b0, uint32_t b1);
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
    TARGET NOINLINE void unpack_##name(uint8_t *out, const uint8_t *panel, uint32_t b0, uint32_t b1)                   \
    {                                                                                                                  \
        unpack(out, panel, b0, b1, bits, scales, kind);                                                                \
    }                                                                                                                  \
    DIRECTS(name, bits, scales, kind, shift)                                                                           \
    static const struct format_kernels format_##name = { kind, UNPACKED_BYTES(kind), unpack_##name, DIRECT_LIST(name) };

#include "compute/cpu/dot_formats.h"

/* Few rows: each weight is unpacked in registers, once for up to DIRECT_ROWS rows. */
static void matmul_direct(const struct matmul_job *job, uint32_t p0, uint32_t p1, uint32_t r0, uint32_t r1)
{
    const struct format_kernels *f = format_kernels[job->type];
    for (uint32_t row = r0; row < r1;) {
        uint32_t n = r1 - row < DIRECT_ROWS ? r1 - row : DIRECT_ROWS;
        f->direct[n - 1](job, p0, p1, r0, row - r0);
        row += n;
    }
}

/* Blocks [b0, b1) of panels [p, p + panels): what is unpacked at a time. */
struct matmul_run {
    uint32_t p, panels, b0, b1;
};

static void unpack_run(const struct matmul_job *job, const struct matmul_run *run, uint8_t *out)
{
    const struct format_kernels *f = format_kernels[job->type];
    const size_t at = pack_run_offset(job->format, run->b0);
    for (uint32_t i = 0; i < run->panels; i++, out += (run->b1 - run->b0) * f->unpacked_bytes)
        f->unpack(out, job->data + (run->p + i) * job->panel_bytes + at, run->b0, run->b1);
}

/* The sums of rows [r0, r1) go on by one run. */
static void add_run(const struct matmul_job *job, const struct matmul_run *run, uint32_t r0, uint32_t r1,
                    struct matmul_scratch *s)
{
    const struct format_kernels *f = format_kernels[job->type];
    unpack_run(job, run, s->weights);
    for (uint32_t row = r0, n; row < r1; row += n) {
        uint32_t h = act_tile_height(job->n, row), r = row % ACT_TILE;
        n = h - r < TILE_ROWS ? h - r : TILE_ROWS;
        struct tile_job t = { .weights = s->weights,
                              .blocks = run->b1 - run->b0,
                              .tile = job->q + act_tile_offset(row, job->n_cols) + (size_t)run->b0 * h * ACT_ROW_BYTES,
                              .h = h,
                              .r = r,
                              .shift = job->format->offset_shift,
                              .acc = s->acc + (size_t)(row - r0) * run->panels * PANEL_ROWS };
        tiles[run->panels - 1][n - 1][f->kind](&t);
    }
}

TARGET static void put_rows(const struct matmul_job *job, const struct matmul_run *run, uint32_t r0, uint32_t r1,
                            const float *acc)
{
    for (uint32_t row = r0; row < r1; row++)
        for (uint32_t i = 0; i < run->panels; i++, acc += PANEL_ROWS) {
            struct output o = output_of(job, run->p + i, row);
            vec v = v_load(acc);
            put(&o, &v, 1);
        }
}

/* Many rows: runs of blocks are unpacked into the first cache and used for all rows of the item. */
static void matmul_tiled(const struct matmul_job *job, uint32_t p0, uint32_t p1, uint32_t r0, uint32_t r1,
                         struct matmul_scratch *s)
{
    const uint32_t blocks = job->n_cols / PACK_BLOCK;
    for (struct matmul_run run = { .p = p0 }; run.p < p1; run.p += run.panels) {
        run.panels = p1 - run.p < LEVEL_PANELS ? p1 - run.p : LEVEL_PANELS;
        memset(s->acc, 0, (size_t)(r1 - r0) * run.panels * PANEL_ROWS * sizeof(float));
        for (run.b0 = 0; run.b0 < blocks; run.b0 = run.b1) {
            run.b1 = blocks - run.b0 <= MATMUL_LAST_RUN ? blocks : run.b0 + MATMUL_RUN;
            add_run(job, &run, r0, r1, s);
        }
        put_rows(job, &run, r0, r1, s->acc);
    }
}

static void matmul_quantized(const struct matmul_job *job, uint32_t p0, uint32_t p1, uint32_t r0, uint32_t r1,
                             void *scratch)
{
    if (r1 - r0 <= ACT_TILE && act_tile_height(job->n, r0) == r1 - r0)
        matmul_direct(job, p0, p1, r0, r1);
    else
        matmul_tiled(job, p0, p1, r0, r1, scratch);
}

#include "compute/cpu/float_kernels.h"

static void matmul(const struct matmul_job *job, uint32_t p0, uint32_t p1, uint32_t r0, uint32_t r1, void *scratch)
{
    if (job->format->scales == PACK_FLOAT)
        matmul_float(job, p0, p1, r0, r1);
    else
        matmul_quantized(job, p0, p1, r0, r1, scratch);
}

/* The slots of a kernel table that this file fills. */
#define DOT_KERNELS .matmul = matmul
