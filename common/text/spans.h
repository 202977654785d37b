/* spans.h - ranges of bytes of a text, in order and without overlap: which of a prompt came from a client. */
#ifndef TEXT_SPANS_H
#define TEXT_SPANS_H
#include <stdbool.h>
#include <stddef.h>

struct span {
    size_t from, to; /* from < to */
};

struct spans { /* growable; zero is the empty list */
    struct span *v;
    size_t n, cap;
};

/* Adds [from, to), which begins at or behind the end of the last one; what touches it becomes one with it. */
void spans_add(struct spans *s, size_t from, size_t to);
/* Forgets what lies at or behind `end`, for a text that is cut there. */
void spans_cut(struct spans *s, size_t end);
/* The index of the first span that ends behind `at`, from index `i` on; s->n if there is none. */
size_t spans_seek(const struct spans *s, size_t i, size_t at);
void spans_fini(struct spans *s);
#endif
