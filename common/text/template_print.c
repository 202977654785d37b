/* template_print.c - values as text: Python's str() and repr(), and JSON as json.dumps() writes it. */
#include "text/template_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static void repr_at(struct render *r, struct strbuf *sb, struct value v, int depth);

/* The shortest digits that read back as the same number, in Python's choice of notation. */
static void put_float(struct strbuf *sb, double f)
{
    char text[40];
    if (isnan(f) || isinf(f)) {
        strbuf_puts(sb, isnan(f) ? "nan" : f > 0 ? "inf" : "-inf");
        return;
    }
    int digits = 1;
    do snprintf(text, sizeof(text), "%.*e", digits - 1, f);
    while (strtod(text, NULL) != f && ++digits <= 17);
    int exp = (int)strtol(strchr(text, 'e') + 1, NULL, 10);
    if (exp < -4 || exp >= 16) {
        strbuf_puts(sb, text);
        return;
    }
    int decimals = digits - 1 - exp;
    strbuf_addf(sb, "%.*f", decimals > 0 ? decimals : 1, f);
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

static void put_quoted(struct strbuf *sb, struct str s)
{
    bool single = s.n && memchr(s.p, '\'', s.n), twofold = s.n && memchr(s.p, '"', s.n);
    char quote = single && !twofold ? '"' : '\'';
    strbuf_putc(sb, quote);
    for (size_t i = 0; i < s.n;) {
        size_t from = i;
        int32_t c = text_next(s, &i);
        if (c == quote || c == '\\')
            strbuf_addf(sb, "\\%c", (char)c);
        else if (c == '\n')
            strbuf_puts(sb, "\\n");
        else if (c == '\r')
            strbuf_puts(sb, "\\r");
        else if (c == '\t')
            strbuf_puts(sb, "\\t");
        else if (is_printable(c))
            strbuf_add(sb, s.p + from, i - from);
        else
            strbuf_addf(sb, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)c);
    }
    strbuf_putc(sb, quote);
}

static void put_items(struct render *r, struct strbuf *sb, const struct list *l, int depth)
{
    for (size_t i = 0; i < l->n && r->status == OK; i++) {
        if (i) strbuf_puts(sb, ", ");
        repr_at(r, sb, l->v[i], depth + 1);
    }
}

static void put_dict(struct render *r, struct strbuf *sb, const struct dict *d, int depth)
{
    strbuf_putc(sb, '{');
    for (size_t i = 0; i < d->n && r->status == OK; i++) {
        if (i) strbuf_puts(sb, ", ");
        repr_at(r, sb, d->e[i].key, depth + 1);
        strbuf_puts(sb, ": ");
        repr_at(r, sb, d->e[i].value, depth + 1);
    }
    strbuf_putc(sb, '}');
}

static void put_range(struct strbuf *sb, const struct list *l)
{
    strbuf_addf(sb, "range(%lld, %lld", (long long)l->start, (long long)l->stop);
    if (l->step != 1) strbuf_addf(sb, ", %lld", (long long)l->step);
    strbuf_putc(sb, ')');
}

/* What has no literal in Python. */
static void put_object(struct render *r, struct strbuf *sb, struct value v, int depth)
{
    switch (v.type) {
    case V_NAMESPACE:
        strbuf_puts(sb, "<Namespace ");
        put_dict(r, sb, v.dict, depth);
        strbuf_putc(sb, '>');
        break;
    case V_MACRO:
        strbuf_puts(sb, "<Macro '");
        strbuf_add(sb, v.macro->node->name.p, v.macro->node->name.n);
        strbuf_puts(sb, "'>");
        break;
    case V_LOOP: strbuf_addf(sb, "<LoopContext %zu/%zu>", v.loop->idx + 1, v.loop->items->n); break;
    case V_NATIVE: strbuf_addf(sb, "<function %s>", v.native->name); break;
    case V_BOUND: strbuf_addf(sb, "<method %s>", v.bound->native->name); break;
    default: strbuf_puts(sb, "<generator object>"); break;
    }
}

static void repr_at(struct render *r, struct strbuf *sb, struct value v, int depth)
{
    if (depth > TEMPLATE_DATA_DEPTH) {
        template_fail(r, ERR_TOO_LARGE, "data nested deeper than %d", TEMPLATE_DATA_DEPTH);
        return;
    }
    if (!template_charge(r, v.type == V_STR ? 8 * v.s.n : 16)) return;
    switch (v.type) {
    case V_ABSENT: break;
    case V_UNDEF: strbuf_puts(sb, "Undefined"); break;
    case V_NONE: strbuf_puts(sb, "None"); break;
    case V_BOOL: strbuf_puts(sb, v.b ? "True" : "False"); break;
    case V_INT: strbuf_addf(sb, "%lld", (long long)v.i); break;
    case V_FLOAT: put_float(sb, v.f); break;
    case V_STR: put_quoted(sb, v.s); break;
    case V_LIST:
        strbuf_putc(sb, '[');
        put_items(r, sb, v.list, depth);
        strbuf_putc(sb, ']');
        break;
    case V_TUPLE:
        strbuf_putc(sb, '(');
        put_items(r, sb, v.list, depth);
        strbuf_puts(sb, v.list->n == 1 ? ",)" : ")");
        break;
    case V_RANGE: put_range(sb, v.list); break;
    case V_VIEW:
        strbuf_addf(sb, "%s([", value_type_name(v));
        put_items(r, sb, v.list, depth);
        strbuf_puts(sb, "])");
        break;
    case V_DICT: put_dict(r, sb, v.dict, depth); break;
    default: put_object(r, sb, v, depth); break;
    }
}

void print_repr(struct render *r, struct strbuf *sb, struct value v)
{
    repr_at(r, sb, v, 0);
}

void print_str(struct render *r, struct strbuf *sb, struct value v)
{
    if (v.type == V_STR)
        strbuf_add(sb, v.s.p, v.s.n);
    else if (v.type != V_UNDEF)
        repr_at(r, sb, v, 0);
}

struct str value_text(struct render *r, struct value v)
{
    if (v.type == V_STR) return v.s;
    struct strbuf sb = { .max = TEMPLATE_OUTPUT_MAX };
    print_str(r, &sb, v);
    struct value text = value_take(r, &sb);
    return text.type == V_STR ? text.s : STR("");
}

/* ---- JSON ---- */

static void put_json_escape(struct strbuf *sb, int32_t c)
{
    static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
    const char *known = c && c < 128 ? strchr(from, c) : NULL;
    if (known)
        strbuf_addf(sb, "\\%c", to[known - from]);
    else if (c < 0x10000)
        strbuf_addf(sb, "\\u%04x", (unsigned)c);
    else
        strbuf_addf(sb, "\\u%04x\\u%04x", 0xD800u + (((unsigned)c - 0x10000u) >> 10), 0xDC00u + ((unsigned)c & 0x3FFu));
}

static void put_json_str(struct strbuf *sb, struct str s, bool ascii)
{
    strbuf_putc(sb, '"');
    for (size_t i = 0; i < s.n;) {
        size_t from = i;
        int32_t c = text_next(s, &i);
        if (c < 32 || c == '"' || c == '\\' || (ascii && c > 127))
            put_json_escape(sb, c);
        else
            strbuf_add(sb, s.p + from, i - from);
    }
    strbuf_putc(sb, '"');
}

static void json_at(struct render *r, struct strbuf *sb, struct value v, const struct json_style *st, int depth);

static void put_json_break(struct strbuf *sb, const struct json_style *st, int depth)
{
    if (!st->pretty) return;
    strbuf_putc(sb, '\n');
    for (int i = 0; i < depth && !sb->overflowed; i++) strbuf_add(sb, st->indent.p, st->indent.n);
}

static void put_json_scalar(struct render *r, struct strbuf *sb, struct value v)
{
    if (v.type == V_NONE)
        strbuf_puts(sb, "null");
    else if (v.type == V_BOOL)
        strbuf_puts(sb, v.b ? "true" : "false");
    else if (v.type == V_INT)
        strbuf_addf(sb, "%lld", (long long)v.i);
    else if (v.type != V_FLOAT)
        template_fail(r, ERR_INVALID, "Object of type %s is not JSON serializable", value_type_name(v));
    else if (isnan(v.f))
        strbuf_puts(sb, "NaN");
    else if (isinf(v.f))
        strbuf_puts(sb, v.f > 0 ? "Infinity" : "-Infinity");
    else
        put_float(sb, v.f);
}

static void put_json_key(struct render *r, struct strbuf *sb, struct value key, bool ascii)
{
    if (key.type == V_STR) {
        put_json_str(sb, key.s, ascii);
    } else if (key.type == V_NONE || value_is_number(key)) {
        strbuf_putc(sb, '"');
        put_json_scalar(r, sb, key);
        strbuf_putc(sb, '"');
    } else {
        template_fail(r, ERR_INVALID, "keys must be str, int, float, bool or None, not %s", value_type_name(key));
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

static void put_json_dict(struct render *r, struct strbuf *sb, struct dict *d, const struct json_style *st, int depth)
{
    strbuf_putc(sb, '{');
    struct value sorted = value_dict(r, V_DICT);
    if (st->sort) {
        for (size_t i = 0; i < d->n && r->status == OK; i++) dict_set(r, sorted.dict, d->e[i].key, d->e[i].value);
        d = sorted.dict;
        sort_members(r, d->e, d->n);
    }
    for (size_t i = 0; i < d->n && r->status == OK; i++) {
        if (i) strbuf_add(sb, st->item_sep.p, st->item_sep.n);
        put_json_break(sb, st, depth + 1);
        put_json_key(r, sb, d->e[i].key, st->ascii);
        strbuf_add(sb, st->key_sep.p, st->key_sep.n);
        json_at(r, sb, d->e[i].value, st, depth + 1);
    }
    if (d->n) put_json_break(sb, st, depth);
    strbuf_putc(sb, '}');
}

static void json_at(struct render *r, struct strbuf *sb, struct value v, const struct json_style *st, int depth)
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
        strbuf_putc(sb, '[');
        for (size_t i = 0; i < v.list->n && r->status == OK; i++) {
            if (i) strbuf_add(sb, st->item_sep.p, st->item_sep.n);
            put_json_break(sb, st, depth + 1);
            json_at(r, sb, v.list->v[i], st, depth + 1);
        }
        if (v.list->n) put_json_break(sb, st, depth);
        strbuf_putc(sb, ']');
    } else {
        put_json_scalar(r, sb, v);
    }
}

void print_json(struct render *r, struct strbuf *sb, struct value v, const struct json_style *style)
{
    json_at(r, sb, v, style, 0);
}
