/* pick.c - edits a row of logits, finds its best candidates, and sums its weights. */
#include "compute/pick.h"

#include "compute/cpu/cpu_internal.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define LANES    16
#define RUN      4096 /* logits whose weights are summed in fp32; runs are summed in double */
#define CAPACITY (4 * PICK_MAX)

/* --- edits --- */
static void edit_seen(float *x, const struct pick_row *row)
{
    for (uint32_t i = 0; i < row->n_seen; i++) {
        const struct pick_seen *t = &row->seen[i];
        float *at = &x[t->id];
        if (row->repetition != 1.0f) *at = *at > 0.0f ? *at / row->repetition : *at * row->repetition;
        if (t->n_output == 0) continue;
        *at -= row->frequency * (float)t->n_output;
        *at -= row->presence;
    }
}

static void apply_mask(float *x, uint32_t n, const uint32_t *mask)
{
    for (uint32_t w = 0; w < (n + 31) / 32; w++) {
        if (mask[w] == UINT32_MAX) continue;
        for (uint32_t id = 32 * w; id < n && id < 32 * (w + 1); id++)
            if (!pick_allows(mask, id)) x[id] = -INFINITY;
    }
}

static void edit(float *x, uint32_t n, const struct pick_row *row)
{
    for (uint32_t i = 0; i < row->n_bias; i++) x[row->bias_ids[i]] += row->bias[i];
    edit_seen(x, row);
    for (uint32_t i = 0; i < row->n_banned; i++) x[row->banned[i]] = -INFINITY;
    if (row->mask) apply_mask(x, n, row->mask);
}

/* Whether any of 16 has an exponent of ones; a loop of this form is vectorized. */
static uint32_t any_not_finite(const float *x)
{
    const uint32_t exponent = 0x7f800000u;
    uint32_t bits[LANES], any = 0;
    memcpy(bits, x, sizeof(bits));
    for (int i = 0; i < LANES; i++) any |= (bits[i] & exponent) == exponent ? 1u : 0u;
    return any;
}

static bool is_finite(const float *x, uint32_t n)
{
    float rest[LANES] = { 0 };
    uint32_t i = 0, bad = 0;
    for (; i + LANES <= n; i += LANES) bad |= any_not_finite(x + i);
    memcpy(rest, x + i, (n - i) * sizeof(*rest));
    return !(bad | any_not_finite(rest));
}

/* --- candidates: those that beat the bar are kept; when there are too many, the worst leave and the bar rises --- */
struct keeper {
    struct candidate c[CAPACITY + LANES];
    uint32_t n, want, limit;
    struct candidate bar; /* the last of the best so far: what is not heavier is no candidate */
};

static void raise_bar(struct keeper *k)
{
    k->n = select_top(k->c, k->n, k->want);
    if (k->n < k->want) return;
    k->bar = k->c[0];
    for (uint32_t i = 1; i < k->n; i++)
        if (is_heavier(&k->bar, &k->c[i])) k->bar = k->c[i];
}

/* Whether any of 16 reaches the bar; ids rise, so what equals it comes too late.  NaN never does. */
static uint32_t any_above(const float *x, float bar)
{
    uint32_t any = 0;
    for (int i = 0; i < LANES; i++) any |= x[i] > bar ? 1u : 0u;
    return any;
}

static void offer(struct keeper *k, const float *x, uint32_t id0, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (x[i] > k->bar.value || k->bar.id < 0) k->c[k->n++] = (struct candidate){ x[i], (int32_t)(id0 + i) };
    if (k->n > k->limit) raise_bar(k);
}

static void find_best(struct picked *out, const float *x, uint32_t n, uint32_t want)
{
    struct keeper k = { .want = want, .limit = 4 * want, .bar = { -INFINITY, -1 } };
    uint32_t i = 0;
    for (; i + LANES <= n; i += LANES)
        if (k.bar.id < 0 || any_above(x + i, k.bar.value)) offer(&k, x + i, i, LANES);
    offer(&k, x + i, i, n - i);
    raise_bar(&k);
    select_sort(k.c, k.n);
    memcpy(out->best, k.c, k.n * sizeof(*k.c));
    out->n = k.n;
}

/* --- weights --- */
static double sum_of_weights(const struct cpu_kernels *k, const float *x, uint32_t n, float top, float temperature)
{
    double sum = 0.0;
    if (!isfinite(top)) return 0.0;
    for (uint32_t i = 0; i < n; i += RUN) {
        const uint32_t len = n - i < RUN ? n - i : RUN, whole = len / LANES * LANES;
        sum += (double)k->exp_sum(x + i, whole, top, temperature);
        if (whole == len) continue;
        float rest[LANES];
        for (uint32_t j = 0; j < LANES; j++) rest[j] = whole + j < len ? x[i + whole + j] : -INFINITY;
        sum += (double)k->exp_sum(rest, LANES, top, temperature);
    }
    return sum;
}

static void weigh(const struct cpu_kernels *k, float *x, uint32_t n, float top, float temperature)
{
    const uint32_t whole = n / LANES * LANES;
    float rest[LANES] = { 0 };
    k->exp_row(x, whole, top, temperature);
    memcpy(rest, x + whole, (n - whole) * sizeof(*rest));
    k->exp_row(rest, LANES, top, temperature);
    memcpy(x + whole, rest, (n - whole) * sizeof(*rest));
}

static void weigh_best(const struct cpu_kernels *k, struct picked *out, float temperature)
{
    for (uint32_t i = 0; i < out->n; i++) out->weight[i] = out->best[i].value;
    weigh(k, out->weight, out->n, out->best[0].value, temperature);
}

static void pick_one(const struct cpu_kernels *k, float *x, uint32_t n, const struct pick_row *row, struct picked *out)
{
    assert(row->want > 0 && row->want <= PICK_MAX);
    out->finite = is_finite(x, n);
    if (!out->finite) {
        out->n = 0;
        out->best[0] = (struct candidate){ NAN, 0 };
        out->asked = NAN;
        out->mass = out->sum = (double)NAN;
        return;
    }
    edit(x, n, row);
    find_best(out, x, n, row->want);
    const float top = out->best[0].value;
    if (row->ask >= 0) out->asked = x[row->ask];
    if (row->temperature > 0.0f) weigh_best(k, out, row->temperature);
    if (row->wants_mass) out->mass = sum_of_weights(k, x, n, top, row->temperature);
    const bool is_same = row->wants_mass && row->temperature == 1.0f;
    if (row->wants_sum) out->sum = is_same ? out->mass : sum_of_weights(k, x, n, top, 1.0f);
}

struct pick_run {
    const struct cpu_kernels *kernels;
    float *logits;
    uint32_t n_vocab;
    const struct pick_row *rows;
    struct picked *out;
};

static void pick_rows(void *arg, uint32_t row0, uint32_t row1, uint32_t member)
{
    const struct pick_run *r = arg;
    for (uint32_t i = row0; i < row1; i++)
        pick_one(r->kernels, r->logits + (size_t)i * r->n_vocab, r->n_vocab, &r->rows[i], &r->out[i]);
}

enum status cpu_pick(struct backend *b, struct stream *s, float *logits, uint32_t n_vocab, uint32_t n,
                     const struct pick_row *rows, struct picked *out)
{
    struct pick_run run = { cpu_of(b)->kernels, logits, n_vocab, rows, out };
    cpu_for_rows(cpu_of(b), n, 1, pick_rows, &run);
    return OK;
}

enum status cpu_weigh(struct backend *b, struct stream *s, float *x, uint32_t n, float top, float temperature)
{
    weigh(cpu_of(b)->kernels, x, n, top, temperature);
    return OK;
}
