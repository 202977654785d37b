/* bench.h - the commands of baton-bench, and what they share. */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H
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

/* Median and ends of n > 0 samples; sorts them. */
struct bench_spread {
    double median, min, max;
};
struct bench_spread bench_spread_of(double *samples, size_t n);
/* A whole number from min to max, or exit code 2 with a sentence on stderr. */
uint32_t bench_number(const char *option, const char *text, uint32_t min, uint32_t max);
#endif
