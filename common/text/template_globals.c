/* template_globals.c - the functions that every template finds defined. */
#include "text/template_internal.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct value global_raise(struct render *r, struct value self, const struct value *a, const struct args *args)
{
    struct str text = value_text(r, a[0]);
    /* The author of the template wrote the whole sentence, so no line stands before it. */
    if (r->status == OK)
        r->status =
            error_set(r->err, ERR_INVALID, "%.*s", text.n < ERROR_TEXT_MAX ? (int)text.n : ERROR_TEXT_MAX, text.p);
    return value_undef();
}

static struct value global_strftime(struct render *r, struct value self, const struct value *a, const struct args *args)
{
    char format[256], text[1024];
    struct tm tm;
    time_t now = (time_t)r->in->now;
    if (a[0].type != V_STR || a[0].s.n > sizeof(format) - 2)
        return template_fail(r, ERR_INTERNAL, "strftime_now() needs a short format string");
    /* The blank tells an empty result from one that did not fit. */
    format[0] = ' ';
    memcpy(format + 1, a[0].s.p, a[0].s.n);
    format[a[0].s.n + 1] = '\0';
    if (!localtime_r(&now, &tm)) return template_fail(r, ERR_INTERNAL, "the time is out of range");
    size_t n = strftime(text, sizeof(text), format, &tm);
    if (n == 0) return template_fail(r, ERR_TOO_LARGE, "strftime_now() gives too long a text");
    return value_copy(r, (struct str){ text + 1, n - 1, a[0].s.own == STR_OWN ? STR_OWN : NULL });
}

static struct value global_range(struct render *r, struct value self, const struct value *a, const struct args *args)
{
    struct value out = value_list(r, V_RANGE);
    struct list *l = out.list;
    if (a[0].type == V_NONE || (a[1].type != V_ABSENT && a[1].type == V_NONE))
        return template_fail(r, ERR_INTERNAL, "'NoneType' object cannot be interpreted as an integer");
    l->start = a[1].type == V_ABSENT ? 0 : arg_int(r, a[0], 0);
    l->stop = arg_int(r, a[1].type == V_ABSENT ? a[0] : a[1], 0);
    l->step = arg_int(r, a[2], 1);
    if (l->step == 0) return template_fail(r, ERR_INTERNAL, "range() arg 3 must not be zero");
    for (int64_t i = l->start; r->status == OK && (l->step > 0 ? i < l->stop : i > l->stop);) {
        if (l->n == TEMPLATE_RANGE_MAX)
            return template_fail(r, ERR_TOO_LARGE, "range() of more than %d items", TEMPLATE_RANGE_MAX);
        template_charge(r, 0);
        list_push(r, l, value_int(i));
        if (__builtin_add_overflow(i, l->step, &i)) break;
    }
    return out;
}

/* Members from one mapping or one sequence of pairs, then from the named arguments. */
static struct value make_dict(struct render *r, enum value_type type, const struct args *args)
{
    struct value out = value_dict(r, type);
    if (args->n_pos > 1)
        return template_fail(r, ERR_INTERNAL, "dict expected at most 1 argument, got %zu", args->n_pos);
    if (args->n_pos && args->pos[0].type == V_DICT) {
        const struct dict *from = args->pos[0].dict;
        for (size_t i = 0; i < from->n && r->status == OK; i++) dict_set(r, out.dict, from->e[i].key, from->e[i].value);
    } else if (args->n_pos) {
        const struct list *items = value_items(r, args->pos[0]);
        for (size_t i = 0; items && i < items->n && r->status == OK; i++) {
            const struct list *pair = value_items(r, items->v[i]);
            if (pair && pair->n != 2)
                template_fail(r, ERR_INTERNAL, "dict() needs pairs, item %zu has %zu parts", i, pair->n);
            else if (pair)
                dict_set(r, out.dict, pair->v[0], pair->v[1]);
        }
    }
    for (size_t i = 0; i < args->n_kw && r->status == OK; i++)
        dict_set(r, out.dict, value_str(args->kw[i].name), args->kw[i].value);
    return out;
}

static struct value global_dict(struct render *r, struct value self, const struct value *a, const struct args *args)
{
    return make_dict(r, V_DICT, args);
}

static struct value global_namespace(struct render *r, struct value self, const struct value *a,
                                     const struct args *args)
{
    return make_dict(r, V_NAMESPACE, args);
}

static const struct native globals[] = {
    { "dict", global_dict, NULL, 0 },
    { "namespace", global_namespace, NULL, 0 },
    { "raise_exception", global_raise, "message", 1 },
    { "range", global_range, "start stop step", 1 },
    { "strftime_now", global_strftime, "format", 1 },
    { NULL },
};

const struct native *global_find(struct str name)
{
    for (const struct native *g = globals; g->name; g++)
        if (str_is(name, g->name)) return g;
    return NULL;
}
