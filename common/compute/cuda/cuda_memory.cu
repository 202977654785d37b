/* cuda_memory.cu - the device's memory, pinned host memory, streams and the marks in them. */
#include "compute/cuda/cuda_internal.h"

extern "C" {
#include "base/log.h"
}

enum status cuda_check(struct backend *b, cudaError_t e, const char *what)
{
    if (e == cudaSuccess) return OK;
    if (e == cudaErrorMemoryAllocation) return ERR_NO_MEMORY;
    struct cuda_backend *cuda = cuda_of(b);
    if (__atomic_exchange_n(&cuda->broken, 1, __ATOMIC_RELAXED) == 0) /* all fails from now on: one line tells why */
        log_error("device_failed", "device=%d call=%s error=%s text=%s", cuda->device, what, cudaGetErrorName(e),
                  log_quote(cudaGetErrorString(e)));
    return ERR_INTERNAL;
}

bool cuda_failed(const struct backend *b)
{
    return __atomic_load_n(&((const struct cuda_backend *)b)->broken, __ATOMIC_RELAXED) != 0;
}

/* --- memory --- */
static void count(struct backend *b, size_t bytes, bool taken)
{
    uint64_t *n = &cuda_of(b)->taken;
    taken ? __atomic_add_fetch(n, bytes, __ATOMIC_RELAXED) : __atomic_sub_fetch(n, bytes, __ATOMIC_RELAXED);
}

/* What may be taken is a promise to others on the card, so it is kept here, whoever asks. */
static enum status take(struct backend *b, size_t bytes, void **out)
{
    struct cuda_backend *cuda = cuda_of(b);
    cuda_enter(b);
    if (bytes > cuda->may_take || __atomic_load_n(&cuda->taken, __ATOMIC_RELAXED) > cuda->may_take - bytes)
        return ERR_NO_MEMORY;
    const enum status st = cuda_check(b, cudaMalloc(out, bytes), "cudaMalloc");
    if (st == OK)
        count(b, bytes, true);
    else
        cudaGetLastError(); /* a refusal is no failure of what comes next */
    return st;
}

enum status cuda_alloc(struct backend *b, size_t bytes, void **out)
{
    const size_t size = bytes ? bytes : 1;
    enum status st = take(b, size, out);
    if (st != OK) return st;
    st = cuda_check(b, cudaMemsetAsync(*out, 0, size, cuda_of(b)->main.cu), "cudaMemset");
    if (st == OK) st = cuda_check(b, cudaStreamSynchronize(cuda_of(b)->main.cu), "cudaMemset");
    if (st != OK) cuda_release(b, *out, bytes);
    return st;
}

void cuda_release(struct backend *b, void *p, size_t bytes)
{
    if (!p) return;
    cuda_enter(b);
    cudaFree(p);
    count(b, bytes ? bytes : 1, false);
}

enum status cuda_host_alloc(struct backend *b, size_t bytes, void **out)
{
    enum status st = cuda_check(b, cudaHostAlloc(out, bytes ? bytes : 1, cudaHostAllocPortable), "cudaHostAlloc");
    if (st != OK) {
        cudaGetLastError();
        return st;
    }
    memset(*out, 0, bytes);
    return OK;
}

void cuda_host_free(struct backend *b, void *p, size_t bytes)
{
    if (p) cudaFreeHost(p);
}

/* --- copies --- */
/* The source is the caller's again at once: a copy from memory that is not pinned has been staged when the call
 * returns, one from pinned memory has not. */
enum status cuda_upload(struct backend *b, struct stream *s, void *dst, const void *src, size_t bytes)
{
    if (bytes == 0) return OK;
    enum status st =
        cuda_check(b, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyHostToDevice, cu_stream(b, s)), "cudaMemcpyAsync");
    return st == OK ? cuda_check(b, cudaStreamSynchronize(cu_stream(b, s)), "upload") : st;
}

enum status cuda_download(struct backend *b, struct stream *s, void *dst, const void *src, size_t bytes)
{
    if (bytes == 0) return OK;
    return cuda_check(b, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToHost, cu_stream(b, s)), "download");
}

enum status cuda_copy(struct backend *b, struct stream *s, void *dst, const void *src, size_t bytes)
{
    if (bytes == 0) return OK;
    return cuda_check(b, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, cu_stream(b, s)), "copy");
}

/* --- streams --- */
enum status cuda_stream_init(struct backend *b, struct stream *s)
{
    *s = stream{};
    cuda_enter(b);
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->kv_lock, NULL);
    return cuda_check(b, cudaStreamCreateWithFlags(&s->cu, cudaStreamNonBlocking), "cudaStreamCreate");
}

void cuda_stream_fini(struct backend *b, struct stream *s)
{
    if (!s->cu) return;
    cudaStreamSynchronize(s->cu);
    cuda_kv_staging_fini(b, s);
    for (size_t i = 0; i < MARKS_KEPT; i++)
        if (s->events[i]) cudaEventDestroy(s->events[i]);
    cuda_release(b, s->staging, s->staging_bytes);
    cudaStreamDestroy(s->cu);
    pthread_mutex_destroy(&s->lock);
    pthread_mutex_destroy(&s->kv_lock);
}

enum status cuda_stream_open(struct backend *b, struct stream **out)
{
    struct stream *s = (struct stream *)mem_zalloc(sizeof(*s));
    enum status st = cuda_stream_init(b, s);
    if (st == OK)
        *out = s;
    else
        mem_free(s);
    return st;
}

void cuda_stream_close(struct backend *b, struct stream *s)
{
    if (!s) return;
    cuda_stream_fini(b, s);
    mem_free(s);
}

enum status cuda_sync(struct backend *b, struct stream *s)
{
    return cuda_check(b, cudaStreamSynchronize(cu_stream(b, s)), "cudaStreamSynchronize");
}

/* --- marks --- */
enum status cuda_mark_record(struct backend *b, struct stream *s, struct mark *out)
{
    struct stream *at = stream_of(b, s);
    cudaError_t e = cudaSuccess;
    pthread_mutex_lock(&at->lock);
    cudaEvent_t *event = &at->events[at->n_marks % MARKS_KEPT];
    if (!*event) e = cudaEventCreateWithFlags(event, cudaEventDisableTiming | cudaEventBlockingSync);
    if (e == cudaSuccess) e = cudaEventRecord(*event, at->cu);
    *out = mark{ b, at, at->n_marks++ };
    pthread_mutex_unlock(&at->lock);
    return cuda_check(b, e, "cudaEventRecord");
}

static cudaEvent_t event_of(const struct mark *m)
{
    pthread_mutex_lock(&m->stream->lock);
    cudaEvent_t event = m->stream->events[m->at % MARKS_KEPT];
    pthread_mutex_unlock(&m->stream->lock);
    return event;
}

enum status cuda_mark_wait(struct backend *b, const struct mark *m)
{
    return cuda_check(b, cudaEventSynchronize(event_of(m)), "cudaEventSynchronize");
}

bool cuda_mark_done(struct backend *b, const struct mark *m)
{
    return cudaEventQuery(event_of(m)) != cudaErrorNotReady;
}
