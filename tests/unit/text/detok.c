/* detok: text comes out in whole UTF-8 sequences, whatever the tokens cut. */
#include "text/detok.h"

#include "make_vocab.h"
#include "text/utf8.h"

/* Byte tokens 0..255, then a few others. */
static struct vocab *byte_vocab(const char *kind)
{
    json_t *j = json_pack("{s:s, s:[], s:[], s:b}", "kind", kind, "tokens", "types", "add_space_prefix", 1);
    json_t *tokens = json_object_get(j, "tokens"), *types = json_object_get(j, "types");
    char name[8];
    for (int i = 0; i < 256; i++) {
        snprintf(name, sizeof(name), "<0x%02X>", i);
        json_array_append_new(tokens, json_string(name));
        json_array_append_new(types, json_integer(TOKEN_BYTE));
    }
    json_array_append_new(tokens, json_string("<|im_end|>"));
    json_array_append_new(types, json_integer(TOKEN_CONTROL));
    json_array_append_new(tokens, json_string("\xe2\x96\x81hi"));
    json_array_append_new(types, json_integer(TOKEN_NORMAL));
    struct vocab *v = vocab_from_json(j);
    json_decref(j);
    return v;
}

enum { IM_END = 256, HI = 257 };

/* Feeds bytes one by one; after each, what came out must be whole. */
static void expect_text(const struct vocab *v, const char *bytes, const char *want)
{
    struct detok d;
    struct strbuf out = STRBUF_INIT;
    detok_init(&d, v, false);
    for (const char *p = bytes; *p; p++) {
        detok_add(&d, (uint8_t)*p, &out);
        cr_assert_eq(utf8_check(strbuf_cstr(&out), out.n), out.n, "split sequence in \"%s\"", want);
    }
    detok_flush(&d, &out);
    cr_assert_str_eq(strbuf_cstr(&out), want);
    strbuf_fini(&out);
}

Test(detok, holds_bytes_back_until_the_sequence_is_whole)
{
    struct vocab *v = byte_vocab("gpt2");
    struct detok d;
    struct strbuf out = STRBUF_INIT;
    detok_init(&d, v, false);
    detok_add(&d, 0xf0, &out);
    detok_add(&d, 0x9f, &out);
    detok_add(&d, 0x98, &out);
    cr_assert_eq(out.n, 0);
    detok_add(&d, 0x80, &out);
    cr_assert_str_eq(strbuf_cstr(&out), "😀");
    strbuf_fini(&out);
    vocab_destroy(v);
}

/* The expectations are Python's bytes.decode("utf-8", "replace"). */
Test(detok, replaces_what_can_never_become_valid)
{
    struct vocab *v = byte_vocab("gpt2");
    expect_text(v, "a\xffz", "a�z");
    expect_text(v, "\xc0\xaf", "��");
    expect_text(v, "\xe0\x80\x80", "���");
    expect_text(v, "\xed\xa0\x80", "���");
    expect_text(v, "\xf0\x9f\x98", "�");
    expect_text(v, "\xf0\x9f\x98z", "�z");
    expect_text(v, "\xf4\x90\x80\x80", "����");
    expect_text(v, "\xe2\x82\xe2\x82\xac", "�€");
    expect_text(v, "\xf0\x9f\xc3\xa9", "�é");
    expect_text(v, "\x80\xbf", "��");
    expect_text(v, "\xf8\x88\x80\x80\x80", "�����");
    vocab_destroy(v);
}

Test(detok, shows_control_tokens_only_where_asked)
{
    struct vocab *v = byte_vocab("gpt2");
    struct detok d;
    struct strbuf out = STRBUF_INIT;
    detok_init(&d, v, false);
    detok_add(&d, 'a', &out);
    detok_add(&d, IM_END, &out);
    detok_add(&d, -1, &out);
    detok_add(&d, 99999, &out);
    cr_assert_str_eq(strbuf_cstr(&out), "a");
    strbuf_reset(&out);
    detok_init(&d, v, true);
    detok_add(&d, 0xe2, &out);
    detok_add(&d, IM_END, &out);
    cr_assert_str_eq(strbuf_cstr(&out), "�<|im_end|>");
    strbuf_fini(&out);
    vocab_destroy(v);
}

Test(detok, drops_the_space_that_spm_put_before_the_text)
{
    struct vocab *v = byte_vocab("llama");
    struct detok d;
    struct strbuf out = STRBUF_INIT;
    detok_init(&d, v, false);
    detok_add(&d, IM_END, &out);
    detok_add(&d, HI, &out);
    detok_add(&d, HI, &out);
    cr_assert_str_eq(strbuf_cstr(&out), "hi hi");
    strbuf_reset(&out);
    v->add_space_prefix = false;
    detok_init(&d, v, false);
    detok_add(&d, HI, &out);
    cr_assert_str_eq(strbuf_cstr(&out), " hi");
    strbuf_fini(&out);
    vocab_destroy(v);
}

Test(detok, a_token_of_any_length_comes_whole)
{
    char json[2048], text[1001];
    memset(text, 'x', 1000);
    text[1000] = '\0';
    snprintf(json, sizeof(json), "{\"kind\": \"gpt2\", \"tokens\": [\"%s\"]}", text);
    struct vocab *v = vocab_of(json);
    struct detok d;
    struct strbuf out = STRBUF_INIT;
    detok_init(&d, v, false);
    detok_add(&d, 0, &out);
    cr_assert_str_eq(strbuf_cstr(&out), text);
    strbuf_fini(&out);
    vocab_destroy(v);
}
