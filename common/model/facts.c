/* facts.c - the metadata that families share, and the life of what is read. */
#include "model/facts.h"

#include "base/mem.h"
#include "base/token_id.h"
#include "formats/gguf.h"
#include "model/block_sizes.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define D_FF_MAX     (1u << 20)
#define CONTEXT_MAX  (1u << 24)
#define HEADS_MAX    1024
#define HEAD_DIM_MAX 1024

enum status facts_sizes(const struct meta *m, struct model_facts *f)
{
    struct model_info *info = &f->info;
    enum status st = meta_u32(m, "block_count", 1, MODEL_MAX_LAYERS, &info->n_layers);
    if (st == OK) st = meta_u32(m, "context_length", 1, CONTEXT_MAX, &info->context_length);
    if (st == OK) st = meta_u32(m, "embedding_length", 1, 1u << 17, &info->d_model);
    if (st == OK) st = meta_u32_or(m, "vocab_size", 0, 1, TOKEN_IDS_MAX, &info->n_vocab);
    if (st == OK) st = meta_f32_or(m, "attention.layer_norm_rms_epsilon", 1e-5f, 1e-12f, 1e-1f, &info->norm_eps);
    if (st == OK) st = meta_u32_or(m, "nextn_predict_layers", 0, 0, info->n_layers - 1, &f->n_guessing);
    if (st != OK) return st;
    info->n_layers -= f->n_guessing;
    f->layers = mem_array(info->n_layers, sizeof(*f->layers));
    for (uint32_t i = 0; i < info->n_layers; i++) {
        f->layers[i].mixer_norms.before_name = "attn_norm.weight";
        f->layers[i].channel_norms.before_name = "ffn_norm.weight";
    }
    return OK;
}

/* Dimensions of a head: said, or the width shared out over the heads of the first layer. */
static enum status read_head_dim(const struct meta *m, const struct model_info *info, uint32_t n_heads, uint32_t *out)
{
    uint32_t v_len;
    if (!meta_has(m, "attention.key_length") && info->d_model % n_heads != 0)
        return error_set(m->err, ERR_INVALID,
                         "embedding_length %u is not a multiple of %u heads, and "
                         "attention.key_length is missing",
                         info->d_model, n_heads);
    enum status st = meta_u32_or(m, "attention.key_length", info->d_model / n_heads, 2, HEAD_DIM_MAX, out);
    if (st != OK) return st;
    if (*out < 2 || *out > HEAD_DIM_MAX || *out % 2 != 0)
        return error_set(m->err, ERR_INVALID, "a head has %u dimensions, allowed are even numbers from 2 to %u", *out,
                         HEAD_DIM_MAX);
    st = meta_u32_or(m, "attention.value_length", *out, 1, HEAD_DIM_MAX, &v_len);
    if (st == OK && v_len != *out)
        st = error_set(m->err, ERR_UNSUPPORTED, "keys of %u and values of %u dimensions: they must be equal", *out,
                       v_len);
    return st;
}

enum status facts_attention(const struct meta *m, struct model_facts *f)
{
    const uint32_t n = f->info.n_layers;
    uint32_t heads[MODEL_MAX_LAYERS], kv_heads[MODEL_MAX_LAYERS], head_dim = 0;
    enum status st = meta_u32_each(m, "attention.head_count", 1, HEADS_MAX, heads, n);
    if (st != OK) return st;
    for (uint32_t i = 0; i < n; i++) kv_heads[i] = heads[i];
    if (meta_has(m, "attention.head_count_kv"))
        st = meta_u32_each(m, "attention.head_count_kv", 1, HEADS_MAX, kv_heads, n);
    if (st == OK) st = read_head_dim(m, &f->info, heads[0], &head_dim);
    for (uint32_t i = 0; st == OK && i < n; i++) {
        if (heads[i] % kv_heads[i] != 0)
            st = error_set(m->err, ERR_INVALID, "%u query heads are not a multiple of %u kv heads", heads[i],
                           kv_heads[i]);
        f->layers[i].mixer = &mixer_attention;
        f->layers[i].attn = (struct attention){ .n_heads = heads[i],
                                                .n_kv_heads = kv_heads[i],
                                                .head_dim = head_dim,
                                                .facts = { .scale = 1.0f / sqrtf((float)head_dim), .causal = true } };
    }
    f->info.n_heads = heads[0];
    f->info.n_kv_heads = kv_heads[0];
    f->info.head_dim = head_dim;
    f->info.attn_scale = 1.0f / sqrtf((float)head_dim);
    return st;
}

enum status facts_end_at_window(const struct meta *m, struct model_facts *f)
{
    uint32_t window;
    enum status st = meta_u32_or(m, "attention.sliding_window", 0, 0, UINT32_MAX, &window);
    if (st == OK && window > 0 && window < f->info.context_length) f->info.context_length = window;
    return st;
}

enum status facts_windows(const struct meta *m, struct model_facts *f, uint32_t period)
{
    bool slides[MODEL_MAX_LAYERS];
    uint32_t window = 0;
    enum status st = meta_u32(m, "attention.sliding_window", 1, CONTEXT_MAX, &window);
    if (st == OK) st = meta_pattern_or(m, "attention.sliding_window_pattern", period, slides, f->info.n_layers);
    for (uint32_t i = 0; st == OK && i < f->info.n_layers; i++)
        if (slides[i]) f->layers[i].attn.facts.window = window;
    return st;
}

void facts_head_norms(struct model_facts *f)
{
    for (uint32_t i = 0; i < f->info.n_layers; i++) f->layers[i].attn.head_norms = true;
}

static enum status read_scaling_type(const struct meta *m, enum rope_scaling *out)
{
    static const struct {
        const char *word;
        enum rope_scaling scaling;
    } TYPES[] = { { "none", ROPE_PLAIN }, { "linear", ROPE_LINEAR }, { "yarn", ROPE_YARN }, { "longrope", ROPE_LONG } };
    struct bytes type;
    char key[META_KEY_MAX];
    enum status st = meta_str(m, "rope.scaling.type", &type);
    *out = ROPE_LINEAR;
    if (st != OK || type.n == 0) return st;
    for (size_t i = 0; i < sizeof(TYPES) / sizeof(TYPES[0]); i++)
        if (bytes_eq(type, TYPES[i].word, strlen(TYPES[i].word))) {
            *out = TYPES[i].scaling;
            return OK;
        }
    return error_set(m->err, ERR_UNSUPPORTED,
                     "metadata key %s is \"%.*s\", supported are none, linear, yarn and longrope",
                     meta_key(m, key, "rope.scaling.type"), (int)(type.n < 32 ? type.n : 32), (const char *)type.p);
}

static enum status read_scaling(const struct meta *m, const struct model_facts *f, struct rope_facts *r)
{
    float factor;
    enum status st = read_scaling_type(m, &r->scaling);
    if (st != OK) return st;
    /* The older key says the same. */
    st = meta_f32_or(m, "rope.scale_linear", 1.0f, 0.0f, 65536.0f, &factor);
    if (st == OK) st = meta_f32_or(m, "rope.scaling.factor", factor, 0.0f, 65536.0f, &factor);
    r->factor = factor != 0.0f ? factor : 1.0f;
    if (st == OK)
        st = meta_u32_or(m, "rope.scaling.original_context_length", f->info.context_length, 1, CONTEXT_MAX,
                         &r->original_context);
    if (st == OK) st = meta_f32_or(m, "rope.scaling.attn_factor", 1.0f, 1e-3f, 1e3f, &r->attn_factor);
    if (st == OK) st = meta_f32_or(m, "rope.scaling.yarn_beta_fast", 32.0f, 1e-3f, 1e6f, &r->beta_fast);
    if (st == OK) st = meta_f32_or(m, "rope.scaling.yarn_beta_slow", 1.0f, 1e-3f, 1e6f, &r->beta_slow);
    r->magnitude = true;
    return st;
}

enum status facts_rope(const struct meta *m, struct model_facts *f, enum rope_layout layout)
{
    struct rope_facts *r = &f->rope_facts[0];
    const uint32_t head_dim = f->info.head_dim;
    char key[META_KEY_MAX];
    f->n_ropes = 1;
    r->neox = layout == ROPE_NEOX;
    enum status st = meta_f32_or(m, "rope.freq_base", 10000.0f, 1.0f, 1e12f, &r->base);
    if (st == OK) st = meta_u32_or(m, "rope.dimension_count", head_dim, 2, head_dim, &r->dims);
    if (st == OK && r->dims % 2 != 0)
        st = error_set(m->err, ERR_INVALID, "metadata key %s is %u, it must be even",
                       meta_key(m, key, "rope.dimension_count"), r->dims);
    if (st == OK) st = read_scaling(m, f, r);
    if (st == OK && r->scaling == ROPE_YARN && r->base <= 1.0f)
        st = error_set(m->err, ERR_INVALID, "metadata key %s is 1: YaRN needs a larger one",
                       meta_key(m, key, "rope.freq_base"));
    return st;
}

void model_facts_plan_rope(struct model_facts *f, uint32_t max_context)
{
    const struct rope_divisors given = { f->rope_given[ROPE_GIVEN_FREQS], f->rope_given[ROPE_GIVEN_LONG],
                                         f->rope_given[ROPE_GIVEN_SHORT] };
    const struct rope_divisors none = { 0 };
    for (uint32_t i = 0; i < f->n_ropes; i++) {
        f->rope_factors[i] = mem_array(f->rope_facts[i].dims / 2, sizeof(float));
        rope_plan(&f->rope[i], f->rope_factors[i], &f->rope_facts[i], i == 0 ? &given : &none, max_context);
    }
    f->info.rope = f->rope[0];
    f->info.rope_long = given.longer && rope_is_long(&f->rope_facts[0], max_context);
}

enum status facts_glu(const struct meta *m, struct model_facts *f)
{
    uint32_t d_ff[MODEL_MAX_LAYERS];
    /* Files all of whose layers have experts need not say it. */
    const char *key = meta_has(m, "feed_forward_length") || !meta_has(m, "expert_feed_forward_length")
                          ? "feed_forward_length"
                          : "expert_feed_forward_length";
    enum status st = meta_u32_each(m, key, 1, D_FF_MAX, d_ff, f->info.n_layers);
    for (uint32_t i = 0; st == OK && i < f->info.n_layers; i++) {
        f->layers[i].channel = &channel_glu;
        f->layers[i].glu = (struct glu){ .d_ff = d_ff[i] };
        if (d_ff[i] > f->info.d_ff) f->info.d_ff = d_ff[i];
    }
    return st;
}

/* As one rank would have them. */
static enum status cut_whole(struct layer *l, const struct block *block, struct error *err)
{
    return block ? block->cut(l, 0, 1, err) : OK;
}

static enum status measure_layers(struct model_facts *f, struct error *err)
{
    struct block_sizes s;
    enum status st = OK;
    for (uint32_t i = 0; st == OK && i < f->info.n_layers; i++) {
        st = cut_whole(&f->layers[i], f->layers[i].mixer, err);
        if (st == OK) st = cut_whole(&f->layers[i], f->layers[i].channel, err);
    }
    if (st != OK) return st;
    sizes_init(&s, NULL, 1, f->info.d_model);
    block_sizes_of(&s, f->layers, f->info.n_layers);
    f->info.limits = s.limits;
    f->info.row_macs = s.row_macs;
    f->info.position_macs = s.position_macs;
    return OK;
}

enum status model_facts_read(struct model_facts *out, const struct gguf *g, struct error *err)
{
    struct bytes name;
    *out = (struct model_facts){ .embed_scale = 1.0f };
    enum status st = gguf_get_str(g, "general.architecture", &name, err);
    if (st == ERR_NOT_FOUND) return error_set(err, ERR_PARSE, "metadata key general.architecture is missing");
    if (st != OK) return st;
    out->family = family_find(name);
    if (!out->family) return family_refuse(name, err);
    const struct meta m = { g, out->family->name, err };
    snprintf(out->info.arch, sizeof(out->info.arch), "%s", out->family->name);
    if ((st = out->family->read(&m, out)) != OK) return st;
    out->info.fingerprint = gguf_fingerprint(g);
    return measure_layers(out, err);
}

void model_facts_fini(struct model_facts *f)
{
    mem_free(f->layers);
    for (int i = 0; i < ROPE_GIVEN_COUNT; i++) mem_free(f->rope_given[i]);
    for (int i = 0; i < MODEL_ROPES; i++) mem_free(f->rope_factors[i]);
    *f = (struct model_facts){ 0 };
}
