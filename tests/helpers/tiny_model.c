/* tiny_model.c - lists a tiny model's tensors and fills them with random numbers. */
#include "helpers/tiny_model.h"

#include "base/mem.h"
#include "compute/dtype.h"
#include "helpers/kernel_check.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define Q8_BLOCK  32
#define TYPE_Q1_0 41 /* known to the format, not supported: 18 bytes for 128 elements */

struct tensor {
    char name[64];
    uint64_t ne[2];
    uint32_t type;
    bool norm; /* around 1 */
};

struct tiny_options tiny_defaults(void)
{
    return (struct tiny_options){ .arch = "llama",
                                  .n_layers = 2,
                                  .d_model = 64,
                                  .n_heads = 4,
                                  .n_kv_heads = 2,
                                  .d_ff = 96,
                                  .n_vocab = 160,
                                  .context = 1024,
                                  .type = DTYPE_F32,
                                  .v_type = DTYPE_F32,
                                  .seed = 1 };
}

static float uniform(uint64_t *state) /* -1 .. 1 */
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(*state >> 32) / 2147483648.0f;
}

static uint32_t per_layer(const struct tiny_options *o)
{
    return !o->bias ? 9 : o->out_bias ? 13 : 12;
}

static uint32_t kv_heads_of(const struct tiny_options *o, uint32_t layer)
{
    return layer % 2 == 1 && o->odd_kv_heads > 0 ? o->odd_kv_heads : o->n_kv_heads;
}

static bool tensor_of_layer(const struct tiny_options *o, uint32_t layer, uint32_t i, struct tensor *t)
{
    uint64_t d = o->d_model, hd = d / o->n_heads, kv = hd * kv_heads_of(o, layer), ff = o->d_ff;
    const struct {
        const char *name;
        uint64_t ne[2];
        uint32_t type;
        bool norm, bias;
    } all[] = {
        { "attn_norm.weight", { d, 1 }, o->norm_type, true, false },
        { "attn_q.weight", { d, d }, o->type, false, false },
        { "attn_k.weight", { d, kv }, o->type, false, false },
        { "attn_v.weight", { d, kv }, o->v_type, false, false },
        { "attn_output.weight", { d, d }, o->type, false, false },
        { "ffn_norm.weight", { d, 1 }, o->norm_type, true, false },
        { "ffn_gate.weight", { d, ff }, o->type, false, false },
        { "ffn_up.weight", { d, ff }, o->type, false, false },
        { "ffn_down.weight", { ff, d }, o->type, false, false },
        { "attn_q.bias", { d, 1 }, DTYPE_F32, false, true },
        { "attn_k.bias", { kv, 1 }, DTYPE_F32, false, true },
        { "attn_v.bias", { kv, 1 }, DTYPE_F32, false, true },
        { "attn_output.bias", { d, 1 }, DTYPE_F32, false, true },
    };
    if (i >= per_layer(o)) return false;
    snprintf(t->name, sizeof(t->name), "blk.%u.%s", layer, all[i].name);
    memcpy(t->ne, all[i].ne, sizeof(t->ne));
    t->type = all[i].type;
    t->norm = all[i].norm;
    return true;
}

static bool tensor_at(const struct tiny_options *o, uint32_t i, struct tensor *t)
{
    const struct tensor globals[] = {
        { "token_embd.weight", { o->d_model, o->n_vocab }, o->type, false },
        { "output_norm.weight", { o->d_model, 1 }, o->norm_type, true },
        { "output.weight", { o->d_model, o->n_vocab }, o->type, false },
        { "rope_freqs.weight", { o->d_model / o->n_heads / 2, 1 }, DTYPE_F32, true },
    };
    if (i < o->n_layers * per_layer(o)) return tensor_of_layer(o, i / per_layer(o), i % per_layer(o), t);
    i -= o->n_layers * per_layer(o);
    if (i >= 2 && o->tied) i++;
    if (i >= 3 && !o->rope_freqs) i++;
    if (i >= 4) return false;
    *t = globals[i];
    return true;
}

const char *tiny_tensor_name(const struct tiny_options *o, uint32_t i, char buf[64])
{
    struct tensor t;
    if (!tensor_at(o, i, &t)) return NULL;
    memcpy(buf, t.name, sizeof(t.name));
    return buf;
}

/* Blocks of 32: a scale of 2^-7 as fp16, and codes in -16..16. */
static void *random_q8(uint64_t n, size_t *bytes, uint64_t *state)
{
    *bytes = n / Q8_BLOCK * 34;
    uint8_t *p = mem_alloc(*bytes);
    for (uint64_t b = 0; b < n / Q8_BLOCK; b++) {
        p[b * 34] = 0x00;
        p[b * 34 + 1] = 0x20;
        for (int i = 0; i < Q8_BLOCK; i++) p[b * 34 + 2 + i] = (uint8_t)(int8_t)(uniform(state) * 16.0f);
    }
    return p;
}

static void *random_f32(uint64_t n, size_t *bytes, float mean, float spread, uint64_t *state)
{
    *bytes = n * sizeof(float);
    float *p = mem_alloc(*bytes);
    for (uint64_t i = 0; i < n; i++) p[i] = mean + spread * uniform(state);
    return p;
}

/* Of any type, with values of about 0.1. */
static void *random_of_type(uint32_t type, uint64_t n, size_t *bytes, uint64_t *state)
{
    const struct dtype_info *info = dtype_info(type);
    struct check_rng rng = { ++*state };
    float *y = mem_array(n, sizeof(*y));
    double sum = 0;
    *bytes = dtype_row_bytes(type, n);
    void *p = mem_alloc(*bytes);
    check_weights(&rng, type, info->block_elems, info->block_bytes, p, n, 1.0f);
    dequantize_row(type, p, y, n);
    for (uint64_t i = 0; i < n; i++) sum += (double)y[i] * (double)y[i];
    check_weights(&rng, type, info->block_elems, info->block_bytes, p, n, (float)(0.1 / sqrt(sum / (double)n)));
    mem_free(y);
    return p;
}

static void *widened(const float *f, uint64_t n, size_t *bytes)
{
    *bytes = n * sizeof(double);
    double *p = mem_alloc(*bytes);
    for (uint64_t i = 0; i < n; i++) p[i] = (double)f[i];
    return p;
}

static void *random_data(const struct tensor *t, uint64_t n, size_t *bytes, uint64_t *state)
{
    if (t->type == DTYPE_Q8_0) return random_q8(n, bytes, state);
    if (t->type != DTYPE_F32 && !t->norm) return random_of_type(t->type, n, bytes, state);
    float *f = random_f32(n, bytes, t->norm ? 1.0f : 0.0f, t->norm ? 0.1f : 0.2f, state);
    if (t->type != DTYPE_F64) return f;
    void *wide = widened(f, n, bytes);
    mem_free(f);
    return wide;
}

static void add_tensor(struct gguf_build *b, const struct tiny_options *o, const struct tensor *t, uint64_t *state)
{
    uint64_t ne[2] = { t->ne[0], t->ne[1] };
    uint32_t type = t->type;
    bool broken = o->broken && strcmp(o->broken, t->name) == 0;
    if (broken && o->how == TINY_MISSING) return;
    if (broken && o->how == TINY_WRONG_SHAPE) ne[0] += Q8_BLOCK;
    size_t bytes;
    void *data = random_data(t, ne[0] * ne[1], &bytes, state);
    if (o->as_f32) {
        float *f = mem_array(ne[0] * ne[1], sizeof(*f));
        dequantize_row(type, data, f, ne[0] * ne[1]);
        mem_free(data);
        data = f;
        type = DTYPE_F32;
        bytes = ne[0] * ne[1] * sizeof(*f);
    }
    if (broken && o->how == TINY_WRONG_TYPE) {
        type = TYPE_Q1_0;
        ne[0] = 128; /* a shape that this type can have; its bytes are the first of the data */
        bytes = 18 * ne[1];
    }
    gguf_build_tensor(b, t->name, type, ne[1] == 1 ? 1 : 2, ne, data, bytes);
    mem_free(data);
}

static void add_u32(struct gguf_build *b, const struct tiny_options *o, const char *name, uint32_t v)
{
    char key[96];
    snprintf(key, sizeof(key), "%s.%s", o->arch, name);
    if (o->drop_key && strcmp(o->drop_key, key) == 0) return;
    if (o->u32_key && strcmp(o->u32_key, key) == 0) return;
    gguf_build_u32(b, key, v);
}

/* Layer by layer. */
static void add_kv_heads(struct gguf_build *b, const struct tiny_options *o)
{
    int32_t heads[64];
    char key[96];
    assert(o->n_layers <= 64);
    for (uint32_t l = 0; l < o->n_layers; l++) heads[l] = (int32_t)kv_heads_of(o, l);
    snprintf(key, sizeof(key), "%s.attention.head_count_kv", o->arch);
    gguf_build_i32s(b, key, heads, o->n_layers);
}

static void add_metadata(struct gguf_build *b, const struct tiny_options *o)
{
    char key[96];
    if (!o->drop_key || strcmp(o->drop_key, "general.architecture") != 0)
        gguf_build_str(b, "general.architecture", o->arch);
    add_u32(b, o, "block_count", o->n_layers);
    add_u32(b, o, "context_length", o->context);
    add_u32(b, o, "embedding_length", o->d_model);
    add_u32(b, o, "feed_forward_length", o->d_ff);
    add_u32(b, o, "attention.head_count", o->n_heads);
    if (o->odd_kv_heads > 0)
        add_kv_heads(b, o);
    else
        add_u32(b, o, "attention.head_count_kv", o->n_kv_heads);
    snprintf(key, sizeof(key), "%s.attention.layer_norm_rms_epsilon", o->arch);
    gguf_build_f32(b, key, 1e-5f);
    if (o->u32_key) gguf_build_u32(b, o->u32_key, o->u32_value);
    if (o->str_key) gguf_build_str(b, o->str_key, o->str_value);
    if (o->more) o->more(b);
}

void tiny_tensor(struct gguf_build *b, const char *name, uint32_t type, uint64_t n_cols, uint64_t n_rows, float mean,
                 float spread, uint64_t *random)
{
    const uint64_t ne[2] = { n_cols, n_rows };
    size_t bytes;
    void *data = type == DTYPE_F32    ? random_f32(n_cols * n_rows, &bytes, mean, spread, random)
                 : type == DTYPE_Q8_0 ? random_q8(n_cols * n_rows, &bytes, random)
                                      : random_of_type(type, n_cols * n_rows, &bytes, random);
    gguf_build_tensor(b, name, type, n_rows == 1 ? 1 : 2, ne, data, bytes);
    mem_free(data);
}

char *tiny_save(struct gguf_build *b)
{
    static unsigned serial;
    char path[128];
    snprintf(path, sizeof(path), "/tmp/baton-tiny-%d-%u.gguf", (int)getpid(), serial++);
    bool saved = gguf_build_save(b, path);
    assert(saved);
    (void)saved;
    return mem_strdup(path);
}

char *tiny_write(const struct tiny_options *o)
{
    struct gguf_build b;
    struct tensor t;
    uint64_t state = o->seed;
    gguf_build_init(&b, 3);
    add_metadata(&b, o);
    for (uint32_t i = 0; tensor_at(o, i, &t); i++) add_tensor(&b, o, &t, &state);
    if (o->extra_tensor) {
        t = (struct tensor){ .ne = { 32, 1 }, .type = DTYPE_F32 };
        snprintf(t.name, sizeof(t.name), "%s", o->extra_tensor);
        add_tensor(&b, o, &t, &state);
    }
    return tiny_save(&b);
}

void tiny_remove(char *path)
{
    unlink(path);
    mem_free(path);
}
