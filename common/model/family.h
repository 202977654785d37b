/* family.h - a model family: how a file that names it becomes facts, and rows of layers. */
#ifndef MODEL_FAMILY_H
#define MODEL_FAMILY_H
#include "base/bytes.h"
#include "model/layer.h"
#include "model/model.h"
#include "model/rope_plan.h"

struct gguf;
struct meta;

#define MODEL_ROPES 2 /* tables of a model: one, or full and sliding layers their own */

enum rope_given { ROPE_GIVEN_FREQS, ROPE_GIVEN_LONG, ROPE_GIVEN_SHORT, ROPE_GIVEN_COUNT };

/* All that a file says about a model but its weights. */
struct model_facts {
    struct model_info info; /* n_vocab: 0 when only the tensors can tell */
    const struct family *family;
    struct layer *layers; /* [info.n_layers]; owned */
    uint32_t n_guessing;  /* layers of the file after these, which guess further tokens: known, and not loaded */
    float embed_scale;    /* multiplies embeddings; 1 for none */
    float logit_cap;      /* logits become cap tanh(logit / cap); 0: they stay */
    uint32_t n_ropes;     /* tables of positions; layers name theirs */
    struct rope_facts rope_facts[MODEL_ROPES];
    float *rope_given[ROPE_GIVEN_COUNT];  /* host, dims/2 divisors of rope_facts[0] that the file has, or NULL; owned */
    struct rope_params rope[MODEL_ROPES]; /* from these, once the context is chosen */
    float *rope_factors[MODEL_ROPES];     /* owned */
};

/* A family is a file of families/ with one of these. */
struct family {
    const char *name; /* general.architecture */
    /* Fills facts and rows from metadata; each error names the key, its value and what is allowed. */
    enum status (*read)(const struct meta *m, struct model_facts *f);
};

/* The family of that name, or NULL. */
const struct family *family_find(struct bytes name);
/* ERR_UNSUPPORTED with the list of those that there are. */
enum status family_refuse(struct bytes name, struct error *err) MUST_CHECK;

/* Reads and checks what a file's metadata says.  The caller calls model_facts_fini() also after a failure. */
enum status model_facts_read(struct model_facts *out, const struct gguf *g, struct error *err) MUST_CHECK;
/* Fills rope[], for sessions of max_context. */
void model_facts_plan_rope(struct model_facts *f, uint32_t max_context);
void model_facts_fini(struct model_facts *f);
#endif
