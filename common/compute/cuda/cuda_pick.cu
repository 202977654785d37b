/* cuda_pick.cu - edits rows of logits, finds their best candidates, and sums their weights.
 *
 * A row is cut into chunks of 4,096 logits, which is also a run of the sums (docs/numerics.md).  A candidate is one
 * number, its key: the larger key is the heavier candidate, and no two are equal.  So the best of a chunk are those
 * from a bound on that has as many above it as are wanted, which is found by halving.  What the chunks keep is chunked
 * and chosen from again, until one block has all that is left. */
#include "compute/cuda/cu_math.h"
#include "compute/cuda/cuda_internal.h"

#include <math.h>

#define PICK_THREADS 256 /* of a block; as many as candidates may be wanted */
#define PICK_EACH    16  /* logits of a thread */
#define PICK_CHUNK   (PICK_THREADS * PICK_EACH)
#define PICK_WARPS   (PICK_THREADS / CU_WARP)
#define LANES        16
#define NOTHING      0xffffffffu
#define WHOLE_WARP   0xffffffffu

/* One row's wishes on the device; arrays are numbers of words from `words` on. */
struct wish {
    uint32_t bad; /* the row is not finite */
    uint32_t bias_ids, bias, n_bias, seen, n_seen, banned, n_banned, mask, want;
    float repetition, frequency, presence, temperature;
    bool wants_mass, wants_sum;
    int32_t ask;
};

/* What all kernels of a call are given. */
struct pick_args {
    float *logits;
    uint32_t n_vocab, chunks, most; /* most: the most that a row wants */
    struct wish *wishes;
    const uint32_t *words;
    uint64_t *kept, *kept_again; /* keys of chunks: [n][chunks][most] */
    float *sums;                 /* [n][chunks][2: mass, sum][2: whole lanes, the rest] */
    struct picked *out;
    bool edits;
};

static_assert(PICK_MAX <= PICK_THREADS, "a thread each for the candidates of a row");

/* --- keys --- */
/* Rising with the logit, and of equals with falling id; 0 is no candidate.  What is not a number is the lightest. */
static __device__ __forceinline__ uint64_t key_of(float x, uint32_t id)
{
    const uint32_t bits = x == 0 ? 0 : __float_as_uint(x);
    const uint32_t order = x != x ? 0 : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (uint64_t)order << 32 | (NOTHING - id);
}

static __device__ __forceinline__ uint32_t id_of(uint64_t key)
{
    return NOTHING - (uint32_t)key;
}

/* Bounds of the wanted'th largest key, given each thread's largest: at least `want` reach lo, none hi. */
static __device__ void bounds(uint64_t own, uint32_t want, uint64_t *lo, uint64_t *hi)
{
    __shared__ uint64_t most[PICK_WARPS], least[PICK_WARPS];
    uint64_t high = own, low = own;
    for (int step = CU_WARP / 2; step; step /= 2) {
        high = max(high, __shfl_xor_sync(WHOLE_WARP, high, step));
        low = min(low, __shfl_xor_sync(WHOLE_WARP, low, step));
    }
    most[threadIdx.x / CU_WARP] = high;
    least[threadIdx.x / CU_WARP] = low;
    __syncthreads();
    high = most[0];
    low = want <= PICK_WARPS ? most[0] : least[0];
    for (uint32_t w = 1; w < PICK_WARPS; w++) {
        high = max(high, most[w]);
        low = min(low, want <= PICK_WARPS ? most[w] : least[w]);
    }
    *lo = low;
    *hi = high + 1;
}

/* How many of the block's keys are at least `bound`; `turn` alternates from call to call. */
static __device__ uint32_t count_from(const uint64_t *key, uint64_t bound, uint32_t turn)
{
    __shared__ uint32_t counts[2][PICK_WARPS];
    uint32_t n = 0, all = 0;
#pragma unroll
    for (uint32_t i = 0; i < PICK_EACH; i++) n += key[i] >= bound;
    n = __reduce_add_sync(WHOLE_WARP, n);
    counts[turn % 2][threadIdx.x / CU_WARP] = n;
    __syncthreads();
    for (uint32_t w = 0; w < PICK_WARPS; w++) all += counts[turn % 2][w];
    return all;
}

/* The block's `want` largest keys to out[want] in no order, the rest of which is 0. */
static __device__ void keep_best(uint64_t *out, const uint64_t *key, uint32_t want)
{
    __shared__ uint32_t n_kept;
    uint64_t own = 0, lo, hi;
    uint32_t turn = 0;
#pragma unroll
    for (uint32_t i = 0; i < PICK_EACH; i++) own = max(own, key[i]);
    if (threadIdx.x == 0) n_kept = 0;
    bounds(own, want, &lo, &hi);
    uint32_t n = count_from(key, lo, turn++);
    while (n != want && hi - lo > 1) {
        const uint64_t mid = lo + (hi - lo) / 2;
        const uint32_t above = count_from(key, mid, turn++);
        if (above < want)
            hi = mid;
        else
            lo = mid, n = above;
    }
    for (uint32_t i = 0; i < PICK_EACH; i++)
        if (key[i] >= lo && key[i] != 0) out[atomicAdd(&n_kept, 1u)] = key[i];
    __syncthreads();
    for (uint32_t i = n_kept + threadIdx.x; i < want; i += PICK_THREADS) out[i] = 0;
}

/* --- edits --- */
static __device__ __forceinline__ bool is_finite(float x)
{
    return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u;
}

static __global__ void finite_kernel(struct pick_args a)
{
    const uint32_t end = min(a.n_vocab, (blockIdx.x + 1) * PICK_CHUNK);
    const float *x = a.logits + (size_t)blockIdx.y * a.n_vocab;
    bool bad = false;
    for (uint32_t i = blockIdx.x * PICK_CHUNK + threadIdx.x; i < end; i += PICK_THREADS) bad |= !is_finite(x[i]);
    if (__syncthreads_or(bad) && threadIdx.x == 0) atomicOr(&a.wishes[blockIdx.y].bad, 1u);
}

/* An id's biases are added one by one by the thread that has its first entry. */
static __device__ void add_biases(float *x, const uint32_t *ids, const float *bias, uint32_t n)
{
    for (uint32_t i = threadIdx.x; i < n; i += PICK_THREADS) {
        bool is_first = true;
        for (uint32_t j = 0; j < i && is_first; j++) is_first = ids[j] != ids[i];
        if (!is_first) continue;
        float v = x[ids[i]];
        for (uint32_t j = i; j < n; j++)
            if (ids[j] == ids[i]) v = __fadd_rn(v, bias[j]);
        x[ids[i]] = v;
    }
}

static __device__ __forceinline__ float penalized(float x, const struct wish &w, uint32_t n_output)
{
    if (w.repetition != 1.0f) x = x > 0.0f ? __fdiv_rn(x, w.repetition) : __fmul_rn(x, w.repetition);
    if (n_output == 0) return x;
    return __fsub_rn(__fsub_rn(x, __fmul_rn(w.frequency, (float)n_output)), w.presence);
}

/* All edits but the mask, a block to a row. */
static __global__ void edit_kernel(struct pick_args a)
{
    const struct wish &w = a.wishes[blockIdx.x];
    float *x = a.logits + (size_t)blockIdx.x * a.n_vocab;
    if (w.bad) return;
    add_biases(x, a.words + w.bias_ids, (const float *)a.words + w.bias, w.n_bias);
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < w.n_seen; i += PICK_THREADS) {
        const uint32_t *seen = a.words + w.seen + 2 * i; /* struct pick_seen */
        x[seen[0]] = penalized(x[seen[0]], w, seen[1]);
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < w.n_banned; i += PICK_THREADS) x[a.words[w.banned + i]] = -INFINITY;
}

/* --- candidates --- */
/* A chunk's best.  It masks the chunk, too; and where nothing is edited it tells what is not finite. */
static __global__ void __launch_bounds__(PICK_THREADS) choose_kernel(struct pick_args a)
{
    struct wish *w = &a.wishes[blockIdx.y];
    float *x = a.logits + (size_t)blockIdx.y * a.n_vocab;
    uint64_t key[PICK_EACH];
    bool bad = false;
    if (a.edits && w->bad) return;
#pragma unroll
    for (uint32_t i = 0; i < PICK_EACH; i++) {
        const uint32_t id = blockIdx.x * PICK_CHUNK + i * PICK_THREADS + threadIdx.x;
        key[i] = 0;
        if (id >= a.n_vocab) continue;
        float v = x[id];
        bad |= !is_finite(v);
        if (w->mask != NOTHING && !(a.words[w->mask + id / 32] >> id % 32 & 1)) x[id] = v = -INFINITY;
        key[i] = key_of(v, id);
    }
    if (!a.edits && __syncthreads_or(bad) && threadIdx.x == 0) atomicOr(&w->bad, 1u);
    keep_best(a.kept + ((size_t)blockIdx.y * a.chunks + blockIdx.x) * a.most, key, a.most);
}

/* Up to PICK_CHUNK keys from `at` on of a row's n. */
static __device__ __forceinline__ void load_keys(uint64_t *key, const uint64_t *kept, uint32_t at, uint32_t n)
{
#pragma unroll
    for (uint32_t i = 0; i < PICK_EACH; i++) {
        const uint32_t k = at + i * PICK_THREADS + threadIdx.x;
        key[i] = k < n ? kept[k] : 0;
    }
}

/* The best of what chunks have kept, n keys a row. */
static __global__ void __launch_bounds__(PICK_THREADS)
    choose_again_kernel(uint64_t *out, const uint64_t *kept, uint32_t n, uint32_t most)
{
    uint64_t key[PICK_EACH];
    load_keys(key, kept + (size_t)blockIdx.y * n, blockIdx.x * PICK_CHUNK, n);
    keep_best(out + ((size_t)blockIdx.y * gridDim.x + blockIdx.x) * most, key, most);
}

static __device__ __forceinline__ float weight_of(float x, float top, float temperature)
{
    return cu_exp(__fdiv_rn(__fsub_rn(x, top), temperature));
}

static __device__ void tell_bad(struct picked *out)
{
    if (threadIdx.x > 0) return;
    out->finite = false;
    out->n = 0;
    out->best[0] = candidate{ NAN, 0 };
    out->asked = NAN;
    out->mass = out->sum = (double)NAN;
}

/* A row's candidates in their order, a thread each: those that are heavier come before it. */
static __global__ void __launch_bounds__(PICK_THREADS)
    finish_kernel(struct pick_args a, const uint64_t *kept, uint32_t n)
{
    __shared__ uint64_t best[PICK_THREADS];
    const struct wish &w = a.wishes[blockIdx.x];
    const float *x = a.logits + (size_t)blockIdx.x * a.n_vocab;
    struct picked *out = &a.out[blockIdx.x];
    uint64_t key[PICK_EACH];
    uint32_t rank = 0;
    if (w.bad) {
        tell_bad(out);
        return;
    }
    load_keys(key, kept + (size_t)blockIdx.x * n, 0, n);
    keep_best(best, key, w.want);
    __syncthreads();
    const uint64_t own = threadIdx.x < w.want ? best[threadIdx.x] : 0;
    for (uint32_t i = 0; i < w.want; i++) rank += best[i] > own;
    if (own) out->best[rank] = candidate{ x[id_of(own)], (int32_t)id_of(own) };
    __syncthreads();
    const float top = out->best[0].value;
    if (own) out->weight[rank] = w.temperature > 0.0f ? weight_of(out->best[rank].value, top, w.temperature) : 0.0f;
    if (threadIdx.x > 0) return;
    out->finite = true;
    out->n = min(w.want, a.n_vocab);
    out->asked = w.ask >= 0 ? x[w.ask] : 0.0f;
    out->mass = out->sum = 0.0;
}

/* --- sums of weights --- */
/* Sums of a chunk: a half of the first warp has the lanes of the mass, the other those of the sum.  Fewer logits than
 * lanes at the row's end are a run of their own. */
static __global__ void __launch_bounds__(PICK_THREADS) sums_kernel(struct pick_args a)
{
    __shared__ float weights[2][PICK_CHUNK + LANES]; /* the second begins in other banks */
    const struct wish &w = a.wishes[blockIdx.y];
    const uint32_t at = blockIdx.x * PICK_CHUNK, len = min(a.n_vocab - at, (uint32_t)PICK_CHUNK);
    const float *x = a.logits + (size_t)blockIdx.y * a.n_vocab + at;
    if (w.bad || (!w.wants_mass && !w.wants_sum)) return;
    const float top = a.out[blockIdx.y].best[0].value;
    if (!is_finite(top)) return;
    for (uint32_t i = threadIdx.x; i < len; i += PICK_THREADS) {
        if (w.wants_mass) weights[0][i] = weight_of(x[i], top, w.temperature);
        if (w.wants_sum) weights[1][i] = weight_of(x[i], top, 1.0f);
    }
    __syncthreads();
    if (threadIdx.x >= CU_WARP) return;
    const uint32_t which = threadIdx.x / LANES, lane = threadIdx.x % LANES, whole = len / LANES * LANES;
    const float *own = weights[which];
    float sum = 0, rest = 0;
    const bool is_wanted = which ? w.wants_sum : w.wants_mass;
#pragma unroll 8
    for (uint32_t i = lane; is_wanted && i < whole; i += LANES) sum = __fadd_rn(sum, own[i]);
    if (is_wanted && whole + lane < len) rest = own[whole + lane];
    sum = cu_sum16(sum);
    rest = cu_sum16(rest);
    float *to = a.sums + (((size_t)blockIdx.y * a.chunks + blockIdx.x) * 2 + which) * 2;
    if (lane == 0) to[0] = sum, to[1] = rest;
}

/* Runs in ascending order, in double: a thread for a row's mass, one for its sum. */
static __global__ void totals_kernel(struct pick_args a, uint32_t n)
{
    const uint32_t row = (blockIdx.x * blockDim.x + threadIdx.x) / 2, which = threadIdx.x % 2;
    if (row >= n) return;
    const struct wish &w = a.wishes[row];
    const float *runs = a.sums + ((size_t)row * a.chunks * 2 + which) * 2;
    double sum = 0.0;
    if (w.bad || !(which ? w.wants_sum : w.wants_mass) || !is_finite(a.out[row].best[0].value)) return;
    for (uint32_t c = 0; c < a.chunks; c++) {
        sum = __dadd_rn(sum, (double)runs[4 * c]);
        sum = __dadd_rn(sum, (double)runs[4 * c + 1]); /* 0 where there is no rest */
    }
    *(which ? &a.out[row].sum : &a.out[row].mass) = sum;
}

/* --- the call --- */
/* Where things lie in the buffers; the first `up` bytes of the device's are the host's. */
struct pick_layout {
    size_t words, up, kept, kept_again, sums, out, bytes;
};

static struct pick_layout layout_of(const struct pick_row *rows, uint32_t n, uint32_t n_vocab, uint32_t chunks,
                                    uint32_t most)
{
    struct pick_layout l = {};
    size_t n_words = 0;
    const size_t again = cu_div_up(chunks * most, PICK_CHUNK), row = sizeof(uint64_t) * most;
    for (uint32_t i = 0; i < n; i++)
        n_words += 2 * (size_t)rows[i].n_bias + 2 * (size_t)rows[i].n_seen + rows[i].n_banned +
                   (rows[i].mask ? (n_vocab + 31) / 32 : 0);
    l.words = cu_align16(n * sizeof(struct wish));
    l.up = l.words + cu_align16(n_words * sizeof(uint32_t));
    l.kept = l.up;
    l.kept_again = l.kept + cu_align16(n * chunks * row);
    l.sums = l.kept_again + cu_align16(n * again * row);
    l.out = l.sums + cu_align16(n * (size_t)chunks * 4 * sizeof(float));
    l.bytes = l.out + cu_align16(n * sizeof(struct picked));
    return l;
}

/* Room for a call, once the call before is done with it: it grows with what it is asked for. */
static enum status reserve(struct backend *b, struct cuda_pick *p, size_t host, size_t device)
{
    enum status st = p->busy ? cuda_check(b, cudaEventSynchronize(p->done), "pick") : OK;
    p->busy = false;
    if (st == OK && host > p->host_bytes) {
        cuda_host_free(b, p->host, p->host_bytes);
        p->host = NULL;
        p->host_bytes = 0;
        if ((st = cuda_host_alloc(b, host + host / 2, (void **)&p->host)) == OK) p->host_bytes = host + host / 2;
    }
    if (st == OK && device > p->device_bytes) {
        cuda_release(b, p->device, p->device_bytes);
        p->device = NULL;
        p->device_bytes = 0;
        if ((st = cuda_alloc(b, device + device / 2, (void **)&p->device)) == OK) p->device_bytes = device + device / 2;
    }
    return st;
}

enum status cuda_pick_init(struct cuda_backend *b)
{
    return cuda_check(&b->base, cudaEventCreateWithFlags(&b->pick.done, cudaEventDisableTiming), "cudaEventCreate");
}

void cuda_pick_fini(struct cuda_backend *b)
{
    cuda_host_free(&b->base, b->pick.host, b->pick.host_bytes);
    cuda_release(&b->base, b->pick.device, b->pick.device_bytes);
    if (b->pick.done) cudaEventDestroy(b->pick.done);
}

static uint32_t put_words(uint32_t *words, uint32_t *at, const void *from, size_t n)
{
    const uint32_t place = *at;
    if (n) memcpy(words + place, from, n * sizeof(uint32_t));
    *at += (uint32_t)n;
    return place;
}

/* The host's side of the upload; whether any row has edits. */
static bool fill(uint8_t *host, const struct pick_layout *l, const struct pick_row *rows, uint32_t n, uint32_t n_vocab)
{
    struct wish *wishes = (struct wish *)host;
    uint32_t *words = (uint32_t *)(host + l->words), at = 0;
    bool edits = false;
    static_assert(sizeof(struct pick_seen) == 2 * sizeof(uint32_t), "two words a token");
    for (uint32_t i = 0; i < n; i++) {
        const struct pick_row *r = &rows[i];
        struct wish w = {};
        assert(r->want > 0 && r->want <= PICK_MAX);
        w.bias_ids = put_words(words, &at, r->bias_ids, r->n_bias);
        w.bias = put_words(words, &at, r->bias, r->n_bias);
        w.seen = put_words(words, &at, r->seen, 2 * (size_t)r->n_seen);
        w.banned = put_words(words, &at, r->banned, r->n_banned);
        w.mask = r->mask ? put_words(words, &at, r->mask, (n_vocab + 31) / 32) : NOTHING;
        w.n_bias = r->n_bias;
        w.n_seen = r->n_seen;
        w.n_banned = r->n_banned;
        w.want = r->want;
        w.repetition = r->repetition;
        w.frequency = r->frequency;
        w.presence = r->presence;
        w.temperature = r->temperature;
        w.wants_mass = r->wants_mass;
        w.wants_sum = r->wants_sum;
        w.ask = r->ask;
        wishes[i] = w;
        edits = edits || r->n_bias || r->n_seen || r->n_banned || r->mask;
    }
    return edits;
}

/* From the chunks' candidates to those of whole rows. */
static cudaError_t finish(const struct pick_args *a, uint32_t n, cudaStream_t s)
{
    uint64_t *from = a->kept, *to = a->kept_again;
    uint32_t keys = a->chunks * a->most;
    cudaError_t e = cudaSuccess;
    while (e == cudaSuccess && keys > PICK_CHUNK) {
        const uint32_t chunks = cu_div_up(keys, PICK_CHUNK);
        e = cu_launch(choose_again_kernel, dim3(chunks, n), PICK_THREADS, 0, s, to, from, keys, a->most);
        uint64_t *const swap = from;
        from = to;
        to = swap;
        keys = chunks * a->most;
    }
    return e == cudaSuccess ? cu_launch(finish_kernel, n, PICK_THREADS, 0, s, *a, from, keys) : e;
}

static cudaError_t launch_all(const struct pick_args *a, const struct pick_row *rows, uint32_t n, cudaStream_t s)
{
    const dim3 grid(a->chunks, n);
    bool sums = false;
    cudaError_t e = cudaSuccess;
    for (uint32_t i = 0; i < n; i++) sums = sums || rows[i].wants_mass || rows[i].wants_sum;
    if (a->edits) e = cu_launch(finite_kernel, grid, PICK_THREADS, 0, s, *a);
    if (e == cudaSuccess && a->edits) e = cu_launch(edit_kernel, n, PICK_THREADS, 0, s, *a);
    if (e == cudaSuccess) e = cu_launch(choose_kernel, grid, PICK_THREADS, 0, s, *a);
    if (e == cudaSuccess) e = finish(a, n, s);
    if (e == cudaSuccess && sums) e = cu_launch(sums_kernel, grid, PICK_THREADS, 0, s, *a);
    if (e == cudaSuccess && sums) e = cu_launch(totals_kernel, cu_div_up(n, 32), 64, 0, s, *a, n);
    return e;
}

enum status cuda_pick(struct backend *b, struct stream *s, float *logits, uint32_t n_vocab, uint32_t n,
                      const struct pick_row *rows, struct picked *out)
{
    struct cuda_pick *p = &cuda_of(b)->pick;
    struct pick_args a = {};
    if (n == 0) return OK;
    a.logits = logits;
    a.n_vocab = n_vocab;
    a.chunks = cu_div_up(n_vocab, PICK_CHUNK);
    for (uint32_t i = 0; i < n; i++) a.most = rows[i].want > a.most ? rows[i].want : a.most;
    const struct pick_layout l = layout_of(rows, n, n_vocab, a.chunks, a.most);
    enum status st = reserve(b, p, l.up, l.bytes);
    if (st != OK) return st;
    a.edits = fill(p->host, &l, rows, n, n_vocab);
    a.wishes = (struct wish *)p->device;
    a.words = (const uint32_t *)(p->device + l.words);
    a.kept = (uint64_t *)(p->device + l.kept);
    a.kept_again = (uint64_t *)(p->device + l.kept_again);
    a.sums = (float *)(p->device + l.sums);
    a.out = (struct picked *)(p->device + l.out);
    cudaError_t e = cudaMemcpyAsync(p->device, p->host, l.up, cudaMemcpyHostToDevice, cu_stream(b, s));
    p->busy = e == cudaSuccess;
    if (e == cudaSuccess) e = launch_all(&a, rows, n, cu_stream(b, s));
    if (e == cudaSuccess) e = cudaMemcpyAsync(out, a.out, n * sizeof(*out), cudaMemcpyDeviceToHost, cu_stream(b, s));
    if (p->busy) {
        const cudaError_t recorded = cudaEventRecord(p->done, cu_stream(b, s));
        if (e == cudaSuccess) e = recorded;
    }
    return cuda_check(b, e, "pick");
}

/* --- weights alone --- */
static __global__ void weigh_kernel(float *x, uint32_t n, float top, float temperature)
{
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] = weight_of(x[i], top, temperature);
}

enum status cuda_weigh(struct backend *b, struct stream *s, float *x, uint32_t n, float top, float temperature)
{
    if (n == 0) return OK;
    return cuda_check(
        b,
        cu_launch(weigh_kernel, cu_div_up(n, PICK_THREADS), PICK_THREADS, 0, cu_stream(b, s), x, n, top, temperature),
        "weigh");
}
