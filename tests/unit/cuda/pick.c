/* pick: edits, candidates, weights and sums of the CUDA backend are the bits of the CPU's reference. */
#include "helpers/cuda_check.h"

#include <math.h>
#include <stdlib.h>

#define MAX_VOCAB 20011
#define MAX_EDITS 300
#define N_ROWS    6

static const struct backend_limits LIMITS = { .max_rows = 8, .max_context = 64, .max_cols = 64 };

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

static void draw_edits(struct check_rng *r, struct wish *w, uint32_t n_vocab)
{
    w->row.n_bias = check_below(r, MAX_EDITS);
    w->row.n_banned = check_below(r, 4);
    w->row.mask = one_in(r, 2) ? w->mask : NULL;
    for (uint32_t i = 0; i < MAX_EDITS; i++) {
        w->bias_ids[i] = (int32_t)check_below(r, n_vocab < 100 ? n_vocab : 100); /* many come again */
        w->bias[i] = check_normal(r);
        w->banned[i] = (int32_t)check_below(r, n_vocab);
    }
    for (uint32_t id = check_below(r, 5); id < n_vocab && w->row.n_seen < MAX_EDITS; id += 1 + check_below(r, 9))
        w->seen[w->row.n_seen++] = (struct pick_seen){ (int32_t)id, check_below(r, 3) };
    for (uint32_t i = 0; i < MAX_VOCAB / 32 + 1; i++) w->mask[i] = one_in(r, 4) ? UINT32_MAX : (uint32_t)check_next(r);
}

static void draw_wish(struct check_rng *r, struct wish *w, uint32_t n_vocab, bool edits)
{
    static const uint32_t wants[] = { 1, 2, 8, 9, 20, 255, 256 };
    memset(w, 0, sizeof(*w));
    w->row = (struct pick_row){ .bias_ids = w->bias_ids,
                                .bias = w->bias,
                                .seen = w->seen,
                                .repetition = one_in(r, 2) ? 1.0f : 1.3f,
                                .frequency = one_in(r, 2) ? 0.0f : 0.4f,
                                .presence = one_in(r, 2) ? 0.0f : 0.7f,
                                .banned = w->banned,
                                .want = wants[check_below(r, 7)],
                                .temperature = one_in(r, 3)   ? 0.0f
                                               : one_in(r, 3) ? 1.0f
                                                              : 0.7f,
                                .wants_sum = one_in(r, 2),
                                .ask = one_in(r, 2) ? -1 : (int32_t)check_below(r, n_vocab) };
    w->row.wants_mass = w->row.temperature > 0.0f && one_in(r, 2);
    if (edits) draw_edits(r, w, n_vocab);
}

/* Logits in steps: many are equal; some are -0. */
static void fill(struct check_rng *r, float *x, uint32_t n, float step)
{
    for (uint32_t i = 0; i < n; i++) x[i] = step * floorf(check_normal(r) * 4.0f / step);
    for (uint32_t i = check_below(r, 50); i < n; i += 1 + check_below(r, 50)) x[i] = -0.0f;
}

static void expect_double(double want, double got, const char *what)
{
    cr_assert(memcmp(&want, &got, sizeof(want)) == 0 || (isnan(want) && isnan(got)), "%s is %a, not %a", what, got,
              want);
}

static void expect_same(const struct pick_row *row, const struct picked *want, const struct picked *got)
{
    cr_assert_eq(got->finite, want->finite);
    cr_assert_eq(got->n, want->n, "%u candidates, not %u", got->n, want->n);
    for (uint32_t i = 0; i < (want->n ? want->n : 1); i++) {
        cr_assert_eq(got->best[i].id, want->best[i].id, "candidate %u of %u is %d, not %d", i, want->n, got->best[i].id,
                     want->best[i].id);
        check_same_floats(&want->best[i].value, &got->best[i].value, 1, "a candidate's logit");
    }
    if (row->temperature > 0) check_same_floats(want->weight, got->weight, want->n, "weights");
    if (row->ask >= 0 || !want->finite) check_same_floats(&want->asked, &got->asked, 1, "the logit asked for");
    if (row->wants_mass || !want->finite) expect_double(want->mass, got->mass, "mass");
    if (row->wants_sum || !want->finite) expect_double(want->sum, got->sum, "sum");
}

/* Both pick from the same rows; the edited rows are compared where they are finite. */
static void check_pick(const struct both *b, float *x, uint32_t n_vocab, uint32_t n, const struct pick_row *rows)
{
    static struct picked want[N_ROWS], got[N_ROWS];
    const size_t bytes = (size_t)n * n_vocab * sizeof(float);
    float *d_x = check_device(b->gpu, x, bytes);
    memset(want, 0, sizeof(want));
    memset(got, 0xee, sizeof(got));
    cr_assert_eq(b->cpu->ops->pick(b->cpu, NULL, x, n_vocab, n, rows, want), OK);
    cr_assert_eq(b->gpu->ops->pick(b->gpu, NULL, d_x, n_vocab, n, rows, got), OK);
    cr_assert_eq(b->gpu->ops->sync(b->gpu, NULL), OK);
    float *edited = check_host(b->gpu, d_x, bytes);
    for (uint32_t i = 0; i < n; i++) {
        expect_same(&rows[i], &want[i], &got[i]);
        if (want[i].finite)
            check_same_floats(x + (size_t)i * n_vocab, edited + (size_t)i * n_vocab, n_vocab, "the edited row");
    }
    mem_free(edited);
    check_release(b->gpu, d_x, bytes);
}

static int ascending(const void *pa, const void *pb)
{
    const float a = *(const float *)pa, b = *(const float *)pb;
    return (a > b) - (a < b);
}

Test(cuda_pick, rows_and_what_is_picked_are_the_cpus)
{
    static const uint32_t vocabs[] = { 5, 160, 257, 4096, 4099, 9000, MAX_VOCAB };
    static float x[N_ROWS * MAX_VOCAB];
    static struct wish wishes[N_ROWS];
    struct both b = open_both(LIMITS);
    struct check_rng rng = { 11 };
    for (uint32_t trial = 0; trial < 28; trial++) {
        const uint32_t n_vocab = vocabs[trial % 7];
        struct pick_row rows[N_ROWS];
        fill(&rng, x, N_ROWS * n_vocab, trial % 3 == 0 ? 0.5f : trial % 3 == 1 ? 1e-5f : 40.0f);
        if (trial % 5 == 0) qsort(x, n_vocab, sizeof(*x), ascending);
        for (uint32_t i = 0; i < N_ROWS; i++) {
            draw_wish(&rng, &wishes[i], n_vocab, trial % 4 != 3 && !one_in(&rng, 3));
            rows[i] = wishes[i].row;
        }
        check_pick(&b, x, n_vocab, 1 + trial % N_ROWS, rows);
    }
    close_both(&b);
}

/* What chunks keep of a large vocabulary is more than a block has threads for. */
Test(cuda_pick, many_candidates_of_a_large_vocabulary)
{
    enum { VOCAB = 152064 };
    static const float steps[] = { 1e-4f, 1.0f, 100.0f }; /* the last: almost all are equal */
    float *x = mem_array(VOCAB, sizeof(float));
    struct both b = open_both(LIMITS);
    struct check_rng rng = { 13 };
    for (int i = 0; i < 3; i++) {
        const struct pick_row row = {
            .repetition = 1.0f, .want = 256, .temperature = 0.6f, .wants_mass = true, .wants_sum = true, .ask = 17
        };
        fill(&rng, x, VOCAB, steps[i]);
        check_pick(&b, x, VOCAB, 1, &row);
    }
    mem_free(x);
    close_both(&b);
}

Test(cuda_pick, tells_rows_that_hold_more_than_numbers)
{
    enum { VOCAB = 9001 };
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    static const uint32_t none[VOCAB / 32 + 1];
    static const int32_t banned[] = { 3 };
    static float x[4 * VOCAB];
    struct both b = open_both(LIMITS);
    struct pick_row rows[4];
    for (int edits = 0; edits < 2; edits++) {
        memset(x, 0, sizeof(x));
        for (uint32_t i = 0; i < 4; i++)
            rows[i] = (struct pick_row){
                .repetition = 1.0f, .want = 4, .temperature = 1, .wants_mass = true, .wants_sum = true, .ask = 7
            };
        for (uint32_t i = 0; i < 3; i++) x[(i + 1) * VOCAB - 1 - 4500 * i] = bad[i];
        if (edits) rows[1].banned = banned, rows[1].n_banned = 1;
        check_pick(&b, x, VOCAB, 4, rows);
    }
    memset(x, 0, sizeof(x));
    rows[0].mask = none; /* a row of which nothing is left */
    check_pick(&b, x, VOCAB, 1, rows);
    close_both(&b);
}

Test(cuda_pick, weights_alone_are_the_cpus)
{
    static float x[1003];
    struct both b = open_both(LIMITS);
    struct check_rng rng = { 14 };
    check_fill(&rng, FILL_MIXED, x, 1003);
    x[5] = -INFINITY;
    float *d_x = check_device(b.gpu, x, sizeof(x));
    cr_assert_eq(b.cpu->ops->weigh(b.cpu, NULL, x, 1003, 17.5f, 0.7f), OK);
    cr_assert_eq(b.gpu->ops->weigh(b.gpu, NULL, d_x, 1003, 17.5f, 0.7f), OK);
    float *got = check_host(b.gpu, d_x, sizeof(x));
    check_same_floats(x, got, 1003, "weigh");
    mem_free(got);
    check_release(b.gpu, d_x, sizeof(x));
    close_both(&b);
}
