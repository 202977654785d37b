/* bench_kernels.c - speed of products, attention, experts and picks for each tensor type and instruction set, beside
 * the ceilings. */
#include "base/clock.h"
#include "base/cpu.h"
#include "base/json_write.h"
#include "base/mem.h"
#include "bench/bench.h"
#include "bench/kernels.h"
#include "bench/synth.h"
#include "compute/cpu/cpu_kernels.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define AT(field) offsetof(struct options, field)

static const struct config_option OPTIONS[] = {
    COMMAND_CHOICE("backend", NULL, AT(backend), "cpu|cuda", "cpu",
                   "what computes; cuda: products, experts' routes, latents, states and picks"),
    COMMAND_CHOICE("numerics", NULL, AT(numerics), "exact|fast", "fast", "of cuda: the CPU's bits, or not"),
    COMMAND_CHOICE("op", NULL, AT(op), "all|pack|matmul|attention|experts|latent|states|pick", "all",
                   "what is measured"),
    COMMAND_TEXT("type", NULL, AT(type), "TYPE", "", "one type of weights in place of all"),
    COMMAND_TEXT("shape", NULL, AT(shape), "ROWSxCOLS", "", "cuda: one shape of matrices in place of all"),
    COMMAND_NUMBER("rows", NULL, AT(rows), 0, 1024, "0", "cuda: one number of rows of activations; 0: several"),
    COMMAND_TEXT("isa", NULL, AT(isa), "LEVEL", "", "one instruction set in place of all that this machine has"),
    BENCH_THREADS(AT(threads)),
    BENCH_JSON(AT(json)),
};
static const struct command COMMAND = { "baton-bench kernels", NULL, NULL, OPTIONS,
                                        sizeof(OPTIONS) / sizeof(OPTIONS[0]) };

static double run_for(struct job *j, uint32_t reps, uint32_t *turn, enum status *st)
{
    uint64_t t0 = clock_now_us();
    for (uint32_t i = 0; i < reps && *st == OK; i++) *st = j->run(j, (*turn)++ % j->n_copies);
    return (double)(clock_now_us() - t0) * 1e-6 / reps;
}

/* Median seconds of a call; one call is enough where it takes long. */
static enum status time_job(struct job *j, double *seconds)
{
    enum status st = OK;
    uint32_t turn = 0;
    double samples[SAMPLES], first = run_for(j, 1, &turn, &st);
    *seconds = first;
    if (st != OK || first > 0.5) return st;
    uint32_t reps = first > 0.02 ? 1 : (uint32_t)ceil(0.02 / fmax(first, 1e-6));
    for (int i = 0; i < SAMPLES && st == OK; i++) samples[i] = run_for(j, reps, &turn, &st);
    *seconds = bench_spread_of(samples, SAMPLES).median;
    return st;
}

enum status kernels_time_rows(struct job *j, uint32_t n, double *seconds)
{
    enum status st = OK;
    uint32_t turn = 0;
    j->n = n > FEW ? FEW : n;
    double few = run_for(j, 1, &turn, &st);
    if (st != OK) return st;
    if (n > FEW && few * n / FEW < 1.0) j->n = n;
    return time_job(j, seconds);
}

void kernels_report(struct kernels *k, const char *op, const char *type, uint32_t n, double ops_s, double bytes_s)
{
    const char *isa = backend_describe(k->backend);
    double ops_share = k->int8_ops_s > 0.0 ? ops_s / k->int8_ops_s : 0.0, bytes_share = bytes_s / k->read_bytes_s;
    if (!k->opt.json) {
        printf("%-10s %-8s %-7s %5u %9.1f %6.1f %% %9.2f %6.1f %%\n", op, type, isa, n, ops_s * 1e-9, 100.0 * ops_share,
               bytes_s * 1e-9, 100.0 * bytes_share);
        fflush(stdout);
        return;
    }
    strbuf_addf(&k->json,
                "%s{\"op\":\"%s\",\"type\":\"%s\",\"isa\":\"%s\",\"rows\":%u,\"ops_s\":", k->n_json++ ? "," : "", op,
                type, isa, n);
    json_num(&k->json, ops_s);
    strbuf_puts(&k->json, ",\"ops_share\":");
    json_num(&k->json, ops_share);
    strbuf_puts(&k->json, ",\"bytes_s\":");
    json_num(&k->json, bytes_s);
    strbuf_puts(&k->json, ",\"bytes_share\":");
    json_num(&k->json, bytes_share);
    strbuf_putc(&k->json, '}');
}

void kernels_measure_ceilings(struct kernels *k)
{
    k->read_bytes_s = ceilings_read_bandwidth(k->ceilings);
    k->int8_ops_s = ceilings_int8_peak(k->ceilings, &k->int8_how);
}

enum status kernels_make_copies(struct job *j, size_t bytes)
{
    void *p;
    j->copy_bytes = (bytes + 63) & ~(size_t)63;
    j->n_copies = (uint32_t)(CACHE_BYTES / j->copy_bytes) + 1;
    enum status st = mem_try_map(&p, j->copy_bytes * j->n_copies);
    if (st == OK) j->copies = p;
    return st;
}

void kernels_copy_out(struct job *j)
{
    for (uint32_t i = 1; i < j->n_copies; i++) memcpy(j->copies + i * j->copy_bytes, j->copies, j->copy_bytes);
}

static enum status run_matmul(struct job *j, uint32_t turn)
{
    struct kernels *k = j->k;
    struct weight w = { .dtype = j->type,
                        .n_rows = ROWS,
                        .n_cols = COLS,
                        .data = j->copies + turn * j->copy_bytes,
                        .bytes = j->copy_bytes,
                        .n_rows_full = ROWS,
                        .n_cols_full = COLS };
    struct act x = { k->x, j->act.q, j->n, COLS, COARSE };
    enum status st = k->backend->ops->quantize(k->backend, NULL, &x);
    return st == OK ? k->backend->ops->matmul(k->backend, NULL, k->y, ROWS, &w, &x, false) : st;
}

static enum status pack_random(struct job *j, const struct synth_type *type)
{
    const struct backend_ops *ops = j->k->backend->ops;
    size_t row_bytes = dtype_row_bytes(j->type, COLS);
    uint8_t *gguf = mem_array(ROWS, row_bytes);
    uint64_t seed = 1;
    synth_type_fill(type, &seed, 1.0f / sqrtf(COLS), gguf, ROWS * row_bytes);
    enum status st = ops->weight_pack(j->k->backend, NULL, j->copies, j->type, ROWS, COLS, gguf, row_bytes);
    mem_free(gguf);
    return st;
}

static enum status bench_matmul(struct kernels *k, const struct synth_type *type)
{
    static const uint32_t N[] = { 1, FEW, MANY };
    const struct backend_ops *ops = k->backend->ops;
    struct job j = { .k = k, .run = run_matmul, .type = (enum dtype)synth_type_number(type) };
    size_t bytes;
    enum status st = ops->weight_bytes(k->backend, j.type, ROWS, COLS, &bytes);
    if (st == ERR_UNSUPPORTED) return OK; /* a type that has no matmul */
    if (st == OK) st = kernels_make_copies(&j, bytes);
    if (st == OK) st = pack_random(&j, type);
    if (st != OK) goto out;
    kernels_copy_out(&j);
    kernels_measure_ceilings(k);
    j.act.q = mem_zalloc(ops->act_bytes(k->backend, MANY, COLS, COARSE));
    for (size_t i = 0; i < sizeof(N) / sizeof(N[0]) && st == OK; i++) {
        double s = 0.0;
        if ((st = kernels_time_rows(&j, N[i], &s)) != OK) break;
        if (j.n == N[i])
            kernels_report(k, "matmul", dtype_info(j.type)->name, j.n, 2.0 * ROWS * COLS * j.n / s, (double)bytes / s);
    }
out:
    mem_free(j.act.q);
    mem_unmap(j.copies, j.copy_bytes * j.n_copies);
    return st;
}

static enum status run_pack(struct job *j, uint32_t turn)
{
    const struct backend_ops *ops = j->k->backend->ops;
    return ops->weight_pack(j->k->backend, NULL, j->copies + turn * j->copy_bytes, j->type, ROWS, COLS, j->gguf,
                            dtype_row_bytes(j->type, COLS));
}

/* From GGUF's blocks to panels; GB/s are bytes of the file. */
static enum status bench_pack(struct kernels *k, const struct synth_type *type)
{
    struct job j = { .k = k, .run = run_pack, .type = (enum dtype)synth_type_number(type) };
    const size_t file_bytes = ROWS * dtype_row_bytes(j.type, COLS);
    size_t bytes;
    uint64_t seed = 1;
    double s = 0.0;
    enum status st = k->backend->ops->weight_bytes(k->backend, j.type, ROWS, COLS, &bytes);
    if (st == ERR_UNSUPPORTED) return OK;
    if (st == OK) st = kernels_make_copies(&j, bytes);
    if (st != OK) return st;
    j.gguf = mem_alloc(file_bytes);
    synth_type_fill(type, &seed, 1.0f / sqrtf(COLS), j.gguf, file_bytes);
    for (uint32_t i = 0; i < j.n_copies && st == OK; i++) st = run_pack(&j, i); /* the memory is touched */
    kernels_measure_ceilings(k);
    if (st == OK) st = time_job(&j, &s);
    if (st == OK) kernels_report(k, "pack", dtype_info(j.type)->name, ROWS, 0.0, (double)file_bytes / s);
    mem_free(j.gguf);
    mem_unmap(j.copies, j.copy_bytes * j.n_copies);
    return st;
}

/* The last rows of a context of CONTEXT tokens. */
static struct batch_seq last_rows(const struct job *j, uint32_t n)
{
    return (struct batch_seq){ 0, n, CONTEXT - n, j->blocks, CONTEXT / KV_BLOCK_TOKENS };
}

static struct kv_slices slices_of(const struct job *j, uint32_t turn)
{
    return (struct kv_slices){ j->copies + turn * j->copy_bytes, j->copy_bytes / (CONTEXT / KV_BLOCK_TOKENS), j->geom };
}

static enum status run_attention(struct job *j, uint32_t turn)
{
    struct kernels *k = j->k;
    struct batch_seq seq = last_rows(j, j->n);
    struct batch b = { j->n, NULL, &seq, 1 };
    struct step step;
    const struct attn_facts facts = { .scale = 1.0f / sqrtf(HEAD_DIM), .causal = true };
    enum status st = k->backend->ops->step_begin(k->backend, NULL, &b, &step);
    if (st != OK) return st;
    struct kv_slices kv = slices_of(j, turn);
    struct act out = { k->y, j->act.q, j->n, WIDTH, COARSE };
    return k->backend->ops->attention(k->backend, NULL, &out, k->x, LD, HEADS, &kv, &facts, &step);
}

static enum status write_context(struct job *j)
{
    struct kernels *k = j->k;
    struct rope_params rope = { .base = 500000.0f, .scale = 1.0f, .dims = HEAD_DIM, .attn_factor = 1.0f };
    struct kv_slices kv = slices_of(j, 0);
    enum status st = OK;
    float *qkv = mem_array((size_t)MANY * LD, sizeof(float));
    for (uint32_t at = 0; at < CONTEXT && st == OK; at += MANY) {
        struct batch_seq seq = { 0, MANY, at, j->blocks, CONTEXT / KV_BLOCK_TOKENS };
        struct batch b = { MANY, NULL, &seq, 1 };
        struct step step;
        if ((st = k->backend->ops->step_begin(k->backend, NULL, &b, &step)) != OK) break;
        memcpy(qkv, k->x, (size_t)MANY * LD * sizeof(float)); /* RoPE changes it in place */
        st = k->backend->ops->rope_kv_write(k->backend, NULL, qkv, LD, HEADS, WIDTH, WIDTH + KV_HEADS * HEAD_DIM, &kv,
                                            &rope, &step);
    }
    mem_free(qkv);
    return st;
}

static enum status bench_attention(struct kernels *k)
{
    static const uint32_t N[] = { 1, MANY };
    const struct backend_ops *ops = k->backend->ops;
    struct job j = { .k = k, .run = run_attention, .geom = { KV_HEADS, HEAD_DIM, KV_INT8, true } };
    size_t bytes = ops->kv_slice_bytes(k->backend, &j.geom) * (CONTEXT / KV_BLOCK_TOKENS);
    enum status st = kernels_make_copies(&j, bytes);
    if (st != OK) return st;
    j.blocks = mem_array(CONTEXT / KV_BLOCK_TOKENS, sizeof(*j.blocks));
    for (uint32_t i = 0; i < CONTEXT / KV_BLOCK_TOKENS; i++) j.blocks[i] = i;
    j.act.q = mem_zalloc(ops->act_bytes(k->backend, MANY, WIDTH, COARSE));
    st = write_context(&j);
    kernels_copy_out(&j);
    kernels_measure_ceilings(k);
    for (size_t i = 0; i < sizeof(N) / sizeof(N[0]) && st == OK; i++) {
        double s = 0.0;
        if ((st = kernels_time_rows(&j, N[i], &s)) != OK) break;
        double mean = CONTEXT - (j.n - 1) / 2.0;
        kernels_report(k, "attention", "INT8 KV", j.n, 4.0 * WIDTH * j.n * mean / s, (double)bytes / s);
    }
    mem_free(j.blocks);
    mem_free(j.act.q);
    mem_unmap(j.copies, j.copy_bytes * j.n_copies);
    return st;
}

/* --- experts --- */

/* The block between two norms: both products, the gate, the way back and the sum. */
static enum status run_experts(struct job *j, uint32_t turn)
{
    struct kernels *k = j->k;
    const struct backend_ops *ops = k->backend->ops;
    const size_t ld = 2 * EXPERT_FF;
    struct act x = { k->x, j->act.q, j->n, EXPERT_D, COARSE };
    struct act h = { j->hidden.f, j->hidden.q, j->n * USED, EXPERT_FF, COARSE };
    struct route route = j->route;
    enum status st = ops->quantize(k->backend, NULL, &x);
    route.n = j->n;
    route.expert += (size_t)turn * j->n * USED;
    if (st == OK) st = ops->expert_matmul(k->backend, NULL, j->wide, ld, &j->gate, &x, &route, false);
    if (st == OK) st = ops->expert_matmul(k->backend, NULL, j->wide + EXPERT_FF, ld, &j->up, &x, &route, false);
    if (st == OK) st = ops->glu(k->backend, NULL, &h, j->wide, j->wide + EXPERT_FF, ld, GLU_SILU);
    if (st == OK) st = ops->expert_matmul(k->backend, NULL, j->out, EXPERT_D, &j->down, &h, &route, true);
    return st == OK ? ops->expert_sum(k->backend, NULL, k->y, EXPERT_D, j->out, &route, EXPERT_D) : st;
}

/* All experts of a stack are copies of one. */
static enum status pack_stack(struct job *j, const struct synth_type *type, uint32_t n_rows, uint32_t n_cols,
                              struct weight *out)
{
    struct backend *b = j->k->backend;
    const size_t row_bytes = dtype_row_bytes(j->type, n_cols);
    size_t bytes;
    void *p;
    enum status st = b->ops->weight_bytes(b, j->type, n_rows, n_cols, &bytes);
    if (st != OK || (st = mem_try_map(&p, expert_stride(bytes) * EXPERTS)) != OK) return st;
    *out = (struct weight){ .dtype = j->type,
                            .n_rows = n_rows,
                            .n_cols = n_cols,
                            .n_experts = EXPERTS,
                            .expert_bytes = expert_stride(bytes),
                            .data = p,
                            .bytes = expert_stride(bytes) * EXPERTS };
    uint8_t *gguf = mem_array(n_rows, row_bytes);
    uint64_t seed = 1;
    synth_type_fill(type, &seed, 1.0f / sqrtf((float)n_cols), gguf, n_rows * row_bytes);
    st = b->ops->weight_pack(b, NULL, p, j->type, n_rows, n_cols, gguf, row_bytes);
    mem_free(gguf);
    for (uint32_t e = 1; e < EXPERTS; e++) memcpy((uint8_t *)p + e * out->expert_bytes, p, out->expert_bytes);
    return st;
}

/* Random routes for each turn; what a row's are does not depend on the batch. */
static void draw_routes(struct job *j)
{
    uint64_t state = 1;
    for (size_t i = 0; i < (size_t)j->n_copies * MANY; i++)
        for (uint32_t e = 0, n = 0; n < USED; e++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            if ((state >> 33) % (EXPERTS - e) < USED - n) j->route.expert[i * USED + n++] = e;
        }
    for (size_t i = 0; i < (size_t)MANY * USED; i++) j->route.weight[i] = 1.0f / USED;
}

/* Experts that the slots of a turn use, in the mean over turns. */
static double used_experts(const struct job *j)
{
    double sum = 0;
    for (uint32_t turn = 0; turn < j->n_copies; turn++) {
        bool used[EXPERTS] = { false };
        for (size_t i = 0; i < (size_t)j->n * USED; i++) used[j->route.expert[(size_t)turn * j->n * USED + i]] = true;
        for (uint32_t e = 0; e < EXPERTS; e++) sum += used[e];
    }
    return sum / j->n_copies;
}

static enum status bench_experts(struct kernels *k, const struct synth_type *type)
{
    static const uint32_t N[] = { 1, FEW, MANY };
    const struct backend_ops *ops = k->backend->ops;
    struct job j = { .k = k, .run = run_experts, .type = (enum dtype)synth_type_number(type), .n_copies = 16 };
    size_t bytes;
    enum status st = ops->weight_bytes(k->backend, j.type, EXPERT_D, EXPERT_FF, &bytes);
    if (st == ERR_UNSUPPORTED || dtype_row_bytes(j.type, EXPERT_FF) == 0) return OK;
    if (!k->opt.type && j.type != DTYPE_Q4_K && j.type != DTYPE_MXFP4) return OK; /* 300 MB of weights each */
    j.route = (struct route){ mem_array((size_t)j.n_copies * MANY * USED, sizeof(uint32_t)),
                              mem_array((size_t)MANY * USED, sizeof(float)), 0, USED };
    j.hidden = (struct act){ mem_array((size_t)MANY * USED * EXPERT_FF, sizeof(float)),
                             mem_zalloc(ops->act_bytes(k->backend, MANY * USED, EXPERT_FF, COARSE)) };
    j.wide = mem_array((size_t)MANY * USED * 2 * EXPERT_FF, sizeof(float));
    j.out = mem_array((size_t)MANY * USED * EXPERT_D, sizeof(float));
    j.act.q = mem_zalloc(ops->act_bytes(k->backend, MANY, EXPERT_D, COARSE));
    draw_routes(&j);
    if (st == OK) st = pack_stack(&j, type, EXPERT_FF, EXPERT_D, &j.gate);
    if (st == OK) st = pack_stack(&j, type, EXPERT_FF, EXPERT_D, &j.up);
    if (st == OK) st = pack_stack(&j, type, EXPERT_D, EXPERT_FF, &j.down);
    kernels_measure_ceilings(k);
    for (size_t i = 0; i < sizeof(N) / sizeof(N[0]) && st == OK; i++) {
        double s = 0.0;
        if ((st = kernels_time_rows(&j, N[i], &s)) != OK || j.n != N[i]) break;
        const double used = used_experts(&j) / EXPERTS * (double)(j.gate.bytes + j.up.bytes + j.down.bytes);
        kernels_report(k, "experts", dtype_info(j.type)->name, j.n, 6.0 * EXPERT_D * EXPERT_FF * USED * j.n / s,
                       used / s);
    }
    mem_unmap((void *)(uintptr_t)j.gate.data, j.gate.bytes);
    mem_unmap((void *)(uintptr_t)j.up.data, j.up.bytes);
    mem_unmap((void *)(uintptr_t)j.down.data, j.down.bytes);
    mem_free(j.route.expert);
    mem_free(j.route.weight);
    mem_free(j.hidden.f);
    mem_free(j.hidden.q);
    mem_free(j.wide);
    mem_free(j.out);
    mem_free(j.act.q);
    return st;
}

static enum status run_pick(struct job *j, uint32_t turn)
{
    struct backend *b = j->k->backend;
    float *logits = (float *)(void *)(j->copies + turn * j->copy_bytes);
    return b->ops->pick(b, NULL, logits, VOCAB, j->n, j->asks, j->picked);
}

/* Greedy rows, and rows of which candidates and the mass are wanted. */
static enum status bench_pick(struct kernels *k)
{
    static const struct {
        const char *name;
        struct pick_row ask;
    } KINDS[] = {
        { "greedy", { .repetition = 1.0f, .want = 1, .ask = -1 } },
        { "256", { .repetition = 1.0f, .want = PICK_MAX, .temperature = 0.8f, .wants_mass = true, .ask = -1 } },
    };
    struct job j = { .k = k, .run = run_pick };
    enum status st = kernels_make_copies(&j, (size_t)PICK_ROWS * VOCAB * sizeof(float));
    if (st != OK) return st;
    uint64_t seed = 2;
    synth_type_fill(synth_type_find("F32"), &seed, 1.0f, j.copies, (size_t)PICK_ROWS * VOCAB * sizeof(float));
    kernels_copy_out(&j);
    j.picked = mem_array(PICK_ROWS, sizeof(*j.picked));
    j.asks = mem_array(PICK_ROWS, sizeof(*j.asks));
    kernels_measure_ceilings(k);
    for (size_t i = 0; i < 4 && st == OK; i++) {
        double s = 0.0;
        for (uint32_t r = 0; r < PICK_ROWS; r++) j.asks[r] = KINDS[i / 2].ask;
        j.n = i % 2 ? PICK_ROWS : 1;
        if ((st = time_job(&j, &s)) != OK) break;
        kernels_report(k, "pick", KINDS[i / 2].name, j.n, 0.0, 4.0 * VOCAB * j.n / s);
    }
    mem_free(j.picked);
    mem_free(j.asks);
    mem_unmap(j.copies, j.copy_bytes * j.n_copies);
    return st;
}

static enum status bench_types(struct kernels *k, enum status (*bench)(struct kernels *, const struct synth_type *))
{
    enum status st = OK;
    for (uint32_t type = 0; type < DTYPE_LIMIT && st == OK; type++) {
        const char *name = dtype_info(type)->name;
        const struct synth_type *t = synth_type_find(name);
        if (t && (!k->opt.type || strcmp(k->opt.type, name) == 0)) st = bench(k, t);
    }
    return st;
}

static bool wants(const struct kernels *k, const char *op)
{
    return strcmp(k->opt.op, "all") == 0 || strcmp(k->opt.op, op) == 0;
}

static enum status bench_level(struct kernels *k, const char *isa, struct error *err)
{
    struct backend_limits limits = {
        MANY, CONTEXT, ROWS, HEADS, HEAD_DIM, LATENT, .max_experts = EXPERTS, .max_experts_used = USED
    };
    enum status st =
        backend_open(&k->backend, "cpu",
                     &(struct backend_options){ .n_threads = k->opt.threads, .isa = isa, .limits = limits }, err);
    if (st != OK) return st;
    if (!k->has_packed && wants(k, "pack")) st = bench_types(k, bench_pack); /* the same at all levels */
    k->has_packed = true;
    if (st == OK && wants(k, "matmul")) st = bench_types(k, bench_matmul);
    if (st == OK && wants(k, "attention") && !k->opt.type) st = bench_attention(k);
    if (st == OK && wants(k, "latent") && !k->opt.type) st = bench_latent(k);
    if (st == OK && wants(k, "states") && !k->opt.type) st = bench_states(k);
    if (st == OK && wants(k, "experts")) st = bench_types(k, bench_experts);
    if (st == OK && wants(k, "pick") && !k->opt.type) st = bench_pick(k);
    backend_close(k->backend);
    k->backend = NULL;
    return st;
}

static enum status bench_levels(struct kernels *k, struct error *err)
{
    const uint32_t flags = cpu_flags();
    enum status st = OK;
    if (k->opt.isa) return bench_level(k, k->opt.isa, err);
    for (const struct cpu_kernels *const *level = cpu_kernel_levels; *level && st == OK; level++)
        if (((*level)->flags & flags) == (*level)->flags) st = bench_level(k, (*level)->name, err);
    return st;
}

enum status kernels_check_type(const struct kernels *k, struct error *err)
{
    if (!k->opt.type || synth_type_find(k->opt.type)) return OK;
    return error_set(err, ERR_INVALID, "--type is \"%.64s\", which is no type of weights", k->opt.type);
}

static enum status prepare(struct kernels *k, struct error *err)
{
    uint64_t seed = 1;
    enum status st;
    if ((st = kernels_check_type(k, err)) != OK) return st;
    if ((st = ceilings_create(&k->ceilings, k->opt.threads, err)) != OK) return st;
    kernels_measure_ceilings(k);
    k->x = mem_array((size_t)MANY * LD, sizeof(float));
    k->y = mem_array((size_t)MANY * ROWS, sizeof(float));
    synth_type_fill(synth_type_find("F32"), &seed, 1.0f, (uint8_t *)k->x, (size_t)MANY * LD * sizeof(float));
    strbuf_addf(&k->json, "{\"threads\":%u,\"int8_how\":\"%s\",\"int8_ops_s\":", k->opt.threads, k->int8_how);
    json_num(&k->json, k->int8_ops_s);
    strbuf_puts(&k->json, ",\"read_bytes_s\":");
    json_num(&k->json, k->read_bytes_s);
    strbuf_puts(&k->json, ",\"kernels\":[");
    if (k->opt.json) return OK;
    printf("%u threads, %.1f GB/s memory read, %.1f GOP/s %s; matmul of %u x %u, attention at %u tokens, "
           "%u of %u experts of %u x %u, picks of %u logits\n\n",
           k->opt.threads, k->read_bytes_s * 1e-9, k->int8_ops_s * 1e-9, k->int8_how, COLS, ROWS, CONTEXT, USED,
           EXPERTS, EXPERT_D, EXPERT_FF, VOCAB);
    printf("%-10s %-8s %-7s %5s %9s %8s %9s %8s\n", "op", "type", "isa", "rows", "GOP/s", "of peak", "GB/s", "of read");
    return OK;
}

int bench_kernels(int argc, char **argv)
{
    struct kernels k = { 0 };
    struct error err = { 0 };
    int code = command_parse(&COMMAND, &k.opt, argc, argv, NULL);
    if (code >= 0) return code;
    const bool on_device = strcmp(k.opt.backend, "cpu") != 0;
    enum status st = on_device ? bench_device(&k, &err) : prepare(&k, &err);
    if (st == OK && !on_device) st = bench_levels(&k, &err);
    if (st == OK && k.opt.json) printf("%s]}\n", strbuf_cstr(&k.json));
    ceilings_destroy(k.ceilings);
    mem_free(k.x);
    mem_free(k.y);
    strbuf_fini(&k.json);
    command_free(&COMMAND, &k.opt);
    int failed = bench_end(&COMMAND, st, &err);
    return st == ERR_INVALID || st == ERR_UNSUPPORTED ? EXIT_USAGE : failed;
}
