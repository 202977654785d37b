/* deferred_backend.c - queues in front of the CPU backend. */
#include "helpers/deferred_backend.h"

#include "base/mem.h"
#include "helpers/deferred_internal.h"

#include <string.h>

static struct stream *stream_of(struct deferred *d, struct stream *s)
{
    return s ? s : &d->own;
}

enum status deferred_enqueue(struct backend *b, struct stream *s, const struct call *call)
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

enum status deferred_sync(struct backend *b, struct stream *s)
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
    return deferred_enqueue(b, s, &(struct call){ .run = run_copy, .dst = dst, .bytes = copy, .n_bytes = bytes });
}

static enum status deferred_copy(struct backend *b, struct stream *s, void *dst, const void *src, size_t bytes)
{
    return deferred_enqueue(b, s, &(struct call){ .run = run_copy, .dst = dst, .src = src, .n_bytes = bytes });
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
        deferred_copy_free(c);
    }
    backend_close(d->cpu);
    pthread_mutex_destroy(&d->lock);
    mem_free(d);
}

static struct backend_ops deferred_ops = {
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
};

struct backend *deferred_backend_create(struct backend *cpu)
{
    struct deferred *d = mem_zalloc(sizeof(*d));
    deferred_set_ops(&deferred_ops);
    deferred_set_family_ops(&deferred_ops);
    deferred_set_state_ops(&deferred_ops);
    d->base.ops = &deferred_ops;
    d->base.caps = cpu->caps;
    d->base.caps.host_memory = false;
    d->base.caps.embed_types &= ~((uint64_t)1 << DTYPE_Q4_0);
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
