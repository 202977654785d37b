/* template_eval.c - the value of an expression node; calls of functions, filters and tests. */
#include "text/template_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A tag on one line, its blanks as one, cut where it gets long. */
static void show_tag(struct str tag, char *out, size_t cap)
{
    size_t n = 0, i = 0;
    for (size_t next; i < tag.n; i = next) {
        next = i;
        bool space = text_is_space(text_next(tag, &next));
        size_t len = space ? 1 : next - i;
        if (n + len + sizeof("...") > cap) break;
        if (space && n > 0 && out[n - 1] == ' ') continue;
        memcpy(out + n, space ? " " : tag.p + i, len);
        n += len;
    }
    memcpy(out + n, i < tag.n ? "..." : "", i < tag.n ? sizeof("...") : 1);
}

struct value template_fail(struct render *r, enum status st, const char *fmt, ...)
{
    if (r->status != OK) return value_undef();
    char text[ERROR_TEXT_MAX], tag[84] = "";
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (r->at) show_tag(r->at->tag, tag, sizeof(tag));
    r->status = error_set(r->err, st, "template line %d%s%s: %s", r->at ? r->at->line : 1, *tag ? ", " : "", tag, text);
    return value_undef();
}

bool template_charge(struct render *r, size_t bytes)
{
    r->steps += 1 + bytes / 16;
    if (r->steps > TEMPLATE_STEPS_MAX)
        template_fail(r, ERR_TOO_LARGE, "rendering takes more than %d steps", TEMPLATE_STEPS_MAX);
    else if (r->arena.used > TEMPLATE_MEMORY_MAX)
        template_fail(r, ERR_TOO_LARGE, "rendering needs more than %d MiB of memory", TEMPLATE_MEMORY_MAX >> 20);
    else if (r->in->stop && atomic_load_explicit(r->in->stop, memory_order_relaxed))
        template_fail(r, ERR_CANCELLED, "rendering was stopped");
    return r->status == OK;
}

int64_t arg_int(struct render *r, struct value v, int64_t fallback)
{
    int64_t i = fallback;
    if (v.type == V_ABSENT || v.type == V_NONE) return fallback;
    if (v.type == V_UNDEF) value_undef_error(r, v);
    if (!value_as_int(v, &i))
        template_fail(r, ERR_INTERNAL, "'%s' object cannot be interpreted as an integer", value_type_name(v));
    return i;
}

bool arg_bool(struct value v, bool fallback)
{
    return v.type == V_ABSENT ? fallback : value_truth(v);
}

/* The place of `name` among the words of params, or -1. */
static int param_idx(const char *params, struct str name)
{
    int idx = 0;
    for (const char *p = params; *p; idx++) {
        size_t n = strcspn(p, " ");
        if (n == name.n && memcmp(p, name.p, n) == 0) return idx;
        p += n;
        p += *p == ' ';
    }
    return -1;
}

static int count_params(const char *params)
{
    int n = *params != '\0';
    for (const char *p = params; *p; p++) n += *p == ' ';
    return n;
}

struct value native_call(struct render *r, const struct native *f, struct value self, const struct args *args)
{
    struct value a[TEMPLATE_PARAMS_MAX] = { 0 };
    if (!template_charge(r, 0)) return value_undef();
    if (!f->params) return f->fn(r, self, NULL, args);
    int n_params = count_params(f->params);
    if (args->n_pos > (size_t)n_params)
        return template_fail(r, ERR_INTERNAL, "%s() takes at most %d arguments, %zu were given", f->name, n_params,
                             args->n_pos);
    for (size_t i = 0; i < args->n_pos; i++) a[i] = args->pos[i];
    for (size_t i = 0; i < args->n_kw; i++) {
        struct str name = args->kw[i].name;
        int idx = param_idx(f->params, name);
        if (idx < 0 || a[idx].type != V_ABSENT)
            return template_fail(r, ERR_INTERNAL, "%s() got %s keyword argument '%.*s'", f->name,
                                 idx < 0 ? "an unexpected" : "a second value for the", str_shown(name), name.p);
        a[idx] = args->kw[i].value;
    }
    for (int i = 0; i < f->required; i++)
        if (a[i].type == V_ABSENT)
            return template_fail(r, ERR_INTERNAL, "%s() needs at least %d arguments", f->name, f->required);
    return f->fn(r, self, a, args);
}

bool test_passes(struct render *r, const struct native *test, struct value v, const struct args *args)
{
    return value_truth(native_call(r, test, v, args));
}

struct value value_call(struct render *r, struct value callee, const struct args *args)
{
    if (r->status != OK) return value_undef();
    switch (callee.type) {
    case V_NATIVE: return native_call(r, callee.native, value_undef(), args);
    case V_BOUND: return native_call(r, callee.bound->native, callee.bound->self, args);
    case V_MACRO: return macro_call(r, callee.macro, args);
    case V_LOOP: return loop_call(r, callee.loop, args);
    case V_UNDEF: return value_undef_error(r, callee);
    default: return template_fail(r, ERR_INTERNAL, "'%s' object is not callable", value_type_name(callee));
    }
}

static void add_named(struct render *r, struct scope *kw, struct str name, struct value v)
{
    size_t n = kw->n;
    scope_set(r, kw, name, v);
    if (kw->n == n)
        template_fail(r, ERR_INTERNAL, "got multiple values for keyword argument '%.*s'", str_shown(name), name.p);
}

/* What ** unpacks: a mapping with names as keys. */
static void add_unpacked(struct render *r, struct scope *kw, struct value v)
{
    if (v.type != V_DICT) {
        template_fail(r, ERR_INTERNAL, "argument after ** must be a mapping, not %s", value_type_name(v));
        return;
    }
    for (size_t i = 0; i < v.dict->n && template_charge(r, 16 * kw->n); i++) {
        if (v.dict->e[i].key.type != V_STR)
            template_fail(r, ERR_INTERNAL, "keywords must be strings");
        else
            add_named(r, kw, v.dict->e[i].key.s, v.dict->e[i].value);
    }
}

/* Arguments some of which a star unpacks. */
static struct args eval_unpacked(struct render *r, const struct node *n)
{
    struct value pos = value_list(r, V_LIST);
    struct scope *kw = scope_new(r, NULL);
    for (size_t i = 0; i < n->kids.n; i++) list_push(r, pos.list, eval(r, n->kids.v[i]));
    const struct list *rest = n->b ? value_items(r, eval(r, n->b)) : NULL;
    for (size_t i = 0; rest && i < rest->n && template_charge(r, 0); i++) list_push(r, pos.list, rest->v[i]);
    for (size_t i = 0; i < n->other.n; i++) add_named(r, kw, n->other.v[i]->name, eval(r, n->other.v[i]->a));
    struct value more = n->c ? eval(r, n->c) : value_undef();
    r->at = n;
    if (n->c && r->status == OK) add_unpacked(r, kw, more);
    const struct value *given = pos.list->n ? pos.list->v : template_alloc(&r->arena, 0); /* filters skip some */
    return (struct args){ given, pos.list->n, kw->v, kw->n };
}

struct args eval_args(struct render *r, const struct node *n)
{
    if (n->b || n->c) return eval_unpacked(r, n);
    struct value *pos = template_alloc(&r->arena, n->kids.n * sizeof(*pos));
    struct binding *kw = template_alloc(&r->arena, n->other.n * sizeof(*kw));
    for (size_t i = 0; i < n->kids.n; i++) pos[i] = eval(r, n->kids.v[i]);
    for (size_t i = 0; i < n->other.n; i++) {
        kw[i].name = n->other.v[i]->name;
        kw[i].value = eval(r, n->other.v[i]->a);
    }
    r->at = n;
    return (struct args){ pos, n->kids.n, kw, n->other.n };
}

static struct value eval_call(struct render *r, const struct node *n)
{
    if (n->a->kind != N_ATTR) {
        struct value callee = eval(r, n->a);
        struct args args = eval_args(r, n);
        return value_call(r, callee, &args);
    }
    struct value obj = eval(r, n->a->a);
    r->at = n;
    const struct native *method = method_find(n->a->name, obj.type);
    struct value callee = method ? value_undef() : op_attr(r, obj, n->a->name);
    if (r->status != OK) return value_undef();
    struct args args = eval_args(r, n);
    return method ? native_call(r, method, obj, &args) : value_call(r, callee, &args);
}

static struct value eval_native(struct render *r, const struct node *n)
{
    struct value input = eval(r, n->a);
    struct args args = eval_args(r, n);
    if (r->status != OK) return value_undef();
    return native_call(r, n->native, input, &args);
}

static struct value eval_items(struct render *r, const struct node *n)
{
    struct value v = value_list(r, n->kind == N_LIST ? V_LIST : V_TUPLE);
    for (size_t i = 0; i < n->kids.n && r->status == OK; i++) list_push(r, v.list, eval(r, n->kids.v[i]));
    return v;
}

static struct value eval_dict(struct render *r, const struct node *n)
{
    struct value v = value_dict(r, V_DICT);
    for (size_t i = 0; i < n->kids.n && r->status == OK; i++) {
        struct value key = eval(r, n->kids.v[i]);
        dict_set(r, v.dict, key, eval(r, n->other.v[i]));
    }
    return v;
}

static struct value eval_concat(struct render *r, const struct node *n)
{
    struct text_out sb = TEXT_OUT_INIT;
    for (size_t i = 0; i < n->kids.n && r->status == OK; i++) print_str(r, &sb, eval(r, n->kids.v[i]));
    r->at = n;
    return value_take(r, &sb);
}

static struct value eval_compare(struct render *r, const struct node *n)
{
    struct value left = eval(r, n->a);
    for (size_t i = 0; i < n->kids.n && r->status == OK; i++) {
        const struct node *operand = n->kids.v[i];
        struct value right = eval(r, operand->a);
        r->at = operand;
        if (r->status != OK || !value_test_op(r, operand->op, left, right)) return value_bool(false);
        left = right;
    }
    return value_bool(true);
}

static struct value eval_slice(struct render *r, const struct node *n)
{
    struct value obj = eval(r, n->a), bounds[3];
    for (size_t i = 0; i < 3; i++) bounds[i] = eval(r, n->kids.v[i]);
    r->at = n;
    return op_slice(r, obj, bounds);
}

static struct value eval_pair(struct render *r, const struct node *n)
{
    struct value a = eval(r, n->a), b = eval(r, n->b);
    r->at = n;
    return n->kind == N_ITEM ? op_item(r, a, b) : op_binary(r, n->op, a, b);
}

static struct value eval_choice(struct render *r, const struct node *n)
{
    struct value a = eval(r, n->a);
    bool truth = value_truth(a);
    switch (n->kind) {
    case N_AND: return truth ? eval(r, n->b) : a;
    case N_OR: return truth ? a : eval(r, n->b);
    case N_NOT: return value_bool(!truth);
    default: return truth ? eval(r, n->b) : n->c ? eval(r, n->c) : value_undef();
    }
}

static struct value eval_sign(struct render *r, const struct node *n)
{
    struct value v = eval(r, n->a);
    r->at = n;
    if (r->status != OK || (n->kind == N_POS && value_is_number(v))) return v.type == V_BOOL ? value_int(v.b) : v;
    return op_negate(r, v);
}

static struct value eval_node(struct render *r, const struct node *n)
{
    struct value v;
    switch (n->kind) {
    case N_CONST: return n->value;
    case N_NAME: return scope_get(r, n->name);
    case N_LIST:
    case N_TUPLE: return eval_items(r, n);
    case N_DICT: return eval_dict(r, n);
    case N_COND:
    case N_OR:
    case N_AND:
    case N_NOT: return eval_choice(r, n);
    case N_NEG:
    case N_POS: return eval_sign(r, n);
    case N_ITEM:
    case N_BINARY: return eval_pair(r, n);
    case N_COMPARE: return eval_compare(r, n);
    case N_CONCAT: return eval_concat(r, n);
    case N_ATTR:
        v = eval(r, n->a);
        r->at = n;
        return op_attr(r, v, n->name);
    case N_SLICE: return eval_slice(r, n);
    case N_CALL: return eval_call(r, n);
    case N_FILTER:
    case N_TEST: return eval_native(r, n);
    default: return template_fail(r, ERR_INTERNAL, "a statement stands in an expression");
    }
}

struct value eval(struct render *r, const struct node *n)
{
    if (!template_charge(r, 0)) return value_undef();
    if (r->depth >= TEMPLATE_EVAL_DEPTH)
        return template_fail(r, ERR_TOO_LARGE, "evaluation nested deeper than %d", TEMPLATE_EVAL_DEPTH);
    r->depth++;
    struct value v = eval_node(r, n);
    r->depth--;
    return r->status == OK ? v : value_undef();
}
