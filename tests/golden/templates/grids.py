#!/usr/bin/env python3
"""Writes grids.json: what jinja2 makes of every combination of small operands, bounds and options.

Run in this folder, with jinja2 3.1 installed.  A row is a template without a context and its text; null: jinja2 refuses
it or fails.  make.py has what chat templates look like, this has where one bound differs from the next.
"""
import itertools
import json
import pathlib
import re

import make

HERE = pathlib.Path(__file__).parent


def grid(form, *axes):
    """`form` with each @ replaced by one of its axis, in all combinations."""
    for parts in itertools.product(*axes):
        out = form
        for part in parts:
            out = out.replace("@", part, 1)
        yield out


INTS = ["-7", "-2", "-1", "0", "1", "2", "3", "7", "true"]
NUMBERS = INTS + ["2.5", "-0.5"]
VALUES = ["0", "1", "1.0", "-2", "'a'", "'b'", "''", "[]", "[1]", "[1, 2]", "[2]", "(1,)", "none", "true", "{}", "{'a': 1}", "nope"]
STRINGS = ["''", "'a'", "'abcabc'", "' a  b '", "'\\u00e9a\\u20acb'", "'a\\nb\\r\\n\\nc'", "'Ab cD-eF'"]
BOUNDS = ["", "-9", "-2", "0", "1", "3", "9"]


def arithmetic():
    yield from grid("@ @ @", NUMBERS, ["+", "-", "*", "/", "//", "%"], NUMBERS)
    yield from grid("@ ** @", ["-2", "(-2)", "0", "1", "2", "2.5"], ["-2", "-1", "0", "1", "2", "3"])
    yield from grid("@ ** 0.5", ["0", "1", "2", "2.5"])
    yield from grid("@ @ @", VALUES, ["==", "!=", "<", "<=", ">", ">="], VALUES)
    yield from grid("@ @ @", VALUES, ["in", "not in", "and", "or", "~"], VALUES)
    yield from grid("@@", ["not ", "-", "+", "- -", "not not "], VALUES)
    yield from grid("@ if @ else @", ["1"], VALUES, ["2"])
    yield from grid("@ @ @", ["'ab'", "[1]", "(1, 2)", "''"], ["*"], ["-1", "0", "1", "3", "true", "1.0", "'a'"])
    yield from grid("@ @ @", ["3", "'x'", "[1]", "(1,)", "none"], ["+"], ["4", "'y'", "[2]", "(2,)", "none"])
    big = ["9223372036854775807", "-9223372036854775807", "9223372036854775806", "4611686018427387904", "3037000499"]
    yield from ["9223372036854775807 - 1", "-9223372036854775807 - 1", "9223372036854775806 + 1", "3037000499 * 3037000499",
                "-9223372036854775807 + 9223372036854775807", "4611686018427387904 * -2", "-4611686018427387904 * 2",
                "9223372036854775807 // -1", "9223372036854775807 % -2", "2 ** 62", "-2 ** 62", "(-2) ** 63", "3 ** 39",
                "9007199254740991 == 9007199254740992.0", "9007199254740993 > 9007199254740990.0"]
    yield from grid("@ @ @", big, ["<", "<=", "=="], big)
    yield from ["1 < 2 < 3", "1 < 2 > 3", "3 > 2 >= 2 == 2", "1 + 2 ~ 3 + 4", "2 * 3 ** 2", "-2 ** 2", "7 - 3 - 2", "2 ** 3 ** 2",
                "12 / 3 * 2", "not 1 == 2", "1 if 0 else 2 if 0 else 3", "1 + 1 if 1 else 5", "'a' 'b' ~ 'c'", "1 in [1] == true"]


def subscripts():
    for seq in ["'abcdef'", "'\\u00e9a\\u20acb'", "[1, 2, 3, 4]"]:
        yield from grid("%s[@:@]" % seq, BOUNDS, BOUNDS)
        yield from grid("%s[@:@:@]" % seq, BOUNDS, BOUNDS, ["-1", "2", "-3"])
    for seq in ["'abc'", "'\\u00e9a'", "[1, 2, 3]", "(1, 2)", "[]", "{'a': 1}", "none", "5"]:
        yield from grid("%s[@]" % seq, ["-4", "-3", "-1", "0", "2", "3", "true", "'a'", "none", "1.0"])
    yield from grid("range(7)[@:@:@] | list", ["", "-3", "2", "9"], ["", "-1", "5"], ["", "-2", "3"])
    yield from grid("range(@, @, @) | list", ["-2", "0", "3"], ["-3", "0", "4"], ["-2", "1", "2", "0"])
    yield from grid("range(@) | @", ["0", "1", "3", "-1"], ["list", "length", "first", "last", "sum", "reverse | list", "join('-')"])
    yield from grid("@ in range(@, @, @)", ["-1", "0", "2", "3", "4"], ["0", "4"], ["4", "-1"], ["2", "-2"])
    yield from ["[1][0:1:none]", "(1, 2, 3)[1:]", "'abc'[1]", "{'a': {'b': [1, 2]}}.a.b[1]", "{'a': 1}['b']", "{'a': 1}.b is defined",
                "{'items': 1}['items']", "{1: 2, '1': 3, 1.0: 4}", "{true: 1}[1]", "{(1, 2): 3}[(1, 2)]", "{[1]: 2}"]


def text_methods():
    for s in ["'abcabc'", "'\\u00e9a\\u20aca'", "''"]:
        for m in ["find", "count"]:
            yield from grid("%s.%s(@)" % (s, m), ["''", "'a'", "'bc'", "'\\u20ac'", "'zz'"])
            yield from grid("%s.%s(@, @, @)" % (s, m), ["''", "'a'", "'bc'"], ["-2", "0", "1", "3", "6", "9"], ["-1", "0", "3", "4", "9"])
        for m in ["startswith", "endswith"]:
            yield from grid("%s.%s(@, @, @)" % (s, m), ["''", "'a'", "'bc'", "'\\u20aca'"], ["-2", "0", "1", "3", "9"], ["-1", "1", "4", "9"])
            yield from grid("%s.%s(@)" % (s, m), ["('x', 'abc')", "('a', 'bc')", "()", "'abcabc'", "'abcabcd'", "1"])
        yield from grid("%s.index(@, @)" % s, ["'a'", "'c'", "''"], ["-1", "0", "1", "3"])
    for m in ["split", "rsplit"]:
        yield from grid("'a,b,,c'.%s(@, @)" % m, ["','", "',,'", "'x'", "''"], ["-1", "0", "1", "2", "3", "4"])
        yield from grid("@.%s()" % m, STRINGS)
        yield from grid("@.%s(none, @)" % m, ["' a  b c '", "'a b'", "''", "'  '"], ["-1", "0", "1", "2", "3"])
    yield from grid("@.@()", STRINGS + ["'\\t'", "'12'"],
                    ["splitlines", "capitalize", "title", "upper", "lower", "isdigit", "isspace", "strip", "lstrip", "rstrip"])
    yield from grid("'xyaxbyx'.@(@)", ["strip", "lstrip", "rstrip"], ["'x'", "'xy'", "'yx'", "''", "'xyab'", "none"])
    yield from grid("'\\u00e9a\\u00e9'.@('\\u00e9')", ["strip", "lstrip", "rstrip", "removeprefix", "removesuffix", "partition", "rpartition"])
    yield from grid("@.replace(@, @, @)", ["'aXbXX'", "''", "'\\u00e9\\u00e8'"], ["'X'", "'XX'", "''", "'\\u00e8'"], ["''", "'yz'"], ["-1", "0", "1", "2", "9"])
    yield from grid("@.@(@)", ["'a-b-c'", "'-'", "'abc'"], ["partition", "rpartition", "removeprefix", "removesuffix"], ["'-'", "'a'", "'c'", "'-c'", "'abc'", "''", "'abcd'"])
    yield from grid("@.join(@)", ["', '", "''"], ["[]", "['a']", "['a', 'b']", "'xyz'", "['a', 1]", "('a', 'b')", "{'k': 1, 'l': 2}"])


def code_points():
    """What counts as a blank, a line's end, a letter or a digit, in and around the borders of each range."""
    points = [0, 8, 9, 10, 11, 12, 13, 14, 27, 28, 29, 30, 31, 32, 33, 0x2F, 0x30, 0x39, 0x3A, 0x40, 0x41, 0x5A, 0x5B, 0x60, 0x61, 0x7A, 0x7B, 0x7F, 0x80, 0x84, 0x85, 0x86,
              0x9F, 0xA0, 0xA1, 0xAD, 0xB5, 0xC0, 0xDF, 0xE0, 0xFF, 0x100, 0x1C5, 0x378, 0x660, 0x1680, 0x1681, 0x180E, 0x1FFF, 0x2000, 0x200A, 0x200B, 0x2027, 0x2028, 0x2029, 0x202A,
              0x202F, 0x205F, 0x2060, 0x3000, 0x3001, 0xD7FF, 0xE000, 0xFEFF, 0xFFFD, 0xFFFF, 0x10000, 0x1F600, 0xE0001, 0x10FFFF]
    texts = [f"'\\U{c:08x}'" for c in points]
    for t in texts:
        yield f"(('a' ~ {t} ~ 'b').splitlines() | length, ('a' ~ {t}).strip() | length, {t}.isspace(), {t}.isdigit(), ('a' ~ {t} ~ 'b').split() | length, ('a' ~ {t}) | trim | length)"
        yield f"[{t}, {t} ~ 'a', {t}[0], {t} | length]"
        yield f"{t} | tojson"
        yield f"({t} ~ 'b').title() ~ {t}.upper() ~ {t}.lower() ~ ({t} ~ 'B').capitalize() ~ (('a' ~ {t} ~ 'b') | title)"


def list_methods():
    for change in ["append(9)", "insert(0, 9)", "insert(1, 9)", "insert(-1, 9)", "insert(9, 8)", "insert(-9, 8)", "insert(3, 9)", "insert(2, 9)",
                   "pop()", "pop(0)", "pop(1)", "pop(-1)", "pop(-3)", "pop(3)", "pop(-4)", "extend([8, 9])", "extend('ab')", "extend([])"]:
        yield "{%% set l = [1, 2, 3] %%}{%% set x = l.%s %%}{{ l }} {{ x }}" % change
    for change in ["pop('a')", "pop('z')", "pop('z', 5)", "pop('a', 5)", "update({'a': 2, 'c': 3})", "update({})", "setdefault('a', 7)", "setdefault('z', 7)",
                   "setdefault('z')", "get('a')", "get('z')", "get('z', 4)", "keys() | list", "values() | list", "items() | list"]:
        yield "{%% set d = {'a': 1, 'b': none} %%}{%% set x = d.%s %%}{{ d }} {{ x }}" % change
    yield from grid("@.@(@)", ["[1, 2, 1]", "(2, 1, 2)", "[]"], ["count", "index"], ["1", "2", "1.0", "'a'", "true"])


def filters():
    lists = ["[]", "[3]", "[3, 1, 2]", "['b', 'A', 'a', 'B']", "'cab'", "{'b': 1, 'a': 2}", "[1, 1.0, true, 2]", "[[2, 1], [1, 2]]", "none"]
    yield from grid("@ | @", lists, ["first", "last", "length", "sum", "min", "max", "sort", "sort(true)", "sort(case_sensitive=true)", "unique | list",
                                       "unique(true) | list", "reverse | list", "join", "join('-')", "list", "min(true)", "max(true)", "count", "string",
                                       "tojson", "map('string') | list", "select | list", "reject | list", "select('number') | list", "sum(start=10)",
                                       "reject('eq', 1) | list", "select('in', [1, 'a']) | join", "items | list", "dictsort"])
    rows = "[{'a': 2, 'b': 'y'}, {'a': 1, 'b': 'X'}, {'a': 2}, {'a': none, 'b': 'x'}]"
    yield from grid(rows + " | @ | list",
                    ["map(attribute='a')", "map(attribute='b', default='?')", "map(attribute='b')", "selectattr('a')", "rejectattr('a')", "selectattr('b')",
                     "selectattr('a', 'eq', 2)", "rejectattr('a', 'eq', 2)", "selectattr('b', 'defined')", "rejectattr('b', 'undefined')",
                     "selectattr('a', '>', 1)", "selectattr('a', 'none')", "unique(attribute='a')", "unique(attribute='b')", "sort(attribute='b')",
                     "map('length')", "map(attribute='b.c')"])
    pair = "[{'n': 'b', 'k': 1, 'x': {'y': 3}, {'n': 'A', 'k': 2, 'x': {'y': 1}, {'n': 'a', 'k': 1, 'x': {'y': 2}]"
    yield from grid(pair + " | @",
                    ["sort(attribute='n') | map(attribute='n') | list", "sort(attribute='n', case_sensitive=true) | map(attribute='n') | list",
                     "sort(attribute='k,n') | map(attribute='n') | list", "sort(attribute='k', reverse=true) | map(attribute='n') | list",
                     "sum(attribute='k')", "sum(attribute='k', start=5)", "min(attribute='k')", "max(attribute='x.y')", "join('/', attribute='n')",
                     "map(attribute='x.y') | list", "sort(attribute='x.y') | map(attribute='n') | join", "unique(attribute='n') | list | length",
                     "unique(attribute='n', case_sensitive=true) | list | length", "groupby('k')"])
    yield from grid("{'b': 2, 'A': 1, 'a': 3, 'C': 0} | dictsort(@)", ["", "true", "false, 'value'", "false, 'key', true", "true, 'value', true", "by='value'", "by='x'"])
    yield from grid("@ | indent(@)", ["'a\\nb\\n\\nc'", "'a'", "''", "'a\\n'", "'\\na'", "'a\\r\\nb'"],
                    ["", "2", "0", "2, true", "2, false, true", "2, true, true", "'> '", "first=true", "width=1, blank=true"])
    yield from grid("@ | round(@)", ["2.5", "3.5", "-2.5", "2.675", "1234.5678", "0.05", "7", "-0.4", "1e20"],
                    ["", "0", "1", "2", "-1", "-2", "1, 'floor'", "1, 'ceil'", "0, 'ceil'", "0, 'floor'", "-2, 'ceil'", "method='x'"])
    yield from grid("@ | @", ["'42'", "' 42 '", "'4.7'", "'-4.7'", "'0x1f'", "'1f'", "'101'", "''", "'x'", "'1_000'", "'1e3'", "4.7", "-4.7", "true", "none",
                                "[]", "'inf'", "'-7'", "'+7'", "'017'", "'0b11'", "'0o17'"],
                    ["int", "int(5)", "int(base=16)", "int(0, 2)", "int(0, 8)", "int(7, 0)", "float", "float(1.5)", "abs", "string", "trim", "upper", "title"])
    yield from grid("@ | default(@)", ["nope", "''", "none", "0", "'x'", "false", "[]"], ["", "'d'", "'d', true", "'d', false", "boolean=true", "1"])
    yield from grid("@ | replace(@)", ["'aaa'", "'abab'", "'\\u00e9\\u00e9'"], ["'a', 'b'", "'a', 'b', 0", "'a', 'b', 1", "'a', 'b', 2", "'', '-'", "'\\u00e9', 'e', 1", "'', '-', 2"])
    yield from grid("@ | trim(@)", ["' x '", "'xxaxx'", "'\\u00e9a\\u00e9'", "'\\t\\n'"], ["", "'x'", "'xa'", "'\\u00e9'", "''", "none"])
    yield from grid("@ | @", ["'hello wORLD-foo (bar) [x'", "'\\u00e9t\\u00c9 \\u00dfx'", "\"it's\"", "'a\\tb'", "''", "'<&>\"x'"],
                    ["title", "capitalize", "upper", "lower", "e", "escape", "safe", "length", "tojson", "list | length"])
    yield from grid("@ | tojson@", ["{'b': [1, 2.5], 'a': {'x': none}}", "[]", "{}", "[[]]", "'\\u00e9\\n\\u2028<>&\\u007f\\\\\"'", "[true, false]", "1e16", "(1, 'a')"],
                    ["", "(indent=0)", "(indent=2)", "(indent=none)", "(sort_keys=true)", "(ensure_ascii=true)", "(separators=(',', ':'))", "(indent=1, separators=(', ', '='))"])
    yield from grid("@ | from_json", ["'[1, 2.5, null, true]'", "'{\"a\": \"\\\\u00e9\"}'", "'1'", "'x'", "''", "1", "'[1'"])
    yield from grid("(@ | int, @ | float)", ["'9223372036854775807'", "'-9223372036854775807'"], ["'1e308'", "'.5'", "'5.'", "'nan'"])


def tests():
    yield from grid("@ is @", VALUES + ["2.5", "range(3)", "3"],
                    ["defined", "undefined", "none", "number", "integer", "float", "string", "mapping", "sequence", "iterable", "boolean", "true", "false",
                     "odd", "even", "callable", "lower", "upper", "divisibleby(2)", "eq(1)", "ne(1)", "in([1, 'a'])", "sameas(none)", "not none"])
    yield from grid("@ is @ @", ["1", "2", "'a'"], ["eq", "ne", "lt", "le", "gt", "ge", "equalto", "=="], ["1", "2", "'a'"])
    yield from grid("@ is divisibleby(@)", ["-4", "0", "3", "4", "4.0"], ["-2", "0", "2", "3", "1.5"])
    yield from ["1 is not defined", "not 1 is defined", "1 is eq 1 and 2", "'a' is in 'abc'", "1 is odd and 2 is even", "1 is bogus"]


def numbers():
    floats = ["0.1", "1e16", "1e15", "123456789.125", "1e22", "1e-4", "1e-5", "-0.0", "100.0", "1.5e300", "5e-324", "2.0", "0.30000000000000004",
              "9007199254740993.0", "1e17", "123456789012345680.0", "1.7976931348623157e308", "1e308 * 10", "-1e308 * 10"]
    yield from grid("@", floats)
    yield from grid("(@) | @", floats, ["string", "tojson", "round(2)"])
    yield from grid("@", ["0x1f", "0X1F", "0o17", "0b101", "0B1", "1_000", "1__0", "1_", "_1", "0x", "0b2", "0o8", "1e3", "1E3", "1e+3", "1.5e-3", "1.", ".5", "1.e3",
                           "1_0.0_1", "00", "01", "0_0", "0x_f", "1e", "1e+", "1.5.2", "1 .5", "12abc", "0xg", "1e1_0"])
    yield from grid("@", ["'\\x41'", "'\\u00e9'", "'\\U0001f600'", "'\\101'", "'\\0'", "'\\07'", "'\\8'", "'\\q'", "'\\\\'", "'\\''", '"\\""', "'\\a\\b\\f\\n\\r\\t\\v' | tojson", "'\\x4'",
                           "'\\u00e'", "'\\U0011ffff'", "'\\N{DASH}'", "'a\\\nb'", "'a\nb'", "\"a'b\" 'c\"d'", "'a' \"b\"", "'", '"a', "'\\1012'", "'\\18'"])
    yield from grid("'%@' % @", ["s", "d", "i", "f", ".0f", ".1f", ".3f", "r", "%", ".f"], ["1", "-2.5", "'a'", "none", "true", "2.675", "1e3", "(1,)", "()", "(1, 2)", "[1]"])
    yield from grid("'@' % @", ["%s-%s", "%s%%", "%%", "%", "%(a)s", "%(a)s%(b)d", "%(a", "%(a)", "x"], ["(1, 2)", "1", "{'a': 1, 'b': 2}", "'s'"])
    aligns, widths = ["", "<", ">", "^", "=", "*<", "*^", "\\u00e9>"], ["", "1", "7", "8", "08"]
    for value, types in (("-1234567", ["", "d", "x", "X", ".2f", ",", ",.1f"]), ("42", ["", "d", "x", ".0f", ","]), ("3.14159", [".2f", "f", ".0f", ".1%", ",.3f"]),
                         ("'a\\u00e9c'", ["", "s", ".2", ".2s", ".0s", ".9s"]), ("1234.5", [",.2f"]), ("123", [","]), ("-123", [","]), ("1000", [","])):
        yield from grid("'{:@@@}'.format(%s)" % value, aligns, widths, types)
        yield from grid("'{:@@@}'.format(%s)" % value, ["+", " ", "-", "*^+", "= "], ["", "8", "08"], types[:2])
    yield from grid("'@'.format(@)", ["{}", "{}{}", "{0}{0}", "{1}{0}", "{a}", "{0}{a}", "{{}}", "{{{}}}", "{", "}", "{!r}", "{!s:>4}", "{!x}", "{:}", "{2}",
                                          "a{}b", "{}}", "{ }", "{!r:.3}", "{:>3}{!r}", "{:5}|", "{:<5}|", "{:.1f}", "{:d}", "{:s}", "{!}", "{0", "{!r"],
                    ["1", "'x', 2", "a=3", "", "'x', a=3", "none", "[1], 2"])


def blocks():
    """Whitespace around tags; the text before, the tag, the text behind."""
    around = ["", " ", "\n", "\n  ", "a\n \t", "a "]
    for tag in ["{%- if 1 -%}x{%- endif -%}", "{% if 1 %}x{% endif %}", "{%+ if 1 +%}x{%+ endif +%}", "{{- 1 -}}", "{{ 1 }}", "{#- c -#}", "{# c #}", "{%- set q = 1 %}", "{% set q = 1 -%}",
                "{% raw %} {{ x }} {% endraw %}", "{%- raw -%} {% x %} {%- endraw -%}", "{#+ c +#}", "{% if 1 -%}\n x \n{%- endif %}", "{% if 1 %}\n\n x\n{% endif %}"]:
        for before, after in itertools.product(around, [" ", "\n", "\n\nb", " \n b", "b"]):
            yield before + tag + after
    loop = "{%% for x in %s %%}{{ %s }},{%% endfor %%}"
    for seq in ["[]", "[5]", "[5, 6, 5]", "'ab'", "{'k': 1, 'l': 2}", "range(4)", "none", "nope", "3"]:
        for what in ["x", "loop.index", "loop.index0", "loop.revindex", "loop.revindex0", "loop.first", "loop.last", "loop.length", "loop.depth", "loop.depth0",
                     "loop.previtem", "loop.nextitem", "loop.previtem is defined", "loop.nextitem is defined", "loop.cycle('a', 'b')"]:
            yield loop % (seq, what)
    yield from ["{% for x in [1, 2, 3, 4] if x % 2 %}{{ loop.index }}{{ x }}{{ loop.length }}{{ loop.last }},{% else %}none{% endfor %}",
                "{% for x in [] %}{% else %}none{% endfor %}", "{% for x in [1] if x > 1 %}x{% else %}none{% endfor %}",
                "{% for a, b in [[1, 2], [3, 4]] %}{{ a }}{{ b }}{% endfor %}", "{% for a, b in [[1, 2, 3]] %}{{ a }}{% endfor %}", "{% for a, b in [[1]] %}{{ a }}{% endfor %}",
                "{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}", "{% for a, (b, c) in [[1, [2, 3]]] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
                "{% for x in range(9) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}",
                "{% for x in [1, 2] %}{% for y in [3, 4] %}{{ loop.depth }}{{ x }}{{ y }}{% if y == 3 %}{% continue %}{% endif %};{% endfor %}{{ loop.depth0 }}{% endfor %}",
                "{% for x in [[1, [2]], [3]] recursive %}{{ loop.depth }}{% if x is iterable %}{{ loop(x) }}{% else %}{{ x }}{% endif %}{% endfor %}",
                "{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}", "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}",
                "{% set n = namespace(x=1) %}{% for i in [1, 2] %}{% set n.x = n.x + i %}{% endfor %}{{ n.x }}", "{% set n = namespace({'a': 1}, b=2) %}{{ n.a }}{{ n.b }}{{ n.c }}",
                "{% set a, b = 1, 2 %}{{ b }}{{ a }}", "{% set a, b = [1] %}", "{% set x %} a {{ 1 }} {% endset %}[{{ x }}]", "{% set x | upper %}ab{% endset %}{{ x }}", "{% set x = 1, 2 %}{{ x }}",
                "{% if 0 %}a{% elif 0 %}b{% elif 1 %}c{% else %}d{% endif %}", "{% if 0 %}a{% elif 0 %}b{% else %}d{% endif %}", "{% if 1 %}a{% elif 1 %}b{% endif %}", "{% if '' %}a{% endif %}-",
                "{% if 1, %}a{% endif %}", "{% if 0 %}{% else %}{% elif 1 %}{% endif %}", "{% else %}", "{% endif %}", "{% if 1 %}", "{% for x in [1] %}", "{% for x [1] %}{% endfor %}", "{% bogus %}",
                "{% set = 1 %}", "{% set 1 = 1 %}", "{{ }}", "{{ 1 1 }}", "{{ (1 }}", "{{ [1 }}", "{{ {1} }}", "{{ 1 + }}", "{{ 1 | }}", "{{ a. }}", "{{ a[ }}", "{{ a[] }}", "{{ 'a' is }}",
                "{{ f(a=1, 2) }}", "{{ [1,] }}", "{{ (1,) }}", "{{ {'a': 1,} }}", "{{ [,] }}", "{% do [1].append(2) %}x", "{{ 1 if }}", "{{ 1 if 1 else }}", "{{ not }}", "{{ 1 not 2 }}", "{{ 1 not in [2] }}", "{{ 1 is not 2 }}", "{{ * }}"]
    macro = "{%% macro m(a, b=2, c='x') %%}{{ a }}{{ b }}{{ c }}|{{ varargs }}|{{ kwargs }}{%% endmacro %%}{{ m(%s) }}"
    for args in ["", "1", "1, 3", "1, 3, 4", "1, 3, 4, 5", "b=1", "a=1", "1, c=9", "1, d=9", "*[1, 2]", "**{'a': 5}", "1, *[2], **{'c': 3}", "*[1, 2, 3, 4, 5]", "**{'z': 1}", "*5", "**5"]:
        yield macro % args
    yield from ["{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1) }}{{ m() }}{{ m(1, 2) }}", "{% macro m() %}{{ caller(1) }}{% endmacro %}{% call(x) m() %}[{{ x }}]{% endcall %}",
                "{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}in{% endcall %}", "{% macro m(a, b=a) %}{{ b }}{% endmacro %}{{ m(1) }}", "{% macro m(a=1, b) %}{% endmacro %}", "{{ m.name }}",
                "{% set x = 1 %}{% macro m() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ m() }}",
                "{% generation %}a{% endgeneration %}", "{# a {{ b }} #}c", "{# a", "{% raw %}a", "{{ 'a", "{{ '}}' }}", "{{ {'a': {'b': 1}}['a'] }}", "{% if true %}{{ '%}' }}{% endif %}", "a{b}c", "{ {1} }", "}}", "%}", "{{{1: 2}}}"]


def syntax():
    """Every kind of expression in every place that takes one; what the lexer must tell apart."""
    kinds = ["1 if 1 else 2", "1 if 0", "1, 2", "1,", "not 1", "0 or 2", "1 and 0", "d.k", "-1", "1 == 1", "'a' | upper", "1 | string | length", "1 is defined", "1 is not none",
             "'a' 'b'", "*l", "**d", "(1, 2)", "()", "[]", "{}", "1 + 2 * 3", "l[0]", "f(1)", "1 ~ 2", "2 ** 3", "1 in l", "1 not in l", "k=1", "a b", ""]
    heads = {"l": "{% set l = [1, 2] %}", "d": "{% set d = {'k': 3} %}", "f": "{% macro f(x='-', k='+') %}<{{ x }}{{ k }}{{ varargs }}>{% endmacro %}"}
    for place in ["{% if @ %}y{% else %}n{% endif %}", "{% if 0 %}{% elif @ %}y{% else %}n{% endif %}", "{% set a = @ %}{{ a }}", "{% set a, b = @ %}{{ a }}", "{% for a in @ %}{{ a }};{% endfor %}",
                  "{% for a in l if @ %}{{ a }};{% else %}e{% endfor %}", "{{ @ }}", "{{ f(@) }}", "{{ f(k=@) }}", "{{ f(1, @) }}", "{{ [@] }}", "{{ [1, @] }}", "{{ (@) }}", "{{ {'k': @} }}", "{{ {@: 1} }}", "{{ l[@] }}",
                  "{{ l[@:] }}", "{{ l[:@] }}", "{{ l[::@] }}", "{{ nope | default(@) }}", "{{ 1 is eq(@) }}", "{{ 1 is eq @ }}", "{{ not @ }}", "{{ 1 + @ }}", "{{ @ + 1 }}", "{{ -@ }}", "{{ 1 if @ else 0 }}", "{{ @ if 1 else 0 }}",
                  "{{ 1 if 0 else @ }}", "{{ 'a' ~ @ }}", "{{ (@) | string }}", "{{ @ | string }}", "{% macro g(y=@) %}{{ y }}{% endmacro %}{{ g() }}", "{% do @ %}x", "{% call f(@) %}{% endcall %}", "{{ 1 == @ }}", "{{ d[@] is defined }}"]:
        for kind in kinds:
            if "[@]" in place and place[3] in "ld" and kind in ("1, 2", "1,", ""):  # subscripts of several parts are left out
                continue
            template = place.replace("@", kind)
            yield "".join(text for name, text in heads.items() if re.search(rf"\b{name}\b", template)) + template
    words = ["and", "or", "not", "in", "is", "if", "else", "true", "True", "false", "False", "none", "None", "loop", "a1", "_a", "1a", "for", "set", "endif"]
    yield from grid("{% set @ = 1 %}{{ @ }}", words, ["a1"])
    yield from grid("{{ @ }}", words)
    yield from grid("{% set a = {'@': 1} %}{{ a.@ }}", words, words[:1])
    yield from (f"{{% set a = {{'{w}': 1}} %}}{{{{ a.{w} }}}}" for w in words)
    yield from grid("{{ 1 @ 2 }}", ["<>", "===", "=<", "=>", "!", "&&", "||", "&", "|", "^", "..", ".", "?", ":", ";", "@", "$", "`", "\\", "***", "* *", "/ /", "///", "%%", "<<", "< =", "! =", "= =", "~~", "+-", "-+", "--", "- -", "not", "is", "in", "and not", "or not", "is not in", "~ -", "<-", ",", "=", "->"])
    yield from ["{{-1}}", "{{- 1}}", "{{- -1 -}} x", "{{ 1 -}} x", "{{ 1 - }}", "{{ 1-}} x", "{{+ 1 }}", "{{ 1 +}}", "x {{-1-}} x", "{%if 1%}a{%endif%}", "{%-if 1-%} a {%-endif-%}", "{% if 1 -%} a", "{%  set a=1  %}{{a}}", "{{a}}{{ a }}",
                "{{'}}'}}", "{{\"%}\"}}", "{% if '%}' %}y{% endif %}", "{#}#}", "{##}", "{#-#}x", "{# #} {# #}", "{# {# #}", "{#\n#}\nx", "{{ 1 }}{# c #}\n", "{% raw %}{% raw %}{% endraw %}", "{%raw%}{{{%endraw%}", "{% raw -%} x {%- endraw %}", "{% raw %}{% endraw",
                "a\n", "a\n\n", "a\r\n", "a\r", "\n", "\n\n", "", "{% if 1 %}\r\nx{% endif %}", "{% if 1 %}\rx{% endif %}", "a {% if 1 %}\n\n x{% endif %}\n", "{{ 1 }}\r\n", "\t{% if 1 %}x{% endif %}", "a\t{% if 1 %}x{% endif %}", "\u00a0{% if 1 %}x{% endif %}",
                "{{ (1)(2) }}", "{{ 'a'.upper() }}", "{{ 'a' . upper ( ) }}", "{{ [1,2] [0] }}", "{{ {}.a.b }}", "{{ 'a'['b'] }}", "{{ [[1]][0][0] }}", "{{ (1,)[0] }}", "{{ [1][-1] }}", "{{ 1[0] }}",
                "{{ 'a' if 'b' if 1 else 0 else 'c' }}", "{{ 1 if 1 else 2 if 0 else 3 }}", "{{ (1 if 0) is defined }}", "{{ not 1 in [2] }}", "{{ not (1 == 2) and 3 }}", "{{ 1 < 2 == true }}", "{{ 1 is odd is true }}", "{{ 1 | abs is odd }}", "{{ -1 | abs }}", "{{ - 1 ** 2 }}", "{{ 2 ** -1 }}", "{{ +1 }}", "{{ + + 1 }}",
                "{% set a %}{% set b %}x{% endset %}{{ b }}y{% endset %}{{ a }}", "{% set a = 1 %}{% set a %}2{% endset %}{{ a }}", "{% set a.b = 1 %}", "{% set a[0] = 1 %}", "{% set (a, b) = (1, 2) %}{{ a }}", "{% for (a, b) in [(1, 2)] %}{{ a }}{% endfor %}", "{% for a in [[1]] %}{{ a }}{% endfor %}",
                "{% for a in [1] %}{% else %}{% else %}{% endfor %}", "{% if 1 %}{% else %}{% else %}{% endif %}", "{% for a in [1] %}{% endif %}", "{% if 1 %}{% endfor %}", "{% macro f %}{% endmacro %}", "{% macro f( %}{% endmacro %}", "{% macro f(1) %}{% endmacro %}", "{% endmacro %}", "{% break %}", "{% continue %}", "{% if 1 %}{% break %}{% endif %}",
                "{% for a in [1, 2] %}{% if a == 2 %}{% break %}{% endif %}{{ a }}{% endfor %}", "{% for a in [1, 2, 3] %}{% for b in [1, 2] %}{% if b == 2 %}{% break %}{% endif %}{{ a }}{{ b }}{% endfor %}{% endfor %}", "{% macro f() %}{% break %}{% endmacro %}", "{% for a in [1] %}{% macro f() %}{% break %}{% endmacro %}{% endfor %}"]
    for width in ["10", "12", "99", "100", "012", "010.3"]:
        yield from grid("{{ '{:@}'.format(@) }}", [width], ["5", "-5", "'ab'"])
    yield from grid("{{ '{:.@f}|%.@f'.format(1.23456789012345) }}", ["10", "12", "15", "20"], ["1"])
    yield from grid("{{ '%.@f' % 1.23456789012345 }}", ["10", "12", "15", "20", "100", "05"])


def all_rows():
    for expressions in (arithmetic, subscripts, text_methods, code_points, filters, tests, numbers):
        yield from ("{{ %s }}" % e for e in expressions())
    for e in list_methods():
        yield e if e.startswith("{%") else "{{ %s }}" % e
    yield from blocks()
    yield from syntax()


def main():
    rows = []
    for template in dict.fromkeys(all_rows()):
        rows.append([template, make.case("", template, {}).get("expect")])
    with open(HERE / "grids.json", "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(r, separators=(",", ":")) for r in rows) + "\n]\n")
    print(len(rows), "rows")


if __name__ == "__main__":
    main()
