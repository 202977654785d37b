/* tiny_model.h - writes a GGUF of a tiny model with random weights, whole or broken in one place.
 *
 *     struct tiny_options o = tiny_defaults();
 *     char *path = tiny_write(&o);     // a temporary file, named after the process
 *     ... tiny_remove(path);           // deletes it and frees the name */
#ifndef HELPERS_TINY_MODEL_H
#define HELPERS_TINY_MODEL_H
#include "helpers/gguf_build.h"

#include <stdbool.h>
#include <stdint.h>

struct gguf_build;

enum tiny_break { TINY_WHOLE, TINY_MISSING, TINY_WRONG_SHAPE, TINY_WRONG_TYPE };

struct tiny_options {
    const char *arch;
    uint32_t n_layers, d_model, n_heads, n_kv_heads, d_ff, n_vocab, context;
    uint32_t odd_kv_heads; /* of every second layer; 0: those of the others */
    uint32_t type;         /* of matrices */
    uint32_t v_type;       /* of attn_v, which files of mixed types have otherwise */
    uint32_t norm_type;    /* of the norms: DTYPE_F32, which is 0, or DTYPE_F64 */
    bool as_f32;           /* every tensor is written as F32 with the values that its type gives */
    bool tied, bias, rope_freqs;
    bool out_bias; /* with bias: attn_output has one, too */
    uint64_t seed;
    const char *broken; /* a tensor's name, and what is wrong with it */
    enum tiny_break how;
    const char *extra_tensor; /* one more tensor, or NULL */
    /* One metadata key more, or in place of the one that would be written; NULL = none. */
    const char *u32_key;
    uint32_t u32_value;
    const char *str_key, *str_value;
    const char *drop_key;
    void (*more)(struct gguf_build *b); /* further metadata; NULL: none */
};

/* Llama, 2 layers, 4 heads over 2 kv heads of 16, 160 tokens, context 1024. */
struct tiny_options tiny_defaults(void);
char *tiny_write(const struct tiny_options *o);
void tiny_remove(char *path);
/* For writers of other models.  One tensor: F32 within `spread` of the mean; of other types about 0.1 large. */
void tiny_tensor(struct gguf_build *b, const char *name, uint32_t type, uint64_t n_cols, uint64_t n_rows, float mean,
                 float spread, uint64_t *random);
char *tiny_save(struct gguf_build *b); /* the temporary file */
/* Names of all tensors that the options give; i from 0, NULL after the last.  The buffer is the caller's. */
const char *tiny_tensor_name(const struct tiny_options *o, uint32_t i, char buf[64]);
#endif
