/* cpu_backend.c - the CPU backend: its memory, its team, the rows of a step, and the table of all ops. */
#include "compute/cpu/cpu_backend.h"
#include "base/cpu.h"
#include "base/mem.h"
#include "compute/cpu/cpu_internal.h"
#include "compute/cpu/cpu_level.h"
#include "compute/cpu/kv_slice.h"
#include "compute/cpu/latent_slice.h"
#include "compute/cpu/recurrent.h"
#include "compute/cpu/state_slice.h"

#include <assert.h>
#include <string.h>

#define PARTIAL_ROWS 4 /* rows that attention can split by segments at the longest context */

struct for_rows {
    rows_fn fn;
    void *arg;
    uint32_t n, chunk;
    _Atomic uint32_t next;
};

static void for_rows_member(void *arg, uint32_t idx, uint32_t n)
{
    struct for_rows *f = arg;
    for (;;) {
        uint32_t a = atomic_fetch_add_explicit(&f->next, f->chunk, memory_order_relaxed);
        if (a >= f->n) return;
        f->fn(f->arg, a, f->n - a < f->chunk ? f->n : a + f->chunk, idx);
    }
}

void cpu_for_rows(struct cpu_backend *b, uint32_t n, uint32_t grain, rows_fn fn, void *arg)
{
    uint32_t chunk = n / (4 * team_size(b->team));
    chunk = (chunk + grain) / grain * grain;
    struct for_rows f = { .fn = fn, .arg = arg, .n = n, .chunk = chunk };
    if (n == 0) return;
    if (n < FEW_ROWS)
        fn(arg, 0, n, 0);
    else
        team_share(b->team, for_rows_member, &f);
}

/* --- memory --- */
static enum status cpu_alloc(struct backend *b, size_t bytes, void **out)
{
    return mem_try_map(out, bytes ? bytes : 1);
}

static void cpu_release(struct backend *b, void *p, size_t bytes)
{
    mem_unmap(p, bytes ? bytes : 1);
}

static enum status cpu_copy(struct backend *b, struct stream *s, void *dst, const void *src, size_t bytes)
{
    if (bytes) memcpy(dst, src, bytes);
    return OK;
}

/* --- streams: all is done when it is enqueued --- */
static enum status cpu_stream_open(struct backend *b, struct stream **out)
{
    *out = NULL;
    return OK;
}

static void cpu_stream_close(struct backend *b, struct stream *s) {}

static enum status cpu_sync(struct backend *b, struct stream *s)
{
    return OK;
}

static enum status cpu_mark_record(struct backend *b, struct stream *s, struct mark *out)
{
    *out = (struct mark){ 0 };
    return OK;
}

static enum status cpu_mark_wait(struct backend *b, const struct mark *m)
{
    return OK;
}

static bool cpu_mark_done(struct backend *b, const struct mark *m)
{
    return true;
}

static size_t cpu_act_bytes(struct backend *b, uint32_t n, uint32_t k, enum precision precision)
{
    return act_tiles_bytes(n, k) + (precision == FINE ? act_tiles_bytes(2 * n, k) : 0);
}

/* --- a step's rows --- */
static enum status cpu_step_begin(struct backend *b, struct stream *s, const struct batch *batch, struct step *out)
{
    struct cpu_backend *cpu = cpu_of(b);
    uint32_t n = 0;
    for (uint32_t i = 0; i < batch->n_seqs; i++) {
        const struct batch_seq *seq = &batch->seqs[i];
        const uint32_t end = seq->row0 + seq->n_rows;
        assert(seq->n_logits <= seq->n_rows && n + seq->n_logits <= cpu->limits.max_rows);
        for (uint32_t row = end - seq->n_logits; row < end; row++) cpu->logit_rows[n++] = row;
    }
    *out = (struct step){ batch, n, cpu->logit_rows };
    return OK;
}

struct embed_run {
    float *out;
    const struct embedding *table;
    const int32_t *tokens; /* NULL: the rows are theirs */
};

static void embed_rows(void *arg, uint32_t row0, uint32_t row1, uint32_t member)
{
    const struct embed_run *r = arg;
    const struct embedding *t = r->table;
    const size_t row_bytes = dtype_row_bytes((uint32_t)t->type, t->n_cols);
    for (uint32_t i = row0; i < row1; i++) {
        const size_t at = r->tokens ? (size_t)r->tokens[i] : i;
        dequantize_row((uint32_t)t->type, (const uint8_t *)t->rows + at * row_bytes, r->out + (size_t)i * t->n_cols,
                       t->n_cols);
    }
}

static enum status cpu_embed(struct backend *b, struct stream *s, float *out, const struct embedding *table,
                             const struct step *step)
{
    struct embed_run run = { out, table, table->gathered ? NULL : step->batch->tokens };
    if (!dtype_info((uint32_t)table->type)->supported || dtype_row_bytes((uint32_t)table->type, table->n_cols) == 0)
        return ERR_UNSUPPORTED;
    cpu_for_rows(cpu_of(b), step->batch->n_rows, 1, embed_rows, &run);
    return OK;
}

static enum status cpu_gather_rows(struct backend *b, struct stream *s, float *out, const float *x, uint32_t k,
                                   const struct step *step, uint32_t first, uint32_t n)
{
    const uint32_t *rows = (const uint32_t *)step->device + first;
    assert(first + n <= step->n_logits);
    for (uint32_t i = 0; i < n; i++) memcpy(out + (size_t)i * k, x + (size_t)rows[i] * k, k * sizeof(float));
    return OK;
}

/* --- kv --- */
static size_t cpu_kv_slice_bytes(struct backend *b, const struct kv_geometry *geom)
{
    if (geom->kind == KV_LATENT) return latent_slice_ok(geom) ? latent_slice_bytes(geom) : 0;
    return kv_slice_dim_ok(geom->head_dim) ? kv_slice_bytes(geom) : 0;
}

static enum status cpu_kv_pack(struct backend *b, struct stream *s, const struct kv_slices *layers,
                               const struct kv_piece *pieces, uint32_t n, uint8_t *wire)
{
    enum status st = OK;
    for (uint32_t i = 0; i < n && st == OK; i++) st = kv_slice_pack(cpu_of(b)->kernels, layers, &pieces[i], wire);
    return st;
}

static enum status cpu_kv_unpack(struct backend *b, struct stream *s, const struct kv_slices *layers,
                                 const struct kv_piece *pieces, uint32_t n, const uint8_t *wire)
{
    enum status st = OK;
    for (uint32_t i = 0; i < n && st == OK; i++) st = kv_slice_unpack(cpu_of(b)->kernels, layers, &pieces[i], wire);
    return st;
}

/* --- life --- */
static enum status create_scratch(struct cpu_backend *b)
{
    const struct backend_limits *l = &b->limits;
    const size_t needs[] = { cpu_matmul_scratch(l), cpu_attention_scratch(l), cpu_latent_scratch(l),
                             cpu_route_scratch(l), cpu_expert_scratch(l) };
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++) bytes = needs[i] > bytes ? needs[i] : bytes;
    b->scratch_bytes = (bytes + 4095) & ~(size_t)4095;
    size_t segments = l->max_context / (ATTN_SEGMENT_BLOCKS * KV_BLOCK_TOKENS) + 1;
    b->n_partials = segments * l->max_heads * PARTIAL_ROWS;
    const uint32_t widest = l->max_latent > l->max_head_dim ? l->max_latent : l->max_head_dim;
    b->partials_bytes = b->n_partials * (widest + 2) * sizeof(float);
    void *p;
    enum status st = mem_try_map(&p, b->scratch_bytes * team_size(b->team));
    if (st != OK) return st;
    b->scratch = p;
    if ((st = mem_try_map(&p, b->partials_bytes ? b->partials_bytes : 1)) != OK) return st;
    b->partials = p;
    if ((st = mem_try_array(&p, l->max_rows, sizeof(uint32_t))) != OK) return st;
    b->logit_rows = p;
    return cpu_expert_table_create(&b->experts, l);
}

static enum status create_rope(struct rope_table *t, const struct backend_limits *l)
{
    const size_t half = l->max_head_dim / 2;
    void *p;
    enum status st;
    t->factors = mem_array(half, sizeof(float));
    t->freq = mem_array(half, sizeof(double));
    if ((st = mem_try_array(&p, l->max_rows, sizeof(uint32_t))) != OK) return st;
    t->pos = p;
    if ((st = mem_try_array(&p, (size_t)l->max_rows * l->max_head_dim, sizeof(float))) != OK) return st;
    t->c = p;
    if ((st = mem_try_array(&p, (size_t)l->max_rows * l->max_head_dim, sizeof(float))) != OK) return st;
    t->s = p;
    return OK;
}

static enum status check_limits(const struct backend_limits *l, struct error *err)
{
    if (l->max_rows == 0 || l->max_context == 0 || l->max_cols == 0 || !l->max_heads != !l->max_head_dim)
        return error_set(err, ERR_INVALID, "cpu backend: every limit must be at least 1");
    if (l->max_head_dim > 0 && !kv_slice_dim_ok(l->max_head_dim))
        return error_set(err, ERR_UNSUPPORTED, "cpu backend: head dimension %u; it takes multiples of 16 up to 512",
                         l->max_head_dim);
    if (l->max_latent % 16 != 0 || l->max_latent > LATENT_MAX)
        return error_set(err, ERR_UNSUPPORTED, "cpu backend: latents of %u values; it takes multiples of 16 up to %d",
                         l->max_latent, LATENT_MAX);
    return OK;
}

static void cpu_close(struct backend *backend)
{
    struct cpu_backend *b = cpu_of(backend);
    if (b->scratch) mem_unmap(b->scratch, b->scratch_bytes * team_size(b->team));
    mem_unmap(b->partials, b->partials_bytes ? b->partials_bytes : 1);
    mem_free(b->logit_rows);
    cpu_expert_table_free(&b->experts);
    mem_free(b->rope.factors);
    mem_free(b->rope.freq);
    mem_free(b->rope.pos);
    mem_free(b->rope.c);
    mem_free(b->rope.s);
    team_destroy(b->team);
    mem_free(b);
}

static const char *cpu_describe(const struct backend *b)
{
    return ((const struct cpu_backend *)b)->kernels->name;
}

static const struct backend_ops cpu_ops = {
    .name = "cpu",
    .close = cpu_close,
    .describe = cpu_describe,
    .alloc = cpu_alloc,
    .release = cpu_release,
    .upload = cpu_copy,
    .download = cpu_copy,
    .copy = cpu_copy,
    .stream_open = cpu_stream_open,
    .stream_close = cpu_stream_close,
    .sync = cpu_sync,
    .mark_record = cpu_mark_record,
    .mark_wait = cpu_mark_wait,
    .mark_done = cpu_mark_done,
    .weight_bytes = cpu_weight_bytes,
    .weight_pack = cpu_weight_pack,
    .act_bytes = cpu_act_bytes,
    .step_begin = cpu_step_begin,
    .embed = cpu_embed,
    .gather_rows = cpu_gather_rows,
    .rmsnorm = cpu_rmsnorm,
    .glu = cpu_glu,
    .quantize = cpu_quantize,
    .matmul = cpu_matmul,
    .add_bias = cpu_add_bias,
    .rope = cpu_rope,
    .kv_write = cpu_kv_write,
    .rope_kv_write = cpu_rope_kv_write,
    .attention = cpu_attention,
    .kv_slice_bytes = cpu_kv_slice_bytes,
    .host_alloc = cpu_alloc,
    .host_free = cpu_release,
    .kv_pack = cpu_kv_pack,
    .kv_unpack = cpu_kv_unpack,
    .head_norm = cpu_head_norm,
    .norm_add = cpu_norm_add,
    .scale = cpu_scale,
    .softcap = cpu_softcap,
    .gate_act = cpu_gate_act,
    .latent_write = cpu_latent_write,
    .attention_latent = cpu_attention_latent,
    .conv_step = cpu_conv_step,
    .delta_rule = cpu_delta_rule,
    .mamba2_scan = cpu_mamba2_scan,
    .norm_gate = cpu_norm_gate,
    .state_slot_bytes = cpu_state_slot_bytes,
    .state_copy = cpu_state_copy,
    .state_pack = cpu_state_pack,
    .state_unpack = cpu_state_unpack,
    .pick = cpu_pick,
    .weigh = cpu_weigh,
    .route = cpu_route,
    .expert_matmul = cpu_expert_matmul,
    .expert_bias = cpu_expert_bias,
    .expert_sum = cpu_expert_sum,
};
enum status cpu_backend_open(struct backend **out, const struct backend_options *opt, struct error *err)
{
    const struct backend_limits *limits = &opt->limits;
    enum status st = check_limits(limits, err);
    if (st != OK) return st;
    struct cpu_backend *b = mem_zalloc(sizeof(*b));
    b->base.ops = &cpu_ops;
    b->base.caps = (struct backend_caps){ .host_memory = true,
                                          .deterministic = true,
                                          .row_quantum = PANEL_ROWS,
                                          .col_quantum = COL_QUANTUM,
                                          .embed_types = UINT64_MAX };
    b->limits = *limits;
    if ((st = cpu_level_choose(&b->kernels, opt->isa, cpu_flags(), err)) != OK) goto fail;
    if ((st = team_create(&b->team, opt->n_threads, opt->cpus, err)) != OK) goto fail;
    if ((st = create_scratch(b)) != OK || (st = create_rope(&b->rope, limits)) != OK) {
        error_set(err, st, "cpu backend: no memory for scratch (%u rows, %u columns, %u positions)", limits->max_rows,
                  limits->max_cols, limits->max_context);
        goto fail;
    }
    *out = &b->base;
    return OK;
fail:
    cpu_close(&b->base);
    return st;
}
