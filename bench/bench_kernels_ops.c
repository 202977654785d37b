/* bench_kernels_ops.c - a GPU's ops beside its products: routes, recurrent layers, latents and picks, at shapes of real
 * models. */
#include "base/json_write.h"
#include "base/mem.h"
#include "bench/bench.h"
#include "bench/device_time.h"
#include "bench/kernels.h"
#include "bench/synth.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define OPS_ROWS       8192u             /* of a prompt's step */
#define OPS_CONTEXT    65536u            /* positions of the longest sequence */
#define OPS_SEQS       64u               /* of a batch of decoding sequences */
#define OPS_WIDTH      12288u            /* floats of a row of inputs, at most */
#define RANDOM_FLOATS  ((size_t)8 << 20) /* that all inputs are copies of */
#define SAMPLE_SECONDS 0.02
#define MAX_BUFFERS    16u

/* Qwen3.6-35B-A3B: a recurrent layer, and its router. */
static const struct state_geometry QWEN_STATE = { 32, 128, 128 }, QWEN_TAIL = { 64, 3, 128 };
/* Mamba-2 with 8,192 columns. */
static const struct state_geometry MAMBA_STATE = { 128, 128, 64 };
#define QWEN_KEY_HEADS 16u
#define QWEN_EXPERTS   256u
#define QWEN_WIDTH     2048u
#define MAMBA_GROUPS   8u

/* One op with what it works on.  Buffers are the device's and are given back together. */
struct op_job {
    struct kernels *k;
    struct backend *b;
    enum status (*run)(struct op_job *j);
    const char *op, *shape;
    double bytes, ops; /* of a call */
    struct step step;
    struct batch batch;
    struct batch_seq *seqs;
    int32_t *tokens;
    uint32_t *blocks;
    float *in, *gates, *out, *more; /* device */
    struct state_slices state;
    struct kv_slices kv;
    struct act act;
    struct route route;
    struct route_facts facts;
    struct pick_row *asks;
    struct picked *picked;
    struct {
        void *p;
        size_t bytes;
    } buffers[MAX_BUFFERS];
    uint32_t n_buffers;
};

/* --- memory --- */
static enum status take(struct op_job *j, size_t bytes, void *out)
{
    void *p;
    const enum status st = j->b->ops->alloc(j->b, bytes, &p);
    if (st != OK) return st;
    j->buffers[j->n_buffers].p = p;
    j->buffers[j->n_buffers++].bytes = bytes;
    memcpy(out, &p, sizeof(p));
    return OK;
}

/* n floats of [-1, 1]: the same ones again and again. */
static enum status take_random(struct op_job *j, size_t n, float **out)
{
    uint64_t seed = 1;
    const size_t first = n < RANDOM_FLOATS ? n : RANDOM_FLOATS;
    enum status st = take(j, n * sizeof(float), out);
    if (st != OK) return st;
    float *host = mem_array(first, sizeof(float));
    synth_floats_fill(&seed, -1, 1, host, first);
    st = j->b->ops->upload(j->b, NULL, *out, host, first * sizeof(float));
    for (size_t at = first; at < n && st == OK; at += first)
        st = j->b->ops->copy(j->b, NULL, *out + at, *out, (n - at < first ? n - at : first) * sizeof(float));
    mem_free(host);
    return st;
}

static void job_fini(struct op_job *j)
{
    while (j->n_buffers > 0) {
        j->n_buffers--;
        j->b->ops->release(j->b, j->buffers[j->n_buffers].p, j->buffers[j->n_buffers].bytes);
    }
    mem_free(j->seqs);
    mem_free(j->tokens);
    mem_free(j->blocks);
    mem_free(j->asks);
    mem_free(j->picked);
}

/* n_seqs sequences of `rows` rows each that go on at `pos0`; their blocks are their own. */
static enum status begin(struct op_job *j, uint32_t n_seqs, uint32_t rows, uint32_t pos0)
{
    const uint32_t n_blocks = (pos0 + rows + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    j->seqs = mem_array(n_seqs, sizeof(*j->seqs));
    j->tokens = mem_zalloc((size_t)n_seqs * rows * sizeof(*j->tokens));
    j->blocks = mem_array((size_t)n_seqs * n_blocks, sizeof(*j->blocks));
    for (uint32_t i = 0; i < n_seqs * n_blocks; i++) j->blocks[i] = i;
    for (uint32_t i = 0; i < n_seqs; i++)
        j->seqs[i] = (struct batch_seq){ .row0 = i * rows,
                                         .n_rows = rows,
                                         .pos0 = pos0,
                                         .blocks = j->blocks + (size_t)i * n_blocks,
                                         .n_blocks = n_blocks,
                                         .state = i };
    j->batch = (struct batch){ .n_rows = n_seqs * rows, .tokens = j->tokens, .seqs = j->seqs, .n_seqs = n_seqs };
    return j->b->ops->step_begin(j->b, NULL, &j->batch, &j->step);
}

/* --- timing --- */
static enum status run_job(void *arg, uint32_t turn)
{
    struct op_job *j = arg;
    return j->run(j);
}

static void report(const struct op_job *j, uint32_t rows, double seconds)
{
    struct kernels *k = j->k;
    if (!k->opt.json) {
        printf("%-12s %-34s %6u %10.2f %9.1f %9.3f\n", j->op, j->shape, rows, seconds * 1e6, j->bytes / seconds * 1e-9,
               j->ops / seconds * 1e-12);
        fflush(stdout);
        return;
    }
    strbuf_addf(&k->json, "%s{\"op\":\"%s\",\"shape\":\"%s\",\"rows\":%u,\"seconds\":", k->n_json++ ? "," : "", j->op,
                j->shape, rows);
    json_num(&k->json, seconds);
    strbuf_puts(&k->json, ",\"bytes_s\":");
    json_num(&k->json, j->bytes / seconds);
    strbuf_puts(&k->json, ",\"ops_s\":");
    json_num(&k->json, j->ops / seconds);
    strbuf_putc(&k->json, '}');
}

/* Times what `st` has prepared, and gives its memory back. */
static enum status time_op(struct op_job *j, enum status st, uint32_t rows)
{
    double seconds = 0;
    if (st == OK) st = device_time(j->b, run_job, j, SAMPLE_SECONDS, &seconds);
    if (st == OK) report(j, rows, seconds);
    job_fini(j);
    return st;
}

/* --- recurrent layers --- */
static enum status run_delta(struct op_job *j)
{
    const struct state_geometry *g = &j->state.geom;
    const struct delta_inputs in = {
        j->in, OPS_WIDTH, j->gates, j->gates + g->n_heads, 2 * g->n_heads, 2 * g->n_heads
    };
    const struct delta_facts f = { QWEN_KEY_HEADS, g->n_heads, 1e-6f, j->gates, j->more, false };
    return j->b->ops->delta_rule(j->b, NULL, j->out, (size_t)g->n_heads * g->cols, &in, &f, &j->state, &j->step);
}

static enum status run_mamba2(struct op_job *j)
{
    const struct state_geometry *g = &j->state.geom;
    const struct mamba2_inputs in = { j->in, OPS_WIDTH, j->gates, g->n_heads };
    const struct mamba2_facts f = { g->n_heads, MAMBA_GROUPS, j->gates, j->more, j->gates };
    return j->b->ops->mamba2_scan(j->b, NULL, j->out, (size_t)g->n_heads * g->cols, &in, &f, &j->state, &j->step);
}

static enum status run_conv(struct op_job *j)
{
    const struct state_geometry *g = &j->state.geom;
    const struct conv_facts f = { g->rows + 1, j->gates, NULL, true };
    return j->b->ops->conv_step(j->b, NULL, j->out, (size_t)g->n_heads * g->cols, j->in, OPS_WIDTH, &f, &j->state,
                                &j->step);
}

static enum status run_norm_gate(struct op_job *j)
{
    const struct norm_gate_facts f = { j->more, QWEN_STATE.cols, 1e-6f, false, false };
    return j->b->ops->norm_gate(j->b, NULL, &j->act, j->in, OPS_WIDTH, j->in, OPS_WIDTH, &f);
}

/* What is moved is the state, read and written, and the rows' inputs and outputs. */
static enum status bench_state(struct kernels *k, struct backend *b, const char *op, const struct state_geometry *g,
                               enum status (*run)(struct op_job *), uint32_t n_seqs, uint32_t rows)
{
    struct op_job j = { .k = k, .b = b, .run = run, .op = op };
    char shape[64];
    const size_t n = (size_t)n_seqs * rows, width = (size_t)g->n_heads * g->cols;
    enum status st = begin(&j, n_seqs, rows, 64);
    j.state.geom = *g;
    j.state.stride = b->ops->state_slot_bytes(b, g);
    snprintf(shape, sizeof(shape), "%u heads %u x %u, %u sequences", g->n_heads, g->rows, g->cols, n_seqs);
    j.shape = shape;
    if (st == OK) st = take_random(&j, n * OPS_WIDTH, &j.in);
    if (st == OK) st = take_random(&j, 2 * n * g->n_heads + (g->rows + 1) * width, &j.gates);
    if (st == OK) st = take(&j, n * width * sizeof(float), &j.out);
    if (st == OK) st = take(&j, g->n_heads * sizeof(float), &j.more);
    if (st == OK) st = take(&j, n_seqs * j.state.stride, &j.state.base);
    j.bytes = 2.0 * (double)(n_seqs * j.state.stride) + 8.0 * (double)(n * width);
    j.ops = (run == run_delta ? 7.0 : run == run_mamba2 ? 5.0 : 2.0) * (double)n * (double)width * g->rows;
    return time_op(&j, st, (uint32_t)n);
}

static enum status bench_norm_gate(struct kernels *k, struct backend *b, uint32_t rows)
{
    struct op_job j = { .k = k, .b = b, .run = run_norm_gate, .op = "norm_gate", .shape = "32 groups of 128" };
    const uint32_t width = QWEN_STATE.n_heads * QWEN_STATE.cols;
    j.act = (struct act){ .n = rows, .k = width };
    enum status st = take_random(&j, (size_t)rows * OPS_WIDTH, &j.in);
    if (st == OK) st = take_random(&j, QWEN_STATE.cols, &j.more);
    if (st == OK) st = take(&j, (size_t)rows * width * sizeof(float), &j.act.f);
    if (st == OK) st = take(&j, b->ops->act_bytes(b, rows, width, COARSE), &j.act.q);
    j.bytes = 13.0 * rows * width; /* x, gate, out and its codes */
    return time_op(&j, st, rows);
}

static enum status bench_recurrent(struct kernels *k, struct backend *b)
{
    static const uint32_t SHAPES[][2] = { { 1, OPS_ROWS }, { 1, 512 }, { 1, 1 }, { 8, 1 }, { OPS_SEQS, 1 } };
    enum status st = OK;
    for (size_t i = 0; i < sizeof(SHAPES) / sizeof(SHAPES[0]) && st == OK; i++) {
        const uint32_t *s = SHAPES[i];
        st = bench_state(k, b, "delta_rule", &QWEN_STATE, run_delta, s[0], s[1]);
        if (st == OK) st = bench_state(k, b, "mamba2_scan", &MAMBA_STATE, run_mamba2, s[0], s[1]);
        if (st == OK) st = bench_state(k, b, "conv_step", &QWEN_TAIL, run_conv, s[0], s[1]);
        if (st == OK) st = bench_norm_gate(k, b, s[0] * s[1]);
    }
    return st;
}

/* --- routes --- */
static enum status run_route(struct op_job *j)
{
    return j->b->ops->route(j->b, NULL, &j->route, j->in, j->facts.n_experts, &j->facts);
}

static enum status run_expert_sum(struct op_job *j)
{
    return j->b->ops->expert_sum(j->b, NULL, j->out, QWEN_WIDTH, j->in, &j->route, QWEN_WIDTH);
}

static enum status bench_route(struct kernels *k, struct backend *b, uint32_t rows, const char *shape,
                               const struct route_facts *facts)
{
    struct op_job j = { .k = k, .b = b, .run = run_route, .op = "route", .shape = shape, .facts = *facts };
    const size_t slots = (size_t)rows * USED;
    j.route = (struct route){ .n = rows, .k = USED };
    enum status st = take_random(&j, (size_t)rows * facts->n_experts, &j.in);
    if (st == OK) st = take(&j, slots * sizeof(uint32_t), &j.route.expert);
    if (st == OK) st = take(&j, slots * sizeof(float), &j.route.weight);
    j.bytes = 4.0 * rows * facts->n_experts + 8.0 * (double)slots;
    return time_op(&j, st, rows);
}

static enum status bench_expert_sum(struct kernels *k, struct backend *b, uint32_t rows)
{
    struct op_job j = { .k = k, .b = b, .run = run_expert_sum, .op = "expert_sum", .shape = "8 of 2048" };
    const size_t slots = (size_t)rows * USED;
    j.route = (struct route){ .n = rows, .k = USED };
    enum status st = take_random(&j, slots * QWEN_WIDTH, &j.in);
    if (st == OK) st = take_random(&j, slots, &j.route.weight);
    if (st == OK) st = take(&j, (size_t)rows * QWEN_WIDTH * sizeof(float), &j.out);
    j.bytes = 4.0 * QWEN_WIDTH * (double)(slots + 2 * rows);
    return time_op(&j, st, rows);
}

static enum status bench_routes(struct kernels *k, struct backend *b)
{
    static const uint32_t ROWS_OF[] = { 1, OPS_SEQS, OPS_ROWS };
    static const struct route_facts SOFTMAX = { .gate = ROUTE_SOFTMAX,
                                                .n_experts = QWEN_EXPERTS,
                                                .norm = true,
                                                .scale = 1 },
                                    GROUPS = { .gate = ROUTE_SIGMOID,
                                               .n_experts = QWEN_EXPERTS,
                                               .n_groups = 8,
                                               .n_groups_used = 4,
                                               .norm = true,
                                               .scale = 2.5f };
    enum status st = OK;
    for (size_t i = 0; i < 3 && st == OK; i++) {
        st = bench_route(k, b, ROWS_OF[i], "8 of 256, softmax", &SOFTMAX);
        if (st == OK) st = bench_route(k, b, ROWS_OF[i], "8 of 256, sigmoid, 4 of 8 groups", &GROUPS);
        if (st == OK) st = bench_expert_sum(k, b, ROWS_OF[i]);
    }
    return st;
}

/* --- latents --- */
static enum status run_attend(struct op_job *j)
{
    const size_t rope_ld = (size_t)LATENT_HEADS * LATENT_ROPE;
    return j->b->ops->attention_latent(j->b, NULL, &j->act, j->in, LATENT, j->gates, rope_ld, LATENT_ROPE, LATENT_HEADS,
                                       &j->kv, 1.0f / sqrtf(LATENT + LATENT_ROPE), &j->step);
}

/* The cache holds the codes 0 to 126 and scales that are numbers, by the bytes of one number. */
static enum status fill_cache(struct op_job *j, size_t bytes)
{
    const size_t run = (size_t)1 << 20;
    uint8_t *host = mem_alloc(run);
    for (size_t i = 0; i < run; i++) host[i] = (uint8_t)(i % 4 == 3 ? 0x3c : i * 37 % 127); /* scales near 0.01 */
    enum status st = OK;
    for (size_t at = 0; at < bytes && st == OK; at += run)
        st = j->b->ops->upload(j->b, NULL, j->kv.base + at, host, bytes - at < run ? bytes - at : run);
    mem_free(host);
    return st;
}

static enum status bench_attend(struct kernels *k, struct backend *b, uint32_t n_seqs, uint32_t rows, uint32_t pos0)
{
    struct op_job j = { .k = k, .b = b, .run = run_attend, .op = "latent" };
    const struct kv_geometry g = { 1, LATENT, KV_INT8, false, KV_LATENT, LATENT_ROPE, 0 };
    const uint32_t n = n_seqs * rows, queries = n * LATENT_HEADS;
    const size_t blocks = (size_t)n_seqs * ((pos0 + rows + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS);
    char shape[64];
    enum status st = begin(&j, n_seqs, rows, pos0);
    j.kv = (struct kv_slices){ .stride = b->ops->kv_slice_bytes(b, &g), .geom = g };
    j.act = (struct act){ .n = queries, .k = LATENT };
    snprintf(shape, sizeof(shape), "16 heads, %u x %u at %u", n_seqs, rows, pos0);
    j.shape = shape;
    if (st == OK) st = take_random(&j, (size_t)queries * LATENT, &j.in);
    if (st == OK) st = take_random(&j, (size_t)queries * LATENT_ROPE, &j.gates);
    if (st == OK) st = take(&j, (size_t)queries * LATENT * sizeof(float), &j.act.f);
    if (st == OK) st = take(&j, b->ops->act_bytes(b, queries, LATENT, COARSE), &j.act.q);
    if (st == OK) st = take(&j, blocks * j.kv.stride, &j.kv.base);
    if (st == OK) st = fill_cache(&j, blocks * j.kv.stride);
    const double keys = pos0 + (rows + 1) / 2.0;
    j.bytes = (double)(blocks * j.kv.stride);
    j.ops = 2.0 * (2 * LATENT + LATENT_ROPE) * queries * keys;
    return time_op(&j, st, n);
}

static enum status bench_latents(struct kernels *k, struct backend *b)
{
    static const uint32_t SHAPES[][3] = { { 1, 1, 4000 },  { 1, 1, 65000 },  { 8, 1, 8000 },
                                          { 32, 1, 8000 }, { 1, 512, 7680 }, { 1, 8192, 0 } };
    enum status st = OK;
    for (size_t i = 0; i < sizeof(SHAPES) / sizeof(SHAPES[0]) && st == OK; i++)
        st = bench_attend(k, b, SHAPES[i][0], SHAPES[i][1], SHAPES[i][2]);
    return st;
}

/* --- picks --- */
static enum status run_picks(struct op_job *j)
{
    return j->b->ops->pick(j->b, NULL, j->in, VOCAB, j->batch.n_rows, j->asks, j->picked);
}

static enum status bench_picks(struct kernels *k, struct backend *b)
{
    static const uint32_t ROWS_OF[] = { 1, 8, OPS_SEQS };
    static const struct {
        const char *name;
        struct pick_row ask;
    } KINDS[] = {
        { "greedy", { .repetition = 1.0f, .want = 1, .ask = -1 } },
        { "64, mass", { .repetition = 1.0f, .want = 64, .temperature = 0.8f, .wants_mass = true, .ask = -1 } },
        { "256, mass, sum",
          { .repetition = 1.0f,
            .want = PICK_MAX,
            .temperature = 0.8f,
            .wants_mass = true,
            .wants_sum = true,
            .ask = -1 } },
    };
    enum status st = OK;
    for (size_t i = 0; i < 9 && st == OK; i++) {
        struct op_job j = { .k = k, .b = b, .run = run_picks, .op = "pick", .shape = KINDS[i / 3].name };
        const uint32_t n = ROWS_OF[i % 3];
        j.batch.n_rows = n;
        j.asks = mem_array(n, sizeof(*j.asks));
        j.picked = mem_array(n, sizeof(*j.picked));
        for (uint32_t r = 0; r < n; r++) j.asks[r] = KINDS[i / 3].ask;
        st = take_random(&j, (size_t)n * VOCAB, &j.in);
        j.bytes = 4.0 * VOCAB * n;
        st = time_op(&j, st, n);
    }
    return st;
}

static bool wants(const struct kernels *k, const char *op)
{
    return strcmp(k->opt.op, "all") == 0 || strcmp(k->opt.op, op) == 0;
}

enum status bench_device_ops(struct kernels *k, struct error *err)
{
    const struct backend_options opt = { .limits = { .max_rows = OPS_ROWS,
                                                     .max_context = OPS_CONTEXT,
                                                     .max_cols = 4096,
                                                     .max_heads = HEADS,
                                                     .max_head_dim = HEAD_DIM,
                                                     .max_latent = LATENT,
                                                     .max_experts = QWEN_EXPERTS,
                                                     .max_experts_used = USED } };
    struct backend *b;
    enum status st = backend_open(&b, k->opt.backend, &opt, err);
    if (st != OK) return st;
    if (!k->opt.json) printf("\n%-12s %-34s %6s %10s %9s %9s\n", "op", "shape", "rows", "us", "GB/s", "Tops/s");
    if (wants(k, "states")) st = bench_recurrent(k, b);
    if (st == OK && wants(k, "experts")) st = bench_routes(k, b);
    if (st == OK && wants(k, "latent")) st = bench_latents(k, b);
    if (st == OK && wants(k, "pick")) st = bench_picks(k, b);
    backend_close(b);
    return st;
}
