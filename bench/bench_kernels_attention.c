/* bench_kernels_attention.c - attention on a GPU, of one layer of an 8B llama: decode behind contexts of many lengths
 * beside a stream that only reads, and prompts. */
#include "base/json_write.h"
#include "base/mem.h"
#include "bench/bench.h"
#include "bench/device_time.h"
#include "bench/kernels.h"
#include "bench/synth.h"
#include "compute/cuda/cuda_backend.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_CONTEXT    65536u
#define MAX_ROWS       32768u
#define MAX_SEQS       64u
#define CACHE          ((size_t)256 << 20) /* KV is used in turns from at least this much memory */
#define RANDOM_ROWS    64u                 /* of which all inputs are copies */
#define SAMPLE_SECONDS 0.02

/* A build without the GPU's sources has no such function. */
#pragma weak cuda_read_all

/* One layer's cache, several times over, and a step's rows. */
struct attention {
    struct kernels *k;
    struct backend *b;
    float *qkv, *out; /* device: [MAX_ROWS][LD], [MAX_ROWS][WIDTH] */
    void *act, *sink; /* device */
    struct kv_slices kv;
    size_t copy_bytes, bytes;
    uint32_t n_copies, n_seqs, rows, context; /* context: with the step's rows */
    struct batch_seq seqs[MAX_SEQS];
    struct batch batch;
    struct step step;
    double read_bytes_s;
};

/* --- what is timed --- */
static enum status attend(void *arg, uint32_t turn)
{
    const struct attention *a = arg;
    const struct attn_facts facts = { .scale = 1.0f / sqrtf(HEAD_DIM), .causal = true };
    struct kv_slices kv = a->kv;
    struct act out = { a->out, a->act, a->n_seqs * a->rows, WIDTH, COARSE };
    kv.base += turn % a->n_copies * a->copy_bytes;
    return a->b->ops->attention(a->b, NULL, &out, a->qkv, LD, HEADS, &kv, &facts, &a->step);
}

static enum status read_cache(void *arg, uint32_t turn)
{
    const struct attention *a = arg;
    return cuda_read_all(a->b, a->kv.base, a->bytes, a->sink);
}

static void report(const struct attention *a, double seconds)
{
    struct kernels *k = a->k;
    const char *type = a->kv.geom.format == KV_INT8 ? "int8" : "f16";
    const double values = (double)kv_wire_bytes(a->kv.geom.format, HEAD_DIM, a->context) * KV_HEADS;
    const double bytes_s = values * a->n_seqs / seconds;
    const double mean = a->context - (a->rows - 1) / 2.0;
    const double ops_s = 4.0 * WIDTH * a->rows * a->n_seqs * mean / seconds;
    if (!k->opt.json) {
        printf("attention %-5s %6u x %-5u behind %-6u %10.2f %9.1f %6.1f %% %9.2f\n", type, a->n_seqs, a->rows,
               a->context - a->rows, seconds * 1e6, bytes_s * 1e-9, 100 * bytes_s / a->read_bytes_s, ops_s * 1e-12);
        fflush(stdout);
        return;
    }
    strbuf_addf(&k->json,
                "%s{\"op\":\"attention\",\"type\":\"%s\",\"sequences\":%u,\"rows\":%u,\"context\":%u,\"ops_s\":",
                k->n_json++ ? "," : "", type, a->n_seqs, a->rows, a->context);
    json_num(&k->json, ops_s);
    strbuf_puts(&k->json, ",\"bytes_s\":");
    json_num(&k->json, bytes_s);
    strbuf_puts(&k->json, ",\"bytes_share\":");
    json_num(&k->json, bytes_s / a->read_bytes_s);
    strbuf_putc(&k->json, '}');
}

/* --- what is attended to --- */
/* n_seqs sequences with their own blocks, at the end of the context. */
static enum status begin(struct attention *a)
{
    const uint32_t n_blocks = (a->context + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS, n_rows = a->n_seqs * a->rows;
    uint32_t *blocks = mem_array((size_t)a->n_seqs * n_blocks, sizeof(*blocks));
    int32_t *tokens = mem_zalloc(n_rows * sizeof(*tokens));
    for (uint32_t i = 0; i < a->n_seqs * n_blocks; i++) blocks[i] = i;
    for (uint32_t i = 0; i < a->n_seqs; i++)
        a->seqs[i] = (struct batch_seq){ .row0 = i * a->rows,
                                         .n_rows = a->rows,
                                         .pos0 = a->context - a->rows,
                                         .blocks = blocks + (size_t)i * n_blocks,
                                         .n_blocks = n_blocks };
    a->batch = (struct batch){ .n_rows = n_rows, .tokens = tokens, .seqs = a->seqs, .n_seqs = a->n_seqs };
    const enum status st = a->b->ops->step_begin(a->b, NULL, &a->batch, &a->step);
    mem_free(blocks); /* the step has its own */
    mem_free(tokens);
    return st;
}

/* Block 0 is written as a step would; all others are copies of it. */
static enum status fill_cache(struct attention *a)
{
    const struct backend_ops *ops = a->b->ops;
    uint32_t block = 0;
    int32_t tokens[KV_BLOCK_TOKENS] = { 0 };
    struct batch_seq seq = { .n_rows = KV_BLOCK_TOKENS, .blocks = &block, .n_blocks = 1 };
    const struct batch batch = { KV_BLOCK_TOKENS, tokens, &seq, 1 };
    const float *k = a->qkv + WIDTH, *v = k + KV_HEADS * HEAD_DIM;
    struct step step;
    enum status st = ops->step_begin(a->b, NULL, &batch, &step);
    if (st == OK) st = ops->kv_write(a->b, NULL, k, v, LD, &a->kv, &step);
    for (size_t have = a->kv.stride; have < a->bytes && st == OK; have *= 2)
        st = ops->copy(a->b, NULL, a->kv.base + have, a->kv.base, a->bytes - have < have ? a->bytes - have : have);
    return st == OK ? ops->sync(a->b, NULL) : st;
}

static enum status bench_case(struct attention *a, enum kv_format format, uint32_t n_seqs, uint32_t rows,
                              uint32_t context)
{
    const uint32_t n_blocks = (context + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    void *p;
    double seconds = 0;
    a->kv = (struct kv_slices){ .geom = { KV_HEADS, HEAD_DIM, format, false } };
    a->kv.stride = a->b->ops->kv_slice_bytes(a->b, &a->kv.geom);
    a->n_seqs = n_seqs;
    a->rows = rows;
    a->context = context;
    a->copy_bytes = (size_t)n_seqs * n_blocks * a->kv.stride;
    a->n_copies = (uint32_t)(CACHE / a->copy_bytes) + 1;
    a->bytes = a->copy_bytes * a->n_copies;
    enum status st = a->b->ops->alloc(a->b, a->bytes, &p);
    if (st != OK) return st;
    a->kv.base = p;
    st = fill_cache(a);
    if (st == OK) st = begin(a);
    if (st == OK) st = device_time(a->b, read_cache, a, SAMPLE_SECONDS, &seconds);
    a->read_bytes_s = (double)a->bytes / seconds;
    if (st == OK) st = device_time(a->b, attend, a, SAMPLE_SECONDS, &seconds);
    if (st == OK) report(a, seconds);
    a->b->ops->release(a->b, p, a->bytes);
    return st;
}

/* --- the command --- */
static enum status prepare(struct attention *a)
{
    const struct backend_ops *ops = a->b->ops;
    const size_t row = LD * sizeof(float), some = RANDOM_ROWS * row;
    void *p;
    uint64_t seed = 1;
    enum status st = ops->alloc(a->b, MAX_ROWS * row, &p);
    if (st != OK) return st;
    a->qkv = p;
    float *host = mem_alloc(some);
    synth_floats_fill(&seed, -1, 1, host, (size_t)RANDOM_ROWS * LD);
    st = ops->upload(a->b, NULL, p, host, some);
    mem_free(host);
    for (size_t have = some; have < MAX_ROWS * row && st == OK; have *= 2)
        st = ops->copy(a->b, NULL, (uint8_t *)p + have, p, have);
    if (st == OK && (st = ops->alloc(a->b, (size_t)MAX_ROWS * WIDTH * sizeof(float), &p)) == OK) a->out = p;
    if (st == OK) st = ops->alloc(a->b, ops->act_bytes(a->b, MAX_ROWS, WIDTH, COARSE), &a->act);
    return st == OK ? ops->alloc(a->b, sizeof(uint32_t), &a->sink) : st;
}

static enum status bench_all(struct attention *a)
{
    static const uint32_t CONTEXTS[] = { 1024, 16384, 65536 }, SEQS[] = { 1, 16, 64 };
    static const uint32_t PROMPTS[][2] = { { 512, 4096 }, { 4096, 4096 }, { 4096, 32768 }, { 32768, 32768 } };
    enum status st = OK;
    for (enum kv_format f = KV_INT8; f <= KV_F16; f++) {
        for (size_t i = 0; i < 9 && st == OK; i++) st = bench_case(a, f, SEQS[i % 3], 1, CONTEXTS[i / 3]);
        for (size_t i = 0; i < (f == KV_INT8 ? 4 : 1) && st == OK; i++)
            st = bench_case(a, f, 1, PROMPTS[i][0], PROMPTS[i][1]);
    }
    return st;
}

enum status bench_device_attention(struct kernels *k, struct error *err)
{
    struct attention a = { .k = k };
    const struct backend_options opt = { .limits = { .max_rows = MAX_ROWS,
                                                     .max_context = MAX_CONTEXT,
                                                     .max_cols = WIDTH,
                                                     .max_heads = HEADS,
                                                     .max_head_dim = HEAD_DIM } };
    enum status st = backend_open(&a.b, k->opt.backend, &opt, err);
    if (st != OK) return st;
    if (!k->opt.json)
        printf("\n%u heads over %u x %u; GB/s of K and V beside a stream that only reads\n%-44s %10s %9s %8s %9s\n",
               HEADS, KV_HEADS, HEAD_DIM, "sequences x rows", "us", "GB/s", "of read", "Tflops");
    if ((st = prepare(&a)) == OK) st = bench_all(&a);
    backend_close(a.b); /* the process ends: its memory goes with it */
    return st;
}
