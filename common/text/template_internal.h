/* template_internal.h - what the files of the template engine share: values, syntax tree, a render.
 *
 * Failure is sticky: the first template_fail() of a render decides, every later evaluation is a no-op
 * that returns undefined, and loops look at render->status.  So helpers return plain values.
 * All memory of a tree or of a render lives in one arena and goes with it. */
#ifndef TEXT_TEMPLATE_INTERNAL_H
#define TEXT_TEMPLATE_INTERNAL_H
#include "base/error.h"
#include "base/strbuf.h"
#include "text/template.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TEMPLATE_SOURCE_MAX = 256 << 10, /* bytes of a template's text */
    TEMPLATE_PARSE_DEPTH = 64,       /* nested blocks and brackets */
    TEMPLATE_TREE_DEPTH = 200,       /* links of one chain such as a.b.c or x|f|g */
    TEMPLATE_EVAL_DEPTH = 1000,      /* nodes under evaluation at once, over all macro calls */
    TEMPLATE_DATA_DEPTH = 200,       /* nesting of a list or dict that is read, printed or compared */
    TEMPLATE_STEPS_MAX = 10000000,
    TEMPLATE_OUTPUT_MAX = 32 << 20,  /* bytes, of the result and of any one string */
    TEMPLATE_MEMORY_MAX = 256 << 20, /* bytes that one render may hold */
    TEMPLATE_RANGE_MAX = 100000,     /* items of range(), as in Jinja's sandbox */
    TEMPLATE_PARAMS_MAX = 5,
};

/* ---- memory ---- */

struct args;
struct arena_chunk;
struct arena {
    struct arena_chunk *head;
    size_t used; /* bytes asked for so far */
};
void *template_alloc(struct arena *a, size_t bytes); /* zeroed, never NULL */
void template_arena_fini(struct arena *a);

/* ---- values ---- */

/* Each byte of a text knows where it came from: from the template, or from a client's message.  A byte is a client's
 * unless something says that it is the template's own, so what forgets to say it makes no control token possible. */
struct str { /* UTF-8, borrowed from the arena, the tree or the context */
    const char *p;
    size_t n;
    const uint8_t *own; /* NULL: no byte is the template's own; STR_OWN: all are; else a flag for each byte */
};
extern const uint8_t template_all_own[1];
#define STR_OWN      template_all_own
#define STR(literal) ((struct str){ literal, sizeof(literal) - 1, STR_OWN })

struct str str_cut(struct str s, size_t from, size_t n); /* n bytes from `from` on */
bool str_is_own(struct str s, size_t from, size_t n);    /* whether all these bytes are the template's own */

/* A text under construction.  Once it has overflowed, nothing more is added. */
struct text_out {
    struct strbuf text;
    struct strbuf own; /* flags of the bytes, once some are and some are not */
    bool mixed, all_own;
};
#define TEXT_OUT_INIT                                                                                                  \
    {                                                                                                                  \
        .text = {.max = TEMPLATE_OUTPUT_MAX }                                                                          \
    }
void out_bytes(struct text_out *o, const void *p, size_t n, bool own);
void out_str(struct text_out *o, struct str s);
/* These write the template's own text. */
void out_puts(struct text_out *o, const char *s);
void out_putc(struct text_out *o, char c);
void out_fmt(struct text_out *o, const char *fmt, ...) PRINTF_LIKE(2, 3);
struct str out_view(const struct text_out *o); /* until the next change */
void out_fini(struct text_out *o);

enum value_type {
    V_ABSENT, /* an argument that was not given */
    V_UNDEF,
    V_NONE,
    V_BOOL,
    V_INT,
    V_FLOAT,
    V_STR,
    V_LIST,
    V_TUPLE,
    V_RANGE,
    V_VIEW, /* d.items(), d.keys(), d.values() */
    V_ITER, /* a generator: true, without length, read once */
    V_DICT,
    V_NAMESPACE,
    V_LOOP,
    V_MACRO,
    V_NATIVE,
    V_BOUND, /* a method with its object */
};

enum view_kind { VIEW_KEYS, VIEW_VALUES, VIEW_ITEMS };

#define VALUE_NO_ELEMENT 0x80

struct value {
    uint8_t type; /* enum value_type */
    /* V_VIEW: enum view_kind; V_UNDEF: 1 + type of the object that lacked `s`, and VALUE_NO_ELEMENT
     * where that is an index and not a name; 0: `s` is the sentence itself. */
    uint8_t sub;
    union {
        bool b;
        int64_t i;
        double f;
        struct str s;      /* V_STR, V_UNDEF */
        struct list *list; /* V_LIST to V_ITER */
        struct dict *dict; /* V_DICT, V_NAMESPACE */
        struct loop *loop;
        struct macro *macro;
        const struct native *native;
        struct bound *bound;
    };
};

struct list {
    struct value *v;
    size_t n, cap;
    size_t pos;                /* V_ITER: items already read */
    int64_t start, stop, step; /* V_RANGE */
};

struct pair {
    struct value key, value;
};

struct dict { /* in order of insertion */
    struct pair *e;
    size_t n, cap;
};

struct loop {
    struct list *items;
    size_t idx;
    size_t depth;            /* loops of the same tag around this one */
    const struct node *node; /* of a recursive loop, else NULL */
    struct scope *scope;     /* around a recursive loop */
};

struct macro {
    const struct node *node;
    struct scope *scope; /* where it was defined */
};

struct bound {
    struct value self;
    const struct native *native;
};

/* ---- syntax tree ---- */

enum node_kind {
    N_CONST,
    N_NAME,
    N_KEYWORD,
    N_LIST,
    N_TUPLE,
    N_DICT,
    N_COND,
    N_OR,
    N_AND,
    N_NOT,
    N_NEG,
    N_POS,
    N_BINARY,
    N_COMPARE,
    N_OPERAND,
    N_CONCAT,
    N_ATTR,
    N_ITEM,
    N_SLICE,
    N_CALL,
    N_FILTER,
    N_TEST,
    N_TEXT,
    N_OUTPUT,
    N_IF,
    N_BRANCH,
    N_FOR,
    N_SET,
    N_MACRO,
    N_BREAK,
    N_CONTINUE,
    N_SCOPED,
    N_WITH,
    N_DO,
    N_FILTERED,
    N_CALL_BLOCK,
    N_NSREF,
};

#define OP2(a, b) ((a) << 8 | (b))
enum { OP_IN = 1, OP_NOT_IN = 2 };                              /* beside the characters of an operator */
enum { CATCH_CALLER = 1, CATCH_VARARGS = 2, CATCH_KWARGS = 4 }; /* what a macro names that it has no parameter for */

struct nodes {
    struct node **v;
    size_t n, cap;
};

struct node { /* what the fields hold, by kind:  */
    enum node_kind kind;
    int op; /* BINARY, OPERAND: characters of the operator, or OP_...; MACRO: CATCH_...; FOR: 1 where it is recursive */
    int line;
    int depth;              /* 1 + the deepest part */
    struct str tag;         /* the text of the tag that it stands in */
    struct value value;     /* CONST, TEXT */
    struct str name;        /* NAME, ATTR, NSREF (attribute), FILTER, TEST, MACRO, kw values */
    struct node *a, *b, *c; /* operands; FOR: target, iterable, filter; SET: target, value, filter; FILTERED: c;
                             * CALL_BLOCK: the call, the macro that its body is;
                             * CALL, FILTER, TEST: b and c are what follows * and ** */
    struct nodes kids;      /* items, bodies, positional arguments, MACRO: parameters */
    struct nodes other;     /* FOR: else; CALL, FILTER, TEST: keyword values; DICT: values; MACRO: body; WITH: SETs */
    const struct native *native; /* FILTER, TEST */
};

struct template
{
    struct arena arena;
    struct nodes body;
};

/* ---- tokens ---- */

enum token_kind {
    T_EOF,
    T_TEXT,
    T_BLOCK_BEGIN,
    T_BLOCK_END,
    T_VAR_BEGIN,
    T_VAR_END,
    T_NAME,
    T_STR,
    T_INT,
    T_FLOAT,
    T_OP
};

struct token {
    enum token_kind kind;
    int line;
    int op;       /* T_OP: its character, or OP2(first, second) */
    struct str s; /* T_TEXT, T_NAME, T_STR; T_BLOCK_BEGIN, T_VAR_BEGIN: the whole tag */
    int64_t i;
    double f;
};

struct tokens {
    struct token *v; /* owned, ends with T_EOF */
    size_t n, cap;
};

/* Cuts `source` into tokens; texts live in `arena`.  The caller frees tokens->v, also on failure. */
enum status template_lex(struct tokens *out, struct arena *arena, struct str source, struct error *err) MUST_CHECK;

/* ---- parser ---- */

struct parser {
    struct tokens tokens;
    size_t pos;
    struct arena *arena;
    int depth;          /* of nested blocks and brackets */
    int n_loops;        /* enclosing loops of this macro or template */
    struct node *macro; /* around this place, or NULL */
    struct str tag;     /* the last one that was opened */
    enum status status; /* first failure; the position then stands at T_EOF, so that loops end */
    struct error *err;
};

enum status template_parse(struct parser *p, struct nodes *body) MUST_CHECK;
/* The first of several failures is the one reported. */
void parser_fail(struct parser *p, enum status st, int line, const char *fmt, ...) PRINTF_LIKE(4, 5);
const struct token *parser_peek(const struct parser *p);
const struct token *parser_next(struct parser *p); /* the token passed; stays at T_EOF */
bool parser_at_op(const struct parser *p, int op);
bool parser_at_name(const struct parser *p, const char *name);
bool parser_skip_op(struct parser *p, int op);
bool parser_skip_name(struct parser *p, const char *name);
void parser_expect_op(struct parser *p, int op);
struct str parser_expect_name(struct parser *p);
bool parser_enter(struct parser *p); /* one level deeper; false and failed past the bound */
void parser_leave(struct parser *p);
struct node *parser_node(struct parser *p, enum node_kind kind, int line);
/* Makes `part` count in the depth of `n`, and returns it. */
struct node *parser_part(struct parser *p, struct node *n, struct node *part);
void parser_push(struct parser *p, struct nodes *list, struct node *owner, struct node *item);
struct node *parse_expression(struct parser *p, bool with_cond);
struct node *parse_tuple(struct parser *p, bool with_cond, bool in_parentheses);
struct node *parse_target(struct parser *p, bool with_namespace);
struct node *parse_filters(struct parser *p, struct node *input); /* the filters that follow */
struct node *parse_filter(struct parser *p, struct node *input);  /* one, from its name on */

/* ---- rendering ---- */

struct binding {
    struct str name;
    struct value value;
};

struct scope {
    struct scope *parent;
    struct binding *v;
    size_t n, cap;
    bool captured; /* a macro keeps it */
};

enum flow { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE };

struct render {
    struct arena arena;
    struct text_out *out; /* where text goes now */
    const struct template_input *in;
    bool reads_own; /* what value_json reads is the template's own */
    struct scope *scope;
    json_t *parsed; /* array of what from_json read: values borrow its strings; NULL: nothing */
    uint64_t steps;
    int depth;
    const struct node *at; /* under evaluation; NULL: nothing yet */
    enum status status;
    struct error *err;
};

/* Sets the sticky failure, with the line and the tag under evaluation before the text; returns undefined.
 * ERR_INTERNAL: the template fails on this input, as its author did not mean it to. */
struct value template_fail(struct render *r, enum status st, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Counts work of `bytes` against the bound of steps; false once the render has failed. */
bool template_charge(struct render *r, size_t bytes);
struct value eval(struct render *r, const struct node *n);

/* template_exec.c */
enum flow exec_body(struct render *r, const struct nodes *body);
struct scope *scope_new(struct render *r, struct scope *parent);
void scope_set(struct render *r, struct scope *s, struct str name, struct value v);
struct value scope_get(struct render *r, struct str name);
struct value loop_call(struct render *r, const struct loop *l, const struct args *args); /* of a recursive loop */

/* template_value.c; texts are template_str.c's */
struct value value_none(void);
struct value value_undef(void);
struct value value_absent(struct str why);                       /* undefined, with what to say when it is used */
struct value value_missing(struct str name, enum value_type of); /* of: V_ABSENT for a variable */
struct value value_bool(bool b);
struct value value_int(int64_t i);
struct value value_float(double f);
struct value value_str(struct str s); /* borrows */
struct value value_copy(struct render *r, struct str s);
struct value value_take(struct render *r, struct text_out *o); /* copies and frees the buffer */
struct value value_list(struct render *r, enum value_type type);
struct value value_dict(struct render *r, enum value_type type);
struct value value_json(struct render *r, const json_t *j, int depth); /* borrows its strings */
void list_push(struct render *r, struct list *l, struct value v);
struct value *dict_find(struct render *r, const struct dict *d, struct value key); /* NULL: not there */
void dict_set(struct render *r, struct dict *d, struct value key, struct value v);
void dict_remove(struct dict *d, const struct value *slot);
bool value_is_number(struct value v);            /* bool, int or float */
bool value_is_seq(struct value v);               /* list, tuple, range, view or generator */
bool value_as_int(struct value v, int64_t *out); /* bool or int */
double value_as_float(struct value v);           /* of a number */
bool value_truth(struct value v);
const char *value_type_name(struct value v); /* as Python says it */
bool str_eq(struct str a, struct str b);
bool str_is(struct str a, const char *b);
int str_shown(struct str s); /* how many bytes of it a message shows, for %.*s */
/* The items of anything that can be iterated; NULL and failed for the rest. */
struct list *value_items(struct render *r, struct value v);
bool value_length(struct value v, size_t *out);                   /* false: it has none */
struct value value_undef_error(struct render *r, struct value v); /* fails as Jinja's UndefinedError */

/* template_print.c */
void print_str(struct render *r, struct text_out *sb, struct value v);  /* Python's str() */
void print_repr(struct render *r, struct text_out *sb, struct value v); /* Python's repr() */
struct str value_text(struct render *r, struct value v);                /* str() as a value */
struct json_style {
    bool ascii, sort, pretty;
    struct str indent, item_sep, key_sep;
};
void print_json(struct render *r, struct text_out *sb, struct value v, const struct json_style *style);

/* template_text.c: strings as sequences of code points */
size_t text_length(struct str s);
size_t text_offset(struct str s, size_t n_points); /* bytes of the first n_points code points */
int32_t text_next(struct str s, size_t *pos);      /* code point at *pos, which it moves on */
bool text_is_space(int32_t c);
bool text_is_digit(int32_t c); /* of any script */
struct str text_strip(struct str s, const struct str *chars, bool left, bool right);
enum text_case { TEXT_UPPER, TEXT_LOWER, TEXT_CAPITALIZE, TEXT_TITLE, TEXT_TITLE_WORDS };
struct value text_recase(struct render *r, struct str s, enum text_case to);
struct value text_replace(struct render *r, struct str s, struct str from, struct str to, int64_t n);
struct value text_lines(struct render *r, struct str s); /* str.splitlines() */
bool text_find(struct str s, struct str part, size_t from, size_t *out);
int text_compare(struct str a, struct str b);
struct value text_int(struct render *r, struct str s, int64_t base); /* undefined: not a number */
bool text_float(struct str s, double *out);
/* template_format.c: str.format() and % */
struct value text_format(struct render *r, struct str fmt, const struct args *args);
struct value text_percent(struct render *r, struct str fmt, struct value v); /* fmt % v */

/* template_ops.c */
bool value_equal(struct render *r, struct value a, struct value b, int depth);
int value_compare(struct render *r, struct value a, struct value b, const char *op); /* <0, 0, >0 */
bool value_contains(struct render *r, struct value item, struct value in);
bool value_test_op(struct render *r, int op, struct value a, struct value b);
struct value op_binary(struct render *r, int op, struct value a, struct value b);
struct value op_negate(struct render *r, struct value v);
struct value op_item(struct render *r, struct value obj, struct value key);
struct value op_attr(struct render *r, struct value obj, struct str name);
struct value op_slice(struct render *r, struct value obj, const struct value bounds[3]);

/* ---- functions ---- */

struct args {
    const struct value *pos;
    size_t n_pos;
    const struct binding *kw;
    size_t n_kw;
};

/* self: the filtered, tested or called-on value.  a: the arguments in the order of the row's params,
 * V_ABSENT where not given; for a row without params use args. */
typedef struct value native_fn(struct render *r, struct value self, const struct value *a, const struct args *args);

struct native {
    const char *name;
    native_fn *fn;
    const char *params; /* names with spaces between; NULL: any arguments */
    int required;       /* of the params */
    uint32_t types;     /* methods: bits of enum value_type they belong to */
};

const struct native *filter_find(struct str name);
const struct native *test_find(struct str name);
const struct native *global_find(struct str name);
const struct native *method_find(struct str name, enum value_type type); /* V_ABSENT: of any type */
extern const struct native sequence_filters[];                 /* template_sequences.c; filter_find looks here too */
struct args eval_args(struct render *r, const struct node *n); /* of a CALL, FILTER or TEST */
struct value native_call(struct render *r, const struct native *f, struct value self, const struct args *args);
struct value value_call(struct render *r, struct value callee, const struct args *args);
struct value macro_call(struct render *r, const struct macro *m, const struct args *args);
bool test_passes(struct render *r, const struct native *test, struct value v, const struct args *args);
/* An integer argument, or `fallback` where it is absent or none. */
int64_t arg_int(struct render *r, struct value v, int64_t fallback);
bool arg_bool(struct value v, bool fallback);
#endif
