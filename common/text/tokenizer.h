/* tokenizer.h - the front door: text to token ids for every kind of vocabulary.
 *
 * Created once per model; any number of threads may encode with it at once. */
#ifndef TEXT_TOKENIZER_H
#define TEXT_TOKENIZER_H
#include "base/error.h"
#include "base/status.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct spans;
struct vocab;
struct tokenizer;

/* Borrows `v` for the tokenizer's life.  ERR_UNSUPPORTED names a pre-tokenizer that is not known. */
enum status tokenizer_create(struct tokenizer **out, const struct vocab *v, struct error *err) MUST_CHECK;
void tokenizer_destroy(struct tokenizer *t);

/* A lower bound of the tokens that `text` becomes, which costs next to nothing: no token takes up more bytes than the
 * longest one has. */
size_t tokenizer_at_least(const struct tokenizer *t, const char *text, size_t n);

struct token_list { /* growable; zero is the empty list */
    int32_t *ids;
    size_t n, cap;
};
void token_list_add(struct token_list *l, int32_t id);
void token_list_fini(struct token_list *l);

struct encode_options {
    bool parse_special;          /* "<|im_start|>" in the text becomes its control token; otherwise plain text */
    bool add_special;            /* BOS / EOS where the vocabulary asks for them */
    const atomic_bool *stop;     /* once true, the call ends with ERR_CANCELLED; NULL: never */
    const struct spans *literal; /* bytes that never become (a part of) a control token; NULL: none */
};

/* Appends the ids of `text` (n bytes) to `out`.  Invalid UTF-8 is refused with its byte offset
 * (ERR_PARSE).  `out` keeps what it held before on failure. */
enum status tokenizer_encode(struct tokenizer *t, const char *text, size_t n, struct encode_options opt,
                             struct token_list *out, struct error *err) MUST_CHECK;
#endif
