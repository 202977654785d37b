/* vocab.h - a model's tokens: ids, text, kinds, scores, and the special ones.
 *
 * Filled by formats/vocab_load (from GGUF or vocabulary-only files), read by tokenizers, detok and
 * the API.  Immutable once loaded, so any thread may read it. */
#ifndef TEXT_VOCAB_H
#define TEXT_VOCAB_H
#include "base/error.h"
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

enum vocab_kind {                 /* GGUF tokenizer.ggml.model */
                  VOCAB_BPE,      /* "gpt2": merges of bytes, which tokens write in the byte-level alphabet */
                  VOCAB_SPM,      /* "llama": scores, a space is U+2581, bytes as the last resort */
                  VOCAB_BPE_TEXT, /* "gemma4": merges of characters, otherwise written as SPM's */
};

/* The numbers are GGUF's. */
enum token_type {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 3,
    TOKEN_USER_DEFINED = 4,
    TOKEN_UNUSED = 5,
    TOKEN_BYTE = 6,
};

#define TOKEN_NONE (-1)

struct vocab_token {
    const char *text; /* as the file has it (byte-level alphabet for BPE); owned by the vocab */
    uint32_t n;       /* bytes of text */
    float score;      /* SPM only */
    enum token_type type;
};

struct vocab_merge {
    const char *left, *right;
    uint32_t n_left, n_right;
};

struct vocab {
    enum vocab_kind kind;
    char *pre; /* name of the pre-tokenizer, "" if the file names none */
    uint32_t n_tokens;
    uint32_t n_ids; /* what bounds a token id (base/token_id.h): rows of the embedding, at least n_tokens */
    struct vocab_token *tokens;
    uint32_t n_merges; /* both kinds of BPE, in rank order */
    struct vocab_merge *merges;
    int32_t bos_id, eos_id, eot_id, unk_id, pad_id; /* TOKEN_NONE where the file has none */
    bool add_bos, add_eos, add_space_prefix;
    bool strip_after_special; /* white space behind a control token is dropped */
    bool end_is_inside;       /* <|end|> ends a message inside of an answer, not the answer (gpt-oss) */
    char *chat_template;      /* NULL if the file has none */
    void *storage;            /* what the texts point into; owned */
};

void vocab_destroy(struct vocab *v); /* NULL is fine */
/* Whether `id` has a text: those behind the last token, up to n_ids, have none. */
bool vocab_has_text(const struct vocab *v, int64_t id);
/* Whether generation ends at `id`: eos, eot, and control tokens that end a turn by their name. */
bool vocab_is_end(const struct vocab *v, int32_t id);
/* The byte of a byte token ("<0x0A>"), -1 for any other token.  `id` is of this vocabulary. */
int vocab_token_byte(const struct vocab *v, int32_t id);
/* The raw bytes a token stands for: byte-level alphabet undone, SPM's U+2581 as a space, byte tokens
 * as their byte; control tokens as their text.  Writes at most `cap` bytes, returns the full length. */
size_t vocab_token_bytes(const struct vocab *v, int32_t id, uint8_t *buf, size_t cap);
#endif
