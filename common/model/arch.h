/* arch.h - the table of model families, and the hyperparameters that a file of one of them names. */
#ifndef MODEL_ARCH_H
#define MODEL_ARCH_H
#include "base/bytes.h"
#include "model/model.h"

struct gguf;

/* A family is a row; what differs in the forward itself is a flag that llama.c reads. */
struct arch {
    const char *name; /* general.architecture */
    bool rope_neox;   /* pairs (i, i + dims/2) instead of (2i, 2i + 1) */
    bool qkv_bias;    /* attn_{q,k,v}.bias must be there (they may be, in every family) */
};

/* Reads and checks every hyperparameter; each error names the key, its value and what is allowed.
 * Fills all of *out but n_params, weight_bytes, rotate and rope.freq_factors.  n_vocab is 0 when only
 * the tensors can tell. */
enum status arch_read(struct model_info *out, const struct arch **arch, const struct gguf *g,
                      struct error *err) MUST_CHECK;
#endif
