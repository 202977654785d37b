/* bench_engine.c - how fast a model prefills and decodes here, beside what the machine can do at most. */
#include "base/clock.h"
#include "base/mem.h"
#include "bench/bench.h"
#include "bench/ceilings.h"
#include "bench/engine_bench.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* Streams read other tokens: of one token all would choose the same experts. */
#define STREAM_STEP 5u
#define MAX_STREAMS 256

#define AT(field) offsetof(struct engine_options, field)

static const struct config_option OPTIONS[] = {
    BENCH_MODEL(AT(path)),
    COMMAND_NUMBER("prompt", "p", AT(prompt), 0, 1u << 20, "512", "tokens of a prefill, 0: no prefill"),
    COMMAND_NUMBER("decode", "n", AT(decode), 0, 1u << 20, "128", "tokens of a decode, one at a time, 0: no decode"),
    COMMAND_NUMBER("depth", "d", AT(depth), 0, 1u << 20, "0", "context before the decode"),
    COMMAND_NUMBER("streams", "s", AT(streams), 1, MAX_STREAMS, "1", "sequences that decode together"),
    BENCH_THREADS(AT(threads)),
    COMMAND_NUMBER("tp", NULL, AT(tp), 1, RANKS_MAX_TP, "1", "ranks that share out each layer, and the threads"),
    COMMAND_NUMBER("pp", NULL, AT(pp), 1, RANKS_MAX_PP, "1", "runs of layers, each with ranks of its own"),
    BENCH_REPEATS(AT(repeats), "5"),
    COMMAND_NUMBER("chunk", "b", AT(chunk), 1, 8192, "512", "most tokens in one forward pass"),
    COMMAND_CHOICE("kv", NULL, AT(kv), "int8|f16", "int8", "format of KV"),
    COMMAND_CHOICE("rotate", NULL, AT(rotate), "on|off|auto", "auto", "whether Q and K are rotated"),
    COMMAND_CHOICE("backend", NULL, AT(backend), "cpu|cuda", "cpu", "what computes"),
    COMMAND_CHOICE("numerics", NULL, AT(numerics), "exact|fast", "fast", "on a GPU: the CPU's bits, or the fastest"),
    COMMAND_TEXT("isa", NULL, AT(isa), "LEVEL", "auto", "instruction set, as a node's --isa"),
    COMMAND_CHOICE("weights", NULL, AT(weights), "resident|stream|auto", "resident", "whether weights lie in memory"),
    BENCH_IO(AT(io), "auto|uring|pread|mmap"),
    BENCH_JSON(AT(json)),
    COMMAND_SWITCH("cpu", NULL, AT(cpu), "processor time in place of time, for a busy machine; with one thread"),
    COMMAND_SWITCH("step", NULL, AT(step), "a repeat for each line on stdin, a line of JSON for each repeat"),
};
static const struct command COMMAND = { "baton-bench engine", NULL, NULL, OPTIONS,
                                        sizeof(OPTIONS) / sizeof(OPTIONS[0]) };

/* -1: go on; else the exit code. */
static int parse(struct engine_options *o, int argc, char **argv)
{
    int code = command_parse(&COMMAND, o, argc, argv, NULL);
    if (code >= 0) return code;
    if (o->cpu && o->threads != 1)
        fprintf(stderr, "%s: --cpu is for --threads 1: threads wait for each other\n", COMMAND.name);
    else if (o->prompt > 0 || o->decode > 0)
        return code;
    else
        fprintf(stderr, "%s: --prompt 0 and --decode 0 leave nothing to measure\n", COMMAND.name);
    command_free(&COMMAND, o);
    return EXIT_USAGE;
}

static bool on_device(const struct engine_bench *r)
{
    return strcmp(r->opt.backend, "cpu") != 0;
}

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* Block tables of all streams, and the tokens that each of them reads. */
static enum status prepare_kv(struct engine_bench *r, uint32_t longest, struct error *err)
{
    r->blocks_each = (longest + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    uint32_t n_blocks = r->opt.streams * r->blocks_each;
    enum status st = bench_kv_create(&r->kv, r->model, n_blocks, r->opt.streams, err);
    if (st != OK) return st;
    r->blocks = mem_array(n_blocks, sizeof(*r->blocks));
    for (uint32_t i = 0; i < n_blocks; i++) r->blocks[i] = i;
    r->tokens = mem_array(longest, sizeof(*r->tokens));
    r->n_tokens = longest;
    for (uint32_t i = 0; i < longest; i++)
        r->tokens[i] = (int32_t)((i * 2654435761u >> 8) % model_info(r->model)->n_vocab);
    return OK;
}

static enum status open_all(struct engine_bench *r, struct error *err)
{
    const struct engine_options *o = &r->opt;
    struct model_info info;
    uint32_t longest = larger(o->prompt, o->depth + o->decode), rows = larger(o->chunk, o->streams);
    enum status st = model_read_info(&info, o->path, err);
    if (st != OK) return st;
    struct backend_limits lim = model_limits(&info, rows, info.context_length);
    if (longest > info.context_length)
        return error_set(err, ERR_CONTEXT_LENGTH, "%u tokens are asked for, the model was trained for %u", longest,
                         info.context_length);
    st = ranks_open(
        &r->ranks, o->tp, o->pp, o->backend,
        &(struct backend_options){ .n_threads = o->threads,
                                   .isa = o->isa,
                                   .numerics = strcmp(o->numerics, "exact") == 0 ? NUMERICS_EXACT : NUMERICS_FAST,
                                   .limits = lim },
        err);
    if (st != OK) return st;
    struct model_options mo = { .path = o->path,
                                .ranks = r->ranks,
                                .kv_format = strcmp(o->kv, "f16") == 0 ? KV_F16 : KV_INT8,
                                .rotate = o->rotate,
                                .max_batch_tokens = rows,
                                .weights_fd = -1 };
    mo.kv_bytes = info.n_layers * info.n_kv_heads * kv_wire_bytes(mo.kv_format, info.head_dim, longest);
    if ((st = model_options_words(&mo, o->weights, o->io, err)) != OK) return st;
    uint64_t t0 = clock_now_us();
    if ((st = model_open(&r->model, &mo, err)) != OK) return st;
    r->load_s = (double)(clock_now_us() - t0) * 1e-6;
    if ((st = prepare_kv(r, longest, err)) != OK) return st;
    return on_device(r) ? OK : ceilings_create(&r->ceilings, o->threads, err);
}

static void close_all(struct engine_bench *r)
{
    ceilings_destroy(r->ceilings);
    kv_store_destroy(r->kv);
    model_close(r->model);
    ranks_close(r->ranks);
    mem_free(r->blocks);
    mem_free(r->tokens);
}

/* Reads positions [from, to) of one stream in chunks; logits of the last row. */
static enum status prefill(struct engine_bench *r, uint32_t stream, uint32_t from, uint32_t to)
{
    const uint32_t *blocks = r->blocks + (size_t)stream * r->blocks_each;
    float *logits;
    uint32_t rows = 0;
    for (uint32_t at = from; at < to; at += rows) {
        rows = to - at < r->opt.chunk ? to - at : r->opt.chunk;
        struct batch_seq seq = { 0, rows, at, blocks, r->blocks_each, .n_logits = 1, .state = stream };
        struct batch b = { rows, r->tokens + at, &seq, 1 };
        enum status st = model_forward(r->model, &b, r->kv, NULL, NULL);
        if (st != OK) return st;
    }
    return rows ? model_logits(r->model, 0, 1, &logits) : OK;
}

/* As nodes take tokens: a device picks, the processor's logits are where they are. */
static enum status take_tokens(struct engine_bench *r, uint32_t first, uint32_t n)
{
    struct pick_row rows[MODEL_MAX_LOGIT_ROWS];
    static struct picked picked[MODEL_MAX_LOGIT_ROWS];
    float *logits;
    if (!on_device(r)) return model_logits(r->model, first, n, &logits);
    for (uint32_t i = 0; i < n; i++) rows[i] = (struct pick_row){ .repetition = 1, .want = 1, .ask = -1 };
    enum status st = model_pick(r->model, first, n, rows, picked);
    return st == OK ? model_wait(r->model) : st;
}

/* A token of each stream a step, with its logits.  Recurrent states go on from the decode before, which costs the same.
 */
static enum status decode(struct engine_bench *r, uint32_t from, uint32_t steps)
{
    const uint32_t n = r->opt.streams;
    struct batch_seq seqs[MAX_STREAMS];
    int32_t tokens[MAX_STREAMS];
    struct batch b = { n, tokens, seqs, n };
    for (uint32_t pos = from; pos < from + steps; pos++) {
        for (uint32_t i = 0; i < n; i++) {
            seqs[i] = (struct batch_seq){ i, 1, pos, r->blocks + (size_t)i * r->blocks_each, r->blocks_each, 1, i };
            tokens[i] = r->tokens[(pos + i * STREAM_STEP) % r->n_tokens];
        }
        enum status st = model_forward(r->model, &b, r->kv, NULL, NULL);
        for (uint32_t i = 0; i < n && st == OK; i += MODEL_MAX_LOGIT_ROWS)
            st = take_tokens(r, i, n - i < MODEL_MAX_LOGIT_ROWS ? n - i : MODEL_MAX_LOGIT_ROWS);
        if (st != OK) return st;
    }
    return OK;
}

static double prefill_ops(const struct model_info *i, double n)
{
    double attention = i->position_macs * n * (n + 1) / 2; /* q k and p v, causal */
    return 2 * (n * i->row_macs + (double)i->d_model * i->n_vocab + attention);
}

/* All packed weights, but of experts what streams choose at the most, and each stream's KV of the mean context. */
static double step_bytes(const struct engine_bench *r)
{
    const struct model_info *info = model_info(r->model);
    const double chosen = (double)info->used_bytes * r->opt.streams, all = (double)info->expert_bytes;
    const double weights = (double)(info->weight_bytes - info->expert_bytes) + (chosen < all ? chosen : all);
    double per_token = (double)model_kv_block_bytes(r->model) / KV_BLOCK_TOKENS;
    double mean_context = r->opt.depth + r->opt.decode / 2.0;
    return weights + r->opt.streams * per_token * mean_context;
}

/* Seconds, of which only differences count. */
static double now_s(const struct engine_bench *r)
{
    struct timespec t;
    if (!r->opt.cpu) return (double)clock_now_us() * 1e-6;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static enum status measure(struct engine_bench *r, uint32_t i)
{
    const struct engine_options *o = &r->opt;
    enum status st = OK;
    double t0;
    if (on_device(r) && (st = engine_device_read(r, &r->samples[READ_BYTES_S][i])) != OK) return st;
    if (!o->cpu && !on_device(r)) { /* they are of time that passes */
        r->samples[READ_BYTES_S][i] = ceilings_read_bandwidth(r->ceilings);
        r->samples[INT8_OPS_S][i] = ceilings_int8_peak(r->ceilings, &r->int8_how);
    }
    if (o->prompt > 0) {
        t0 = now_s(r);
        if ((st = prefill(r, 0, 0, o->prompt)) != OK) return st;
        double s = now_s(r) - t0;
        double ops = prefill_ops(model_info(r->model), o->prompt), peak = r->samples[INT8_OPS_S][i];
        r->samples[PREFILL_TOK_S][i] = o->prompt / s;
        r->samples[PREFILL_SHARE][i] = peak > 0.0 ? ops / s / peak : 0.0;
    }
    if (o->decode > 0) {
        t0 = now_s(r);
        if ((st = decode(r, o->depth, o->decode)) != OK) return st;
        double s = now_s(r) - t0;
        r->samples[DECODE_TOK_S][i] = (double)o->streams * o->decode / s;
        double peak = r->samples[READ_BYTES_S][i];
        r->samples[DECODE_SHARE][i] = peak > 0.0 ? o->decode / s * step_bytes(r) / peak : 0.0;
    }
    return OK;
}

/* Warms pages, caches and clocks, and reads the context that decodes start from: later prefills write the same
 * bits over it. */
static enum status warm_up(struct engine_bench *r)
{
    const struct engine_options *o = &r->opt;
    enum status st = OK;
    for (uint32_t s = 0; s < o->streams && st == OK && o->decode > 0; s++) st = prefill(r, s, 0, o->depth);
    if (st == OK && o->prompt > 0) st = prefill(r, 0, 0, o->prompt < o->chunk ? o->prompt : o->chunk);
    return st == OK && o->decode > 0 ? decode(r, o->depth, o->decode < 8 ? o->decode : 8) : st;
}

/* Interleaves with another program that is measured: says "ready", then waits for a line before each repeat. */
static enum status measure_steps(struct engine_bench *r)
{
    char line[16];
    enum status st = OK;
    puts("ready");
    fflush(stdout);
    while (st == OK && fgets(line, sizeof(line), stdin))
        if ((st = measure(r, 0)) == OK) engine_report_sample(r, 0);
    return st;
}

static enum status measure_all(struct engine_bench *r)
{
    enum status st = OK;
    for (uint32_t i = 0; i < r->opt.repeats && st == OK; i++) st = measure(r, i);
    if (st == OK && r->opt.json) engine_report_json(r);
    if (st == OK && !r->opt.json) engine_report_table(r);
    return st;
}

int bench_engine(int argc, char **argv)
{
    struct engine_bench r = { .int8_how = "not measured" };
    struct error err = { 0 };
    int code = parse(&r.opt, argc, argv);
    if (code >= 0) return code;
    enum status st = open_all(&r, &err);
    if (st == OK) st = warm_up(&r);
    if (st == OK) st = r.opt.step ? measure_steps(&r) : measure_all(&r);
    close_all(&r);
    command_free(&COMMAND, &r.opt);
    return bench_end(&COMMAND, st, &err);
}
