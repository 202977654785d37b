/* cuda_kv_wire.cu - KV between its blocks and the wire's canonical order: one kernel for many pieces, by way of a
 * buffer on the device that is copied to or from the host in few runs. */
#include "compute/cuda/cuda_kv.h"

#include <float.h>

#define WIRE_THREADS 128
#define WIRE_BYTES   ((size_t)8 << 20) /* of the buffer: far above what a copy's start costs */
#define WIRE_PIECES  1024u
#define RUN_ALIGN    16u

/* A piece for the kernel; values and scales are offsets in the buffer. */
struct wire_job {
    struct kv_place at;
    uint32_t t0, n, values, scales;
};

/* Bytes that follow each other on the wire and in the buffer. */
struct wire_run {
    uint64_t wire;
    size_t bytes, staged;
};

/* Of a stream: who moves pieces by way of it holds `lock`. */
struct kv_staging {
    uint8_t *device; /* the buffer, then jobs, then the verdict */
    struct wire_job *jobs;
    uint32_t *verdict; /* pinned, as jobs */
    struct wire_run runs[2 * WIRE_PIECES];
    uint32_t run_of[2 * WIRE_PIECES]; /* of the values and the scales of each piece */
    uint32_t n_runs;
};

enum status cuda_kv_place(const struct kv_slices *layer, const struct kv_piece *piece, struct kv_place *out)
{
    const struct kv_geometry *g = &layer->geom;
    if (g->kind == KV_LATENT) return cuda_latent_place(layer, piece, out);
    if (!cu_kv_dim_ok(g->head_dim) || piece->head >= g->n_kv_heads) return ERR_INVALID;
    if (piece->t0 >= piece->t1 || piece->t1 > KV_BLOCK_TOKENS) return ERR_INVALID;
    const struct cu_kv kv = cu_kv_of(layer);
    uint8_t *part = kv.base + piece->block * kv.stride + (2 * (size_t)piece->head + piece->is_v) * kv.part_bytes;
    *out = kv_place{ part, NULL, kv.dim, 0, 2, piece->is_v ? CU_KV_ROWS : CU_KV_EIGHTS, 0x7c00u };
    if (kv.int8) {
        float *scales = (float *)(part + (size_t)KV_BLOCK_TOKENS * kv.dim);
        *out = kv_place{ part, scales, kv.dim, 1, 1, piece->is_v ? CU_KV_PLACES : CU_KV_ROWS, 0 };
    }
    return OK;
}

/* --- on the device --- */
/* Four bytes from `p`, wherever it is. */
static __device__ __forceinline__ uint32_t get_word(const uint8_t *p)
{
    if (((uintptr_t)p & 3) == 0) return *(const uint32_t *)p;
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static __device__ __forceinline__ void put_word(uint8_t *p, uint32_t w)
{
    if (((uintptr_t)p & 3) == 0) {
        *(uint32_t *)p = w;
        return;
    }
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(w >> 8 * i);
}

/* Where the word begins that has value d of token t; the four bytes of CU_KV_PLACES are KV_BLOCK_TOKENS apart. */
static __device__ __forceinline__ uint8_t *word_at(const struct kv_place &at, uint32_t t, uint32_t d)
{
    if (at.layout == CU_KV_PLACES) return at.values + cu_kv_int8_at(at.cols, true, t, d);
    if (at.layout == CU_KV_EIGHTS) return at.values + 2 * (size_t)cu_kv_half_at(at.cols, false, t, d);
    return at.values + ((size_t)t * at.cols + d) * at.bytes;
}

static __global__ void pack_kernel(const struct wire_job *jobs, uint8_t *buffer)
{
    const struct wire_job job = jobs[blockIdx.x];
    const struct kv_place at = job.at;
    const uint32_t per_word = 4 / at.bytes, words = at.cols / per_word;
    for (uint32_t i = threadIdx.x; i < job.n * words; i += blockDim.x) {
        const uint8_t *p = word_at(at, job.t0 + i / words, i % words * per_word);
        uint32_t w = 0;
        if (at.layout == CU_KV_PLACES)
            for (uint32_t j = 0; j < 4; j++) w |= (uint32_t)p[j * KV_BLOCK_TOKENS] << 8 * j;
        else
            w = *(const uint32_t *)p;
        put_word(buffer + job.values + (size_t)i * 4, w);
    }
    const uint32_t n_scales = job.n * at.n_scales;
    for (uint32_t i = threadIdx.x; i < n_scales; i += blockDim.x)
        put_word(buffer + job.scales + (size_t)i * 4, __float_as_uint(at.scales[job.t0 * at.n_scales + i]));
}

/* No honest sender has the code -128, or a 16-bit value that is not finite. */
static __device__ __forceinline__ bool word_is_bad(const struct kv_place &at, uint32_t w)
{
    if (at.bytes == 2) return (w & at.not_finite) == at.not_finite || (w >> 16 & at.not_finite) == at.not_finite;
    bool bad = false;
    for (int i = 0; i < 32; i += 8) bad |= (w >> i & 0xffu) == 0x80u;
    return bad;
}

static __global__ void unpack_kernel(const struct wire_job *jobs, const uint8_t *buffer, uint32_t *verdict)
{
    const struct wire_job job = jobs[blockIdx.x];
    const struct kv_place at = job.at;
    const uint32_t per_word = 4 / at.bytes, words = at.cols / per_word;
    bool bad = false;
    for (uint32_t i = threadIdx.x; i < job.n * words; i += blockDim.x) {
        uint8_t *p = word_at(at, job.t0 + i / words, i % words * per_word);
        const uint32_t w = get_word(buffer + job.values + (size_t)i * 4);
        bad |= word_is_bad(at, w);
        if (at.layout == CU_KV_PLACES)
            for (uint32_t j = 0; j < 4; j++) p[j * KV_BLOCK_TOKENS] = (uint8_t)(w >> 8 * j);
        else
            *(uint32_t *)p = w;
    }
    const uint32_t n_scales = job.n * at.n_scales;
    for (uint32_t i = threadIdx.x; i < n_scales; i += blockDim.x) {
        const float scale = __uint_as_float(get_word(buffer + job.scales + (size_t)i * 4));
        bad |= !(scale > 0 && scale <= FLT_MAX);
        at.scales[job.t0 * at.n_scales + i] = scale;
    }
    if (bad) atomicOr(verdict, 1u);
}

/* --- on the host --- */
static struct wire_job *device_jobs(const struct kv_staging *st)
{
    return (struct wire_job *)(st->device + WIRE_BYTES);
}

static uint32_t *device_verdict(const struct kv_staging *st)
{
    return (uint32_t *)(device_jobs(st) + WIRE_PIECES);
}

/* A stream has a buffer from the first time on that KV moves by way of it. */
static enum status staging_of(struct backend *b, struct stream *s)
{
    if (s->kv) return OK;
    struct kv_staging *st = (struct kv_staging *)mem_zalloc(sizeof(*st));
    const size_t bytes = WIRE_PIECES * sizeof(*st->jobs) + sizeof(uint32_t);
    void *host = NULL, *device = NULL;
    enum status status = cuda_host_alloc(b, bytes, &host);
    if (status == OK) status = cuda_alloc(b, WIRE_BYTES + bytes, &device);
    if (status != OK) {
        cuda_host_free(b, host, bytes);
        mem_free(st);
        return status;
    }
    st->device = (uint8_t *)device;
    st->jobs = (struct wire_job *)host;
    st->verdict = (uint32_t *)(st->jobs + WIRE_PIECES);
    s->kv = st;
    return OK;
}

void cuda_kv_staging_fini(struct backend *b, struct stream *s)
{
    if (!s->kv) return;
    cuda_release(b, s->kv->device, 0);
    cuda_host_free(b, s->kv->jobs, 0);
    mem_free(s->kv);
    s->kv = NULL;
}

/* Puts bytes at the end of one of the last two runs, or into one of their own: values follow values, and scales
 * scales.  Returns the run; its place in the buffer is known when all are there. */
static uint32_t add_to_run(struct kv_staging *st, uint64_t wire, size_t bytes, uint32_t *offset)
{
    for (uint32_t i = st->n_runs; i-- > 0 && i + 2 >= st->n_runs;) {
        struct wire_run *run = &st->runs[i];
        if (run->wire + run->bytes != wire) continue;
        *offset = (uint32_t)run->bytes;
        run->bytes += bytes;
        return i;
    }
    st->runs[st->n_runs] = wire_run{ wire, bytes, 0 };
    *offset = 0;
    return st->n_runs++;
}

/* Jobs for the first pieces, as many as the buffer takes; returns how many. */
static uint32_t plan(struct kv_staging *st, const struct kv_slices *layers, const struct kv_piece *pieces, uint32_t n)
{
    size_t total = 0;
    uint32_t i = 0;
    st->n_runs = 0;
    for (; i < n && i < WIRE_PIECES; i++) {
        struct wire_job *job = &st->jobs[i];
        const struct kv_piece *p = &pieces[i];
        cuda_kv_place(&layers[p->layer], p, &job->at);
        job->t0 = p->t0;
        job->n = p->t1 - p->t0;
        const size_t values = (size_t)job->n * job->at.cols * job->at.bytes;
        const size_t scales = (size_t)job->n * job->at.n_scales * sizeof(float);
        total += values + scales + 4 * RUN_ALIGN; /* what two runs may lose to alignment */
        if (total > WIRE_BYTES) break;
        st->run_of[2 * i] = add_to_run(st, p->values, values, &job->values);
        if (scales) st->run_of[2 * i + 1] = add_to_run(st, p->scales, scales, &job->scales);
    }
    assert(i > 0);
    size_t at = 0;
    for (uint32_t r = 0; r < st->n_runs; r++) { /* aligned as on the wire */
        at = (at + RUN_ALIGN - 1) / RUN_ALIGN * RUN_ALIGN;
        st->runs[r].staged = at + st->runs[r].wire % RUN_ALIGN;
        at = st->runs[r].staged + st->runs[r].bytes;
    }
    for (uint32_t j = 0; j < i; j++) {
        st->jobs[j].values += (uint32_t)st->runs[st->run_of[2 * j]].staged;
        if (st->jobs[j].at.n_scales) st->jobs[j].scales += (uint32_t)st->runs[st->run_of[2 * j + 1]].staged;
    }
    return i;
}

static cudaError_t upload_jobs(const struct kv_staging *st, uint32_t n, cudaStream_t s)
{
    return cudaMemcpyAsync(device_jobs(st), st->jobs, n * sizeof(*st->jobs), cudaMemcpyHostToDevice, s);
}

static enum status pack_some(struct backend *b, const struct kv_staging *st, uint32_t n, uint8_t *wire, cudaStream_t s)
{
    cudaError_t e = upload_jobs(st, n, s);
    if (e == cudaSuccess)
        e = cu_launch(pack_kernel, n, WIRE_THREADS, 0, s, (const struct wire_job *)device_jobs(st), st->device);
    for (uint32_t i = 0; i < st->n_runs && e == cudaSuccess; i++) {
        const struct wire_run *run = &st->runs[i];
        e = cudaMemcpyAsync(wire + run->wire, st->device + run->staged, run->bytes, cudaMemcpyDeviceToHost, s);
    }
    if (e == cudaSuccess) e = cudaStreamSynchronize(s);
    return cuda_check(b, e, "kv_pack");
}

static enum status unpack_some(struct backend *b, const struct kv_staging *st, uint32_t n, const uint8_t *wire,
                               cudaStream_t s)
{
    cudaError_t e = upload_jobs(st, n, s);
    if (e == cudaSuccess) e = cudaMemsetAsync(device_verdict(st), 0, sizeof(uint32_t), s);
    for (uint32_t i = 0; i < st->n_runs && e == cudaSuccess; i++) {
        const struct wire_run *run = &st->runs[i];
        e = cudaMemcpyAsync(st->device + run->staged, wire + run->wire, run->bytes, cudaMemcpyHostToDevice, s);
    }
    if (e == cudaSuccess)
        e = cu_launch(unpack_kernel, n, WIRE_THREADS, 0, s, (const struct wire_job *)device_jobs(st),
                      (const uint8_t *)st->device, device_verdict(st));
    if (e == cudaSuccess)
        e = cudaMemcpyAsync(st->verdict, device_verdict(st), sizeof(uint32_t), cudaMemcpyDeviceToHost, s);
    if (e == cudaSuccess) e = cudaStreamSynchronize(s);
    const enum status status = cuda_check(b, e, "kv_unpack");
    return status == OK && *st->verdict ? ERR_CORRUPT : status;
}

/* `to` or `from` is the wire. */
static enum status move(struct backend *b, struct stream *stream, const struct kv_slices *layers,
                        const struct kv_piece *pieces, uint32_t n, uint8_t *to, const uint8_t *from)
{
    struct stream *s = stream_of(b, stream);
    enum status st = OK;
    for (uint32_t i = 0; i < n; i++) {
        struct kv_place place;
        if ((st = cuda_kv_place(&layers[pieces[i].layer], &pieces[i], &place)) != OK) return st;
    }
    pthread_mutex_lock(&s->kv_lock);
    st = staging_of(b, s);
    for (uint32_t i = 0, some; i < n && st == OK; i += some) {
        some = plan(s->kv, layers, pieces + i, n - i);
        st = to ? pack_some(b, s->kv, some, to, s->cu) : unpack_some(b, s->kv, some, from, s->cu);
    }
    pthread_mutex_unlock(&s->kv_lock);
    return st;
}

enum status cuda_kv_pack(struct backend *b, struct stream *s, const struct kv_slices *layers,
                         const struct kv_piece *pieces, uint32_t n, uint8_t *wire)
{
    return move(b, s, layers, pieces, n, wire, NULL);
}

enum status cuda_kv_unpack(struct backend *b, struct stream *s, const struct kv_slices *layers,
                           const struct kv_piece *pieces, uint32_t n, const uint8_t *wire)
{
    return move(b, s, layers, pieces, n, NULL, wire);
}

size_t cuda_kv_slice_bytes(struct backend *b, const struct kv_geometry *geom)
{
    if (geom->kind == KV_LATENT) return cuda_latent_slice_bytes(geom);
    if (!cu_kv_dim_ok(geom->head_dim)) return 0;
    return 2 * (size_t)geom->n_kv_heads * cu_kv_part_bytes(geom->head_dim, geom->format == KV_INT8);
}
