/* deferred_ops.c - the ops of every family, put into a stream with what they were called with. */
#include "base/mem.h"
#include "helpers/deferred_internal.h"

#include <string.h>

/* --- weights --- */
static enum status deferred_weight_bytes(struct backend *b, enum dtype type, uint32_t n_rows, uint32_t n_cols,
                                         size_t *out)
{
    return of(b)->cpu->ops->weight_bytes(of(b)->cpu, type, n_rows, n_cols, out);
}

static enum status run_pack(struct backend *cpu, const struct call *c)
{
    return cpu->ops->weight_pack(cpu, NULL, c->dst, c->type, c->n, c->cols, c->src, c->stride);
}

static enum status deferred_weight_pack(struct backend *b, struct stream *s, void *dst, enum dtype type,
                                        uint32_t n_rows, uint32_t n_cols, const void *src, size_t src_stride)
{
    return deferred_enqueue(
        b, s,
        &(struct call){
            .run = run_pack, .dst = dst, .type = type, .n = n_rows, .cols = n_cols, .src = src, .stride = src_stride });
}

static size_t deferred_act_bytes(struct backend *b, uint32_t n, uint32_t k, enum precision precision)
{
    return of(b)->cpu->ops->act_bytes(of(b)->cpu, n, k, precision);
}

/* --- a step --- */
void deferred_copy_free(struct copy *c)
{
    for (uint32_t i = 0; i < c->batch.n_seqs; i++) {
        mem_free((void *)(uintptr_t)c->batch.seqs[i].blocks);
        mem_free((void *)(uintptr_t)c->batch.seqs[i].window_blocks);
    }
    mem_free((void *)(uintptr_t)c->batch.seqs);
    mem_free((void *)(uintptr_t)c->batch.tokens);
    mem_free(c);
}

static void *copy_of(const void *p, size_t n, size_t size)
{
    void *q = mem_array(n ? n : 1, size);
    if (n) memcpy(q, p, n * size);
    return q;
}

static enum status run_step_begin(struct backend *cpu, const struct call *c)
{
    struct copy *copy = c->step.device;
    return cpu->ops->step_begin(cpu, NULL, &copy->batch, &copy->inner);
}

/* The CPU backend's view of the call's step. */
static const struct step *step_of(const struct call *c)
{
    return &((const struct copy *)c->step.device)->inner;
}

static enum status deferred_step_begin(struct backend *b, struct stream *s, const struct batch *batch, struct step *out)
{
    struct deferred *d = of(b);
    struct copy *c = mem_zalloc(sizeof(*c));
    struct batch_seq *seqs = copy_of(batch->seqs, batch->n_seqs, sizeof(*seqs));
    for (uint32_t i = 0; i < batch->n_seqs; i++) {
        const uint32_t *windows = seqs[i].window_blocks;
        seqs[i].blocks = copy_of(seqs[i].blocks, seqs[i].n_blocks, sizeof(uint32_t));
        if (windows) seqs[i].window_blocks = copy_of(windows, seqs[i].n_blocks, sizeof(uint32_t));
    }
    *out = (struct step){ .batch = &c->batch, .device = c };
    for (uint32_t i = 0; i < batch->n_seqs; i++) out->n_logits += seqs[i].n_logits;
    c->batch = *batch;
    c->batch.seqs = seqs;
    c->batch.tokens = copy_of(batch->tokens, batch->n_rows, sizeof(int32_t));
    c->next = d->copies;
    d->copies = c;
    return deferred_enqueue(b, s, &(struct call){ .run = run_step_begin, .step = *out });
}

static enum status run_embed(struct backend *cpu, const struct call *c)
{
    return cpu->ops->embed(cpu, NULL, c->dst, &c->table, step_of(c));
}

static enum status deferred_embed(struct backend *b, struct stream *s, float *out, const struct embedding *table,
                                  const struct step *step)
{
    return deferred_enqueue(b, s, &(struct call){ .run = run_embed, .dst = out, .table = *table, .step = *step });
}

static enum status run_gather(struct backend *cpu, const struct call *c)
{
    return cpu->ops->gather_rows(cpu, NULL, c->dst, c->a, c->cols, step_of(c), c->first, c->n);
}

static enum status deferred_gather_rows(struct backend *b, struct stream *s, float *out, const float *x, uint32_t k,
                                        const struct step *step, uint32_t first, uint32_t n)
{
    return deferred_enqueue(
        b, s,
        &(struct call){ .run = run_gather, .dst = out, .a = x, .cols = k, .step = *step, .first = first, .n = n });
}

static enum status run_rmsnorm(struct backend *cpu, const struct call *c)
{
    struct act out = c->act;
    return cpu->ops->rmsnorm(cpu, NULL, &out, c->a, c->b, c->eps);
}

static enum status deferred_rmsnorm(struct backend *b, struct stream *s, struct act *out, const float *x,
                                    const float *w, float eps)
{
    return deferred_enqueue(b, s, &(struct call){ .run = run_rmsnorm, .act = *out, .a = x, .b = w, .eps = eps });
}

static enum status run_glu(struct backend *cpu, const struct call *c)
{
    struct act out = c->act;
    return cpu->ops->glu(cpu, NULL, &out, c->a, c->b, c->ld, c->kind);
}

static enum status deferred_glu(struct backend *b, struct stream *s, struct act *out, const float *gate,
                                const float *up, size_t ld, enum glu_kind kind)
{
    return deferred_enqueue(b, s,
                            &(struct call){ .run = run_glu, .act = *out, .a = gate, .b = up, .ld = ld, .kind = kind });
}

static enum status run_quantize(struct backend *cpu, const struct call *c)
{
    struct act out = c->act;
    return cpu->ops->quantize(cpu, NULL, &out);
}

static enum status deferred_quantize(struct backend *b, struct stream *s, struct act *out)
{
    return deferred_enqueue(b, s, &(struct call){ .run = run_quantize, .act = *out });
}

static enum status run_matmul(struct backend *cpu, const struct call *c)
{
    return cpu->ops->matmul(cpu, NULL, c->dst, c->ld, &c->weight, &c->act, c->accumulate);
}

static enum status deferred_matmul(struct backend *b, struct stream *s, float *y, size_t ld, const struct weight *w,
                                   const struct act *x, bool accumulate)
{
    return deferred_enqueue(
        b, s,
        &(struct call){ .run = run_matmul, .dst = y, .ld = ld, .weight = *w, .act = *x, .accumulate = accumulate });
}

static enum status run_add_bias(struct backend *cpu, const struct call *c)
{
    return cpu->ops->add_bias(cpu, NULL, c->dst, c->ld, c->a, c->n, c->cols);
}

static enum status deferred_add_bias(struct backend *b, struct stream *s, float *y, size_t ld, const float *bias,
                                     uint32_t n, uint32_t cols)
{
    return deferred_enqueue(b, s,
                            &(struct call){ .run = run_add_bias, .dst = y, .ld = ld, .a = bias, .n = n, .cols = cols });
}

static enum status run_rope(struct backend *cpu, const struct call *c)
{
    return cpu->ops->rope(cpu, NULL, c->dst, c->ld, c->n_heads, &c->kv.geom, &c->rope, step_of(c));
}

static enum status deferred_rope(struct backend *b, struct stream *s, float *x, size_t ld, uint32_t n_heads,
                                 const struct kv_geometry *geom, const struct rope_params *rope,
                                 const struct step *step)
{
    return deferred_enqueue(b, s,
                            &(struct call){ .run = run_rope,
                                            .dst = x,
                                            .ld = ld,
                                            .n_heads = n_heads,
                                            .kv = { .geom = *geom },
                                            .rope = *rope,
                                            .step = *step });
}

static enum status run_kv_write(struct backend *cpu, const struct call *c)
{
    return cpu->ops->kv_write(cpu, NULL, c->a, c->b, c->ld, &c->kv, step_of(c));
}

static enum status deferred_kv_write(struct backend *b, struct stream *s, const float *k, const float *v, size_t ld,
                                     const struct kv_slices *kv, const struct step *step)
{
    return deferred_enqueue(b, s,
                            &(struct call){ .run = run_kv_write, .a = k, .b = v, .ld = ld, .kv = *kv, .step = *step });
}

static enum status run_attention(struct backend *cpu, const struct call *c)
{
    struct act out = c->act;
    return cpu->ops->attention(cpu, NULL, &out, c->a, c->ld, c->n_heads, &c->kv, &c->facts, step_of(c));
}

static enum status deferred_attention(struct backend *b, struct stream *s, struct act *out, const float *q, size_t ld,
                                      uint32_t n_heads, const struct kv_slices *kv, const struct attn_facts *facts,
                                      const struct step *step)
{
    return deferred_enqueue(b, s,
                            &(struct call){ .run = run_attention,
                                            .act = *out,
                                            .a = q,
                                            .ld = ld,
                                            .n_heads = n_heads,
                                            .kv = *kv,
                                            .facts = *facts,
                                            .step = *step });
}

/* --- kv --- */
static size_t deferred_kv_slice_bytes(struct backend *b, const struct kv_geometry *geom)
{
    return of(b)->cpu->ops->kv_slice_bytes(of(b)->cpu, geom);
}

static enum status deferred_host_alloc(struct backend *b, size_t bytes, void **out)
{
    return of(b)->cpu->ops->host_alloc(of(b)->cpu, bytes, out);
}

static void deferred_host_free(struct backend *b, void *p, size_t bytes)
{
    of(b)->cpu->ops->host_free(of(b)->cpu, p, bytes);
}

/* They wait for their own stream's work, and for that of no other. */
static enum status deferred_kv_pack(struct backend *b, struct stream *s, const struct kv_slices *layers,
                                    const struct kv_piece *pieces, uint32_t n, uint8_t *wire)
{
    enum status st = deferred_sync(b, s);
    return st == OK ? of(b)->cpu->ops->kv_pack(of(b)->cpu, NULL, layers, pieces, n, wire) : st;
}

static enum status deferred_kv_unpack(struct backend *b, struct stream *s, const struct kv_slices *layers,
                                      const struct kv_piece *pieces, uint32_t n, const uint8_t *wire)
{
    enum status st = deferred_sync(b, s);
    return st == OK ? of(b)->cpu->ops->kv_unpack(of(b)->cpu, NULL, layers, pieces, n, wire) : st;
}

/* --- sampling --- */
static enum status run_pick(struct backend *cpu, const struct call *c)
{
    return cpu->ops->pick(cpu, NULL, (float *)(uintptr_t)c->a, c->cols, c->n, (const void *)c->bytes, c->dst);
}

static enum status deferred_pick(struct backend *b, struct stream *s, float *logits, uint32_t n_vocab, uint32_t n,
                                 const struct pick_row *rows, struct picked *out)
{
    struct call c = { .run = run_pick, .dst = out, .a = logits, .cols = n_vocab, .n = n };
    c.bytes = mem_array(n, sizeof(*rows));
    memcpy(c.bytes, rows, n * sizeof(*rows));
    return deferred_enqueue(b, s, &c);
}

static enum status run_weigh(struct backend *cpu, const struct call *c)
{
    return cpu->ops->weigh(cpu, NULL, c->dst, c->n, c->top, c->factor);
}

static enum status deferred_weigh(struct backend *b, struct stream *s, float *x, uint32_t n, float top,
                                  float temperature)
{
    return deferred_enqueue(b, s,
                            &(struct call){ .run = run_weigh, .dst = x, .n = n, .top = top, .factor = temperature });
}

void deferred_set_ops(struct backend_ops *ops)
{
    ops->weight_bytes = deferred_weight_bytes;
    ops->weight_pack = deferred_weight_pack;
    ops->act_bytes = deferred_act_bytes;
    ops->step_begin = deferred_step_begin;
    ops->embed = deferred_embed;
    ops->gather_rows = deferred_gather_rows;
    ops->rmsnorm = deferred_rmsnorm;
    ops->glu = deferred_glu;
    ops->quantize = deferred_quantize;
    ops->matmul = deferred_matmul;
    ops->add_bias = deferred_add_bias;
    ops->rope = deferred_rope;
    ops->kv_write = deferred_kv_write;
    ops->attention = deferred_attention;
    ops->kv_slice_bytes = deferred_kv_slice_bytes;
    ops->host_alloc = deferred_host_alloc;
    ops->host_free = deferred_host_free;
    ops->kv_pack = deferred_kv_pack;
    ops->kv_unpack = deferred_kv_unpack;
    ops->pick = deferred_pick;
    ops->weigh = deferred_weigh;
}
