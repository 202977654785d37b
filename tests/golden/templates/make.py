#!/usr/bin/env python3
"""Writes cases.json: what Python's jinja2 makes of chat templates, set up as Hugging Face sets it up.

Run in this folder, with jinja2 3.1 installed, after a change of *.jinja or of the lists below.  A case has
`expect`, or `error`: undefined, raise (with the whole text), runtime, parse, unsupported, bound (with a part
of our own text: these are our limits, not jinja2's).
"""
import copy
import datetime
import functools
import json
import pathlib

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

NOW = 1752665696  # 2025-07-16 11:34:56 UTC
HERE = pathlib.Path(__file__).parent


class Raised(Exception):
    pass


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                      sort_keys=sort_keys)


def raise_exception(message):
    raise Raised(message)


def strftime_now(format):
    return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).strftime(format)


@functools.lru_cache(maxsize=8)
def compiled(template):
    # Lists may be changed in our engine, as in llama.cpp's, but not in Hugging Face's.
    mutable = any(f".{name}(" in template for name in ("append", "pop", "insert", "extend", "update", "setdefault"))
    kind = "SandboxedEnvironment" if mutable else "ImmutableSandboxedEnvironment"
    env = getattr(jinja2.sandbox, kind)(trim_blocks=True, lstrip_blocks=True,
                                        extensions=[Generation, jinja2.ext.do, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.filters["from_json"] = json.loads
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    return env.from_string(template)


def render(template, context):
    return compiled(template).render(**context)


def case(name, template, context):
    out = {"name": name, "template": template, "context": context, "now": NOW}
    try:
        out["expect"] = render(template, copy.deepcopy(context))
    except Raised as e:
        out.update(error="raise", text=str(e))
    except jinja2.UndefinedError as e:
        out.update(error="undefined", text=str(e))
    except (jinja2.TemplateSyntaxError, SyntaxError):
        out.update(error="parse", text="line")
    except Exception:
        out.update(error="runtime", text="line")
    return out


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather\nin a \"city\" (é, 天気).",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "name"},
                "days": {"type": "array", "items": {"type": "integer"}},
                "unit": {"enum": ["C", "F"]},
                "where": {"type": "object", "required": ["lat"],
                          "properties": {"lon": {"type": "number"}, "lat": {"type": "number"}}},
            },
            "required": ["city"],
        },
    },
}
NOTHING = {"type": "function", "function": {"name": "nop", "parameters": {"type": "object", "properties": {}}}}


def call(arguments, id="abcdefghi"):
    return {"role": "assistant", "content": None, "tool_calls": [
        {"id": id, "type": "function", "function": {"name": "get_weather", "arguments": arguments}}]}


TALKS = {
    "question": [user("What is the capital of France?")],
    "system": [system("Be brief.\n"), user("  Hi there!  ")],
    "turns": [user("1 < 2 & 'a'"), assistant("Yes.\n"), user("Why? \u00e9 \U0001f600"), assistant(" So. ")],
    "long": [system("S")] + [m for i in range(5) for m in (user(f"q{i}"), assistant(f"a{i}"))] + [user("end")],
    "think": [user("2+2?"), assistant("<think>\nfour?\n</think>\n\n4"), user("sure?"),
              assistant("<think>\nhm\n</think>\n\nyes")],
    "tool": [user("weather?"), call({"city": "Köln", "days": [1, 2]}),
             {"role": "tool", "content": "{\"t\": 20.5}", "tool_call_id": "abcdefghi"}, assistant("Warm."),
             user("thanks")],
    "tools2": [user("weather?"), call({}), {"role": "tool", "content": "1", "tool_call_id": "abcdefghi"},
               {"role": "tool", "content": "2", "tool_call_id": "abcdefghi"}],
    "reasoned": [user("x"), {"role": "assistant", "content": "y", "reasoning_content": "because"}],
    "order": [user("a"), user("b")],
    "shortid": [user("a"), call({}, "short"), user("b")],
    "parts": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " see "},
                                           {"type": "stop"}, {"type": "text", "text": "not"}]},
              assistant("ok")],
    "empty": [],
}


def model_cases():
    for path in sorted(HERE.glob("*.jinja")):
        template = path.read_text()
        for talk, messages in TALKS.items():
            for prompt in (True, False):
                context = {"messages": messages, "add_generation_prompt": prompt, "bos_token": "<s>",
                           "eos_token": "</s>", "tools": None}
                if talk in ("tool", "tools2", "question") and prompt:
                    context["tools"] = [WEATHER, NOTHING]
                if talk == "think" and not prompt:
                    del context["tools"]
                    context["enable_thinking"] = False
                    context["date_string"] = "1 Jan 2020"
                name = f"{path.stem}/{talk}{'' if prompt else '/closed'}"
                yield case(name, template, context)


DATA = {
    "s": "Hello World", "u": "äöü ß 天気 \U0001f600", "n": 42, "z": 0, "f": 2.5, "t": True, "no": None,
    "l": [3, 1, 2], "words": ["b", "A", "c", "a"], "d": {"b": 1, "a": 2, "C": 3}, "e": [], "ed": {}, "es": "",
    "people": [{"name": "Zoe", "age": 30, "x": {"y": 1}}, {"name": "adam", "age": 25}, {"name": "Bob", "age": 30}],
    "text": "line one\n  line two\n\nline four\n", "big": 12345678901, "nested": {"a": [1, {"b": [2, 3]}]},
    "odd": "quote ' and \" and \\ and \t\x01\x7f\u200b\u00a0", "floats": [0.1, 1e22, 1e-7, 1.0, -0.0, 123456789.125],
    "items_key": {"items": [1], "get": 2},
}

EXPRESSIONS = r"""
'a\nb\r\nc'.splitlines()
'abc'.removeprefix('ab')
'abc'.removeprefix('x')
'abc'.removesuffix('bc')
'abc'.removesuffix('')
'a-b-c'.partition('-')
'a-b-c'.rpartition('-')
'abc'.partition('-')
'abc'.rpartition('-')
'aaa'.rpartition('aa')
'12'.isdigit()
''.isdigit()
'1a'.isdigit()
' \t'.isspace()
''.isspace()
'%s and %d%%' % ('x', 3)
'%s' % 1
'%r' % 'x'
'%s' % none
'%.2f' % 2.345
'%f' % 1
'%d' % 3.9
'%s %s' % ('x',)
'%s' % ('x', 'y')
'%d' % 'x'
'%' % 1
'<a & "b">' | e
"it's" | escape
'abc' is lower
'aBc' is lower
'ABC' is upper
1 is sameas 1
none is sameas none
1 is sameas true
1 + 2 * 3 - 4
7 / 2
7 // 2
-7 // 2
7 % 3
-7 % 3
7 % -3
2 ** 10
2 ** -1
2 ** 0.5
-2 ** 2
7.5 // 2
-7.5 % 2
1e3
1_000 + 0x1F + 0b11 + 0o17
10 / 5
0.1 + 0.2
1e16
1e15
123456.789e3
1e-5
0.0001
3.0
5e-324
1.7976931348623157e308
floats
1 / z
1 // z
1 % z
n + no
s + n
n + s
s ~ n ~ no ~ t ~ f ~ undefinedvar
s * 2
2 * 'ab'
l * 2
l + [4]
(1, 2) + (3,)
(1,)
()
[]
{}
1, 2, 3
[1, 'a', none, true, 2.5, [1], {'k': 'v'}, (1, 2)]
{'a': 1, 2: 'b', none: 3, true: 4}
'single' "double" 'joined'
"esc \n \t \\ \" \' \x41 \u00e9 \101 \q"
t + 1
true == 1
1 == 1.0
1 < 2 < 3
1 < 3 < 2
'a' < 'b'
[1, 2] < [1, 3]
'a' < 1
1 in l
9 not in l
'Hello' in s
'x' in d
'a' in d
1 in 5
1 in s
not t
not es or e
t and n
no or 'default'
z or es or 'last'
t and no and n
'yes' if t else 'no'
'yes' if z else 'no'
'yes' if z
'a' if z else 'b' if z else 'c'
s[0]
s[-1]
s[99]
s[1:4]
s[::-1]
s[-3:]
s[:-3]
s[::2]
s[8:2:-2]
u[1:5]
u[::-1]
u | length
l[0]
l[-1]
l[5]
l[1:]
l[::-1]
l[::0]
(1, 2, 3)[1:]
range(5)
range(5) | list
range(2, 10, 3) | list
range(5, 0, -2) | list
range(10)[2:8:2]
range(10)[2:8:2] | list
range(3)[::-1] | list
range(1, 2, 0)
d.a
d['a']
d.missing
d.missing.deeper
d['missing']
d.get('a')
d.get('zz')
d.get('zz', 'dflt')
missing
missing.attr
missing[0]
missing()
missing + 1
missing | default('x')
missing | default
missing == other_missing
missing | length
missing | list
missing | upper
missing in l
'a' in missing
missing < 1
no.attr
no['x']
n.attr
s.attr.deeper
d.items()
d.items() | list
d.keys() | list
d.values() | list
d.keys()
d.values()
items_key['items']
items_key.get('get')
nested.a[1].b[0]
nested['a'][1]['b'] | last
people[0].x.y
people.0.name
people[1].x.y
s.upper() ~ s.lower() ~ s.title()
'hello WORLD'.capitalize()
"they're bill's" .title()
"they're bill's-friend (x)" | title
'straße'.upper()
'ÀÉ'.lower()
'  x '.strip() ~ '|'
'  x '.lstrip() ~ '|'
'  x '.rstrip() ~ '|'
'xxabxx'.strip('x')
'abcba'.lstrip('ab')
'abcba'.rstrip('ab')
'a,b,,c'.split(',')
'a b  c '.split()
' a b  c '.split(none, 1)
'a,b,c'.split(',', 1)
'a,b,c'.rsplit(',', 1)
' a b  c '.rsplit(none, 1)
'a b  c'.rsplit()
'aXXbXXc'.rsplit('XX')
'aaa'.rsplit('aa')
''.split()
''.split(',')
'abc'.split('')
'a</think>b</think>c'.split('</think>')[-1]
s.startswith('Hell')
s.startswith(('x', 'He'))
s.endswith('World')
s.endswith('x')
s.startswith('World', 6)
s.replace('o', '0')
s.replace('o', '0', 1)
'abc'.replace('', '-')
'abc'.replace('', '-', 2)
s.find('World')
s.find('zzz')
s.find('o', 5)
u.find('天')
s.index('World')
s.index('zzz')
s.count('o')
'aaaa'.count('aa')
'abc'.count('')
', '.join(words)
', '.join([1])
'-'.join('abc')
'{} and {}'.format(1, 'b')
'{1} {0} {x}'.format(1, 2, x=3)
'{{}} {}'.format(none)
'{:.2f} {:5d}| {:<5}| {:>5}| {:^5}| {:05d} {:,} {:x} {:+d}'.format(2.345, 42, 'ab', 'ab', 'ab', 42, 1234567, 255, 3)
'{!r}'.format('q')
'{:.1%}'.format(0.256)
'{'.format(1)
'{}'.format()
[1, 2, 1].count(1)
[1, 2, 1].index(2)
[1].index(5)
(1, 2).index(2)
s | upper
s | lower
'hELLO wORLD' | capitalize
s | replace('World', 'there')
s | length
s | reverse
s | first
s | last
s | list
no | string
n | string | length
[1, 'x'] | string
'  pad ' | trim ~ '|'
'xxaxx' | trim('x')
no | default('d')
no | default('d', true)
es | default('d', true)
es | d('d')
undefd | d(default_value='k', boolean=true)
words | join(', ')
words | join
people | join(', ', attribute='name')
[1, none, 2.5] | join('|')
5 | join
d | dictsort
d | dictsort(true)
d | dictsort(by='value')
d | dictsort(reverse=true)
d | items | list
l | dictsort
d | list
d | length
d | first
words | sort
words | sort(case_sensitive=true)
words | sort(reverse=true)
people | sort(attribute='age') | map(attribute='name') | list
people | sort(attribute='age', reverse=true) | map(attribute='name') | list
[1, 'a'] | sort
['b', 'B', 'a', 'A', 'b'] | unique | list
people | unique(attribute='age') | map(attribute='name') | join(',')
l | reverse | list
l | min
l | max
e | min
words | min
words | max
people | map(attribute='age') | max
l | sum
people | sum(attribute='age')
l | sum(start=10)
l | first
l | last
e | first
e | last
l | select('odd') | list
l | select('gt', 1) | list
l | reject('even') | list
[0, 1, '', 'a', none] | select | list
people | selectattr('age', 'equalto', 30) | map(attribute='name') | list
people | selectattr('x') | list | length
people | selectattr('x', 'defined') | list | length
people | rejectattr('x', 'defined') | map(attribute='name') | list
people | selectattr('x.y', 'eq', 1) | list
people | map(attribute='x', default='-') | list
words | map('upper') | list
words | map('replace', 'a', 'z') | join
words | map('default', 'q') | list
l | map('string') | join('+')
missing | map('upper') | list
people | map(attribute='nope') | list
l | length > 2
-5 | abs
2.7 | int
'42' | int
'42.9' | int
'x' | int
'x' | int(7)
'0x1f' | int(0, 16)
'z' | int(base=36)
' 12 ' | int
'1_000' | int
'1_0_0' | int
'1__0' | int
'_1' | int
no | int
'3.5' | float
'x' | float
'1e3' | float
n | float
2.5 | round
3.5 | round
2.567 | round(2)
2.1 | round(0, 'ceil')
2.9 | round(method='floor')
42 | round
-1.5 | round
1.005 | round(2)
1234.5 | round(-2)
s | safe
text | indent
text | indent(2)
text | indent(2, true)
text | indent(2, true, true)
text | indent('> ', first=true)
text | indent(width=3)
es | indent
d | tojson
nested | tojson(indent=2)
nested | tojson(indent=4)
e | tojson(indent=2)
ed | tojson(indent=2)
[e, ed] | tojson(indent=1)
u | tojson
u | tojson(ensure_ascii=true)
'\U00010000\uffff' | tojson(ensure_ascii=true)
odd | tojson
odd
[odd]
[u]
d | tojson(separators=(',', ':'))
d | tojson(separators=[', ', '='])
d | tojson(separators=3)
d | tojson(sort_keys=true)
d | tojson(indent='--')
floats | tojson
{1: 2, none: 3, true: 4, 1.5: 6} | tojson
missing | tojson
(1, 2) | tojson
d.items() | tojson
l | select | tojson
'{"a": [1, 2.5, null, "x"]}' | from_json
('{"a": [1]}' | from_json).a[0] + 1
'{bad' | from_json
n is defined
missing is defined
missing is undefined
missing is not defined
no is none
n is none
n is not none
s is string
n is string
n is number
f is number
t is number
t is integer
n is integer
f is float
n is float
t is boolean
n is boolean
t is true
n is true
t is false
d is mapping
l is mapping
l is iterable
(l | select) is iterable
(l | select | list) is iterable
s is iterable
n is iterable
d is sequence
l is sequence
s is sequence
n is sequence
missing is iterable
n is even
n is odd
n is eq 42
n is equalto(42)
n is ne 42
1 is in l
n is in([1, 2])
n is divisibleby 7
s is odd
n is gt 5 and n is lt 100
s | upper is string
d.a is defined and d.zz is not defined
d.zz.y is defined
raise_exception is defined
strftime_now is defined
strftime_now('%Y-%m-%d %H:%M:%S')
strftime_now('%d %b %Y, %A %-d %B')
strftime_now('')
raise_exception('stop here')
raise_exception('a' ~ n)
dict(a=1, b=2)
dict(d, z=1)
dict([('a', 1)])
namespace(a=1).a
namespace(a=1).b
namespace(a=1).b.c
n()
s.nope
-n
+n
- -n
-s
not not n
(n)
((n + 1) * 2) | string
-n | abs
n | abs + 1
1 + 2 | string | length
'a' ~ 1 + 2
'a' ~ 1 * 2
2 * 3 ~ 'x'
1 if t else 2 + 3
l == [3, 1, 2]
d == {'a': 2, 'b': 1, 'C': 3}
(1, 2) == [1, 2]
'1' == 1
no == none
[1, [2]] == [1.0, [2.0]]
1 != 2
2 >= 2.0
big * 3
big // 1000
'ab' < 'abc'
'Z' < 'a'
[] or {} or 0
d.b + d['a']
loop
[1, 2, 3][1:][0]
'abc'[1:].upper()
{'a': {'b': 1}}['a']['b']
{'a': 1}.a
[[1, 2], [3, 4]] | map('first') | list
[[1, 2], [3, 4]] | map('join', '-') | list
[{'a': 1}, {'a': 2}] | map(attribute='a') | sum
words | map('length') | list
'%s'
d is mapping and 'a' in d
(d.items() | list)[0][1]
'\u00e9\n'
s[:5] ~ s[5:] == s
people | length == 3 and people[0].name == 'Zoe'
(people | first).name
(people | last)['age']
1.0 is eq 1
none is none
True and False
None
""".strip().split("\n")

SNIPPETS = {
    "filter block": "a{% filter upper %}b{{ 1 }}c{% endfilter %}d",
    "filter block, chained": "{% filter trim | replace('b', 'x') | upper %}  abc  {% endfilter %}",
    "filter block in a loop": "{% for i in [1, 2] %}{% filter indent(2, true) %}{{ i }}\n{% endfilter %}{% endfor %}",
    "filter block sets nothing outside": "{% set y = 1 %}{% filter upper %}{% set y = 2 %}{{ y }}{% endfilter %}{{ y }}",
    "call block": "{% macro m(a) %}<{{ a }}|{{ caller() }}>{% endmacro %}{% call m(1) %}x{{ 2 }}{% endcall %}",
    "call block with arguments":
        "{% macro m(l) %}{% for i in l %}[{{ caller(i) }}]{% endfor %}{% endmacro %}{% call(v) m([1, 2]) %}{{ v * 2 }}{% endcall %}",
    "call block sees its own scope": "{% macro m() %}{% set z = 5 %}{{ caller() }}{% endmacro %}{% set z = 1 %}{% call m() %}{{ z }}{% endcall %}",
    "macro without a caller": "{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}",
    "caller given by name": "{% macro m(caller=none) %}{{ caller is none }}{% endmacro %}{{ m() }}{% call m() %}x{% endcall %}",
    "lists grow": "{% set l = [1] %}{% set _ = l.append(2) %}{% set _ = l.extend([3, 4]) %}{% set _ = l.insert(0, 0) %}{% set _ = l.insert(-1, 9) %}{{ l }}",
    "dicts grow": "{% set d = {'a': 1}, %}{% set d = d[0] %}{% set _ = [].append(d.update({'b': 2})) %}{{ d }}{{ d.setdefault('a', 5) }}{{ d.setdefault('c') }}{{ d }}",
    "text only": "just text\n",
    "one trailing newline dropped": "a\n\n",
    "crlf": "a\r\n{% if true %}\r\nb\r\n{% endif %}\r\nc\r\n",
    "trim block newline": "{% if true %}\nx\n{% endif %}\ny",
    "variable newline kept": "{{ 1 }}\n{{ 2 }}\n",
    "lstrip block": "a\n   {% if true %}b{% endif %}\n   c",
    "lstrip not after text": "a  {% if true %}b{% endif %}",
    "lstrip at start": "  {% if true %}b{% endif %}",
    "lstrip off": "a\n   {%+ if true %}b{% endif %}",
    "trim off": "{% if true +%}\nb{% endif %}",
    "minus both": "a \n {%- if true -%} \n b \n {%- endif -%} \n c",
    "minus variable": "a \n {{- ' x ' -}} \n b",
    "plus variable": "a {{+ 1 }} b",
    "comment": "a{# c #}b\n{# d #}\n  {# e #}\nf",
    "comment minus": "a  {#- c -#}  \n b",
    "comment plus": "a\n  {#+ c +#}\n b",
    "comment with tags": "{# {% if %} {{ #}x",
    "raw": "{% raw %}{{ x }}{% y %}{# z #}{% endraw %}",
    "raw tight": "{%raw%}{{ x }}{%endraw%}y",
    "raw minus tight": "a {%-raw-%} {{ x }} {%-endraw-%} b",
    "carriage returns": "a\rb\r\nc\r\rd\r",
    "raw minus": "a {%- raw -%} {{ x }} {%- endraw -%} b",
    "raw newline": "{% raw %}\n a {% endraw %}\n b",
    "raw lstrip": "x\n  {% raw %}y\n  {% endraw %}\nz",
    "braces in text": "{ {a} }} %} #} { %",
    "dict ends output": "{{ {'a': {'b': 1}} }}{{ {'a': {}}}}",
    "if chain": "{% if z %}a{% elif no %}b{% elif n %}c{% else %}d{% endif %}",
    "if else": "{% if z %}a{% else %}d{% endif %}",
    "if tuple": "{% if z, %}a{% endif %}",
    "for": "{% for x in l %}{{ x }},{% endfor %}",
    "for else": "{% for x in e %}{{ x }}{% else %}none{% endfor %}",
    "for else not": "{% for x in l %}{{ x }}{% else %}none{% endfor %}",
    "for else after break": "{% for x in l %}{% break %}{% else %}none{% endfor %}",
    "for else after late break": "{% for x in l %}{% if not loop.first %}{% break %}{% endif %}{% else %}none{% endfor %}",
    "for if": "{% for x in l if x > 1 %}{{ loop.index }}/{{ loop.length }}:{{ x }} {% endfor %}",
    "for if else": "{% for x in l if x > 9 %}{{ x }}{% else %}no{% endfor %}",
    "for unpack": "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
    "for unpack parens": "{% for (k, v) in d | dictsort %}{{ k }}={{ v }};{% endfor %}",
    "for nested unpack": "{% for i, (a, b) in [(1, (2, 3))] %}{{ i }}{{ a }}{{ b }}{% endfor %}",
    "for unpack wrong": "{% for k, v in l %}{{ k }}{% endfor %}",
    "for tuple": "{% for x in 1, 2, 3 %}{{ x }}{% endfor %}",
    "for string": "{% for c in 'aé' %}[{{ c }}]{% endfor %}",
    "for dict": "{% for k in d %}{{ k }}{% endfor %}",
    "for undefined": "{% for k in nope %}{{ k }}{% else %}e{% endfor %}",
    "for none": "{% for k in no %}{{ k }}{% endfor %}",
    "for int": "{% for k in n %}{{ k }}{% endfor %}",
    "loop vars": "{% for x in l %}{{ [loop.index, loop.index0, loop.revindex, loop.revindex0, loop.first, loop.last, loop.length, loop.depth] }}{% endfor %}",
    "loop neighbours": "{% for x in l %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem is defined }} {% endfor %}",
    "loop previtem attr": "{% for x in people %}{% if loop.previtem %}{{ loop.previtem.name }}{% endif %}{% endfor %}",
    "loop previtem undefined": "{% for x in people %}{{ loop.previtem.name }}{% endfor %}",
    "loop cycle": "{% for x in l %}{{ loop.cycle('a', 'b') }}{% endfor %}",
    "loop missing": "{% for x in l %}{{ loop.nope is defined }}{% endfor %}",
    "nested loops": "{% for a in l %}{% for b in l %}{{ loop.index }}{% endfor %}{{ loop.index }};{% endfor %}",
    "outer loop kept": "{% for a in l %}{% set outer = loop %}{% for b in [1, 2] %}{{ outer.index }}{{ b }} {% endfor %}{% endfor %}",
    "loop outside": "{{ loop is defined }}",
    "break": "{% for x in range(10) %}{% if x == 3 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "continue": "{% for x in range(6) %}{% if x is even %}{% continue %}{% endif %}{{ x }}{% endfor %}",
    "break inner": "{% for a in [1, 2] %}{% for b in [1, 2, 3] %}{% if b == 2 %}{% break %}{% endif %}{{ a }}{{ b }} {% endfor %}{% endfor %}",
    "set": "{% set x = 1 %}{{ x }}{% set x = x + 1 %}{{ x }}",
    "set tuple": "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set t2 = 1, 2 %}{{ t2 }}",
    "set in if": "{% if true %}{% set x = 5 %}{% endif %}{{ x }}",
    "set in for is local": "{% set x = 1 %}{% for i in l %}{% set x = i %}{{ x }}{% endfor %}{{ x }}",
    "set in for fresh": "{% for i in l %}{{ x is defined }}{% set x = i %}{% endfor %}",
    "set from outer in for": "{% set x = 1 %}{% for i in l %}{% set x = x + i %}{{ x }} {% endfor %}",
    "set over context": "{% set n = 1 %}{{ n }}",
    "set over context in for": "{% for i in l %}{{ n }}{% set n = i %}{{ n }} {% endfor %}{{ n }}",
    "loop var shadows": "{% for n in l %}{{ n }}{% endfor %}{{ n }}",
    "block set": "{% set x %}a {{ n }} b{% endset %}[{{ x }}]",
    "block set filter": "{% set x | upper | replace('A', 'q') %}a b{% endset %}[{{ x }}]",
    "block set scope": "{% set x %}{% set y = 2 %}{{ y }}{% endset %}{{ x }}{{ y }}",
    "block set in loop": "{% for i in l %}{% set x %}<{{ i }}{{ loop.last }}>{% endset %}{{ x }}{% endfor %}",
    "namespace": "{% set ns = namespace(a=1, b='x') %}{% for i in l %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}{{ ns.b }}",
    "namespace new attribute": "{% set ns = namespace() %}{% set ns.q = 3 %}{{ ns.q }}",
    "namespace dict": "{% set ns = namespace({'a': 1}) %}{{ ns.a }}",
    "namespace block set": "{% set ns = namespace() %}{% set ns.t %}x{{ n }}{% endset %}{{ ns.t }}",
    "namespace tuple": "{% set ns = namespace() %}{% set ns.a, ns.b = 1, 2 %}{{ ns.b }}",
    "set attribute of dict": "{% set d.x = 1 %}",
    "macro": "{% macro m(a, b=2) %}{{ a }}-{{ b }};{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=4, a=5) }}",
    "macro default uses parameter": "{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(7) }}",
    "macro missing": "{% macro m(a) %}[{{ a }}]{{ a is defined }}{% endmacro %}{{ m() }}",
    "macro too many": "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "macro unknown keyword": "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(q=2) }}",
    "macro result": "{% macro m() %} x {% endmacro %}{{ m() | trim | length }}{{ m() is string }}",
    "macro recursion": "{% macro f(n) %}{{ n }}{% if n > 0 %},{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(10) }}",
    "macro sees globals": "{% set g = 1 %}{% macro m() %}{{ g }}{{ n }}{% endmacro %}{% set g = 2 %}{{ m() }}",
    "macro set is local": "{% macro m() %}{% set x = 1 %}{{ x }}{% endmacro %}{{ m() }}{{ x is defined }}",
    "macro not sees loop": "{% macro m() %}{{ loop is defined }}{% endmacro %}{% for i in [1] %}{{ m() }}{% endfor %}",
    "macro defined in loop": "{% for i in l %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}",
    "macro as argument": "{% macro a() %}A{% endmacro %}{% macro b(f) %}{{ f() }}{% endmacro %}{{ b(a) }}",
    "macro with loop inside": "{% macro m(x) %}{% for i in x %}{{ i }}{% endfor %}{% endmacro %}{{ m(l) }}",
    "macro before definition": "{{ m() }}{% macro m() %}x{% endmacro %}",
    "macro whitespace": "{%- macro m(a) -%}\n  {{ a }}\n{%- endmacro -%}\n[{{ m(1) }}]",
    "append": "{% set x = [] %}{% for i in l %}{% set _ = x.append(i * 2) %}{% endfor %}{{ x }}",
    "append prints none": "{% set x = [1] %}{{ x.append(2) }}{{ x }}",
    "append aliases": "{% set x = [1] %}{% set y = x %}{% set _ = y.append(2) %}{{ x }}{{ x + [] == y }}",
    "append context copy": "{{ l.append(9) }}{{ l }}",
    "list copies": "{% set x = [1] %}{% set y = x | list %}{% set _ = y.append(2) %}{{ x }}{{ y }}",
    "pop": "{% set x = [1, 2, 3] %}{{ x.pop() }}{{ x.pop(0) }}{{ x }}",
    "pop empty": "{% set x = [] %}{{ x.pop() }}",
    "pop dict": "{% set x = {'a': 1} %}{{ x.pop('a') }}{{ x.pop('b', 9) }}{{ x }}",
    "grow while looping": "{% set x = [1] %}{% for i in x %}{% if i < 4 %}{% set _ = x.append(i + 1) %}{% endif %}{{ i }}{% endfor %}",
    "generation": "a{% generation %}b{{ n }}{% endgeneration %}c",
    "generation newline": "a\n  {% generation %}\nb\n  {% endgeneration %}\nc",
    "generation scope": "{% generation %}{% set q = 1 %}{{ q }}{% endgeneration %}{{ q is defined }}",
    "generator once": "{% set g = l | map('string') %}{{ g | join(',') }}|{{ g | join(',') }}",
    "generator is true": "{% if l | select('gt', 99) %}yes{% else %}no{% endif %}",
    "generator length": "{{ l | select | length }}",
    "generator in for": "{% for x in l | select('odd') %}{{ loop.index }}{{ x }}{% if loop.last %}.{% endif %}{% endfor %}",
    "filter if and loop": "{% for m in people if m.age == 30 %}{{ m.name }}{{ loop.last }}{% endfor %}",
    "raise in branch not taken": "{% if false %}{{ raise_exception('x') }}{% endif %}ok",
    "raise with data": "{% for m in people %}{{ raise_exception('bad: ' + m.name) }}{% endfor %}",
    "raise none": "{{ raise_exception(none) }}",
    "do": "{% do l.append(1) %}{{ l }}{% do 1, 2 %}.",
    "do nothing": "{% do %}",
    "with": "{% with a = 1, b = 'q' %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}",
    "with nothing": "{% with %}{% set n = 5 %}{{ n }}{% endwith %}{{ n }}",
    "with its own names": "{% set a = 1 %}{% with a = 2, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}",
    "with a tuple": "{% with (a, b) = (1, 2) %}{{ a }}{{ b }}{% endwith %}",
    "with in a loop": "{% for i in range(5) %}{% with x = i %}{% if x == 1 %}{% continue %}{% elif x == 3 %}{% break %}{% endif %}{{ x }}{% endwith %}{{ i }}{% endfor %}",
    "with around a macro": "{% with a = 'q' %}{% macro m() %}{{ a }}{% endmacro %}{{ m() }}{% endwith %}",
    "with without end": "{% with a = 1 %}",
    "with without value": "{% with a %}{% endwith %}",
    "recursive loop": "{% for x in [{'n': 1, 'c': [{'n': 2, 'c': []}, {'n': 3, 'c': [{'n': 4, 'c': []}]}]}, {'n': 5, 'c': []}] recursive %}{{ loop.depth }}{{ loop.depth0 }}:{{ x.n }}{{ loop.index }}{% if x.c %}({{ loop(x.c) }}){% endif %};{% endfor %}",
    "recursive loop of one": "{% for x in l recursive %}{{ x }}{% endfor %}",
    "recursive loop with filter": "{% for x in [1, [2, none, [3]], none] if x != none recursive %}{% if x is iterable %}[{{ loop(x) }}]{% else %}{{ x }}{% endif %}{% else %}empty{% endfor %}",
    "recursive loop with else": "{% for x in [[], [[]]] recursive %}<{{ loop(x) }}>{% else %}-{% endfor %}",
    "recursive loop with names": "{% set y = 'y' %}{% for a, b in [(1, [(2, [])])] recursive %}{% set y = a %}{{ y }}{{ loop(b) }}{{ y }}{% endfor %}{{ y }}",
    "recursive loop from within": "{% for x in [[1, 2], [3]] recursive %}{% set outer = loop %}{% if x is iterable %}{% for y in x %}{{ outer([y]) }},{% endfor %}{% else %}{{ x }}{% endif %}{% endfor %}",
    "recursive loop with break": "{% for x in [1, [2, 3, 4], 5, 6] recursive %}{% if x is iterable %}[{{ loop(x) }}]{% elif x == 3 or x == 5 %}{% break %}{% else %}{{ x }}{% endif %}{% endfor %}",
    "recursive loop filtered": "{% for x in ['a', ['b']] recursive %}{% if x is string %}{{ x }}{% else %}{{ loop(x) | upper }}{% endif %}{% endfor %}",
    "loop that is not recursive": "{% for x in [1] %}{{ loop([2]) }}{% endfor %}",
    "loop callable": "{% for x in [1] %}{{ loop is callable }}{% endfor %}",
    "recursion over nothing": "{% for x in [1] recursive %}{{ loop(none) }}{% endfor %}",
    "unpacked arguments": "{% macro m(a, b=2, c=3) %}{{ a }}{{ b }}{{ c }};{% endmacro %}{{ m(*[7, 8]) }}{{ m(7, *[8, 9]) }}{{ m(*(1,), c=4) }}{{ m(**{'a': 5, 'c': 6}) }}{{ m(1, **dict(b=9)) }}{{ m(*[1], c=2, **{'b': 3}) }}",
    "unpacked into a function": "{{ range(*[1, 7, 2]) | list }}{{ dict(**{'a': 1}) }}{{ 'x{}y{}'.format(*[1, 2]) }}{{ l | join(*['-']) }}",
    "unpacked nothing": "{{ l | select(**{}) | list }}{{ l | reject(*[]) | list }}{{ dict(*[], **{}) }}",
    "unpacked too many": "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(*[1, 2]) }}",
    "unpacked none": "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(*none) }}",
    "unpacked no mapping": "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(**[1]) }}",
    "unpacked no names": "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(**{1: 2}) }}",
    "unpacked twice": "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(a=1, **{'a': 2}) }}",
    "argument after unpacked": "{{ range(*[1], 2) }}",
    "argument after named unpacked": "{{ dict(**{}, a=2) }}",
    "two unpacked": "{{ range(*[1], *[2]) }}",
    "varargs": "{% macro m(a) %}{{ a }}{{ varargs }}{{ varargs | length }}{% endmacro %}{{ m(1) }}{{ m(1, 2) }}{{ m(1, 2, 3) }}{{ m() }}",
    "kwargs": "{% macro m(a) %}{{ a }}{{ kwargs }}{% for k, v in kwargs.items() %}{{ k }}{{ v }}{% endfor %}{% endmacro %}{{ m(1) }}{{ m(1, b=2, c=3) }}{{ m(a=4, d=5) }}",
    "varargs passed on": "{% macro m(a, b) %}{{ a }}{{ b }}{% endmacro %}{% macro w() %}{{ m(*varargs, **kwargs) }}{% endmacro %}{{ w(1, b=2) }}{{ w(3, 4) }}",
    "format filter": "{{ '%s-%s' | format('a', 1) }}{{ '%d%%' | format(n) }}{{ '%.2f' | format(2) }}{{ '%s' | format([1]) }}{{ '%(a)s:%(b)d:%(a)s' | format(a='x', b=2) }}{{ 'q' | format }}{{ '%(k)s' % {'k': 'v'} }}{{ '%s' | format(a=1) }}",
    "format of floats": "{{ '%d %d %i' | format(2.9, -2.9, true) }}",
    "format of infinity": "{{ '%d' % ('inf' | float) }}",
    "format of what is no number": "{{ '%d' % ('nan' | float) }}",
    "format filter too few": "{{ '%s %s' | format(1) }}",
    "format filter too many": "{{ '%s' | format(1, 2) }}",
    "format filter both": "{{ '%s' | format(1, a=2) }}",
    "format without mapping": "{{ '%(a)s' | format(1) }}",
    "format without key": "{{ '%(a)s' | format(b=1) }}",
    "format open key": "{{ '%(a' | format(a=1) }}",
    "undefined attribute line": "a\nb\n{{ d.x.y }}",
    "undefined in condition": "{% if nope %}a{% else %}b{% endif %}",
    "undefined first": "{{ (e | first).x }}",
    "undefined max": "{{ (e | max).x }}",
    "undefined compare": "{% if d.role == 'x' %}a{% else %}b{% endif %}",
    "string line break": "{{ 'a\nb' }}",
    "tag over lines": "{% if n\n  and\n  t %}\nx{% endif %}",
    "line count": "{# a\nb #}\n{% set x = 1\n%}{{ nope.x }}",
    "unicode text": "héllo {{ '世界' }} \U0001f600",
    "conditional output": "{{ 'a' if n > 40 and t else 'b' }}{{ '' if n else 'c' }}",
    "nested quotes": "{{ \"it's\" ~ 'say \"hi\"' }}",
    "tuple output": "{{ 1, 'a' }}",
    "filter in condition": "{% if people | selectattr('age', 'gt', 26) | list | length == 2 %}two{% endif %}",
    "elif after set": "{% set r = 'x' %}{% if r == 'y' %}1{% elif r == 'x' %}2{% endif %}",
    "slices in for": "{% for x in l[1:] %}{{ x }}{% endfor %}{% for x in l[:-1] %}{{ x }}{% endfor %}",
    "unclosed if": "{% if true %}x",
    "unclosed for": "{% for x in l %}x",
    "unclosed macro": "{% macro m() %}x",
    "unclosed output": "{{ x",
    "unclosed block tag": "{% if x",
    "unclosed comment": "{# x",
    "unclosed raw": "{% raw %}x",
    "unclosed string": "{{ 'x }}",
    "unclosed bracket": "{{ [1, 2 }}",
    "wrong bracket": "{{ [1, 2) }}",
    "stray endif": "x{% endif %}",
    "stray else": "{% else %}",
    "wrong end": "{% if true %}{% endfor %}",
    "elif after else": "{% if z %}{% else %}{% elif n %}{% endif %}",
    "two elses": "{% if z %}{% else %}{% else %}{% endif %}",
    "empty output": "{{ }}",
    "empty tag": "{% %}",
    "missing operand": "{{ 1 + }}",
    "double operand": "{{ 1 2 }}",
    "bad character": "{{ 1 ? 2 }}",
    "bad assignment": "{% set 1 = 2 %}",
    "bad assignment to constant": "{% set true = 2 %}",
    "for without in": "{% for x l %}{% endfor %}",
    "named before positional": "{{ dict(a=1, 2) }}",
    "default before plain": "{% macro m(a=1, b) %}{% endmacro %}",
    "chained tests": "{{ 1 is odd is even }}",
    "no filter name": "{{ 1 | }}",
    "no attribute name": "{{ d. }}",
    "if without condition": "{% if %}{% endif %}",
    "text after tag": "{% if true x %}{% endif %}",
    "break outside": "{% break %}",
    "bad escape": "{{ '\\x4' }}",
}

# Where we stop on purpose: (template, kind, part of the message)
LIMITS = {
    "include": ("a\n{% include 'x' %}", "unsupported", "line 2: the tag {% include %}"),
    "import": ("{% import 'x' as y %}", "unsupported", "{% import %}"),
    "extends": ("{% extends 'x' %}", "unsupported", "{% extends %}"),
    "block": ("{% block x %}{% endblock %}", "unsupported", "{% block %}"),
    "filter tag": ("{% filter center %}x{% endfilter %}", "unsupported", "the filter 'center'"),
    "unknown filter": ("\n\n{{ x | wordcount }}", "unsupported", "line 3: the filter 'wordcount'"),
    "unknown filter in map": ("{{ l | map('wordcount') }}", "unsupported", "the filter 'wordcount'"),
    "unknown test": ("{{ x is escaped }}", "unsupported", "the test 'escaped'"),
    "unknown test in select": ("{{ l | selectattr('a', 'escaped') }}", "unsupported", "the test 'escaped'"),
    "unknown method": ("{{ s.swapcase() }}", "unsupported", "the method 'swapcase'"),
    "cycler": ("{% set c = cycler(1, 2) %}", "unsupported", "the function 'cycler'"),
    "percent of a large float": ("{{ '%d' % 1e30 }}", "unsupported", "64 bits"),
    "percent format": ("{{ '%x' % 1 }}", "unsupported", "the format '%x'"),
    "huge literal": ("{{ 99999999999999999999 }}", "unsupported", "64 bits"),
    "overflow": ("{{ 9223372036854775807 + 1 }}", "unsupported", "64 bits"),
    "power overflow": ("{{ 10 ** 30 }}", "unsupported", "64 bits"),
    "deep brackets": ("{{ " + "(" * 70 + "1" + ")" * 70 + " }}", "unsupported", "deeper"),
    "deep lists": ("{{ " + "[" * 5000 + "]" * 5000 + " }}", "unsupported", "deeper"),
    "deep blocks": ("{% if true %}" * 70 + "{% endif %}" * 70, "unsupported", "deeper"),
    "deep not": ("{{ " + "not " * 100 + "x }}", "unsupported", "deeper"),
    "deep minus": ("{{ " + "-" * 100 + "1 }}", "unsupported", "deeper"),
    "long chain": ("{{ 1" + " + 1" * 300 + " }}", "unsupported", "links"),
    "long filters": ("{{ x" + " | trim" * 300 + " }}", "unsupported", "links"),
    "long attributes": ("{{ x" + ".a" * 300 + " }}", "unsupported", "links"),
    "endless recursion": ("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "bound", "deeper"),
    "endless macro": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "bound", "deeper"),
    "endless loop": ("{% set x = [1] %}{% for i in x %}{% set _ = x.append(1) %}{% endfor %}", "bound", ""),
    "long loops": ("{% set r = range(9999) %}{% for a in r %}{% for b in r %}{% endfor %}{% endfor %}", "bound", "steps"),
    "big range": ("{{ range(10000000) }}", "bound", "range()"),
    "big repeat": ("{{ 'abc' * 1000000000 }}", "bound", "MiB"),
    "doubling text": ("{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}", "bound", ""),
    "doubling list": ("{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}", "bound", ""),
    "long output": ("{% set s = 'x' * 1000000 %}{% for i in range(100) %}{{ s }}{% endfor %}", "bound", "MiB"),
    "list in itself": ("{% set x = [] %}{% set _ = x.append(x) %}{{ x }}", "bound", "deeper"),
    "list in itself to json": ("{% set x = [] %}{% set _ = x.append(x) %}{{ x | tojson }}", "bound", "deeper"),
    "list in itself compared": ("{% set x = [] %}{% set _ = x.append(x) %}{% set y = [] %}{% set _ = y.append(y) %}{{ x == y }}", "bound", "deeper"),
    "wide indent": ("{{ 'a\nb' | indent(99999999) }}", "bound", "wide"),
}


def main():
    cases = list(model_cases())
    cases += [case(f"expr {e}", "{{ " + e + " }}", DATA) for e in EXPRESSIONS]
    cases += [case(name, t, DATA) for name, t in SNIPPETS.items()]
    for name, (template, kind, text) in LIMITS.items():
        cases.append({"name": name, "template": template, "context": DATA, "now": NOW, "error": kind,
                      "text": text})
    # Contexts and templates repeat: each is written once.
    tables = {"templates": [], "contexts": []}
    for c in cases:
        for field, table in (("template", "templates"), ("context", "contexts")):
            if c[field] not in tables[table] or json.dumps(c[field]) not in map(json.dumps, tables[table]):
                tables[table].append(c[field])
            c[field] = list(map(json.dumps, tables[table])).index(json.dumps(c[field]))
    with open(HERE / "cases.json", "w") as f:
        f.write("{\n")
        for table, values in tables.items():
            f.write(f'"{table}": [\n' + ",\n".join(map(json.dumps, values)) + "\n],\n")
        f.write('"cases": [\n' + ",\n".join(map(json.dumps, cases)) + "\n]\n}\n")
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
