/* deferred_backend.c - queues in front of the CPU backend. */
#include "helpers/deferred_backend.h"

#include "base/mem.h"

#include <pthread.h>
#include <string.h>

struct deferred;

/* What an op was called with; each op reads its own. */
struct call {
    enum status (*run)(struct backend *cpu, const struct call *c);
    struct call *next;
    void *dst;
    const void *src;
    uint8_t *bytes; /* owned copy of src */
    size_t n_bytes, ld, k_off, v_off, stride;
    struct act act;
    struct weight weight;
    struct embedding table;
    struct kv_slices kv;
    struct rope_params rope;
    struct attn_facts facts;
    struct step step;
    const float *a, *b;
    enum dtype type;
    uint32_t n, cols, n_heads, first;
    float eps;
    bool accumulate;
};

struct stream {
    struct call *head, **tail;
    uint64_t enqueued, done;
    enum status failed; /* the first failure: told to whoever waits */
};

/* A batch as it was when its step began. */
struct copy {
    struct batch batch;
    struct step inner; /* of the CPU backend, once the queue has come so far */
    struct copy *next;
};

struct deferred {
    struct backend base; /* first */
    struct backend *cpu;
    struct stream own; /* stream NULL */
    struct copy *copies;
    pthread_mutex_t lock;
    uint32_t pending, waits, marks;
};

static struct deferred *of(const struct backend *b)
{
    return (struct deferred *)(uintptr_t)b;
}

static struct stream *stream_of(struct deferred *d, struct stream *s)
{
    return s ? s : &d->own;
}

static enum status enqueue(struct backend *b, struct stream *s, const struct call *call)
{
    struct deferred *d = of(b);
    struct call *c = mem_alloc(sizeof(*c));
    *c = *call;
    c->next = NULL;
    pthread_mutex_lock(&d->lock);
    s = stream_of(d, s);
    *s->tail = c;
    s->tail = &c->next;
    s->enqueued++;
    d->pending++;
    pthread_mutex_unlock(&d->lock);
    return OK;
}

static void run_until(struct deferred *d, struct stream *s, uint64_t at)
{
    while (s->done < at) {
        struct call *c = s->head;
        enum status st = c->run(d->cpu, c);
        if (s->failed == OK) s->failed = st;
        s->head = c->next;
        if (!s->head) s->tail = &s->head;
        s->done++;
        d->pending--;
        mem_free(c->bytes);
        mem_free(c);
    }
}

/* --- waiting --- */
static enum status deferred_stream_open(struct backend *b, struct stream **out)
{
    struct stream *s = mem_zalloc(sizeof(*s));
    s->tail = &s->head;
    *out = s;
    return OK;
}

static enum status wait_until(struct deferred *d, struct stream *s, uint64_t at)
{
    pthread_mutex_lock(&d->lock);
    s = stream_of(d, s);
    if (at > s->enqueued) at = s->enqueued;
    d->waits += s->done < at;
    run_until(d, s, at);
    enum status st = s->failed;
    s->failed = OK;
    pthread_mutex_unlock(&d->lock);
    return st;
}

static enum status deferred_sync(struct backend *b, struct stream *s)
{
    return wait_until(of(b), s, UINT64_MAX);
}

static void deferred_stream_close(struct backend *b, struct stream *s)
{
    if (!s) return;
    (void)deferred_sync(b, s);
    mem_free(s);
}

static enum status deferred_mark_record(struct backend *b, struct stream *s, struct mark *out)
{
    struct deferred *d = of(b);
    pthread_mutex_lock(&d->lock);
    *out = (struct mark){ b, s, stream_of(d, s)->enqueued };
    d->marks++;
    pthread_mutex_unlock(&d->lock);
    return OK;
}

static enum status deferred_mark_wait(struct backend *b, const struct mark *m)
{
    return wait_until(of(b), m->stream, m->at);
}

static bool deferred_mark_done(struct backend *b, const struct mark *m)
{
    struct deferred *d = of(b);
    pthread_mutex_lock(&d->lock);
    bool done = stream_of(d, m->stream)->done >= m->at;
    pthread_mutex_unlock(&d->lock);
    return done;
}

/* --- memory --- */
static enum status deferred_alloc(struct backend *b, size_t bytes, void **out)
{
    return of(b)->cpu->ops->alloc(of(b)->cpu, bytes, out);
}

static void deferred_release(struct backend *b, void *p, size_t bytes)
{
    of(b)->cpu->ops->release(of(b)->cpu, p, bytes);
}

static enum status run_copy(struct backend *cpu, const struct call *c)
{
    if (c->n_bytes) memcpy(c->dst, c->bytes ? c->bytes : c->src, c->n_bytes);
    return OK;
}

/* The source is the caller's again when this returns. */
static enum status deferred_upload(struct backend *b, struct stream *s, void *dst, const void *src, size_t bytes)
{
    uint8_t *copy = mem_alloc(bytes ? bytes : 1);
    if (bytes) memcpy(copy, src, bytes);
    return enqueue(b, s, &(struct call){ .run = run_copy, .dst = dst, .bytes = copy, .n_bytes = bytes });
}

static enum status deferred_copy(struct backend *b, struct stream *s, void *dst, const void *src, size_t bytes)
{
    return enqueue(b, s, &(struct call){ .run = run_copy, .dst = dst, .src = src, .n_bytes = bytes });
}

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
    return enqueue(
        b, s,
        &(struct call){
            .run = run_pack, .dst = dst, .type = type, .n = n_rows, .cols = n_cols, .src = src, .stride = src_stride });
}

static size_t deferred_act_bytes(struct backend *b, uint32_t n, uint32_t k, enum precision precision)
{
    return of(b)->cpu->ops->act_bytes(of(b)->cpu, n, k, precision);
}

/* --- a step --- */
static void copy_free(struct copy *c)
{
    for (uint32_t i = 0; i < c->batch.n_seqs; i++) mem_free((void *)(uintptr_t)c->batch.seqs[i].blocks);
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
    for (uint32_t i = 0; i < batch->n_seqs; i++)
        seqs[i].blocks = copy_of(seqs[i].blocks, seqs[i].n_blocks, sizeof(uint32_t));
    *out = (struct step){ .batch = &c->batch, .device = c };
    for (uint32_t i = 0; i < batch->n_seqs; i++) out->n_logits += seqs[i].n_logits;
    c->batch = *batch;
    c->batch.seqs = seqs;
    c->batch.tokens = copy_of(batch->tokens, batch->n_rows, sizeof(int32_t));
    c->next = d->copies;
    d->copies = c;
    return enqueue(b, s, &(struct call){ .run = run_step_begin, .step = *out });
}

static enum status run_embed(struct backend *cpu, const struct call *c)
{
    return cpu->ops->embed(cpu, NULL, c->dst, &c->table, step_of(c));
}

static enum status deferred_embed(struct backend *b, struct stream *s, float *out, const struct embedding *table,
                                  const struct step *step)
{
    return enqueue(b, s, &(struct call){ .run = run_embed, .dst = out, .table = *table, .step = *step });
}

static enum status run_gather(struct backend *cpu, const struct call *c)
{
    return cpu->ops->gather_rows(cpu, NULL, c->dst, c->a, c->cols, step_of(c), c->first, c->n);
}

static enum status deferred_gather_rows(struct backend *b, struct stream *s, float *out, const float *x, uint32_t k,
                                        const struct step *step, uint32_t first, uint32_t n)
{
    return enqueue(
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
    return enqueue(b, s, &(struct call){ .run = run_rmsnorm, .act = *out, .a = x, .b = w, .eps = eps });
}

static enum status run_swiglu(struct backend *cpu, const struct call *c)
{
    struct act out = c->act;
    return cpu->ops->swiglu(cpu, NULL, &out, c->a, c->b, c->ld);
}

static enum status deferred_swiglu(struct backend *b, struct stream *s, struct act *out, const float *gate,
                                   const float *up, size_t ld)
{
    return enqueue(b, s, &(struct call){ .run = run_swiglu, .act = *out, .a = gate, .b = up, .ld = ld });
}

static enum status run_quantize(struct backend *cpu, const struct call *c)
{
    struct act out = c->act;
    return cpu->ops->quantize(cpu, NULL, &out);
}

static enum status deferred_quantize(struct backend *b, struct stream *s, struct act *out)
{
    return enqueue(b, s, &(struct call){ .run = run_quantize, .act = *out });
}

static enum status run_matmul(struct backend *cpu, const struct call *c)
{
    return cpu->ops->matmul(cpu, NULL, c->dst, c->ld, &c->weight, &c->act, c->accumulate);
}

static enum status deferred_matmul(struct backend *b, struct stream *s, float *y, size_t ld, const struct weight *w,
                                   const struct act *x, bool accumulate)
{
    return enqueue(
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
    return enqueue(b, s, &(struct call){ .run = run_add_bias, .dst = y, .ld = ld, .a = bias, .n = n, .cols = cols });
}

static enum status run_rope(struct backend *cpu, const struct call *c)
{
    return cpu->ops->rope(cpu, NULL, c->dst, c->ld, c->n_heads, &c->kv.geom, &c->rope, step_of(c));
}

static enum status deferred_rope(struct backend *b, struct stream *s, float *x, size_t ld, uint32_t n_heads,
                                 const struct kv_geometry *geom, const struct rope_params *rope,
                                 const struct step *step)
{
    return enqueue(b, s,
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
    return enqueue(b, s, &(struct call){ .run = run_kv_write, .a = k, .b = v, .ld = ld, .kv = *kv, .step = *step });
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
    return enqueue(b, s,
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

/* --- life --- */
static const char *deferred_describe(const struct backend *b)
{
    return backend_describe(of(b)->cpu);
}

static void deferred_close(struct backend *b)
{
    struct deferred *d = of(b);
    (void)deferred_sync(b, NULL);
    for (struct copy *c = d->copies, *next; c; c = next) {
        next = c->next;
        copy_free(c);
    }
    backend_close(d->cpu);
    pthread_mutex_destroy(&d->lock);
    mem_free(d);
}

static const struct backend_ops deferred_ops = {
    .name = "deferred",
    .close = deferred_close,
    .describe = deferred_describe,
    .alloc = deferred_alloc,
    .release = deferred_release,
    .stream_open = deferred_stream_open,
    .stream_close = deferred_stream_close,
    .mark_record = deferred_mark_record,
    .mark_wait = deferred_mark_wait,
    .mark_done = deferred_mark_done,
    .sync = deferred_sync,
    .upload = deferred_upload,
    .download = deferred_copy,
    .copy = deferred_copy,
    .weight_bytes = deferred_weight_bytes,
    .weight_pack = deferred_weight_pack,
    .act_bytes = deferred_act_bytes,
    .step_begin = deferred_step_begin,
    .embed = deferred_embed,
    .gather_rows = deferred_gather_rows,
    .rmsnorm = deferred_rmsnorm,
    .swiglu = deferred_swiglu,
    .quantize = deferred_quantize,
    .matmul = deferred_matmul,
    .add_bias = deferred_add_bias,
    .rope = deferred_rope,
    .kv_write = deferred_kv_write,
    .attention = deferred_attention,
    .kv_slice_bytes = deferred_kv_slice_bytes,
    .host_alloc = deferred_host_alloc,
    .host_free = deferred_host_free,
    .kv_pack = deferred_kv_pack,
    .kv_unpack = deferred_kv_unpack,
};

struct backend *deferred_backend_create(struct backend *cpu)
{
    struct deferred *d = mem_zalloc(sizeof(*d));
    d->base.ops = &deferred_ops;
    d->base.caps = cpu->caps;
    d->base.caps.host_memory = false;
    d->base.caps.row_quantum = 2 * cpu->caps.row_quantum;
    d->cpu = cpu;
    d->own.tail = &d->own.head;
    pthread_mutex_init(&d->lock, NULL);
    return &d->base;
}

uint32_t deferred_backend_pending(struct backend *b)
{
    struct deferred *d = of(b);
    pthread_mutex_lock(&d->lock);
    uint32_t n = d->pending;
    pthread_mutex_unlock(&d->lock);
    return n;
}

uint32_t deferred_backend_waits(struct backend *b)
{
    struct deferred *d = of(b);
    pthread_mutex_lock(&d->lock);
    uint32_t n = d->waits;
    pthread_mutex_unlock(&d->lock);
    return n;
}

uint32_t deferred_backend_marks(struct backend *b)
{
    struct deferred *d = of(b);
    pthread_mutex_lock(&d->lock);
    uint32_t n = d->marks;
    pthread_mutex_unlock(&d->lock);
    return n;
}
