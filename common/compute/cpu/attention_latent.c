/* attention_latent.c - causal attention of many heads over one latent per token (MLA), and the write of its cache.
 *
 * All heads read the same keys, so a sequence's queries are numbered row by row, head by head, and a tile is a run of
 * them: they go over each block together, which is turned to the order of values once for all.  Blocks, segments and
 * their merge are attention.c's.  Of int8 latents each group of LATENT_GROUP values has a scale of its own, so it is a
 * key and a value of its own: scores are summed over the groups, and each group weighs its values itself. */
#include "compute/cpu/cpu_internal.h"
#include "compute/cpu/latent_slice.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define SEGMENT_TOKENS (ATTN_SEGMENT_BLOCKS * KV_BLOCK_TOKENS)

struct latent_run {
    struct cpu_backend *b;
    const struct act *out;
    const float *q, *q_rope;
    size_t q_ld, rope_ld, rope_step;
    uint32_t n_heads;
    const struct kv_slices *kv;
    float scale;
    const struct batch *batch;
    bool split;
    uint32_t max_segments; /* of any sequence in the batch */
    uint32_t items;
    _Atomic uint32_t next;
};

/* Queries [first, first + n) of a sequence over segments [segment, end). */
struct latent_tile {
    const struct batch_seq *seq;
    uint32_t first, n;
    uint32_t segment, end;
};

/* Arrays of ATTN_TILE_QUERIES.  What has `dim` values stands group by group: [groups][queries][values of the group];
 * of fp16 there is one group. */
struct latent_scratch {
    float *scores, *more; /* [64] each */
    float *o, *o_segment; /* [dim] each */
    float *qf;            /* int8: the RoPE part; fp16: all */
    float *q_scale;       /* [groups][queries] */
    float *alpha;
    struct attn_weights *weights;
    struct attn_state *state, *state_segment;
    int16_t *qi, *p; /* [dim] and [64] each */
    uint8_t *v;      /* a block in the order of values */
};

static size_t carve(struct latent_scratch *s, uintptr_t at, const struct backend_limits *l)
{
    const size_t n = ATTN_TILE_QUERIES, dim = l->max_latent, scores = n * KV_BLOCK_TOKENS * sizeof(float);
    const uintptr_t start = at;
    s->scores = scratch_piece(&at, scores);
    s->more = scratch_piece(&at, scores);
    s->o = scratch_piece(&at, n * dim * sizeof(*s->o));
    s->o_segment = scratch_piece(&at, n * dim * sizeof(*s->o_segment));
    s->qf = scratch_piece(&at, n * (dim + l->max_head_dim) * sizeof(*s->qf));
    s->q_scale = scratch_piece(&at, n * latent_groups(l->max_latent) * sizeof(*s->q_scale));
    s->alpha = scratch_piece(&at, n * sizeof(*s->alpha));
    s->weights = scratch_piece(&at, n * sizeof(*s->weights));
    s->state = scratch_piece(&at, n * sizeof(*s->state));
    s->state_segment = scratch_piece(&at, n * sizeof(*s->state_segment));
    s->qi = scratch_piece(&at, n * dim * sizeof(*s->qi));
    s->p = scratch_piece(&at, n * KV_BLOCK_TOKENS * sizeof(*s->p));
    s->v = scratch_piece(&at, KV_BLOCK_TOKENS * dim * sizeof(uint16_t));
    return at - start;
}

size_t cpu_latent_scratch(const struct backend_limits *limits)
{
    struct latent_scratch s;
    return limits->max_latent ? carve(&s, 0, limits) : 0;
}

/* --- shapes --- */

/* What has a scale, and so is summed, by itself. */
struct group {
    uint32_t dim, at;   /* values, and where they begin in a row */
    size_t tile_offset; /* where they begin in a tile's array */
};

static uint32_t n_groups(const struct kv_geometry *g)
{
    return g->format == KV_INT8 ? latent_groups(g->head_dim) : 1;
}

static struct group group_of(const struct kv_geometry *g, uint32_t i)
{
    if (g->format != KV_INT8) return (struct group){ g->head_dim, 0, 0 };
    return (struct group){ latent_group_dim(g, i), i * LATENT_GROUP, (size_t)i * ATTN_TILE_QUERIES * LATENT_GROUP };
}

static uint32_t seq_segments(const struct batch_seq *seq)
{
    return (seq->pos0 + seq->n_rows + SEGMENT_TOKENS - 1) / SEGMENT_TOKENS;
}

static uint32_t query_pos(const struct latent_run *r, const struct latent_tile *t, uint32_t i)
{
    return t->seq->pos0 + (t->first + i) / r->n_heads;
}

/* First query of the tile that sees position `pos`; t->n if none does. */
static uint32_t first_query(const struct latent_run *r, const struct latent_tile *t, uint32_t pos)
{
    if (pos <= t->seq->pos0) return 0;
    const uint64_t first = (uint64_t)(pos - t->seq->pos0) * r->n_heads;
    if (first <= t->first) return 0;
    return first - t->first < t->n ? (uint32_t)first - t->first : t->n;
}

/* Number of a query among all rows and heads of the batch. */
static uint32_t out_row(const struct latent_run *r, const struct latent_tile *t, uint32_t i)
{
    return t->seq->row0 * r->n_heads + t->first + i;
}

static size_t partial_floats(const struct latent_run *r)
{
    return r->kv->geom.head_dim + 2;
}

static float *partial_of(const struct latent_run *r, uint32_t row, uint32_t segment)
{
    return r->b->partials + ((size_t)row * r->max_segments + segment) * partial_floats(r);
}

/* --- a tile --- */
static void load_queries(const struct latent_run *r, const struct latent_tile *t, struct latent_scratch *s)
{
    const struct kv_geometry *geom = &r->kv->geom;
    for (uint32_t i = 0; i < t->n; i++) {
        const uint32_t row = out_row(r, t, i);
        const float *q = r->q + row * r->q_ld;
        const float *rope = r->q_rope + row / r->n_heads * r->rope_ld + row % r->n_heads * r->rope_step;
        if (geom->format == KV_F16) {
            float *qf = s->qf + (size_t)i * (geom->head_dim + geom->rope_dim);
            memcpy(qf, q, geom->head_dim * sizeof(float));
            memcpy(qf + geom->head_dim, rope, geom->rope_dim * sizeof(float));
            continue;
        }
        memcpy(s->qf + (size_t)i * geom->rope_dim, rope, geom->rope_dim * sizeof(float));
        for (uint32_t g = 0; g < n_groups(geom); g++) {
            const struct group of = group_of(geom, g);
            int16_t *qi = s->qi + of.tile_offset + (size_t)i * of.dim;
            s->q_scale[g * ATTN_TILE_QUERIES + i] = r->b->kernels->q_quantize(qi, q + of.at, of.dim) * r->scale;
        }
    }
}

static struct attn_seen seen_of(const struct latent_run *r, const struct latent_tile *t, uint32_t i, uint32_t block)
{
    const uint32_t end = query_pos(r, t, i) - block * KV_BLOCK_TOKENS + 1;
    return (struct attn_seen){ 0, end < KV_BLOCK_TOKENS ? end : KV_BLOCK_TOKENS };
}

/* Scores of queries [f, n) with an int8 block. */
static void scores_int8(const struct latent_run *r, const struct latent_tile *t, struct latent_scratch *s, uint32_t f,
                        uint8_t *slice)
{
    const struct kv_geometry *geom = &r->kv->geom;
    const struct cpu_kernels *k = r->b->kernels;
    const uint32_t n = t->n - f;
    for (uint32_t g = 0; g < n_groups(geom); g++) {
        const struct group of = group_of(geom, g);
        k->qk_int8(g ? s->more : s->scores, (int8_t *)latent_group(slice, g), latent_scales(geom, slice, g),
                   s->qi + of.tile_offset + (size_t)f * of.dim, s->q_scale + g * ATTN_TILE_QUERIES + f, n, of.dim);
        if (g) k->add(s->scores, s->more, n * KV_BLOCK_TOKENS);
    }
    if (geom->rope_dim)
        k->qk_bf16(s->scores, latent_rope(geom, slice), s->qf + (size_t)f * geom->rope_dim, r->scale, n,
                   geom->rope_dim);
}

static void block_int8(const struct latent_run *r, const struct latent_tile *t, struct latent_scratch *s,
                       uint32_t block, uint8_t *slice)
{
    const struct kv_geometry *geom = &r->kv->geom;
    const struct cpu_kernels *k = r->b->kernels;
    const uint32_t f = first_query(r, t, block * KV_BLOCK_TOKENS);
    scores_int8(r, t, s, f, slice);
    for (uint32_t i = f; i < t->n; i++)
        s->alpha[i] = k->softmax_f16(s->scores + (size_t)(i - f) * KV_BLOCK_TOKENS, &s->state_segment[i],
                                     seen_of(r, t, i, block));
    for (uint32_t g = 0; g < n_groups(geom); g++) {
        const struct group of = group_of(geom, g);
        const float *scales = latent_scales(geom, slice, g);
        for (uint32_t i = f; i < t->n; i++)
            s->weights[i - f] =
                k->weigh(s->p + (size_t)(i - f) * KV_BLOCK_TOKENS, s->scores + (size_t)(i - f) * KV_BLOCK_TOKENS,
                         scales, s->alpha[i], seen_of(r, t, i, block));
        k->k_to_v((int8_t *)s->v, (int8_t *)latent_group(slice, g), of.dim);
        k->pv_int8(s->o_segment + of.tile_offset + (size_t)f * of.dim, (int8_t *)s->v, s->p, s->weights, t->n - f,
                   of.dim);
    }
}

/* The latents of an fp16 block, token by token. */
static void values_f16(const struct kv_geometry *geom, uint16_t *v, const uint16_t *k)
{
    const uint32_t dim = geom->head_dim, width = dim + geom->rope_dim;
    for (uint32_t t = 0; t < KV_BLOCK_TOKENS; t++)
        for (uint32_t d = 0; d < dim; d++) v[(size_t)t * dim + d] = k[((size_t)(t / 16) * width + d) * 16 + t % 16];
}

static void block_f16(const struct latent_run *r, const struct latent_tile *t, struct latent_scratch *s, uint32_t block,
                      uint8_t *slice)
{
    const struct kv_geometry *geom = &r->kv->geom;
    const struct cpu_kernels *k = r->b->kernels;
    const uint32_t dim = geom->head_dim, width = dim + geom->rope_dim;
    const uint16_t *keys = (const uint16_t *)(void *)slice;
    uint16_t *values = (uint16_t *)(void *)s->v;
    values_f16(geom, values, keys);
    for (uint32_t i = first_query(r, t, block * KV_BLOCK_TOKENS); i < t->n; i++) {
        const struct attn_seen seen = seen_of(r, t, i, block);
        k->qk_f16(s->scores, keys, s->qf + (size_t)i * width, r->scale, width);
        float alpha = k->softmax_f16(s->scores, &s->state_segment[i], seen);
        k->pv_f16(s->o_segment + (size_t)i * dim, values, s->scores, alpha, seen, dim);
    }
}

/* What a segment has summed for query i: kept, merged into what came before, or put where finish_rows() finds it. */
static void end_segment(const struct latent_run *r, const struct latent_tile *t, struct latent_scratch *s,
                        uint32_t segment, uint32_t i)
{
    const struct kv_geometry *geom = &r->kv->geom;
    const struct attn_state now = s->state_segment[i], before = s->state[i];
    float *slot = partial_of(r, out_row(r, t, i), segment);
    if (r->split) memcpy(slot, &now, sizeof(now));
    if (!r->split && segment == 0) s->state[i] = now;
    for (uint32_t g = 0; g < n_groups(geom); g++) {
        const struct group of = group_of(geom, g);
        const float *from = s->o_segment + of.tile_offset + (size_t)i * of.dim;
        float *to = s->o + of.tile_offset + (size_t)i * of.dim;
        if (r->split) {
            memcpy(slot + 2 + of.at, from, of.dim * sizeof(float));
        } else if (segment == 0) {
            memcpy(to, from, of.dim * sizeof(float));
        } else {
            s->state[i] = before;
            r->b->kernels->merge(to, &s->state[i], from, &now, of.dim);
        }
    }
}

static void run_segment(const struct latent_run *r, const struct latent_tile *t, struct latent_scratch *s,
                        uint32_t segment)
{
    const struct kv_geometry *geom = &r->kv->geom;
    const uint32_t last = query_pos(r, t, t->n - 1) / KV_BLOCK_TOKENS;
    const uint32_t f = first_query(r, t, segment * SEGMENT_TOKENS);
    if (f >= t->n) return;
    for (uint32_t i = f; i < t->n; i++) s->state_segment[i] = (struct attn_state){ -INFINITY, 0 };
    for (uint32_t g = 0; g < n_groups(geom); g++) {
        const struct group of = group_of(geom, g);
        memset(s->o_segment + of.tile_offset + (size_t)f * of.dim, 0, (size_t)(t->n - f) * of.dim * sizeof(float));
    }
    for (uint32_t j = 0; j < ATTN_SEGMENT_BLOCKS; j++) {
        const uint32_t block = segment * ATTN_SEGMENT_BLOCKS + j;
        if (block > last) break;
        uint8_t *slice = r->kv->base + t->seq->blocks[block] * r->kv->stride;
        (geom->format == KV_INT8 ? block_int8 : block_f16)(r, t, s, block, slice);
    }
    for (uint32_t i = f; i < t->n; i++) end_segment(r, t, s, segment, i);
}

static void run_tile(const struct latent_run *r, const struct latent_tile *t, struct latent_scratch *s)
{
    const struct kv_geometry *geom = &r->kv->geom;
    load_queries(r, t, s);
    for (uint32_t segment = t->segment; segment < t->end; segment++) run_segment(r, t, s, segment);
    if (r->split) return;
    for (uint32_t i = 0; i < t->n; i++)
        for (uint32_t g = 0; g < n_groups(geom); g++) {
            const struct group of = group_of(geom, g);
            r->b->kernels->finish(r->out->f + (size_t)out_row(r, t, i) * geom->head_dim + of.at,
                                  s->o + of.tile_offset + (size_t)i * of.dim, &s->state[i], of.dim);
        }
}

/* --- sharing out --- */
static uint32_t seq_items(const struct latent_run *r, const struct batch_seq *seq)
{
    const uint32_t tiles = (seq->n_rows * r->n_heads + ATTN_TILE_QUERIES - 1) / ATTN_TILE_QUERIES;
    return r->split ? tiles * seq_segments(seq) : tiles;
}

/* Item `i` of a sequence; the longest contexts come first. */
static struct latent_tile tile_of(const struct latent_run *r, const struct batch_seq *seq, uint32_t i)
{
    struct latent_tile t = { .seq = seq, .segment = 0, .end = seq_segments(seq) };
    const uint32_t queries = seq->n_rows * r->n_heads, tiles = (queries + ATTN_TILE_QUERIES - 1) / ATTN_TILE_QUERIES;
    if (r->split) {
        t.segment = i % t.end;
        i /= t.end;
        t.end = t.segment + 1;
    }
    t.first = (tiles - 1 - i) * ATTN_TILE_QUERIES;
    t.n = queries - t.first < ATTN_TILE_QUERIES ? queries - t.first : ATTN_TILE_QUERIES;
    return t;
}

static void latent_member(void *arg, uint32_t idx, uint32_t n)
{
    struct latent_run *r = arg;
    struct latent_scratch s;
    uint32_t seq = 0, before = 0; /* items of the sequences before `seq` */
    carve(&s, (uintptr_t)scratch_of(r->b, idx), &r->b->limits);
    for (;;) {
        uint32_t item = atomic_fetch_add_explicit(&r->next, 1, memory_order_relaxed);
        if (item >= r->items) return;
        for (uint32_t own; item - before >= (own = seq_items(r, &r->batch->seqs[seq])); seq++) before += own;
        struct latent_tile t = tile_of(r, &r->batch->seqs[seq], item - before);
        run_tile(r, &t, &s);
    }
}

static void merge_row(const struct latent_run *r, const struct batch_seq *seq, uint32_t row)
{
    const uint32_t pos = seq->pos0 + row / r->n_heads - seq->row0, dim = r->kv->geom.head_dim;
    float *first = partial_of(r, row, 0);
    struct attn_state state, next;
    memcpy(&state, first, sizeof(state));
    for (uint32_t segment = 1; segment <= pos / SEGMENT_TOKENS; segment++) {
        const float *slot = partial_of(r, row, segment);
        memcpy(&next, slot, sizeof(next));
        r->b->kernels->merge(first + 2, &state, slot + 2, &next, dim);
    }
    r->b->kernels->finish(r->out->f + (size_t)row * dim, first + 2, &state, dim);
}

static void finish_rows(void *arg, uint32_t row0, uint32_t row1, uint32_t member)
{
    const struct latent_run *r = arg;
    for (uint32_t i = 0; r->split && i < r->batch->n_seqs; i++) {
        const struct batch_seq *seq = &r->batch->seqs[i];
        const uint32_t begin = seq->row0 * r->n_heads, end = begin + seq->n_rows * r->n_heads;
        for (uint32_t a = begin > row0 ? begin : row0; a < end && a < row1; a++) merge_row(r, seq, a);
    }
    cpu_quantize_rows(r->b, r->out, row0, row1, member);
}

static uint32_t count_items(const struct latent_run *r)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->batch->n_seqs; i++) n += seq_items(r, &r->batch->seqs[i]);
    return n;
}

static void plan(struct latent_run *r)
{
    const uint32_t members = team_size(r->b->team);
    for (uint32_t i = 0; i < r->batch->n_seqs; i++) {
        const uint32_t n = seq_segments(&r->batch->seqs[i]);
        if (n > r->max_segments) r->max_segments = n;
    }
    r->items = count_items(r);
    r->split = members > 1 && r->max_segments > 1 && r->items < 4 * members &&
               (size_t)r->batch->n_rows * r->n_heads * r->max_segments <= r->b->n_partials;
    if (r->split) r->items = count_items(r);
}

enum status cpu_attention_latent(struct backend *backend, struct stream *stream, struct act *out, const float *q,
                                 size_t q_ld, const float *q_rope, size_t rope_ld, size_t rope_step, uint32_t n_heads,
                                 const struct kv_slices *kv, float scale, const struct step *step)
{
    struct cpu_backend *b = cpu_of(backend);
    struct latent_run run = { .b = b,
                              .out = out,
                              .q = q,
                              .q_rope = q_rope,
                              .q_ld = q_ld,
                              .rope_ld = rope_ld,
                              .rope_step = rope_step,
                              .n_heads = n_heads,
                              .kv = kv,
                              .scale = scale,
                              .batch = step->batch };
    assert(kv->geom.kind == KV_LATENT && latent_slice_ok(&kv->geom) && kv->geom.head_dim <= b->limits.max_latent);
    assert(kv->geom.rope_dim <= b->limits.max_head_dim);
    assert(out->n == step->batch->n_rows * n_heads && out->k == kv->geom.head_dim);
    plan(&run);
    team_share(b->team, latent_member, &run);
    cpu_for_rows(b, out->n, ACT_TILE, finish_rows, &run);
    return OK;
}

/* --- the cache --- */
struct write_run {
    const struct cpu_backend *b;
    const float *c, *k_rope;
    size_t c_ld, rope_ld;
    const struct kv_slices *kv;
    const struct batch *batch;
};

static void write_rows(void *arg, uint32_t row0, uint32_t row1, uint32_t member)
{
    const struct write_run *r = arg;
    for (uint32_t i = 0; i < r->batch->n_seqs; i++) {
        const struct batch_seq *seq = &r->batch->seqs[i];
        const uint32_t end = seq->row0 + seq->n_rows;
        for (uint32_t row = seq->row0 > row0 ? seq->row0 : row0; row < end && row < row1; row++) {
            const uint32_t pos = seq->pos0 + (row - seq->row0);
            uint8_t *slice = r->kv->base + seq->blocks[pos / KV_BLOCK_TOKENS] * r->kv->stride;
            latent_slice_put(r->b->kernels, &r->kv->geom, slice, pos % KV_BLOCK_TOKENS, r->c + row * r->c_ld,
                             r->k_rope + row * r->rope_ld);
        }
    }
}

enum status cpu_latent_write(struct backend *b, struct stream *s, const float *c, size_t c_ld, const float *k_rope,
                             size_t rope_ld, const struct kv_slices *kv, const struct step *step)
{
    struct write_run run = {
        .b = cpu_of(b), .c = c, .k_rope = k_rope, .c_ld = c_ld, .rope_ld = rope_ld, .kv = kv, .batch = step->batch
    };
    assert(kv->geom.kind == KV_LATENT && latent_slice_ok(&kv->geom));
    cpu_for_rows(cpu_of(b), step->batch->n_rows, 1, write_rows, &run);
    return OK;
}
