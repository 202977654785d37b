/* bench.h - the commands of baton-bench, and what they share. */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H
#include "config/command.h"

#include <stddef.h>
#include <stdint.h>

struct bench_command {
    const char *name, *summary;
    int (*run)(int argc, char **argv); /* argv[0] is the command's name; returns the exit code */
};

int bench_engine(int argc, char **argv);
int bench_exact(int argc, char **argv);
int bench_kv(int argc, char **argv);
int bench_kernels(int argc, char **argv);
int bench_synth(int argc, char **argv);
int bench_handoff(int argc, char **argv);
int bench_load(int argc, char **argv);
int bench_stream(int argc, char **argv);
int bench_pool(int argc, char **argv);

/* Median and ends of n > 0 samples; sorts them. */
struct bench_spread {
    double median, min, max;
};
struct bench_spread bench_spread_of(double *samples, size_t n);

/* Rows of several commands' tables. */
#define BENCH_MODEL(at)   COMMAND_TEXT("model", "m", at, "FILE", NULL, "GGUF file")
#define BENCH_THREADS(at) COMMAND_NUMBER("threads", "t", at, 1, 1024, "2", "threads")
#define BENCH_REPEATS(at, n)                                                                                           \
    COMMAND_NUMBER("repeats", "r", at, 1, BENCH_MAX_REPEATS, n, "repeats; medians and ends are printed")
#define BENCH_IO(at, choices) COMMAND_CHOICE("io", NULL, at, choices, "auto", "how weights are read")
#define BENCH_JSON(at)        COMMAND_SWITCH("json", NULL, at, "one JSON object in place of the table")
#define BENCH_MAX_REPEATS     100

struct kv_store;
struct model;
/* model_kv_create(), with recurrent states of n_seqs sequences where the model has any. */
enum status bench_kv_create(struct kv_store **out, const struct model *m, uint32_t n_blocks, uint32_t n_seqs,
                            struct error *err) MUST_CHECK;

/* The exit code of a command that ended with `st`; says what failed. */
int bench_end(const struct command *c, enum status st, const struct error *err);
#endif
