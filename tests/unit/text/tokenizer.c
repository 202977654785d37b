/* tokenizer: the front door; and the real model's ids, as independent tokenizers give them. */
#include "text/tokenizer.h"

#include "make_vocab.h"
#include "text/detok.h"
#include "text_files.h"

#include <stdlib.h>
#include <unistd.h>

static void expect_text(const struct vocab *v, const json_t *ids, const json_t *text, const char *what)
{
    struct detok d;
    struct strbuf out = STRBUF_INIT;
    size_t i;
    const json_t *id;

    detok_init(&d, v, true);
    json_array_foreach(ids, i, id) detok_add(&d, (int32_t)json_integer_value(id), &out);
    detok_flush(&d, &out);
    cr_assert_eq(out.n, json_string_length(text), "%s: \"%s\"", what, strbuf_cstr(&out));
    cr_assert_eq(memcmp(strbuf_cstr(&out), json_string_value(text), out.n), 0, "%s", what);
    strbuf_fini(&out);
}

Test(tokenizer, real_model_prompts_equal_the_reference)
{
    struct vocab *v = real_vocab();
    struct tokenizer *t = tokenizer_of(v);
    json_t *golden = load_json(TEST_DATA "/golden/smollm2.json");
    size_t i;
    const json_t *c;

    json_array_foreach(golden, i, c)
    {
        const json_t *text = json_object_get(c, "text"), *ids = json_object_get(c, "ids");
        const char *name = json_string_value(json_object_get(c, "name"));
        expect_ids(t, json_string_value(text), json_string_length(text),
                   (struct encode_options){ .parse_special = true, .add_special = true }, ids, name);
        expect_text(v, ids, text, name);
    }
    cr_assert_eq(i, 18);
    tokenizer_destroy(t);
    vocab_destroy(v);
    json_decref(golden);
}

Test(tokenizer, real_model_odd_texts_equal_the_reference)
{
    struct vocab *v = real_vocab();
    struct tokenizer *t = tokenizer_of(v);
    json_t *golden = load_json(TEST_DATA "/golden/tokens/smollm.json");
    size_t i;
    const json_t *c;

    json_array_foreach(golden, i, c)
    {
        const json_t *text = json_object_get(c, "text");
        char what[32];
        snprintf(what, sizeof(what), "case %zu", i);
        expect_ids(t, json_string_value(text), json_string_length(text),
                   (struct encode_options){ .parse_special = json_is_true(json_object_get(c, "special")) },
                   json_object_get(c, "ids"), what);
    }
    cr_assert_gt(i, 300);
    tokenizer_destroy(t);
    vocab_destroy(v);
    json_decref(golden);
}

static const struct encode_options PLAIN = { 0 }, SPECIAL = { .parse_special = true }, ADD = { .add_special = true };

/* Ids: letters, then control <s> <s>> <end>, and user-defined [[ and [[[. */
#define SMALL                                                                                                          \
    "{\"kind\": \"gpt2\", \"pre\": \"gpt-2\", \"tokens\": [\"a\", \"b\", \"<\", \"s\", \">\", \"[\", \"<s>\", "        \
    "\"<s>>\","                                                                                                        \
    "\"<end>\", \"[[\", \"[[[\"], \"types\": [1,1,1,1,1,1,3,3,3,4,4], \"bos\": 6, \"eos\": 8, \"add_bos\": true,"      \
    "\"add_eos\": true}"

static void expect(const char *text, struct encode_options opt, const char *ids)
{
    expect_encoding(SMALL, text, opt, ids);
}

/* What a family's name or kind decides: prefixed spaces, white space behind control tokens, merges of characters. */
Test(tokenizer, families_ids_equal_the_reference)
{
    json_t *golden = load_json(TEST_DATA "/golden/tokens/families.json");
    size_t f, i;
    const json_t *family, *c;

    json_array_foreach(golden, f, family)
    {
        struct vocab *v = vocab_from_json(json_object_get(family, "vocab"));
        struct tokenizer *t = tokenizer_of(v);
        json_array_foreach(json_object_get(family, "cases"), i, c)
        {
            const json_t *text = json_object_get(c, "text");
            const bool special = json_is_true(json_object_get(c, "special"));
            char what[48];
            snprintf(what, sizeof(what), "%s case %zu", json_string_value(json_object_get(family, "arch")), i);
            expect_ids(t, json_string_value(text), json_string_length(text),
                       (struct encode_options){ .parse_special = special, .add_special = true },
                       json_object_get(c, "ids"), what);
        }
        tokenizer_destroy(t);
        vocab_destroy(v);
    }
    cr_assert_eq(f, 3);
    json_decref(golden);
}

Test(tokenizer, control_tokens_are_parsed_only_where_asked)
{
    expect("a<s>b", PLAIN, "[0,2,3,4,1]");
    expect("a<s>b", SPECIAL, "[0,6,1]");
    expect("<s><s>", SPECIAL, "[6,6]");
    expect("<s", SPECIAL, "[2,3]");
}

Test(tokenizer, the_longest_special_token_wins)
{
    expect("<s>>", SPECIAL, "[7]");
    expect("[[[[", PLAIN, "[10,5]");
    expect("a[[b", PLAIN, "[0,9,1]");
}

Test(tokenizer, bos_and_eos_are_added_where_asked)
{
    expect("a", ADD, "[6,0,8]");
    expect("", ADD, "[6,8]");
    expect("a", PLAIN, "[0]");
}

static void expect_bad_utf8(const char *text, size_t n, const char *offset)
{
    struct vocab *v = vocab_of(SMALL);
    struct tokenizer *t = tokenizer_of(v);
    struct token_list out = { 0 };
    struct error err = { 0 };

    token_list_add(&out, 42);
    cr_assert_eq(tokenizer_encode(t, text, n, ADD, &out, &err), ERR_PARSE);
    cr_assert_not_null(strstr(err.text, offset), "%s", err.text);
    cr_assert_eq(out.n, 1, "a failed call must leave the list alone");
    cr_assert_eq(out.ids[0], 42);
    token_list_fini(&out);
    tokenizer_destroy(t);
    vocab_destroy(v);
}

Test(tokenizer, invalid_utf8_is_refused_with_its_offset)
{
    expect_bad_utf8("ab\xff", 3, "0xff at offset 2");
    expect_bad_utf8("\xc3", 1, "offset 0");
    expect_bad_utf8("aaaaaaaaaaaaaaaa\xe2\x82", 18, "offset 16");
    expect_bad_utf8("a\xed\xa0\x80", 4, "offset 1");
    expect_bad_utf8("a\xc0\xaf", 3, "offset 1");
    expect_bad_utf8("\xf4\x90\x80\x80", 4, "offset 0");
}

Test(tokenizer, an_unknown_pretokenizer_is_named)
{
    struct vocab *v = vocab_of("{\"kind\": \"gpt2\", \"pre\": \"from-the-future\", \"tokens\": [\"a\"]}");
    struct tokenizer *t = NULL;
    struct error err = { 0 };

    cr_assert_eq(tokenizer_create(&t, v, &err), ERR_UNSUPPORTED);
    cr_assert_not_null(strstr(err.text, "from-the-future"));
    cr_assert_null(t);
    vocab_destroy(v);
    tokenizer_destroy(NULL);
}

Test(tokenizer, appends_to_what_the_list_holds)
{
    struct vocab *v = vocab_of(SMALL);
    struct tokenizer *t = tokenizer_of(v);
    struct token_list out = { 0 };

    cr_assert_eq(tokenizer_encode(t, "a", 1, PLAIN, &out, NULL), OK);
    cr_assert_eq(tokenizer_encode(t, "b", 1, PLAIN, &out, NULL), OK);
    cr_assert_eq(out.n, 2);
    cr_assert(out.ids[0] == 0 && out.ids[1] == 1);
    token_list_fini(&out);
    tokenizer_destroy(t);
    vocab_destroy(v);
}

static size_t at_least(const char *json, const char *text)
{
    struct vocab *v = vocab_of(json);
    struct tokenizer *t = tokenizer_of(v);
    struct token_list out = { 0 };
    size_t n = tokenizer_at_least(t, text, strlen(text));
    cr_assert_eq(tokenizer_encode(t, text, strlen(text), ADD, &out, NULL), OK);
    cr_assert_leq(n, out.n, "%s", text);
    token_list_fini(&out);
    tokenizer_destroy(t);
    vocab_destroy(v);
    return n;
}

Test(tokenizer, the_longest_token_bounds_the_tokens_of_a_text)
{
    static const char words[] = "{\"kind\": \"llama\", \"tokens\": [\"<unk>\", \"\xe2\x96\x81word\", \"\xe2\x96\x81\"],"
                                " \"types\": [2, 1, 1], \"scores\": [0, -1, -2], \"unk\": 0}";
    static const char no_bytes[] = "{\"kind\": \"gpt2\", \"pre\": \"gpt-2\", \"tokens\": [\"a\", \"b\"]}";
    cr_assert_eq(at_least(words, " word word word word"), 4, "a mark is one space: five bytes at most");
    cr_assert_eq(at_least(no_bytes, "aaaaaaaa"), 2, "four bytes are taken for the longest");
    cr_assert_eq(at_least(no_bytes, "xxxxxxxxaaaa"), 1, "bytes without a token do not count");
    cr_assert_eq(at_least("{\"kind\": \"llama\", \"tokens\": [\"a\"]}", "bbbbbbbb"), 0, "all is left out");
}

Test(tokenizer, a_stopped_call_leaves_the_list_alone)
{
    static const char *const vocabularies[] = {
        SMALL, "{\"kind\": \"llama\", \"tokens\": [\"a\", \"aa\"], \"scores\": [0, -1], \"unk\": 0}"
    };
    for (int i = 0; i < 2; i++) {
        struct vocab *v = vocab_of(vocabularies[i]);
        struct tokenizer *t = tokenizer_of(v);
        struct token_list out = { 0 };
        struct error err = { 0 };
        atomic_bool stop = true;
        token_list_add(&out, 42);
        cr_assert_eq(tokenizer_encode(t, "aaaa", 4, (struct encode_options){ .stop = &stop }, &out, &err),
                     ERR_CANCELLED);
        cr_assert_eq(out.n, 1);
        atomic_store(&stop, false);
        cr_assert_eq(tokenizer_encode(t, "aaaa", 4, (struct encode_options){ .stop = &stop }, &out, &err), OK);
        cr_assert_gt(out.n, 1, "the tokenizer still works");
        token_list_fini(&out);
        tokenizer_destroy(t);
        vocab_destroy(v);
    }
}
