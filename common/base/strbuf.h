/* strbuf.h - a growing text buffer with an upper bound.
 *
 * `s` is always NUL-terminated once anything was added, and NULL or "" before (use strbuf_cstr()).
 * Past `max` bytes nothing more is added and `overflowed` stays true, so a caller checks once at the
 * end.  May hold NUL bytes: `n` is the length. */
#ifndef BASE_STRBUF_H
#define BASE_STRBUF_H
#include "base/status.h"

#include <stddef.h>

struct strbuf {
    char *s;
    size_t n;
    size_t cap;
    size_t max; /* bound on n; 0 = STRBUF_MAX */
    bool overflowed;
};

#define STRBUF_MAX ((size_t)256 << 20)
#define STRBUF_INIT                                                                                                    \
    {                                                                                                                  \
        0                                                                                                              \
    }

void strbuf_init(struct strbuf *sb, size_t max);
void strbuf_fini(struct strbuf *sb);  /* frees; the buffer is empty and usable again */
void strbuf_reset(struct strbuf *sb); /* length 0, keeps memory, clears overflowed */
void strbuf_add(struct strbuf *sb, const void *p, size_t n);
void strbuf_puts(struct strbuf *sb, const char *s);
void strbuf_putc(struct strbuf *sb, char c);
void strbuf_addf(struct strbuf *sb, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Removes the first n bytes (n <= sb->n). */
void strbuf_drop(struct strbuf *sb, size_t n);
const char *strbuf_cstr(const struct strbuf *sb); /* never NULL; borrowed until the next change */
/* Hands the memory (mem_free) to the caller and leaves the buffer empty. */
char *strbuf_take(struct strbuf *sb, size_t *n_out);
#endif
