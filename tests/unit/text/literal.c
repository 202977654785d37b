/* literal: what a message says never becomes a control token, whatever a template does to it. */
#include "text/special.h"

#include "base/mem.h"
#include "make_vocab.h"
#include "text/bytelevel.h"
#include "text/chat.h"
#include "text/spans.h"
#include "text/template.h"
#include "text_files.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define NOW 1752665696

/* ---- operations: which bytes of a text are still a client's ---- */

/* '#' for each byte that came from x, '.' for each that the template wrote. */
static void expect_mask(const char *source, const char *x, const char *text, const char *mask)
{
    struct template *t = NULL;
    struct error err = { OK, "" };
    struct strbuf out = STRBUF_INIT;
    struct spans literal = { 0 };
    json_t *own = json_pack("{s:s}", "bos", "<s>");
    json_t *vars =
        json_pack("{s:s, s:{s:s, s:i}, s:[s,s], s:s}", "x", x, "d", "k", x, "n", 7, "l", x, x, "j", "{\"k\": \"v\"}");
    struct template_input in = { .own = own, .literal = vars, .now = NOW };
    cr_assert_eq(template_compile(&t, source, strlen(source), &err), OK, "%s: %s", source, err.text);
    cr_assert_eq(template_render(t, &in, &out, &literal, &err), OK, "%s: %s", source, err.text);
    cr_assert_str_eq(strbuf_cstr(&out), text, "%s", source);
    char *got = mem_alloc(out.n + 1);
    memset(got, '.', out.n);
    got[out.n] = '\0';
    for (size_t i = 0; i < literal.n; i++) {
        cr_assert(literal.v[i].from < literal.v[i].to && literal.v[i].to <= out.n);
        memset(got + literal.v[i].from, '#', literal.v[i].to - literal.v[i].from);
    }
    cr_assert_str_eq(got, mask, "%s gives %s", source, text);
    mem_free(got);
    spans_fini(&literal);
    strbuf_fini(&out);
    json_decref(own);
    json_decref(vars);
    template_destroy(t);
}

Test(literal, bytes_keep_their_origin_through_every_operation)
{
    static const struct {
        const char *source, *x, *text, *mask;
    } rows[] = {
        { "a{{ x }}b", "<s>", "a<s>b", ".###." },
        { "{{ bos }}{{ x }}", "<s>", "<s><s>", "...###" },
        { "{{ 'a' + x + 'b' }}", "q", "aqb", ".#." },
        { "{{ 'a' ~ x ~ 1 }}", "q", "aq1", ".#." },
        { "{{ ('<' ~ x ~ '>') | upper }}", "ab", "<AB>", ".##." },
        { "{{ ('<' ~ x).lower() }}", "AB", "<ab", ".##" },
        { "{{ x | capitalize }}{{ x | title }}{{ x.title() }}", "ab", "AbAbAb", "######" },
        { "{{ ('Q' ~ x) | lower | upper }}", "\xc3\x9f", "QSS", ".##" },
        { "{{ (' ' ~ x ~ ' ') | trim }}", " q ", "q", "#" },
        { "{{ ('a' ~ x).strip('a') }}{{ x.lstrip() }}{{ x.rstrip() }}", "aba", "babaaba", "#######" },
        { "{{ 'aXb' | replace('X', x) }}", "qq", "aqqb", ".##." },
        { "{{ x | replace('a', '<') }}", "bab", "b<b", "#.#" },
        { "{{ x.replace('', '-') }}", "ab", "-a-b-", ".#.#." },
        { "{{ 'ab'.replace('', x) }}", "q", "qaqbq", "#.#.#" },
        { "{{ ('a' ~ x ~ 'b')[1:3] }}", "qr", "qr", "##" },
        { "{{ ('a' ~ x)[0] }}{{ ('a' ~ x)[1] }}{{ x[-1] }}", "qr", "aqr", ".##" },
        { "{{ ('a' ~ x)[::-1] }}", "qr", "rqa", "##." },
        { "{{ ('a' ~ x) | reverse }}", "qr", "rqa", "##." },
        { "{{ ('a-' ~ x ~ '-b').split('-') | join('+') }}", "q-r", "a+q+r+b", "..#.#.." },
        { "{{ ('a ' ~ x).split() | join('') }}", "q r", "aqr", ".##" },
        { "{{ ('a ' ~ x).rsplit(' ', 1) | join('') }}", "q r", "a qr", "..##" },
        { "{{ 'a-b'.split('-') | join(x) }}", "q", "aqb", ".#." },
        { "{{ x.join(['a', 'b']) }}{{ '-'.join(l) }}", "q", "aqbq-q", ".#.#.#" },
        { "{{ l | map('upper') | join(',') }}", "q", "Q,Q", "#.#" },
        { "{{ x | list | join('.') }}", "qr", "q.r", "#.#" },
        { "{% with y = x, z = 'z' %}{{ y }}{{ z }}{% endwith %}", "q", "qz", "#." },
        { "{% set a = [] %}{% do a.append(x) %}{% do a.append('b') %}{{ a | join }}", "q", "qb", "#." },
        { "{% for y in [x, [x, 'b']] recursive %}{% if y is string %}({{ y }}){% else %}{{ loop(y) | upper }}{% endif "
          "%}"
          "{% endfor %}",
          "q", "(q)(Q)(B)", ".#..#...." },
        { "{% macro m(a, b) %}{{ a }}-{{ b }}{% endmacro %}{{ m(*[x, 'b']) }}{{ m(**{'a': 'a', 'b': x}) }}", "q",
          "q-ba-q", "#....#" },
        { "{% macro m() %}{{ varargs[0] }}{{ kwargs.k }}{% endmacro %}{{ m(x, k='k') }}{{ m('a', **d) }}", "q", "qkaq",
          "#..#" },
        { "{{ '<%s|%s>' | format(x, 'b') }}{{ '%(k)s.' | format(k=x) }}", "q", "<q|b>q.", ".#...#." },
        { "{{ '<' ~ x | format('b') }}", "%s", "<b", ".." },
        { "{{ l | first }}{{ l | last }}{{ l[0] }}{{ l | sort | join }}{{ l | unique | join }}", "q", "qqqqqq",
          "######" },
        { "{{ l | max }}{{ l | min }}{{ l | sum(start='') }}", "q", "qqqq", "####" },
        { "{{ x * 2 }}{{ 2 * ('a' ~ x) }}", "q", "qqaqaq", "##.#.#" },
        { "{{ '<{}>{}'.format(x, 1) }}", "q", "<q>1", ".#.." },
        { "{{ '{:>3}|{:.1}'.format(x, x) }}", "qr", " qr|q", ".##.#" },
        { "{{ '{!r}'.format(x) }}", "q", "'q'", ".#." },
        { "{{ x.format(1) }}", "<{}>", "<1>", "#.#" },
        { "{{ x | tojson }}", "a\"<", "\"a\\\"<\"", ".####." },
        { "{{ x | tojson(ensure_ascii=true) }}", "\xf0\x9f\x98\x80", "\"\\ud83d\\ude00\"", ".############." },
        { "{{ d | tojson }}", "q", "{\"k\": \"q\", \"n\": 7}", "..#....#....#....." },
        { "{{ {'a': x} | tojson(indent=1) }}", "q", "{\n \"a\": \"q\"\n}", ".........#..." },
        { "{{ [x] }}{{ (x,) }}", "q\n", "['q\\n']('q\\n',)", "..###....###..." },
        { "{{ {'a': x} }}", "\x01", "{'a': '\\x01'}", ".......####.." },
        { "{{ d.k }}{{ d['k'] }}{{ d.get('k') }}{{ d.items() | list | first | last }}", "q", "qqqq", "####" },
        { "{{ (j | from_json).k }}", "q", "v", "#" },
        { "{% for c in x %}{{ loop.index }}{{ c }}{% endfor %}", "qr", "1q2r", ".#.#" },
        { "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "q", "k=q;n=7;", "#.#.#..." },
        { "{% set y %}[{{ x }}]{% endset %}{{ y }}", "q", "[q]", ".#." },
        { "{% set y | upper %}a{{ x }}{% endset %}{{ y }}", "q", "AQ", ".#" },
        { "{% filter upper %}a{{ x }}{% endfilter %}", "q", "AQ", ".#" },
        { "{% macro m(v) %}<{{ v }}>{% endmacro %}{{ m(x) }}{{ m(x) | length }}", "q", "<q>3", ".#.." },
        { "{% set ns = namespace(v='a') %}{% set ns.v = ns.v ~ x %}{{ ns.v }}", "q", "aq", ".#" },
        { "{{ ('a\\n' ~ x) | indent(2) }}", "q\nr", "a\n  q\n  r", ".#..##..#" },
        { "{{ x | indent('>', true) }}", "q", ">q", ".#" },
        { "{{ x | string | safe | default('d') }}{{ none | default(x, true) }}", "q", "qq", "##" },
        { "{{ x if x else 'n' }}{{ x or 'n' }}{{ x and x }}", "q", "qqq", "###" },
        { "{{ x | length }}{{ 'q' in x }}{{ x == 'q' }}", "q", "1TrueTrue", "........." },
        { "{{ '<' ~ (x | int) ~ '>' }}", "12", "<12>", "...." },
        { "{{ x ~ '' }}{{ '' ~ x }}{{ ''.join([x]) }}", "q", "qqq", "###" },
        { "{{ x.splitlines() | join('|') }}", "a\nb", "a|b", "#.#" },
        { "{{ ('[' ~ x).removeprefix('[') }}{{ (x ~ ']').removesuffix(']') }}", "q", "qq", "##" },
        { "{{ ('a:' ~ x).partition(':') | join(' ') }}", "q", "a : q", "....#" },
        { "{{ '%s-%d' % (x, 3) }}{{ '<%s>' % x }}", "q", "q-3<q>", "#...#." },
        { "{{ x | e }}", "<q", "&lt;q", "#####" },
        { "{{ strftime_now('%Y') }}", "", "2025", "...." },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        expect_mask(rows[i].source, rows[i].x, rows[i].text, rows[i].mask);
}

/* ---- the property: no control token over a byte that a message said ---- */

struct family { /* control tokens as a family of models has them */
    const char *kind;
    const char *tokens[24];
};

static const struct family families[] = {
    { "gpt2",
      { "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|object_ref_start|>", "<|vision_start|>", "<|image_pad|>" } },
    { "gpt2",
      { "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>",
        "<|python_tag|>", "<|reserved_special_token_0|>" } },
    { "gpt2",
      { "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|tool|>", "<|/tool|>", "<|endoftext|>",
        "<|fim_prefix|>" } },
    { "gpt2",
      { "<\xef\xbd\x9c"
        "begin\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>",
        "<\xef\xbd\x9c"
        "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>",
        "<\xef\xbd\x9cUser\xef\xbd\x9c>",
        "<\xef\xbd\x9c"
        "Assistant\xef\xbd\x9c>",
        "<|EOT|>" } },
    { "gpt2",
      { "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>", "<|call|>", "<|constrain|>",
        "<|startoftext|>" } },
    { "gpt2",
      { "<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>",
        "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "[gMASK]", "<sop>", "<|observation|>" } },
    { "llama", { "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[TOOL_CALLS]", "<<SYS>>" } },
    { "llama", { "<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>" } },
};

enum { N_FAMILIES = sizeof(families) / sizeof(families[0]) };

/* A token for each byte and no merges, so that each id stands for bytes that can be counted. */
static struct vocab *family_vocab(const struct family *f)
{
    json_t *tokens = json_array(), *types = json_array();
    bool spm = strcmp(f->kind, "llama") == 0;
    for (size_t i = 0; i < 24 && f->tokens[i]; i++) {
        json_array_append_new(tokens, json_string(f->tokens[i]));
        json_array_append_new(types, json_integer(TOKEN_CONTROL));
    }
    for (int byte = 0; byte < 256; byte++) {
        char text[8] = "";
        if (spm)
            snprintf(text, sizeof(text), "<0x%02X>", (unsigned)byte);
        else
            text[bytelevel_encode((uint8_t)byte, text)] = '\0';
        json_array_append_new(tokens, json_string(text));
        json_array_append_new(types, json_integer(spm ? TOKEN_BYTE : TOKEN_NORMAL));
    }
    if (spm) {
        json_array_append_new(tokens, json_string("\xe2\x96\x81"));
        json_array_append_new(types, json_integer(TOKEN_NORMAL));
    }
    json_t *j = json_pack("{s:s, s:s, s:o, s:o, s:[], s:b}", "kind", f->kind, "pre", "gpt-2", "tokens", tokens, "types",
                          types, "merges", "add_space_prefix", 0);
    struct vocab *v = vocab_from_json(j);
    json_decref(j);
    return v;
}

struct subject { /* one model: a template of one family, the tokens of another perhaps */
    const char *name;
    struct vocab *vocab;
    struct tokenizer *tokenizer;
    struct chat *chat;
    size_t n_refused, n_seen;
    uint32_t *counts; /* of each control token, in the prompt with harmless content */
};

/* Bytes of the text that an id of these vocabularies stands for. */
static size_t token_bytes(const struct vocab *v, int32_t id)
{
    uint8_t text[256];
    return vocab_token_bytes(v, id, text, sizeof(text));
}

static bool is_literal(const struct spans *literal, size_t from, size_t to)
{
    for (size_t i = 0; i < literal->n; i++)
        if (literal->v[i].from < to && from < literal->v[i].to) return true;
    return false;
}

/* Renders, encodes, and holds every control token against the literal bytes.  counts: how often each one came. */
static bool encode_chat(struct subject *s, const json_t *messages, uint32_t *counts)
{
    struct chat_prompt p = { 0 };
    struct chat_options how = { .add_generation_prompt = true, .now = NOW };
    struct token_list ids = { 0 };
    struct error err = { OK, "" };
    size_t at = 0;
    bool rendered = chat_render(s->chat, messages, &how, &p, &err) == OK;
    memset(counts, 0, s->vocab->n_tokens * sizeof(*counts));
    if (rendered) {
        struct encode_options opt = { .parse_special = true, .literal = &p.literal };
        cr_assert_eq(tokenizer_encode(s->tokenizer, strbuf_cstr(&p.text), p.text.n, opt, &ids, &err), OK, "%s",
                     err.text);
    }
    for (size_t i = 0; i < ids.n; i++) {
        const struct vocab_token *t = &s->vocab->tokens[ids.ids[i]];
        size_t n = token_bytes(s->vocab, ids.ids[i]);
        if (t->type == TOKEN_CONTROL) {
            counts[ids.ids[i]]++;
            cr_assert(!is_literal(&p.literal, at, at + n), "%s: %.*s at byte %zu is formed of a message's bytes in\n%s",
                      s->name, (int)t->n, t->text, at, strbuf_cstr(&p.text));
        }
        at += n;
    }
    cr_assert_eq(at, p.text.n, "%s: %zu bytes of tokens for %zu of text", s->name, at, p.text.n);
    token_list_fini(&ids);
    chat_prompt_fini(&p);
    return rendered;
}

static json_t *conversation(const char *content, bool with_system)
{
    if (!with_system)
        return json_pack("[{s:s,s:s},{s:s,s:s},{s:s,s:s}]", "role", "user", "content", content, "role", "assistant",
                         "content", content, "role", "user", "content", content);
    return json_pack("[{s:s,s:s},{s:s,s:s},{s:s,s:s},{s:s,s:s}]", "role", "system", "content", content, "role", "user",
                     "content", content, "role", "assistant", "content", content, "role", "user", "content", content);
}

/* The prompt with this content has the control tokens of the harmless one, and no others. */
static void try_content(struct subject *s, const char *content)
{
    uint32_t *counts = mem_array(s->vocab->n_tokens, sizeof(*counts));
    json_t *messages = conversation(content, true);
    if (!encode_chat(s, messages, counts)) {
        json_decref(messages);
        messages = conversation(content, false);
        s->n_refused += !encode_chat(s, messages, counts);
    }
    s->n_seen++;
    /* Templates cut an assistant's text at these, and with it what stood around them. */
    bool cut = strstr(content, "think") || strstr(content, "channel");
    for (uint32_t i = 0; !cut && i < s->vocab->n_tokens; i++)
        cr_assert_eq(counts[i], s->counts[i], "%s: %u of %.*s, %u with harmless text; content \"%s\"", s->name,
                     counts[i], (int)s->vocab->tokens[i].n, s->vocab->tokens[i].text, s->counts[i], content);
    json_decref(messages);
    mem_free(counts);
}

/* A token alone, in words, doubled, without its ends, split where template and message meet. */
static void try_token(struct subject *s, const char *token)
{
    static const char *const shapes[] = {
        "%s", "a %s b", " %s ", "%s%s", "\n%s\n", "<|im_%s", "%s<|im_", "%s|>", "<|%s"
    };
    size_t n = strlen(token);
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        struct strbuf text = STRBUF_INIT;
        for (const char *p = shapes[i]; *p; p++) {
            if (*p == '%' && p[1] == 's')
                strbuf_puts(&text, (p++, token));
            else
                strbuf_putc(&text, *p);
        }
        try_content(s, strbuf_cstr(&text));
        strbuf_fini(&text);
    }
    for (size_t cut = 1; cut < n; cut++) {
        if ((token[cut] & 0xc0) == 0x80) continue;
        char *head = mem_strndup(token, cut);
        try_content(s, head);
        try_content(s, token + cut);
        mem_free(head);
    }
}

static void open_subject(struct subject *s, const char *name, struct vocab *v, char *template)
{
    struct error err = { OK, "" };
    *s = (struct subject){ .name = name, .vocab = v, .tokenizer = tokenizer_of(v) };
    char *was = v->chat_template;
    v->chat_template = template;
    cr_assert_eq(chat_create(&s->chat, v, &err), OK, "%s: %s", name, err.text);
    v->chat_template = was;
    s->counts = mem_array(v->n_tokens, sizeof(*s->counts));
    json_t *messages = conversation("plain words", true);
    if (!encode_chat(s, messages, s->counts)) {
        json_decref(messages);
        messages = conversation("plain words", false);
        cr_assert(encode_chat(s, messages, s->counts), "%s cannot be rendered", name);
    }
    json_decref(messages);
}

static void close_subject(struct subject *s)
{
    cr_assert(s->n_seen > 0);
    cr_assert_eq(s->n_refused, 0, "%s refuses %zu of %zu conversations", s->name, s->n_refused, s->n_seen);
    chat_destroy(s->chat);
    tokenizer_destroy(s->tokenizer);
    mem_free(s->counts);
}

/* Calls `fn` with each template beside the golden cases; returns how many there are. */
static size_t each_template(void (*fn)(const char *name, char *source))
{
    DIR *dir = opendir(TEST_DATA "/golden/templates");
    size_t n = 0;
    cr_assert(dir);
    for (struct dirent *e; (e = readdir(dir));) {
        char path[1024];
        if (!strstr(e->d_name, ".jinja")) continue;
        snprintf(path, sizeof(path), TEST_DATA "/golden/templates/%s", e->d_name);
        char *source = read_text(path);
        fn(e->d_name, source);
        mem_free(source);
        n++;
    }
    closedir(dir);
    return n;
}

static void try_all_families(const char *name, char *source)
{
    for (size_t f = 0; f < N_FAMILIES; f++) {
        struct vocab *v = family_vocab(&families[f]);
        struct subject s;
        open_subject(&s, name, v, source);
        for (size_t i = 0; families[f].tokens[i]; i++) try_token(&s, families[f].tokens[i]);
        close_subject(&s);
        vocab_destroy(v);
    }
}

Test(literal, no_control_token_is_formed_of_what_a_message_says)
{
    cr_assert(each_template(try_all_families) >= 11);
}

/* ---- the real vocabulary ---- */

Test(literal, the_real_models_control_tokens_stay_text)
{
    struct vocab *v = real_vocab();
    struct subject s;
    size_t n = 0;
    open_subject(&s, MODEL, v, v->chat_template);
    for (uint32_t id = 0; id < v->n_tokens; id++) {
        if (v->tokens[id].type != TOKEN_CONTROL) continue;
        char *text = mem_strndup(v->tokens[id].text, v->tokens[id].n);
        try_token(&s, text);
        mem_free(text);
        n++;
    }
    cr_assert(n > 3, "only %zu control tokens", n);
    close_subject(&s);
    vocab_destroy(v);
}

Test(literal, harmless_prompts_have_the_ids_of_the_reference)
{
    struct vocab *v = real_vocab();
    struct tokenizer *t = tokenizer_of(v);
    struct chat *chat = NULL;
    struct error err = { OK, "" };
    json_t *golden = load_json(TEST_DATA "/golden/smollm2.json"), *c;
    size_t i, n = 0;
    cr_assert_eq(chat_create(&chat, v, &err), OK, "%s", err.text);
    json_array_foreach(golden, i, c)
    {
        struct chat_prompt p = { 0 };
        struct chat_options how = { .add_generation_prompt = true, .now = NOW };
        if (!json_is_string(json_object_get(c, "user"))) continue;
        json_t *messages = json_pack("[{s:s, s:O}]", "role", "user", "content", json_object_get(c, "user"));
        cr_assert_eq(chat_render(chat, messages, &how, &p, &err), OK, "%s", err.text);
        cr_assert(p.literal.n > 0);
        expect_ids(t, strbuf_cstr(&p.text), p.text.n,
                   (struct encode_options){ .parse_special = true, .literal = &p.literal }, json_object_get(c, "ids"),
                   json_string_value(json_object_get(c, "name")));
        chat_prompt_fini(&p);
        json_decref(messages);
        n++;
    }
    cr_assert(n > 3, "only %zu chats", n);
    chat_destroy(chat);
    tokenizer_destroy(t);
    vocab_destroy(v);
    json_decref(golden);
}

/* ---- special tokens and spans ---- */

/* Ids: a b < s >, control <s>, control <s>>, user-defined [[. */
#define SMALL                                                                                                          \
    "{\"kind\": \"gpt2\", \"pre\": \"gpt-2\", \"tokens\": [\"a\", \"b\", \"<\", \"s\", \">\", \"[\", \"<s>\", "        \
    "\"<s>>\", \"[[\"], \"types\": [1,1,1,1,1,1,3,3,4]}"

static void expect_spans(const char *text, size_t from, size_t to, const char *ids)
{
    struct spans literal = { 0 };
    spans_add(&literal, from, to);
    expect_encoding(SMALL, text, (struct encode_options){ .parse_special = true, .literal = &literal }, ids);
    spans_fini(&literal);
}

Test(literal, only_control_tokens_over_literal_bytes_are_off)
{
    expect_spans("<s><s>", 0, 3, "[2,3,4,6]");
    expect_spans("<s><s>", 3, 6, "[6,2,3,4]");
    expect_spans("<s><s>", 2, 4, "[2,3,4,2,3,4]");
    expect_spans("<s>>", 3, 4, "[6,4]"); /* the longer one reaches into the message, the shorter one does not */
    expect_spans("a<s>b", 0, 1, "[0,6,1]");
    expect_spans("a[[b", 0, 4, "[0,8,1]");
    expect_spans("a[[b", 2, 3, "[0,8,1]");
}

Test(literal, spans_join_and_are_cut)
{
    struct spans s = { 0 };
    spans_add(&s, 0, 0);
    cr_assert_eq(s.n, 0);
    spans_add(&s, 1, 3);
    spans_add(&s, 3, 5);
    spans_add(&s, 7, 9);
    cr_assert_eq(s.n, 2);
    cr_assert(s.v[0].from == 1 && s.v[0].to == 5);
    cr_assert_eq(spans_seek(&s, 0, 4), 0);
    cr_assert_eq(spans_seek(&s, 0, 5), 1);
    cr_assert_eq(spans_seek(&s, 0, 9), 2);
    spans_cut(&s, 8);
    cr_assert_eq(s.v[1].to, 8);
    spans_cut(&s, 7);
    cr_assert_eq(s.n, 1);
    spans_cut(&s, 0);
    cr_assert_eq(s.n, 0);
    spans_fini(&s);
}
