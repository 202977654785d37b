/* template_print.c - values as text: Python's str() and repr(), and JSON as json.dumps() writes it. */
#include "text/template_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static void repr_at(struct render *r, struct text_out *sb, struct value v, int depth);

/* The shortest digits that read back as the same number, in Python's choice of notation. */
static void put_float(struct text_out *sb, double f)
{
    char text[40];
    if (isnan(f) || isinf(f)) {
        out_puts(sb, isnan(f) ? "nan" : f > 0 ? "inf" : "-inf");
        return;
    }
    int digits = 1;
    do snprintf(text, sizeof(text), "%.*e", digits - 1, f);
    while (strtod(text, NULL) != f && ++digits <= 17);
    int exp = (int)strtol(strchr(text, 'e') + 1, NULL, 10);
    if (exp < -4 || exp >= 16) {
        out_puts(sb, text);
        return;
    }
    int decimals = digits - 1 - exp;
    out_fmt(sb, "%.*f", decimals > 0 ? decimals : 1, f);
}

static bool is_printable(int32_t c)
{
    if (c == ' ') return true;
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS: return false;
    default: return true;
    }
}

/* What is written in place of a character belongs to whoever wrote the character. */
static void put_escape(struct text_out *sb, bool own, const char *fmt, unsigned c)
{
    char text[16];
    int n = snprintf(text, sizeof(text), fmt, c);
    out_bytes(sb, text, (size_t)n, own);
}

static void put_quoted(struct text_out *sb, struct str s)
{
    bool single = s.n && memchr(s.p, '\'', s.n), twofold = s.n && memchr(s.p, '"', s.n);
    char quote = single && !twofold ? '"' : '\'';
    out_putc(sb, quote);
    for (size_t i = 0; i < s.n;) {
        size_t from = i;
        int32_t c = text_next(s, &i);
        bool own = str_is_own(s, from, i - from);
        if (c == quote || c == '\\')
            put_escape(sb, own, "\\%c", (unsigned)c);
        else if (c == '\n' || c == '\r' || c == '\t')
            put_escape(sb, own, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
        else if (is_printable(c))
            out_str(sb, str_cut(s, from, i - from));
        else
            put_escape(sb, own, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)c);
    }
    out_putc(sb, quote);
}

static void put_items(struct render *r, struct text_out *sb, const struct list *l, int depth)
{
    for (size_t i = 0; i < l->n && r->status == OK; i++) {
        if (i) out_puts(sb, ", ");
        repr_at(r, sb, l->v[i], depth + 1);
    }
}

static void put_dict(struct render *r, struct text_out *sb, const struct dict *d, int depth)
{
    out_putc(sb, '{');
    for (size_t i = 0; i < d->n && r->status == OK; i++) {
        if (i) out_puts(sb, ", ");
        repr_at(r, sb, d->e[i].key, depth + 1);
        out_puts(sb, ": ");
        repr_at(r, sb, d->e[i].value, depth + 1);
    }
    out_putc(sb, '}');
}

static void put_range(struct text_out *sb, const struct list *l)
{
    out_fmt(sb, "range(%lld, %lld", (long long)l->start, (long long)l->stop);
    if (l->step != 1) out_fmt(sb, ", %lld", (long long)l->step);
    out_putc(sb, ')');
}

/* What has no literal in Python. */
static void put_object(struct render *r, struct text_out *sb, struct value v, int depth)
{
    switch (v.type) {
    case V_NAMESPACE:
        out_puts(sb, "<Namespace ");
        put_dict(r, sb, v.dict, depth);
        out_putc(sb, '>');
        break;
    case V_MACRO:
        out_puts(sb, "<Macro '");
        out_str(sb, v.macro->node->name);
        out_puts(sb, "'>");
        break;
    case V_LOOP: out_fmt(sb, "<LoopContext %zu/%zu>", v.loop->idx + 1, v.loop->items->n); break;
    case V_NATIVE: out_fmt(sb, "<function %s>", v.native->name); break;
    case V_BOUND: out_fmt(sb, "<method %s>", v.bound->native->name); break;
    default: out_puts(sb, "<generator object>"); break;
    }
}

static void repr_at(struct render *r, struct text_out *sb, struct value v, int depth)
{
    if (depth > TEMPLATE_DATA_DEPTH) {
        template_fail(r, ERR_TOO_LARGE, "data nested deeper than %d", TEMPLATE_DATA_DEPTH);
        return;
    }
    if (!template_charge(r, v.type == V_STR ? 8 * v.s.n : 16)) return;
    switch (v.type) {
    case V_ABSENT: break;
    case V_UNDEF: out_puts(sb, "Undefined"); break;
    case V_NONE: out_puts(sb, "None"); break;
    case V_BOOL: out_puts(sb, v.b ? "True" : "False"); break;
    case V_INT: out_fmt(sb, "%lld", (long long)v.i); break;
    case V_FLOAT: put_float(sb, v.f); break;
    case V_STR: put_quoted(sb, v.s); break;
    case V_LIST:
        out_putc(sb, '[');
        put_items(r, sb, v.list, depth);
        out_putc(sb, ']');
        break;
    case V_TUPLE:
        out_putc(sb, '(');
        put_items(r, sb, v.list, depth);
        out_puts(sb, v.list->n == 1 ? ",)" : ")");
        break;
    case V_RANGE: put_range(sb, v.list); break;
    case V_VIEW:
        out_fmt(sb, "%s([", value_type_name(v));
        put_items(r, sb, v.list, depth);
        out_puts(sb, "])");
        break;
    case V_DICT: put_dict(r, sb, v.dict, depth); break;
    default: put_object(r, sb, v, depth); break;
    }
}

void print_repr(struct render *r, struct text_out *sb, struct value v)
{
    repr_at(r, sb, v, 0);
}

void print_str(struct render *r, struct text_out *sb, struct value v)
{
    if (v.type == V_STR)
        out_str(sb, v.s);
    else if (v.type != V_UNDEF)
        repr_at(r, sb, v, 0);
}

struct str value_text(struct render *r, struct value v)
{
    if (v.type == V_STR) return v.s;
    struct text_out sb = TEXT_OUT_INIT;
    print_str(r, &sb, v);
    struct value text = value_take(r, &sb);
    return text.type == V_STR ? text.s : STR("");
}

/* ---- JSON ---- */

static void put_json_escape(struct text_out *sb, int32_t c, bool own)
{
    static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
    const char *known = c && c < 128 ? strchr(from, c) : NULL;
    if (known)
        put_escape(sb, own, "\\%c", (unsigned char)to[known - from]);
    else if (c < 0x10000)
        put_escape(sb, own, "\\u%04x", (unsigned)c);
    if (known || c < 0x10000) return;
    put_escape(sb, own, "\\u%04x", 0xD800u + (((unsigned)c - 0x10000u) >> 10));
    put_escape(sb, own, "\\u%04x", 0xDC00u + ((unsigned)c & 0x3FFu));
}

static void put_json_str(struct text_out *sb, struct str s, bool ascii)
{
    out_putc(sb, '"');
    for (size_t i = 0; i < s.n;) {
        size_t from = i;
        int32_t c = text_next(s, &i);
        if (c < 32 || c == '"' || c == '\\' || (ascii && c > 126))
            put_json_escape(sb, c, str_is_own(s, from, i - from));
        else
            out_str(sb, str_cut(s, from, i - from));
    }
    out_putc(sb, '"');
}

static void json_at(struct render *r, struct text_out *sb, struct value v, const struct json_style *st, int depth);

static void put_json_break(struct text_out *sb, const struct json_style *st, int depth)
{
    if (!st->pretty) return;
    out_putc(sb, '\n');
    for (int i = 0; i < depth && !sb->text.overflowed; i++) out_str(sb, st->indent);
}

static void put_json_scalar(struct render *r, struct text_out *sb, struct value v)
{
    if (v.type == V_NONE)
        out_puts(sb, "null");
    else if (v.type == V_BOOL)
        out_puts(sb, v.b ? "true" : "false");
    else if (v.type == V_INT)
        out_fmt(sb, "%lld", (long long)v.i);
    else if (v.type != V_FLOAT)
        template_fail(r, ERR_INTERNAL, "Object of type %s is not JSON serializable", value_type_name(v));
    else if (isnan(v.f))
        out_puts(sb, "NaN");
    else if (isinf(v.f))
        out_puts(sb, v.f > 0 ? "Infinity" : "-Infinity");
    else
        put_float(sb, v.f);
}

static void put_json_key(struct render *r, struct text_out *sb, struct value key, bool ascii)
{
    if (key.type == V_STR) {
        put_json_str(sb, key.s, ascii);
    } else if (key.type == V_NONE || value_is_number(key)) {
        out_putc(sb, '"');
        put_json_scalar(r, sb, key);
        out_putc(sb, '"');
    } else {
        template_fail(r, ERR_INTERNAL, "keys must be str, int, float, bool or None, not %s", value_type_name(key));
    }
}

/* The members' order by name, by insertion: objects in prompts are small. */
static void sort_members(struct render *r, struct pair *e, size_t n)
{
    for (size_t i = 1; i < n && template_charge(r, 16); i++) {
        struct pair x = e[i];
        size_t k = i;
        while (k > 0 && template_charge(r, 4) && value_compare(r, x.key, e[k - 1].key, "<") < 0) {
            e[k] = e[k - 1];
            k--;
        }
        e[k] = x;
    }
}

static void put_json_dict(struct render *r, struct text_out *sb, struct dict *d, const struct json_style *st, int depth)
{
    out_putc(sb, '{');
    struct value sorted = value_dict(r, V_DICT);
    if (st->sort) {
        for (size_t i = 0; i < d->n && r->status == OK; i++) dict_set(r, sorted.dict, d->e[i].key, d->e[i].value);
        d = sorted.dict;
        sort_members(r, d->e, d->n);
    }
    for (size_t i = 0; i < d->n && r->status == OK; i++) {
        if (i) out_str(sb, st->item_sep);
        put_json_break(sb, st, depth + 1);
        put_json_key(r, sb, d->e[i].key, st->ascii);
        out_str(sb, st->key_sep);
        json_at(r, sb, d->e[i].value, st, depth + 1);
    }
    if (d->n) put_json_break(sb, st, depth);
    out_putc(sb, '}');
}

static void json_at(struct render *r, struct text_out *sb, struct value v, const struct json_style *st, int depth)
{
    if (depth > TEMPLATE_DATA_DEPTH) {
        template_fail(r, ERR_TOO_LARGE, "data nested deeper than %d", TEMPLATE_DATA_DEPTH);
        return;
    }
    if (!template_charge(r, v.type == V_STR ? 4 * v.s.n : 16)) return;
    if (v.type == V_STR) {
        put_json_str(sb, v.s, st->ascii);
    } else if (v.type == V_DICT) {
        put_json_dict(r, sb, v.dict, st, depth);
    } else if (v.type == V_LIST || v.type == V_TUPLE) {
        out_putc(sb, '[');
        for (size_t i = 0; i < v.list->n && r->status == OK; i++) {
            if (i) out_str(sb, st->item_sep);
            put_json_break(sb, st, depth + 1);
            json_at(r, sb, v.list->v[i], st, depth + 1);
        }
        if (v.list->n) put_json_break(sb, st, depth);
        out_putc(sb, ']');
    } else {
        put_json_scalar(r, sb, v);
    }
}

void print_json(struct render *r, struct text_out *sb, struct value v, const struct json_style *style)
{
    json_at(r, sb, v, style, 0);
}
