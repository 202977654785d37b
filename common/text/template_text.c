/* template_text.c - strings as Python has them: sequences of code points, over UTF-8 bytes. */
#include "text/template_internal.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

int32_t text_next(struct str s, size_t *pos)
{
    const unsigned char *p = (const unsigned char *)s.p + *pos;
    size_t left = s.n - *pos;
    if (p[0] < 0x80) {
        *pos += 1;
        return p[0];
    }
    utf8proc_int32_t c;
    utf8proc_ssize_t n = utf8proc_iterate(p, (utf8proc_ssize_t)left, &c);
    *pos += n > 0 ? (size_t)n : 1;
    return n > 0 ? c : 0xFFFD;
}

size_t text_length(struct str s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) n += ((unsigned char)s.p[i] & 0xC0) != 0x80;
    return n;
}

size_t text_offset(struct str s, size_t n_points)
{
    size_t i = 0;
    while (i < s.n) {
        if (((unsigned char)s.p[i] & 0xC0) != 0x80 && n_points-- == 0) break;
        i++;
    }
    return i;
}

bool text_is_space(int32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

static bool is_stripped(struct str s, size_t pos, const struct str *chars)
{
    int32_t c = text_next(s, &pos);
    if (!chars) return text_is_space(c);
    for (size_t i = 0; i < chars->n;)
        if (text_next(*chars, &i) == c) return true;
    return false;
}

struct str text_strip(struct str s, const struct str *chars, bool left, bool right)
{
    size_t from = 0, to = s.n;
    while (left && from < to && is_stripped(s, from, chars)) text_next(s, &from);
    while (right && to > from) {
        size_t last = to - 1;
        while (last > from && ((unsigned char)s.p[last] & 0xC0) == 0x80) last--;
        if (!is_stripped(s, last, chars)) break;
        to = last;
    }
    return str_cut(s, from, to - from);
}

static void put_char(struct text_out *sb, int32_t c, bool own)
{
    utf8proc_uint8_t bytes[4];
    out_bytes(sb, bytes, (size_t)utf8proc_encode_char(c, bytes), own);
}

/* The letter that has two capitals is the one whose change of length real prompts contain. */
static void put_cased(struct text_out *sb, int32_t c, bool upper, bool title, bool own)
{
    if (c == 0xDF && upper)
        out_bytes(sb, title ? "Ss" : "SS", 2, own);
    else
        put_char(sb, !upper ? utf8proc_tolower(c) : title ? utf8proc_totitle(c) : utf8proc_toupper(c), own);
}

bool text_is_digit(int32_t c)
{
    return utf8proc_category(c) == UTF8PROC_CATEGORY_ND;
}

static bool is_cased(int32_t c)
{
    utf8proc_category_t cat = utf8proc_category(c);
    return cat == UTF8PROC_CATEGORY_LU || cat == UTF8PROC_CATEGORY_LL || cat == UTF8PROC_CATEGORY_LT;
}

struct value text_recase(struct render *r, struct str s, enum text_case to)
{
    struct text_out sb = TEXT_OUT_INIT;
    if (!template_charge(r, 8 * s.n)) return value_undef();
    bool starts = true; /* the next letter begins a word, or the text */
    for (size_t i = 0; i < s.n;) {
        size_t from = i;
        int32_t c = text_next(s, &i);
        bool upper = to == TEXT_UPPER || (to != TEXT_LOWER && starts);
        put_cased(&sb, c, upper, to == TEXT_CAPITALIZE || to == TEXT_TITLE, str_is_own(s, from, i - from));
        if (to == TEXT_TITLE)
            starts = !is_cased(c);
        else if (to == TEXT_TITLE_WORDS)
            starts = text_is_space(c) || (c < 128 && c && strchr("-({[<", c));
        else
            starts = false;
    }
    return value_take(r, &sb);
}

bool text_find(struct str s, struct str part, size_t from, size_t *out)
{
    if (from > s.n || part.n > s.n - from) return false;
    if (part.n == 0) {
        *out = from;
        return true;
    }
    const char *at = memmem(s.p + from, s.n - from, part.p, part.n);
    if (!at) return false;
    *out = (size_t)(at - s.p);
    return true;
}

/* `to` before every code point and at the end: what replacing an empty text means. */
static void weave(struct text_out *sb, struct str s, struct str to, int64_t n)
{
    for (size_t i = 0; i < s.n && !sb->text.overflowed;) {
        size_t from = i;
        text_next(s, &i);
        if (n != 0) out_str(sb, to);
        if (n > 0) n--;
        out_str(sb, str_cut(s, from, i - from));
    }
    if (n != 0) out_str(sb, to);
}

struct value text_replace(struct render *r, struct str s, struct str from, struct str to, int64_t n)
{
    struct text_out sb = TEXT_OUT_INIT;
    size_t pos = 0, at;
    if (!template_charge(r, from.n ? s.n : 8 * s.n)) return value_undef();
    if (from.n == 0) {
        weave(&sb, s, to, n < 0 ? -1 : n);
        return value_take(r, &sb);
    }
    while (n != 0 && !sb.text.overflowed && text_find(s, from, pos, &at)) {
        out_str(&sb, str_cut(s, pos, at - pos));
        out_str(&sb, to);
        pos = at + from.n;
        if (n > 0) n--;
    }
    out_str(&sb, str_cut(s, pos, s.n - pos));
    return value_take(r, &sb);
}

static bool is_line_end(int32_t c)
{
    return (c >= 10 && c <= 13) || (c >= 28 && c <= 30) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

struct value text_lines(struct render *r, struct str s)
{
    struct value lines = value_list(r, V_LIST);
    size_t start = 0;
    template_charge(r, 4 * s.n);
    for (size_t i = 0; i < s.n && r->status == OK;) {
        size_t end = i;
        int32_t c = text_next(s, &i);
        if (!is_line_end(c)) continue;
        list_push(r, lines.list, value_str(str_cut(s, start, end - start)));
        if (c == '\r' && i < s.n && s.p[i] == '\n') i++;
        start = i;
    }
    if (start < s.n) list_push(r, lines.list, value_str(str_cut(s, start, s.n - start)));
    return lines;
}

int text_compare(struct str a, struct str b)
{
    /* The byte order of UTF-8 is the order of its code points. */
    size_t n = a.n < b.n ? a.n : b.n;
    int order = n ? memcmp(a.p, b.p, n) : 0;
    return order ? order : (a.n > b.n) - (a.n < b.n);
}

/* The number's characters without blanks around and without single `_` between digits. */
static bool number_text(struct str s, char *out, size_t cap)
{
    size_t n = 0;
    s = text_strip(s, NULL, true, true);
    for (size_t i = 0; i < s.n; i++) {
        bool inner = i > 0 && i + 1 < s.n && s.p[i - 1] != '_' && s.p[i + 1] != '_';
        if (s.p[i] == '_' && inner) continue;
        if (s.p[i] == '_' || s.p[i] == '\0' || n + 1 >= cap) return false;
        out[n++] = s.p[i];
    }
    out[n] = '\0';
    return n > 0;
}

struct value text_int(struct render *r, struct str s, int64_t base)
{
    char text[96], *p = text, *stop;
    if (base != 0 && (base < 2 || base > 36))
        return template_fail(r, ERR_INTERNAL, "int() base must be >= 2 and <= 36, or 0");
    if (!number_text(s, text, sizeof(text))) return value_undef();
    bool negative = *p == '-';
    if (*p == '-' || *p == '+') p++;
    if (p[0] == '0' && p[1]) {
        char kind = (char)(p[1] | 0x20);
        int64_t named = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 0;
        if (named && (base == 0 || base == named)) {
            p += 2;
            base = named;
        }
    }
    if (base == 0) base = 10;
    /* strtoll would take a sign, blanks or a second prefix here. */
    char first = (char)(*p | 0x20);
    if (!((*p >= '0' && *p <= '9') || (first >= 'a' && first <= 'z'))) return value_undef();
    if (p[0] == '0' && base == 16 && (p[1] | 0x20) == 'x') return value_undef();
    errno = 0;
    int64_t i = strtoll(p, &stop, (int)base);
    if (*stop) return value_undef();
    if (errno == ERANGE) return template_fail(r, ERR_UNSUPPORTED, "an integer beyond 64 bits");
    return value_int(negative ? -i : i);
}

bool text_float(struct str s, double *out)
{
    static const char *const words[] = { "inf", "infinity", "nan" };
    char text[512], *stop;
    if (!number_text(s, text, sizeof(text))) return false;
    const char *p = text + (*text == '-' || *text == '+');
    bool is_word = false;
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) is_word |= strcasecmp(p, words[i]) == 0;
    if (!is_word && strspn(p, "0123456789.eE+-") != strlen(p)) return false;
    *out = strtod(text, &stop);
    return *stop == '\0';
}
