/* model.c - opens a model: file, facts, weights, and the memory that steps use. */
#include "base/host_memory.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/token_id.h"
#include "formats/gguf.h"
#include "model/memory_plan.h"
#include "model/model_internal.h"
#include "model/weight_stream.h"

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

/* Facts of an open file; weights are bound (and then planned for `backend`) where the file has tensors. */
static enum status read_facts(struct model_facts *facts, struct weights *w, const struct gguf *g,
                              struct backend *backend, struct error *err)
{
    enum status st = model_facts_read(facts, g, err);
    return st == OK ? weights_bind(w, facts, g, backend, err) : st;
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
        st = read_facts(&facts, &w, g, NULL, err);
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

static bool is_power_of_two(uint32_t v)
{
    return v != 0 && (v & (v - 1)) == 0;
}

static enum status choose_rotation(struct model_info *info, const char *rotate, struct error *err)
{
    bool can = is_power_of_two(info->head_dim);
    const char *word = rotate ? rotate : "auto";
    if (strcmp(word, "auto") == 0) {
        info->rotate = can;
    } else if (strcmp(word, "on") == 0) {
        if (!can)
            return error_set(err, ERR_UNSUPPORTED, "rotation is on, but heads of %u dimensions are not a power of two",
                             info->head_dim);
        info->rotate = true;
    } else if (strcmp(word, "off") != 0) {
        return error_set(err, ERR_INVALID, "rotation is \"%s\", allowed are on, off and auto", word);
    }
    return OK;
}

static enum status check_kv(const struct model *m, struct error *err)
{
    for (uint32_t i = 0; i < m->facts.info.n_layers; i++) {
        const struct kv_geometry geom = model_kv_geometry(m, i);
        if (geom.n_kv_heads > 0 && m->backend->ops->kv_slice_bytes(m->backend, &geom) == 0)
            return error_set(err, ERR_UNSUPPORTED, "backend %s has no KV layout for heads of %u dimensions",
                             m->backend->ops->name, geom.head_dim);
    }
    return OK;
}

static enum status check_options(struct model *m, const struct model_options *opt, struct error *err)
{
    if (opt->tp_size > 1 || opt->tp_rank > 0)
        return error_set(err, ERR_UNSUPPORTED, "tensor parallel rank %u of %u: only one rank is supported",
                         opt->tp_rank, opt->tp_size);
    if (opt->max_batch_tokens == 0) return error_set(err, ERR_INVALID, "max_batch_tokens is 0, at least 1 is needed");
    if (opt->max_context > m->facts.info.context_length)
        return error_set(err, ERR_INVALID, "max_context is %u, the model was trained for %u", opt->max_context,
                         m->facts.info.context_length);
    m->backend = opt->backend;
    m->coll = coll_self();
    m->kv_format = opt->kv_format;
    m->max_rows = opt->max_batch_tokens;
    m->max_context = opt->max_context ? opt->max_context : m->facts.info.context_length;
    enum status st = choose_rotation(&m->facts.info, opt->rotate, err);
    return st == OK ? check_kv(m, err) : st;
}

/* File, facts and plan; what open and pack_shared have in common. */
static enum status prepare(struct model *m, const struct model_options *opt, struct error *err)
{
    enum status st = gguf_open(&m->file, opt->path, err);
    if (st != OK) return st;
    m->weights.as_f32 = opt->as_f32;
    return read_facts(&m->facts, &m->weights, m->file, opt->backend, err);
}

/* Where the weights go.  Nothing large is taken before this. */
static enum status plan_memory(const struct model *m, const struct model_options *opt, enum weights_mode *mode,
                               struct error *err)
{
    struct memory_need need = { .resident = m->weights.arena_bytes,
                                .stream = weight_stream_bytes(&m->weights),
                                .kv = opt->kv_bytes,
                                .buffers = m->buffer_bytes };
    struct host_memory left;
    *mode = opt->weights;
    if (!opt->backend->caps.host_memory) return OK; /* it has memory of its own */
    host_memory_left(&left);
    enum status st = memory_plan(mode, &need, &left, err);
    if (opt->weights != WEIGHTS_RESIDENT)
        log_info("weights_mode",
                 "weights=%s asked=%s resident_mib=%llu stream_mib=%llu kv_mib=%llu buffers_mib=%llu "
                 "available_mib=%llu limit=%s",
                 MODE_NAMES[*mode], MODE_NAMES[opt->weights], (unsigned long long)(need.resident >> 20),
                 (unsigned long long)(need.stream >> 20), (unsigned long long)(need.kv >> 20),
                 (unsigned long long)(need.buffers >> 20), (unsigned long long)(left.bytes >> 20),
                 log_quote(left.from));
    return st;
}

static enum status load_weights(struct model *m, const struct model_options *opt, struct error *err)
{
    struct weights_load_options load = { opt->io, opt->progress, opt->progress_ctx };
    enum weights_mode mode;
    if (opt->weights_fd >= 0) {
        enum status st =
            m->backend->caps.host_memory ? host_memory_check(m->buffer_bytes, "the step buffers", err) : OK;
        return st == OK ? weights_map(&m->weights, opt->weights_fd, err) : st;
    }
    enum status st = plan_memory(m, opt, &mode, err);
    if (st != OK) return st;
    return mode == WEIGHTS_STREAM ? weights_open_stream(&m->weights, &load, err)
                                  : weights_load(&m->weights, &load, err);
}

enum status model_open(struct model **out, const struct model_options *opt, struct error *err)
{
    struct model *m = mem_zalloc(sizeof(*m));
    enum status st = prepare(m, opt, err);
    if (st != OK) goto fail;
    if ((st = check_options(m, opt, err)) != OK) goto fail;
    model_facts_plan_rope(&m->facts, m->max_context);
    model_buffers_size(m);
    if ((st = load_weights(m, opt, err)) != OK) goto fail;
    if ((st = model_buffers_alloc(m, err)) != OK) goto fail;
    if ((st = m->backend->ops->stream_open(m->backend, &m->stream)) != OK) {
        error_set(err, st, "backend %s has no stream for the model", m->backend->ops->name);
        goto fail;
    }
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
    if (m->stream) m->backend->ops->stream_close(m->backend, m->stream);
    model_buffers_release(m);
    weights_fini(&m->weights);
    model_facts_fini(&m->facts);
    gguf_close(m->file);
    mem_free(m);
}

enum status model_pack_shared(int *fd, const struct model_options *opt, struct error *err)
{
    struct model *m = mem_zalloc(sizeof(*m));
    struct weights_load_options load = { opt->io, opt->progress, opt->progress_ctx };
    enum weights_mode mode;
    enum status st = prepare(m, opt, err);
    if (st == OK) st = plan_memory(m, opt, &mode, err);
    if (st == OK && mode == WEIGHTS_RESIDENT) st = weights_share(&m->weights, fd, &load, err);
    if (st != OK && m->file) error_prefix(err, "%s", opt->path);
    model_close(m);
    return st;
}

const struct model_info *model_info(const struct model *m)
{
    return &m->facts.info;
}

struct backend *model_backend(const struct model *m)
{
    return m->backend;
}

bool model_is_streamed(const struct model *m)
{
    return m->weights.stream != NULL;
}
