/* load_model.c - from a configuration to a running engine. */
#include "node/load_model.h"

#include "base/clock.h"
#include "base/cpus.h"
#include "base/host_memory.h"
#include "base/log.h"
#include "base/mem.h"
#include "formats/gguf.h"
#include "formats/vocab_load.h"
#include "kv/window_table.h"
#include "node/cache_groups.h"
#include "node/cache_plan.h"
#include "node/node_backend.h"
#include "parallel/mesh.h"
#include "parallel/ranks.h"
#include "store/state_store.h"
#include "text/vocab.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MAX_COMMANDS        1024 /* waiting for the engine, beyond max_seqs */
#define KV_EVENT_MIN_TOKENS 64   /* a prompt of one block is computed before a frame is under way */
#define BAR_WIDTH           30

struct load_progress {
    bool is_terminal;
    const char *name;
    uint32_t told; /* tenths */
};

static void on_progress(void *ctx, uint64_t done, uint64_t all)
{
    struct load_progress *p = ctx;
    uint32_t tenths = all ? (uint32_t)(done * 10 / all) : 10;
    uint32_t fill = all ? (uint32_t)(done * BAR_WIDTH / all) : BAR_WIDTH;

    if (p->is_terminal) {
        fprintf(stderr, "\rloading %s [%.*s%*s] %3u %%%s", p->name, (int)fill, "##############################",
                (int)(BAR_WIDTH - fill), "", all ? (uint32_t)(done * 100 / all) : 100, done >= all ? "\n" : "");
    } else if (tenths > p->told && (tenths == 10 || tenths >= p->told + 5)) {
        p->told = tenths;
        log_info("loading", "model=%s percent=%u", p->name, tenths * 10);
    }
}

/* The first rank's backend has pinned this thread as the first of its team, and the engine's thread has taken that
 * over.  What is started from here on moves within all that the node owns. */
static void unpin(const struct config_node *self)
{
    struct cpu_list own;
    if (cpu_list_parse(&own, self->cpus) == OK && cpu_list_confine(&own) != OK)
        log_warn("not_unpinned", "cpus=%s", self->cpus);
}

static enum status read_end_ids(const char *path, int32_t **ids, uint32_t *n, struct error *err)
{
    struct gguf *g = NULL;
    struct vocab *v = NULL;
    enum status st;

    if ((st = gguf_open(&g, path, err)) != OK) return st;
    st = vocab_load_gguf(&v, g, err);
    gguf_close(g);
    if (st != OK) return st;
    *n = 0;
    *ids = mem_array(v->n_ids, sizeof(**ids));
    for (uint32_t i = 0; i < v->n_ids; i++)
        if (vocab_is_end(v, (int32_t)i)) (*ids)[(*n)++] = (int32_t)i;
    vocab_destroy(v);
    return OK;
}

/* Blocks of layers with a window that a sequence holds at most. */
static uint32_t window_blocks(const struct model *model, const struct loaded_model *m, const struct config_run *run)
{
    const struct config_node *self = run->self;
    const uint32_t chunk = self->chunk_tokens < self->max_batch_tokens ? self->chunk_tokens : self->max_batch_tokens;
    uint32_t window = 0;
    for (uint32_t l = 0; l < m->info.n_layers; l++) {
        const uint32_t w = model_kv_geometry(model, l).window;
        if (w > window) window = w;
    }
    return window_blocks_max(window, chunk, m->max_context);
}

/* What is free of a GPU when the weights are there; a machine's memory is for others, too. */
static enum status kv_memory_of(uint64_t *out, const struct loaded_model *m, const struct cache_need *need,
                                struct error *err)
{
    struct backend *b = ranks_backend(m->ranks, 0);
    uint64_t left, total;
    *out = need->kv_memory ? need->kv_memory : CONFIG_HOST_KV_MEMORY;
    if (need->kv_memory || !b->ops->memory) return OK;
    enum status st = b->ops->memory(b, &left, &total);
    if (st == OK) *out = cache_plan_memory(need, left);
    return st == OK ? OK : error_set(err, st, "%s does not say how much memory it has", backend_describe(b));
}

/* KV memory, with room for states if the model has any. */
static enum status open_cache(struct loaded_model *m, struct kv_store **kv, const struct model *model,
                              const struct config_run *run, struct error *err)
{
    const struct kv_runs runs = model_kv_runs(model);
    struct cache_need need = { .kv_memory = run->self->kv_memory,
                               .snapshot_bytes = run->cfg.kv.snapshot_bytes,
                               .block_bytes = model_kv_block_bytes(model),
                               .window_bytes = model_window_block_bytes(model),
                               .window_blocks = window_blocks(model, m, run),
                               .state_bytes = model_state_bytes(model),
                               .shared_bytes = model_shared_block_bytes(model),
                               .window_run = runs.window,
                               .slot_run = runs.slot,
                               .max_seqs = run->self->max_seqs,
                               .max_context = m->max_context };
    struct cache_plan plan;
    enum status st = kv_memory_of(&need.kv_memory, m, &need, err);
    if (st == OK) st = cache_plan(&plan, &need, err);
    if (st != OK) return st;
    m->n_blocks = plan.n_blocks;
    m->n_blocks_each = plan.n_blocks_each;
    m->n_snapshots = plan.n_snapshots;
    if (runs.window > 0 || runs.slot > 0) return model_kv_create_shared(kv, model, plan.n_blocks, err);
    st = model_kv_create_windowed(kv, model, plan.n_blocks, plan.n_window_blocks, err);
    return st == OK && plan.n_slots > 0 ? model_states_create(*kv, model, plan.n_slots, err) : st;
}

static enum status open_map(struct loaded_model *m, const struct model *model, struct kv_store *kv, struct error *err)
{
    struct kv_store *stores[RANKS_MAX_TP * RANKS_MAX_PP];
    uint32_t n = 0;
    for (; kv; kv = kv->next) stores[n++] = kv;
    return kv_map_create(&m->kv_map, model_mesh(model), stores, err);
}

/* Of the whole model, as it is compared with other nodes: nobody out there knows ranks. */
static enum status fill_geometry(struct loaded_model *m, struct error *err)
{
    m->geometry = (struct cache_geometry){
        .fingerprint = m->info.fingerprint,
        .rope_base = m->info.rope.base,
        .rope_scale = m->info.rope.scale,
        .rope_dims = m->info.rope.dims,
        .rope_kind = (m->info.rope.neox ? 1 : 0) + (m->info.rope_long ? 2 : 0),
    };
    snprintf(m->geometry.model_name, sizeof(m->geometry.model_name), "%s", m->config->name);
    return cache_groups_fill(&m->geometry, m->kv_map, err);
}

/* As many layers as fill about one frame per chunk: the rest of a prompt's last chunk is then one frame. */
static uint32_t layers_per_event(const struct cache_geometry *g, const struct config_run *run)
{
    uint64_t chunk =
        run->self->chunk_tokens < run->self->max_batch_tokens ? run->self->chunk_tokens : run->self->max_batch_tokens;
    uint64_t all = 0, n;

    for (uint32_t i = 0; i < g->n_groups; i++)
        all += cache_group_head_bytes(&g->groups[i], chunk) * g->groups[i].n_heads * g->groups[i].n_layers;
    n = all ? (uint64_t)run->cfg.kv.frame_bytes * g->n_layers / all : g->n_layers;
    if (n < 1) n = 1;
    return n < g->n_layers ? (uint32_t)n : g->n_layers;
}

static enum status open_model(struct loaded_model *m, struct model **model, const struct config_run *run,
                              struct error *err)
{
    const struct config_node *self = run->self;
    struct load_progress progress = { isatty(STDERR_FILENO), m->config->name, 0 };
    struct model_options opt = {
        .path = m->config->path,
        .kv_format = strcmp(run->cfg.kv.codec, "f16") == 0 ? KV_F16 : KV_INT8,
        .rotate = run->cfg.kv.rotate,
        .max_batch_tokens = self->max_batch_tokens,
        .max_context = self->max_context,
        .weights_fd = run->weights_fd,
        .progress = on_progress,
        .progress_ctx = &progress,
    };
    enum status st;

    if ((st = model_read_info(&m->info, opt.path, err)) != OK) return st;
    m->max_context = self->max_context ? self->max_context : m->info.context_length;
    if ((st = node_backend_open(&m->ranks, self, &m->info, m->max_context, err)) != OK) return st;
    opt.ranks = m->ranks;
    opt.kv_bytes = self->kv_memory || ranks_backend(m->ranks, 0)->ops->memory ? self->kv_memory : CONFIG_HOST_KV_MEMORY;
    if ((st = model_options_words(&opt, self->weights, self->io, err)) != OK) return st;
    if ((st = model_open(model, &opt, err)) != OK) return st;
    m->info = *model_info(*model);
    return OK;
}

/* Swap is a help and no need: it takes at most a quarter of what the pool, which is not touched yet, will leave. */
static uint64_t swap_room(const struct config_run *run, const struct kv_store *kv)
{
    const uint64_t wanted = run->cfg.kv.swap_bytes, left = host_memory_available();
    const uint64_t pool = kv_store_host_bytes(kv);
    uint64_t room = left > pool ? (left - pool) / 4 : 0;
    if (wanted <= room) return wanted;
    if (room < kv_store_block_bytes(kv)) room = 0;
    log_warn("swap_smaller", "wanted_mib=%llu given_mib=%llu available_mib=%llu", (unsigned long long)(wanted >> 20),
             (unsigned long long)(room >> 20), (unsigned long long)(left >> 20));
    return room;
}

static enum status start_engine(struct loaded_model *m, struct model *model, struct kv_store *kv,
                                const struct config_run *run, engine_event_fn on_event, void *ctx, struct error *err)
{
    const struct config_node *self = run->self;
    struct engine_options opt = {
        .model = model,
        .kv = kv,
        .max_seqs = self->max_seqs,
        .max_batch_tokens = self->max_batch_tokens,
        .chunk_tokens = self->chunk_tokens,
        .max_context = m->max_context,
        .kv_event_layers = layers_per_event(&m->geometry, run),
        .kv_event_min_tokens = KV_EVENT_MIN_TOKENS,
        .max_commands = MAX_COMMANDS,
        .max_snapshots = m->n_snapshots,
        .prefix_cache = strcmp(run->cfg.kv.prefix_cache, "on") == 0,
        .cache_secret = run->cfg.kv.cache_secret,
        .max_gap_us = (uint64_t)self->max_gap_ms * 1000,
        .swap_bytes = swap_room(run, kv),
        .tier_bytes = run->cfg.kv.tier_bytes,
        .tier_path = run->cfg.kv.tier_path,
        .tier_disk_bytes = run->cfg.kv.tier_disk_bytes,
        .on_event = on_event,
        .ctx = ctx,
    };
    int32_t *end_ids = NULL;
    enum status st = read_end_ids(m->config->path, &end_ids, &opt.n_end_ids, err);

    opt.end_ids = end_ids;
    if (st == OK) st = engine_create(&m->engine, &opt, err);
    mem_free(end_ids);
    return st;
}

enum status load_model(struct loaded_model *out, const struct config_run *run, engine_event_fn on_event, void *ctx,
                       struct error *err)
{
    struct loaded_model m = { 0 };
    struct model *model = NULL;
    struct kv_store *kv = NULL;
    uint64_t start = clock_now_us();
    enum status st;

    m.config = config_model_find(&run->cfg, run->self->model);
    if (!m.config) {
        st = error_set(err, ERR_NOT_FOUND, "node %s names no model of the configuration", run->self->name);
        goto fail;
    }
    if ((st = open_model(&m, &model, run, err)) != OK) goto fail;
    if ((st = open_cache(&m, &kv, model, run, err)) != OK) goto fail;
    if ((st = open_map(&m, model, kv, err)) != OK) goto fail;
    if ((st = fill_geometry(&m, err)) != OK) goto fail;
    if ((st = start_engine(&m, model, kv, run, on_event, ctx, err)) != OK) goto fail;
    unpin(run->self);
    log_info("loaded",
             "model=%s arch=%s backend=%s isa=%s threads=%u tp=%u pp=%u weights=%s weights_mib=%llu kv_blocks=%u "
             "context=%u ms=%llu",
             log_quote(m.config->name), m.info.arch, ranks_backend(m.ranks, 0)->ops->name,
             log_quote(backend_describe(ranks_backend(m.ranks, 0))), node_threads(run->self), run->self->tp,
             run->self->pp, model_is_streamed(engine_model(m.engine)) ? "stream" : "resident",
             (unsigned long long)(m.info.weight_bytes >> 20), m.n_blocks, m.max_context,
             (unsigned long long)((clock_now_us() - start) / 1000));
    *out = m;
    return OK;
fail:
    kv_map_destroy(m.kv_map);
    kv_store_destroy(kv);
    model_close(model);
    ranks_close(m.ranks);
    return st;
}

void stop_model(struct loaded_model *m)
{
    engine_destroy(m->engine);
    m->engine = NULL;
}

void unload_model(struct loaded_model *m)
{
    stop_model(m);
    kv_map_destroy(m->kv_map);
    ranks_close(m->ranks);
    *m = (struct loaded_model){ 0 };
}
