/* bench_pool.c - how much of a cache's memory running sequences use, on a real engine that more ask for than it can
 * take. */
#include "base/clock.h"
#include "base/json_write.h"
#include "base/log.h"
#include "base/mem.h"
#include "bench/bench.h"
#include "engine/engine.h"
#include "kv/window_table.h"
#include "model/model.h"
#include "node/cache_plan.h"
#include "store/kv_store.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB      (1024.0 * 1024.0)
#define CHUNK    256u
#define COMMANDS 64u

struct options {
    char *path;
    uint32_t memory, max_seqs, sequences, shortest, longest, answer, threads, seed;
    bool json;
};

#define AT(field) offsetof(struct options, field)

static const struct config_option OPTIONS[] = {
    BENCH_MODEL(AT(path)),
    COMMAND_NUMBER("memory", NULL, AT(memory), 1, UINT32_MAX, NULL, "KiB of cache, as a node's kv_memory"),
    COMMAND_NUMBER("max-seqs", NULL, AT(max_seqs), 1, 1024, "64", "most sequences at once"),
    COMMAND_NUMBER("sequences", "n", AT(sequences), 1, 1u << 16, "200", "in all"),
    COMMAND_NUMBER("shortest", NULL, AT(shortest), 2, 1u << 20, "100", "tokens of a prompt and its answer"),
    COMMAND_NUMBER("longest", NULL, AT(longest), 2, 1u << 20, "4000",
                   "the same; as many are between n and 2 n as between 2 n and 4 n"),
    COMMAND_NUMBER("answer", NULL, AT(answer), 1, 100, "10", "percent of the tokens that are answers"),
    BENCH_THREADS(AT(threads)),
    COMMAND_NUMBER("seed", NULL, AT(seed), 0, UINT32_MAX, "1", "of lengths and tokens"),
    BENCH_JSON(AT(json)),
};
static const struct command COMMAND = { "baton-bench pool", NULL,
                                        "While others wait, counts after each step what the cache holds of running "
                                        "sequences.\n",
                                        OPTIONS, sizeof(OPTIONS) / sizeof(OPTIONS[0]) };

/* Parts of the memory, summed over samples. */
struct use {
    double known, computed;         /* K, V and states of sequences' tokens; of those that are computed alone */
    double states, windows, others; /* known, by group */
    double running, cached;         /* sequences; blocks that nobody uses now, with what was computed for others */
};

struct run {
    struct options opt;
    struct backend *backend;
    struct model *model;
    struct engine *engine;
    size_t block_bytes, window_bytes, state_bytes, bytes;
    uint32_t context;
    uint64_t seed;
    /* The engine's thread's until all are done. */
    struct use sum;
    double least;
    uint64_t n_samples, n_tokens;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint32_t n_live, n_failed;
};

static double uniform(struct run *r)
{
    r->seed = r->seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(r->seed >> 11) / (double)(1ull << 53);
}

/* Bytes of the cache that hold these tokens. */
static double windows_of(const struct run *r, const struct engine_tokens *t)
{
    return (double)t->in_windows / KV_BLOCK_TOKENS * (double)r->window_bytes;
}

static double others_of(const struct run *r, const struct engine_tokens *t)
{
    return (double)t->all / KV_BLOCK_TOKENS * (double)(r->block_bytes - r->window_bytes);
}

static void sample(struct run *r)
{
    struct engine_load load;
    engine_load(r->engine, &load);
    if (load.n_waiting == 0) return;
    const double states = (double)load.states.n_live * (double)r->state_bytes;
    const double all = (double)r->bytes, windows = windows_of(r, &load.known), others = others_of(r, &load.known);
    const double known = (states + windows + others) / all;
    r->sum.states += states / all;
    r->sum.windows += windows / all;
    r->sum.others += others / all;
    r->sum.known += known;
    r->sum.computed += (states + windows_of(r, &load.computed) + others_of(r, &load.computed)) / all;
    r->sum.running += load.n_running;
    r->sum.cached += load.blocks[KV_FREE] + load.blocks[KV_CACHED];
    r->least = r->n_samples == 0 || known < r->least ? known : r->least;
    r->n_samples++;
}

static void on_event(void *ctx, const struct engine_event *ev)
{
    struct run *r = ctx;
    if (ev->kind == ENGINE_TOKEN && r->engine) sample(r);
    if (ev->kind != ENGINE_DONE) return;
    pthread_mutex_lock(&r->lock);
    r->n_live--;
    r->n_failed += ev->finish == FINISH_FAILED;
    pthread_cond_signal(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

/* As a node divides its memory. */
static enum status open_cache(struct run *r, struct kv_store **kv, struct error *err)
{
    const struct options *o = &r->opt;
    const struct kv_runs runs = model_kv_runs(r->model);
    r->block_bytes = model_kv_block_bytes(r->model);
    r->window_bytes = model_window_block_bytes(r->model);
    r->state_bytes = model_state_bytes(r->model);
    uint32_t window = 0;
    for (uint32_t l = 0; l < model_info(r->model)->n_layers; l++) {
        const uint32_t w = model_kv_geometry(r->model, l).window;
        if (w > window) window = w;
    }
    const struct cache_need need = { .kv_memory = (uint64_t)o->memory << 10,
                                     .block_bytes = r->block_bytes,
                                     .state_bytes = r->state_bytes,
                                     .window_bytes = r->window_bytes,
                                     .window_blocks = window_blocks_max(window, CHUNK, r->context),
                                     .shared_bytes = model_shared_block_bytes(r->model),
                                     .window_run = runs.window,
                                     .slot_run = runs.slot,
                                     .max_seqs = o->max_seqs,
                                     .max_context = r->context };
    struct cache_plan plan;
    enum status st = cache_plan(&plan, &need, err);
    if (st != OK) return st;
    if (runs.window > 0 || runs.slot > 0) {
        st = model_kv_create_shared(kv, r->model, plan.n_blocks, err);
    } else {
        st = model_kv_create_windowed(kv, r->model, plan.n_blocks, plan.n_window_blocks, err);
        if (st == OK && plan.n_slots > 0) st = model_states_create(*kv, r->model, plan.n_slots, err);
    }
    if (st == OK) r->bytes = (size_t)kv_store_host_bytes(*kv);
    return st;
}

static enum status open_all(struct run *r, struct error *err)
{
    const struct options *o = &r->opt;
    const int32_t no_end = -1;
    struct model_info info;
    struct kv_store *kv = NULL;
    enum status st = model_read_info(&info, o->path, err);
    if (st != OK) return st;
    r->context = o->longest + 1;
    if (r->context > info.context_length || o->shortest > o->longest)
        return error_set(err, ERR_CONTEXT_LENGTH, "sequences of %u to %u tokens, the model was trained for %u",
                         o->shortest, o->longest, info.context_length);
    const struct backend_limits lim = model_limits(&info, CHUNK + o->max_seqs, r->context);
    const struct backend_options be = { .n_threads = o->threads, .limits = lim };
    if ((st = backend_open(&r->backend, "cpu", &be, err)) != OK) return st;
    const struct model_options mo = { .path = o->path,
                                      .backend = r->backend,
                                      .rotate = "auto",
                                      .max_batch_tokens = CHUNK + o->max_seqs,
                                      .max_context = r->context,
                                      .weights_fd = -1 };
    struct engine_options eo = { .end_ids = &no_end,
                                 .n_end_ids = 0,
                                 .max_seqs = o->max_seqs,
                                 .max_batch_tokens = CHUNK + o->max_seqs,
                                 .chunk_tokens = CHUNK,
                                 .max_context = r->context,
                                 .max_commands = o->sequences + COMMANDS,
                                 .prefix_cache = true,
                                 .on_event = on_event,
                                 .ctx = r };
    if ((st = model_open(&r->model, &mo, err)) != OK) return st;
    st = open_cache(r, &kv, err);
    eo.model = r->model;
    eo.kv = kv;
    if (st == OK) st = engine_create(&r->engine, &eo, err);
    if (st == OK) return OK;
    kv_store_destroy(kv);
    model_close(r->model);
    return st;
}

static enum status submit(struct run *r, uint32_t i, struct error *err)
{
    const struct options *o = &r->opt;
    const double spread = (double)o->longest / o->shortest;
    const uint32_t n = (uint32_t)(o->shortest * pow(spread, uniform(r))), out = n * o->answer / 100;
    const uint32_t max_tokens = out == 0 ? 1 : out < n ? out : n - 1, n_prompt = n - max_tokens;
    int32_t *tokens = mem_array(n_prompt, sizeof(*tokens));
    for (uint32_t k = 0; k < n_prompt; k++) tokens[k] = (int32_t)(uniform(r) * model_info(r->model)->n_vocab);
    const struct seq_request request = {
        .key = { 1, i, 1 },
        .mode = ENGINE_GENERATE,
        .tokens = tokens,
        .n_tokens = n_prompt,
        .n_prompt = n_prompt,
        .sampling = { .top_p = 1.0f,
                      .repetition_penalty = 1.0f,
                      .max_tokens = max_tokens,
                      .ignore_eos = true,
                      .n_logprobs = -1,
                      .n_prompt_logprobs = -1 },
    };
    pthread_mutex_lock(&r->lock);
    r->n_live++;
    pthread_mutex_unlock(&r->lock);
    r->n_tokens += n;
    enum status st = engine_submit(r->engine, &request);
    mem_free(tokens);
    return st == OK ? OK : error_set(err, st, "a sequence of %u tokens: %s", n, status_text(st));
}

static void print_table(const struct run *r, const struct use *mean, double seconds, const struct engine_load *load)
{
    printf("%s\n", r->opt.path);
    printf("cache of %.1f MiB; a block of 64 tokens takes %.1f KiB, %.1f of them in windows, a state %.1f KiB\n",
           (double)r->bytes / MIB, (double)r->block_bytes / 1024, (double)r->window_bytes / 1024,
           (double)r->state_bytes / 1024);
    printf("%u sequences of %u to %u tokens: %.1f s, %.0f tok/s, %llu preempted\n\n", r->opt.sequences, r->opt.shortest,
           r->opt.longest, seconds, (double)r->n_tokens / seconds,
           (unsigned long long)(load->preemptions[PREEMPT_SWAP] + load->preemptions[PREEMPT_RECOMPUTE]));
    printf("while others waited, %llu samples               mean\n", (unsigned long long)r->n_samples);
    printf("memory with tokens and states of sequences     %5.1f %% (least %.1f %%)\n", 100 * mean->known,
           100 * r->least);
    printf("  states of recurrent layers                   %5.1f %%\n", 100 * mean->states);
    printf("  windows                                      %5.1f %%\n", 100 * mean->windows);
    printf("  K and V of the other layers                  %5.1f %%\n", 100 * mean->others);
    printf("of that without tokens that are still to be computed %.1f %%\n", 100 * mean->computed);
    printf("sequences at once %.1f, blocks that none of them has %.1f\n", mean->running, mean->cached);
}

static void print_json(const struct run *r, const struct use *mean, double seconds, const struct engine_load *load)
{
    printf("{\"model\":\"%s\",\"bytes\":%zu,\"block_bytes\":%zu,\"window_bytes\":%zu,\"state_bytes\":%zu,"
           "\"samples\":%llu,\"seconds\":%.3f,\"preempted\":%llu,\"known\":%.4f,\"least\":%.4f,\"computed\":%.4f,"
           "\"states\":%.4f,\"windows\":%.4f,\"others\":%.4f,\"running\":%.2f}\n",
           r->opt.path, r->bytes, r->block_bytes, r->window_bytes, r->state_bytes, (unsigned long long)r->n_samples,
           seconds, (unsigned long long)(load->preemptions[PREEMPT_SWAP] + load->preemptions[PREEMPT_RECOMPUTE]),
           mean->known, r->least, mean->computed, mean->states, mean->windows, mean->others, mean->running);
}

static void report(const struct run *r, double seconds)
{
    const double n = r->n_samples ? (double)r->n_samples : 1;
    const struct use mean = { r->sum.known / n,  r->sum.computed / n, r->sum.states / n, r->sum.windows / n,
                              r->sum.others / n, r->sum.running / n,  r->sum.cached / n };
    struct engine_load load;
    engine_load(r->engine, &load);
    (r->opt.json ? print_json : print_table)(r, &mean, seconds, &load);
}

static enum status measure(struct run *r, struct error *err)
{
    const uint64_t t0 = clock_now_us();
    enum status st = OK;
    for (uint32_t i = 0; i < r->opt.sequences && st == OK; i++) st = submit(r, i, err);
    if (st != OK) return st;
    pthread_mutex_lock(&r->lock);
    while (r->n_live > 0) pthread_cond_wait(&r->changed, &r->lock);
    pthread_mutex_unlock(&r->lock);
    if (r->n_failed > 0) return error_set(err, ERR_INTERNAL, "%u sequences failed", r->n_failed);
    report(r, (double)(clock_now_us() - t0) * 1e-6);
    return OK;
}

int bench_pool(int argc, char **argv)
{
    struct run r = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
    struct error err = { 0 };
    int code = command_parse(&COMMAND, &r.opt, argc, argv, NULL);
    if (code >= 0) return code;
    r.seed = r.opt.seed;
    enum status st = open_all(&r, &err);
    if (st == OK) st = measure(&r, &err);
    engine_destroy(r.engine);
    backend_close(r.backend);
    code = bench_end(&COMMAND, st, &err);
    command_free(&COMMAND, &r.opt);
    return code;
}
