/* template_parse.c - statements of a template to a tree; expressions are template_expr.c's. */
#include "text/template_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void parser_fail(struct parser *p, enum status st, int line, const char *fmt, ...)
{
    if (p->status != OK) return;
    char text[ERROR_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    p->status = error_set(p->err, st, "template line %d: %s", line, text);
    p->pos = p->tokens.n - 1;
}

const struct token *parser_peek(const struct parser *p)
{
    return &p->tokens.v[p->pos];
}

const struct token *parser_next(struct parser *p)
{
    const struct token *t = parser_peek(p);
    if (t->kind != T_EOF) p->pos++;
    return t;
}

bool parser_at_op(const struct parser *p, int op)
{
    return parser_peek(p)->kind == T_OP && parser_peek(p)->op == op;
}

bool parser_at_name(const struct parser *p, const char *name)
{
    return parser_peek(p)->kind == T_NAME && str_is(parser_peek(p)->s, name);
}

bool parser_skip_op(struct parser *p, int op)
{
    return parser_at_op(p, op) && parser_next(p);
}

bool parser_skip_name(struct parser *p, const char *name)
{
    return parser_at_name(p, name) && parser_next(p);
}

static void fail_unexpected(struct parser *p, const char *wanted)
{
    const struct token *t = parser_peek(p);
    int n = str_shown(t->s);
    if (t->kind == T_EOF)
        parser_fail(p, ERR_PARSE, t->line, "the template ends where %s should stand", wanted);
    else if (t->kind == T_OP && t->op < 256)
        parser_fail(p, ERR_PARSE, t->line, "'%c' stands where %s should", t->op, wanted);
    else if (t->kind == T_OP)
        parser_fail(p, ERR_PARSE, t->line, "'%c%c' stands where %s should", t->op >> 8, t->op & 255, wanted);
    else if (n)
        parser_fail(p, ERR_PARSE, t->line, "'%.*s' stands where %s should", n, t->s.p, wanted);
    else
        parser_fail(p, ERR_PARSE, t->line, "the tag ends where %s should stand", wanted);
}

void parser_expect_op(struct parser *p, int op)
{
    char wanted[] = { '\'', (char)op, '\'', '\0' };
    if (!parser_skip_op(p, op)) fail_unexpected(p, wanted);
}

struct str parser_expect_name(struct parser *p)
{
    if (parser_peek(p)->kind == T_NAME) return parser_next(p)->s;
    fail_unexpected(p, "a name");
    return STR("");
}

static void expect_kind(struct parser *p, enum token_kind kind, const char *wanted)
{
    if (parser_peek(p)->kind == kind)
        parser_next(p);
    else
        fail_unexpected(p, wanted);
}

bool parser_enter(struct parser *p)
{
    if (++p->depth > TEMPLATE_PARSE_DEPTH)
        parser_fail(p, ERR_UNSUPPORTED, parser_peek(p)->line, "nested deeper than %d levels", TEMPLATE_PARSE_DEPTH);
    return p->status == OK;
}

void parser_leave(struct parser *p)
{
    p->depth--;
}

struct node *parser_node(struct parser *p, enum node_kind kind, int line)
{
    struct node *n = template_alloc(p->arena, sizeof(*n));
    n->kind = kind;
    n->line = line;
    n->depth = 1;
    n->tag = p->tag;
    return n;
}

struct node *parser_part(struct parser *p, struct node *n, struct node *part)
{
    if (part && part->depth >= n->depth) n->depth = part->depth + 1;
    if (n->depth > TEMPLATE_TREE_DEPTH)
        parser_fail(p, ERR_UNSUPPORTED, n->line, "an expression of more than %d links", TEMPLATE_TREE_DEPTH);
    return part;
}

void parser_push(struct parser *p, struct nodes *list, struct node *owner, struct node *item)
{
    if (list->n == list->cap) {
        size_t cap = list->cap ? list->cap * 2 : 4;
        struct node **grown = template_alloc(p->arena, cap * sizeof(*grown));
        if (list->n) memcpy(grown, list->v, list->n * sizeof(*grown));
        list->v = grown;
        list->cap = cap;
    }
    list->v[list->n++] = item;
    if (owner) parser_part(p, owner, item);
}

static struct node *parse_target_item(struct parser *p, bool with_namespace)
{
    int line = parser_peek(p)->line;
    if (parser_at_op(p, '(') && parser_enter(p)) {
        parser_next(p);
        struct node *inner = parse_target(p, with_namespace);
        parser_expect_op(p, ')');
        parser_leave(p);
        return inner;
    }
    static const char *const constants[] = { "true", "false", "none", "True", "False", "None" };
    struct node *n = parser_node(p, N_NAME, line);
    n->name = parser_expect_name(p);
    for (size_t i = 0; i < sizeof(constants) / sizeof(*constants); i++)
        if (str_is(n->name, constants[i])) parser_fail(p, ERR_PARSE, line, "'%s' cannot be assigned to", constants[i]);
    if (with_namespace && parser_skip_op(p, '.')) {
        struct node *ref = parser_node(p, N_NSREF, line);
        ref->a = parser_part(p, ref, n);
        ref->name = parser_expect_name(p);
        return ref;
    }
    return n;
}

struct node *parse_target(struct parser *p, bool with_namespace)
{
    struct node *first = parse_target_item(p, with_namespace);
    if (!parser_at_op(p, ',')) return first;
    struct node *tuple = parser_node(p, N_TUPLE, first->line);
    parser_push(p, &tuple->kids, tuple, first);
    while (parser_skip_op(p, ',')) {
        bool is_item = (parser_peek(p)->kind == T_NAME && !parser_at_name(p, "in")) || parser_at_op(p, '(');
        if (!is_item) break;
        parser_push(p, &tuple->kids, tuple, parse_target_item(p, with_namespace));
    }
    return tuple;
}

static struct node *parse_statement(struct parser *p);

static bool at_one_of(const struct parser *p, const char *const *names)
{
    while (*names && !parser_at_name(p, *names)) names++;
    return *names != NULL;
}

/* Statements up to a tag that begins with one of `ends` (its name is next), which `owner` needs; without
 * an owner up to the end of the template. */
static void parse_body(struct parser *p, struct nodes *body, struct node *owner, const char *tag,
                       const char *const *ends)
{
    while (p->status == OK) {
        const struct token *t = parser_next(p);
        struct node *n;
        if (t->kind == T_VAR_BEGIN || t->kind == T_BLOCK_BEGIN) p->tag = t->s;
        if (t->kind == T_TEXT) {
            n = parser_node(p, N_TEXT, t->line);
            n->value = value_str(t->s);
        } else if (t->kind == T_VAR_BEGIN) {
            n = parser_node(p, N_OUTPUT, t->line);
            n->a = parser_part(p, n, parse_tuple(p, true, false));
            expect_kind(p, T_VAR_END, "}}");
        } else if (t->kind == T_BLOCK_BEGIN) {
            if (owner && at_one_of(p, ends)) return;
            n = parse_statement(p);
            expect_kind(p, T_BLOCK_END, "%}");
        } else {
            if (owner) parser_fail(p, ERR_PARSE, owner->line, "{%% %s %%} has no {%% %s %%}", tag, ends[0]);
            return;
        }
        parser_push(p, body, owner, n);
    }
}

static void open_body(struct parser *p)
{
    expect_kind(p, T_BLOCK_END, "%}");
}

static struct node *parse_if(struct parser *p, int line)
{
    static const char *const branch_ends[] = { "endif", "elif", "else", NULL };
    static const char *const else_ends[] = { "endif", NULL };
    struct node *n = parser_node(p, N_IF, line);
    bool is_else = false;
    while (p->status == OK) {
        struct node *branch = parser_node(p, N_BRANCH, line);
        if (!is_else) branch->a = parser_part(p, branch, parse_tuple(p, false, false));
        open_body(p);
        parse_body(p, &branch->kids, branch, "if", is_else ? else_ends : branch_ends);
        parser_push(p, &n->kids, n, branch);
        if (parser_skip_name(p, "endif")) break;
        is_else = parser_skip_name(p, "else");
        if (!is_else) parser_skip_name(p, "elif");
    }
    return n;
}

static struct node *parse_for(struct parser *p, int line)
{
    struct node *n = parser_node(p, N_FOR, line);
    n->a = parser_part(p, n, parse_target(p, false));
    if (!parser_skip_name(p, "in")) fail_unexpected(p, "'in'");
    n->b = parser_part(p, n, parse_tuple(p, false, false));
    if (parser_skip_name(p, "if")) n->c = parser_part(p, n, parse_expression(p, true));
    n->op = parser_skip_name(p, "recursive");
    open_body(p);
    p->n_loops++;
    parse_body(p, &n->kids, n, "for", (const char *const[]){ "endfor", "else", NULL });
    p->n_loops--;
    if (parser_skip_name(p, "else")) {
        open_body(p);
        parse_body(p, &n->other, n, "for", (const char *const[]){ "endfor", NULL });
    }
    parser_skip_name(p, "endfor");
    return n;
}

/* A body whose text is kept: loops outside it cannot be left from in there. */
static void parse_kept_body(struct parser *p, struct nodes *body, struct node *n, const char *tag, const char *end)
{
    int n_loops = p->n_loops;
    p->n_loops = 0;
    open_body(p);
    parse_body(p, body, n, tag, (const char *const[]){ end, NULL });
    parser_skip_name(p, end);
    p->n_loops = n_loops;
}

static struct node *parse_set(struct parser *p, int line)
{
    struct node *n = parser_node(p, N_SET, line);
    n->a = parser_part(p, n, parse_target(p, true));
    if (parser_skip_op(p, '=')) {
        n->b = parser_part(p, n, parse_tuple(p, true, false));
        return n;
    }
    /* The body's text enters the filters as the value of a node of its own. */
    struct node *text = parser_node(p, N_CONST, line);
    text->value = value_str(STR(""));
    n->c = parser_part(p, n, parse_filters(p, text));
    parse_kept_body(p, &n->kids, n, "set", "endset");
    return n;
}

/* (a, b=default) */
static void parse_params(struct parser *p, struct node *n, int line)
{
    parser_expect_op(p, '(');
    bool had_default = false;
    while (p->status == OK && !parser_at_op(p, ')')) {
        if (n->kids.n) parser_expect_op(p, ',');
        struct node *param = parser_node(p, N_NAME, line);
        param->name = parser_expect_name(p);
        if (parser_skip_op(p, '='))
            param->a = parser_part(p, param, parse_expression(p, true));
        else if (had_default)
            parser_fail(p, ERR_PARSE, line, "a parameter without default follows one with");
        had_default = param->a != NULL;
        parser_push(p, &n->kids, n, param);
    }
    parser_expect_op(p, ')');
}

static struct node *parse_macro(struct parser *p, int line)
{
    struct node *n = parser_node(p, N_MACRO, line), *outer = p->macro;
    n->name = parser_expect_name(p);
    parse_params(p, n, line);
    p->macro = n;
    parse_kept_body(p, &n->other, n, "macro", "endmacro");
    p->macro = outer;
    return n;
}

/* {% call(params) macro(arguments) %}: the body is a macro of its own, which the one that is called knows as `caller`.
 */
static struct node *parse_call_block(struct parser *p, int line)
{
    struct node *n = parser_node(p, N_CALL_BLOCK, line), *body = parser_node(p, N_MACRO, line);
    body->name = STR("caller");
    if (parser_at_op(p, '(')) parse_params(p, body, line);
    n->a = parser_part(p, n, parse_expression(p, false));
    if (n->a->kind != N_CALL) parser_fail(p, ERR_PARSE, line, "{%% call %%} calls nothing");
    parse_kept_body(p, &body->other, body, "call", "endcall");
    n->b = parser_part(p, n, body);
    return n;
}

static struct node *parse_filter_block(struct parser *p, int line)
{
    struct node *n = parser_node(p, N_FILTERED, line), *text = parser_node(p, N_CONST, line);
    text->value = value_str(STR(""));
    n->c = parser_part(p, n, parse_filters(p, parse_filter(p, text)));
    parse_kept_body(p, &n->kids, n, "filter", "endfilter");
    return n;
}

static struct node *parse_generation(struct parser *p, int line)
{
    struct node *n = parser_node(p, N_SCOPED, line);
    parse_kept_body(p, &n->kids, n, "generation", "endgeneration");
    return n;
}

/* {% with a = 1, b = 2 %}: the values know nothing of the names. */
static struct node *parse_with(struct parser *p, int line)
{
    struct node *n = parser_node(p, N_WITH, line);
    while (p->status == OK && parser_peek(p)->kind != T_BLOCK_END) {
        if (n->other.n) parser_expect_op(p, ',');
        struct node *set = parser_node(p, N_SET, line);
        set->a = parser_part(p, set, parse_target(p, false));
        parser_expect_op(p, '=');
        set->b = parser_part(p, set, parse_expression(p, true));
        parser_push(p, &n->other, n, set);
    }
    open_body(p);
    parse_body(p, &n->kids, n, "with", (const char *const[]){ "endwith", NULL });
    parser_skip_name(p, "endwith");
    return n;
}

static struct node *parse_do(struct parser *p, int line)
{
    struct node *n = parser_node(p, N_DO, line);
    n->a = parser_part(p, n, parse_tuple(p, true, false));
    return n;
}

static struct node *parse_jump(struct parser *p, int line, enum node_kind kind)
{
    if (p->n_loops == 0)
        parser_fail(p, ERR_PARSE, line, "{%% %s %%} stands outside a loop", kind == N_BREAK ? "break" : "continue");
    return parser_node(p, kind, line);
}

static struct node *parse_break(struct parser *p, int line)
{
    return parse_jump(p, line, N_BREAK);
}

static struct node *parse_continue(struct parser *p, int line)
{
    return parse_jump(p, line, N_CONTINUE);
}

static const struct {
    const char *name;
    struct node *(*parse)(struct parser *p, int line); /* stands behind the name */
} statements[] = {
    { "if", parse_if },
    { "for", parse_for },
    { "set", parse_set },
    { "macro", parse_macro },
    { "break", parse_break },
    { "continue", parse_continue },
    { "call", parse_call_block },
    { "filter", parse_filter_block },
    { "with", parse_with },
    { "do", parse_do },
    { "generation", parse_generation },
};

static struct node *parse_statement(struct parser *p)
{
    int line = parser_peek(p)->line;
    struct node *n = NULL;
    struct str name = parser_expect_name(p);
    if (!parser_enter(p)) return parser_node(p, N_TEXT, line);
    for (size_t i = 0; i < sizeof(statements) / sizeof(*statements) && !n; i++)
        if (str_is(name, statements[i].name)) n = statements[i].parse(p, line);
    if (!n) {
        bool stray = (name.n > 3 && memcmp(name.p, "end", 3) == 0) || str_is(name, "else") || str_is(name, "elif");
        parser_fail(p, stray ? ERR_PARSE : ERR_UNSUPPORTED, line,
                    stray ? "{%% %.*s %%} closes nothing" : "the tag {%% %.*s %%} is not supported", str_shown(name),
                    name.p);
        n = parser_node(p, N_TEXT, line);
    }
    parser_leave(p);
    return n;
}

enum status template_parse(struct parser *p, struct nodes *body)
{
    parse_body(p, body, NULL, NULL, NULL);
    return p->status;
}
