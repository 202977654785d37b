/* strbuf.c - growth, bound and formatting of text buffers. */
#include "base/strbuf.h"

#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void strbuf_init(struct strbuf *sb, size_t max)
{
    *sb = (struct strbuf){ .max = max };
}

void strbuf_fini(struct strbuf *sb)
{
    mem_free(sb->s);
    *sb = (struct strbuf){ .max = sb->max };
}

void strbuf_reset(struct strbuf *sb)
{
    sb->n = 0;
    sb->overflowed = false;
    if (sb->s) sb->s[0] = '\0';
}

/* Makes room for n more bytes and the NUL; false past the bound. */
static bool reserve(struct strbuf *sb, size_t n)
{
    size_t max = sb->max ? sb->max : STRBUF_MAX;
    if (sb->overflowed || n > max || sb->n > max - n) {
        sb->overflowed = true;
        return false;
    }
    size_t need = sb->n + n + 1;
    if (need > sb->cap) {
        size_t cap = sb->cap ? sb->cap : 64;
        while (cap < need) cap += cap / 2;
        sb->s = mem_resize(sb->s, cap, 1);
        sb->cap = cap;
    }
    return true;
}

void strbuf_add(struct strbuf *sb, const void *p, size_t n)
{
    if (!reserve(sb, n)) return;
    if (n) memcpy(sb->s + sb->n, p, n);
    sb->n += n;
    sb->s[sb->n] = '\0';
}

void strbuf_puts(struct strbuf *sb, const char *s)
{
    strbuf_add(sb, s, strlen(s));
}

void strbuf_putc(struct strbuf *sb, char c)
{
    strbuf_add(sb, &c, 1);
}

void strbuf_addf(struct strbuf *sb, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n > 0 && reserve(sb, (size_t)n)) {
        vsnprintf(sb->s + sb->n, (size_t)n + 1, fmt, again);
        sb->n += (size_t)n;
    }
    va_end(again);
}

void strbuf_drop(struct strbuf *sb, size_t n)
{
    if (n == 0) return;
    memmove(sb->s, sb->s + n, sb->n - n + 1);
    sb->n -= n;
}

const char *strbuf_cstr(const struct strbuf *sb)
{
    return sb->s ? sb->s : "";
}

char *strbuf_take(struct strbuf *sb, size_t *n_out)
{
    char *s = sb->s ? sb->s : mem_strdup("");
    if (n_out) *n_out = sb->n;
    sb->s = NULL;
    sb->n = sb->cap = 0;
    sb->overflowed = false;
    return s;
}
