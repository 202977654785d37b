/* cpu_experts.c - products with the matrices of a stack that a route names, shared out over the team.
 *
 * Slots are sorted by expert.  An item of work is some panels of one expert times up to GROUP_ROWS of its slots: their
 * activations are gathered into tiles of their own, multiplied like any others, and the outputs are put where the slots
 * are.  So a matrix is read once for all its slots of a batch, up to GROUP_ROWS of them, and a row's bits are those
 * that matmul() would give it. */
#include "compute/cpu/cpu_internal.h"

#include "base/mem.h"

#include <assert.h>
#include <string.h>

#define GROUP_ROWS  MATMUL_ITEM_ROWS /* rows of tiles: a slot is one, or two where products are fine */
#define FLOAT_SLOTS 32               /* of matrices of floats: their rows are wide */
#define OUT_FLOATS  8192             /* outputs of an item on their way to the slots: 32 KiB */

/* Slots that one expert has, or some of them. */
struct slot_group {
    uint32_t expert, first, n; /* sorted slots [first, first + n) */
};

struct expert_run {
    struct cpu_backend *b;
    const struct weight *w;
    const struct act *x;
    uint32_t k; /* slots of a row; 1 where x has a row per slot */
    float *y;
    size_t ld;
    bool fine;
    struct matmul_job job; /* of any expert */
    const uint32_t *slots; /* by expert */
    const struct slot_group *groups;
    uint32_t panels_per_item, panel_items, items;
    _Atomic uint32_t next;
};

static size_t gather_bytes(uint32_t n_cols)
{
    const size_t tiles = act_tiles_bytes(GROUP_ROWS, n_cols), floats = (size_t)FLOAT_SLOTS * n_cols * sizeof(float);
    return tiles > floats ? tiles : floats;
}

size_t cpu_expert_scratch(const struct backend_limits *limits)
{
    if (limits->max_experts == 0) return 0;
    return matmul_scratch_bytes(limits->max_cols) + OUT_FLOATS * sizeof(float) + gather_bytes(limits->max_cols);
}

enum status cpu_expert_table_create(struct expert_table *t, const struct backend_limits *limits)
{
    const size_t slots = (size_t)limits->max_rows * limits->max_experts_used;
    void *p;
    enum status st;
    if (limits->max_experts == 0 || slots == 0) return OK;
    t->n_slots = slots;
    t->n_groups = limits->max_experts + slots / FLOAT_SLOTS;
    if ((st = mem_try_array(&p, slots, sizeof(uint32_t))) != OK) return st;
    t->slots = p;
    if ((st = mem_try_array(&p, limits->max_experts + (size_t)1, sizeof(uint32_t))) != OK) return st;
    t->ends = p;
    if ((st = mem_try_array(&p, t->n_groups, sizeof(struct slot_group))) != OK) return st;
    t->groups = p;
    return OK;
}

void cpu_expert_table_free(struct expert_table *t)
{
    mem_free(t->slots);
    mem_free(t->ends);
    mem_free(t->groups);
}

/* --- who has which slots --- */

/* Sorts slots by expert; ends[e] is where e's end. */
static void sort_slots(struct expert_table *t, const struct route *route, uint32_t n_experts)
{
    const uint32_t n = route->n * route->k;
    uint32_t before = 0;
    memset(t->ends, 0, n_experts * sizeof(*t->ends));
    for (uint32_t i = 0; i < n; i++) {
        assert(route->expert[i] < n_experts);
        t->ends[route->expert[i]]++;
    }
    for (uint32_t e = 0; e < n_experts; e++) {
        uint32_t own = t->ends[e];
        t->ends[e] = before;
        before += own;
    }
    for (uint32_t i = 0; i < n; i++) t->slots[t->ends[route->expert[i]]++] = i;
}

static uint32_t group_slots(struct expert_table *t, uint32_t n_experts, uint32_t most)
{
    uint32_t n = 0, first = 0;
    for (uint32_t e = 0; e < n_experts; e++)
        while (first < t->ends[e]) {
            uint32_t left = t->ends[e] - first, own = left < most ? left : most;
            t->groups[n++] = (struct slot_group){ e, first, own };
            first += own;
        }
    return n;
}

/* --- gathering --- */
static void copy_tile_row(uint8_t *to, uint32_t to_h, uint32_t to_r, const uint8_t *from, uint32_t h, uint32_t r,
                          uint32_t blocks)
{
    for (uint32_t b = 0; b < blocks; b++, to += to_h * ACT_ROW_BYTES, from += h * ACT_ROW_BYTES) {
        memcpy(to + ACT_BLOCK * to_r, from + ACT_BLOCK * r, ACT_BLOCK);
        memcpy(to + 32 * to_h + 8 * to_r, from + 32 * h + 8 * r, 8);
        memcpy(to + 40 * to_h + 8 * to_r, from + 40 * h + 8 * r, 8);
        memcpy(to + 48 * to_h + 4 * to_r, from + 48 * h + 4 * r, 4);
    }
}

/* Row `from` of the activations' tiles becomes row i of n. */
static void gather_row(const struct expert_run *r, uint8_t *tiles, uint32_t n, uint32_t i, uint32_t from)
{
    const uint32_t n_x = r->fine ? 2 * r->x->n : r->x->n, k = r->x->k;
    const uint8_t *q = r->fine ? fine_tiles_of(r->x) : r->x->q;
    copy_tile_row(tiles + act_tile_offset(i, k), act_tile_height(n, i), i % ACT_TILE, q + act_tile_offset(from, k),
                  act_tile_height(n_x, from), from % ACT_TILE, act_blocks(k));
}

static void gather(const struct expert_run *r, const struct slot_group *g, struct matmul_job *job, uint8_t *to)
{
    const uint32_t *slots = r->slots + g->first, k = r->x->k;
    const bool floats = job->format->scales == PACK_FLOAT;
    job->n = r->fine ? 2 * g->n : g->n;
    job->f = (const float *)(const void *)to;
    job->q = to;
    for (uint32_t i = 0; i < g->n; i++) {
        const uint32_t row = slots[i] / r->k;
        if (floats)
            memcpy(to + (size_t)i * k * sizeof(float), r->x->f + (size_t)row * k, k * sizeof(float));
        else if (!r->fine)
            gather_row(r, to, job->n, i, row);
        for (uint32_t half = 0; half < 2 && r->fine; half++) gather_row(r, to, job->n, 2 * i + half, 2 * row + half);
    }
}

/* --- multiplying --- */

/* Outputs [from, from + cols) of the group's slots: row i of `out`, or the sum of rows 2 i and 2 i + 1. */
static void put_out(const struct expert_run *r, const struct slot_group *g, float *out, size_t width, uint32_t from,
                    uint32_t cols)
{
    for (uint32_t i = 0; i < g->n; i++) {
        float *row = out + (r->fine ? 2 * i : i) * width;
        if (r->fine) r->b->kernels->add(row, row + width, cols);
        memcpy(r->y + r->slots[g->first + i] * r->ld + from, row, cols * sizeof(float));
    }
}

/* Panels [p0, p1) of the group's expert. */
static void multiply(const struct expert_run *r, const struct slot_group *g, uint32_t p0, uint32_t p1, uint8_t *scratch)
{
    struct matmul_job job = r->job;
    uint8_t *at = scratch + matmul_scratch_bytes(r->b->limits.max_cols);
    float *out = (float *)(void *)at;
    gather(r, g, &job, at + OUT_FLOATS * sizeof(float));
    const uint32_t run = OUT_FLOATS / PANEL_ROWS / job.n;
    for (uint32_t p = p0, end; p < p1; p = end) {
        end = p1 - p < run ? p1 : p + run;
        const uint32_t left = r->w->n_rows - p * PANEL_ROWS, width = (end - p) * PANEL_ROWS;
        job.n_rows = left;
        job.data = r->job.data + g->expert * r->w->expert_bytes + p * job.panel_bytes;
        job.y = out;
        job.ld = width;
        r->b->kernels->matmul(&job, 0, end - p, 0, job.n, scratch);
        put_out(r, g, out, width, p * PANEL_ROWS, left < width ? left : width);
    }
}

static void expert_member(void *arg, uint32_t idx, uint32_t n)
{
    struct expert_run *r = arg;
    const uint32_t n_panels = (r->w->n_rows + PANEL_ROWS - 1) / PANEL_ROWS;
    for (;;) {
        uint32_t item = atomic_fetch_add_explicit(&r->next, 1, memory_order_relaxed);
        if (item >= r->items) return;
        uint32_t p0 = item % r->panel_items * r->panels_per_item, p1 = p0 + r->panels_per_item;
        multiply(r, &r->groups[item / r->panel_items], p0, p1 < n_panels ? p1 : n_panels, scratch_of(r->b, idx));
    }
}

/* Some items for each member, and as few of a group as that allows: each of them gathers the group's rows. */
static void plan_items(struct expert_run *r, uint32_t n_groups)
{
    const uint32_t members = team_size(r->b->team), n_panels = (r->w->n_rows + PANEL_ROWS - 1) / PANEL_ROWS;
    uint32_t per_group = members == 1 ? 1 : (8 * members + n_groups - 1) / n_groups;
    if (per_group > n_panels) per_group = n_panels;
    r->panels_per_item = (n_panels + per_group - 1) / per_group;
    r->panel_items = (n_panels + r->panels_per_item - 1) / r->panels_per_item;
    r->items = n_groups * r->panel_items;
}

enum status cpu_expert_matmul(struct backend *backend, struct stream *s, float *y, size_t ld, const struct weight *w,
                              const struct act *x, const struct route *route, bool x_by_slot)
{
    struct cpu_backend *b = cpu_of(backend);
    struct expert_table *t = &b->experts;
    const struct pack_format *format = pack_format_of(w->dtype);
    assert(format && w->n_cols == x->k && w->n_cols <= b->limits.max_cols && w->precision <= x->precision);
    assert(w->n_experts <= b->limits.max_experts && (size_t)route->n * route->k <= t->n_slots);
    assert(x->n == (x_by_slot ? route->n * route->k : route->n));
    struct expert_run run = {
        .b = b,
        .w = w,
        .x = x,
        .k = x_by_slot ? 1 : route->k,
        .y = y,
        .ld = ld,
        .fine = w->precision == FINE && format->scales != PACK_FLOAT, /* floats take rows as they are */
        .job = { .type = pack_stored_type(w->dtype),
                 .format = format,
                 .n_cols = w->n_cols,
                 .data = w->data,
                 .panel_bytes = pack_panel_bytes(w->dtype, w->n_cols) },
        .slots = t->slots,
        .groups = t->groups,
    };
    if (route->n == 0) return OK;
    sort_slots(t, route, w->n_experts);
    plan_items(&run, group_slots(t, w->n_experts,
                                 format->scales == PACK_FLOAT ? FLOAT_SLOTS
                                 : run.fine                   ? GROUP_ROWS / 2
                                                              : GROUP_ROWS));
    team_share(b->team, expert_member, &run);
    return OK;
}
