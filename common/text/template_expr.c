/* template_expr.c - expressions of a template to a tree, in Jinja2's order of precedence. */
#include "text/template_internal.h"

#include <string.h>

static struct node *constant(struct parser *p, int line, struct value v)
{
    struct node *n = parser_node(p, N_CONST, line);
    n->value = v;
    return n;
}

static struct node *pair(struct parser *p, enum node_kind kind, int op, struct node *a, struct node *b)
{
    struct node *n = parser_node(p, kind, a->line);
    n->op = op;
    n->a = parser_part(p, n, a);
    n->b = parser_part(p, n, b);
    return n;
}

static struct node *parse_name(struct parser *p)
{
    const struct token *t = parser_next(p);
    if (str_is(t->s, "true") || str_is(t->s, "True")) return constant(p, t->line, value_bool(true));
    if (str_is(t->s, "false") || str_is(t->s, "False")) return constant(p, t->line, value_bool(false));
    if (str_is(t->s, "none") || str_is(t->s, "None")) return constant(p, t->line, value_none());
    static const struct {
        const char *name;
        int flag;
    } caught[] = { { "caller", CATCH_CALLER }, { "varargs", CATCH_VARARGS }, { "kwargs", CATCH_KWARGS } };
    for (size_t i = 0; p->macro && i < sizeof(caught) / sizeof(*caught); i++) {
        bool is_param = false;
        for (size_t k = 0; k < p->macro->kids.n; k++) is_param |= str_is(p->macro->kids.v[k]->name, caught[i].name);
        if (str_is(t->s, caught[i].name) && !is_param) p->macro->op |= caught[i].flag;
    }
    struct node *n = parser_node(p, N_NAME, t->line);
    n->name = t->s;
    return n;
}

static struct node *parse_strings(struct parser *p)
{
    const struct token *t = parser_next(p);
    struct str s = t->s;
    while (parser_peek(p)->kind == T_STR) {
        struct str more = parser_next(p)->s;
        char *both = template_alloc(p->arena, s.n + more.n + 1);
        memcpy(both, s.p, s.n);
        memcpy(both + s.n, more.p, more.n);
        s = (struct str){ both, s.n + more.n, STR_OWN };
    }
    return constant(p, t->line, value_str(s));
}

static struct node *parse_list(struct parser *p)
{
    struct node *n = parser_node(p, N_LIST, parser_next(p)->line);
    while (p->status == OK && !parser_at_op(p, ']')) {
        if (n->kids.n) parser_expect_op(p, ',');
        if (parser_at_op(p, ']')) break;
        parser_push(p, &n->kids, n, parse_expression(p, true));
    }
    parser_expect_op(p, ']');
    return n;
}

static struct node *parse_dict(struct parser *p)
{
    struct node *n = parser_node(p, N_DICT, parser_next(p)->line);
    while (p->status == OK && !parser_at_op(p, '}')) {
        if (n->kids.n) parser_expect_op(p, ',');
        if (parser_at_op(p, '}')) break;
        parser_push(p, &n->kids, n, parse_expression(p, true));
        parser_expect_op(p, ':');
        parser_push(p, &n->other, n, parse_expression(p, true));
    }
    parser_expect_op(p, '}');
    return n;
}

static struct node *parse_primary(struct parser *p)
{
    const struct token *t = parser_peek(p);
    switch (t->kind) {
    case T_NAME: return parse_name(p);
    case T_STR: return parse_strings(p);
    case T_INT: parser_next(p); return constant(p, t->line, value_int(t->i));
    case T_FLOAT: parser_next(p); return constant(p, t->line, value_float(t->f));
    default: break;
    }
    if (parser_at_op(p, '[')) return parse_list(p);
    if (parser_at_op(p, '{')) return parse_dict(p);
    if (parser_skip_op(p, '(')) {
        struct node *n = parse_tuple(p, true, true);
        parser_expect_op(p, ')');
        return n;
    }
    if (t->kind == T_OP && t->op < 256)
        parser_fail(p, ERR_PARSE, t->line, "'%c' stands where an expression should", t->op);
    else
        parser_fail(p, ERR_PARSE, t->line, "an expression is missing");
    return constant(p, t->line, value_none());
}

static bool at_tuple_end(const struct parser *p)
{
    enum token_kind kind = parser_peek(p)->kind;
    return kind == T_VAR_END || kind == T_BLOCK_END || kind == T_EOF || parser_at_op(p, ')') ||
           parser_at_name(p, "recursive");
}

struct node *parse_tuple(struct parser *p, bool with_cond, bool in_parentheses)
{
    int line = parser_peek(p)->line;
    if (!in_parentheses || !at_tuple_end(p)) {
        struct node *first = parse_expression(p, with_cond);
        if (!parser_at_op(p, ',')) return first;
        struct node *n = parser_node(p, N_TUPLE, line);
        parser_push(p, &n->kids, n, first);
        while (parser_skip_op(p, ',') && !at_tuple_end(p)) parser_push(p, &n->kids, n, parse_expression(p, with_cond));
        return n;
    }
    return parser_node(p, N_TUPLE, line);
}

/* (a, b, *rest, key=value, **more): positional to kids, N_KEYWORD to other, what the stars unpack to b and c. */
static void parse_args(struct parser *p, struct node *n)
{
    parser_expect_op(p, '(');
    bool first = true;
    while (p->status == OK && !parser_at_op(p, ')')) {
        if (!first) parser_expect_op(p, ',');
        if (parser_at_op(p, ')')) break;
        first = false;
        const struct token *t = parser_peek(p);
        if (n->c || (n->b && parser_at_op(p, '*'))) {
            parser_fail(p, ERR_PARSE, t->line, "an argument follows unpacked ones");
        } else if (parser_skip_op(p, '*')) {
            n->b = parser_part(p, n, parse_expression(p, true));
        } else if (parser_skip_op(p, OP2('*', '*'))) {
            n->c = parser_part(p, n, parse_expression(p, true));
        } else if (t->kind == T_NAME && t[1].kind == T_OP && t[1].op == '=') {
            p->pos += 2;
            struct node *kw = parser_node(p, N_KEYWORD, t->line);
            kw->name = t->s;
            kw->a = parser_part(p, kw, parse_expression(p, true));
            parser_push(p, &n->other, n, kw);
        } else {
            if (n->b || n->other.n)
                parser_fail(p, ERR_PARSE, t->line, "a positional argument follows a named or unpacked one");
            parser_push(p, &n->kids, n, parse_expression(p, true));
        }
    }
    parser_expect_op(p, ')');
}

static struct node *parse_call(struct parser *p, struct node *callee)
{
    static const char *const refused[] = { "cycler", "joiner", "lipsum", "super" };
    struct node *n = parser_node(p, N_CALL, parser_peek(p)->line);
    n->a = parser_part(p, n, callee);
    int shown = str_shown(callee->name);
    if (callee->kind == N_ATTR && !method_find(callee->name, V_ABSENT))
        parser_fail(p, ERR_UNSUPPORTED, n->line, "the method '%.*s' is not supported", shown, callee->name.p);
    for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++)
        if (callee->kind == N_NAME && str_is(callee->name, refused[i]))
            parser_fail(p, ERR_UNSUPPORTED, n->line, "the function '%s' is not supported", refused[i]);
    parse_args(p, n);
    return n;
}

static struct node *optional_bound(struct parser *p)
{
    if (parser_at_op(p, ':') || parser_at_op(p, ']')) return NULL;
    return parse_expression(p, true);
}

static struct node *parse_subscript(struct parser *p, struct node *obj)
{
    int line = parser_next(p)->line;
    struct node *first = optional_bound(p);
    if (first && parser_skip_op(p, ']')) return pair(p, N_ITEM, 0, obj, first);
    if (parser_at_op(p, ',')) parser_fail(p, ERR_UNSUPPORTED, line, "a subscript of several parts is not supported");
    struct node *n = parser_node(p, N_SLICE, line), *none = constant(p, line, value_none());
    n->a = parser_part(p, n, obj);
    parser_push(p, &n->kids, n, first ? first : none);
    parser_expect_op(p, ':');
    struct node *stop = optional_bound(p);
    parser_push(p, &n->kids, n, stop ? stop : none);
    struct node *step = parser_skip_op(p, ':') ? optional_bound(p) : NULL;
    parser_push(p, &n->kids, n, step ? step : none);
    parser_expect_op(p, ']');
    return n;
}

static struct node *parse_attribute(struct parser *p, struct node *obj)
{
    int line = parser_next(p)->line;
    if (parser_peek(p)->kind == T_INT) return pair(p, N_ITEM, 0, obj, constant(p, line, value_int(parser_next(p)->i)));
    struct node *n = parser_node(p, N_ATTR, line);
    n->a = parser_part(p, n, obj);
    n->name = parser_expect_name(p);
    return n;
}

static struct node *parse_postfix(struct parser *p, struct node *n)
{
    for (;;) {
        if (parser_at_op(p, '.'))
            n = parse_attribute(p, n);
        else if (parser_at_op(p, '['))
            n = parse_subscript(p, n);
        else if (parser_at_op(p, '('))
            n = parse_call(p, n);
        else
            return n;
    }
}

/* Filters and tests that are named by a constant argument (map, select, ...) are looked up now, so
 * that an unknown one is refused with the template and not with a request. */
static void check_named_argument(struct parser *p, const struct node *n)
{
    static const struct {
        const char *filter;
        size_t arg;
        bool is_test;
    } rows[] = { { "map", 0, false },
                 { "select", 0, true },
                 { "reject", 0, true },
                 { "selectattr", 1, true },
                 { "rejectattr", 1, true } };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        if (!str_is(n->name, rows[i].filter) || n->kids.n <= rows[i].arg) continue;
        const struct node *arg = n->kids.v[rows[i].arg];
        if (arg->kind != N_CONST || arg->value.type != V_STR) continue;
        struct str name = arg->value.s;
        if (rows[i].is_test ? test_find(name) != NULL : filter_find(name) != NULL) continue;
        parser_fail(p, ERR_UNSUPPORTED, n->line, "the %s '%.*s' is not supported", rows[i].is_test ? "test" : "filter",
                    str_shown(name), name.p);
    }
}

struct node *parse_filter(struct parser *p, struct node *input)
{
    struct node *n = parser_node(p, N_FILTER, parser_peek(p)->line);
    n->a = parser_part(p, n, input);
    n->name = parser_expect_name(p);
    n->native = filter_find(n->name);
    if (!n->native)
        parser_fail(p, ERR_UNSUPPORTED, n->line, "the filter '%.*s' is not supported", str_shown(n->name), n->name.p);
    if (parser_at_op(p, '(')) parse_args(p, n);
    check_named_argument(p, n);
    return n;
}

struct node *parse_filters(struct parser *p, struct node *input)
{
    while (parser_skip_op(p, '|')) input = parse_filter(p, input);
    return input;
}

static bool at_test_argument(const struct parser *p)
{
    const struct token *t = parser_peek(p);
    if (t->kind == T_NAME) return !parser_at_name(p, "else") && !parser_at_name(p, "or") && !parser_at_name(p, "and");
    return t->kind == T_STR || t->kind == T_INT || t->kind == T_FLOAT || parser_at_op(p, '[') || parser_at_op(p, '{');
}

static struct node *parse_test(struct parser *p, struct node *input)
{
    struct node *n = parser_node(p, N_TEST, parser_next(p)->line);
    bool negated = parser_skip_name(p, "not");
    n->a = parser_part(p, n, input);
    n->name = parser_expect_name(p);
    n->native = test_find(n->name);
    if (!n->native)
        parser_fail(p, ERR_UNSUPPORTED, n->line, "the test '%.*s' is not supported", str_shown(n->name), n->name.p);
    if (parser_at_op(p, '(')) {
        parse_args(p, n);
    } else if (at_test_argument(p)) {
        if (parser_at_name(p, "is"))
            parser_fail(p, ERR_PARSE, n->line, "several tests with 'is' cannot follow each other");
        parser_push(p, &n->kids, n, parse_postfix(p, parse_primary(p)));
    }
    if (!negated) return n;
    struct node *not = parser_node(p, N_NOT, n->line);
    not ->a = parser_part(p, not, n);
    return not ;
}

static struct node *parse_unary(struct parser *p, bool with_filter)
{
    struct node *n;
    if (parser_at_op(p, '-') || parser_at_op(p, '+')) {
        const struct token *t = parser_next(p);
        n = parser_node(p, t->op == '-' ? N_NEG : N_POS, t->line);
        if (parser_enter(p)) n->a = parser_part(p, n, parse_unary(p, false));
        parser_leave(p);
    } else {
        n = parse_primary(p);
    }
    n = parse_postfix(p, n);
    while (with_filter) {
        if (parser_skip_op(p, '|'))
            n = parse_filter(p, n);
        else if (parser_at_name(p, "is"))
            n = parse_test(p, n);
        else if (parser_at_op(p, '('))
            n = parse_call(p, n);
        else
            break;
    }
    return n;
}

static struct node *parse_power(struct parser *p)
{
    struct node *n = parse_unary(p, true);
    while (parser_skip_op(p, OP2('*', '*'))) n = pair(p, N_BINARY, OP2('*', '*'), n, parse_unary(p, true));
    return n;
}

static struct node *parse_product(struct parser *p)
{
    struct node *n = parse_power(p);
    while (parser_at_op(p, '*') || parser_at_op(p, '/') || parser_at_op(p, OP2('/', '/')) || parser_at_op(p, '%')) {
        int op = parser_next(p)->op;
        n = pair(p, N_BINARY, op, n, parse_power(p));
    }
    return n;
}

static struct node *parse_concat(struct parser *p)
{
    struct node *first = parse_product(p);
    if (!parser_at_op(p, '~')) return first;
    struct node *n = parser_node(p, N_CONCAT, first->line);
    parser_push(p, &n->kids, n, first);
    while (parser_skip_op(p, '~')) parser_push(p, &n->kids, n, parse_product(p));
    return n;
}

static struct node *parse_sum(struct parser *p)
{
    struct node *n = parse_concat(p);
    while (parser_at_op(p, '+') || parser_at_op(p, '-')) {
        int op = parser_next(p)->op;
        n = pair(p, N_BINARY, op, n, parse_concat(p));
    }
    return n;
}

/* The comparison that stands here, or 0. */
static int skip_comparison(struct parser *p)
{
    static const int ops[] = { OP2('=', '='), OP2('!', '='), OP2('<', '='), OP2('>', '='), '<', '>' };
    for (size_t i = 0; i < sizeof(ops) / sizeof(*ops); i++)
        if (parser_skip_op(p, ops[i])) return ops[i];
    if (parser_skip_name(p, "in")) return OP_IN;
    const struct token *t = parser_peek(p);
    if (parser_at_name(p, "not") && t[1].kind == T_NAME && str_is(t[1].s, "in")) {
        p->pos += 2;
        return OP_NOT_IN;
    }
    return 0;
}

static struct node *parse_comparison(struct parser *p)
{
    struct node *first = parse_sum(p);
    int op = skip_comparison(p);
    if (!op) return first;
    struct node *n = parser_node(p, N_COMPARE, first->line);
    n->a = parser_part(p, n, first);
    for (; op && p->status == OK; op = skip_comparison(p)) {
        struct node *operand = parser_node(p, N_OPERAND, parser_peek(p)->line);
        operand->op = op;
        operand->a = parser_part(p, operand, parse_sum(p));
        parser_push(p, &n->kids, n, operand);
    }
    return n;
}

static struct node *parse_not(struct parser *p)
{
    if (!parser_at_name(p, "not")) return parse_comparison(p);
    struct node *n = parser_node(p, N_NOT, parser_next(p)->line);
    n->a = constant(p, n->line, value_none());
    if (parser_enter(p)) n->a = parser_part(p, n, parse_not(p));
    parser_leave(p);
    return n;
}

static struct node *parse_and(struct parser *p)
{
    struct node *n = parse_not(p);
    while (parser_skip_name(p, "and")) n = pair(p, N_AND, 0, n, parse_not(p));
    return n;
}

static struct node *parse_or(struct parser *p)
{
    struct node *n = parse_and(p);
    while (parser_skip_name(p, "or")) n = pair(p, N_OR, 0, n, parse_and(p));
    return n;
}

struct node *parse_expression(struct parser *p, bool with_cond)
{
    if (!parser_enter(p)) {
        parser_leave(p);
        return constant(p, parser_peek(p)->line, value_none());
    }
    struct node *n = parse_or(p);
    while (with_cond && parser_skip_name(p, "if")) {
        struct node *cond = parser_node(p, N_COND, n->line);
        cond->b = parser_part(p, cond, n);
        cond->a = parser_part(p, cond, parse_or(p));
        if (parser_skip_name(p, "else")) cond->c = parser_part(p, cond, parse_expression(p, true));
        n = cond;
    }
    parser_leave(p);
    return n;
}
