/* template_tests.c - what may stand behind `is`. */
#include "text/template_internal.h"

#include <math.h>

#define TEST(name, condition)                                                                                          \
    static struct value test_##name(struct render *r, struct value v, const struct value *a, const struct args *args)  \
    {                                                                                                                  \
        return value_bool(condition);                                                                                  \
    }

/* Whether it has letters, and each of them is in this case. */
static bool is_in_case(struct render *r, struct value v, enum text_case lower_or_upper)
{
    struct str s = value_text(r, v);
    enum text_case other = lower_or_upper == TEXT_LOWER ? TEXT_UPPER : TEXT_LOWER;
    return text_compare(s, text_recase(r, s, lower_or_upper).s) == 0 &&
           text_compare(s, text_recase(r, s, other).s) != 0;
}

TEST(defined, v.type != V_UNDEF)
TEST(undefined, v.type == V_UNDEF)
TEST(none, v.type == V_NONE)
TEST(boolean, v.type == V_BOOL)
TEST(true, v.type == V_BOOL && v.b)
TEST(false, v.type == V_BOOL && !v.b)
TEST(string, v.type == V_STR)
TEST(number, value_is_number(v))
TEST(integer, v.type == V_INT)
TEST(float, v.type == V_FLOAT)
TEST(mapping, v.type == V_DICT)
TEST(iterable, value_is_seq(v) || v.type == V_STR || v.type == V_DICT || v.type == V_UNDEF || v.type == V_LOOP)
TEST(sequence, v.type == V_LIST || v.type == V_TUPLE || v.type == V_RANGE || v.type == V_STR || v.type == V_DICT ||
                   v.type == V_UNDEF)
TEST(callable, v.type == V_MACRO || v.type == V_NATIVE || v.type == V_BOUND || v.type == V_LOOP || v.type == V_UNDEF)
TEST(in, value_contains(r, v, a[0]))
TEST(lower, is_in_case(r, v, TEXT_LOWER))
TEST(upper, is_in_case(r, v, TEXT_UPPER))
TEST(sameas, v.type == a[0].type && value_equal(r, v, a[0], 0) &&
                 (v.type < V_LIST || v.type > V_NAMESPACE || v.list == a[0].list))
TEST(eq, value_test_op(r, OP2('=', '='), v, a[0]))
TEST(ne, value_test_op(r, OP2('!', '='), v, a[0]))
TEST(lt, value_test_op(r, '<', v, a[0]))
TEST(le, value_test_op(r, OP2('<', '='), v, a[0]))
TEST(gt, value_test_op(r, '>', v, a[0]))
TEST(ge, value_test_op(r, OP2('>', '='), v, a[0]))

static struct value remainder_is(struct render *r, struct value v, struct value by, int64_t wanted)
{
    if (v.type == V_STR) template_fail(r, ERR_INTERNAL, "not all arguments converted during string formatting");
    struct value rest = op_binary(r, '%', v, by);
    return value_bool(value_is_number(rest) && value_as_float(rest) == (double)wanted);
}

static struct value test_even(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    return remainder_is(r, v, value_int(2), 0);
}

static struct value test_odd(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    return remainder_is(r, v, value_int(2), 1);
}

static struct value test_divisibleby(struct render *r, struct value v, const struct value *a, const struct args *args)
{
    return remainder_is(r, v, a[0], 0);
}

static const struct native tests[] = {
    { "boolean", test_boolean, "", 0 },
    { "callable", test_callable, "", 0 },
    { "defined", test_defined, "", 0 },
    { "divisibleby", test_divisibleby, "num", 1 },
    { "eq", test_eq, "other", 1 },
    { "equalto", test_eq, "other", 1 },
    { "even", test_even, "", 0 },
    { "false", test_false, "", 0 },
    { "float", test_float, "", 0 },
    { "ge", test_ge, "other", 1 },
    { "gt", test_gt, "other", 1 },
    { "in", test_in, "seq", 1 },
    { "integer", test_integer, "", 0 },
    { "iterable", test_iterable, "", 0 },
    { "le", test_le, "other", 1 },
    { "lower", test_lower, "", 0 },
    { "lt", test_lt, "other", 1 },
    { "mapping", test_mapping, "", 0 },
    { "ne", test_ne, "other", 1 },
    { "none", test_none, "", 0 },
    { "number", test_number, "", 0 },
    { "odd", test_odd, "", 0 },
    { "sameas", test_sameas, "other", 1 },
    { "sequence", test_sequence, "", 0 },
    { "string", test_string, "", 0 },
    { "true", test_true, "", 0 },
    { "undefined", test_undefined, "", 0 },
    { "upper", test_upper, "", 0 },
    { "==", test_eq, "other", 1 },
    { "!=", test_ne, "other", 1 },
    { "<", test_lt, "other", 1 },
    { "<=", test_le, "other", 1 },
    { ">", test_gt, "other", 1 },
    { ">=", test_ge, "other", 1 },
    { NULL },
};

const struct native *test_find(struct str name)
{
    for (const struct native *t = tests; t->name; t++)
        if (str_is(name, t->name)) return t;
    return NULL;
}
