/* sampler: penalties, filters and draws are pure functions of their arguments. */
#include "engine/sampler.h"

#include "engine/select.h"

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

static int32_t draw_of(const float *logits, const struct sampling_params *p, uint32_t idx)
{
    static struct sampler *s;
    float row[N];
    static const int32_t history[64] = { 1, 2, 3 };
    if (!s) s = sampler_create(N, (int32_t[]){ 7, 9 }, 2);
    memcpy(row, logits, sizeof(row));
    return sampler_draw(s, row, p, history, 3, idx, NULL);
}

Test(sampler, greedy_takes_the_lowest_id_of_equal_logits)
{
    float logits[N] = { 0 };
    struct sampling_params p = greedy();
    logits[500] = logits[300] = logits[800] = 2.0f;
    cr_assert_eq(draw_of(logits, &p, 0), 300);
    logits[300] = NAN;
    cr_assert_eq(draw_of(logits, &p, 0), 500);
}

Test(sampler, says_which_logits_can_be_drawn_from)
{
    const float bad[] = { NAN, INFINITY, -INFINITY };
    float logits[N];
    struct sampler *s = sampler_create(N, NULL, 0);
    fill(logits, 5);
    cr_assert(sampler_can_draw(s, logits));
    for (int i = 0; i < 3; i++) {
        fill(logits, 5);
        logits[i == 0 ? N - 1 : i] = bad[i];
        cr_assert_not(sampler_can_draw(s, logits), "%d", i);
    }
    sampler_destroy(s);
}

Test(sampler, survives_logits_that_are_not_numbers)
{
    float logits[N];
    struct sampling_params p = sampled(1.0f);
    for (int i = 0; i < N; i++) logits[i] = NAN;
    cr_assert_eq(draw_of(logits, &p, 0), 0);
    for (int i = 0; i < N; i++) logits[i] = -INFINITY;
    cr_assert_eq(draw_of(logits, &p, 0), 0);
    logits[4] = INFINITY;
    cr_assert_eq(draw_of(logits, &p, 0), 4);
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
    struct sampler *s = sampler_create(N, NULL, 0);
    struct sampling_params p = greedy();
    const int32_t history[] = { 5, 6, 8, 8 }; /* prompt 5 6, output 8 8 */
    float logits[N] = { [5] = 4.0f, [6] = -1.0f, [8] = 3.9f, [9] = 3.0f };
    p.repetition_penalty = 2.0f;
    float row[N];
    memcpy(row, logits, sizeof(row));
    cr_assert_eq(sampler_draw(s, row, &p, history, 2, 2, NULL), 9);
    cr_assert_float_eq(row[5], 2.0f, 0.0f);
    cr_assert_float_eq(row[6], -2.0f, 0.0f);
    cr_assert_float_eq(row[8], 1.95f, 1e-6f, "once, however often it stands");
    p = greedy();
    p.frequency_penalty = 0.5f;
    p.presence_penalty = 0.25f;
    memcpy(row, logits, sizeof(row));
    cr_assert_eq(sampler_draw(s, row, &p, history, 2, 2, NULL), 5, "the prompt is not counted");
    cr_assert_float_eq(row[8], 3.9f - 2 * 0.5f - 0.25f, 1e-6f);
    sampler_destroy(s);
}

Test(sampler, bias_and_min_tokens_steer)
{
    struct sampler *s = sampler_create(N, (int32_t[]){ 7 }, 1);
    struct sampling_params p = greedy();
    float row[N] = { [7] = 9.0f, [3] = 1.0f };
    const int32_t history[] = { 1 };
    p.min_tokens = 2;
    cr_assert_eq(sampler_draw(s, row, &p, history, 1, 0, NULL), 3);
    row[7] = 9.0f;
    cr_assert_eq(sampler_draw(s, row, &p, (int32_t[]){ 1, 3, 3 }, 1, 2, NULL), 7);
    p.n_bias = 2;
    p.bias_ids = (int32_t[]){ 11, 5000 }; /* 5000 is outside the vocabulary: nothing */
    p.bias = (float[]){ 100.0f, 0.0f };
    cr_assert_eq(sampler_draw(s, row, &p, history, 1, 0, NULL), 11);
    cr_assert(sampler_is_end(s, 7) && !sampler_is_end(s, 3));
    sampler_destroy(s);
}

Test(sampler, logprobs_are_those_of_the_softmax)
{
    struct sampler *s = sampler_create(N, NULL, 0);
    float logits[N];
    struct token_logprobs lp;
    double sum = 0.0;
    fill(logits, 9);
    logits[77] = -INFINITY;
    for (int i = 0; i < N; i++) sum += exp((double)logits[i]);
    sampler_logprobs(s, logits, 500, 20, &lp);
    cr_assert_float_eq(lp.logprob, (double)logits[500] - log(sum), 1e-5);
    cr_assert_eq(lp.n_top, 20);
    for (int i = 0; i < 20; i++) {
        cr_assert_float_eq(lp.top[i], (double)logits[lp.top_ids[i]] - log(sum), 1e-5);
        cr_assert(i == 0 || lp.top[i] <= lp.top[i - 1]);
    }
    for (int i = 0; i < N; i++) cr_assert(logits[i] <= logits[lp.top_ids[0]]);
    sampler_logprobs(s, logits, 77, 0, &lp);
    cr_assert(isfinite(lp.logprob) && lp.logprob < -1000.0f);
    cr_assert_eq(lp.n_top, 0);
    sampler_destroy(s);
}

static int heavier_first(const void *pa, const void *pb)
{
    const struct candidate *a = pa, *b = pb;
    if (a->weight != b->weight) return a->weight > b->weight ? -1 : 1;
    return a->id < b->id ? -1 : 1;
}

Test(select, finds_what_a_full_sort_finds)
{
    struct candidate c[N], sorted[N], work[N];
    for (uint32_t trial = 0; trial < 300; trial++) {
        uint32_t n = 1 + (uint32_t)(sampler_uniform(trial, 1, 0) * (trial % 3 ? N - 1 : 5));
        double all = 0.0;
        for (uint32_t i = 0; i < n; i++) { /* many ties */
            c[i] = (struct candidate){ (float)(int)(sampler_uniform(trial, 2, i) * 50.0), (int32_t)i };
            all += (double)c[i].weight;
        }
        memcpy(sorted, c, sizeof(c));
        qsort(sorted, n, sizeof(*sorted), heavier_first);
        uint32_t k = (uint32_t)(sampler_uniform(trial, 3, 0) * (n + 2));
        memcpy(work, c, sizeof(c));
        uint32_t got = select_top(work, n, k);
        cr_assert_eq(got, k < n ? k : n);
        select_sort(work, got);
        cr_assert_eq(memcmp(work, sorted, got * sizeof(*work)), 0, "top %u of %u", k, n);

        double mass = all * sampler_uniform(trial, 4, 0), sum = 0.0;
        uint32_t want = 0;
        while (want < n && (want == 0 || sum < mass)) sum += (double)sorted[want++].weight;
        memcpy(work, c, sizeof(c));
        got = select_mass(work, n, mass);
        cr_assert_eq(got, want, "mass %g of %g in %u", mass, all, n);
        select_sort(work, got);
        cr_assert_eq(memcmp(work, sorted, got * sizeof(*work)), 0);
    }
}
