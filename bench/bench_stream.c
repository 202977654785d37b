/* bench_stream.c - how fast streamed weights compute, beside the disk alone and resident weights alone. */
#include "base/clock.h"
#include "base/json_write.h"
#include "base/log.h"
#include "base/mem.h"
#include "bench/bench.h"
#include "bench/disk.h"
#include "model/model.h"

#include <stdio.h>
#include <sys/resource.h>

struct options {
    char *path, *io;
    uint32_t prompt, decode, threads, repeats;
    bool json;
};

/* One way of holding the weights. */
struct side {
    struct backend *backend;
    struct model *model;
    struct kv_store *kv;
    double prefill[BENCH_MAX_REPEATS], decode[BENCH_MAX_REPEATS]; /* seconds; of one token */
};

struct run {
    struct options opt;
    struct side stream, resident;
    uint32_t *blocks, n_blocks;
    int32_t *tokens;
    uint64_t bytes;
    double peak_bytes; /* of the process without KV, before resident weights came */
    double disk[BENCH_MAX_REPEATS], prefill_ratio[BENCH_MAX_REPEATS], decode_ratio[BENCH_MAX_REPEATS];
};

#define AT(field) offsetof(struct options, field)

static const struct config_option OPTIONS[] = {
    BENCH_MODEL(AT(path)),
    COMMAND_NUMBER("prompt", "p", AT(prompt), 1, 8192, "512", "tokens of a prefill, in one forward pass"),
    COMMAND_NUMBER("decode", "n", AT(decode), 1, 1024, "4", "tokens of a decode, one at a time"),
    BENCH_THREADS(AT(threads)),
    BENCH_REPEATS(AT(repeats), "3"),
    BENCH_IO(AT(io), "auto|uring|pread"),
    BENCH_JSON(AT(json)),
};
static const struct command COMMAND = { "baton-bench stream", NULL, NULL, OPTIONS,
                                        sizeof(OPTIONS) / sizeof(OPTIONS[0]) };

static enum status open_side(const struct run *r, struct side *s, const char *weights, const struct model_info *info,
                             struct error *err)
{
    const struct options *o = &r->opt;
    struct backend_limits lim = model_limits(info, o->prompt, r->n_blocks * KV_BLOCK_TOKENS);
    enum status st =
        backend_open(&s->backend, "cpu", &(struct backend_options){ .n_threads = o->threads, .limits = lim }, err);
    if (st != OK) return st;
    struct model_options opt = { .path = o->path,
                                 .backend = s->backend,
                                 .max_batch_tokens = o->prompt,
                                 .max_context = r->n_blocks * KV_BLOCK_TOKENS,
                                 .weights_fd = -1 };
    if ((st = model_options_words(&opt, weights, o->io, err)) != OK) return st;
    if ((st = model_open(&s->model, &opt, err)) != OK) return st;
    return bench_kv_create(&s->kv, s->model, r->n_blocks, 1, err);
}

/* The tokens at [from, to) in one pass, and the last one's logits. */
static enum status feed(const struct run *r, struct side *s, uint32_t from, uint32_t to)
{
    struct batch_seq seq = { 0, to - from, from, r->blocks, r->n_blocks, .n_logits = 1 };
    struct batch b = { to - from, r->tokens + from, &seq, 1 };
    float *logits;
    enum status st = model_forward(s->model, &b, s->kv, NULL, NULL);
    return st == OK ? model_logits(s->model, 0, 1, &logits) : st;
}

static enum status measure_side(const struct run *r, struct side *s, uint32_t i)
{
    const struct options *o = &r->opt;
    uint64_t t0 = clock_now_us();
    enum status st = feed(r, s, 0, o->prompt);
    s->prefill[i] = (double)(clock_now_us() - t0) * 1e-6;
    t0 = clock_now_us();
    for (uint32_t k = 0; k < o->decode && st == OK; k++) st = feed(r, s, o->prompt + k, o->prompt + k + 1);
    s->decode[i] = (double)(clock_now_us() - t0) * 1e-6 / o->decode;
    return st;
}

static double ratio(double streamed, double disk, double resident)
{
    return streamed / (disk > resident ? disk : resident);
}

static enum status measure(struct run *r, uint32_t i, struct error *err)
{
    enum status st = disk_read_raw(r->opt.path, &r->disk[i], &r->bytes, err);
    if (st == OK) st = measure_side(r, &r->resident, i);
    if (st == OK) st = measure_side(r, &r->stream, i);
    r->prefill_ratio[i] = ratio(r->stream.prefill[i], r->disk[i], r->resident.prefill[i]);
    r->decode_ratio[i] = ratio(r->stream.decode[i], r->disk[i], r->resident.decode[i]);
    return st;
}

/* Streaming first and alone: the process's peak is then its own. */
static enum status open_all(struct run *r, struct error *err)
{
    const struct options *o = &r->opt;
    struct model_info info;
    struct rusage use;
    enum status st = model_read_info(&info, o->path, err);
    if (st != OK) return st;
    uint32_t n = o->prompt + o->decode;
    r->n_blocks = (n + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    r->blocks = mem_array(r->n_blocks, sizeof(*r->blocks));
    for (uint32_t i = 0; i < r->n_blocks; i++) r->blocks[i] = i;
    r->tokens = mem_array(n, sizeof(*r->tokens));
    for (uint32_t i = 0; i < n; i++) r->tokens[i] = (int32_t)((i * 2654435761u >> 8) % info.n_vocab);
    if ((st = open_side(r, &r->stream, "stream", &info, err)) != OK) return st;
    if ((st = measure_side(r, &r->stream, 0)) != OK) return st;
    getrusage(RUSAGE_SELF, &use);
    r->peak_bytes = (double)use.ru_maxrss * 1024 - (double)r->stream.kv->bytes;
    return open_side(r, &r->resident, "resident", &info, err);
}

static void close_side(struct side *s)
{
    kv_store_destroy(s->kv);
    model_close(s->model);
    backend_close(s->backend);
}

static void print_all(struct run *r)
{
    const struct {
        const char *name, *key;
        double *samples;
    } rows[] = {
        { "disk alone, s", "disk_s", r->disk },
        { "prefill resident, s", "prefill_resident_s", r->resident.prefill },
        { "prefill streamed, s", "prefill_stream_s", r->stream.prefill },
        { "  of the longer", "prefill_ratio", r->prefill_ratio },
        { "token resident, s", "decode_resident_s", r->resident.decode },
        { "token streamed, s", "decode_stream_s", r->stream.decode },
        { "  of the longer", "decode_ratio", r->decode_ratio },
    };
    struct strbuf sb = STRBUF_INIT;
    strbuf_puts(&sb, "{\"model\":");
    json_cstr(&sb, r->opt.path);
    strbuf_addf(&sb, ",\"bytes\":%llu,\"prompt\":%u,\"threads\":%u,\"repeats\":%u,\"peak_rss_without_kv\":%.0f",
                (unsigned long long)r->bytes, r->opt.prompt, r->opt.threads, r->opt.repeats, r->peak_bytes);
    if (!r->opt.json)
        printf("%s, %.1f MB, prefill %u, %u threads, peak RSS without KV %.1f MB\n\n%-22s %9s %9s %9s\n", r->opt.path,
               (double)r->bytes * 1e-6, r->opt.prompt, r->opt.threads, r->peak_bytes * 1e-6, "", "median", "min",
               "max");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct bench_spread s = bench_spread_of(rows[i].samples, r->opt.repeats);
        if (!r->opt.json) printf("%-22s %9.3f %9.3f %9.3f\n", rows[i].name, s.median, s.min, s.max);
        strbuf_addf(&sb, ",\"%s\":%.6f,\"%s_min\":%.6f,\"%s_max\":%.6f", rows[i].key, s.median, rows[i].key, s.min,
                    rows[i].key, s.max);
    }
    strbuf_putc(&sb, '}');
    if (r->opt.json) puts(strbuf_cstr(&sb));
    strbuf_fini(&sb);
}

int bench_stream(int argc, char **argv)
{
    struct run r = { 0 };
    struct error err = { 0 };
    int code = command_parse(&COMMAND, &r.opt, argc, argv, NULL);
    if (code >= 0) return code;
    log_init(LOG_LEVEL_WARN, "bench");
    enum status st = open_all(&r, &err);
    for (uint32_t i = 0; i < r.opt.repeats && st == OK; i++) st = measure(&r, i, &err);
    if (st == OK) print_all(&r);
    close_side(&r.stream);
    close_side(&r.resident);
    mem_free(r.blocks);
    mem_free(r.tokens);
    command_free(&COMMAND, &r.opt);
    return bench_end(&COMMAND, st, &err);
}
