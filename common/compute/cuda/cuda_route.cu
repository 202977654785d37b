/* cuda_route.cu - which experts a row goes to, and what is done slot by slot: their biases, and the sum of their
 * outputs.
 *
 * A row is a warp's.  Maxima and sums of a softmax run in the CPU's sixteen lanes, which are the warp's lower half. */
#include "compute/cuda/cu_math.h"
#include "compute/cuda/cuda_internal.h"

#define LEAST_SUM    0x1p-14f /* of weights that are divided by their sum: fp16's smallest normal number */
#define NOBODY       0xffffffffu
#define SLOT_THREADS 256
#define WHOLE_WARP   0xffffffffu

/* What the kernel is told, and where a row's arrays lie in shared memory. */
struct route_args {
    const float *logits, *bias;
    size_t ld;
    uint32_t *expert;
    float *weight;
    uint32_t k, n_experts, n_groups, n_groups_used;
    enum route_gate gate;
    float scale;
    bool norm;
};

struct choice {
    float *p;     /* [n_experts] probabilities */
    float *score; /* [n_experts] what is chosen by */
    float *group; /* [n_groups] */
    float *kept;  /* [k] weights of the chosen */
    bool *out;    /* [n_experts] not to be chosen (any more) */
    bool *used;   /* [n_groups] */
};

static __host__ __device__ size_t carve(struct choice *c, uint8_t *at, const struct route_args &a)
{
    uint8_t *const start = at;
    c->p = (float *)at;
    c->score = (float *)(at += a.n_experts * sizeof(float));
    c->group = (float *)(at += a.n_experts * sizeof(float));
    c->kept = (float *)(at += a.n_groups * sizeof(float));
    c->out = (bool *)(at += a.k * sizeof(float));
    c->used = (bool *)(at += a.n_experts);
    return (size_t)(at + a.n_groups - start);
}

/* --- probabilities --- */
/* The largest of sixteen lanes as the CPU's tree finds it, which matters where there are NaNs; from lane 0. */
static __device__ float max_of_lanes(float v)
{
    for (int step = 8; step; step /= 2) {
        const float other = __shfl_xor_sync(WHOLE_WARP, v, step);
        v = threadIdx.x & (unsigned)step ? cu_max(other, v) : cu_max(v, other);
    }
    return __shfl_sync(WHOLE_WARP, v, 0);
}

/* p = softmax(x) for n floats that all lanes see; p may be x. */
static __device__ void softmax(float *p, const float *x, uint32_t n)
{
    const uint32_t lane = threadIdx.x;
    float max = -INFINITY, sum = 0;
    for (uint32_t i = lane; lane < 16 && i < (n + 15) / 16 * 16; i += 16) max = cu_max(max, i < n ? x[i] : -INFINITY);
    max = max_of_lanes(max);
    for (uint32_t i = lane; i < n; i += CU_WARP) p[i] = cu_exp(__fsub_rn(x[i], max));
    __syncwarp();
    for (uint32_t i = lane; lane < 16 && i < n; i += 16) sum = __fadd_rn(sum, p[i]);
    sum = __shfl_sync(WHOLE_WARP, cu_sum16(sum), 0);
    for (uint32_t i = lane; i < n; i += CU_WARP) p[i] = __fdiv_rn(p[i], sum);
    __syncwarp();
}

static __device__ void probabilities(const struct route_args &a, const struct choice &c)
{
    const float *x = a.logits + blockIdx.x * a.ld;
    for (uint32_t e = threadIdx.x; e < a.n_experts; e += CU_WARP) {
        const float v = x[e];
        c.p[e] = a.gate == ROUTE_SIGMOID         ? cu_sigmoid(v)
                 : a.gate == ROUTE_SQRT_SOFTPLUS ? __fsqrt_rn(cu_softplus(v))
                                                 : v;
    }
    __syncwarp();
    if (a.gate == ROUTE_SOFTMAX) softmax(c.p, c.p, a.n_experts);
}

/* --- the choice --- */
/* The highest of n that are not `out`, the first of equals; of NaNs only one that comes first is it. */
static __device__ uint32_t best_of(const float *score, const bool *out, uint32_t n)
{
    float best = 0;
    uint32_t at = NOBODY, first = NOBODY;
    for (uint32_t i = threadIdx.x; i < n; i += CU_WARP) {
        if (out[i]) continue;
        const float v = score[i];
        if (first == NOBODY) first = i;
        if (v == v && (at == NOBODY || v > best)) best = v, at = i;
    }
    for (int step = CU_WARP / 2; step; step /= 2) {
        const float other = __shfl_xor_sync(WHOLE_WARP, best, step);
        const uint32_t other_at = __shfl_xor_sync(WHOLE_WARP, at, step);
        const uint32_t other_first = __shfl_xor_sync(WHOLE_WARP, first, step);
        const bool wins = other_at != NOBODY && (at == NOBODY || other > best || (other == best && other_at < at));
        best = wins ? other : best;
        at = wins ? other_at : at;
        first = min(first, other_first);
    }
    return score[first] == score[first] ? at : first;
}

static __device__ float sum_of_two_best(const float *score, uint32_t n)
{
    float first = score[0], second = -INFINITY;
    for (uint32_t i = 1; i < n; i++) {
        if (score[i] > first) {
            second = first;
            first = score[i];
        } else if (score[i] > second) {
            second = score[i];
        }
    }
    return n > 1 ? __fadd_rn(first, second) : first;
}

/* Experts of all but the n_groups_used best groups are out. */
static __device__ void choose_groups(const struct route_args &a, const struct choice &c)
{
    const uint32_t size = a.n_experts / a.n_groups;
    for (uint32_t g = threadIdx.x; g < a.n_groups; g += CU_WARP) {
        c.group[g] = sum_of_two_best(c.score + g * size, size);
        c.used[g] = false;
    }
    __syncwarp();
    for (uint32_t i = 0; i < a.n_groups_used; i++) {
        const uint32_t g = best_of(c.group, c.used, a.n_groups);
        __syncwarp();
        if (threadIdx.x == 0) c.used[g] = true;
        __syncwarp();
    }
    for (uint32_t e = threadIdx.x; e < a.n_experts; e += CU_WARP) c.out[e] = !c.used[e / size];
    __syncwarp();
}

/* The k best into expert[], ascending, and their probabilities into kept[]. */
static __device__ void choose(const struct route_args &a, const struct choice &c, uint32_t *expert)
{
    const uint32_t lane = threadIdx.x;
    for (uint32_t e = lane; e < a.n_experts; e += CU_WARP) {
        const float score = a.bias ? __fadd_rn(c.p[e], a.bias[e]) : c.p[e];
        c.score[e] = score == score ? score : -INFINITY;
        c.out[e] = false;
    }
    __syncwarp();
    if (a.n_groups > 1) choose_groups(a, c);
    for (uint32_t j = 0; j < a.k; j++) {
        const uint32_t e = best_of(c.score, c.out, a.n_experts);
        __syncwarp();
        if (lane == 0) {
            uint32_t at = j;
            c.out[e] = true;
            for (; at > 0 && expert[at - 1] > e; at--) expert[at] = expert[at - 1];
            expert[at] = e;
        }
        __syncwarp();
    }
    for (uint32_t j = lane; j < a.k; j += CU_WARP) c.kept[j] = c.p[expert[j]];
    __syncwarp();
}

static __global__ void route_kernel(struct route_args a)
{
    struct choice c;
    float sum = 0;
    carve(&c, cu_shared(), a);
    probabilities(a, c);
    choose(a, c, a.expert + (size_t)blockIdx.x * a.k);
    if (a.gate == ROUTE_SOFTMAX_CHOSEN) softmax(c.kept, c.kept, a.k);
    for (uint32_t j = 0; j < a.k; j++) sum = __fadd_rn(sum, c.kept[j]);
    sum = sum < LEAST_SUM ? LEAST_SUM : sum;
    for (uint32_t j = threadIdx.x; j < a.k; j += CU_WARP) {
        const float w = a.norm ? __fdiv_rn(c.kept[j], sum) : c.kept[j];
        a.weight[(size_t)blockIdx.x * a.k + j] = __fmul_rn(w, a.scale);
    }
}

enum status cuda_route(struct backend *b, struct stream *s, struct route *out, const float *logits, size_t ld,
                       const struct route_facts *f)
{
    struct choice c;
    const struct route_args a = { logits,           f->bias, ld,           out->expert,
                                  out->weight,      out->k,  f->n_experts, f->n_groups,
                                  f->n_groups_used, f->gate, f->scale,     f->norm };
    assert(f->n_experts <= cuda_of(b)->limits.max_experts && out->k > 0 && out->k <= f->n_experts);
    assert(f->gate >= ROUTE_SOFTMAX && f->gate <= ROUTE_SQRT_SOFTPLUS);
    if (f->n_groups > 1) {
        assert(f->n_experts % f->n_groups == 0 && f->n_groups_used <= f->n_groups);
        assert(out->k <= f->n_experts / f->n_groups * f->n_groups_used);
    }
    if (out->n == 0) return OK;
    return cuda_check(b, cu_launch(route_kernel, out->n, CU_WARP, carve(&c, NULL, a), cu_stream(b, s), a), "route");
}

/* --- slots --- */
static __global__ void expert_bias_kernel(float *y, size_t ld, const float *bias, uint32_t cols, const uint32_t *expert)
{
    float *slot = y + blockIdx.x * ld;
    const float *own = bias + (size_t)expert[blockIdx.x] * cols;
    for (uint32_t c = threadIdx.x; c < cols; c += blockDim.x) slot[c] = __fadd_rn(slot[c], own[c]);
}

enum status cuda_expert_bias(struct backend *b, struct stream *s, float *y, size_t ld, const float *bias, uint32_t cols,
                             const struct route *route)
{
    const uint32_t slots = route->n * route->k;
    if (slots == 0 || cols == 0) return OK;
    return cuda_check(
        b, cu_launch(expert_bias_kernel, slots, SLOT_THREADS, 0, cu_stream(b, s), y, ld, bias, cols, route->expert),
        "expert_bias");
}

static __global__ void expert_sum_kernel(float *x, size_t ld, const float *y, const float *weight, uint32_t k,
                                         uint32_t d)
{
    const uint32_t c = blockIdx.y * blockDim.x + threadIdx.x;
    const float *slot = y + (size_t)blockIdx.x * k * d + c, *w = weight + (size_t)blockIdx.x * k;
    float *to = x + blockIdx.x * ld + c, sum = 0;
    if (c >= d) return;
    for (uint32_t j = 0; j < k; j++) sum = __fmaf_rn(w[j], slot[(size_t)j * d], sum);
    *to = __fadd_rn(*to, sum);
}

enum status cuda_expert_sum(struct backend *b, struct stream *s, float *x, size_t ld, const float *y,
                            const struct route *route, uint32_t d)
{
    assert(d % 16 == 0);
    if (route->n == 0) return OK;
    return cuda_check(b,
                      cu_launch(expert_sum_kernel, dim3(route->n, cu_div_up(d, SLOT_THREADS)), SLOT_THREADS, 0,
                                cu_stream(b, s), x, ld, y, route->weight, route->k, d),
                      "expert_sum");
}
