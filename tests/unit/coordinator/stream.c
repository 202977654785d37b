/* stream: text is shown when it is certain, cut at stop strings, never half a character. */
#include "coordinator/stream.h"
#include "coordinator/openai.h"
#include "tests/unit/coordinator/tiny_model.h"

#include <criterion/criterion.h>

static void expect_feed(struct stream *s, int32_t id, const char *shown, bool stop)
{
    struct strbuf out = STRBUF_INIT;
    cr_assert_eq(stream_feed(s, id, &out), stop, "token %d", id);
    cr_assert_str_eq(strbuf_cstr(&out), shown, "token %d", id);
    strbuf_fini(&out);
}

static struct stream stream_with(const struct api_stop *stops, uint32_t n, uint32_t min_tokens)
{
    struct stream s;
    stream_init(&s, tiny_model()->vocab, stops, n, min_tokens);
    return s;
}

Test(stream, shows_text_at_once_without_stops)
{
    struct stream s = stream_with(NULL, 0, 0);
    expect_feed(&s, TINY_HELLO, "Hello", false);
    expect_feed(&s, TINY_WORLD, " world", false);
    expect_feed(&s, TINY_END, "", false);
    cr_assert_eq(s.chars, 11);
    stream_fini(&s);
}

Test(stream, keeps_the_first_space_of_an_answer)
{
    struct vocab_token tokens[] = { { "\xE2\x96\x81Hello", 8, 0, TOKEN_NORMAL } };
    const struct vocab vocab = { .kind = VOCAB_SPM, .n_tokens = 1, .tokens = tokens, .add_space_prefix = true };
    struct stream s;
    stream_init(&s, &vocab, NULL, 0, 0);
    expect_feed(&s, 0, " Hello", false);
    stream_fini(&s);
}

Test(stream, holds_a_split_character_back)
{
    struct stream s = stream_with(NULL, 0, 0);
    expect_feed(&s, TINY_EURO_1, "", false);
    expect_feed(&s, TINY_EURO_2, "\xE2\x82\xAC", false);
    cr_assert_eq(s.chars, 1);
    stream_fini(&s);
}

Test(stream, replaces_an_unfinished_character_at_the_end)
{
    struct stream s = stream_with(NULL, 0, 0);
    struct strbuf out = STRBUF_INIT;
    expect_feed(&s, TINY_EURO_1, "", false);
    stream_finish(&s, &out);
    cr_assert_str_eq(strbuf_cstr(&out), "\xEF\xBF\xBD");
    strbuf_fini(&out);
    stream_fini(&s);
}

Test(stream, cuts_a_stop_string_that_spans_tokens)
{
    struct api_stop stop = { (char *)"STOP", 4 };
    struct stream s = stream_with(&stop, 1, 0);
    expect_feed(&s, TINY_HELLO, "Hello", false);
    expect_feed(&s, TINY_STOP_A, "", false);
    expect_feed(&s, TINY_STOP_B, "", true);
    cr_assert(s.chars == 5 && s.n_tokens == 3);
    stream_fini(&s);
}

Test(stream, releases_a_prefix_that_was_no_stop)
{
    struct api_stop stop = { (char *)"STOP", 4 };
    struct stream s = stream_with(&stop, 1, 0);
    expect_feed(&s, TINY_STOP_A, "", false);
    expect_feed(&s, TINY_X, "STx", false);
    expect_feed(&s, TINY_STOP_A, "", false);
    struct strbuf out = STRBUF_INIT;
    stream_finish(&s, &out);
    cr_assert_str_eq(strbuf_cstr(&out), "ST");
    strbuf_fini(&out);
    stream_fini(&s);
}

Test(stream, takes_the_earliest_of_several_stops)
{
    struct api_stop stops[] = { { (char *)"rld", 3 }, { (char *)"o w", 3 } };
    struct stream s = stream_with(stops, 2, 0);
    expect_feed(&s, TINY_HELLO, "Hell", false);
    expect_feed(&s, TINY_WORLD, "", true);
    cr_assert_eq(s.chars, 4);
    stream_fini(&s);
}

Test(stream, does_not_stop_before_min_tokens)
{
    struct api_stop stop = { (char *)"x", 1 };
    struct stream s = stream_with(&stop, 1, 3);
    expect_feed(&s, TINY_X, "x", false);
    expect_feed(&s, TINY_X, "x", false);
    expect_feed(&s, TINY_X, "", true);
    stream_fini(&s);
}
