/* main.c - baton-bench: finds the command and runs it. */
#include "bench/bench.h"
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct bench_command COMMANDS[] = {
    { "engine", "prefill and decode speed of a model, with the machine's ceilings", bench_engine },
    { "exact", "error of the engine against float arithmetic on a text or drawn tokens", bench_exact },
    { "kv", "perplexity and divergence of INT8 KV from f16 KV on a text", bench_kv },
    { "kernels", "speed of products, attention, states and picks for each tensor type and instruction set",
      bench_kernels },
    { "synth", "writes a GGUF file of a real model's shape with random weights", bench_synth },
    { "handoff", "GB/s of a KV hand-off over loopback, beside a plain TCP copy", bench_handoff },
    { "load", "seconds to load a model from a cold disk, beside a raw read", bench_load },
    { "pool", "how much of the cache's memory running sequences use while others wait", bench_pool },
    { "stream", "speed with weights streamed from disk, beside disk and compute alone", bench_stream },
};
#define N_COMMANDS (sizeof(COMMANDS) / sizeof(COMMANDS[0]))

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

struct bench_spread bench_spread_of(double *samples, size_t n)
{
    qsort(samples, n, sizeof(*samples), ascending);
    double median = n % 2 ? samples[n / 2] : (samples[n / 2 - 1] + samples[n / 2]) / 2.0;
    return (struct bench_spread){ median, samples[0], samples[n - 1] };
}

int bench_end(const struct command *c, enum status st, const struct error *err)
{
    if (st == OK) return 0;
    fprintf(stderr, "%s: %s\n", c->name, err->text[0] ? err->text : status_text(st));
    return 1;
}

enum status bench_kv_create(struct kv_store **out, const struct model *m, uint32_t n_blocks, uint32_t n_seqs,
                            struct error *err)
{
    enum status st = model_kv_create(out, m, n_blocks, err);
    return st == OK && model_state_bytes(m) > 0 ? model_states_create(*out, m, n_seqs, err) : st;
}

static int usage(int code)
{
    FILE *out = code == 0 ? stdout : stderr;
    fputs("usage: baton-bench COMMAND [options]\n", out);
    for (size_t i = 0; i < N_COMMANDS; i++) fprintf(out, "  %-10s %s\n", COMMANDS[i].name, COMMANDS[i].summary);
    return code;
}

int main(int argc, char **argv)
{
    if (argc < 2) return usage(EXIT_USAGE);
    if (strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0) return usage(0);
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(argv[1], COMMANDS[i].name) == 0) return COMMANDS[i].run(argc - 1, argv + 1);
    fprintf(stderr, "baton-bench: there is no command \"%s\"\n", argv[1]);
    return usage(EXIT_USAGE);
}
