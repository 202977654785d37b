/* arch.c - knows the families and reads their hyperparameters out of a file's metadata. */
#include "model/arch.h"

#include "base/strbuf.h"
#include "base/token_id.h"
#include "formats/file_notes.h"
#include "formats/gguf.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define KEY_MAX 128

static const struct arch ARCHS[] = {
    { "llama", false, false },
    { "qwen2", true, true },
};
#define N_ARCHS (sizeof(ARCHS) / sizeof(ARCHS[0]))

static const struct arch *arch_find(struct bytes name)
{
    for (size_t i = 0; i < N_ARCHS; i++)
        if (bytes_eq(name, ARCHS[i].name, strlen(ARCHS[i].name))) return &ARCHS[i];
    return NULL;
}

/* One file's metadata under its family's prefix. */
struct source {
    const struct gguf *g;
    const struct arch *arch;
    struct error *err;
};

static const char *key_of(const struct source *s, char key[KEY_MAX], const char *name)
{
    snprintf(key, KEY_MAX, "%s.%s", s->arch->name, name);
    return key;
}

static bool has(const struct source *s, const char *name)
{
    char key[KEY_MAX];
    return gguf_find(s->g, key_of(s, key, name)) != NULL;
}

static enum status read_u32(const struct source *s, const char *name, uint32_t min, uint32_t max, uint32_t *out)
{
    char key[KEY_MAX];
    uint32_t v = 0;
    enum status st = gguf_get_u32(s->g, key_of(s, key, name), &v, s->err);
    if (st == ERR_NOT_FOUND) return error_set(s->err, ERR_PARSE, "metadata key %s is missing", key);
    if (st != OK) return st;
    if (v < min || v > max)
        return error_set(s->err, ERR_INVALID, "metadata key %s is %u, allowed is %u to %u", key, v, min, max);
    *out = v;
    return OK;
}

static enum status read_u32_or(const struct source *s, const char *name, uint32_t fallback, uint32_t min, uint32_t max,
                               uint32_t *out)
{
    *out = fallback;
    return has(s, name) ? read_u32(s, name, min, max, out) : OK;
}

static enum status read_f32_or(const struct source *s, const char *name, float fallback, float min, float max,
                               float *out)
{
    char key[KEY_MAX];
    float v = fallback;
    *out = fallback;
    if (!has(s, name)) return OK;
    enum status st = gguf_get_f32(s->g, key_of(s, key, name), &v, s->err);
    if (st != OK) return st;
    if (!(v >= min && v <= max)) /* NaN fails as well */
        return error_set(s->err, ERR_INVALID, "metadata key %s is %g, allowed is %g to %g", key, (double)v, (double)min,
                         (double)max);
    *out = v;
    return OK;
}

/* A key that changes the forward in a way that is not there: refused unless it says "off". */
static enum status refuse_above_zero(const struct source *s, const char *name, const char *what)
{
    char key[KEY_MAX];
    uint32_t v = 0;
    enum status st = read_u32_or(s, name, 0, 0, UINT32_MAX, &v);
    if (st != OK || v == 0) return st;
    return error_set(s->err, ERR_UNSUPPORTED, "metadata key %s is %u: %s is not supported", key_of(s, key, name), v,
                     what);
}

static enum status read_rope_scaling(const struct source *s, struct rope_params *rope)
{
    char key[KEY_MAX];
    struct bytes type = { 0 };
    float factor = 1.0f;
    enum status st;
    if (has(s, "rope.scaling.type")) {
        st = gguf_get_str(s->g, key_of(s, key, "rope.scaling.type"), &type, s->err);
        if (st != OK) return st;
    }
    bool linear = type.n == 0 || bytes_eq(type, "linear", 6);
    if (!linear && !bytes_eq(type, "none", 4))
        return error_set(s->err, ERR_UNSUPPORTED, "metadata key %s is \"%.*s\", supported are none and linear",
                         key_of(s, key, "rope.scaling.type"), (int)(type.n < 32 ? type.n : 32), (const char *)type.p);
    rope->scale = 1.0f;
    if (!linear) return OK;
    /* The older key says the same. */
    st = read_f32_or(s, "rope.scale_linear", 1.0f, 0.0f, 65536.0f, &factor);
    if (st == OK) st = read_f32_or(s, "rope.scaling.factor", factor, 0.0f, 65536.0f, &factor);
    if (st == OK && factor != 0.0f) rope->scale = 1.0f / factor;
    return st;
}

static enum status read_rope(const struct source *s, struct model_info *info)
{
    struct rope_params *rope = &info->rope;
    enum status st;
    rope->neox = s->arch->rope_neox;
    rope->attn_factor = 1.0f;
    if ((st = read_f32_or(s, "rope.freq_base", 10000.0f, 1.0f, 1e12f, &rope->base)) != OK) return st;
    if ((st = read_u32_or(s, "rope.dimension_count", info->head_dim, 2, info->head_dim, &rope->dims)) != OK) return st;
    if (rope->dims % 2 != 0)
        return error_set(s->err, ERR_INVALID, "metadata key %s.rope.dimension_count is %u, it must be even",
                         s->arch->name, rope->dims);
    return read_rope_scaling(s, rope);
}

static enum status read_heads(const struct source *s, struct model_info *info)
{
    enum status st;
    uint32_t v_len;
    if ((st = read_u32(s, "attention.head_count", 1, 1024, &info->n_heads)) != OK) return st;
    if ((st = read_u32_or(s, "attention.head_count_kv", info->n_heads, 1, info->n_heads, &info->n_kv_heads)) != OK)
        return st;
    if (info->n_heads % info->n_kv_heads != 0)
        return error_set(s->err, ERR_INVALID, "%u query heads are not a multiple of %u kv heads", info->n_heads,
                         info->n_kv_heads);
    if (!has(s, "attention.key_length") && info->d_model % info->n_heads != 0)
        return error_set(s->err, ERR_INVALID,
                         "embedding_length %u is not a multiple of %u heads, and "
                         "attention.key_length is missing",
                         info->d_model, info->n_heads);
    uint32_t dim = info->d_model / info->n_heads;
    if ((st = read_u32_or(s, "attention.key_length", dim, 2, 1024, &info->head_dim)) != OK) return st;
    if (info->head_dim < 2 || info->head_dim > 1024 || info->head_dim % 2 != 0)
        return error_set(s->err, ERR_INVALID, "a head has %u dimensions, allowed are even numbers from 2 to 1024",
                         info->head_dim);
    st = read_u32_or(s, "attention.value_length", info->head_dim, 1, 1024, &v_len);
    if (st == OK && v_len != info->head_dim)
        st = error_set(s->err, ERR_UNSUPPORTED, "keys of %u and values of %u dimensions: they must be equal",
                       info->head_dim, v_len);
    return st;
}

/* Sizes first: heads and RoPE are checked against them. */
static enum status read_sizes(const struct source *s, struct model_info *info)
{
    enum status st;
    uint32_t window;
    if ((st = read_u32(s, "block_count", 1, MODEL_MAX_LAYERS, &info->n_layers)) != OK) return st;
    if ((st = read_u32(s, "context_length", 1, 1u << 24, &info->context_length)) != OK) return st;
    if ((st = read_u32(s, "embedding_length", 1, 1u << 17, &info->d_model)) != OK) return st;
    if ((st = read_u32(s, "feed_forward_length", 1, 1u << 20, &info->d_ff)) != OK) return st;
    if ((st = read_u32_or(s, "vocab_size", 0, 1, TOKEN_IDS_MAX, &info->n_vocab)) != OK) return st;
    if ((st = read_f32_or(s, "attention.layer_norm_rms_epsilon", 1e-5f, 1e-12f, 1e-1f, &info->norm_eps)) != OK)
        return st;
    /* Within its window, a model with sliding attention is one without. */
    if ((st = read_u32_or(s, "attention.sliding_window", 0, 0, UINT32_MAX, &window)) != OK) return st;
    if (window > 0 && window < info->context_length) info->context_length = window;
    return refuse_above_zero(s, "expert_count", "a mixture of experts");
}

static enum status unknown_arch(struct bytes name, struct error *err)
{
    struct strbuf known = STRBUF_INIT;
    for (size_t i = 0; i < N_ARCHS; i++) strbuf_addf(&known, "%s%s", i ? ", " : "", ARCHS[i].name);
    enum status st = error_set(err, ERR_UNSUPPORTED, "general.architecture is \"%.*s\", supported are: %s",
                               (int)(name.n < 64 ? name.n : 64), (const char *)name.p, strbuf_cstr(&known));
    strbuf_fini(&known);
    return st;
}

enum status arch_read(struct model_info *out, const struct arch **arch, const struct gguf *g, struct error *err)
{
    struct model_info info = { 0 };
    struct bytes name;
    enum status st = file_is_whole(g, err);
    if (st != OK) return st;
    st = gguf_get_str(g, "general.architecture", &name, err);
    if (st == ERR_NOT_FOUND) return error_set(err, ERR_PARSE, "metadata key general.architecture is missing");
    if (st != OK) return st;
    struct source s = { g, arch_find(name), err };
    if (!s.arch) return unknown_arch(name, err);
    snprintf(info.arch, sizeof(info.arch), "%s", s.arch->name);
    if ((st = read_sizes(&s, &info)) != OK) return st;
    if ((st = read_heads(&s, &info)) != OK) return st;
    if ((st = read_rope(&s, &info)) != OK) return st;
    info.attn_scale = 1.0f / sqrtf((float)info.head_dim);
    info.fingerprint = gguf_fingerprint(g);
    *out = info;
    *arch = s.arch;
    return OK;
}
