/* bench_compare.c - what cheaper numbers cost: perplexity and divergence from a reference, position by position.
 *
 * `kv` compares INT8 KV, rotated or not, with f16 KV; `exact` compares the engine with float arithmetic throughout. */
#include "base/mem.h"
#include "base/strbuf.h"
#include "bench/bench.h"
#include "formats/gguf.h"
#include "formats/vocab_load.h"
#include "model/model.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define CHUNK      512
#define MAX_MODELS 3
#define LOST       0.3 /* nats: what no token should lose to a cheaper cache */

struct options {
    char *path;
    uint32_t tokens, window, threads;
    bool as_float;
};

#define AT(field) offsetof(struct options, field)

static const struct config_option OPTIONS[] = {
    BENCH_MODEL(AT(path)),
    COMMAND_NUMBER("tokens", "n", AT(tokens), 2, 1u << 20, "", "tokens to read; without it kv 8192, exact 256"),
    COMMAND_NUMBER("window", "w", AT(window), 2, 1u << 20, "",
                   "tokens of one context; without it the model's, at most 8192"),
    BENCH_THREADS(AT(threads)),
    COMMAND_SWITCH("float", "f", AT(as_float), "matrices as fp32 in all rows: what is left is what the KV alone costs"),
};

struct variant {
    const char *name;
    enum kv_format format;
    const char *rotate;
    bool as_f32;
};

struct comparison {
    struct command command;
    bool needs_text; /* otherwise tokens are drawn where no text is given: models of random weights have none */
    uint32_t tokens;
    uint32_t n_models;
    struct variant models[MAX_MODELS]; /* the first one is what the others are compared with */
};

static const struct comparison KV = {
    .command = { "baton-bench kv", "TEXT_FILE...", NULL, OPTIONS, sizeof(OPTIONS) / sizeof(OPTIONS[0]) },
    .needs_text = true,
    .tokens = 8192,
    .n_models = 3,
    .models = { { "f16", KV_F16, "off", false },
                { "int8", KV_INT8, "off", false },
                { "int8, rotated", KV_INT8, "on", false } },
};

static const struct comparison EXACT = {
    .command = { "baton-bench exact", "[TEXT_FILE]...", NULL, OPTIONS, sizeof(OPTIONS) / sizeof(OPTIONS[0]) },
    .tokens = 256,
    .n_models = 3,
    .models = { { "float", KV_F16, "off", true },
                { "engine, f16", KV_F16, "off", false },
                { "engine, int8", KV_INT8, "auto", false } },
};

struct contender {
    struct backend *backend;
    struct model *model;
    struct kv_store *kv;
    double nll, kl, top_error;
    double largest_loss; /* of a text's token, in nats either way */
    uint32_t same_top, n_lost;
};

struct run {
    const struct comparison *what;
    struct options opt;
    char *const *text_files;
    int n_text_files;
    struct token_list text;
    struct contender c[MAX_MODELS];
    uint32_t *blocks, n_blocks, n_vocab;
    float *reference; /* [MODEL_MAX_LOGIT_ROWS][n_vocab] log-probabilities */
    double *kls[MAX_MODELS];
    uint32_t n; /* positions judged */
};

static enum status add_text(struct tokenizer *t, struct token_list *out, const char *path, struct error *err)
{
    struct strbuf in = STRBUF_INIT;
    char buf[65536];
    size_t n;
    FILE *f = fopen(path, "rb");
    if (!f) return error_set(err, ERR_IO, "%s: %s", path, strerror(errno));
    while ((n = fread(buf, 1, sizeof(buf), f)) > 0) strbuf_add(&in, buf, n);
    enum status st = ferror(f) ? error_set(err, ERR_IO, "%s: %s", path, strerror(errno)) : OK;
    if (st == OK) st = tokenizer_encode(t, strbuf_cstr(&in), in.n, (struct encode_options){ 0 }, out, err);
    fclose(f);
    strbuf_fini(&in);
    return st;
}

static enum status read_texts(struct run *r, struct error *err)
{
    struct gguf *g = NULL;
    struct vocab *v = NULL;
    struct tokenizer *t = NULL;
    enum status st = gguf_open(&g, r->opt.path, err);
    if (st == OK) st = vocab_load_gguf(&v, g, err);
    if (st == OK) st = tokenizer_create(&t, v, err);
    for (int i = 0; i < r->n_text_files && st == OK; i++) st = add_text(t, &r->text, r->text_files[i], err);
    tokenizer_destroy(t);
    vocab_destroy(v);
    gguf_close(g);
    if (st == OK && r->n_text_files == 0)
        for (uint32_t i = 0; i < r->opt.tokens; i++) token_list_add(&r->text, (int32_t)(i * 2654435761u % r->n_vocab));
    if (st == OK && r->text.n < r->opt.tokens)
        st = error_set(err, ERR_INVALID, "the texts have %zu tokens, %u are asked for", r->text.n, r->opt.tokens);
    return st;
}

static enum status open_one(struct run *r, struct contender *c, const struct variant *v, struct error *err)
{
    struct model_info info;
    enum status st = model_read_info(&info, r->opt.path, err);
    if (st != OK) return st;
    if (r->opt.window > info.context_length)
        return error_set(err, ERR_CONTEXT_LENGTH, "--window is %u, the model was trained for %u", r->opt.window,
                         info.context_length);
    if (r->opt.window == 0) r->opt.window = info.context_length < 8192 ? info.context_length : 8192;
    struct backend_limits lim = model_limits(&info, CHUNK, info.context_length);
    if ((st = backend_open(&c->backend, "cpu",
                           &(struct backend_options){ .n_threads = r->opt.threads, .isa = "auto", .limits = lim },
                           err)) != OK)
        return st;
    struct model_options mo = { .path = r->opt.path,
                                .backend = c->backend,
                                .kv_format = v->format,
                                .rotate = v->rotate,
                                .as_f32 = v->as_f32 || r->opt.as_float,
                                .max_batch_tokens = CHUNK,
                                .weights_fd = -1 };
    if ((st = model_open(&c->model, &mo, err)) != OK) return st;
    r->n_vocab = info.n_vocab;
    r->n_blocks = (r->opt.window + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    return bench_kv_create(&c->kv, c->model, r->n_blocks, 1, err);
}

/* Logits become log-probabilities. */
static void log_softmax(float *x, uint32_t n)
{
    double max = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < n; i++) max = x[i] > max ? x[i] : max;
    for (uint32_t i = 0; i < n; i++) sum += exp(x[i] - max);
    const double log_sum = max + log(sum);
    for (uint32_t i = 0; i < n; i++) x[i] = (float)(x[i] - log_sum);
}

static uint32_t top_of(const float *x, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/* One position: log-probabilities of the reference and of a candidate. */
static void judge(struct run *r, uint32_t m, const float *ref, const float *x, uint32_t position, int32_t next)
{
    struct contender *c = &r->c[m];
    double kl = 0;
    for (uint32_t i = 0; i < r->n_vocab; i++) kl += exp(ref[i]) * ((double)ref[i] - x[i]);
    const uint32_t top = top_of(ref, r->n_vocab);
    const double loss = fabs((double)ref[next] - x[next]);
    c->nll -= x[next];
    c->largest_loss = loss > c->largest_loss ? loss : c->largest_loss;
    c->n_lost += loss > LOST;
    c->kl += kl;
    c->top_error += fabs((double)ref[top] - x[top]);
    c->same_top += top == top_of(x, r->n_vocab);
    r->kls[m][position] = kl;
}

/* Rows [0, rows) of the last forward, which predict text[at + 1 ...]. */
static enum status judge_chunk(struct run *r, uint32_t at, uint32_t rows)
{
    const int32_t *next = r->text.ids + at + 1;
    for (uint32_t r0 = 0, n; r0 < rows; r0 += n) {
        n = rows - r0 < MODEL_MAX_LOGIT_ROWS ? rows - r0 : MODEL_MAX_LOGIT_ROWS;
        for (uint32_t m = 0; m < r->what->n_models; m++) {
            float *x;
            enum status st = model_logits(r->c[m].model, r0, n, &x);
            if (st != OK) return st;
            for (uint32_t i = 0; i < n; i++) log_softmax(x + (size_t)i * r->n_vocab, r->n_vocab);
            if (m == 0) memcpy(r->reference, x, (size_t)n * r->n_vocab * sizeof(float));
            for (uint32_t i = 0; i < n; i++)
                judge(r, m, r->reference + (size_t)i * r->n_vocab, x + (size_t)i * r->n_vocab, r->n + r0 + i,
                      next[r0 + i]);
        }
    }
    r->n += rows;
    return OK;
}

/* text[from, to) as one context; its last token only answers. */
static enum status read_window(struct run *r, uint32_t from, uint32_t to)
{
    for (uint32_t at = from, rows; at < to - 1; at += rows) {
        rows = to - 1 - at < CHUNK ? to - 1 - at : CHUNK;
        struct batch_seq seq = { 0, rows, at - from, r->blocks, r->n_blocks, .n_logits = rows };
        struct batch b = { rows, r->text.ids + at, &seq, 1 };
        enum status st = OK;
        for (uint32_t m = 0; m < r->what->n_models && st == OK; m++)
            st = model_forward(r->c[m].model, &b, r->c[m].kv, NULL, NULL);
        if (st == OK) st = judge_chunk(r, at, rows);
        if (st != OK) return st;
        fprintf(stderr, "\r%u of %u tokens", at + rows, r->opt.tokens);
    }
    return OK;
}

static void print_table(struct run *r)
{
    const double base = exp(r->c[0].nll / r->n);
    printf("%s\n%u positions in contexts of %u tokens, compared with the first row\n\n", r->opt.path, r->n,
           r->opt.window);
    printf("%-14s %12s %10s %10s %10s %10s %10s %10s %10s %10s\n", "", "perplexity", "", "mean KL", "99 % KL",
           "largest KL", "|d top|", "same top", "max |d|", "|d| > 0.3");
    for (uint32_t m = 0; m < r->what->n_models; m++) {
        const struct contender *c = &r->c[m];
        const double ppl = exp(c->nll / r->n);
        struct bench_spread s = bench_spread_of(r->kls[m], r->n); /* sorts */
        printf("%-14s %12.4f %+9.3f%% %10.6f %10.6f %10.6f %10.5f %9.2f%% %10.3f %10u\n", r->what->models[m].name, ppl,
               100 * (ppl / base - 1), c->kl / r->n, r->kls[m][(size_t)(0.99 * (r->n - 1))], s.max, c->top_error / r->n,
               100.0 * c->same_top / r->n, c->largest_loss, c->n_lost);
    }
}

static enum status run_all(struct run *r, struct error *err)
{
    enum status st = OK;
    for (uint32_t m = 0; m < r->what->n_models && st == OK; m++) st = open_one(r, &r->c[m], &r->what->models[m], err);
    if (st == OK) st = read_texts(r, err);
    if (st != OK) return st;
    r->blocks = mem_array(r->n_blocks, sizeof(*r->blocks));
    for (uint32_t i = 0; i < r->n_blocks; i++) r->blocks[i] = i;
    r->reference = mem_array((size_t)MODEL_MAX_LOGIT_ROWS * r->n_vocab, sizeof(float));
    for (uint32_t m = 0; m < r->what->n_models; m++) r->kls[m] = mem_array(r->opt.tokens, sizeof(double));
    for (uint32_t from = 0; from + 1 < r->opt.tokens && st == OK; from += r->opt.window) {
        uint32_t left = r->opt.tokens - from;
        st = read_window(r, from, from + (left < r->opt.window ? left : r->opt.window));
    }
    fputc('\n', stderr);
    return st;
}

static void close_all(struct run *r)
{
    for (uint32_t m = 0; m < r->what->n_models; m++) {
        kv_store_destroy(r->c[m].kv);
        model_close(r->c[m].model);
        backend_close(r->c[m].backend);
        mem_free(r->kls[m]);
    }
    mem_free(r->blocks);
    mem_free(r->reference);
    token_list_fini(&r->text);
}

/* -1: go on; else the exit code. */
static int parse(struct run *r, int argc, char **argv)
{
    const struct command *c = &r->what->command;
    int code = command_parse(c, &r->opt, argc, argv, &r->n_text_files);
    if (code >= 0) return code;
    r->text_files = argv + 1;
    if (r->opt.tokens == 0) r->opt.tokens = r->what->tokens;
    if (r->n_text_files > 0 || !r->what->needs_text) return -1;
    fprintf(stderr, "%s: a file with text is needed; --help says more\n", c->name);
    command_free(c, &r->opt);
    return EXIT_USAGE;
}

static int compare(const struct comparison *what, int argc, char **argv)
{
    struct run r = { .what = what };
    struct error err = { 0 };
    int code = parse(&r, argc, argv);
    if (code >= 0) return code;
    enum status st = run_all(&r, &err);
    if (st == OK) print_table(&r);
    close_all(&r);
    command_free(&what->command, &r.opt);
    return bench_end(&what->command, st, &err);
}

int bench_kv(int argc, char **argv)
{
    return compare(&KV, argc, argv);
}

int bench_exact(int argc, char **argv)
{
    return compare(&EXACT, argc, argv);
}
