/* file_notes.c - what a file lacks or has, so that answers with it are worse than they could be. */
#include "formats/file_notes.h"

#include "compute/dtype.h"
#include "text/vocab.h"

#include <stdio.h>
#include <string.h>

struct notes {
    const struct gguf *g;
    const struct vocab *v;
    char text[320]; /* of the one that needs numbers */
};

typedef const char *note_fn(struct notes *n); /* NULL: nothing to say */

static const char *no_pre_tokenizer(struct notes *n)
{
    if (n->v->kind != VOCAB_BPE || n->v->pre[0]) return NULL;
    return "tokenizer.ggml.pre is missing: text is cut in the default way, which may not be the one that the model was "
           "trained with";
}

static const char *no_types(struct notes *n)
{
    if (gguf_find(n->g, "tokenizer.ggml.token_type")) return NULL;
    return "tokenizer.ggml.token_type is missing: no token is known to be a control token, so none is found in prompts";
}

static const char *no_end(struct notes *n)
{
    for (uint32_t id = 0; id < n->v->n_ids; id++)
        if (vocab_is_end(n->v, (int32_t)id)) return NULL;
    return "no token ends an answer (tokenizer.ggml.eos_token_id): answers go on to their limit";
}

static const char *end_is_text(struct notes *n)
{
    int32_t id = n->v->eot_id != TOKEN_NONE ? n->v->eot_id : n->v->eos_id;
    if (!vocab_has_text(n->v, id) || n->v->tokens[id].type == TOKEN_CONTROL ||
        !gguf_find(n->g, "tokenizer.ggml.token_type"))
        return NULL;
    snprintf(n->text, sizeof(n->text),
             "the end token %d is no control token in tokenizer.ggml.token_type: text can become it", id);
    return n->text;
}

static const char *no_template(struct notes *n)
{
    return n->v->chat_template ? NULL : "tokenizer.chat_template is missing: chat is answered with 501";
}

static const char *rows_without_text(struct notes *n)
{
    if (n->v->n_ids == n->v->n_tokens) return NULL;
    snprintf(n->text, sizeof(n->text), "token_embd.weight has %u rows for %u tokens: the ids behind them have no text",
             n->v->n_ids, n->v->n_tokens);
    return n->text;
}

/* Weights of this few bits cost quality that shows; ternary ones are those of models trained with them. */
static bool is_coarse(uint32_t type)
{
    const struct dtype_info *d = dtype_info(type);
    return d->block_bytes * 8 < d->block_elems * 4 && type != DTYPE_TQ1_0 && type != DTYPE_TQ2_0;
}

static const char *coarse_weights(struct notes *n)
{
    const struct tensor_dir *dir = gguf_tensors(n->g);
    uint64_t all = 0, coarse = 0;
    uint32_t coarsest = DTYPE_F32;
    for (size_t i = 0; i < dir->n; i++) {
        const struct tensor_entry *t = &dir->entries[i];
        all += t->bytes;
        if (!is_coarse(t->type)) continue;
        coarse += t->bytes;
        const struct dtype_info *d = dtype_info(t->type), *c = dtype_info(coarsest);
        if (d->block_bytes * c->block_elems < c->block_bytes * d->block_elems) coarsest = t->type;
    }
    if (coarse <= all / 10) return NULL;
    snprintf(
        n->text, sizeof(n->text),
        "%llu of 100 bytes of weights are of types with fewer than 4 bits a weight (down to %s): answers are worse "
        "than with larger types",
        (unsigned long long)(100 * coarse / all), dtype_info(coarsest)->name);
    return n->text;
}

/* What the tensors of one place in all layers have in common: "ffn_down.weight". */
struct place {
    const char *name;
    uint32_t coarsest, finest; /* types */
};

static const char *place_in_layer(const char *name)
{
    if (strncmp(name, "blk.", 4) != 0) return NULL;
    name += 4 + strspn(name + 4, "0123456789");
    return *name == '.' ? name + 1 : NULL;
}

static double bits_of(uint32_t type)
{
    return 8.0 * dtype_info(type)->block_bytes / dtype_info(type)->block_elems;
}

static void note_type(struct place *places, size_t *n, size_t cap, const struct tensor_entry *t)
{
    const char *name = place_in_layer(t->name);
    size_t i = 0;
    if (!name || t->n_dims < 2) return;
    while (i < *n && strcmp(places[i].name, name) != 0) i++;
    if (i == cap) return;
    if (i == *n) places[(*n)++] = (struct place){ name, t->type, t->type };
    if (bits_of(t->type) < bits_of(places[i].coarsest)) places[i].coarsest = t->type;
    if (bits_of(t->type) > bits_of(places[i].finest)) places[i].finest = t->type;
}

/* Usual mixes give a few layers the next larger type. */
static const char *odd_mix(struct notes *n)
{
    enum { MAX_PLACES = 32, APART = 3 };
    const struct tensor_dir *dir = gguf_tensors(n->g);
    struct place places[MAX_PLACES];
    size_t n_places = 0;
    for (size_t i = 0; i < dir->n; i++) note_type(places, &n_places, MAX_PLACES, &dir->entries[i]);
    for (size_t i = 0; i < n_places; i++) {
        if (bits_of(places[i].finest) < APART * bits_of(places[i].coarsest)) continue;
        snprintf(
            n->text, sizeof(n->text),
            "%.60s is %s in some layers and %s in others, an odd mix: answers are about those of the coarsest layers",
            places[i].name, dtype_info(places[i].finest)->name, dtype_info(places[i].coarsest)->name);
        return n->text;
    }
    return NULL;
}

/* A number under the architecture's own name: "llama.context_length"; false if there is none. */
static bool arch_number(const struct gguf *g, const char *what, uint32_t *out)
{
    struct bytes arch;
    char key[128];
    if (gguf_get_str(g, "general.architecture", &arch, NULL) != OK || arch.n > 64) return false;
    snprintf(key, sizeof(key), "%.*s.%s", (int)arch.n, (const char *)arch.p, what);
    return gguf_get_u32(g, key, out, NULL) == OK;
}

static const char *short_window(struct notes *n)
{
    uint32_t window, context;
    if (!arch_number(n->g, "attention.sliding_window", &window) || window == 0) return NULL;
    if (!arch_number(n->g, "context_length", &context) || window >= context) return NULL;
    snprintf(
        n->text, sizeof(n->text),
        "attention.sliding_window is %u: sliding attention is not there, so contexts end at that length, not at %u",
        window, context);
    return n->text;
}

void file_notes(const struct gguf *g, const struct vocab *v, void (*fn)(void *arg, const char *note), void *arg)
{
    static note_fn *const all[] = {
        no_pre_tokenizer,  no_types,       no_end,  end_is_text,  no_template,
        rows_without_text, coarse_weights, odd_mix, short_window,
    };
    struct notes n = { .g = g, .v = v };
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        const char *note = all[i](&n);
        if (note) fn(arg, note);
    }
}
