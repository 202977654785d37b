/* route_margins.c - the route op, with its scores computed again in double. */
#include "helpers/route_margins.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#define EXPERTS_MAX 512

static struct backend_ops ops;
static const struct backend_ops *real;
static float *margins;
static uint32_t n_margins;

static int falling(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x > y ? -1 : x < y;
}

static double score_of(const struct route_facts *f, double logit, double sum)
{
    switch (f->gate) {
    case ROUTE_SOFTMAX: return exp(logit) / sum;
    case ROUTE_SIGMOID: return 1.0 / (1.0 + exp(-logit));
    case ROUTE_SQRT_SOFTPLUS: return sqrt(log1p(exp(logit)));
    default: return logit; /* ROUTE_SOFTMAX_CHOSEN */
    }
}

/* Between the used-th largest of n values and the next one; sorts them. */
static double gap(double *values, uint32_t n, uint32_t used)
{
    qsort(values, n, sizeof(*values), falling);
    return used < n ? values[used - 1] - values[used] : (double)INFINITY;
}

/* Groups that are not chosen leave the scores. */
static double groups_gap(const struct route_facts *f, double *score)
{
    const uint32_t size = f->n_experts / f->n_groups;
    double two[EXPERTS_MAX], sorted[EXPERTS_MAX], group[EXPERTS_MAX];
    for (uint32_t g = 0; g < f->n_groups; g++) {
        for (uint32_t i = 0; i < size; i++) sorted[i] = score[g * size + i];
        qsort(sorted, size, sizeof(*sorted), falling);
        group[g] = two[g] = size > 1 ? sorted[0] + sorted[1] : sorted[0];
    }
    const double between = gap(two, f->n_groups, f->n_groups_used);
    for (uint32_t e = 0; e < f->n_experts; e++)
        if (group[e / size] < two[f->n_groups_used - 1]) score[e] = -INFINITY;
    return between;
}

static double margin_of(const struct route_facts *f, const float *logits, uint32_t k)
{
    double score[EXPERTS_MAX], sum = 0.0, between = INFINITY;
    for (uint32_t e = 0; e < f->n_experts; e++) sum += exp((double)logits[e]);
    for (uint32_t e = 0; e < f->n_experts; e++)
        score[e] = score_of(f, (double)logits[e], sum) + (f->bias ? (double)f->bias[e] : 0.0);
    if (f->n_groups > 1) between = groups_gap(f, score);
    return fmin(between, gap(score, f->n_experts, k));
}

static enum status route(struct backend *b, struct stream *s, struct route *out, const float *logits, size_t ld,
                         const struct route_facts *facts)
{
    cr_assert(out->n <= n_margins && facts->n_experts <= EXPERTS_MAX);
    for (uint32_t i = 0; i < out->n && facts->n_experts > out->k; i++)
        margins[i] = fminf(margins[i], (float)margin_of(facts, logits + i * ld, out->k));
    return real->route(b, s, out, logits, ld, facts);
}

void route_margins_install(struct backend *cpu, float *where, uint32_t n_rows)
{
    margins = where;
    n_margins = n_rows;
    for (uint32_t i = 0; i < n_rows; i++) margins[i] = INFINITY;
    if (cpu->ops == &ops) return;
    real = cpu->ops;
    ops = *real;
    ops.route = route;
    cpu->ops = &ops;
}
