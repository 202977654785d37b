/* special.h - finds tokens that are matched in the text before it is tokenized.
 *
 * User-defined tokens always, control and unknown tokens only where the caller asks and no byte of them is
 * literal; the leftmost match counts, and of several there the longest. */
#ifndef TEXT_SPECIAL_H
#define TEXT_SPECIAL_H
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct spans;
struct vocab;
struct special;

struct special_scan { /* one pass over a text, from left to right */
    const char *text;
    size_t n;
    bool control;                /* match control and unknown tokens */
    const struct spans *literal; /* but not with these bytes; NULL: none */
    size_t at;                   /* where in `literal` the pass is; 0 at the start */
};

struct special_match {
    size_t pos, n; /* where in the text, bytes */
    int32_t id;    /* TOKEN_NONE and pos = n of the text if there is none */
};

/* Borrows `v` for its life.  ERR_TOO_LARGE: the texts of special tokens are out of all proportion. */
enum status special_create(struct special **out, const struct vocab *v, struct error *err) MUST_CHECK;
void special_destroy(struct special *s);
/* The first match in text[from..n); `from` never goes back during a pass. */
struct special_match special_find(const struct special *s, struct special_scan *scan, size_t from);
#endif
