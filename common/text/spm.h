/* spm.h - SentencePiece-style tokenizing: joins neighbours into the token of the best score, with bytes as
 * the last resort. */
#ifndef TEXT_SPM_H
#define TEXT_SPM_H
#include "base/status.h"

#include <stddef.h>

struct spm;
struct token_list;
struct vocab;

struct spm *spm_create(const struct vocab *v); /* borrows `v` for its life */
void spm_destroy(struct spm *s);
/* Appends the ids of `text` (valid UTF-8), with a space before it if `space_prefix`.  What is neither a
 * token nor has byte tokens becomes the unknown token, or nothing if there is none. */
enum status spm_encode(struct spm *s, const char *text, size_t n, bool space_prefix, struct token_list *out) MUST_CHECK;
#endif
