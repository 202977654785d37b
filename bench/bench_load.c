/* bench_load.c - how fast a model loads from a cold disk, beside a raw O_DIRECT read of the same file. */
#include "base/clock.h"
#include "base/json_write.h"
#include "base/log.h"
#include "base/mem.h"
#include "bench/bench.h"
#include "bench/disk.h"
#include "model/model.h"

#include <stdio.h>

struct options {
    char *path, *io;
    uint32_t threads, repeats;
    bool json;
};

struct run {
    struct options opt;
    uint64_t bytes;
    double raw[BENCH_MAX_REPEATS], load[BENCH_MAX_REPEATS], share[BENCH_MAX_REPEATS]; /* seconds, seconds, raw / load */
};

#define AT(field) offsetof(struct options, field)

static const struct config_option OPTIONS[] = {
    BENCH_MODEL(AT(path)),
    BENCH_THREADS(AT(threads)),
    BENCH_REPEATS(AT(repeats), "5"),
    BENCH_IO(AT(io), "auto|uring|pread|mmap"),
    BENCH_JSON(AT(json)),
};
static const struct command COMMAND = { "baton-bench load", NULL, NULL, OPTIONS, sizeof(OPTIONS) / sizeof(OPTIONS[0]) };

/* From the open of the file to a model that could compute. */
static enum status load_once(const struct options *o, double *seconds, struct error *err)
{
    struct backend *backend = NULL;
    struct model *model = NULL;
    struct model_info info;
    enum status st = model_read_info(&info, o->path, err);
    if (st != OK) return st;
    struct backend_limits lim = model_limits(&info, 64, KV_BLOCK_TOKENS);
    if ((st = backend_open(&backend, "cpu", &(struct backend_options){ .n_threads = o->threads, .limits = lim },
                           err)) != OK)
        return st;
    struct model_options opt = {
        .path = o->path, .backend = backend, .max_batch_tokens = 64, .max_context = KV_BLOCK_TOKENS, .weights_fd = -1
    };
    st = model_options_words(&opt, "resident", o->io, err);
    if (st == OK) st = disk_drop_cache(o->path, err); /* reading the facts has touched it */
    uint64_t t0 = clock_now_us();
    if (st == OK) st = model_open(&model, &opt, err);
    *seconds = (double)(clock_now_us() - t0) * 1e-6;
    model_close(model);
    backend_close(backend);
    return st;
}

static enum status measure(struct run *r, uint32_t i, struct error *err)
{
    enum status st = disk_read_raw(r->opt.path, &r->raw[i], &r->bytes, err);
    if (st == OK) st = load_once(&r->opt, &r->load[i], err);
    if (st == OK) r->share[i] = r->raw[i] / r->load[i];
    return st;
}

static void print_table(struct run *r)
{
    const struct {
        const char *name;
        double *seconds;
    } rows[] = { { "raw O_DIRECT read", r->raw }, { "load", r->load } };
    printf("%s, %.1f MB, io %s, %u threads\n\n%-18s %10s %10s %10s\n", r->opt.path, (double)r->bytes * 1e-6, r->opt.io,
           r->opt.threads, "", "median", "min", "max");
    for (int i = 0; i < 2; i++) {
        struct bench_spread s = bench_spread_of(rows[i].seconds, r->opt.repeats);
        printf("%-18s %10.3f %10.3f %10.3f   s, %.0f MB/s\n", rows[i].name, s.median, s.min, s.max,
               (double)r->bytes * 1e-6 / s.median);
    }
    struct bench_spread s = bench_spread_of(r->share, r->opt.repeats);
    printf("%-18s %10.1f %10.1f %10.1f   %% of the raw read in the same repeat\n", "", 100 * s.median, 100 * s.min,
           100 * s.max);
}

static void print_json(struct run *r)
{
    struct strbuf sb = STRBUF_INIT;
    const struct {
        const char *name;
        double *samples;
    } rows[] = { { "raw_s", r->raw }, { "load_s", r->load }, { "share", r->share } };
    strbuf_puts(&sb, "{\"model\":");
    json_cstr(&sb, r->opt.path);
    strbuf_addf(&sb, ",\"bytes\":%llu,\"io\":\"%s\",\"threads\":%u,\"repeats\":%u", (unsigned long long)r->bytes,
                r->opt.io, r->opt.threads, r->opt.repeats);
    for (int i = 0; i < 3; i++) {
        struct bench_spread s = bench_spread_of(rows[i].samples, r->opt.repeats);
        strbuf_addf(&sb, ",\"%s\":%.6f,\"%s_min\":%.6f,\"%s_max\":%.6f", rows[i].name, s.median, rows[i].name, s.min,
                    rows[i].name, s.max);
    }
    strbuf_putc(&sb, '}');
    puts(strbuf_cstr(&sb));
    strbuf_fini(&sb);
}

int bench_load(int argc, char **argv)
{
    struct run r = { 0 };
    struct error err = { 0 };
    int code = command_parse(&COMMAND, &r.opt, argc, argv, NULL);
    if (code >= 0) return code;
    log_init(LOG_LEVEL_WARN, "bench");
    enum status st = OK;
    for (uint32_t i = 0; i <= r.opt.repeats && st == OK; i++)
        st = measure(&r, i ? i - 1 : 0, &err); /* one to warm up */
    if (st == OK) (r.opt.json ? print_json : print_table)(&r);
    command_free(&COMMAND, &r.opt);
    return bench_end(&COMMAND, st, &err);
}
