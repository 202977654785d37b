/* bench_engine.c - how fast a model prefills and decodes here, beside what the machine can do at most. */
#include "base/clock.h"
#include "base/mem.h"
#include "bench/bench.h"
#include "bench/ceilings.h"
#include "bench/engine_bench.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char USAGE[] = "usage: baton-bench engine -m FILE [options]\n"
                            "  -m, --model FILE     GGUF file\n"
                            "  -p, --prompt N       tokens of a prefill (512); 0: no prefill\n"
                            "  -n, --decode N       tokens of a decode, one at a time (128); 0: no decode\n"
                            "  -d, --depth N        context before the decode (0)\n"
                            "  -s, --streams N      sequences that decode together, 1 to 32 (1)\n"
                            "  -t, --threads N      threads (2)\n"
                            "  -r, --repeats N      repeats; medians and ends are printed (5)\n"
                            "  -b, --chunk N        most tokens in one forward pass (512)\n"
                            "      --kv FORMAT      int8 or f16 (int8)\n"
                            "      --rotate WORD    on, off or auto (auto)\n"
                            "      --isa LEVEL      auto, ref, avx2, vnni256, avxvnni, avx512, vnni or amx (auto)\n"
                            "      --weights WORD   resident, stream or auto (resident)\n"
                            "      --io WORD        auto, uring, pread or mmap: how they are read (auto)\n"
                            "      --json           one JSON object in place of the table\n"
                            "      --step           a repeat for each line on stdin, a JSON line for each repeat\n";

static int usage(int code)
{
    fputs(USAGE, code == 0 ? stdout : stderr);
    return code;
}

/* -1: go on; else the exit code. */
static int parse(struct engine_options *o, int argc, char **argv)
{
    enum { OPT_KV = 256, OPT_ROTATE, OPT_ISA, OPT_WEIGHTS, OPT_IO, OPT_JSON, OPT_STEP };
    static const struct option LONG[] = {
        { "model", required_argument, NULL, 'm' },
        { "prompt", required_argument, NULL, 'p' },
        { "decode", required_argument, NULL, 'n' },
        { "depth", required_argument, NULL, 'd' },
        { "streams", required_argument, NULL, 's' },
        { "threads", required_argument, NULL, 't' },
        { "repeats", required_argument, NULL, 'r' },
        { "chunk", required_argument, NULL, 'b' },
        { "kv", required_argument, NULL, OPT_KV },
        { "rotate", required_argument, NULL, OPT_ROTATE },
        { "isa", required_argument, NULL, OPT_ISA },
        { "weights", required_argument, NULL, OPT_WEIGHTS },
        { "io", required_argument, NULL, OPT_IO },
        { "json", no_argument, NULL, OPT_JSON },
        { "step", no_argument, NULL, OPT_STEP },
        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    int c;
    while ((c = getopt_long(argc, argv, "m:p:n:d:s:t:r:b:h", LONG, NULL)) != -1) {
        switch (c) {
        case 'm': o->path = optarg; break;
        case 'p': o->prompt = bench_number("-p", optarg, 0, 1u << 20); break;
        case 'n': o->decode = bench_number("-n", optarg, 0, 1u << 20); break;
        case 'd': o->depth = bench_number("-d", optarg, 0, 1u << 20); break;
        case 's': o->streams = bench_number("-s", optarg, 1, MODEL_MAX_LOGIT_ROWS); break;
        case 't': o->threads = bench_number("-t", optarg, 1, 1024); break;
        case 'r': o->repeats = bench_number("-r", optarg, 1, MAX_REPEATS); break;
        case 'b': o->chunk = bench_number("-b", optarg, 1, 8192); break;
        case OPT_KV: o->kv = optarg; break;
        case OPT_ROTATE: o->rotate = optarg; break;
        case OPT_ISA: o->isa = optarg; break;
        case OPT_WEIGHTS: o->weights = optarg; break;
        case OPT_IO: o->io = optarg; break;
        case OPT_JSON: o->json = true; break;
        case OPT_STEP: o->step = true; break;
        case 'h': return usage(0);
        default: return usage(2);
        }
    }
    if (!o->path || optind != argc) return usage(2);
    if (strcmp(o->kv, "int8") != 0 && strcmp(o->kv, "f16") != 0) {
        fprintf(stderr, "baton-bench: --kv is \"%s\", allowed are int8 and f16\n", o->kv);
        return 2;
    }
    if (o->prompt == 0 && o->decode == 0) {
        fputs("baton-bench: -p 0 and -n 0 leave nothing to measure\n", stderr);
        return 2;
    }
    return -1;
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
    enum status st = kv_store_create(&r->kv, r->model, n_blocks, err);
    if (st != OK) return st;
    r->blocks = mem_array(n_blocks, sizeof(*r->blocks));
    for (uint32_t i = 0; i < n_blocks; i++) r->blocks[i] = i;
    r->tokens = mem_array(longest, sizeof(*r->tokens));
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
    st = cpu_backend_create(&r->backend, o->threads, NULL, o->isa, &lim, err);
    if (st != OK) return st;
    struct model_options mo = { .path = o->path,
                                .backend = r->backend,
                                .kv_format = strcmp(o->kv, "f16") == 0 ? KV_F16 : KV_INT8,
                                .rotate = o->rotate,
                                .max_batch_tokens = rows,
                                .tp_size = 1,
                                .weights_fd = -1 };
    mo.kv_bytes = info.n_layers * info.n_kv_heads * kv_wire_bytes(mo.kv_format, info.head_dim, longest);
    if ((st = model_options_words(&mo, o->weights, o->io, err)) != OK) return st;
    uint64_t t0 = clock_now_us();
    if ((st = model_open(&r->model, &mo, err)) != OK) return st;
    r->load_s = (double)(clock_now_us() - t0) * 1e-6;
    if ((st = prepare_kv(r, longest, err)) != OK) return st;
    return ceilings_create(&r->ceilings, o->threads, err);
}

static void close_all(struct engine_bench *r)
{
    ceilings_destroy(r->ceilings);
    kv_store_destroy(r->kv);
    model_close(r->model);
    cpu_backend_destroy(r->backend);
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
        struct batch_seq seq = { 0, rows, at, blocks, r->blocks_each };
        struct batch b = { rows, r->tokens + at, &seq, 1 };
        enum status st = model_forward(r->model, &b, r->kv, NULL, NULL);
        if (st != OK) return st;
    }
    return rows ? model_logits(r->model, &(uint32_t){ rows - 1 }, 1, &logits) : OK;
}

/* A token of each stream a step, with its logits. */
static enum status decode(struct engine_bench *r, uint32_t from, uint32_t steps)
{
    const uint32_t n = r->opt.streams;
    struct batch_seq seqs[MODEL_MAX_LOGIT_ROWS];
    int32_t tokens[MODEL_MAX_LOGIT_ROWS];
    uint32_t rows[MODEL_MAX_LOGIT_ROWS];
    struct batch b = { n, tokens, seqs, n };
    float *logits;
    for (uint32_t pos = from; pos < from + steps; pos++) {
        for (uint32_t i = 0; i < n; i++) {
            seqs[i] = (struct batch_seq){ i, 1, pos, r->blocks + (size_t)i * r->blocks_each, r->blocks_each };
            tokens[i] = r->tokens[pos];
            rows[i] = i;
        }
        enum status st = model_forward(r->model, &b, r->kv, NULL, NULL);
        if (st == OK) st = model_logits(r->model, rows, n, &logits);
        if (st != OK) return st;
    }
    return OK;
}

/* Multiply-adds of the matrices for one row, without the head, and of the head. */
static double layer_macs(const struct model_info *i)
{
    double d = i->d_model, q = (double)i->n_heads * i->head_dim, kv = (double)i->n_kv_heads * i->head_dim;
    return i->n_layers * (d * (q + 2 * kv) + q * d + 3 * d * i->d_ff);
}

static double prefill_ops(const struct model_info *i, double n)
{
    double q = (double)i->n_heads * i->head_dim;
    double attention = i->n_layers * 2 * q * n * (n + 1) / 2; /* q k and p v, causal */
    return 2 * (n * layer_macs(i) + (double)i->d_model * i->n_vocab + attention);
}

/* All packed weights, and each stream's KV of the mean context. */
static double step_bytes(const struct engine_bench *r)
{
    double per_token = (double)model_kv_block_bytes(r->model) / KV_BLOCK_TOKENS;
    double mean_context = r->opt.depth + r->opt.decode / 2.0;
    return (double)model_info(r->model)->weight_bytes + r->opt.streams * per_token * mean_context;
}

static enum status measure(struct engine_bench *r, uint32_t i)
{
    const struct engine_options *o = &r->opt;
    enum status st = OK;
    uint64_t t0;
    r->samples[READ_BYTES_S][i] = ceilings_read_bandwidth(r->ceilings);
    r->samples[INT8_OPS_S][i] = ceilings_int8_peak(r->ceilings, &r->int8_how);
    if (o->prompt > 0) {
        t0 = clock_now_us();
        if ((st = prefill(r, 0, 0, o->prompt)) != OK) return st;
        double s = (double)(clock_now_us() - t0) * 1e-6;
        double ops = prefill_ops(model_info(r->model), o->prompt), peak = r->samples[INT8_OPS_S][i];
        r->samples[PREFILL_TOK_S][i] = o->prompt / s;
        r->samples[PREFILL_SHARE][i] = peak > 0.0 ? ops / s / peak : 0.0;
    }
    if (o->decode > 0) {
        t0 = clock_now_us();
        if ((st = decode(r, o->depth, o->decode)) != OK) return st;
        double s = (double)(clock_now_us() - t0) * 1e-6;
        r->samples[DECODE_TOK_S][i] = (double)o->streams * o->decode / s;
        r->samples[DECODE_SHARE][i] = o->decode / s * step_bytes(r) / r->samples[READ_BYTES_S][i];
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
    struct engine_bench r = { .opt = { .isa = "auto",
                                       .kv = "int8",
                                       .rotate = "auto",
                                       .weights = "resident",
                                       .io = "auto",
                                       .prompt = 512,
                                       .decode = 128,
                                       .streams = 1,
                                       .threads = 2,
                                       .repeats = 5,
                                       .chunk = 512 } };
    struct error err = { 0 };
    int code = parse(&r.opt, argc, argv);
    if (code >= 0) return code;
    enum status st = open_all(&r, &err);
    if (st == OK) st = warm_up(&r);
    if (st == OK) st = r.opt.step ? measure_steps(&r) : measure_all(&r);
    if (st != OK) fprintf(stderr, "baton-bench: %s\n", err.text[0] ? err.text : status_text(st));
    close_all(&r);
    return st == OK ? 0 : 1;
}
