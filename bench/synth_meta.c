/* synth_meta.c - metadata of a synthetic llama, with a byte-level BPE vocabulary of any size. */
#include "base/strbuf.h"
#include "bench/synth.h"
#include "formats/gguf.h"
#include "text/bytelevel.h"
#include "text/vocab.h"

#include <stdio.h>
#include <string.h>

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

static void key_f32(struct meta *m, const char *name, float v)
{
    key(m, name, GGUF_F32);
    strbuf_add(m->out, &v, 4);
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

uint32_t synth_metadata(struct strbuf *out, const struct synth_shape *s, const char *type_name)
{
    struct meta m = { out, 0 };
    char name[64];

    snprintf(name, sizeof(name), "synthetic %s %s", s->name, type_name);
    key_str(&m, "general.architecture", "llama");
    key_str(&m, "general.name", name);
    key_u32(&m, "llama.block_count", s->n_layers);
    key_u32(&m, "llama.context_length", s->context_length);
    key_u32(&m, "llama.embedding_length", s->d_model);
    key_u32(&m, "llama.feed_forward_length", s->d_ff);
    key_u32(&m, "llama.attention.head_count", s->n_heads);
    key_u32(&m, "llama.attention.head_count_kv", s->n_kv_heads);
    key_f32(&m, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    key_u32(&m, "llama.rope.dimension_count", s->head_dim);
    key_f32(&m, "llama.rope.freq_base", s->rope_base);
    key_u32(&m, "llama.vocab_size", s->n_vocab);
    put_vocab(&m, s->n_vocab);
    return m.n_keys;
}
