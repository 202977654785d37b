/* sampler: penalties, filters and draws are pure functions of their arguments, and by their definition. */
#include "engine/sampler.h"

#include "compute/backend.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define N 1000

static struct sampling_params greedy(void)
{
    return (struct sampling_params){
        .top_p = 1.0f, .repetition_penalty = 1.0f, .max_tokens = 16, .n_logprobs = -1, .n_prompt_logprobs = -1
    };
}

static struct sampling_params sampled(float temperature)
{
    struct sampling_params p = greedy();
    p.temperature = temperature;
    p.seed = 42;
    return p;
}

static void fill(float *logits, uint32_t seed)
{
    for (uint32_t i = 0; i < N; i++) logits[i] = (float)(sampler_uniform(seed, 0, i) * 8.0 - 4.0);
}

struct rig {
    struct backend *backend;
    struct sampler *sampler;
};

static struct rig *rig(void)
{
    static struct rig r;
    const struct backend_limits lim = {
        .max_rows = 8, .max_context = 64, .max_cols = 64, .max_heads = 1, .max_head_dim = 64
    };
    struct backend_options o = { .n_threads = 1, .limits = lim };
    if (r.backend) return &r;
    cr_assert_eq(backend_open(&r.backend, "cpu", &o, NULL), OK);
    r.sampler = sampler_create(N, (int32_t[]){ 7, 9 }, 2);
    return &r;
}

/* As the engine does it: ask, pick, draw, and only where that does not do, the whole row.  `row` is edited. */
static struct drawn draw_row(struct sampler *s, float *row, const struct sampling_params *p, const int32_t *history,
                             uint32_t n_prompt, uint32_t n_output, struct picked *from)
{
    const struct backend_ops *ops = rig()->backend->ops;
    struct pick_row ask;
    struct drawn out;
    float weights[N];
    sampler_begin(s);
    cr_assert(sampler_ask(s, &ask, p, history, n_prompt, n_output, NULL));
    cr_assert_eq(ops->pick(rig()->backend, NULL, row, N, 1, &ask, from), OK);
    if (sampler_draw(s, &out, from, p, n_output)) return out;
    memcpy(weights, row, sizeof(weights));
    cr_assert_eq(ops->weigh(rig()->backend, NULL, weights, N, from->best[0].value, p->temperature), OK);
    return sampler_draw_beyond(s, from, row, weights, p, n_output);
}

static int32_t draw_of(const float *logits, const struct sampling_params *p, uint32_t idx)
{
    static const int32_t history[64] = { 1, 2, 3 };
    static struct picked from;
    float row[N];
    memcpy(row, logits, sizeof(row));
    return draw_row(rig()->sampler, row, p, history, 3, idx, &from).token;
}

Test(sampler, greedy_takes_the_lowest_id_of_equal_logits)
{
    float logits[N] = { 0 };
    struct sampling_params p = greedy();
    logits[500] = logits[300] = logits[800] = 2.0f;
    cr_assert_eq(draw_of(logits, &p, 0), 300);
    logits[500] = 2.5f;
    cr_assert_eq(draw_of(logits, &p, 0), 500);
}

Test(sampler, same_key_same_token_other_index_other_draws)
{
    float logits[N];
    struct sampling_params p = sampled(1.0f);
    int32_t first[200];
    int differ_by_seed = 0, differ_by_choice = 0;
    fill(logits, 5);
    for (uint32_t i = 0; i < 200; i++) first[i] = draw_of(logits, &p, i % 60);
    for (uint32_t i = 0; i < 200; i++) cr_assert_eq(first[i], draw_of(logits, &p, i % 60));
    p.seed++;
    for (uint32_t i = 0; i < 60; i++) differ_by_seed += first[i] != draw_of(logits, &p, i);
    p.seed--;
    p.choice = 1;
    for (uint32_t i = 0; i < 60; i++) differ_by_choice += first[i] != draw_of(logits, &p, i);
    cr_assert_gt(differ_by_seed, 50);
    cr_assert_gt(differ_by_choice, 50);
}

Test(sampler, uniform_draws_are_uniform)
{
    enum { BINS = 20, DRAWS = 200000 };
    int bins[BINS] = { 0 };
    double sum = 0.0;
    for (uint32_t i = 0; i < DRAWS; i++) {
        double u = sampler_uniform(i % 7, i % 3, i);
        cr_assert(u >= 0.0 && u < 1.0);
        bins[(int)(u * BINS)]++;
        sum += u;
    }
    cr_assert_float_eq(sum / DRAWS, 0.5, 0.005);
    for (int i = 0; i < BINS; i++) cr_assert_float_eq(bins[i], DRAWS / BINS, 600.0);
}

Test(sampler, draws_follow_the_probabilities)
{
    enum { DRAWS = 20000 };
    float logits[N];
    int hits[3] = { 0 };
    struct sampling_params p = sampled(1.0f);
    for (int i = 0; i < N; i++) logits[i] = -100.0f;
    logits[10] = logf(0.5f);
    logits[20] = logf(0.3f);
    logits[30] = logf(0.2f);
    for (uint32_t i = 0; i < DRAWS; i++) {
        p.seed = i;
        int32_t t = draw_of(logits, &p, 3);
        cr_assert(t == 10 || t == 20 || t == 30);
        hits[t / 10 - 1]++;
    }
    cr_assert_float_eq(hits[0], 0.5 * DRAWS, 300.0);
    cr_assert_float_eq(hits[1], 0.3 * DRAWS, 300.0);
    cr_assert_float_eq(hits[2], 0.2 * DRAWS, 300.0);
}

/* Which tokens can be drawn at all under p. */
static void reach(const float *logits, struct sampling_params p, bool seen[N])
{
    memset(seen, 0, N * sizeof(bool));
    for (uint32_t i = 0; i < 4000; i++) {
        p.seed = i;
        seen[draw_of(logits, &p, 0)] = true;
    }
}

Test(sampler, top_k_top_p_and_min_p_cut_the_tail)
{
    float logits[N];
    bool seen[N];
    for (int i = 0; i < N; i++) logits[i] = -50.0f;
    const float probs[] = { 0.4f, 0.3f, 0.15f, 0.1f, 0.05f };
    for (int i = 0; i < 5; i++) logits[100 + i] = logf(probs[i]);
    struct sampling_params p = sampled(1.0f);
    p.top_k = 2;
    reach(logits, p, seen);
    cr_assert(seen[100] && seen[101] && !seen[102] && !seen[103]);
    p = sampled(1.0f);
    p.top_p = 0.8f; /* 0.4 + 0.3 < 0.8 <= 0.85 */
    reach(logits, p, seen);
    cr_assert(seen[100] && seen[101] && seen[102] && !seen[103]);
    p = sampled(1.0f);
    p.min_p = 0.25f; /* of 0.4: 0.1 stays in, 0.05 does not */
    reach(logits, p, seen);
    cr_assert(seen[102] && !seen[104]);
    p.top_p = 0.0f;
    reach(logits, p, seen);
    cr_assert(seen[100] && !seen[101], "the likeliest token always stays");
}

Test(sampler, penalties_use_prompt_and_output_as_they_should)
{
    static struct picked from;
    struct sampler *s = sampler_create(N, NULL, 0);
    struct sampling_params p = greedy();
    const int32_t history[] = { 5, 6, 8, 8, -3, N }; /* prompt 5 6, output 8 8; the last two are no tokens */
    float logits[N] = { [5] = 4.0f, [6] = -1.0f, [8] = 3.9f, [9] = 3.0f };
    p.repetition_penalty = 2.0f;
    float row[N];
    memcpy(row, logits, sizeof(row));
    cr_assert_eq(draw_row(s, row, &p, history, 2, 4, &from).token, 9);
    cr_assert_float_eq(row[5], 2.0f, 0.0f);
    cr_assert_float_eq(row[6], -2.0f, 0.0f);
    cr_assert_float_eq(row[8], 1.95f, 1e-6f, "once, however often it stands");
    p = greedy();
    p.frequency_penalty = 0.5f;
    p.presence_penalty = 0.25f;
    memcpy(row, logits, sizeof(row));
    cr_assert_eq(draw_row(s, row, &p, history, 2, 2, &from).token, 5, "the prompt is not counted");
    cr_assert_float_eq(row[8], 3.9f - 2 * 0.5f - 0.25f, 1e-6f);
    sampler_destroy(s);
}

/* What rows ask for lies in the sampler until the next sampler_begin(). */
Test(sampler, keeps_what_several_rows_have_seen)
{
    struct sampler *s = sampler_create(4, NULL, 0);
    struct sampling_params p = greedy();
    struct pick_row a, b, c;
    p.repetition_penalty = 2.0f;
    sampler_begin(s);
    cr_assert(sampler_ask(s, &a, &p, (int32_t[]){ 1, 3, 1 }, 1, 2, NULL));
    cr_assert(sampler_ask(s, &b, &p, (int32_t[]){ 3, 0 }, 2, 0, NULL));
    cr_assert(a.n_seen == 2 && a.seen[0].id == 1 && a.seen[0].n_output == 1);
    cr_assert(a.seen[1].id == 3 && a.seen[1].n_output == 1);
    cr_assert(b.n_seen == 2 && b.seen[0].id == 3 && b.seen[1].id == 0 && b.seen[0].n_output == 0);
    cr_assert_not(sampler_ask(s, &c, &p, (int32_t[]){ 2 }, 1, 0, NULL), "there is no room beside them");
    sampler_begin(s);
    cr_assert(sampler_ask(s, &c, &p, (int32_t[]){ 2, 1, 0, 3 }, 4, 0, NULL));
    cr_assert_eq(c.n_seen, 4);
    sampler_destroy(s);
}

Test(sampler, asks_for_no_more_than_it_looks_at)
{
    struct pick_row ask;
    struct sampler *s = rig()->sampler;
    struct sampling_params p = greedy();
    const int32_t history[] = { 1 };
    cr_assert(sampler_ask(s, &ask, &p, history, 1, 0, NULL));
    cr_assert(ask.want == 1 && ask.n_seen == 0 && ask.n_banned == 0 && !ask.wants_mass && !ask.wants_sum);
    p.n_logprobs = 5;
    p.min_tokens = 1;
    cr_assert(sampler_ask(s, &ask, &p, history, 1, 0, NULL));
    cr_assert(ask.want == 5 && ask.wants_sum && ask.n_banned == 2 && ask.banned[0] == 7);
    p.temperature = 0.5f;
    p.top_k = 3;
    cr_assert(sampler_ask(s, &ask, &p, history, 1, 0, NULL));
    cr_assert(ask.want == 5 && !ask.wants_mass);
    p.top_k = 256;
    cr_assert(sampler_ask(s, &ask, &p, history, 1, 0, NULL));
    cr_assert(ask.want == 256 && !ask.wants_mass, "top_k alone is enough");
    p.top_k = 257;
    cr_assert(sampler_ask(s, &ask, &p, history, 1, 0, NULL));
    cr_assert(ask.want == PICK_MAX && ask.wants_mass);
}

Test(sampler, bias_and_min_tokens_steer)
{
    static struct picked from;
    struct sampler *s = sampler_create(N, (int32_t[]){ 7, 5000 }, 2); /* 5000 is outside the vocabulary: nothing */
    struct sampling_params p = greedy();
    float row[N] = { [7] = 9.0f, [3] = 1.0f };
    const int32_t history[] = { 1 };
    p.min_tokens = 2;
    cr_assert_eq(draw_row(s, row, &p, history, 1, 0, &from).token, 3);
    row[7] = 9.0f;
    cr_assert_eq(draw_row(s, row, &p, (int32_t[]){ 1, 3, 3 }, 1, 2, &from).token, 7);
    p.n_bias = 2;
    p.bias_ids = (int32_t[]){ 11, 12 };
    p.bias = (float[]){ 100.0f, 0.0f };
    cr_assert_eq(draw_row(s, row, &p, history, 1, 2, &from).token, 11);
    cr_assert(sampler_is_end(s, 7) && sampler_is_end(s, 5000) && !sampler_is_end(s, 3));
    sampler_destroy(s);
}

Test(sampler, logprobs_are_those_of_the_softmax)
{
    static struct picked from;
    float logits[N];
    struct token_logprobs lp;
    double sum = 0.0;
    struct sampling_params p = greedy();
    p.n_logprobs = 20;
    p.n_bias = 1;
    p.bias_ids = (int32_t[]){ 77 };
    p.bias = (float[]){ -1e6f };
    fill(logits, 9);
    const struct drawn best = draw_row(rig()->sampler, logits, &p, (int32_t[]){ 1 }, 1, 0, &from);
    for (int i = 0; i < N; i++) sum += exp((double)logits[i]);
    sampler_logprobs(&from, &best, 20, &lp);
    cr_assert_float_eq(lp.logprob, (double)logits[best.token] - log(sum), 1e-5);
    cr_assert_eq(lp.n_top, 20);
    for (int i = 0; i < 20; i++) {
        cr_assert_float_eq(lp.top[i], (double)logits[lp.top_ids[i]] - log(sum), 1e-5);
        cr_assert(i == 0 || lp.top[i] <= lp.top[i - 1]);
    }
    for (int i = 0; i < N; i++) cr_assert(logits[i] <= logits[lp.top_ids[0]]);
    sampler_logprobs(&from, &(struct drawn){ 77, -INFINITY }, 0, &lp);
    cr_assert(isfinite(lp.logprob) && lp.logprob < -1000.0f);
    cr_assert_eq(lp.n_top, 0);
}

Test(sampler, logprobs_name_no_token_that_is_masked)
{
    static struct picked from;
    float row[N];
    uint32_t mask[N / 32 + 1] = { [3] = 0x15 }; /* 96, 98, 100 */
    struct sampling_params p = greedy();
    struct pick_row ask;
    struct drawn best;
    struct token_logprobs lp;
    fill(row, 9);
    p.n_logprobs = 5;
    cr_assert(sampler_ask(rig()->sampler, &ask, &p, (int32_t[]){ 1 }, 1, 0, mask));
    cr_assert_eq(rig()->backend->ops->pick(rig()->backend, NULL, row, N, 1, &ask, &from), OK);
    cr_assert(sampler_draw(rig()->sampler, &best, &from, &p, 0));
    sampler_logprobs(&from, &best, 5, &lp);
    cr_assert_eq(lp.n_top, 3);
    cr_assert_eq(lp.top_ids[0], best.token);
    double sum = 0.0;
    for (uint32_t i = 0; i < 3; i++) sum += exp((double)lp.top[i]);
    cr_assert_float_eq(sum, 1.0, 1e-5);
}

/* --- the draw by its definition, from the whole row sorted --- */
struct weighed {
    float logit, weight;
    int32_t id;
};

static int by_order(const void *pa, const void *pb)
{
    const struct weighed *a = pa, *b = pb;
    if (a->logit != b->logit) return a->logit > b->logit ? -1 : 1;
    return a->id < b->id ? -1 : 1;
}

static int by_id(const void *pa, const void *pb)
{
    return ((const struct weighed *)pa)->id - ((const struct weighed *)pb)->id;
}

static double sum_of(const struct weighed *w, uint32_t n)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < n; i++) sum += (double)w[i].weight;
    return sum;
}

/* docs/sampling.md, line by line; `all` is the mass of the whole row. */
static int32_t draw_by_definition(const float *row, const float *weights, double all, const struct sampling_params *p,
                                  uint32_t idx)
{
    static struct weighed w[N];
    uint32_t n = N;
    for (int32_t i = 0; i < N; i++) w[i] = (struct weighed){ row[i], weights[i], i };
    qsort(w, n, sizeof(*w), by_order);
    while (w[n - 1].weight == 0.0f) n--;
    const bool cuts = (p->top_k > 0 && p->top_k < N) || p->top_p < 1.0f || p->min_p > 0.0f;
    if (p->top_k > 0 && p->top_k < N && p->top_k < n) n = p->top_k;
    if (p->top_p < 1.0f) {
        const double goal = (double)p->top_p * (p->top_k > 0 && p->top_k < N ? sum_of(w, n) : all);
        double sum = 0.0;
        uint32_t k = 0;
        while (k < n && (k == 0 || sum < goal)) sum += (double)w[k++].weight;
        n = k;
    }
    uint32_t kept = 0;
    while (kept < n && w[kept].weight >= p->min_p) kept++;
    n = kept;
    if (n > PICK_MAX) qsort(w + PICK_MAX, n - PICK_MAX, sizeof(*w), by_id);
    double left = sampler_uniform(p->seed, p->choice, idx) * (cuts ? sum_of(w, n) : all);
    for (uint32_t i = 0; i < n; i++)
        if ((left -= (double)w[i].weight) < 0.0) return w[i].id;
    return w[n - 1].id;
}

/* A row as peaked or flat as they come, and options of all kinds. */
static struct sampling_params random_case(uint32_t trial, float *row)
{
    const double u = sampler_uniform(1, 0, trial);
    struct sampling_params p = sampled((float[]){ 0.3f, 0.7f, 1.0f, 1.5f, 4.0f }[trial % 5]);
    const float sharp = (float[]){ 0.5f, 2.0f, 8.0f }[trial / 5 % 3];
    for (uint32_t i = 0; i < N; i++) row[i] = sharp * (float)(sampler_uniform(trial, 2, i) * 4.0 - 2.0);
    if (trial % 4 == 0) /* many are equal */
        for (uint32_t i = 0; i < N; i++) row[i] = roundf(row[i] * 4.0f) / 4.0f;
    if (trial % 11 == 0) /* few are left */
        for (uint32_t i = 0; i < N; i++) row[i] = i % 97 ? -1e30f : row[i];
    p.seed = trial;
    p.n_logprobs = (int32_t)(trial % 22) - 1;
    const double pick = sampler_uniform(1, 1, trial);
    if (pick < 0.5) p.top_k = (uint32_t[]){ 1, 5, 40, 255, 256, 257, 300, 999, 1000, 5000 }[trial % 10];
    if (u < 0.6) p.top_p = (float[]){ 0.0f, 0.1f, 0.5f, 0.9f, 0.99f, 0.9999f }[trial / 3 % 6];
    if (pick > 0.3 && pick < 0.8) p.min_p = (float[]){ 0.001f, 0.02f, 0.1f, 0.5f, 1.0f }[trial / 7 % 5];
    return p;
}

static bool is_candidate(const struct picked *from, int32_t id)
{
    for (uint32_t i = 0; i < from->n; i++)
        if (from->best[i].id == id) return true;
    return false;
}

Test(sampler, candidates_give_the_token_that_the_whole_row_gives)
{
    enum { TRIALS = 12000 };
    static struct picked from;
    static float row[N], weights[N];
    struct sampler *s = rig()->sampler;
    const struct backend_ops *ops = rig()->backend->ops;
    uint32_t n_beyond = 0, n_far = 0;
    for (uint32_t trial = 0; trial < TRIALS; trial++) {
        const struct sampling_params p = random_case(trial, row);
        const struct pick_row whole = {
            .repetition = 1.0f, .want = PICK_MAX, .temperature = p.temperature, .wants_mass = true, .wants_sum = true
        };
        struct pick_row ask;
        struct drawn near, far;
        struct token_logprobs a, b;
        memcpy(weights, row, sizeof(row));
        cr_assert_eq(ops->pick(rig()->backend, NULL, weights, N, 1, &whole, &from), OK);
        const double all = from.mass;
        cr_assert_eq(ops->weigh(rig()->backend, NULL, weights, N, from.best[0].value, p.temperature), OK);
        const int32_t want = draw_by_definition(row, weights, all, &p, 3);
        far = sampler_draw_beyond(s, &from, row, weights, &p, 3);
        cr_assert_eq(far.token, want, "trial %u, from the whole row", trial);
        cr_assert_eq(far.logit, row[want]);
        const uint32_t n_top = p.n_logprobs > 0 ? (uint32_t)p.n_logprobs : 0;
        sampler_logprobs(&from, &far, n_top, &a);

        cr_assert(sampler_ask(s, &ask, &p, (int32_t[]){ 1 }, 1, 0, NULL));
        cr_assert_eq(ops->pick(rig()->backend, NULL, row, N, 1, &ask, &from), OK);
        if (!sampler_draw(s, &near, &from, &p, 3)) {
            n_beyond++;
            near = sampler_draw_beyond(s, &from, row, weights, &p, 3);
            const bool cuts = p.top_k > 0 || p.top_p < 1.0f || p.min_p > 0.0f;
            cr_assert(p.top_k == 0 || p.top_k > PICK_MAX, "trial %u: its first %u were there", trial, p.top_k);
            cr_assert(cuts || !is_candidate(&from, near.token), "trial %u: the row was fetched for nothing", trial);
        }
        cr_assert_eq(near.token, want, "trial %u, from %u candidates", trial, from.n);
        n_far += near.logit < from.best[from.n - 1].value;
        if (p.n_logprobs < 0) continue;
        sampler_logprobs(&from, &near, n_top, &b);
        cr_assert(a.logprob == b.logprob && a.n_top == b.n_top);
        cr_assert_eq(memcmp(a.top, b.top, a.n_top * sizeof(*a.top)), 0);
        cr_assert_eq(memcmp(a.top_ids, b.top_ids, a.n_top * sizeof(*a.top_ids)), 0);
    }
    cr_assert(n_beyond > TRIALS / 10 && n_beyond < TRIALS / 2, "%u", n_beyond);
    cr_assert_gt(n_far, TRIALS / 20);
}
