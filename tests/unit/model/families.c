/* families: every model family on two tiny files, against what others say of them (tests/golden/families/). */
#include "base/mem.h"
#include "helpers/cache_hash.h"
#include "helpers/route_margins.h"
#include "model/model.h"
#include "parallel/ranks.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FOLDER     TEST_DATA "/golden/families/"
#define MAX_TOKENS 160
#define N_BEST     5
#define BLOCKS     4

/* Mean |delta logprob| of a position's five best tokens, all weights and arithmetic in floats, KV in f16. */
#define FLOAT32_LIMIT   0.002
#define LLAMA_CPP_LIMIT 0.01
#define TIE             0.02
/* Of one position.  A router's choice that is this close, in what it chooses by, may fall otherwise once KV is rounded
 * to f16; at most so many positions of a file are. */
#define POSITION_LIMIT  0.02
#define NEAR_ROUTE      1e-4f
#define NEAR_ROUTES_MAX 0.1
/* With int8 activations and INT8 KV, of the best token: as unit/model/exact.c. */
#define MEAN_LIMIT 0.040
#define P99_LIMIT  0.24
#define CLEAR_GAP  0.5
#define NEAR_SHARE 0.045

/* Each family of the folder.  One that is not served must be refused when its file is opened; once it opens, its row
 * says so. */
static const struct family {
    const char *name;
    bool served;
    uint32_t most; /* members of a stage: heads that its layers share out; 0: 3 */
} FAMILIES[] = {
    { "llama", true },     { "llama-yarn", true }, { "llama-longrope", true }, { "mixtral", true },
    { "qwen2", true, 6 },  { "qwen3", true },      { "qwen3moe", true },       { "gemma2", true },
    { "gemma3", true },    { "phi3", true },       { "gpt-oss", true },        { "deepseek2-lite", true },
    { "deepseek2", true }, { "qwen3next", true },  { "qwen35", true, 2 },      { "qwen35moe", true },
    { "mamba2", true, 6 },
};
#define N_FAMILIES (sizeof(FAMILIES) / sizeof(*FAMILIES))

struct file {
    char path[256];
    json_t *json;
    int32_t tokens[MAX_TOKENS];
    uint32_t n;
};

struct setting {
    uint32_t context;
    enum kv_format kv;
    bool as_f32;
    uint32_t chunk;  /* tokens read at a time */
    uint32_t tp, pp; /* ranks; 0 for one */
    float *margins;  /* [MAX_TOKENS]: of routers; or NULL */
};

static struct file file_open(const char *name, const char *kind)
{
    struct file f = { 0 };
    char path[256];
    snprintf(f.path, sizeof(f.path), "%s%s.%s.gguf", FOLDER, name, kind);
    snprintf(path, sizeof(path), "%s%s.%s.json", FOLDER, name, kind);
    f.json = json_load_file(path, 0, NULL);
    cr_assert_not_null(f.json, "%s is not there", path);
    json_t *tokens = json_object_get(f.json, "tokens");
    f.n = (uint32_t)json_array_size(tokens);
    cr_assert(f.n > 64 && f.n <= MAX_TOKENS);
    for (uint32_t i = 0; i < f.n; i++) f.tokens[i] = (int32_t)json_integer_value(json_array_get(tokens, i));
    return f;
}

static const uint32_t block_ids[BLOCKS] = { 2, 0, 3, 1 };

static void read_rows(struct model *m, const struct kv_store *kv, const struct file *f, uint32_t pos, uint32_t rows,
                      float *out)
{
    uint32_t n_vocab = model_info(m)->n_vocab;
    struct batch_seq seq = { 0, rows, pos, block_ids, BLOCKS, .n_logits = rows };
    struct batch b = { rows, f->tokens + pos, &seq, 1 };
    cr_assert_eq(model_forward(m, &b, kv, NULL, NULL), OK);
    for (uint32_t r = 0; r < rows; r += MODEL_MAX_LOGIT_ROWS) {
        uint32_t n = rows - r < MODEL_MAX_LOGIT_ROWS ? rows - r : MODEL_MAX_LOGIT_ROWS;
        float *logits;
        cr_assert_eq(model_logits(m, r, n, &logits), OK);
        memcpy(out + (size_t)(pos + r) * n_vocab, logits, (size_t)n * n_vocab * sizeof(*out));
    }
}

static uint64_t hash_of(const struct model *m, struct kv_store *kv, uint32_t n_tokens)
{
    struct kv_store *stores[64];
    struct kv_map *map;
    struct error err = { 0 };
    uint32_t n = 0;
    for (; kv; kv = kv->next) stores[n++] = kv;
    cr_assert_eq(kv_map_create(&map, model_mesh(m), stores, &err), OK, "%s", err.text);
    const uint64_t hash = cache_hash(map, block_ids, n_tokens, 0);
    kv_map_destroy(map);
    return hash;
}

/* Logits of all positions, [position][n_vocab]; the caller frees them.  *cache, unless NULL: the whole cache then. */
static float *read_all(const struct file *f, const struct setting *s, uint32_t *n_vocab, uint64_t *cache)
{
    struct model_info info;
    struct backend *be = NULL;
    struct model *m;
    struct kv_store *kv;
    struct ranks *ranks = NULL;
    struct error err = { 0 };
    cr_assert_eq(model_read_info(&info, f->path, &err), OK, "%s: %s", f->path, err.text);
    struct backend_options be_opt = { .n_threads = 2, .limits = model_limits(&info, MAX_TOKENS, s->context) };
    if (s->tp)
        cr_assert_eq(ranks_open(&ranks, s->tp, s->pp, "cpu", &be_opt, &err), OK, "%s", err.text);
    else
        cr_assert_eq(backend_open(&be, "cpu", &be_opt, &err), OK, "%s", err.text);
    if (s->margins) route_margins_install(be, s->margins, MAX_TOKENS);
    struct model_options opt = { .path = f->path,
                                 .backend = be,
                                 .ranks = ranks,
                                 .kv_format = s->kv,
                                 .rotate = "auto",
                                 .max_batch_tokens = MAX_TOKENS,
                                 .max_context = s->context,
                                 .as_f32 = s->as_f32,
                                 .weights_fd = -1 };
    cr_assert_eq(model_open(&m, &opt, &err), OK, "%s: %s", f->path, err.text);
    cr_assert_eq(model_kv_create(&kv, m, BLOCKS, &err), OK, "%s", err.text);
    if (model_state_bytes(m) > 0) cr_assert_eq(model_states_create(kv, m, 2, &err), OK, "%s", err.text);
    *n_vocab = model_info(m)->n_vocab;
    float *out = mem_array((size_t)f->n * *n_vocab, sizeof(*out));
    for (uint32_t pos = 0; pos < f->n; pos += s->chunk)
        read_rows(m, kv, f, pos, f->n - pos < s->chunk ? f->n - pos : s->chunk, out);
    if (cache) *cache = hash_of(m, kv, f->n);
    kv_store_destroy(kv);
    model_close(m);
    ranks_close(ranks);
    backend_close(be);
    return out;
}

struct tally {
    double deltas[MAX_TOKENS * N_BEST];
    uint32_t n, n_positions;
    uint32_t near, clear; /* positions with another top token: the reference's leads by at most `gap`, or by more */
};

static double log_sum(const float *logits, uint32_t n, uint32_t *best)
{
    double sum = 0.0;
    *best = 0;
    for (uint32_t i = 1; i < n; i++)
        if (logits[i] > logits[*best]) *best = i;
    for (uint32_t i = 0; i < n; i++) sum += exp((double)(logits[i] - logits[*best]));
    return log(sum) + (double)logits[*best];
}

static void compare_position(struct tally *t, const float *logits, uint32_t n_vocab, json_t *top, uint32_t n_best,
                             double gap)
{
    uint32_t best;
    double norm = log_sum(logits, n_vocab, &best), lead[2];
    for (uint32_t i = 0; i < n_best; i++) {
        json_t *pair = json_array_get(top, i);
        uint32_t id = (uint32_t)json_integer_value(json_array_get(pair, 0));
        cr_assert_lt(id, n_vocab);
        t->deltas[t->n++] = fabs((double)logits[id] - norm - json_number_value(json_array_get(pair, 1)));
    }
    for (uint32_t i = 0; i < 2; i++) lead[i] = json_number_value(json_array_get(json_array_get(top, i), 1));
    uint32_t want = (uint32_t)json_integer_value(json_array_get(json_array_get(top, 0), 0));
    if (best != want && lead[0] - lead[1] > gap)
        t->clear++;
    else if (best != want)
        t->near++;
    t->n_positions++;
}

static struct tally compare(const float *logits, uint32_t n_vocab, json_t *answer, uint32_t n_best, double gap)
{
    struct tally t = { .n = 0 };
    json_t *top5 = json_object_get(answer, "top5"), *top;
    size_t i;
    json_array_foreach(top5, i, top) compare_position(&t, logits + i * n_vocab, n_vocab, top, n_best, gap);
    return t;
}

static double mean_of(const struct tally *t)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < t->n; i++) sum += t->deltas[i];
    return sum / t->n;
}

static double mean_at(const struct tally *t, uint32_t position)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < N_BEST; i++) sum += t->deltas[position * N_BEST + i];
    return sum / N_BEST;
}

/* Leaves the positions out at which a router's choice was a near tie.  Without experts none is. */
static double mean_but_near_ties(const struct file *f, const struct tally *t, const float *margins)
{
    double sum = 0.0;
    uint32_t n = 0;
    for (uint32_t i = 0; i < t->n_positions; i++) {
        if (margins[i] < NEAR_ROUTE) continue;
        cr_expect_leq(mean_at(t, i), POSITION_LIMIT, "%s: position %u is %.4f off, its routers' margin is %.2g",
                      f->path, i, mean_at(t, i), (double)margins[i]);
        sum += mean_at(t, i);
        n++;
    }
    cr_expect_leq(t->n_positions - n, NEAR_ROUTES_MAX * t->n_positions, "%s: %u positions are near ties of routers",
                  f->path, t->n_positions - n);
    return sum / n;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void expect_near(const struct file *f, const float *logits, const float *margins, uint32_t n_vocab,
                        json_t *answer, double limit)
{
    if (!answer) return;
    const char *by = json_string_value(json_object_get(answer, "by"));
    struct tally t = compare(logits, n_vocab, answer, N_BEST, TIE);
    double mean = mean_but_near_ties(f, &t, margins);
    fprintf(stderr, "families: %s in floats: %.5f from %s\n", f->path, mean, by);
    cr_assert_eq(t.n_positions, f->n);
    cr_expect_leq(mean, limit, "%s: %.5f from %s, allowed is %g", f->path, mean, by, limit);
    cr_expect_eq(t.clear, 0, "%s: %u top tokens are not those of %s", f->path, t.clear, by);
}

static void check_floats(const char *name, const char *kind)
{
    struct file f = file_open(name, kind);
    json_t *run;
    size_t i;
    json_array_foreach(json_object_get(f.json, "runs"), i, run)
    {
        uint32_t context = (uint32_t)json_integer_value(json_object_get(run, "context")), n_vocab;
        float margins[MAX_TOKENS];
        const struct setting floats = { context, KV_F16, true, MAX_TOKENS, .margins = margins };
        float *logits = read_all(&f, &floats, &n_vocab, NULL);
        cr_assert_not_null(json_object_get(run, "float32"));
        expect_near(&f, logits, margins, n_vocab, json_object_get(run, "float32"), FLOAT32_LIMIT);
        expect_near(&f, logits, margins, n_vocab, json_object_get(run, "llama.cpp"), LLAMA_CPP_LIMIT);
        mem_free(logits);
    }
    json_decref(f.json);
}

static void check_int8(const char *name, const char *kind)
{
    struct file f = file_open(name, kind);
    json_t *run;
    size_t i;
    json_array_foreach(json_object_get(f.json, "runs"), i, run)
    {
        uint32_t context = (uint32_t)json_integer_value(json_object_get(run, "context")), n_vocab;
        float *logits = read_all(&f, &(struct setting){ context, KV_INT8, false, MAX_TOKENS }, &n_vocab, NULL);
        struct tally t = compare(logits, n_vocab, json_object_get(run, "float32"), 1, CLEAR_GAP);
        double mean = mean_of(&t);
        qsort(t.deltas, t.n, sizeof(*t.deltas), ascending);
        double p99 = t.deltas[(uint32_t)(t.n * 0.99)];
        fprintf(stderr, "families: %s in int8: mean %.4f, p99 %.4f, near %u\n", f.path, mean, p99, t.near);
        cr_expect_leq(mean, MEAN_LIMIT, "%s: mean %.4f", f.path, mean);
        cr_expect_leq(p99, P99_LIMIT, "%s: p99 %.4f", f.path, p99);
        cr_expect_eq(t.clear, 0, "%s: %u clear top tokens are others", f.path, t.clear);
        cr_expect_leq(t.near, NEAR_SHARE * t.n_positions, "%s: %u top tokens are others", f.path, t.near);
        mem_free(logits);
    }
    json_decref(f.json);
}

/* However a prompt is cut, its logits have the same bits. */
static void check_cuts(const char *name, const char *kind, enum kv_format kv)
{
    static const uint32_t chunks[] = { 1, 7, 50, 64 };
    struct file f = file_open(name, kind);
    uint32_t n_vocab;
    float *whole = read_all(&f, &(struct setting){ 512, kv, false, MAX_TOKENS }, &n_vocab, NULL);
    for (size_t i = 0; i < sizeof(chunks) / sizeof(*chunks); i++) {
        float *cut = read_all(&f, &(struct setting){ 512, kv, false, chunks[i] }, &n_vocab, NULL);
        cr_expect_eq(memcmp(whole, cut, (size_t)f.n * n_vocab * sizeof(*cut)), 0,
                     "%s: read %u tokens at a time, its logits are others", f.path, chunks[i]);
        mem_free(cut);
    }
    mem_free(whole);
    json_decref(f.json);
}

/* More members than heads: refused, with both numbers. */
static void expect_refused(const struct file *f, uint32_t tp, uint32_t most)
{
    struct model_info info;
    struct model *m;
    struct ranks *ranks;
    struct error err = { 0 };
    char says[96];
    cr_assert_eq(model_read_info(&info, f->path, &err), OK, "%s", err.text);
    const struct backend_options be_opt = { .n_threads = 1, .limits = model_limits(&info, 8, 64) };
    cr_assert_eq(ranks_open(&ranks, tp, 1, "cpu", &be_opt, &err), OK, "%s", err.text);
    const struct model_options opt = {
        .path = f->path, .ranks = ranks, .max_batch_tokens = 8, .max_context = 64, .weights_fd = -1
    };
    snprintf(says, sizeof(says), "tp is %u, but a layer has only %u ", tp, most);
    cr_expect_eq(model_open(&m, &opt, &err), ERR_INVALID);
    cr_expect(strstr(err.text, says), "%s: \"%s\" is not in: %s", f->path, says, err.text);
    ranks_close(ranks);
}

/* However its layers and heads are shared out, a model's logits and its cache have the same bits. */
static void check_ranks(const struct family *family)
{
    static const uint32_t shapes[][2] = { { 1, 2 }, { 1, 3 }, { 2, 1 }, { 3, 1 }, { 4, 1 },
                                          { 2, 2 }, { 3, 3 }, { 6, 2 }, { 8, 1 } };
    const uint32_t most = family->most ? family->most : 3;
    struct file f = file_open(family->name, "q");
    uint64_t cache_of_one, cache;
    uint32_t n_vocab;
    float *one = read_all(&f, &(struct setting){ 512, KV_INT8, false, 50 }, &n_vocab, &cache_of_one);
    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
        const uint32_t tp = shapes[i][0], pp = shapes[i][1];
        if (tp > most) {
            expect_refused(&f, tp, most);
            continue;
        }
        float *shared = read_all(&f, &(struct setting){ 512, KV_INT8, false, 50, tp, pp }, &n_vocab, &cache);
        cr_expect_eq(memcmp(one, shared, (size_t)f.n * n_vocab * sizeof(*shared)), 0,
                     "%s: on %u x %u ranks its logits are others", f.path, tp, pp);
        cr_expect_eq(cache, cache_of_one, "%s: on %u x %u ranks its cache is another", f.path, tp, pp);
        mem_free(shared);
    }
    mem_free(one);
    json_decref(f.json);
}

#define FOR_EACH_SERVED(f)                                                                                             \
    for (const struct family *f = FAMILIES; f < FAMILIES + N_FAMILIES; f++)                                            \
        if (f->served)

Test(families, in_floats_agree_with_float32_and_llama_cpp)
{
    FOR_EACH_SERVED(f)
    {
        check_floats(f->name, "f16");
        check_floats(f->name, "q");
    }
}

Test(families, in_int8_stay_within_the_first_golden_files_bounds)
{
    FOR_EACH_SERVED(f)
    {
        check_int8(f->name, "f16");
        check_int8(f->name, "q");
    }
}

Test(families, give_the_same_bits_however_a_prompt_is_cut)
{
    FOR_EACH_SERVED(f)
    {
        check_cuts(f->name, "q", KV_INT8);
        check_cuts(f->name, "f16", KV_F16);
    }
}

Test(families, give_the_same_bits_on_any_ranks)
{
    FOR_EACH_SERVED(f) check_ranks(f);
}

Test(families, that_are_not_served_are_refused_by_name)
{
    for (const struct family *f = FAMILIES; f < FAMILIES + N_FAMILIES; f++) {
        struct model_info info;
        struct error err = { 0 };
        if (f->served) continue;
        struct file file = file_open(f->name, "f16");
        enum status st = model_read_info(&info, file.path, &err);
        cr_expect_eq(st, ERR_UNSUPPORTED, "%s opens: its row in this test is to say that it is served", f->name);
        fprintf(stderr, "families: SKIPPED, not served: %s: %s\n", f->name, err.text);
        json_decref(file.json);
    }
}

/* What a step has to read follows from it. */
Test(families, say_how_much_of_the_experts_a_row_uses)
{
    struct model_options opt = { .path = FOLDER "mixtral.f16.gguf", .max_batch_tokens = 8, .weights_fd = -1 };
    struct model_info info;
    struct error err = { 0 };
    struct backend *be;
    struct model *m;
    cr_assert_eq(model_read_info(&info, opt.path, &err), OK, "%s", err.text);
    struct backend_options be_opt = { .n_threads = 1, .limits = model_limits(&info, 8, info.context_length) };
    cr_assert_eq(backend_open(&be, "cpu", &be_opt, &err), OK, "%s", err.text);
    opt.backend = be;
    cr_assert_eq(model_open(&m, &opt, &err), OK, "%s", err.text);
    cr_assert_gt(model_info(m)->used_bytes, 0);
    cr_assert_lt(model_info(m)->used_bytes, model_info(m)->expert_bytes);
    cr_assert_lt(model_info(m)->expert_bytes, model_info(m)->weight_bytes);
    model_close(m);
    backend_close(be);
}
