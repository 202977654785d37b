/* cpu_route.c - which experts a row goes to, and what is done slot by slot: their biases, and the sum of their outputs.
 *
 * Probabilities are made by the kernels; the choice is the same code on every level. */
#include "compute/cpu/cpu_internal.h"

#include <assert.h>
#include <math.h>

#define LEAST_SUM 0x1p-14f /* of weights that are divided by their sum: fp16's smallest normal number */

struct route_run {
    const struct cpu_backend *b;
    const struct route *route;
    const struct route_facts *facts; /* route */
    float *y;                        /* in place: slots, or rows that sums are added to */
    const float *x;                  /* logits, biases, or the slots that are summed */
    size_t ld;
    uint32_t cols;
};

/* Of one row, in a thread's scratch: arrays of n_experts. */
struct choice {
    float *p;     /* probabilities */
    float *score; /* what is chosen by */
    float *group; /* [n_groups] */
    bool *out;    /* not to be chosen (any more) */
    bool *used;   /* [n_groups] */
};

/* Addresses are numbers here: how much is needed is asked without a place. */
static size_t carve(struct choice *c, uintptr_t at, uint32_t n_experts)
{
    const size_t n = ((size_t)n_experts + 15) / 16 * 16, floats = n * sizeof(float);
    c->p = (float *)at;
    c->score = (float *)(at + floats);
    c->group = (float *)(at + 2 * floats);
    c->out = (bool *)(at + 3 * floats);
    c->used = (bool *)(at + 3 * floats + n);
    return 3 * floats + 2 * n;
}

size_t cpu_route_scratch(const struct backend_limits *limits)
{
    struct choice c;
    return carve(&c, 0, limits->max_experts);
}

/* The highest of n that are not `out`; the first of equals. */
static uint32_t best_of(const float *score, const bool *out, uint32_t n)
{
    uint32_t best = n;
    for (uint32_t i = 0; i < n; i++)
        if (!out[i] && (best == n || score[i] > score[best])) best = i;
    return best;
}

static float sum_of_two_best(const float *score, uint32_t n)
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
    return n > 1 ? first + second : first;
}

/* Experts of all but the n_groups_used best groups are out. */
static void choose_groups(const struct route_facts *f, struct choice *c)
{
    const uint32_t size = f->n_experts / f->n_groups;
    for (uint32_t g = 0; g < f->n_groups; g++) {
        c->group[g] = sum_of_two_best(c->score + g * size, size);
        c->used[g] = false;
    }
    for (uint32_t i = 0; i < f->n_groups_used; i++) c->used[best_of(c->group, c->used, f->n_groups)] = true;
    for (uint32_t e = 0; e < f->n_experts; e++) c->out[e] = !c->used[e / size];
}

/* The k best into expert[], ascending. */
static void choose(const struct route_facts *f, struct choice *c, uint32_t *expert, uint32_t k)
{
    for (uint32_t e = 0; e < f->n_experts; e++) {
        const float score = f->bias ? c->p[e] + f->bias[e] : c->p[e];
        c->score[e] = isnan(score) ? -INFINITY : score;
        c->out[e] = false;
    }
    if (f->n_groups > 1) choose_groups(f, c);
    for (uint32_t j = 0; j < k; j++) {
        uint32_t e = best_of(c->score, c->out, f->n_experts), at = j;
        c->out[e] = true;
        for (; at > 0 && expert[at - 1] > e; at--) expert[at] = expert[at - 1];
        expert[at] = e;
    }
}

static void weigh(const struct route_run *r, const struct choice *c, const uint32_t *expert, float *weight)
{
    const struct route_facts *f = r->facts;
    const uint32_t k = r->route->k;
    float sum = 0;
    for (uint32_t j = 0; j < k; j++) weight[j] = c->p[expert[j]];
    if (f->gate == ROUTE_SOFTMAX_CHOSEN) r->b->kernels->route_gate(weight, weight, k, ROUTE_SOFTMAX);
    for (uint32_t j = 0; j < k; j++) sum += weight[j];
    sum = sum < LEAST_SUM ? LEAST_SUM : sum;
    for (uint32_t j = 0; j < k && f->norm; j++) weight[j] /= sum;
    for (uint32_t j = 0; j < k; j++) weight[j] *= f->scale;
}

static void route_rows(void *arg, uint32_t row0, uint32_t row1, uint32_t member)
{
    const struct route_run *r = arg;
    struct choice c;
    carve(&c, (uintptr_t)scratch_of(r->b, member), r->b->limits.max_experts);
    for (uint32_t i = row0; i < row1; i++) {
        uint32_t *expert = r->route->expert + (size_t)i * r->route->k;
        r->b->kernels->route_gate(c.p, r->x + i * r->ld, r->facts->n_experts, r->facts->gate);
        choose(r->facts, &c, expert, r->route->k);
        weigh(r, &c, expert, r->route->weight + (size_t)i * r->route->k);
    }
}

enum status cpu_route(struct backend *backend, struct stream *s, struct route *out, const float *logits, size_t ld,
                      const struct route_facts *facts)
{
    struct cpu_backend *b = cpu_of(backend);
    struct route_run run = { .b = b, .route = out, .facts = facts, .x = logits, .ld = ld };
    assert(facts->n_experts <= b->limits.max_experts && out->k > 0 && out->k <= facts->n_experts);
    assert(facts->gate >= ROUTE_SOFTMAX && facts->gate <= ROUTE_SQRT_SOFTPLUS);
    if (facts->n_groups > 1) {
        assert(facts->n_experts % facts->n_groups == 0 && facts->n_groups_used <= facts->n_groups);
        assert(out->k <= facts->n_experts / facts->n_groups * facts->n_groups_used);
    }
    cpu_for_rows(b, out->n, 1, route_rows, &run);
    return OK;
}

/* --- slots --- */
static void bias_slots(void *arg, uint32_t slot0, uint32_t slot1, uint32_t member)
{
    const struct route_run *r = arg;
    for (uint32_t i = slot0; i < slot1; i++)
        r->b->kernels->add(r->y + i * r->ld, r->x + (size_t)r->route->expert[i] * r->cols, r->cols);
}

enum status cpu_expert_bias(struct backend *b, struct stream *s, float *y, size_t ld, const float *bias, uint32_t cols,
                            const struct route *route)
{
    struct route_run run = { .b = cpu_of(b), .route = route, .y = y, .x = bias, .ld = ld, .cols = cols };
    cpu_for_rows(cpu_of(b), route->n * route->k, 1, bias_slots, &run);
    return OK;
}

static void sum_rows(void *arg, uint32_t row0, uint32_t row1, uint32_t member)
{
    const struct route_run *r = arg;
    const uint32_t k = r->route->k;
    for (uint32_t i = row0; i < row1; i++)
        r->b->kernels->add_weighted(r->y + i * r->ld, r->x + (size_t)i * k * r->cols, r->route->weight + (size_t)i * k,
                                    k, r->cols);
}

enum status cpu_expert_sum(struct backend *b, struct stream *s, float *x, size_t ld, const float *y,
                           const struct route *route, uint32_t d)
{
    struct route_run run = { .b = cpu_of(b), .route = route, .y = x, .x = y, .ld = ld, .cols = d };
    assert(d % 16 == 0);
    cpu_for_rows(cpu_of(b), route->n, 1, sum_rows, &run);
    return OK;
}
