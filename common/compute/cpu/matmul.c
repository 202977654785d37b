/* matmul.c - weights into panels, and y = W x shared out over the team.
 *
 * An item of work is some panels times some activation rows.  Members take items from a counter, so a member
 * that the system holds up costs little; an output depends on its weight row and its activation row only,
 * so who computes it does not matter.  Where a weight's products are fine, each row of the activations is two, side
 * by side in their tiles, and the two outputs are added up before they leave the thread's scratch. */
#include "compute/cpu/cpu_internal.h"

#include <assert.h>
#include <string.h>

#define FINE_PANELS 2 /* of a fine product that are in scratch at a time: 16 KiB */

struct matmul_run {
    struct cpu_backend *b;
    struct matmul_job job;
    bool fine;
    uint32_t panels_per_item, panel_items, row_items;
    _Atomic uint32_t next;
};

size_t cpu_matmul_scratch(const struct backend_limits *limits)
{
    return matmul_scratch_bytes(limits->max_cols) + MATMUL_ITEM_ROWS * FINE_PANELS * PANEL_ROWS * sizeof(float);
}

/* Panels [p0, p1), FINE_PANELS at the most, and rows [r0, r1) of the tiles. */
static void multiply_fine(const struct matmul_run *r, uint32_t p0, uint32_t p1, uint32_t r0, uint32_t r1, void *scratch)
{
    const struct cpu_kernels *k = r->b->kernels;
    const uint32_t left = r->job.n_rows - p0 * PANEL_ROWS, width = (p1 - p0) * PANEL_ROWS;
    const uint32_t cols = left < width ? left : width;
    float *two = (float *)((uint8_t *)scratch + matmul_scratch_bytes(r->b->limits.max_cols));
    struct matmul_job job = r->job;
    job.n_rows = left;
    job.data += p0 * job.panel_bytes;
    job.n = r1 - r0;
    job.q += act_tile_offset(r0, job.n_cols);
    job.y = two;
    job.ld = width;
    job.accumulate = false;
    k->matmul(&job, 0, p1 - p0, 0, r1 - r0, scratch);
    for (uint32_t row = r0; row < r1; row += 2, two += 2 * (size_t)width) {
        float *y = r->job.y + row / 2 * r->job.ld + (size_t)p0 * PANEL_ROWS;
        k->add(two, two + width, cols);
        if (r->job.accumulate)
            k->add(y, two, cols);
        else
            memcpy(y, two, cols * sizeof(float));
    }
}

static void multiply(const struct matmul_run *r, uint32_t p0, uint32_t p1, uint32_t r0, uint32_t r1, void *scratch)
{
    if (!r->fine) {
        r->b->kernels->matmul(&r->job, p0, p1, r0, r1, scratch);
        return;
    }
    for (uint32_t p = p0; p < p1; p += FINE_PANELS)
        multiply_fine(r, p, p1 - p < FINE_PANELS ? p1 : p + FINE_PANELS, r0, r1, scratch);
}

static void matmul_member(void *arg, uint32_t idx, uint32_t n)
{
    struct matmul_run *r = arg;
    const uint32_t n_panels = (r->job.n_rows + PANEL_ROWS - 1) / PANEL_ROWS;
    for (;;) {
        uint32_t item = atomic_fetch_add_explicit(&r->next, 1, memory_order_relaxed);
        if (item >= r->panel_items * r->row_items) return;
        uint32_t p0 = item % r->panel_items * r->panels_per_item, p1 = p0 + r->panels_per_item;
        uint32_t r0 = item / r->panel_items * MATMUL_ITEM_ROWS, r1 = r0 + MATMUL_ITEM_ROWS;
        multiply(r, p0, p1 < n_panels ? p1 : n_panels, r0, r1 < r->job.n ? r1 : r->job.n, scratch_of(r->b, idx));
    }
}

/* Few rows: long runs of panels, so that weights are read as one stream. */
static void plan_items(struct matmul_run *r, uint32_t members)
{
    uint32_t n_panels = (r->job.n_rows + PANEL_ROWS - 1) / PANEL_ROWS;
    uint32_t per_item = r->job.n <= ACT_TILE ? n_panels / (members * 4) : 2;
    if (members == 1 && r->job.n <= ACT_TILE) per_item = n_panels;
    r->panels_per_item = per_item ? per_item : 1;
    r->panel_items = (n_panels + r->panels_per_item - 1) / r->panels_per_item;
    r->row_items = (r->job.n + MATMUL_ITEM_ROWS - 1) / MATMUL_ITEM_ROWS;
}

enum status cpu_matmul(struct backend *backend, struct stream *s, float *y, size_t ld, const struct weight *w,
                       const struct act *x, bool accumulate)
{
    struct cpu_backend *b = cpu_of(backend);
    const struct pack_format *format = pack_format_of(w->dtype);
    assert(format && w->n_cols == x->k && w->n_cols <= b->limits.max_cols && w->precision <= x->precision);
    const bool fine = w->precision == FINE && format->scales != PACK_FLOAT; /* floats take rows as they are */
    struct matmul_run run = {
        .b = b,
        .fine = fine,
        .job = { .type = pack_stored_type(w->dtype),
                 .format = format,
                 .n_rows = w->n_rows,
                 .n_cols = w->n_cols,
                 .data = w->data,
                 .panel_bytes = pack_panel_bytes(w->dtype, w->n_cols),
                 .n = fine ? 2 * x->n : x->n, /* of the tiles */
                 .f = x->f,
                 .q = fine ? fine_tiles_of(x) : x->q,
                 .y = y,
                 .ld = ld,
                 .accumulate = accumulate },
    };
    if (x->n == 0) return OK;
    plan_items(&run, team_size(b->team));
    team_share(b->team, matmul_member, &run);
    return OK;
}

enum status cpu_weight_bytes(struct backend *b, enum dtype type, uint32_t n_rows, uint32_t n_cols, size_t *out)
{
    if (!pack_format_of(type) || n_rows == 0 || n_cols == 0 || n_cols % COL_QUANTUM != 0) return ERR_UNSUPPORTED;
    if (dtype_row_bytes((uint32_t)type, n_cols) == 0 || n_cols > cpu_of(b)->limits.max_cols) return ERR_UNSUPPORTED;
    *out = pack_panel_bytes(type, n_cols) * (((size_t)n_rows + PANEL_ROWS - 1) / PANEL_ROWS);
    return OK;
}

struct pack_run {
    uint8_t *dst;
    enum dtype type;
    uint32_t n_rows, n_cols;
    const uint8_t *src;
    size_t src_stride;
    _Atomic uint32_t next;
};

static void pack_member(void *arg, uint32_t idx, uint32_t n)
{
    struct pack_run *r = arg;
    const size_t panel_bytes = pack_panel_bytes(r->type, r->n_cols);
    for (;;) {
        uint32_t p = atomic_fetch_add_explicit(&r->next, 1, memory_order_relaxed);
        if ((uint64_t)p * PANEL_ROWS >= r->n_rows) return;
        pack_panel(r->dst + p * panel_bytes, r->type, p, r->n_rows, r->n_cols, r->src, r->src_stride);
    }
}

enum status cpu_weight_pack(struct backend *backend, struct stream *s, void *dst, enum dtype type, uint32_t n_rows,
                            uint32_t n_cols, const void *src, size_t src_stride)
{
    struct pack_run run = {
        .dst = dst, .type = type, .n_rows = n_rows, .n_cols = n_cols, .src = src, .src_stride = src_stride
    };
    size_t bytes;
    enum status st = cpu_weight_bytes(backend, type, n_rows, n_cols, &bytes);
    if (st != OK) return st;
    team_share(cpu_of(backend)->team, pack_member, &run);
    return OK;
}
