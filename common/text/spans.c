/* spans.c - ranges of bytes of a text, in order and without overlap. */
#include "text/spans.h"

#include "base/mem.h"

#include <assert.h>

void spans_add(struct spans *s, size_t from, size_t to)
{
    if (from == to) return;
    assert(from < to && (s->n == 0 || s->v[s->n - 1].to <= from));
    if (s->n > 0 && s->v[s->n - 1].to == from) {
        s->v[s->n - 1].to = to;
        return;
    }
    if (s->n == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 16;
        s->v = mem_resize(s->v, s->cap, sizeof(*s->v));
    }
    s->v[s->n++] = (struct span){ from, to };
}

void spans_cut(struct spans *s, size_t end)
{
    while (s->n > 0 && s->v[s->n - 1].from >= end) s->n--;
    if (s->n > 0 && s->v[s->n - 1].to > end) s->v[s->n - 1].to = end;
}

size_t spans_seek(const struct spans *s, size_t i, size_t at)
{
    while (i < s->n && s->v[i].to <= at) i++;
    return i;
}

void spans_fini(struct spans *s)
{
    mem_free(s->v);
    *s = (struct spans){ 0 };
}
