/* error.c - fills and extends error sentences within their bound. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Drops a UTF-8 sequence that the cut at the end of `text` has split. */
static void trim_partial_utf8(char *text)
{
    size_t n = strlen(text), i = n;
    while (i > 0 && n - i < 3 && ((unsigned char)text[i - 1] & 0xC0) == 0x80) i--;
    if (i == 0) return;
    unsigned char lead = (unsigned char)text[i - 1];
    size_t want = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
    if (want > n - i + 1) text[i - 1] = '\0';
}

enum status error_set(struct error *err, enum status st, const char *fmt, ...)
{
    if (!err) return st;
    err->status = st;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(err->text, sizeof(err->text), fmt, ap);
    va_end(ap);
    if (n >= (int)sizeof(err->text)) trim_partial_utf8(err->text);
    return st;
}

enum status error_prefix(struct error *err, const char *fmt, ...)
{
    if (!err) return ERR_INTERNAL;
    char old[ERROR_TEXT_MAX], head[ERROR_TEXT_MAX];
    memcpy(old, err->text, sizeof(old));
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(head, sizeof(head), fmt, ap);
    va_end(ap);
    return error_set(err, err->status, "%s: %s", head, old);
}
