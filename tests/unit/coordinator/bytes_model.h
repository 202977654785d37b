/* bytes_model.h - a model file whose tokens are single bytes: ids can be read off a text.
 *
 * Token i < 256 is the byte i; 256 is <|end|>, 257 <s>, with which every prompt begins, 258 a word. */
#ifndef TESTS_COORDINATOR_BYTES_MODEL_H
#define TESTS_COORDINATOR_BYTES_MODEL_H
#include "helpers/gguf_build.h"
#include "text/vocab.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <unistd.h>

enum { BYTES_END = 256, BYTES_BOS, BYTES_WORD, BYTES_COUNT };

#define BYTES_CONTEXT 64
#define BYTES_TEMPLATE                                                                                                 \
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[a]{% endif %}"

/* How byte-level vocabularies write a byte: itself where it can be seen, a letter from U+0100 on otherwise. */
static inline void bytes_token(uint32_t byte, uint32_t *hidden, char out[4])
{
    bool seen = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    uint32_t code = seen ? byte : 0x100 + (*hidden)++;
    if (code < 0x80)
        snprintf(out, 4, "%c", (char)code);
    else
        snprintf(out, 4, "%c%c", (char)(0xC0 | code >> 6), (char)(0x80 | (code & 0x3F)));
}

/* The vocabulary's metadata. */
static inline void bytes_vocab(struct gguf_build *b)
{
    static const char *const none[] = { NULL };
    static char texts[256][4];
    const char *tokens[BYTES_COUNT];
    int32_t types[BYTES_COUNT];
    uint32_t hidden = 0;
    for (uint32_t i = 0; i < 256; i++) bytes_token(i, &hidden, texts[i]);
    for (uint32_t i = 0; i < BYTES_COUNT; i++) {
        tokens[i] = i < 256 ? texts[i] : i == BYTES_END ? "<|end|>" : i == BYTES_BOS ? "<s>" : "word";
        types[i] = i == BYTES_END || i == BYTES_BOS ? TOKEN_CONTROL : TOKEN_NORMAL;
    }
    gguf_build_str(b, "tokenizer.ggml.model", "gpt2");
    gguf_build_str(b, "tokenizer.ggml.pre", "default");
    gguf_build_strs(b, "tokenizer.ggml.tokens", tokens, BYTES_COUNT);
    gguf_build_i32s(b, "tokenizer.ggml.token_type", types, BYTES_COUNT);
    gguf_build_strs(b, "tokenizer.ggml.merges", none, 0);
    gguf_build_u32(b, "tokenizer.ggml.eos_token_id", BYTES_END);
    gguf_build_u32(b, "tokenizer.ggml.bos_token_id", BYTES_BOS);
    gguf_build_bool(b, "tokenizer.ggml.add_bos_token", true);
}

/* Writes it to `path`, without weights but the embedding; `chat_template` NULL: without one. */
static inline void bytes_model_write(const char *path, const char *arch, const char *chat_template)
{
    char key[128];
    struct gguf_build b;
    gguf_build_init(&b, 3);
    gguf_build_str(&b, "general.architecture", arch);
    snprintf(key, sizeof(key), "%s.context_length", arch);
    gguf_build_u32(&b, key, BYTES_CONTEXT);
    snprintf(key, sizeof(key), "%s.embedding_length", arch);
    gguf_build_u32(&b, key, 4);
    bytes_vocab(&b);
    if (chat_template) gguf_build_str(&b, "tokenizer.chat_template", chat_template);
    gguf_build_tensor(&b, "token_embd.weight", 0, 2, (uint64_t[]){ 4, BYTES_COUNT }, NULL, 4 * BYTES_COUNT * 4);
    cr_assert(gguf_build_save(&b, path), "%s", path);
}
#endif
