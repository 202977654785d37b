/* template_words: what is refused is refused with its line, its tag and a sentence. */
#include "text/template.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static enum status render(const char *source, struct error *err)
{
    struct template *t = NULL;
    struct strbuf out = STRBUF_INIT;
    enum status st = template_compile(&t, source, strlen(source), err);
    if (st == OK) st = template_render(t, &(struct template_input){ 0 }, &out, NULL, err);
    template_destroy(t);
    strbuf_fini(&out);
    return st;
}

static const struct {
    const char *source;
    enum status st;
    const char *sentence;
} rows[] = {
    { "{{ 0 / 0 }}", ERR_INTERNAL, "division by zero" },
    { "{{ 0 < '' }}", ERR_INTERNAL, "'<' not supported between instances of 'int' and 'str'" },
    { "{{ -nope }}", ERR_INTERNAL, "'nope' is undefined" },
    { "{{ 0 in 0 }}", ERR_INTERNAL, "argument of type 'int' is not iterable" },
    { "{{ 0 in '' }}", ERR_INTERNAL, "'in <string>' requires string as left operand, not int" },
    { "{{ 1.0 in '' }}", ERR_INTERNAL, "'in <string>' requires string as left operand, not float" },
    { "{{ [] in '' }}", ERR_INTERNAL, "'in <string>' requires string as left operand, not list" },
    { "{{ [] in {} }}", ERR_INTERNAL, "unhashable type: 'list'" },
    { "{{ (1,) in '' }}", ERR_INTERNAL, "'in <string>' requires string as left operand, not tuple" },
    { "{{ none in '' }}", ERR_INTERNAL, "'in <string>' requires string as left operand, not NoneType" },
    { "{{ true in '' }}", ERR_INTERNAL, "'in <string>' requires string as left operand, not bool" },
    { "{{ {} in '' }}", ERR_INTERNAL, "'in <string>' requires string as left operand, not dict" },
    { "{{ -'' }}", ERR_INTERNAL, "bad operand type for unary -: 'str'" },
    { "{{ '' * 1.0 }}", ERR_INTERNAL, "unsupported operand type(s) for *: 'str' and 'float'" },
    { "{{ 3 + 'y' }}", ERR_INTERNAL, "unsupported operand type(s) for +: 'int' and 'str'" },
    { "{{ 'x' + 4 }}", ERR_INTERNAL, "can only concatenate str (not \"int\") to str" },
    { "{{ range(0, 0, 0) | list }}", ERR_INTERNAL, "range() arg 3 must not be zero" },
    { "{{ ''.endswith(1) }}", ERR_INTERNAL, "a str is needed, not 'int'" },
    { "{{ ''.index('', 1) }}", ERR_INTERNAL, "substring not found" },
    { "{{ '-'.partition('') }}", ERR_INTERNAL, "empty separator" },
    { "{{ ''.join(['a', 1]) }}", ERR_INTERNAL, "sequence item 1: expected str instance, int found" },
    { "{{ [] | items | list }}", ERR_INTERNAL, "Can only get item pairs from a mapping." },
    { "{{ [] | dictsort }}", ERR_INTERNAL, "'list' object has no attribute 'items'" },
    { "{{ none | sum }}", ERR_INTERNAL, "'NoneType' object is not iterable" },
    { "{{ none | count }}", ERR_INTERNAL, "object of type 'NoneType' has no len()" },
    { "{{ [{'a': 2, 'b': 'y'}, {'a': 1, 'b': 'X'}, {'a': 2}, {'a': none, 'b': 'x'}] | sort(attribute='b') | list }}",
      ERR_INTERNAL, "'dict object' has no attribute 'b'" },
    { "{{ [{'a': 2, 'b': 'y'}, {'a': 1, 'b': 'X'}, {'a': 2}, {'a': none, 'b': 'x'}] | map(attribute='b.c') | list }}",
      ERR_INTERNAL, "'dict object' has no attribute 'b'" },
    { "{{ (1 }}", ERR_PARSE, "a closing bracket matches no open one" },
    { "{{ {'b': 2, 'A': 1, 'a': 3, 'C': 0} | dictsort(by='x') }}", ERR_INTERNAL,
      "You can only sort by either \"key\" or \"value\"" },
    { "{{ 7 | round(method='x') }}", ERR_INTERNAL, "method must be common, ceil or floor" },
    { "{{ '' | abs }}", ERR_INTERNAL, "bad operand type for abs(): 'str'" },
    { "{{ 'x' | from_json }}", ERR_INTERNAL, "from_json: invalid token near 'x'" },
    { "{{ '' | from_json }}", ERR_INTERNAL, "from_json: unexpected token near end of file" },
    { "{{ 1 | from_json }}", ERR_INTERNAL, "the JSON object must be str, not int" },
    { "{{ '[1' | from_json }}", ERR_INTERNAL, "from_json: ']' expected near end of file" },
    { "{{ 'x' % 1 }}", ERR_INTERNAL, "not all arguments converted during string formatting" },
    { "{{ [] is odd }}", ERR_INTERNAL, "unsupported operand type(s) for %: 'list' and 'int'" },
    { "{% set = 1 %}", ERR_PARSE, "'=' stands where a name should" },
    { "{{ 1 is bogus }}", ERR_UNSUPPORTED, "the test 'bogus' is not supported" },
    { "{{ 1_ }}", ERR_PARSE, "'_' stands where }} should" },
    { "{{ 0x }}", ERR_PARSE, "a number is malformed" },
    { "{{ 1. }}", ERR_PARSE, "the tag ends where a name should stand" },
    { "{{ * }}", ERR_PARSE, "'*' stands where an expression should" },
    { "{{ '\\x4' }}", ERR_PARSE, "an escape in a string is cut short" },
    { "{{ '\\U0011ffff' }}", ERR_PARSE, "an escape in a string names no Unicode character" },
    { "{{ '\\N{DASH}' }}", ERR_UNSUPPORTED, "the escape \\N{...} is not supported" },
    { "{{ 'a", ERR_PARSE, "a string has no end" },
    { "{{ '%s' % () }}", ERR_INTERNAL, "not enough arguments for format string" },
    { "{{ '%d' % 'a' }}", ERR_INTERNAL, "%d format: a number is required, not str" },
    { "{{ '%d' % none }}", ERR_INTERNAL, "%d format: a number is required, not NoneType" },
    { "{{ '%d' % [1] }}", ERR_INTERNAL, "%d format: a number is required, not list" },
    { "{{ '%i' % 'a' }}", ERR_INTERNAL, "%i format: a number is required, not str" },
    { "{{ '%i' % none }}", ERR_INTERNAL, "%i format: a number is required, not NoneType" },
    { "{{ '%i' % [1] }}", ERR_INTERNAL, "%i format: a number is required, not list" },
    { "{{ '%f' % 'a' }}", ERR_INTERNAL, "%f format: a number is required, not str" },
    { "{{ '%f' % none }}", ERR_INTERNAL, "%f format: a number is required, not NoneType" },
    { "{{ '%f' % [1] }}", ERR_INTERNAL, "%f format: a number is required, not list" },
    { "{{ '%' % 1 }}", ERR_INTERNAL, "incomplete format" },
    { "{{ '%(a)' % 1 }}", ERR_INTERNAL, "format requires a mapping" },
    { "{{ '%(a' % 1 }}", ERR_INTERNAL, "incomplete format key" },
    { "{{ '{:d}'.format('x', 2) }}", ERR_INTERNAL, "the format 'd' does not fit a value of type str" },
    { "{{ '{}'.format() }}", ERR_INTERNAL, "format() has no argument 0" },
    { "{{ '{'.format() }}", ERR_INTERNAL, "expected '}' before end of string" },
    { "{{ '}'.format() }}", ERR_INTERNAL, "Single '}' encountered in format string" },
    { "{{ '{!x}'.format() }}", ERR_UNSUPPORTED, "the format conversion '!x'" },
    { "{{ '{:d}'.format(none) }}", ERR_INTERNAL, "the format 'd' does not fit a value of type NoneType" },
    { "{{ '{:d}'.format([1], 2) }}", ERR_INTERNAL, "the format 'd' does not fit a value of type list" },
    { "{{ '{:s}'.format(1) }}", ERR_INTERNAL, "the format 's' does not fit a value of type int" },
    { "{{ '{!}'.format() }}", ERR_INTERNAL, "a format field is malformed" },
    { "{% set l = [1, 2, 3] %}{% set x = l.pop(3) %}{{ l }} {{ x }}", ERR_INTERNAL, "pop index out of range" },
    { "{% set d = {'a': 1, 'b': none} %}{% set x = d.pop('z') %}{{ d }} {{ x }}", ERR_INTERNAL,
      "the key to pop is not in the dict" },
    { "{{ [].index(1) }}", ERR_INTERNAL, "the value is not in the list" },
    { "{% for a, b in [[1, 2, 3]] %}{{ a }}{% endfor %}", ERR_INTERNAL,
      "too many values to unpack (expected 2, got 3)" },
    { "{% set a, b = [1] %}", ERR_INTERNAL, "not enough values to unpack (expected 2, got 1)" },
    { "{% if 0 %}{% else %}{% elif 1 %}{% endif %}", ERR_PARSE, "{% elif %} closes nothing" },
    { "{% else %}", ERR_PARSE, "{% else %} closes nothing" },
    { "{% endif %}", ERR_PARSE, "{% endif %} closes nothing" },
    { "{% if 1 %}", ERR_PARSE, "{% if %} has no {% endif %}" },
    { "{% for x in [1] %}", ERR_PARSE, "{% for %} has no {% endfor %}" },
    { "{{ {1} }}", ERR_PARSE, "'}' stands where ':' should" },
    { "{% bogus %}", ERR_UNSUPPORTED, "the tag {% bogus %} is not supported" },
    { "{{ }}", ERR_PARSE, "an expression is missing" },
    { "{{ f(a=1, 2) }}", ERR_PARSE, "a positional argument follows a named or unpacked one" },
    { "{% macro m(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}|{{ varargs }}|{{ kwargs }}{% endmacro %}{{ m(**5) }}",
      ERR_INTERNAL, "argument after ** must be a mapping, not int" },
    { "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1) }}{{ m() }}{{ m(1, 2) }}", ERR_INTERNAL,
      "macro 'm' takes not more than 1 argument(s)" },
    { "{% macro m(a=1, b) %}{% endmacro %}", ERR_PARSE, "a parameter without default follows one with" },
    { "{# a", ERR_PARSE, "a comment {# has no end #}" },
    { "{% raw %}a", ERR_PARSE, "{% raw %} has no {% endraw %}" },
};

Test(template_words, each_refusal_has_its_sentence)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct error err = { OK, "" };
        cr_assert_eq(render(rows[i].source, &err), rows[i].st, "%s: %s", rows[i].source, err.text);
        cr_assert_eq(strncmp(err.text, "template line 1", 15), 0, "%s", err.text);
        size_t n = strlen(err.text), want = strlen(rows[i].sentence);
        cr_assert(n > want + 2 && strcmp(err.text + n - want, rows[i].sentence) == 0 &&
                      strncmp(err.text + n - want - 2, ": ", 2) == 0,
                  "%s: %s", rows[i].source, err.text);
    }
}

static void expect_text(const char *source, const char *want)
{
    struct error err = { OK, "" };
    cr_assert_neq(render(source, &err), OK, "%s", source);
    cr_assert_str_eq(err.text, want);
}

#define TEN   "aaaaaaaaaa"
#define SIXTY TEN TEN TEN TEN TEN TEN

Test(template_words, say_the_line_and_the_tag_on_one_line)
{
    expect_text("a\n\n{{ 1 / 0 }}", "template line 3, {{ 1 / 0 }}: division by zero");
    expect_text("{{ 1\n  /\t\t0 }}", "template line 1, {{ 1 / 0 }}: division by zero");
    expect_text("{{ 1 }}\n{% if 1 %}\n{% set x = nope + 1 %}{% endif %}",
                "template line 3, {% set x = nope + 1 %}: 'nope' is undefined");
    expect_text("{%- for x in 5 %}{% endfor %}", "template line 1, {%- for x in 5 %}: 'int' object is not iterable");
    expect_text(
        "{{ '\xC3\xA9\xE2\x82\xAC' / 1 }}",
        "template line 1, {{ '\xC3\xA9\xE2\x82\xAC' / 1 }}: unsupported operand type(s) for /: 'str' and 'int'");
    expect_text("\n{{ 1", "template line 2: a tag has no end");
}

Test(template_words, long_tags_and_names_are_cut)
{
    expect_text("{{ '" SIXTY "' / '1234' }}",
                "template line 1, {{ '" SIXTY "' / '1234' }}: unsupported operand type(s) for /: 'str' and 'str'");
    expect_text("{{ '" SIXTY "' / '1234567' }}",
                "template line 1, {{ '" SIXTY "' / '1234567' }}: unsupported operand type(s) for /: 'str' and 'str'");
    expect_text("{{ '" SIXTY "' / '12345678' }}",
                "template line 1, {{ '" SIXTY
                "' / '12345678' }...: unsupported operand type(s) for /: 'str' and 'str'");
    expect_text("{{ '" SIXTY TEN "abcd\xC3\xA9" TEN "' / 1 }}", /* 78 bytes and a letter of two */
                "template line 1, {{ '" SIXTY TEN
                "abcd\xC3\xA9...: unsupported operand type(s) for /: 'str' and 'int'");
    expect_text("{{ '" SIXTY TEN "abcde\xC3\xA9" TEN "' / 1 }}",
                "template line 1, {{ '" SIXTY TEN "abcde...: unsupported operand type(s) for /: 'str' and 'int'");
    expect_text("{{ 1 | " SIXTY " }}", "template line 1: the filter '" SIXTY "' is not supported");
    expect_text("{{ 1 | " SIXTY "b }}", "template line 1: the filter '" SIXTY "' is not supported");
    expect_text("{{ 1 is " SIXTY "b }}", "template line 1: the test '" SIXTY "' is not supported");
    expect_text("{{ ''." SIXTY "b() }}", "template line 1: the method '" SIXTY "' is not supported");
    expect_text("{% " SIXTY "b %}", "template line 1: the tag {% " SIXTY " %} is not supported");
}
