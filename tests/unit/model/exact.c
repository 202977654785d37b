/* model: how far a real model's logprobs are from those of all-float arithmetic, teacher-forced. */
#include "base/mem.h"
#include "model/model.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define ROWS       512
#define BLOCKS     48
#define MAX_TOKENS 800 /* the longest prompts are left to the cluster's test */
#define MAX_STEPS  2000

/* tests/golden/smollm2.json: mean and 99th percentile that an engine must keep. */
#define MEAN_LIMIT 0.040
#define P99_LIMIT  0.24
#define CLEAR_GAP  0.5
#define NEAR_SHARE 0.045

struct tally {
    double deltas[MAX_STEPS];
    uint32_t n, near, clear;
};

struct prompt {
    int32_t tokens[MAX_TOKENS];
    uint32_t n_ids, n;
    json_t *top5;
};

static bool model_path(char *buf, size_t cap)
{
    const char *dir = getenv("BATON_TEST_MODELS");
    snprintf(buf, cap, "%s/SmolLM2-135M-Instruct.Q4_1.gguf", dir ? dir : TEST_DATA "/../models");
    return access(buf, R_OK) == 0;
}

static bool prompt_load(struct prompt *p, json_t *j)
{
    json_t *ids = json_object_get(j, "ids"), *greedy = json_object_get(j, "greedy");
    p->n_ids = (uint32_t)json_array_size(ids);
    p->n = p->n_ids + (uint32_t)json_array_size(greedy);
    p->top5 = json_object_get(j, "top5");
    if (p->n > MAX_TOKENS) return false;
    for (uint32_t i = 0; i < p->n; i++)
        p->tokens[i] =
            (int32_t)json_integer_value(i < p->n_ids ? json_array_get(ids, i) : json_array_get(greedy, i - p->n_ids));
    return true;
}

static void compare(struct tally *t, const float *logits, uint32_t n_vocab, json_t *ref)
{
    json_t *first = json_array_get(ref, 0), *second = json_array_get(ref, 1);
    int want = (int)json_integer_value(json_array_get(first, 0)), best = 0;
    double want_lp = json_number_value(json_array_get(first, 1)), sum = 0.0;
    for (uint32_t i = 0; i < n_vocab; i++)
        if (logits[i] > logits[best]) best = (int)i;
    for (uint32_t i = 0; i < n_vocab; i++) sum += exp((double)(logits[i] - logits[best]));
    cr_assert_lt(t->n, MAX_STEPS);
    t->deltas[t->n++] = fabs((double)(logits[want] - logits[best]) - log(sum) - want_lp);
    if (best == want) return;
    if (want_lp - json_number_value(json_array_get(second, 1)) > CLEAR_GAP)
        t->clear++;
    else
        t->near++;
}

/* The prompt in chunks, the continuation in chunks as well or token by token. */
static void run_prompt(struct model *m, const struct kv_store *kv, const struct prompt *p, bool one_by_one,
                       struct tally *t)
{
    uint32_t blocks[BLOCKS];
    for (uint32_t i = 0; i < BLOCKS; i++) blocks[i] = (i * 5) % BLOCKS;
    for (uint32_t pos = 0; pos < p->n;) {
        uint32_t rows = p->n - pos < ROWS ? p->n - pos : ROWS;
        if (one_by_one && pos < p->n_ids && pos + rows > p->n_ids) rows = p->n_ids - pos;
        if (one_by_one && pos >= p->n_ids) rows = 1;
        struct batch_seq seq = { 0, rows, pos, blocks, BLOCKS, .n_logits = rows };
        struct batch b = { rows, p->tokens + pos, &seq, 1 };
        cr_assert_eq(model_forward(m, &b, kv, NULL, NULL), OK);
        for (uint32_t r = 0; r < rows; r++) {
            uint32_t next = pos + r + 1;
            float *logits;
            if (next < p->n_ids || next - p->n_ids >= json_array_size(p->top5)) continue;
            cr_assert_eq(model_logits(m, r, 1, &logits), OK);
            compare(t, logits, model_info(m)->n_vocab, json_array_get(p->top5, next - p->n_ids));
        }
        pos += rows;
    }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void expect_exact(struct tally *t, const char *what)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < t->n; i++) sum += t->deltas[i];
    qsort(t->deltas, t->n, sizeof(*t->deltas), ascending);
    double mean = sum / t->n, p99 = t->deltas[(uint32_t)(t->n * 0.99)];
    fprintf(stderr, "exact: %s: %u steps, mean %.4f, p99 %.4f, near %u, clear %u\n", what, t->n, mean, p99, t->near,
            t->clear);
    cr_assert_gt(t->n, 400);
    cr_assert_leq(mean, MEAN_LIMIT);
    cr_assert_leq(p99, P99_LIMIT);
    cr_assert_eq(t->clear, 0);
    cr_assert_leq(t->near, NEAR_SHARE * t->n);
}

static void run_all(enum kv_format format, bool one_by_one, const char *what)
{
    char path[512];
    struct error err = { 0 };
    struct model_info info;
    struct backend *be;
    struct model *m;
    struct kv_store *kv;
    static struct tally t;
    static struct prompt p;
    json_t *j;
    size_t i;
    if (!model_path(path, sizeof(path))) cr_skip_test("%s is not there", path);
    cr_assert_eq(model_read_info(&info, path, &err), OK, "%s", err.text);
    struct backend_limits lim = model_limits(&info, ROWS, 1024);
    cr_assert_eq(backend_open(&be, "cpu", &(struct backend_options){ .n_threads = 2, .limits = lim }, &err), OK, "%s",
                 err.text);
    struct model_options opt = { .path = path,
                                 .backend = be,
                                 .kv_format = format,
                                 .rotate = "auto",
                                 .max_batch_tokens = ROWS,
                                 .max_context = 1024,
                                 .weights_fd = -1 };
    cr_assert_eq(model_open(&m, &opt, &err), OK, "%s", err.text);
    cr_assert_eq(model_kv_create(&kv, m, BLOCKS, &err), OK, "%s", err.text);
    json_t *golden = json_load_file(TEST_DATA "/golden/smollm2.json", 0, NULL);
    cr_assert_not_null(golden);
    json_array_foreach(golden, i, j) if (prompt_load(&p, j)) run_prompt(m, kv, &p, one_by_one, &t);
    expect_exact(&t, what);
    json_decref(golden);
    kv_store_destroy(kv);
    model_close(m);
    backend_close(be);
}

Test(exact, prefill_over_int8_kv)
{
    run_all(KV_INT8, false, "prefill, int8");
}

Test(exact, decode_over_int8_kv)
{
    run_all(KV_INT8, true, "decode, int8");
}

Test(exact, prefill_over_f16_kv)
{
    run_all(KV_F16, false, "prefill, f16");
}
