/* engine_bench.h - what one run of `baton-bench engine` asks for and measures. */
#ifndef BENCH_ENGINE_BENCH_H
#define BENCH_ENGINE_BENCH_H
#include "bench/bench.h"
#include "model/model.h"
#include "parallel/ranks.h"

struct engine_options {
    char *path, *backend, *numerics, *isa, *kv, *rotate, *weights, *io;
    uint32_t prompt, decode; /* 0: left out */
    uint32_t depth, streams, threads, tp, pp, repeats, chunk;
    bool json, step, cpu; /* cpu: processor time */
};

enum engine_metric {
    READ_BYTES_S,
    INT8_OPS_S,
    PREFILL_TOK_S,
    PREFILL_SHARE, /* of INT8_OPS_S */
    DECODE_TOK_S,  /* of all streams together */
    DECODE_SHARE,  /* of READ_BYTES_S */
    N_ENGINE_METRICS
};

struct engine_bench {
    struct engine_options opt;
    struct ranks *ranks;
    struct model *model;
    struct kv_store *kv;
    struct ceilings *ceilings; /* of the processor; NULL where a device computes */
    const char *int8_how;
    uint32_t *blocks; /* [streams][blocks_each] */
    uint32_t blocks_each;
    int32_t *tokens; /* [n_tokens] */
    uint32_t n_tokens;
    double load_s;
    double samples[N_ENGINE_METRICS][BENCH_MAX_REPEATS];
};

/* Bytes a second that the device's memory is read with; 0 where the model has left no room to measure. */
enum status engine_device_read(const struct engine_bench *r, double *bytes_s);
/* The medians of all repeats, for people and for programs; both sort the samples. */
void engine_report_table(struct engine_bench *r);
void engine_report_json(struct engine_bench *r);
/* Repeat i as one line of JSON, at once. */
void engine_report_sample(const struct engine_bench *r, uint32_t i);
#endif
