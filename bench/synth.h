/* synth.h - the parts of `baton-bench synth`: shapes, metadata with a vocabulary, random weights. */
#ifndef BENCH_SYNTH_H
#define BENCH_SYNTH_H
#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct strbuf;

struct synth_shape {
    const char *name;
    uint32_t n_layers, d_model, d_ff, n_heads, n_kv_heads, head_dim, n_vocab, context_length;
    float rope_base;
    bool tied; /* the head is the embedding */
};

/* Random blocks of one tensor type.  The same seed gives the same bytes. */
struct synth_type;

/* NULL if weights of type `name` cannot be made. */
const struct synth_type *synth_type_find(const char *name);
/* All names with spaces between, for error texts. */
void synth_type_names(struct strbuf *out);
uint32_t synth_type_number(const struct synth_type *t); /* GGUF's */
/* `bytes` (whole blocks) of weights with the standard deviation `std` and a mean near 0. */
void synth_type_fill(const struct synth_type *t, uint64_t *seed, float std, uint8_t *out, size_t bytes);

/* Smallest vocabulary: 256 bytes and the tokens that start and end texts. */
#define SYNTH_MIN_VOCAB 259u
/* Adds the metadata of a llama of that shape, with a byte-level BPE vocabulary; returns the number of keys. */
uint32_t synth_metadata(struct strbuf *out, const struct synth_shape *shape, const char *type_name);
#endif
