/* tiny_recurrent.c - lists a tiny recurrent model's metadata and tensors. */
#include "helpers/tiny_recurrent.h"

#include "base/mem.h"
#include "compute/dtype.h"
#include "helpers/gguf_build.h"
#include "helpers/tiny_model.h"

#include <stdio.h>
#include <string.h>

#define LAYERS   4
#define WIDTH    64
#define FF       96
#define VOCAB    160
#define KERNEL   4
#define HEAD_DIM 32 /* of attention */

struct writer {
    struct gguf_build b;
    const struct tiny_recurrent *o;
    uint32_t layer;
    uint64_t random;
};

static void key(struct writer *w, const char *name, uint32_t v)
{
    char full[96];
    snprintf(full, sizeof(full), "%s.%s", w->o->arch, name);
    gguf_build_u32(&w->b, full, v);
}

static void matrix(struct writer *w, const char *name, uint64_t n_cols, uint64_t n_rows)
{
    char full[96];
    snprintf(full, sizeof(full), "blk.%u.%s.weight", w->layer, name);
    tiny_tensor(&w->b, full, w->o->type, n_cols, n_rows, 0.0f, 0.2f, &w->random);
}

static void vector(struct writer *w, const char *name, uint64_t n_cols, uint64_t n_rows, float mean, float spread)
{
    char full[96];
    snprintf(full, sizeof(full), "blk.%u.%s", w->layer, name);
    tiny_tensor(&w->b, full, DTYPE_F32, n_cols, n_rows, mean, spread, &w->random);
}

static void delta(struct writer *w)
{
    const struct tiny_recurrent *o = w->o;
    const uint32_t n = o->n_heads, inner = n * o->dim, channels = inner + 2 * o->n_groups * o->dim;
    matrix(w, "attn_qkv", WIDTH, channels);
    matrix(w, "attn_gate", WIDTH, inner);
    if (strcmp(o->arch, "qwen3next") == 0) {
        matrix(w, "ssm_ba", WIDTH, 2 * n);
    } else {
        matrix(w, "ssm_beta", WIDTH, n);
        matrix(w, "ssm_alpha", WIDTH, n);
    }
    vector(w, "ssm_conv1d.weight", KERNEL, channels, 0.0f, 0.8f);
    vector(w, "ssm_dt.bias", n, 1, 0.0f, 0.5f);
    vector(w, "ssm_a", n, 1, -0.3f, 0.25f);
    vector(w, "ssm_norm.weight", o->dim, 1, 1.0f, 0.2f);
    matrix(w, "ssm_out", inner, WIDTH);
}

static void attention(struct writer *w)
{
    const uint32_t q = w->o->q_heads * HEAD_DIM, kv = w->o->kv_heads * HEAD_DIM;
    matrix(w, "attn_q", WIDTH, 2 * q);
    matrix(w, "attn_k", WIDTH, kv);
    matrix(w, "attn_v", WIDTH, kv);
    vector(w, "attn_q_norm.weight", HEAD_DIM, 1, 1.0f, 0.2f);
    vector(w, "attn_k_norm.weight", HEAD_DIM, 1, 1.0f, 0.2f);
    matrix(w, "attn_output", q, WIDTH);
}

static void mamba2(struct writer *w)
{
    const struct tiny_recurrent *o = w->o;
    const uint32_t n = o->n_heads, inner = n * o->dim, channels = inner + 2 * o->n_groups * o->state;
    matrix(w, "ssm_in", WIDTH, inner + channels + n);
    vector(w, "ssm_conv1d.weight", KERNEL, channels, 0.0f, 0.8f);
    vector(w, "ssm_conv1d.bias", channels, 1, 0.0f, 0.3f);
    vector(w, "ssm_dt.bias", n, 1, 0.0f, 0.5f);
    vector(w, "ssm_a", 1, n, -0.3f, 0.25f);
    vector(w, "ssm_d", 1, n, 1.0f, 0.3f);
    vector(w, "ssm_norm.weight", inner / o->n_groups, o->n_groups, 1.0f, 0.2f);
    matrix(w, "ssm_out", inner, WIDTH);
}

static void hybrid_keys(struct writer *w)
{
    const struct tiny_recurrent *o = w->o;
    key(w, "attention.head_count", o->q_heads);
    key(w, "attention.head_count_kv", o->kv_heads);
    key(w, "attention.key_length", HEAD_DIM);
    key(w, "attention.value_length", HEAD_DIM);
    key(w, "full_attention_interval", 2);
    key(w, "feed_forward_length", FF);
}

static void keys(struct writer *w, bool is_hybrid)
{
    const struct tiny_recurrent *o = w->o;
    gguf_build_str(&w->b, "general.architecture", o->arch);
    key(w, "block_count", LAYERS);
    key(w, "context_length", 1024);
    key(w, "embedding_length", WIDTH);
    key(w, "ssm.conv_kernel", KERNEL);
    key(w, "ssm.group_count", o->n_groups);
    key(w, "ssm.time_step_rank", o->n_heads);
    key(w, "ssm.inner_size", o->n_heads * o->dim);
    key(w, "ssm.state_size", is_hybrid ? o->dim : o->state);
    if (is_hybrid) hybrid_keys(w);
}

static void feed_forward(struct writer *w)
{
    vector(w, "post_attention_norm.weight", WIDTH, 1, 1.0f, 0.2f);
    matrix(w, "ffn_gate", WIDTH, FF);
    matrix(w, "ffn_up", WIDTH, FF);
    matrix(w, "ffn_down", FF, WIDTH);
}

char *tiny_recurrent_write(const struct tiny_recurrent *o)
{
    struct writer w = { .o = o, .random = 3 };
    const bool is_hybrid = strcmp(o->arch, "mamba2") != 0;
    gguf_build_init(&w.b, 3);
    keys(&w, is_hybrid);
    tiny_tensor(&w.b, "token_embd.weight", o->type, WIDTH, VOCAB, 0.0f, 0.2f, &w.random);
    tiny_tensor(&w.b, "output_norm.weight", DTYPE_F32, WIDTH, 1, 1.0f, 0.2f, &w.random);
    for (w.layer = 0; w.layer < LAYERS; w.layer++) {
        vector(&w, "attn_norm.weight", WIDTH, 1, 1.0f, 0.2f);
        if (!is_hybrid)
            mamba2(&w);
        else if (w.layer % 2 == 1)
            attention(&w);
        else
            delta(&w);
        if (is_hybrid) feed_forward(&w);
    }
    return tiny_save(&w.b);
}
