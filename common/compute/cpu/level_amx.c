/* level_amx.c - matmul by tiles, for AVX-512 with VNNI and AMX.
 *
 * A panel is unpacked once per item of work to signed codes and scales.  Then 16 activation rows at a time: a product
 * per group of 16 columns and 8 rows, whose exact sums go through a small buffer to the floating-point operations that
 * all levels share.  What is left below 16 rows, and matrices of floats, go to vnni.
 *
 * To the compiler _tile_loadd() reads nothing: what it loads was written by functions that are not inlined. */
#include "compute/cpu/level_amx.h"

#define LEVEL_AMX
#include "compute/cpu/vec_avx512_tmpl.h"

#include "compute/cpu/dot_tmpl.h"

#define TILED_ROWS (2 * ACT_TILE) /* at a time; their sums stay in registers */
#define TILED_ACT  (ACT_TILE * ACT_ROW_BYTES)

/* What LDTILECFG reads. */
struct tile_shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16]; /* 8 tiles, and 8 that must be 0 */
    uint8_t rows[16];
};
_Static_assert(sizeof(struct tile_shapes) == 64, "the processor's layout");

/* Of one block: [group][row][lane]. */
typedef int32_t tiled_sums[2][TILED_ROWS][PANEL_ROWS];

/* Tiles 0 to 3: sums, two of 8 rows for each group.  4 and 5: 8 rows of 16 activations.  6 and 7: a group of codes,
 * whose rows are chunks of 4 columns by 16 lanes. */
static const _Alignas(64) struct tile_shapes matmul_shapes = {
    .palette = 1,
    .row_bytes = { 64, 64, 64, 64, 16, 16, 64, 64 },
    .rows = { ACT_TILE, ACT_TILE, ACT_TILE, ACT_TILE, ACT_TILE, ACT_TILE, 4, 4 },
};

/* The products of a block with two tiles of activations, `next` bytes apart. */
VEC void tiled_products(tiled_sums sums, const struct dot_weights *w, const uint8_t *act, size_t next)
{
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(6, w->code, 64);
    _tile_loadd(4, act, ACT_BLOCK);
    _tile_loadd(5, act + next, ACT_BLOCK);
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 5, 6);
    _tile_loadd(7, w->code + 4, 64);
    _tile_loadd(4, act + 16, ACT_BLOCK);
    _tile_loadd(5, act + next + 16, ACT_BLOCK);
    _tile_dpbssd(2, 4, 7);
    _tile_dpbssd(3, 5, 7);
    _tile_stored(0, sums[0][0], 64);
    _tile_stored(1, sums[0][ACT_TILE], 64);
    _tile_stored(2, sums[1][0], 64);
    _tile_stored(3, sums[1][ACT_TILE], 64);
}

VEC void tiled_add(vec *acc, tiled_sums sums, const struct dot_weights *w, const uint8_t *act, int first, int kind)
{
    vec part[ACT_TILE];
    UNROLL for (int g = 0; g < 2; g++)
    {
        ivec dot[ACT_TILE];
        UNROLL for (int r = 0; r < ACT_TILE; r++) dot[r] = iv_load(sums[g][first + r]);
        dot_add_sums(acc + first, part, dot, w, dot_act_block(act, ACT_TILE, 0), g, kind, ACT_TILE);
    }
}

/* A panel times TILED_ROWS rows.  A block's products run while the sums of the one before it are added. */
VEC void tiled_rows(const struct matmul_job *job, const struct dot_weights *w, uint32_t p, uint32_t row, int kind)
{
    const uint32_t blocks = job->n_cols / PACK_BLOCK;
    const uint8_t *act = job->q + act_tile_offset(row, job->n_cols);
    const size_t next = (size_t)blocks * TILED_ACT;
    struct dot_output o = dot_output_of(job, p, row);
    _Alignas(64) tiled_sums sums[2];
    vec acc[TILED_ROWS];
    UNROLL for (int i = 0; i < ACT_TILE; i++) acc[i] = acc[ACT_TILE + i] = v_set(0);
    tiled_products(sums[0], w, act, next);
    for (uint32_t b = 0; b < blocks; b++, w++, act += TILED_ACT) {
        if (b + 1 < blocks) tiled_products(sums[(b + 1) % 2], w + 1, act + TILED_ACT, next);
        tiled_add(acc, sums[b % 2], w, act, 0, kind);
        tiled_add(acc, sums[b % 2], w, act + next, ACT_TILE, kind);
    }
    dot_put(&o, acc, ACT_TILE);
    o.y += ACT_TILE * o.ld;
    dot_put(&o, acc + ACT_TILE, ACT_TILE);
}

typedef void (*tiled_fn)(const struct matmul_job *job, const struct dot_weights *w, uint32_t p, uint32_t row);

#define TILED(name, kind)                                                                                              \
    TARGET DOT_NOINLINE void tiled_##name(const struct matmul_job *job, const struct dot_weights *w, uint32_t p,       \
                                          uint32_t row)                                                                \
    {                                                                                                                  \
        tiled_rows(job, w, p, row, kind);                                                                              \
    }
TILED(d, DOT_D)
TILED(dm, DOT_DM)
TILED(k16, DOT_K16)
TILED(k16m, DOT_K16M)

/* Signed codes are the same to a tile whether they are wide or not. */
static const tiled_fn tiled_kinds[DOT_KINDS] = {
    [DOT_D] = tiled_d,     [DOT_D8] = tiled_d,      [DOT_DM] = tiled_dm,
    [DOT_K16] = tiled_k16, [DOT_K16D8] = tiled_k16, [DOT_K16M] = tiled_k16m,
};

struct dot_format {
    void (*unpack)(struct dot_weights *out, const uint8_t *panel, uint32_t blocks);
    enum dot_kind kind;
};

_Static_assert(sizeof(struct dot_weights) == 768, "matmul_scratch_bytes() counts these");

VEC void unpack_signed(struct dot_weights *out, const uint8_t *panel, uint32_t blocks, int bits, int scales, int offset)
{
    struct dot_cursor c = { panel, panel, 0 };
    for (; c.b < blocks; out++) {
        dot_load_block(out, &c, bits, scales);
        UNROLL for (int j = 0; j < 8 && offset; j++) out->code[j] = iv_sub8(out->code[j], (uint8_t)offset);
    }
}

#define OFFSET(kind, shift) ((kind) == DOT_DM || (kind) == DOT_K16M ? 0 : 1 << (shift))
#define DOT_FORMAT(name, bits, scales, kind, shift)                                                                    \
    TARGET DOT_NOINLINE void dot_unpack_##name(struct dot_weights *out, const uint8_t *panel, uint32_t blocks)         \
    {                                                                                                                  \
        unpack_signed(out, panel, blocks, bits, scales, OFFSET(kind, shift));                                          \
    }                                                                                                                  \
    static const struct dot_format dot_format_##name = { dot_unpack_##name, kind };
#include "compute/cpu/dot_formats_tmpl.h"

TARGET static void tiled_panels(const struct matmul_job *job, uint32_t p0, uint32_t p1, uint32_t r0, uint32_t r1,
                                struct dot_weights *w)
{
    const struct dot_format *f = dot_formats[job->type];
    _tile_loadconfig(&matmul_shapes);
    for (uint32_t p = p0; p < p1; p++) {
        f->unpack(w, job->data + p * job->panel_bytes, job->n_cols / PACK_BLOCK);
        for (uint32_t row = r0; row < r1; row += TILED_ROWS) tiled_kinds[f->kind](job, w, p, row);
    }
    _tile_release(); /* with state in the tiles, each switch of threads saves 8 KiB */
}

void amx_matmul(const struct matmul_job *job, uint32_t p0, uint32_t p1, uint32_t r0, uint32_t r1, void *scratch)
{
    uint32_t tiled = job->format->scales == PACK_FLOAT ? r0 : r0 + (r1 - r0) / TILED_ROWS * TILED_ROWS;
    if (tiled > r0) tiled_panels(job, p0, p1, r0, tiled, scratch);
    if (r1 > tiled) cpu_kernels_vnni.matmul(job, p0, p1, tiled, r1, scratch);
}
