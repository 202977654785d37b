/* synth_meta.c - metadata of a synthetic model, with a byte-level BPE vocabulary of any size. */
#include "base/strbuf.h"
#include "bench/synth.h"
#include "formats/gguf.h"
#include "text/bytelevel.h"
#include "text/vocab.h"

#include <stdio.h>
#include <string.h>

#define D(field)   offsetof(struct synth_shape, field)
#define N_SPECIALS 3u
#define N_LETTERS  26u
/* Merges: two lower-case letters, or a space and one. */
#define MAX_MERGES (N_LETTERS * (N_LETTERS + 1))

static const char *const SPECIALS[N_SPECIALS] = { "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>" };

struct meta {
    struct strbuf *out;
    uint32_t n_keys;
};

static void put_u32(struct strbuf *out, uint32_t v)
{
    strbuf_add(out, &v, 4);
}

static void put_str(struct strbuf *out, const char *s, size_t n)
{
    uint64_t len = n;
    strbuf_add(out, &len, 8);
    strbuf_add(out, s, n);
}

static void key(struct meta *m, const char *name, enum gguf_type type)
{
    put_str(m->out, name, strlen(name));
    put_u32(m->out, type);
    m->n_keys++;
}

static void key_u32(struct meta *m, const char *name, uint32_t v)
{
    key(m, name, GGUF_U32);
    put_u32(m->out, v);
}

static void key_str(struct meta *m, const char *name, const char *v)
{
    key(m, name, GGUF_STRING);
    put_str(m->out, v, strlen(v));
}

static void key_array(struct meta *m, const char *name, enum gguf_type elem, uint64_t n)
{
    key(m, name, GGUF_ARRAY);
    put_u32(m->out, elem);
    strbuf_add(m->out, &n, 8);
}

/* Token i of the 256 bytes, as the vocabulary spells it. */
static size_t byte_text(uint32_t i, char out[2])
{
    return bytelevel_encode((uint8_t)i, out);
}

/* The two sides of merge i. */
static void merge_sides(uint32_t i, char left[2], size_t *n_left, char *right)
{
    uint32_t first = i / N_LETTERS;
    *n_left = byte_text(first < N_LETTERS ? 'a' + first : ' ', left);
    *right = (char)('a' + i % N_LETTERS);
}

static uint32_t n_merges(uint32_t n_vocab)
{
    uint32_t room = n_vocab - 256 - N_SPECIALS;
    return room < MAX_MERGES ? room : MAX_MERGES;
}

static void put_token(struct strbuf *out, uint32_t i, uint32_t merges, uint32_t n_vocab)
{
    char text[32];
    size_t n;
    if (i < 256) {
        n = byte_text(i, text);
    } else if (i < 256 + merges) {
        merge_sides(i - 256, text, &n, &text[2]);
        text[n] = text[2];
        n++;
    } else if (i < n_vocab - N_SPECIALS) {
        n = (size_t)snprintf(text, sizeof(text), "<|filler_%u|>", i);
    } else {
        const char *special = SPECIALS[i - (n_vocab - N_SPECIALS)];
        put_str(out, special, strlen(special));
        return;
    }
    put_str(out, text, n);
}

static void put_vocab(struct meta *m, uint32_t n_vocab)
{
    uint32_t merges = n_merges(n_vocab);

    key_str(m, "tokenizer.ggml.model", "gpt2");
    key_str(m, "tokenizer.ggml.pre", "llama-bpe");
    key_array(m, "tokenizer.ggml.tokens", GGUF_STRING, n_vocab);
    for (uint32_t i = 0; i < n_vocab; i++) put_token(m->out, i, merges, n_vocab);
    key_array(m, "tokenizer.ggml.token_type", GGUF_I32, n_vocab);
    for (uint32_t i = 0; i < n_vocab; i++)
        put_u32(m->out, i >= n_vocab - N_SPECIALS ? TOKEN_CONTROL : i < 256 + merges ? TOKEN_NORMAL : TOKEN_UNUSED);
    key_array(m, "tokenizer.ggml.merges", GGUF_STRING, merges);
    for (uint32_t i = 0; i < merges; i++) {
        char text[4];
        size_t n;
        merge_sides(i, text, &n, &text[3]);
        text[n] = ' ';
        text[n + 1] = text[3];
        put_str(m->out, text, n + 2);
    }
    key_u32(m, "tokenizer.ggml.bos_token_id", n_vocab - 3);
    key_u32(m, "tokenizer.ggml.eos_token_id", n_vocab - 2);
    key_u32(m, "tokenizer.ggml.eot_token_id", n_vocab - 1);
}

/* Keys behind "<arch>.", in the order of the file: those whose fact is not 0. */
static const struct {
    const char *name;
    size_t at; /* in struct synth_shape */
    enum gguf_type type;
} KEYS[] = {
    { "block_count", D(n_layers), GGUF_U32 },
    { "context_length", D(context_length), GGUF_U32 },
    { "embedding_length", D(d_model), GGUF_U32 },
    { "feed_forward_length", D(d_ff), GGUF_U32 },
    { "attention.head_count", D(n_heads), GGUF_U32 },
    { "attention.head_count_kv", D(n_kv_heads), GGUF_U32 },
    { "attention.layer_norm_rms_epsilon", D(norm_eps), GGUF_F32 },
    { "rope.dimension_count", D(rope_dims), GGUF_U32 },
    { "rope.freq_base", D(rope_base), GGUF_F32 },
    { "vocab_size", D(n_vocab), GGUF_U32 },
    { "rope.freq_base_swa", D(rope_base_swa), GGUF_F32 },
    { "rope.scaling.factor", D(scaling_factor), GGUF_F32 },
    { "rope.scaling.original_context_length", D(original_context), GGUF_U32 },
    { "rope.scaling.yarn_log_multiplier", D(yarn_log_multiplier), GGUF_F32 },
    { "attention.key_length", D(key_length), GGUF_U32 },
    { "attention.value_length", D(value_length), GGUF_U32 },
    { "attention.sliding_window", D(window), GGUF_U32 },
    { "attention.kv_lora_rank", D(kv_lora), GGUF_U32 },
    { "attention.key_length_mla", D(key_mla), GGUF_U32 },
    { "attention.value_length_mla", D(value_mla), GGUF_U32 },
    { "expert_count", D(n_experts), GGUF_U32 },
    { "expert_used_count", D(n_used), GGUF_U32 },
    { "expert_feed_forward_length", D(ff_expert), GGUF_U32 },
    { "expert_shared_count", D(n_shared), GGUF_U32 },
    { "expert_weights_scale", D(expert_scale), GGUF_F32 },
    { "expert_gating_func", D(gating), GGUF_U32 },
    { "leading_dense_block_count", D(n_dense), GGUF_U32 },
    { "ssm.conv_kernel", D(conv_kernel), GGUF_U32 },
    { "ssm.inner_size", D(ssm_inner), GGUF_U32 },
    { "ssm.state_size", D(ssm_state), GGUF_U32 },
    { "ssm.time_step_rank", D(ssm_heads), GGUF_U32 },
    { "ssm.group_count", D(ssm_groups), GGUF_U32 },
    { "full_attention_interval", D(full_interval), GGUF_U32 },
};

static void put_facts(struct meta *m, const struct synth_shape *s)
{
    char name[64];
    for (size_t i = 0; i < sizeof(KEYS) / sizeof(KEYS[0]); i++) {
        uint32_t bits;
        memcpy(&bits, (const char *)s + KEYS[i].at, sizeof(bits));
        if (bits == 0) continue;
        snprintf(name, sizeof(name), "%s.%s", s->family->arch, KEYS[i].name);
        key(m, name, KEYS[i].type);
        put_u32(m->out, bits);
    }
    if (s->scaling) {
        snprintf(name, sizeof(name), "%s.rope.scaling.type", s->family->arch);
        key_str(m, name, s->scaling);
    }
    if (s->ff_shared && !s->n_shared) { /* of one shared expert, whose width need not be a multiple of the others' */
        snprintf(name, sizeof(name), "%s.expert_shared_feed_forward_length", s->family->arch);
        key_u32(m, name, s->ff_shared);
    }
    if (s->kv_lora) { /* none: llama.cpp takes that for granted only of a model of 27 layers */
        snprintf(name, sizeof(name), "%s.attention.q_lora_rank", s->family->arch);
        key_u32(m, name, 0);
    }
    if (s->rope_sections[0]) {
        snprintf(name, sizeof(name), "%s.rope.dimension_sections", s->family->arch);
        key_array(m, name, GGUF_I32, 4);
        for (int i = 0; i < 4; i++) put_u32(m->out, s->rope_sections[i]);
    }
}

uint32_t synth_metadata(struct strbuf *out, const struct synth_shape *s, const char *type_name)
{
    struct meta m = { out, 0 };
    char name[64];

    snprintf(name, sizeof(name), "synthetic %s %s", s->name, type_name);
    key_str(&m, "general.architecture", s->family->arch);
    key_str(&m, "general.name", name);
    put_facts(&m, s);
    put_vocab(&m, s->n_vocab);
    return m.n_keys;
}
