/* engine_report.c - what `baton-bench engine` prints: a table, a JSON object, or a JSON line per repeat. */
#include "base/json_write.h"
#include "bench/bench.h"
#include "bench/engine_bench.h"

#include <stdio.h>

static const char *const NAMES[N_ENGINE_METRICS] = {
    "read_bytes_s", "int8_ops_s", "prefill_tok_s", "prefill_share", "decode_tok_s", "decode_share",
};

static bool is_measured(const struct engine_bench *r, enum engine_metric m)
{
    if (m == PREFILL_TOK_S || m == PREFILL_SHARE) return r->opt.prompt > 0;
    if (m == DECODE_TOK_S || m == DECODE_SHARE) return r->opt.decode > 0;
    return true;
}

static void print_row(const char *name, struct bench_spread s, double unit, const char *what)
{
    printf("%-22s %10.1f %10.1f %10.1f   %s\n", name, s.median / unit, s.min / unit, s.max / unit, what);
}

void engine_report_table(struct engine_bench *r)
{
    const struct engine_options *o = &r->opt;
    const struct model_info *i = model_info(r->model);
    struct bench_spread s[N_ENGINE_METRICS];
    char name[48], what[96];
    for (int m = 0; m < N_ENGINE_METRICS; m++) s[m] = bench_spread_of(r->samples[m], o->repeats);
    printf("%s\n%s, %.1f M parameters, %.1f MB packed, KV %s%s, %u threads, %s, loaded in %.2f s\n\n", o->path, i->arch,
           (double)i->n_params * 1e-6, (double)i->weight_bytes * 1e-6, o->kv, i->rotate ? " rotated" : "", o->threads,
           backend_describe(ranks_backend(r->ranks, 0)), r->load_s);
    printf("%-22s %10s %10s %10s   %s\n", "", "median", "min", "max", "of the ceiling in the same repeat");
    print_row("memory read", s[READ_BYTES_S], 1e9, "GB/s");
    snprintf(what, sizeof(what), "GOP/s, %s", r->int8_how);
    print_row("int8 peak", s[INT8_OPS_S], 1e9, what);
    if (o->prompt) {
        snprintf(name, sizeof(name), "prefill %u", o->prompt);
        snprintf(what, sizeof(what), "tok/s, %.1f %% of int8 peak, %.1f ms", 100.0 * s[PREFILL_SHARE].median,
                 1000.0 * o->prompt / s[PREFILL_TOK_S].median);
        print_row(name, s[PREFILL_TOK_S], 1.0, what);
    }
    if (o->decode) {
        snprintf(name, sizeof(name), "decode %u x %u @ %u", o->streams, o->decode, o->depth);
        snprintf(what, sizeof(what), "tok/s, %.1f %% of memory read", 100.0 * s[DECODE_SHARE].median);
        print_row(name, s[DECODE_TOK_S], 1.0, what);
    }
}

/* "key": median, "key_min", "key_max" and "key_samples" beside it. */
static void json_metric(struct strbuf *sb, const char *key, double *samples, uint32_t n)
{
    strbuf_addf(sb, ",\"%s_samples\":[", key);
    for (uint32_t i = 0; i < n; i++) {
        if (i) strbuf_putc(sb, ',');
        json_num(sb, samples[i]);
    }
    struct bench_spread s = bench_spread_of(samples, n);
    strbuf_addf(sb, "],\"%s\":", key);
    json_num(sb, s.median);
    strbuf_addf(sb, ",\"%s_min\":", key);
    json_num(sb, s.min);
    strbuf_addf(sb, ",\"%s_max\":", key);
    json_num(sb, s.max);
}

static void print_line(struct strbuf *sb)
{
    puts(strbuf_cstr(sb));
    fflush(stdout);
    strbuf_fini(sb);
}

void engine_report_json(struct engine_bench *r)
{
    const struct engine_options *o = &r->opt;
    struct strbuf sb = STRBUF_INIT;
    strbuf_puts(&sb, "{\"model\":");
    json_cstr(&sb, o->path);
    strbuf_addf(&sb,
                ",\"threads\":%u,\"isa\":\"%s\",\"kv\":\"%s\",\"prompt\":%u,\"decode\":%u,\"depth\":%u,"
                "\"streams\":%u,\"repeats\":%u,\"int8_how\":\"%s\",\"weight_bytes\":%llu,\"load_s\":",
                o->threads, backend_describe(ranks_backend(r->ranks, 0)), o->kv, o->prompt, o->decode, o->depth,
                o->streams, o->repeats, r->int8_how, (unsigned long long)model_info(r->model)->weight_bytes);
    json_num(&sb, r->load_s);
    for (int m = 0; m < N_ENGINE_METRICS; m++)
        if (is_measured(r, (enum engine_metric)m)) json_metric(&sb, NAMES[m], r->samples[m], o->repeats);
    strbuf_putc(&sb, '}');
    print_line(&sb);
}

void engine_report_sample(const struct engine_bench *r, uint32_t i)
{
    struct strbuf sb = STRBUF_INIT;
    strbuf_addf(&sb, "{\"isa\":\"%s\",\"int8_how\":\"%s\"", backend_describe(ranks_backend(r->ranks, 0)), r->int8_how);
    for (int m = 0; m < N_ENGINE_METRICS; m++) {
        if (!is_measured(r, (enum engine_metric)m)) continue;
        strbuf_addf(&sb, ",\"%s\":", NAMES[m]);
        json_num(&sb, r->samples[m][i]);
    }
    strbuf_putc(&sb, '}');
    print_line(&sb);
}
