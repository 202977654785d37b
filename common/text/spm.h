/* spm.h - SentencePiece-style tokenizing: joins neighbours into the token of the best score, with bytes as
 * the last resort. */
#ifndef TEXT_SPM_H
#define TEXT_SPM_H
#include "base/status.h"

#include <stdatomic.h>
#include <stddef.h>

struct spm; /* immutable: any thread may read it */
struct spm_scratch;
struct token_list;
struct vocab;

struct spm *spm_create(const struct vocab *v); /* borrows `v` for its life */
void spm_destroy(struct spm *s);
/* Whether every byte has a token. */
bool spm_has_all_bytes(const struct spm *s);
/* What one call of spm_encode() works in; one thread at a time. */
struct spm_scratch *spm_scratch_create(const struct spm *spm);
void spm_scratch_destroy(struct spm_scratch *s); /* NULL is fine */
/* Appends the ids of `text` (valid UTF-8), with a space before it if `space_prefix`.  What is neither a
 * token nor has byte tokens becomes the unknown token, or nothing if there is none.  ERR_CANCELLED once *stop
 * (NULL: never) is true. */
enum status spm_encode(struct spm_scratch *s, const char *text, size_t n, bool space_prefix, const atomic_bool *stop,
                       struct token_list *out) MUST_CHECK;
#endif
