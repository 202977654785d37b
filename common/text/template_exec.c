/* template_exec.c - runs the statements of a template; scopes, loops and macros. */
#include "text/template_internal.h"

#include <string.h>

struct scope *scope_new(struct render *r, struct scope *parent)
{
    struct scope *s = template_alloc(&r->arena, sizeof(*s));
    s->parent = parent;
    return s;
}

void scope_set(struct render *r, struct scope *s, struct str name, struct value v)
{
    for (size_t i = 0; i < s->n; i++) {
        if (!str_eq(s->v[i].name, name)) continue;
        s->v[i].value = v;
        return;
    }
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 4;
        struct binding *grown = template_alloc(&r->arena, cap * sizeof(*grown));
        if (s->n) memcpy(grown, s->v, s->n * sizeof(*grown));
        s->v = grown;
        s->cap = cap;
    }
    s->v[s->n++] = (struct binding){ name, v };
}

struct value scope_get(struct render *r, struct str name)
{
    for (const struct scope *s = r->scope; s; s = s->parent)
        for (size_t i = 0; i < s->n; i++)
            if (str_eq(s->v[i].name, name)) return s->v[i].value;
    const struct native *global = global_find(name);
    if (global) return (struct value){ .type = V_NATIVE, .native = global };
    return value_missing(name, V_ABSENT);
}

static void assign_attr(struct render *r, const struct node *target, struct value v)
{
    struct value ns = scope_get(r, target->a->name);
    if (ns.type != V_NAMESPACE)
        template_fail(r, ERR_INTERNAL, "cannot assign attribute on non-namespace object");
    else
        dict_set(r, ns.dict, value_str(target->name), v);
}

static void assign(struct render *r, const struct node *target, struct value v)
{
    if (r->status != OK) return;
    if (target->kind == N_NAME) {
        scope_set(r, r->scope, target->name, v);
    } else if (target->kind == N_NSREF) {
        assign_attr(r, target, v);
    } else {
        struct list *items = value_items(r, v);
        if (!items) return;
        if (items->n != target->kids.n)
            template_fail(r, ERR_INTERNAL, "%s values to unpack (expected %zu, got %zu)",
                          items->n < target->kids.n ? "not enough" : "too many", target->kids.n, items->n);
        for (size_t i = 0; i < target->kids.n && r->status == OK; i++) assign(r, target->kids.v[i], items->v[i]);
    }
}

/* Runs a body in a scope and gives its text as a value. */
static struct value capture(struct render *r, const struct nodes *body, struct scope *s)
{
    struct text_out text = TEXT_OUT_INIT, *out = r->out;
    struct scope *outer = r->scope;
    r->out = &text;
    r->scope = s;
    exec_body(r, body);
    r->out = out;
    r->scope = outer;
    return value_take(r, &text);
}

/* Positional arguments that the macro has no parameters for. */
static struct value rest_of_args(struct render *r, const struct node *n, const struct args *args)
{
    struct value v = value_list(r, V_TUPLE);
    for (size_t i = n->kids.n; i < args->n_pos; i++) list_push(r, v.list, args->pos[i]);
    return v;
}

static void bind_params(struct render *r, const struct node *n, const struct args *args)
{
    int shown = str_shown(n->name);
    struct value more = value_dict(r, V_DICT);
    if (args->n_pos > n->kids.n && !(n->op & CATCH_VARARGS))
        template_fail(r, ERR_INTERNAL, "macro '%.*s' takes not more than %zu argument(s)", shown, n->name.p, n->kids.n);
    for (size_t k = 0; k < args->n_kw; k++) {
        size_t i = 0;
        if ((n->op & CATCH_CALLER) && str_is(args->kw[k].name, "caller")) continue;
        while (i < n->kids.n && !str_eq(n->kids.v[i]->name, args->kw[k].name)) i++;
        if (i == n->kids.n && (n->op & CATCH_KWARGS))
            dict_set(r, more.dict, value_str(args->kw[k].name), args->kw[k].value);
        else if (i == n->kids.n || i < args->n_pos)
            template_fail(r, ERR_INTERNAL, "macro '%.*s' cannot take the keyword argument '%.*s'", shown, n->name.p,
                          str_shown(args->kw[k].name), args->kw[k].name.p);
    }
    for (size_t i = 0; i < n->kids.n && r->status == OK; i++) {
        const struct node *param = n->kids.v[i];
        struct value v = value_missing(param->name, V_ABSENT);
        bool given = i < args->n_pos;
        if (given) v = args->pos[i];
        for (size_t k = 0; k < args->n_kw; k++) {
            if (!str_eq(args->kw[k].name, param->name)) continue;
            v = args->kw[k].value;
            given = true;
        }
        if (!given && param->a) v = eval(r, param->a);
        scope_set(r, r->scope, param->name, v);
    }
    if (n->op & CATCH_VARARGS) scope_set(r, r->scope, STR("varargs"), rest_of_args(r, n, args));
    if (n->op & CATCH_KWARGS) scope_set(r, r->scope, STR("kwargs"), more);
}

/* A macro that names its caller finds it undefined where it was not called by a {% call %}. */
static void bind_caller(struct render *r, const struct args *args)
{
    struct value v = value_missing(STR("caller"), V_ABSENT);
    for (size_t k = 0; k < args->n_kw; k++)
        if (str_is(args->kw[k].name, "caller")) v = args->kw[k].value;
    scope_set(r, r->scope, STR("caller"), v);
}

struct value macro_call(struct render *r, const struct macro *m, const struct args *args)
{
    struct scope *outer = r->scope, *s = scope_new(r, m->scope);
    const struct node *at = r->at;
    r->scope = s; /* defaults may name the parameters before them */
    bind_params(r, m->node, args);
    if (m->node->op & CATCH_CALLER) bind_caller(r, args);
    r->scope = outer;
    if (r->status != OK) return value_undef();
    struct value text = capture(r, &m->node->other, s);
    r->at = at;
    return text;
}

/* The items that pass the loop's own `if`. */
static struct list *filter_items(struct render *r, const struct node *n, const struct list *items)
{
    struct list *kept = value_list(r, V_LIST).list;
    struct scope *outer = r->scope;
    r->scope = scope_new(r, outer);
    for (size_t i = 0; i < items->n && r->status == OK; i++) {
        assign(r, n->a, items->v[i]);
        if (value_truth(eval(r, n->c))) list_push(r, kept, items->v[i]);
    }
    r->scope = outer;
    return kept;
}

/* From now on the scopes around this place outlive their turn. */
static void keep_scopes(struct render *r)
{
    for (struct scope *s = r->scope; s; s = s->parent) s->captured = true;
}

/* The loop of `n` over `over`; depth: how often it is already under way. */
static enum flow run_loop(struct render *r, const struct node *n, struct value over, size_t depth)
{
    struct list *items = value_items(r, over);
    if (items && n->c) items = filter_items(r, n, items);
    if (!items || r->status != OK) return FLOW_NEXT;
    if (n->op) keep_scopes(r);
    struct scope *outer = r->scope, *s = scope_new(r, outer);
    struct loop *loop = template_alloc(&r->arena, sizeof(*loop));
    bool finished_one = false; /* Jinja runs `else` also where each turn broke off */
    enum flow flow = FLOW_NEXT;
    *loop = (struct loop){ .items = items, .depth = depth, .node = n->op ? n : NULL, .scope = outer };
    for (size_t i = 0; i < items->n && flow != FLOW_BREAK && template_charge(r, 0); i++) {
        if (s->captured) s = scope_new(r, outer);
        s->n = 0;
        r->scope = s;
        loop->idx = i;
        r->at = n;
        assign(r, n->a, items->v[i]);
        scope_set(r, s, STR("loop"), (struct value){ .type = V_LOOP, .loop = loop });
        flow = exec_body(r, &n->kids);
        finished_one |= flow == FLOW_NEXT;
    }
    r->scope = outer;
    if (finished_one || n->other.n == 0 || r->status != OK) return FLOW_NEXT;
    r->scope = scope_new(r, outer);
    flow = exec_body(r, &n->other);
    r->scope = outer;
    return flow;
}

struct value loop_call(struct render *r, const struct loop *l, const struct args *args)
{
    if (!l->node) return template_fail(r, ERR_INTERNAL, "The loop must have the 'recursive' marker to be called.");
    if (args->n_pos != 1 || args->n_kw) return template_fail(r, ERR_INTERNAL, "loop() takes one argument");
    struct text_out text = TEXT_OUT_INIT, *out = r->out;
    struct scope *outer = r->scope;
    const struct node *at = r->at;
    r->out = &text;
    r->scope = l->scope;
    run_loop(r, l->node, args->pos[0], l->depth + 1);
    r->out = out;
    r->scope = outer;
    r->at = at;
    return value_take(r, &text);
}

static enum flow exec_if(struct render *r, const struct node *n)
{
    for (size_t i = 0; i < n->kids.n && r->status == OK; i++) {
        const struct node *branch = n->kids.v[i];
        if (!branch->a || value_truth(eval(r, branch->a)))
            return r->status == OK ? exec_body(r, &branch->kids) : FLOW_NEXT;
    }
    return FLOW_NEXT;
}

/* The filters of a block: the innermost input is its text. */
static struct value apply_filters(struct render *r, const struct node *n, struct value text)
{
    if (n->kind != N_FILTER) return text;
    struct value input = apply_filters(r, n->a, text);
    struct args args = eval_args(r, n);
    if (r->status != OK) return value_undef();
    return native_call(r, n->native, input, &args);
}

static void exec_set(struct render *r, const struct node *n)
{
    if (n->b) {
        struct value v = eval(r, n->b);
        r->at = n;
        assign(r, n->a, v);
        return;
    }
    struct value text = capture(r, &n->kids, scope_new(r, r->scope));
    r->at = n;
    if (r->status == OK) assign(r, n->a, apply_filters(r, n->c, text));
}

static void exec_filtered(struct render *r, const struct node *n)
{
    struct value text = capture(r, &n->kids, scope_new(r, r->scope));
    r->at = n;
    if (r->status == OK) print_str(r, r->out, apply_filters(r, n->c, text));
}

static struct value macro_here(struct render *r, const struct node *n)
{
    struct macro *m = template_alloc(&r->arena, sizeof(*m));
    *m = (struct macro){ n, r->scope };
    keep_scopes(r);
    return (struct value){ .type = V_MACRO, .macro = m };
}

static void exec_call_block(struct render *r, const struct node *n)
{
    struct value callee = eval(r, n->a->a);
    struct args args = eval_args(r, n->a);
    struct binding *kw = template_alloc(&r->arena, (args.n_kw + 1) * sizeof(*kw));
    if (args.n_kw) memcpy(kw, args.kw, args.n_kw * sizeof(*kw));
    kw[args.n_kw] = (struct binding){ STR("caller"), macro_here(r, n->b) };
    args = (struct args){ args.pos, args.n_pos, kw, args.n_kw + 1 };
    print_str(r, r->out, value_call(r, callee, &args));
}

static enum flow exec_with(struct render *r, const struct node *n)
{
    struct scope *outer = r->scope, *s = scope_new(r, outer);
    for (size_t i = 0; i < n->other.n && r->status == OK; i++) {
        struct value v = eval(r, n->other.v[i]->b);
        r->scope = s;
        assign(r, n->other.v[i]->a, v);
        r->scope = outer;
    }
    r->scope = s;
    enum flow flow = exec_body(r, &n->kids);
    r->scope = outer;
    return flow;
}

static enum flow exec_node(struct render *r, const struct node *n)
{
    struct scope *outer = r->scope;
    switch (n->kind) {
    case N_TEXT: out_str(r->out, n->value.s); break;
    case N_OUTPUT: print_str(r, r->out, eval(r, n->a)); break;
    case N_IF: return exec_if(r, n);
    case N_FOR: return run_loop(r, n, eval(r, n->b), 0);
    case N_WITH: return exec_with(r, n);
    case N_DO: eval(r, n->a); break;
    case N_SET: exec_set(r, n); break;
    case N_FILTERED: exec_filtered(r, n); break;
    case N_MACRO: scope_set(r, r->scope, n->name, macro_here(r, n)); break;
    case N_CALL_BLOCK: exec_call_block(r, n); break;
    case N_BREAK: return FLOW_BREAK;
    case N_CONTINUE: return FLOW_CONTINUE;
    default: /* N_SCOPED */
        r->scope = scope_new(r, outer);
        exec_body(r, &n->kids);
        r->scope = outer;
        break;
    }
    return FLOW_NEXT;
}

enum flow exec_body(struct render *r, const struct nodes *body)
{
    enum flow flow = FLOW_NEXT;
    if (r->depth >= TEMPLATE_EVAL_DEPTH)
        template_fail(r, ERR_TOO_LARGE, "evaluation nested deeper than %d", TEMPLATE_EVAL_DEPTH);
    r->depth++;
    for (size_t i = 0; i < body->n && flow == FLOW_NEXT && template_charge(r, 0); i++) {
        r->at = body->v[i];
        flow = exec_node(r, body->v[i]);
        if (r->out->text.overflowed)
            template_fail(r, ERR_TOO_LARGE, "the text is longer than %d MiB", TEMPLATE_OUTPUT_MAX >> 20);
    }
    r->depth--;
    return flow;
}
