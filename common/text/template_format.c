/* template_format.c - str.format(), with fields by order, index or name, and the old way with %. */
#include "text/template_internal.h"

#include <math.h>
#include <string.h>

struct field_spec {
    struct str fill; /* one code point */
    char align;      /* < > ^ = or 0 */
    char sign;       /* + - blank or 0 */
    bool zero;       /* 0 before the width, and no align: numbers are filled behind their sign */
    bool comma;
    int width, precision; /* precision: -1 none */
    char type;            /* 0 none */
};

static int read_number(struct str s, size_t *i, int fallback)
{
    int n = fallback;
    for (bool first = true; *i < s.n && s.p[*i] >= '0' && s.p[*i] <= '9'; (*i)++, first = false)
        n = first ? s.p[*i] - '0' : n > 100000 ? n : n * 10 + (s.p[*i] - '0');
    return n;
}

static bool parse_spec(struct str s, struct field_spec *f)
{
    size_t i = 0, second = 0;
    *f = (struct field_spec){ .fill = STR(" "), .precision = -1 };
    if (s.n) text_next(s, &second);
    bool has_fill = s.n && second < s.n && strchr("<>^=", s.p[second]);
    if (has_fill) {
        f->fill = str_cut(s, 0, second);
        f->align = s.p[second];
        i = second + 1;
    } else if (s.n && strchr("<>^=", s.p[0])) {
        f->align = s.p[i++];
    }
    if (i < s.n && strchr("+- ", s.p[i])) f->sign = s.p[i++];
    if (i < s.n && s.p[i] == '0') {
        if (!has_fill) f->fill = STR("0");
        f->zero = !f->align;
        i++;
    }
    f->width = read_number(s, &i, 0);
    if (i < s.n && s.p[i] == ',') {
        f->comma = true;
        i++;
    }
    if (i < s.n && s.p[i] == '.') {
        i++;
        f->precision = read_number(s, &i, -2);
    }
    if (i < s.n) f->type = s.p[i++];
    return i == s.n && f->precision != -2 && f->width <= 100000 && f->precision <= 1000 &&
           (!f->type || strchr("sdfxX%", f->type));
}

static void put_repeated(struct text_out *sb, struct str fill, size_t n)
{
    while (n-- > 0 && !sb->text.overflowed) out_str(sb, fill);
}

/* Digits with a comma before each group of three in front of the point, behind zeros that make at least `width`. */
static void put_grouped(struct text_out *sb, struct str digits, size_t width)
{
    size_t whole = 0, zeros = 0;
    while (whole < digits.n && digits.p[whole] >= '0' && digits.p[whole] <= '9') whole++;
    while (zeros + digits.n + (zeros + whole - 1) / 3 < width) zeros++;
    for (size_t i = 0; i < zeros + digits.n; i++) {
        if (i && i < zeros + whole && (zeros + whole - i) % 3 == 0) out_putc(sb, ',');
        out_putc(sb, i < zeros ? '0' : digits.p[i - zeros]);
    }
}

static void put_padded(struct text_out *sb, const struct field_spec *f, struct str sign, struct str body, char align)
{
    size_t n = text_length(sign) + text_length(body), width = (size_t)f->width;
    size_t pad = width > n ? width - n : 0;
    size_t before = align == '>' ? pad : align == '^' ? pad / 2 : 0;
    size_t inner = align == '=' ? pad : 0;
    put_repeated(sb, f->fill, before);
    out_str(sb, sign);
    put_repeated(sb, f->fill, inner);
    out_str(sb, body);
    put_repeated(sb, f->fill, pad - before - inner);
}

static void put_number(struct render *r, struct text_out *sb, struct value v, const struct field_spec *f)
{
    struct strbuf raw = { .max = 4096 };
    struct text_out body = { .text = { .max = 256 << 10 } };
    char align = f->align ? f->align : f->zero ? '=' : '>';
    double d = value_as_float(v);
    int64_t i = 0;
    bool is_int = value_as_int(v, &i);
    bool negative = is_int ? i < 0 : d < 0;
    unsigned long long magnitude = negative ? 0ull - (unsigned long long)i : (unsigned long long)i;
    if (negative) d = -d;
    if (f->type == 'f' || f->type == '%')
        strbuf_addf(&raw, "%.*f", f->precision < 0 ? 6 : f->precision, f->type == '%' ? d * 100 : d);
    else if (!is_int || f->precision >= 0)
        template_fail(r, ERR_UNSUPPORTED, "a format of a number without type f, d or x");
    else
        strbuf_addf(&raw, f->type == 'x' ? "%llx" : f->type == 'X' ? "%llX" : "%llu", magnitude);
    if (f->type == '%') strbuf_putc(&raw, '%');
    struct str digits = { strbuf_cstr(&raw), raw.n, STR_OWN };
    struct str sign = negative ? STR("-") : f->sign == '+' ? STR("+") : f->sign == ' ' ? STR(" ") : STR("");
    size_t filled = align == '=' && str_is(f->fill, "0") && (size_t)f->width > sign.n ? (size_t)f->width - sign.n : 0;
    if (f->comma)
        put_grouped(&body, digits, filled);
    else
        out_str(&body, digits);
    put_padded(sb, f, sign, out_view(&body), align);
    strbuf_fini(&raw);
    out_fini(&body);
}

static void put_field(struct render *r, struct text_out *sb, struct value v, char conversion, struct str spec)
{
    struct field_spec f;
    if (conversion == 'r') {
        struct text_out text = TEXT_OUT_INIT;
        print_repr(r, &text, v);
        v = value_take(r, &text);
    } else if (conversion == 's') {
        v = value_str(value_text(r, v));
    }
    if (spec.n == 0) {
        print_str(r, sb, v);
        return;
    }
    if (!parse_spec(spec, &f)) {
        template_fail(r, ERR_UNSUPPORTED, "the format '%.*s' is not supported", str_shown(spec), spec.p);
    } else if (value_is_number(v) && f.type != 's' && v.type != V_BOOL) {
        put_number(r, sb, v, &f);
    } else if (v.type != V_STR || (f.type && f.type != 's') || f.align == '=' || f.sign || f.comma) {
        template_fail(r, ERR_INTERNAL, "the format '%.*s' does not fit a value of type %s", str_shown(spec), spec.p,
                      value_type_name(v));
    } else {
        struct str s = v.s;
        if (f.precision >= 0) s.n = text_offset(s, (size_t)f.precision);
        put_padded(sb, &f, STR(""), s, f.align ? f.align : '<');
    }
}

/* The argument that a field names; *order counts the fields without a name. */
static struct value field_value(struct render *r, struct str name, const struct args *args, int *order)
{
    size_t i = 0;
    int idx = read_number(name, &i, -1);
    if (name.n == 0) idx = (*order)++;
    if (i == name.n && idx >= 0) {
        if ((size_t)idx < args->n_pos) return args->pos[idx];
        return template_fail(r, ERR_INTERNAL, "format() has no argument %d", idx);
    }
    for (size_t k = 0; k < args->n_kw; k++)
        if (str_eq(args->kw[k].name, name)) return args->kw[k].value;
    bool is_path = memchr(name.p, '.', name.n) || memchr(name.p, '[', name.n);
    return template_fail(r, is_path ? ERR_UNSUPPORTED : ERR_INTERNAL,
                         is_path ? "the format field '%.*s' is not supported" : "format() has no argument '%.*s'",
                         str_shown(name), name.p);
}

/* name[!conversion][:spec] */
static void put_replacement(struct render *r, struct text_out *sb, struct str field, const struct args *args,
                            int *order)
{
    size_t end = 0;
    char conversion = '\0';
    struct str spec = STR("");
    while (end < field.n && field.p[end] != '!' && field.p[end] != ':') end++;
    struct str name = str_cut(field, 0, end);
    if (end + 1 < field.n && field.p[end] == '!') {
        conversion = field.p[end + 1];
        end += 2;
        if (!strchr("rs", conversion) || !conversion)
            template_fail(r, ERR_UNSUPPORTED, "the format conversion '!%c'", conversion);
    }
    if (end < field.n && field.p[end] == ':')
        spec = str_cut(field, end + 1, field.n - end - 1);
    else if (end < field.n)
        template_fail(r, ERR_INTERNAL, "a format field is malformed");
    struct value v = field_value(r, name, args, order);
    if (r->status == OK) put_field(r, sb, v, conversion, spec);
}

struct value text_format(struct render *r, struct str fmt, const struct args *args)
{
    struct text_out sb = TEXT_OUT_INIT;
    int order = 0;
    template_charge(r, 4 * fmt.n);
    for (size_t i = 0; i < fmt.n && r->status == OK; i++) {
        char c = fmt.p[i];
        if ((c == '{' || c == '}') && i + 1 < fmt.n && fmt.p[i + 1] == c) {
            out_str(&sb, str_cut(fmt, i, 1));
            i++;
        } else if (c == '{') {
            size_t end = i + 1;
            while (end < fmt.n && fmt.p[end] != '}' && fmt.p[end] != '{') end++;
            if (end == fmt.n || fmt.p[end] == '{')
                template_fail(r, end == fmt.n ? ERR_INTERNAL : ERR_UNSUPPORTED,
                              end == fmt.n ? "expected '}' before end of string"
                                           : "nested format fields are not supported");
            else
                put_replacement(r, &sb, str_cut(fmt, i + 1, end - i - 1), args, &order);
            i = end;
        } else if (c == '}') {
            template_fail(r, ERR_INTERNAL, "Single '}' encountered in format string");
        } else {
            out_str(&sb, str_cut(fmt, i, 1));
        }
    }
    return value_take(r, &sb);
}

/* One conversion of fmt % v from its character on; *spec holds what stands between. */
static void put_percent(struct render *r, struct text_out *sb, char kind, struct str spec, struct value v)
{
    int64_t i;
    size_t end = 1;
    struct field_spec f = { .fill = STR(" "), .precision = -1, .type = 'f' };
    if (kind == 's' && spec.n == 0) {
        print_str(r, sb, v);
    } else if (kind == 'r' && spec.n == 0) {
        print_repr(r, sb, v);
    } else if ((kind == 'd' || kind == 'i') && spec.n == 0 && value_is_number(v)) {
        double d = value_as_float(v);
        if (value_as_int(v, &i) || fabs(d) < 9.2e18)
            out_fmt(sb, "%lld", (long long)(v.type == V_FLOAT ? (int64_t)d : i));
        else
            template_fail(r, isfinite(d) ? ERR_UNSUPPORTED : ERR_INTERNAL, "%%%c format: %g has no integer of 64 bits",
                          kind, d);
    } else if (kind == 'f' && value_is_number(v) && (spec.n == 0 || spec.p[0] == '.')) {
        if (spec.n) f.precision = read_number(spec, &end, 0);
        if (f.precision > 100) f.precision = 100;
        put_number(r, sb, value_float(value_as_float(v)), &f);
    } else if (kind == 'd' || kind == 'i' || kind == 'f') {
        template_fail(r, ERR_INTERNAL, "%%%c format: a number is required, not %s", kind, value_type_name(v));
    } else {
        template_fail(r, ERR_UNSUPPORTED, "the format '%%%.*s%c' is not supported", str_shown(spec), spec.p, kind);
    }
}

/* The member of a mapping that %(name) at *i names; moves *i behind it. */
static struct value named_value(struct render *r, struct str fmt, size_t *i, struct value v)
{
    size_t from = *i + 1, end = from;
    while (end < fmt.n && fmt.p[end] != ')') end++;
    if (end == fmt.n) return template_fail(r, ERR_INTERNAL, "incomplete format key");
    if (v.type != V_DICT) return template_fail(r, ERR_INTERNAL, "format requires a mapping");
    *i = end + 1;
    const struct value *found = dict_find(r, v.dict, value_str(str_cut(fmt, from, end - from)));
    return found ? *found : template_fail(r, ERR_INTERNAL, "the format names a key that is not there");
}

struct value text_percent(struct render *r, struct str fmt, struct value v)
{
    struct text_out sb = TEXT_OUT_INIT;
    size_t n = v.type == V_TUPLE ? v.list->n : 1, used = 0;
    template_charge(r, 4 * fmt.n);
    for (size_t i = 0; i < fmt.n && r->status == OK; i++) {
        size_t from = i + 1;
        if (fmt.p[i] != '%') {
            out_str(&sb, str_cut(fmt, i, 1));
            continue;
        }
        bool is_named = ++i < fmt.n && fmt.p[i] == '(';
        struct value member = is_named ? named_value(r, fmt, &i, v) : value_undef();
        if (is_named) from = i;
        if (r->status != OK) break;
        for (; i < fmt.n && strchr("0123456789.-+ #", fmt.p[i]) && fmt.p[i];) i++;
        if (i == fmt.n) {
            template_fail(r, ERR_INTERNAL, "incomplete format");
        } else if (fmt.p[i] == '%') {
            out_str(&sb, str_cut(fmt, i, 1));
        } else if (is_named) {
            put_percent(r, &sb, fmt.p[i], str_cut(fmt, from, i - from), member);
        } else if (used == n) {
            template_fail(r, ERR_INTERNAL, "not enough arguments for format string");
        } else {
            put_percent(r, &sb, fmt.p[i], str_cut(fmt, from, i - from), v.type == V_TUPLE ? v.list->v[used] : v);
            used++;
        }
    }
    if (r->status == OK && used < n && v.type != V_DICT && v.type != V_LIST)
        template_fail(r, ERR_INTERNAL, "not all arguments converted during string formatting");
    return value_take(r, &sb);
}
