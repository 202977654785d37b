/* model.c - opens a model: the file, what it says, and all of its ranks. */
#include "base/host_memory.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/token_id.h"
#include "formats/gguf.h"
#include "model/memory_plan.h"
#include "model/model_internal.h"
#include "model/weight_stream.h"
#include "parallel/rank_team.h"
#include "parallel/ranks.h"

#include <stdio.h>
#include <string.h>

static const char *const MODE_NAMES[] = { "resident", "stream", "auto", NULL };
static const char *const IO_NAMES[] = { "auto", "uring", "pread", "mmap", NULL };

/* Index of `word`, or -1. */
static int word_in(const char *const *names, const char *word)
{
    for (int i = 0; names[i]; i++)
        if (strcmp(names[i], word) == 0) return i;
    return -1;
}

enum status model_options_words(struct model_options *opt, const char *weights, const char *io, struct error *err)
{
    int mode = word_in(MODE_NAMES, weights), kind = word_in(IO_NAMES, io);
    if (mode < 0)
        return error_set(err, ERR_INVALID, "weights is \"%s\", allowed are resident, stream and auto", weights);
    if (kind < 0) return error_set(err, ERR_INVALID, "io is \"%s\", allowed are auto, uring, pread and mmap", io);
    opt->weights = (enum weights_mode)mode;
    opt->io = (enum io_kind)kind;
    return OK;
}

/* A vocabulary-only file has no tensors; its token list says how large the vocabulary is. */
static enum status read_vocab_only(struct model_facts *facts, const struct gguf *g, struct error *err)
{
    struct model_info *info = &facts->info;
    enum status st = model_facts_read(facts, g, err);
    const struct gguf_kv *tokens = gguf_find(g, "tokenizer.ggml.tokens");
    if (st == OK && info->n_vocab == 0 && tokens && tokens->type == GGUF_ARRAY)
        info->n_vocab = tokens->n <= TOKEN_IDS_MAX ? (uint32_t)tokens->n : 0;
    return st;
}

static enum status read_whole(struct model_facts *facts, struct weights *w, const struct gguf *g, struct error *err)
{
    enum status st = model_facts_read(facts, g, err);
    const struct rank_place whole = { .tp = 1, .pp = 1, .layers = { 0, facts->info.n_layers } };
    return st == OK ? weights_bind(w, facts, g, NULL, &whole, err) : st;
}

enum status model_read_info(struct model_info *out, const char *path, struct error *err)
{
    struct gguf *g = NULL;
    struct weights w = { 0 };
    struct model_facts facts;
    enum status st = gguf_open(&g, path, err);
    if (st != OK) return st;
    if (gguf_tensors(g)->n == 0)
        st = read_vocab_only(&facts, g, err);
    else
        st = read_whole(&facts, &w, g, err);
    for (size_t i = 0; st == OK && i < gguf_tensors(g)->n; i++)
        facts.info.weight_bytes += gguf_tensors(g)->entries[i].bytes;
    if (st == OK) model_facts_plan_rope(&facts, facts.info.context_length);
    facts.info.rope.freq_factors = NULL; /* goes with the facts */
    if (st == OK)
        *out = facts.info;
    else
        error_prefix(err, "%s", path);
    weights_fini(&w);
    model_facts_fini(&facts);
    gguf_close(g);
    return st;
}

struct backend_limits model_limits(const struct model_info *info, uint32_t max_rows, uint32_t max_context)
{
    struct backend_limits limits = info->limits;
    limits.max_rows = max_rows > MODEL_MAX_LOGIT_ROWS ? max_rows : MODEL_MAX_LOGIT_ROWS;
    limits.max_context = max_context;
    return limits;
}

/* --- ranks --- */

static void place_rank(struct model *m, uint32_t i, const struct model_options *opt)
{
    struct model_rank *r = &m->ranks[i];
    const uint32_t tp = m->mesh.tp;
    r->file = m->file;
    r->place = (struct rank_place){ .member = i % tp, .tp = tp, .stage = i / tp, .pp = m->mesh.pp };
    r->place.layers = shard_units(m->mesh.n_layers, r->place.stage, r->place.pp);
    r->backend = opt->ranks ? ranks_backend(opt->ranks, i) : opt->backend;
    r->coll = opt->ranks ? ranks_stage(opt->ranks, i) : coll_self();
    r->all = opt->ranks ? ranks_all(opt->ranks, i) : coll_self();
}

/* Which part of the model each rank has. */
static enum status cut_model(struct model *m, const struct model_options *opt, struct error *err)
{
    enum status st = model_facts_read(&m->whole, m->file, err);
    m->mesh = (struct mesh){ .tp = opt->ranks ? ranks_tp(opt->ranks) : 1,
                             .pp = opt->ranks ? ranks_pp(opt->ranks) : 1,
                             .n_layers = m->whole.info.n_layers };
    if (st == OK) st = mesh_check(&m->mesh, err);
    if (st != OK) return st;
    m->n_ranks = mesh_n_ranks(&m->mesh);
    m->ranks = mem_array(m->n_ranks, sizeof(*m->ranks));
    if (opt->ranks && m->n_ranks > 1) m->team = ranks_team(opt->ranks);
    for (uint32_t i = 0; i < m->n_ranks; i++) place_rank(m, i, opt);
    return OK;
}

/* File, facts and plan of all ranks; what open and pack_shared have in common. */
static enum status prepare(struct model *m, const struct model_options *opt, struct error *err)
{
    enum status st = gguf_open(&m->file, opt->path, err);
    if (st != OK) return st;
    st = cut_model(m, opt, err);
    for (uint32_t i = 0; i < m->n_ranks && st == OK; i++) st = model_rank_bind(&m->ranks[i], opt, err);
    return st;
}

static void log_plan(const struct memory_need *need, const struct host_memory *left, enum weights_mode asked,
                     enum weights_mode mode, uint64_t kv)
{
    log_info("weights_mode",
             "weights=%s asked=%s resident_mib=%llu stream_mib=%llu kv_mib=%llu buffers_mib=%llu "
             "available_mib=%llu limit=%s",
             MODE_NAMES[mode], MODE_NAMES[asked], (unsigned long long)(need->resident >> 20),
             (unsigned long long)(need->stream >> 20), (unsigned long long)(kv >> 20),
             (unsigned long long)(need->buffers >> 20), (unsigned long long)(left->bytes >> 20), log_quote(left->from));
}

/* The same of a device with memory of its own, where KV may have what the rest leaves. */
static enum status plan_device(const struct model_rank *r, const struct model_options *opt, enum weights_mode *mode,
                               struct error *err)
{
    const struct memory_need need = { .resident = r->weights.arena_bytes,
                                      .stream = weight_stream_bytes(&r->weights),
                                      .kv = opt->kv_bytes,
                                      .buffers = r->buffer_bytes };
    struct host_memory left = { 0 };
    uint64_t total;
    enum status st = r->backend->ops->memory(r->backend, &left.bytes, &total);
    if (st != OK) return error_set(err, st, "%s does not say how much memory it has", backend_describe(r->backend));
    snprintf(left.from, sizeof(left.from), "%.100s, %.1f MiB in all", backend_describe(r->backend),
             (double)total / (1024 * 1024));
    if ((st = memory_plan(mode, &need, &left, err)) != OK) return st;
    const uint64_t weights = *mode == WEIGHTS_STREAM ? need.stream : need.resident;
    log_plan(&need, &left, opt->weights, *mode, need.kv ? need.kv : left.bytes - weights - need.buffers);
    return OK;
}

/* Where the weights go.  Nothing large is taken before this. */
static enum status plan_memory(const struct model *m, const struct model_options *opt, enum weights_mode *mode,
                               struct error *err)
{
    struct memory_need need = { .kv = opt->kv_bytes };
    struct host_memory left;
    *mode = opt->weights;
    if (m->n_ranks == 1 && m->ranks[0].backend->ops->memory) return plan_device(&m->ranks[0], opt, mode, err);
    for (uint32_t i = 0; i < m->n_ranks; i++) {
        const struct model_rank *r = &m->ranks[i];
        if (!r->backend->caps.host_memory) continue; /* it has memory of its own */
        need.resident += r->weights.arena_bytes;
        need.stream += weight_stream_bytes(&r->weights);
        need.buffers += r->buffer_bytes;
    }
    if (need.resident == 0) return OK;
    host_memory_left(&left);
    enum status st = memory_plan(mode, &need, &left, err);
    if (opt->weights != WEIGHTS_RESIDENT) log_plan(&need, &left, opt->weights, *mode, need.kv);
    return st;
}

/* Weights that another process has packed are there already: buffers alone have to fit. */
static enum status plan_shared(const struct model *m, const struct model_options *opt, struct error *err)
{
    if (m->n_ranks > 1)
        return error_set(err, ERR_UNSUPPORTED, "shared weights are packed for one rank, this model has %u", m->n_ranks);
    if (!m->ranks[0].backend->caps.host_memory) return OK;
    return host_memory_check(m->ranks[0].buffer_bytes, "the step buffers", err);
}

struct loading {
    struct model *m;
    const struct model_options *opt;
    enum weights_mode mode;
    struct error *errs; /* [n_ranks] */
};

static enum status load_rank(void *ctx, uint32_t rank)
{
    const struct loading *l = ctx;
    return model_rank_load(&l->m->ranks[rank], l->opt, l->mode, &l->errs[rank]);
}

static enum status load(struct model *m, const struct model_options *opt, struct error *err)
{
    struct loading l = { .m = m, .opt = opt, .mode = opt->weights };
    uint32_t who = 0;
    enum status st = opt->weights_fd >= 0 ? plan_shared(m, opt, err) : plan_memory(m, opt, &l.mode, err);
    if (st != OK) return st;
    l.errs = mem_array(m->n_ranks, sizeof(*l.errs));
    st = model_each_rank(m, load_rank, &l, &who);
    if (st != OK && err) *err = l.errs[who];
    mem_free(l.errs);
    return st;
}

enum status model_open(struct model **out, const struct model_options *opt, struct error *err)
{
    struct model *m = mem_zalloc(sizeof(*m));
    enum status st = prepare(m, opt, err);
    for (uint32_t i = 0; i < m->n_ranks && st == OK; i++) st = model_rank_plan(&m->ranks[i], opt, err);
    if (st != OK) goto fail;
    m->info = m->ranks[0].facts.info;
    for (uint32_t i = 1; i < m->n_ranks; i++) {
        const struct model_info *rank = &m->ranks[i].facts.info;
        m->info.weight_bytes += rank->weight_bytes;
        m->info.expert_bytes += rank->expert_bytes;
        m->info.used_bytes += rank->used_bytes;
    }
    if ((st = load(m, opt, err)) != OK) goto fail;
    *out = m;
    return OK;
fail:
    if (m->file) error_prefix(err, "%s", opt->path); /* gguf_open() has named it itself */
    model_close(m);
    return st;
}

void model_close(struct model *m)
{
    if (!m) return;
    for (uint32_t i = 0; i < m->n_ranks; i++) model_rank_close(&m->ranks[i]);
    model_facts_fini(&m->whole);
    gguf_close(m->file);
    mem_free(m->ranks);
    mem_free(m);
}

enum status model_pack_shared(int *fd, const struct model_options *opt, struct error *err)
{
    struct model *m = mem_zalloc(sizeof(*m));
    struct weights_load_options load_opt = { opt->io, opt->progress, opt->progress_ctx };
    enum weights_mode mode;
    enum status st = prepare(m, opt, err);
    if (st == OK) st = plan_memory(m, opt, &mode, err);
    if (st == OK && mode == WEIGHTS_RESIDENT) st = weights_share(&m->ranks[0].weights, fd, &load_opt, err);
    if (st != OK && m->file) error_prefix(err, "%s", opt->path);
    model_close(m);
    return st;
}

const struct model_info *model_info(const struct model *m)
{
    return &m->info;
}

const struct mesh *model_mesh(const struct model *m)
{
    return &m->mesh;
}

bool model_is_streamed(const struct model *m)
{
    return m->ranks[0].weights.stream != NULL;
}
