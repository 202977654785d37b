/* bpe: merges happen in the order of their ranks, quickly, and only between tokens. */
#include "text/bpe.h"

#include "make_vocab.h"

#include <time.h>

/* Letters, a double a, longer runs of it, and words that merges reach in a certain order. */
#define LETTERS "\"tokens\": [\"a\", \"b\", \"c\", \"aa\", \"aaaa\", \"ab\", \"bc\", \"abc\", \"\\u0120\", \"<x>\"]"

static struct vocab *letters(const char *pre, const char *merges)
{
    char json[1024];
    snprintf(json, sizeof(json),
             "{\"kind\": \"gpt2\", \"pre\": \"%s\", " LETTERS ", \"types\": [1,1,1,1,1,1,1,1,1,3], \"merges\": %s}",
             pre, merges);
    return vocab_of(json);
}

static void expect(const struct vocab *v, const char *text, const char *ids)
{
    struct tokenizer *t = tokenizer_of(v);
    json_t *want = json_loads(ids, 0, NULL);
    expect_ids(t, text, strlen(text), (struct encode_options){ 0 }, want, text);
    json_decref(want);
    tokenizer_destroy(t);
}

Test(bpe, lower_rank_merges_first_then_leftmost)
{
    struct vocab *v = letters("gpt-2", "[\"b c\", \"a b\", \"a a\"]");
    expect(v, "abc", "[0,6]");
    expect(v, "ab", "[5]");
    expect(v, "aaa", "[3,0]");
    expect(v, "", "[]");
    vocab_destroy(v);
}

Test(bpe, a_whole_piece_wins_over_merges_where_the_model_says_so)
{
    struct vocab *v = letters("gpt-2", "[\"b c\"]");
    expect(v, "abc", "[0,6]");
    vocab_destroy(v);
    v = letters("llama-bpe", "[\"b c\"]");
    expect(v, "abc", "[7]");
    vocab_destroy(v);
}

Test(bpe, merges_without_tokens_and_bytes_without_tokens_are_left_out)
{
    struct vocab *v = letters("gpt-2", "[\"c a\", \"zz b\", \"a b\"]");
    expect(v, "ca", "[2,0]");
    expect(v, "azb", "[5]"); /* z has no token, so a and b are neighbours */
    expect(v, "a\xc3\xa9", "[0]");
    vocab_destroy(v);
}

Test(bpe, a_control_token_is_never_spelled_by_text)
{
    struct vocab *v =
        vocab_of("{\"kind\": \"gpt2\", \"pre\": \"llama-bpe\", \"tokens\": [\"<\", \"x\", \"<x\"], \"types\":"
                 " [1, 1, 3], \"merges\": [\"< x\"]}");
    expect(v, "<x", "[0,1]");
    vocab_destroy(v);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

Test(bpe, a_megabyte_of_one_letter_is_quick)
{
    struct vocab *v = letters("smollm", "[\"a a\", \"aa aa\"]");
    struct tokenizer *t = tokenizer_of(v);
    struct token_list ids = { 0 };
    size_t n = 1 << 20;
    char *text = mem_alloc(n);
    double begin = seconds();

    memset(text, 'a', n);
    cr_assert_eq(tokenizer_encode(t, text, n, (struct encode_options){ 0 }, &ids, NULL), OK);
    cr_assert_eq(ids.n, n / 4);
    for (size_t i = 0; i < ids.n; i++) cr_assert_eq(ids.ids[i], 4);
    cr_assert_lt(seconds() - begin, 20.0, "quadratic in the length of a piece");
    token_list_fini(&ids);
    mem_free(text);
    tokenizer_destroy(t);
    vocab_destroy(v);
}
