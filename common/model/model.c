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
static enum status read_facts(struct model_info *info, const struct arch **arch, struct weights *w,
                              const struct gguf *g, struct backend *backend, struct error *err)
{
    enum status st = arch_read(info, arch, g, err);
    return st == OK ? weights_bind(w, info, *arch, g, backend, err) : st;
}

/* A vocabulary-only file has no tensors; its token list says how large the vocabulary is. */
static enum status read_vocab_only(struct model_info *info, const struct gguf *g, struct error *err)
{
    const struct arch *arch;
    enum status st = arch_read(info, &arch, g, err);
    const struct gguf_kv *tokens = gguf_find(g, "tokenizer.ggml.tokens");
    if (st == OK && info->n_vocab == 0 && tokens && tokens->type == GGUF_ARRAY)
        info->n_vocab = tokens->n <= TOKEN_IDS_MAX ? (uint32_t)tokens->n : 0;
    return st;
}

enum status model_read_info(struct model_info *out, const char *path, struct error *err)
{
    struct gguf *g = NULL;
    const struct arch *arch;
    struct weights w = { 0 };
    struct model_info info;
    enum status st = gguf_open(&g, path, err);
    if (st != OK) return st;
    if (gguf_tensors(g)->n == 0)
        st = read_vocab_only(&info, g, err);
    else
        st = read_facts(&info, &arch, &w, g, NULL, err);
    for (size_t i = 0; st == OK && i < gguf_tensors(g)->n; i++) info.weight_bytes += gguf_tensors(g)->entries[i].bytes;
    weights_fini(&w);
    gguf_close(g);
    if (st != OK) {
        error_prefix(err, "%s", path);
        return st;
    }
    *out = info;
    return OK;
}

struct backend_limits model_limits(const struct model_info *info, uint32_t max_rows, uint32_t max_context)
{
    uint32_t cols = info->n_heads * info->head_dim;
    if (cols < info->d_model) cols = info->d_model;
    if (cols < info->d_ff) cols = info->d_ff;
    return (struct backend_limits){ .max_rows = max_rows > MODEL_MAX_LOGIT_ROWS ? max_rows : MODEL_MAX_LOGIT_ROWS,
                                    .max_context = max_context,
                                    .max_cols = cols,
                                    .max_heads = info->n_heads,
                                    .max_head_dim = info->head_dim };
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

static enum status check_options(struct model *m, const struct model_options *opt, struct error *err)
{
    if (opt->tp_size > 1 || opt->tp_rank > 0)
        return error_set(err, ERR_UNSUPPORTED, "tensor parallel rank %u of %u: only one rank is supported",
                         opt->tp_rank, opt->tp_size);
    if (opt->max_batch_tokens == 0) return error_set(err, ERR_INVALID, "max_batch_tokens is 0, at least 1 is needed");
    if (opt->max_context > m->info.context_length)
        return error_set(err, ERR_INVALID, "max_context is %u, the model was trained for %u", opt->max_context,
                         m->info.context_length);
    m->backend = opt->backend;
    m->coll = coll_self();
    m->kv_format = opt->kv_format;
    m->max_rows = opt->max_batch_tokens;
    m->max_context = opt->max_context ? opt->max_context : m->info.context_length;
    m->q_heads = shard_units(m->info.n_heads, m->coll->rank, m->coll->size);
    m->kv_heads = shard_kv_heads(m->q_heads, m->info.n_heads, m->info.n_kv_heads);
    enum status st = choose_rotation(&m->info, opt->rotate, err);
    if (st != OK) return st;
    struct kv_geometry geom = model_kv_geometry(m, 0);
    if (m->backend->ops->kv_slice_bytes(m->backend, &geom) == 0)
        return error_set(err, ERR_UNSUPPORTED, "backend %s has no KV layout for heads of %u dimensions",
                         m->backend->ops->name, m->info.head_dim);
    return OK;
}

static enum status alloc_floats(struct model *m, size_t rows, size_t cols, float **out)
{
    uint64_t n;
    void *p = NULL;
    if (!size_mul(rows, cols, &n) || !size_mul(n, sizeof(float), &n)) return ERR_TOO_LARGE;
    enum status st = m->backend->ops->alloc(m->backend, (size_t)n, &p);
    if (st == OK) *out = p;
    return st;
}

static void release(struct model *m, void *p, size_t bytes)
{
    if (p) m->backend->ops->release(m->backend, p, bytes);
}

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Sizes of the buffers that every layer's products share. */
static void size_buffers(struct model *m)
{
    const struct backend_ops *ops = m->backend->ops;
    const struct model_info *info = &m->info;
    uint32_t q = info->n_heads * info->head_dim, kv = info->n_kv_heads * info->head_dim, n = m->max_rows;
    const struct {
        uint32_t rows, cols;
        enum precision precision;
    } inputs[] = { { n, info->d_model, FINE },
                   { n, q, COARSE },
                   { n, info->d_ff, COARSE },
                   { MODEL_MAX_LOGIT_ROWS, info->d_model, FINE } };
    m->wide_floats = n * max_size((size_t)q + 2 * (size_t)kv, 2 * (size_t)info->d_ff);
    for (size_t i = 0; i < sizeof(inputs) / sizeof(inputs[0]); i++) {
        m->act_floats = max_size(m->act_floats, (size_t)inputs[i].rows * inputs[i].cols);
        m->act_q_bytes =
            max_size(m->act_q_bytes, ops->act_bytes(m->backend, inputs[i].rows, inputs[i].cols, inputs[i].precision));
    }
    m->embed_bytes = n * weights_embed_row_bytes(&m->weights);
    m->buffer_bytes =
        (m->act_floats + m->wide_floats + (uint64_t)n * info->d_model + MODEL_MAX_LOGIT_ROWS * (uint64_t)info->d_model +
         MODEL_MAX_LOGIT_ROWS * (uint64_t)info->n_vocab) *
            sizeof(float) +
        m->act_q_bytes + m->embed_bytes;
}

static enum status alloc_embed_rows(struct model *m)
{
    enum status st = mem_try_array((void **)&m->embed_rows, m->embed_bytes, 1);
    if (st != OK || m->backend->caps.host_memory) {
        m->embed_device = m->embed_rows;
        return st;
    }
    return m->backend->ops->alloc(m->backend, m->embed_bytes, &m->embed_device);
}

static enum status alloc_buffers(struct model *m, struct error *err)
{
    size_t d = m->info.d_model, n_vocab = m->info.n_vocab;
    enum status st = alloc_floats(m, m->max_rows, d, &m->x);
    if (st == OK) st = alloc_floats(m, 1, m->wide_floats, &m->wide);
    if (st == OK) st = alloc_floats(m, 1, m->act_floats, &m->act.f);
    if (st == OK && m->act_q_bytes > 0) st = m->backend->ops->alloc(m->backend, m->act_q_bytes, &m->act.q);
    if (st == OK && !m->weights.embed_table) st = alloc_embed_rows(m);
    if (st == OK) st = alloc_floats(m, MODEL_MAX_LOGIT_ROWS, d, &m->head_x);
    if (st == OK) st = alloc_floats(m, MODEL_MAX_LOGIT_ROWS, n_vocab, &m->logits);
    if (st != OK)
        return error_set(err, st, "the step buffers for %u rows need %llu bytes", m->max_rows,
                         (unsigned long long)m->buffer_bytes);
    m->host_logits =
        m->backend->caps.host_memory ? m->logits : mem_array(MODEL_MAX_LOGIT_ROWS * n_vocab, sizeof(float));
    return OK;
}

/* File, facts and plan; what open and pack_shared have in common. */
static enum status prepare(struct model *m, const struct model_options *opt, struct error *err)
{
    enum status st = gguf_open(&m->file, opt->path, err);
    if (st != OK) return st;
    m->weights.as_f32 = opt->as_f32;
    return read_facts(&m->info, &m->arch, &m->weights, m->file, opt->backend, err);
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
    m->info.rope.freq_factors = m->weights.freq_factors;
    size_buffers(m);
    if ((st = load_weights(m, opt, err)) != OK) goto fail;
    if ((st = alloc_buffers(m, err)) != OK) goto fail;
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
    size_t d = m->info.d_model, n_vocab = m->info.n_vocab;
    if (m->stream) m->backend->ops->stream_close(m->backend, m->stream);
    if (m->host_logits != m->logits) mem_free(m->host_logits);
    release(m, m->logits, MODEL_MAX_LOGIT_ROWS * n_vocab * sizeof(float));
    if (m->embed_device != m->embed_rows) release(m, m->embed_device, m->embed_bytes);
    mem_free(m->embed_rows);
    release(m, m->head_x, MODEL_MAX_LOGIT_ROWS * d * sizeof(float));
    release(m, m->act.q, m->act_q_bytes);
    release(m, m->act.f, m->act_floats * sizeof(float));
    release(m, m->wide, m->wide_floats * sizeof(float));
    release(m, m->x, m->max_rows * d * sizeof(float));
    weights_fini(&m->weights);
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
    return &m->info;
}

struct backend *model_backend(const struct model *m)
{
    return m->backend;
}

bool model_is_streamed(const struct model *m)
{
    return m->weights.stream != NULL;
}

struct kv_geometry model_kv_geometry(const struct model *m, uint32_t layer)
{
    return (struct kv_geometry){ .n_kv_heads = m->kv_heads.end - m->kv_heads.begin,
                                 .head_dim = m->info.head_dim,
                                 .format = m->kv_format,
                                 .rotate = m->info.rotate };
}
