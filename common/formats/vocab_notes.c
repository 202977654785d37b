/* vocab_notes.c - what a file lacks, so that answers with it are worse than they could be. */
#include "formats/vocab_notes.h"

#include "text/vocab.h"

#include <stdio.h>

struct notes {
    const struct gguf *g;
    const struct vocab *v;
    char text[256]; /* of the one that needs numbers */
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

void vocab_notes(const struct gguf *g, const struct vocab *v, void (*fn)(void *arg, const char *note), void *arg)
{
    static note_fn *const all[] = {
        no_pre_tokenizer, no_types, no_end, end_is_text, no_template, rows_without_text,
    };
    struct notes n = { .g = g, .v = v };
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        const char *note = all[i](&n);
        if (note) fn(arg, note);
    }
}
