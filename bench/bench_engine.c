/* bench_engine.c - how fast a model prefills and decodes here, beside what the machine can do at most. */
#include "base/clock.h"
#include "base/json_write.h"
#include "base/mem.h"
#include "bench/bench.h"
#include "bench/ceilings.h"
#include "model/model.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_REPEATS 100

struct options {
    const char *path, *isa, *kv, *rotate;
    uint32_t prompt, decode, depth, threads, repeats, chunk;
    bool json;
};

struct run {
    struct options opt;
    struct backend *backend;
    struct model *model;
    struct kv_store *kv;
    struct ceilings *ceilings;
    const char *int8_how;
    uint32_t *blocks, n_blocks;
    int32_t *tokens;
    double load_s;
    double prefill[MAX_REPEATS], decode[MAX_REPEATS]; /* tok/s */
    double prefill_share[MAX_REPEATS], decode_share[MAX_REPEATS];
    double bandwidth[MAX_REPEATS], int8_peak[MAX_REPEATS];
};

static const char USAGE[] = "usage: baton-bench engine -m FILE [options]\n"
                            "  -m, --model FILE     GGUF file\n"
                            "  -p, --prompt N       tokens of a prefill (512)\n"
                            "  -n, --decode N       tokens of a decode, one at a time (128)\n"
                            "  -d, --depth N        context before the decode (0)\n"
                            "  -t, --threads N      threads (2)\n"
                            "  -r, --repeats N      repeats; medians and ends are printed (5)\n"
                            "  -b, --chunk N        most tokens in one forward pass (512)\n"
                            "      --kv FORMAT      int8 or f16 (int8)\n"
                            "      --rotate WORD    on, off or auto (auto)\n"
                            "      --isa LEVEL      auto, ref, avx2, vnni256, avxvnni, avx512 or vnni (auto)\n"
                            "      --json           one JSON object in place of the table\n";

static int usage(int code)
{
    fputs(USAGE, code == 0 ? stdout : stderr);
    return code;
}

/* -1: go on; else the exit code. */
static int parse(struct options *o, int argc, char **argv)
{
    enum { OPT_KV = 256, OPT_ROTATE, OPT_ISA, OPT_JSON };
    static const struct option LONG[] = {
        { "model", required_argument, NULL, 'm' },
        { "prompt", required_argument, NULL, 'p' },
        { "decode", required_argument, NULL, 'n' },
        { "depth", required_argument, NULL, 'd' },
        { "threads", required_argument, NULL, 't' },
        { "repeats", required_argument, NULL, 'r' },
        { "chunk", required_argument, NULL, 'b' },
        { "kv", required_argument, NULL, OPT_KV },
        { "rotate", required_argument, NULL, OPT_ROTATE },
        { "isa", required_argument, NULL, OPT_ISA },
        { "json", no_argument, NULL, OPT_JSON },
        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    int c;
    while ((c = getopt_long(argc, argv, "m:p:n:d:t:r:b:h", LONG, NULL)) != -1) {
        switch (c) {
        case 'm': o->path = optarg; break;
        case 'p': o->prompt = bench_number("-p", optarg, 1, 1u << 20); break;
        case 'n': o->decode = bench_number("-n", optarg, 1, 1u << 20); break;
        case 'd': o->depth = bench_number("-d", optarg, 0, 1u << 20); break;
        case 't': o->threads = bench_number("-t", optarg, 1, 1024); break;
        case 'r': o->repeats = bench_number("-r", optarg, 1, MAX_REPEATS); break;
        case 'b': o->chunk = bench_number("-b", optarg, 1, 8192); break;
        case OPT_KV: o->kv = optarg; break;
        case OPT_ROTATE: o->rotate = optarg; break;
        case OPT_ISA: o->isa = optarg; break;
        case OPT_JSON: o->json = true; break;
        case 'h': return usage(0);
        default: return usage(2);
        }
    }
    if (!o->path || optind != argc) return usage(2);
    if (strcmp(o->kv, "int8") != 0 && strcmp(o->kv, "f16") != 0) {
        fprintf(stderr, "baton-bench: --kv is \"%s\", allowed are int8 and f16\n", o->kv);
        return 2;
    }
    return -1;
}

static enum status open_all(struct run *r, struct error *err)
{
    const struct options *o = &r->opt;
    struct model_info info;
    uint32_t longest = o->prompt > o->depth + o->decode ? o->prompt : o->depth + o->decode;
    enum status st = model_read_info(&info, o->path, err);
    if (st != OK) return st;
    struct backend_limits lim = model_limits(&info, o->chunk, info.context_length);
    if (longest > info.context_length)
        return error_set(err, ERR_CONTEXT_LENGTH, "%u tokens are asked for, the model was trained for %u", longest,
                         info.context_length);
    st = cpu_backend_create(&r->backend, o->threads, NULL, o->isa, &lim, err);
    if (st != OK) return st;
    struct model_options mo = { .path = o->path,
                                .backend = r->backend,
                                .kv_format = strcmp(o->kv, "f16") == 0 ? KV_F16 : KV_INT8,
                                .rotate = o->rotate,
                                .max_batch_tokens = o->chunk,
                                .tp_size = 1,
                                .weights_fd = -1 };
    uint64_t t0 = clock_now_us();
    if ((st = model_open(&r->model, &mo, err)) != OK) return st;
    r->load_s = (double)(clock_now_us() - t0) * 1e-6;
    r->n_blocks = (longest + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    if ((st = kv_store_create(&r->kv, r->model, r->n_blocks, err)) != OK) return st;
    if ((st = ceilings_create(&r->ceilings, o->threads, err)) != OK) return st;
    r->blocks = mem_array(r->n_blocks, sizeof(*r->blocks));
    for (uint32_t i = 0; i < r->n_blocks; i++) r->blocks[i] = i;
    r->tokens = mem_array(longest, sizeof(*r->tokens));
    for (uint32_t i = 0; i < longest; i++) r->tokens[i] = (int32_t)((i * 2654435761u >> 8) % info.n_vocab);
    return OK;
}

static void close_all(struct run *r)
{
    ceilings_destroy(r->ceilings);
    kv_store_destroy(r->kv);
    model_close(r->model);
    cpu_backend_destroy(r->backend);
    mem_free(r->blocks);
    mem_free(r->tokens);
}

/* Feeds positions [from, to) in pieces of at most `step` and takes logits of each piece's last row if asked. */
static enum status feed(struct run *r, uint32_t from, uint32_t to, uint32_t step, bool every_logits)
{
    while (from < to) {
        uint32_t rows = to - from < step ? to - from : step;
        struct batch_seq seq = { 0, rows, from, r->blocks, r->n_blocks };
        struct batch b = { rows, r->tokens + from, &seq, 1 };
        float *logits;
        enum status st = model_forward(r->model, &b, r->kv, NULL, NULL);
        from += rows;
        if (st == OK && (every_logits || from == to)) st = model_logits(r->model, &(uint32_t){ rows - 1 }, 1, &logits);
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

/* All packed weights, and the KV of the mean context. */
static double decode_bytes(const struct run *r, double mean_context)
{
    double per_token = (double)model_kv_block_bytes(r->model) / KV_BLOCK_TOKENS;
    return (double)model_info(r->model)->weight_bytes + per_token * mean_context;
}

static enum status measure(struct run *r, uint32_t i)
{
    const struct options *o = &r->opt;
    const struct model_info *info = model_info(r->model);
    enum status st;
    r->bandwidth[i] = ceilings_read_bandwidth(r->ceilings);
    r->int8_peak[i] = ceilings_int8_peak(r->ceilings, &r->int8_how);

    uint64_t t0 = clock_now_us();
    if ((st = feed(r, 0, o->prompt, o->chunk, false)) != OK) return st;
    double s = (double)(clock_now_us() - t0) * 1e-6;
    r->prefill[i] = o->prompt / s;
    if (r->int8_peak[i] > 0.0) r->prefill_share[i] = prefill_ops(info, o->prompt) / s / r->int8_peak[i];

    if (o->depth > 0 && (st = feed(r, 0, o->depth, o->chunk, false)) != OK) return st;
    t0 = clock_now_us();
    if ((st = feed(r, o->depth, o->depth + o->decode, 1, true)) != OK) return st;
    s = (double)(clock_now_us() - t0) * 1e-6;
    r->decode[i] = o->decode / s;
    double bytes = decode_bytes(r, o->depth + o->decode / 2.0);
    r->decode_share[i] = r->decode[i] * bytes / r->bandwidth[i];
    return OK;
}

static void print_table(struct run *r)
{
    const struct options *o = &r->opt;
    const struct model_info *i = model_info(r->model);
    uint32_t n = o->repeats;
    struct bench_spread bw = bench_spread_of(r->bandwidth, n), op = bench_spread_of(r->int8_peak, n);
    struct bench_spread p = bench_spread_of(r->prefill, n), d = bench_spread_of(r->decode, n);
    struct bench_spread ps = bench_spread_of(r->prefill_share, n), ds = bench_spread_of(r->decode_share, n);
    char name[32];
    printf("%s\n%s, %.1f M parameters, %.1f MB packed, KV %s%s, %u threads, %s, loaded in %.2f s\n\n", o->path, i->arch,
           (double)i->n_params * 1e-6, (double)i->weight_bytes * 1e-6, o->kv, i->rotate ? " rotated" : "", o->threads,
           cpu_backend_isa(r->backend), r->load_s);
    printf("%-18s %10s %10s %10s   %s\n", "", "median", "min", "max", "of the ceiling in the same repeat");
    printf("%-18s %10.1f %10.1f %10.1f   GB/s\n", "memory read", bw.median * 1e-9, bw.min * 1e-9, bw.max * 1e-9);
    printf("%-18s %10.1f %10.1f %10.1f   GOP/s, %s\n", "int8 peak", op.median * 1e-9, op.min * 1e-9, op.max * 1e-9,
           r->int8_how);
    snprintf(name, sizeof(name), "prefill %u", o->prompt);
    printf("%-18s %10.1f %10.1f %10.1f   tok/s, %.1f %% of int8 peak, %.1f ms\n", name, p.median, p.min, p.max,
           100.0 * ps.median, 1000.0 * o->prompt / p.median);
    snprintf(name, sizeof(name), "decode %u @ %u", o->decode, o->depth);
    printf("%-18s %10.1f %10.1f %10.1f   tok/s, %.1f %% of memory read\n", name, d.median, d.min, d.max,
           100.0 * ds.median);
}

/* "key": median, "key_min" and "key_max" beside it. */
static void json_spread(struct strbuf *sb, const char *key, double *samples, uint32_t n)
{
    struct bench_spread s = bench_spread_of(samples, n);
    strbuf_addf(sb, ",\"%s\":", key);
    json_num(sb, s.median);
    strbuf_addf(sb, ",\"%s_min\":", key);
    json_num(sb, s.min);
    strbuf_addf(sb, ",\"%s_max\":", key);
    json_num(sb, s.max);
}

static void print_json(struct run *r)
{
    const struct options *o = &r->opt;
    struct strbuf sb = STRBUF_INIT;
    strbuf_puts(&sb, "{\"model\":");
    json_cstr(&sb, o->path);
    strbuf_addf(&sb,
                ",\"threads\":%u,\"isa\":\"%s\",\"kv\":\"%s\",\"prompt\":%u,\"decode\":%u,\"depth\":%u,"
                "\"repeats\":%u,\"int8_how\":\"%s\",\"load_s\":",
                o->threads, cpu_backend_isa(r->backend), o->kv, o->prompt, o->decode, o->depth, o->repeats,
                r->int8_how);
    json_num(&sb, r->load_s);
    json_spread(&sb, "read_bytes_s", r->bandwidth, o->repeats);
    json_spread(&sb, "int8_ops_s", r->int8_peak, o->repeats);
    json_spread(&sb, "prefill_tok_s", r->prefill, o->repeats);
    json_spread(&sb, "prefill_share", r->prefill_share, o->repeats);
    json_spread(&sb, "decode_tok_s", r->decode, o->repeats);
    json_spread(&sb, "decode_share", r->decode_share, o->repeats);
    strbuf_putc(&sb, '}');
    puts(strbuf_cstr(&sb));
    strbuf_fini(&sb);
}

int bench_engine(int argc, char **argv)
{
    struct run r = { .opt = { .isa = "auto",
                              .kv = "int8",
                              .rotate = "auto",
                              .prompt = 512,
                              .decode = 128,
                              .threads = 2,
                              .repeats = 5,
                              .chunk = 512 } };
    struct error err = { 0 };
    int code = parse(&r.opt, argc, argv);
    if (code >= 0) return code;
    enum status st = open_all(&r, &err);
    /* One unmeasured round warms pages, caches and clocks. */
    for (uint32_t i = 0; i <= r.opt.repeats && st == OK; i++) st = measure(&r, i ? i - 1 : 0);
    if (st != OK)
        fprintf(stderr, "baton-bench: %s\n", err.text[0] ? err.text : status_text(st));
    else if (r.opt.json)
        print_json(&r);
    else
        print_table(&r);
    close_all(&r);
    return st == OK ? 0 : 1;
}
