/* template_str.c - texts whose bytes know whether they are the template's own, and building them. */
#include "text/template_internal.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const uint8_t template_all_own[1]; /* only its address counts */

static bool is_uniform(const uint8_t *own)
{
    return own == NULL || own == STR_OWN;
}

struct str str_cut(struct str s, size_t from, size_t n)
{
    return (struct str){ s.p + from, n, is_uniform(s.own) ? s.own : s.own + from };
}

int str_shown(struct str s)
{
    return s.n < 60 ? (int)s.n : 60;
}

bool str_is_own(struct str s, size_t from, size_t n)
{
    if (is_uniform(s.own)) return s.own == STR_OWN || n == 0;
    return !memchr(s.own + from, 0, n);
}

static void add_flags(struct text_out *o, size_t n, bool own)
{
    char block[256];
    memset(block, own, n < sizeof(block) ? n : sizeof(block));
    for (size_t piece; n > 0 && !o->own.overflowed; n -= piece) {
        piece = n < sizeof(block) ? n : sizeof(block);
        strbuf_add(&o->own, block, piece);
    }
}

/* From here on each byte has a flag of its own. */
static void mix(struct text_out *o)
{
    if (o->mixed) return;
    o->mixed = true;
    add_flags(o, o->text.n, o->all_own);
}

void out_bytes(struct text_out *o, const void *p, size_t n, bool own)
{
    if (n == 0 || o->text.overflowed) return;
    if (o->text.n == 0) o->all_own = own;
    if (own != o->all_own) mix(o);
    strbuf_add(&o->text, p, n);
    if (o->mixed && !o->text.overflowed) add_flags(o, n, own);
}

void out_str(struct text_out *o, struct str s)
{
    if (is_uniform(s.own)) {
        out_bytes(o, s.p, s.n, s.own == STR_OWN);
        return;
    }
    if (s.n == 0 || o->text.overflowed) return;
    mix(o);
    strbuf_add(&o->text, s.p, s.n);
    if (!o->text.overflowed) strbuf_add(&o->own, s.own, s.n);
}

void out_puts(struct text_out *o, const char *s)
{
    out_bytes(o, s, strlen(s), true);
}

void out_putc(struct text_out *o, char c)
{
    out_bytes(o, &c, 1, true);
}

void out_fmt(struct text_out *o, const char *fmt, ...)
{
    char text[512]; /* numbers and names of functions: all are short */
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    assert(n >= 0 && (size_t)n < sizeof(text));
    out_bytes(o, text, (size_t)n, true);
}

struct str out_view(const struct text_out *o)
{
    return (struct str){ strbuf_cstr(&o->text), o->text.n,
                         o->mixed     ? (const uint8_t *)strbuf_cstr(&o->own)
                         : o->all_own ? STR_OWN
                                      : NULL };
}

void out_fini(struct text_out *o)
{
    strbuf_fini(&o->text);
    strbuf_fini(&o->own);
    o->mixed = o->all_own = false;
}
