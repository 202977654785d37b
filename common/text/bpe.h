/* bpe.h - byte-level BPE: merges the bytes of each pre-tokenized piece in the order of their ranks. */
#ifndef TEXT_BPE_H
#define TEXT_BPE_H
#include "base/error.h"

#include <stddef.h>

struct bpe;
struct token_list;
struct vocab;

/* Borrows `v` for its life. */
enum status bpe_create(struct bpe **out, const struct vocab *v, struct error *err) MUST_CHECK;
void bpe_destroy(struct bpe *b);
/* Appends the ids of `text` (valid UTF-8).  A byte for which the vocabulary has no token is left out, as
 * the tokenizers that models are trained with do. */
enum status bpe_encode(struct bpe *b, const char *text, size_t n, struct token_list *out, struct error *err) MUST_CHECK;
#endif
