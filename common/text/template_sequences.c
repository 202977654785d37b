/* template_sequences.c - filters on sequences and mappings. */
#include "text/template_internal.h"

#include <string.h>

/* One step into an object by a part of a dotted attribute; digits are an index. */
static struct value get_part(struct render *r, struct value v, struct str part)
{
    struct value i =
        part.n && part.n < 10 && part.p[0] >= '0' && part.p[0] <= '9' ? text_int(r, part, 10) : value_undef();
    return op_item(r, v, i.type == V_INT ? i : value_str(part));
}

/* `attribute` of v: "a.b.0" or an index; absent or none: v itself. */
static struct value get_attribute(struct render *r, struct value v, struct value attribute, struct value fallback)
{
    if (attribute.type == V_ABSENT || attribute.type == V_NONE) return v;
    if (attribute.type != V_STR) {
        v = op_item(r, v, attribute);
        return v.type == V_UNDEF && fallback.type != V_ABSENT ? fallback : v;
    }
    struct str rest = attribute.s;
    for (;;) {
        const char *dot = rest.n ? memchr(rest.p, '.', rest.n) : NULL;
        struct str part = str_cut(rest, 0, dot ? (size_t)(dot - rest.p) : rest.n);
        v = get_part(r, v, part);
        if (v.type == V_UNDEF && fallback.type != V_ABSENT) v = fallback;
        if (!dot || r->status != OK) return v;
        rest = str_cut(rest, part.n + 1, rest.n - part.n - 1);
    }
}

/* What a value is ordered by: texts without their case unless it matters. */
static struct value sort_key(struct render *r, struct value v, struct value attribute, bool cased)
{
    v = get_attribute(r, v, attribute, (struct value){ 0 });
    return v.type == V_STR && !cased ? text_recase(r, v.s, TEXT_LOWER) : v;
}

/* Merges the ordered runs [from, mid) and [mid, to) of e; equal keys keep their order. */
static void merge(struct render *r, struct pair *e, struct pair *tmp, const size_t at[3], bool reverse)
{
    size_t i = at[0], k = at[1], n = 0;
    while (i < at[1] && k < at[2] && r->status == OK) {
        int order = value_compare(r, e[k].key, e[i].key, "<");
        tmp[n++] = (reverse ? order > 0 : order < 0) ? e[k++] : e[i++];
    }
    while (i < at[1]) tmp[n++] = e[i++];
    memcpy(e + at[0], tmp, n * sizeof(*e));
}

static void sort_pairs(struct render *r, struct dict *d, bool reverse)
{
    if (d->n < 2) return;
    struct pair *tmp = template_alloc(&r->arena, d->n * sizeof(*tmp));
    for (size_t width = 1; width < d->n && r->status == OK; width *= 2) {
        for (size_t i = 0; i + width < d->n; i += 2 * width) {
            size_t end = i + 2 * width < d->n ? i + 2 * width : d->n;
            merge(r, d->e, tmp, (const size_t[]){ i, i + width, end }, reverse);
        }
    }
}

/* Key and value of each item, to be sorted; keys may repeat. */
static struct dict *keyed_items(struct render *r, const struct list *items, struct value attribute, bool cased)
{
    struct dict *d = value_dict(r, V_DICT).dict;
    d->e = template_alloc(&r->arena, items->n * sizeof(*d->e));
    d->cap = items->n;
    for (; d->n < items->n && template_charge(r, 32); d->n++)
        d->e[d->n] = (struct pair){ sort_key(r, items->v[d->n], attribute, cased), items->v[d->n] };
    return d;
}

static struct value pair_value(struct render *r, struct value a, struct value b)
{
    struct value t = value_list(r, V_TUPLE);
    list_push(r, t.list, a);
    list_push(r, t.list, b);
    return t;
}

static struct value filter_length(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    size_t n;
    if (value_length(v, &n) && template_charge(r, v.type == V_STR ? n : 0)) return value_int((int64_t)n);
    return template_fail(r, ERR_INTERNAL, "object of type '%s' has no len()", value_type_name(v));
}

static struct value filter_list(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    struct value out = value_list(r, V_LIST);
    const struct list *items = value_items(r, v);
    if (!items || !template_charge(r, 8 * items->n)) return value_undef();
    for (size_t i = 0; i < items->n; i++) list_push(r, out.list, items->v[i]);
    return out;
}

static struct value filter_first(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    const struct list *items = value_items(r, v);
    return items && items->n ? items->v[0] : value_absent(STR("No first item, sequence was empty."));
}

static struct value filter_last(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    if (v.type == V_ITER) return template_fail(r, ERR_INTERNAL, "'generator' object is not reversible");
    const struct list *items = value_items(r, v);
    return items && items->n ? items->v[items->n - 1] : value_absent(STR("No last item, sequence was empty."));
}

static struct value filter_join(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    struct str sep = a[0].type == V_ABSENT ? STR("") : value_text(r, a[0]);
    const struct list *items = value_items(r, v);
    struct text_out sb = TEXT_OUT_INIT;
    for (size_t i = 0; items && i < items->n && template_charge(r, sep.n); i++) {
        if (i) out_str(&sb, sep);
        print_str(r, &sb, get_attribute(r, items->v[i], a[1], (struct value){ 0 }));
    }
    return value_take(r, &sb);
}

static struct value filter_items(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    struct value out = value_list(r, V_ITER);
    if (v.type == V_UNDEF) return out;
    if (v.type != V_DICT) return template_fail(r, ERR_INTERNAL, "Can only get item pairs from a mapping.");
    for (size_t i = 0; i < v.dict->n && template_charge(r, 16); i++)
        list_push(r, out.list, pair_value(r, v.dict->e[i].key, v.dict->e[i].value));
    return out;
}

static struct value filter_dictsort(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    bool cased = arg_bool(a[0], false), reverse = arg_bool(a[2], false);
    struct str by = a[1].type == V_ABSENT ? STR("key") : value_text(r, a[1]);
    if (v.type == V_UNDEF) return value_undef_error(r, v);
    if (v.type != V_DICT)
        return template_fail(r, ERR_INTERNAL, "'%s' object has no attribute 'items'", value_type_name(v));
    if (!str_is(by, "key") && !str_is(by, "value"))
        return template_fail(r, ERR_INTERNAL, "You can only sort by either \"key\" or \"value\"");
    struct value pairs = filter_items(r, v, NULL, NULL), out = value_list(r, V_LIST);
    if (r->status != OK) return value_undef();
    struct dict *d = keyed_items(r, pairs.list, value_int(str_is(by, "value")), cased);
    sort_pairs(r, d, reverse);
    for (size_t i = 0; i < d->n; i++) list_push(r, out.list, d->e[i].value);
    return out;
}

/* Where the arguments of an inner filter or test begin. */
static struct args rest_of(const struct args *args, size_t from)
{
    if (from > args->n_pos) from = args->n_pos;
    return (struct args){ args->pos + from, args->n_pos - from, args->kw, args->n_kw };
}

static struct value choose(struct render *r, struct value v, const struct args *args, bool by_attribute, bool wanted)
{
    struct value out = value_list(r, V_ITER), attribute = { 0 };
    const struct native *test = NULL;
    size_t at = by_attribute ? 1 : 0;
    if (by_attribute && args->n_pos == 0) return template_fail(r, ERR_INTERNAL, "Missing parameter for attribute name");
    if (by_attribute) attribute = args->pos[0];
    if (args->n_pos > at) {
        struct str name = value_text(r, args->pos[at]);
        test = test_find(name);
        if (!test)
            return template_fail(r, ERR_UNSUPPORTED, "the test '%.*s' is not supported", str_shown(name), name.p);
    }
    struct args inner = rest_of(args, at + 1);
    /* An absent value has no items and passes for an empty one. */
    const struct list *items = value_truth(v) ? value_items(r, v) : value_list(r, V_LIST).list;
    for (size_t i = 0; items && i < items->n && template_charge(r, 0); i++) {
        struct value x = get_attribute(r, items->v[i], attribute, (struct value){ 0 });
        if (r->status != OK) break;
        if ((test ? test_passes(r, test, x, &inner) : value_truth(x)) == wanted) list_push(r, out.list, items->v[i]);
    }
    return out;
}

static struct value filter_select(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    return choose(r, v, args, false, true);
}

static struct value filter_reject(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    return choose(r, v, args, false, false);
}

static struct value filter_selectattr(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    return choose(r, v, args, true, true);
}

static struct value filter_rejectattr(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    return choose(r, v, args, true, false);
}

static struct value named(const struct args *args, const char *name)
{
    for (size_t i = 0; i < args->n_kw; i++)
        if (str_is(args->kw[i].name, name)) return args->kw[i].value;
    return (struct value){ 0 };
}

static struct value filter_map(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    struct value out = value_list(r, V_ITER), attribute = named(args, "attribute");
    const struct native *f = NULL;
    if (args->n_pos) {
        struct str name = value_text(r, args->pos[0]);
        f = filter_find(name);
        if (!f) return template_fail(r, ERR_UNSUPPORTED, "the filter '%.*s' is not supported", str_shown(name), name.p);
    } else if (attribute.type == V_ABSENT) {
        return template_fail(r, ERR_INTERNAL, "map requires a filter argument");
    }
    struct args inner = rest_of(args, 1);
    const struct list *items = value_truth(v) ? value_items(r, v) : value_list(r, V_LIST).list;
    for (size_t i = 0; items && i < items->n && template_charge(r, 0); i++)
        list_push(r, out.list,
                  f ? native_call(r, f, items->v[i], &inner)
                    : get_attribute(r, items->v[i], attribute, named(args, "default")));
    return out;
}

static struct value filter_sort(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    struct value out = value_list(r, V_LIST);
    const struct list *items = value_items(r, v);
    if (a[2].type == V_STR && memchr(a[2].s.p, ',', a[2].s.n))
        return template_fail(r, ERR_UNSUPPORTED, "sorting by several attributes is not supported");
    if (!items) return value_undef();
    struct dict *d = keyed_items(r, items, a[2], arg_bool(a[1], false));
    sort_pairs(r, d, arg_bool(a[0], false));
    for (size_t i = 0; i < d->n && r->status == OK; i++) list_push(r, out.list, d->e[i].value);
    return out;
}

static struct value filter_unique(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    struct value out = value_list(r, V_ITER), seen = value_dict(r, V_DICT);
    const struct list *items = value_items(r, v);
    for (size_t i = 0; items && i < items->n && template_charge(r, 0); i++) {
        struct value key = sort_key(r, items->v[i], a[1], arg_bool(a[0], false));
        size_t n = seen.dict->n;
        dict_set(r, seen.dict, key, value_none());
        if (seen.dict->n > n) list_push(r, out.list, items->v[i]);
    }
    return out;
}

static struct value filter_reverse(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    struct value out = value_list(r, v.type == V_ITER ? V_LIST : V_ITER);
    const struct list *items = value_items(r, v);
    if (!items) return value_undef();
    for (size_t i = items->n; i-- > 0 && template_charge(r, 0);) list_push(r, out.list, items->v[i]);
    if (v.type != V_STR || r->status != OK) return out;
    struct text_out sb = TEXT_OUT_INIT;
    for (size_t i = 0; i < out.list->n; i++) out_str(&sb, out.list->v[i].s);
    return value_take(r, &sb);
}

static struct value extreme(struct render *r, struct value v, const struct value *a, int sign)
{
    const struct list *items = value_items(r, v);
    bool cased = arg_bool(a[0], false);
    if (!items || items->n == 0) return value_absent(STR("No aggregated item, sequence was empty."));
    struct value best = items->v[0], best_key = sort_key(r, best, a[1], cased);
    for (size_t i = 1; i < items->n && template_charge(r, 0); i++) {
        struct value key = sort_key(r, items->v[i], a[1], cased);
        if (sign * value_compare(r, key, best_key, sign > 0 ? ">" : "<") <= 0) continue;
        best = items->v[i];
        best_key = key;
    }
    return best;
}

static struct value filter_min(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    return extreme(r, v, a, -1);
}

static struct value filter_max(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    return extreme(r, v, a, 1);
}

static struct value filter_sum(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    struct value sum = a[1].type == V_ABSENT ? value_int(0) : a[1];
    const struct list *items = value_items(r, v);
    for (size_t i = 0; items && i < items->n && template_charge(r, 0); i++)
        sum = op_binary(r, '+', sum, get_attribute(r, items->v[i], a[0], (struct value){ 0 }));
    return sum;
}

const struct native sequence_filters[] = {
    { "count", filter_length, "", 0 },
    { "dictsort", filter_dictsort, "case_sensitive by reverse", 0 },
    { "first", filter_first, "", 0 },
    { "items", filter_items, "", 0 },
    { "join", filter_join, "d attribute", 0 },
    { "last", filter_last, "", 0 },
    { "length", filter_length, "", 0 },
    { "list", filter_list, "", 0 },
    { "map", filter_map, NULL, 0 },
    { "max", filter_max, "case_sensitive attribute", 0 },
    { "min", filter_min, "case_sensitive attribute", 0 },
    { "reject", filter_reject, NULL, 0 },
    { "rejectattr", filter_rejectattr, NULL, 0 },
    { "reverse", filter_reverse, "", 0 },
    { "select", filter_select, NULL, 0 },
    { "selectattr", filter_selectattr, NULL, 0 },
    { "sort", filter_sort, "reverse case_sensitive attribute", 0 },
    { "sum", filter_sum, "attribute start", 0 },
    { "unique", filter_unique, "case_sensitive attribute", 0 },
    { NULL },
};
