/* model_rank.c - opens one rank of a model: facts and plan of its part, then weights and the memory that steps use. */
#include "base/host_memory.h"
#include "formats/gguf.h"
#include "model/model_internal.h"

#include <string.h>

static bool is_power_of_two(uint32_t v)
{
    return v != 0 && (v & (v - 1)) == 0;
}

static enum status choose_rotation(struct model_info *info, const char *rotate, struct error *err)
{
    bool can = !info->latent && is_power_of_two(info->head_dim);
    const char *word = rotate ? rotate : "auto";
    if (strcmp(word, "auto") == 0) {
        info->rotate = can;
    } else if (strcmp(word, "on") == 0) {
        if (!can)
            return error_set(err, ERR_UNSUPPORTED, "rotation is on, but %s of %u dimensions are not rotated%s",
                             info->latent ? "latents" : "heads", info->head_dim,
                             info->latent ? "" : ": it takes a power of two");
        info->rotate = true;
    } else if (strcmp(word, "off") != 0) {
        return error_set(err, ERR_INVALID, "rotation is \"%s\", allowed are on, off and auto", word);
    }
    return OK;
}

static enum status check_kv(const struct model_rank *m, struct error *err)
{
    for (uint32_t i = m->place.layers.begin; i < m->place.layers.end; i++) {
        const struct kv_geometry geom = model_rank_cache(m, i).kv;
        if (geom.n_kv_heads > 0 && m->backend->ops->kv_slice_bytes(m->backend, &geom) == 0)
            return error_set(err, ERR_UNSUPPORTED, "backend %s has no KV layout for heads of %u dimensions",
                             m->backend->ops->name, geom.head_dim);
    }
    return OK;
}

enum status model_rank_bind(struct model_rank *m, const struct model_options *opt, struct error *err)
{
    enum status st = model_facts_read(&m->facts, m->file, err);
    m->weights.as_f32 = opt->as_f32;
    return st == OK ? weights_bind(&m->weights, &m->facts, m->file, m->backend, &m->place, err) : st;
}

enum status model_rank_plan(struct model_rank *m, const struct model_options *opt, struct error *err)
{
    const struct model_info *info = &m->facts.info;
    if (opt->max_batch_tokens == 0) return error_set(err, ERR_INVALID, "max_batch_tokens is 0, at least 1 is needed");
    if (opt->max_context > info->context_length)
        return error_set(err, ERR_INVALID, "max_context is %u, the model was trained for %u", opt->max_context,
                         info->context_length);
    m->kv_format = opt->kv_format;
    m->max_rows = opt->max_batch_tokens;
    m->max_context = opt->max_context ? opt->max_context : info->context_length;
    m->back = shard_rows(info->d_model, m->place.member, m->place.tp);
    m->vocab = shard_rows(info->n_vocab, m->place.member, m->place.tp);
    enum status st = choose_rotation(&m->facts.info, opt->rotate, err);
    if (st == OK) st = check_kv(m, err);
    if (st != OK) return st;
    model_facts_plan_rope(&m->facts, m->max_context);
    model_buffers_size(m);
    return OK;
}

static enum status load_weights(struct model_rank *m, const struct model_options *opt, enum weights_mode mode,
                                struct error *err)
{
    const bool tells = m->place.member == 0 && m->place.stage == 0; /* the others have about as much to read */
    const struct weights_load_options load = { opt->io, tells ? opt->progress : NULL, opt->progress_ctx };
    if (opt->weights_fd >= 0) return weights_map(&m->weights, opt->weights_fd, err);
    return mode == WEIGHTS_STREAM ? weights_open_stream(&m->weights, &load, err)
                                  : weights_load(&m->weights, &load, err);
}

enum status model_rank_load(struct model_rank *m, const struct model_options *opt, enum weights_mode mode,
                            struct error *err)
{
    enum status st = load_weights(m, opt, mode, err);
    if (st == OK) st = model_buffers_alloc(m, err);
    if (st != OK) return st;
    st = m->backend->ops->stream_open(m->backend, &m->stream);
    return st == OK ? OK : error_set(err, st, "backend %s has no stream for the model", m->backend->ops->name);
}

void model_rank_close(struct model_rank *m)
{
    if (m->stream) m->backend->ops->stream_close(m->backend, m->stream);
    if (m->backend) model_buffers_release(m);
    weights_fini(&m->weights);
    model_facts_fini(&m->facts);
}
