/* json_write.c - escapes strings and prints numbers for JSON text. */
#include "base/json_write.h"

#include "base/utf8.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void add_escape(struct strbuf *sb, unsigned char c)
{
    switch (c) {
    case '"': strbuf_puts(sb, "\\\""); break;
    case '\\': strbuf_puts(sb, "\\\\"); break;
    case '\n': strbuf_puts(sb, "\\n"); break;
    case '\r': strbuf_puts(sb, "\\r"); break;
    case '\t': strbuf_puts(sb, "\\t"); break;
    case '\b': strbuf_puts(sb, "\\b"); break;
    case '\f': strbuf_puts(sb, "\\f"); break;
    default: strbuf_addf(sb, "\\u%04x", c); break;
    }
}

void json_str(struct strbuf *sb, const char *s, size_t n)
{
    size_t plain = 0; /* start of the run that is copied as it is */
    strbuf_putc(sb, '"');
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)s[i];
        size_t len = utf8_seq_len(s + i, n - i);
        if (len > 0 && c >= 0x20 && c != '"' && c != '\\' && c != 0x7F) {
            i += len;
            continue;
        }
        strbuf_add(sb, s + plain, i - plain);
        if (len > 0) {
            add_escape(sb, c);
        } else {
            strbuf_puts(sb, "\xEF\xBF\xBD");
        }
        plain = ++i;
    }
    if (n > plain) strbuf_add(sb, s + plain, n - plain);
    strbuf_putc(sb, '"');
}

void json_cstr(struct strbuf *sb, const char *s)
{
    if (s) {
        json_str(sb, s, strlen(s));
    } else {
        strbuf_puts(sb, "null");
    }
}

void json_num(struct strbuf *sb, double v)
{
    char text[40];
    if (!isfinite(v)) {
        strbuf_puts(sb, "null");
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, v);
        if (strtod(text, NULL) == v) break;
    }
    strbuf_puts(sb, text);
}
