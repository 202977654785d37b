/* template_ops.c - operators on values: arithmetic, comparison, membership, subscripts. */
#include "text/template_internal.h"

#include <math.h>
#include <string.h>

static struct value too_wide(struct render *r)
{
    return template_fail(r, ERR_UNSUPPORTED, "an integer beyond 64 bits");
}

static bool dict_equal(struct render *r, const struct dict *a, const struct dict *b, int depth)
{
    if (a->n != b->n) return false;
    for (size_t i = 0; i < a->n && r->status == OK; i++) {
        const struct value *other = dict_find(r, b, a->e[i].key);
        if (!other || !value_equal(r, a->e[i].value, *other, depth + 1)) return false;
    }
    return true;
}

static bool list_equal(struct render *r, const struct list *a, const struct list *b, int depth)
{
    if (a->n != b->n) return false;
    for (size_t i = 0; i < a->n && r->status == OK; i++)
        if (!value_equal(r, a->v[i], b->v[i], depth + 1)) return false;
    return true;
}

bool value_equal(struct render *r, struct value a, struct value b, int depth)
{
    int64_t x, y;
    if (depth > TEMPLATE_DATA_DEPTH) {
        template_fail(r, ERR_TOO_LARGE, "data nested deeper than %d", TEMPLATE_DATA_DEPTH);
        return false;
    }
    if (!template_charge(r, 4)) return false;
    if (value_as_int(a, &x) && value_as_int(b, &y)) return x == y;
    if (value_is_number(a) && value_is_number(b)) return value_as_float(a) == value_as_float(b);
    if (a.type != b.type) return false;
    switch (a.type) {
    case V_UNDEF:
    case V_NONE: return true;
    case V_STR: return a.s.n == b.s.n && template_charge(r, a.s.n) && str_eq(a.s, b.s);
    case V_LIST:
    case V_TUPLE:
    case V_RANGE: return list_equal(r, a.list, b.list, depth);
    case V_DICT: return dict_equal(r, a.dict, b.dict, depth);
    case V_NATIVE: return a.native == b.native;
    default: return a.list == b.list; /* the same object */
    }
}

static int compare_at(struct render *r, struct value a, struct value b, const char *op, int depth)
{
    int64_t x, y;
    if (!template_charge(r, 4)) return 0;
    if (depth > TEMPLATE_DATA_DEPTH) {
        template_fail(r, ERR_TOO_LARGE, "data nested deeper than %d", TEMPLATE_DATA_DEPTH);
        return 0;
    }
    if (value_as_int(a, &x) && value_as_int(b, &y)) return (x > y) - (x < y);
    if (value_is_number(a) && value_is_number(b)) {
        double f = value_as_float(a), g = value_as_float(b);
        return (f > g) - (f < g);
    }
    if (a.type == V_STR && b.type == V_STR) {
        template_charge(r, a.s.n);
        return text_compare(a.s, b.s);
    }
    if (a.type == b.type && (a.type == V_LIST || a.type == V_TUPLE)) {
        for (size_t i = 0; i < a.list->n && i < b.list->n && r->status == OK; i++)
            if (!value_equal(r, a.list->v[i], b.list->v[i], depth + 1))
                return compare_at(r, a.list->v[i], b.list->v[i], op, depth + 1);
        return (a.list->n > b.list->n) - (a.list->n < b.list->n);
    }
    if (a.type == V_UNDEF)
        value_undef_error(r, a);
    else if (b.type == V_UNDEF)
        value_undef_error(r, b);
    template_fail(r, ERR_INTERNAL, "'%s' not supported between instances of '%s' and '%s'", op, value_type_name(a),
                  value_type_name(b));
    return 0;
}

int value_compare(struct render *r, struct value a, struct value b, const char *op)
{
    return compare_at(r, a, b, op, 0);
}

bool value_contains(struct render *r, struct value item, struct value in)
{
    size_t at;
    if (in.type == V_STR) {
        if (item.type == V_STR) return template_charge(r, in.s.n) && text_find(in.s, item.s, 0, &at);
        if (item.type == V_UNDEF) value_undef_error(r, item);
        template_fail(r, ERR_INTERNAL, "'in <string>' requires string as left operand, not %s", value_type_name(item));
        return false;
    }
    if (in.type == V_DICT) {
        if (item.type == V_LIST || item.type == V_DICT)
            template_fail(r, ERR_INTERNAL, "unhashable type: '%s'", value_type_name(item));
        return dict_find(r, in.dict, item) != NULL;
    }
    struct list *l = in.type == V_UNDEF || value_is_seq(in) ? value_items(r, in) : NULL;
    if (!l) template_fail(r, ERR_INTERNAL, "argument of type '%s' is not iterable", value_type_name(in));
    for (size_t i = 0; l && i < l->n && r->status == OK; i++)
        if (value_equal(r, l->v[i], item, 0)) return true;
    return false;
}

bool value_test_op(struct render *r, int op, struct value a, struct value b)
{
    bool numbers = value_is_number(a) && value_is_number(b);
    /* Not a number is neither below nor above nor equal to anything. */
    bool unordered = numbers && (isnan(value_as_float(a)) || isnan(value_as_float(b)));
    switch (op) {
    case OP_IN: return value_contains(r, a, b);
    case OP_NOT_IN: return !value_contains(r, a, b);
    case OP2('=', '='): return value_equal(r, a, b, 0);
    case OP2('!', '='): return !value_equal(r, a, b, 0);
    case '<': return value_compare(r, a, b, "<") < 0 && !unordered;
    case '>': return value_compare(r, a, b, ">") > 0 && !unordered;
    case OP2('<', '='): return value_compare(r, a, b, "<=") <= 0 && !unordered;
    default: return value_compare(r, a, b, ">=") >= 0 && !unordered;
    }
}

static struct value repeat(struct render *r, struct value v, int64_t times)
{
    size_t n = v.type == V_STR ? v.s.n : v.list->n;
    if (times <= 0 || n == 0) return v.type == V_STR ? value_str(STR("")) : value_list(r, v.type);
    if ((uint64_t)times > (size_t)TEMPLATE_OUTPUT_MAX / n)
        return template_fail(r, ERR_TOO_LARGE, "a repetition of more than %d MiB", TEMPLATE_OUTPUT_MAX >> 20);
    if (!template_charge(r, n * (size_t)times)) return value_undef();
    if (v.type == V_STR) {
        struct text_out sb = TEXT_OUT_INIT;
        while (times-- > 0) out_str(&sb, v.s);
        return value_take(r, &sb);
    }
    struct value out = value_list(r, v.type);
    while (times-- > 0)
        for (size_t i = 0; i < n && r->status == OK; i++) list_push(r, out.list, v.list->v[i]);
    return out;
}

static struct value join_two(struct render *r, struct value a, struct value b)
{
    if (a.type == V_STR) {
        struct text_out sb = TEXT_OUT_INIT;
        out_str(&sb, a.s);
        out_str(&sb, b.s);
        return value_take(r, &sb);
    }
    struct value out = value_list(r, a.type);
    if (!template_charge(r, 8 * (a.list->n + b.list->n))) return value_undef();
    for (size_t i = 0; i < a.list->n; i++) list_push(r, out.list, a.list->v[i]);
    for (size_t i = 0; i < b.list->n; i++) list_push(r, out.list, b.list->v[i]);
    return out;
}

static struct value int_power(struct render *r, int64_t base, int64_t exp)
{
    int64_t x = 1;
    for (; exp > 0; exp >>= 1) {
        if ((exp & 1) && __builtin_mul_overflow(x, base, &x)) return too_wide(r);
        if (exp > 1 && __builtin_mul_overflow(base, base, &base)) return too_wide(r);
    }
    return value_int(x);
}

static struct value int_binary(struct render *r, int op, int64_t a, int64_t b)
{
    int64_t x;
    switch (op) {
    case '+': return __builtin_add_overflow(a, b, &x) ? too_wide(r) : value_int(x);
    case '-': return __builtin_sub_overflow(a, b, &x) ? too_wide(r) : value_int(x);
    case '*': return __builtin_mul_overflow(a, b, &x) ? too_wide(r) : value_int(x);
    case '%':
        if (b == -1) return value_int(0);
        x = a % b;
        return value_int(x && (x < 0) != (b < 0) ? x + b : x);
    case OP2('/', '/'):
        if (b == -1) return a == INT64_MIN ? too_wide(r) : value_int(-a);
        x = a / b;
        return value_int(a % b && (a < 0) != (b < 0) ? x - 1 : x);
    default: return int_power(r, a, b);
    }
}

static struct value float_binary(struct render *r, int op, double a, double b)
{
    double mod = fmod(a, b), div = (a - mod) / b;
    if (mod != 0 && (mod < 0) != (b < 0)) {
        mod += b;
        div -= 1;
    }
    switch (op) {
    case '+': return value_float(a + b);
    case '-': return value_float(a - b);
    case '*': return value_float(a * b);
    case '/': return value_float(a / b);
    case '%': return value_float(mod != 0 ? mod : copysign(0, b));
    case OP2('/', '/'):
        if (div == 0) return value_float(copysign(0, a / b));
        return value_float(div - floor(div) > 0.5 ? floor(div) + 1 : floor(div));
    default: break;
    }
    double x = pow(a, b);
    if (isnan(x) && !isnan(a) && !isnan(b))
        return template_fail(r, ERR_UNSUPPORTED, "a power that is a complex number");
    if (isinf(x) && !isinf(a) && !isinf(b)) return template_fail(r, ERR_INTERNAL, "Result too large");
    return value_float(x);
}

static struct value number_binary(struct render *r, int op, struct value a, struct value b)
{
    int64_t x, y;
    bool divides = op == '/' || op == '%' || op == OP2('/', '/');
    if ((divides && value_as_float(b) == 0) || (op == OP2('*', '*') && value_as_float(a) == 0 && value_as_float(b) < 0))
        return template_fail(r, ERR_INTERNAL, "division by zero");
    bool ints = value_as_int(a, &x) && value_as_int(b, &y);
    if (ints && op != '/' && !(op == OP2('*', '*') && y < 0)) return int_binary(r, op, x, y);
    return float_binary(r, op, value_as_float(a), value_as_float(b));
}

struct value op_binary(struct render *r, int op, struct value a, struct value b)
{
    int64_t n;
    if (r->status != OK) return value_undef();
    if (value_is_number(a) && value_is_number(b)) return number_binary(r, op, a, b);
    if (a.type == V_UNDEF) return value_undef_error(r, a);
    if (b.type == V_UNDEF) return value_undef_error(r, b);
    bool a_repeats = a.type == V_STR || a.type == V_LIST || a.type == V_TUPLE;
    bool b_repeats = b.type == V_STR || b.type == V_LIST || b.type == V_TUPLE;
    if (op == '+' && a_repeats && a.type == b.type) return join_two(r, a, b);
    if (op == '*' && a_repeats && value_as_int(b, &n)) return repeat(r, a, n);
    if (op == '*' && b_repeats && value_as_int(a, &n)) return repeat(r, b, n);
    if (op == '%' && a.type == V_STR) return text_percent(r, a.s, b);
    char sign[] = { (char)(op < 256 ? op : op >> 8), (char)(op < 256 ? 0 : op & 255), '\0' };
    if (op == '+' && a.type == V_STR)
        return template_fail(r, ERR_INTERNAL, "can only concatenate str (not \"%s\") to str", value_type_name(b));
    return template_fail(r, ERR_INTERNAL, "unsupported operand type(s) for %s: '%s' and '%s'", sign, value_type_name(a),
                         value_type_name(b));
}

struct value op_negate(struct render *r, struct value v)
{
    int64_t i;
    if (v.type == V_FLOAT) return value_float(-v.f);
    if (value_as_int(v, &i)) return i == INT64_MIN ? too_wide(r) : value_int(-i);
    if (v.type == V_UNDEF) return value_undef_error(r, v);
    return template_fail(r, ERR_INTERNAL, "bad operand type for unary -: '%s'", value_type_name(v));
}

static struct value loop_attr(struct render *r, const struct loop *l, struct str name)
{
    size_t n = l->items->n, i = l->idx;
    const struct {
        const char *name;
        struct value v;
    } rows[] = {
        { "index", value_int((int64_t)i + 1) },
        { "index0", value_int((int64_t)i) },
        { "first", value_bool(i == 0) },
        { "last", value_bool(i + 1 >= n) },
        { "length", value_int((int64_t)n) },
        { "revindex", value_int((int64_t)(n - i)) },
        { "revindex0", value_int((int64_t)(n - i) - 1) },
        { "previtem", i > 0 ? l->items->v[i - 1] : value_absent(STR("there is no previous item")) },
        { "nextitem", i + 1 < n ? l->items->v[i + 1] : value_absent(STR("there is no next item")) },
        { "depth", value_int((int64_t)l->depth + 1) },
        { "depth0", value_int((int64_t)l->depth) },
    };
    for (size_t k = 0; k < sizeof(rows) / sizeof(*rows); k++)
        if (str_is(name, rows[k].name)) return rows[k].v;
    return value_missing(name, V_LOOP);
}

/* What is behind a name on an object, methods aside. */
static struct value member(struct render *r, struct value obj, struct str name)
{
    if (obj.type == V_LOOP) return loop_attr(r, obj.loop, name);
    if (obj.type != V_DICT && obj.type != V_NAMESPACE) return value_missing(name, obj.type);
    const struct value *found = dict_find(r, obj.dict, value_str(name));
    return found ? *found : value_missing(name, obj.type);
}

static bool bind_method(struct render *r, struct value obj, struct str name, struct value *out)
{
    const struct native *f = method_find(name, obj.type);
    if (!f) return false;
    struct bound *b = template_alloc(&r->arena, sizeof(*b));
    *b = (struct bound){ obj, f };
    *out = (struct value){ .type = V_BOUND, .bound = b };
    return true;
}

struct value op_attr(struct render *r, struct value obj, struct str name)
{
    struct value v;
    if (r->status != OK) return value_undef();
    if (obj.type == V_UNDEF) return value_undef_error(r, obj);
    return bind_method(r, obj, name, &v) ? v : member(r, obj, name);
}

/* Undefined in place of the element that is not there. */
static struct value no_element(struct render *r, struct value obj, struct value key)
{
    struct value v = value_missing(key.type == V_INT ? value_text(r, key) : STR("?"), obj.type);
    v.sub |= VALUE_NO_ELEMENT;
    return v;
}

static struct value char_at(struct str s, size_t i)
{
    size_t from = text_offset(s, i), to = from;
    text_next(s, &to);
    return value_str(str_cut(s, from, to - from));
}

struct value op_item(struct render *r, struct value obj, struct value key)
{
    struct value v;
    int64_t i;
    size_t n;
    if (r->status != OK) return value_undef();
    if (obj.type == V_UNDEF) return value_undef_error(r, obj);
    bool is_row = obj.type == V_LIST || obj.type == V_TUPLE || obj.type == V_RANGE || obj.type == V_STR;
    if (is_row && value_as_int(key, &i) && value_length(obj, &n)) {
        template_charge(r, obj.type == V_STR ? 2 * obj.s.n : 0);
        if (i < 0) i += (int64_t)n;
        if (i < 0 || i >= (int64_t)n) return no_element(r, obj, key);
        return obj.type == V_STR ? char_at(obj.s, (size_t)i) : obj.list->v[i];
    }
    if (obj.type == V_DICT) {
        const struct value *found = dict_find(r, obj.dict, key);
        if (found) return *found;
    }
    if (key.type != V_STR) return no_element(r, obj, key);
    v = member(r, obj, key.s);
    if (v.type == V_UNDEF) bind_method(r, obj, key.s, &v);
    return v;
}

/* One bound of a slice; false and failed where it is no integer. */
static bool slice_bound(struct render *r, struct value v, int64_t n, int64_t low, int64_t high, int64_t fallback,
                        int64_t *out)
{
    *out = fallback;
    if (v.type == V_NONE) return true;
    if (v.type == V_UNDEF) value_undef_error(r, v);
    if (!value_as_int(v, out)) {
        template_fail(r, ERR_INTERNAL, "slice indices must be integers or None");
        return false;
    }
    if (*out < 0) *out = *out < -n ? low : *out + n;
    if (*out > high) *out = high;
    return true;
}

static struct value slice_text(struct render *r, struct str s, int64_t from, int64_t to, int64_t step)
{
    if (step == 1) {
        size_t a = text_offset(s, (size_t)from);
        size_t b = to > from ? text_offset(s, (size_t)to) : a;
        return value_str(str_cut(s, a, b - a));
    }
    struct text_out sb = TEXT_OUT_INIT;
    struct list *chars = value_items(r, value_str(s));
    for (int64_t i = from; chars && r->status == OK && (step > 0 ? i < to : i > to); i += step)
        out_str(&sb, chars->v[i].s);
    return value_take(r, &sb);
}

struct value op_slice(struct render *r, struct value obj, const struct value bounds[3])
{
    int64_t step = 1, from, to;
    size_t n;
    if (r->status != OK) return value_undef();
    if (obj.type == V_UNDEF) return value_undef_error(r, obj);
    if (obj.type != V_LIST && obj.type != V_TUPLE && obj.type != V_RANGE && obj.type != V_STR)
        return template_fail(r, ERR_INTERNAL, "'%s' object cannot be sliced", value_type_name(obj));
    if (bounds[2].type != V_NONE && !value_as_int(bounds[2], &step))
        return template_fail(r, ERR_INTERNAL, "slice indices must be integers or None");
    if (step == 0) return template_fail(r, ERR_INTERNAL, "slice step cannot be zero");
    value_length(obj, &n);
    if (!template_charge(r, obj.type == V_STR ? obj.s.n : 8 * n)) return value_undef();
    int64_t len = (int64_t)n, low = step < 0 ? -1 : 0, high = step < 0 ? len - 1 : len;
    if (!slice_bound(r, bounds[0], len, low, high, step < 0 ? high : low, &from) ||
        !slice_bound(r, bounds[1], len, low, high, step < 0 ? low : high, &to))
        return value_undef();
    /* Steps beyond the length give one item; cut so that the sums below cannot overflow. */
    if (step > len + 1) step = len + 1;
    if (step < -len - 1) step = -len - 1;
    if (obj.type == V_STR) return slice_text(r, obj.s, from, to, step);
    struct value out = value_list(r, obj.type);
    for (int64_t i = from; (step > 0 ? i < to : i > to) && r->status == OK; i += step)
        list_push(r, out.list, obj.list->v[i]);
    if (obj.type == V_RANGE) {
        out.list->start = obj.list->start + from * obj.list->step;
        out.list->stop = obj.list->start + to * obj.list->step;
        out.list->step = obj.list->step * step;
    }
    return out;
}
