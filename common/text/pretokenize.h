/* pretokenize.h - cuts text into the pieces that byte-level BPE merges inside of.
 *
 * A pre-tokenizer is a list of patterns, applied one after the other: each cuts every piece of the one
 * before it into matches and what lies between them. */
#ifndef TEXT_PRETOKENIZE_H
#define TEXT_PRETOKENIZE_H
#include "base/error.h"

#include <stddef.h>

struct pretokenizer; /* immutable: any thread may read it */
struct pretokenize_scratch;
typedef enum status (*pretokenize_fn)(void *arg, const char *piece, size_t n);

/* `name` as GGUF files have it in tokenizer.ggml.pre; "" is "default".  ERR_UNSUPPORTED: not known. */
enum status pretokenize_create(struct pretokenizer **out, const char *name, struct error *err) MUST_CHECK;
void pretokenize_destroy(struct pretokenizer *p);
/* What one call of pretokenize_split() works in; one thread at a time. */
enum status pretokenize_scratch_create(struct pretokenize_scratch **out) MUST_CHECK;
void pretokenize_scratch_destroy(struct pretokenize_scratch *s); /* NULL is fine */
/* Whether a piece that is a token as a whole is taken so, whatever the merges say. */
bool pretokenize_ignores_merges(const struct pretokenizer *p);
/* Calls `fn` for each piece of `text` (valid UTF-8), in order, until it fails.  The pieces, none empty,
 * are all of the text. */
enum status pretokenize_split(const struct pretokenizer *p, struct pretokenize_scratch *scratch, const char *text,
                              size_t n, pretokenize_fn fn, void *arg, struct error *err) MUST_CHECK;
#endif
