/* template_filters.c - filters on texts, numbers and single values, and the table of all filters. */
#include "text/template_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct value filter_text(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    return value_str(value_text(r, v));
}

/* HTML's escapes. */
static struct value filter_escape(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    static const char from[] = "&<>'\"";
    static const char *const to[] = { "&amp;", "&lt;", "&gt;", "&#39;", "&#34;" };
    struct str s = value_text(r, v);
    struct text_out sb = TEXT_OUT_INIT;
    if (!template_charge(r, s.n)) return value_undef();
    for (size_t i = 0; i < s.n; i++) {
        const char *at = s.p[i] ? strchr(from, s.p[i]) : NULL;
        if (at)
            out_bytes(&sb, to[at - from], strlen(to[at - from]), str_is_own(s, i, 1));
        else
            out_str(&sb, str_cut(s, i, 1));
    }
    return value_take(r, &sb);
}

static struct value filter_upper(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    return text_recase(r, value_text(r, v), TEXT_UPPER);
}

static struct value filter_lower(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    return text_recase(r, value_text(r, v), TEXT_LOWER);
}

static struct value filter_capitalize(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    return text_recase(r, value_text(r, v), TEXT_CAPITALIZE);
}

static struct value filter_title(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    return text_recase(r, value_text(r, v), TEXT_TITLE_WORDS);
}

static struct value filter_trim(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    struct str s = value_text(r, v);
    bool blanks = a[0].type == V_ABSENT || a[0].type == V_NONE;
    struct str chars = blanks ? STR("") : value_text(r, a[0]);
    if (!template_charge(r, chars.n > 64 ? s.n * chars.n : s.n)) return value_undef();
    return value_str(text_strip(s, blanks ? NULL : &chars, true, true));
}

static struct value filter_replace(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    struct str s = value_text(r, v), from = value_text(r, a[0]), to = value_text(r, a[1]);
    int64_t n = arg_int(r, a[2], -1);
    return r->status == OK ? text_replace(r, s, from, to, n) : value_undef();
}

static struct value filter_default(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    bool missing = v.type == V_UNDEF || (arg_bool(a[1], false) && !value_truth(v));
    if (!missing) return v;
    return a[0].type == V_ABSENT ? value_str(STR("")) : a[0];
}

static struct value filter_indent(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    struct str s = value_text(r, v), tab = a[0].type == V_STR ? a[0].s : STR("");
    int64_t width = a[0].type == V_STR ? 0 : arg_int(r, a[0], 4);
    bool first = arg_bool(a[1], false), blank = arg_bool(a[2], false);
    if (width > TEMPLATE_OUTPUT_MAX) return template_fail(r, ERR_TOO_LARGE, "indent() is too wide");
    if (!template_charge(r, s.n)) return value_undef();
    /* Splitting the text with one more newline keeps an empty last line. */
    struct text_out sb = TEXT_OUT_INIT;
    out_str(&sb, s);
    out_putc(&sb, '\n');
    struct value text = value_take(r, &sb);
    struct value lines = text.type == V_STR ? text_lines(r, text.s) : value_undef();
    if (r->status != OK) return value_undef();
    for (size_t i = 0; i < lines.list->n; i++) {
        struct str line = lines.list->v[i].s;
        if (i) out_bytes(&sb, "\n", 1, s.own == STR_OWN);
        if (i ? blank || line.n : first) {
            out_str(&sb, tab);
            for (int64_t k = 0; k < width && !sb.text.overflowed; k++) out_putc(&sb, ' ');
        }
        out_str(&sb, line);
        if (sb.text.overflowed) break;
    }
    return value_take(r, &sb);
}

/* Whether `f` has an integer of 64 bits; fails where Python's would be longer. */
static struct value int_of_float(struct render *r, double f)
{
    if (fabs(f) < 9.2e18) return value_int((int64_t)f);
    return template_fail(r, ERR_UNSUPPORTED, "an integer beyond 64 bits");
}

static struct value filter_int(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    struct value fallback = a[0].type == V_ABSENT ? value_int(0) : a[0];
    double f;
    if (v.type == V_UNDEF) return value_undef_error(r, v);
    if (v.type == V_STR) {
        struct value i = text_int(r, v.s, arg_int(r, a[1], 10));
        if (i.type == V_INT || r->status != OK) return i;
        if (!text_float(v.s, &f)) return fallback;
    } else if (value_is_number(v)) {
        if (v.type == V_INT) return v;
        f = value_as_float(v);
    } else {
        return fallback;
    }
    return isfinite(f) ? int_of_float(r, f) : fallback;
}

static struct value filter_float(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    double f;
    if (v.type == V_UNDEF) return value_undef_error(r, v);
    if (value_is_number(v)) return value_float(value_as_float(v));
    if (v.type == V_STR && text_float(v.s, &f)) return value_float(f);
    return a[0].type == V_ABSENT ? value_float(0) : a[0];
}

static struct value filter_abs(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    int64_t i;
    if (v.type == V_FLOAT) return value_float(fabs(v.f));
    if (value_as_int(v, &i)) return i < 0 ? op_negate(r, v) : value_int(i);
    if (v.type == V_UNDEF) return value_undef_error(r, v);
    return template_fail(r, ERR_INTERNAL, "bad operand type for abs(): '%s'", value_type_name(v));
}

/* Half to even on the exact decimal value, as Python rounds. */
static double round_decimal(double f, int64_t digits)
{
    char text[400];
    if (!isfinite(f) || digits > 300) return f;
    if (digits >= 0) {
        snprintf(text, sizeof(text) - 1, "%.*f", (int)digits, f);
        return fabs(f) < 1e22 ? strtod(text, NULL) : f;
    }
    double unit = pow(10, (double)-digits);
    return isinf(unit) ? copysign(0, f) : rint(f / unit) * unit;
}

static struct value filter_round(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    int64_t digits = arg_int(r, a[0], 0);
    struct str method = a[1].type == V_ABSENT ? STR("common") : value_text(r, a[1]);
    if (v.type == V_UNDEF) return value_undef_error(r, v);
    if (!value_is_number(v))
        return template_fail(r, ERR_INTERNAL, "type %s doesn't define __round__ method", value_type_name(v));
    if (str_is(method, "common")) {
        if (v.type == V_FLOAT) return value_float(round_decimal(v.f, digits));
        if (digits >= 0) return value_int(v.type == V_BOOL ? v.b : v.i);
        return int_of_float(r, round_decimal(value_as_float(v), digits));
    }
    bool up = str_is(method, "ceil");
    if (!up && !str_is(method, "floor")) return template_fail(r, ERR_INTERNAL, "method must be common, ceil or floor");
    double unit = pow(10, (double)digits), f = value_as_float(v) * unit;
    return value_float(((up ? ceil(f) : floor(f)) + 0.0) / unit); /* a whole number has no -0 */
}

static bool json_separators(struct render *r, struct value v, struct json_style *style)
{
    if (v.type == V_ABSENT || v.type == V_NONE) return true;
    bool is_pair = (v.type == V_TUPLE || v.type == V_LIST) && v.list->n == 2 && v.list->v[0].type == V_STR &&
                   v.list->v[1].type == V_STR;
    if (!is_pair) {
        template_fail(r, ERR_INTERNAL, "separators must be two strings");
        return false;
    }
    style->item_sep = v.list->v[0].s;
    style->key_sep = v.list->v[1].s;
    return true;
}

static struct value filter_tojson(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    static const char blanks[] = "                "; /* 16: no one indents further */
    struct json_style style = {
        .ascii = arg_bool(a[0], false), .sort = arg_bool(a[3], false), .item_sep = STR(", "), .key_sep = STR(": ")
    };
    if (a[1].type == V_STR) {
        style.indent = a[1].s;
    } else {
        int64_t width = arg_int(r, a[1], 0);
        if (width > (int64_t)sizeof(blanks) - 1)
            return template_fail(r, ERR_UNSUPPORTED, "tojson with an indent of more than %zu", sizeof(blanks) - 1);
        style.indent = (struct str){ blanks, width > 0 ? (size_t)width : 0, STR_OWN };
    }
    style.pretty = a[1].type != V_ABSENT && a[1].type != V_NONE;
    if (style.pretty) style.item_sep = STR(",");
    if (!json_separators(r, a[2], &style)) return value_undef();
    struct text_out sb = TEXT_OUT_INIT;
    print_json(r, &sb, v, &style);
    return value_take(r, &sb);
}

static struct value filter_format(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    struct str fmt = value_text(r, v);
    if (args->n_pos && args->n_kw)
        return template_fail(r, ERR_INTERNAL, "can't handle positional and keyword arguments at the same time");
    struct value values = args->n_kw ? value_dict(r, V_DICT) : value_list(r, V_TUPLE);
    for (size_t i = 0; i < args->n_kw; i++) dict_set(r, values.dict, value_str(args->kw[i].name), args->kw[i].value);
    for (size_t i = 0; i < args->n_pos; i++) list_push(r, values.list, args->pos[i]);
    return r->status == OK ? text_percent(r, fmt, values) : value_undef();
}

static struct value filter_from_json(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    json_error_t why;
    if (v.type != V_STR)
        return template_fail(r, ERR_INTERNAL, "the JSON object must be str, not %s", value_type_name(v));
    if (!template_charge(r, v.s.n)) return value_undef();
    json_t *j = json_loadb(v.s.p, v.s.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
    if (!j) return template_fail(r, ERR_INTERNAL, "from_json: %s", why.text);
    if (!r->parsed) r->parsed = json_array();
    if (json_array_append_new(r->parsed, j) != 0) return template_fail(r, ERR_NO_MEMORY, "from_json: out of memory");
    return value_json(r, j, 0);
}

static const struct native filters[] = {
    { "abs", filter_abs, "", 0 },
    { "capitalize", filter_capitalize, "", 0 },
    { "d", filter_default, "default_value boolean", 0 },
    { "default", filter_default, "default_value boolean", 0 },
    { "e", filter_escape, "", 0 },
    { "escape", filter_escape, "", 0 },
    { "float", filter_float, "default", 0 },
    { "format", filter_format, NULL, 0 },
    { "from_json", filter_from_json, "", 0 },
    { "indent", filter_indent, "width first blank", 0 },
    { "int", filter_int, "default base", 0 },
    { "lower", filter_lower, "", 0 },
    { "replace", filter_replace, "old new count", 2 },
    { "round", filter_round, "precision method", 0 },
    { "safe", filter_text, "", 0 },
    { "string", filter_text, "", 0 },
    { "title", filter_title, "", 0 },
    { "tojson", filter_tojson, "ensure_ascii indent separators sort_keys", 0 },
    { "trim", filter_trim, "chars", 0 },
    { "upper", filter_upper, "", 0 },
    { NULL },
};

const struct native *filter_find(struct str name)
{
    const struct native *const tables[] = { filters, sequence_filters };
    for (size_t t = 0; t < 2; t++)
        for (const struct native *f = tables[t]; f->name; f++)
            if (str_is(name, f->name)) return f;
    return NULL;
}
