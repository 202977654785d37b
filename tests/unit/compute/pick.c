/* pick: edits, candidates and masses are those of a plain sort and plain sums, on every level the same bits. */
#include "base/cpu.h"
#include "base/mem.h"
#include "compute/backend.h"
#include "compute/cpu/cpu_kernels.h"
#include "helpers/kernel_check.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_VOCAB 49152
#define MAX_EDITS 40
#define N_ROWS    7

static struct backend *open_level(const char *isa)
{
    struct backend *b = NULL;
    const struct backend_limits lim = {
        .max_rows = 8, .max_context = 64, .max_cols = 64, .max_heads = 1, .max_head_dim = 64
    };
    struct backend_options o = { .n_threads = 2, .isa = isa, .limits = lim };
    cr_assert_eq(backend_open(&b, "cpu", &o, NULL), OK);
    return b;
}

/* What a row wants, with memory of its own. */
struct wish {
    struct pick_row row;
    int32_t bias_ids[MAX_EDITS], banned[MAX_EDITS];
    float bias[MAX_EDITS];
    struct pick_seen seen[MAX_EDITS];
    uint32_t mask[MAX_VOCAB / 32 + 1];
};

static bool one_in(struct check_rng *r, uint32_t n)
{
    return check_below(r, n) == 0;
}

static void draw_wish(struct check_rng *r, struct wish *w, uint32_t n_vocab)
{
    static const uint32_t wants[] = { 1, 2, 20, 255, 256 };
    memset(w, 0, sizeof(*w));
    w->row = (struct pick_row){ .bias_ids = w->bias_ids,
                                .bias = w->bias,
                                .n_bias = check_below(r, MAX_EDITS),
                                .seen = w->seen,
                                .repetition = one_in(r, 2) ? 1.0f : 1.3f,
                                .frequency = one_in(r, 2) ? 0.0f : 0.4f,
                                .presence = one_in(r, 2) ? 0.0f : 0.7f,
                                .banned = w->banned,
                                .n_banned = check_below(r, 4),
                                .mask = one_in(r, 3) ? w->mask : NULL,
                                .want = wants[check_below(r, 5)],
                                .temperature = one_in(r, 3)   ? 0.0f
                                               : one_in(r, 3) ? 1.0f
                                                              : 0.7f,
                                .wants_sum = one_in(r, 2),
                                .ask = one_in(r, 2) ? -1 : (int32_t)check_below(r, n_vocab) };
    w->row.wants_mass = w->row.temperature > 0.0f && one_in(r, 2);
    for (uint32_t i = 0; i < MAX_EDITS; i++) {
        w->bias_ids[i] = (int32_t)check_below(r, n_vocab);
        w->bias[i] = check_normal(r);
        w->banned[i] = (int32_t)check_below(r, n_vocab);
    }
    for (uint32_t id = check_below(r, 5); id < n_vocab && w->row.n_seen < MAX_EDITS; id += 1 + check_below(r, 9))
        w->seen[w->row.n_seen++] = (struct pick_seen){ (int32_t)id, check_below(r, 3) };
    for (uint32_t i = 0; i < MAX_VOCAB / 32 + 1; i++) w->mask[i] = one_in(r, 4) ? UINT32_MAX : (uint32_t)check_next(r);
}

/* The edits by their definition. */
static void edit(float *x, uint32_t n_vocab, const struct pick_row *row)
{
    for (uint32_t i = 0; i < row->n_bias; i++) x[row->bias_ids[i]] += row->bias[i];
    for (uint32_t i = 0; i < row->n_seen; i++) {
        float v = x[row->seen[i].id];
        v = v > 0.0f ? v / row->repetition : v * row->repetition;
        if (row->seen[i].n_output > 0) v = v - row->frequency * (float)row->seen[i].n_output - row->presence;
        x[row->seen[i].id] = v;
    }
    for (uint32_t i = 0; i < row->n_banned; i++) x[row->banned[i]] = -INFINITY;
    for (uint32_t id = 0; id < n_vocab; id++)
        if (row->mask && !(row->mask[id / 32] >> id % 32 & 1)) x[id] = -INFINITY;
}

static int by_order(const void *pa, const void *pb)
{
    const struct candidate *a = pa, *b = pb;
    if (a->value != b->value) return a->value > b->value ? -1 : 1;
    return a->id < b->id ? -1 : 1;
}

static double sum_of(const float *x, uint32_t n, double top, double temperature)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < n; i++) sum += exp(((double)x[i] - top) / temperature);
    return sum;
}

/* What was picked of row x, which was edited in place. */
static void expect_picked(const struct pick_row *row, const float *x, uint32_t n_vocab, const struct picked *got)
{
    struct candidate *all = mem_array(n_vocab, sizeof(*all));
    const double top = (double)got->best[0].value;
    for (uint32_t i = 0; i < n_vocab; i++) all[i] = (struct candidate){ x[i], (int32_t)i };
    qsort(all, n_vocab, sizeof(*all), by_order);
    cr_assert(got->finite);
    cr_assert_eq(got->n, row->want < n_vocab ? row->want : n_vocab);
    cr_assert_eq(memcmp(all, got->best, got->n * sizeof(*all)), 0, "%u of %u", row->want, n_vocab);
    if (row->ask >= 0) cr_assert_eq(memcmp(&got->asked, &x[row->ask], sizeof(float)), 0);
    if (isfinite(top) && row->wants_mass) {
        const double mass = sum_of(x, n_vocab, top, (double)row->temperature);
        cr_assert_float_eq(got->mass, mass, 3e-6 * mass);
    }
    if (isfinite(top) && row->wants_sum) {
        const double sum = sum_of(x, n_vocab, top, 1.0);
        cr_assert_float_eq(got->sum, sum, 3e-6 * sum);
    }
    for (uint32_t i = 0; i < got->n && isfinite(top) && row->temperature > 0.0f; i++) {
        const double w = exp(((double)got->best[i].value - top) / (double)row->temperature);
        cr_assert_float_eq(got->weight[i], w, 1e-5 * w + 1e-37);
    }
    mem_free(all);
}

/* Logits in steps: many are equal. */
static void fill(struct check_rng *r, float *x, uint32_t n, float step)
{
    for (uint32_t i = 0; i < n; i++) x[i] = step * floorf(check_normal(r) * 4.0f / step);
}

static int ascending(const void *pa, const void *pb)
{
    const float a = *(const float *)pa, b = *(const float *)pb;
    return (a > b) - (a < b);
}

Test(pick, finds_what_a_sort_of_the_edited_row_finds)
{
    static const uint32_t vocabs[] = { 5, 160, 257, 1000, 4099, MAX_VOCAB };
    static float x[N_ROWS * MAX_VOCAB], want[N_ROWS * MAX_VOCAB];
    static struct wish wishes[N_ROWS];
    static struct picked got[N_ROWS];
    struct backend *b = open_level("auto");
    struct check_rng rng = { 11 };
    for (uint32_t trial = 0; trial < 60; trial++) {
        const uint32_t n_vocab = vocabs[trial % 6];
        struct pick_row rows[N_ROWS];
        fill(&rng, x, N_ROWS * n_vocab, trial % 2 ? 0.5f : 1e-4f);
        if (trial % 7 == 0) qsort(x, n_vocab, sizeof(*x), ascending); /* each beats all before it */
        memcpy(want, x, (size_t)N_ROWS * n_vocab * sizeof(*x));
        for (uint32_t i = 0; i < N_ROWS; i++) {
            draw_wish(&rng, &wishes[i], n_vocab);
            rows[i] = wishes[i].row;
            edit(want + i * n_vocab, n_vocab, &rows[i]);
        }
        cr_assert_eq(b->ops->pick(b, NULL, x, n_vocab, N_ROWS, rows, got), OK);
        cr_assert_eq(memcmp(x, want, (size_t)N_ROWS * n_vocab * sizeof(*x)), 0, "edits of trial %u", trial);
        for (uint32_t i = 0; i < N_ROWS; i++) expect_picked(&rows[i], x + i * n_vocab, n_vocab, &got[i]);
    }
    backend_close(b);
}

Test(pick, every_level_gives_the_bits_of_the_reference)
{
    static float x[MAX_VOCAB], a[MAX_VOCAB], c[MAX_VOCAB];
    static struct wish w;
    static struct picked want, got;
    struct backend *ref = open_level("ref");
    const struct cpu_kernels *k;
    for (size_t level = 1; (k = cpu_kernel_levels[level]) != NULL; level++) {
        if ((k->flags & cpu_flags()) != k->flags) continue;
        struct backend *b = open_level(k->name);
        struct check_rng rng = { 12 };
        for (uint32_t trial = 0; trial < 12; trial++) {
            const uint32_t n = trial % 2 ? MAX_VOCAB : 1 + check_below(&rng, 9000);
            fill(&rng, x, n, 1e-5f);
            draw_wish(&rng, &w, n);
            memcpy(a, x, n * sizeof(*x));
            memcpy(c, x, n * sizeof(*x));
            memset(&want, 0, sizeof(want));
            memset(&got, 0, sizeof(got));
            cr_assert_eq(ref->ops->pick(ref, NULL, a, n, 1, &w.row, &want), OK);
            cr_assert_eq(b->ops->pick(b, NULL, c, n, 1, &w.row, &got), OK);
            cr_assert_eq(memcmp(&want, &got, sizeof(want)), 0, "%s, %u logits", k->name, n);
            const float top = want.best[0].value;
            cr_assert_eq(ref->ops->weigh(ref, NULL, a, n, top, 0.7f), OK);
            cr_assert_eq(b->ops->weigh(b, NULL, c, n, top, 0.7f), OK);
            cr_assert_eq(memcmp(a, c, n * sizeof(*a)), 0);
            for (uint32_t i = 0; i < want.n && w.row.temperature == 0.7f; i++)
                cr_assert_eq(a[want.best[i].id], want.weight[i], "weigh() has the weights of pick()");
        }
        backend_close(b);
    }
    backend_close(ref);
}

Test(pick, tells_rows_that_hold_more_than_numbers)
{
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    static struct picked got[3];
    float x[3 * 1003] = { 0 };
    struct pick_row rows[3];
    struct backend *b = open_level("auto");
    for (uint32_t i = 0; i < 3; i++) {
        rows[i] = (struct pick_row){ .repetition = 1.0f, .want = 4, .wants_sum = true, .ask = 7 };
        x[i * 1003 + (i == 0 ? 1002 : 500 * i)] = bad[i];
    }
    cr_assert_eq(b->ops->pick(b, NULL, x, 1003, 3, rows, got), OK);
    for (uint32_t i = 0; i < 3; i++)
        cr_assert(!got[i].finite && got[i].n == 0 && isnan(got[i].best[0].value) && isnan(got[i].sum));
    memset(x, 0, sizeof(x));
    static const uint32_t none[1003 / 32 + 1];
    rows[0].mask = none;
    cr_assert_eq(b->ops->pick(b, NULL, x, 1003, 1, rows, got), OK);
    cr_assert(got[0].finite && got[0].best[0].value == -INFINITY && got[0].best[0].id == 0);
    cr_assert(got[0].n == 4 && got[0].sum == 0.0, "a row of which nothing is left");
    backend_close(b);
}
