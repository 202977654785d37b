/* served_model.h - what the coordinator knows of a model: facts, vocabulary, tokenizer, chat template.
 *
 * Never weights: the file is open only while metadata and vocabulary are copied out of it.  Immutable once open: any
 * thread may read it. */
#ifndef COORDINATOR_SERVED_MODEL_H
#define COORDINATOR_SERVED_MODEL_H
#include "base/error.h"
#include "base/strbuf.h"
#include "text/tokenizer.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

struct chat;
struct chat_options;
struct chat_prompt;
struct vocab;

struct served_model {
    char *name;
    uint32_t idx; /* in the coordinator's table */
    uint64_t fingerprint;
    uint32_t n_vocab;        /* rows of the embedding, as nodes count */
    uint32_t context_length; /* what the file says */
    uint32_t d_model;
    uint64_t n_params, file_bytes;
    int64_t created; /* unix seconds, for the API */
    struct vocab *vocab;
    struct tokenizer *tokenizer;
    struct chat *chat; /* NULL: the template is beyond us, chat_error says why */
    char *chat_error;
};

enum status served_model_open(struct served_model **out, const char *name, const char *path,
                              struct error *err) MUST_CHECK;
void served_model_close(struct served_model *m); /* NULL is fine */

/* Appends the ids of a prompt (opt.add_special stays false): BOS is put in front where the vocabulary wants one
 * and the text does not begin with it.  *added_bos (may be NULL) says so.  ERR_CANCELLED once *opt.stop is true. */
enum status served_model_encode(const struct served_model *m, const char *text, size_t n, struct encode_options opt,
                                struct token_list *out, bool *added_bos, struct error *err) MUST_CHECK;
/* Messages through the model's template to a prompt, as chat_render() says.  ERR_UNSUPPORTED: it has none, or one that
 * cannot be compiled. */
enum status served_model_render(const struct served_model *m, const json_t *messages, const struct chat_options *opt,
                                struct chat_prompt *out, struct error *err) MUST_CHECK;
/* Appends the raw bytes of a token; ids that the vocabulary has no text for add nothing. */
void served_model_token_bytes(const struct served_model *m, int32_t id, struct strbuf *out);
#endif
