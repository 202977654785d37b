/* bpe.h - BPE: merges the bytes (VOCAB_BPE) or characters (VOCAB_BPE_TEXT) of each pre-tokenized piece in the order of
 * their ranks. */
#ifndef TEXT_BPE_H
#define TEXT_BPE_H
#include "base/error.h"

#include <stdatomic.h>
#include <stddef.h>

struct bpe; /* immutable: any thread may read it */
struct bpe_scratch;
struct token_list;
struct vocab;

/* Borrows `v` for its life. */
enum status bpe_create(struct bpe **out, const struct vocab *v, struct error *err) MUST_CHECK;
void bpe_destroy(struct bpe *b);
/* How many bytes of `text` have a token: the others are left out. */
size_t bpe_count_known(const struct bpe *b, const char *text, size_t n);
/* What one call of bpe_encode() works in; one thread at a time. */
enum status bpe_scratch_create(struct bpe_scratch **out, const struct bpe *b) MUST_CHECK;
void bpe_scratch_destroy(struct bpe_scratch *s); /* NULL is fine */
/* Appends the ids of `text` (valid UTF-8).  A byte for which the vocabulary has no token is left out, as
 * the tokenizers that models are trained with do.  ERR_CANCELLED once *stop (NULL: never) is true. */
enum status bpe_encode(struct bpe_scratch *s, const char *text, size_t n, const atomic_bool *stop,
                       struct token_list *out, struct error *err) MUST_CHECK;
#endif
