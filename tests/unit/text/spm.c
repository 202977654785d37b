/* spm: ids equal SentencePiece's own; odd vocabularies lose nothing silently that has a token. */
#include "text/spm.h"

#include "make_vocab.h"

Test(spm, ids_equal_sentencepiece)
{
    json_t *golden = load_json(TEST_DATA "/golden/tokens/spm.json");
    struct vocab *v = vocab_from_json(json_object_get(golden, "vocab"));
    struct tokenizer *t = tokenizer_of(v);
    size_t i;
    const json_t *c;
    json_array_foreach(json_object_get(golden, "cases"), i, c)
    {
        const json_t *text = json_object_get(c, "text");
        char what[32];
        snprintf(what, sizeof(what), "case %zu", i);
        expect_ids(t, json_string_value(text), json_string_length(text), (struct encode_options){ 0 },
                   json_object_get(c, "ids"), what);
    }
    tokenizer_destroy(t);
    vocab_destroy(v);
    json_decref(golden);
}

#define SMALL                                                                                                          \
    "{\"kind\": \"llama\", \"tokens\": [\"<unk>\", \"<s>\", \"</s>\", \"a\", \"b\", \"\\u2581\", \"ab\", "             \
    "\"\\u2581a\", "                                                                                                   \
    "\"<\", \"s\", \">\", \"<s\", \"[x]\"], \"types\": [2, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 4],"                       \
    "\"scores\": [0, 0, 0, -9, -9, -9, -1, -2, -9, -9, -9, -3, 0], \"bos\": 1, \"eos\": 2, \"unk\": 0,"                \
    "\"add_bos\": true, \"add_eos\": true, \"add_space_prefix\": true}"

static const struct encode_options PLAIN = { 0 }, SPECIAL = { .parse_special = true }, ADD = { .add_special = true };

Test(spm, the_best_score_merges_first)
{
    expect_encoding(SMALL, "ab", PLAIN, "[5,6]");
    expect_encoding(SMALL, "a b", PLAIN, "[7,5,4]");
}

Test(spm, control_tokens_are_not_spelled_by_text)
{
    expect_encoding(SMALL, "<s>", PLAIN, "[5,11,10]");
    expect_encoding(SMALL, "<s>", SPECIAL, "[1]");
    expect_encoding(SMALL, "<s>a</s>", SPECIAL, "[1,7,2]");
}

Test(spm, user_defined_tokens_are_always_matched)
{
    expect_encoding(SMALL, "b[x]b", PLAIN, "[5,4,12,5,4]");
}

Test(spm, bos_and_eos_are_added_where_asked)
{
    expect_encoding(SMALL, "", ADD, "[1,2]");
    expect_encoding(SMALL, "", PLAIN, "[]");
    expect_encoding(SMALL, "a", ADD, "[1,7,2]");
}

Test(spm, a_character_without_bytes_is_one_unknown_token)
{
    expect_encoding(SMALL, "a日", PLAIN, "[7,0]");
    expect_encoding("{\"kind\": \"llama\", \"tokens\": [\"a\", \"<0xC3>\"], \"types\": [1, 6]}", "a\xc3\xa9", PLAIN,
                    "[0]");
    expect_encoding("{\"kind\": \"llama\", \"tokens\": [\"a\", \"<0xC3>\", \"<0xA9>\"], \"types\": [1, 6, 6]}",
                    "a\xc3\xa9", PLAIN, "[0,1,2]");
}

Test(spm, a_megabyte_of_one_letter_ends)
{
    struct vocab *v =
        vocab_of("{\"kind\": \"llama\", \"tokens\": [\"a\", \"aa\", \"aaaa\"], \"scores\": [-3, -1, -2]}");
    struct tokenizer *t = tokenizer_of(v);
    struct token_list ids = { 0 };
    size_t n = 1 << 20;
    char *text = mem_alloc(n);
    memset(text, 'a', n);
    cr_assert_eq(tokenizer_encode(t, text, n, PLAIN, &ids, NULL), OK);
    cr_assert_eq(ids.n, n / 4);
    memset(text, ' ', n); /* no token at all, and no unknown one */
    ids.n = 0;
    cr_assert_eq(tokenizer_encode(t, text, n, PLAIN, &ids, NULL), OK);
    cr_assert_eq(ids.n, 0);
    token_list_fini(&ids);
    mem_free(text);
    tokenizer_destroy(t);
    vocab_destroy(v);
}
