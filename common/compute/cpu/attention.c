/* attention.c - causal attention over paged KV, shared out over the team.
 *
 * A tile is some consecutive rows of one sequence times some query heads of one kv head: they go over each KV
 * block together.  Per query: online softmax over blocks of 64 tokens, started afresh every 512 tokens
 * (a segment), segments merged in ascending order.  Borders of blocks and segments are positions of the sequence, with
 * a window too: a query begins in the block and the segment where its window does.  So a tile's shape and who computes
 * a segment change nothing.
 * Where tiles are too few for the team, each (tile, segment) is an item of its own and the merge comes after. */
#include "compute/cpu/cpu_internal.h"
#include "compute/cpu/kv_slice.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define SEGMENT_TOKENS (ATTN_SEGMENT_BLOCKS * KV_BLOCK_TOKENS)
#define TILE_HEADS     8

struct attn_run {
    struct cpu_backend *b;
    const struct act *out;
    const float *q;
    size_t ld;
    uint32_t n_heads;
    const struct kv_slices *kv;
    const struct attn_facts *facts;
    const struct batch *batch;
    uint32_t group, first;                  /* query heads per kv head; where q begins within the first group */
    uint32_t tile_rows, tile_heads, chunks; /* chunks of tile_heads in a group */
    bool split;
    uint32_t max_segments; /* of any sequence in the batch */
    uint32_t items;
    _Atomic uint32_t next;
};

struct attn_tile {
    const struct batch_seq *seq;
    uint32_t row, n_rows;            /* first row within the sequence */
    uint32_t kv_head, head, n_heads; /* first query head */
    uint32_t segment, end;           /* segments [segment, end) */
};

struct attn_scratch {     /* arrays of ATTN_TILE_QUERIES, queries row by row */
    float *scores;        /* [64] each */
    float *o, *o_segment; /* [dim] each */
    float *qf;            /* [dim] each, fp16 KV */
    int16_t *qi, *p;      /* [dim] and [64] each */
    float *q_scale;
    struct attn_weights *weights;
    struct attn_state *state, *state_segment;
};

static size_t carve(struct attn_scratch *s, uintptr_t at, uint32_t dim)
{
    const size_t n = ATTN_TILE_QUERIES, row = n * dim * sizeof(float);
    const uintptr_t start = at;
    s->scores = scratch_piece(&at, n * KV_BLOCK_TOKENS * sizeof(*s->scores));
    s->o = scratch_piece(&at, row);
    s->o_segment = scratch_piece(&at, row);
    s->qf = scratch_piece(&at, row);
    s->q_scale = scratch_piece(&at, n * sizeof(*s->q_scale));
    s->weights = scratch_piece(&at, n * sizeof(*s->weights));
    s->state = scratch_piece(&at, n * sizeof(*s->state));
    s->state_segment = scratch_piece(&at, n * sizeof(*s->state_segment));
    s->qi = scratch_piece(&at, n * dim * sizeof(*s->qi));
    s->p = scratch_piece(&at, n * KV_BLOCK_TOKENS * sizeof(*s->p));
    return at - start;
}

size_t cpu_attention_scratch(const struct backend_limits *limits)
{
    struct attn_scratch s;
    return carve(&s, 0, limits->max_head_dim);
}

/* The first position that a query at `pos` sees. */
static uint32_t first_seen(const struct attn_run *r, uint32_t pos)
{
    const uint32_t window = r->facts->window;
    return window && pos >= window ? pos - window + 1 : 0;
}

/* Segments [first, end) hold what a sequence's rows see. */
static uint32_t seq_first_segment(const struct attn_run *r, const struct batch_seq *seq)
{
    return first_seen(r, seq->pos0) / SEGMENT_TOKENS;
}

static uint32_t seq_end_segment(const struct batch_seq *seq)
{
    return (seq->pos0 + seq->n_rows + SEGMENT_TOKENS - 1) / SEGMENT_TOKENS;
}

static uint32_t seq_segments(const struct attn_run *r, const struct batch_seq *seq)
{
    return seq_end_segment(seq) - seq_first_segment(r, seq);
}

/* The place of a row's segment; `segment` is counted from the sequence's first one. */
static float *partial_of(const struct attn_run *r, uint32_t row, uint32_t head, uint32_t segment)
{
    size_t slot = ((size_t)row * r->n_heads + head) * r->max_segments + segment;
    return r->b->partials + slot * (r->b->limits.max_head_dim + 2);
}

static uint32_t tile_pos(const struct attn_tile *t, uint32_t query)
{
    return t->seq->pos0 + t->row + query / t->n_heads;
}

/* The tile's queries [a, b) see one of the positions from `pos` on, `n` of them. */
struct queries {
    uint32_t a, b;
};

static struct queries queries_at(const struct attn_run *r, const struct attn_tile *t, uint32_t pos, uint32_t n)
{
    const uint32_t first = t->seq->pos0 + t->row, window = r->facts->window;
    struct queries q = { 0, t->n_rows };
    if (pos > first) q.a = pos - first;
    if (window && (uint64_t)pos + n - 1 + window < (uint64_t)first + t->n_rows)
        q.b = pos + n - 1 + window > first ? pos + n - 1 + window - first : 0;
    return (struct queries){ q.a * t->n_heads, q.b * t->n_heads };
}

static void load_queries(const struct attn_run *r, const struct attn_tile *t, struct attn_scratch *s)
{
    const uint32_t dim = r->kv->geom.head_dim;
    for (uint32_t i = 0; i < t->n_rows * t->n_heads; i++) {
        const float *q =
            r->q + (t->seq->row0 + t->row + i / t->n_heads) * r->ld + (size_t)(t->head + i % t->n_heads) * dim;
        if (r->kv->geom.format == KV_INT8)
            s->q_scale[i] = r->b->kernels->q_quantize(s->qi + (size_t)i * dim, q, dim) * r->facts->scale;
        else
            memcpy(s->qf + (size_t)i * dim, q, dim * sizeof(float));
    }
}

/* The tokens of a block that a query sees. */
static struct attn_seen seen_of(const struct attn_run *r, const struct attn_tile *t, uint32_t query, uint32_t block)
{
    const uint32_t pos = tile_pos(t, query), at = block * KV_BLOCK_TOKENS, first = first_seen(r, pos);
    const uint32_t end = pos - at + 1;
    return (struct attn_seen){ first > at ? first - at : 0, end < KV_BLOCK_TOKENS ? end : KV_BLOCK_TOKENS };
}

static void block_int8(const struct attn_run *r, const struct attn_tile *t, struct attn_scratch *s, uint32_t block,
                       struct queries q, uint8_t *slice)
{
    const struct kv_geometry *geom = &r->kv->geom;
    const struct cpu_kernels *k = r->b->kernels;
    const uint32_t dim = geom->head_dim, n = q.b - q.a;
    uint8_t *kp = slice + kv_slice_offset(geom, t->kv_head, false);
    uint8_t *vp = slice + kv_slice_offset(geom, t->kv_head, true);
    k->qk_int8(s->scores, (int8_t *)kp, kv_slice_scales(geom, kp), s->qi + (size_t)q.a * dim, s->q_scale + q.a, n, dim);
    if (r->facts->softcap != 0.0f) k->softcap(s->scores, n * KV_BLOCK_TOKENS, r->facts->softcap);
    for (uint32_t i = 0; i < n; i++)
        s->weights[i] = k->softmax_int8(s->p + (size_t)i * KV_BLOCK_TOKENS, &s->state_segment[q.a + i],
                                        s->scores + (size_t)i * KV_BLOCK_TOKENS, kv_slice_scales(geom, vp),
                                        seen_of(r, t, q.a + i, block));
    k->pv_int8(s->o_segment + (size_t)q.a * dim, (int8_t *)vp, s->p, s->weights, n, dim);
}

static void block_f16(const struct attn_run *r, const struct attn_tile *t, struct attn_scratch *s, uint32_t block,
                      struct queries q, uint8_t *slice)
{
    const struct kv_geometry *geom = &r->kv->geom;
    const struct cpu_kernels *k = r->b->kernels;
    const uint32_t dim = geom->head_dim;
    const uint16_t *kp = (uint16_t *)(void *)(slice + kv_slice_offset(geom, t->kv_head, false));
    const uint16_t *vp = (uint16_t *)(void *)(slice + kv_slice_offset(geom, t->kv_head, true));
    for (uint32_t i = q.a; i < q.b; i++) {
        struct attn_seen seen = seen_of(r, t, i, block);
        k->qk_f16(s->scores, kp, s->qf + (size_t)i * dim, r->facts->scale, dim);
        if (r->facts->softcap != 0.0f) k->softcap(s->scores, KV_BLOCK_TOKENS, r->facts->softcap);
        float alpha = k->softmax_f16(s->scores, &s->state_segment[i], seen);
        k->pv_f16(s->o_segment + (size_t)i * dim, vp, s->scores, alpha, seen, dim);
    }
}

static void end_segment(const struct attn_run *r, const struct attn_tile *t, struct attn_scratch *s, uint32_t segment,
                        uint32_t i)
{
    const uint32_t dim = r->kv->geom.head_dim;
    const float *o = s->o_segment + (size_t)i * dim;
    const struct attn_state *state = &s->state_segment[i];
    if (r->split) {
        uint32_t row = t->seq->row0 + t->row + i / t->n_heads;
        float *slot = partial_of(r, row, t->head + i % t->n_heads, segment - seq_first_segment(r, t->seq));
        memcpy(slot, state, sizeof(*state));
        memcpy(slot + 2, o, dim * sizeof(float));
    } else if (segment == first_seen(r, tile_pos(t, i)) / SEGMENT_TOKENS) {
        s->state[i] = *state;
        memcpy(s->o + (size_t)i * dim, o, dim * sizeof(float));
    } else {
        r->b->kernels->merge(s->o + (size_t)i * dim, &s->state[i], o, state, dim);
    }
}

static void run_segment(const struct attn_run *r, const struct attn_tile *t, struct attn_scratch *s, uint32_t segment)
{
    const uint32_t dim = r->kv->geom.head_dim;
    const uint32_t last = tile_pos(t, t->n_rows * t->n_heads - 1) / KV_BLOCK_TOKENS;
    const struct queries all = queries_at(r, t, segment * SEGMENT_TOKENS, SEGMENT_TOKENS);
    if (all.a >= all.b) return;
    for (uint32_t i = all.a; i < all.b; i++) s->state_segment[i] = (struct attn_state){ -INFINITY, 0 };
    memset(s->o_segment + (size_t)all.a * dim, 0, (size_t)(all.b - all.a) * dim * sizeof(float));
    for (uint32_t j = 0; j < ATTN_SEGMENT_BLOCKS; j++) {
        uint32_t block = segment * ATTN_SEGMENT_BLOCKS + j;
        if (block > last) break;
        struct queries q = queries_at(r, t, block * KV_BLOCK_TOKENS, KV_BLOCK_TOKENS);
        if (q.a >= q.b) continue; /* before all windows: its id is no block's */
        uint8_t *slice = r->kv->base + seq_blocks(t->seq, r->kv)[block] * r->kv->stride;
        if (r->kv->geom.format == KV_INT8)
            block_int8(r, t, s, block, q, slice);
        else
            block_f16(r, t, s, block, q, slice);
    }
    for (uint32_t i = all.a; i < all.b; i++) end_segment(r, t, s, segment, i);
}

static float *output_of(const struct attn_run *r, uint32_t row, uint32_t head)
{
    return r->out->f + (size_t)row * r->out->k + (size_t)head * r->kv->geom.head_dim;
}

/* A sink is one more segment: of one position whose value is zero. */
static void finish(const struct attn_run *r, float *out, float *o, struct attn_state *state, uint32_t head)
{
    static const float nothing[512];
    const struct cpu_kernels *k = r->b->kernels;
    const uint32_t dim = r->kv->geom.head_dim;
    if (r->facts->sinks) k->merge(o, state, nothing, &(struct attn_state){ r->facts->sinks[head], 1.0f }, dim);
    k->finish(out, o, state, dim);
}

static void run_tile(const struct attn_run *r, const struct attn_tile *t, struct attn_scratch *s)
{
    const uint32_t dim = r->kv->geom.head_dim;
    load_queries(r, t, s);
    for (uint32_t segment = t->segment; segment < t->end; segment++) run_segment(r, t, s, segment);
    if (r->split) return;
    for (uint32_t i = 0; i < t->n_rows * t->n_heads; i++) {
        const uint32_t row = t->seq->row0 + t->row + i / t->n_heads, head = t->head + i % t->n_heads;
        finish(r, output_of(r, row, head), s->o + (size_t)i * dim, &s->state[i], head);
    }
}

static uint32_t seq_items(const struct attn_run *r, const struct batch_seq *seq)
{
    uint32_t tiles = (seq->n_rows + r->tile_rows - 1) / r->tile_rows * r->chunks * r->kv->geom.n_kv_heads;
    return r->split ? tiles * seq_segments(r, seq) : tiles;
}

/* Chunk `chunk` of the tile's kv head: what of it q has, none if it ends before or begins after. */
static void take_heads(const struct attn_run *r, struct attn_tile *t, uint32_t chunk)
{
    const uint32_t whole = (t->kv_head + 1) * r->group;
    uint32_t begin = t->kv_head * r->group + chunk * r->tile_heads, end = begin + r->tile_heads;
    if (end > whole) end = whole;
    begin = begin > r->first ? begin - r->first : 0;
    end = end > r->first ? end - r->first : 0;
    if (end > r->n_heads) end = r->n_heads;
    t->head = begin;
    t->n_heads = end > begin ? end - begin : 0;
}

/* Item `i` of a sequence; the longest contexts come first. */
static struct attn_tile tile_of(const struct attn_run *r, const struct batch_seq *seq, uint32_t i)
{
    struct attn_tile t = { .seq = seq, .segment = seq_first_segment(r, seq), .end = seq_end_segment(seq) };
    uint32_t row_tiles = (seq->n_rows + r->tile_rows - 1) / r->tile_rows;
    if (r->split) {
        const uint32_t n = t.end - t.segment;
        t.segment += i % n;
        i /= n;
        t.end = t.segment + 1;
    }
    uint32_t chunk = i % r->chunks, row_tile = row_tiles - 1 - i / r->chunks / r->kv->geom.n_kv_heads;
    t.kv_head = i / r->chunks % r->kv->geom.n_kv_heads;
    t.row = row_tile * r->tile_rows;
    t.n_rows = seq->n_rows - t.row < r->tile_rows ? seq->n_rows - t.row : r->tile_rows;
    take_heads(r, &t, chunk);
    return t;
}

static void attention_member(void *arg, uint32_t idx, uint32_t n)
{
    struct attn_run *r = arg;
    struct attn_scratch s;
    uint32_t seq = 0, before = 0; /* items of the sequences before `seq` */
    carve(&s, (uintptr_t)scratch_of(r->b, idx), r->b->limits.max_head_dim);
    for (;;) {
        uint32_t item = atomic_fetch_add_explicit(&r->next, 1, memory_order_relaxed);
        if (item >= r->items) return;
        for (uint32_t own; item - before >= (own = seq_items(r, &r->batch->seqs[seq])); seq++) before += own;
        struct attn_tile t = tile_of(r, &r->batch->seqs[seq], item - before);
        if (t.n_heads > 0) run_tile(r, &t, &s);
    }
}

static void merge_row(const struct attn_run *r, const struct batch_seq *seq, uint32_t row)
{
    const uint32_t pos = seq->pos0 + (row - seq->row0), dim = r->kv->geom.head_dim;
    const uint32_t base = seq_first_segment(r, seq), begin = first_seen(r, pos) / SEGMENT_TOKENS - base;
    for (uint32_t head = 0; head < r->n_heads; head++) {
        float *first = partial_of(r, row, head, begin);
        struct attn_state state, next;
        memcpy(&state, first, sizeof(state));
        for (uint32_t segment = begin + 1; segment <= pos / SEGMENT_TOKENS - base; segment++) {
            const float *slot = partial_of(r, row, head, segment);
            memcpy(&next, slot, sizeof(next));
            r->b->kernels->merge(first + 2, &state, slot + 2, &next, dim);
        }
        finish(r, output_of(r, row, head), first + 2, &state, head);
    }
}

static void finish_rows(void *arg, uint32_t row0, uint32_t row1, uint32_t member)
{
    const struct attn_run *r = arg;
    for (uint32_t i = 0; r->split && i < r->batch->n_seqs; i++) {
        const struct batch_seq *seq = &r->batch->seqs[i];
        uint32_t a = seq->row0 > row0 ? seq->row0 : row0;
        uint32_t b = seq->row0 + seq->n_rows < row1 ? seq->row0 + seq->n_rows : row1;
        for (; a < b; a++) merge_row(r, seq, a);
    }
    cpu_quantize_rows(r->b, r->out, row0, row1, member);
}

static uint32_t count_items(const struct attn_run *r)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->batch->n_seqs; i++) n += seq_items(r, &r->batch->seqs[i]);
    return n;
}

static void plan(struct attn_run *r)
{
    const uint32_t members = team_size(r->b->team);
    r->tile_heads = r->group < TILE_HEADS ? r->group : TILE_HEADS;
    r->chunks = (r->group + r->tile_heads - 1) / r->tile_heads;
    r->tile_rows = ATTN_TILE_QUERIES / r->tile_heads;
    r->max_segments = 0;
    for (uint32_t i = 0; i < r->batch->n_seqs; i++) {
        uint32_t n = seq_segments(r, &r->batch->seqs[i]);
        if (n > r->max_segments) r->max_segments = n;
    }
    r->items = count_items(r);
    r->split = members > 1 && r->max_segments > 1 && r->items < 4 * members &&
               (size_t)r->batch->n_rows * r->n_heads * r->max_segments <= r->b->n_partials;
    if (r->split) r->items = count_items(r);
}

enum status cpu_attention(struct backend *backend, struct stream *stream, struct act *out, const float *q, size_t ld,
                          uint32_t n_heads, const struct kv_slices *kv, const struct attn_facts *facts,
                          const struct step *step)
{
    struct cpu_backend *b = cpu_of(backend);
    struct attn_run run = {
        .b = b, .out = out, .q = q, .ld = ld, .n_heads = n_heads, .kv = kv, .facts = facts, .batch = step->batch
    };
    const uint32_t n_kv = kv->geom.n_kv_heads;
    run.group = facts->group ? facts->group : n_heads / n_kv;
    run.first = facts->first;
    if (!facts->causal) return ERR_UNSUPPORTED;
    assert(kv_slice_dim_ok(kv->geom.head_dim) && kv->geom.head_dim <= b->limits.max_head_dim);
    assert(run.first < run.group && (run.first + n_heads + run.group - 1) / run.group == n_kv);
    assert((facts->group || n_heads % n_kv == 0) && out->k == n_heads * kv->geom.head_dim);
    plan(&run);
    team_share(b->team, attention_member, &run);
    cpu_for_rows(b, step->batch->n_rows, ACT_TILE, finish_rows, &run);
    return OK;
}
