/* matmul.c - weights into panels, and y = W x shared out over the team.
 *
 * An item of work is some panels times some activation rows.  Members take items from a counter, so a member
 * that the system holds up costs little; an output depends on its weight row and its activation row only,
 * so who computes it does not matter. */
#include "compute/cpu/cpu_internal.h"

#include <assert.h>

struct matmul_run {
    struct cpu_backend *b;
    struct matmul_job job;
    uint32_t panels_per_item, panel_items, row_items;
    _Atomic uint32_t next;
};

static void matmul_member(void *arg, uint32_t idx, uint32_t n)
{
    struct matmul_run *r = arg;
    const uint32_t n_panels = (r->job.n_rows + PANEL_ROWS - 1) / PANEL_ROWS;
    for (;;) {
        uint32_t item = atomic_fetch_add_explicit(&r->next, 1, memory_order_relaxed);
        if (item >= r->panel_items * r->row_items) return;
        uint32_t p0 = item % r->panel_items * r->panels_per_item, p1 = p0 + r->panels_per_item;
        uint32_t r0 = item / r->panel_items * MATMUL_ITEM_ROWS, r1 = r0 + MATMUL_ITEM_ROWS;
        r->b->kernels->matmul(&r->job, p0, p1 < n_panels ? p1 : n_panels, r0, r1 < r->job.n ? r1 : r->job.n,
                              scratch_of(r->b, idx));
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
    assert(format && w->n_cols == x->k && w->n_cols <= b->limits.max_cols);
    struct matmul_run run = {
        .b = b,
        .job = { .type = pack_stored_type(w->dtype),
                 .format = format,
                 .n_rows = w->n_rows,
                 .n_cols = w->n_cols,
                 .data = w->data,
                 .panel_bytes = pack_panel_bytes(w->dtype, w->n_cols),
                 .n = x->n,
                 .f = x->f,
                 .q = x->q,
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
