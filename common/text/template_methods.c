/* template_methods.c - methods of texts, lists, dicts and the loop. */
#include "text/template_internal.h"

#include <string.h>

static bool need_str(struct render *r, struct value v, struct str *out)
{
    if (v.type == V_STR) {
        *out = v.s;
        return true;
    }
    if (v.type == V_UNDEF) value_undef_error(r, v);
    template_fail(r, ERR_INTERNAL, "a str is needed, not '%s'", value_type_name(v));
    return false;
}

static bool is_given(struct value v)
{
    return v.type != V_ABSENT && v.type != V_NONE;
}

/* Parts between blanks: runs of them count once, and none at the ends. */
static void split_blanks(struct render *r, struct list *out, struct str s, int64_t max)
{
    s = text_strip(s, NULL, true, false);
    while (s.n && r->status == OK) {
        size_t end = 0, next = 0;
        while (end < s.n) {
            next = end;
            if (text_is_space(text_next(s, &next))) break;
            end = next;
        }
        if (max == 0) end = s.n;
        list_push(r, out, value_str(str_cut(s, 0, end)));
        s = text_strip(str_cut(s, end, s.n - end), NULL, true, false);
        max--;
    }
}

static void rsplit_blanks(struct render *r, struct list *out, struct str s, int64_t max)
{
    s = text_strip(s, NULL, false, true);
    while (s.n && r->status == OK) {
        size_t start = s.n;
        while (start > 0) {
            size_t c = start - 1, next;
            while (c > 0 && ((unsigned char)s.p[c] & 0xC0) == 0x80) c--;
            next = c;
            if (text_is_space(text_next(s, &next))) break;
            start = c;
        }
        if (max == 0) start = 0;
        list_push(r, out, value_str(str_cut(s, start, s.n - start)));
        s = text_strip(str_cut(s, 0, start), NULL, false, true);
        max--;
    }
}

static void split_at(struct render *r, struct list *out, struct str s, struct str sep, int64_t max)
{
    size_t pos = 0, at;
    while (max-- != 0 && text_find(s, sep, pos, &at) && r->status == OK) {
        list_push(r, out, value_str(str_cut(s, pos, at - pos)));
        pos = at + sep.n;
    }
    list_push(r, out, value_str(str_cut(s, pos, s.n - pos)));
}

static void rsplit_at(struct render *r, struct list *out, struct str s, struct str sep, int64_t max)
{
    for (size_t i = s.n; max != 0 && i >= sep.n && r->status == OK;) {
        if (memcmp(s.p + i - sep.n, sep.p, sep.n) != 0) {
            i--;
            continue;
        }
        list_push(r, out, value_str(str_cut(s, i, s.n - i)));
        s.n = i -= sep.n;
        max--;
    }
    list_push(r, out, value_str(s));
}

static void reverse(struct list *l)
{
    for (size_t i = 0; i < l->n / 2; i++) {
        struct value v = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = v;
    }
}

static struct value split(struct render *r, struct str s, const struct value *a, bool from_right)
{
    struct value out = value_list(r, V_LIST);
    struct str sep = STR("");
    int64_t max = arg_int(r, a[1], -1);
    if (max < 0) max = -1;
    if (!template_charge(r, 4 * s.n)) return value_undef();
    if (!is_given(a[0])) {
        if (from_right)
            rsplit_blanks(r, out.list, s, max);
        else
            split_blanks(r, out.list, s, max);
    } else {
        if (!need_str(r, a[0], &sep)) return value_undef();
        if (sep.n == 0) return template_fail(r, ERR_INTERNAL, "empty separator");
        if (from_right)
            rsplit_at(r, out.list, s, sep, max);
        else
            split_at(r, out.list, s, sep, max);
    }
    if (from_right) reverse(out.list);
    return out;
}

#define METHOD(name)                                                                                                   \
    static struct value method_##name(struct render *r, struct value self, const struct value *a,                      \
                                      const struct args *args)

METHOD(split)
{
    return split(r, self.s, a, false);
}
METHOD(rsplit)
{
    return split(r, self.s, a, true);
}
METHOD(upper)
{
    return text_recase(r, self.s, TEXT_UPPER);
}
METHOD(lower)
{
    return text_recase(r, self.s, TEXT_LOWER);
}
METHOD(title)
{
    return text_recase(r, self.s, TEXT_TITLE);
}
METHOD(capitalize)
{
    return text_recase(r, self.s, TEXT_CAPITALIZE);
}
METHOD(format)
{
    return text_format(r, self.s, args);
}

static struct value strip(struct render *r, struct str s, struct value chars, bool left, bool right)
{
    struct str set = STR("");
    if (!template_charge(r, s.n)) return value_undef();
    if (!is_given(chars)) return value_str(text_strip(s, NULL, left, right));
    if (!need_str(r, chars, &set)) return value_undef();
    if (set.n > 64 && !template_charge(r, s.n * set.n)) return value_undef();
    return value_str(text_strip(s, &set, left, right));
}

METHOD(strip)
{
    return strip(r, self.s, a[0], true, true);
}
METHOD(lstrip)
{
    return strip(r, self.s, a[0], true, false);
}
METHOD(rstrip)
{
    return strip(r, self.s, a[0], false, true);
}

METHOD(replace)
{
    struct str from, to;
    int64_t n = arg_int(r, a[2], -1);
    if (!need_str(r, a[0], &from) || !need_str(r, a[1], &to) || !template_charge(r, self.s.n)) return value_undef();
    return text_replace(r, self.s, from, to, n);
}

/* s[start:end] as str.find() and its kind see it; *from: bytes before it. */
static struct str window(struct render *r, struct str s, struct value start, struct value end, size_t *from)
{
    int64_t n = (int64_t)text_length(s), i = arg_int(r, start, 0), k = arg_int(r, end, n);
    if (i < 0) i = i < -n ? 0 : i + n;
    if (k < 0) k = k < -n ? 0 : k + n;
    *from = text_offset(s, (size_t)(i < n ? i : n));
    size_t to = text_offset(s, (size_t)(k < n ? k : n));
    /* A start behind the end has no place even for the empty text. */
    if (i > n || to < *from) return (struct str){ NULL, 0, NULL };
    return str_cut(s, *from, to - *from);
}

static bool has_affix(struct str s, struct str part, bool at_end)
{
    if (!s.p || part.n > s.n) return false;
    return part.n == 0 || memcmp(at_end ? s.p + s.n - part.n : s.p, part.p, part.n) == 0;
}

static struct value affix(struct render *r, struct str s, const struct value *a, bool at_end)
{
    size_t from;
    struct str in = window(r, s, a[1], a[2], &from), part;
    if (!template_charge(r, s.n)) return value_undef();
    if (a[0].type != V_TUPLE) return need_str(r, a[0], &part) ? value_bool(has_affix(in, part, at_end)) : value_undef();
    for (size_t i = 0; i < a[0].list->n; i++) {
        if (!need_str(r, a[0].list->v[i], &part)) return value_undef();
        if (has_affix(in, part, at_end)) return value_bool(true);
    }
    return value_bool(false);
}

METHOD(startswith)
{
    return affix(r, self.s, a, false);
}
METHOD(endswith)
{
    return affix(r, self.s, a, true);
}

/* Code points before the first `a[0]` in the window, or -1. */
static int64_t find(struct render *r, struct str s, const struct value *a)
{
    size_t from, at;
    struct str in = window(r, s, a[1], a[2], &from), part;
    if (!need_str(r, a[0], &part) || !template_charge(r, s.n) || !in.p) return -1;
    if (!text_find(in, part, 0, &at)) return -1;
    return (int64_t)text_length(str_cut(s, 0, from + at));
}

METHOD(str_find)
{
    return value_int(find(r, self.s, a));
}

METHOD(str_index)
{
    int64_t i = find(r, self.s, a);
    return i < 0 ? template_fail(r, ERR_INTERNAL, "substring not found") : value_int(i);
}

METHOD(str_count)
{
    size_t from, pos = 0, at;
    struct str in = window(r, self.s, a[1], a[2], &from), part;
    int64_t n = 0;
    if (!need_str(r, a[0], &part) || !template_charge(r, self.s.n)) return value_undef();
    if (!in.p) return value_int(0);
    if (part.n == 0) return value_int((int64_t)text_length(in) + 1);
    for (; text_find(in, part, pos, &at); pos = at + part.n) n++;
    return value_int(n);
}

METHOD(join)
{
    const struct list *items = value_items(r, a[0]);
    struct text_out sb = TEXT_OUT_INIT;
    for (size_t i = 0; items && i < items->n && template_charge(r, self.s.n); i++) {
        if (items->v[i].type != V_STR)
            template_fail(r, ERR_INTERNAL, "sequence item %zu: expected str instance, %s found", i,
                          value_type_name(items->v[i]));
        else {
            if (i) out_str(&sb, self.s);
            out_str(&sb, items->v[i].s);
        }
    }
    return value_take(r, &sb);
}

METHOD(splitlines)
{
    return text_lines(r, self.s);
}

METHOD(removeprefix)
{
    struct str part;
    if (!need_str(r, a[0], &part) || !has_affix(self.s, part, false)) return self;
    return value_str(str_cut(self.s, part.n, self.s.n - part.n));
}

METHOD(removesuffix)
{
    struct str part;
    if (!need_str(r, a[0], &part) || !has_affix(self.s, part, true)) return self;
    return value_str(str_cut(self.s, 0, self.s.n - part.n));
}

/* What stands before the first (or last) place of a[0], that text, and what stands behind it. */
static struct value partition(struct render *r, struct str s, const struct value *a, bool last)
{
    struct value out = value_list(r, V_TUPLE);
    struct str sep;
    size_t at = 0, next;
    if (!need_str(r, a[0], &sep) || !template_charge(r, s.n)) return value_undef();
    if (sep.n == 0) return template_fail(r, ERR_INTERNAL, "empty separator");
    bool found = text_find(s, sep, 0, &at);
    while (last && found && text_find(s, sep, at + 1, &next)) at = next;
    struct str parts[3] = { s, STR(""), STR("") };
    if (found) {
        parts[0] = str_cut(s, 0, at);
        parts[1] = sep;
        parts[2] = str_cut(s, at + sep.n, s.n - at - sep.n);
    } else if (last) {
        parts[2] = s;
        parts[0] = STR("");
    }
    for (size_t i = 0; i < 3; i++) list_push(r, out.list, value_str(parts[i]));
    return out;
}

METHOD(partition)
{
    return partition(r, self.s, a, false);
}
METHOD(rpartition)
{
    return partition(r, self.s, a, true);
}

METHOD(isdigit)
{
    bool yes = self.s.n > 0;
    for (size_t i = 0; i < self.s.n && yes;) yes = text_is_digit(text_next(self.s, &i));
    return value_bool(yes);
}

METHOD(isspace)
{
    return value_bool(self.s.n > 0 && text_strip(self.s, NULL, true, false).n == 0);
}

METHOD(append)
{
    list_push(r, self.list, a[0]);
    return value_none();
}

METHOD(extend)
{
    const struct list *items = value_items(r, a[0]);
    for (size_t i = 0, n = items ? items->n : 0; i < n && r->status == OK; i++) list_push(r, self.list, items->v[i]);
    return value_none();
}

METHOD(insert)
{
    struct list *l = self.list;
    int64_t at = arg_int(r, a[0], 0), n = (int64_t)l->n;
    at = at < 0 ? (at + n < 0 ? 0 : at + n) : at > n ? n : at;
    list_push(r, l, a[1]);
    if (r->status != OK || !template_charge(r, 8 * l->n)) return value_undef();
    memmove(l->v + at + 1, l->v + at, (size_t)(n - at) * sizeof(*l->v));
    l->v[at] = a[1];
    return value_none();
}

METHOD(list_pop)
{
    struct list *l = self.list;
    int64_t i = arg_int(r, a[0], -1);
    if (l->n == 0) return template_fail(r, ERR_INTERNAL, "pop from empty list");
    if (i < 0) i += (int64_t)l->n;
    if (i < 0 || i >= (int64_t)l->n) return template_fail(r, ERR_INTERNAL, "pop index out of range");
    if (!template_charge(r, 8 * l->n)) return value_undef();
    struct value v = l->v[i];
    l->n--;
    memmove(l->v + i, l->v + i + 1, (l->n - (size_t)i) * sizeof(*l->v));
    return v;
}

METHOD(list_index)
{
    for (size_t i = 0; i < self.list->n && r->status == OK; i++)
        if (value_equal(r, self.list->v[i], a[0], 0)) return value_int((int64_t)i);
    return template_fail(r, ERR_INTERNAL, "the value is not in the list");
}

METHOD(list_count)
{
    int64_t n = 0;
    for (size_t i = 0; i < self.list->n && r->status == OK; i++) n += value_equal(r, self.list->v[i], a[0], 0);
    return value_int(n);
}

static struct value view(struct render *r, const struct dict *d, enum view_kind kind)
{
    struct value out = value_list(r, V_VIEW);
    out.sub = (uint8_t)kind;
    for (size_t i = 0; i < d->n && template_charge(r, 16); i++) {
        struct value item = kind == VIEW_KEYS ? d->e[i].key : d->e[i].value;
        if (kind == VIEW_ITEMS) {
            item = value_list(r, V_TUPLE);
            list_push(r, item.list, d->e[i].key);
            list_push(r, item.list, d->e[i].value);
        }
        list_push(r, out.list, item);
    }
    return out;
}

METHOD(items)
{
    return view(r, self.dict, VIEW_ITEMS);
}
METHOD(keys)
{
    return view(r, self.dict, VIEW_KEYS);
}
METHOD(values)
{
    return view(r, self.dict, VIEW_VALUES);
}

METHOD(get)
{
    const struct value *found = dict_find(r, self.dict, a[0]);
    return found ? *found : a[1].type == V_ABSENT ? value_none() : a[1];
}

METHOD(update)
{
    if (a[0].type != V_DICT) return template_fail(r, ERR_INTERNAL, "update() needs a dict");
    const struct dict *from = a[0].dict;
    for (size_t i = 0, n = from->n; i < n && r->status == OK; i++)
        dict_set(r, self.dict, from->e[i].key, from->e[i].value);
    return value_none();
}

METHOD(setdefault)
{
    const struct value *found = dict_find(r, self.dict, a[0]);
    if (found) return *found;
    struct value v = a[1].type == V_ABSENT ? value_none() : a[1];
    dict_set(r, self.dict, a[0], v);
    return v;
}

METHOD(dict_pop)
{
    const struct value *found = dict_find(r, self.dict, a[0]);
    if (!found && a[1].type != V_ABSENT) return a[1];
    if (!found) return template_fail(r, ERR_INTERNAL, "the key to pop is not in the dict");
    struct value v = *found;
    dict_remove(self.dict, found);
    return v;
}

METHOD(cycle)
{
    if (args->n_pos == 0) return template_fail(r, ERR_INTERNAL, "no items for cycling given");
    return args->pos[self.loop->idx % args->n_pos];
}

enum { S = 1 << V_STR, L = 1 << V_LIST, T = 1 << V_TUPLE, D = 1 << V_DICT, LOOP = 1 << V_LOOP };

static const struct native methods[] = {
    { "append", method_append, "object", 1, L },
    { "capitalize", method_capitalize, "", 0, S },
    { "count", method_list_count, "value", 1, L | T },
    { "count", method_str_count, "sub start end", 1, S },
    { "cycle", method_cycle, NULL, 0, LOOP },
    { "endswith", method_endswith, "suffix start end", 1, S },
    { "extend", method_extend, "iterable", 1, L },
    { "find", method_str_find, "sub start end", 1, S },
    { "format", method_format, NULL, 0, S },
    { "get", method_get, "key default", 1, D },
    { "index", method_list_index, "value", 1, L | T },
    { "index", method_str_index, "sub start end", 1, S },
    { "insert", method_insert, "index object", 2, L },
    { "isdigit", method_isdigit, "", 0, S },
    { "isspace", method_isspace, "", 0, S },
    { "items", method_items, "", 0, D },
    { "join", method_join, "iterable", 1, S },
    { "keys", method_keys, "", 0, D },
    { "lower", method_lower, "", 0, S },
    { "lstrip", method_lstrip, "chars", 0, S },
    { "partition", method_partition, "sep", 1, S },
    { "pop", method_list_pop, "index", 0, L },
    { "pop", method_dict_pop, "key default", 1, D },
    { "removeprefix", method_removeprefix, "prefix", 1, S },
    { "removesuffix", method_removesuffix, "suffix", 1, S },
    { "replace", method_replace, "old new count", 2, S },
    { "rpartition", method_rpartition, "sep", 1, S },
    { "rsplit", method_rsplit, "sep maxsplit", 0, S },
    { "rstrip", method_rstrip, "chars", 0, S },
    { "setdefault", method_setdefault, "key default", 1, D },
    { "split", method_split, "sep maxsplit", 0, S },
    { "splitlines", method_splitlines, "", 0, S },
    { "startswith", method_startswith, "prefix start end", 1, S },
    { "strip", method_strip, "chars", 0, S },
    { "title", method_title, "", 0, S },
    { "update", method_update, "other", 1, D },
    { "upper", method_upper, "", 0, S },
    { "values", method_values, "", 0, D },
    { NULL },
};

const struct native *method_find(struct str name, enum value_type type)
{
    for (const struct native *m = methods; m->name; m++)
        if ((type == V_ABSENT || m->types >> type & 1) && str_is(name, m->name)) return m;
    return NULL;
}
