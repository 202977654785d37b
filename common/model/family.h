/* family.h - a model family: how a file that names it becomes facts, and rows of layers. */
#ifndef MODEL_FAMILY_H
#define MODEL_FAMILY_H
#include "base/bytes.h"
#include "model/layer.h"
#include "model/model.h"

struct gguf;
struct meta;

#define MODEL_ROPES 2 /* tables of a model: one, or full and sliding layers their own */

/* All that a file says about a model but its weights. */
struct model_facts {
    struct model_info info; /* n_vocab: 0 when only the tensors can tell */
    const struct family *family;
    struct layer *layers; /* [info.n_layers]; owned */
    struct rope_params rope[MODEL_ROPES];
    float *freq_factors; /* host, of rope[0], or NULL; owned */
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
void model_facts_fini(struct model_facts *f);
#endif
