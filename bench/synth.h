/* synth.h - the parts of `baton-bench synth`: shapes, families' tensors and metadata, a vocabulary, random weights. */
#ifndef BENCH_SYNTH_H
#define BENCH_SYNTH_H
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct strbuf;
struct synth_family;

/* Facts of a model; 0 where it has no such thing, and then no key says so. */
struct synth_shape {
    const char *name;
    const struct synth_family *family;
    bool tied;           /* the head is the embedding */
    const char *experts; /* the type that real files have for experts; NULL: that of all matrices */

    uint32_t n_layers, d_model, d_ff, n_heads, n_kv_heads, head_dim, n_vocab, context_length;
    float norm_eps, rope_base, rope_base_swa;
    uint32_t rope_dims, window;
    uint32_t rope_sections[4];
    const char *scaling; /* of RoPE: "linear", "yarn" */
    float scaling_factor, yarn_log_multiplier;
    uint32_t original_context;

    uint32_t n_experts, n_used, ff_expert, ff_shared, n_shared, n_dense, gating;
    float expert_scale;

    uint32_t kv_lora, key_mla, value_mla;                                             /* latent attention */
    uint32_t conv_kernel, ssm_inner, ssm_state, ssm_heads, ssm_groups, full_interval; /* recurrent layers */

    /* Derived by synth_shape_derive(): sizes of tensors, and what keys say. */
    uint32_t key_length, value_length, q, kv, q_gated, conv_channels, latent, nope, out_mla;
};

/* By name; NULL if there is none.  The caller changes layers and vocabulary, then derives. */
const struct synth_shape *synth_shape_find(const char *name);
void synth_shape_derive(struct synth_shape *s);

enum synth_layers { EVERY_LAYER, DENSE_LAYERS, EXPERT_LAYERS, FULL_LAYERS, RECURRENT_LAYERS };

enum synth_kind {
    SYNTH_MATRIX, /* --type */
    SYNTH_MORE,   /* the same, with more bits in some layers of a mix */
    SYNTH_HEAD,   /* --head: embedding and head */
    SYNTH_EXPERT, /* --experts */
    SYNTH_EXPERT_MORE,
    SYNTH_ROUTER, /* an F32 matrix */
    SYNTH_FLOATS, /* F32, uniform in [low, high] */
};

#define SYNTH_MAX_DIMS 3

struct synth_tensor {
    const char *name; /* behind "blk.N." for those of layers */
    enum synth_layers layers;
    enum synth_kind kind;
    size_t dims[SYNTH_MAX_DIMS]; /* offsets of uint32_t in struct synth_shape; 0: no more */
    float low, high;
};

struct synth_family {
    const char *arch;
    const struct synth_tensor *tensors; /* of a layer, in the file's order */
    size_t n_tensors;
};

extern const struct synth_family synth_llama, synth_qwen3moe, synth_qwen35moe, synth_gemma3, synth_gpt_oss,
    synth_deepseek2;

/* Whether layer i has such tensors. */
bool synth_layer_has(const struct synth_shape *s, uint32_t i, enum synth_layers which);

/* Random blocks of one tensor type.  The same seed gives the same bytes. */
struct synth_type;

/* NULL if weights of type `name` cannot be made. */
const struct synth_type *synth_type_find(const char *name);
/* All names with spaces between, for error texts. */
void synth_type_names(struct strbuf *out);
uint32_t synth_type_number(const struct synth_type *t); /* GGUF's */
/* `bytes` (whole blocks) of weights with the standard deviation `std` and a mean near 0. */
void synth_type_fill(const struct synth_type *t, uint64_t *seed, float std, uint8_t *out, size_t bytes);
/* n floats, uniform in [low, high]; of equal bounds without a draw. */
void synth_floats_fill(uint64_t *seed, float low, float high, float *out, size_t n);

/* Smallest vocabulary: 256 bytes and the tokens that start and end texts. */
#define SYNTH_MIN_VOCAB 259u
/* Adds the metadata of that shape, with a byte-level BPE vocabulary; returns the number of keys. */
uint32_t synth_metadata(struct strbuf *out, const struct synth_shape *shape, const char *type_name);
#endif
